//! `livepeer-gateway trickle` as its users meet it: a server, a publisher and a reader in three processes.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use crate::process::{CLIP, Running, gateway};
use crate::run::{self, Ended, RUNTIMES, Scratch};
use crate::server::Server;

fn start(arguments: &[&str]) -> Running {
    run::start(&[&["trickle"], arguments].concat())
}

fn start_fed(arguments: &[&str]) -> Running {
    run::start_fed(&[&["trickle"], arguments].concat())
}

fn output(running: Running) -> Ended {
    running.end(Vec::new())
}

/// Reads from the first segment on.
fn subscribe(channel: &str, more: &[&str]) -> Running {
    start(&[&["sub", channel, "--start", "0"], more].concat())
}

/// Publishes all of a file.
fn publish(channel: &str, input: &str, more: &[&str]) -> Ended {
    let published = output(start(&[&["pub", channel, "--input", input], more].concat()));
    published.succeeded();
    published
}

/// A server in a process of its own, killed when dropped.
struct Relay {
    server: Server,
    url: String,
}

impl Relay {
    fn start(options: &[&str]) -> Self {
        let serve = [
            "trickle",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--life",
            "2m",
        ];
        let server = Server::start(gateway().args(serve).args(options), |_| true);
        Self {
            url: server.introduction.trim_end().to_owned(),
            server,
        }
    }

    fn channel(&self, name: &str) -> String {
        format!("{}{name}", self.url)
    }
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(len)
    .collect()
}

#[test]
fn a_file_arrives_byte_for_byte_on_either_runtime() {
    let bytes = noise(1_000_000);
    let input = Scratch::with("in", &bytes);
    for (server, publisher, reader) in [("tokio", "smol", "tokio"), ("smol", "tokio", "smol")] {
        let relay = Relay::start(&["--create", "file", "--runtime", server]);
        let channel = relay.channel("file");
        let out = Scratch::new("out");
        let reading = subscribe(&channel, &["--output", out.path(), "--runtime", reader]);
        let cut = ["--cut", "100000B", "--every", "100ms"];
        let published = publish(
            &channel,
            input.path(),
            &[&cut[..], &["--runtime", publisher, "--json"]].concat(),
        );
        let figures = published.json();
        assert_eq!(figures["segments"], 10);
        assert_eq!(figures["bytes"], 1_000_000);
        assert_eq!(figures["latency"]["count"], 10);
        let read = output(reading);
        read.succeeded();
        let table = read.text();
        assert!(table.contains("10 / 0"), "{table}");
        assert!(out.bytes() == bytes, "{table}");
    }
}

#[test]
fn a_stream_is_cut_at_its_key_frames_and_a_live_one_leaves_at_once() {
    let clip = std::fs::read(CLIP).expect("it is in the sources");
    let relay = Relay::start(&["--create", "file=video/MP2T", "--create", "live"]);
    let channel = relay.channel("file");
    let reader = subscribe(&channel, &[]);
    let published = publish(&channel, CLIP, &["--speed", "20"]);
    assert!(published.text().contains("12 / 0"));
    let read = output(reader);
    assert!(read.status.success() && read.stdout == clip);
    // The figures are not in the way of the stream.
    assert!(read.stderr.contains("12 / 0"), "{}", read.stderr);
    // Half of a second is read before the second is over.
    let channel = relay.channel("live");
    let mut reader = subscribe(&channel, &[]);
    let mut publisher = start_fed(&["pub", &channel, "--linger", "200ms"]);
    let mut stdin = publisher.0.stdin.take().expect("it is piped");
    let mut stdout = reader.0.stdout.take().expect("it is piped");
    let half = &clip[..188 * 200];
    stdin.write_all(half).expect("it reads");
    let mut begun = vec![0; half.len() / 2];
    stdout.read_exact(&mut begun).expect("it comes");
    assert!(begun == clip[..begun.len()]);
    drop(stdin);
    assert!(output(publisher).status.success());
    stdout.read_to_end(&mut begun).expect("the rest");
    assert!(begun == half);
    assert!(output(reader).status.success());
}

#[test]
fn lines_and_times_make_segments() {
    let relay = Relay::start(&["--autocreate"]);
    let lines = "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n";
    let input = Scratch::with("lines", lines);
    let channel = relay.channel("lines");
    let reader = subscribe(&channel, &["--segments", "3"]);
    publish(
        &channel,
        input.path(),
        &["--create", "--keep", "--cut", "line", "--every", "20ms"],
    );
    assert_eq!(output(reader).text(), lines);

    let channel = relay.channel("times");
    let mut reader = subscribe(&channel, &[]);
    let mut publisher = start_fed(&["pub", &channel, "--create", "--cut", "100ms", "--json"]);
    let mut stdin = publisher.0.stdin.take().expect("it is piped");
    for word in ["one ", "two ", "three"] {
        stdin.write_all(word.as_bytes()).expect("it reads");
        assert_eq!(reader.read(word.len()), word.as_bytes());
        std::thread::sleep(Duration::from_millis(250));
    }
    drop(stdin);
    let published = output(publisher);
    let figures = published.json();
    assert_eq!(figures["segments"], 3);
    output(reader).succeeded();
}

