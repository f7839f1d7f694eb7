//! Containers and apps, from the command line and through the front door, before the development network.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use livepeer_core::wire::byoc::{JOB_HEADER, JobRequest};

use crate::files::Folder;
use crate::http::{call, fetch, read_head};
use crate::process::CLIP;
use crate::run::{Scratch, run};
use crate::serve::Serve;
use crate::server::Devnet;

#[test]
fn containers_and_apps_work_from_the_command_line_and_through_the_door() {
    let devnet = Devnet::start(1, &["--models", "llm", "--work-time", "1ms"]);
    let peers = [
        "--signer",
        &devnet.signer,
        "--orchestrator",
        &devnet.orchestrators[0],
    ];
    let hire = |arguments: &[&str]| run(&[arguments, &peers].concat());

    let said = hire(&["byoc", "run", "echo", "say", "--data", "\"words\""]);
    said.succeeded();
    assert_eq!(said.text(), "\"words\"");
    assert!(said.stderr.contains("tickets"), "{}", said.stderr);
    let told = hire(&["byoc", "run", "echo", "events", "--data", "one two"]);
    told.succeeded();
    assert!(told.text().trim_end().ends_with("data: [DONE]"), "{told:?}");
    let json = hire(&["byoc", "run", "echo", "say", "--data", "[1]", "--json"]).json();
    assert_eq!(json["answer"], serde_json::json!([1]));
    assert_eq!(json["price_wei"], "100000000");
    let output = Scratch::new("byoc-stream.ts");
    let stream = |name: &'static str| {
        let command = [
            "byoc",
            "stream",
            name,
            "--input",
            CLIP,
            "--output",
            output.path(),
        ];
        [
            &command[..],
            &["--speed", "20", "--params", "{\"n\":1}", "--json"],
        ]
        .concat()
    };
    let streamed = hire(&stream("echo")).json();
    assert_eq!(streamed["segments"]["back"], 12, "{streamed}");
    assert_eq!(streamed["segments"]["lost"], 0);
    assert_eq!(streamed["bytes"], output.bytes().len());
    assert_eq!(streamed["price_wei"], "100000000");
    let lacking = hire(&stream("nothing")).json();
    let why = lacking["error"]["cause"].as_str().expect("a cause");
    assert!(
        why.contains("no orchestrator offers the container"),
        "{why}"
    );
    let nobody = hire(&["byoc", "run", "nothing"]);
    assert!(
        nobody
            .error()
            .contains("no orchestrator offers the container")
    );

    let listed = hire(&["app", "list", "--json"]).json();
    let apps: Vec<_> = { listed.as_array().expect("a list").iter() }
        .map(|runner| runner["app"].as_str().expect("a name"))
        .collect();
    assert!(apps.contains(&"devnet/echo") && apps.contains(&"devnet/session"));
    let called = hire(&["app", "call", "devnet/echo", "say", "--data", "words"]);
    called.succeeded();
    assert_eq!(called.text(), "words");
    let refused = hire(&["app", "call", "devnet/echo", "status/418"]);
    assert!(refused.error().contains("418"), "{refused:?}");
    let session = ["app", "session", "devnet/session"];
    let said = hire(&[&session[..], &["say", "--data", "words", "--json"]].concat()).json();
    assert_eq!(said["answer"], "words");
    assert!(said["session"]["id"].is_string() && said["tickets"].as_u64() > Some(0));
    let held = hire(&[&session[..], &["--for", "100ms"]].concat());
    held.succeeded();
    assert!(held.text().contains("/app"), "{held:?}");
    let nobody = hire(&["app", "session", "devnet/nothing"]);
    assert!(nobody.error().contains("no orchestrator lists a runner"));

    let folder = Folder::new("hired");
    let written = |runners: &str| {
        let text =
            format!("[apps]\nallow = [\"devnet/*\"]\n[orchestrators]\nrunners = [{runners:?}]\n");
        folder.private("gateway.toml", &text)
    };
    let config = written(&devnet.orchestrators[0]);
    let serve = Serve::before(&devnet, &["--config", &config]);
    let post =
        |path: &str, fields: &[(&str, &str)]| call(&serve.door, "POST", path, fields, b"words");
    let job = JobRequest {
        request: "{}".into(),
        capability: "echo".into(),
        timeout_seconds: 10,
        ..JobRequest::default()
    };
    let header = job.to_header(None);
    let (status, body) = post("/process/request/say", &[(JOB_HEADER, &header)]);
    assert_eq!((status, &*body), (200, "words"));
    let (status, body) = post("/process/request/say", &[]);
    assert_eq!(status, 400, "{body}");
    // What an app says is passed on as it comes.
    let (status, body) = post("/apps/devnet/echo/say", &[]);
    assert!(status == 200 && body.contains("words"), "{status} {body}");
    // A demand for payment has no place in the answer to a HEAD, and is met all the same.
    let head = call(&serve.door, "HEAD", "/apps/devnet/echo/say", &[], b"");
    assert_eq!(head, (200, String::new()));
    for _ in 0..2 {
        let key = [("livepeer-session", "mine")];
        let (status, body) = post("/apps/devnet/session/say", &key);
        assert!(status == 200 && body.contains("words"), "{status} {body}");
    }
    let (status, _) = post("/apps/other/echo/say", &[]);
    assert_eq!(status, 404);
    // A socket of each: its message comes back, and so does its end.
    for app in ["devnet/echo", "devnet/session"] {
        let (mut socket, mut reader) = socket(&serve.door, app);
        for (sent, wanted) in [
            (
                &b"\x81\x85\x01\x02\x03\x04ig\x6fhn"[..],
                &b"\x81\x05hello"[..],
            ),
            (&b"\x88\x80\x00\x00\x00\x00"[..], &b"\x88\x00"[..]),
        ] {
            socket.write_all(sent).expect("it listens");
            let mut heard = vec![0; wanted.len()];
            reader.read_exact(&mut heard).expect("it is said back");
            assert_eq!(heard, wanted);
        }
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).expect("the end");
        assert!(rest.is_empty(), "{rest:?}");
    }
    serve.counts(&["livepeer_byoc_requests_total{capability=\"echo\",code=\"200\"} 1"]);
    // Apps are looked for where the list of runners says, and nowhere else.
    written("127.0.0.1:9");
    serve.reload("the configuration changed: orchestrators.runners");
    let (status, body) = post("/apps/devnet/echo/say", &[]);
    assert_eq!(status, 404, "{body}");
}

