//! Messages between gateways and remote signers (payments spec 12).

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;
use livepeer_proto::net;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Signed as _;
use prost::Message as _;
use serde_json::{Value, json};

use super::error::WireError;
use super::info::{AuthToken, TicketParams};
use super::json::{Fields, is_number};
use super::payment::to_base64;
use super::runner::Runner;
use crate::money::Price;
use crate::sign::{Address, Signature};
use crate::units::Unit;

/// The longest request or answer that is accepted.
pub const MAX_SIGNER_BODY: usize = 1 << 20;

/// Where a signer says who it is.
pub const SIGN_INFO_PATH: &str = "/sign-orchestrator-info";
/// Where a signer makes payments.
pub const PAYMENT_PATH: &str = "/generate-live-payment";
/// Where a signer lists orchestrators.
pub const DISCOVERY_PATH: &str = "/discover-orchestrators";

/// The status by which a signer asks for a fresh quote.
pub const STATUS_REFRESH: u16 = 480;
/// The status by which a signer refuses a price.
pub const STATUS_PRICE: u16 = 481;
/// The status by which a signer says that nothing is due yet.
pub const STATUS_NO_TICKETS: u16 = 482;

/// The header that names the orchestrator to ask, along with a request for a fresh quote.
pub const ORCHESTRATOR_URL_HEADER: &str = "livepeer-orchestrator-url";
/// The identity of a caller whom nobody else vouched for.
pub const AUTH_ID_HEADER: &str = "signer-auth-id";

/// The answer to [`SIGN_INFO_PATH`]; read by [`read_identity`](super::read_identity).
#[must_use]
pub fn identity_json(address: Address, signature: &Signature) -> Vec<u8> {
    line(json!({
        "address": address.checksummed(),
        "signature": format!("{signature:?}"),
    }))
}

/// An answer, with the line's end that the reference's encoder writes.
fn line(answer: Value) -> Vec<u8> {
    let mut text = answer.to_string();
    text.push('\n');
    text.into_bytes()
}

/// A signer's memory of a session, kept by the gateway: opaque bytes and the signer's signature over them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StateBlob {
    /// JSON, for the signer's eyes.
    pub state: Bytes,
    /// The signature by the signer's own key.
    pub sig: Bytes,
}

impl core::fmt::Debug for StateBlob {
    // Whoever has it can go on with the session.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "StateBlob({} bytes)", self.state.len())
    }
}

impl StateBlob {
    /// Whether there is nothing in it: the first call of a session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.is_empty() && self.sig.is_empty()
    }

    fn from_fields(fields: Option<Fields>) -> Result<Self, String> {
        let Some(fields) = fields else {
            return Ok(Self::default());
        };
        Ok(Self {
            state: fields.bytes("State")?.unwrap_or_default(),
            sig: fields.bytes("Sig")?.unwrap_or_default(),
        })
    }

    fn to_json(&self) -> Value {
        json!({"State": to_base64(&self.state), "Sig": to_base64(&self.sig)})
    }
}

/// A price ceiling as a caller or a webhook writes it. Checked by [`MaxPrice::parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPrice {
    /// A positive decimal number, as written.
    pub price: String,
    /// `wei`.
    pub currency: String,
    /// The advertised name of the unit.
    pub unit: String,
}

/// How a price ceiling is malformed, displayed as the reference words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMaxPrice {
    /// The price is not a positive decimal number of a sensible length.
    #[error("maxPrice.price must be a positive decimal")]
    Price,
    /// The price is not in wei.
    #[error("maxPrice.currency must be wei")]
    Currency,
    /// The price is not per unit of the job.
    #[error("maxPrice.unit must be {} for payment type {}", .0.advertised(), .0.signer_type())]
    Unit(Unit),
    /// The job's unit is not known.
    #[error("maxPrice requires payment type live, lv2v, or fixed")]
    NoType,
}

impl MaxPrice {
    /// A ceiling of `price` wei per `unit`.
    #[must_use]
    pub fn new(price: impl Into<String>, unit: Unit) -> Self {
        Self {
            price: price.into(),
            currency: "wei".into(),
            unit: unit.advertised().into(),
        }
    }

    pub(super) fn from_fields(fields: &Fields) -> Result<Self, String> {
        Ok(Self {
            price: fields.number("price")?,
            currency: fields.text("currency")?,
            unit: fields.text("unit")?,
        })
    }

