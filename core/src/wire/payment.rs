//! The two headers that travel with paid work: `Livepeer-Payment` and `Livepeer-Segment`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use livepeer_proto::net;
use prost::Message as _;

use super::error::WireError;
use super::info::{AuthToken, OrchestratorInfo, TicketParams, hash_from_wire};
use crate::capabilities::Capabilities;
use crate::http::{Method, Request, Url};
use crate::money::Price;
use crate::sign::{Address, BadSignature, Digest, Signature, keccak};

/// The name of the header that carries a payment.
pub const PAYMENT_HEADER: &str = "livepeer-payment";

/// The name of the header that carries segment credentials.
pub const SEGMENT_HEADER: &str = "livepeer-segment";

/// The values of the two headers that paid work carries.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The value of [`PAYMENT_HEADER`]. Empty off-chain; send the header all the same.
    pub payment: String,
    /// The value of [`SEGMENT_HEADER`].
    pub segment: String,
}

impl Credentials {
    /// A POST that carries them, with an empty body.
    #[must_use]
    pub fn post(&self, url: Url) -> Request {
        Request::new(Method::Post, url)
            .header(PAYMENT_HEADER, self.payment.as_str())
            .header(SEGMENT_HEADER, self.segment.as_str())
    }
}

impl core::fmt::Debug for Credentials {
    // They are worth money.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (payment, segment) = (self.payment.len(), self.segment.len());
        write!(f, "Credentials({payment} and {segment} bytes)")
    }
}

/// The longest header that is read; a longer one is refused. 600 tickets, the most that one quote is good for, take
/// 57,708 bytes.
pub const MAX_HEADER_BYTES: usize = 64 << 10;

/// A segment that claims to be longer is refused.
pub const MAX_SEGMENT_DURATION: Duration = Duration::from_secs(300);

pub(crate) fn from_base64(text: &str, what: &'static str) -> Result<Bytes, WireError> {
    STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|err| WireError::new(what, format!("not base64: {err}")))
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn header_bytes(header: &str, what: &'static str) -> Result<Bytes, WireError> {
    if header.len() > MAX_HEADER_BYTES {
        return Err(WireError::new(
            what,
            format!("longer than {MAX_HEADER_BYTES} bytes"),
        ));
    }
    from_base64(header, what)
}

/// Tickets for one recipient, all under one quote, and the price that the payer expects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payment {
    /// The payer. Zero in an empty payment.
    pub sender: Address,
    /// The quote that the tickets are made from. `None` in a payment without tickets.
    pub ticket_params: Option<TicketParams>,
    /// The parts of the tickets that differ.
    pub tickets: Vec<SenderParams>,
    /// The price that the payer was quoted; `None` also if the message carries a malformed one.
    pub expected_price: Option<Price>,
}

/// The part of a ticket that differs within a payment.
#[derive(Clone, PartialEq, Eq)]
pub struct SenderParams {
    /// The ticket's nonce.
    pub nonce: u32,
    /// The payer's signature, as it came: not necessarily 65 bytes.
    pub signature: Bytes,
}

impl core::fmt::Debug for SenderParams {
    // The signature is worth money.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SenderParams(nonce {})", self.nonce)
    }
}

impl Payment {
    const WHAT: &str = "payment header";

    /// Reads the header's value. An empty one is an empty payment.
    ///
    /// # Errors
    /// If it is not base64 of the message, too long, or carries numbers that no ticket has.
    pub fn decode(header: &str) -> Result<Self, WireError> {
        Self::from_protobuf(header_bytes(header, Self::WHAT)?)
    }

    /// Reads the message inside the header.
    ///
    /// # Errors
    /// As [`Payment::decode`].
    pub fn from_protobuf(message: Bytes) -> Result<Self, WireError> {
        let wire = net::Payment::decode(message).map_err(|err| {
            WireError::new(Self::WHAT, format!("not the protobuf message: {err}"))
        })?;
        let mut ticket_params = wire
            .ticket_params
            .as_ref()
            .map(TicketParams::from_wire)
            .transpose()?;
        if let Some(params) = &mut ticket_params {
            // Recipients read the outer message only (payments spec 3).
            params.set_expiration(wire.expiration_params.as_ref())?;
        }
        Ok(Self {
            sender: Address::from_wire(&wire.sender),
            ticket_params,
            tickets: wire
                .ticket_sender_params
                .into_iter()
                .map(|ticket| SenderParams {
                    nonce: ticket.sender_nonce,
                    signature: ticket.sig,
                })
                .collect(),
            expected_price: wire
                .expected_price
                .and_then(|price| Price::new(price.price_per_unit, price.pixels_per_unit)),
        })
    }

