//! `vectors/jobs/05` and the message cases of `07`: how a live job starts, and what its channels carry.

use livepeer_core::http::Url;
use livepeer_core::wire::{
    Channels, DEFAULT_MODEL, EventContext, KEEP_ALIVE, Params, RunnerEvent, ScopeChannels,
    StartRequest,
};
use serde_json::{Map, Value, json};

use crate::{cases, of_kind, raw};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn start_answers_with_status_200_are_read() {
    let mut seen = 0;
    for case in &of_kind("jobs/05-lv2v-start.json", "peer_reply") {
        let (id, reply, out) = (text(case, "id"), &case["in"]["reply"], &case["out"]);
        if reply["status"] != 200 {
            continue;
        }
        seen += 1;
        let orchestrator = Url::parse(text(&case["in"], "orchestrator")).unwrap();
        let body = raw(reply, "body");
        if case["in"]["job"] == "scope" {
            let channels = ScopeChannels::from_json(body.as_bytes(), &orchestrator).expect(id);
            assert_eq!(channels.manifest_id, text(out, "manifest_id"), "{id}");
            assert_eq!(
                channels.control.to_string(),
                text(out, "control_url"),
                "{id}"
            );
            assert_eq!(channels.events.to_string(), text(out, "events_url"), "{id}");
            continue;
        }
        match Channels::from_json(body.as_bytes(), &orchestrator) {
            Err(_) => assert_eq!(out["class"], "other", "{id}"),
            Ok(channels) => {
                assert_eq!(out["class"], "done", "{id}");
                assert_eq!(channels.manifest_id, text(out, "manifest_id"), "{id}");
                for (have, want) in [
                    (&channels.publish, "publish_url"),
                    (&channels.subscribe, "subscribe_url"),
                    (&channels.control, "control_url"),
                    (&channels.events, "events_url"),
                ] {
                    assert_eq!(*have, Url::parse(text(out, want)).unwrap(), "{id} {want}");
                }
            }
        }
    }
    assert_eq!(seen, 15);
}

#[test]
fn start_requests_carry_what_the_reference_sends() {
    let mut seen = 0;
    for case in &of_kind("jobs/05-lv2v-start.json", "encode") {
        let (id, input, out) = (text(case, "id"), &case["in"], &case["out"]);
        if out.get("error").is_some() {
            // A missing model is refused where the job is configured, by the async API's builder.
            assert_eq!(id, "sdk-no-model");
            continue;
        }
        seen += 1;
        let given = |key: &str| input[key].as_str().map(String::from);
        let request = StartRequest {
            model_id: given("model_id").or(given("pipeline")).unwrap(),
            params: input["params"]
                .is_object()
                .then(|| Params::parse(&input["params"].to_string()).unwrap()),
            request_id: given("request_id"),
            stream_id: given("stream_id").filter(|id| !id.is_empty()),
        };
        let have: Value = serde_json::from_slice(&request.to_json()).unwrap();
        let sent = out["request"]["body_json"].to_string();
        let mut read = request.clone();
        if read.model_id.is_empty() {
            read.model_id = DEFAULT_MODEL.into();
        }
        for body in [&*request.to_json(), sent.as_bytes()] {
            assert_eq!(StartRequest::from_json(body).as_ref(), Ok(&read), "{id}");
        }
        let mut want = out["request"]["body_json"].as_object().unwrap().clone();
        // Empty and absent are the same to an orchestrator.
        want.retain(|_, value| !value.is_null() && value != "");
        assert_eq!(have, Value::Object(want), "{id}");
    }
    assert_eq!(seen, 3);
}

#[test]
fn events_are_unwrapped_stored_and_merged() {
    let mut seen = 0;
    for case in &of_kind("jobs/07-live-events-control.json", "event") {
        seen += 1;
        let (id, input, out) = (text(case, "id"), &case["in"], &case["out"]);
        let context = EventContext(
            [
                "stream_id",
                "request_id",
                "pipeline_id",
                "orchestrator_info",
            ]
            .into_iter()
            .map(|key| (key, input["context"][key].clone()))
            .collect(),
        );
        let stored = input["stored"].as_object().map(|event| RunnerEvent {
            queue: "ai_stream_status".to_string(),
            event: event.clone(),
        });
        let segment = raw(input, "segment");
        match RunnerEvent::parse(segment.as_bytes(), &context) {
            Err(_) => assert_eq!(out["alive"], json!(false), "{id}"),
            Ok(event) => {
                let event = if event.is_status() {
                    event.merged_over(stored.as_ref())
                } else {
                    event
                };
                assert_eq!(event.queue, text(out, "queue"), "{id}");
                assert_eq!(Value::Object(event.event.clone()), out["event"], "{id}");
                let now_stored = if event.is_status() {
                    Value::Object(event.event)
                } else {
                    Value::Null
                };
                assert_eq!(now_stored, out["stored"], "{id}");
            }
        }
    }
    assert_eq!(seen, 10);
}

#[test]
fn the_keep_alive_is_the_text_that_runners_ignore() {
    let all = cases("jobs/07-live-events-control.json", "cases");
    let case = all
        .iter()
        .find(|case| case["id"] == "control-keepalive")
        .unwrap();
    assert_eq!(KEEP_ALIVE, text(&case["out"], "segment_text"));
}

#[test]
fn parameters_are_one_json_object() {
    // A reader may know numbers and an order that we do not: the bytes stay as they came.
    let came = " {\"prompt\": \"a cat\",\n\"b\":1.10,\"a\":12345678901234567890123} ";
    let params = Params::parse(came).unwrap();
    assert_eq!(params.to_json(), came);
    let request = StartRequest {
        params: Some(params),
        ..StartRequest::default()
    };
    let body = request.to_json();
    assert!(String::from_utf8_lossy(&body).contains(came.trim()));
    let read = StartRequest::from_json(&body).unwrap();
    assert_eq!(read.params.unwrap().to_json(), came.trim());
    for bad in ["", "[1]", "null", "{", r#"{"a":1} x"#] {
        assert!(Params::parse(bad).is_err(), "{bad}");
    }
    let context = EventContext::default();
    assert_eq!(
        RunnerEvent::parse(b"{}", &context).unwrap().event,
        Map::new()
    );
}
