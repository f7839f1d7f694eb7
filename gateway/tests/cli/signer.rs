//! The remote signer as its operators and callers meet it: how it starts, or says why not, and what it answers.

use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::files::Folder;
use crate::http::{Request, call, listen};
use crate::process::{Running, gateway};
use crate::server::Server;

pub(crate) const KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707";

/// The example of the format's definition.
const KEYSTORE: &str = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
    "ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2",
    "kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256",
    "salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
    "mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},
    "id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;

fn command(arguments: &[&str]) -> Command {
    let mut command = gateway();
    command
        .arg("signer")
        .args(arguments)
        .env("LIVEPEER_SIGNER_KEY", KEY);
    command
}

/// A signer that runs, and stops when this is dropped.
pub(crate) struct Signer {
    pub(crate) server: Server,
    pub(crate) address: String,
}

impl Signer {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = command(&["--listen", "127.0.0.1:0"]);
        let mut lines = 0;
        let server = Server::start(command.args(arguments), |_| {
            lines += 1;
            lines == 2
        });
        let address = server
            .introduction
            .split_once("://")
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .unwrap_or_else(|| panic!("no address in {:?}", server.introduction))
            .to_owned();
        Self { server, address }
    }

    fn introduction(&self) -> &str {
        &self.server.introduction
    }

    fn post(&self, path: &str, body: &[u8]) -> (u16, String) {
        call(&self.address, "POST", path, &[], body)
    }

    fn get(&self, path: &str) -> (u16, String) {
        call(&self.address, "GET", path, &[], b"")
    }
}

/// A chain behind JSON-RPC, for as long as the tests run.
fn chain(id: u64, deposit: u64) -> String {
    let url = listen(move |stream| serve_chain(&stream, id, deposit));
    format!("{url}/secret")
}

