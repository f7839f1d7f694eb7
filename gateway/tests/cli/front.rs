//! The front door's answers over real sockets: results to fetch, sounds, pictures, and whatever is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::files::Folder;
use crate::http::{Whole, call, fetch, say};
use crate::serve::{FORM, JSON, LLM, Serve, form, json, wav};
use crate::server::Devnet;

/// The first bytes of a PNG.
const PNG: &[u8] = b"\x89PNG";

fn post(door: &str, path: &str, body: &str) -> Whole {
    fetch(door, "POST", path, &[JSON], body.as_bytes())
}

fn fast(orchestrators: usize, more: &[&str]) -> Devnet {
    let fast = ["--work-time=1ms", "--token-time=1ms"];
    Devnet::start(orchestrators, &[&fast, more].concat())
}

#[test]
fn pictures_and_sounds_are_made_read_and_fetched() {
    let devnet = fast(1, &[]);
    let serve = Serve::before(&devnet, &[]);
    let door = &serve.door;

    let drawn = post(
        door,
        "/v1/images/generations",
        r#"{"prompt":"a hat","n":2,"size":"64x64"}"#,
    );
    assert_eq!(drawn.status, 200, "{}", drawn.text());
    for picture in json(drawn.text())["data"].as_array().expect("pictures") {
        let url = picture["url"].as_str().expect("a URL");
        let path = url
            .strip_prefix(&format!("http://{door}"))
            .expect("an address of ours");
        assert!(path.starts_with("/files/"), "{path}");
        let file = fetch(door, "GET", path, &[], b"");
        assert_eq!(
            (file.status, file.field("content-type")),
            (200, Some("image/png"))
        );
        assert!(file.body.starts_with(PNG));
        let head = fetch(door, "HEAD", path, &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
    let drawn = post(
        door,
        "/text-to-image",
        r#"{"prompt":"a hat","width":64,"height":64,"num_images_per_prompt":14}"#,
    );
    let pictures = json(drawn.text())["images"]
        .as_array()
        .expect("pictures")
        .clone();
    assert_eq!(pictures.len(), 14, "none is lost beyond twelve");
    for picture in &pictures {
        let path = picture["url"].as_str().expect("a URL");
        let file = fetch(door, "GET", path, &[], b"");
        assert!(file.status == 200 && file.body.starts_with(PNG), "{path}");
    }
    let changed = form(&[
        (
            "image",
            &fetch(door, "GET", pictures[0]["url"].as_str().unwrap(), &[], b"").body,
        ),
        ("prompt", b"red"),
    ]);
    let changed = fetch(door, "POST", "/v1/images/edits", &[FORM], &changed);
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(json(changed.text())["size"], "64x64");

    let spoken = post(
        door,
        "/v1/audio/speech",
        r#"{"model":"parler-tts/parler-tts-large-v1","input":"good morning","voice":"alloy"}"#,
    );
    assert_eq!(
        (spoken.status, spoken.field("content-type")),
        (200, Some("audio/wav"))
    );
    assert!(spoken.body.starts_with(b"RIFF"));
    assert_eq!(spoken.field("livepeer-units"), Some("12000"));

    let model: (&str, &[u8]) = ("model", b"openai/whisper-large-v3");
    for (format, kind) in [
        ("json", "application/json"),
        ("text", "text/plain; charset=utf-8"),
        ("srt", "text/plain; charset=utf-8"),
        ("verbose_json", "application/json"),
    ] {
        let sound = form(&[
            model,
            ("file", &wav()),
            ("response_format", format.as_bytes()),
        ]);
        let heard = fetch(door, "POST", "/v1/audio/transcriptions", &[FORM], &sound);
        assert_eq!(
            (heard.status, heard.field("content-type")),
            (200, Some(kind)),
            "{}",
            heard.text()
        );
        assert!(
            heard.text().contains("2.000 seconds of sound"),
            "{}",
            heard.text()
        );
    }
    let sound = form(&[model, ("file", &wav()), ("stream", b"true")]);
    let heard = fetch(door, "POST", "/v1/audio/transcriptions", &[FORM], &sound);
    assert_eq!(heard.field("content-type"), Some("text/event-stream"));
    assert!(
        heard.text().contains("transcript.text.done"),
        "{}",
        heard.text()
    );

    // A clip is made in the background.
    let picture = form(&[("image", include_bytes!("../clients/grey.png"))]);
    let later = [FORM, ("prefer", "respond-async, wait=5")];
    let accepted = fetch(door, "POST", "/image-to-video", &later, &picture);
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let clip = loop {
        let result = post(door, "/image-to-video/result", accepted.text());
        if result.status != 202 {
            break result;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!(
        (clip.status, clip.field("content-type")),
        (200, Some("application/json"))
    );
    let told = json(clip.text());
    assert_eq!(told["status"], "complete");
    let url = told["result"]["images"][0]["url"].as_str().expect("a URL");
    assert_eq!(fetch(door, "GET", url, &[], b"").status, 200, "{told}");

    for path in [
        "/stream/0a1b2c3d/0.png",
        &format!("/files/{}/0.png", "a".repeat(32)),
    ] {
        let unknown = fetch(door, "GET", path, &[], b"");
        assert_eq!(
            (unknown.status, unknown.text().trim()),
            (404, "not found"),
            "{path}"
        );
    }
}

#[test]
fn bad_input_has_one_clear_error_each_and_costs_nobody_anything() {
    let devnet = fast(1, &[]);
    let serve = Serve::before(&devnet, &[]);
    let door = &serve.door;
    for path in ["/text-to-image", "/llm", "/upscale"] {
        for method in ["GET", "PUT", "HEAD", "OPTIONS", "QUERY", "BREW"] {
            let refused = fetch(door, method, path, &[], b"");
            assert_eq!(
                (refused.status, refused.field("allow")),
                (405, Some("POST")),
                "{method} {path}"
            );
        }
    }
    let llm = |more: &str| format!(r#"{{"model":"{LLM}"{more}}}"#);
    let bodies = [
        ("/text-to-image", "no".to_owned(), "JSON"),
        ("/text-to-image", "null".to_owned(), "null"),
        ("/text-to-image", "{}".to_owned(), "prompt is required"),
        (
            "/text-to-image",
            r#"{"prompt":"a","width":"x"}"#.to_owned(),
            "width",
        ),
        (
            "/text-to-image",
            r#"{"prompt":"a","width":0}"#.to_owned(),
            "width",
        ),
        (
            "/text-to-image",
            r#"{"prompt":"a","width":1048577,"height":1048576}"#.to_owned(),
            "pixels",
        ),
        (
            "/text-to-image",
            r#"{"prompt":"a","prompt":"b"}"#.to_owned(),
            "twice",
        ),
        ("/llm", llm(""), "missing required fields"),
        (
            "/llm",
            llm(r#","stream":false,"max_tokens":8,"messages":[]"#),
            "missing required fields",
        ),
        (
            "/llm",
            llm(r#","stream":false,"max_tokens":0,"messages":[{"role":"user","content":"a"}]"#),
            "max_tokens",
        ),
        (
            "/llm",
            llm(r#","stream":false,"max_tokens":-1,"messages":[{"role":"user","content":"a"}]"#),
            "max_tokens",
        ),
        (
            "/llm",
            llm(
                r#","stream":false,"max_tokens":8,"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}]"#,
            ),
            "content",
        ),
        ("/text-to-speech", "{}".to_owned(), "text field is required"),
        (
            "/text-to-speech",
            r#"{"text":""}"#.to_owned(),
            "text field is required",
        ),
        (
            "/image-to-video/result",
            r#"{"request_id":"00000000"}"#.to_owned(),
            "invalid request ID",
        ),
        (
            "/image-to-video/result",
            "{}".to_owned(),
            "invalid request ID",
        ),
        ("/upscale", "{}".to_owned(), "multipart/form-data"),
    ];
    let native = |answer: &Whole, path: &str, says: &str| {
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        let told = json(answer.text());
        assert_eq!(told["error"]["message"], told["detail"]["msg"], "{path}");
        let text = told["error"]["message"].as_str().expect("a text");
        assert!(text.contains(says), "{path}: {text}");
    };
    for (path, body, says) in &bodies {
        native(&post(door, path, body), path, says);
    }
    for (path, parts, says) in [
        (
            "/image-to-image",
            &[("prompt", &b"a"[..])][..],
            "image is required, as a file",
        ),
        (
            "/image-to-image",
            &[("prompt", b"a"), ("image", b"RIFF....WEBPVP8 ")],
            "not a PNG, JPEG or GIF",
        ),
        ("/audio-to-text", &[("audio", b"")], "empty file"),
        ("/audio-to-text", &[("audio", b"not sound")], "not WAV"),
    ] {
        native(
            &fetch(door, "POST", path, &[FORM], &form(parts)),
            path,
            says,
        );
    }
    let text = b"--x\r\ncontent-disposition: form-data; name=\"image\"\r\n\r\nabc\r\n--x--\r\n";
    native(
        &fetch(door, "POST", "/upscale", &[FORM], text),
        "/upscale",
        "image must be a file",
    );
    // Of one picture at least; without a model, the usual one.
    let one = post(
        door,
        "/text-to-image",
        r#"{"prompt":"a","width":64,"height":64,"num_images_per_prompt":0} trailing"#,
    );
    assert_eq!(
        json(one.text())["images"].as_array().map(Vec::len),
        Some(1),
        "{}",
        one.text()
    );
    // Nobody was suspended, and nothing else was charged.
    let figures = call(&serve.ops, "GET", "/metrics", &[], b"").1;
    let blames = |line: &&str| {
        line.starts_with("livepeer_ai_request_errors{") && line.contains("orchestrator_uri=\"http")
    };
    assert_eq!(figures.lines().find(blames), None);

    for (path, more, status, says) in [
        ("/llm", "expect: magic\r\n", 417, "100-continue"),
        ("/llm", "content-encoding: br\r\n", 415, "'br'"),
        ("/llm", "content-encoding: gzip\r\n", 415, "'gzip'"),
        ("/%zz", "", 400, "malformed path"),
        ("/v1/files", "", 404, "Unknown request URL: POST /v1/files"),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}content-length: 2\r\n\r\n{{}}"
        );
        let answer = say(door, head.as_bytes());
        assert_eq!(answer.status, status, "{path} {more}: {}", answer.text());
        assert!(answer.text().contains(says), "{}", answer.text());
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(9 << 10));
    assert_eq!(say(door, long.as_bytes()).status, 414);
    let fat = format!(
        "GET /v1/models HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n",
        "a".repeat(40 << 10)
    );
    assert_eq!(say(door, fat.as_bytes()).status, 431);
    let tls = say(door, b"\x16\x03\x01\0\x05hello");
    assert_eq!(
        (tls.status, tls.text().trim()),
        (400, "this port speaks http")
    );
    // Of two lengths the chunks count, as RFC 9112 has it, and nothing behind them is another request.
    let body = r#"{"prompt":""}"#;
    let two = format!(
        "POST /text-to-image HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        body.len()
    );
    let two = say(door, two.as_bytes());
    assert_eq!(two.status, 400);
    assert!(
        two.text().contains("prompt is required") && !two.text().contains("HTTP/1.1"),
        "{}",
        two.text()
    );
}

#[test]
fn where_nobody_can_do_it_every_route_says_503_and_who_was_asked() {
    let devnet = fast(1, &["--quirk", "busy"]);
    let serve = Serve::before(&devnet, &[]);
    let door = &serve.door;
    let native = post(door, "/text-to-image", r#"{"prompt":"a"}"#);
    assert_eq!(native.status, 503, "{}", native.text());
    assert_eq!(
        json(native.text())["error"]["message"],
        "Service Unavailable Error"
    );
    let chat = format!(r#"{{"model":"{LLM}","messages":[{{"role":"user","content":"hello"}}]}}"#);
    for (path, body) in [
        ("/v1/chat/completions", chat.as_str()),
        ("/v1/images/generations", r#"{"prompt":"a"}"#),
    ] {
        let refused = post(door, path, body);
        assert_eq!(
            (refused.status, refused.field("retry-after")),
            (503, Some("2")),
            "{}",
            refused.text()
        );
        let error = json(refused.text())["error"].clone();
        assert_eq!(
            (&error["code"], &error["type"]),
            (&"no_orchestrator".into(), &"server_error".into())
        );
    }
    // Of whom nobody has rested yet, each is named.
    let speech = r#"{"model":"parler-tts/parler-tts-large-v1","input":"hi","voice":"alloy"}"#;
    let refused = post(door, "/v1/audio/speech", speech);
    let attempts = json(refused.text())["error"]["metadata"]["attempts"].clone();
    assert_eq!(attempts[0]["reason"], "busy", "{}", refused.text());
    let unknown = post(
        door,
        "/text-to-image",
        r#"{"prompt":"a","model_id":"no/such"}"#,
    );
    assert_eq!(unknown.status, 503, "{}", unknown.text());
    // A video in the background fails in the background.
    let video = form(&[("image", &include_bytes!("../clients/grey.png")[..])]);
    let accepted = fetch(
        door,
        "POST",
        "/image-to-video",
        &[FORM, ("prefer", "respond-async")],
        &video,
    );
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    loop {
        let result = post(door, "/image-to-video/result", accepted.text());
        if result.status != 202 {
            assert_eq!(result.status, 200, "{}", result.text());
            assert!(
                json(result.text())["result"]["error"]["message"].is_string(),
                "{}",
                result.text()
            );
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_runner_that_finds_fault_with_a_request_is_quoted() {
    let devnet = fast(1, &["--quirk", "runner-400"]);
    let serve = Serve::before(&devnet, &[]);
    let llm = format!(
        r#"{{"model":"{LLM}","stream":false,"max_tokens":8,"messages":[{{"role":"user","content":null}}]}}"#
    );
    for (path, body) in [("/llm", &*llm), ("/text-to-image", r#"{"prompt":"a"}"#)] {
        let refused = post(&serve.door, path, body);
        assert_eq!(refused.status, 400, "{path}: {}", refused.text());
        let told = json(refused.text());
        let text = told["error"]["message"].as_str().expect("a text");
        assert_eq!(told["detail"]["msg"], text);
        assert!(!text.is_empty() && !text.contains("127.0.0.1"), "{text}");
    }
    let chat = format!(r#"{{"model":"{LLM}","messages":[{{"role":"user","content":"hello"}}]}}"#);
    let refused = post(&serve.door, "/v1/chat/completions", &chat);
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(json(refused.text())["error"]["code"], "runner_refused");
}

/// Requests of the vectors that need what the front door does not have yet: keys, limits and budgets, backends, and
/// `/v1/responses`.
const NOT_YET: [&str; 9] = [
    "auth-",
    "scope-",
    "limit-",
    "responses-",
    "native-no-key",
    "chat-embed-model",
    "embed-chat-model",
    "embed-no-input",
    "rerank-no-documents",
];

#[test]
fn every_bad_request_of_the_vectors_has_its_answer_over_a_socket() {
    let vectors = include_str!("../../../core/tests/vectors/front/openai-bad-input.json");
    // The models of the vectors that their requests name.
    let llm = "llm=meta-llama/Meta-Llama-3.1-8B-Instruct";
    let models = "text-to-image,image-to-image,audio-to-text,text-to-speech";
    let devnet = fast(1, &["--models", &format!("{llm},{models}")]);
    let folder = Folder::new("bad-input");
    let file = folder.path("gateway.toml");
    let aliases = "[models.alias]\n\
                   gpt-4o-mini = \"llm/meta-llama/Meta-Llama-3.1-8B-Instruct\"\n\
                   whisper-1 = \"audio-to-text/openai/whisper-large-v3\"\n\
                   tts-1 = \"text-to-speech/parler-tts/parler-tts-large-v1\"\n";
    std::fs::write(&file, aliases).expect("there is room");
    let orchestrator = &devnet.orchestrators[0];
    let peers = ["--signer", &devnet.signer, "--orchestrator", orchestrator];
    let serve = Serve::start(&[&peers[..], &["--config", &file]].concat());
    serve.lists("parler-tts/parler-tts-large-v1");
    let cases = json(vectors)["cases"].as_array().expect("a list").clone();
    let mut sent = 0;
    for case in &cases {
        let id = case["id"].as_str().expect("an id");
        if NOT_YET.iter().any(|not_yet| id.starts_with(not_yet)) {
            continue;
        }
        sent += 1;
        let reply = &case["out"]["reply"];
        let answer = say(&serve.door, &raw(&case["in"]["request"]));
        assert_eq!(
            Value::from(answer.status),
            reply["status"],
            "{id}: {}",
            answer.text()
        );
        let (told, wanted) = (json(answer.text()), &reply["body_json"]);
        let (told, wanted) = (&told["error"], &wanted["error"]);
        for key in ["type", "param", "code"] {
            assert_eq!(told[key], wanted[key], "{id}: {told}");
        }
        // Of voices we know more, and of models others.
        let begins = match wanted["message"].as_str().expect("a message") {
            message if id == "speech-voice" => message.split(". ").next(),
            message => message
                .strip_prefix("re:^")
                .map_or(Some(message), |re| re.split(".+").next()),
        };
        let begins = begins.unwrap_or_default().replace('\\', "");
        let message = told["message"].as_str().expect("a message");
        assert!(message.starts_with(&begins), "{id}: {message}\n{begins}");
    }
    assert_eq!(sent, 93);
}

/// A request of the vectors as it goes over the wire.
fn raw(request: &Value) -> Vec<u8> {
    let text = |of: &Value| of.as_str().map(str::to_owned);
    let repeated = || {
        let of = &request["body_repeat"];
        let count = usize::try_from(of["count"].as_u64()?).ok()?;
        Some(text(&of["text"])?.repeat(count).into_bytes())
    };
    let coded = || STANDARD.decode(request["body_b64"].as_str()?).ok();
    let body = text(&request["body_text"]).map(String::into_bytes);
    let body = body.or_else(coded).or_else(repeated);
    let body = body.unwrap_or_else(|| match &request["body_json"] {
        Value::Null => Vec::new(),
        json => json.to_string().into_bytes(),
    });
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n",
        text(&request["method"]).expect("a method"),
        text(&request["path"]).expect("a path"),
        body.len()
    );
    for field in request["headers"].as_array().expect("a list") {
        let (name, value) = (
            text(&field[0]).expect("a name"),
            text(&field[1]).expect("a value"),
        );
        let ours = ["host", "content-length", "connection", "transfer-encoding"];
        if !ours.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
            head += &format!("{name}: {value}\r\n");
        }
    }
    [head.as_bytes(), b"\r\n", &body].concat()
}
