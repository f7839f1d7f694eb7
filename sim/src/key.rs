//! A key holder for networks that hold no real money.

use k256::ecdsa::SigningKey;
use livepeer_core::sign::keccak;
use livepeer_core::{Address, Digest, Signature};

/// The key of a simulated account.
#[derive(Clone)]
pub struct Key {
    key: SigningKey,
    address: Address,
}

impl Key {
    /// The key that follows from a name: the same name, the same account.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut secret = keccak(&[name.as_bytes()]);
        loop {
            // All but one in 2^127 numbers are keys.
            match SigningKey::from_slice(&secret) {
                Ok(key) => {
                    let address = Address::of_key(key.verifying_key());
                    return Self { key, address };
                }
                Err(_) => secret = keccak(&[&secret]),
            }
        }
    }

    /// The key of a secret.
    ///
    /// # Panics
    /// If the bytes are no secret: not 32, zero, or too great.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let key = SigningKey::from_slice(secret).expect("a private key");
        let address = Address::of_key(key.verifying_key());
        Self { key, address }
    }

    /// The account.
    #[must_use]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Signs exactly these 32 bytes.
    #[must_use]
    pub fn sign(&self, digest: Digest) -> Signature {
        let (signature, recovery) = self
            .key
            .sign_prehash_recoverable(&digest.0)
            .expect("a digest of 32 bytes can be signed");
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + recovery.to_byte();
        Signature(bytes)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.address)
    }
}
