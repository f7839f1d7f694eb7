//! Secrets, and text that is worth money to its holder, are not shown by `Debug`.

use std::fmt::Debug;

use livepeer_core::handshake::Identity;
use livepeer_core::http::{Body, Headers, In, Method, Out, Request, Response, Url};
use livepeer_core::payment::remote::Webhook;
use livepeer_core::payment::session::Credentials;
use livepeer_core::wire::signer::{PaymentRequest, PaymentResponse, StateBlob};
use livepeer_core::wire::{OrchestratorInfo, SegmentCredentials, SenderParams};
use livepeer_core::{Effect, EffectId, Input, Signers};
use livepeer_proto::net;
use prost::Message as _;

const SECRET: &str = "s3cret-4711";

#[test]
fn debug_shows_no_secret() {
    let url = || Url::parse("http://signer:1").unwrap();
    let mut headers = Headers::new();
    headers.push_any("Authorization", format!("Bearer {SECRET}"));
    headers.push("content-type", "text/plain");
    let shown = format!("{headers:?}");
    assert!(
        shown.contains("authorization") && shown.contains("text/plain"),
        "{shown}"
    );

    let bytes = || bytes::Bytes::from_static(SECRET.as_bytes());
    let request = Request::new(Method::Post, url())
        .header("livepeer-payment", SECRET)
        .body(Body::Full(bytes()));
    let reply = Response::new(200)
        .header("livepeer-segment", SECRET)
        .body(Body::Full(bytes()));
    let state = StateBlob {
        state: bytes(),
        sig: bytes(),
    };
    let mut segment = SegmentCredentials::for_payment("job".into(), None, None);
    segment.signature = bytes();
    let info = net::OrchestratorInfo {
        transcoder: "https://orch:8935".into(),
        auth_token: Some(net::AuthToken {
            token: bytes(),
            session_id: "session".into(),
            expiration: 1,
        }),
        ..net::OrchestratorInfo::default()
    };
    let info = OrchestratorInfo::decode(info.encode_to_vec().into()).unwrap();
    assert_eq!(info.auth_token.as_ref().unwrap().token, bytes());
    let id = EffectId::by_peer(1);
    let all: [&dyn Debug; 14] = [
        &headers,
        &Effect::Http(Out::Request(request.clone())),
        &Effect::Http(Out::Data(bytes())),
        &Input::Http(id, In::Request(request)),
        &Input::Http(id, In::Reply(reply)),
        &Input::Http(id, In::Data(bytes())),
        &PaymentRequest {
            state: state.clone(),
            orchestrator: Some(info.raw.clone()),
            ..PaymentRequest::default()
        },
        &PaymentResponse {
            payment: SECRET.into(),
            segment: SECRET.into(),
            state,
        },
        &SenderParams {
            nonce: 1,
            signature: bytes(),
        },
        &segment,
        &info,
        &Webhook {
            url: url(),
            headers: headers.clone(),
        },
        &Identity::Remote(Signers::new(url()).headers(headers.clone())),
        &Credentials {
            payment: SECRET.into(),
            segment: SECRET.into(),
        },
    ];
    for (index, one) in all.iter().enumerate() {
        let shown = format!("{one:?}");
        assert!(!shown.contains(SECRET), "{index}: {shown}");
    }
}
