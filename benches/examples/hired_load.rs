//! Holds many streams of an app or a container open at once, through a gateway, and sees to it that none of them loses,
//! repeats or disorders anything.
//!
//! ```text
//! hired_load events  URL [streams=1000] [each=64]
//! hired_load sockets URL [streams=1000] [each=64] [pause=20]
//! ```
//! URL is on loopback and leads to `devnet`'s echo program, such as `http://127.0.0.1:9935/apps/devnet/echo/events` and
//! `.../ws`; `benches/hired.sh` runs all of it. `events` asks for server-sent events, one for each word that it says, and
//! `sockets` says messages over WebSocket, each of which has to come back some milliseconds before the next. Nothing is read
//! beyond the first event, and no message said, before all streams are open; the first messages are spread over a pause.
//! Lines that begin with an equals sign are a figure's name and its
//! value, times in microseconds.

#[allow(dead_code, reason = "the other load needs the rest")]
#[path = "front_load/connection.rs"]
mod connection;

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use connection::Target;
use livepeer_benches::times::quantile;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// At most this many streams at once.
const MAX_STREAMS: usize = 2_000;
/// At most this many events or messages of each.
const MAX_EACH: usize = 10_000;
/// At most this many kinds of errors are told.
const MAX_ERRORS: usize = 8;
/// How long the streams may take until all are open, and a peer to say something.
const PATIENCE: Duration = Duration::from_secs(60);
/// Threads hold a connection and little else.
const STACK: usize = 256 << 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match &arguments[..] {
        [mode, url, options @ ..] => run(mode, url, options),
        _ => Err("usage: hired_load events|sockets URL [name=value..]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: &str, url: &str, options: &[String]) -> Result<(), Error> {
    let number = |name: &str, usual: usize| -> Result<usize, Error> {
        let set = options.iter().filter_map(|option| option.split_once('='));
        let set = set.into_iter().find(|(key, _)| *key == name);
        Ok(set.map_or(Ok(usual), |(_, value)| value.parse())?)
    };
    let streams = number("streams", 1_000)?.clamp(1, MAX_STREAMS);
    let each = number("each", 64)?.clamp(1, MAX_EACH);
    let pause = Duration::from_millis(number("pause", 20)?.min(10_000) as u64);
    let one: fn(&str, Pace, &Gate) -> Result<Vec<Duration>, Error> = match mode {
        "events" => events,
        "sockets" => socket,
        _ => return Err(format!("{mode} is no mode").into()),
    };
    let gate = Arc::new(Gate::new(streams));
    let start = Instant::now();
    let worker = |at: usize| {
        let (url, gate) = (url.to_owned(), gate.clone());
        let pace = Pace {
            each,
            wait: pause * at as u32 / streams as u32,
            pause,
        };
        let work = move || one(&url, pace, &gate);
        thread::Builder::new().stack_size(STACK).spawn(work)
    };
    let workers: Vec<_> = (0..streams).map(worker).collect::<Result<_, _>>()?;
    let (mut times, mut lost, mut errors) = (Vec::new(), 0, BTreeMap::new());
    for worker in workers {
        match worker.join().map_err(|_| "a stream panicked")? {
            Ok(of) => times.extend(of),
            Err(error) => {
                *errors.entry(error.to_string()).or_insert(0_usize) += 1;
                lost += 1;
            }
        }
    }
    for (error, count) in errors.iter().take(MAX_ERRORS) {
        eprintln!("{count} streams: {error}");
    }
    times.sort_unstable();
    let micros = |share| quantile(&times, share).as_secs_f64() * 1e6;
    println!(
        "{streams} streams of {each}, {} open at once, {:.1} s",
        gate.open.load(Ordering::Relaxed),
        start.elapsed().as_secs_f64()
    );
    println!("= lost {lost}");
    println!("= p50 {:.0}\n= p99 {:.0}", micros(0.5), micros(0.99));
    match lost {
        0 => Ok(()),
        lost => Err(format!("{lost} streams were not whole").into()),
    }
}

/// The messages of a stream, and when they are said.
#[derive(Clone, Copy)]
struct Pace {
    each: usize,
    /// How long it waits before the first.
    wait: Duration,
    /// How long it waits after each.
    pause: Duration,
}

/// The place where streams wait for each other.
struct Gate {
    open: AtomicUsize,
    all: usize,
}

impl Gate {
    const fn new(all: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            all,
        }
    }

    /// Says that one more is open, and waits for the others.
    fn pass(&self) -> Result<(), Error> {
        self.open.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now() + PATIENCE;
        while self.open.load(Ordering::Relaxed) < self.all {
            if Instant::now() > until {
                let open = self.open.load(Ordering::Relaxed);
                return Err(format!("{open} of {} were ever open at once", self.all).into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Asks for events, and checks that all come, once and in order. Returns how long the first took.
fn events(url: &str, Pace { each, .. }: Pace, gate: &Gate) -> Result<Vec<Duration>, Error> {
    let target = Target::parse(url)?;
    let words: Vec<String> = (0..each).map(|n| format!("w{n}")).collect();
    let request = target.post("text/plain", words.join(" ").as_bytes());
    let mut connection = target.connect()?;
    let start = Instant::now();
    let (mut next, mut first, mut done) = (0, Duration::ZERO, false);
    let mut wrong: Option<Error> = None;
    let status = connection.stream(&request, |line| {
        let Some(data) = line.trim_end().strip_prefix("data: ") else {
            return true;
        };
        if data.starts_with("{\"balance\"") {
            return true;
        }
        if next == 0 && !done {
            first = start.elapsed();
            if let Err(error) = gate.pass() {
                wrong = Some(error);
                return false;
            }
        }
        let wanted = format!("{{\"n\":{next},\"text\":\"w{next}\"}}");
        if data == "[DONE]" && next == each && !done {
            done = true;
        } else if data == wanted && !done {
            next += 1;
        } else {
            wrong = Some(format!("{data} in place of event {next}").into());
        }
        wrong.is_none()
    })?;
    if let Some(error) = wrong {
        return Err(error);
    }
    if status != 200 || next != each || !done {
        return Err(format!("status {status}, {next} of {each} events, done: {done}").into());
    }
    Ok(vec![first])
}

/// Says messages, and checks that each comes back before the next. Returns how long each took.
fn socket(url: &str, pace: Pace, gate: &Gate) -> Result<Vec<Duration>, Error> {
    let rest = url.strip_prefix("http://").ok_or("not a plain URL")?;
    let (authority, path) = rest.split_once('/').ok_or("a URL without a path")?;
    let address: SocketAddr = authority.parse()?;
    if !address.ip().is_loopback() {
        return Err(format!("{address} is not on loopback").into());
    }
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(&stream);
    let head = format!(
        "GET /{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    (&stream).write_all(head.as_bytes())?;
    let mut first = String::new();
    reader.read_line(&mut first)?;
    if !first.starts_with("HTTP/1.1 101 ") {
        return Err(format!("no WebSocket: {}", first.trim_end()).into());
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err("the peer hung up".into());
        }
        if line.trim_end().is_empty() {
            break;
        }
    }
    gate.pass()?;
    thread::sleep(pace.wait);
    let mut times = Vec::with_capacity(pace.each);
    for n in 0..pace.each {
        let said = format!("message {n}");
        let start = Instant::now();
        (&stream).write_all(&frame(0x81, said.as_bytes()))?;
        let (kind, heard) = read_frame(&mut reader)?;
        times.push(start.elapsed());
        if kind != 0x81 || heard != said.as_bytes() {
            let heard = String::from_utf8_lossy(&heard).into_owned();
            return Err(format!("{heard:?} in place of {said:?}").into());
        }
        // The others have their turn.
        thread::sleep(pace.pause);
    }
    (&stream).write_all(&frame(0x88, b""))?;
    let (kind, _) = read_frame(&mut reader)?;
    let mut more = Vec::new();
    reader.read_to_end(&mut more)?;
    if kind != 0x88 || !more.is_empty() {
        return Err("more was said than was asked for".into());
    }
    Ok(times)
}

/// A frame as a client sends it.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let length = u8::try_from(payload.len()).unwrap_or(125).min(125);
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m);
    let mut frame = vec![kind, 0x80 | length];
    frame.extend(MASK);
    frame.extend(masked);
    frame
}

/// A short frame as a server sends it.
fn read_frame(reader: &mut BufReader<&TcpStream>) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    reader.read_exact(&mut head)?;
    if head[1] > 125 {
        return Err(io::Error::other(
            "a frame that is longer than any that was said",
        ));
    }
    let mut payload = vec![0; head[1].into()];
    reader.read_exact(&mut payload)?;
    Ok((head[0], payload))
}
