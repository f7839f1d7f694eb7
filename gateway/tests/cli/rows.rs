//! Every answer of the routes about live streams that needs no media, over real sockets (jobs spec 3.1 and 13).

use std::io::{BufReader, Write as _};
use std::net::TcpListener;
use std::thread;

use crate::http::{Request, Whole, fetch, listen};
use crate::ingest::{Entry, LIVE, SDP, SENDER, URLENCODED, VIEWER};
use crate::process::{freeze, signal};

/// A request, and its answer: method, path below the routes about live streams, type of the body, body, status, text.
type Row = (
    &'static str,
    &'static str,
    Option<(&'static str, &'static str)>,
    String,
    u16,
    Option<&'static str>,
);

fn rows() -> Vec<Row> {
    let form = Some(URLENCODED);
    let json = Some(("content-type", "application/json"));
    let hook = |more: &str| format!("source_id=a1&source_type=rtmpConn{more}");
    let text = |text: &str| text.to_owned();
    vec![
        (
            "POST",
            "cam1/start",
            form,
            text(""),
            400,
            Some("Missing source_id\n"),
        ),
        (
            "POST",
            "cam1/start",
            json,
            text("{\"source_id\":\"a\"}"),
            400,
            Some("Missing source_id\n"),
        ),
        (
            "POST",
            "cam1/start",
            form,
            text("source_id=a1"),
            400,
            Some("Missing source_type\n"),
        ),
        (
            "POST",
            "cam1/start",
            form,
            text("source_id=a1&source_type=zzz"),
            400,
            Some("unknown media source\n"),
        ),
        (
            "POST",
            "cam1/start",
            form,
            hook("&query=params%3D%25zz"),
            400,
            Some("invalid URL escape \"%zz\"\n"),
        ),
        (
            "POST",
            "cam1/start",
            form,
            hook("&query=params%3D%7Bx"),
            400,
            Some("Invalid model params\n"),
        ),
        (
            "POST",
            "cam1/start",
            form,
            hook("&query=params%3D%5B1%5D"),
            400,
            Some("Invalid model params\n"),
        ),
        // An output of ours, of which the media server tells as of any stream.
        ("POST", "cam1-out/start", form, hook(""), 200, Some("")),
        ("POST", "ai/cam1-out/start", form, hook(""), 200, Some("")),
        ("PUT", "cam1/start", form, hook(""), 405, None),
        ("GET", "cam1/start", None, text(""), 405, None),
        (
            "POST",
            "cam1/update",
            None,
            text("{}"),
            404,
            Some("Stream not found\n"),
        ),
        ("POST", "cam1/update", None, text("prompt=dog"), 400, None),
        ("POST", "cam1/update", None, text("[1]"), 400, None),
        (
            "POST",
            "cam1/update",
            None,
            " ".repeat((1 << 20) + 1),
            413,
            None,
        ),
        ("PUT", "cam1/update", None, text("{}"), 405, None),
        (
            "GET",
            "cam1/status",
            None,
            text(""),
            404,
            Some("Stream not found\n"),
        ),
        (
            "POST",
            "cam1/stop",
            None,
            text(""),
            404,
            Some("Stream not found\n"),
        ),
        ("POST", "cam1/whip", None, text("v=0\r\n"), 415, None),
        ("POST", "cam1/whip", Some(SDP), text("hello"), 400, None),
        (
            "POST",
            "cam1/whip?params=%7Bx",
            Some(SDP),
            text("hello"),
            400,
            Some("Invalid model params\n"),
        ),
        ("PUT", "cam1/whip", Some(SDP), text("hello"), 405, None),
        (
            "POST",
            "cam1/whep",
            Some(SDP),
            text("hello"),
            404,
            Some("Malformed stream ID\n"),
        ),
        (
            "POST",
            "cam1-out/whep",
            Some(SDP),
            text("hello"),
            404,
            Some("Stream not found\n"),
        ),
        (
            "POST",
            "my-cam-0a1b2c3d-out/whep",
            Some(SDP),
            text("hello"),
            404,
            Some("Stream not found\n"),
        ),
        // Addresses that are not for a caller on this machine to name.
        (
            "POST",
            "cam1/start",
            form,
            hook("&rtmp_url=rtmp://10.0.0.1/live/x"),
            400,
            Some(
                "rtmp_url: a peer may not lead to 10.0.0.1:1935: a private address is named only by who is there himself\n",
            ),
        ),
        (
            "POST",
            "cam1/start",
            form,
            hook("&query=rtmpOutput%3Drtmps://169.254.169.254/live/x"),
            400,
            Some(
                "rtmpOutput: a peer may not lead to 169.254.169.254:443: a link-local address is named only by who is there himself\n",
            ),
        ),
        (
            "POST",
            "cam1/whip?rtmpOutput=rtmp://[fd00::1]:7/live/x",
            Some(SDP),
            text(SENDER),
            400,
            Some(
                "rtmpOutput: a peer may not lead to [fd00::1]:7: a private address is named only by who is there himself\n",
            ),
        ),
        (
            "PUT",
            "smoketest",
            json,
            text("{\"stream_url\":\"rtmp://10.0.0.1/live/x\"}"),
            400,
            Some(
                "stream_url: a peer may not lead to 10.0.0.1:1935: a private address is named only by who is there himself\n",
            ),
        ),
        ("HEAD", "cam1/whip", None, text(""), 405, Some("")),
        ("HEAD", "cam1-out/whep", None, text(""), 404, Some("")),
        ("HEAD", "cam1/status", None, text(""), 404, Some("")),
        ("GET", "cam1/whip", None, text(""), 204, Some("")),
        ("PATCH", "cam1/whip", None, text(""), 405, None),
        ("PATCH", "cam1/whip/0a", None, text(""), 404, None),
        ("DELETE", "cam1/whip/0a", None, text(""), 404, None),
        (
            "OPTIONS",
            "my-cam-0a1b2c3d-out/whep",
            None,
            text(""),
            204,
            None,
        ),
        ("OPTIONS", "cam1/update", None, text(""), 204, None),
        ("OPTIONS", "cam1/status", None, text(""), 204, None),
        ("OPTIONS", "cam1/whip", None, text(""), 204, None),
    ]
}