    /// The ceiling in wei per unit of a job that is billed by `unit`.
    ///
    /// # Errors
    /// If the words do not say one.
    pub fn parse(&self, unit: Option<Unit>) -> Result<BigRational, BadMaxPrice> {
        // In the reference's order: the first fault is told.
        let price = decimal(&self.price)
            .filter(BigRational::is_positive)
            .ok_or(BadMaxPrice::Price)?;
        if !self.currency.trim().eq_ignore_ascii_case("wei") {
            return Err(BadMaxPrice::Currency);
        }
        let unit = unit.ok_or(BadMaxPrice::NoType)?;
        if !self.unit.trim().eq_ignore_ascii_case(unit.advertised()) {
            return Err(BadMaxPrice::Unit(unit));
        }
        Ok(price)
    }

    fn to_json(&self) -> Value {
        json!({"price": self.price, "currency": self.currency, "unit": self.unit})
    }
}

/// Reads a JSON number exactly. Longer ones than any price are refused, and so are exponents that would fill
/// memory.
fn decimal(text: &str) -> Option<BigRational> {
    const MAX_DIGITS: usize = 100;
    const MAX_EXPONENT: i32 = 100;
    // The grammar is JSON's; the value is not read as a float.
    if text.len() > MAX_DIGITS || !is_number(text) {
        return None;
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: BigInt = format!("{whole}{fraction}").parse().ok()?;
    let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if exponent.abs() > MAX_EXPONENT {
        return None;
    }
    let power = BigInt::from(10).pow(exponent.unsigned_abs());
    Some(if exponent < 0 {
        BigRational::new(digits, power)
    } else {
        BigRational::from_integer(digits * power)
    })
}

/// A request for a payment.
#[derive(Clone, Default, PartialEq)]
pub struct PaymentRequest {
    /// The signer's memory; empty in a session's first call.
    pub state: StateBlob,
    /// The quote, protobuf as the orchestrator sent it. `None` if the caller forgot it.
    pub orchestrator: Option<Bytes>,
    /// The job's name at the orchestrator. May be empty in a session's first call only.
    pub manifest_id: String,
    /// The model that the job runs, if the caller says; fixed for a session.
    pub app: String,
    /// Units of an untyped request.
    pub in_pixels: i64,
    /// `live`, `lv2v`, `fixed`, or empty.
    pub job_type: String,
    /// The caller's ceiling.
    pub max_price: Option<MaxPrice>,
    /// Protobuf of the capabilities that the job needs.
    pub capabilities: Option<Bytes>,
}

impl core::fmt::Debug for PaymentRequest {
    // The quote has the auth token in it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PaymentRequest")
            .field("state", &self.state)
            .field("manifest_id", &self.manifest_id)
            .field("app", &self.app)
            .field("in_pixels", &self.in_pixels)
            .field("job_type", &self.job_type)
            .field("max_price", &self.max_price)
            .finish_non_exhaustive()
    }
}

impl PaymentRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// If it is not the JSON object expected. A missing orchestrator is not an error yet.
    pub fn from_json(body: &[u8]) -> Result<Self, WireError> {
        Self::read(body).map_err(|why| WireError::new("payment request", why))
    }

    fn read(body: &[u8]) -> Result<Self, String> {
        let fields = Fields::first(body)?;
        Ok(Self {
            state: StateBlob::from_fields(fields.object("state")?)?,
            orchestrator: fields.bytes("orchestrator")?.filter(|raw| !raw.is_empty()),
            manifest_id: fields.text("ManifestID")?,
            app: fields.text("app")?,
            in_pixels: fields.integer("inPixels")?,
            job_type: fields.text("type")?,
            max_price: fields
                .object("maxPrice")?
                .as_ref()
                .map(MaxPrice::from_fields)
                .transpose()?,
            capabilities: fields.bytes("capabilities")?.filter(|raw| !raw.is_empty()),
        })
    }

    /// The body of the request. What is empty is left out.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut body = serde_json::Map::new();
        let mut set = |name: &str, value: Value| {
            body.insert(name.into(), value);
        };
        if !self.state.is_empty() {
            set("state", self.state.to_json());
        }
        if let Some(raw) = &self.orchestrator {
            set("orchestrator", to_base64(raw).into());
        }
        for (name, text) in [
            ("ManifestID", &self.manifest_id),
            ("app", &self.app),
            ("type", &self.job_type),
        ] {
            if !text.is_empty() {
                set(name, text.as_str().into());
            }
        }
        if self.in_pixels != 0 {
            set("inPixels", self.in_pixels.into());
        }
        if let Some(max) = &self.max_price {
            set("maxPrice", max.to_json());
        }
        if let Some(raw) = self.capabilities.as_ref().filter(|raw| !raw.is_empty()) {
            set("capabilities", to_base64(raw).into());
        }
        Value::Object(body).to_string().into_bytes()
    }
}

