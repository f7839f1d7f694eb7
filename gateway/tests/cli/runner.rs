//! Apps of ours that an orchestrator rents out: the command `runner`, the program that it hosts, and the example.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use livepeer_core::http::Url;
use livepeer_tokio::Gateway;
use livepeer_tokio::api::AppCall;

use crate::files::Folder;
use crate::http::read_head;
use crate::process::{gateway, signal};
use crate::run::{run, start, start_fed};
use crate::server::{Devnet, Server};

#[path = "../../examples/runner.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is a program of its own, too")]
mod example;

/// An app that answers every request with these words.
fn app(words: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it has one"));
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(socket.try_clone().expect("the same socket"));
            if read_head(&mut reader).is_ok() {
                let length = words.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{words}"
                );
                let mut socket = &socket;
                let _ = socket.write_all(answer.as_bytes());
                let _ = socket.shutdown(Shutdown::Write);
                // Bytes that are left unread would reset the connection.
                let _ = reader.read_to_end(&mut Vec::new());
            }
        }
    });
    url
}

#[test]
fn an_app_of_ours_is_rented_out_until_it_is_interrupted() {
    let devnet = Devnet::start(1, &["--polite", "--register-secret", "word"]);
    let orchestrator = &*devnet.orchestrators[0];
    let peers = ["--signer", &devnet.signer, "--orchestrator", orchestrator];
    let hire = |arguments: &[&str]| run(&[arguments, &peers].concat());
    let lists = || {
        let listed = hire(&["app", "list", "--json"]).json();
        let all = listed.as_array().expect("a list");
        all.iter().any(|runner| runner["app"] == "mine/words")
    };
    let folder = Folder::new("hired-runner");
    let url = app("hello");
    let host = |secret: &str, more: &[&str]| {
        let place = [
            "runner",
            "--orchestrator",
            orchestrator,
            "--secret-file",
            secret,
        ];
        let app = ["--url", &url, "--app", "mine/words", "--single-shot"];
        let price = ["--price", "1000", "--currency", "wei", "--unit", "fixed"];
        let all = [&place[..], &app, &price, more].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let wrong = folder.private("wrong", "another\n");
    let arguments = host(&wrong, &[]);
    let refused = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let line = refused.error();
    assert!(
        line.contains("invalid registration authorization"),
        "{line}"
    );
    let secret = folder.private("secret", "word\n");
    // A machine whose tool tells of two GPUs.
    let tools = folder.path("tools");
    std::fs::create_dir(&tools).expect("a folder");
    let tool = format!("{tools}/nvidia-smi");
    let said =
        "#!/bin/sh\necho '0, GPU-aa, NVIDIA A100, 40960'\necho '1, GPU-bb, NVIDIA L4, 23034'\n";
    std::fs::write(&tool, said).expect("a file");
    let may_run = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&tool, may_run).expect("it is ours");
    let path = format!("{tools}:{}", std::env::var("PATH").unwrap_or_default());
    for (runtime, more, gpu) in [
        ("tokio", &[][..], "NVIDIA L4"),
        ("smol", &["--gpu", "other"], "other"),
    ] {
        let arguments = host(
            &secret,
            &[&["--runtime", runtime, "--name", "mine"], more].concat(),
        );
        let mut command = gateway();
        command.args(arguments).env("PATH", &path);
        let mut runner = Server::start(command.env("CUDA_VISIBLE_DEVICES", "1,0"), |_| true);
        let listed = hire(&["app", "list", "mine/words", "--gpu", gpu, "--json"]).json();
        assert_eq!(listed[0]["gpu"], gpu, "{listed}");
        let none = hire(&["app", "list", "mine/words", "--gpu", "NVIDIA A100"]);
        assert!(none.error().contains("no orchestrator lists a runner"));
        assert_eq!(runner.introduction, "mine\n");
        assert!(lists());
        let called = hire(&["app", "call", "mine/words", "say", "--data", "x"]);
        called.succeeded();
        assert_eq!(called.text(), "hello");
        assert!(called.stderr.contains("tickets"), "{}", called.stderr);
        signal(runner.running.0.id(), "INT");
        let status = runner.running.wait(Duration::from_secs(20));
        assert!(status.success(), "{status}");
        assert!(!lists(), "it has left");
        let said: Vec<String> = runner.said.iter().collect();
        let told = |words: &str| said.iter().any(|line| line.contains(words));
        assert!(told("session ") && told("stopped"), "{said:?}");
    }
}

