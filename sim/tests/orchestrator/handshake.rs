//! `GetOrchestrator` and its neighbours (handshake spec 2).

use bytes::Bytes;
use livepeer_core::Address;
use livepeer_core::capabilities::{Capabilities, Capability, compatible};
use livepeer_core::http::{Method, Protocol, Request};
use livepeer_core::money::Price;
use livepeer_core::sign::{Digest, Signature};
use livepeer_core::wire::SegmentCredentials;
use livepeer_core::wire::grpc::{self, NoAnswer, Status};
use livepeer_orchestrator::{Event, ModelConfig, Quirks, Surface};
use livepeer_proto::net;
use livepeer_sim::Key;
use prost::Message as _;

use crate::stage::{PRICE, Paid, SERVICE, Stage, off_chain, on_chain, plain, secs, service};

fn refused(text: &str) -> Status {
    Status::new(Status::UNKNOWN, text)
}

#[test]
fn a_request_with_capabilities_is_answered_with_their_price_and_what_jobs_need() {
    let dear = ModelConfig {
        price: Price::new(77, 2),
        capacity: 3,
        ..ModelConfig::default()
    };
    let mut stage = Stage::new(on_chain().with_model("dear", dear));
    let now = stage.net.now();
    let hello = stage.hello(Some(Capabilities::live_video("dear")));
    let info = stage.shake(&hello).expect("an honest handshake");
    assert_eq!(info.transcoder, service());
    assert_eq!(info.address, Key::named("node").address());
    assert_eq!(info.price, Price::new(77, 2));
    let params = info.ticket_params.expect("on-chain");
    assert_eq!(params.recipient, Key::named("recipient").address());
    assert_eq!(params.expiration_block, 1_040_u32.into());
    let token = info.auth_token.expect("a token");
    assert_eq!(token.session_id.len(), 8);
    assert_eq!(token.expiration.as_secs(), now.as_secs() + 1_800);
    let offered = info.capabilities.expect("capabilities");
    compatible(Some(&offered), &Capabilities::live_video("dear")).expect("it has the model");
    let model = offered
        .model(Capability::LIVE_VIDEO_TO_VIDEO, "dear")
        .expect("listed");
    assert_eq!((model.capacity, model.in_use, model.warm), (3, 0, true));
    assert_eq!(offered.capacity(Capability::LIVE_VIDEO_TO_VIDEO), 8 + 3);
    assert_eq!(info.capabilities_prices, []);
    assert!(
        matches!(stage.events()[..], [Event::Quoted { payer, price: Some(_) }] if payer == stage.payer.address())
    );
}

#[test]
fn a_request_without_capabilities_is_answered_with_all_prices_and_the_hardware() {
    let half = ModelConfig {
        price: Price::new(5, 2),
        ..ModelConfig::default()
    };
    let mut stage = Stage::new(on_chain().with_model("half", half));
    let hello = stage.hello(None);
    let raw = stage
        .call(grpc::GET_ORCHESTRATOR, &hello)
        .expect("an answer");
    let wire = net::OrchestratorInfo::decode(raw).expect("info");
    assert_eq!(wire.hardware.len(), 2);
    let info = stage.shake(&hello).expect("an honest handshake");
    assert_eq!(info.price, Price::new(PRICE, 1));
    let told: Vec<_> = info
        .capabilities_prices
        .iter()
        .map(|entry| (entry.capability.id(), entry.model.as_str(), entry.price))
        .collect();
    // Whole wei only: 5/2 shows as 2 (handshake spec 6.1).
    let price = |wei| Price::new(wei, 1).expect("a price");
    assert_eq!(told, [(35, "half", price(2)), (35, "noop", price(PRICE))]);
}

#[test]
fn prices_add_up_over_the_models_asked_for_and_fall_back_to_the_nodes_own() {
    let third = ModelConfig {
        price: Price::new(1, 3),
        ..ModelConfig::default()
    };
    let free = ModelConfig {
        price: Price::new(0, 1),
        ..ModelConfig::default()
    };
    let config = on_chain()
        .with_model("third", third)
        .with_model("free", free);
    let mut stage = Stage::new(config);
    let live = Capability::LIVE_VIDEO_TO_VIDEO;
    let one = |name: &str| Capabilities::live_video(name);
    let mut uncounted = one("third");
    uncounted.capacities.clear();
    for (wanted, wei, per) in [
        (one("third"), 1, 3),
        (
            one("third").and_model(live, "noop", Default::default()),
            31,
            3,
        ),
        (one("nobody"), PRICE, 1),
        (one("free"), PRICE, 1),
        (uncounted, PRICE, 1),
        (Capabilities::default(), PRICE, 1),
    ] {
        let mut hello = stage.hello(Some(wanted.clone()));
        hello.ignore_capacity_check = true;
        let info = stage.shake(&hello).expect("an honest handshake");
        assert_eq!(info.price, Price::new(wei, per), "{wanted:?}");
    }
}

