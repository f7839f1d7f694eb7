//! Routes beside the ones of the vectors: probes, pages, files, videos in the background, web pages, and the heads of
//! requests that make no sense.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::currency::wei_per_usd;
use livepeer_core::error::{Cause, Failure, Party};
use livepeer_core::front::route::{Page, ROUTES, Row};
use livepeer_core::front::{
    Admission, Config, Event, FIRST_SEARCH, LiveRoutes, Network, Origins, Transparency,
};
use livepeer_core::http::Method;
use livepeer_core::http::Url;
use livepeer_core::job::batch::{Attempt, Failed, File, Finished, Left};
use livepeer_core::wire::batch::{Answer, Image};
use livepeer_sim::Driven;
use serde_json::json;

use super::{CHAT, Door, request, served};
use crate::openai::models;

fn pictures(count: usize) -> (Answer, Vec<File>) {
    let url = |n: usize| format!("https://orch-a.example:8935/stream/aa11bb22/{n}.png");
    let image = |n| Image {
        nsfw: false,
        seed: 7,
        url: url(n),
    };
    let file = |n| File {
        url: url(n),
        // A combined node gives all results one name.
        name: "out.png".into(),
        content: format!("picture {n}").into(),
    };
    let answer = Answer::Images((0..count).map(image).collect());
    (answer, (0..count).map(file).collect())
}

#[test]
fn no_result_is_lost_however_many_an_answer_has_and_each_can_be_fetched_for_an_hour() {
    let mut door = Door::new();
    let asked = door.post(
        "/text-to-image",
        r#"{"prompt":"x","num_images_per_prompt":20}"#,
    );
    let (id, work) = door.want();
    let (answer, files) = pictures(20);
    let finished = Finished {
        answer: Some(answer),
        files,
        served: served(&work, Vec::new()),
    };
    door.tell(|front, now| front.done(now, id, finished));
    let images = door.seen[&asked].json()["images"].clone();
    let urls: Vec<&str> = images
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["url"].as_str().unwrap())
        .collect();
    assert_eq!(urls.len(), 20);
    for (n, url) in urls.iter().enumerate() {
        let file = door.get(url);
        let seen = &door.seen[&file];
        assert_eq!(seen.text(), format!("picture {n}"));
        assert_eq!(seen.headers.get("content-type"), Some("image/png"));
        assert_eq!(seen.headers.get("x-content-type-options"), Some("nosniff"));
    }
    door.pass(Duration::from_secs(3_600));
    let gone = door.get(urls[0]);
    assert_eq!(
        (door.seen[&gone].status, door.seen[&gone].text()),
        (404, "not found\n")
    );
    assert_eq!(door.front.kept(), 0);
}

#[test]
fn a_folder_keeps_what_memory_lets_go_of() {
    let mut door = Door::with(Config {
        folder: true,
        max_kept: 10,
        ..Config::default()
    });
    door.post(
        "/text-to-image",
        r#"{"prompt":"x","num_images_per_prompt":2}"#,
    );
    let (id, work) = door.want();
    let (answer, files) = pictures(2);
    let finished = Finished {
        answer: Some(answer),
        files,
        served: served(&work, Vec::new()),
    };
    door.tell(|front, now| front.done(now, id, finished));
    let kept: Vec<_> = door.others.drain(..).collect();
    let [Event::Keep(first), Event::Keep(second)] = &kept[..] else {
        panic!("{kept:?}")
    };
    assert_eq!(
        (&*second.content, second.content_type),
        (&b"picture 1"[..], "image/png")
    );
    let fetched = door.get(&first.path);
    let Some(Event::Fetch(id, path)) = door.others.pop() else {
        panic!("it is not in memory")
    };
    assert_eq!(path, first.path);
    let content = first.content.clone();
    door.tell(|front, now| front.object(now, id, Some(content)));
    assert_eq!(door.seen[&fetched].text(), "picture 0");
    assert_eq!(
        door.seen[&fetched].headers.get("content-type"),
        Some("image/png")
    );

    let missing = door.get("/stream/00000000/0.png");
    let Some(Event::Fetch(id, _)) = door.others.pop() else {
        panic!("only the folder knows")
    };
    door.tell(|front, now| front.object(now, id, None));
    assert_eq!(door.seen[&missing].status, 404);
    let silent = door.get("/stream/00000000/0.png");
    door.pass(Duration::from_secs(10));
    assert_eq!(door.seen[&silent].status, 500, "our own side fails too");
}

