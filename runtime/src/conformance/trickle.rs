//! A channel from a publisher over a server to a subscriber, with connections that break.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Protocol, Trust};
use livepeer_core::trickle::publisher::{self, Publisher, Unbegun, Unwritten};
use livepeer_core::trickle::subscriber::{self, Subscriber};
use livepeer_core::trickle::{Ending, Seq, Start, server};
use livepeer_core::{Rng, Seed};

use super::*;
use crate::signal::{Signal, Stop};

/// A relay that breaks connections.
struct Cutter {
    at: SocketAddr,
    cuts: Arc<AtomicUsize>,
    stop: Arc<Signal>,
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.stop.raise(Stop::Now);
    }
}

impl Cutter {
    /// Relays to `to`, and cuts one connection in three after some bytes, up to `within`, either way.
    async fn new<R: Runtime>(runtime: &R, to: SocketAddr, within: u64, seed: Seed) -> Self {
        let listener = runtime.bind(LOOPBACK).await.expect("a free port");
        let at = runtime.local_addr(&listener).expect("it has an address");
        let cuts = Arc::new(AtomicUsize::new(0));
        let stop = Arc::<Signal>::default();
        let task = {
            let (runtime, cuts) = (runtime.clone(), Arc::clone(&cuts));
            async move {
                let mut rng = Rng::new(seed);
                while let Ok((near, _)) = runtime.accept(&listener).await {
                    let Ok(far) = runtime.connect(to).await else {
                        continue;
                    };
                    let limit = match rng.below(3) {
                        0 => 1 + rng.below(within),
                        _ => u64::MAX,
                    };
                    let cuts = Arc::clone(&cuts);
                    runtime.spawn(async move {
                        let (mut near, mut far) = (near, far);
                        if relay(&mut near, &mut far, limit, &AtomicU64::new(0)).await {
                            cuts.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            }
        };
        let until = Arc::clone(&stop);
        runtime.spawn(async move {
            until.unless_stopped(std::pin::pin!(task)).await;
        });
        Self { at, cuts, stop }
    }

    fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }
}

/// Bytes on their way from one stream to another.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    moved: u64,
    ended: bool,
    closed: bool,
}

impl Pipe {
    /// Moves what can be moved. `Err` if a stream broke.
    fn poll<A: Read + Unpin, B: Write + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut A,
        to: &mut B,
        room: u64,
    ) -> std::io::Result<()> {
        loop {
            while !self.bytes.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, &self.bytes) {
                    Poll::Ready(n) => drop(self.bytes.drain(..n?)),
                    Poll::Pending => return Ok(()),
                }
            }
            if self.ended {
                if !self.closed && Pin::new(to).poll_shutdown(cx).is_ready() {
                    self.closed = true;
                }
                return Ok(());
            }
            let mut bytes = [0; 16 << 10];
            let room = room.saturating_sub(self.moved).clamp(1, bytes.len() as u64);
            let mut buf = ReadBuf::new(&mut bytes[..room as usize]);
            match Pin::new(&mut *from).poll_read(cx, buf.unfilled()) {
                Poll::Ready(read) => read?,
                Poll::Pending => return Ok(()),
            }
            self.ended = buf.filled().is_empty();
            self.moved += buf.filled().len() as u64;
            self.bytes.extend_from_slice(buf.filled());
        }
    }
}

