//! Orchestrator infos: the claims of an orchestrator about itself.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use livepeer_proto::net;
use num_bigint::BigUint;
use prost::Message as _;

use super::error::{WireError, cut};
use crate::capabilities::{Capabilities, Capability, ModelPrice, price_of, prices_by_model};
use crate::http::Url;
use crate::money::{Price, Wei};
use crate::sign::{Address, Signature};
use crate::time::Time;

/// Everything a payer needs to build tickets for one recipient. Bound to its price: replace only the pair of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketParams {
    /// The account that tickets pay.
    pub recipient: Address,
    /// The amount that a winning ticket pays.
    pub face_value: Wei,
    /// A ticket wins with probability `win_prob / (2^256 - 1)`.
    pub win_prob: BigUint,
    /// The recipient's commitment; every quote has its own, and with it its own nonces.
    pub recipient_rand_hash: [u8; 32],
    /// The seed from which the recipient derives the committed number. Echoed unchanged.
    pub seed: Bytes,
    /// The L1 block from which tickets are refused.
    pub expiration_block: BigUint,
    /// The round in which tickets count as created; zero if the quote left it out.
    pub creation_round: i64,
    /// The block hash of that round; zeroes if the quote left it out.
    pub creation_round_block_hash: [u8; 32],
}

/// Numbers that tickets carry have 256 bits, and so has a seed.
const MAX_NUMBER_BYTES: usize = 32;

impl TicketParams {
    /// Reads the message.
    ///
    /// # Errors
    /// If a number has more than 256 bits or the round is negative.
    pub fn from_wire(wire: &net::TicketParams) -> Result<Self, WireError> {
        const WHAT: &str = "ticket parameters";
        for (name, bytes) in [
            ("face value", &wire.face_value),
            ("win probability", &wire.win_prob),
            ("seed", &wire.seed),
            ("expiration block", &wire.expiration_block),
        ] {
            if bytes.len() > MAX_NUMBER_BYTES {
                return Err(WireError::new(
                    WHAT,
                    alloc::format!("the {name} has more than 256 bits"),
                ));
            }
        }
        let mut params = Self {
            recipient: Address::from_wire(&wire.recipient),
            face_value: Wei::from_be_bytes(&wire.face_value),
            win_prob: BigUint::from_bytes_be(&wire.win_prob),
            recipient_rand_hash: hash_from_wire(&wire.recipient_rand_hash),
            seed: wire.seed.clone(),
            expiration_block: BigUint::from_bytes_be(&wire.expiration_block),
            creation_round: 0,
            creation_round_block_hash: [0; 32],
        };
        params.set_expiration(wire.expiration_params.as_ref())?;
        Ok(params)
    }

    /// Takes round and block hash from their message; without one both are zero.
    pub(crate) fn set_expiration(
        &mut self,
        wire: Option<&net::TicketExpirationParams>,
    ) -> Result<(), WireError> {
        let wire = wire.cloned().unwrap_or_default();
        if wire.creation_round < 0 {
            return Err(WireError::new(
                "ticket parameters",
                "the creation round is negative",
            ));
        }
        self.creation_round = wire.creation_round;
        self.creation_round_block_hash = hash_from_wire(&wire.creation_round_block_hash);
        Ok(())
    }

    /// The message as orchestrators quote it.
    #[must_use]
    pub fn to_wire(&self) -> net::TicketParams {
        net::TicketParams {
            expiration_params: Some(self.expiration_to_wire()),
            ..self.to_wire_without_expiration()
        }
    }

    /// Round and block hash alone. The hash has its 32 bytes even if they are zero.
    pub(crate) fn expiration_to_wire(&self) -> net::TicketExpirationParams {
        net::TicketExpirationParams {
            creation_round: self.creation_round,
            creation_round_block_hash: Bytes::copy_from_slice(&self.creation_round_block_hash),
        }
    }

    /// The message as payments carry it.
    pub(crate) fn to_wire_without_expiration(&self) -> net::TicketParams {
        net::TicketParams {
            recipient: Bytes::copy_from_slice(&self.recipient.0),
            face_value: self.face_value.to_be_bytes().into(),
            win_prob: Wei::from(self.win_prob.clone()).to_be_bytes().into(),
            recipient_rand_hash: Bytes::copy_from_slice(&self.recipient_rand_hash),
            seed: self.seed.clone(),
            expiration_block: Wei::from(self.expiration_block.clone())
                .to_be_bytes()
                .into(),
            expiration_params: None,
        }
    }
}