fn serve_chain(mut stream: &TcpStream, id: u64, deposit: u64) {
    let mut reader = BufReader::new(stream);
    while let Ok(request) = Request::read(&mut reader) {
        let asked: Vec<serde_json::Value> = serde_json::from_slice(&request.body).expect("a batch");
        let answers: Vec<_> = asked
            .iter()
            .map(|one| serde_json::json!({"id": one["id"], "result": answer(one, id, deposit)}))
            .collect();
        let text = serde_json::to_string(&answers).expect("JSON");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
        if stream.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(one: &serde_json::Value, id: u64, deposit: u64) -> serde_json::Value {
    let word = |n: u64| format!("{n:064x}");
    match one["method"].as_str().expect("a method") {
        "eth_chainId" => format!("{id:#x}").into(),
        "eth_getBlockByNumber" => serde_json::json!({"number": "0x100", "l1BlockNumber": "0x64"}),
        _ => {
            let data = one["params"][0]["data"].as_str().expect("data");
            let words = match &data[..10] {
                "0xe1a589da" => word(deposit) + &word(0) + &word(2_000) + &word(0),
                "0x3aa4add4" => "11".repeat(32),
                "0x8807f36e" => word(7),
                _ => word(0xb0),
            };
            format!("0x{words}").into()
        }
    }
}

fn fails(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = command(arguments);
    for (name, value) in environment {
        if value.is_empty() {
            command.env_remove(name);
        } else {
            command.env(name, value);
        }
    }
    let ended = Running::start(&mut command).end(Vec::new());
    assert!(ended.took < Duration::from_secs(30), "{arguments:?}");
    assert!(ended.stdout.is_empty(), "{arguments:?}");
    let text = &ended.stderr;
    assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
    assert!(text.starts_with("error: "), "{text}");
    (ended.code().expect("it exits"), ended.stderr)
}

#[test]
fn whatever_keeps_it_from_starting_is_one_clear_line() {
    let folder = Folder::new("signer-start");
    let file = |name: &str, text: &str| folder.private(name, text);
    let (empty, odd) = (file("empty", "\n"), file("odd", "abc"));
    let (keystore, wrong) = (file("keystore", KEYSTORE), file("password", "guess\n"));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("known").to_string();
    let other_chain = chain(1, 5);
    let any = "127.0.0.1:0";
    let none = &[("LIVEPEER_SIGNER_KEY", "")][..];
    for (arguments, environment, code, says) in [
        (
            &["--static-chain", "--listen", any][..],
            none,
            2,
            "no key is named",
        ),
        (
            &["--static-chain", "--listen", any, "--key-file", &empty],
            &[],
            1,
            "is empty",
        ),
        (
            &["--static-chain", "--listen", any, "--key-file", &odd],
            &[],
            1,
            "no secret key",
        ),
        (
            &["--static-chain", "--listen", any, "--key-file", "/no/such"],
            &[],
            1,
            "No such file",
        ),
        (
            &["--static-chain", "--listen", any],
            &[("LIVEPEER_SIGNER_KEY", "0x12")],
            1,
            "no secret key",
        ),
        (
            &[
                "--static-chain",
                "--listen",
                any,
                "--keystore",
                &keystore,
                "--password-file",
                &wrong,
            ],
            &[],
            1,
            "password of",
        ),
        (
            &["--static-chain", "--listen", any, "--keystore", &keystore],
            &[("LIVEPEER_SIGNER_PASSWORD", "guess")],
            1,
            "is wrong",
        ),
        (
            &["--static-chain", "--listen", any, "--keystore", &keystore],
            &[],
            2,
            "is not given",
        ),
        (
            &[
                "--static-chain",
                "--listen",
                any,
                "--keystore",
                &odd,
                "--password-file",
                &wrong,
            ],
            &[],
            1,
            "no keystore",
        ),
        (&["--listen", any], &[], 2, "what the chain is"),
        (
            &["--listen", any, "--rpc", "http://127.0.0.1:9"],
            &[],
            1,
            "Connection refused",
        ),
        (
            &["--listen", any, "--rpc", &other_chain],
            &[],
            1,
            "serves chain 1, not 42161",
        ),
        (
            &["--listen", &taken, "--static-chain"],
            &[],
            1,
            "Address already in use",
        ),
        (
            &["--listen", "0.0.0.0:0", "--static-chain"],
            &[],
            2,
            "whoever reaches it could spend",
        ),
        (
            &["--listen", any, "--static-chain", "--discovery"],
            &[],
            2,
            "needs --orchestrator",
        ),
        (
            &[
                "--listen",
                any,
                "--static-chain",
                "--tls-cert",
                &odd,
                "--tls-key",
                &odd,
            ],
            &[],
            1,
            "no certificate",
        ),
        (
            &["--listen", any, "--static-chain", "--tls-cert", &odd],
            &[],
            2,
            "--tls-key",
        ),
        (
            &[
                "--listen",
                any,
                "--static-chain",
                "--max-model-price",
                "nonsense/x=1",
            ],
            &[],
            2,
            "pipeline",
        ),
    ] {
        let (exit, text) = fails(arguments, environment);
        assert_eq!(exit, code, "{text}");
        assert!(text.contains(says), "{says}: {text}");
        assert!(
            !text.contains("secret/") && !text.contains("guess"),
            "{text}"
        );
    }
}

#[test]
fn a_keystore_with_the_right_password_is_who_it_is() {
    let folder = Folder::new("signer-keystore");
    let keystore = folder.private("keystore", KEYSTORE);
    let password = folder.private("password", "testpassword\nand notes\n");
    let signer = Signer::start(&[
        "--static-chain",
        "--keystore",
        &keystore,
        "--password-file",
        &password,
    ]);
    let who = "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b";
    assert!(
        signer.introduction().contains(who),
        "{}",
        signer.introduction()
    );
    let (status, body) = signer.post("/sign-orchestrator-info", b"");
    assert_eq!(status, 200);
    assert!(body.contains(who), "{body}");
}

#[test]
fn the_chain_is_read_through_whichever_endpoint_serves_the_right_one() {
    let endpoints = format!(
        "http://127.0.0.1:9,{},{}",
        chain(1, 5),
        chain(42_161, 5_000_000)
    );
    let signer = Signer::start(&["--rpc", &endpoints]);
    assert!(
        signer.introduction().contains("deposit 5,000,000 wei"),
        "{}",
        signer.introduction()
    );
    assert_eq!(signer.get("/healthz").0, 200);
    let (status, figures) = signer.get("/metrics");
    assert_eq!(status, 200);
    for line in [
        "livepeer_signer_deposit_wei 5000000",
        "livepeer_signer_reserve_wei 2000",
        "livepeer_signer_chain_round 7",
        "livepeer_signer_chain_l1_block 100",
    ] {
        assert!(
            figures.lines().any(|have| have == line),
            "{line}: {figures}"
        );
    }
}

#[test]
fn bad_requests_get_their_status_and_the_envelope() {
    let signer = Signer::start(&["--static-chain"]);
    let pay = "/generate-live-payment";
    let long = vec![b' '; (1 << 20) + 1];
    for (answer, status) in [
        (signer.post(pay, b""), 400),
        (signer.post(pay, b"{"), 400),
        (signer.post(pay, br#"{"orchestrator":"AA=="}"#), 400),
        (signer.post(pay, &long), 413),
        (signer.get(pay), 405),
        (signer.post("/healthz", b""), 405),
        (signer.get("/discover-orchestrators"), 404),
        (signer.get("/"), 404),
    ] {
        assert_eq!(answer.0, status, "{}", answer.1);
        let json: serde_json::Value = serde_json::from_str(&answer.1).expect("JSON");
        assert!(json["error"]["message"].is_string(), "{json}");
    }
    let long = "x".repeat(1 << 20);
    let answer = call(&signer.address, "POST", pay, &[("x-long", &long)], b"{}");
    assert_eq!(answer.0, 431);
    assert_eq!(signer.get("/healthz").0, 200, "it lives on");
}

#[test]
fn it_stops_in_order_when_it_is_told_to() {
    for name in ["TERM", "INT"] {
        let signer = Signer::start(&["--static-chain"]);
        // An idle connection does not hold it up.
        let _idle = TcpStream::connect(&signer.address).expect("it listens");
        let began = Instant::now();
        let said = signer.server.stop(name);
        assert!(began.elapsed() < Duration::from_secs(4));
        assert_eq!(said, "stopped\n");
    }
}
