//! Whole exchanges: a request, what an orchestrator gets and says, and the answer.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::time::Time;
use livepeer_core::wire::batch::{
    Answer, BatchRequest, Media, Probe, Verdict, data_url, judge, read_answer,
};
use livepeer_core::wire::multipart;
use livepeer_core::wire::openai::stream::{Facts, Rebuild, Rebuilt};
use livepeer_core::wire::openai::{
    Asked, Translated, backend, chat, image, listed, models as list, speech, transcript,
};
use livepeer_core::wire::refused::{Code, Refused, Shape};
use num_bigint::BigInt;
use serde_json::Value;

use super::{NOW, REQUEST, Request, bytes, cases, check_refused, models, settings};

#[test]
fn chats() {
    // A backend serves one of them, which the front door plays.
    run("openai-chat", 24, &["py-chat-tools-app"]);
}

#[test]
fn streamed_chats() {
    run("openai-chat-stream", 12, &["py-chat-tools-app-stream"]);
}

#[test]
fn images() {
    run("openai-images", 16, &[]);
}

#[test]
fn transcripts_and_speech() {
    run("openai-audio", 17, &[]);
}

#[test]
fn the_sdk_of_vercel() {
    run("openai-ai-sdk", 5, &["js-ai-embed", "js-ai-broke"]);
}

#[test]
fn lists_of_models() {
    let models = models();
    let all = cases("openai-models");
    for case in &all {
        let (id, reply) = (case["id"].as_str().unwrap(), &case["out"]["reply"]);
        let theirs: Value = serde_json::from_slice(&bytes(reply, "body").unwrap()).unwrap();
        let path = case["in"]["request"]["path"].as_str().unwrap();
        let ours = match path.strip_prefix("/v1/models/") {
            Some(model) => match list::one(&model.replace("%2F", "/"), &models, &settings(), NOW) {
                Ok(one) => one,
                Err(refused) => {
                    check_refused(id, &refused, reply);
                    continue;
                }
            },
            None => list::list(&models, &settings(), NOW),
        };
        let ours: Value = serde_json::from_slice(&ours).unwrap();
        let Some(data) = theirs["data"].as_array() else {
            assert_eq!(ours, theirs, "{id}");
            continue;
        };
        // The scopes of keys are not of this list, and what a backend costs is known once it serves.
        let mut data = data.clone();
        for entry in data
            .iter_mut()
            .filter(|entry| entry.get("surfaces").is_some())
        {
            entry.as_object_mut().unwrap().remove("prices");
        }
        let scoped = id == "py-models-scoped";
        let in_ours = ours["data"].as_array().unwrap().iter();
        let in_ours = in_ours.filter(|entry| !scoped || data.contains(entry));
        assert!(data.iter().eq(in_ours), "{id}");
    }
    assert_eq!(all.len(), 6);
    let body = list::list(&models, &settings(), NOW);
    let etag = list::etag(&body);
    assert!(list::is_known(&etag, &etag) && list::is_known(&format!("\"x\", W/{etag}"), &etag));
    assert!(list::is_known("*", &etag) && !list::is_known("\"x\"", &etag));
    assert_ne!(
        list::etag(&list::one("tts-1", &models, &settings(), NOW).unwrap()),
        etag
    );
}

#[test]
fn what_sdks_of_livepeer_send_is_passed_on_as_the_reference_does() {
    let all = cases("openai-livepeer-sdks");
    assert_eq!(all.len(), 17);
    for case in &all {
        let (id, request) = (case["id"].as_str().unwrap(), Request::of(case));
        let pipeline = Pipeline::from_name(&request.path[1..]).unwrap();
        let content_type = request.header("content-type").unwrap();
        let mut native = if content_type.starts_with("multipart/") {
            BatchRequest::read_form(pipeline, content_type, &request.body).unwrap()
        } else {
            BatchRequest::read_json(pipeline, &request.body).unwrap()
        };
        let reply = &case["out"]["reply"];
        if let Err(bad) = native.check() {
            let refused = Refused::new(Code::InvalidValue, bad.text).body(Shape::Native);
            let json = |body: Bytes| serde_json::from_slice::<Value>(&body).unwrap();
            assert_eq!(json(refused), json(bytes(reply, "body").unwrap()), "{id}");
            continue;
        }
        measure(&mut native).unwrap();
        check_sent(id, &native, &case["out"]["upstream"][0]);
    }
}

