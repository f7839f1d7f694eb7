//! The admission of sessions, and the effect of payments (jobs spec 2.4, payments spec 6, 10, 11).

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::http::{Body, Method, Request};
use livepeer_core::money::{Amount, Price};
use livepeer_core::wire::{OrchestratorInfo, Payment, SegmentCredentials};
use livepeer_orchestrator::{EndReason, Event, ModelConfig, Surface};
use livepeer_proto::net;
use livepeer_sim::Key;
use prost::Message as _;

use crate::stage::{PRICE, Paid, SERVICE, Stage, ms, off_chain, on_chain, secs, service};

const NOOP: &str = r#"{"model_id":"noop"}"#;
const FULL: &str = r#"{"model_id":"full"}"#;
const NONE: &str = r#"{"model_id":"none"}"#;

/// The expected value of a ticket: at or just above what was aimed for.
fn worth(info: &OrchestratorInfo) -> Amount {
    let params = info.ticket_params.as_ref().expect("on-chain");
    livepeer_core::payment::ticket::expected_value(&params.face_value, &params.win_prob)
}

fn times(amount: &Amount, n: usize) -> Amount {
    std::iter::repeat_n(amount.clone(), n).sum()
}

#[test]
fn a_paid_start_gives_four_channels_and_credits_the_sessions_account() {
    let mut stage = Stage::new(on_chain());
    let (info, channels) = stage.start(3);
    let base = format!("{SERVICE}/ai/trickle/{}", channels.manifest_id);
    assert_eq!(channels.publish.to_string(), base);
    assert_eq!(channels.subscribe.to_string(), format!("{base}-out"));
    assert_eq!(channels.control.to_string(), format!("{base}-control"));
    assert_eq!(channels.events.to_string(), format!("{base}-events"));
    let payer = stage.payer.address();
    let orch = stage.net.get(stage.orch);
    let balance = orch.balance(payer, &channels.manifest_id).cloned();
    assert_eq!(balance, Some(times(&worth(&info), 3)));
    assert_eq!(
        orch.sessions().collect::<Vec<_>>(),
        [channels.manifest_id.as_str()]
    );
    let figures = orch.figures();
    assert_eq!(
        (figures.payments, figures.tickets, figures.running),
        (1, 3, 1)
    );
    assert!(matches!(
        &stage.events()[1..],
        [
            Event::Credited { tickets: 3, .. },
            Event::SessionStarted { .. }
        ]
    ));
}

