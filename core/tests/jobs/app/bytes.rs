//! Bytes: listings, sessions, demands, addresses, and the messages of runners.

use std::time::Duration;

use livepeer_core::http::Headers;
use livepeer_core::wire::app::registration::{
    BadHeartbeat, Heartbeat, Registered, SessionControl, SessionNews, StatedPrice, channels_answer,
    channels_json, go_duration, read_channels, removed_json, unregister_url,
};
use livepeer_core::wire::app::{
    Session, app_url, discovery_url, is_session_over, is_untouched, listing_json, passing,
};
use livepeer_core::wire::challenge::Challenge;
use livepeer_core::wire::listing::{read_list, read_runners};
use livepeer_core::wire::runner::{Gpu, Mode};
use serde_json::{Value, json};

use super::{CALL, OLDER, ORCHESTRATOR, REGISTRATION, SESSION, text, texts};
use crate::cases;
use crate::peers::url;

#[test]
fn a_listing_is_read_and_written_again() {
    for case in cases(OLDER, "cases") {
        if text(&case, "id") != "discovery" {
            continue;
        }
        let body = case["in"]["body_json"].to_string();
        let (entries, skipped) = read_list(body.as_bytes()).expect("a list");
        assert_eq!(skipped, []);
        let found: Vec<_> = entries
            .iter()
            .flat_map(|entry| {
                entry.runners.iter().map(|runner| {
                    let price = runner.price.as_ref();
                    json!({
                        "orchestrator": entry.url.to_string(),
                        "url": runner.url.to_string(),
                        "app": runner.app,
                        "mode": runner.mode.expect("told").name(),
                        "free": runner.available,
                        "price_wei": price.map(|price| price.wei.to_string()),
                        "unit": price.map(|price| price.unit.advertised()),
                    })
                })
            })
            .collect();
        assert_eq!(json!(found), case["out"]["runners"]);
        let first = &entries[0].runners[0];
        assert_eq!(
            first.gpu,
            Some(Gpu {
                id: "0".into(),
                name: "NVIDIA L40S".into(),
                vram_mb: 46_068
            })
        );
        let written: Value =
            serde_json::from_slice(&listing_json(&entries[0].url, &entries[0].runners))
                .expect("JSON");
        assert_eq!(written[0], case["in"]["body_json"][0]);
        let none: Value =
            serde_json::from_slice(&listing_json(&entries[1].url, &[])).expect("JSON");
        assert_eq!(none[0], case["in"]["body_json"][1]);
        return;
    }
    panic!("there is no such case");
}

