//! Wishes of runners about their sessions: the cases of the vectors, and what they leave open, by hand.

use std::time::Duration;

use livepeer_core::http::{Body, Headers, In, Out, Request, Response};
use livepeer_core::job::runner::{Ask, BadAsk, Config, SessionCall, SessionEvent, Told, WITHIN};
use livepeer_core::wire::app::registration::{MAX_CHANNELS, SessionControl};
use livepeer_core::{Effect, EffectId, Input, Machine as _, Output, Time};
use serde_json::{Value, json};

use super::{REGISTRATION, text};
use crate::cases;
use crate::peers::url;

const NOW: Time = Time::from_secs(1_790_000_000);
const AT: &str = "https://orch-a.example:8935/runner/r1/session/5e551d00";

fn control() -> SessionControl {
    SessionControl {
        url: url(AT),
        token: "tok".into(),
    }
}

/// A wish on its way.
struct Asked {
    machine: SessionCall,
    id: EffectId,
    request: Request,
}

impl Asked {
    fn new(to: &SessionControl, ask: Ask) -> Self {
        let machine = SessionCall::new(NOW, &Config::default(), to, ask);
        let mut machine = machine.expect("a wish");
        let Output::Effect(id, Effect::Http(Out::Request(request))) = machine.poll_output() else {
            panic!("it asks");
        };
        Self {
            machine,
            id,
            request,
        }
    }

    /// The only event, after this answer.
    fn answered(mut self, status: u16, body: &str) -> SessionEvent {
        for step in [
            In::Reply(Response::new(status)),
            In::Data(body.to_owned().into()),
            In::End(Headers::new()),
        ] {
            self.machine.handle_input(NOW, Input::Http(self.id, step));
        }
        self.told()
    }

    fn told(&mut self) -> SessionEvent {
        let event = match self.machine.poll_output() {
            Output::Effect(_, Effect::Http(Out::Abort)) => self.machine.poll_output(),
            other => other,
        };
        let Output::Event(event) = event else {
            panic!("{event:?}");
        };
        assert!(matches!(self.machine.poll_output(), Output::Idle(None)));
        event
    }
}

