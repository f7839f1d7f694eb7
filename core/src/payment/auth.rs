//! Auth tokens, and whether segment credentials are good enough (payments spec 11.2).

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::capabilities::Capabilities;
use crate::sign::Address;
use crate::time::Time;
use crate::wire::{AuthToken, BadCredentials, SegmentCredentials};

/// How long an auth token is good for.
pub const TOKEN_LIFE: Duration = Duration::from_secs(30 * 60);

/// In its last part of life a token is due for renewal.
pub const TOKEN_RENEWAL: Duration = Duration::from_secs(180);

/// `HMAC-SHA256(secret, parts)`.
pub(crate) fn hmac(secret: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(secret);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn keyed(secret: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("an HMAC key may have any length")
}

/// Thirty-two bytes that only one orchestrator knows. A fresh one disowns all that was issued under the old.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// The token for a session, good for [`TOKEN_LIFE`] from now.
    #[must_use]
    pub fn issue(&self, now: Time, session_id: String) -> AuthToken {
        self.token(session_id, Time::from_secs((now + TOKEN_LIFE).as_secs()))
    }

    /// The token for a session and a moment of expiry, in whole seconds.
    #[must_use]
    pub fn token(&self, session_id: String, expiration: Time) -> AuthToken {
        let mut mac = keyed(&self.0);
        authenticate(&mut mac, &session_id, expiration);
        AuthToken {
            token: Bytes::copy_from_slice(&mac.finalize().into_bytes()),
            session_id,
            expiration,
        }
    }

    /// Whether a token is ours and still good.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self, now: Time, token: &AuthToken) -> Result<(), BadCredentials> {
        let mut mac = keyed(&self.0);
        authenticate(&mut mac, &token.session_id, token.expiration);
        // In constant time.
        mac.verify_slice(&token.token)
            .map_err(|_| BadCredentials::BadToken)?;
        if now > token.expiration {
            return Err(BadCredentials::ExpiredToken);
        }
        Ok(())
    }
}

fn authenticate(mac: &mut Hmac<Sha256>, session_id: &str, expiration: Time) {
    let seconds = expiration.as_secs();
    let minimal = (seconds.leading_zeros() / 8) as usize;
    mac.update(session_id.as_bytes());
    mac.update(&seconds.to_be_bytes()[minimal..]);
}

/// Reads a segment header and decides whether it admits its bearer, in the order of the reference: encoding,
/// message, duration, signature, capabilities, token, capacity.
///
/// `sender` is the payer that the payment names, or `None` off-chain, where any signature will do. `serves` says
/// whether the capabilities asked for are there, `has_room` whether the session may go on.
///
/// # Errors
/// The first of these that fails.
pub fn admit(
    now: Time,
    header: &str,
    sender: Option<Address>,
    secret: &Secret,
    serves: impl FnOnce(&Capabilities) -> bool,
    has_room: impl FnOnce(&SegmentCredentials) -> bool,
) -> Result<SegmentCredentials, BadCredentials> {
    let credentials = SegmentCredentials::decode(header)?;
    if let Some(sender) = sender {
        credentials
            .verify(sender)
            .map_err(|_| BadCredentials::Signature)?;
    }
    if let Some(wanted) = &credentials.capabilities
        && !serves(wanted)
    {
        return Err(BadCredentials::Capabilities);
    }
    let token = credentials
        .auth_token
        .as_ref()
        .ok_or(BadCredentials::NoToken)?;
    secret.check(now, token)?;
    if !has_room(&credentials) {
        return Err(BadCredentials::Capped);
    }
    Ok(credentials)
}
