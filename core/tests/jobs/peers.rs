//! What orchestrators and signers say in these tests.

use k256::ecdsa::SigningKey;
use livepeer_core::capabilities::{Capabilities, Capability, Model};
use livepeer_core::http::{Body, Headers, In, Out, Url};
use livepeer_core::sign::{Digest, Signature};
use serde_json::Value;

pub(crate) fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// The bytes of hexadecimal digits, with or without `0x`.
pub(crate) fn unhex(of: &Value) -> Vec<u8> {
    let text = of.as_str().unwrap();
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).unwrap()
}

pub(crate) fn sign(key: &SigningKey, digest: Digest) -> Signature {
    let (signature, recovery) = key.sign_prehash_recoverable(&digest.0).unwrap();
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&signature.to_bytes());
    bytes[64] = 27 + recovery.to_byte();
    Signature(bytes)
}

/// What an orchestrator offers that serves live video through that model, so often at a time.
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

/// An answer as its receiver hears it.
pub(crate) fn heard(answer: impl IntoIterator<Item = Out>) -> Vec<In> {
    let mut heard = Vec::new();
    for step in answer {
        match step {
            Out::Reply(head) => {
                let all = matches!(head.body, Body::Empty);
                heard.push(In::Reply(head));
                if all {
                    heard.push(In::End(Headers::new()));
                }
            }
            Out::Data(data) => heard.push(In::Data(data)),
            Out::EndWith(trailers) => heard.push(In::End(trailers)),
            other => panic!("{other:?}"),
        }
    }
    heard
}