    /// The message inside the header, fields in ascending order.
    #[must_use]
    pub fn to_protobuf(&self) -> Vec<u8> {
        net::Payment {
            ticket_params: self
                .ticket_params
                .as_ref()
                .map(TicketParams::to_wire_without_expiration),
            sender: Bytes::copy_from_slice(&self.sender.0),
            // Its absence crashes the reference's recipient.
            expiration_params: self
                .ticket_params
                .as_ref()
                .map(TicketParams::expiration_to_wire),
            ticket_sender_params: self
                .tickets
                .iter()
                .map(|ticket| net::TicketSenderParams {
                    sender_nonce: ticket.nonce,
                    sig: ticket.signature.clone(),
                })
                .collect(),
            expected_price: self.expected_price.map(|price| net::PriceInfo {
                price_per_unit: price.wei(),
                pixels_per_unit: price.per(),
                ..net::PriceInfo::default()
            }),
        }
        .encode_to_vec()
    }

    /// The header's value.
    #[must_use]
    pub fn encode(&self) -> String {
        to_base64(&self.to_protobuf())
    }
}

/// The leave to use an orchestrator for one segment, or for a whole job or payment if the segment is empty.
///
/// The signature covers manifest id, sequence number, hash and profile ids; not duration, capabilities or token.
#[derive(Clone, PartialEq)]
pub struct SegmentCredentials {
    /// The balance that payments go to, and the name of the job.
    pub manifest_id: String,
    /// The segment's number; zero for payments.
    pub seq: i64,
    /// The hash of the segment.
    pub hash: [u8; 32],
    /// Milliseconds as they came; zero for payments.
    pub duration_ms: i32,
    /// Hex digits of the ids of the profiles to transcode to; empty for payments.
    pub profile_ids: String,
    /// The capabilities that the job needs, if the payer says.
    pub capabilities: Option<Capabilities>,
    /// The auth token of the quote.
    pub auth_token: Option<AuthToken>,
    /// The payer's signature, as it came; empty off-chain.
    pub signature: Bytes,
}

impl core::fmt::Debug for SegmentCredentials {
    // The signature lets whoever has it use the orchestrator.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SegmentCredentials")
            .field("manifest_id", &self.manifest_id)
            .field("seq", &self.seq)
            .field("capabilities", &self.capabilities)
            .field("auth_token", &self.auth_token)
            .finish_non_exhaustive()
    }
}

impl SegmentCredentials {
    const WHAT: &str = "segment header";

    /// Credentials for an empty segment, unsigned yet: what goes with payments and start requests.
    #[must_use]
    pub fn for_payment(
        manifest_id: String,
        auth_token: Option<AuthToken>,
        capabilities: Option<Capabilities>,
    ) -> Self {
        Self {
            manifest_id,
            seq: 0,
            hash: keccak(&[]),
            duration_ms: 0,
            profile_ids: String::new(),
            capabilities,
            auth_token,
            signature: Bytes::new(),
        }
    }

    /// The header's value in off-chain mode: nothing but the token.
    #[must_use]
    pub fn offchain(auth_token: Option<&AuthToken>) -> String {
        to_base64(
            &net::SegData {
                auth_token: auth_token.map(AuthToken::to_wire),
                ..net::SegData::default()
            }
            .encode_to_vec(),
        )
    }

    /// The bytes that the signature covers, before hashing.
    #[must_use]
    pub fn flattened(&self) -> Vec<u8> {
        let mut flat = Vec::with_capacity(self.manifest_id.len() + 64 + self.profile_ids.len());
        flat.extend_from_slice(self.manifest_id.as_bytes());
        flat.extend_from_slice(&[0; 24]);
        // Negative numbers do not pass `decode`.
        flat.extend_from_slice(&self.seq.to_be_bytes());
        flat.extend_from_slice(&self.hash);
        flat.extend_from_slice(self.profile_ids.as_bytes());
        flat
    }

