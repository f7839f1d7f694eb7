//! Bodies of the fuzzers of OpenAI's shapes.

use bytes::Bytes;
use livepeer_core::models::{Models, Offer};
use livepeer_core::pipeline::Pipeline;
use livepeer_core::prefer::MAX_NAMED;
use livepeer_core::time::Time;
use livepeer_core::wire::batch::{BatchRequest, Chunk, Completion, read_chunk};
use livepeer_core::wire::openai::backend::{self, Backend, Events, Program, Surface, Wanted};
use livepeer_core::wire::openai::stream::{Facts, Rebuild, Rebuilt};
use livepeer_core::wire::openai::{Asked, Settings, Translated, chat, image, speech, wav};
use livepeer_core::wire::preferences::{Terms, read};
use livepeer_core::wire::refused::{Refused, Shape};
use serde_json::Value;

fn models() -> Models {
    let mut models = Models::new();
    for pipeline in Pipeline::batch() {
        models.offer(
            0,
            "m",
            pipeline,
            Offer {
                price: None,
                warm: true,
            },
        );
    }
    models
}

/// Reads a body as each route that takes JSON: what is accepted goes on to an orchestrator as a request that is good,
/// and what is refused is refused in JSON, in every shape.
pub fn decode_chat(data: &[u8]) {
    let (models, settings) = (models(), Settings::default());
    for read in [
        chat::read(data, None, &models, &settings),
        image::read(data, None, &models, &settings),
        speech::read(data, None, &models, &settings),
    ] {
        match read {
            Ok(translated) => is_good(data, &translated),
            Err(refused) => is_told(&refused),
        }
    }
}

fn is_good(data: &[u8], translated: &Translated) {
    let text = std::str::from_utf8(data).expect("what is not UTF-8 is refused");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let body: Value = serde_json::from_str(text).expect("what is not JSON is refused");
    assert!(body.is_object());
    let request = &translated.request;
    assert_eq!(request.check(), Ok(()), "an orchestrator may get it");
    let units = request.units().expect("nothing is to be measured");
    assert!(units > 0);
    if let Asked::Chat(asked) = &translated.asked {
        assert_eq!(units, u64::from(asked.max_tokens));
        assert!(asked.stop.len() <= chat::MAX_STOPS);
    }
    let sent = request.encode(&[0; 30]).to_bytes();
    let again = BatchRequest::read_json(request.pipeline(), &sent);
    let again = again.expect("what is sent can be read");
    assert_eq!(
        again.encode(&[0; 30]).to_bytes(),
        sent,
        "sent and read again"
    );
}

fn is_told(refused: &Refused) {
    assert!((400..500).contains(&refused.status()), "the caller's fault");
    assert!(!refused.message.is_empty());
    for shape in [Shape::OpenAi, Shape::Native] {
        let body: Value = serde_json::from_slice(&refused.body(shape)).expect("JSON");
        assert_eq!(body["error"]["message"], refused.message);
    }
}

/// Reads a body as a request for a backend that does everything, and as what one answers, whole and as a stream.
pub fn decode_backend(data: &[u8]) {
    let backend = Backend {
        surfaces: Surface::ALL.to_vec(),
        program: Program::App { name: "a".into() },
        path: None,
        model: Some("own".into()),
    };
    let settings = Settings {
        backends: [("b".into(), backend)].into(),
        ..Settings::default()
    };
    let (models, body) = (models(), Bytes::copy_from_slice(data));
    let kind = "multipart/form-data; boundary=B";
    for surface in Surface::ALL {
        match backend::read(surface, kind, &body, None, &models, &settings) {
            Ok(Some(request)) => {
                let form = [Surface::Transcriptions, Surface::Translations].contains(&surface);
                if !form {
                    let sent: Value = serde_json::from_slice(&request.body).expect("JSON");
                    assert_eq!(
                        (&sent["model"], sent.get("provider")),
                        (&"own".into(), None)
                    );
                }
            }
            Ok(None) => {}
            Err(refused) => is_told(&refused),
        }
    }
    if let Ok(told) = backend::answer(Wanted::Json, Surface::Chat, &body) {
        assert_eq!(told, body, "as it is");
    }
    if let Ok(told) = backend::answer(Wanted::Packed, Surface::Embeddings, &body) {
        let told: Value = serde_json::from_slice(&told).expect("JSON");
        for vector in told["data"].as_array().expect("an array") {
            assert!(vector["embedding"].is_string(), "{vector}");
        }
    }
    if let Ok(told) = backend::refusal(400, &body) {
        let told: Value = serde_json::from_slice(&told).expect("JSON");
        assert!(told["error"].is_object());
    }
    for of_container in [false, true] {
        let whole = passed(&mut Events::new(of_container), &[data]);
        let bytes: Vec<&[u8]> = data.chunks(1).collect();
        let pieces = passed(&mut Events::new(of_container), &bytes);
        assert_eq!(whole, pieces, "however it comes");
    }
}

