//! A trickle server among peers that mean it no good.

use std::cell::Cell;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use livepeer_core::trickle::server::{self, Refused};
use livepeer_core::trickle::subscriber::{self, Subscriber};
use livepeer_core::trickle::{ContentType, Seq, Start};

use super::*;
use crate::http::HEADER_TIMEOUT;

/// How many requests are left half-open, if the system lets us open as many files in time.
const HALF_OPEN: usize = 10_000;
/// A busy machine takes its time to connect, and the server closes those that do not come to the end of their head.
const OPENING: Duration = Duration::from_secs(HEADER_TIMEOUT.as_secs() / 2);
/// Files that other tests of the process may need meanwhile.
const SPARE_FILES: usize = 600;
/// The most memory that a half-open request may cost, both ends of it in this process.
const BYTES_EACH: usize = 64 << 10;
/// Memory that may come and go for other reasons.
const BYTES_ANYWAY: usize = 96 << 20;
/// No segment of the undisturbed channel may take longer, on a machine that others use too.
const UNDISTURBED: Duration = Duration::from_secs(3);

type Channels<R> = Handle<server::Server, R>;

/// Lets one of these tests run at a time in a process: the files that it may open are shared.
static ALONE: Mutex<()> = Mutex::new(());

/// Nonsense gets a clear status, requests that never end cost little, and a channel goes on as if nothing were.
#[expect(
    clippy::await_holding_lock,
    reason = "each test has a thread of its own, which may wait"
)]
pub async fn hostile_sockets_disturb_no_channel<R: Runtime>(runtime: R) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = server::Config::default();
    let channels = Driver::new(runtime.clone()).drive(server::Server::new(runtime.now(), config));
    channels
        .with(|m, now| {
            m.create_channel(now, "steady", ContentType::default())?;
            m.create_channel(now, "victim", ContentType::default())
        })
        .expect("it is new");
    let socket = Server::bind(&channels, LOOPBACK, None)
        .await
        .expect("a free port");
    let over = Cell::new(false);
    life::both(steady(&runtime, &channels, &socket, &over), async {
        nonsense(&runtime, &socket).await;
        half_open(&runtime, &socket).await;
        over.set(true);
    })
    .await;
}

/// Publishes and reads one segment after the other, each in time.
async fn steady<R: Runtime>(
    runtime: &R,
    channels: &Channels<R>,
    socket: &Server<R>,
    over: &Cell<bool>,
) {
    let from = url(socket, false, "/ai/trickle/steady");
    let start = Start::At(Seq::ZERO);
    let reader = Subscriber::new(runtime.now(), subscriber::Config::default(), from, start);
    let reader = Driver::new(runtime.clone()).drive(reader);
    let mut next = Seq::ZERO;
    while !over.get() {
        let sent = next.get().to_string();
        let published = channels.with(|m, now| m.publish(now, "steady", sent.clone().into()));
        assert_eq!(published, Ok::<_, Refused>(next));
        let mut got = Vec::new();
        within(runtime, UNDISTURBED, "the undisturbed channel", async {
            loop {
                match reader.next().await.expect("the machine is open") {
                    subscriber::Event::Data(_, data) => got.extend_from_slice(&data),
                    subscriber::Event::End(seq) => return assert_eq!(seq, next),
                    subscriber::Event::Begin(..) => {}
                    event => panic!("at {next}: {event:?}"),
                }
            }
        })
        .await;
        assert_eq!(got, sent.as_bytes());
        next = next.next();
        rest(runtime, Duration::from_millis(2)).await;
    }
}