/// Relays until both sides have ended, one breaks, or `limit` bytes went one way: then it cuts and says so. `moved` is
/// how many went either way.
pub(super) async fn relay<S: Read + Write + Unpin>(
    near: &mut S,
    far: &mut S,
    limit: u64,
    moved: &AtomicU64,
) -> bool {
    let (mut there, mut back) = (Pipe::default(), Pipe::default());
    std::future::poll_fn(|cx| {
        let broke =
            there.poll(cx, near, far, limit).is_err() || back.poll(cx, far, near, limit).is_err();
        moved.store(there.moved + back.moved, Ordering::Relaxed);
        let cut = there.moved >= limit || back.moved >= limit;
        if broke || cut || (there.closed && back.closed) {
            Poll::Ready(cut)
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Segments of very different sizes.
fn segments(count: usize, most: u64, rng: &mut Rng) -> Vec<Vec<u8>> {
    (0..count)
        .map(|_| {
            let size = 1 + rng.below(most) as usize;
            let mut bytes = pattern(size);
            bytes[0] = rng.below(256) as u8;
            bytes
        })
        .collect()
}

/// How many segments the reader has whole.
type Progress = AtomicU64;

/// Publishes, no more than three segments ahead of the reader.
async fn publish<R: Runtime>(
    runtime: &R,
    handle: &Handle<Publisher, R>,
    segments: &[Vec<u8>],
    read: &Progress,
) {
    let news = async || match handle.next().await.expect("the machine is open") {
        publisher::Event::Lost(seq, failure) => panic!("{seq} was lost: {failure}"),
        publisher::Event::Closed(ending) => panic!("it closed: {ending:?}"),
        _ => {}
    };
    for (n, segment) in segments.iter().enumerate() {
        while n as u64 > read.load(Ordering::Relaxed) + 2 {
            rest(runtime, Duration::from_millis(1)).await;
        }
        let seq = loop {
            match handle.with(|m, now| m.begin(now)) {
                Ok(seq) => break seq,
                Err(Unbegun::Busy) => news().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(seq.get(), n as u64);
        for chunk in segment.chunks(7001) {
            let mut data = Bytes::copy_from_slice(chunk);
            while let Err(error) = handle.with(|m, now| m.write(now, data.clone())) {
                match error {
                    Unwritten::Full(back) => data = back,
                    error => panic!("{error}"),
                }
                news().await;
            }
        }
        handle.with(|m, now| m.end(now)).expect("it is open");
    }
    while read.load(Ordering::Relaxed) < segments.len() as u64 {
        rest(runtime, Duration::from_millis(1)).await;
    }
    handle.with(|m, now| m.close(now));
    loop {
        match handle.next().await.expect("the machine is open") {
            publisher::Event::Closed(ending) => return assert_eq!(ending, Ending::Closed),
            publisher::Event::Lost(seq, failure) => panic!("{seq} was lost: {failure}"),
            _ => {}
        }
    }
}

/// Reads until the channel ends; every segment has to be there, whole and once.
async fn subscribe<R: Runtime>(
    handle: &Handle<Subscriber, R>,
    segments: &[Vec<u8>],
    read: &Progress,
) {
    let mut at = 0;
    let mut body = Vec::new();
    loop {
        match handle.next().await.expect("the machine is open") {
            subscriber::Event::Begin(seq, _) => {
                assert_eq!((seq.get(), body.len()), (at as u64, 0));
            }
            subscriber::Event::Data(seq, data) => {
                assert_eq!(seq.get(), at as u64);
                body.extend_from_slice(&data);
            }
            subscriber::Event::End(seq) => {
                assert_eq!(seq.get(), at as u64);
                assert!(body == segments[at], "segment {at} changed on its way");
                body.clear();
                at += 1;
                read.store(at as u64, Ordering::Relaxed);
            }
            subscriber::Event::Closed(ending) => {
                assert_eq!((ending, at), (Ending::EndOfStream, segments.len()));
                return;
            }
            event => panic!("after segment {at}: {event:?}"),
        }
    }
}

/// Publishes to and reads from a server, over the relays if there are any, and compares.
async fn carry<R: Runtime>(
    runtime: &R,
    segments: &[Vec<u8>],
    secure: bool,
    protocol: Protocol,
    cut: Option<(u64, Seed)>,
) -> usize {
    let config = server::Config {
        autocreate: true,
        // Less than what is reported unasked: the server has to ask.
        reader_window: 10_000,
        ..server::Config::default()
    };
    let machine = server::Server::new(runtime.now(), config);
    let relay = Driver::new(runtime.clone()).drive(machine);
    let tls = if secure {
        tls(&identity(runtime))
    } else {
        None
    };
    let socket = Server::bind(&relay, LOOPBACK, tls)
        .await
        .expect("a free port");
    let mut cutters = Vec::new();
    let mut at = [socket.local_addr(); 2];
    if let Some((within, seed)) = cut {
        let mut rng = Rng::new(seed);
        for at in &mut at {
            let cutter = Cutter::new(runtime, *at, within, rng.fork()).await;
            *at = cutter.at;
            cutters.push(cutter);
        }
    }
    let scheme = if secure { "https" } else { "http" };
    let [to, from] =
        at.map(|at| Url::parse(&format!("{scheme}://{at}/ai/trickle/x")).expect("a URL"));
    let driver = Driver::new(runtime.clone());
    let publisher = driver.drive(Publisher::new(
        runtime.now(),
        publisher::Config {
            create: true,
            trust: Trust::FirstUse,
            protocol,
            ..publisher::Config::default()
        },
        to,
    ));
    let subscriber = driver.drive(Subscriber::new(
        runtime.now(),
        subscriber::Config {
            trust: Trust::FirstUse,
            protocol,
            max_resumes: 100,
            max_failures: 100,
            ..subscriber::Config::default()
        },
        from,
        Start::At(Seq::ZERO),
    ));
    let read = Progress::new(0);
    life::both(
        publish(runtime, &publisher, segments, &read),
        subscribe(&subscriber, segments, &read),
    )
    .await;
    cutters.iter().map(Cutter::cuts).sum()
}

/// Over every protocol, what is read is what was published.
pub async fn a_channel_carries_every_byte<R: Runtime>(runtime: R) {
    let mut rng = Rng::new([1; 32]);
    let segments = segments(20, 300_000, &mut rng);
    for secure in [false, true] {
        for protocol in [HTTP1, HTTP2] {
            carry(&runtime, &segments, secure, protocol, None).await;
        }
    }
}

/// A channel goes on over connections that break in the middle of anything, on both sides of the server.
pub async fn a_channel_survives_cut_connections<R: Runtime>(runtime: R) {
    for round in 0..3 {
        let mut rng = Rng::new([round; 32]);
        let segments = segments(30, 60_000, &mut rng);
        let cuts = carry(
            &runtime,
            &segments,
            false,
            HTTP1,
            Some((50_000, rng.fork())),
        )
        .await;
        assert!(cuts > 0, "nothing was cut in round {round}");
    }
}