/// Reads a 32-byte wire field: short ones are padded on the left, of long ones the last 32 bytes count.
pub(crate) fn hash_from_wire(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    let tail = &bytes[bytes.len().saturating_sub(32)..];
    hash[32 - tail.len()..].copy_from_slice(tail);
    hash
}

/// The orchestrator's leave to use it for a while. Opaque, echoed in credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthToken {
    /// Only the orchestrator can make or read it.
    pub token: Bytes,
    /// Names the balance account of transcoding sessions.
    pub session_id: String,
    /// The time from which on the token is refused.
    pub expiration: Time,
}

impl AuthToken {
    /// Reads the message. A stamp that no clock will ever show is read as the nearest that one may.
    #[must_use]
    pub fn from_wire(wire: net::AuthToken) -> Self {
        Self {
            token: wire.token,
            session_id: wire.session_id,
            // Whole seconds also at the end of time.
            expiration: Time::from_secs(Time::from_unix(wire.expiration).as_secs()),
        }
    }

    /// The message.
    #[must_use]
    pub fn to_wire(&self) -> net::AuthToken {
        net::AuthToken {
            token: self.token.clone(),
            session_id: self.session_id.clone(),
            expiration: i64::try_from(self.expiration.as_secs()).unwrap_or(i64::MAX),
        }
    }
}

impl core::fmt::Debug for AuthToken {
    // The token is a bearer secret.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "AuthToken({}, until {:?})",
            self.session_id, self.expiration
        )
    }
}

/// The info of an orchestrator: its answer to `GetOrchestrator`, also piggybacked on payment results.
///
/// Nothing in it is signed: `address` is a claim (handshake spec 1.1).
#[derive(Clone, PartialEq)]
pub struct OrchestratorInfo {
    /// The message as received, so that a signer sees exactly what the orchestrator sent.
    pub raw: Bytes,
    /// Where all further traffic goes, and the key of sessions and suspensions. As read it may be anybody's, and
    /// leads to public addresses only; a handshake knows who said it.
    pub transcoder: Url,
    /// `None` from an off-chain orchestrator.
    pub ticket_params: Option<TicketParams>,
    /// `None` from an off-chain orchestrator.
    pub price: Option<Price>,
    /// The node's own account; zero from an off-chain orchestrator.
    pub address: Address,
    /// `None` only from very old nodes.
    pub capabilities: Option<Capabilities>,
    /// `None` makes the node unusable for jobs.
    pub auth_token: Option<AuthToken>,
    /// Prices per capability and model, in answers to requests without capabilities.
    pub capabilities_prices: Vec<ModelPrice>,
    /// Further instances, unverified; at most [`MAX_NODES`].
    pub nodes: Vec<String>,
}

impl core::fmt::Debug for OrchestratorInfo {
    // The raw message has the auth token in it.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("OrchestratorInfo")
            .field("transcoder", &self.transcoder)
            .field("ticket_params", &self.ticket_params)
            .field("price", &self.price)
            .field("address", &self.address)
            .field("capabilities", &self.capabilities)
            .field("auth_token", &self.auth_token)
            .field("capabilities_prices", &self.capabilities_prices)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

impl OrchestratorInfo {
    /// Reads the bytes of the message.
    ///
    /// # Errors
    /// If the bytes are not protobuf, name no usable URI of the orchestrator, or carry a malformed price.
    pub fn decode(raw: Bytes) -> Result<Self, WireError> {
        let wire = message(&raw)?;
        Self::from_wire(raw, wire)
    }

