//! Answers recorded from a running orchestrator of the reference, compared with ours.

use livepeer_core::Pipeline;
use livepeer_core::http::{Body, Method, Request};
use livepeer_core::wire::{AuthToken, SegmentCredentials};
use livepeer_orchestrator::{BatchModel, Mishap, ModelConfig, Quirks};
use livepeer_sim::Answer;
use serde_json::{Value, json};

use crate::batch::{asked, nonsense, with_batch};
use crate::stage::{Paid, Stage, off_chain, service};

pub(crate) fn cases(file: &str) -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/tests/vectors/jobs/");
    let text = std::fs::read_to_string(format!("{folder}{file}.json")).expect(file);
    let mut vectors: Value = serde_json::from_str(&text).expect(file);
    match vectors["cases"].take() {
        Value::Array(cases) => cases,
        other => panic!("{file}: {other}"),
    }
}

/// Status, the named headers, and the body as far as it is told.
fn is(answer: &Answer, reply: &Value, id: &str) {
    assert_eq!(
        answer.status.map(u64::from),
        reply["status"].as_u64(),
        "{id}"
    );
    for (name, value) in reply["headers"].as_object().into_iter().flatten() {
        assert_eq!(answer.headers.get(name), value.as_str(), "{id}: {name}");
    }
    let json = || serde_json::from_slice::<Value>(&answer.body).expect(id);
    if let Some(expected) = reply.get("body_json") {
        assert_eq!(&json(), expected, "{id}");
    }
    for key in reply["body_json_keys"].as_array().into_iter().flatten() {
        assert!(json().get(key.as_str().expect("text")).is_some(), "{id}");
    }
    if let Some(expected) = reply["body_text"].as_str() {
        // How a decoder words its complaint is its own affair.
        let told = expected.split(": ").next().unwrap_or_default();
        assert!(
            answer.text().starts_with(told.trim_end()),
            "{id}: {}",
            answer.text()
        );
    }
}

#[test]
fn requests_for_fresh_ticket_parameters_are_refused_as_the_reference_does() {
    let mut stage = Stage::new(off_chain());
    let mut seen = 0;
    for case in cases("21-runner-orchestrator") {
        let id = case["id"].as_str().expect("text");
        // The good one needs a session with a price, and has a test of its own.
        if !id.starts_with("refresh-") || id == "refresh-ok" {
            continue;
        }
        let asked = &case["in"]["request"];
        let method = match asked["method"].as_str() {
            Some("GET") => Method::Get,
            _ => Method::Post,
        };
        let body = match (asked.get("body_json"), asked["body_text"].as_str()) {
            (Some(json), _) => json.to_string(),
            (None, text) => text.unwrap_or_default().to_owned(),
        };
        let path = asked["path"].as_str().expect("text");
        let request = Request::new(method, service().with_path(path));
        let answer = stage.ask(request.body(Body::Full(body.into())));
        is(&answer, &case["out"]["reply"], id);
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn payments_and_credentials_are_refused_in_the_words_of_the_reference() {
    let full = ModelConfig {
        capacity: 0,
        ..ModelConfig::default()
    };
    let mut stage = Stage::new(off_chain().with_model("full", full));
    let good = Stage::unpaid(&stage.info());
    let segment = |token: Option<&AuthToken>| SegmentCredentials::offchain(token);
    let with = |payment: &str, segment: String| Paid {
        payment: payment.to_owned(),
        segment,
    };
    let mut seen = 0;
    for case in cases("22-real-node") {
        let id = case["id"].as_str().expect("text");
        let (paid, model) = match id {
            "o-full" => (good.clone(), "full"),
            "o-payment-base64" => (with("!", good.segment.clone()), "noop"),
            "o-payment-protobuf" => (with("AAAA", good.segment.clone()), "noop"),
            "o-creds-missing" => (with("", segment(None)), "noop"),
            "o-creds-garbage" => (with("", "!".to_owned()), "noop"),
            _ => continue,
        };
        let answer = stage.start_with(&paid, &format!(r#"{{"model_id":"{model}"}}"#));
        is(&answer, &case["in"]["reply"], id);
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn batch_requests_are_refused_in_the_words_of_the_reference() {
    let full = BatchModel {
        capacity: 0,
        ..BatchModel::default()
    };
    let config = with_batch(off_chain(), BatchModel::default()).with_batch_model(
        Pipeline::TextToImage,
        "full",
        full,
    );
    let mut stage = Stage::new(config);
    let mut seen = 0;
    for case in cases("22-real-node") {
        let id = case["id"].as_str().expect("text");
        if case["in"]["job"] != "batch" {
            continue;
        }
        let pipeline = case["in"]["pipeline"].as_str().expect("text");
        let pipeline = Pipeline::from_name(pipeline).expect("a pipeline");
        let runner = |status: u16, detail: &str| Some(Mishap::Answers(status, detail.to_owned()));
        let invalid =
            r#"{"detail":[{"loc":["body","width"],"msg":"too big","type":"value_error"}]}"#;
        let mishap = match id {
            "o-400-text-to-image" | "o-400-segment-anything-2" | "o-400-llm" | "o-stream-400" => {
                runner(400, "bad lora")
            }
            "o-422" => runner(422, invalid),
            "o-413" => runner(413, "file too large; max file size is 50MB"),
            "o-415" => runner(415, "type"),
            "o-401" => runner(401, "no auth"),
            "o-500" | "o-stream-500" => runner(500, "CUDA oom"),
            "o-runner-gone" => Some(Mishap::Gone),
            "o-runner-not-json" => Some(Mishap::NotJson),
            id if id == "o-no-content" || id == "o-reset" || id.starts_with("o-null-") => {
                runner(503, "loading")
            }
            _ => None,
        };
        let quirks = Quirks {
            runner: mishap,
            ..Quirks::default()
        };
        let orch = stage.orch;
        stage
            .net
            .with(orch, |orch, now| orch.set_quirks(now, quirks));
        let good = Stage::unpaid(&stage.info());
        let with = |payment: &str, segment: String| Paid {
            payment: payment.to_owned(),
            segment,
        };
        let paid = match id {
            "o-payment-base64" => with("!", good.segment.clone()),
            "o-payment-protobuf" => with("AAAA", good.segment.clone()),
            "o-creds-missing" => with("", SegmentCredentials::offchain(None)),
            "o-creds-garbage" => with("", "!".to_owned()),
            _ => good,
        };
        let mut fields = json!({ "prompt": "p", "text": "t", "max_tokens": 5, "messages": [] });
        match id {
            "o-full" => fields["model_id"] = "full".into(),
            "o-no-max-tokens" => fields["max_tokens"] = Value::Null,
            _ => fields["stream"] = case["in"]["stream"].clone(),
        }
        let request = match id {
            "o-bad-image" | "o-bad-audio" => nonsense(pipeline, &paid),
            _ => asked(pipeline, &paid, &fields),
        };
        let answer = stage.ask(request);
        match &case["in"]["reply"] {
            Value::String(reset) => {
                assert_eq!(reset, "reset", "{id}");
                assert!(answer.status.is_none() && answer.fault.is_some(), "{id}");
            }
            reply => {
                is(&answer, reply, id);
                let text = reply["body_text"].as_str().expect("text");
                assert_eq!(answer.text(), text.trim_end(), "{id}");
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 26);
}