#[test]
fn wishes_stand_in_the_address_of_a_listing() {
    let mut seen = 0;
    for case in cases(SESSION, "cases") {
        let call = &case["in"]["call"]["reserve_session"];
        let orchestrators = texts(&call["orchestrators"]);
        let (apps, gpus) = (texts(&call["app"]), texts(&call["gpu"]));
        let asked: Vec<_> = orchestrators
            .iter()
            .map(|at| {
                discovery_url(
                    &url(at),
                    apps.iter().map(String::as_str),
                    gpus.iter().map(String::as_str),
                )
                .to_string()
            })
            .collect();
        for sent in case["out"]["upstream"].as_array().into_iter().flatten() {
            let at = text(sent, "url");
            if at.contains("/discovery?") && !orchestrators.is_empty() {
                assert!(
                    asked.iter().any(|ours| ours == at),
                    "{}: {at} {asked:?}",
                    case["id"]
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn sessions_and_demands_of_every_case_are_read() {
    let (mut sessions, mut demands) = (0, 0);
    for name in [OLDER, SESSION, CALL] {
        for case in cases(name, "cases") {
            let id = text(&case, "id");
            let peers = case["in"]["peers"].as_array().into_iter().flatten();
            let replies = peers.map(|peer| {
                (
                    text(peer, "at").split(' ').next_back().unwrap_or_default(),
                    &peer["reply"],
                )
            });
            let steps = case["in"]["steps"].as_array().into_iter().flatten();
            let steps = steps.map(|step| (text(&step["request"], "url"), &step["reply"]));
            for (at, reply) in replies.chain(steps) {
                let body = reply["body_json"].to_string();
                if reply["status"] == 402 {
                    let demand = Challenge::from_json(body.as_bytes());
                    match id {
                        _ if reply["body_json"].get("payment_params").is_none() => {
                            assert_eq!(demand, Ok(None), "{id}");
                        }
                        "bad-params" | "manifest-differs" => assert!(demand.is_err(), "{id}"),
                        _ => {
                            let demand = demand.expect(id).expect(id);
                            assert_eq!(
                                demand.manifest_id,
                                text(&reply["body_json"], "manifest_id")
                            );
                            if id == "no-payment-url" {
                                let wanted = "https://orch-a.example:8935/payment";
                                assert_eq!(demand.payment_url.to_string(), wanted);
                            }
                            demands += 1;
                        }
                    }
                }
                if !at.ends_with("/session") || reply["status"] != 200 {
                    continue;
                }
                let runner = url(at);
                match Session::from_json(body.as_bytes(), &runner) {
                    Ok(session) => {
                        sessions += 1;
                        let given = &reply["body_json"];
                        assert_eq!(session.id, text(given, "session_id"), "{id}");
                        assert_eq!(session.app, url(text(given, "app_url")), "{id}");
                        let written: Value =
                            serde_json::from_slice(&session.to_json()).expect("JSON");
                        if id != "proxy-app-url" {
                            assert_eq!(written, *given, "{id}");
                        }
                        let stop = format!("/{}/stop", session.id);
                        assert!(session.stop_url().to_string().ends_with(&stop), "{id}");
                        if id != "proxy-app-url" {
                            assert_eq!(Session::at(&runner, &session.id), session, "{id}");
                        }
                    }
                    Err(bad) => {
                        assert_eq!(id, "control-missing", "{}", bad.why);
                        assert_eq!(bad.id.as_deref(), Some("5e551d00"));
                    }
                }
            }
        }
    }
    assert!(sessions > 15 && demands > 20, "{sessions} {demands}");
    let runner = url("https://orch-a.example:8935/apps/r1/session");
    for (body, why) in [
        ("", "EOF"),
        (
            r#"{"session_id":"../x","app_url":"https://a.example","control_url":"https://a.example"}"#,
            "session_id",
        ),
        (
            r#"{"session_id":"s","app_url":"https://a.example"}"#,
            "control_url",
        ),
        (
            r#"{"session_id":"s","app_url":"ftp://a","control_url":"https://a.example"}"#,
            "app_url",
        ),
        (
            r#"{"session_id":"s","app_url":"https://127.0.0.1:1","control_url":"https://a.example"}"#,
            "app_url",
        ),
    ] {
        let bad = Session::from_json(body.as_bytes(), &runner).expect_err(body);
        assert!(bad.why.to_string().contains(why), "{body}: {}", bad.why);
    }
}

#[test]
fn only_plain_paths_reach_an_app_as_they_are() {
    let single = url("https://o:1/apps/r1/app");
    for (path, whole) in [
        ("", "https://o:1/apps/r1/app/"),
        ("/", "https://o:1/apps/r1/app/"),
        ("v1/run", "https://o:1/apps/r1/app/v1/run"),
        (
            "/v1/run/?a=%2F&b=//",
            "https://o:1/apps/r1/app/v1/run/?a=%2F&b=//",
        ),
        ("?x=1", "https://o:1/apps/r1/app/?x=1"),
    ] {
        assert_eq!(app_url(&single, path).expect(path).to_string(), whole);
    }
    for path in [
        "/a%20b", "/a b", "/a//b", "//a", "/./a", "/a/..", "/a#b", "/ä", "/a\r\nb",
    ] {
        let bad = app_url(&single, path).expect_err(path).to_string();
        assert!(bad.contains("would not reach"), "{bad}");
    }
    let random = url("https://o:1/run/jf4vpa3nlmkpck2fiqvenbir4u");
    assert_eq!(app_url(&random, "").expect("bare"), random);
    assert_eq!(
        app_url(&random, "/x").expect("a path").path(),
        "/run/jf4vpa3nlmkpck2fiqvenbir4u/x"
    );
    // The cases agree.
    for case in cases(CALL, "cases") {
        let call = &case["in"]["call"]["call_runner"];
        let listed = text(&call["runner"], "url");
        let sent = &case["out"]["upstream"];
        if text(&case, "id") == "bare-app" {
            let whole = app_url(&url(listed), "").expect("plain").to_string();
            assert_eq!(whole, text(&sent[0], "url"));
        }
    }
}

#[test]
fn an_orchestrators_own_words_are_told_from_an_apps() {
    for (status, body, untouched) in [
        (404, "runner not found\n", true),
        (404, "runner session not found\n", true),
        (503, "no capacity available for runner\n", true),
        (503, "live runner price unavailable: x\n", true),
        (400, "runner is not single-shot\n", true),
        (
            502,
            "dial tcp 10.0.0.2:8080: connect: connection refused\n",
            true,
        ),
        (502, "context canceled\n", false),
        (404, "no such model\n", false),
        (503, "loading\n", false),
        (500, "runner not found\n", false),
    ] {
        assert_eq!(
            is_untouched(status, body.as_bytes()),
            untouched,
            "{status} {body}"
        );
    }
    assert!(is_session_over(404, b"runner session not found\n"));
    assert!(!is_session_over(404, b"runner not found\n"));
}

#[test]
fn nothing_that_is_ours_goes_on_to_an_app() {
    let mut headers = Headers::new();
    for name in [
        "accept",
        "authorization",
        "cookie",
        "livepeer-payment",
        "livepeer",
        "x-forwarded-for",
        "connection",
        "x-own",
    ] {
        headers.push_any(name, "1");
    }
    let kept = passing(&headers);
    let kept: Vec<_> = kept.iter().map(|(name, _)| name).collect();
    assert_eq!(kept, ["accept", "authorization", "cookie", "x-own"]);
}

/// The heartbeat that a call of the vectors asks for.
pub(super) fn heartbeat(call: &Value) -> Heartbeat {
    let mut beat = Heartbeat::new(text(call, "runner_url"), text(call, "app"));
    if call["mode"] == "single-shot" {
        beat.mode = Mode::SingleShot;
    }
    beat.capacity = u32::try_from(call["capacity"].as_u64().unwrap_or(1)).expect("small");
    if call["price"].is_number() {
        beat.price = StatedPrice {
            price: call["price"].to_string(),
            currency: text(call, "currency").to_ascii_lowercase(),
            unit: text(call, "unit").into(),
        };
    }
    beat.proxy = call["proxy"] == true;
    beat.runner_id = text(call, "runner_id").into();
    beat.label = text(call, "label").into();
    beat.version = text(call, "version").into();
    beat.metadata = text(call, "metadata").into();
    if let Some(gpu) = call.get("gpu") {
        beat.gpu = Some(Gpu {
            id: text(gpu, "id").into(),
            name: text(gpu, "name").into(),
            vram_mb: gpu["vram_mb"].as_u64().expect("a number"),
        });
    }
    beat
}

#[test]
fn a_runners_messages_are_those_of_the_first_version() {
    let mut beats = 0;
    for case in cases(REGISTRATION, "cases") {
        let id = text(&case, "id");
        let call = &case["in"]["call"];
        if let Some(register) = call.get("register_runner") {
            let sent = case["out"]["upstream"].as_array().into_iter().flatten();
            for (n, sent) in sent
                .filter(|sent| text(sent, "url").ends_with("/heartbeat"))
                .enumerate()
            {
                let mut beat = heartbeat(register);
                // Later ones bear the name that was given, and the sessions that there are.
                if n > 0 {
                    beat.runner_id = text(&sent["body_json"], "runner_id").into();
                }
                beat.sessions = texts(&sent["body_json"]["session_ids"]);
                let ours: Value = serde_json::from_slice(&beat.to_json()).expect("JSON");
                assert_eq!(ours, sent["body_json"], "{id}");
                assert_eq!(Heartbeat::from_json(&beat.to_json()), Ok(beat), "{id}");
                beats += 1;
            }
        }
        let mut first = true;
        for peer in case["in"]["peers"].as_array().into_iter().flatten() {
            let reply = &peer["reply"];
            if !text(peer, "at").ends_with("/heartbeat") || reply["status"] != 200 {
                continue;
            }
            let body = reply["body_json"].to_string();
            let told = Registered::from_json(body.as_bytes(), first);
            first = false;
            match (id, told) {
                ("no-secret" | "no-id", told) => {
                    let said = told.expect_err(id).to_string();
                    let wanted = text(&case["out"]["error"], "text");
                    assert!(
                        wanted.ends_with(said.trim_start_matches("heartbeat answer: ")),
                        "{said}"
                    );
                }
                ("durations", told) => {
                    let interval = told.expect(id).interval.as_secs_f64();
                    assert_eq!(json!(interval), case["out"]["result"]["interval_s"], "{id}");
                }
                (_, told) => {
                    let told = told.expect(id);
                    let again = Registered::from_json(&told.to_json(), false);
                    assert_eq!(again, Ok(told), "{id}");
                }
            }
        }
        for sent in case["out"]["upstream"].as_array().into_iter().flatten() {
            if text(sent, "url").contains("/unregister") {
                let whole = unregister_url(&url(text(sent, "url")).with_path("/"), "runner_abc")
                    .to_string();
                assert!(text(sent, "url") == whole || id == "all-fields", "{id}");
            }
        }
    }
    assert!(beats > 10, "{beats}");
}

#[test]
fn a_runner_manages_its_session_by_what_the_request_says() {
    for case in cases(REGISTRATION, "cases") {
        let (id, call) = (text(&case, "id"), &case["in"]["call"]);
        let kinds = [
            "create_trickle_channels",
            "remove_trickle_channels",
            "create_proxy",
            "stop_runner_session",
        ];
        let Some((kind, call)) = kinds.iter().find_map(|kind| Some((*kind, call.get(kind)?)))
        else {
            continue;
        };
        let mut headers = Headers::new();
        for (name, value) in call["request_headers"].as_object().into_iter().flatten() {
            headers.push_any(name, value.as_str().expect("text"));
        }
        let orchestrator = url("https://orch-a.example:8935");
        if let Some(session) = call["session"].as_str() {
            headers.push_any("livepeer-session-id", session);
            headers.push_any("livepeer-session-token", text(call, "session_token"));
        }
        let runner = call["runner_id"].as_str().unwrap_or("r1");
        let control = match SessionControl::from_headers(&headers, &orchestrator, runner) {
            Ok(control) => control,
            Err(_) => {
                assert_eq!(id, "channels-no-token");
                continue;
            }
        };
        let sent = &case["out"]["upstream"][0];
        let at = text(sent, "url").rsplit_once('/').expect("a path").0;
        assert_eq!(control.url.to_string(), at, "{id}");
        assert_eq!(
            control.token,
            text(&sent["headers"], "livepeer-session-token"),
            "{id}"
        );
        let args = &call["args"][0];
        let asked = args.as_array().into_iter().flatten();
        match kind {
            "create_trickle_channels" => {
                let asked = asked.map(|one| (text(one, "name"), text(one, "mime_type")));
                let ours: Value = serde_json::from_slice(&channels_json(asked)).expect("JSON");
                assert_eq!(ours, sent["body_json"], "{id}");
                let answer = case["in"]["peers"][0]["reply"]["body_json"].to_string();
                match read_channels(answer.as_bytes()) {
                    Ok(channels) => {
                        let again: Value =
                            serde_json::from_slice(&channels_answer(&channels)).expect("JSON");
                        assert_eq!(again, case["in"]["peers"][0]["reply"]["body_json"], "{id}");
                    }
                    Err(_) => assert_eq!(id, "channels-none"),
                }
            }
            "remove_trickle_channels" => {
                let names: Vec<_> = asked.filter_map(Value::as_str).collect();
                let ours: Value = serde_json::from_slice(&removed_json(&names)).expect("JSON");
                assert_eq!(ours, sent["body_json"], "{id}");
            }
            _ => {}
        }
    }
}

#[test]
fn a_sign_of_life_is_refused_with_the_words_of_the_reference() {
    let mut seen = 0;
    for case in cases(ORCHESTRATOR, "cases") {
        let (id, reply) = (text(&case, "id"), &case["out"]["reply"]);
        if !id.starts_with("hb-") || reply["status"] != 400 {
            continue;
        }
        let mut body = case["in"]["request"]["body_json"].clone();
        if body["metadata"] == "<1025 bytes>" {
            body["metadata"] = "x".repeat(1025).into();
        }
        let refused = Heartbeat::from_json(body.to_string().as_bytes()).expect_err(id);
        assert_eq!(format!("{refused}\n"), text(reply, "body_text"), "{id}");
        seen += 1;
    }
    assert_eq!(seen, 5);
    // A name that its own address would not lead to.
    let mut beat = Heartbeat::new("http://10.0.0.2:1", "x/y");
    for name in ["a/b", "a b", "..", "ä"] {
        beat.runner_id = name.into();
        assert_eq!(
            Heartbeat::from_json(&beat.to_json()),
            Err(BadHeartbeat::Url),
            "{name}"
        );
    }
    assert_eq!(Heartbeat::from_json(b"{"), Err(BadHeartbeat::Body));
}

#[test]
fn durations_are_those_of_go() {
    for (text, nanos) in [
        ("5s", Some(5_000_000_000)),
        ("1m30s", Some(90_000_000_000)),
        ("1.5s", Some(1_500_000_000)),
        ("300ms", Some(300_000_000)),
        ("1h0m0.5s", Some(3_600_500_000_000)),
        ("1us", Some(1_000)),
        (".5s", Some(500_000_000)),
        ("0", Some(0)),
        ("", None),
        ("5", None),
        (".s", None),
        ("-5s", None),
        ("5x", None),
        ("s", None),
        ("99999999999999999999h", None),
    ] {
        assert_eq!(go_duration(text), nanos.map(Duration::from_nanos), "{text}");
    }
}

#[test]
fn news_of_sessions_are_read_and_anything_else_is_no_news() {
    let reserved = SessionNews::Reserved("s1".into());
    assert_eq!(
        SessionNews::from_json(&reserved.to_json("2026-08-01T00:00:00Z")),
        reserved
    );
    let released = br#"{"event": "released", "session": "s1", "timestamp": "x"}"#;
    assert_eq!(
        SessionNews::from_json(released),
        SessionNews::Released("s1".into())
    );
    for body in [
        "",
        "{\"keep\":\"alive\"}",
        "[]",
        r#"{"event":"reserved"}"#,
        r#"{"event":"else","session":"s"}"#,
    ] {
        assert_eq!(
            SessionNews::from_json(body.as_bytes()),
            SessionNews::Nothing,
            "{body}"
        );
    }
    assert!(read_runners(b"{}").is_err());
}
