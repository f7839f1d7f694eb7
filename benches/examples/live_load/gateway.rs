//! The gateway that is measured: a process of its own, and requests to it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::Error;

/// How long the gateway may take to listen, and to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// At most this much is read of an answer.
const LONGEST_ANSWER: u64 = 256 << 10;
/// The path of all streams.
pub(crate) const LIVE: &str = "/live/video-to-video";

/// A gateway that runs. It is ended when this is dropped.
pub(crate) struct Gateway {
    child: Child,
    config: PathBuf,
    pub(crate) door: SocketAddr,
    pub(crate) rtmp: SocketAddr,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Gateway {
    /// Starts `program` at four ports from `first` on, before one orchestrator that costs nothing.
    pub(crate) async fn start(
        program: &str,
        first: u16,
        orchestrator: SocketAddr,
        threads: u64,
    ) -> Result<Self, Error> {
        let at = |offset: u16| SocketAddr::from(([127, 0, 0, 1], first + offset));
        let [door, ops, udp, rtmp] = [0, 1, 2, 3].map(at);
        let config = std::env::temp_dir().join(format!("live_load.{}.toml", std::process::id()));
        let said = format!(
            "serve.threads = {threads}\n[ingest]\nwebrtc_udp = \"{udp}\"\nrtmp = \"{rtmp}\"\n"
        );
        fs::write(&config, said)?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--offchain", "--allow-private", "--objects=memory"])
            .arg("--config")
            .arg(&config)
            .args(["--listen", &door.to_string(), "--ops", &ops.to_string()])
            .args(["--orchestrator", &format!("https://{orchestrator}")])
            .args(["--log", "error"])
            .stdout(Stdio::null());
        let child = command.spawn().map_err(|why| format!("{program}: {why}"))?;
        let mut gateway = Self {
            child,
            config,
            door,
            rtmp,
        };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(door).await.is_err() {
            if let Some(status) = gateway.child.try_wait()? {
                return Err(format!("{program} ended: {status}").into());
            }
            if Instant::now() > until {
                return Err(format!("nothing listens at {door}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(gateway)
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.config);
    }
}

/// Makes a request, each over a connection of its own, as senders and viewers do.
pub(crate) async fn ask(
    door: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer, Error> {
    let asking = async {
        let mut stream = TcpStream::connect(door).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {door}\r\nconnection: close\r\n\
             content-type: application/sdp\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream
            .take(LONGEST_ANSWER)
            .read_to_string(&mut answer)
            .await?;
        Ok::<_, Error>(answer)
    };
    let answer = timeout(PATIENCE, asking).await??;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("half an answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        status: status.ok_or("not an answer")?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
