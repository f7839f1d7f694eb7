//! Records in one SQLite file.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::store::Record;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};

use super::Store;
use crate::keys::Pending;
use crate::lock;

/// The value of `PRAGMA application_id` in our files: "lpgw".
const APPLICATION: i32 = 0x6c70_6777;
/// The value of `PRAGMA user_version` in files with the table below.
const VERSION: i32 = 1;
/// How long to wait for another process that is about to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// At most this many records are made durable by one commit, unless they came together.
const MAX_BATCH: usize = 4_096;

/// Keeps records in a file, through crashes and power loss. Clones share it.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use livepeer_runtime::store::{Sqlite, Store as _};
///
/// let store = Sqlite::open("gateway.db".as_ref())?;
/// for record in store.load("nonce:")? {
///     println!("{}", record.key);
/// }
/// // let driver = driver.with_store(store);
/// # Ok(()) }
/// ```
///
/// A thread of its own writes. What waits is written in one transaction, and [`Store::put`] ends when that is on
/// disk (write-ahead log, `synchronous = FULL`), so the price of a flush is shared by all who wait for it.
///
/// A single process at a time has the file: two that count the same money would both be wrong. Dropping the last clone
/// writes what waits and closes the file.
#[derive(Clone, Debug)]
pub struct Sqlite(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` only while it is dropped.
    jobs: Mutex<Option<Sender<Job>>>,
    writer: Option<JoinHandle<()>>,
}

enum Job {
    Put(Vec<Record>, async_channel::Sender<io::Result<()>>),
    Load(String, Sender<io::Result<Vec<Record>>>),
}

/// The reason why a file cannot be used as a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error("another process uses it")]
    InUse,
    /// The file is not a store of records.
    #[error("it is not a store of records")]
    Foreign,
    /// A later version of this program made it.
    #[error("it was made by a later version of this program")]
    Newer,
    /// The system does not let us.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The database cannot be opened or made.
    #[error("{0}")]
    Database(String),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse,
            Some(ErrorCode::NotADatabase) => Self::Foreign,
            _ => Self::Database(error.to_string()),
        }
    }
}

impl Sqlite {
    /// Opens the file at `path`, or makes one that only its owner can read.
    ///
    /// # Errors
    /// If it is no store, is in use, or cannot be read and written.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        make_private(path)?;
        let db = connect(path)?;
        let (jobs, waiting) = channel();
        let writer = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write(db, &waiting))?;
        Ok(Self(Arc::new(Inner {
            jobs: Mutex::new(Some(jobs)),
            writer: Some(writer),
        })))
    }

    fn send(&self, job: Job) -> io::Result<()> {
        match &*lock(&self.0.jobs) {
            Some(jobs) => jobs.send(job).map_err(|_| closed()),
            None => Err(closed()),
        }
    }
}

impl Store for Sqlite {
    fn put(&self, records: Vec<Record>) -> Pending<'_, io::Result<()>> {
        let (answer, answered) = async_channel::bounded(1);
        let sent = self.send(Job::Put(records, answer));
        Box::pin(async move {
            sent?;
            answered.recv().await.map_err(|_| closed())?
        })
    }

    fn load(&self, prefix: &str) -> io::Result<Vec<Record>> {
        let (answer, answered) = channel();
        self.send(Job::Load(prefix.to_owned(), answer))?;
        answered.recv().map_err(|_| closed())?
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        *lock(&self.jobs) = None;
        if let Some(writer) = self.writer.take() {
            // It panics only if SQLite does, and then there is nothing left to save.
            let _ = writer.join();
        }
    }
}

/// Winning tickets are worth money to whoever reads them, so the file is made before SQLite would.
fn make_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path).map(drop)
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    // A path is never taken for a URI.
    let path: PathBuf = std::path::absolute(path)?;
    let flags =
        rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(PATIENCE)?;
    // Before the log: with the lock for ourselves it needs no shared memory.
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive)?;
    let number =
        |name: &str| transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    match (application, version) {
        (APPLICATION, VERSION) => {}
        (APPLICATION, _) => return Err(OpenError::Newer),
        _ => {
            let used = transaction
                .query_row("SELECT 1 FROM sqlite_schema LIMIT 1", [], |_| Ok(()))
                .optional()?
                .is_some();
            if used || application != 0 {
                return Err(OpenError::Foreign);
            }
            transaction.execute_batch(
                "CREATE TABLE record (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
            )?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
    }
    transaction.commit()?;
    Ok(db)
}

/// Does what is asked until nobody can ask any more. What waits together is committed together.
fn write(mut db: Connection, waiting: &Receiver<Job>) {
    while let Ok(first) = waiting.recv() {
        let mut next = Some(first);
        while let Some(job) = next.take() {
            let (records, answer) = match job {
                Job::Load(prefix, answer) => {
                    // Who asked may be gone.
                    let _ = answer.send(load(&db, &prefix).map_err(io::Error::other));
                    continue;
                }
                Job::Put(records, answer) => (records, answer),
            };
            let (mut batch, mut answers) = (records, vec![answer]);
            while batch.len() < MAX_BATCH {
                match waiting.try_recv() {
                    Ok(Job::Put(records, answer)) => {
                        batch.extend(records);
                        answers.push(answer);
                    }
                    Ok(load) => {
                        next = Some(load);
                        break;
                    }
                    Err(_) => break,
                }
            }
            let result = put(&mut db, &batch);
            for answer in answers {
                let told = match &result {
                    Ok(()) => Ok(()),
                    Err(error) => Err(io::Error::other(error.to_string())),
                };
                let _ = answer.try_send(told);
            }
        }
    }
    if let Err((_, error)) = db.close() {
        tracing::warn!(%error, "the store was not closed cleanly; nothing is lost");
    }
}

fn put(db: &mut Connection, records: &[Record]) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    {
        let mut set = transaction.prepare_cached(
            "INSERT INTO record VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )?;
        let mut unset = transaction.prepare_cached("DELETE FROM record WHERE key = ?1")?;
        for Record { key, value } in records {
            match value {
                Some(value) => set.execute(params![key, &**value])?,
                None => unset.execute(params![key])?,
            };
        }
    }
    transaction.commit()
}

fn load(db: &Connection, prefix: &str) -> rusqlite::Result<Vec<Record>> {
    let mut query =
        db.prepare_cached("SELECT key, value FROM record WHERE key >= ?1 ORDER BY key")?;
    let mut rows = query.query(params![prefix])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let key: String = row.get(0)?;
        if !key.starts_with(prefix) {
            break;
        }
        let value: Vec<u8> = row.get(1)?;
        found.push(Record {
            key,
            value: Some(Bytes::from(value)),
        });
    }
    Ok(found)
}

fn closed() -> io::Error {
    io::Error::other("the store has closed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    fn record(key: &str, value: Option<&str>) -> Record {
        Record {
            key: key.into(),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        }
    }

    fn wait<T>(mut pending: Pending<'_, T>) -> T {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match pending.as_mut().poll(&mut cx) {
                Poll::Ready(value) => return value,
                Poll::Pending => std::thread::yield_now(),
            }
        }
    }

    /// A folder that is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("livepeer-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a folder for the test");
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("store.db")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn records_come_back_after_a_restart_by_prefix() {
        let folder = Folder::new("restart");
        let store = Sqlite::open(&folder.file()).expect("a new store");
        wait(store.put(vec![
            record("a:1", Some("one")),
            record("b:1", Some("x")),
            record("b:2", Some("y")),
            record("b;", Some("after")),
        ]))
        .expect("stored");
        wait(store.put(vec![record("b:1", None), record("b:2", Some("z"))])).expect("stored");
        drop(store);
        let store = Sqlite::open(&folder.file()).expect("the same store");
        assert_eq!(store.load("b:").expect("read"), [record("b:2", Some("z"))]);
        assert_eq!(store.load("").expect("read").len(), 3);
        assert_eq!(store.load("c").expect("read"), []);
    }

    #[test]
    fn what_waits_is_committed_together_and_in_order() {
        let folder = Folder::new("group");
        let store = Sqlite::open(&folder.file()).expect("a new store");
        let pending: Vec<_> = (0..500)
            .map(|n| {
                store.put(vec![
                    record("same", Some(&n.to_string())),
                    record(&format!("n:{n:03}"), Some("")),
                ])
            })
            .collect();
        for one in pending {
            wait(one).expect("stored");
        }
        assert_eq!(
            store.load("same").expect("read"),
            [record("same", Some("499"))]
        );
        assert_eq!(store.load("n:").expect("read").len(), 500);
    }

    #[test]
    fn a_file_has_one_owner() {
        let folder = Folder::new("owner");
        let store = Sqlite::open(&folder.file()).expect("a new store");
        assert!(matches!(
            Sqlite::open(&folder.file()),
            Err(OpenError::InUse)
        ));
        drop(store);
        Sqlite::open(&folder.file()).expect("its owner is gone");
    }

    #[test]
    fn what_is_no_store_is_left_alone() {
        let folder = Folder::new("foreign");
        std::fs::write(folder.file(), "a letter to a friend, long enough for a header of SQLite's own, which has a hundred bytes").expect("written");
        assert!(matches!(
            Sqlite::open(&folder.file()),
            Err(OpenError::Foreign)
        ));
        let other = folder.0.join("other.db");
        let db = Connection::open(&other).expect("another database");
        db.execute_batch("CREATE TABLE theirs (x)")
            .expect("a table");
        drop(db);
        assert!(matches!(Sqlite::open(&other), Err(OpenError::Foreign)));
        assert!(matches!(Sqlite::open(&folder.0), Err(OpenError::Io(_))));
        assert!(matches!(
            Sqlite::open(&folder.0.join("no/such/folder")),
            Err(OpenError::Io(_))
        ));
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_reads_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = Folder::new("mode");
        let store = Sqlite::open(&folder.file()).expect("a new store");
        wait(store.put(vec![record("a", Some("b"))])).expect("stored");
        for entry in std::fs::read_dir(&folder.0).expect("a folder") {
            let mode = entry
                .expect("a file")
                .metadata()
                .expect("known")
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0);
        }
    }
}
