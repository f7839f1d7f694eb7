//! Holds many streams of an app or a container open at once, through a gateway, and sees to it that none of them loses,
//! repeats or disorders anything.
//!
//! ```text
//! hired_load events  URL [bare=URL] [streams=1000] [each=64] [pause=MS]
//! hired_load sockets URL [bare=URL] [streams=1000] [each=64] [pause=20]
//! ```
//! URL is on loopback and leads to `devnet`'s echo program, such as `http://127.0.0.1:9935/apps/devnet/echo/events` and
//! `.../ws`; `benches/hired.sh` runs all of it. `events` asks for server-sent events, one for each word that it says, and
//! `sockets` says messages over WebSocket, one every so many milliseconds, each of which has to come back before the next is
//! looked for. Nothing is read beyond the first event, and no message said, before all streams are open; the messages of all
//! are spread evenly over a pause. The times are those of first events, and of messages there and back. Where it is said
//! how long the program pauses between two events, all are read as they come, and the times are those by which an event came
//! later than that after the one before. With `bare` the same is done before, and again after, at the orchestrator itself: what
//! the way through the gateway takes longer is what the gateway adds.
//! A single thread does all of this. Lines that begin with an equals sign are a figure's name and its value, times in
//! microseconds.

#[allow(dead_code, reason = "the other load needs the rest")]
#[path = "front_load/connection.rs"]
mod connection;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use connection::Target;
use futures_lite::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use futures_rustls::TlsConnector;
use livepeer_benches::times::quantile;
use rustls::pki_types::ServerName;
use smol::{LocalExecutor, Timer};

type Error = Box<dyn std::error::Error>;

/// At most this many streams at once.
const MAX_STREAMS: usize = 2_000;
/// At most this many events or messages of each.
const MAX_EACH: usize = 10_000;
/// At most this many kinds of errors are told.
const MAX_ERRORS: usize = 8;
/// How long the streams may take until all are open, and a peer to say something.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it takes until the last stream is asked for.
const SPREAD: Duration = Duration::from_secs(2);
/// The longest line of an answer.
const MAX_LINE: u64 = 64 << 10;

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
    let option = |name: &str| {
        let mut set = options.iter().filter_map(|option| option.split_once('='));
        set.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let number = |name: &str, usual: usize| -> Result<usize, Error> {
        Ok(option(name).map_or(Ok(usual), str::parse)?)
    };
    let load = Load {
        sockets: match mode {
            "events" => false,
            "sockets" => true,
            _ => return Err(format!("{mode} is no mode").into()),
        },
        streams: number("streams", 1_000)?.clamp(1, MAX_STREAMS),
        each: number("each", 64)?.clamp(1, MAX_EACH),
        pause: Duration::from_millis(number("pause", 20)?.min(10_000) as u64),
        paced: option("pause").is_some(),
    };
    let Some(bare) = option("bare") else {
        return load.run(url, "").map(drop);
    };
    let before = load.run(bare, "bare_")?;
    let through = load.run(url, "")?;
    let after = load.run(bare, "bare_again_")?;
    let mut both = [before, after].concat();
    both.sort_unstable();
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let [through, bare] = [&through, &both].map(|times| quantile(times, share).as_secs_f64());
        println!("= added_{name} {:.0}", (through - bare) * 1e6);
    }
    Ok(())
}

/// Streams that are held open, and how fast they talk.
#[derive(Clone, Copy)]
struct Load {
    sockets: bool,
    streams: usize,
    each: usize,
    /// How long from one message of a stream to its next.
    pause: Duration,
    /// Whether the program that says events pauses as long.
    paced: bool,
}

