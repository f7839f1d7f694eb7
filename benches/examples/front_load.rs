//! Measures a gateway's front beside the bare hop to the orchestrator behind it, over the same libraries, both
//! interleaved in one run.
//!
//! ```text
//! front_load pairs    FRONT BARE PID [seconds=20] [rounds=5] [kind=chat|image] [bytes=1000]
//! front_load frontier FRONT BARE PID [seconds=20] [most=256]
//! front_load streams  FRONT BARE PID [seconds=20] [streams=64] [chunks=64] [begin=at-once|apart]
//! front_load refused  FRONT BARE PID [seconds=20]
//! front_load once     FRONT BARE PID [kind=chat|image] [bytes=1000]
//! ```
//! FRONT and BARE are URLs on loopback, such as `http://127.0.0.1:9935/v1/chat/completions` and
//! `https://127.0.0.1:18935/llm` of the example `front_mock`; PID is the process of the front. `benches/front.sh` runs
//! all of it. Every loop is closed: a connection asks again once it has its answer. Every byte of an answer's words is
//! checked; one that is wrong ends the run. Lines that begin with an equals sign are a figure's name, a value, and where
//! there were rounds the least and the most of them: times in microseconds, memory in KiB.

mod front_load {
    pub(crate) mod connection;
}

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use front_load::connection::{Connection, Target};
use livepeer_benches::front;
use livepeer_benches::process::{Usage, steal};
use livepeer_benches::times::quantile;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// No run takes longer, whatever the arguments say.
const LONGEST: u64 = 300;

/// At most this many connections at once.
const MAX_CONNECTIONS: usize = 2_000;

/// The time between two chunks of a stream of the example `front_mock`.
const PACE: Duration = Duration::from_millis(20);

