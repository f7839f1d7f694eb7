//! The orchestrator misbehaves when told to, and only then.

use livepeer_core::capabilities::{Capabilities, compatible};
use livepeer_core::http::{Method, Request};
use livepeer_core::money::Price;
use livepeer_core::trickle::Start;
use livepeer_core::wire::Channels;
use livepeer_orchestrator::{Config, Quirks};

use crate::stage::{PRICE, Stage, ms, off_chain, on_chain, secs, service};

fn with(config: Config, quirks: Quirks) -> Stage {
    Stage::new(Config { quirks, ..config })
}

#[test]
fn a_field_of_the_start_answer_can_be_missing() {
    for field in [
        "publish_url",
        "subscribe_url",
        "control_url",
        "events_url",
        "manifest_id",
    ] {
        let quirks = Quirks {
            leave_out: Some(field.to_owned()),
            ..Quirks::default()
        };
        let mut stage = with(off_chain(), quirks);
        let info = stage.info();
        let answer = stage.start_with(&Stage::unpaid(&info), r#"{"model_id":"noop"}"#);
        assert_eq!(answer.status, Some(200));
        let error = Channels::from_json(&answer.body, &service()).expect_err("incomplete");
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn it_can_tell_of_another_model_than_it_has() {
    let quirks = Quirks {
        other_model: Some("grand".to_owned()),
        ..Quirks::default()
    };
    let mut stage = with(off_chain(), quirks);
    let offered = stage.info().capabilities.expect("capabilities");
    assert!(compatible(Some(&offered), &Capabilities::live_video("noop")).is_err());
    assert!(compatible(Some(&offered), &Capabilities::live_video("grand")).is_ok());
}

#[test]
fn its_price_can_jump() {
    let quirks = Quirks {
        price_jump: Some((2, 3)),
        ..Quirks::default()
    };
    let mut stage = with(on_chain(), quirks);
    let prices = [(); 4].map(|()| stage.info().price);
    let (before, after) = (Price::new(PRICE, 1), Price::new(3 * PRICE, 1));
    assert_eq!(prices, [before, before, after, after]);
}

#[test]
fn it_can_refuse_payments_leave_out_the_token_and_be_silent() {
    let refuse = Quirks {
        refuse_payments: Some((400, "TicketParams expired".to_owned())),
        ..Quirks::default()
    };
    let mut stage = with(on_chain(), refuse);
    let info = stage.info();
    let paid = stage.pay(&info, "m", 1..=1);
    let answer = stage.post("/payment", &paid, "");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (Some(400), "TicketParams expired")
    );

    let quirks = Quirks {
        no_auth_token: true,
        ..Quirks::default()
    };
    assert!(with(on_chain(), quirks).info().auth_token.is_none());

    let quirks = Quirks {
        silent: true,
        ..Quirks::default()
    };
    stage
        .net
        .with(stage.orch, |orch, now| orch.set_quirks(now, quirks));
    let id = stage.send(Request::new(Method::Post, service().with_path("/payment")));
    stage.net.run_for(secs(120));
    assert_eq!(stage.net.get(stage.caller).answer(id).status, None);
}

#[test]
fn it_can_be_slow_without_slowing_its_channels() {
    let quirks = Quirks {
        delay: secs(2),
        ..Quirks::default()
    };
    let mut stage = with(off_chain(), quirks);
    let began = stage.net.now();
    let channels = stage.start_off_chain();
    assert!(stage.net.now().since(began) >= secs(4));
    let output = stage.reader(&channels.subscribe, Start::At(0.into()));
    let video = stage.publisher(&channels.publish, false);
    stage.publish(video, b"x", ms(10));
    stage.net.run_for(ms(50));
    assert_eq!(stage.read(output).0, [b"x"]);
}

#[test]
fn it_can_keep_output_and_events_to_itself() {
    let quirks = Quirks {
        no_output: true,
        no_events: true,
        ..Quirks::default()
    };
    let mut stage = with(off_chain(), quirks);
    let channels = stage.start_off_chain();
    let output = stage.reader(&channels.subscribe, Start::At(0.into()));
    let events = stage.reader(&channels.events, Start::At(0.into()));
    let video = stage.publisher(&channels.publish, false);
    stage.publish(video, b"x", ms(10));
    stage.net.run_for(secs(30));
    assert_eq!(stage.read(output), (Vec::new(), false));
    assert_eq!(stage.read(events), (Vec::new(), false));
}
