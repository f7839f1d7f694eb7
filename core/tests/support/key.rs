//! A key holder.

use k256::ecdsa::SigningKey;
use livepeer_core::sign::{Address, Digest, Signature};

/// A key for `Effect::Sign`.
pub(crate) struct Key(SigningKey);

impl Key {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(SigningKey::from_slice(bytes).expect("a private key"))
    }

    pub(crate) fn address(&self) -> Address {
        Address::of_key(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, digest: Digest) -> Signature {
        let (signature, recovery) = self
            .0
            .sign_prehash_recoverable(&digest.0)
            .expect("32 bytes can be signed");
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + recovery.to_byte();
        Signature(bytes)
    }
}
