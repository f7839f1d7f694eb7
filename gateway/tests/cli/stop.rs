//! Ctrl-C and the signal to terminate, wherever a command waits.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::files::Folder;
use crate::process::{CLIP, Running, gateway, signal};
use crate::run::{self, Scratch};
use crate::server::Server;

/// Longer than any end in order may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command line, by the address of a peer that never answers.
type Line<'a> = dyn Fn(&str) -> String + 'a;

/// Somebody who takes connections.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address.to_string())
}

/// Checks that one signal ends the command, and that its only line says why.
fn ends(mut running: Running, name: &str, what: &str) {
    signal(running.0.id(), name);
    let status = running.wait(PATIENCE);
    let mut line = String::new();
    let stderr = running.0.stderr.as_mut().expect("it is piped");
    stderr.read_to_string(&mut line).expect("text");
    assert_eq!(status.code(), Some(130), "{what}: {line}");
    assert!(line.starts_with("error: interrupted"), "{what}: {line}");
    assert_eq!(line.lines().count(), 1, "{what}: {line}");
}

#[test]
fn one_press_ends_a_command_that_waits_for_a_peer() {
    let folder = Folder::new("peers");
    let key = folder.private("key", &"03".repeat(32));
    let store = folder.path("store");
    let own = |peer: &str| {
        format!(
            "live --input {CLIP} --output - --orchestrator 127.0.0.1:1 --key-file {key} \
             --store {store} --rpc http://{peer}"
        )
    };
    let lines: [(&str, &Line); 9] = [
        ("INT", &|peer| {
            format!("live --input {CLIP} --output - --orchestrator {peer} --offchain")
        }),
        ("TERM", &|peer| {
            format!("live --input {CLIP} --output - --signer http://{peer}")
        }),
        ("INT", &own),
        ("TERM", &|peer| {
            format!("signer --listen 0 --key-file {key} --rpc http://{peer}")
        }),
        ("INT", &|peer| format!("info {peer}")),
        ("TERM", &|peer| {
            format!("discover --orchestrator {peer} --within 1m")
        }),
        ("INT", &|peer| {
            format!("select --orchestrator {peer} --within 1m")
        }),
        ("TERM", &|peer| {
            format!("trickle pub http://{peer}/x --create --input {CLIP}")
        }),
        ("INT", &|peer| format!("trickle sub http://{peer}/x")),
    ];
    thread::scope(|scope| {
        for (name, line) in lines {
            let (listener, address) = listener();
            let line = line(&address);
            scope.spawn(move || {
                let running = run::start(&line.split(' ').collect::<Vec<_>>());
                let _asked = listener.accept().expect("it connects");
                ends(running, name, &line);
            });
        }
    });
}

/// Answers a request for orchestrators.
fn list(mut asked: TcpStream) -> TcpStream {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let read = asked.read(&mut piece).expect("it asks");
        assert!(read > 0, "it asks to the end");
        request.extend_from_slice(&piece[..read]);
    }
    let list = r#"[{"address":"https://127.0.0.1:1"}]"#;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", list.len());
    asked.write_all((head + list).as_bytes()).expect("it reads");
    asked
}

#[test]
fn one_press_ends_a_command_that_waits_for_its_first_bytes() {
    for name in ["INT", "TERM"] {
        let (listener, address) = listener();
        let signer = format!("http://{address}");
        let job = ["live", "--input", "-", "--output", "-", "--signer", &signer];
        let running = run::start_fed(&job);
        let _answered = list(listener.accept().expect("it connects").0);
        ends(running, name, "live");
    }
    // The channel is made while there is nothing to publish yet.
    let (listener, address) = listener();
    let channel = format!("http://{address}/x");
    let running = run::start_fed(&["trickle", "pub", &channel, "--create"]);
    let _asked = listener.accept().expect("it connects");
    ends(running, "INT", "trickle pub");
}

#[test]
fn one_press_ends_a_command_that_waits_for_a_key() {
    let folder = Folder::new("pipe");
    let pipe = folder.path("key");
    let made = Command::new("mkfifo").args(["-m", "600", &pipe]).status();
    assert!(made.expect("every Unix has mkfifo").success());
    let key = ["--key-file", &pipe, "--static-chain"];
    let store = folder.path("store");
    let job = [
        "live",
        "--input",
        CLIP,
        "--output",
        "-",
        "--orchestrator",
        "127.0.0.1:1",
    ];
    for arguments in [
        [&["signer", "--listen", "0"], &key[..]].concat(),
        [&job[..], &key[..], &["--store", &store]].concat(),
    ] {
        let running = run::start(&arguments);
        // This waits until it is being read.
        let _key = File::options().write(true).open(&pipe).expect("a pipe");
        ends(running, "INT", arguments[0]);
    }
}

#[test]
fn one_press_ends_a_command_whose_output_nobody_takes() {
    let serve = [
        "trickle",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--create",
        "x",
    ];
    let relay = Server::start(gateway().args(serve).args(["--life", "2m"]), |_| true);
    let channel = format!("{}x", relay.introduction.trim_end());
    let mut reader = run::start(&["trickle", "sub", &channel, "--start", "0"]);
    let input = Scratch::with("much", vec![7; 4 << 20]);
    let cut = ["--cut", "4MiB", "--keep", "--input", input.path()];
    run::run(&[&["trickle", "pub", &channel], &cut[..]].concat()).succeeded();
    reader.read(1);
    ends(reader, "INT", "trickle sub");
}
