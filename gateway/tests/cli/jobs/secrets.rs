//! Secrets given on the command line or in files appear in no log.

use std::io::BufReader;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Devnet;
use crate::http::{Request, listen, respond};
use crate::process::CLIP;
use crate::run::{Scratch, run};
use crate::signer::{KEY, Signer};

const CALLER: &str = "caller-3b1f";
const HOOK: &str = "hook-77aa";
const PATH: &str = "path-9c04";

#[test]
fn no_secret_is_logged_even_when_everything_is() {
    let (asked, questions) = std::sync::mpsc::channel();
    let hook = listen(move |stream| {
        let question = Request::read(&mut BufReader::new(&stream)).expect("a question");
        let _ = asked.send(question.head);
        let _ = respond(&stream, (200, br#"{"status":200}"#));
    });
    let signer = Signer::start(&[
        "--static-chain",
        "--webhook",
        &format!("{hook}/{PATH}?key={PATH}"),
        "--webhook-header",
        &format!("Authorization: Bearer {HOOK}"),
        "--log",
        "trace",
    ]);
    let net = Devnet::start("tokio");
    let token = serde_json::json!({
        "signer": format!("http://{}", signer.address),
        "signer_headers": {"Authorization": format!("Bearer {CALLER}")},
        "orchestrators": [net.orchestrator],
    });
    let token = STANDARD.encode(token.to_string());
    let output = Scratch::new("secrets");
    let mut arguments = vec!["live", "--token", &token, "--model-id", "noop"];
    arguments.extend(["--input", CLIP, "--output", output.path()]);
    arguments.extend(["--duration", "2s", "--log", "trace"]);
    let ended = run(&arguments);
    ended.succeeded();
    net.stop();
    // All of them were used.
    let question = questions.recv().expect("a payment was asked for");
    assert!(question.contains(HOOK) && question.contains(PATH));
    let said = signer.server.stop("INT");
    assert!(said.contains("TRACE") && ended.stderr.contains("TRACE"));
    for log in [&said, &ended.stderr] {
        for secret in [KEY, CALLER, HOOK, PATH, token.as_str()] {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret} is in the log");
        }
    }
}
