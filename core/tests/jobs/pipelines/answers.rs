//! Answers and refusals of orchestrators.

use bytes::Bytes;
use livepeer_core::Pipeline;
use livepeer_core::wire::batch::{
    Answer, Grounds, MAX_CLIENT_TEXT, Verdict, client_text, data_url, judge, read_answer,
};
use serde_json::{Value, json};

use super::{ENTRY, FAILOVER, REAL_NODE, STREAM, body, pipeline, text};
use crate::of_kind;

/// The verdict of `02` on a reply with a failure.
fn verdict(id: &str) -> Verdict {
    let other = |grounds| Verdict::Other {
        suspend: true,
        grounds,
    };
    match id {
        "busy-then-ok" => Verdict::Busy,
        "expired-params" => Verdict::Refresh,
        "nonce" => Verdict::Nonce,
        "balance" => other(Grounds::Balance),
        "runner-400" => Verdict::Caller {
            text: "bad lora".into(),
            runner: true,
        },
        "creds-403" => Verdict::Renew,
        _ => other(Grounds::Status(500)),
    }
}

#[test]
fn refusals_on_the_way_to_another_orchestrator_are_understood() {
    let mut seen = 0;
    for case in of_kind(FAILOVER, "exchange") {
        let id = text(&case, "id");
        for peer in case["in"]["peers"].as_array().expect(id) {
            let reply = &peer["reply"];
            // A download, or no reply at all.
            if !reply.is_object() || text(peer, "at").contains("/stream/") {
                continue;
            }
            seen += 1;
            let (status, body) = (reply["status"].as_u64().expect(id) as u16, body(reply));
            if status == 200 {
                let read = read_answer(Pipeline::TextToImage, &body);
                assert_eq!(read.is_err(), text(reply, "body_text") == "[]", "{id}");
            } else {
                let judged = judge(Pipeline::TextToImage, false, status, &body);
                assert_eq!(judged, verdict(id), "{id}");
            }
        }
    }
    assert_eq!(seen, 21);
}

#[test]
fn replies_of_a_running_node_are_understood() {
    let mut seen = 0;
    for case in of_kind(REAL_NODE, "peer_reply") {
        let (id, input, out) = (text(&case, "id"), &case["in"], &case["out"]);
        let reply = &input["reply"];
        if input["job"] != "batch" || !reply.is_object() {
            continue;
        }
        seen += 1;
        let pipeline = Pipeline::from_name(text(input, "pipeline")).expect(id);
        let (status, body) = (reply["status"].as_u64().expect(id) as u16, body(reply));
        if status == 200 {
            assert!(read_answer(pipeline, &body).is_err(), "{id}");
            assert_eq!(out["class"], "other", "{id}");
            continue;
        }
        let judged = judge(pipeline, input["stream"] == true, status, &body);
        let said = format!("{judged:?}");
        if let Some(secret) = out["client_must_not_see"].as_str() {
            assert!(!said.contains(secret), "{id}: {said}");
        }
        match judged {
            Verdict::Caller { text, .. } => {
                assert_eq!(out["class"], "request", "{id}");
                match out["message"].as_str() {
                    Some(part) if part.starts_with("re:") => {
                        let part = part.trim_start_matches("re:").trim_matches(['.', '*']);
                        assert!(text.contains(part), "{id}: {text}");
                    }
                    Some(whole) => assert_eq!(text, whole, "{id}"),
                    None => assert!(!text.is_empty(), "{id}"),
                }
            }
            Verdict::Renew => assert_eq!(out["class"], "refresh_info_once", "{id}"),
            Verdict::Busy => {
                assert_eq!(
                    (&out["class"], &out["suspend"]),
                    (&json!("other"), &json!(false))
                );
            }
            Verdict::Other { suspend, .. } => {
                assert_eq!(out["class"], "other", "{id}");
                assert_eq!(out["suspend"], suspend, "{id}");
            }
            other => panic!("{id}: {other:?}"),
        }
    }
    assert_eq!(seen, 25);
}

#[test]
fn answers_go_to_clients_as_they_came() {
    let mut seen = 0;
    for file in [ENTRY, FAILOVER, STREAM, REAL_NODE] {
        for case in of_kind(file, "exchange") {
            let (id, request) = (text(&case, "id"), &case["in"]["request"]);
            let Some(pipeline) = pipeline(text(request, "path")) else {
                continue;
            };
            for peer in case["in"]["peers"].as_array().expect(id) {
                let reply = &peer["reply"];
                if reply["status"] != 200 || reply.get("body_json").is_none() {
                    continue;
                }
                seen += 1;
                let answer = read_answer(pipeline, &body(reply)).expect(id);
                let have: Value = serde_json::from_slice(&answer.to_json()).expect(id);
                assert_eq!(have, reply["body_json"], "{id}");
                let again = read_answer(pipeline, &answer.to_json());
                assert_eq!(again, Ok(answer), "{id}");
            }
        }
    }
    assert_eq!(seen, 21);
}

