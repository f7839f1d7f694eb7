//! The demand for payment of live runners, and the endpoint that renews it (payments spec 11.4).

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::json;

use super::error::WireError;
use super::info::OrchestratorInfo;
use super::json::Fields;
use super::payment::to_base64;
use crate::http::Url;
use crate::sign::Address;

/// The header by which a payer asks to be quoted for. A claim, not a proof.
pub const PAYER_ADDRESS_HEADER: &str = "livepeer-payer-address";

/// Where a demand is renewed.
pub const REFRESH_PATH: &str = "/refresh-payment";

/// The longest challenge that is accepted.
pub const MAX_CHALLENGE_BYTES: usize = 1 << 20;

/// The price, the work that it is for, and where to pay: the body of a status 402. The same status also answers a
/// missing or malformed payer address, with an error message in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Challenge {
    /// The quote. Its auth token's session id is the job's name.
    pub info: OrchestratorInfo,
    /// The orchestrator's URL.
    pub orchestrator: Url,
    /// The job's name: the balance that payments go to.
    pub manifest_id: String,
    /// Where further payments go.
    pub payment_url: Url,
}

impl Challenge {
    const WHAT: &str = "payment challenge";

    /// Reads the body of a status 402. `None` if it is no demand but an error message.
    ///
    /// # Errors
    /// If it is a demand that cannot be met.
    pub fn from_json(body: &[u8]) -> Result<Option<Self>, WireError> {
        let bad = |why: String| WireError::new(Self::WHAT, why);
        if body.len() > MAX_CHALLENGE_BYTES {
            return Err(bad(format!("longer than {MAX_CHALLENGE_BYTES} bytes")));
        }
        let Ok(fields) = Fields::first(body) else {
            return Ok(None);
        };
        let Some(params) = fields.bytes("payment_params").map_err(bad)? else {
            return Ok(None);
        };
        let info = OrchestratorInfo::decode(params)?;
        let url = |name: &str| {
            let text = fields.text(name).map_err(bad)?;
            let url = Url::parse(&text).map(Url::told);
            url.map_err(|err| bad(format!("{name}: {err}")))
        };
        let manifest_id = fields.text("manifest_id").map_err(bad)?;
        let session = info.auth_token.as_ref().map(|token| &token.session_id);
        if manifest_id.is_empty() || session != Some(&manifest_id) {
            return Err(bad("manifest_id is not the auth token's session".into()));
        }
        let orchestrator = match fields.text("orchestrator").map_err(bad)?.as_str() {
            "" => info.transcoder.clone(),
            _ => url("orchestrator")?,
        };
        // Orchestrators of early 2026 do not say where to pay (client-1.0 D19).
        let payment_url = match fields.text("payment_url").map_err(bad)?.as_str() {
            "" => orchestrator.child("payment"),
            _ => url("payment_url")?,
        };
        Ok(Some(Self {
            orchestrator,
            payment_url,
            manifest_id,
            info,
        }))
    }

    /// The body.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        json!({
            "payment_params": to_base64(&self.info.raw),
            "orchestrator": self.orchestrator.to_string(),
            "manifest_id": self.manifest_id,
            "payment_url": self.payment_url.to_string(),
        })
        .to_string()
        .into_bytes()
    }
}

/// A payer's request for a fresh demand, for a session whose price is fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshRequest {
    /// The payer.
    pub sender: Address,
    /// The job's name.
    pub manifest_id: String,
}

/// Why there is no fresh demand, displayed as the reference words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRefresh {
    /// The body is not the JSON object expected.
    #[error("invalid request body")]
    Body,
    /// No address.
    #[error("invalid sender")]
    Sender,
    /// No job.
    #[error("missing manifest_id")]
    ManifestId,
    /// Nothing was paid for this job yet.
    #[error("fixed price not found for session")]
    NoPrice,
}

impl BadRefresh {
    /// The status to answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NoPrice => 409,
            Self::Body | Self::Sender | Self::ManifestId => 400,
        }
    }
}

impl RefreshRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// If a part of it is missing or malformed.
    pub fn from_json(body: &[u8]) -> Result<Self, BadRefresh> {
        let fields = Fields::first(body).map_err(|_| BadRefresh::Body)?;
        let text = |name| fields.text(name).map_err(|_| BadRefresh::Body);
        let (sender, manifest_id) = (text("sender")?, text("manifest_id")?);
        let sender = sender.trim().parse().map_err(|_| BadRefresh::Sender)?;
        let manifest_id = manifest_id.trim();
        if manifest_id.is_empty() {
            return Err(BadRefresh::ManifestId);
        }
        Ok(Self {
            sender,
            manifest_id: manifest_id.into(),
        })
    }

    /// The body.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        json!({"sender": self.sender.checksummed(), "manifest_id": self.manifest_id})
            .to_string()
            .into()
    }
}
