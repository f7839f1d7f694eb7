//! The exchanges of the vectors: a request from a real client, the orchestrator's answers as scripted, and the reply.
//! The shell between front door and orchestrator is played in a few lines.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use livepeer_core::error::{Cause, Failure, Party};
use livepeer_core::front::{Config, Event, RequestId, Work};
use livepeer_core::http::{Headers, Method, Url};
use livepeer_core::job::batch::{Attempt, Failed, File, Finished, Left, RefusedBy};
use livepeer_core::job::{app, byoc};
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::Unit;
use livepeer_core::wire::batch::{
    BadRequest, Chunk, Media, Probe, Verdict, data_url, judge, read_answer, read_chunk,
};
use livepeer_core::wire::runner::RunnerPrice;
use serde_json::Value;

use super::{Door, Seen, request, served};
use crate::cases;
use crate::openai::backends;

/// Cases that need what the front door does not have yet: keys, limits and budgets, and `/v1/responses` over a pipeline.
const NOT_YET: [&str; 6] = [
    "auth-",
    "scope-",
    "limit-",
    "responses-",
    "native-no-key",
    "js-ai-broke",
];

const ADDRESS: &str = "livepeer-orchestrator-address";
const OVERHEAD: &str = "livepeer-overhead-ms";

fn play_all(file: &str, count: usize) {
    let all = cases(&format!("front/{file}.json"), "cases");
    let mut played = 0;
    for case in &all {
        let id = case["id"].as_str().expect("an id");
        if NOT_YET.iter().any(|not_yet| id.starts_with(not_yet)) {
            continue;
        }
        play(id, case);
        played += 1;
    }
    assert_eq!(played, count, "cases of {file}");
}

#[test]
fn bad_input_reaches_no_orchestrator_and_is_told_in_the_words_of_the_vectors() {
    play_all("openai-bad-input", 97);
}

#[test]
fn livepeers_own_clients_get_what_they_read() {
    play_all("openai-livepeer-sdks", 17);
}

#[test]
fn chats_are_answered_whole() {
    play_all("openai-chat", 24);
}

#[test]
fn chats_are_answered_as_streams() {
    play_all("openai-chat-stream", 12);
}

#[test]
fn pictures_are_answered_as_addresses_or_bytes() {
    play_all("openai-images", 16);
    play_all("openai-ai-sdk", 4);
}

#[test]
fn vectors_come_from_a_backend_in_the_form_that_was_asked_for() {
    play_all("openai-embeddings", 6);
}

#[test]
fn sounds_are_read_and_spoken() {
    play_all("openai-audio", 17);
}

fn body(of: &Value) -> Bytes {
    if let Some(text) = of["body_text"].as_str() {
        return text.to_owned().into();
    }
    if let Some(text) = of["body_b64"].as_str() {
        return STANDARD.decode(text).expect("base64").into();
    }
    if let Some(repeat) = of.get("body_repeat") {
        let count = repeat["count"].as_u64().expect("a count") as usize;
        return repeat["text"]
            .as_str()
            .expect("a text")
            .repeat(count)
            .into();
    }
    match of.get("body_json") {
        Some(json) => json.to_string().into(),
        None => Bytes::new(),
    }
}

fn fields(of: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    match of {
        Value::Array(pairs) => pairs
            .iter()
            .map(|pair| (text(&pair[0]).to_ascii_lowercase(), text(&pair[1])))
            .collect(),
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
        _ => Vec::new(),
    }
}

