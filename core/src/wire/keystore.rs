//! Encrypted key files (Web3 secret storage, version 3), read before a password is tried: whether one is complete,
//! whose it is, and what deriving its key costs. Deriving and decrypting are the shell's matter.

use alloc::format;
use alloc::string::String;

use serde::Deserialize;

use super::error::WireError;
use crate::sign::Address;

/// The longest key file that is accepted.
pub const MAX_KEYSTORE_BYTES: usize = 64 << 10;
/// The most memory spent on a password: four times what geth's default takes.
pub const MAX_SCRYPT_BYTES: u64 = 1 << 30;
/// The most parallel lanes of scrypt that are accepted.
pub const MAX_SCRYPT_LANES: u32 = 16;
/// The most rounds of PBKDF2 that are accepted.
pub const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;

const WHAT: &str = "the keystore";

/// The unencrypted part of an encrypted key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keystore {
    /// The account of the key, if the file names it.
    pub address: Option<Address>,
    /// The cost of trying a password.
    pub cost: Cost,
}

/// How a password becomes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Memory, in bytes, and lanes one after the other.
    Scrypt {
        /// 128 · n · r.
        bytes: u64,
        /// p.
        lanes: u32,
    },
    /// Rounds of HMAC-SHA256.
    Pbkdf2 {
        /// c.
        rounds: u32,
    },
}

#[derive(Deserialize)]
struct File {
    address: Option<String>,
    crypto: Crypto,
    version: u8,
}

#[derive(Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: String,
    kdf: String,
    kdfparams: KdfParams,
    mac: String,
}

#[derive(Deserialize)]
struct CipherParams {
    iv: String,
}

#[derive(Deserialize)]
struct KdfParams {
    dklen: u32,
    salt: String,
    n: Option<u32>,
    r: Option<u32>,
    p: Option<u32>,
    c: Option<u32>,
    prf: Option<String>,
}

impl Keystore {
    /// Reads a file.
    ///
    /// # Errors
    /// If it is no keystore of version 3, if something of it is missing or has the wrong length, or if a password
    /// would cost more than a key is worth.
    pub fn parse(json: &[u8]) -> Result<Self, WireError> {
        let bad = |why: String| WireError::new(WHAT, why);
        if json.len() > MAX_KEYSTORE_BYTES {
            return Err(bad(format!("longer than {MAX_KEYSTORE_BYTES} bytes")));
        }
        let file: File = serde_json::from_slice(json).map_err(|err| bad(format!("{err}")))?;
        if file.version != 3 {
            return Err(bad(format!("its version is {}, not 3", file.version)));
        }
        let crypto = file.crypto;
        if crypto.cipher != "aes-128-ctr" {
            return Err(bad("its cipher is not aes-128-ctr".into()));
        }
        let long = |name: &str, text: &str, wanted: usize| match hex::decode(text) {
            Ok(bytes) if bytes.len() == wanted => Ok(()),
            _ => Err(bad(format!("its {name} is not {wanted} bytes in hex"))),
        };
        long("ciphertext", &crypto.ciphertext, 32)?;
        long("initial vector", &crypto.cipherparams.iv, 16)?;
        long("mac", &crypto.mac, 32)?;
        let params = crypto.kdfparams;
        if params.dklen != 32 {
            return Err(bad("its derived key does not have 32 bytes".into()));
        }
        hex::decode(&params.salt).map_err(|_| bad("its salt is not hex".into()))?;
        let cost = match (&*crypto.kdf, params.n, params.r, params.p, params.c) {
            ("scrypt", Some(n), Some(r), Some(p), _) => {
                let bytes = u64::from(n) * u64::from(r) * 128;
                if !n.is_power_of_two() || n < 2 || r == 0 || p == 0 {
                    return Err(bad("its scrypt parameters are none".into()));
                }
                if bytes > MAX_SCRYPT_BYTES || p > MAX_SCRYPT_LANES {
                    return Err(bad("its scrypt parameters cost too much".into()));
                }
                Cost::Scrypt { bytes, lanes: p }
            }
            ("pbkdf2", _, _, _, Some(rounds)) => {
                if params.prf.as_deref() != Some("hmac-sha256") {
                    return Err(bad("its pbkdf2 is not of hmac-sha256".into()));
                }
                if rounds == 0 || rounds > MAX_PBKDF2_ROUNDS {
                    return Err(bad("its pbkdf2 rounds are none, or too many".into()));
                }
                Cost::Pbkdf2 { rounds }
            }
            _ => {
                return Err(bad(
                    "its kdf is neither scrypt nor pbkdf2 with all parameters".into(),
                ));
            }
        };
        let address = file
            .address
            .filter(|text| !text.is_empty())
            .map(|text| text.parse())
            .transpose()
            .map_err(|_| bad("its address is none".into()))?;
        Ok(Self { address, cost })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    const GOOD: &str = r#"{"address":"008aeeda4d805471df9b2a5b0f38a0c3bcba786b","crypto":{"cipher":"aes-128-ctr",
        "cipherparams":{"iv":"83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext":"d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c","kdf":"scrypt",
        "kdfparams":{"dklen":32,"n":262144,"p":1,"r":8,
        "salt":"ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19"},
        "mac":"2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097"},
        "id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;

    #[test]
    fn a_keystore_tells_whose_it_is_and_what_it_costs() {
        let read = Keystore::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(
            read.cost,
            Cost::Scrypt {
                bytes: 256 << 20,
                lanes: 1
            }
        );
        let owner = read.address.unwrap().to_string();
        assert_eq!(
            owner.to_lowercase(),
            "0x008aeeda4d805471df9b2a5b0f38a0c3bcba786b"
        );
        let without = GOOD.replace(
            r#""address":"008aeeda4d805471df9b2a5b0f38a0c3bcba786b","#,
            "",
        );
        assert_eq!(Keystore::parse(without.as_bytes()).unwrap().address, None);
    }

    #[test]
    fn what_is_incomplete_or_costs_too_much_is_refused() {
        for (from, to) in [
            (r#""version":3"#, r#""version":1"#),
            ("aes-128-ctr", "aes-128-cbc"),
            ("83dbcc02", ""),
            ("d172bf74", "d172"),
            ("2103ac29", "zz03ac29"),
            (r#""dklen":32"#, r#""dklen":16"#),
            (r#""n":262144"#, r#""n":262143"#),
            (r#""n":262144"#, r#""n":2147483648"#),
            (r#""r":8"#, r#""r":0"#),
            (r#""r":8"#, r#""r":4294967295"#),
            (r#""p":1"#, r#""p":17"#),
            (r#""kdf":"scrypt""#, r#""kdf":"pbkdf2""#),
            ("008aeeda", "8aeeda"),
            ("ab0c78", "ab0c7"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            assert!(Keystore::parse(text.as_bytes()).is_err(), "{to}");
        }
        assert!(Keystore::parse(b"").is_err());
        assert!(Keystore::parse(&[b' '; MAX_KEYSTORE_BYTES + 1]).is_err());
    }
}
