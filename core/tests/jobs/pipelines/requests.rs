//! Requests: read, refused, billed, passed on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use livepeer_core::Pipeline;
use livepeer_core::money::Price;
use livepeer_core::wire::batch::fields::{self, Kind, Message};
use livepeer_core::wire::batch::{BatchRequest, FilePart, MAX_PIXELS, Media};
use livepeer_core::wire::multipart;
use serde_json::{Value, json};

use super::{ENTRY, REAL_NODE, STREAM, UNITS, admit, measures, pipeline, text};
use crate::of_kind;

const BOUNDARY: [u8; 30] = [0xab; 30];

/// A refusal in words: those of the vector, or any.
fn assert_said(id: &str, said: &str, reply: &Value) {
    assert_eq!(reply["status"], 400, "{id}: {said}");
    assert!(!said.is_empty(), "{id}");
    let want = text(&reply["body_json"]["error"], "message");
    if !want.is_empty() && !want.starts_with("re:") {
        assert_eq!(said, want, "{id}");
    }
}

/// An upstream request is the one that the vector has.
fn assert_passed_on(id: &str, request: &BatchRequest, upstream: &Value) {
    let sent = request.encode(&BOUNDARY);
    let body = sent.to_bytes();
    assert_eq!(sent.len(), body.len(), "{id}");
    if let Some(want) = upstream.get("body_json") {
        assert_eq!(sent.content_type, "application/json", "{id}");
        let have: Value = serde_json::from_slice(&body).expect(id);
        assert_eq!(have, *want, "{id}");
    } else if let Some(form) = upstream.get("form") {
        let parts = multipart::read(&sent.content_type, &body).expect(id);
        let (file, fields) = parts.split_first().expect(id);
        assert_eq!(file.name, text(&form["file"], "field"), "{id}");
        assert_eq!(
            file.file_name.as_deref(),
            form["file"]["filename"].as_str(),
            "{id}"
        );
        let bytes = STANDARD.decode(text(&form["file"], "bytes_b64")).unwrap();
        assert_eq!(file.content, bytes, "{id}");
        let fields: Vec<_> = fields
            .iter()
            .map(|part| json!([part.name, String::from_utf8_lossy(&part.content)]))
            .collect();
        assert_eq!(Value::from(fields), form["fields"], "{id}");
        // The same form reads as the same request.
        let again = BatchRequest::read_form(request.pipeline(), &sent.content_type, &body);
        let again = again.expect(id).encode(&BOUNDARY).to_bytes();
        assert_eq!(again, body, "{id}");
    }
}

#[test]
fn entry_requests_are_refused_or_passed_on_as_the_vectors_have_it() {
    let (mut refused, mut passed_on) = (0, 0);
    for file in [ENTRY, STREAM, REAL_NODE] {
        for case in of_kind(file, "exchange") {
            let (id, request) = (text(&case, "id"), &case["in"]["request"]);
            let Some(pipeline) = pipeline(text(request, "path")) else {
                continue;
            };
            if request["method"] != "POST" {
                continue;
            }
            let reply = &case["out"]["reply"];
            match admit(pipeline, request) {
                Err(bad) => {
                    refused += 1;
                    assert_said(id, &bad.to_string(), reply);
                }
                Ok(request) => {
                    assert_ne!(reply["status"], 400, "{id}");
                    let upstream = &case["out"]["upstream"][0];
                    if upstream.get("body_json").is_some() || upstream.get("form").is_some() {
                        passed_on += 1;
                        assert_passed_on(id, &request, upstream);
                    }
                }
            }
        }
    }
    assert_eq!((refused, passed_on), (21, 10));
}