#[test]
fn an_answer_without_one_of_its_parts_is_none() {
    let whole = [
        (
            Pipeline::TextToImage,
            json!({"images":[{"url":"u","seed":1,"nsfw":false}]}),
        ),
        (Pipeline::AudioToText, json!({"text":"t"})),
        (
            Pipeline::SegmentAnything2,
            json!({"masks":"[]","scores":"[]","logits":"[]"}),
        ),
        (Pipeline::Llm, json!({"choices":[]})),
        (Pipeline::ImageToText, json!({"text":"t"})),
        (Pipeline::TextToSpeech, json!({"audio":{"url":"u"}})),
    ];
    /// All that comes of taking one member away, or of putting `null` in its place.
    fn lacking(value: &Value) -> Vec<Value> {
        let mut all = vec![Value::Null];
        if let Value::Object(map) = value {
            for (name, inner) in map {
                let mut without = map.clone();
                without.remove(name);
                all.push(without.into());
                for inner in lacking(inner) {
                    let mut map = map.clone();
                    map.insert(name.clone(), inner);
                    all.push(map.into());
                }
            }
        } else if let Value::Array(entries) = value {
            all.extend(entries.iter().flat_map(lacking).map(|entry| json!([entry])));
        }
        all
    }
    for (pipeline, whole) in whole {
        let read = |value: &Value| read_answer(pipeline, &Bytes::from(value.to_string()));
        assert!(read(&whole).is_ok(), "{pipeline}");
        for lacking in lacking(&whole) {
            assert!(read(&lacking).is_err(), "{pipeline}: {lacking}");
        }
    }
    let images = vec![json!({"url":"u","seed":1,"nsfw":false}); 1_025];
    let many = json!({ "images": images }).to_string();
    assert!(read_answer(Pipeline::TextToImage, &many.into()).is_err());
}

#[test]
fn urls_of_results_are_told_and_replaced() {
    let body =
        json!({"images":[{"url":"a","seed":1,"nsfw":true},{"url":"a","seed":2,"nsfw":false}]});
    let mut answer = read_answer(Pipeline::Upscale, &body.to_string().into()).unwrap();
    assert_eq!(answer.urls().count(), 2);
    for (n, url) in answer.urls_mut().enumerate() {
        *url = format!("/stream/{n}");
    }
    let Answer::Images(images) = &answer else {
        panic!("{answer:?}");
    };
    assert_eq!(images[1].url, "/stream/1");
    let mut speech = Answer::Speech { url: "a".into() };
    speech.urls_mut().for_each(|url| url.push('b'));
    assert_eq!(speech.to_json(), r#"{"audio":{"url":"ab"}}"#);
}

#[test]
fn data_urls_are_decoded_and_others_are_left() {
    let decoded = |url: &str| data_url(url).map(|read| read.ok());
    assert_eq!(decoded("https://a/b"), None);
    assert_eq!(decoded("data"), None);
    assert_eq!(decoded("é"), None, "no panic inside of a character");
    let bytes = Some(Some(Bytes::from_static(&[1, 2, 3])));
    assert_eq!(decoded("data:image/png;base64,AQID"), bytes);
    assert_eq!(decoded("DATA:;charset=x;BASE64, AQID\n"), bytes);
    for bad in [
        "data:",
        "data:image/png;base64",
        "data:text/plain,x",
        "data:;base64,%%",
    ] {
        assert_eq!(decoded(bad), Some(None), "{bad}");
    }
}

#[test]
fn words_of_peers_reach_clients_short_and_without_private_addresses() {
    for (said, shown) in [
        (": bad lora\n", "bad lora"),
        ("a\tb\r\nc", "a b  c"),
        (
            r#"Post "http://10.0.0.2:8000/llm": EOF"#,
            r#"Post "…": EOF"#,
        ),
        ("dial tcp 10.0.0.2:8000: refused", "dial tcp … refused"),
        ("lookup http://runner:8000/x", "lookup …"),
        ("[fe80::1] is down, 127.0.0.1 too", "[…] is down, … too"),
        (
            "see https://huggingface.co/a/b (404)",
            "see https://huggingface.co/a/b (404)",
        ),
        ("ratio 16:9, 3 of 4", "ratio 16:9, 3 of 4"),
    ] {
        assert_eq!(client_text(said), shown, "{said:?}");
    }
    let long = "é".repeat(2_000);
    assert_eq!(client_text(&long).chars().count(), MAX_CLIENT_TEXT);
}

#[test]
fn a_refusal_is_judged_by_what_it_is_about() {
    let judge = |status, text: &str| judge(Pipeline::Llm, false, status, text.as_bytes());
    let other = |suspend, grounds| Verdict::Other { suspend, grounds };
    for (status, text, verdict) in [
        (410, "gone", Verdict::Gone),
        (503, "anything", Verdict::Busy),
        (429, "", Verdict::Busy),
        (500, "OrchestratorBusy", Verdict::Busy),
        (404, "not found", other(true, Grounds::Status(404))),
        (402, "payment", other(true, Grounds::Status(402))),
        (
            400,
            "invalid recipientRand for recipientRandHash",
            Verdict::Refresh,
        ),
        (400, "no sender deposit", other(false, Grounds::Credentials)),
        (
            400,
            "invalid ticket recipient",
            other(true, Grounds::Credentials),
        ),
        (
            500,
            "unexpected status code: 400",
            other(true, Grounds::Status(500)),
        ),
        (
            500,
            "LLM container returned 4",
            other(true, Grounds::Status(500)),
        ),
    ] {
        assert_eq!(judge(status, text), verdict, "{status} {text}");
    }
    let words = |status, text: &str| match judge(status, text) {
        Verdict::Caller { text, runner } => (text, runner),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(
        words(400, r#"{"error":{"message":"bad"}}"#),
        ("bad".into(), false)
    );
    assert_eq!(
        words(500, r#"LLM container returned 400: {"detail":{"msg":"x"}}"#),
        ("x".into(), true)
    );
    assert_eq!(
        words(
            500,
            r#"LLM container returned 422: {"detail":[{"msg":"a"},{"msg":"b"}]}"#
        ),
        ("a; b".into(), true)
    );
    assert_eq!(words(400, "[7]"), ("[7]".into(), false));
}