/// All that is passed on of a stream in those pieces; nothing if it is no good.
fn passed(events: &mut Events, pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for piece in pieces {
        let relayed = events.data(piece).ok()?;
        out.extend_from_slice(&relayed.bytes);
        if relayed.ended {
            assert!(out.ends_with(b"\n\n"), "the last event is complete");
            return Some(out);
        }
    }
    out.extend_from_slice(&events.end().ok()?);
    assert!(out.ends_with(b"\n\n"), "the last event is complete");
    Some(out)
}

/// Reads preferences of a body and of a header, one line each.
pub fn decode_preferences(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (body, header) = match text.split_once('\n') {
        Some((body, header)) => (body, Some(header)),
        None => (text, None),
    };
    match read(Some(body), header, &Terms::default()) {
        Ok(read) => {
            let preferences = &read.preferences;
            assert!(preferences.order.len() <= MAX_NAMED);
            assert!(preferences.limits.ignore.len() <= MAX_NAMED);
        }
        Err(refused) => is_told(&refused),
    }
}

/// Converts a sound: samples of two bytes, and no more of them than an hour has.
pub fn decode_wav(data: &[u8]) {
    if let Ok(samples) = wav::to_pcm(data) {
        assert!(samples.len().is_multiple_of(2));
        assert!(samples.len() as u64 <= 2 * u64::from(wav::RATE) * (wav::MAX_SECONDS + 1));
    }
}

/// Rebuilds a stream of one payload a line: the text is that of the whole answer, cut where that is cut; the role comes
/// once, and the end once.
pub fn rebuild_stream(data: &[u8]) {
    let asked = chat::Asked {
        stream: true,
        include_usage: data.len().is_multiple_of(2),
        stop: vec!["ab".into(), "b\nc".into(), "ß".into()],
        max_tokens: 8,
        model: "m".into(),
    };
    let now = Time::from_secs(1_790_000_000);
    let mut rebuild = Rebuild::new(asked.clone(), "req_1", now);
    let mut whole = Completion::default();
    let (mut text, mut roles, mut finish) = (String::new(), 0, None);
    let mut take = |frame: &Bytes| {
        let json = frame.strip_prefix(b"data: ").expect("an event");
        let chunk: Value = serde_json::from_slice(json).expect("JSON");
        let choice = &chunk["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        roles += usize::from(choice["delta"].get("role").is_some());
        assert_eq!(chunk.get("usage").is_some(), asked.include_usage);
        choice["finish_reason"].as_str().map(str::to_owned)
    };
    for payload in data.split(|b| *b == b'\n') {
        let was_over = rebuild.is_over();
        if let (false, Chunk::Part(completion)) = (was_over, read_chunk(payload)) {
            let choice = completion.choices.into_iter().next();
            if let Some(choice) = choice {
                whole.choices.resize_with(1, Default::default);
                whole.choices[0].content.push_str(&choice.content);
            }
        }
        match rebuild.chunk(payload) {
            Rebuilt::Frame(frame) => assert_eq!(take(&frame), None),
            Rebuilt::Last(frame) => {
                finish = take(&frame);
                assert!(finish.is_some(), "the last event says why it is the last");
            }
            Rebuilt::Nothing => {}
            Rebuilt::Failed => assert!(rebuild.is_over()),
        }
        assert!(!was_over || rebuild.is_over());
    }
    assert!(roles <= 1, "the role comes once");
    let answer: Value = serde_json::from_slice(&chat::answer(&asked, &whole, "req_1", now))
        .expect("an answer is JSON");
    let content = &answer["choices"][0]["message"]["content"];
    let content = content.as_str().expect("words");
    if finish.is_some() {
        assert_eq!(text, content, "the whole answer, in pieces");
    } else {
        assert!(content.starts_with(&text), "a part of the answer");
    }
    let end = rebuild.close(&Facts {
        request_id: "req_1",
        orchestrator: "https://o.example",
        attempts: 1,
        units: 8,
        cost_wei: &8.into(),
        first_event: std::time::Duration::ZERO,
        total: std::time::Duration::ZERO,
    });
    let done = end.ends_with(b"data: [DONE]\n\n");
    assert_eq!(
        done,
        finish.is_some(),
        "an answer that is whole ends so, and no other"
    );
}