    /// Reads the message that was read from `raw`.
    ///
    /// # Errors
    /// If it names no usable URI of the orchestrator, or carries a malformed price.
    pub fn from_wire(raw: Bytes, wire: net::OrchestratorInfo) -> Result<Self, WireError> {
        let transcoder = Url::parse(&wire.transcoder).map(Url::told).map_err(|err| {
            WireError::new(
                WHAT,
                alloc::format!("transcoder {:?}: {err}", cut(&wire.transcoder)),
            )
        })?;
        let price = match &wire.price_info {
            None => None,
            Some(pair) => Some(
                Price::new(pair.price_per_unit, pair.pixels_per_unit).ok_or_else(|| {
                    WireError::new(
                        WHAT,
                        alloc::format!(
                            "the price {} per {} is none",
                            pair.price_per_unit,
                            pair.pixels_per_unit
                        ),
                    )
                })?,
            ),
        };
        Ok(Self {
            raw,
            transcoder,
            ticket_params: wire
                .ticket_params
                .as_ref()
                .map(TicketParams::from_wire)
                .transpose()?,
            price,
            address: Address::from_wire(&wire.address),
            capabilities: wire.capabilities.map(Capabilities::from_wire).transpose()?,
            auth_token: wire.auth_token.map(AuthToken::from_wire),
            capabilities_prices: super::capabilities::prices(wire.capabilities_prices)?,
            nodes: some_nodes(wire.nodes),
        })
    }

    /// The price of `model` of `capability` here, if it is known (handshake spec 6.2).
    #[must_use]
    pub fn price_for(&self, capability: Capability, model: &str) -> Option<Price> {
        price_of(&self.capabilities_prices, self.price, capability, model)
    }

    /// The prices of models by this answer to a request for `wanted`. The price of the answer is that of what was asked
    /// for, and says nothing of other models; with nothing asked for it is that of any without a price of its own.
    pub fn prices(&self, wanted: &Capabilities) -> impl Fn(Capability, &str) -> Option<Price> {
        let listed = prices_by_model(&self.capabilities_prices);
        let base = self.price;
        move |capability, model| {
            let asked = wanted.is_empty() || wanted.model(capability, model).is_some();
            let base = base.filter(|_| asked);
            listed.get(&(capability, model)).copied().or(base)
        }
    }

    /// The price of a container that the operator brought, or `None` if there is none of that name. Only answers to
    /// requests without capabilities tell (handshake spec 5.5).
    #[must_use]
    pub fn byoc_price(&self, name: &str) -> Option<Price> {
        price_of(&self.capabilities_prices, None, Capability::BYOC, name)
    }
}

/// The request for an orchestrator's info: who pays, if anybody does, and the capabilities wanted.
pub(crate) fn info_request(
    payer: Option<(Address, Signature)>,
    wanted: &Capabilities,
    ignore_capacity: bool,
) -> net::OrchestratorRequest {
    let (address, sig) = match payer {
        Some((address, signature)) => (
            Bytes::copy_from_slice(&address.0),
            Bytes::copy_from_slice(&signature.0),
        ),
        None => (Bytes::new(), Bytes::new()),
    };
    net::OrchestratorRequest {
        address,
        sig,
        capabilities: (!wanted.is_empty()).then(|| wanted.to_wire()),
        ignore_capacity_check: ignore_capacity,
    }
}

const WHAT: &str = "orchestrator info";

fn message(raw: &[u8]) -> Result<net::OrchestratorInfo, WireError> {
    net::OrchestratorInfo::decode(raw)
        .map_err(|err| WireError::new(WHAT, alloc::format!("not the protobuf message: {err}")))
}

/// An answer to `GetOrchestrator`.
#[derive(Clone, Debug, PartialEq)]
pub enum OrchestratorAnswer {
    /// The orchestrator's own info.
    Info(Box<OrchestratorInfo>),
    /// The orchestrator takes no work itself, and says so by an empty URI. These are the URIs of others that may,
    /// unverified (handshake spec 2.3).
    Referral(Vec<String>),
}

impl OrchestratorAnswer {
    /// Reads the bytes of the message.
    ///
    /// # Errors
    /// As [`OrchestratorInfo::decode`], but an empty URI is a referral.
    pub fn decode(raw: Bytes) -> Result<Self, WireError> {
        let wire = message(&raw)?;
        if wire.transcoder.is_empty() {
            return Ok(Self::Referral(some_nodes(wire.nodes)));
        }
        let info = OrchestratorInfo::from_wire(raw, wire)?;
        Ok(Self::Info(Box::new(info)))
    }
}

/// At most this many further instances are read; the rest is ignored.
pub const MAX_NODES: usize = 100;

fn some_nodes(mut nodes: Vec<String>) -> Vec<String> {
    nodes.truncate(MAX_NODES);
    nodes
}