#[test]
fn only_the_signature_over_the_checksummed_address_counts() {
    let mut stage = Stage::new(on_chain());
    let honest = stage.hello(None);
    let address = stage.payer.address();
    let lower = address.to_string().to_lowercase();
    let text = address.to_string();
    let key = stage.payer.clone();
    let high_s = |mut sig: Signature| {
        sig.0[64] = 29;
        sig
    };
    for sig in [
        Vec::new(),
        honest.sig[..64].to_vec(),
        key.sign(Digest::node(lower.as_bytes())).0.to_vec(),
        key.sign(Digest::node(&address.0)).0.to_vec(),
        key.sign(Digest::personal(text.as_bytes())).0.to_vec(),
        Key::named("other")
            .sign(Digest::node(text.as_bytes()))
            .0
            .to_vec(),
        high_s(key.sign(Digest::node(text.as_bytes()))).0.to_vec(),
    ] {
        let hello = net::OrchestratorRequest {
            sig: sig.into(),
            ..honest.clone()
        };
        let told = "Invalid orchestrator request: orchestrator req sig check failed";
        assert_eq!(stage.shake(&hello), Err(refused(told)));
    }
    assert!(stage.shake(&honest).is_ok());
    let anonymous = net::OrchestratorRequest::default();
    assert!(stage.shake(&anonymous).is_err());
}

/// The ways in which gateways without an account sign: not at all, or as go-livepeer's does, with the text of no bytes.
#[test]
fn off_chain_anybody_is_welcome_and_nothing_costs_anything() {
    for signature in ["", "0x"] {
        let mut stage = Stage::new(off_chain());
        let nobody = net::OrchestratorRequest {
            address: Address::ZERO.0.to_vec().into(),
            sig: signature.into(),
            ..net::OrchestratorRequest::default()
        };
        assert!(stage.shake(&net::OrchestratorRequest::default()).is_ok());
        let info = stage.shake(&nobody).expect("anybody is welcome");
        assert_eq!(info.address, Address::ZERO);
        assert!(info.price.is_none() && info.ticket_params.is_none());
        assert!(info.auth_token.is_some() && info.capabilities.is_some());
        assert_eq!(info.capabilities_prices, []);

        let mut credentials =
            SegmentCredentials::for_payment("35_noop".to_owned(), info.auth_token, None);
        credentials.signature = signature.into();
        let unpaid = Paid {
            payment: String::new(),
            segment: credentials.encode(),
        };
        stage.started(&unpaid);
        assert_eq!(stage.post("/payment", &unpaid, "").status, Some(200));
    }
}

#[test]
fn a_full_model_is_refused_unless_the_caller_says_that_it_knows() {
    let small = ModelConfig {
        capacity: 1,
        ..ModelConfig::default()
    };
    let mut stage = Stage::new(off_chain().with_model("noop", small));
    stage.start_off_chain();
    let capped = refused("Invalid orchestrator request: OrchestratorCapped");
    let mut hello = stage.hello(Some(Capabilities::live_video("noop")));
    assert_eq!(stage.shake(&hello), Err(capped.clone()));
    hello.ignore_capacity_check = true;
    let info = stage.shake(&hello).expect("it knows");
    let offered = info.capabilities.expect("capabilities");
    let model = offered
        .model(Capability::LIVE_VIDEO_TO_VIDEO, "noop")
        .expect("listed");
    assert_eq!((model.capacity, model.in_use), (0, 1));
    // Without constraints there is nothing that could be full.
    let hello = stage.hello(None);
    assert!(stage.shake(&hello).is_ok());

    // The limit on transcoding sessions does not care what the caller knows.
    let quirks = Quirks {
        capped: true,
        ..Quirks::default()
    };
    stage
        .net
        .with(stage.orch, |orch, now| orch.set_quirks(now, quirks));
    hello_again(&mut stage, &capped);
}

fn hello_again(stage: &mut Stage, capped: &Status) {
    let mut hello = stage.hello(None);
    hello.ignore_capacity_check = true;
    assert_eq!(stage.shake(&hello).as_ref(), Err(capped));
}

#[test]
fn a_payer_without_funds_gets_no_quote() {
    let mut config = on_chain();
    let chain = &mut config.payments.as_mut().expect("on-chain").chain;
    chain
        .anyone
        .as_mut()
        .expect("everybody is funded")
        .reserve_remaining = 1_000_u64.into();
    let mut stage = Stage::new(config);
    let hello = stage.hello(None);
    assert_eq!(
        stage.shake(&hello),
        Err(refused("insufficient sender reserve"))
    );
    let mut config = on_chain();
    config.payments.as_mut().expect("on-chain").chain.anyone = None;
    let mut stage = Stage::new(config);
    assert!(stage.shake(&hello).is_err());
    assert!(
        stage.events().iter().any(
            |event| matches!(event, Event::PayerUnknown(who) if *who == stage.payer.address())
        )
    );
}

