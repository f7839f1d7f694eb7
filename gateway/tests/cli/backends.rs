//! OpenAI's routes for models that a container or an app of the development network serves, and rude containers.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use livepeer_core::wire::byoc::{JOB_HEADER, JobRequest};
use serde_json::{Value, json};

use crate::files::Folder;
use crate::http::{Whole, fetch};
use crate::serve::{LLM, Serve};
use crate::server::Devnet;

/// Models that the devnet's container and app serve, good ones and rude ones.
pub(crate) const BACKENDS: &str = r#"
[[models.backend]]
name = "echo-chat"
surfaces = ["chat"]
app = { name = "devnet/echo" }
model = "own/chat"
[[models.backend]]
name = "echo-boxed"
surfaces = ["chat", "embeddings", "rerank"]
byoc = { capability = "echo", timeout = "5s" }
[[models.backend]]
name = "echo-held"
surfaces = ["chat"]
app = { name = "devnet/session" }
[[models.backend]]
name = "flood"
surfaces = ["chat"]
app = { name = "devnet/echo", path = "/flood" }
[[models.backend]]
name = "flood-boxed"
surfaces = ["chat"]
byoc = { capability = "echo", path = "/flood", timeout = "2s" }
[[models.backend]]
name = "endless"
surfaces = ["chat"]
app = { name = "devnet/echo", path = "/endless" }
[[models.backend]]
name = "endless-boxed"
surfaces = ["chat"]
byoc = { capability = "echo", path = "/endless", timeout = "2s" }
[[models.backend]]
name = "silent"
surfaces = ["chat"]
byoc = { capability = "echo", path = "/silent", timeout = "1s" }
[[models.backend]]
name = "says-list"
surfaces = ["embeddings"]
byoc = { capability = "echo", path = "/say" }
[[models.backend]]
name = "teapot"
surfaces = ["chat"]
app = { name = "devnet/echo", path = "/status/418" }
[[models.backend]]
name = "broken"
surfaces = ["chat"]
byoc = { capability = "echo", path = "/status/500" }
[[models.backend]]
name = "nowhere"
surfaces = ["chat"]
byoc = { capability = "nothing" }
[[models.backend]]
name = "dear"
surfaces = ["embeddings"]
byoc = { capability = "dear" }
[prices]
"byoc/dear" = "1"
"#;

fn chat(model: &str, stream: bool) -> Vec<u8> {
    json!({
        "model": model,
        "stream": stream,
        "messages": [{"role": "user", "content": "one two"}],
    })
    .to_string()
    .into_bytes()
}

fn post(serve: &Serve, path: &str, body: &[u8]) -> Whole {
    let json = [("content-type", "application/json")];
    fetch(&serve.door, "POST", path, &json, body)
}

fn of(answer: &Whole) -> Value {
    serde_json::from_str(answer.text()).unwrap_or_else(|_| panic!("{}", answer.text()))
}

/// The payloads of the events of an answer.
fn events(answer: &Whole) -> Vec<&str> {
    let lines = answer.text().lines();
    lines
        .filter_map(|line| line.strip_prefix("data: "))
        .collect()
}