/// Threads hold a connection and little else.
const STACK: usize = 256 << 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match &arguments[..] {
        [mode, front, bare, pid, options @ ..] => run(mode, front, bare, pid, options),
        _ => Err(
            "usage: front_load pairs|frontier|streams|refused|once FRONT BARE PID [name=value..]"
                .into(),
        ),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The places to ask, and how.
struct Load {
    front: Target,
    bare: Target,
    pid: u32,
    span: Duration,
}

fn run(mode: &str, front: &str, bare: &str, pid: &str, options: &[String]) -> Result<(), Error> {
    let text = |name: &str, usual: &str| {
        let set = |option: &String| {
            let (key, value) = option.split_once('=')?;
            (key == name).then(|| value.to_owned())
        };
        options.iter().find_map(set).unwrap_or(usual.to_owned())
    };
    let number = |name: &str, usual: &str| text(name, usual).parse::<u64>();
    let load = Load {
        front: Target::parse(front)?,
        bare: Target::parse(bare)?,
        pid: pid.parse()?,
        span: Duration::from_secs(number("seconds", "20")?.min(LONGEST)),
    };
    let stolen = steal()?;
    match mode {
        "pairs" => {
            let bytes = number("bytes", "1000")?.min(64 << 20) as usize;
            let rounds = number("rounds", "5")?.min(20);
            pairs(&load, rounds, &text("kind", "chat"), bytes)?;
        }
        "frontier" => frontier(&load, number("most", "256")? as usize)?,
        "streams" => {
            let count = (number("streams", "64")? as usize).min(MAX_CONNECTIONS);
            let begin = match &*text("begin", "at-once") {
                "at-once" => Begin::AtOnce,
                "apart" => Begin::Apart,
                other => return Err(format!("begin={other} is neither at-once nor apart").into()),
            };
            streams(&load, count, number("chunks", "64")? as u32, begin)?;
        }
        "refused" => refused(&load)?,
        "once" => {
            let bytes = number("bytes", "1000")?.min(64 << 20) as usize;
            once(&load, &text("kind", "chat"), bytes)?;
        }
        _ => return Err(format!("{mode} is no mode").into()),
    }
    println!(
        "steal {:.1} %: throw the run away above 5",
        steal()?.since(&stolen) * 100.0
    );
    Ok(())
}

/// A request for words, of about that many bytes.
fn chat(target: &Target, bytes: usize, stream: bool) -> Vec<u8> {
    let prompt = "word ".repeat(bytes.saturating_sub(120) / 5);
    let body = format!(
        r#"{{"model":"{}","messages":[{{"role":"user","content":"{prompt}"}}],"max_tokens":256,"stream":{stream}}}"#,
        front::MODEL
    );
    target.post("application/json", body.as_bytes())
}

/// A request to change a picture of that many bytes: its beginning says that it is one of 512 by 512.
fn image(target: &Target, bytes: usize) -> Vec<u8> {
    let mut png = Vec::from(*b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\0\0\0\x02\0\x08\x02\0\0\0");
    png.resize(bytes.max(64), 0x5a);
    let mut body = Vec::with_capacity(bytes + 1_000);
    for (name, value) in [("prompt", "a cat"), ("model_id", front::MODEL)] {
        let part =
            format!("--cut\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    body.extend_from_slice(
        b"--cut\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.png\"\r\ncontent-type: image/png\r\n\r\n",
    );
    body.extend_from_slice(&png);
    body.extend_from_slice(b"\r\n--cut--\r\n");
    target.post("multipart/form-data; boundary=cut", &body)
}

/// Asks once, and checks the answer. Returns how long it took.
fn ask(connection: &mut Connection, request: &[u8], expected: &str) -> Result<Duration, Error> {
    let start = Instant::now();
    let (status, body) = connection.call(request)?;
    let took = start.elapsed();
    let found = body
        .windows(expected.len())
        .filter(|part| *part == expected.as_bytes())
        .count();
    if status != 200 || found != 1 {
        let text: String = String::from_utf8_lossy(&body).chars().take(400).collect();
        return Err(format!("status {status}, the words {found} times: {text}").into());
    }
    Ok(took)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A request of that kind, and the words of its answer.
fn question(target: &Target, kind: &str, bytes: usize) -> Result<(Vec<u8>, String), Error> {
    match kind {
        "chat" => Ok((chat(target, bytes, false), front::words())),
        "image" => Ok((image(target, bytes), "images".to_owned())),
        _ => Err(format!("{kind} is no kind of request").into()),
    }
}

/// Asks the front a single time, and tells how far its memory rose.
fn once(load: &Load, kind: &str, bytes: usize) -> Result<(), Error> {
    let (request, words) = question(&load.front, kind, bytes)?;
    let mut connection = load.front.connect()?;
    let before = Usage::of(load.pid)?;
    let took = ask(&mut connection, &request, &words)?;
    let after = Usage::of(load.pid)?;
    println!(
        "a request of {} bytes: {:.0} us; memory rose by {} bytes at most",
        request.len(),
        micros(took),
        after.most.saturating_sub(before.resident),
    );
    let beyond = after.most.saturating_sub(before.resident) as i64 - request.len() as i64;
    println!("= beyond {}", beyond / 1024);
    Ok(())
}

/// Asks the front for something without messages, which it refuses, again and again.
fn refused(load: &Load) -> Result<(), Error> {
    let body = format!(r#"{{"model":"{}","messages":[]}}"#, front::MODEL);
    let request = load.front.post("application/json", body.as_bytes());
    let mut connection = load.front.connect()?;
    let (before, start) = (Usage::of(load.pid)?, Instant::now());
    let mut count = 0_u32;
    while start.elapsed() < load.span {
        let (status, _) = connection.call(&request)?;
        if status != 400 {
            return Err(format!("status {status} in place of a refusal").into());
        }
        count += 1;
    }
    let used = Usage::of(load.pid)?.cpu - before.cpu;
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    println!("= rate {rate:.0}");
    println!("= cpu {:.0}", micros(used) / f64::from(count.max(1)));
    Ok(())
}

/// Asks both in turns, over a connection each.
fn pairs(load: &Load, rounds: u64, kind: &str, bytes: usize) -> Result<(), Error> {
    let (there, words) = question(&load.front, kind, bytes)?;
    let (direct, _) = question(&load.bare, kind, bytes)?;
    let (mut front, mut bare) = (load.front.connect()?, load.bare.connect()?);
    ask(&mut front, &there, &words)?;
    ask(&mut bare, &direct, &words)?;
    let mut figures = [(); 4].map(|()| Vec::new());
    for round in 1..=rounds {
        let before = Usage::of(load.pid)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let start = Instant::now();
        while start.elapsed() < load.span {
            ours.push(ask(&mut front, &there, &words)?);
            theirs.push(ask(&mut bare, &direct, &words)?);
        }
        let used = Usage::of(load.pid)?;
        ours.sort_unstable();
        theirs.sort_unstable();
        let quantiles = |share| (quantile(&ours, share), quantile(&theirs, share));
        let ((p50, bare50), (p99, bare99)) = (quantiles(0.5), quantiles(0.99));
        let cpu = micros(used.cpu - before.cpu) / ours.len() as f64;
        let added = [
            micros(p50) - micros(bare50),
            micros(p99) - micros(bare99),
            micros(bare50),
            cpu,
        ];
        for (figure, value) in figures.iter_mut().zip(added) {
            figure.push(value);
        }
        println!(
            "round {round}: {} pairs; p50 {:.0} us, bare {:.0}; p99 {:.0} us, bare {:.0}; {:.0} us CPU each; {}",
            ours.len(),
            micros(p50),
            micros(bare50),
            micros(p99),
            micros(bare99),
            cpu,
            used.memory()
        );
    }
    for (name, of) in ["p50", "p99", "bare", "cpu"].into_iter().zip(&mut figures) {
        of.sort_unstable_by(f64::total_cmp);
        if let [least, .., most] | [least @ most] = &of[..] {
            let median = of[of.len() / 2];
            println!("= {name} {median:.0} {least:.0} {most:.0}");
        }
    }
    Ok(())
}

/// Keeps that many connections busy for that long. Returns all times, sorted.
fn closed(target: &Target, connections: usize, span: Duration) -> Result<Vec<Duration>, Error> {
    let request = Arc::new(chat(target, 1_000, false));
    let words = Arc::new(front::words());
    let ready = Arc::new(Barrier::new(connections));
    let worker = |_| {
        let (request, words, ready) = (request.clone(), words.clone(), ready.clone());
        let target = target.clone();
        let work = move || -> Result<Vec<Duration>, Error> {
            let connected = target.connect();
            ready.wait();
            let mut connection = connected?;
            let (start, mut times) = (Instant::now(), Vec::new());
            while start.elapsed() < span {
                times.push(ask(&mut connection, &request, &words)?);
            }
            Ok(times)
        };
        thread::Builder::new().stack_size(STACK).spawn(work)
    };
    let workers: Vec<_> = (0..connections).map(worker).collect::<Result<_, _>>()?;
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.join().map_err(|_| "a connection panicked")??);
    }
    all.sort_unstable();
    Ok(all)
}

/// More and more connections, front and bare in turns; the most requests a second within each limit of the 99th of 100.
fn frontier(load: &Load, most: usize) -> Result<(), Error> {
    let mut best = [[0.0_f64; 4]; 2];
    let mut busy = f64::MAX;
    let limits = [1, 5, 10, 50].map(Duration::from_millis);
    let mut connections = 1;
    while connections <= most.min(MAX_CONNECTIONS) {
        for (which, target) in [&load.front, &load.bare].into_iter().enumerate() {
            let (before, start) = (Usage::of(load.pid)?, Instant::now());
            let times = closed(target, connections, load.span)?;
            let rate = times.len() as f64 / start.elapsed().as_secs_f64();
            let used = Usage::of(load.pid)?.cpu - before.cpu;
            let (p50, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
            let cpu = micros(used) / times.len().max(1) as f64;
            if which == 0 {
                busy = busy.min(cpu);
            }
            for (best, limit) in best[which].iter_mut().zip(limits) {
                *best = if p99 <= limit { best.max(rate) } else { *best };
            }
            println!(
                "{connections:>4} connections, {}: {rate:.0}/s, p50 {:.0} us, p99 {:.0} us, {cpu:.0} us CPU of the front each",
                ["front", "bare "][which],
                micros(p50),
                micros(p99),
            );
        }
        connections *= 2;
    }
    for (at, limit) in limits.into_iter().enumerate() {
        let (ours, theirs) = (best[0][at], best[1][at]);
        let share = ours / theirs.max(1.0);
        println!("p99 within {limit:?}: {ours:.0}/s, bare {theirs:.0}/s, {share:.2} of it");
        if limit == Duration::from_millis(5) {
            println!("= rate {ours:.0}\n= share {share:.2}");
        }
    }
    println!("= cpu {busy:.0}");
    Ok(())
}

/// How late the chunks of streams came.
#[derive(Default)]
struct Late {
    /// Between request and first chunk. Of streams that begin at once the last waits for the others.
    first: Vec<Duration>,
    /// Between a later chunk's leaving the orchestrator and its coming here.
    after: Vec<Duration>,
}

/// Reads a stream and checks it chunk by chunk.
fn stream(target: &Target, request: &[u8], chunks: u32, late: &mut Late) -> Result<(), Error> {
    let mut connection = target.connect()?;
    let start = Instant::now();
    let mut next = 0;
    let status = connection.stream(request, |line| {
        let Some((number, nanos)) = front::stamp(line) else {
            return true;
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_nanos() as u64;
        match next {
            0 => late.first.push(start.elapsed()),
            _ => late
                .after
                .push(Duration::from_nanos(now.saturating_sub(nanos))),
        }
        let is_next = number == next;
        next += 1;
        is_next
    })?;
    if status != 200 || next != chunks {
        return Err(format!("status {status}, {next} of {chunks} chunks in order").into());
    }
    Ok(())
}

/// When streams begin that are under way at the same time.
#[derive(Clone, Copy)]
enum Begin {
    /// All at once.
    AtOnce,
    /// Spread over the time that a stream takes, and each again when it is over, as with callers who do not know of one
    /// another.
    Apart,
}

/// Streams at once, first of the bare orchestrator, then of the front, again and again.
fn streams(load: &Load, count: usize, chunks: u32, begin: Begin) -> Result<(), Error> {
    let length = PACE * chunks;
    let (spread, times) = match begin {
        Begin::AtOnce => (Duration::ZERO, 1),
        Begin::Apart => (length, 2),
    };
    let start = Instant::now();
    let mut all = [Late::default(), Late::default()];
    let lost = Arc::new(AtomicU64::new(0));
    let mut rounds = 0;
    let idle = Usage::of(load.pid)?;
    let mut memory = 0;
    while rounds == 0 || start.elapsed() < load.span {
        rounds += 1;
        for (which, target) in [&load.bare, &load.front].into_iter().enumerate() {
            let request = Arc::new(chat(target, 1_000, true));
            let worker = |at: usize| {
                let wait = spread * at as u32 / count as u32;
                let (request, target, lost) = (request.clone(), target.clone(), lost.clone());
                let work = move || {
                    let mut late = Late::default();
                    thread::sleep(wait);
                    for _ in 0..times {
                        if let Err(error) = stream(&target, &request, chunks, &mut late)
                            && lost.fetch_add(1, Ordering::Relaxed) == 0
                        {
                            eprintln!("a stream: {error}");
                        }
                    }
                    late
                };
                thread::Builder::new().stack_size(STACK).spawn(work)
            };
            let workers: Vec<_> = (0..count).map(worker).collect::<Result<_, _>>()?;
            thread::sleep(spread + Duration::from_millis(500));
            if which == 1 {
                memory = memory.max(Usage::of(load.pid)?.resident);
            }
            for worker in workers {
                let late = worker.join().map_err(|_| "a stream panicked")?;
                all[which].first.extend(late.first);
                all[which].after.extend(late.after);
            }
        }
    }
    let mut p99 = Vec::new();
    for (name, late) in ["bare", "front"].into_iter().zip(&mut all) {
        late.first.sort_unstable();
        late.after.sort_unstable();
        let of = |times: &[Duration], share| micros(quantile(times, share));
        p99.push(of(&late.after, 0.99));
        println!(
            "{name}: first chunk p50 {:.0} us, p99 {:.0} us; chunks late p50 {:.0} us, p99 {:.0} us; {} chunks",
            of(&late.first, 0.5),
            of(&late.first, 0.99),
            of(&late.after, 0.5),
            of(&late.after, 0.99),
            late.after.len()
        );
    }
    let each = memory.saturating_sub(idle.resident) as f64 / 1024.0 / count as f64;
    let lost = lost.load(Ordering::Relaxed);
    println!("{count} streams at once, {rounds} times");
    println!("= lost {lost}\n= memory {each:.1}");
    println!("= late {:.0}", p99[1] - p99[0]);
    println!("= first {:.0}", {
        let first = |which: usize| micros(quantile(&all[which].first, 0.5));
        first(1) - first(0)
    });
    if lost > 0 {
        return Err("streams were lost".into());
    }
    Ok(())
}
