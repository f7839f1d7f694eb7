//! Servers of the binary: the development network and others.

use std::io::{BufRead as _, BufReader};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::process::{Running, gateway};

/// A server in a process of its own, killed when this is dropped.
pub(crate) struct Server {
    pub(crate) running: Running,
    /// The text that the server printed when it had started.
    pub(crate) introduction: String,
    /// The server's standard error, line by line.
    pub(crate) said: Receiver<String>,
}

impl Server {
    /// Starts it, and reads what it prints until the line that is the `last` one.
    pub(crate) fn start(command: &mut Command, mut last: impl FnMut(&str) -> bool) -> Self {
        let (tell, said) = channel();
        let mut server = Self {
            running: Running::start(command),
            introduction: String::new(),
            said,
        };
        let child = &mut server.running.0;
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        for line in stdout.lines().map_while(Result::ok) {
            server.introduction += &line;
            server.introduction.push('\n');
            if last(&line) {
                break;
            }
        }
        server
    }
}

/// A development network.
pub(crate) struct Devnet {
    pub(crate) server: Server,
    pub(crate) orchestrators: Vec<String>,
    pub(crate) signer: String,
}

impl Devnet {
    pub(crate) fn start(orchestrators: usize, more: &[&str]) -> Self {
        Self::at("127.0.0.1:0", orchestrators, more)
    }

    /// Starts one whose first orchestrator listens there.
    pub(crate) fn at(place: &str, orchestrators: usize, more: &[&str]) -> Self {
        let server = Server::start(
            gateway()
                .args(["devnet", "--listen", place])
                .args(["--signer-listen", "127.0.0.1:0"])
                .args(["--orchestrators", &orchestrators.to_string()])
                .args(more),
            |line| line.starts_with("Ctrl-C"),
        );
        let (mut urls, mut signer) = (Vec::new(), String::new());
        for line in server.introduction.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("orchestrator"), Some(url)) => urls.push(url.to_owned()),
                (Some("signer"), Some(url)) => signer = url.to_owned(),
                _ => {}
            }
        }
        assert_eq!(urls.len(), orchestrators, "the network did not start");
        Self {
            server,
            orchestrators: urls,
            signer,
        }
    }
}
