//! Senders and viewers that come and go, with a goodbye and without, and what remains of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use livepeer_benches::process::{Usage, open_files};
use tokio::time::sleep;

use super::clip::{Clip, nanos};
use super::gateway::Gateway;
use super::peer::{Part, Peer};
use super::sender::{Sender, Way};
use super::tally::Stream;
use crate::{Error, Load};

/// How often the gateway is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long it may take to forget all that was: sessions are remembered for half a minute, and a sender of RTMP that is lost
/// is waited for.
const FORGET: Duration = Duration::from_secs(60);
/// The part by which the memory of the last quarter may be above that of the second.
const GROWTH: f64 = 0.05;
/// Memory that may come on top of it, in KiB: what an allocator takes at a time.
const GRAIN: f64 = 2_048.0;

/// Counts of what went on.
#[derive(Default)]
struct Counts {
    senders: AtomicU64,
    viewers: AtomicU64,
    pictures: AtomicU64,
    /// Senders and viewers that could not join.
    refused: AtomicU64,
}

/// Places in which one sender follows the other, each with viewers, for the time that was asked for. The memory of the last
/// quarter has to be that of the second, and in the end nothing may be open that was not before.
pub(crate) async fn run(load: &Load) -> Result<(), Error> {
    let streams: Arc<Vec<Stream>> =
        Arc::new((0..load.streams).map(|_| Stream::default()).collect());
    let clip = Arc::new(Clip::new(load.rate)?);
    let (gateway, _) = load.begin(&streams).await?;
    let files = open_files(gateway.pid())?;
    let counts = Arc::new(Counts::default());
    let end = Instant::now() + load.span;
    let tasks: Vec<_> = (0..load.streams)
        .map(|index| {
            let place = Place {
                index,
                doors: (gateway.door, gateway.rtmp),
                streams: Arc::clone(&streams),
                clip: Arc::clone(&clip),
                counts: Arc::clone(&counts),
                dice: nanos() | 1,
            };
            tokio::spawn(place.occupy(end))
        })
        .collect();
    let mut memory = Vec::new();
    while Instant::now() < end {
        sleep(LOOK_EVERY).await;
        memory.push((Usage::of(gateway.pid())?.anonymous >> 10) as f64);
    }
    for task in tasks {
        task.await?;
    }
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    println!(
        "{} senders, {} viewers, {} pictures shown, {} refused",
        count(&counts.senders),
        count(&counts.viewers),
        count(&counts.pictures),
        count(&counts.refused)
    );
    println!("= shown {}", count(&counts.pictures));
    sleep(FORGET).await;
    judge(&gateway, &memory, files)
}

/// Compares quarters of the run, and what is open now with what was before.
fn judge(gateway: &Gateway, memory: &[f64], files: usize) -> Result<(), Error> {
    let quarter = memory.len() / 4;
    let median = |part: usize| {
        let mut part: Vec<_> = memory.iter().skip(part * quarter).take(quarter).collect();
        part.sort_unstable_by(|a, b| a.total_cmp(b));
        part.get(part.len() / 2).copied().copied().unwrap_or(0.0)
    };
    let (second, last) = (median(1), median(3));
    let usage = Usage::of(gateway.pid())?;
    let open = open_files(gateway.pid())?;
    println!(
        "quarters {:.0}, {second:.0}, {:.0}, {last:.0} KiB; {}; {files} files before, {open} after",
        median(0),
        median(2),
        usage.memory()
    );
    println!(
        "= growth {:.0}\n= files {}",
        last - second,
        open as i64 - files as i64
    );
    if last > second * (1.0 + GROWTH) + GRAIN {
        return Err(format!("memory grows: {second:.0} KiB, later {last:.0} KiB").into());
    }
    if open > files {
        return Err(format!("{open} files are open, {files} were before").into());
    }
    Ok(())
}

/// The place of one sender after the other.
struct Place {
    index: usize,
    doors: (SocketAddr, SocketAddr),
    streams: Arc<Vec<Stream>>,
    clip: Arc<Clip>,
    counts: Arc<Counts>,
    dice: u64,
}

impl Place {
    /// A number below `sides` (xorshift).
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    async fn occupy(mut self, end: Instant) {
        while Instant::now() < end {
            // Names are used again, and old senders may still be waited for.
            if self.stream(end).await.is_err() {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// A sender from its beginning to its end, and viewers meanwhile.
    async fn stream(&mut self, end: Instant) -> Result<(), Error> {
        let turn = self.roll(3);
        let name = format!("c{}x{turn}", self.index);
        let way = [Way::Whip, Way::Rtmp][self.roll(2) as usize];
        let mut sender = Sender::join(way, self.doors, &name, true).await?;
        self.counts.senders.fetch_add(1, Ordering::Relaxed);
        let until = (Instant::now() + Duration::from_millis(2_000 + self.roll(8_000))).min(end);
        let viewers: Vec<_> = (0..self.roll(3))
            .map(|_| {
                let stays = Duration::from_millis(500 + self.roll(6_000));
                let says_goodbye = self.roll(2) == 0;
                let (door, counts) = (self.doors.0, Arc::clone(&self.counts));
                let name = format!("{name}-out");
                tokio::spawn(view(door, name, stays, says_goodbye, counts))
            })
            .collect();
        let stream = &self.streams[self.index];
        let played = sender.play(&self.clip, self.index, stream, until).await;
        match self.roll(3) {
            0 => drop(sender.leave().await),
            // Dropped, a publisher of RTMP says goodbye; one that says nothing any more is given up.
            1 => {
                sender
                    .rest(Instant::now() + Duration::from_secs(12))
                    .await?
            }
            _ => drop(sender),
        }
        for viewer in viewers {
            viewer.await?;
        }
        played
    }
}

/// A viewer from its beginning to its end.
async fn view(
    door: SocketAddr,
    name: String,
    stays: Duration,
    says_goodbye: bool,
    counts: Arc<Counts>,
) {
    // The stream can be watched once its job is there.
    sleep(Duration::from_secs(1)).await;
    let Ok(mut peer) = Peer::join(door, &name, Part::Watches, true).await else {
        counts.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    counts.viewers.fetch_add(1, Ordering::Relaxed);
    let until = Instant::now() + stays;
    while Instant::now() < until && !peer.closed {
        let Ok(pictures) = peer.pictures(until).await else {
            return;
        };
        let shown = pictures.len() as u64;
        counts.pictures.fetch_add(shown, Ordering::Relaxed);
    }
    if says_goodbye {
        // Its stream may be over, and the session with it.
        let _ = peer.leave().await;
    }
}