fn failure(event: SessionEvent) -> String {
    match event {
        SessionEvent::Failed(failure) => failure.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn wishes_are_those_of_the_vectors() {
    let mut seen = 0;
    for case in cases(REGISTRATION, "cases") {
        let id = text(&case, "id");
        let call = &case["in"]["call"];
        let kinds = [
            "create_trickle_channels",
            "remove_trickle_channels",
            "create_proxy",
            "stop_runner_session",
        ];
        let found = kinds.iter().find_map(|kind| Some((*kind, call.get(kind)?)));
        let Some((kind, call)) = found.filter(|_| case["out"]["upstream"][0].is_object()) else {
            continue;
        };
        let mut headers = Headers::new();
        for (name, value) in call["request_headers"].as_object().into_iter().flatten() {
            headers.push_any(name, value.as_str().expect("text"));
        }
        if let Some(session) = call["session"].as_str() {
            headers.push_any("livepeer-session-id", session);
            headers.push_any("livepeer-session-token", text(call, "session_token"));
        }
        let home = url("https://orch-a.example:8935");
        let runner = call["runner_id"].as_str().unwrap_or("r1");
        let to = SessionControl::from_headers(&headers, &home, runner).expect(id);
        let arg = &call["args"][0];
        let list = || arg.as_array().into_iter().flatten();
        let ask = match kind {
            "create_trickle_channels" => {
                let one = |one| (text(one, "name").into(), text(one, "mime_type").into());
                Ask::Channels(list().map(one).collect())
            }
            "remove_trickle_channels" => {
                let names = list().filter_map(Value::as_str).map(str::to_owned);
                Ask::NoChannels(names.collect())
            }
            "create_proxy" => Ask::Proxy(arg.as_str().map(str::to_owned)),
            _ => Ask::Stop,
        };
        let asked = Asked::new(&to, ask);
        let sent = &case["out"]["upstream"][0];
        let request = &asked.request;
        assert_eq!(request.method.as_str(), text(sent, "method"), "{id}");
        assert_eq!(request.url.to_string(), text(sent, "url"), "{id}");
        for (name, value) in sent["headers"].as_object().expect("a list") {
            // Nothing in a body is of no type.
            if value != "application/octet-stream" {
                assert_eq!(request.headers.get(name), value.as_str(), "{id} {name}");
            }
        }
        match &request.body {
            Body::Full(body) => {
                let ours: Value = serde_json::from_slice(body).expect("JSON");
                assert_eq!(ours, sent["body_json"], "{id}");
            }
            _ => assert!(sent.get("body_json").is_none(), "{id}"),
        }
        let reply = &case["in"]["peers"][0]["reply"];
        let status = u16::try_from(reply["status"].as_u64().expect("a status")).expect("short");
        let event = asked.answered(status, &reply["body_json"].to_string());
        let told = match event {
            SessionEvent::Done(Told::Channels(channels)) => {
                let channels = channels.iter().map(|channel| {
                    json!({
                        "name": channel.name,
                        "channel_name": channel.channel_name,
                        "url": channel.url.to_string(),
                        "internal_url": channel.internal_url.as_ref().map(ToString::to_string),
                        "mime_type": channel.mime_type,
                    })
                });
                Some(channels.collect())
            }
            SessionEvent::Done(Told::NoChannels(names)) => Some(json!(names)),
            SessionEvent::Done(Told::Proxy(proxy)) => {
                Some(json!({"proxy_id": proxy.id, "url": proxy.url.to_string()}))
            }
            SessionEvent::Done(_) => Some(Value::Null),
            _ => None,
        };
        assert_eq!(told.as_ref(), case["out"].get("result"), "{id}");
        seen += 1;
    }
    assert_eq!(seen, 7);
}

#[test]
fn a_wish_that_no_orchestrator_would_take_is_not_sent() {
    let names = |count| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>();
    let channel = |name: &str, mime: &str| Ask::Channels(vec![(name.into(), mime.into())]);
    assert_eq!(Ask::Channels(vec![]).check(), Err(BadAsk::Count(0)));
    let many = names(MAX_CHANNELS + 1);
    assert_eq!(Ask::NoChannels(many).check(), Err(BadAsk::Count(26)));
    assert_eq!(Ask::NoChannels(names(MAX_CHANNELS)).check(), Ok(()));
    let long = "x".repeat(257);
    for bad in [channel("", "a/b"), channel(&long, ""), channel("a", &long)] {
        assert!(matches!(bad.check(), Err(BadAsk::Name(_))), "{bad:?}");
    }
    for bad in ["/ui", "ftp://10.0.0.2/", "http://10.0.0.2/#top", ""] {
        let checked = Ask::Proxy(Some(bad.into())).check();
        assert_eq!(checked, Err(BadAsk::Target(bad.into())));
    }
}

#[test]
fn refusals_silence_and_places_that_nobody_may_name_are_failures() {
    let channels = || Asked::new(&control(), Ask::Channels(vec![("in".into(), "a/b".into())]));
    let refused =
        failure(Asked::new(&control(), Ask::Stop).answered(404, "runner session not found\n"));
    assert!(refused.contains("runner session not found"), "{refused}");
    let none = failure(channels().answered(200, r#"{"channels":[]}"#));
    assert!(none.contains("0 channels in place of 1"), "{none}");
    // A channel that is our own machine, named by somebody elsewhere.
    let place = json!({"channels": [{"name": "in", "url": "http://127.0.0.1:2375/containers"}]});
    let inside = failure(channels().answered(200, &place.to_string()));
    assert!(inside.contains("127.0.0.1"), "{inside}");
    let mut silent = channels();
    silent
        .machine
        .handle_input(NOW + WITHIN - Duration::from_millis(1), Input::Tick);
    assert!(matches!(
        silent.machine.poll_output(),
        Output::Idle(Some(_))
    ));
    silent.machine.handle_input(NOW + WITHIN, Input::Tick);
    let late = failure(silent.told());
    assert!(
        late.contains("no answer to a request for channels within 5s"),
        "{late}"
    );
}

#[test]
fn a_request_does_not_say_where_on_our_network_its_session_is_managed() {
    let of = |at: &str, home: &str| {
        let mut headers = Headers::new();
        headers.push_any("Livepeer-Session-Token", "tok");
        headers.push_any("Livepeer-Session-Control", at);
        SessionControl::from_headers(&headers, &url(home), "r1")
    };
    let home = "https://orch-a.example:8935";
    assert!(of(AT, home).is_ok());
    assert!(
        of(
            "https://127.0.0.1:8935/runner/r1/session/s",
            "https://127.0.0.1:8935"
        )
        .is_ok()
    );
    for inside in [
        "http://169.254.169.254/",
        "https://127.0.0.1:2375/x",
        "http://orch-a.example/",
    ] {
        assert!(of(inside, home).is_err(), "{inside}");
    }
}