fn play(id: &str, case: &Value) {
    let mut config = Config {
        public_url: Some("https://gw.example".into()),
        ..Config::default()
    };
    config
        .settings
        .voices
        .retain(|name, _| ["alloy", "onyx"].contains(&name.as_str()));
    config.settings.backends = backends();
    let mut door = Door::with(config);
    let asked = &case["in"]["request"];
    let method = Method::from_name(asked["method"].as_str().expect("a method")).expect("a method");
    let mut head = request(method, asked["path"].as_str().expect("a path"));
    for (name, value) in fields(&asked["headers"]) {
        if !["host", "content-length", "connection", "transfer-encoding"].contains(&name.as_str()) {
            head.headers.push_any(&name, value);
        }
    }
    let exchange = door.send(head, body(asked));
    if !door.wanted.is_empty() {
        let (request, work) = door.want();
        shell(&mut door, request, work, &case["in"]["peers"]);
    } else if !door.others.is_empty() {
        backend(id, &mut door, case);
    } else {
        let upstream = case["out"]["upstream"].as_array().expect("a list");
        assert!(
            upstream.is_empty(),
            "{id}: no work is wanted: {:?}",
            door.seen
        );
    }
    let seen = door.seen.remove(&exchange).expect("an answer");
    assert!(seen.ended, "{id}");
    let name = door.finished[0].id;
    compare(id, &case["out"]["reply"], &seen, name);
}

/// A container or an app answers as the script of the case has it.
fn backend(id: &str, door: &mut Door, case: &Value) {
    let upstream = &case["out"]["upstream"][0];
    let reply = &case["in"]["peers"][0]["reply"];
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let kind = text(&reply["headers"]["content-type"]);
    let url = |path| Url::parse("https://orch-a.example:8935").map(|url| url.with_path(path));
    let events = reply["sse_data"].as_array().into_iter().flatten();
    let events: String = { events.map(|event| format!("data: {}\n\n", text(event))) }.collect();
    let (request, path, sent) = match door.others.remove(0) {
        Event::Order(request, order) => {
            let path = format!("/process/request/{}", order.path);
            let served = byoc::Served {
                url: url("/").expect("a URL"),
                content_type: kind,
                metadata: String::new(),
                balance: String::new(),
                stream: !events.is_empty(),
                price: Price::new(2_000, 1).expect("a price"),
                tickets: 1,
                value: Amount::zero(),
                attempts: Vec::new(),
                waited: Duration::ZERO,
            };
            let done = byoc::Done {
                served,
                body: body(reply),
            };
            door.tell(|front, now| front.order_done(now, request, done));
            (request, path, order.body)
        }
        Event::App(request, call) => {
            let path = format!("/apps/{}/app/{}", call.app, call.call.path);
            let mut headers = Headers::new();
            headers.push("content-type", kind);
            let answer = app::Answer {
                runner: url("/apps/r/app").expect("a URL"),
                status: 200,
                headers,
                price: Some(RunnerPrice {
                    wei: Amount::ratio(3_000, 1).expect("an amount"),
                    unit: Unit::Seconds,
                }),
            };
            door.tell(|front, now| front.app_head(now, request, &answer, &call.app, None));
            let whole = if events.is_empty() {
                body(reply)
            } else {
                events.into()
            };
            door.tell(|front, now| front.relay(now, request, whole));
            door.tell(|front, now| front.relay_end(now, request));
            (request, path, call.call.body.clone())
        }
        other => panic!("{id}: {other:?}"),
    };
    assert!(text(&upstream["url"]).ends_with(&path), "{id}: {path}");
    let sent: Value = serde_json::from_slice(&sent).expect("JSON");
    assert_eq!(sent, upstream["body_json"], "{id}: {request}");
}

