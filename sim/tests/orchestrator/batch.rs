//! Batch work: what is decided in which order, what comes back, who pays for it, and how it goes wrong.

mod money;

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::http::{Body, Method, Out, Request, Url};
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::ledger::AccountId;
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER};
use livepeer_core::wire::{OrchestratorInfo, Payment};
use livepeer_core::{EffectId, Pipeline};
use livepeer_orchestrator::{BatchModel, Config, Event, Mishap, Quirks};
use livepeer_sim::Answer;
use serde_json::{Value, json};

use crate::stage::{PRICE, Paid, Stage, ms, off_chain, on_chain, secs, service};

const MODEL: &str = "a/model";

/// An orchestrator with one model, under the same name, for every pipeline.
pub(crate) fn with_batch(config: Config, model: BatchModel) -> Config {
    Pipeline::batch().fold(config, |config, pipeline| {
        config.with_batch_model(pipeline, MODEL, model)
    })
}

fn stage() -> Stage {
    Stage::new(with_batch(off_chain(), BatchModel::default()))
}

fn info(stage: &mut Stage, pipeline: Pipeline) -> OrchestratorInfo {
    let wanted = Capabilities::for_model(pipeline.capability(), MODEL);
    let hello = stage.hello(Some(wanted));
    stage.shake(&hello).expect("an honest handshake")
}

fn request(path: &str, paid: &Paid, body: impl Into<Bytes>) -> Request {
    Request::new(Method::Post, service().with_path(path))
        .header(PAYMENT_HEADER, paid.payment.clone())
        .header(SEGMENT_HEADER, paid.segment.clone())
        .header("authorization", "Livepeer-AI-Worker-1.0")
        .body(Body::Full(body.into()))
}

/// A request with all that belongs to it; forms carry a picture, or a sound.
pub(crate) fn asked(pipeline: Pipeline, paid: &Paid, fields: &Value) -> Request {
    let path = format!("/{pipeline}");
    let mut fields = fields.clone();
    let model = if pipeline == Pipeline::Llm {
        "model"
    } else {
        "model_id"
    };
    if fields.get(model).is_none() {
        fields[model] = MODEL.into();
    }
    match livepeer_core::wire::batch::fields::file_of(pipeline) {
        None => request(&path, paid, fields.to_string()),
        Some("image") => form(pipeline, paid, &png(12, 8), &fields),
        Some(_) => form(pipeline, paid, &wav(), &fields),
    }
}

/// A request as a form.
fn form(pipeline: Pipeline, paid: &Paid, file: &[u8], fields: &Value) -> Request {
    let mut body = Vec::new();
    let mut part = |head: &str, content: &[u8]| {
        body.extend(format!("--x\r\ncontent-disposition: form-data; {head}\r\n\r\n").into_bytes());
        body.extend_from_slice(content);
        body.extend(b"\r\n");
    };
    let name = livepeer_core::wire::batch::fields::file_of(pipeline).expect("a form");
    part(&format!("name=\"{name}\"; filename=\"in\""), file);
    for (name, value) in fields.as_object().into_iter().flatten() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        if !value.is_null() {
            part(&format!("name=\"{name}\""), text.as_bytes());
        }
    }
    body.extend(b"--x--\r\n");
    request(&format!("/{pipeline}"), paid, body)
        .header("content-type", "multipart/form-data; boundary=x")
}

/// A request whose file is nothing that can be measured.
pub(crate) fn nonsense(pipeline: Pipeline, paid: &Paid) -> Request {
    form(pipeline, paid, b"nonsense", &json!({ "model_id": MODEL }))
}

/// The beginning of a PNG, long enough to be measured.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    file.extend(width.to_be_bytes());
    file.extend(height.to_be_bytes());
    file.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    file
}

