//! Every answer of the routes about live streams that needs no media, over real sockets (jobs spec 3.1 and 13).

use crate::ingest::{Entry, LIVE, SDP, URLENCODED};

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
        ("OPTIONS", "cam1/update", None, text(""), 204, None),
        ("OPTIONS", "cam1/status", None, text(""), 204, None),
        ("OPTIONS", "cam1/whip", None, text(""), 204, None),
    ]
}

#[test]
fn requests_that_make_no_sense_are_answered_as_the_reference_does_or_better() {
    let entry = Entry::start("");
    for (method, path, kind, body, status, text) in rows() {
        let headers: Vec<_> = kind.into_iter().collect();
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
    }
}
