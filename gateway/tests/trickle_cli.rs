//! `livepeer-gateway trickle` as its users meet it: a server, a publisher and a reader in three processes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const CLIP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/media/testsrc-360p30-12s.ts");

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn trickle(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_livepeer-gateway"));
    command
        .arg("trickle")
        .args(arguments)
        .env_remove("LIVEPEER_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn start(arguments: &[&str]) -> Child {
    trickle(arguments).spawn().expect("the binary was built")
}

/// Waits for a process, and not for ever.
fn output(mut child: Child) -> Output {
    let mut streams = [Vec::new(), Vec::new()];
    std::thread::scope(|scope| {
        let [out, err] = &mut streams;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        scope.spawn(move || stdout.map(|mut stream| stream.read_to_end(out)));
        scope.spawn(move || stderr.map(|mut stream| stream.read_to_end(err)));
        let since = Instant::now();
        while child.try_wait().expect("it is ours").is_none() {
            if since.elapsed() > PATIENCE {
                child.kill().expect("it is ours");
                panic!("it does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let [stdout, stderr] = streams;
    let status = child.wait().expect("it is ours");
    Output {
        status,
        stdout,
        stderr,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// A server in a process of its own, stopped when dropped.
struct Relay {
    child: Child,
    url: String,
}

impl Relay {
    fn start(options: &[&str]) -> Self {
        let mut child = start(
            &[
                &["serve", "--listen", "127.0.0.1:0", "--life", "2m"],
                options,
            ]
            .concat(),
        );
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("it says where");
        Self {
            child,
            url: line.trim_end().to_owned(),
        }
    }

    fn channel(&self, name: &str) -> String {
        format!("{}{name}", self.url)
    }

    /// As Ctrl-C would; what it says then, and whether all was well.
    #[cfg(unix)]
    fn stop(mut self) -> (bool, String) {
        let killed = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(killed.expect("there is kill").success());
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut said).expect("text");
        (self.child.wait().expect("it is ours").success(), said)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of this test, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id())))
    }

    fn with(name: &str, bytes: &[u8]) -> Self {
        let file = Self::new(name);
        std::fs::write(&file.0, bytes).expect("it can be written");
        file
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }

    fn read(&self) -> Vec<u8> {
        std::fs::read(&self.0).expect("it was written")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
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
    for (serve, publish, read) in [("tokio", "smol", "tokio"), ("smol", "tokio", "smol")] {
        let relay = Relay::start(&["--create", "file", "--runtime", serve]);
        let channel = relay.channel("file");
        let out = Scratch::new("out");
        let reader = start(&[
            "sub",
            &channel,
            "--start",
            "0",
            "--output",
            out.path(),
            "--runtime",
            read,
        ]);
        let publisher = start(&[
            "pub",
            &channel,
            "--input",
            input.path(),
            "--cut",
            "100000B",
            "--every",
            "100ms",
            "--runtime",
            publish,
            "--json",
        ]);
        let published = output(publisher);
        assert!(published.status.success(), "{}", text(&published.stderr));
        let figures: serde_json::Value =
            serde_json::from_slice(&published.stdout).expect("figures");
        assert_eq!(figures["segments"], 10);
        assert_eq!(figures["bytes"], 1_000_000);
        assert_eq!(figures["latency"]["count"], 10);
        let read = output(reader);
        assert!(read.status.success(), "{}", text(&read.stderr));
        let table = text(&read.stdout);
        assert!(table.contains("10 / 0"), "{table}");
        assert!(out.read() == bytes, "{table}");
    }
}

#[test]
fn a_stream_is_cut_at_its_key_frames_and_a_live_one_leaves_at_once() {
    let clip = std::fs::read(CLIP).expect("it is in the sources");
    let relay = Relay::start(&["--create", "file=video/MP2T", "--create", "live"]);
    let channel = relay.channel("file");
    let reader = start(&["sub", &channel, "--start", "0"]);
    let published = output(start(&["pub", &channel, "--input", CLIP, "--speed", "20"]));
    assert!(published.status.success(), "{}", text(&published.stderr));
    assert!(text(&published.stdout).contains("12 / 0"));
    let read = output(reader);
    assert!(read.status.success() && read.stdout == clip);
    // The figures are not in the way of the stream.
    assert!(
        text(&read.stderr).contains("12 / 0"),
        "{}",
        text(&read.stderr)
    );
    // Half of a second is read before the second is over.
    let channel = relay.channel("live");
    let mut reader = start(&["sub", &channel, "--start", "0"]);
    let mut publisher = trickle(&["pub", &channel, "--linger", "200ms"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut stdin = publisher.stdin.take().expect("it is piped");
    let mut stdout = reader.stdout.take().expect("it is piped");
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
    let input = Scratch::with("lines", lines.as_bytes());
    let channel = relay.channel("lines");
    let reader = start(&["sub", &channel, "--start", "0", "--segments", "3"]);
    let published = output(start(&[
        "pub",
        &channel,
        "--create",
        "--input",
        input.path(),
        "--cut",
        "line",
        "--every",
        "20ms",
    ]));
    assert!(published.status.success(), "{}", text(&published.stderr));
    assert_eq!(text(&output(reader).stdout), lines);

    let channel = relay.channel("times");
    let reader = start(&["sub", &channel, "--start", "0"]);
    let mut publisher = trickle(&["pub", &channel, "--create", "--cut", "100ms", "--json"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut stdin = publisher.stdin.take().expect("it is piped");
    for word in ["one ", "two ", "three"] {
        stdin.write_all(word.as_bytes()).expect("it reads");
        std::thread::sleep(Duration::from_millis(250));
    }
    drop(stdin);
    let published = output(publisher);
    let figures: serde_json::Value = serde_json::from_slice(&published.stdout).expect("figures");
    assert_eq!(figures["segments"], 3);
    assert_eq!(text(&output(reader).stdout), "one two three");
}

#[test]
fn over_tls_the_first_certificate_is_trusted_and_http2_works() {
    let bytes = noise(300_000);
    let input = Scratch::with("tls", &bytes);
    let relay = Relay::start(&["--autocreate", "--tls"]);
    assert!(relay.url.starts_with("https://"));
    let channel = relay.channel("x");
    let reader = start(&["sub", &channel, "--start", "0", "--http2"]);
    let published = output(start(&[
        "pub",
        &channel,
        "--create",
        "--input",
        input.path(),
        "--cut",
        "100KiB",
        "--every",
        "50ms",
        "--http2",
    ]));
    assert!(published.status.success(), "{}", text(&published.stderr));
    assert!(output(reader).stdout == bytes);
    let refused = output(start(&["sub", &channel, "--ca-trust", "--wait", "1s"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("error: "));
}

#[cfg(unix)]
#[test]
fn stopping_the_server_ends_its_readers_in_order() {
    for runtime in ["tokio", "smol"] {
        let relay = Relay::start(&["--create", "x", "--runtime", runtime]);
        let channel = relay.channel("x");
        let input = Scratch::with("kept", b"all of it");
        let reader = start(&["sub", &channel, "--start", "0"]);
        let published = output(start(&[
            "pub",
            &channel,
            "--keep",
            "--input",
            input.path(),
            "--cut",
            "1KiB",
        ]));
        assert!(published.status.success(), "{}", text(&published.stderr));
        let (well, said) = relay.stop();
        assert!(well && said == "stopped\n", "{said}");
        let read = output(reader);
        assert!(read.status.success(), "{}", text(&read.stderr));
        assert_eq!(text(&read.stdout), "all of it");
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
    let input = Scratch::with("long", &noise(2_000));
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
        let line = text(&failed.stderr);
        let line = line.lines().last().unwrap_or_default();
        assert_eq!(failed.status.code(), Some(code), "{arguments:?}: {line}");
        assert!(
            line.starts_with("error: ") && line.contains(says),
            "{arguments:?}: {line}"
        );
    }
}