/// A payment that a signer made.
#[derive(Clone, PartialEq, Eq)]
pub struct PaymentResponse {
    /// The value of the payment header.
    pub payment: String,
    /// The value of the segment header.
    pub segment: String,
    /// The state that the next request has to carry.
    pub state: StateBlob,
}

impl core::fmt::Debug for PaymentResponse {
    // Its headers are worth money.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (payment, segment) = (self.payment.len(), self.segment.len());
        write!(f, "PaymentResponse({payment} and {segment} bytes)")
    }
}

impl PaymentResponse {
    const WHAT: &str = "signer's payment";

    /// Reads the answer.
    ///
    /// # Errors
    /// If it is not the JSON object expected, or one of its parts is missing.
    pub fn from_json(body: &[u8]) -> Result<Self, WireError> {
        Self::read(body).map_err(|why| WireError::new(Self::WHAT, why))
    }

    fn read(body: &[u8]) -> Result<Self, String> {
        let fields = Fields::first(body)?;
        let read = Self {
            payment: fields.text("payment")?,
            segment: fields.text("segCreds")?,
            state: StateBlob::from_fields(fields.object("state")?)?,
        };
        for (name, missing) in [
            ("payment", read.payment.is_empty()),
            ("segCreds", read.segment.is_empty()),
            ("state", read.state.is_empty()),
        ] {
            if missing {
                return Err(format!("{name} is missing"));
            }
        }
        Ok(read)
    }

    /// The answer.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        line(json!({
            "payment": self.payment,
            "segCreds": self.segment,
            "state": self.state.to_json(),
        }))
    }
}

/// The body of every error answer.
#[must_use]
pub fn error_json(message: &str) -> Vec<u8> {
    let mut body = String::from("{\"error\":{\"message\":");
    super::json::push_go_string(&mut body, message);
    body.push_str("}}\n");
    body.into_bytes()
}

/// A quote as signers read it: only what they need, and nothing refused that they can answer with words.
#[derive(Clone, Debug, PartialEq)]
pub struct Quote {
    /// The orchestrator's URL, unchecked.
    pub transcoder: String,
    /// The parameters that tickets are made from.
    pub ticket_params: Option<TicketParams>,
    /// `None` also if the numbers are no price.
    pub price: Option<Price>,
    /// The orchestrator's own account.
    pub address: Address,
    /// The auth token of the orchestrator.
    pub auth_token: Option<AuthToken>,
}

impl Quote {
    /// Reads an orchestrator's info.
    ///
    /// # Errors
    /// If it is not the message, or its ticket parameters are nonsense.
    pub fn decode(raw: &[u8]) -> Result<Self, WireError> {
        let wire = net::OrchestratorInfo::decode(raw).map_err(|err| {
            WireError::new(
                "orchestrator info",
                format!("not the protobuf message: {err}"),
            )
        })?;
        Ok(Self {
            transcoder: wire.transcoder,
            ticket_params: wire
                .ticket_params
                .as_ref()
                .map(TicketParams::from_wire)
                .transpose()?,
            price: wire
                .price_info
                .and_then(|price| Price::new(price.price_per_unit, price.pixels_per_unit)),
            address: Address::from_wire(&wire.address),
            auth_token: wire.auth_token.map(AuthToken::from_wire),
        })
    }
}

/// An orchestrator in a signer's list.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedOrchestrator {
    /// The orchestrator's URL.
    pub address: String,
    /// `pipeline/model`, or an app.
    pub capabilities: Vec<String>,
    /// The live runners of the orchestrator.
    pub runners: Vec<Runner>,
}

/// The answer to [`DISCOVERY_PATH`].
pub fn listing_json<'a>(listed: impl Iterator<Item = &'a ListedOrchestrator>) -> Vec<u8> {
    let entries = listed.map(|one| {
        let mut entry = json!({"address": one.address, "score": 1});
        if !one.capabilities.is_empty() {
            entry["capabilities"] = one.capabilities.as_slice().into();
        }
        if !one.runners.is_empty() {
            entry["runners"] = one.runners.iter().map(Runner::to_json).collect();
        }
        entry
    });
    line(Value::Array(entries.collect()))
}