/// The arguments of `runner` that host a command as that app, once with the secret in that file.
fn hosts<'a>(devnet: &'a Devnet, secret: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    let place = [
        "runner",
        "--orchestrator",
        &devnet.orchestrators[0],
        "--secret-file",
        secret,
    ];
    let app = ["--app", "mine/relay", "--single-shot", "--"];
    [&place[..], &app, command].concat()
}

#[test]
fn a_command_is_hosted_at_a_port_that_it_is_given_and_ends_with_the_runner() {
    let devnet = Devnet::start(1, &["--polite", "--offchain", "--register-secret", "word"]);
    let folder = Folder::new("runner-command");
    let secret = folder.private("secret", "word\n");
    // A server that takes a moment to come, and that a shell started and waits for.
    let place = folder.path("place");
    let script = format!(
        "sleep 0.3; {} trickle serve --listen 127.0.0.1:$1 & echo $PORT $LIVEPEER_ORCHESTRATOR $! > {place}; wait",
        env!("CARGO_BIN_EXE_livepeer-gateway")
    );
    let arguments = hosts(&devnet, &secret, &["sh", "-c", &script, "serve", "{port}"]);
    let mut runner = Server::start(gateway().args(arguments), |_| true);
    let told = std::fs::read_to_string(&place).expect("the command wrote it down");
    let [port, orchestrator, server] = told.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{told}");
    };
    assert!(port.parse().is_ok_and(|port: u16| port > 0), "{told}");
    assert_eq!(orchestrator, devnet.orchestrators[0]);
    let peers = ["--offchain", "--orchestrator", orchestrator];
    let called = run(&[&["app", "call", "mine/relay", "nothing"], &peers[..]].concat());
    // The relay knows no such channel.
    assert!(called.error().contains("404"), "{}", called.stderr);
    signal(runner.running.0.id(), "INT");
    let status = runner.running.wait(Duration::from_secs(20));
    assert!(status.success(), "{status}");
    let lives = Command::new("kill").args(["-0", server]).output();
    let lives = lives.expect("every system has kill").status.success();
    assert!(!lives, "what the shell started has ended");
}