impl Load {
    /// Does it all at that URL, and tells how it went. The times in order.
    fn run(self, url: &str, name: &str) -> Result<Vec<Duration>, Error> {
        let target = Target::parse(url)?;
        let gate = Gate::new(self.streams);
        let (start, executor) = (Instant::now(), LocalExecutor::new());
        let tasks: Vec<_> = (0..self.streams)
            .map(|at| {
                let (target, gate) = (target.clone(), Rc::clone(&gate));
                executor.spawn(async move {
                    let part = |of: Duration| of * at as u32 / self.streams as u32;
                    Timer::after(part(SPREAD)).await;
                    let done = async {
                        match self.sockets {
                            true => self.socket(&target, &gate, part(self.pause)).await,
                            false => self.events(&target, &gate).await,
                        }
                    };
                    done.await
                })
            })
            .collect();
        let (mut times, mut lost, mut errors) = (Vec::new(), 0, BTreeMap::new());
        futures_lite::future::block_on(executor.run(async {
            for task in tasks {
                match task.await {
                    Ok(of) => times.extend(of),
                    Err(error) => {
                        *errors.entry(error.to_string()).or_insert(0_usize) += 1;
                        lost += 1;
                    }
                }
            }
        }));
        for (error, count) in errors.iter().take(MAX_ERRORS) {
            eprintln!("{count} streams: {error}");
        }
        times.sort_unstable();
        let micros = |share| quantile(&times, share).as_secs_f64() * 1e6;
        println!(
            "{} streams of {} at {url}, {} open at once, {:.1} s",
            self.streams,
            self.each,
            gate.open.get(),
            start.elapsed().as_secs_f64()
        );
        println!("= {name}lost {lost}");
        println!(
            "= {name}p50 {:.0}\n= {name}p99 {:.0}",
            micros(0.5),
            micros(0.99)
        );
        match lost {
            0 => Ok(times),
            lost => Err(format!("{lost} streams were not whole").into()),
        }
    }

    /// Asks for events, and checks that all come, once and in order. How long the first took, or how late the others were.
    async fn events(self, target: &Target, gate: &Gate) -> Result<Vec<Duration>, Error> {
        let words: Vec<String> = (0..self.each).map(|n| format!("w{n}")).collect();
        let request = target.post("text/plain", words.join(" ").as_bytes());
        let mut wire = connect(target).await?;
        let start = Instant::now();
        wire.get_mut().write_all(&request).await?;
        wire.get_mut().flush().await?;
        let status = head(&mut wire).await?;
        let (mut next, mut times, mut done) = (0, Vec::new(), false);
        let mut last = start;
        let mut rest = Vec::new();
        while chunk(&mut wire, &mut rest).await? {
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let Some(data) = line.trim_end().strip_prefix("data: ") else {
                    continue;
                };
                if data.starts_with("{\"balance\"") {
                    continue;
                }
                if next == 0 && !done {
                    gate.enter();
                    if !self.paced {
                        times.push(start.elapsed());
                        gate.pass().await?;
                    }
                } else if self.paced && !done {
                    times.push(last.elapsed().saturating_sub(self.pause));
                }
                last = Instant::now();
                let wanted = format!("{{\"n\":{next},\"text\":\"w{next}\"}}");
                if data == "[DONE]" && next == self.each && !done {
                    done = true;
                } else if data == wanted && !done {
                    next += 1;
                } else {
                    return Err(format!("{data} in place of event {next}").into());
                }
            }
        }
        if status != 200 || next != self.each || !done {
            let each = self.each;
            return Err(format!("status {status}, {next} of {each} events, done: {done}").into());
        }
        if self.paced && gate.open.get() < gate.all {
            return Err("it was over before all were open".into());
        }
        Ok(times)
    }

    /// Says messages, the first so long after all streams are open, and checks that each comes back. How long each took.
    async fn socket(
        self,
        target: &Target,
        gate: &Gate,
        wait: Duration,
    ) -> Result<Vec<Duration>, Error> {
        let mut wire = connect(target).await?;
        let (path, address) = (&target.path, target.address);
        let leave = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        wire.get_mut().write_all(leave.as_bytes()).await?;
        wire.get_mut().flush().await?;
        let status = head(&mut wire).await?;
        if status != 101 {
            return Err(format!("no WebSocket: status {status}").into());
        }
        gate.enter();
        gate.pass().await?;
        let mut times = Vec::with_capacity(self.each);
        let mut due = Instant::now() + wait;
        for n in 0..self.each {
            // Whoever is late is not made later by that.
            Timer::at(due).await;
            due = (due + self.pause).max(Instant::now());
            let said = format!("message {n}");
            let start = Instant::now();
            wire.get_mut()
                .write_all(&frame(0x81, said.as_bytes()))
                .await?;
            wire.get_mut().flush().await?;
            let (kind, heard) = patient(read_frame(&mut wire)).await?;
            times.push(start.elapsed());
            if kind != 0x81 || heard != said.as_bytes() {
                let heard = String::from_utf8_lossy(&heard).into_owned();
                return Err(format!("{heard:?} in place of {said:?}").into());
            }
        }
        wire.get_mut().write_all(&frame(0x88, b"")).await?;
        wire.get_mut().flush().await?;
        let (kind, _) = patient(read_frame(&mut wire)).await?;
        let mut more = Vec::new();
        match patient(wire.read_to_end(&mut more)).await {
            Ok(_) => {}
            // TLS may end without its own word.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error.into()),
        }
        if kind != 0x88 || !more.is_empty() {
            return Err("more was said than was asked for".into());
        }
        Ok(times)
    }
}

