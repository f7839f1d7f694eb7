//! Key holders: the trait [`KeyHolder`], and keys in memory that come from bytes, hex digits or encrypted files. A key in
//! hardware or at a service is another implementation of the trait.

#[cfg(feature = "keystore")]
mod keystore;

use std::future::Future;
use std::pin::Pin;

use k256::ecdsa::SigningKey;
use livepeer_core::sign::SignRefused;
use livepeer_core::{Address, Digest, Signature};
use zeroize::Zeroize as _;

#[cfg(feature = "keystore")]
pub use keystore::KeystoreProblem;

/// A future in a box.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Holds the key of an account, near or far.
pub trait KeyHolder: Send + Sync + 'static {
    /// The account.
    fn address(&self) -> Address;

    /// Signs exactly these 32 bytes, without adding a prefix.
    ///
    /// A future that is ready at once is taken without a task in between.
    fn sign(&self, digest: Digest) -> Pending<'_, Result<Signature, SignRefused>>;
}

/// Nobody's key. Refuses.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKey;

impl KeyHolder for NoKey {
    fn address(&self) -> Address {
        Address::ZERO
    }

    fn sign(&self, _: Digest) -> Pending<'_, Result<Signature, SignRefused>> {
        Box::pin(async { Err(SignRefused("no key is configured".into())) })
    }
}

/// A key in this process's memory, cleared when it is dropped.
pub struct LocalKey {
    key: SigningKey,
    address: Address,
}

impl LocalKey {
    /// Takes a secret. The caller clears its own copy.
    ///
    /// # Errors
    /// If the number is zero or not below the order of the curve.
    pub fn new(secret: &[u8; 32]) -> Result<Self, BadKey> {
        // `SigningKey` clears its secret on drop.
        let key = SigningKey::from_slice(secret).map_err(|_| BadKey)?;
        let address = Address::of_key(key.verifying_key());
        Ok(Self { key, address })
    }

    /// Takes a secret as 64 hexadecimal digits, with or without `0x` and blanks around. The caller clears its own
    /// copy.
    ///
    /// # Errors
    /// If that is no key. Nothing of the text is told.
    pub fn from_hex(text: &str) -> Result<Self, BadKey> {
        let digits = text.trim();
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        let mut secret = [0; 32];
        let mut read = digits.len() == 64;
        for (byte, pair) in secret.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let digit = |b: u8| char::from(b).to_digit(16);
            match (
                pair.first().copied().and_then(digit),
                pair.get(1).copied().and_then(digit),
            ) {
                (Some(high), Some(low)) => *byte = (high << 4 | low) as u8,
                _ => read = false,
            }
        }
        let key = if read {
            Self::new(&secret)
        } else {
            Err(BadKey)
        };
        secret.zeroize();
        key
    }
}

impl KeyHolder for LocalKey {
    fn address(&self) -> Address {
        self.address
    }

    fn sign(&self, digest: Digest) -> Pending<'_, Result<Signature, SignRefused>> {
        let signed = self.key.sign_prehash_recoverable(&digest.0);
        Box::pin(std::future::ready(
            signed
                .map(|(signature, recovery)| {
                    let mut bytes = [0; 65];
                    bytes[..64].copy_from_slice(&signature.to_bytes());
                    bytes[64] = 27 + recovery.to_byte();
                    Signature(bytes)
                })
                .map_err(|error| SignRefused(error.to_string())),
        ))
    }
}

impl std::fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalKey")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The bytes are no secret key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a secret key is a number between 1 and the order of secp256k1")]
pub struct BadKey;

#[cfg(test)]
mod tests {
    use super::*;

    fn now<T>(mut pending: Pending<'_, T>) -> T {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match pending.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("a local answer does not wait"),
        }
    }

    #[test]
    fn a_local_key_signs_what_recovers_to_its_address() {
        for last in 1..=20 {
            let mut secret = [0; 32];
            secret[31] = last;
            let key = LocalKey::new(&secret).expect("a small number is a key");
            let digest = Digest::personal(&[last]);
            let signature = now(key.sign(digest)).expect("it signs");
            assert_eq!(signature.recover(digest), Ok(key.address()));
        }
    }

    #[test]
    fn zero_is_not_a_key_and_nobody_does_not_sign() {
        assert_eq!(LocalKey::new(&[0; 32]).err(), Some(BadKey));
        assert!(now(NoKey.sign(Digest([0; 32]))).is_err());
    }

    #[test]
    fn hexadecimal_digits_are_a_key_if_there_are_64() {
        let one = format!("{:0>64}", "1");
        let address = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf";
        for text in [one.clone(), format!(" 0x{one}\n")] {
            let key = LocalKey::from_hex(&text).expect("a key");
            assert_eq!(key.address().to_string(), address);
        }
        for text in [
            "",
            "0x",
            "zz",
            &"0".repeat(64),
            &"f".repeat(64),
            &one[1..],
            &format!("{one}0"),
            &"é".repeat(32),
        ] {
            assert_eq!(LocalKey::from_hex(text).err(), Some(BadKey), "{text}");
        }
    }

    #[test]
    fn debug_output_does_not_show_the_secret() {
        let key = LocalKey::new(&[0x5a; 32]).expect("a key");
        assert!(!format!("{key:?}").to_lowercase().contains("5a5a"));
    }
}
