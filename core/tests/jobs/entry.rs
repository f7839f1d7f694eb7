//! Requests about live streams and what they are answered, against the vectors of live entry.

use std::net::IpAddr;

use bytes::Bytes;
use livepeer_core::http::Reach;
use livepeer_core::wire::entry::{
    AuthAnswer, AuthQuestion, GatewayStatus, JobQuery, OutputName, Refusal, SmokeTest, StartHook,
    heartbeat, read_heartbeat, read_update,
};
use livepeer_core::wire::{EventContext, Params, RunnerEvent};
use serde_json::{Value, json};

use super::cases;

/// Cases of routes and of WHIP, which have tests of their own.
const ELSEWHERE: [&str; 4] = ["start-put", "whip-type", "whip-type-charset", "smoke-post"];

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or("")
}

fn body(request: &Value) -> Bytes {
    if let Some(text) = request["body_text"].as_str() {
        return text.to_owned().into();
    }
    let repeated = &request["body_repeat"];
    if let Some(count) = repeated["count"].as_u64() {
        return text(repeated, "text").repeat(count as usize).into();
    }
    request["body_json"].to_string().into()
}

/// A refusal is what the reply says.
fn is_reply(refusal: &Refusal, reply: &Value) {
    assert_eq!(refusal.status, reply["status"]);
    match reply["body_text"].as_str() {
        Some("re:.+") => assert!(!refusal.text.is_empty()),
        Some(text) => assert_eq!(refusal.text, text.trim_end()),
        None => {}
    }
}

fn hook(case: &Value, path: &str) -> Result<Option<StartHook>, Refusal> {
    let (given, request) = (&case["in"], &case["in"]["request"]);
    let host: Option<IpAddr> = text(given, "remote_ip").parse().ok();
    let content_type = text(&request["headers"], "content-type");
    StartHook::read(path, content_type, &body(request), host)
}

fn start_at(case: &Value, path: &str) {
    let (given, wanted) = (&case["in"], &case["out"]);
    let reply = &wanted["reply"];
    let start = match hook(case, path) {
        Err(refusal) => return is_reply(&refusal, reply),
        Ok(None) => {
            assert_eq!(
                (&reply["status"], &reply["body_text"]),
                (&json!(200), &json!(""))
            );
            assert!(wanted["upstream"].as_array().unwrap().is_empty());
            return;
        }
        Ok(Some(start)) => start,
    };
    let mut upstream = wanted["upstream"].as_array().unwrap().iter();
    if given["webhook"].is_string() {
        let asked = upstream.next().unwrap();
        if asked["body_json"].is_object() {
            is_question(&start, &asked["body_json"], text(given, "gateway_host"));
        }
        let answer = &given["peers"][0]["reply"];
        let content = match answer["body_text"].as_str() {
            Some(text) => text.to_owned(),
            None => answer["body_json"].to_string(),
        };
        let status = answer["status"].as_u64().unwrap() as u16;
        assert!(AuthAnswer::read(status, content.as_bytes()).is_err());
        is_reply(&Refusal::FORBIDDEN, reply);
    }
    let kick = start.source.kick_url(None).unwrap().to_string();
    assert_eq!(upstream.next().unwrap()["url"], kick);
    assert!(upstream.next().is_none());
}

fn is_question(start: &StartHook, wanted: &Value, host: &str) {
    let output = start.stream.output_of("0a1b2c3d");
    let name = OutputName::parse(&output).unwrap();
    assert_eq!(name.request_id.as_deref(), Some("0a1b2c3d"));
    let live = format!("https://{host}/live/video-to-video");
    let question = AuthQuestion {
        stream: start.stream.as_str(),
        stream_key: start.stream.as_str(),
        kind: start.source.kind.auth_type(),
        query_params: &start.query,
        gateway_host: host,
        whep_url: &format!("http://localhost:8889/{output}/whep"),
        status_url: &format!("{live}/{}/status", start.job.stream_id),
        update_url: &format!("{live}/{}/update", start.stream),
    };
    let mut asked: Value = serde_json::from_slice(&question.to_json()).unwrap();
    let (mut wanted, whep) = (wanted.clone(), asked["whep_url"].take());
    assert_eq!(whep, "http://localhost:8889/cam1-0a1b2c3d-out/whep");
    assert!(
        wanted["whep_url"]
            .take()
            .as_str()
            .unwrap()
            .starts_with("re:^http://localhost:8889/cam1-")
    );
    assert_eq!(asked, wanted);
}

fn update(case: &Value, stream: &str) {
    let wanted = &case["out"];
    if case["in"]["streams"].get(stream).is_none() {
        return is_reply(&Refusal::UNKNOWN_STREAM, &wanted["reply"]);
    }
    let content = body(&case["in"]["request"]);
    match read_update(&content) {
        Err(refusal) => is_reply(&refusal, &wanted["reply"]),
        Ok(message) => {
            assert_eq!(wanted["reply"]["status"], 200);
            assert_eq!(message, content, "byte by byte");
            for sent in wanted["control_messages"].as_array().unwrap() {
                assert_eq!(sent.as_str().unwrap().as_bytes(), message);
            }
        }
    }
}

