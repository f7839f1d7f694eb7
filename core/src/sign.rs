//! Digests, signatures and addresses, and the one hash that Livepeer signs with.

use core::fmt;
use core::str::FromStr;

use alloc::string::{String, ToString};

use k256::ecdsa::{Signature as Ecdsa, VerifyingKey};
use k256::elliptic_curve::PrimeField as _;
use k256::elliptic_curve::ops::{Invert as _, LinearCombination as _, Reduce};
use k256::elliptic_curve::point::DecompressPoint as _;
use k256::{AffinePoint, ProjectivePoint, Scalar, U256};
use sha3::{Digest as _, Keccak256};

/// `keccak256` of the concatenation of `parts`.
#[must_use]
pub fn keccak(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Keccak256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// Exactly the 32 bytes that the curve signs; no prefix is added later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The personal-message digest of `message` (EIP-191): what every signature of this protocol covers.
    /// The bytes passed in differ by use, see spec/payments.md 4.2.
    #[must_use]
    pub fn personal(message: &[u8]) -> Self {
        let length = message.len().to_string();
        Self(keccak(&[
            b"\x19Ethereum Signed Message:\n",
            length.as_bytes(),
            message,
        ]))
    }

    /// The digest of a node signature: personal over the keccak of `text` (GetOrchestrator, segment credentials).
    #[must_use]
    pub fn node(text: &[u8]) -> Self {
        Self::personal(&keccak(&[text]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

/// `r ‖ s ‖ v`, 65 bytes, with low `s` and `v` of 27 or 28. Any bytes can be held; [`Signature::recover`] judges.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 65]);

impl Signature {
    /// Reads a signature from a wire field.
    ///
    /// # Errors
    /// If there are not exactly 65 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, BadSignature> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| BadSignature::Length(bytes.len()))
    }

    /// The account that signed `digest`.
    ///
    /// # Errors
    /// For a high `s`, a `v` other than 27 and 28, or numbers that are no signature (spec/payments.md 4.2).
    pub fn recover(&self, digest: Digest) -> Result<Address, BadSignature> {
        let odd = match self.0[64] {
            27 => false,
            28 => true,
            v => return Err(BadSignature::V(v)),
        };
        let signature = Ecdsa::from_slice(&self.0[..64]).map_err(|_| BadSignature::Malformed)?;
        if signature.normalize_s().is_some() {
            return Err(BadSignature::HighS);
        }
        let key = recover(digest, &signature, odd).ok_or(BadSignature::Malformed)?;
        Ok(Address::of_key(&key))
    }

    /// Whether `who` signed `digest`.
    ///
    /// # Errors
    /// As [`Signature::recover`], and if somebody else signed.
    pub fn verify(&self, digest: Digest, who: Address) -> Result<(), BadSignature> {
        match self.recover(digest)? {
            signer if signer == who => Ok(()),
            signer => Err(BadSignature::OtherSigner(signer)),
        }
    }
}

/// The only key under which `signature` is one of `digest`: (s·R − z·G) / r, where R is the point at r.
///
/// The library does the same and then verifies the signature under the key that it has just computed from it, which
/// cannot fail and takes as long again.
fn recover(digest: Digest, signature: &Ecdsa, odd: bool) -> Option<VerifyingKey> {
    let (r, s) = signature.split_scalars();
    let point = AffinePoint::decompress(&r.to_repr(), u8::from(odd).into());
    let point = ProjectivePoint::from(Option::<AffinePoint>::from(point)?);
    let z = <Scalar as Reduce<U256>>::reduce_bytes(&digest.0.into());
    let inverse = *r.invert();
    let (of_generator, of_point) = (-(inverse * z), inverse * *s);
    let key = ProjectivePoint::lincomb(
        &ProjectivePoint::GENERATOR,
        &of_generator,
        &point,
        &of_point,
    );
    // The point at infinity is no key.
    VerifyingKey::from_affine(key.to_affine()).ok()
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSignature {
    /// The signature is not 65 bytes long.
    #[error("a signature has 65 bytes, this one {0}")]
    Length(usize),
    /// The last byte is neither 27 nor 28.
    #[error("a signature ends in 27 or 28, this one in {0}")]
    V(u8),
    /// `s` is above half the group order, so it has a twin.
    #[error("the signature has a high s")]
    HighS,
    /// The numbers are no signature, or no key fits them.
    #[error("the bytes are no signature")]
    Malformed,
    /// A valid signature of somebody else.
    #[error("the signature is of {0}")]
    OtherSigner(Address),
}

/// A key holder declined or failed to sign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key holder did not sign: {0}")]
pub struct SignRefused(pub String);

/// An Ethereum account: the last 20 bytes of the keccak of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(pub [u8; 20]);

impl Address {
    /// Twenty zero bytes: nobody. Off-chain orchestrators report it.
    pub const ZERO: Self = Self([0; 20]);

    /// The account of a public key.
    #[must_use]
    pub fn of_key(key: &VerifyingKey) -> Self {
        let point = key.to_encoded_point(false);
        let hash = keccak(&[&point.as_bytes()[1..]]);
        Self(hash[12..].try_into().expect("twenty of thirty-two bytes"))
    }

    /// Reads a wire field: short ones are padded on the left, of long ones the last 20 bytes count.
    #[must_use]
    pub fn from_wire(bytes: &[u8]) -> Self {
        let mut address = [0; 20];
        let tail = &bytes[bytes.len().saturating_sub(20)..];
        address[20 - tail.len()..].copy_from_slice(tail);
        Self(address)
    }

    /// Whether this is nobody.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// The EIP-55 text: `0x` and 40 hex digits whose case is a checksum. Displayed the same way.
    #[must_use]
    pub fn checksummed(&self) -> String {
        let lower = hex::encode(self.0);
        let hash = keccak(&[lower.as_bytes()]);
        let mut text = String::with_capacity(42);
        text.push_str("0x");
        for (i, c) in lower.chars().enumerate() {
            let nibble = (hash[i / 2] >> (4 * (1 - i % 2))) & 0xf;
            text.push(if nibble >= 8 {
                c.to_ascii_uppercase()
            } else {
                c
            });
        }
        text
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.checksummed())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    /// Takes 40 hex digits of any case, with or without `0x`.
    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let digits = text
            .strip_prefix("0x")
            .or_else(|| text.strip_prefix("0X"))
            .unwrap_or(text);
        let mut address = [0; 20];
        hex::decode_to_slice(digits, &mut address).map_err(|_| BadAddress)?;
        Ok(Self(address))
    }
}

/// The text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address is 0x and 40 hex digits")]
pub struct BadAddress;

#[cfg(test)]
mod tests {
    use super::*;
    use k256::ecdsa::{RecoveryId, SigningKey};

    #[test]
    fn recovery_is_the_librarys() {
        for n in 1..=255_u8 {
            let key = SigningKey::from_slice(&keccak(&[&[n]])).unwrap();
            let digest = Digest(keccak(&[&[n], b"digest"]));
            let (signature, recovery) = key.sign_prehash_recoverable(&digest.0).unwrap();
            let mut bytes = [0; 65];
            bytes[..64].copy_from_slice(&signature.to_bytes());
            bytes[64] = 27 + recovery.to_byte();
            let good = Signature(bytes);
            assert_eq!(
                good.recover(digest),
                Ok(Address::of_key(key.verifying_key()))
            );
            // Whatever is changed, both say the same.
            for at in [0, 20, 31, 32, 50, 63, 64] {
                let mut bytes = bytes;
                bytes[at] ^= if at == 64 { 7 } else { n | 1 };
                let ours = Signature(bytes).recover(digest).ok();
                let theirs = Ecdsa::from_slice(&bytes[..64])
                    .ok()
                    .filter(|parsed| parsed.normalize_s().is_none())
                    .and_then(|parsed| {
                        let odd = RecoveryId::new(bytes[64] == 28, false);
                        VerifyingKey::recover_from_prehash(&digest.0, &parsed, odd).ok()
                    })
                    .map(|key| Address::of_key(&key));
                assert_eq!(ours, theirs);
            }
        }
    }
}