fn run(file: &str, count: usize, elsewhere: &[&str]) {
    let all = cases(file);
    assert_eq!(all.len(), count, "the cases of {file}");
    for case in &all {
        let id = case["id"].as_str().unwrap();
        if !elsewhere.contains(&id) {
            exchange(id, case);
        }
    }
}

fn exchange(id: &str, case: &Value) {
    let (request, reply) = (Request::of(case), &case["out"]["reply"]);
    let mut translated = match request.read() {
        Some(Ok(translated)) => translated,
        Some(Err(refused)) => return check_refused(id, &refused, reply),
        None => return check_refused(id, &backend::no_translation(), reply),
    };
    let media = match measure(&mut translated.request) {
        Ok(media) => media,
        Err(refused) => return check_refused(id, &refused, reply),
    };
    let mut sound = Duration::ZERO;
    match (media, &mut translated.asked) {
        (Some(Media::Image { width, height }), Asked::Images(asked)) => {
            let ignored = asked.measured(width, height);
            translated.ignored.extend(ignored.map(Into::into));
        }
        (Some(Media::Audio { duration }), _) => sound = duration,
        _ => {}
    }
    check_sent(id, &translated.request, &case["out"]["upstream"][0]);
    let peers = case["in"]["peers"].as_array().unwrap();
    let mut attempts = 1;
    for peer in peers.iter().filter(|peer| is_job(peer, &translated)) {
        let said = &peer["reply"];
        let body = bytes(said, "body").unwrap_or_default();
        let status = said["status"].as_u64().unwrap() as u16;
        if status != 200 {
            match judge(translated.request.pipeline(), false, status, &body) {
                Verdict::Caller { text, .. } => {
                    return check_refused(id, &Refused::peer(Code::RunnerRefused, &text), reply);
                }
                _ => attempts += 1,
            }
            continue;
        }
        if let Some(events) = said["sse_data"].as_array() {
            check_headers(id, &translated, attempts, reply);
            return check_stream(id, &translated, events, reply);
        }
        return match answer(&translated, &body, sound, peers) {
            Ok(ours) => {
                check_headers(id, &translated, attempts, reply);
                check_body(id, &ours, reply);
            }
            Err(refused) => check_refused(id, &refused, reply),
        };
    }
    let tried = (1..attempts).map(|_| ("https://orch-a.example:8935".into(), "busy"));
    let pipeline = translated.request.pipeline().name();
    check_refused(id, &Refused::no_orchestrator(pipeline, tried), reply);
}

/// Whether a scripted answer is to the job, and not to the download of a result.
fn is_job(peer: &Value, translated: &Translated) -> bool {
    let at = peer["at"].as_str().unwrap();
    at.ends_with(translated.request.pipeline().name())
}

/// Measures the file as a decoder does: here by the few headers that the cases have.
fn measure(request: &mut BatchRequest) -> Result<Option<Media>, Refused> {
    let Some(probe) = request.needs() else {
        return Ok(None);
    };
    let file = request.file().unwrap().content.clone();
    let number = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
    let media = match probe {
        Probe::Image => Media::Image {
            width: number(16),
            height: number(20),
        },
        Probe::Audio if !file.starts_with(b"RIFF") => return Err(transcript::unreadable()),
        Probe::Audio => Media::Audio {
            // All of them are 400 bytes a second behind a header of 44.
            duration: Duration::from_millis((file.len() as u64 - 44) * 1_000 / 400),
        },
    };
    request.measured(media).unwrap();
    Ok(Some(media))
}