#[test]
fn models_of_containers_and_apps_are_served_at_openais_routes() {
    let devnet = Devnet::start(
        1,
        &[
            "--models",
            "llm",
            "--work-time",
            "1ms",
            "--polite",
            "--containers",
            "echo,dear",
        ],
    );
    let folder = Folder::new("backends");
    let config = folder.private("gateway.toml", BACKENDS);
    for runtime in ["tokio", "smol"] {
        let serve = Serve::before(&devnet, &["--config", &config, "--runtime", runtime]);
        let listed = fetch(&serve.door, "GET", "/v1/models/echo-boxed", &[], b"");
        let listed = of(&listed);
        assert_eq!(listed["owned_by"], "byoc");
        assert_eq!(listed["surfaces"], json!(["chat", "embeddings", "rerank"]));
        for (model, kind, own) in [
            ("echo-chat", "app", "own/chat"),
            ("echo-boxed", "byoc", "echo-boxed"),
            ("echo-held", "app", "echo-held"),
        ] {
            let answer = post(&serve, "/v1/chat/completions", &chat(model, false));
            let said = of(&answer);
            assert_eq!(answer.status, 200, "{runtime} {model}: {said}");
            assert_eq!(said["choices"][0]["message"]["content"], "one two");
            assert_eq!(said["model"], own);
            assert_eq!(answer.field("livepeer-pipeline"), Some(kind));
            assert_eq!(answer.field("livepeer-model"), Some(model));
            let at = answer.field("livepeer-orchestrator").expect("who served");
            assert!(at.starts_with("https://127.0.0.1:"), "{at}");
            if model != "echo-held" {
                // A session is paid for by itself.
                let cost = answer.field("livepeer-cost-wei").map(str::parse::<u64>);
                let least = if kind == "app" {
                    4_000_000_000
                } else {
                    100_000_000
                };
                assert!(matches!(cost, Some(Ok(cost)) if cost >= least), "{cost:?}");
            }
            let answer = post(&serve, "/v1/chat/completions", &chat(model, true));
            assert_eq!(answer.status, 200, "{runtime} {model}: {}", answer.text());
            assert_eq!(answer.field("content-type"), Some("text/event-stream"));
            let told = events(&answer);
            assert_eq!(told.len(), 5, "{told:?}");
            assert_eq!(told.last(), Some(&"[DONE]"));
            let words = told[..4].iter().map(|chunk| {
                let chunk: Value = serde_json::from_str(chunk).expect("JSON");
                let words = &chunk["choices"][0]["delta"]["content"];
                words.as_str().unwrap_or_default().to_owned()
            });
            assert_eq!(words.collect::<String>(), "one two");
        }
        let body = json!({"model": "echo-boxed", "input": ["a", "b"], "encoding_format": "base64"});
        let answer = post(&serve, "/v1/embeddings", body.to_string().as_bytes());
        let said = of(&answer);
        assert_eq!(
            (answer.status, &said["data"][1]["index"]),
            (200, &json!(1)),
            "{said}"
        );
        assert!(
            said["data"][0]["embedding"].is_string(),
            "as it was asked for: {said}"
        );
        let body = json!({"model": "echo-boxed", "query": "lake", "documents": ["hill", "a lake"]});
        let answer = post(&serve, "/v1/rerank", body.to_string().as_bytes());
        assert_eq!(of(&answer)["results"][0]["index"], 1, "{}", answer.text());
        for (path, body, status, code) in [
            (
                "/v1/embeddings",
                json!({"model": "says-list", "input": "x"}).to_string(),
                200,
                "",
            ),
            (
                "/v1/embeddings",
                json!({"model": "echo-chat", "input": "x"}).to_string(),
                400,
                "model_not_supported",
            ),
            (
                "/v1/embeddings",
                json!({"model": LLM, "input": "x"}).to_string(),
                400,
                "model_not_supported",
            ),
            (
                "/v1/embeddings",
                json!({"model": "echo-boxed"}).to_string(),
                400,
                "missing_required_parameter",
            ),
            (
                "/v1/embeddings",
                json!({"model": "dear", "input": "x"}).to_string(),
                503,
                "no_orchestrator",
            ),
            (
                "/v1/chat/completions",
                json!({"model": "echo-boxed"}).to_string(),
                400,
                "",
            ),
            (
                "/v1/completions",
                json!({"model": "echo-boxed"}).to_string(),
                404,
                "unknown_url",
            ),
        ] {
            let answer = post(&serve, path, body.as_bytes());
            let said = of(&answer);
            assert_eq!(answer.status, status, "{runtime} {body}: {said}");
            if !code.is_empty() {
                assert_eq!(said["error"]["code"], code, "{said}");
            }
        }
        for (model, status, code) in [
            ("teapot", 400, "runner_refused"),
            ("broken", 502, "upstream_invalid"),
            ("nowhere", 503, "no_orchestrator"),
            // Nobody knows whether it has done it.
            ("silent", 500, "outcome_unknown"),
            // A stream where none was asked for.
            ("flood", 502, "upstream_invalid"),
        ] {
            let answer = post(&serve, "/v1/chat/completions", &chat(model, false));
            let said = of(&answer);
            assert_eq!(answer.status, status, "{runtime} {model}: {said}");
            assert_eq!(said["error"]["code"], code, "{runtime} {model}: {said}");
        }
        let tried = "livepeer_byoc_requests_total{capability=\"nothing\",code=\"503\"} 1";
        serve.counts(&[tried]);
    }
}