/// Two and a half seconds of silence, but for one sample of half the loudness.
fn wav() -> Vec<u8> {
    let mut data = vec![0; 5_000];
    data[3] = 0x40;
    let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    file.extend(1_000_u32.to_le_bytes());
    file.extend(2_000_u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

fn job(stage: &mut Stage, pipeline: Pipeline, fields: &Value) -> Answer {
    let info = info(stage, pipeline);
    stage.ask(asked(pipeline, &Stage::unpaid(&info), fields))
}

fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.status, Some(200), "{}", answer.text());
    assert_eq!(answer.headers.get("content-type"), Some("application/json"));
    assert!(answer.body.ends_with(b"\n"), "as Go's encoder ends it");
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn download(stage: &mut Stage, url: &Value) -> Answer {
    let url = Url::parse(url.as_str().expect("text")).expect("a URL");
    stage.ask(Request::new(Method::Get, url))
}

fn size(png: &[u8]) -> (u32, u32) {
    let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four"));
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    (side(16), side(20))
}

fn quirky(stage: &mut Stage, quirks: Quirks) {
    stage
        .net
        .with(stage.orch, |orch, now| orch.set_quirks(now, quirks));
}

fn mishap(stage: &mut Stage, mishap: Mishap) {
    let runner = Some(mishap);
    quirky(
        stage,
        Quirks {
            runner,
            ..Quirks::default()
        },
    );
}

// ---- what comes back ----

#[test]
fn pictures_have_the_size_that_was_asked_for_and_are_downloaded() {
    let mut stage = stage();
    let fields = json!({ "prompt": "a cat", "width": 40, "height": 24, "num_images_per_prompt": 3, "seed": 7 });
    let answer = json_of(&job(&mut stage, Pipeline::TextToImage, &fields));
    let images = answer["images"].as_array().expect("images").clone();
    assert_eq!(images.len(), 3);
    let mut contents = Vec::new();
    for (n, image) in images.iter().enumerate() {
        assert_eq!(
            (&image["seed"], &image["nsfw"]),
            (&json!(7 + n), &json!(false))
        );
        let file = download(&mut stage, &image["url"]);
        assert_eq!(file.headers.get("content-type"), Some("image/png"));
        assert_eq!(size(&file.body), (40, 24));
        assert!(
            !contents.contains(&file.body),
            "each seed makes another picture"
        );
        contents.push(file.body);
    }
    // The same request makes the same picture, another prompt another one.
    let again = json_of(&job(&mut stage, Pipeline::TextToImage, &fields));
    assert_ne!(again["images"][0]["url"], images[0]["url"]);
    assert_eq!(
        download(&mut stage, &again["images"][0]["url"]).body,
        contents[0]
    );
    let fields = json!({ "prompt": "a dog", "width": 40, "height": 24, "seed": 7 });
    let other = json_of(&job(&mut stage, Pipeline::TextToImage, &fields));
    assert_ne!(
        download(&mut stage, &other["images"][0]["url"]).body,
        contents[0]
    );
    let gone = service().with_path("/stream/none/none.png");
    assert_eq!(stage.ask(Request::new(Method::Get, gone)).status, Some(404));
}

#[test]
fn gateways_of_old_get_pictures_inside_of_the_answer() {
    let mut stage = stage();
    let info = info(&mut stage, Pipeline::TextToImage);
    let fields = json!({ "model_id": MODEL, "prompt": "p", "width": 8, "height": 8 });
    let answer = stage.post("/text-to-image", &Stage::unpaid(&info), fields.to_string());
    let url = json_of(&answer)["images"][0]["url"].clone();
    assert!(
        url.as_str()
            .is_some_and(|url| url.starts_with("data:image/png;base64,iVBORw0KGgo"))
    );
}

#[test]
fn every_pipeline_answers_in_its_own_shape() {
    let mut stage = stage();
    let mut of = |pipeline, fields| json_of(&job(&mut stage, pipeline, &fields));
    let none = json!({ "prompt": "p" });
    let same = of(Pipeline::ImageToImage, none.clone())["images"][0]["url"].clone();
    let large = of(Pipeline::Upscale, none.clone())["images"][0]["url"].clone();
    let film =
        of(Pipeline::ImageToVideo, json!({ "width": 16, "height": 8 }))["images"][0]["url"].clone();
    let text = of(Pipeline::AudioToText, json!({}));
    assert_eq!(
        text["text"],
        "2.500 seconds of sound, at most 50.0 percent loud"
    );
    assert_eq!(text["chunks"][0]["timestamp"], json!([0.0, 2.5]));
    let masks = of(Pipeline::SegmentAnything2, json!({ "box": "[1,2,3,4]" }));
    for (name, depth) in [("masks", 32), ("logits", 32), ("scores", 0)] {
        let array: Value = serde_json::from_str(masks[name].as_str().expect("text")).expect("JSON");
        assert_eq!(array.as_array().map(Vec::len), Some(3), "{name}");
        assert_eq!(array[0].as_array().map_or(0, Vec::len), depth, "{name}");
    }
    let caption = of(Pipeline::ImageToText, none);
    let caption = caption["text"].as_str().expect("text");
    assert!(
        caption.starts_with("a picture of 12 by 8 pixels"),
        "{caption}"
    );
    let speech = of(Pipeline::TextToSpeech, json!({ "text": "hi" }))["audio"]["url"].clone();
    assert_eq!(size(&download(&mut stage, &same).body), (12, 8));
    assert_eq!(size(&download(&mut stage, &large).body), (48, 32));
    let film = download(&mut stage, &film);
    assert_eq!(size(&film.body), (16, 8));
    let frames = film.body.windows(4).filter(|four| four == b"fcTL").count();
    assert_eq!(frames, 25, "a frame each");
    let speech = download(&mut stage, &speech);
    assert_eq!(speech.headers.get("content-type"), Some("audio/wav"));
    assert!(speech.body.starts_with(b"RIFF"));
}

#[test]
fn a_language_model_says_back_what_it_is_told() {
    let mut stage = stage();
    let fields = json!({
        "messages": [
            { "role": "system", "content": "be kind" },
            { "role": "user", "content": "one two three four" },
        ],
        "max_tokens": 3,
        "stream": false,
    });
    let answer = json_of(&job(&mut stage, Pipeline::Llm, &fields));
    assert_eq!(
        answer["choices"],
        json!([{
            "index": 0,
            "finish_reason": "length",
            "message": { "role": "assistant", "content": "one two three " },
        }])
    );
    assert_eq!(
        answer["usage"],
        json!({ "prompt_tokens": 6, "completion_tokens": 3, "total_tokens": 9 })
    );
    assert_eq!(answer["model"], MODEL);
}

const STREAM: &str =
    r#"{"messages":[{"role":"user","content":"one two three"}],"max_tokens":9,"stream":true}"#;

fn streamed() -> Value {
    serde_json::from_str(STREAM).expect("JSON")
}

/// The payloads of a stream's events.
fn events(answer: &Answer) -> Vec<Value> {
    let text = String::from_utf8(answer.body.clone()).expect("text");
    text.split_terminator("\n\n")
        .map(|event| event.strip_prefix("data: ").expect("one line of data"))
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect()
}

#[test]
fn a_stream_sends_a_token_at_a_time_and_then_why_it_ends() {
    let pace = ms(20);
    let mut stage = Stage::new(with_batch(
        off_chain(),
        BatchModel {
            pace,
            ..BatchModel::default()
        },
    ));
    let info = info(&mut stage, Pipeline::Llm);
    let id = stage.send(asked(Pipeline::Llm, &Stage::unpaid(&info), &streamed()));
    let caller = stage.caller;
    stage
        .net
        .run_while(secs(1), |net| net.get(caller).answer(id).body.is_empty());
    let first = stage.net.get(caller).answer(id).clone();
    assert_eq!(first.headers.get("content-type"), Some("text/event-stream"));
    assert_eq!(first.headers.get("cache-control"), Some("no-cache"));
    assert_eq!(events(&first).len(), 1, "the second token is not there yet");
    let answer = stage.answer(id);
    let chunks = events(&answer);
    let said: Vec<_> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["content"])
        .collect();
    assert_eq!(said, ["one ", "two ", "three", ""]);
    assert_eq!(chunks[2]["choices"][0].get("finish_reason"), None);
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[3]["usage"]["completion_tokens"], 3);
}