fn check_sent(id: &str, request: &BatchRequest, upstream: &Value) {
    let sent = request.encode(&[7; 30]);
    let Some(form) = upstream.get("form") else {
        let ours: Value = serde_json::from_slice(&sent.to_bytes()).unwrap();
        assert_eq!(
            numbers(ours),
            numbers(upstream["body_json"].clone()),
            "{id}"
        );
        return;
    };
    let parts = multipart::read(&sent.content_type, &sent.to_bytes()).unwrap();
    let file = &form["file"];
    assert_eq!(parts[0].name, file["field"].as_str().unwrap(), "{id}");
    assert_eq!(
        parts[0].file_name.as_deref(),
        file["filename"].as_str(),
        "{id}"
    );
    assert_eq!(Some(parts[0].content.clone()), bytes(file, "bytes"), "{id}");
    let fields: Vec<Value> = parts[1..]
        .iter()
        .map(|part| {
            let text = std::str::from_utf8(&part.content).unwrap();
            serde_json::json!([part.name, text])
        })
        .collect();
    assert_eq!(Value::from(fields), form["fields"], "{id}");
}

/// `1` and `1.0` are one number in JSON.
fn numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Object(map) => {
            let members = map.into_iter().map(|(name, value)| (name, numbers(value)));
            Value::Object(members.collect())
        }
        other => other,
    }
}

fn check_headers(id: &str, translated: &Translated, attempts: u32, reply: &Value) {
    let header = |name: &str| {
        let all = reply["headers"].as_array().unwrap().iter();
        let mut found = all.filter(|field| field[0] == name);
        found
            .next()
            .map(|field| field[1].as_str().unwrap().to_owned())
    };
    let some = |names: &[String]| (!names.is_empty()).then(|| listed(names));
    assert_eq!(
        some(&translated.defaults),
        header("livepeer-defaults"),
        "{id}"
    );
    assert_eq!(
        some(&translated.ignored),
        header("livepeer-ignored"),
        "{id}"
    );
    let units = translated.request.units().map(|units| units.to_string());
    assert_eq!(units, header("livepeer-units"), "{id}");
    let model = translated.request.model().to_owned();
    if let Some(told) = header("livepeer-model") {
        assert_eq!(model, told, "{id}");
        assert_eq!(
            Some(attempts.to_string()),
            header("livepeer-attempts"),
            "{id}"
        );
    }
}

/// The answer's content type and body.
fn answer(
    translated: &Translated,
    body: &Bytes,
    sound: Duration,
    peers: &[Value],
) -> Result<(&'static str, Bytes), Refused> {
    let now = Time::from_secs(NOW);
    let said = read_answer(translated.request.pipeline(), body).unwrap();
    match (&translated.asked, said) {
        (Asked::Chat(asked), Answer::Llm { completion, .. }) => Ok((
            "application/json",
            chat::answer(asked, &completion, REQUEST, now),
        )),
        (Asked::Images(asked), Answer::Images(images)) => {
            let files = peers.iter().filter(|peer| !is_job(peer, translated));
            let files: Vec<Bytes> = files
                .map(|peer| bytes(&peer["reply"], "body").unwrap())
                .collect();
            let base = "https://gw.example/files/f7Qm2Zr9f7Qm2Zr9f7Qm2Zr9f7Qm2Zr9";
            let urls: Vec<String> = (0..files.len())
                .map(|n| format!("{base}/{n}.png"))
                .collect();
            let pictures: Vec<image::Picture<'_>> = images
                .iter()
                .zip(files.iter().zip(&urls))
                .map(|(image, (content, url))| image::Picture {
                    url,
                    content,
                    seed: image.seed,
                    nsfw: image.nsfw,
                })
                .collect();
            Ok(("application/json", image::answer(asked, &pictures, now)?))
        }
        (Asked::Transcript(asked), Answer::Text { text, chunks }) => {
            let body = transcript::answer(asked, &text, &chunks, sound);
            Ok((asked.content_type(), body))
        }
        (Asked::Speech(asked), Answer::Speech { url }) => {
            speech::answer(*asked, &data_url(&url).unwrap().unwrap())
        }
        (asked, said) => panic!("{asked:?} is not answered by {said:?}"),
    }
}