#[test]
fn over_tls_the_first_certificate_is_trusted_and_http2_works() {
    let bytes = noise(300_000);
    let input = Scratch::with("tls", &bytes);
    let relay = Relay::start(&["--autocreate", "--tls"]);
    assert!(relay.url.starts_with("https://"));
    let channel = relay.channel("x");
    let reader = subscribe(&channel, &["--http2"]);
    publish(
        &channel,
        input.path(),
        &["--create", "--cut", "100KiB", "--every", "50ms", "--http2"],
    );
    assert!(output(reader).stdout == bytes);
    // Trying again would make it no better.
    let began = std::time::Instant::now();
    let refused = output(start(&["sub", &channel, "--ca-trust", "--wait", "20s"]));
    assert_eq!(refused.status.code(), Some(1));
    let said = &refused.stderr;
    assert!(said.contains("no public authority vouches for the certificate"));
    assert!(said.contains("without --ca-trust"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(10), "{said}");
}

#[cfg(unix)]
#[test]
fn stopping_the_server_ends_its_readers_in_order() {
    for runtime in RUNTIMES {
        let relay = Relay::start(&["--create", "x", "--runtime", runtime]);
        let channel = relay.channel("x");
        let input = Scratch::with("kept", b"all of it");
        let mut reader = subscribe(&channel, &[]);
        publish(&channel, input.path(), &["--keep", "--cut", "1KiB"]);
        assert_eq!(reader.read(9), b"all of it");
        assert_eq!(relay.server.stop("TERM"), "stopped\n");
        let read = output(reader);
        read.succeeded();
        assert!(read.stdout.is_empty());
    }
}

#[test]
fn an_empty_input_is_a_failure_whatever_cuts_it() {
    // Each has a channel of its own, since a publisher that ends closes its channel.
    let relay = Relay::start(&["--create", "there", "--create", "here"]);
    let blank = Scratch::with("blank", "\n\n");
    for (name, input, cut) in [
        ("missing", "/dev/null", "1KiB"),
        ("missing", blank.path(), "line"),
        ("there", "/dev/null", "2s"),
        ("here", "/dev/null", "keyframe"),
    ] {
        let channel = relay.channel(name);
        let failed = output(start(&["pub", &channel, "--input", input, "--cut", cut]));
        let line = failed.error();
        // A channel that is missing may be found out first.
        let cause = ["the input is empty", "Make it with --create"];
        let known = if name == "missing" { 2 } else { 1 };
        assert!(
            cause[..known].iter().any(|cause| line.contains(cause)),
            "{cut}: {line}"
        );
    }
}

#[test]
fn what_cannot_work_is_one_line_that_says_why() {
    let relay = Relay::start(&[
        "--max-segment",
        "1KiB",
        "--create",
        "small",
        "--create",
        "video",
    ]);
    let input = Scratch::with("long", noise(2_000));
    let nobody = "http://127.0.0.1:1/x";
    for (arguments, code, says) in [
        (vec!["pub", nobody, "--cut", "5"], 2, "it needs a unit"),
        (vec!["pub", "127.0.0.1/x"], 2, "http://"),
        (vec!["sub", "http://h:1"], 2, "no channel"),
        (vec!["pub", nobody, "--speed", "2"], 2, "--every"),
        (
            vec!["pub", nobody, "--input", "/nowhere"],
            1,
            "Check the path",
        ),
        (vec!["sub", nobody, "--wait", "100ms"], 1, "cannot connect"),
        (
            vec![
                "pub",
                &relay.channel("none"),
                "--input",
                input.path(),
                "--cut",
                "1KiB",
            ],
            1,
            "--create",
        ),
        (
            vec![
                "pub",
                &relay.channel("none"),
                "--create",
                "--input",
                input.path(),
                "--cut",
                "1KiB",
            ],
            1,
            "lets nobody create channels. Make it where the server runs",
        ),
        (
            vec!["pub", &relay.channel("video"), "--input", input.path()],
            1,
            "MPEG-TS",
        ),
        (
            vec![
                "pub",
                &relay.channel("small"),
                "--input",
                input.path(),
                "--cut",
                "2KiB",
            ],
            1,
            "413",
        ),
    ] {
        let failed = output(start(&arguments));
        let line = failed.stderr;
        let line = line.lines().last().unwrap_or_default();
        assert_eq!(failed.status.code(), Some(code), "{arguments:?}: {line}");
        assert!(
            line.starts_with("error: ") && line.contains(says),
            "{arguments:?}: {line}"
        );
    }
}