#[test]
fn a_start_is_checked_in_the_order_of_the_reference() {
    let full = ModelConfig {
        capacity: 0,
        ..ModelConfig::default()
    };
    let mut stage = Stage::new(on_chain().with_model("full", full));
    let info = stage.info();
    let good = stage.pay(&info, "m", 1..=3);
    let bad_payment = |text: &str| Paid {
        payment: text.to_owned(),
        ..good.clone()
    };
    let bad_segment = |segment: String| Paid {
        segment,
        ..good.clone()
    };
    let forged = {
        let mut credentials = stage.credentials(&info, "m");
        credentials.manifest_id = "n".to_owned();
        credentials.encode()
    };
    let with_token = |change: &dyn Fn(&mut livepeer_core::wire::AuthToken)| {
        let mut credentials = stage.credentials(&info, "m");
        change(credentials.auth_token.as_mut().expect("a token"));
        credentials.encode()
    };
    let other_token = with_token(&|token| token.session_id = "x".to_owned());
    let later_token = with_token(&|token| token.expiration = token.expiration + secs(1));
    let no_token = {
        let mut credentials = stage.credentials(&info, "m");
        credentials.auth_token = None;
        credentials.encode()
    };
    let too_long = {
        let mut credentials = stage.credentials(&info, "m");
        credentials.duration_ms = 300_001;
        credentials.encode()
    };
    let incompatible = {
        let mut credentials = stage.credentials(&info, "m");
        credentials.capabilities = Some(Capabilities::live_video("none"));
        credentials.encode()
    };
    let short = {
        let mut paid = stage.pay(&info, "m", 1..=1);
        let mut payment = Payment::decode(&paid.payment).expect("our own");
        payment.tickets.clear();
        paid.payment = payment.encode();
        paid
    };
    let cases: &[(Paid, &str, u16, &str)] = &[
        (bad_payment("!"), "no json", 400, ""),
        (good.clone(), r#"{"model_id":7}"#, 400, ""),
        (
            good.clone(),
            r#"{"model_id":"noop","params":[]}"#,
            400,
            "model parameters",
        ),
        (bad_payment("!"), FULL, 503, "insufficient capacity"),
        (bad_payment("!"), NOOP, 402, "base64 decode error: "),
        (bad_payment("AAAA"), NOOP, 402, "protobuf unmarshal error: "),
        (bad_payment("!"), NONE, 402, "base64 decode error: "),
        // An empty payment is of nobody, who signed nothing.
        (bad_payment(""), NOOP, 403, "ErrSegSig"),
        (bad_segment("!".to_owned()), NOOP, 403, "ErrorSegEncoding"),
        (bad_segment(forged), NOOP, 403, "ErrSegSig"),
        (bad_segment(other_token), NOOP, 403, "invalid auth token"),
        (bad_segment(later_token), NOOP, 403, "invalid auth token"),
        (bad_segment(no_token), NOOP, 403, "missing auth token"),
        (bad_segment(too_long), NOOP, 403, "invalid duration"),
        (
            bad_segment(incompatible),
            NOOP,
            403,
            "incompatible capabilities",
        ),
        (
            good.clone(),
            NONE,
            500,
            "no container image found for live pipeline none",
        ),
        (good.clone(), FULL, 503, "insufficient capacity"),
        (short, NOOP, 400, "Insufficient balance"),
    ];
    for (paid, body, status, text) in cases {
        let answer = stage.start_with(paid, body);
        assert_eq!(answer.status, Some(*status), "{body} {}", answer.text());
        assert!(
            answer.text().contains(text),
            "{:?} in {:?}",
            text,
            answer.text()
        );
    }
    // None of this took the tickets.
    assert_eq!(stage.net.get(stage.orch).figures().tickets, 0);
    stage.started(&good);
}

#[test]
fn expired_tokens_are_refused_and_a_fresh_handshake_helps() {
    let mut stage = Stage::new(on_chain());
    let info = stage.info();
    stage.net.run_for(secs(1_801));
    let paid = stage.pay(&info, "m", 1..=1);
    let answer = stage.start_with(&paid, NOOP);
    assert_eq!(
        (answer.status, answer.text()),
        (Some(403), "expired auth token".to_owned())
    );
    stage.start(1);
}

#[test]
fn tickets_that_are_not_good_are_refused_with_the_reason() {
    let mut stage = Stage::new(on_chain());
    let info = stage.info();
    let mut stranger = stage.pay(&info, "m", 1..=1);
    let mut payment = Payment::decode(&stranger.payment).expect("our own");
    payment.tickets[0].signature = Bytes::copy_from_slice(&[1; 65]);
    stranger.payment = payment.encode();
    let mut cheaper = info.clone();
    cheaper.price = Price::new(PRICE - 1, 1);
    let mut elsewhere = info.clone();
    elsewhere
        .ticket_params
        .as_mut()
        .expect("on-chain")
        .recipient = Key::named("x").address();
    for (paid, text) in [
        (stranger, "invalid ticket signature"),
        (stage.pay(&cheaper, "m", 2..=2), "invalid recipientRand"),
        (
            stage.pay(&elsewhere, "m", 3..=3),
            "invalid ticket recipient",
        ),
    ] {
        let answer = stage.start_with(&paid, NOOP);
        assert_eq!(answer.status, Some(400), "{text}");
        assert!(answer.text().starts_with(text), "{}", answer.text());
    }
    // Old parameters, after the chain moved on.
    let mut chain = on_chain().payments.expect("on-chain").chain;
    chain.l1_block += 40;
    stage
        .net
        .with(stage.orch, |orch, now| orch.set_chain(now, chain.clone()));
    let paid = stage.pay(&info, "m", 4..=4);
    let answer = stage.start_with(&paid, NOOP);
    assert_eq!(
        (answer.status, answer.text()),
        (Some(400), "TicketParams expired".to_owned())
    );
    // Not an active orchestrator.
    chain.active = false;
    stage
        .net
        .with(stage.orch, |orch, now| orch.set_chain(now, chain));
    let info = stage.info();
    let paid = stage.pay(&info, "m", 1..=1);
    let answer = stage.start_with(&paid, NOOP);
    assert!(
        answer.text().contains("inactive in round"),
        "{}",
        answer.text()
    );
    assert_eq!(stage.net.get(stage.orch).sessions().count(), 0);
}

#[test]
fn a_session_that_pays_goes_on_and_one_that_stops_is_cut_within_two_intervals_of_running_dry() {
    let mut stage = Stage::new(on_chain());
    // One ticket covers 28.9 seconds.
    let (info, channels) = stage.start(1);
    let id = channels.manifest_id.clone();
    let video = stage.publisher(&channels.publish, false);
    let mut nonce = 2;
    let began = stage.net.now();
    let mut unpaid_since = None;
    let mut cut = None;
    while cut.is_none() {
        stage.publish(video, b"segment", secs(1));
        let now = stage.net.now();
        // Pays for two minutes, a ticket every 25 seconds, then no more.
        if nonce <= 5 && now.since(began) > secs(25) * (nonce - 1) {
            let paid = stage.pay(&info, &id, nonce..=nonce);
            let answer = stage.post("/payment", &paid, "");
            assert_eq!(answer.status, Some(200), "{}", answer.text());
            nonce += 1;
        }
        let short = stage
            .net
            .get(stage.orch)
            .balance(stage.payer.address(), &id)
            .is_some_and(|left| *left < Price::new(PRICE, 1).expect("a price").fee(27_648_000 * 5));
        if short && unpaid_since.is_none() {
            unpaid_since = Some(now);
        }
        for event in stage.events() {
            if let Event::SessionEnded { why, manifest_id } = event {
                assert_eq!(manifest_id, id);
                let EndReason::Unpaid(text) = why else {
                    panic!("{why:?}");
                };
                assert!(text.contains("insufficient balance"), "{text}");
                cut = Some(now);
            }
        }
        assert!(now.since(began) < secs(200), "it is cut");
    }
    let (cut, dry) = (cut.expect("set"), unpaid_since.expect("it ran dry"));
    assert!(
        cut.since(began) > secs(140),
        "five tickets cover 144 seconds"
    );
    assert!(cut.since(dry) <= secs(10), "{:?}", cut.since(dry));
    // The media channels are gone at once; the others stay until everybody has heard why.
    let next = stage.ask(Request::new(Method::Get, channels.events.child("next")));
    let next: u64 = next.text().parse().expect("the next number");
    let last = channels.events.child(&(next - 1).to_string());
    let last_words = stage.ask(Request::new(Method::Get, last)).text();
    assert!(last_words.contains("insufficient balance"), "{last_words}");
    for channel in [&channels.publish, &channels.subscribe] {
        let answer = stage.ask(Request::new(Method::Get, channel.child("0")));
        assert_eq!(answer.status, Some(404), "{channel}");
    }
    stage.net.run_for(secs(1));
    for channel in [&channels.control, &channels.events] {
        let answer = stage.ask(Request::new(Method::Get, channel.child("0")));
        assert_eq!(answer.status, Some(404), "{channel}");
    }
    let figures = stage.net.get(stage.orch).figures();
    assert_eq!((figures.running, figures.tickets), (0, 5));
    // Billed plus what is left is what was credited.
    let left = stage
        .net
        .get(stage.orch)
        .balance(stage.payer.address(), &id)
        .cloned();
    assert_eq!(figures.billed + left.expect("an account"), figures.credited);
}

#[test]
fn a_session_without_input_is_not_billed() {
    let mut stage = Stage::new(on_chain());
    let (_, channels) = stage.start(1);
    stage.net.run_for(secs(100));
    let figures = stage.net.get(stage.orch).figures();
    assert!(figures.billed.is_zero());
    assert_eq!(figures.running, 1);
    let video = stage.publisher(&channels.publish, false);
    stage.publish(video, b"x", ms(10));
    stage.net.run_for(secs(11));
    let billed = stage.net.get(stage.orch).figures().billed;
    let ten_seconds = Price::new(PRICE, 1).expect("a price").fee(276_480_000);
    assert_eq!(billed, ten_seconds);
}

#[test]
fn a_payment_answers_with_a_quote_under_the_same_token() {
    let mut stage = Stage::new(on_chain());
    let (info, channels) = stage.start(1);
    let paid = stage.pay(&info, &channels.manifest_id, 2..=4);
    let answer = stage.post("/payment", &paid, "");
    assert_eq!(answer.status, Some(200));
    let result = net::PaymentResult::decode(&answer.body[..]).expect("a result");
    let told = result.info.as_ref().expect("a quote");
    assert!(told.capabilities_prices.is_empty() && told.hardware.is_empty());
    let raw = result.info.expect("a quote").encode_to_vec();
    let quote = OrchestratorInfo::decode(raw.into()).expect("info");
    assert_eq!(quote.auth_token, info.auth_token);
    assert_eq!(quote.price, info.price);
    assert_ne!(
        quote.ticket_params.expect("new").recipient_rand_hash,
        info.ticket_params
            .as_ref()
            .expect("old")
            .recipient_rand_hash
    );
    let orch = stage.net.get(stage.orch);
    assert_eq!(
        orch.balance(stage.payer.address(), &channels.manifest_id),
        Some(&times(&worth(&info), 4))
    );
}

#[test]
fn a_payment_sent_twice_is_credited_once() {
    let mut stage = Stage::new(on_chain());
    let (info, channels) = stage.start(1);
    let paid = stage.pay(&info, &channels.manifest_id, 2..=3);
    assert_eq!(stage.post("/payment", &paid, "").status, Some(200));
    stage.events();
    let answer = stage.post("/payment", &paid, "");
    assert_eq!(answer.status, Some(400));
    let sender = stage.payer.address();
    assert_eq!(
        answer.text(),
        format!("invalid ticket senderNonce: already seen sender={sender} nonce=2")
    );
    let balance = stage
        .net
        .get(stage.orch)
        .balance(stage.payer.address(), &channels.manifest_id);
    assert_eq!(balance, Some(&times(&worth(&info), 3)));
    assert!(stage.events().iter().any(|event| matches!(
        event,
        Event::Rejected {
            surface: Surface::Payment,
            status: 400,
            ..
        }
    )));
    // Of two at the same moment the second may come again: whether the first counts its record has to show.
    let paid = stage.pay(&info, &channels.manifest_id, 4..=4);
    let request = || {
        Request::new(Method::Post, service().with_path("/payment"))
            .header("livepeer-payment", paid.payment.clone())
            .header("livepeer-segment", paid.segment.clone())
    };
    let (one, two) = (stage.send(request()), stage.send(request()));
    let statuses = [stage.answer(one).status, stage.answer(two).status];
    assert_eq!(statuses, [Some(200), Some(500)]);
    assert_eq!(stage.net.get(stage.orch).figures().tickets, 4);
}

#[test]
fn credit_waits_for_the_record() {
    let mut stage = Stage::new(on_chain());
    let (info, channels) = stage.start(1);
    stage.net.service_time = secs(2);
    let paid = stage.pay(&info, &channels.manifest_id, 2..=2);
    let request = Request::new(Method::Post, service().with_path("/payment"))
        .header("livepeer-payment", paid.payment.clone())
        .header("livepeer-segment", paid.segment.clone());
    let id = stage.send(request);
    stage.net.run_for(secs(1));
    assert_eq!(stage.net.get(stage.caller).answer(id).status, None);
    assert_eq!(stage.net.get(stage.orch).figures().tickets, 1);
    assert_eq!(stage.answer(id).status, Some(200));
    assert_eq!(stage.net.get(stage.orch).figures().tickets, 2);
    assert!(
        stage
            .net
            .stored(stage.orch)
            .keys()
            .any(|key| key.starts_with("nonces:"))
    );
}

#[test]
fn a_payment_is_refused_with_the_status_that_fits() {
    let mut stage = Stage::new(on_chain());
    let (info, channels) = stage.start(1);
    let good = stage.pay(&info, &channels.manifest_id, 2..=2);
    for (paid, status) in [
        (
            Paid {
                payment: "!".to_owned(),
                ..good.clone()
            },
            402,
        ),
        (
            Paid {
                payment: String::new(),
                ..good.clone()
            },
            403,
        ),
        (
            Paid {
                segment: String::new(),
                ..good.clone()
            },
            403,
        ),
    ] {
        assert_eq!(stage.post("/payment", &paid, "").status, Some(status));
    }
    // No quote for the payer: nothing is processed.
    let mut chain = on_chain().payments.expect("on-chain").chain;
    let poor = chain.anyone.as_mut().expect("everybody is funded");
    poor.reserve_remaining = 1_u64.into();
    stage
        .net
        .with(stage.orch, |orch, now| orch.set_chain(now, chain));
    let answer = stage.post("/payment", &good, "");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (Some(500), "insufficient sender reserve")
    );
    let chain = on_chain().payments.expect("on-chain").chain;
    stage
        .net
        .with(stage.orch, |orch, now| orch.set_chain(now, chain));
    assert_eq!(stage.post("/payment", &good, "").status, Some(200));
}