/// The command takes no heed of a signal to end, and what it started neither.
#[test]
fn a_command_ends_with_its_runner_however_that_ends() {
    let devnet = Devnet::start(1, &["--polite", "--offchain", "--register-secret", "word"]);
    let folder = Folder::new("runner-ends");
    let secret = folder.private("secret", "word\n");
    let place = folder.path("place");
    let script = format!(
        "trap '' TERM; sleep 600 & echo $$ $! > {place}; {} trickle serve --listen 127.0.0.1:$PORT; wait",
        env!("CARGO_BIN_EXE_livepeer-gateway")
    );
    for signals in [&["INT", "INT"][..], &["KILL"]] {
        let arguments = hosts(&devnet, &secret, &["sh", "-c", &script]);
        let mut runner = Server::start(gateway().args(arguments), |_| true);
        let told = std::fs::read_to_string(&place).expect("the command wrote it down");
        let id = runner.running.0.id();
        for (n, name) in signals.iter().enumerate() {
            if n > 0 {
                // It has left its orchestrator, and waits for the command.
                thread::sleep(Duration::from_secs(1));
            }
            signal(id, name);
        }
        let status = runner.running.wait(Duration::from_secs(3));
        assert!(!status.success(), "{signals:?}: {status}");
        for process in told.split_whitespace() {
            let until = Instant::now() + Duration::from_secs(10);
            // What has ended and nobody waits for is a zombie where no other program takes it over.
            let lives = || {
                let state = Command::new("ps")
                    .args(["-o", "stat=", "-p", process])
                    .output();
                let state = state.expect("every system has ps").stdout;
                !state.is_empty() && !state.starts_with(b"Z")
            };
            while lives() {
                assert!(Instant::now() < until, "{signals:?}: {process} lives on");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn a_runner_ends_with_the_command_that_it_hosts_and_says_why() {
    let devnet = Devnet::start(1, &["--polite", "--offchain", "--register-secret", "word"]);
    let folder = Folder::new("runner-dies");
    let secret = folder.private("secret", "word\n");
    let begin = |command: &[&str]| run(&hosts(&devnet, &secret, command));
    let absent = begin(&["./no-such-program"]);
    assert!(absent.error().contains("cannot start ./no-such-program"));
    let fails = begin(&["sh", "-c", "echo words; exit 3"]);
    assert!(
        fails.error().contains("sh ended with exit status: 3"),
        "{}",
        fails.stderr
    );
    assert_eq!(
        fails.text(),
        "",
        "what a command prints is no answer of ours"
    );
    assert!(fails.stderr.contains("words"));
    // It serves, is listed, and dies.
    let relay = format!(
        "{} trickle serve --listen 127.0.0.1:$PORT & sleep 2; kill $!; exit 4",
        env!("CARGO_BIN_EXE_livepeer-gateway")
    );
    let dies = begin(&["sh", "-c", &relay]);
    assert!(
        dies.error().contains("sh ended with exit status: 4"),
        "{}",
        dies.stderr
    );
    assert!(dies.stderr.contains("registered as"), "{}", dies.stderr);
    let listed = run(&[
        "app",
        "list",
        "mine/relay",
        "--offchain",
        "--orchestrator",
        &devnet.orchestrators[0],
    ]);
    assert!(
        listed.error().contains("no orchestrator lists a runner"),
        "{}",
        listed.stderr
    );
    // A command that would serve beside somebody who is there already.
    let mut taken = hosts(&devnet, &secret, &["true"]);
    let url = app("hello");
    taken.splice(1..1, ["--url", &*url]);
    let refused = run(&taken);
    assert!(
        refused.error().contains("something listens at"),
        "{}",
        refused.stderr
    );
}

#[test]
fn the_example_of_a_runner_is_rented_out_with_its_channels() {
    let devnet = Devnet::start(1, &["--polite", "--register-secret", "word"]);
    let orchestrator = &*devnet.orchestrators[0];
    let place: Url = orchestrator.parse().expect("a URL");
    let (stop, stopped) = async_channel::bounded::<()>(1);
    let executor = tokio::runtime::Runtime::new().expect("a runtime");
    let hosting = executor.spawn(async move {
        let stop = async {
            let _ = stopped.recv().await;
        };
        example::host(place, "word", stop).await
    });
    let gateway = Gateway::new();
    let app = || {
        let app = gateway.app("example/capitals").orchestrator(orchestrator);
        app.signer(&devnet.signer)
    };
    executor.block_on(async {
        let until = Instant::now() + Duration::from_secs(20);
        while !app().list().await.is_ok_and(|runners| !runners.is_empty()) {
            assert!(Instant::now() < until, "it is not listed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let session = app().reserve().await.expect("there is room");
        let asked = async |path: &str, body: &str| {
            let call = AppCall::post(path.into(), body.to_owned().into());
            let answer = session.call(call).await.expect("it answers");
            let status = answer.status();
            let body = answer.bytes(1 << 16).await.expect("it is short");
            (status, String::from_utf8(body.to_vec()).expect("text"))
        };
        assert_eq!(asked("say", "quiet").await, (200, "QUIET".into()));
        let (status, urls) = asked("start", "").await;
        assert_eq!(status, 200, "{urls}");
        let (input, output) = urls.trim().split_once('\n').expect("two addresses");
        let heard = start(&["trickle", "sub", output, "--start", "0"]);
        let said = start_fed(&["trickle", "pub", input, "--cut", "line"]);
        let said = tokio::task::spawn_blocking(|| said.end(b"one\ntwo\n".to_vec()));
        said.await.expect("it ends").succeeded();
        // The end of what comes in is that of what goes out.
        let heard = tokio::task::spawn_blocking(|| heard.end(Vec::new()));
        let heard = heard.await.expect("it ends");
        heard.succeeded();
        assert_eq!(heard.text(), "ONE\nTWO\n");
        assert_eq!(asked("stop", "").await, (200, "over\n".into()));
        // It is over, and the app says so by the words of the orchestrator.
        let again = session.call(AppCall::post("say".into(), "x".into())).await;
        assert!(again.is_err() || again.is_ok_and(|answer| answer.status() == 404));
        stop.close();
        let ended = hosting.await.expect("it does not panic");
        ended.expect("it leaves in order");
        let left = app().list().await;
        assert!(
            !left.is_ok_and(|runners| !runners.is_empty()),
            "it has left"
        );
    });
}