/// Checks that malformed requests get a clear refusal, and leave nothing behind.
async fn nonsense<R: Runtime>(runtime: &R, socket: &Server<R>) {
    let head = |line: &str, fields: &str| {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        format!("{method} /ai/trickle/{path} HTTP/1.1\r\nhost: x\r\n{fields}\r\n")
    };
    let long = "x".repeat(200_000);
    let cases = [
        (head("GET victim/-3", ""), 400),
        (head("GET victim/99999999999999999999", ""), 400),
        (head("GET victim/9223372036854775808", ""), 400),
        (head("GET victim/-9223372036854775808", ""), 400),
        (head("GET victim/abc", ""), 400),
        (head("GET victim/1.5", ""), 400),
        (head("GET victim/%00", ""), 400),
        (head("GET victim/%zz", ""), 400),
        (head("GET victim/9223372036854775807", ""), 470),
        (head("GET nobody/0", ""), 404),
        (head("GET victim/0/0", ""), 404),
        (head("POST victim/-2", "content-length: 0\r\n"), 400),
        (head("POST victim/x", "content-length: 0\r\n"), 400),
        (head("DELETE victim/-1", ""), 400),
        (head("DELETE victim/17", ""), 400),
        (head("DELETE victim/next", ""), 400),
        (head("POST _changes/0", "content-length: 0\r\n"), 403),
        (head("PATCH victim/0", ""), 405),
        (
            head("GET victim/0", "content-length: 18446744073709551616\r\n"),
            400,
        ),
        (
            head(
                "POST victim/0",
                "content-length: 1\r\ncontent-length: 2\r\n",
            ),
            400,
        ),
        (head("POST victim/0", "transfer-encoding: rot13\r\n"), 400),
        (head("GET victim/next", &format!("x: {long}\r\n")), 431),
        (head("GET victim/next", &"a: b\r\n".repeat(1_000)), 431),
        (head("GET victim/next", "lp-trickle-seq: \u{1f}\r\n"), 400),
        (
            head("GET victim/next", "lp-trickle-latest: -1\r\nrange: x\r\n"),
            200,
        ),
        (format!("GET /{} HTTP/1.1\r\n\r\n", &long[..20_000]), 414),
        (
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n".to_owned(),
            400,
        ),
    ];
    for (sent, status) in cases {
        let mut peer = raw(runtime, socket).await;
        // It may be refused before it is complete.
        let _ = peer.write(sent.as_bytes()).await;
        let answer = peer.read_to("\r\n\r\n").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{sent:.60?}: {answer}"
        );
    }
    // A body that makes no sense breaks its segment and nothing else.
    for body in ["ffffffffffffffffff\r\n", "-1\r\n", "\r\n\r\n\r\n"] {
        let mut peer = raw(runtime, socket).await;
        let head = head("POST victim/0", "transfer-encoding: chunked\r\n");
        let _ = peer.write(format!("{head}{body}").as_bytes()).await;
        let answer = peer.read_all().await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 500 "),
            "{body:?}: {answer}"
        );
    }
}

/// Requests that begin and never end.
async fn half_open<R: Runtime>(runtime: &R, socket: &Server<R>) {
    let before = resident();
    let until = runtime.now() + OPENING;
    let mut peers = Vec::new();
    for i in 0..HALF_OPEN.min(files_left() / 2) {
        if runtime.now() > until {
            break;
        }
        let mut peer = raw(runtime, socket).await;
        let said = match i % 5 {
            0 => "",
            1 => "POST /ai/trickle/vic",
            2 => {
                "POST /ai/trickle/victim/0 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            }
            3 => "GET /ai/trickle/victim/0 HTTP/1.1\r\nhost: x\r\n\r\n",
            _ => {
                "POST /ai/trickle/victim/1 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf"
            }
        };
        peer.write(said.as_bytes())
            .await
            .expect("the server listens");
        peers.push(peer);
    }
    let count = peers.len();
    while socket.connections() < count {
        rest(runtime, Duration::from_millis(5)).await;
    }
    // The others are still served, and at once.
    let client = Side::client(runtime);
    let next = get(url(socket, false, "/ai/trickle/victim/next"));
    assert_eq!(client.fetch(next).await, (200, b"2".to_vec()));
    if let (Some(before), Some(now)) = (before, resident()) {
        let grown = now.saturating_sub(before);
        assert!(
            grown <= BYTES_ANYWAY + count * BYTES_EACH,
            "{count} half-open requests cost {grown} bytes"
        );
    }
    drop(peers);
    while socket.connections() > 2 {
        rest(runtime, Duration::from_millis(5)).await;
    }
}

/// How many files may still be opened, as far as the system says.
fn files_left() -> usize {
    let limit = fs::read_to_string("/proc/self/limits")
        .ok()
        .and_then(|limits| {
            let line = limits
                .lines()
                .find(|line| line.starts_with("Max open files"))?;
            line.split_whitespace().nth(3)?.parse().ok()
        });
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    limit
        .unwrap_or(1024_usize)
        .saturating_sub(open + SPARE_FILES)
}

/// The memory of this process, as far as the system says.
fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}