#[test]
fn units_and_fees_are_those_of_the_vectors() {
    let mut seen = 0;
    for case in of_kind(UNITS, "units") {
        let (id, input, out) = (text(&case, "id"), &case["in"], &case["out"]);
        let Some(pipeline) = Pipeline::from_name(text(input, "pipeline")) else {
            continue;
        };
        if pipeline == Pipeline::LiveVideoToVideo {
            continue;
        }
        seen += 1;
        let mut request = BatchRequest::new(pipeline);
        for (name, value) in input["params"].as_object().expect(id) {
            let said = match value {
                Value::String(said) => said.clone(),
                other => other.to_string(),
            };
            request.set_text(name, &said).expect(id);
        }
        if let Some(media) = input["media_b64"].as_str() {
            let content = Bytes::from(STANDARD.decode(media).unwrap());
            let media = measures(&content).expect(id);
            let name = "in".into();
            request.set_file(FilePart { name, content }).expect(id);
            assert_eq!(request.units().is_none(), request.needs().is_some(), "{id}");
            request.measured(media).expect(id);
        }
        request.check().expect(id);
        let units = request.units().expect(id);
        assert_eq!(units, out["pay_units"].as_u64().unwrap(), "{id}");
        assert_eq!(units, out["orchestrator_debits"].as_u64().unwrap(), "{id}");
        let price = |key: &str| input["price"][key].as_i64().unwrap();
        let price = Price::new(price("pricePerUnit"), price("pixelsPerUnit")).unwrap();
        let fee = price.fee(units);
        let fee = fee.as_ratio().reduced();
        assert_eq!(
            format!("{}/{}", fee.numer(), fee.denom()),
            text(out, "fee_wei"),
            "{id}"
        );
    }
    assert_eq!(seen, 15);
}

fn read(pipeline: Pipeline, body: &str) -> Result<BatchRequest, String> {
    let body = Bytes::from(body.to_owned());
    let read = BatchRequest::read_json(pipeline, &body).map_err(|bad| bad.to_string())?;
    read.check().map_err(|bad| bad.to_string())?;
    Ok(read)
}

