//! Asks a running signer for one payment of one ticket after the other, on some connections at once, and tells how
//! many it makes and what that costs it.
//!
//! ```text
//! livepeer-gateway signer --static-chain --key-file KEY --listen 127.0.0.1:7940 &
//! cargo run --release -p livepeer-benches --example signer_load -- 127.0.0.1:7940 $! 16 10 continued
//! ```
//! The arguments: address, process id of the signer, connections, seconds, and `first` or `continued`: whether
//! requests begin sessions or go on with one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use livepeer_benches::payment::Scene;
use livepeer_core::Time;
use livepeer_core::wire::signer::{PaymentResponse, STATUS_REFRESH, StateBlob};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, process, connections, seconds, kind] = &arguments[..] else {
        eprintln!("usage: signer_load ADDRESS PID CONNECTIONS SECONDS first|continued");
        return ExitCode::from(2);
    };
    match run(
        address,
        process,
        connections.parse().unwrap_or(16),
        Duration::from_secs(seconds.parse().unwrap_or(10)),
        kind == "continued",
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    address: &str,
    process: &str,
    connections: u32,
    span: Duration,
    continued: bool,
) -> std::io::Result<()> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(std::io::Error::other)?;
    let now = Time::ZERO + now;
    let done = Arc::new(AtomicU64::new(0));
    let before = cpu(process)?;
    let start = Instant::now();
    let workers: Vec<_> = (0..connections)
        .map(|number| {
            let (done, address) = (Arc::clone(&done), address.to_owned());
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut connection = Connection::new(&address)?;
                let mut scene = Scene::at(now);
                // No two connections share a quote, and no two runs.
                let mut quotes = now.as_nanos() + (u64::from(number) << 24);
                scene.requote(quotes);
                let first = |scene: &Scene| match continued {
                    true => scene.units(now, StateBlob::default()),
                    false => scene.request(now, StateBlob::default()),
                };
                let mut body = first(&scene);
                while start.elapsed() < span {
                    let (status, answer) = connection.call(&body)?;
                    if status == STATUS_REFRESH {
                        // So many payments wear a quote out.
                        quotes += 1;
                        scene.requote(quotes);
                        body = first(&scene);
                        continue;
                    }
                    if status != 200 {
                        let text = String::from_utf8_lossy(&answer);
                        return Err(std::io::Error::other(format!("status {status}: {text}")));
                    }
                    let made =
                        PaymentResponse::from_json(&answer).map_err(std::io::Error::other)?;
                    if continued {
                        body = scene.units(now, made.state);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    for worker in workers {
        worker
            .join()
            .map_err(|_| std::io::Error::other("a connection panicked"))??;
    }
    let took = start.elapsed().as_secs_f64();
    let used = (cpu(process)? - before).as_secs_f64();
    let done = done.load(Ordering::Relaxed);
    println!(
        "{done} payments in {took:.1} s: {:.0}/s; the signer used {:.0} us each, {:.2} cores; {}",
        done as f64 / took,
        used / done as f64 * 1e6,
        used / took,
        memory(process)?
    );
    Ok(())
}

struct Connection {
    stream: TcpStream,
    address: String,
    read: Vec<u8>,
}

impl Connection {
    fn new(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            address: address.to_owned(),
            read: Vec::new(),
        })
    }

    fn call(&mut self, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        let mut request = format!(
            "POST /generate-live-payment HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request)?;
        self.read.clear();
        let mut piece = [0; 8 << 10];
        loop {
            if let Some(answer) = whole(&self.read) {
                return Ok(answer);
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(std::io::Error::other("the signer hung up")),
                n => self.read.extend_from_slice(&piece[..n]),
            }
        }
    }
}

/// An answer, once all of it is there.
fn whole(read: &[u8]) -> Option<(u16, Vec<u8>)> {
    let head = read.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&read[..head]).ok()?.to_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))?;
    let length: usize = length.trim().parse().ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let body = read.get(head + 4..head + 4 + length)?;
    Some((status, body.to_vec()))
}

/// The processor time that a process has used. Linux, with its usual hundred ticks a second.
fn cpu(process: &str) -> std::io::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// The memory of a process, now and at most.
fn memory(process: &str) -> std::io::Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        let kib: u64 = found
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        format!("{:.1} MiB", kib as f64 / 1024.0)
    };
    Ok(format!(
        "memory {}, at most {}",
        line("VmRSS:"),
        line("VmHWM:")
    ))
}