/// Where tokens name an address at which nobody is, the job has reached nobody.
#[test]
fn a_job_that_reaches_no_container_is_answered_with_503() {
    let devnet = Devnet::start(1, &["--quirk", "elsewhere"]);
    let job = JobRequest {
        request: "{}".into(),
        capability: "echo".into(),
        timeout_seconds: 10,
        ..JobRequest::default()
    };
    let header = [(JOB_HEADER, &*job.to_header(None))];
    let nobody = "no orchestrator could process the job\n";
    for runtime in ["tokio", "smol"] {
        let serve = Serve::before(&devnet, &["--runtime", runtime]);
        let path = "/process/request/say";
        let answer = call(&serve.door, "POST", path, &header, b"words");
        assert_eq!(answer, (503, nobody.to_owned()), "{runtime}");
    }
}

/// A WebSocket to an app through the front door.
fn socket(door: &str, app: &str) -> (TcpStream, BufReader<TcpStream>) {
    let mut socket = TcpStream::connect(door).expect("it listens");
    let patience = Some(Duration::from_secs(20));
    socket.set_read_timeout(patience).expect("a timeout");
    let head = format!(
        "GET /apps/{app}/ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: chat\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).expect("it listens");
    let mut reader = BufReader::new(socket.try_clone().expect("the same socket"));
    let (head, _) = read_head(&mut reader).expect("a head");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-protocol: chat"), "{head}");
    (socket, reader)
}

#[test]
fn a_shutdown_ends_the_sockets_of_clients_and_the_sessions_behind_them() {
    let devnet = Devnet::start(1, &["--polite"]);
    let folder = Folder::new("hired-shutdown");
    let config = folder.private(
        "gateway.toml",
        "[serve]\ndrain_grace = \"100ms\"\n[apps]\nallow = [\"devnet/*\"]\n",
    );
    let serve = Serve::before(&devnet, &["--config", &config]);
    let mut sockets = ["devnet/echo", "devnet/session"].map(|app| socket(&serve.door, app));
    let began = Instant::now();
    serve.server.stop("TERM");
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(20),
        "{took:?}: it waited for them"
    );
    for (_, reader) in &mut sockets {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).expect("the end");
        assert!(rest.is_empty(), "{rest:?}");
    }
    let listed = held(&devnet);
    assert_eq!(listed["available"], listed["capacity"], "{listed}");
}

