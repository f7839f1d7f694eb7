//! Streams through containers at the front door (jobs spec 5): data, media at a media server, streams that take no video,
//! and senders by WHIP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use livepeer_core::wire::byoc::{JOB_HEADER, JobRequest};
use serde_json::Value;

use crate::http::{Whole, fetch, read_head, say};
use crate::ingest::{Entry, SDP, SENDER, URLENCODED};
use crate::serve::json;

/// The answer of the development network's container to whatever it is told.
const TOLD: &str = r#"{"status":"success"}"#;

fn header(parameters: &str) -> String {
    let job = JobRequest {
        request: "{}".into(),
        parameters: parameters.into(),
        capability: "echo".into(),
        timeout_seconds: 10,
        ..JobRequest::default()
    };
    job.to_header(None)
}

/// Asks something of a stream.
fn ask(door: &str, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Whole {
    let path = format!("/process/stream/{path}");
    fetch(door, method, &path, fields, body.as_bytes())
}

/// Orders a stream of that name; its addresses.
fn order(entry: &Entry, name: &str, parameters: &str) -> Value {
    let job = header(parameters);
    let body = format!(r#"{{"stream_id":"{name}"}}"#);
    let started = ask(
        &entry.serve.door,
        "POST",
        "start",
        &[(JOB_HEADER, &job)],
        &body,
    );
    assert_eq!(started.status, 200, "{}", started.text());
    entry.logged("a live job runs");
    json(started.text())
}

/// Does it before live entry on either runtime.
fn on_both(play: impl Fn(&Entry)) {
    for runtime in ["tokio", "smol"] {
        play(&Entry::on(runtime));
    }
}

/// The lines of data in the text of an answer.
fn data(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("data: "))
}

#[test]
fn the_data_of_a_container_is_told_line_by_line_up_to_the_end_of_its_stream() {
    for runtime in ["tokio", "smol"] {
        let entry = Entry::on(runtime);
        let urls = order(&entry, "cam", r#"{"enable_data_output":true}"#);
        let place = urls["data_url"].as_str().expect("a URL");
        let path = format!("http://{}/process/stream/cam/data", entry.serve.door);
        assert_eq!(place, path);
        thread::scope(|scope| {
            let door = &*entry.serve.door;
            let readers =
                [(); 2].map(|()| scope.spawn(move || ask(door, "GET", "cam/data", &[], "")));
            let test = format!(
                "{{\"stream_url\":\"{}\",\"duration_secs\":3}}",
                urls["rtmp_url"].as_str().expect("a URL")
            );
            assert_eq!(entry.ask("PUT", "smoketest", &[], &test).status, 200);
            for reader in readers {
                let told = reader.join().expect("an answer");
                let said = format!("{runtime}: {} {}", told.head, told.text());
                assert_eq!(told.status, 200, "{said}");
                assert_eq!(told.field("content-type"), Some("text/event-stream"));
                let mut lines: Vec<Value> = data(told.text()).map(json).collect();
                let end = lines.pop().expect("an end");
                assert_eq!(end["type"], "stream_ended", "{said}");
                assert!(told.text().contains("event: end\n"), "{said}");
                // Each segment once.
                let told: Vec<_> = lines.iter().map(|line| line["segment"].as_u64()).collect();
                let first = told.first().copied().flatten().expect("some data");
                let all: Vec<_> = (first..).take(told.len()).map(Some).collect();
                assert_eq!(told, all, "{said}");
            }
        });
        let gone = ask(&entry.serve.door, "GET", "cam/data", &[], "");
        assert_eq!((gone.status, gone.text()), (404, "Stream not found\n"));
    }
}

#[test]
fn a_stream_that_takes_no_video_says_data_until_it_is_stopped() {
    for runtime in ["tokio", "smol"] {
        let entry = Entry::on(runtime);
        let wishes = r#"{"enable_video_ingress":false,"enable_video_egress":false,"enable_data_output":true}"#;
        let urls = order(&entry, "mute", wishes);
        for none in ["whip_url", "whep_url", "rtmp_url"] {
            assert_eq!(urls[none], "", "{none}");
        }
        for (path, kind, body) in [
            ("mute/whip", SDP, SENDER),
            ("mute/rtmp", URLENCODED, "source_id=a1&source_type=rtmpConn"),
        ] {
            let refused = ask(&entry.serve.door, "POST", path, &[kind], body);
            let said = (refused.status, refused.text());
            assert_eq!(said, (400, "the stream takes no video\n"), "{path}");
        }
        let mut client = TcpStream::connect(&entry.serve.door).expect("it listens");
        let patience = Some(Duration::from_secs(20));
        client.set_read_timeout(patience).expect("a timeout");
        client
            .write_all(b"GET /process/stream/mute/data HTTP/1.1\r\nhost: x\r\n\r\n")
            .expect("it listens");
        let mut reader = BufReader::new(client);
        let (head, _) = read_head(&mut reader).expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let mut next = || loop {
            let mut line = String::new();
            let length = reader.read_line(&mut line).expect("a line in time");
            assert!(length > 0, "{runtime}: it ended");
            if let Some(data) = line.strip_prefix("data: ") {
                return data.trim_end().to_owned();
            }
        };
        for n in 0..3 {
            let change = format!(r#"{{"n":{n}}}"#);
            let updated = ask(&entry.serve.door, "POST", "mute/update", &[], &change);
            assert_eq!((updated.status, updated.text()), (200, TOLD));
            assert_eq!(next(), change, "{runtime}");
        }
        let stopped = ask(&entry.serve.door, "POST", "mute/stop", &[], "bye");
        assert_eq!((stopped.status, stopped.text()), (200, TOLD));
        assert_eq!(next(), r#"{"type":"stream_ended"}"#, "{runtime}");
        let again = ask(&entry.serve.door, "POST", "mute/stop", &[], "");
        assert_eq!((again.status, again.text()), (404, "Stream not found\n"));
    }
}

#[test]
fn a_sender_by_whip_has_its_session_below_the_stream_that_was_ordered() {
    on_both(|entry| {
        let urls = order(entry, "cam", "");
        let place = format!("http://{}/", entry.serve.door);
        let path = urls["whip_url"].as_str().expect("a URL");
        let path = path.strip_prefix(&place).expect("at the door");
        let path = path.strip_prefix("process/stream/").expect("of streams");
        let sent = ask(&entry.serve.door, "POST", path, &[SDP], SENDER);
        assert_eq!(sent.status, 201, "{}", sent.text());
        assert_eq!(
            sent.field("livepeer-playback-url"),
            urls["whep_url"].as_str()
        );
        let session = sent.field("location").expect("a session");
        let session = session.strip_prefix("/process/stream/").expect("its own");
        assert!(session.starts_with("cam/whip/"), "{session}");
        let fragment = ("content-type", "application/trickle-ice-sdpfrag");
        let (end, restart) = ("a=end-of-candidates\r\n", "a=ice-ufrag:another\r\n");
        for (tag, body, status) in [
            (None, end, 428),
            (Some("\"x\""), end, 412),
            (Some("*"), end, 204),
            (Some("*"), restart, 422),
        ] {
            let tag = tag.map(|tag| ("if-match", tag));
            let fields: Vec<_> = [fragment].into_iter().chain(tag).collect();
            let answer = ask(&entry.serve.door, "PATCH", session, &fields, body);
            assert_eq!(answer.status, status, "{}", answer.text());
        }
        // Somebody sends: a media server may not end that.
        let form = "source_id=a1&source_type=rtmpConn";
        let announced = ask(&entry.serve.door, "POST", "cam/rtmp", &[URLENCODED], form);
        assert_eq!(announced.status, 409, "{}", announced.text());
        for _ in 0..2 {
            let left = ask(&entry.serve.door, "DELETE", session, &[], "");
            assert_eq!((left.status, left.text()), (200, ""));
        }
        entry.logged("a live job is over");
        let told = ask(&entry.serve.door, "GET", "cam/status", &[], "");
        let why = &json(told.text())["gateway_status"]["error"]["error_message"];
        assert_eq!(why, "ingest disconnected");
    });
}

#[test]
fn the_media_of_an_ordered_stream_are_fetched_where_a_media_server_has_them() {
    on_both(|entry| {
        order(entry, "cam", "");
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let there = server.local_addr().expect("it is bound");
        let good = "source_id=a1&source_type=rtmpConn";
        for (path, form, status, text) in [
            ("nobody/rtmp", good, 404, "stream not found: nobody\n"),
            (
                "cam/rtmp",
                "source_type=rtmpConn",
                400,
                "Missing source_id\n",
            ),
            ("cam/rtmp", "source_id=a1", 400, "Missing source_type\n"),
            (
                "cam/rtmp",
                &format!("{good}&rtmp_url=rtmp%3A%2F%2F{there}%2Fapp%2Fcam"),
                200,
                "",
            ),
        ] {
            let answer = ask(&entry.serve.door, "POST", path, &[URLENCODED], form);
            assert_eq!((answer.status, answer.text()), (status, text), "{form}");
        }
        assert_eq!(
            ask(&entry.serve.door, "GET", "cam/rtmp", &[], "").status,
            405
        );
        let (mut fetched, _) = server.accept().expect("it is fetched");
        let mut version = [0];
        fetched.read_exact(&mut version).expect("a first byte");
        assert_eq!(version, [3], "of RTMP");
        assert_eq!(
            ask(&entry.serve.door, "POST", "cam/stop", &[], "").text(),
            TOLD
        );
        // The fetching ends with the stream.
        let _ = fetched.read_to_end(&mut Vec::new());
    });
}

#[test]
fn the_address_for_senders_by_rtmp_is_one_that_the_caller_can_reach() {
    on_both(|entry| {
        let job = header("");
        let port = entry.rtmp.rsplit(':').next().expect("a port");
        for (host, shown) in [("gw.example:99", "gw.example"), ("[::1]:99", "[::1]")] {
            let request = format!(
                "POST /process/stream/start HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{JOB_HEADER}: {job}\r\ncontent-length: 2\r\n\r\n{{}}"
            );
            let started = say(&entry.serve.door, request.as_bytes());
            let urls = json(started.text());
            let name = urls["stream_id"].as_str().expect("a name");
            let wanted = format!("rtmp://{shown}:{port}/live/{name}");
            assert_eq!(urls["rtmp_url"], wanted);
            assert_eq!(
                ask(&entry.serve.door, "POST", &format!("{name}/stop"), &[], "").status,
                200
            );
        }
    });
}