/// The place where streams wait for each other.
struct Gate {
    open: Cell<usize>,
    all: usize,
    /// Nothing is ever sent: it is closed once all are open.
    all_open: (Sender<Infallible>, Receiver<Infallible>),
}

impl Gate {
    fn new(all: usize) -> Rc<Self> {
        Rc::new(Self {
            open: Cell::new(0),
            all,
            all_open: async_channel::bounded(1),
        })
    }

    /// Says that one more is open.
    fn enter(&self) {
        self.open.set(self.open.get() + 1);
        if self.open.get() == self.all {
            self.all_open.0.close();
        }
    }

    /// Waits for the others.
    async fn pass(&self) -> io::Result<()> {
        patient(async {
            let Err(_) = self.all_open.1.recv().await;
            Ok(())
        })
        .await
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}
type Wire = BufReader<Box<dyn Stream>>;

async fn connect(target: &Target) -> io::Result<Wire> {
    let connecting = async {
        let stream = smol::net::TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &target.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::from(target.address.ip());
                let connector = TlsConnector::from(config.clone());
                Box::new(connector.connect(name, stream).await?)
            }
        };
        Ok(BufReader::new(stream))
    };
    patient(connecting).await
}

/// Waits for something, not for ever.
async fn patient<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::after(PATIENCE).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    futures_lite::future::or(what, late).await
}

async fn line(wire: &mut Wire) -> io::Result<String> {
    let mut line = String::new();
    match patient(wire.take(MAX_LINE).read_line(&mut line)).await? {
        0 => Err(io::Error::other("the peer hung up")),
        _ => Ok(line.trim_end().to_owned()),
    }
}

/// Reads the head of an answer; its status.
async fn head(wire: &mut Wire) -> io::Result<u16> {
    let first = line(wire).await?;
    while !line(wire).await?.is_empty() {}
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.ok_or_else(|| io::Error::other("not an answer"))
}

/// Adds the next chunk of a body. False at its end.
async fn chunk(wire: &mut Wire, body: &mut Vec<u8>) -> io::Result<bool> {
    let size = usize::from_str_radix(&line(wire).await?, 16).map_err(io::Error::other)?;
    let before = body.len();
    if before + size > 1 << 20 {
        return Err(io::Error::other("too long a chunk"));
    }
    body.resize(before + size, 0);
    patient(wire.read_exact(&mut body[before..])).await?;
    line(wire).await?;
    Ok(size > 0)
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
async fn read_frame(wire: &mut Wire) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    wire.read_exact(&mut head).await?;
    if head[1] > 125 {
        return Err(io::Error::other(
            "a frame that is longer than any that was said",
        ));
    }
    let mut payload = vec![0; head[1].into()];
    wire.read_exact(&mut payload).await?;
    Ok((head[0], payload))
}