/// Reads the beginning of an answer, and goes.
fn leaves_early(door: &str, path: &str) {
    let mut socket = TcpStream::connect(door).expect("it listens");
    let patience = Some(Duration::from_secs(20));
    socket.set_read_timeout(patience).expect("a timeout");
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    socket.write_all(head.as_bytes()).expect("it listens");
    let mut begins = vec![0; 8 << 10];
    socket.read_exact(&mut begins).expect("it goes on");
    assert!(begins.starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn programs_that_flood_or_never_end_are_cut_in_bounded_time() {
    let devnet = Devnet::start(1, &["--models", "llm", "--work-time", "1ms", "--polite"]);
    let folder = Folder::new("rude");
    let rude =
        format!("{BACKENDS}[apps]\nallow = [\"devnet/*\"]\n[limits]\nwrite_stall = \"2s\"\n");
    let config = folder.private("gateway.toml", &rude);
    for runtime in ["tokio", "smol"] {
        let serve = Serve::before(&devnet, &["--config", &config, "--runtime", runtime]);
        let began = Instant::now();
        // Blank lines are an end, wherever they come from.
        for model in ["flood", "flood-boxed"] {
            let answer = post(&serve, "/v1/chat/completions", &chat(model, true));
            assert_eq!(events(&answer), ["first", "[DONE]"], "{runtime} {model}");
            assert!(answer.text().len() < 100, "{runtime} {model}");
        }
        let job = JobRequest {
            request: "{}".into(),
            parameters: "{}".into(),
            capability: "echo".into(),
            timeout_seconds: 2,
            ..JobRequest::default()
        };
        let header = [(JOB_HEADER, &*job.to_header(None))];
        let flooded = fetch(
            &serve.door,
            "POST",
            "/process/request/flood",
            &header,
            b"{}",
        );
        assert_eq!((flooded.status, flooded.text().len() < 100), (200, true));
        // An event stream that never ends lasts as long as its job may.
        let endless = fetch(
            &serve.door,
            "POST",
            "/process/request/endless",
            &header,
            b"{}",
        );
        assert!(endless.status == 200 && endless.text().contains("data: more"));
        let answer = post(&serve, "/v1/chat/completions", &chat("endless-boxed", true));
        assert!(answer.status == 200 && events(&answer).len() > 10);
        let silent = fetch(
            &serve.door,
            "POST",
            "/process/request/silent",
            &header,
            b"{}",
        );
        assert_eq!(silent.status, 504, "{}", silent.text());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(90), "{runtime}: {took:?}");
        // Of apps, which have no time of their own, one goes on as long as its client reads, and no longer.
        for path in ["/apps/devnet/echo/endless", "/apps/devnet/echo/flood"] {
            leaves_early(&serve.door, path);
        }
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let health = of(&fetch(&serve.door, "GET", "/health", &[], b""));
            // The question itself is one.
            if health["in_flight"] == 1 {
                break;
            }
            assert!(Instant::now() < until, "{runtime}: {health}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}
