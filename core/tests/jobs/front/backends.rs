//! Models that a container or an app serves: whatever it answers, the client gets one answer in the shape of its route.

use std::time::Duration;

use livepeer_core::error::Cause;
use livepeer_core::front::MAX_UNSENT;
use livepeer_core::job::app::{self, Answer};
use livepeer_core::job::byoc::{Attempt, Done, Failed, Left, Served};
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::Unit;
use livepeer_core::wire::byoc::Grounds;
use livepeer_core::wire::openai::backend::{Backend, Backends, Program, Surface};
use livepeer_core::wire::runner::RunnerPrice;

use super::*;

const STREAM: &str = r#"{"model":"talk","stream":true,"messages":[]}"#;
const VECTORS: &str = r#"{"model":"vec","input":"x","encoding_format":"base64"}"#;
const SPEECH: &str = r#"{"model":"talk","input":"x","voice":"any"}"#;

fn backends() -> Backends {
    let container = Backend {
        surfaces: vec![
            Surface::Embeddings,
            Surface::Images,
            Surface::Transcriptions,
        ],
        program: Program::Container {
            capability: "box".into(),
            within: Duration::from_secs(60),
        },
        path: None,
        model: Some("own/vec".into()),
    };
    let app = Backend {
        surfaces: vec![Surface::Chat, Surface::Completions, Surface::Speech],
        program: Program::App {
            name: "acme/llm".into(),
        },
        path: None,
        model: None,
    };
    [("vec".into(), container), ("talk".into(), app)].into()
}

fn door() -> Door {
    let mut config = Config::default();
    config.settings.backends = backends();
    Door::with(config)
}

fn url() -> Url {
    Url::parse("https://o.example:8935/apps/r/app").expect("a URL")
}

/// The request that a container or an app is to answer: its body and its path.
fn asked(door: &mut Door) -> (RequestId, String, Bytes) {
    match door.others.remove(0) {
        Event::Order(id, order) => {
            order.check().expect("it makes sense");
            assert_eq!(order.job.capability, "box");
            assert_eq!(order.job.timeout_seconds, 60);
            assert!(!order.may_repeat, "it may cost twice");
            (id, order.path, order.body)
        }
        Event::App(id, request) => {
            assert_eq!((&*request.app, &*request.key), ("acme/llm", ""));
            (id, request.call.path.clone(), request.call.body.clone())
        }
        other => panic!("{other:?}"),
    }
}

fn answer(status: u16, kind: &str) -> Answer {
    let mut headers = Headers::new();
    headers.push("content-type", kind);
    headers.push("set-cookie", "app=1");
    Answer {
        runner: url(),
        status,
        headers,
        price: Some(RunnerPrice {
            wei: Amount::ratio(7, 1).expect("an amount"),
            unit: Unit::Fixed,
        }),
    }
}

fn served(kind: &str, attempts: Vec<Attempt>) -> Served {
    Served {
        url: url(),
        content_type: kind.into(),
        metadata: String::new(),
        balance: String::new(),
        stream: false,
        price: Price::new(3, 1).expect("a price"),
        tickets: 1,
        value: Amount::zero(),
        attempts,
        waited: Duration::from_millis(1_200),
    }
}

impl Door {
    /// A request for an app, and what the app says; hands back the answer of the client.
    fn app_says(&mut self, path: &str, sent: &str, head: &Answer, said: &[&str]) -> &Seen {
        let exchange = self.post(path, sent);
        let (id, ..) = asked(self);
        self.tell(|front, now| front.app_head(now, id, head, "acme/llm", None));
        for bytes in said {
            self.tell(|front, now| front.relay(now, id, (*bytes).to_owned().into()));
        }
        self.tell(|front, now| front.relay_end(now, id));
        &self.seen[&exchange]
    }

    /// A request for a container, which answers at once; hands back the answer of the client.
    fn container_says(&mut self, sent: &str, kind: &str, said: &str) -> &Seen {
        let exchange = self.post("/v1/embeddings", sent);
        let (id, ..) = asked(self);
        let done = Done {
            served: served(kind, Vec::new()),
            body: said.to_owned().into(),
        };
        self.tell(|front, now| front.order_done(now, id, done));
        &self.seen[&exchange]
    }

    fn is_at_rest(&self) -> bool {
        (self.front.in_flight(), self.front.held()) == (0, 0)
    }
}

