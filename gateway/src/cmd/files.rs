//! Files that commands write: that none of them is another one at the same time, and that none is lost half-way.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::args::Place;
use crate::ui::{Failed, Outcome};

/// The files of one command, by the options that name them.
#[derive(Default)]
pub(super) struct Files(Vec<Used>);

struct Used {
    option: &'static str,
    file: Identity,
    written: bool,
}

/// The identity of a file, by which two names are found to mean the same file.
#[derive(PartialEq, Eq)]
enum Identity {
    /// A file that is there: links, hard ones too, lead to the same.
    #[cfg(unix)]
    Node(u64, u64),
    /// A file that is not there yet, or any file where the system has no numbers for files: its path without links.
    Path(PathBuf),
}

impl Files {
    /// Adds a file that is only read.
    pub(super) fn reads(mut self, option: &'static str, path: Option<&Path>) -> Self {
        self.add(option, path.and_then(identity), false);
        self
    }

    /// Adds a file that is written, or read and written.
    pub(super) fn writes(mut self, option: &'static str, path: Option<&Path>) -> Self {
        self.add(option, path.and_then(identity), true);
        self
    }

    /// Adds an input that may be standard input.
    pub(super) fn input(mut self, option: &'static str, place: &Place) -> Self {
        let file = match place {
            Place::File(path) => identity(path),
            Place::Standard => standard(&io::stdin()),
        };
        self.add(option, file, false);
        self
    }

    /// Adds an output that may be standard output.
    pub(super) fn output(mut self, option: &'static str, place: &Place) -> Self {
        let file = match place {
            Place::File(path) => identity(path),
            Place::Standard => standard(&io::stdout()),
        };
        self.add(option, file, true);
        self
    }

    fn add(&mut self, option: &'static str, file: Option<Identity>, written: bool) {
        self.0.extend(file.map(|file| Used {
            option,
            file,
            written,
        }));
    }

    /// Makes sure that nothing is written over what another option means. To be called before anything is created.
    ///
    /// # Errors
    /// If two options name one file, and one of them writes it.
    pub(super) fn are_apart(&self, command: &str) -> Outcome {
        for (at, one) in self.0.iter().enumerate() {
            let clash = |other: &&Used| (one.written || other.written) && one.file == other.file;
            if let Some(other) = self.0[at + 1..].iter().find(clash) {
                return Err(Failed::usage(
                    format_args!("{} and {} name the same file", one.option, other.option),
                    command,
                ));
            }
        }
        Ok(())
    }
}

/// The identity of the file at a path; `None` for a file that may be used twice, such as a terminal or `/dev/null`, and
/// for one that cannot be looked at: opening it reports that.
fn identity(path: &Path) -> Option<Identity> {
    match fs::metadata(path) {
        Ok(data) => of(&data, path),
        // It may come to be while the command runs.
        Err(_) => {
            let folder = match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let folder = fs::canonicalize(folder).ok()?;
            Some(Identity::Path(folder.join(path.file_name()?)))
        }
    }
}

#[cfg(unix)]
fn of(data: &Metadata, _: &Path) -> Option<Identity> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let shared = data.file_type().is_char_device();
    (!shared).then(|| Identity::Node(data.dev(), data.ino()))
}

#[cfg(not(unix))]
fn of(data: &Metadata, path: &Path) -> Option<Identity> {
    let path = data.is_file().then(|| fs::canonicalize(path));
    path?.ok().map(Identity::Path)
}

/// The file behind a standard stream.
#[cfg(unix)]
fn standard(stream: &impl std::os::fd::AsFd) -> Option<Identity> {
    let file = File::from(stream.as_fd().try_clone_to_owned().ok()?);
    let data = file.metadata().ok()?;
    data.is_file().then(|| of(&data, Path::new("-")))?
}

#[cfg(not(unix))]
fn standard<S>(_: &S) -> Option<Identity> {
    None
}

/// A file for a stream that comes bit by bit. Readers may follow it, so it is written where it will stay; what was
/// there before is kept until the first byte comes, when everything that fails at once has had its chance.
pub(super) struct Late {
    file: File,
    fresh: bool,
}