#[test]
fn a_payment_without_tickets_changes_nothing() {
    let mut stage = Stage::new(on_chain());
    let (info, channels) = stage.start(1);
    let mut paid = stage.pay(&info, &channels.manifest_id, 2..=2);
    let mut payment = Payment::decode(&paid.payment).expect("our own");
    payment.tickets.clear();
    paid.payment = payment.encode();
    assert_eq!(stage.post("/payment", &paid, "").status, Some(200));
    let balance = stage
        .net
        .get(stage.orch)
        .balance(stage.payer.address(), &channels.manifest_id);
    assert_eq!(balance, Some(&worth(&info)));
}

#[test]
fn off_chain_nothing_is_paid_and_nothing_is_metered() {
    let mut stage = Stage::new(off_chain());
    let channels = stage.start_off_chain();
    let video = stage.publisher(&channels.publish, false);
    for _ in 0..30 {
        stage.publish(video, b"x", secs(1));
    }
    let info = stage.info();
    let answer = stage.post("/payment", &Stage::unpaid(&info), "");
    assert_eq!(answer.status, Some(200));
    let figures = stage.net.get(stage.orch).figures();
    assert_eq!(
        (figures.running, figures.payments, figures.tickets),
        (1, 0, 0)
    );
    assert!(figures.billed.is_zero());
    // The token still counts.
    let unsigned = Paid {
        payment: String::new(),
        segment: SegmentCredentials::offchain(None),
    };
    let answer = stage.start_with(&unsigned, NOOP);
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (Some(403), "missing auth token")
    );
}

