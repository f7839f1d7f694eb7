//! The binary in processes of its own, and orchestrators that can be told to misbehave.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What ends sooner or later ends within this, or the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// Both executors, as `--runtime` takes them.
pub(crate) const RUNTIMES: [&str; 2] = ["tokio", "smol"];

/// Twelve seconds of video.
pub(crate) fn clip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("media/testsrc-360p30-12s.ts")
}

/// Its bytes.
pub(crate) fn clip_bytes() -> Vec<u8> {
    std::fs::read(clip()).expect("the clip comes with the sources")
}

/// A file that is removed with this.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("livepeer-gateway-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path of ours")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.0).expect("it was written")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn gateway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_livepeer-gateway"));
    command
        .env_remove("LIVEPEER_LOG")
        .env_remove("LIVEPEER_TOKEN")
        .env("RUST_BACKTRACE", "1");
    command
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    /// The one line of a failure that is explained. Before it there may be progress.
    pub(crate) fn error(&self) -> &str {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
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

/// A run that goes on.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(arguments: &[&str], input: Stdio) -> Self {
        let child = gateway()
            .args(arguments)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built with this test");
        Self(child)
    }

    /// Presses Ctrl-C.
    pub(crate) fn interrupt(&self) {
        signal(&self.0, "INT");
    }

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
        let mut stdin = self.0.stdin.take();
        let feeding = thread::spawn(move || {
            if let Some(stdin) = &mut stdin {
                // It may not want all of it.
                let _ = stdin.write_all(&input);
            }
        });
        let mut stdout = self.0.stdout.take().expect("it is piped");
        let reading = thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let mut stderr = self.0.stderr.take().expect("it is piped");
        let listening = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).map(|_| text)
        });
        let status = exit(&mut self.0);
        // Its streams end now, one way or the other.
        let status = status.unwrap_or_else(|| {
            let _ = self.0.kill();
            self.0.wait().expect("it is ours")
        });
        let read = "its streams end with it";
        feeding.join().expect(read);
        Ended {
            status,
            stdout: reading.join().expect(read).expect(read),
            stderr: listening.join().expect(read).expect(read),
        }
    }
}

/// Runs it to its end with nothing on standard input.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    Running::start(arguments, Stdio::null()).end(Vec::new())
}

/// Waits for a process, not forever.
fn exit(child: &mut Child) -> Option<ExitStatus> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let status = child.try_wait().expect("it is ours");
        if status.is_some() {
            return status;
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string())
        .status()
        .expect("every system has kill");
    assert!(sent.success());
}

/// A development network in a process of its own.
pub(crate) struct Devnet {
    process: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) orchestrator: String,
    pub(crate) signer: String,
}

impl Devnet {
    pub(crate) fn start(runtime: &str) -> Self {
        let mut process = gateway()
            .args(["devnet", "--runtime", runtime])
            .args(["--listen", "127.0.0.1:0", "--signer-listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built with this test");
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut second_word = |first: &str| {
            let mut line = String::new();
            lines.read_line(&mut line).expect("it says where it is");
            let mut words = line.split_whitespace();
            assert_eq!(words.next(), Some(first), "{line}");
            words.next().expect("an address").to_owned()
        };
        let orchestrator = second_word("orchestrator");
        let signer = second_word("signer");
        Self {
            process,
            lines,
            orchestrator,
            signer,
        }
    }

    /// Stops it as its user would; everything it said on stderr while it ran.
    pub(crate) fn stop(mut self) -> String {
        signal(&self.process, "INT");
        let mut rest = String::new();
        self.lines
            .read_to_string(&mut rest)
            .expect("its output ends with it");
        let mut said = String::new();
        self.process
            .stderr
            .take()
            .expect("it is piped")
            .read_to_string(&mut said)
            .expect("its output ends with it");
        let ended = exit(&mut self.process);
        assert!(ended.is_some_and(|status| status.success()), "{said}");
        said
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