/// The listing of the app with sessions, at the orchestrator.
fn held(devnet: &Devnet) -> serde_json::Value {
    let command = ["app", "list", "devnet/session", "--json"];
    let orchestrator = &devnet.orchestrators[0];
    let peers = ["--signer", &devnet.signer, "--orchestrator", orchestrator];
    run(&[&command[..], &peers].concat()).json()[0].clone()
}

/// A call may never end, whether its client stays or not. The time for it runs out then, and sessions are stopped all the
/// same: the one in which it is made, and those beside it.
#[test]
fn a_shutdown_stops_sessions_whatever_calls_are_under_way() {
    for (app, path, stays) in [
        ("devnet/echo", "endless", true),
        ("devnet/session", "endless", true),
        ("devnet/session", "silent", true),
        ("devnet/session", "silent", false),
    ] {
        let devnet = Devnet::start(1, &["--polite"]);
        let folder = Folder::new("hired-runs-out");
        let config = folder.private(
            "gateway.toml",
            "[serve]\ndrain_grace = \"100ms\"\ndrain = \"1s\"\ndrain_live = \"1s\"\n[apps]\nallow = [\"devnet/*\"]\n",
        );
        let serve = Serve::before(&devnet, &["--config", &config]);
        let key = [("livepeer-session", "mine")];
        let (status, body) = call(
            &serve.door,
            "POST",
            "/apps/devnet/session/say",
            &key,
            b"words",
        );
        assert!(status == 200 && body.contains("words"), "{status} {body}");
        let mut client = TcpStream::connect(&serve.door).expect("it listens");
        let head =
            format!("GET /apps/{app}/{path} HTTP/1.1\r\nhost: x\r\nlivepeer-session: mine\r\n\r\n");
        client.write_all(head.as_bytes()).expect("it listens");
        if path == "endless" {
            let (head, _) = read_head(&mut BufReader::new(&client)).expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
        let client = stays.then_some(client);
        let listed = held(&devnet);
        assert_ne!(listed["available"], listed["capacity"], "{listed}");
        let began = Instant::now();
        let said = serve.server.stop("TERM");
        assert!(said.ends_with("stopped\n"), "{app}/{path}: {said}");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(20), "{app}/{path}: {took:?}");
        drop(client);
        let listed = held(&devnet);
        assert_eq!(
            listed["available"], listed["capacity"],
            "{app}/{path}: {listed}"
        );
    }
}