#[test]
fn a_free_model_of_a_paid_orchestrator_needs_no_balance_and_no_meter() {
    let free = ModelConfig {
        price: Price::new(0, 1),
        ..ModelConfig::default()
    };
    let mut config = on_chain().with_model("noop", free);
    config.payments.as_mut().expect("on-chain").price = Price::new(0, 1).expect("a price");
    let mut stage = Stage::new(config);
    let info = stage.info();
    let mut paid = stage.pay(&info, "m", 1..=1);
    let mut payment = Payment::decode(&paid.payment).expect("our own");
    payment.tickets.clear();
    paid.payment = payment.encode();
    let channels = stage.started(&paid);
    let video = stage.publisher(&channels.publish, false);
    stage.publish(video, b"x", secs(1));
    stage.net.run_for(secs(60));
    assert_eq!(stage.net.get(stage.orch).figures().running, 1);
}

#[test]
fn a_place_is_kept_while_a_start_waits_for_its_receipt() {
    let one = ModelConfig {
        capacity: 1,
        ..ModelConfig::default()
    };
    let mut stage = Stage::new(on_chain().with_model("noop", one));
    let (first, second) = (stage.info(), stage.info());
    stage.net.service_time = secs(1);
    let request = |paid: Paid| {
        Request::new(Method::Post, service().with_path("/live-video-to-video"))
            .header("livepeer-payment", paid.payment)
            .header("livepeer-segment", paid.segment)
            .body(Body::Full(NOOP.into()))
    };
    let paid = [
        stage.pay(&first, "a", 1..=1),
        stage.pay(&second, "b", 1..=1),
    ];
    let [one, two] = paid.map(|paid| stage.send(request(paid)));
    assert_eq!(stage.answer(one).status, Some(200));
    let refused = stage.answer(two);
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (Some(503), "insufficient capacity")
    );
}