    /// The digest that the payer signs.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::node(&self.flattened())
    }

    /// Whether `sender` signed.
    ///
    /// # Errors
    /// As [`Signature::verify`], and if there are not 65 bytes.
    pub fn verify(&self, sender: Address) -> Result<(), BadSignature> {
        Signature::from_slice(&self.signature)?.verify(self.digest(), sender)
    }

    /// Reads the header's value.
    ///
    /// # Errors
    /// Errors of the base64 text and of the message inside, in this order; the caller answers them differently.
    pub fn decode(header: &str) -> Result<Self, BadCredentials> {
        let message = header_bytes(header, Self::WHAT).map_err(|_| BadCredentials::Encoding)?;
        let wire = net::SegData::decode(message)
            .map_err(|err| BadCredentials::Malformed(format!("{err}")))?;
        let limit = i32::try_from(MAX_SEGMENT_DURATION.as_millis()).unwrap_or(i32::MAX);
        if !(0..=limit).contains(&wire.duration) {
            return Err(BadCredentials::Duration);
        }
        if wire.seq < 0 {
            return Err(BadCredentials::Malformed("negative sequence number".into()));
        }
        let manifest_id = String::from_utf8(wire.manifest_id.into())
            .map_err(|_| BadCredentials::Malformed("the manifest id is not UTF-8".into()))?;
        let profile_ids = match &*wire.profiles {
            b"" | b"invalid" => String::new(),
            ids => hex::encode(ids),
        };
        Ok(Self {
            manifest_id,
            seq: wire.seq,
            hash: hash_from_wire(&wire.hash),
            duration_ms: wire.duration,
            profile_ids,
            capabilities: wire
                .capabilities
                .map(Capabilities::from_wire)
                .transpose()
                .map_err(|err| BadCredentials::Malformed(err.why))?,
            auth_token: wire.auth_token.map(AuthToken::from_wire),
            signature: wire.sig,
        })
    }

    /// The header's value.
    #[must_use]
    pub fn encode(&self) -> String {
        let profiles = match hex::decode(&self.profile_ids) {
            Ok(ids) if !ids.is_empty() => Bytes::from(ids),
            _ => Bytes::from_static(b"invalid"),
        };
        to_base64(
            &net::SegData {
                manifest_id: Bytes::copy_from_slice(self.manifest_id.as_bytes()),
                seq: self.seq,
                hash: Bytes::copy_from_slice(&self.hash),
                profiles,
                sig: self.signature.clone(),
                duration: self.duration_ms,
                capabilities: self.capabilities.as_ref().map(|capabilities| {
                    let mut wire = capabilities.to_wire();
                    // The reference always writes it.
                    wire.constraints.get_or_insert_default();
                    wire
                }),
                auth_token: self.auth_token.as_ref().map(AuthToken::to_wire),
                ..net::SegData::default()
            }
            .encode_to_vec(),
        )
    }
}

/// The fresh quote in an orchestrator's answer to a payment, if there is a usable one.
#[must_use]
pub fn read_payment_result(body: Bytes) -> Option<OrchestratorInfo> {
    let wire = net::PaymentResult::decode(body).ok()?.info?;
    OrchestratorInfo::from_wire(wire.encode_to_vec().into(), wire).ok()
}

/// An orchestrator's answer to a payment.
#[must_use]
pub fn payment_result(info: net::OrchestratorInfo) -> Bytes {
    net::PaymentResult { info: Some(info) }
        .encode_to_vec()
        .into()
}

/// Why segment credentials are not accepted, displayed as the reference words it. Answered with status 403.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadCredentials {
    /// The header is not base64, or too long.
    #[error("ErrorSegEncoding")]
    Encoding,
    /// The bytes are not the message.
    #[error("malformed segment credentials: {0}")]
    Malformed(String),
    /// Negative, or above [`MAX_SEGMENT_DURATION`].
    #[error("invalid duration")]
    Duration,
    /// The payer did not sign the credentials.
    #[error("ErrSegSig")]
    Signature,
    /// The orchestrator cannot do what they ask for.
    #[error("incompatible capabilities")]
    Capabilities,
    /// The credentials carry no auth token.
    #[error("missing auth token")]
    NoToken,
    /// The auth token is not ours.
    #[error("invalid auth token")]
    BadToken,
    /// The auth token was ours, but is past its time.
    #[error("expired auth token")]
    ExpiredToken,
    /// No session can be opened now.
    #[error("OrchestratorCapped")]
    Capped,
}