fn status(case: &Value, stream: &str) {
    let (given, reply) = (&case["in"], &case["out"]["reply"]);
    let Some(gateway) = given["gateway_status"].get(stream) else {
        return is_reply(&Refusal::UNKNOWN_STREAM, reply);
    };
    let gateway = GatewayStatus {
        whep_url: gateway["whep_url"].as_str().map(str::to_owned),
        ..GatewayStatus::default()
    };
    let last = given["status"].get(stream).map(|last| {
        let segment = last.to_string();
        RunnerEvent::parse(segment.as_bytes(), &EventContext::default()).unwrap()
    });
    let told: Value = serde_json::from_str(&gateway.merged_with(last.as_ref())).unwrap();
    assert_eq!(told, reply["body_json"]);
}

fn exchange(case: &Value) {
    let request = &case["in"]["request"];
    let (path, query) = text(request, "path")
        .split_once('?')
        .unwrap_or((text(request, "path"), ""));
    let path = path.strip_prefix("/live/video-to-video/").unwrap();
    let reply = &case["out"]["reply"];
    match path.rsplit_once('/') {
        Some((stream, "start")) => start_at(case, stream),
        Some((stream, "update")) => update(case, stream),
        Some((stream, "status")) => status(case, stream),
        Some((_, "whip")) => is_reply(&JobQuery::read(query).unwrap_err(), reply),
        None if path == "smoketest" => is_reply(
            &SmokeTest::read(&body(request), Reach::Public).unwrap_err(),
            reply,
        ),
        _ => panic!("{path}"),
    }
}

fn beat(case: &Value) {
    let (given, wanted) = (&case["in"], &case["out"]);
    let ids: Vec<_> = given["streams"]
        .as_object()
        .unwrap()
        .values()
        .map(|stream| text(stream, "stream_id"))
        .collect();
    let sent: Value = serde_json::from_slice(&heartbeat(ids.iter().copied())).unwrap();
    assert_eq!(sent, wanted["upstream"][0]["body_json"]);
    let answer = &given["peers"][0]["reply"];
    let content = match answer["body_text"].as_str() {
        Some(text) => text.to_owned(),
        None => answer["body_json"].to_string(),
    };
    let ended = read_heartbeat(
        answer["status"].as_u64().unwrap() as u16,
        content.as_bytes(),
    );
    let ended: Vec<_> = ids
        .iter()
        .filter(|id| ended.iter().any(|ended| ended == *id))
        .collect();
    assert_eq!(ended.len(), wanted["stopped"].as_array().unwrap().len());
}

fn decode(case: &Value) {
    let (given, wanted) = (&case["in"], &case["out"]);
    if let Some(path) = given["path"].as_str() {
        match OutputName::parse(path) {
            Some(name) => {
                assert_eq!(wanted["stream"], name.stream.as_str());
                assert_eq!(wanted["request_id"], json!(name.request_id));
            }
            None => {
                assert_eq!(wanted["error"], Refusal::MALFORMED_OUTPUT.status);
                assert_eq!(wanted["text"], *Refusal::MALFORMED_OUTPUT.text);
            }
        }
        return;
    }
    let query = &given["query"];
    let params = query
        .get("params")
        .map(|params| Params::parse(&params.to_string()).unwrap());
    let job = JobQuery {
        pipeline: text(query, "pipeline").to_owned(),
        stream_id: text(query, "streamId").to_owned(),
        params,
        ..JobQuery::default()
    };
    let status = given["webhook_status"].as_u64().unwrap_or(200) as u16;
    let answer = AuthAnswer::read(status, given["webhook_answer"].to_string().as_bytes()).unwrap();
    let job = answer.applied_to(job);
    let params: Value = serde_json::from_str(&job.params.unwrap().to_json()).unwrap();
    let found = json!({
        "pipeline": job.pipeline,
        "pipeline_id": job.pipeline_id,
        "stream_id": job.stream_id,
        "rtmp_output": job.rtmp_output,
        "params": params,
    });
    assert_eq!(found, *wanted);
}

fn outputs(case: &Value) {
    let (given, wanted) = (&case["in"], &case["out"]);
    let path = text(given, "path")
        .strip_prefix("/live/video-to-video/")
        .unwrap();
    let form = format!(
        "source_id=a&source_type=rtmpConn&query=rtmpOutput%3D{}",
        text(&given["query"], "rtmpOutput")
    );
    let form = Bytes::from(form);
    let host = text(given, "remote_ip").parse().ok();
    let content_type = "application/x-www-form-urlencoded";
    let read = StartHook::read(
        path.strip_suffix("/start").unwrap(),
        content_type,
        &form,
        host,
    );
    let Ok(Some(start)) = read else {
        panic!("{read:?}");
    };
    assert_eq!(wanted["input"], start.input());
    let own = start.outputs(text(given, "request_id"));
    let outputs: Vec<&String> = [&start.job.rtmp_output].into_iter().chain(&own).collect();
    assert_eq!(wanted["outputs"], json!(outputs));
}

#[test]
fn live_streams_enter_as_the_vectors_have_it() {
    let cases = cases("jobs/06-live-entry.json", "cases");
    assert_eq!(cases.len(), 41);
    for case in &cases {
        let id = text(case, "id");
        eprintln!("{id}");
        match text(case, "kind") {
            _ if ELSEWHERE.contains(&id) => {}
            "exchange" if case["in"]["tick"] == "heartbeat" => beat(case),
            "exchange" => exchange(case),
            "decode" => decode(case),
            "encode" => outputs(case),
            kind => panic!("{id}: {kind}"),
        }
    }
}
