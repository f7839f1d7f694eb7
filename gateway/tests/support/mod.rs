//! What tests of the binary share: running it, and a development network of it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary, away from what the machine's user has set.
pub(crate) fn gateway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_livepeer-gateway"));
    for name in [
        "LIVEPEER_LOG",
        "LIVEPEER_TOKEN",
        "LIVEPEER_SUBGRAPH",
        "LIVEPEER_RPC",
        "LIVEPEER_DEVNET_KEY",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    let began = Instant::now();
    let output = gateway()
        .args(arguments)
        .output()
        .expect("the binary was built with this test");
    Ran {
        output,
        took: began.elapsed(),
    }
}

/// How it ran.
pub(crate) struct Ran {
    pub(crate) output: Output,
    pub(crate) took: Duration,
}

impl Ran {
    pub(crate) fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).expect("text")
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).expect("text")
    }

    /// What standard output has as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout())
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout(), self.stderr()))
    }

    /// Its one line of failure.
    pub(crate) fn error(&self) -> String {
        assert_eq!(self.code(), Some(1), "{}{}", self.stdout(), self.stderr());
        let text = self.stderr();
        let errors: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{text}");
        errors[0].to_owned()
    }
}

/// A development network in a process of its own. Dropping it kills it.
pub(crate) struct Devnet {
    child: Child,
    pub(crate) orchestrators: Vec<String>,
    pub(crate) signer: String,
}

impl Devnet {
    pub(crate) fn start(orchestrators: usize, more: &[&str]) -> Self {
        let mut child = gateway()
            .args(["devnet", "--listen", "127.0.0.1:0"])
            .args(["--signer-listen", "127.0.0.1:0"])
            .args(["--orchestrators", &orchestrators.to_string()])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary was built with this test");
        let mut urls = Vec::new();
        let mut signer = String::new();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        for line in stdout.lines().map_while(Result::ok) {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("orchestrator"), Some(url)) => urls.push(url.to_owned()),
                (Some("signer"), Some(url)) => signer = url.to_owned(),
                // The end of the introduction.
                (Some("Ctrl-C"), _) => break,
                _ => {}
            }
        }
        assert_eq!(urls.len(), orchestrators, "the network did not start");
        Self {
            child,
            orchestrators: urls,
            signer,
        }
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        // Nothing to be done if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