#[test]
fn what_is_no_grpc_on_its_paths_is_a_plain_404() {
    let mut stage = Stage::new(off_chain());
    for path in [
        grpc::GET_ORCHESTRATOR,
        grpc::PING,
        grpc::END_TRANSCODING_SESSION,
    ] {
        let answer = stage.ask(plain(path));
        assert_eq!(answer.status, Some(404), "{path}");
        assert_eq!(answer.text(), "404 page not found");
        let other = Request::new(Method::Post, service().with_path(path))
            .header("content-type", "application/json")
            .protocol(Protocol::Http2);
        assert_eq!(stage.ask(other).status, Some(404), "{path}");
    }
    let Err(NoAnswer::Status(status)) =
        stage.call("/net.Orchestrator/Nothing", &net::PingPong::default())
    else {
        panic!("there is no such method");
    };
    assert_eq!(status.code, Status::UNIMPLEMENTED);
}

#[test]
fn broken_calls_are_answered_with_a_status() {
    let mut stage = Stage::new(off_chain());
    let mut call = grpc::call(
        &service(),
        grpc::GET_ORCHESTRATOR,
        &net::PingPong::default(),
        livepeer_core::http::Trust::FirstUse,
        secs(5),
    );
    call.body = livepeer_core::http::Body::Full(Bytes::from_static(b"\0\0\0\0\x02\xff\xff"));
    let answer = stage.ask(call.clone());
    assert_eq!(answer.status, Some(200));
    assert_eq!(answer.headers.get("grpc-status"), Some("13"));
    call.body = livepeer_core::http::Body::Full(Bytes::from_static(b"\0\x7f\0\0\0"));
    assert_eq!(stage.ask(call).headers.get("grpc-status"), Some("8"));
}

#[test]
fn a_ping_comes_back_signed() {
    let mut stage = Stage::new(on_chain());
    let value = Bytes::from_static(b"are you there?");
    let raw = stage
        .call(
            grpc::PING,
            &net::PingPong {
                value: value.clone(),
            },
        )
        .expect("an answer");
    let pong = net::PingPong::decode(raw).expect("a pong");
    let signature = Signature::from_slice(&pong.value).expect("65 bytes");
    assert_eq!(
        signature.recover(Digest::node(&value)),
        Ok(Key::named("node").address())
    );
    let mut stage = Stage::new(off_chain());
    let raw = stage
        .call(grpc::PING, &net::PingPong { value })
        .expect("an answer");
    assert_eq!(raw, Bytes::new());
}

#[test]
fn only_our_own_token_ends_a_transcoding_session() {
    let mut stage = Stage::new(off_chain());
    let token = stage.info().auth_token.expect("a token").to_wire();
    let mut request = net::EndTranscodingSessionRequest {
        auth_token: Some(token),
    };
    assert!(stage.call(grpc::END_TRANSCODING_SESSION, &request).is_ok());
    request.auth_token.as_mut().expect("set").session_id = "other".to_owned();
    for request in [request, net::EndTranscodingSessionRequest::default()] {
        let Err(NoAnswer::Status(status)) = stage.call(grpc::END_TRANSCODING_SESSION, &request)
        else {
            panic!("refused");
        };
        assert_eq!(status, refused("Invalid auth token"));
    }
}

#[test]
fn there_is_nothing_else_at_this_address() {
    let mut stage = Stage::new(off_chain());
    let discovery = Request::new(Method::Get, service().with_path("/discovery"));
    let answer = stage.ask(discovery);
    assert_eq!(answer.status, Some(404));
    assert_eq!(answer.text(), "live runners are not supported");
    for path in [
        "/",
        "/segment",
        "/ai",
        "/live-video-to-videos",
        "/payment/x",
    ] {
        let answer = stage.ask(Request::new(Method::Get, service().with_path(path)));
        assert_eq!(answer.status, Some(404), "{path}");
    }
    for path in ["/live-video-to-video", "/payment", "/refresh-payment"] {
        let answer = stage.ask(Request::new(Method::Get, service().with_path(path)));
        assert_eq!(answer.status, Some(405), "{path}");
    }
    assert!(stage.events().iter().all(|event| matches!(
        event,
        Event::Rejected {
            surface: Surface::Other,
            ..
        }
    )));
    assert_eq!(SERVICE, service().origin());
}
