//! Messages of orchestrators and signers in these tests.

use livepeer_core::capabilities::{Capabilities, Capability, Model};
use livepeer_core::http::Url;
use livepeer_core::wire::identity_digest;
use livepeer_sim::Key;
use serde_json::Value;

pub(crate) fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// The bytes of hexadecimal digits, with or without `0x`.
pub(crate) fn unhex(of: &Value) -> Vec<u8> {
    let text = of.as_str().unwrap();
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).unwrap()
}

/// The answer of a signer that is asked who pays.
pub(crate) fn introduction(key: &Key) -> String {
    let address = key.address();
    let signature = hex::encode(key.sign(identity_digest(address)).0);
    format!(r#"{{"address":"{address}","signature":"0x{signature}"}}"#)
}

/// The capabilities of an orchestrator that serves live video through that model, so often at a time.
pub(crate) fn offer(model: &str, capacity: u32) -> Capabilities {
    let warm = Model {
        warm: true,
        capacity,
        ..Default::default()
    };
    Capabilities {
        version: "0.9.1".into(),
        ..Capabilities::common().and_model(Capability::LIVE_VIDEO_TO_VIDEO, model, warm)
    }
}