#[test]
fn a_stream_waits_for_a_peer_that_takes_nothing() {
    let mut stage = stage();
    let info = info(&mut stage, Pipeline::Llm);
    let words = "word ".repeat(2_000);
    let fields = json!({ "messages": [{ "role": "user", "content": words }], "max_tokens": 2_000, "stream": true });
    let id = stage.send(asked(Pipeline::Llm, &Stage::unpaid(&info), &fields));
    let answer = stage.answer(id);
    assert_eq!(
        events(&answer).len(),
        2_001,
        "and all of it comes in the end"
    );
}

// ---- what is refused, in which order ----

#[test]
fn the_first_thing_that_is_wrong_decides() {
    let none = BatchModel {
        capacity: 0,
        ..BatchModel::default()
    };
    let mut stage = Stage::new(with_batch(off_chain(), none));
    let good = Stage::unpaid(&info(&mut stage, Pipeline::TextToImage));
    let bad = |payment: &str, segment: &str| Paid {
        payment: payment.to_owned(),
        segment: segment.to_owned(),
    };
    let mut ask = |path: &str, paid: &Paid, body: &str| {
        let answer = stage.ask(request(path, paid, body.to_owned()));
        (answer.status.expect("an answer"), answer.text())
    };
    let full = format!(r#"{{"prompt":"p","model_id":"{MODEL}"}}"#);
    assert_eq!(ask("/text-to-image", &bad("!", "!"), "{").0, 400);
    assert_eq!(ask("/text-to-image", &bad("!", "!"), &full).0, 402);
    assert_eq!(
        ask("/text-to-image", &bad("", "!"), &full),
        (403, "ErrorSegEncoding".to_owned())
    );
    let llm = format!(r#"{{"model":"{MODEL}","messages":[]}}"#);
    assert_eq!(
        ask("/llm", &good, &llm),
        (400, "MaxTokens not specified".to_owned())
    );
    let busy = (503, "insufficient capacity".to_owned());
    assert_eq!(ask("/text-to-image", &good, &full), busy);
    let unknown = r#"{"prompt":"p","model_id":"another"}"#;
    assert_eq!(ask("/text-to-image", &good, unknown), busy);
    assert_eq!(ask("/text-to-nothing", &good, "{}").0, 404);
}

#[test]
fn files_that_cannot_be_measured_are_the_clients_fault() {
    let mut stage = stage();
    let paid = Stage::unpaid(&info(&mut stage, Pipeline::Upscale));
    let mut ask = |pipeline| {
        let answer = stage.ask(nonsense(pipeline, &paid));
        (answer.status, answer.text())
    };
    assert_eq!(
        ask(Pipeline::Upscale),
        (Some(400), "image: unknown format".to_owned())
    );
    assert_eq!(
        ask(Pipeline::AudioToText),
        (Some(400), "Unable to calculate duration".to_owned())
    );
}

#[test]
fn requests_that_no_runner_takes_are_refused_by_it() {
    let mut stage = stage();
    let mut refused = |pipeline, fields| {
        let answer = job(&mut stage, pipeline, &fields);
        assert_eq!(answer.status, Some(500));
        answer.text()
    };
    let wide = refused(
        Pipeline::TextToImage,
        json!({ "prompt": "p", "width": 5_000, "height": 8 }),
    );
    assert!(
        wide.starts_with(
            r#"text-to-image container returned 422: {"detail":[{"loc":["body","width"]"#
        ),
        "{wide}"
    );
    let many =
        json!({ "prompt": "p", "width": 4_096, "height": 4_096, "num_images_per_prompt": 5 });
    let many = refused(Pipeline::TextToImage, many);
    assert!(
        many.starts_with("text-to-image container returned 400: 5 pictures"),
        "{many}"
    );
}

#[test]
fn a_body_that_is_too_long_is_not_held() {
    let mut stage = stage();
    let info = info(&mut stage, Pipeline::TextToImage);
    let long = vec![b' '; livepeer_orchestrator::MAX_BATCH_BYTES + 1];
    let answer = stage.ask(request("/text-to-image", &Stage::unpaid(&info), long));
    assert_eq!(answer.status, Some(413));
}

// ---- slots ----

fn slots(stage: &mut Stage, pipeline: Pipeline) -> u32 {
    let offered = info(stage, pipeline).capabilities.expect("capabilities");
    let model = offered
        .model(pipeline.capability(), MODEL)
        .expect("the model");
    model.capacity
}

fn slow(capacity: u32, takes: Duration) -> Config {
    with_batch(
        off_chain(),
        BatchModel {
            capacity,
            takes,
            ..BatchModel::default()
        },
    )
}

fn send(stage: &mut Stage, pipeline: Pipeline, fields: &Value) -> EffectId {
    let info = info(stage, pipeline);
    stage.send(asked(pipeline, &Stage::unpaid(&info), fields))
}

#[test]
fn a_slot_is_taken_while_the_work_lasts() {
    let mut stage = Stage::new(slow(2, secs(1)));
    let fields = json!({ "prompt": "p", "width": 8, "height": 8 });
    let pipeline = Pipeline::TextToImage;
    let first = send(&mut stage, pipeline, &fields);
    let second = send(&mut stage, pipeline, &fields);
    stage.net.run_for(ms(100));
    assert_eq!(slots(&mut stage, pipeline), 0);
    assert_eq!(job(&mut stage, pipeline, &fields).status, Some(503));
    assert_eq!(
        slots(&mut stage, Pipeline::ImageToImage),
        2,
        "others are not concerned"
    );
    for id in [first, second] {
        assert_eq!(stage.answer(id).status, Some(200));
    }
    assert_eq!(slots(&mut stage, pipeline), 2);
}

#[test]
fn a_peer_that_leaves_frees_its_slot_and_is_not_charged() {
    let mut stage = Stage::new(slow(2, secs(1)));
    let working = send(&mut stage, Pipeline::TextToImage, &json!({ "prompt": "p" }));
    mishap(&mut stage, Mishap::Silent);
    let silent = send(&mut stage, Pipeline::TextToImage, &json!({ "prompt": "p" }));
    stage.net.run_for(ms(100));
    assert_eq!(slots(&mut stage, Pipeline::TextToImage), 0);
    let caller = stage.caller;
    for id in [working, silent] {
        stage
            .net
            .with(caller, |caller, _| caller.step(id, Out::Abort));
    }
    stage.net.run_for(secs(2));
    assert_eq!(slots(&mut stage, Pipeline::TextToImage), 2);
    assert!(
        !stage
            .events()
            .iter()
            .any(|event| matches!(event, Event::Worked { .. }))
    );
}

#[test]
fn a_handler_that_dies_takes_its_slot_along() {
    let mut stage = Stage::new(slow(2, Duration::ZERO));
    mishap(&mut stage, Mishap::Answers(503, "loading".to_owned()));
    let answer = job(&mut stage, Pipeline::TextToImage, &json!({ "prompt": "p" }));
    assert!(
        answer.fault.is_some() && answer.status.is_none(),
        "{answer:?}"
    );
    assert_eq!(slots(&mut stage, Pipeline::TextToImage), 1);
    // A missing model is looked at before there is a slot to lose.
    let paid = Stage::unpaid(&info(&mut stage, Pipeline::TextToImage));
    let answer = stage.ask(request("/text-to-image", &paid, r#"{"prompt":"p"}"#));
    assert!(answer.fault.is_some());
    assert_eq!(slots(&mut stage, Pipeline::TextToImage), 1);
    mishap(&mut stage, Mishap::NoChoices);
    let answer = job(&mut stage, Pipeline::Llm, &streamed());
    assert!(answer.fault.is_some());
    assert_eq!(events(&answer)[1]["choices"], Value::Null);
    assert_eq!(slots(&mut stage, Pipeline::Llm), 1);
}

// ---- streams that go wrong ----

#[test]
fn streams_break_in_every_way() {
    let mut stage = stage();
    mishap(&mut stage, Mishap::Dies);
    let answer = job(&mut stage, Pipeline::Llm, &streamed());
    assert!(answer.end.is_some(), "as if it were complete");
    assert_eq!(events(&answer).len(), 1);
    mishap(&mut stage, Mishap::Breaks);
    let answer = job(&mut stage, Pipeline::Llm, &streamed());
    assert!(answer.fault.is_some());
    assert_eq!(answer.status, Some(200));
    mishap(&mut stage, Mishap::ErrorChunk);
    let answer = job(&mut stage, Pipeline::Llm, &streamed());
    assert_eq!(
        events(&answer)[1],
        json!({ "error": { "message": "out of memory" } })
    );
    assert_eq!(slots(&mut stage, Pipeline::Llm), 3, "one broke");
}

#[test]
fn nodes_misbehave_on_demand() {
    let mut stage = stage();
    let fields = json!({ "prompt": "p", "width": 8, "height": 8, "num_images_per_prompt": 2 });
    quirky(
        &mut stage,
        Quirks {
            data_urls: true,
            ..Quirks::default()
        },
    );
    let answer = json_of(&job(&mut stage, Pipeline::TextToImage, &fields));
    assert!(
        answer["images"][1]["url"]
            .as_str()
            .is_some_and(|url| url.starts_with("data:"))
    );
    quirky(
        &mut stage,
        Quirks {
            equal_names: true,
            ..Quirks::default()
        },
    );
    let answer = json_of(&job(&mut stage, Pipeline::TextToImage, &fields));
    assert_eq!(answer["images"][0]["url"], answer["images"][1]["url"]);
    quirky(
        &mut stage,
        Quirks {
            busy: true,
            ..Quirks::default()
        },
    );
    assert_eq!(
        job(&mut stage, Pipeline::TextToImage, &fields).status,
        Some(503)
    );
    quirky(
        &mut stage,
        Quirks {
            no_batch: true,
            ..Quirks::default()
        },
    );
    assert_eq!(
        job(&mut stage, Pipeline::TextToImage, &fields).status,
        Some(410)
    );
}

// ---- money ----