#[test]
fn json_is_read_as_the_reference_reads_it() {
    let t2i = |body: &str| read(Pipeline::TextToImage, body);
    // Keys in any case, null for absent, unknown members, a byte order mark, bytes behind the object.
    for body in [
        r#"{"Prompt":"p","SEED":7}"#,
        r#"{"prompt":"p","seed":7,"width":null,"x":{"y":[1]}}"#,
        "\u{feff}{\"prompt\":\"p\",\"seed\":7}",
        r#" {"prompt":"p","seed":7} trailing"#,
    ] {
        let request = t2i(body).expect(body);
        assert_eq!(request.text("prompt"), Some("p"), "{body}");
        assert_eq!(request.integer("seed"), Some(7), "{body}");
        assert_eq!(request.units(), Some(512 * 512), "{body}");
        assert_eq!(request.model(), "stabilityai/sdxl-turbo");
    }
    for (body, why) in [
        ("", "empty"),
        ("null", "null"),
        ("[]", "not a JSON object"),
        (r#"{"prompt":"p","prompt":"q"}"#, "twice"),
        (r#"{"prompt":"p","x":1,"X":2}"#, "twice"),
        (r#"{"prompt":7}"#, "prompt must be a string"),
        (
            r#"{"prompt":"p","seed":"7"}"#,
            "seed must be a whole number",
        ),
        (
            r#"{"prompt":"p","seed":7.0}"#,
            "seed must be a whole number",
        ),
        (
            r#"{"prompt":"p","seed":9223372036854775808}"#,
            "seed must be a whole number",
        ),
        (
            r#"{"prompt":"p","guidance_scale":1e39}"#,
            "guidance_scale must be a number",
        ),
        (
            r#"{"prompt":"p","safety_check":"true"}"#,
            "safety_check must be true or false",
        ),
        (r#"{"prompt":""}"#, "prompt is required"),
        (r#"{"prompt":"p","width":0}"#, "width must be at least 1"),
        (r#"{"prompt":"p","height":-8}"#, "height must be at least 1"),
        (
            r#"{"prompt":"p","width":1048577,"height":1048576}"#,
            "pixels are more",
        ),
        (
            r#"{"prompt":"p","num_images_per_prompt":9223372036854775807}"#,
            "pixels are more",
        ),
    ] {
        let said = t2i(body).expect_err(body);
        assert!(said.contains(why), "{body}: {said}");
    }
    assert_eq!(
        t2i(r#"{"prompt":"p","width":1048576,"height":1048576}"#)
            .unwrap()
            .units(),
        Some(MAX_PIXELS),
        "just as many as may be"
    );
    let nested = |deep: usize| {
        let (open, close) = ("[".repeat(deep), "]".repeat(deep));
        format!(r#"{{"prompt":"p","x":{open}{close}}}"#)
    };
    assert!(t2i(&nested(63)).is_ok());
    assert!(t2i(&nested(64)).unwrap_err().contains("brackets"));
}

#[test]
fn a_conversation_is_read_role_by_role() {
    let llm = |messages: &str| {
        let body = format!(r#"{{"model":"m","stream":true,"max_tokens":5,"messages":{messages}}}"#);
        read(Pipeline::Llm, &body)
    };
    let request = llm(r#"[{"role":"user","content":"hi","name":"x"},{"role":"assistant"}]"#);
    let request = request.unwrap();
    let spoken = [Message::new("user", "hi"), Message::new("assistant", "")];
    assert_eq!(request.messages(), spoken);
    assert!(request.is_stream());
    assert_eq!(request.units(), Some(5));
    for (messages, why) in [
        ("{}", "an array of messages"),
        ("[null]", "an array of messages"),
        (r#"["hi"]"#, "an array of messages"),
        (
            r#"[{"role":"user","content":["hi"]}]"#,
            "messages[0].content",
        ),
        (r#"[{"role":7}]"#, "messages[0].role"),
        ("null", "missing required fields"),
        ("[]", "missing required fields"),
    ] {
        let said = llm(messages).expect_err(messages);
        assert!(said.contains(why), "{messages}: {said}");
    }
    let many = |n: usize| format!("[{}]", vec![r#"{"role":"user"}"#; n].join(","));
    assert!(llm(&many(2_048)).is_ok());
    assert!(llm(&many(2_049)).unwrap_err().contains("at most 2048"));
}

#[test]
fn fields_are_set_by_name_and_kind_and_no_others() {
    for pipeline in Pipeline::batch() {
        let mut request = BatchRequest::new(pipeline);
        for field in fields::of(pipeline) {
            let good = match field.kind {
                Kind::Model | Kind::Text => "a text",
                Kind::Integer => "7",
                Kind::Float => "0.5",
                Kind::Flag => "True",
                Kind::Messages => r#"[{"role":"user","content":"hi"}]"#,
            };
            request.set_text(field.name, good).expect(field.name);
            assert_eq!(
                request.get(field.name).is_some(),
                field.kind != Kind::Model,
                "{}",
                field.name
            );
            if !matches!(field.kind, Kind::Model | Kind::Text) {
                let bad = request.set_text(field.name, "maybe").unwrap_err();
                assert_eq!(bad.param.as_deref(), Some(field.name));
                assert!(bad.text.contains(field.name), "{bad}");
            }
        }
        assert_eq!(request.model(), "a text");
        let bad = request.set_text("nonsense", "x").unwrap_err();
        assert!(bad.text.contains("has no field"), "{bad}");
        let takes = fields::file_of(pipeline).is_some();
        let file = FilePart {
            name: "f".into(),
            content: Bytes::new(),
        };
        assert_eq!(request.set_file(file).is_ok(), takes, "{pipeline}");
    }
}

#[test]
fn runners_take_what_is_said_to_be_their_default() {
    for pipeline in Pipeline::batch() {
        for field in fields::of(pipeline) {
            if !field.default.is_empty() {
                let mut request = BatchRequest::new(pipeline);
                let set = request.set_text(field.name, field.default);
                assert_eq!(set, Ok(()), "{pipeline} {}", field.name);
            }
        }
    }
}

#[test]
fn numbers_of_forms_have_six_decimals_of_single_precision() {
    let mut request = BatchRequest::new(Pipeline::ImageToImage);
    request.set("prompt", "p").unwrap();
    for (said, sent) in [
        ("0.8", "0.800000"),
        ("3", "3.000000"),
        // As strconv.FormatFloat(x, 'f', 6, 32) writes them.
        ("16777217", "16777216.000000"),
        ("0.0000005", "0.000000"),
        ("-1.5e3", "-1500.000000"),
    ] {
        request.set_text("strength", said).unwrap();
        let sent_form = request.encode(&BOUNDARY);
        let parts = multipart::read(&sent_form.content_type, &sent_form.to_bytes()).unwrap();
        let strength = parts.iter().find(|part| part.name == "strength").unwrap();
        assert_eq!(strength.content, sent, "{said}");
    }
    for said in ["inf", "nan", "", "1e39"] {
        assert!(request.set_text("strength", said).is_err(), "{said}");
    }
}

#[test]
fn a_file_is_passed_on_without_a_copy() {
    let mut request = BatchRequest::new(Pipeline::Upscale);
    request.set("prompt", "p").unwrap();
    let content = Bytes::from(vec![7; 1 << 20]);
    let name = "in.png".into();
    let file = FilePart {
        name,
        content: content.clone(),
    };
    request.set_file(file).unwrap();
    let sent = request.encode(&BOUNDARY);
    let same = |piece: &Bytes| piece.as_ptr() == content.as_ptr() && piece.len() == content.len();
    assert!(sent.pieces.iter().any(same));
    assert!(sent.content_type.ends_with(&"ab".repeat(30)), "60 digits");
    // And read, it is a part of the body.
    let body = sent.to_bytes();
    let read = BatchRequest::read_form(Pipeline::Upscale, &sent.content_type, &body).unwrap();
    let inside = read.file().unwrap().content.as_ptr() as usize - body.as_ptr() as usize;
    assert!(inside < body.len());
}

#[test]
fn measures_are_refused_where_they_cannot_be_paid_for() {
    let mut request = BatchRequest::new(Pipeline::ImageToImage);
    request.set("num_images_per_prompt", 1 << 20).unwrap();
    let image = |width, height| Media::Image { width, height };
    let second = std::time::Duration::from_secs(1);
    for media in [
        image(0, 5),
        image(1 << 11, 1 << 11),
        Media::Audio { duration: second },
    ] {
        let bad = request.measured(media).unwrap_err();
        assert_eq!(bad.param.as_deref(), Some("image"), "{media:?}");
        assert_eq!(request.units(), None, "{media:?}");
    }
    request.measured(image(1 << 10, 1 << 10)).unwrap();
    assert_eq!(request.units(), Some(MAX_PIXELS));
}

#[test]
fn a_file_inside_of_json_is_read_for_applications_only() {
    let body = |file: &str| Bytes::from(format!(r#"{{"prompt":"p","image":"{file}"}}"#));
    for file in ["AQID", "data:image/png;base64,AQID"] {
        let request = BatchRequest::read_object(Pipeline::Upscale, &body(file)).expect(file);
        assert_eq!(request.file().unwrap().content, [1, 2, 3][..], "{file}");
        request.check().expect(file);
    }
    for file in ["%", "data:image/png;base64,%", "data:image/png,x"] {
        let bad = BatchRequest::read_object(Pipeline::Upscale, &body(file)).unwrap_err();
        assert_eq!(bad.param.as_deref(), Some("image"), "{file}");
    }
    assert!(BatchRequest::read_json(Pipeline::Upscale, &body("AQID")).is_err());
}

#[test]
fn a_request_to_a_language_model_is_completed_where_it_says_nothing() {
    let messages = r#"[{"role":"user","content":"hi"}]"#;
    let mut request = BatchRequest::new(Pipeline::Llm);
    request.set_text("messages", messages).unwrap();
    assert!(request.check().is_err());
    request.complete();
    request.check().unwrap();
    assert_eq!((request.units(), request.is_stream()), (Some(256), false));
    request.set("max_tokens", 5).unwrap();
    request.set("stream", true).unwrap();
    request.complete();
    assert_eq!((request.units(), request.is_stream()), (Some(5), true));
    let mut other = BatchRequest::new(Pipeline::TextToImage);
    other.complete();
    assert_eq!(other, BatchRequest::new(Pipeline::TextToImage));
}