#[test]
fn a_result_too_large_to_keep_is_an_error_and_no_broken_address() {
    let mut door = Door::with(Config {
        max_kept: 10,
        ..Config::default()
    });
    let asked = door.post("/v1/images/generations", r#"{"prompt":"x"}"#);
    let (id, work) = door.want();
    let (answer, files) = pictures(2);
    let finished = Finished {
        answer: Some(answer),
        files,
        served: served(&work, Vec::new()),
    };
    door.tell(|front, now| front.done(now, id, finished));
    assert_eq!(door.seen[&asked].status, 502);
    assert_eq!(
        door.seen[&asked].json()["error"]["code"],
        "result_unavailable"
    );
    assert_eq!(door.front.kept(), 0);
}

/// A form with a picture, for the video pipeline.
fn video(door: &mut Door, prefer: Option<&str>) -> livepeer_core::EffectId {
    let mut head = request(Method::Post, "/image-to-video");
    head.headers
        .push("content-type", "multipart/form-data; boundary=B");
    if let Some(prefer) = prefer {
        head.headers.push("prefer", prefer);
    }
    door.send(head, "--B\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\nx\r\n--B--\r\n")
}

#[test]
fn a_video_in_the_background_is_accepted_made_and_fetched() {
    let mut door = Door::new();
    for prefer in ["respond-async", "respond-async, wait=5"] {
        let accepted = video(&mut door, Some(prefer));
        let (id, mut work) = door.want();
        let seen = &door.seen[&accepted];
        assert_eq!(seen.status, 202);
        let name = seen.json()["request_id"].as_str().unwrap().to_owned();
        assert_eq!(name.len(), 8);
        // Its client may go: the video is made all the same.
        door.leave(accepted);
        assert!(door.gone.is_empty());
        assert_eq!(door.front.states().get(&Admission::Detached), Some(&1));
        let body = json!({ "request_id": name }).to_string();
        let pending = door.post("/image-to-video/result", &body);
        assert_eq!(
            (door.seen[&pending].status, door.seen[&pending].text()),
            (202, r#"{"status":"processing"}"#)
        );
        let media = livepeer_core::wire::batch::Media::Image {
            width: 64,
            height: 64,
        };
        work.request.measured(media).expect("measures");
        let (answer, files) = pictures(1);
        let finished = Finished {
            answer: Some(answer),
            files,
            served: served(&work, Vec::new()),
        };
        door.tell(|front, now| front.done(now, id, finished));
        let done = door.post("/image-to-video/result", &body);
        assert_eq!(door.seen[&done].status, 200);
        let result = door.seen[&done].json();
        assert_eq!(result["status"], "complete");
        let url = format!("/stream/{name}/out.png");
        assert_eq!(result["result"]["images"][0]["url"], *url);
        let file = door.get(&url);
        assert_eq!(door.seen[&file].text(), "picture 0");
        door.pass(Duration::from_secs(3_600));
        let over = door.post("/image-to-video/result", &body);
        assert_eq!(
            (door.seen[&over].status, door.seen[&over].message()),
            (400, "invalid request ID".into())
        );
    }
    video(&mut door, None);
    let (_, work) = door.want();
    assert!(work.request.file().is_some());
    assert_eq!(
        door.front.in_flight(),
        1,
        "without the wish it is waited for"
    );
}

#[test]
fn a_video_that_nobody_makes_is_a_failed_result() {
    let mut door = Door::new();
    let accepted = video(&mut door, Some("respond-async"));
    let (id, _) = door.want();
    let body = door.seen[&accepted].text().to_owned();
    door.tell(|front, now| front.failed(now, id, Failed::UnknownModel));
    let failed = door.post("/image-to-video/result", &body);
    let expected =
        r#"{"result":{"error":{"message":"Service Unavailable Error"}},"status":"complete"}"#;
    assert_eq!(
        (door.seen[&failed].status, door.seen[&failed].text()),
        (200, expected)
    );
    for body in ["{}", "", "null", "x"] {
        let unknown = door.post("/image-to-video/result", body);
        assert_eq!(door.seen[&unknown].status, 400, "{body}");
    }
}

#[test]
fn livepeers_own_routes_say_503_and_openais_name_what_is_near() {
    let mut door = Door::new();
    let body = r#"{"model":"nobody/has","stream":false,"max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
    let native = door.post("/llm", body);
    let (id, _) = door.want();
    door.tell(|front, now| front.failed(now, id, Failed::UnknownModel));
    let seen = &door.seen[&native];
    assert_eq!(
        (seen.status, seen.message()),
        (503, "Service Unavailable Error".into())
    );
    assert_eq!(seen.json()["detail"]["msg"], "Service Unavailable Error");

    let near = r#"{"model":"meta-llama/Meta-Llama-3.1-8B-instruct","messages":[{"role":"user","content":"hi"}]}"#;
    let open_ai = door.post("/v1/chat/completions", near);
    let seen = &door.seen[&open_ai];
    assert_eq!(seen.status, 404);
    let named = &seen.json()["error"]["metadata"]["near"][0];
    assert_eq!(named["id"], "meta-llama/Meta-Llama-3.1-8B-Instruct");
    assert_eq!(named["pipelines"], json!(["llm"]));
}

#[test]
fn failures_of_jobs_have_their_status_on_each_kind_of_route() {
    let tried = |reason| {
        let url = Url::parse("https://orch-a.example:8935").unwrap();
        vec![Attempt { url, reason }]
    };
    let nobody = |reason| Failed::NoOrchestrator {
        attempts: tried(reason),
        tried: Vec::new(),
        again: None,
    };
    let lost = Failed::ResultLost {
        attempts: tried(Left::InvalidAnswer),
        failure: Box::new(Failure::new(Party::KeyHolder, Cause::Gone("the result"))),
    };
    for (failed, native, status, code, again) in [
        (nobody(Left::Busy), 503, 503, "no_orchestrator", None),
        (
            nobody(Left::InvalidAnswer),
            503,
            502,
            "upstream_invalid",
            Some("false"),
        ),
        (lost, 500, 502, "result_unavailable", Some("false")),
        (
            Failed::TimedOut {
                attempts: Vec::new(),
            },
            503,
            504,
            "upstream_timeout",
            None,
        ),
        (Failed::Closed, 503, 503, "draining", Some("true")),
    ] {
        let mut door = Door::new();
        let asked = door.post("/v1/images/generations", r#"{"prompt":"x"}"#);
        let (id, _) = door.want();
        door.tell(|front, now| front.failed(now, id, failed.clone()));
        let seen = &door.seen[&asked];
        assert_eq!(
            (seen.status, &seen.json()["error"]["code"]),
            (status, &json!(code))
        );
        assert_eq!(seen.headers.get("x-should-retry"), again, "{code}");
        let asked = door.post("/text-to-image", r#"{"prompt":"x"}"#);
        let (id, _) = door.want();
        door.tell(|front, now| front.failed(now, id, failed));
        let seen = &door.seen[&asked];
        assert_eq!(seen.status, native, "{code}: {}", seen.text());
        assert_eq!(
            seen.json()["detail"]["msg"],
            seen.json()["error"]["message"]
        );
    }
}

#[test]
fn who_was_tried_is_told_in_header_fields_as_far_as_the_operator_likes() {
    for (transparency, all, some) in [
        (Transparency::Full, true, true),
        (Transparency::Cost, false, true),
        (Transparency::None, false, false),
    ] {
        let mut config = Config {
            transparency,
            server_timing: true,
            ..Config::default()
        };
        config.settings.terms.wei_per_usd = wei_per_usd("2000");
        let mut door = Door::with(config);
        let asked = door.post("/text-to-image", r#"{"prompt":"x","width":64,"height":64}"#);
        let (id, work) = door.want();
        let url = Url::parse("https://orch-b.example:8935").unwrap();
        let reason = Left::Busy;
        let mut served = served(&work, vec![Attempt { url, reason }]);
        served.upstream = Duration::from_millis(1_500);
        door.leap(Duration::from_micros(1_500_750));
        let (answer, files) = pictures(1);
        let finished = Finished {
            answer: Some(answer),
            files,
            served,
        };
        door.tell(|front, now| front.done(now, id, finished));
        let headers = &door.seen[&asked].headers;
        let value = |name: &str| headers.get(name);
        let log = "https://orch-b.example:8935=busy, https://orch-a.example:8935=ok";
        assert_eq!(value("livepeer-attempts"), all.then_some("2"));
        assert_eq!(value("livepeer-attempt-log"), all.then_some(log));
        assert_eq!(value("livepeer-overhead-ms"), all.then_some("0.750"));
        assert_eq!(value("livepeer-pipeline"), all.then_some("text-to-image"));
        assert_eq!(value("livepeer-units"), some.then_some("4096"));
        assert_eq!(value("livepeer-price"), some.then_some("100"));
        assert_eq!(value("livepeer-cost-wei"), some.then_some("409600"));
        assert_eq!(value("livepeer-cost-usd"), some.then_some("0.000000001"));
        assert_eq!(value("server-timing").is_some(), some);
    }
}

#[test]
fn web_pages_may_call_if_the_operator_lets_them() {
    let mut door = Door::with(Config {
        cors: Origins::These(vec!["https://app.example".into()]),
        ..Config::default()
    });
    let from = |method, origin: &str| {
        let mut head = request(method, "/v1/chat/completions");
        head.headers.push("origin", origin);
        head.headers.push(
            "access-control-request-headers",
            "authorization, x-stainless-os",
        );
        head
    };
    let asked = door.send(from(Method::Options, "https://app.example"), "");
    let seen = &door.seen[&asked];
    assert_eq!(seen.status, 204);
    let headers = &seen.headers;
    assert_eq!(
        headers.get("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(
        headers.get("access-control-allow-headers"),
        Some("authorization, x-stainless-os")
    );
    assert_eq!(headers.get("vary"), Some("origin"));
    let other = door.send(from(Method::Options, "https://evil.example"), "");
    assert_eq!(door.seen[&other].status, 405);
    assert_eq!(
        door.seen[&other].headers.get("access-control-allow-origin"),
        None
    );
    let refused = door.send(from(Method::Post, "https://app.example"), "{}");
    let headers = &door.seen[&refused].headers;
    assert_eq!(
        headers.get("access-control-allow-origin"),
        Some("https://app.example"),
        "errors too"
    );
    assert_eq!(headers.get("access-control-expose-headers"), Some("*"));
}

#[test]
fn no_work_is_done_for_pages_that_nobody_let_in() {
    let from = |path: &str, origin: &str| {
        let mut head = request(Method::Post, path);
        head.headers.push("origin", origin);
        head
    };
    let mut door = Door::with(Config {
        live: LiveRoutes::All,
        containers: true,
        apps: vec!["echo".into()],
        ..Config::default()
    });
    // A proxy in front of us may end TLS.
    let own = "https://gw.example";
    for path in [
        "/v1/chat/completions",
        "/text-to-image",
        "/process/request/echo",
        "/apps/echo",
        "/live/video-to-video/cam1/start",
    ] {
        for page in ["https://evil.example", "null"] {
            let refused = door.send(from(path, page), "");
            let seen = &door.seen[&refused];
            assert_eq!(seen.status, 403, "{path} for {page}");
            assert!(seen.text().contains("serve.cors"), "{path}");
        }
        let page = door.send(from(path, own), "");
        let seen = door.seen.get(&page);
        assert!(seen.is_none_or(|seen| seen.status != 403), "{path}");
    }
    // Nothing is done, and no page may read it.
    let looks = door.send(from("/health", "https://evil.example"), "");
    assert_ne!(door.seen[&looks].status, 403);
    // Behind a proxy the gateway has the address that its operator gives.
    let mut door = Door::with(Config {
        public_url: Some("https://gateway.example/".into()),
        ..Config::default()
    });
    let page = door.send(from("/llm", "https://gateway.example"), "");
    assert_ne!(door.seen[&page].status, 403);
}

#[test]
fn heads_that_make_no_sense_are_answered_before_the_body() {
    let mut door = Door::new();
    let with =
        |name, value: &str| request(Method::Post, "/v1/chat/completions").header(name, value);
    for (head, status, words) in [
        (with("expect", "200-ok"), 417, "100-continue"),
        (with("content-encoding", "br"), 415, "'br'"),
        (
            with("content-encoding", "gzip"),
            415,
            "'gzip'; send the body without one.",
        ),
        (
            with("content-type", "Multipart/Form-Data; boundary=x"),
            400,
            "multipart/form-data",
        ),
        (
            request(Method::Get, "/v1/models/%zz"),
            400,
            "malformed path",
        ),
        (request(Method::Get, "/nothing"), 404, "GET /nothing"),
    ] {
        let asked = door.open(head);
        let seen = &door.seen[&asked];
        assert_eq!(seen.status, status, "{}", seen.text());
        assert!(seen.text().contains(words), "{}", seen.text());
    }
    let fine = door.open(with("expect", "100-Continue"));
    assert!(!door.seen.contains_key(&fine));
    assert_eq!(door.front.in_flight(), 1);
}

#[test]
fn a_caller_finds_its_own_name_for_a_request_and_ours() {
    let mut door = Door::new();
    for (name, echoed) in [("abc-1.2_3", true), ("a b", false), ("", false)] {
        let asked = door.open(request(Method::Get, "/healthz").header("x-client-request-id", name));
        let headers = &door.seen[&asked].headers;
        assert_eq!(headers.get("x-client-request-id"), echoed.then_some(name));
        assert!(headers.get("x-request-id").unwrap().starts_with("req_"));
    }
}

#[test]
fn pages_come_from_the_shell_and_only_those_that_it_has() {
    let mut door = Door::with(Config {
        pages: vec![Page::Metrics],
        ..Config::default()
    });
    let openapi = door.get("/openapi.json");
    assert_eq!(door.seen[&openapi].status, 404);
    let metrics = door.get("/metrics");
    let Some(Event::Page(id, Page::Metrics)) = door.others.pop() else {
        panic!("the shell writes it")
    };
    let text = Bytes::from_static(b"up 1\n");
    door.tell(|front, now| front.page(now, id, 200, "text/plain", text.clone()));
    assert_eq!(
        (door.seen[&metrics].status, door.seen[&metrics].text()),
        (200, "up 1\n")
    );
    door.tell(|front, now| front.page(now, id, 200, "text/plain", text));
    let head = door.open(request(Method::Head, "/healthz"));
    assert_eq!(
        (door.seen[&head].status, door.seen[&head].body.len()),
        (200, 0)
    );
}

#[test]
fn models_have_a_version_and_are_unknown_before_the_first_search() {
    let mut door = Door::new();
    let first = door.get("/v1/models");
    let version = door.seen[&first].headers.get("etag").unwrap().to_owned();
    let again = door.open(request(Method::Get, "/v1/models").header("if-none-match", version));
    assert_eq!(
        (door.seen[&again].status, door.seen[&again].body.len()),
        (304, 0)
    );
    door.tell(|front, now| front.set_models(now, livepeer_core::models::Models::new()));
    let unknown = door.get("/v1/models");
    assert_eq!(door.seen[&unknown].status, 503);
    // Who names a model meanwhile waits a little, for what the first search finds.
    let early = door.post("/v1/chat/completions", CHAT);
    let other = CHAT.replace("\"model\":\"", "\"model\":\"no/");
    let other = door.post("/v1/chat/completions", &other);
    door.pass(FIRST_SEARCH / 2);
    assert!(!door.seen.contains_key(&early) && door.wanted.is_empty());
    door.tell(|front, now| front.set_models(now, models()));
    door.want();
    assert_eq!(door.seen[&other].status, 404, "nobody has it");
    door.tell(|front, now| front.set_models(now, livepeer_core::models::Models::new()));
    let late = door.post("/v1/chat/completions", CHAT);
    door.pass(FIRST_SEARCH);
    assert_eq!(door.seen[&late].status, 503);
    assert!(door.wanted.is_empty());
}

#[test]
fn addresses_in_answers_are_where_the_caller_reached_us() {
    let proxies = vec![Network::new("10.0.0.0".parse().unwrap(), 8).unwrap()];
    for (peer, host, forwarded, url) in [
        (
            "192.0.2.1",
            "gw.example:9935",
            None,
            "http://gw.example:9935/",
        ),
        ("192.0.2.1", "gw", Some("evil"), "http://gw/"),
        (
            "10.1.2.3",
            "gw",
            Some("public.example"),
            "https://public.example/",
        ),
    ] {
        let mut door = Door::with(Config {
            trusted_proxies: proxies.clone(),
            ..Config::default()
        });
        let mut head = request(Method::Post, "/v1/images/generations");
        head.peer = peer.parse().ok();
        head.host = Some(host.into());
        if let Some(forwarded) = forwarded {
            head.headers.push("x-forwarded-host", forwarded);
            head.headers.push("x-forwarded-proto", "https");
        }
        let asked = door.send(head, r#"{"prompt":"x"}"#);
        let (id, work) = door.want();
        let (answer, files) = pictures(1);
        let finished = Finished {
            answer: Some(answer),
            files,
            served: served(&work, Vec::new()),
        };
        door.tell(|front, now| front.done(now, id, finished));
        let answer = door.seen[&asked].json();
        let told = answer["data"][0]["url"].as_str().unwrap();
        assert!(told.starts_with(url), "{told}");
        assert!(told.ends_with("/0.png"));
    }
}

#[test]
fn every_row_that_is_served_says_which_methods_it_has() {
    let mut door = Door::with(Config {
        live: LiveRoutes::All,
        ..Config::default()
    });
    // Sessions of WebRTC have methods of their own.
    let served = |row: &&Row| row.route.is_some() && !row.methods.is_empty();
    for row in ROUTES.iter().filter(served) {
        let path = row
            .path
            .replace("{hex}", "0a1b2c3d")
            .replace("{secret}", &"a".repeat(32))
            .replace(['{', '}', '…'], "");
        if row.path.contains("health")
            || row.path.contains("metrics")
            || row.path.contains("openapi")
        {
            continue;
        }
        let asked = door.open(request(Method::Patch, &path));
        assert_eq!(door.seen[&asked].status, 405, "{path}");
        assert!(door.seen[&asked].headers.get("allow").is_some());
    }
}
