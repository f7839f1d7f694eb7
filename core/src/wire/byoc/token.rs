//! An orchestrator's offer to run a container.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;
use livepeer_proto::net;
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::sender::Sender;
use crate::http::Url;
use crate::money::Price;
use crate::sign::Address;
use crate::time::Time;
use crate::wire::error::{WireError, cut};
use crate::wire::info::{AuthToken, OrchestratorInfo, TicketParams};
use crate::wire::json::Fields;
use crate::wire::payment::to_base64;

/// An offer to run a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Where requests go. As read it may be anybody's.
    pub service: Url,
    /// The price of a second; [`Price::FREE`] where nothing is paid.
    pub price: Price,
    /// Parameters of tickets for it; `None` where nothing is paid.
    pub ticket_params: Option<TicketParams>,
    /// The wei that the payer has left there, in whole ones.
    pub balance: i64,
    /// How many more jobs the container takes; none also where there is no such container.
    pub capacity: u32,
}

impl Token {
    const WHAT: &str = "job token";

    /// Reads an answer of the orchestrator at `asked`.
    ///
    /// # Errors
    /// If it is not the JSON object, or a part of it cannot be meant.
    pub fn from_json(body: &[u8], asked: &Url) -> Result<Self, WireError> {
        let bad = |why: String| WireError::new(Self::WHAT, why);
        let fields = Fields::only(body).map_err(bad)?;
        let service = fields.text("service_addr").map_err(bad)?;
        let service = match service.as_str() {
            "" => asked.clone(),
            text => {
                let named = |why: String| bad(format!("service_addr {:?}: {why}", cut(text)));
                let url = Url::parse(text).map_err(|err| named(err.to_string()))?;
                url.named_by(asked).map_err(|err| named(err.to_string()))?
            }
        };
        let capacity = fields.integer("available_capacity").map_err(bad)?;
        let price = match fields.object("price").map_err(bad)? {
            None => Price::FREE,
            Some(price) => {
                let number = |name| price.integer(name).map_err(bad);
                let (wei, per) = (number("pricePerUnit")?, number("pixelsPerUnit")?);
                match (wei, per) {
                    (0, _) => Price::FREE,
                    (wei, per) => Price::new(wei, per)
                        .ok_or_else(|| bad(format!("the price {wei} per {per} is none")))?,
                }
            }
        };
        let params = fields.object("ticket_params").map_err(bad)?;
        Ok(Self {
            service,
            price,
            ticket_params: params.map(|params| read_params(&params)).transpose()?,
            balance: fields.integer("balance").map_err(bad)?,
            capacity: u32::try_from(capacity.max(0)).unwrap_or(u32::MAX),
        })
    }

    /// The answer of an orchestrator to `sender`. Members that are nothing are left out.
    #[must_use]
    pub fn to_json(&self, sender: Sender) -> Bytes {
        let addr = sender.0.map_or(Address::ZERO, |by| by.sender).checksummed();
        let sig = { sender.0 }.map_or_else(String::new, |by| format!("{:?}", by.signature));
        let mut price = Map::new();
        if !self.price.is_free() {
            price.insert("pricePerUnit".into(), self.price.wei().into());
        }
        price.insert("pixelsPerUnit".into(), self.price.per().into());
        let mut token = Map::new();
        token.insert("sender_address".into(), json!({"addr": addr, "sig": sig}));
        if let Some(params) = &self.ticket_params {
            token.insert("ticket_params".into(), params_json(params));
        }
        if self.balance != 0 {
            token.insert("balance".into(), self.balance.into());
        }
        token.insert("price".into(), price.into());
        token.insert("service_addr".into(), self.service.to_string().into());
        if self.capacity != 0 {
            token.insert("available_capacity".into(), self.capacity.into());
        }
        token.insert("LastNonce".into(), 0.into());
        let mut text = Value::Object(token).to_string();
        text.push('\n');
        text.into()
    }

    /// The offer as an orchestrator's info, which payments are made from. The balance is that of the container's name,
    /// and takes the place of a session; nothing but our own payments ever sees the leave to use it `until` then.
    #[must_use]
    pub fn to_info(&self, capability: &str, until: Time) -> OrchestratorInfo {
        let params = self.ticket_params.as_ref();
        let address = params.map_or(Address::ZERO, |params| params.recipient);
        let token = AuthToken {
            token: Bytes::from_static(b"byoc"),
            session_id: capability.into(),
            expiration: Time::from_secs(until.as_secs()),
        };
        let message = net::OrchestratorInfo {
            transcoder: self.service.to_string(),
            ticket_params: params.map(TicketParams::to_wire),
            price_info: Some(net::PriceInfo {
                price_per_unit: self.price.wei(),
                pixels_per_unit: self.price.per(),
                ..net::PriceInfo::default()
            }),
            address: Bytes::copy_from_slice(&address.0),
            auth_token: Some(token.to_wire()),
            ..net::OrchestratorInfo::default()
        };
        OrchestratorInfo {
            raw: message.encode_to_vec().into(),
            transcoder: self.service.clone(),
            ticket_params: self.ticket_params.clone(),
            price: Some(self.price),
            address,
            capabilities: None,
            auth_token: Some(token),
            capabilities_prices: Vec::new(),
            nodes: Vec::new(),
        }
    }
}

/// Reads ticket parameters that are written as JSON.
fn read_params(fields: &Fields) -> Result<TicketParams, WireError> {
    let bad = |why: String| WireError::new(Token::WHAT, why);
    let bytes = |of: &Fields, name| Ok(of.bytes(name).map_err(bad)?.unwrap_or_default());
    let expiration = fields.object("expiration_params").map_err(bad)?;
    let expiration = expiration.map(|params| {
        Ok(net::TicketExpirationParams {
            creation_round: params.integer("creation_round").map_err(bad)?,
            creation_round_block_hash: bytes(&params, "creation_round_block_hash")?,
        })
    });
    TicketParams::from_wire(&net::TicketParams {
        recipient: bytes(fields, "recipient")?,
        face_value: bytes(fields, "face_value")?,
        win_prob: bytes(fields, "win_prob")?,
        recipient_rand_hash: bytes(fields, "recipient_rand_hash")?,
        seed: bytes(fields, "seed")?,
        expiration_block: bytes(fields, "expiration_block")?,
        expiration_params: expiration.transpose()?,
    })
}

fn params_json(params: &TicketParams) -> Value {
    let wire = params.to_wire();
    let expiration = wire.expiration_params.unwrap_or_default();
    json!({
        "recipient": to_base64(&wire.recipient),
        "face_value": to_base64(&wire.face_value),
        "win_prob": to_base64(&wire.win_prob),
        "recipient_rand_hash": to_base64(&wire.recipient_rand_hash),
        "seed": to_base64(&wire.seed),
        "expiration_block": to_base64(&wire.expiration_block),
        "expiration_params": {
            "creation_round": expiration.creation_round,
            "creation_round_block_hash": to_base64(&expiration.creation_round_block_hash),
        },
    })
}