fn check_body(id: &str, (content_type, ours): &(&str, Bytes), reply: &Value) {
    let told = reply["headers"].as_array().unwrap().iter();
    let mut told = told.filter(|field| field[0] == "content-type");
    assert_eq!(told.next().unwrap()[1], *content_type, "{id}");
    if let Some(frames) = reply["sse"].as_array() {
        return check_frames(id, ours, frames);
    }
    let theirs = bytes(reply, "body").unwrap();
    match serde_json::from_slice::<Value>(&theirs) {
        Ok(mut theirs) => {
            let mut ours: Value = serde_json::from_slice(ours).unwrap();
            // One case has its own address of ours.
            for data in [&mut ours, &mut theirs] {
                for image in data["data"].as_array_mut().into_iter().flatten() {
                    if let Some(url) = image["url"].as_str() {
                        image["url"] = url.split("/files/").last().unwrap().into();
                    }
                }
            }
            assert_eq!(ours, theirs, "{id}");
        }
        Err(_) => assert_eq!(*ours, theirs, "{id}"),
    }
}

fn check_stream(id: &str, translated: &Translated, events: &[Value], reply: &Value) {
    let Asked::Chat(asked) = &translated.asked else {
        panic!("{id}");
    };
    assert_eq!(translated.request.pipeline(), Pipeline::Llm);
    let mut rebuild = Rebuild::new(asked.clone(), REQUEST, Time::from_secs(NOW));
    let mut ours = Vec::new();
    for event in events {
        match rebuild.chunk(event.as_str().unwrap().as_bytes()) {
            Rebuilt::Frame(frame) | Rebuilt::Last(frame) => ours.extend_from_slice(&frame),
            Rebuilt::Nothing | Rebuilt::Failed => {}
        }
    }
    let units = translated.request.units().unwrap();
    let cost = BigInt::from(units * 12_500).div_ceil_by(3);
    ours.extend_from_slice(&rebuild.close(&Facts {
        request_id: REQUEST,
        orchestrator: "https://orch-a.example:8935",
        attempts: 1,
        units,
        cost_wei: &cost,
        first_event: Duration::from_micros(1_500),
        total: Duration::from_millis(20),
    }));
    check_frames(id, &ours, reply["sse"].as_array().unwrap());
}

trait DivCeil {
    fn div_ceil_by(self, by: u32) -> Self;
}

impl DivCeil for BigInt {
    fn div_ceil_by(self, by: u32) -> Self {
        (self + by - 1_u32) / by
    }
}

/// Compares event by event; payloads as JSON, and `<set>` with anything.
fn check_frames(id: &str, ours: &[u8], theirs: &[Value]) {
    let ours = std::str::from_utf8(ours).unwrap();
    let frames: Vec<&str> = ours.split_inclusive("\n\n").collect();
    assert_eq!(frames.len(), theirs.len(), "{id}: {ours}");
    for (frame, wanted) in frames.into_iter().zip(theirs) {
        let wanted = wanted.as_str().unwrap();
        let payload = |frame: &str| -> Option<Value> {
            let text = frame.strip_prefix("data: ");
            let text = text.or_else(|| frame.strip_prefix(": livepeer "))?;
            serde_json::from_str(text).ok()
        };
        let (Some(mut told), Some(wanted_json)) = (payload(frame), payload(wanted)) else {
            assert_eq!(frame, wanted, "{id}");
            continue;
        };
        assert_eq!(frame.starts_with(':'), wanted.starts_with(':'), "{id}");
        for (key, value) in wanted_json.as_object().unwrap() {
            if value == "<set>" {
                assert!(told[key].is_number(), "{id}: {key}");
                told[key] = value.clone();
            }
        }
        assert_eq!(told, wanted_json, "{id}");
    }
}
