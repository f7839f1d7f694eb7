//! The binary in processes of its own.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Twelve seconds of video, in segments of one.
pub(crate) const CLIP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/media/testsrc-360p30-12s.ts");

/// The binary, away from what the machine's user has set, with nothing on standard input.
pub(crate) fn gateway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_livepeer-gateway"));
    for name in [
        "LIVEPEER_DEVNET_KEY",
        "LIVEPEER_LOG",
        "LIVEPEER_RPC",
        "LIVEPEER_SIGNER_KEY",
        "LIVEPEER_SIGNER_PASSWORD",
        "LIVEPEER_SUBGRAPH",
        "LIVEPEER_TOKEN",
    ] {
        command.env_remove(name);
    }
    command
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A process that ends when this is dropped, whatever becomes of the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.spawn();
        Self(child.expect("the binary was built with this test"))
    }

    pub(crate) fn kill(&mut self) {
        // Nothing to be done if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits for the end, not forever.
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.0.try_wait().expect("it is ours") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal of that name to the process of that number.
pub(crate) fn signal(id: u32, name: &str) {
    let sent = Command::new("kill")
        .args([format!("-{name}"), id.to_string()])
        .status()
        .expect("every system has kill");
    assert!(sent.success());
}

/// Stops a process in its tracks: the signal is on its way until one of its threads has taken it. Only Linux says when.
pub(crate) fn freeze(id: u32) {
    signal(id, "STOP");
    let state = || std::fs::read_to_string(format!("/proc/{id}/stat"));
    while state().is_ok_and(|state| !state.contains(") T ")) {
        thread::sleep(Duration::from_millis(1));
    }
}
