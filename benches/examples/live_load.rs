//! Measures the live entry of a gateway: senders by WHIP or RTMP, a model that returns what it gets, a viewer by WHEP for
//! each.
//!
//! ```text
//! live_load PROGRAM streams [streams=2] [rate=2000000] [seconds=20] [way=whip|rtmp] [sound=1] [viewers=1]
//! live_load PROGRAM churn   [streams=4] [rate=2000000] [minutes=1]
//! ```
//! PROGRAM is `livepeer-gateway`, which is started and ended here, with `serve` at four ports of loopback from `port=18970` on
//! and `threads=1`; `workers=1` is the number of threads that senders and viewers share. `benches/live.sh` runs all of it.
//!
//! Pictures are those of a real clip in H.264, made larger up to the bit rate, and carry a number and the time at which their
//! sender got them: the orchestrator, which is in this process, and the viewer read both. A picture counts where it is whole.
//! Lines that begin with an equals sign are a figure's name and its value: times in microseconds, memory in KiB, processor
//! time in per cent of a core.

mod live_load {
    pub(crate) mod churn;
    pub(crate) mod clip;
    pub(crate) mod gateway;
    pub(crate) mod model;
    pub(crate) mod peer;
    pub(crate) mod sender;
    pub(crate) mod tally;
}

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use live_load::clip::{Clip, nanos};
use live_load::gateway::Gateway;
use live_load::peer::{Part, Peer};
use live_load::sender::{Sender, Way};
use live_load::tally::{Stream, lock};
use live_load::{churn, model};
use livepeer_benches::process::{Usage, steal};
use livepeer_benches::times::quantile;
use tokio::time::{sleep, timeout};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// No run takes longer, whatever the arguments say.
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);
/// At most this many streams: the gateway takes a thousand sessions.
const MAX_STREAMS: u64 = 400;
/// How long the gateway rests before it is looked at.
const REST: Duration = Duration::from_secs(2);
/// How long it is from one sender to the next: no multiple of the time between pictures.
const JOIN_EVERY: Duration = Duration::from_millis(107);
/// How long streams run before they are measured.
const WARM_UP: Duration = Duration::from_secs(4);
/// How long the last pictures may be on their way.
const LAST_PICTURES: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match &arguments[..] {
        [program, mode, options @ ..] => run(program, mode, options),
        _ => Err("usage: live_load PROGRAM streams|churn [name=value..]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The load that was asked for.
pub(crate) struct Load {
    program: String,
    port: u16,
    threads: u64,
    streams: usize,
    rate: u64,
    span: Duration,
    way: Way,
    sound: bool,
    /// Whether each stream has a viewer.
    viewers: bool,
}

fn run(program: &str, mode: &str, options: &[String]) -> Result<(), Error> {
    let text = |name: &str| {
        let set = |option: &String| {
            let (key, value) = option.split_once('=')?;
            (key == name).then(|| value.to_owned())
        };
        options.iter().find_map(set)
    };
    let number = |name: &str, usual: u64| match text(name) {
        Some(value) => value.parse::<u64>(),
        None => Ok(usual),
    };
    let churns = mode == "churn";
    let load = Load {
        program: program.to_owned(),
        port: u16::try_from(number("port", 18_970)?)?,
        threads: number("threads", 1)?.max(1),
        streams: number("streams", if churns { 4 } else { 2 })?.clamp(1, MAX_STREAMS) as usize,
        rate: number("rate", 2_000_000)?,
        span: match churns {
            true => Duration::from_secs(60 * number("minutes", 1)?),
            false => Duration::from_secs(number("seconds", 20)?),
        },
        way: match text("way").as_deref() {
            None | Some("whip") => Way::Whip,
            Some("rtmp") => Way::Rtmp,
            Some(other) => return Err(format!("{other} is no way in").into()),
        },
        sound: number("sound", 1)? > 0,
        viewers: number("viewers", 1)? > 0,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(number("workers", 1)?.clamp(1, 16) as usize)
        .enable_all()
        .build()?;
    let stolen = steal()?;
    runtime.block_on(async {
        let work = async {
            match mode {
                "streams" => streams(&load).await,
                "churn" => churn::run(&load).await,
                _ => Err(format!("{mode} is no mode").into()),
            }
        };
        timeout(LONGEST, work).await?
    })?;
    let share = steal()?.since(&stolen) * 100.0;
    println!("steal {share:.1} %: throw the run away above 5");
    Ok(())
}

impl Load {
    /// Starts the orchestrator and the gateway, and tells the memory of one that does nothing.
    async fn begin(&self, streams: &Arc<Vec<Stream>>) -> Result<(Gateway, Usage), Error> {
        let orchestrator = model::start(streams)?;
        let gateway = Gateway::start(&self.program, self.port, orchestrator, self.threads).await?;
        sleep(REST).await;
        let usage = Usage::of(gateway.pid())?;
        println!("= idle {}", usage.resident >> 10);
        println!("= anonymous {}", usage.anonymous >> 10);
        Ok((gateway, usage))
    }
}

/// The times that joining took.
#[derive(Default)]
struct Joins {
    /// A sender's: to its answer, and to its connection.
    answered: Vec<Duration>,
    connected: Vec<Duration>,
    /// A viewer's: to its answer, and to its first picture.
    watching: Vec<Duration>,
    first: Vec<Duration>,
}

/// Streams that run side by side, each with a viewer who comes later.
async fn streams(load: &Load) -> Result<(), Error> {
    let all: Arc<Vec<Stream>> = Arc::new((0..load.streams).map(|_| Stream::default()).collect());
    let clip = Arc::new(Clip::new(load.rate)?);
    let (gateway, idle) = load.begin(&all).await?;
    let joins = Arc::new(Mutex::new(Joins::default()));
    // Viewers and the figures come after everybody is there.
    let joining = JOIN_EVERY * load.streams as u32;
    let alone = Instant::now();
    // The first is alone for a while: what it takes beyond the others is that of a process that works at all.
    let others = alone + 2 * WARM_UP;
    let measured = others + 2 * joining + WARM_UP;
    let end = measured + load.span;
    let mut tasks = Vec::new();
    for index in 0..load.streams {
        let (at, watched) = match index {
            0 => (alone, alone + WARM_UP / 2),
            _ => {
                let at = others + JOIN_EVERY * index as u32;
                (at, at + joining + WARM_UP / 2)
            }
        };
        let sending = send(load, &gateway, (index, at, end), &all, &clip, &joins);
        tasks.push(tokio::spawn(sending));
        if load.viewers {
            let times = (index, watched, end + LAST_PICTURES);
            tasks.push(tokio::spawn(watch(load, &gateway, times, &all, &joins)));
        }
    }
    sleep_until(others).await;
    let one = Usage::of(gateway.pid())?;
    sleep_until(measured).await;
    let before = Usage::of(gateway.pid())?;
    let now = nanos();
    for stream in all.iter() {
        lock(&stream.wire).measure(now);
        lock(&stream.shown).measure(now);
    }
    sleep_until(end).await;
    let after = Usage::of(gateway.pid())?;
    for task in tasks {
        task.await??;
    }
    report(load, &all, &lock(&joins), [idle, one, before, after]);
    Ok(())
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}

/// Sends a stream from `at` to `end`.
fn send(
    load: &Load,
    gateway: &Gateway,
    (index, at, end): (usize, Instant, Instant),
    all: &Arc<Vec<Stream>>,
    clip: &Arc<Clip>,
    joins: &Arc<Mutex<Joins>>,
) -> impl Future<Output = Result<(), Error>> + use<> {
    let (all, clip, joins) = (Arc::clone(all), Arc::clone(clip), Arc::clone(joins));
    let places = (gateway.door, gateway.rtmp);
    let (way, sound) = (load.way, load.sound);
    async move {
        sleep_until(at).await;
        let mut sender = Sender::join(way, places, &format!("s{index}"), sound).await?;
        if let Some(peer) = sender.peer() {
            let mut joins = lock(&joins);
            joins.answered.push(peer.answered);
            joins.connected.push(peer.joined);
        }
        sender.play(&clip, index, &all[index], end).await?;
        // What was sent last is shown before the goodbye.
        sender.rest(Instant::now() + LAST_PICTURES).await?;
        sender.leave().await
    }
}

/// Watches a stream from `at` to `end`.
fn watch(
    load: &Load,
    gateway: &Gateway,
    (index, at, end): (usize, Instant, Instant),
    all: &Arc<Vec<Stream>>,
    joins: &Arc<Mutex<Joins>>,
) -> impl Future<Output = Result<(), Error>> + use<> {
    let (all, joins) = (Arc::clone(all), Arc::clone(joins));
    let (door, sound) = (gateway.door, load.sound);
    async move {
        sleep_until(at).await;
        let start = Instant::now();
        let mut peer = Peer::join(door, &format!("s{index}-out"), Part::Watches, sound).await?;
        lock(&joins).watching.push(peer.answered);
        let mut first = true;
        while Instant::now() < end && !peer.closed {
            let pictures = peer.pictures(end).await?;
            if !pictures.is_empty() && std::mem::take(&mut first) {
                lock(&joins).first.push(start.elapsed());
            }
            let mut shown = lock(&all[index].shown);
            pictures.into_iter().for_each(|stamp| shown.see(stamp));
        }
        Ok(())
    }
}

/// Tells all figures, by what the gateway used at rest, with one stream, and at both ends of the time that is measured.
fn report(load: &Load, all: &[Stream], joins: &Joins, used: [Usage; 4]) {
    let [idle, one, before, after] = used;
    let (mut wire, mut shown) = (Vec::new(), Vec::new());
    let (mut sent, mut whole, mut seen, mut gaps, mut behind) = (0, 0, 0, 0, 0);
    for (index, stream) in all.iter().enumerate() {
        let given = *lock(&stream.sent);
        let (mut there, mut watched) = (lock(&stream.wire), lock(&stream.shown));
        sent += given;
        whole += there.seen;
        seen += watched.seen;
        // All that was sent, without a gap, and to its end.
        let rest = |last: Option<u64>| given - last.map_or(0, |last| last + 1).min(given);
        gaps += there.missing + watched.missing;
        behind += rest(there.last());
        if load.viewers {
            behind += rest(watched.last());
        }
        if there.missing + watched.missing > 0 {
            println!(
                "stream {index}: {given} sent; {} missing on the wire, {} at the viewer",
                there.missing, watched.missing
            );
        }
        wire.extend(there.take_late());
        shown.extend(watched.take_late());
    }
    println!(
        "{} streams: {sent} pictures sent, {whole} at the model, {seen} at viewers who came later",
        load.streams
    );
    println!("= gaps {gaps}\n= behind {behind}");
    let tell = |name: &str, times: &[Duration]| {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = |share| quantile(&sorted, share).as_secs_f64() * 1e6;
        println!(
            "{name}: p50 {:.0} us, p99 {:.0} us, most {:.0} us, of {}",
            at(0.5),
            at(0.99),
            at(1.0),
            sorted.len()
        );
        println!("= {name}50 {:.0}\n= {name}99 {:.0}", at(0.5), at(0.99));
    };
    tell("wire", &wire);
    if load.viewers {
        tell("shown", &shown);
        tell("watch", &joins.watching);
        tell("first", &joins.first);
    }
    if load.way == Way::Whip {
        tell("answer", &joins.answered);
        tell("connect", &joins.connected);
    }
    let cpu = (after.cpu - before.cpu).as_secs_f64() / load.span.as_secs_f64();
    let each_cpu = cpu * 100.0 / load.streams as f64;
    println!("{}; {:.1} % of a core", after.memory(), cpu * 100.0);
    // Pages of the program's file that are used for the first time belong to no stream, and neither do tables and threads that
    // the first of them had made.
    let grown = |from: Usage, to: Usage| to.anonymous.saturating_sub(from.anonymous) >> 10;
    println!("= alone {}", grown(idle, one));
    let memory = match load.streams as u64 - 1 {
        0 => grown(idle, after),
        others => grown(one, after) / others,
    };
    println!("= memory {memory}");
    println!("= cpu {each_cpu:.2}");
}