/// Jobs spec 4 and 13, and the answers to calls of apps, on both runtimes.
#[test]
fn every_answer_about_containers_and_apps_is_the_one_that_the_spec_has() {
    let devnet = Devnet::start(1, &["--models", "llm", "--work-time", "1ms", "--polite"]);
    let folder = Folder::new("hired-answers");
    let config = folder.private("gateway.toml", "[apps]\nallow = [\"devnet/*\", \"no/*\"]\n");
    let job = |change: fn(&mut JobRequest)| {
        let mut job = JobRequest {
            request: "{}".into(),
            parameters: "{}".into(),
            capability: "echo".into(),
            timeout_seconds: 10,
            ..JobRequest::default()
        };
        change(&mut job);
        job.to_header(None)
    };
    let good = job(|_| ());
    let no_object = job(|job| job.request = "words".into());
    let no_wishes = job(|job| job.parameters = "words".into());
    let nothing_said = job(|job| job.parameters.clear());
    let at_once = job(|job| job.timeout_seconds = 0);
    let unknown = job(|job| job.capability = "nothing".into());
    let brief = job(|job| job.timeout_seconds = 2);
    let excluded = job(|job| {
        job.parameters = r#"{"orchestrators":{"include":["https://127.0.0.1:9"]}}"#.into();
    });
    let unpadded = good.trim_end_matches('=').to_owned() + "=====";
    for runtime in ["tokio", "smol"] {
        let serve = Serve::before(&devnet, &["--config", &config, "--runtime", runtime]);
        let asked = |method: &str, path: &str, job: &str| {
            let fields = [(JOB_HEADER, job), ("content-type", "text/plain")];
            let fields = if job.is_empty() {
                &fields[1..]
            } else {
                &fields
            };
            fetch(&serve.door, method, path, fields, b"words")
        };
        for (method, path, job, status, begins) in [
            ("POST", "/process/request/say", &*good, 200, "words"),
            (
                "POST",
                "/process/request/say?x=1",
                &nothing_said,
                200,
                "words",
            ),
            ("POST", "/process/request", &good, 200, "words"),
            ("POST", "/process/request/", &good, 200, "words"),
            (
                "GET",
                "/process/request/say",
                &good,
                405,
                "Method GET is not allowed",
            ),
            (
                "POST",
                "/process/request/say",
                "",
                400,
                "Unable to parse job request, err=EOF",
            ),
            (
                "POST",
                "/process/request/say",
                &unpadded,
                400,
                "Unable to parse job request, err=ErrorSegEncoding\n",
            ),
            (
                "POST",
                "/process/request/say",
                &at_once,
                400,
                "Unable to parse job request, err=no timeout_seconds set with request, timeout_seconds is required\n",
            ),
            (
                "POST",
                "/process/request/say",
                &no_object,
                400,
                "Unable to unmarshal job request err=",
            ),
            (
                "POST",
                "/process/request/say",
                &no_wishes,
                400,
                "Unable to unmarshal job parameters err=",
            ),
            (
                "POST",
                "/process/request/a/../b",
                &good,
                400,
                "the path \"a/../b\" would not reach",
            ),
            (
                "POST",
                "/process/request/say",
                &unknown,
                400,
                "No orchestrators found for capability nothing\n",
            ),
            (
                "POST",
                "/process/request/say",
                &excluded,
                400,
                "No orchestrators found for capability echo\n",
            ),
            ("POST", "/process/request/status/422", &good, 422, ""),
            ("POST", "/process/stream/a/b", &good, 404, ""),
        ] {
            let answer = asked(method, path, job);
            let said = format!(
                "{runtime} {method} {path}: {} {}",
                answer.head,
                answer.text()
            );
            assert_eq!(answer.status, status, "{said}");
            assert!(answer.text().starts_with(begins), "{said}");
            let kind = answer.field("content-type");
            assert!(
                kind.is_some_and(|kind| kind.starts_with("text/plain")),
                "{said}"
            );
            let allowed = answer.field("allow");
            assert_eq!(allowed, (status == 405).then_some("POST"), "{said}");
            let served = answer.field("x-orchestrator-url");
            assert_eq!(served.is_some(), status == 200, "{said}");
        }
        // A container's own refusal is its caller's to read; what another one might do, or may have done, is told as it is.
        let nobody = "no orchestrator could process the job\n";
        let unknown_yet =
            "no answer came from the orchestrator that has the job; it may have been done\n";
        for (path, status, text) in [
            ("status/404", 404, "the program answers 404\n"),
            ("status/402", 502, nobody),
            ("status/408", 502, nobody),
            ("status/429", 502, nobody),
            ("status/500", 502, nobody),
            ("status/503", 502, nobody),
            ("status/502", 504, unknown_yet),
            ("status/504", 504, unknown_yet),
            ("silent", 504, unknown_yet),
        ] {
            let answer = asked("POST", &format!("/process/request/{path}"), &brief);
            let said = format!("{runtime} {path}: {}", answer.text());
            assert_eq!((answer.status, answer.text()), (status, text), "{said}");
            assert_eq!(answer.field("x-orchestrator-url"), None, "{said}");
        }
        let events = asked("POST", "/process/request/events", &good);
        assert_eq!(events.field("content-type"), Some("text/event-stream"));
        assert_eq!(events.text().matches("data: [DONE]").count(), 1);
        for (method, path, status, part) in [
            ("POST", "/apps/devnet/echo/say", 200, "words"),
            ("PUT", "/apps/devnet/echo/say?x=1", 200, "words"),
            ("POST", "/apps/devnet/echo/status/418", 418, ""),
            ("POST", "/apps/devnet/session/say", 200, "words"),
            ("TRACE", "/apps/devnet/echo/say", 405, "use GET, HEAD, POST"),
            ("POST", "/apps/devnet/echo/%2e", 400, "must be plain"),
            ("POST", "/apps/other/echo/say", 404, "not allowed here"),
            (
                "POST",
                "/apps/no/app/say",
                404,
                "No orchestrator offers this app",
            ),
        ] {
            let answer = asked(method, path, "");
            let said = format!(
                "{runtime} {method} {path}: {} {}",
                answer.head,
                answer.text()
            );
            assert_eq!(answer.status, status, "{said}");
            assert!(answer.text().contains(part), "{said}");
        }
    }
}