#[test]
fn who_hangs_up_before_the_answer_gets_no_session_but_keeps_the_credit() {
    let mut stage = Stage::new(on_chain());
    let info = stage.info();
    stage.net.service_time = secs(1);
    let paid = stage.pay(&info, "m", 1..=1);
    let id = stage.send(
        Request::new(Method::Post, service().with_path("/live-video-to-video"))
            .header("livepeer-payment", paid.payment)
            .header("livepeer-segment", paid.segment)
            .body(Body::Full(NOOP.into())),
    );
    stage.net.run_for(ms(100));
    stage.net.with(stage.caller, |caller, _| {
        caller.step(id, livepeer_core::http::Out::Abort);
    });
    stage.net.run_for(secs(2));
    let figures = stage.net.get(stage.orch).figures();
    assert_eq!((figures.sessions, figures.tickets), (0, 1));
}

#[test]
fn a_fixed_price_can_be_quoted_again() {
    let mut stage = Stage::new(on_chain());
    let (_, channels) = stage.start(1);
    let sender = stage.payer.address().to_string();
    let mut refresh = |body: String| {
        stage.ask(
            Request::new(Method::Post, service().with_path("/refresh-payment"))
                .body(Body::Full(body.into())),
        )
    };
    let id = &channels.manifest_id;
    let answer = refresh(format!(r#"{{"sender":"{sender}","manifest_id":"{id}"}}"#));
    assert_eq!(answer.status, Some(200), "{}", answer.text());
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(json["orchestrator"], SERVICE);
    assert_eq!(json["manifest_id"], id.as_str());
    assert_eq!(json["payment_url"], format!("{SERVICE}/payment"));
    let raw = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        json["payment_params"].as_str().expect("text"),
    );
    let quote = OrchestratorInfo::decode(raw.expect("base64").into()).expect("info");
    assert_eq!(quote.price, Price::new(PRICE, 1));
    assert_eq!(quote.auth_token.as_ref().expect("a token").session_id, *id);
    assert!(quote.capabilities.is_none());

    // The cases of the vectors (payments/challenge.json, cases_refresh).
    for (body, status, text) in [
        (
            format!(r#"{{"sender":"{sender}","manifest_id":"x"}}"#),
            409,
            "fixed price not found for session",
        ),
        (
            r#"{"sender":"not-an-address","manifest_id":"x"}"#.to_owned(),
            400,
            "invalid sender",
        ),
        (
            format!(r#"{{"sender":"{sender}","manifest_id":"  "}}"#),
            400,
            "missing manifest_id",
        ),
        ("{".to_owned(), 400, ""),
    ] {
        let answer = refresh(body);
        assert_eq!(answer.status, Some(status));
        assert_eq!(answer.headers.get("content-type"), Some("application/json"));
        let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let message = json["error"]["message"].as_str().expect("text");
        assert!(message.contains(text), "{message}");
    }
    // Tickets under that quote count.
    let paid = stage.pay(&quote, id, 1..=1);
    assert_eq!(stage.post("/payment", &paid, "").status, Some(200));
}

#[test]
fn a_kept_secret_and_the_records_survive_a_restart() {
    let mut config = on_chain();
    config.secret = Some(livepeer_core::payment::Secret([9; 32]));
    let mut stage = Stage::new(config.clone());
    let info = stage.info();
    let paid = stage.pay(&info, "first", 1..=2);
    stage.started(&paid);
    let records = stage.net.stored(stage.orch).clone();

    let mut again = Stage::new(config);
    again.net.with(again.orch, |orch, _| {
        for (key, value) in records {
            orch.restore(&livepeer_core::store::Record {
                key,
                value: Some(value),
            });
        }
    });
    let answer = again.start_with(&paid, NOOP);
    assert!(answer.text().contains("already seen"), "{}", answer.text());
    let paid = again.pay(&info, "first", 3..=3);
    again.started(&paid);
}

#[test]
fn bodies_have_a_limit_and_a_deadline() {
    let mut stage = Stage::new(off_chain());
    let url = service().with_path("/live-video-to-video");
    let request =
        Request::new(Method::Post, url.clone()).body(Body::Full(Bytes::from(vec![b' '; 2 << 20])));
    assert_eq!(stage.ask(request).status, Some(413));
    let id = stage.send(Request::new(Method::Post, url).body(Body::Stream));
    stage.net.run_for(secs(31));
    assert_eq!(stage.net.get(stage.caller).answer(id).status, Some(503));
}