/// Does the work as the script of the case has it.
fn shell(door: &mut Door, id: RequestId, mut work: Box<Work>, peers: &Value) {
    if let Some(probe) = work.request.needs() {
        let content = work.request.file().expect("a file").content.clone();
        let Some(media) = probed(probe, &content) else {
            let bad = BadRequest::new("it cannot be decoded");
            return door.tell(|front, now| front.refuse_work(now, id, &bad));
        };
        work.request.measured(media).expect("measures");
        door.tell(|front, now| front.measured(now, id, media));
    }
    let pipeline = work.request.pipeline();
    let stream = work.request.is_stream();
    let mut attempts = Vec::new();
    let mut results: BTreeMap<String, Bytes> = BTreeMap::new();
    let peers = peers.as_array().expect("a list");
    for peer in peers {
        results.insert(
            peer["at"].as_str().expect("a URL").into(),
            body(&peer["reply"]),
        );
    }
    for peer in peers {
        let reply = &peer["reply"];
        let status = reply["status"].as_u64().expect("a status") as u16;
        let served = served(&work, attempts.clone());
        if status != 200 {
            let url = served.url;
            let reason = match judge(pipeline, stream, status, &body(reply)) {
                Verdict::Caller { text, runner } => {
                    let by = if runner {
                        RefusedBy::Runner
                    } else {
                        RefusedBy::Orchestrator
                    };
                    let failed = Failed::Caller { text, by };
                    return door.tell(|front, now| front.failed(now, id, failed));
                }
                Verdict::Busy => Left::Busy,
                other => panic!("{other:?}"),
            };
            attempts.push(Attempt { url, reason });
            continue;
        }
        if let Some(events) = reply["sse_data"].as_array() {
            door.tell(|front, now| front.head(now, id, served.clone()));
            let mut failure = Cause::Gone("the rest of the answer");
            let mut finished = false;
            for event in events {
                let payload = Bytes::from(event.as_str().expect("a payload").to_owned());
                match read_chunk(&payload) {
                    Chunk::Part(part) => {
                        finished |= part.is_finished();
                        door.tell(|front, now| front.chunk(now, id, &payload));
                    }
                    Chunk::Failed(text) => {
                        failure = Cause::Ended(text);
                        break;
                    }
                    Chunk::Done | Chunk::Skipped => {}
                }
            }
            if finished {
                let finished = Finished {
                    answer: None,
                    files: Vec::new(),
                    served,
                };
                return door.tell(|front, now| front.done(now, id, finished));
            }
            let url = served.url.clone();
            let failed = Failed::Broken {
                served: Box::new(served),
                failure: Box::new(Failure::new(Party::Orchestrator(url), failure)),
            };
            return door.tell(|front, now| front.failed(now, id, failed));
        }
        let answer = read_answer(pipeline, &body(reply)).expect("an answer");
        let mut files: Vec<File> = Vec::new();
        for url in answer.urls() {
            if files.iter().any(|file| file.url == *url) {
                continue;
            }
            let content = match data_url(url) {
                Some(bytes) => bytes.expect("base64"),
                None => results
                    .get(url)
                    .cloned()
                    .unwrap_or(Bytes::from_static(b"x")),
            };
            let name = match url.starts_with("data:") {
                true => "0.wav".into(),
                false => url.rsplit('/').next().expect("a name").into(),
            };
            let url = url.clone();
            files.push(File { url, name, content });
        }
        let finished = Finished {
            answer: Some(answer),
            files,
            served,
        };
        return door.tell(|front, now| front.done(now, id, finished));
    }
    let tried = Vec::new();
    let failed = Failed::NoOrchestrator {
        attempts,
        tried,
        again: None,
    };
    door.tell(|front, now| front.failed(now, id, failed));
}

/// The measures of a PNG or a WAV, in as few lines as the vectors need.
fn probed(probe: Probe, bytes: &[u8]) -> Option<Media> {
    let be = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let le = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    match probe {
        Probe::Image if bytes.starts_with(b"\x89PNG") => Some(Media::Image {
            width: be(16)?,
            height: be(20)?,
        }),
        Probe::Audio if bytes.starts_with(b"RIFF") => Some(Media::Audio {
            duration: Duration::from_secs_f64(f64::from(le(40)?) / f64::from(le(28)?)),
        }),
        _ => None,
    }
}

