//! Jobs whose input is a sender that comes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use super::*;
use crate::http;
use crate::process::Running;

/// Everything that ffmpeg 9 sent to a server to publish 60 pictures and their sound as `live/key?token=abc`.
const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../ingest/tests/vectors/rtmp/ffmpeg9-h264-aac.c2s.bin"
);

/// The address in a line of standard error that begins so.
fn said(lines: &mut impl Iterator<Item = std::io::Result<String>>, what: &str) -> String {
    let line = lines.next().expect("it says where").expect("text");
    let rest = line.strip_prefix(what).unwrap_or_else(|| panic!("{line}"));
    rest.trim().to_owned()
}

/// Host and port of a URL.
fn authority(url: &str) -> &str {
    let (_, rest) = url.split_once("://").expect("a URL");
    rest.split('/').next().expect("a host")
}

/// Waits for the end of a job that was started with `--json`: its figures, and how it ended.
fn figures(mut job: Running) -> serde_json::Value {
    let mut text = String::new();
    let stdout = job.0.stdout.as_mut().expect("it is piped");
    stdout.read_to_string(&mut text).expect("text");
    assert!(job.wait(Duration::from_secs(60)).success(), "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_publisher_by_rtmp_is_the_input_and_a_page_shows_the_result() {
    for runtime in RUNTIMES {
        let net = Devnet::start(runtime);
        let output = Scratch::new(&format!("rtmp-{runtime}"));
        let more = ["--watch=127.0.0.1:0", "--runtime", runtime, "--json"];
        let input = "rtmp://127.0.0.1:0/live/key";
        let mut job = start(&live(&net, input, output.path(), &more));
        let stderr = job.0.stderr.take().expect("it is piped");
        let mut lines = BufReader::new(stderr).lines();
        let rtmp = said(&mut lines, "send to");
        let page = said(&mut lines, "watch at");
        assert!(page.ends_with("/watch/key?view"), "{page}");
        let (status, text) = http::call(authority(&page), "GET", "/watch/key", &[], b"");
        assert_eq!(status, 200);
        assert!(text.contains("RTCPeerConnection"), "{text}");
        let path = "/live/video-to-video/key/whip";
        let sdp = [("content-type", "application/sdp")];
        let (status, _) = http::call(authority(&page), "POST", path, &sdp, b"v=0\r\n");
        assert_eq!(status, 400, "an offer is looked at");
        let mut publisher = TcpStream::connect(authority(&rtmp)).expect("it listens");
        let recording = std::fs::read(RECORDING).expect("it comes with the sources");
        publisher.write_all(&recording).expect("it is taken");
        // All is read to the end: closing before would be a reset.
        let _ = publisher.read_to_end(&mut Vec::new());
        let figures = figures(job);
        for pictures in ["pictures_out", "pictures_in"] {
            assert_eq!(figures[pictures], 60, "{figures}");
        }
        assert_eq!(figures["segments_lost"], 0, "{figures}");
        assert_eq!(figures["bytes_out"], figures["bytes_in"], "{figures}");
        let written = output.bytes().len();
        assert_eq!(figures["bytes_in"], written, "{figures}");
        net.stop();
    }
}

#[test]
fn a_file_can_be_watched_too() {
    let net = Devnet::start("tokio");
    let mut arguments = vec!["live", "--orchestrator", &net.orchestrator];
    arguments.extend(["--signer", &net.signer, "--input", CLIP, "--speed", SPEED]);
    arguments.extend(["--watch=127.0.0.1:0", "--json"]);
    let ended = run(&arguments);
    ended.succeeded();
    let figures = ended.json();
    assert_eq!(figures["segments_in"], 12, "{figures}");
    assert_eq!(figures["pictures_in"], 12 * 30, "{figures}");
    assert!(
        ended.stderr.contains("/watch/live?view"),
        "{}",
        ended.stderr
    );
    net.stop();
}