impl Late {
    /// Opens the file, or creates an empty one. Nothing is lost yet.
    ///
    /// # Errors
    /// If that cannot be done.
    pub(super) fn open(path: &Path) -> Result<Self, Failed> {
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).open(path);
        let file = opened
            .map_err(|error| Failed::file("cannot create", &path.display().to_string(), &error))?;
        Ok(Self { file, fresh: false })
    }
}

impl Write for Late {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.flush()?;
        self.file.write(bytes)
    }

    /// Begins the file, should nothing have been written yet.
    fn flush(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.fresh, true) && self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.flush()
    }
}

/// Puts a text in the place of a file: all of it or nothing, and a crash in between leaves what was there.
///
/// # Errors
/// If it cannot be written.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    // A link stays one, and what is no file cannot be replaced by one.
    let path = match fs::canonicalize(path) {
        Ok(path) if fs::metadata(&path)?.is_file() => path,
        Ok(path) => return fs::write(path, text),
        Err(_) => path.to_owned(),
    };
    // Two programs may do this at a time.
    let mut beside = path.clone().into_os_string();
    beside.push(format!(".{}.new", std::process::id()));
    let written = File::create(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            if let Ok(before) = fs::metadata(&path) {
                file.set_permissions(before.permissions())?;
            }
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        // It has no use; that it stays would be the smaller fault.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, removed with this.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("livepeer-files-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).expect("a folder for the test");
            Self(path)
        }

        fn with(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).expect("there is room");
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn one_file_under_two_names_is_one_file() {
        let folder = Folder::new("names");
        let file = folder.with("a", "kept");
        let apart = |one: &Path, other: &Path| {
            let files = Files::default().reads("--a", Some(one));
            files.writes("--b", Some(other)).are_apart("live").is_ok()
        };
        assert!(!apart(&file, &folder.0.join(".").join("a")));
        assert!(!apart(&folder.0.join("new"), &folder.0.join("./new")));
        assert!(apart(&file, &folder.with("b", "kept")));
        assert!(apart(&file, &folder.0.join("no/such/folder")));
        let files = Files::default().reads("--a", Some(&file));
        assert!(files.reads("--b", Some(&file)).are_apart("live").is_ok());
        #[cfg(unix)]
        {
            let (soft, hard) = (folder.0.join("soft"), folder.0.join("hard"));
            std::os::unix::fs::symlink(&file, &soft).expect("a link");
            fs::hard_link(&file, &hard).expect("a link");
            assert!(!apart(&file, &soft) && !apart(&file, &hard) && !apart(&soft, &hard));
            assert!(apart(Path::new("/dev/null"), Path::new("/dev/null")));
        }
    }

    #[test]
    fn a_stream_replaces_a_file_with_its_first_byte() {
        let folder = Folder::new("late");
        let path = folder.with("out", "what was there");
        let text = || fs::read_to_string(&path).expect("it is there");
        drop(Late::open(&path).expect("it opens"));
        assert_eq!(text(), "what was there");
        let mut late = Late::open(&path).expect("it opens");
        late.write_all(b"x").expect("there is room");
        late.write_all(b"y").expect("there is room");
        assert_eq!(text(), "xy");
        // A stream without a byte replaces it too, once it is known to be one.
        Late::open(&path)
            .expect("it opens")
            .flush()
            .expect("there is room");
        assert_eq!(text(), "");
    }

    #[test]
    fn a_text_replaces_a_file_whole_and_leaves_links_alone() {
        let folder = Folder::new("whole");
        let path = folder.with("pins", "before");
        replace(&path, "after").expect("there is room");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "after");
        replace(&folder.0.join("new"), "first").expect("there is room");
        #[cfg(unix)]
        {
            let link = folder.0.join("link");
            std::os::unix::fs::symlink(&path, &link).expect("a link");
            replace(&link, "through").expect("there is room");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), "through");
            assert!(link.is_symlink());
            replace(Path::new("/dev/null"), "nothing").expect("it takes all");
            assert!(!fs::metadata("/dev/null").expect("it is there").is_file());
        }
        let left: Vec<_> = fs::read_dir(&folder.0).expect("a folder").collect();
        assert_eq!(left.len(), if cfg!(unix) { 3 } else { 2 });
    }
}
