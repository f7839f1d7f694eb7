//! State that an orchestrator of the development network keeps from one run to the next: its identity, the nonces it
//! has seen, and the tickets that won.

use std::path::Path;

use livepeer_core::Time;
use livepeer_core::payment::Secret;
use livepeer_core::store::Record;
use livepeer_runtime::store::{Sqlite, Store as _};
use livepeer_runtime::tls::{BadIdentity, Identity};
use livepeer_runtime::{LocalKey, seed};
use zeroize::Zeroizing;

use crate::ui::Failed;

/// The records of who it is: its key and the secret behind its quotes; and its certificate with key.
const IDENTITY: &str = "identity:";
const CERTIFICATE: &str = "certificate:";

/// The past of one orchestrator. Of a new one it is short.
pub(super) struct Past {
    pub(super) key: LocalKey,
    pub(super) identity: Identity,
    /// `None` forgets all of it.
    pub(super) books: Option<Books>,
}

/// Records that an orchestrator makes durable, and the store they are in.
pub(super) struct Books {
    pub(super) store: Sqlite,
    /// The secret by which quotes from before are recognised.
    pub(super) secret: Secret,
    pub(super) records: Vec<Record>,
}

impl Past {
    /// Opens the file of the orchestrator with that number, or begins it for one that is reached at `host`.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub(super) async fn open(
        folder: &Path,
        number: u8,
        host: &str,
        now: Time,
    ) -> Result<Self, Failed> {
        let path = folder.join(format!("orchestrator-{number}.db"));
        let name = path.display();
        let failed = |error: &dyn std::fmt::Display| {
            Failed::new(
                format_args!("cannot use {name} as a store: {error}"),
                "Name another folder with --data, or stop who uses this one",
            )
        };
        std::fs::create_dir_all(folder)
            .map_err(|error| Failed::file("cannot make", &folder.display().to_string(), &error))?;
        let store = Sqlite::open(&path).map_err(|error| failed(&error))?;
        let mut records = store.load("").map_err(|error| failed(&error))?;
        if !records.iter().any(|record| record.key == CERTIFICATE) {
            let made = fresh(host, now).map_err(|error| failed(&error))?;
            records.extend(made.clone());
            // Before anybody hears of it.
            store.put(made).await.map_err(|error| failed(&error))?;
        }
        let mut take = |key: &str| {
            let at = records.iter().position(|record| record.key == key)?;
            records.swap_remove(at).value
        };
        let keys = take(IDENTITY).unwrap_or_default();
        let read = keys.split_at_checked(32).and_then(|(key, secret)| {
            let key = LocalKey::new(key.try_into().ok()?).ok()?;
            Some((key, Secret(secret.try_into().ok()?)))
        });
        let (key, secret) = read.ok_or_else(|| failed(&"its identity is malformed"))?;
        let pem = Zeroizing::new(take(CERTIFICATE).unwrap_or_default().to_vec());
        let identity = Identity::from_pem(&pem, &pem).map_err(|error| failed(&error))?;
        Ok(Self {
            key,
            identity,
            books: Some(Books {
                store,
                secret,
                records,
            }),
        })
    }
}

/// Somebody new.
fn fresh(host: &str, now: Time) -> Result<Vec<Record>, BadIdentity> {
    let mut keys = Zeroizing::new([0; 64]);
    keys[..32].copy_from_slice(&seed());
    keys[32..].copy_from_slice(&seed());
    let pem = Identity::self_signed_pem(host, now)?;
    let record = |key: &str, value: Vec<u8>| Record {
        key: key.into(),
        value: Some(value.into()),
    };
    Ok(vec![
        record(IDENTITY, keys.to_vec()),
        record(CERTIFICATE, pem.into_bytes()),
    ])
}
