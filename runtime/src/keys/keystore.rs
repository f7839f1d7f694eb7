//! Keys in encrypted files.

use std::io::Read as _;
use std::path::Path;

use eth_keystore::KeystoreError;
use livepeer_core::Address;
use livepeer_core::wire::WireError;
use livepeer_core::wire::keystore::{Keystore, MAX_KEYSTORE_BYTES};
use zeroize::Zeroizing;

use super::{BadKey, KeyHolder as _, LocalKey};

/// The reason why a keystore gives no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreProblem {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is not a keystore of version 3.
    #[error("{}", .0.why)]
    Malformed(WireError),
    /// The keystore does not open with this password.
    #[error("the password is wrong")]
    WrongPassword,
    /// The decrypted content is not a key.
    #[error(transparent)]
    BadKey(#[from] BadKey),
    /// The address written in the keystore is not the address of its key.
    #[error("it says that it is of {said}, but its key is of {is}")]
    OtherKey {
        /// The address that the file states.
        said: Address,
        /// The address of the key in the file.
        is: Address,
    },
    /// The library that opens it failed.
    #[error("{0}")]
    Other(String),
}

impl LocalKey {
    /// Reads an encrypted key file: Web3 secret storage, version 3, as geth writes it. Takes as long as the file
    /// demands, usually a second, and up to a gigabyte of memory meanwhile.
    ///
    /// # Errors
    /// If the file is none, or the password is wrong.
    pub fn from_keystore(path: &Path, password: &str) -> Result<Self, KeystoreProblem> {
        let mut text = Vec::new();
        std::fs::File::open(path)?
            .take(MAX_KEYSTORE_BYTES as u64 + 1)
            .read_to_end(&mut text)?;
        // The library trusts what it reads, so this is looked at first.
        let keystore = Keystore::parse(&text).map_err(KeystoreProblem::Malformed)?;
        let secret = eth_keystore::decrypt_key(path, password).map_err(|error| match error {
            KeystoreError::MacMismatch => KeystoreProblem::WrongPassword,
            error => KeystoreProblem::Other(error.to_string()),
        })?;
        let secret = Zeroizing::new(secret);
        let key = Self::new(secret.as_slice().try_into().map_err(|_| BadKey)?)?;
        match keystore.address {
            Some(said) if said != key.address() => Err(KeystoreProblem::OtherKey {
                said,
                is: key.address(),
            }),
            _ => Ok(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of the format's definition; the password is "testpassword".
    const PBKDF2: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2",
        "kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256",
        "salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
        "mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},
        "id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;
    const OWNER: &str = "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b";

    fn open(text: &str, password: &str) -> Result<LocalKey, KeystoreProblem> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("livepeer-keystore-{}-{n}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("written");
        let key = LocalKey::from_keystore(&path, password);
        let _ = std::fs::remove_file(&path);
        key
    }

    #[test]
    fn the_definitions_own_example_opens() {
        let key = open(PBKDF2, "testpassword").expect("a key");
        assert_eq!(key.address().to_string(), OWNER);
    }

    #[test]
    fn a_wrong_password_and_a_wrong_owner_are_told_apart() {
        let wrong = open(PBKDF2, "testpasswore").expect_err("wrong");
        assert!(matches!(wrong, KeystoreProblem::WrongPassword), "{wrong}");
        let others = PBKDF2.replacen(
            '{',
            r#"{"address":"0000000000000000000000000000000000000001","#,
            1,
        );
        let wrong = open(&others, "testpassword").expect_err("somebody else's");
        assert!(matches!(wrong, KeystoreProblem::OtherKey { .. }), "{wrong}");
    }

    #[test]
    fn what_is_no_keystore_is_not_tried() {
        for text in [
            "",
            "{}",
            &PBKDF2.replace("262144", "4294967295"),
            &PBKDF2.replace(r#""dklen":32"#, r#""dklen":8"#),
        ] {
            let wrong = open(text, "x").expect_err("malformed");
            assert!(matches!(wrong, KeystoreProblem::Malformed(_)), "{wrong}");
        }
    }
}