#[test]
fn requests_that_make_no_sense_are_answered_as_the_reference_does_or_better() {
    let entry = Entry::start("[serve]\ncors = [\"https://app.example\"]\n");
    for (method, path, kind, body, status, text) in rows() {
        let from_page = ("origin", "https://app.example");
        let headers: Vec<_> = kind.into_iter().chain([from_page]).collect();
        let answer = entry.ask(method, path, &headers, &body);
        let shown = &body[..body.len().min(60)];
        assert_eq!(
            answer.status,
            status,
            "{method} {LIVE}/{path} {shown}: {}",
            answer.text()
        );
        assert!(
            text.is_none_or(|text| answer.text() == text),
            "{method} {LIVE}/{path} {shown}: {}",
            answer.text()
        );
        assert!(!answer.text().contains("m="), "no SDP in a refusal");
        // A page may read refusals, too.
        assert_eq!(
            answer.field("access-control-allow-origin"),
            Some("https://app.example"),
            "{method} {path}"
        );
    }
    let answer = entry.ask(
        "GET",
        "cam1/status",
        &[("origin", "https://other.example")],
        "",
    );
    assert_eq!(answer.field("access-control-allow-origin"), None);
}

/// A webhook that judges streams by their names.
fn judge() -> String {
    listen(|stream| {
        let mut reader = BufReader::new(&stream);
        while let Ok(request) = Request::read(&mut reader) {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let (status, answer) = match () {
                () if body.contains("\"no\"") => (403, "{}"),
                () if body.contains("\"bad\"") => (200, "[]"),
                () if body.contains("\"far\"") => {
                    (200, "{\"rtmp_output_url\":\"rtmp://10.0.0.1/live/x\"}")
                }
                () => (200, "{}"),
            };
            let length = answer.len();
            let answer =
                format!("HTTP/1.1 {status} Whatever\r\ncontent-length: {length}\r\n\r\n{answer}");
            if (&stream).write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// Where an answer says that its session is, below the routes about live streams.
fn session(answer: &Whole) -> String {
    let place = answer.field("location").expect("a session");
    let place = place.strip_prefix(&format!("{LIVE}/")).expect("a path");
    place.to_owned()
}

#[test]
fn the_webhook_viewers_and_sessions_have_their_statuses() {
    let entry = Entry::start(&format!(
        "max_viewers = 1\nwebhook = \"{}\"\n[serve]\ncors = [\"*\"]\n",
        judge()
    ));
    let page = ("origin", "https://app.example");
    let form = "source_id=a1&source_type=rtmpConn";
    let ours = |answer: &Whole| {
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
        (answer.status, answer.text().to_owned())
    };
    let far = "rtmp_output_url: a peer may not lead to 10.0.0.1:1935: a private address is named only by who is there himself\n";
    for (name, status, text) in [
        ("no", 403, "Forbidden\n"),
        ("bad", 403, "Forbidden\n"),
        ("far", 400, far),
    ] {
        let announced = entry.ask("POST", &format!("{name}/start"), &[URLENCODED, page], form);
        assert_eq!(ours(&announced), (status, text.to_owned()));
        let sent = entry.ask("POST", &format!("{name}/whip"), &[SDP, page], SENDER);
        assert_eq!(ours(&sent), (status, text.to_owned()));
    }
    let sent = entry.ask("POST", "cam1/whip", &[SDP, page], SENDER);
    assert_eq!(sent.status, 201, "{}", sent.text());
    let head = entry.ask("HEAD", "cam1-out/whep", &[page], "");
    assert_eq!(ours(&head), (200, String::new()));
    assert_eq!(head.field("content-type"), Some("application/sdp"));
    let watched = entry.ask("POST", "cam1-out/whep", &[SDP, page], VIEWER);
    assert_eq!(watched.status, 201, "{}", watched.text());
    let one_more = entry.ask("POST", "cam1-out/whep", &[SDP, page], VIEWER);
    assert_eq!(ours(&one_more).0, 429, "{}", one_more.text());
    assert!(!one_more.text().contains("m="), "no SDP in a refusal");
    let fragment = ("content-type", "application/trickle-ice-sdpfrag");
    // No media has come of the sender, and so none went to the viewer. Both change as often as they like.
    let (end, restart) = ("a=end-of-candidates\r\n", "a=ice-ufrag:another\r\n");
    let place = session(&sent);
    for place in [&place, &session(&watched)] {
        for (tag, body, status) in [
            (None, end, 428),
            (Some("\"x\""), end, 412),
            (Some("*"), end, 204),
            (Some("*"), restart, 422),
            (Some("*"), end, 204),
        ] {
            let tag = tag.map(|tag| ("if-match", tag));
            let headers: Vec<_> = [fragment, page].into_iter().chain(tag).collect();
            let answer = entry.ask("PATCH", place, &headers, body);
            assert_eq!(ours(&answer).0, status, "{place}: {}", answer.text());
        }
    }
    // Also a second time: OBS ends the media first, and warns of anything else.
    for _ in 0..2 {
        let answer = entry.ask("DELETE", &place, &[page], "");
        assert_eq!(ours(&answer), (200, String::new()));
    }
}

#[test]
fn what_we_cannot_do_for_a_caller_is_told_as_ours() {
    let entry = Entry::start("");
    let form = "source_id=a1&source_type=rtmpConn&query=pipeline%3Dnoop";
    let started = entry.ask("POST", "cam1/start", &[URLENCODED], form);
    assert_eq!(started.status, 200);
    let devnet = entry.devnet.as_ref().expect("a network of its own");
    // An orchestrator that takes no parameters any more: whoever waits is told when the stream is over.
    freeze(devnet.server.running.0.id());
    thread::scope(|scope| {
        let door = &entry.serve.door;
        let path = format!("{LIVE}/cam1/update");
        let update = scope.spawn(move || fetch(door, "POST", &path, &[], b"{\"a\":1}"));
        entry.logged(r#"\"params_update\""#);
        assert_eq!(entry.ask("POST", "cam1/stop", &[], "").status, 200);
        let update = update.join().expect("an answer");
        let text = "the stream was over before the orchestrator had the parameters\n";
        assert_eq!((update.status, update.text()), (500, text));
    });
    signal(devnet.server.running.0.id(), "CONT");
    // A place that is there and never answers: of so many test streams at a time none ends.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = silent.local_addr().expect("it is bound");
    let asked = format!("{{\"stream_url\":\"rtmp://{at}/live/x\"}}");
    let statuses: Vec<_> = (0..5)
        .map(|_| entry.ask("PUT", "smoketest", &[], &asked).status)
        .collect();
    assert_eq!(statuses, [200, 200, 200, 200, 503]);
}