#[test]
fn a_request_goes_through_as_it_is_but_for_the_models_own_name() {
    let mut door = door();
    let sent = r#"{"a":[1.50, {"b":null}],"model":"vec","provider":{},"input":["x"],"user":"é"}"#;
    door.post("/v1/embeddings", sent);
    let (_, path, body) = asked(&mut door);
    assert_eq!(path, "v1/embeddings", "the route's own");
    let wanted = r#"{"a":[1.50, {"b":null}],"model":"own/vec","input":["x"],"user":"é"}"#;
    assert_eq!(std::str::from_utf8(&body), Ok(wanted));

    let form = "--B\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nvec\r\n--B\r\n\
                content-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nvec\r\n--B--\r\n";
    let head = request(Method::Post, "/v1/audio/transcriptions")
        .header("content-type", "multipart/form-data; boundary=B");
    door.send(head, form);
    let (_, path, body) = asked(&mut door);
    assert_eq!(path, "v1/audio/transcriptions");
    let wanted = form.replacen("\r\nvec\r\n", "\r\nown/vec\r\n", 1);
    assert_eq!(std::str::from_utf8(&body), Ok(&*wanted));
}

#[test]
fn what_no_backend_can_do_is_refused_before_anybody_is_asked() {
    let mut door = door();
    for (path, body, status, code) in [
        (
            "/v1/chat/completions",
            r#"{"model":"vec"}"#,
            400,
            "model_not_supported",
        ),
        (
            "/v1/embeddings",
            r#"{"model":"talk","input":"x"}"#,
            400,
            "model_not_supported",
        ),
        (
            "/v1/embeddings",
            r#"{"model":"vec"}"#,
            400,
            "missing_required_parameter",
        ),
        (
            "/v1/embeddings",
            r#"{"model":"vec","input":null}"#,
            400,
            "missing_required_parameter",
        ),
        (
            "/v1/embeddings",
            r#"{"model":7,"input":"x"}"#,
            400,
            "invalid_type",
        ),
        (
            "/v1/embeddings",
            r#"{"model":"other","input":"x"}"#,
            404,
            "model_not_found",
        ),
        (
            "/v1/rerank",
            r#"{"model":"vec","query":"x","documents":[]}"#,
            400,
            "model_not_supported",
        ),
        (
            "/v1/completions",
            r#"{"model":"other"}"#,
            404,
            "model_not_found",
        ),
        ("/v1/responses", r#"{"model":"talk"}"#, 404, "unknown_url"),
        (
            "/v1/embeddings",
            r#"{"model":"vec","input":"x","provider":{"only":["a.example"]}}"#,
            400,
            "unsupported_parameter",
        ),
        (
            "/v1/embeddings",
            r#"{"model":"vec","input":"x","provider":{"onyl":["a"]}}"#,
            400,
            "unknown_parameter",
        ),
        ("/v1/embeddings", r#"{"model":"vec","#, 400, "invalid_json"),
    ] {
        let exchange = door.post(path, body);
        let seen = &door.seen[&exchange];
        let told = seen.json();
        assert_eq!(
            (seen.status, &told["error"]["code"]),
            (status, &code.into()),
            "{body}: {told}"
        );
        assert!(door.others.is_empty() && door.is_at_rest());
    }
}

#[test]
fn whatever_a_backend_answers_the_client_gets_one_answer() {
    let own = r#"{"error":{"message":"too long","type":"x"}}"#;
    let json = "application/json";
    for (said, status, told) in [
        (
            r#"{"data":[{"embedding":[0.5,-0.25]}]}"#,
            200,
            r#"{"data":[{"embedding":"AAAAPwAAgL4="}]}"#,
        ),
        (
            r#"{"data":[{"x":1,"embedding":"AAAA"}],"y":2}"#,
            200,
            r#"{"data":[{"x":1,"embedding":"AAAA"}],"y":2}"#,
        ),
        (r#"{"data":[]}"#, 200, r#"{"data":[]}"#),
        ("[1]", 502, "not one of embeddings"),
        ("", 502, "not one of embeddings"),
        ("{}", 502, "not one of embeddings"),
        (r#"{"data":1}"#, 502, "not one of embeddings"),
        (r#"{"data":[1]}"#, 502, "not one of embeddings"),
        (r#"{"data":[{}]}"#, 502, "not one of embeddings"),
        (
            r#"{"data":[{"embedding":[1e39]}]}"#,
            502,
            "not one of embeddings",
        ),
        (
            r#"{"data":[{"embedding":["1"]}]}"#,
            502,
            "not one of embeddings",
        ),
        (
            r#"{"data":[{"embedding":{}}]}"#,
            502,
            "not one of embeddings",
        ),
        (r#"{"data":[],"data":[]}"#, 502, "not one of embeddings"),
        ("<html>", 502, "not one of embeddings"),
    ] {
        let mut door = door();
        let seen = door.container_says(VECTORS, "text/html", said);
        assert!(
            seen.ended && seen.text().contains(told),
            "{said}: {}",
            seen.text()
        );
        assert_eq!(seen.status, status, "{said}");
        assert_eq!(seen.headers.get("content-type"), Some(json), "{said}");
        assert!(door.is_at_rest());
    }
    let many = format!(r#"{{"data":[{}1]}}"#, "1,".repeat(9_000));
    assert_eq!(door().container_says(VECTORS, json, &many).status, 502);
    for (status, said, is, told) in [
        (200, "[1]", 502, "not one of chat"),
        (200, "", 502, "not one of chat"),
        (204, "", 502, "not one of chat"),
        (101, "", 502, "failed with status 101"),
        (302, own, 502, "failed with status 302"),
        (400, own, 400, own),
        (429, own, 429, own),
        (503, own, 503, own),
        (429, "slow down", 503, "busy"),
        (422, r#"{"detail":"no such voice"}"#, 400, "no such voice"),
        (422, r#"{"error":"words"}"#, 400, "runner_refused"),
        (500, "10.0.0.2 refused", 502, "failed with status 500"),
    ] {
        let mut door = door();
        let chat = r#"{"model":"talk","messages":[]}"#;
        let seen = door.app_says("/v1/chat/completions", chat, &answer(status, json), &[said]);
        assert!(
            seen.ended && seen.text().contains(told),
            "{said}: {}",
            seen.text()
        );
        assert!(!seen.text().contains("10.0.0.2"), "that is the app's own");
        assert_eq!(seen.status, is, "{said}");
        assert_eq!(seen.headers.get("set-cookie"), None);
        assert!(door.is_at_rest());
    }
}

#[test]
fn an_answer_is_held_as_far_as_there_is_room() {
    let mut config = Config::default();
    config.settings.backends = backends();
    config.max_held = 8 << 20;
    let mut door = Door::with(config);
    let exchange = door.post("/v1/chat/completions", r#"{"model":"talk"}"#);
    let (id, ..) = asked(&mut door);
    let head = answer(200, "application/json");
    door.tell(|front, now| front.app_head(now, id, &head, "acme/llm", None));
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    for _ in 0..9 {
        door.tell(|front, now| front.relay(now, id, piece.clone()));
    }
    assert_eq!(door.seen[&exchange].status, 503);
    assert_eq!(door.gone, [id], "the app is told no more");
    assert!(door.is_at_rest());

    // Of an error only the beginning counts.
    let said = "x".repeat(1 << 20);
    let seen = door.app_says(
        "/v1/chat/completions",
        r#"{"model":"talk"}"#,
        &answer(400, ""),
        &[&said],
    );
    assert!(seen.status == 400 && seen.body.len() < 1_000);

    let head = answer(200, "application/json");
    let mut door = self::door();
    let exchange = door.post("/v1/chat/completions", r#"{"model":"talk"}"#);
    let (id, ..) = asked(&mut door);
    door.tell(|front, now| front.app_head(now, id, &head, "acme/llm", None));
    for _ in 0..65 {
        door.tell(|front, now| front.relay(now, id, piece.clone()));
    }
    let seen = &door.seen[&exchange];
    assert_eq!((seen.status, door.gone.len()), (502, 1));
    assert!(seen.message().contains("larger than"), "{}", seen.message());
    assert!(door.is_at_rest());
}

#[test]
fn events_are_passed_on_line_by_line_and_end_with_done() {
    let events = "text/event-stream; charset=utf-8";
    for (said, told) in [
        (
            &["data: 1\n\ndata: [DONE]\n\n"][..],
            "data: 1\n\ndata: [DONE]\n\n",
        ),
        (
            &["da", "ta: 1\n", "\ndata: [DO", "NE]\n"],
            "data: 1\n\ndata: [DONE]\n\n",
        ),
        (
            &["data: 1\n\n", "data:[DONE]\n\ndata: more\n\n"],
            "data: 1\n\ndata:[DONE]\n\n",
        ),
        (
            &["event: x\ndata: 1\n\n"],
            "event: x\ndata: 1\n\ndata: [DONE]\n\n",
        ),
        (&["data: 1"], "data: 1\n\ndata: [DONE]\n\n"),
        (
            &[": words\n\n\n\n\ndata: 1\n\n"],
            ": words\n\ndata: 1\n\ndata: [DONE]\n\n",
        ),
        (&[], "data: [DONE]\n\n"),
    ] {
        let mut door = door();
        let seen = door.app_says("/v1/chat/completions", STREAM, &answer(200, events), said);
        assert_eq!((seen.status, seen.text(), seen.ended), (200, told, true));
        let kind = seen.headers.get("content-type");
        assert_eq!(kind, Some("text/event-stream"));
        assert_eq!(seen.headers.get("livepeer-cost-wei"), Some("7"), "a call");
        assert!(door.is_at_rest());
    }
    // Blank lines without end are an end, and their program is told no more.
    let mut flooded = door();
    let flood = "\n".repeat(100);
    let seen = flooded.app_says(
        "/v1/chat/completions",
        STREAM,
        &answer(200, events),
        &["data: 1\n", &flood, &flood],
    );
    assert_eq!(seen.text(), "data: 1\n\ndata: [DONE]\n\n");
    assert_eq!(flooded.gone.len(), 1);
    // What is no stream where one is wanted is no answer, and the other way round.
    for (path, sent, kind) in [
        ("/v1/chat/completions", STREAM, "application/json"),
        ("/v1/completions", r#"{"model":"talk"}"#, events),
    ] {
        let mut door = door();
        let seen = door.app_says(path, sent, &answer(200, kind), &["{}\n\n", "data: {}\n\n"]);
        assert_eq!(seen.status, 502, "{}", seen.text());
        assert_eq!(
            door.gone.len(),
            usize::from(kind == events),
            "it may never end"
        );
    }
}

#[test]
fn an_orchestrators_words_about_money_are_not_the_models() {
    let heads = Served {
        stream: true,
        ..served("text/event-stream", Vec::new())
    };
    let sent = r#"{"model":"vec","prompt":"x","stream":true}"#;
    for (said, told) in [
        (
            "data: 1\n\ndata: {\"balance\": 12.5}\n\ndata: [DONE]\n\n",
            "data: 1\n\ndata: [DONE]\n\n",
        ),
        (
            "data: {\"balance\":1,\"x\":2}\n\n",
            "data: {\"balance\":1,\"x\":2}\n\ndata: [DONE]\n\n",
        ),
        (
            "data: 1\n\nevent: insufficient balance\ndata: {\"balance\": 0}\n\ndata: [DONE]\n\n",
            "upstream_stream_broken",
        ),
    ] {
        let mut door = door();
        let exchange = door.post("/v1/images/generations", sent);
        let (id, ..) = asked(&mut door);
        door.tell(|front, now| front.order_head(now, id, &heads));
        door.tell(|front, now| front.relay(now, id, said.into()));
        let done = Done {
            served: heads.clone(),
            body: Bytes::new(),
        };
        door.tell(|front, now| front.order_done(now, id, done));
        let seen = &door.seen[&exchange];
        assert!(seen.ended && seen.text().contains(told), "{}", seen.text());
        assert!(
            !told.contains("[DONE]") || seen.text() == told,
            "{}",
            seen.text()
        );
        assert!(door.is_at_rest());
    }
}

#[test]
fn a_stream_that_breaks_tells_its_client_and_a_silent_one_is_cut() {
    let head = answer(200, "text/event-stream");
    let begun = |door: &mut Door| {
        let exchange = door.post("/v1/chat/completions", STREAM);
        let (id, ..) = asked(door);
        door.tell(|front, now| front.app_head(now, id, &head, "acme/llm", None));
        door.tell(|front, now| front.relay(now, id, "data: 1\n\n".into()));
        (exchange, id)
    };
    let is_told = |door: &Door, exchange| {
        let seen: &Seen = &door.seen[&exchange];
        assert!(seen.ended && !seen.aborted, "{}", seen.text());
        assert!(seen.text().contains("\"code\":\"upstream_stream_broken\""));
        assert!(!seen.text().contains("[DONE]") && door.is_at_rest());
    };
    let mut door = door();
    let (exchange, id) = begun(&mut door);
    door.tell(|front, now| front.relay_broke(now, id));
    is_told(&door, exchange);
    let (exchange, id) = begun(&mut door);
    let failed = app::Failed::Broken {
        runner: url(),
        cause: Cause::Gone("the rest"),
    };
    door.tell(|front, now| front.app_failed(now, id, &failed));
    is_told(&door, exchange);
    // Whatever follows a beginning, it is no second answer.
    let (exchange, id) = begun(&mut door);
    let failed = app::Failed::Undecided {
        runner: url(),
        cause: Cause::Gone("the answer"),
    };
    door.tell(|front, now| front.app_failed(now, id, &failed));
    is_told(&door, exchange);
    for failed in [
        Failed::Closed,
        Failed::Caller {
            status: 400,
            text: "no".into(),
        },
    ] {
        let (exchange, id) = begun(&mut door);
        door.tell(|front, now| front.order_failed(now, id, &failed));
        is_told(&door, exchange);
    }
    let (exchange, id) = begun(&mut door);
    let done = Done {
        served: served("application/json", Vec::new()),
        body: "{}".into(),
    };
    door.tell(|front, now| front.order_done(now, id, done));
    is_told(&door, exchange);
    let (exchange, id) = begun(&mut door);
    let long = Bytes::from(vec![b'x'; 600 << 10]);
    door.tell(|front, now| front.relay(now, id, long.clone()));
    door.tell(|front, now| front.relay(now, id, long.clone()));
    is_told(&door, exchange);
    assert_eq!(door.gone, [id]);
    let (exchange, id) = begun(&mut door);
    door.pass(Duration::from_secs(129));
    assert!(!door.seen[&exchange].ended);
    door.pass(Duration::from_secs(2));
    is_told(&door, exchange);
    assert_eq!(door.gone.last(), Some(&id));
    // A head that never comes, and an answer that never ends.
    let exchange = door.post("/v1/chat/completions", r#"{"model":"talk"}"#);
    let (id, ..) = asked(&mut door);
    let head = answer(200, "application/json");
    door.tell(|front, now| front.app_head(now, id, &head, "acme/llm", None));
    for _ in 0..40 {
        door.tell(|front, now| front.relay(now, id, " ".into()));
        door.pass(Duration::from_secs(10));
    }
    assert_eq!(door.seen[&exchange].status, 504);
    assert_eq!(door.gone.last(), Some(&id));
    assert!(door.is_at_rest());
}

#[test]
fn a_slow_client_holds_its_backend_back() {
    let mut door = door();
    let exchange = door.post("/v1/chat/completions", STREAM);
    let (id, ..) = asked(&mut door);
    let head = answer(200, "text/event-stream");
    door.tell(|front, now| front.app_head(now, id, &head, "acme/llm", None));
    let line = format!("data: {}\n\n", "x".repeat(MAX_UNSENT));
    door.tell(|front, now| front.relay(now, id, line.into()));
    assert_eq!(door.pressure, [(id, true)]);
    let unsent = door.seen[&exchange].unsent;
    door.http(exchange, In::Sent(unsent));
    assert_eq!(door.pressure, [(id, true), (id, false)]);
}

#[test]
fn sound_is_passed_on_as_it_comes() {
    let mut door = door();
    let head = answer(200, "audio/mpeg");
    let seen = door.app_says("/v1/audio/speech", SPEECH, &head, &["a", "b"]);
    assert_eq!((seen.status, seen.text()), (200, "ab"));
    assert_eq!(seen.headers.get("content-type"), Some("audio/mpeg"));
    assert_eq!(seen.headers.get("x-content-type-options"), Some("nosniff"));
    // One that breaks is cut, for nothing can be said in it.
    let exchange = door.post("/v1/audio/speech", SPEECH);
    let (id, ..) = asked(&mut door);
    door.tell(|front, now| front.app_head(now, id, &head, "acme/llm", None));
    door.tell(|front, now| front.relay_broke(now, id));
    assert!(door.seen[&exchange].aborted);
}

#[test]
fn who_served_and_for_how_much_is_told() {
    let mut door = door();
    let exchange = door.post("/v1/embeddings", VECTORS);
    let (id, ..) = asked(&mut door);
    door.pass(Duration::from_millis(1_201));
    let attempts = vec![Attempt {
        url: Url::parse("https://busy.example").expect("a URL"),
        left: Left::Full,
    }];
    let done = Done {
        served: served("application/json", attempts),
        body: r#"{"data":[]}"#.into(),
    };
    door.tell(|front, now| front.order_done(now, id, done));
    for (name, value) in [
        ("livepeer-orchestrator", "https://o.example:8935"),
        ("livepeer-pipeline", "byoc"),
        ("livepeer-model", "vec"),
        ("livepeer-unit", "second"),
        ("livepeer-units", "2"),
        ("livepeer-price", "3"),
        ("livepeer-cost-wei", "6"),
        ("livepeer-attempts", "2"),
        (
            "livepeer-attempt-log",
            "https://busy.example:443=it has no such container, or no room in it, https://o.example:8935=ok",
        ),
        ("livepeer-overhead-ms", "1.000"),
    ] {
        assert_eq!(
            door.seen[&exchange].headers.get(name),
            Some(value),
            "{name}"
        );
    }
    let text = door
        .front
        .to_prometheus(&livepeer_core::figures::Jobs::of("live"));
    let line = "livepeer_byoc_requests_total{capability=\"box\",code=\"200\"} 1";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_failure_is_told_in_the_shape_of_the_route() {
    let at = |left| {
        vec![Attempt {
            url: url(),
            left: Left::Refused(left),
        }]
    };
    let all = |reached, left| Failed::Exhausted {
        reached,
        attempts: at(left),
    };
    let none = Vec::new;
    for (failed, status, code) in [
        (
            Failed::NoOrchestrator { attempts: none() },
            503,
            "no_orchestrator",
        ),
        (
            Failed::Exhausted {
                reached: false,
                attempts: none(),
            },
            503,
            "no_orchestrator",
        ),
        (all(true, Grounds::Busy), 503, "no_orchestrator"),
        (all(true, Grounds::Status(500)), 502, "upstream_invalid"),
        (
            Failed::Undecided { attempts: none() },
            500,
            "outcome_unknown",
        ),
        (Failed::Closed, 503, "draining"),
        (
            Failed::Caller {
                status: 400,
                text: "bad words\n".into(),
            },
            400,
            "runner_refused",
        ),
        (
            Failed::Broken {
                url: url(),
                cause: Cause::Gone("the rest"),
            },
            502,
            "upstream_invalid",
        ),
    ] {
        let mut door = door();
        let exchange = door.post("/v1/embeddings", VECTORS);
        let (id, ..) = asked(&mut door);
        door.tell(|front, now| front.order_failed(now, id, &failed));
        let seen = &door.seen[&exchange];
        let told = seen.json();
        assert_eq!(
            (seen.status, &told["error"]["code"]),
            (status, &code.into()),
            "{told}"
        );
        assert!(door.is_at_rest());
    }
    let own = Failed::Caller {
        status: 413,
        text: "{\"error\":{\"message\":\"too long\"}}\n\n".into(),
    };
    let mut door = door();
    let exchange = door.post("/v1/embeddings", VECTORS);
    let (id, ..) = asked(&mut door);
    door.tell(|front, now| front.order_failed(now, id, &own));
    assert_eq!(
        (
            door.seen[&exchange].status,
            &*door.seen[&exchange].message()
        ),
        (413, "too long")
    );
    for (failed, status) in [
        (
            app::Failed::NoRunner {
                attempts: Vec::new(),
            },
            503,
        ),
        (
            app::Failed::Exhausted {
                attempts: Vec::new(),
            },
            503,
        ),
        (
            app::Failed::Undecided {
                runner: url(),
                cause: Cause::Gone("it"),
            },
            500,
        ),
    ] {
        let exchange = door.post("/v1/chat/completions", STREAM);
        let (id, ..) = asked(&mut door);
        door.tell(|front, now| front.app_failed(now, id, &failed));
        assert_eq!(door.seen[&exchange].status, status);
        assert!(door.seen[&exchange].json()["error"]["message"].is_string());
    }
}
