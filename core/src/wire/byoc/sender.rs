//! Payers, as they introduce themselves and sign.

use alloc::format;
use alloc::string::{String, ToString as _};

use base64::Engine as _;

use crate::sign::{Address, Signature};
use crate::wire::error::WireError;
use crate::wire::identity::{hex_of, identity_digest};
use crate::wire::json::{BASE64, Fields};
use crate::wire::payment::{MAX_HEADER_BYTES, to_base64};

/// The payer that signed something, and its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedBy {
    /// The payer.
    pub sender: Address,
    /// The signature.
    pub signature: Signature,
}

/// The payer that asks for a token. Without a chain nobody does, and nothing is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender(pub Option<SignedBy>);

impl Sender {
    const WHAT: &str = "payer's introduction";

    /// The header's value. The payer signs its own address, in the letters in which it stands here.
    #[must_use]
    pub fn to_header(self) -> String {
        let addr = self.0.map_or(Address::ZERO, |by| by.sender).checksummed();
        let sig = { self.0 }.map_or_else(String::new, |by| format!("{:?}", by.signature));
        to_base64(format!(r#"{{"addr":"{addr}","sig":"{sig}"}}"#).as_bytes())
    }

    /// Reads the header as an orchestrator does.
    ///
    /// # Errors
    /// If it is not the JSON, or somebody else signed it.
    pub fn from_header(header: &str) -> Result<Self, WireError> {
        let bad = |why: String| WireError::new(Self::WHAT, why);
        if header.len() > MAX_HEADER_BYTES {
            return Err(bad("it is too long".into()));
        }
        let bytes = BASE64.decode(header).map_err(|err| bad(err.to_string()))?;
        let fields = Fields::only(&bytes).map_err(bad)?;
        let text = |name| fields.text(name).map_err(bad);
        let signed = read_sender(&text("addr")?, &text("sig")?)?;
        if let Some(by) = signed {
            let verified = by.signature.verify(identity_digest(by.sender), by.sender);
            verified.map_err(|err| bad(err.to_string()))?;
        }
        Ok(Self(signed))
    }
}

/// Reads an address and a signature; no signature means that nobody pays.
pub(super) fn read_sender(sender: &str, signature: &str) -> Result<Option<SignedBy>, WireError> {
    let bad = |why: String| WireError::new(Sender::WHAT, why);
    if matches!(signature, "" | "0x") {
        return Ok(None);
    }
    let sender = sender.parse();
    let bytes = hex_of(signature).map_err(bad)?;
    Ok(Some(SignedBy {
        sender: sender.map_err(|err: crate::sign::BadAddress| bad(err.to_string()))?,
        signature: Signature::from_slice(&bytes).map_err(|err| bad(err.to_string()))?,
    }))
}