fn compare(id: &str, expected: &Value, seen: &Seen, name: RequestId) {
    assert_eq!(
        u64::from(seen.status),
        expected["status"],
        "{id}: {}",
        seen.text_lossy()
    );
    // The account of whoever runs a backend is not known, nor is how long an app was waited for, and what a stream costs is
    // known when it ends.
    let said = fields(&expected["headers"]);
    let is_hired = |(name, value): &(String, String)| {
        name == "livepeer-pipeline" && ["byoc", "app"].contains(&value.as_str())
    };
    let untold: &[&str] = match (said.iter().any(is_hired), expected["sse"].is_array()) {
        (true, true) => &[ADDRESS, OVERHEAD, "livepeer-units", "livepeer-cost-wei"],
        (true, false) => &[ADDRESS, OVERHEAD],
        _ => &[],
    };
    for (field, value) in said {
        if untold.contains(&field.as_str()) {
            continue;
        }
        let have = seen.headers.get(&field);
        let fits = match value.as_str() {
            "<set>" => have.is_some_and(|have| !have.is_empty()),
            _ if field == "x-request-id" => have == Some(&name.to_string()),
            value => have == Some(value),
        };
        assert!(fits, "{id}: {field} is {have:?}, not {value:?}");
    }
    let known = |text: &str| text.replace(&name.to_string(), "req_01K5ZT8M3Q0V7J4X9B2C6D8E0F");
    if let Some(frames) = expected["sse"].as_array() {
        let have = known(&seen.text_lossy());
        let have: Vec<&str> = have.split_inclusive("\n\n").collect();
        assert_eq!(have.len(), frames.len(), "{id}: {have:#?}");
        for (have, frame) in have.iter().zip(frames) {
            same_frame(id, frame.as_str().expect("a frame"), have);
        }
        return;
    }
    if let Some(bytes) = expected["body_b64"].as_str() {
        assert_eq!(STANDARD.encode(&seen.body), bytes, "{id}");
        return;
    }
    let text = match expected.get("body_json") {
        Some(json) => json.to_string(),
        None => expected["body_text"].as_str().expect("a body").to_owned(),
    };
    let have = known(&seen.text_lossy());
    let text = text.replace("<public_url>", "https://gw.example");
    match serde_json::from_str::<Value>(&text) {
        Ok(json) => {
            let have: Value =
                serde_json::from_str(&have).unwrap_or_else(|err| panic!("{id}: {err}: {have}"));
            assert!(same(&json, &have), "{id}: not {json}\nbut {have}");
        }
        Err(_) => assert_eq!(have, text, "{id}"),
    }
}

fn same_frame(id: &str, expected: &str, have: &str) {
    let cut = |frame: &str| -> Option<(String, Value)> {
        let (kind, rest) = frame.split_once('{')?;
        let json = serde_json::from_str(format!("{{{rest}").trim()).ok()?;
        Some((kind.to_owned(), json))
    };
    match (cut(expected), cut(have)) {
        (Some((kind, json)), Some((also, other))) => {
            assert_eq!(kind, also, "{id}");
            assert!(same(&json, &other), "{id}: not {json}\nbut {other}");
        }
        _ => assert_eq!(have, expected, "{id}"),
    }
}

/// Whether a value is as a vector has it: `<set>` is any, names that are drawn are alike but for what is drawn, and a
/// message that begins `re:` fits whatever begins as its plain part does.
fn same(expected: &Value, have: &Value) -> bool {
    match (expected, have) {
        (Value::String(set), _) if set == "<set>" => !have.is_null(),
        (Value::String(text), Value::String(other)) => {
            let plain = |text: &str| {
                let text = text
                    .strip_prefix("re:")
                    .unwrap_or(text)
                    .replace(['^', '\\'], "");
                text.split(".+").next().unwrap_or_default().to_owned()
            };
            text == other
                || text.starts_with("re:") && other.starts_with(&plain(text))
                || drawn(text) == drawn(other)
        }
        (Value::Array(all), Value::Array(others)) => {
            all.len() == others.len() && all.iter().zip(others).all(|(one, other)| same(one, other))
        }
        (Value::Object(all), Value::Object(others)) => {
            all.len() == others.len()
                && all
                    .iter()
                    .all(|(name, one)| others.get(name).is_some_and(|other| same(one, other)))
        }
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => expected == have,
    }
}

/// A path without the name that is drawn in it.
fn drawn(text: &str) -> String {
    let mut parts: Vec<&str> = text.split('/').collect();
    for at in 1..parts.len() {
        if ["stream", "files"].contains(&parts[at - 1]) {
            parts[at] = "…";
        }
    }
    parts.join("/")
}

impl Seen {
    fn text_lossy(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[test]
fn urls_of_results_are_those_of_the_vectors_but_for_what_is_drawn() {
    let url = Url::parse("https://gw.example/files/x/0.png").expect("a URL");
    assert_eq!(drawn(url.path()), drawn("/files/y/0.png"));
    assert_ne!(drawn(url.path()), drawn("/files/y/1.png"));
}
