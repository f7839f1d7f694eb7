//! Runs of the binary: what goes in, what comes out, and how they end.

use std::io::{Read, Write as _};
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::files::Folder;
use crate::process::{Running, gateway, signal};
use crate::server::Server;

/// How long a command that ends sooner or later may take, at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// Both executors, as `--runtime` takes them.
pub(crate) const RUNTIMES: [&str; 2] = ["tokio", "smol"];

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    /// How long its end was waited for.
    pub(crate) took: Duration,
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as text.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.stdout).expect("text")
    }

    /// Standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.text(), self.stderr))
    }

    /// The line of a failure that is explained. Before it there may be progress.
    pub(crate) fn error(&self) -> &str {
        assert_eq!(self.code(), Some(1), "{self:?}");
        let mut lines = self.stderr.lines();
        let line = lines.next_back().expect("it says why");
        assert!(line.starts_with("error: "), "{}", self.stderr);
        assert!(!lines.any(|line| line.contains("error")), "{}", self.stderr);
        line
    }

    pub(crate) fn succeeded(&self) {
        assert!(self.status.success(), "{}", self.stderr);
    }
}

/// Runs it to its end with nothing on standard input.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    start(arguments).end(Vec::new())
}

/// Starts it with nothing on standard input.
pub(crate) fn start(arguments: &[&str]) -> Running {
    Running::start(gateway().args(arguments))
}

/// Starts it with a pipe for its standard input.
pub(crate) fn start_fed(arguments: &[&str]) -> Running {
    Running::start(gateway().args(arguments).stdin(Stdio::piped()))
}

impl Running {
    /// Feeds it.
    pub(crate) fn write(&mut self, input: &[u8]) {
        let stdin = self.0.stdin.as_mut().expect("it is piped");
        stdin.write_all(input).expect("it reads");
    }

    /// Waits for so many bytes of its output.
    pub(crate) fn read(&mut self, count: usize) -> Vec<u8> {
        let stdout = self.0.stdout.as_mut().expect("it is piped");
        let mut bytes = vec![0; count];
        stdout.read_exact(&mut bytes).expect("it writes");
        bytes
    }

    /// Waits for its end, feeding it `input`.
    pub(crate) fn end(mut self, input: Vec<u8>) -> Ended {
        let began = Instant::now();
        let stdin = self.0.stdin.take();
        let feeding = thread::spawn(move || {
            if let Some(mut stdin) = stdin {
                // It may not want all of it.
                let _ = stdin.write_all(&input);
            }
        });
        let stdout = all_of(self.0.stdout.take());
        let stderr = all_of(self.0.stderr.take());
        let status = self.wait(PATIENCE);
        let ends = "its streams end with it";
        feeding.join().expect(ends);
        Ended {
            status,
            stdout: stdout.join().expect(ends),
            stderr: String::from_utf8(stderr.join().expect(ends)).expect("text"),
            took: began.elapsed(),
        }
    }
}

/// Reads on while somebody else waits; nothing if somebody took the stream.
fn all_of(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes).expect("it is open");
        }
        bytes
    })
}

impl Server {
    /// Stops it in order with a signal of that name; everything it said on standard error.
    pub(crate) fn stop(mut self, name: &str) -> String {
        signal(self.running.0.id(), name);
        let status = self.running.wait(PATIENCE);
        let said: String = self.said.iter().map(|line| line + "\n").collect();
        assert!(status.success(), "{said}");
        said
    }
}

/// A file that is removed with this, and whatever is put beside it.
pub(crate) struct Scratch {
    path: String,
    _folder: Folder,
}

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        Self {
            path: folder.path(name),
            _folder: folder,
        }
    }

    pub(crate) fn with(name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let file = Self::new(name);
        std::fs::write(&file.path, bytes).expect("there is room");
        file
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("it was written")
    }
}
