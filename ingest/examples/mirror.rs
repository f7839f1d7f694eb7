//! A mirror: what a browser, ffmpeg or OBS sends by WHIP can be watched by WHEP, with nothing in between.
//!
//! ```text
//! cargo run --example mirror -- 127.0.0.1:8080     # HTTP and UDP at this address
//! cargo run --example mirror -- 127.0.0.1:8080 in-step     # viewers wait for sound
//! ```
//! Open `http://127.0.0.1:8080/`, or send to `http://127.0.0.1:8080/live/video-to-video/NAME/whip` and watch at
//! `…/NAME/whep`. It shows how [`Port`] is driven: requests, datagrams and time in, answers, datagrams and events out.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use livepeer_core::http::{Body, Method, Request, Response, Url};
use livepeer_core::{EffectId, Time};
use livepeer_ingest::port::{
    Call, Certificate, Clock, Config, Datagram, Door, Event, Frame, Output, Port, SessionId,
};
use livepeer_media::timeline::{Clocks, Timeline};
use livepeer_media::{AccessUnit, Audio};

/// At most this many bytes of a request's body are read.
const MAX_BODY: u64 = 128 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let at: SocketAddr = std::env::args()
        .nth(1)
        .as_deref()
        .unwrap_or("127.0.0.1:8080")
        .parse()?;
    let listener = TcpListener::bind(at)?;
    let socket = UdpSocket::bind(listener.local_addr()?)?;
    let calls = listen(listener);
    println!("open http://{at}/");
    let in_step = std::env::args()
        .nth(2)
        .is_some_and(|said| said == "in-step");
    Mirror::new(socket, in_step)?.run(&calls)
}

struct Mirror {
    socket: UdpSocket,
    port: Port,
    began: Instant,
    start: Time,
    waiting: BTreeMap<EffectId, Sender<Response>>,
    senders: BTreeMap<SessionId, Sending>,
    exchanges: u64,
}

struct Sending {
    stream: String,
    timeline: Timeline,
    pictures: u64,
    sounds: u64,
}

impl Mirror {
    fn new(socket: UdpSocket, in_step: bool) -> Result<Self, Box<dyn Error>> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let (began, start) = (Instant::now(), Time::ZERO + since);
        let config = Config {
            addresses: vec![socket.local_addr()?],
            in_step,
            ..Config::default()
        };
        // A real program takes 32 bytes of the system's entropy: session names are secrets.
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&since.as_nanos().to_be_bytes());
        let clock = Clock::new(began, start);
        Ok(Self {
            socket,
            port: Port::new(start, config, Certificate::generate(), clock, seed),
            began,
            start,
            waiting: BTreeMap::new(),
            senders: BTreeMap::new(),
            exchanges: 0,
        })
    }

    fn now(&self) -> Time {
        self.start + self.began.elapsed()
    }

    fn run(mut self, calls: &Receiver<(Call, Sender<Response>)>) -> Result<(), Box<dyn Error>> {
        let mut buffer = [0; 2_048];
        loop {
            let wake = self.drain();
            // Short enough that requests, which come by another way, do not wait.
            let longest = Duration::from_millis(5);
            let wait = wake.map_or(longest, |at| at.since(self.now()).min(longest));
            self.socket
                .set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
            if let Ok((length, peer)) = self.socket.recv_from(&mut buffer) {
                let data = buffer[..length].to_vec();
                let now = self.now();
                self.port.receive(now, &Datagram { peer, data });
            }
            for (mut call, reply) in calls.try_iter() {
                self.exchanges += 1;
                call.exchange = EffectId::by_peer(self.exchanges);
                self.waiting.insert(call.exchange, reply);
                let now = self.now();
                self.port.call(now, &call);
            }
            let now = self.now();
            self.port.tick(now);
        }
    }

    fn drain(&mut self) -> Option<Time> {
        loop {
            match self.port.poll_output() {
                Output::Send(datagram) => {
                    // UDP may lose it anywhere; losing it here is no different.
                    let _ = self.socket.send_to(&datagram.data, datagram.peer);
                }
                Output::Reply(id, response) => {
                    if let Some(reply) = self.waiting.remove(&id) {
                        let _ = reply.send(response); // the caller may be gone
                    }
                }
                Output::Event(event) => self.happened(event),
                Output::Idle(at) => return at,
            }
        }
    }

    fn happened(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Asked {
                session, stream, ..
            } => {
                self.port.open_stream(&stream);
                self.port.admit(now, session, None);
                let timeline = Timeline::new(Clocks::Apart);
                let sending = Sending {
                    stream,
                    timeline,
                    pictures: 0,
                    sounds: 0,
                };
                self.senders.insert(session, sending);
            }
            Event::Frame(session, frame) => {
                let Some(sending) = self.senders.get_mut(&session) else {
                    return;
                };
                let arrival = now.since(self.start);
                match frame {
                    Frame::Video(unit) => {
                        sending.pictures += 1;
                        let (pts, dts) = sending.timeline.video(arrival, unit.pts, unit.dts);
                        let unit = AccessUnit { pts, dts, ..unit };
                        self.port.send_video(now, &sending.stream, &unit);
                    }
                    Frame::Audio(audio) => {
                        sending.sounds += 1;
                        if let Some(pts) = sending.timeline.audio(arrival, audio.pts) {
                            let audio = Audio { pts, ..audio };
                            self.port.send_audio(now, &sending.stream, &audio);
                        }
                    }
                    Frame::Report(kind, stamp, micros) => {
                        sending.timeline.report(kind, stamp, micros);
                    }
                    Frame::Lost => {}
                }
            }
            Event::Ended(session, end) => {
                if let Some(sending) = self.senders.remove(&session) {
                    let Sending {
                        stream,
                        pictures,
                        sounds,
                        ..
                    } = sending;
                    println!("{stream}: {pictures} pictures, {sounds} packets of sound; {end}");
                    if self.senders.values().all(|other| other.stream != stream) {
                        self.port.close_stream(now, &stream);
                    }
                }
            }
            other => println!("{:.3} {other:?}", self.began.elapsed().as_secs_f32()),
        }
    }
}

/// Reads requests, each connection in a thread of its own.
fn listen(listener: TcpListener) -> Receiver<(Call, Sender<Response>)> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                if let Err(error) = serve(connection, &sender) {
                    println!("a request failed: {error}");
                }
            });
        }
    });
    receiver
}

fn serve(
    mut stream: TcpStream,
    calls: &Sender<(Call, Sender<Response>)>,
) -> Result<(), Box<dyn Error>> {
    let mut reader = BufReader::new(stream.try_clone()?).take(MAX_BODY);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_ascii_whitespace();
    let (method, path) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let method = Method::from_name(method).ok_or("an unknown method")?;
    let mut request = Request::new(method, Url::parse(&format!("http://mirror{path}"))?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let (name, value) = (name.to_ascii_lowercase(), value.trim());
        if name == "content-length" {
            length = value.parse()?;
        }
        request.headers.push_any(&name, value);
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    let reply = match call(request, body.into()) {
        None => Response::new(200)
            .header("content-type", "text/html")
            .body(Body::Full(Bytes::from_static(include_bytes!(
                "mirror.html"
            )))),
        Some(call) => {
            let (sender, receiver) = channel();
            calls.send((call, sender))?;
            receiver.recv()?
        }
    };
    let body = match reply.body {
        Body::Full(bytes) => bytes,
        _ => Bytes::new(),
    };
    let mut head = format!("HTTP/1.1 {} -\r\nconnection: close\r\n", reply.status);
    if reply.status != 204 {
        head += &format!("content-length: {}\r\n", body.len());
    }
    head += "access-control-allow-origin: *\r\naccess-control-allow-headers: *\r\n";
    head += "access-control-allow-methods: *\r\n";
    for (name, value) in reply.headers.iter() {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(&body)?;
    // Closing over bytes that were not read would reset the connection, and the answer with it.
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let _ = std::io::copy(&mut stream.take(MAX_BODY), &mut std::io::sink()); // what comes does not matter
    Ok(())
}

/// The call that a path names: `/live/video-to-video/NAME/whip[/SESSION]`, or `whep`.
fn call(request: Request, body: Bytes) -> Option<Call> {
    let path = request.url.path().split('?').next()?.to_owned();
    let mut parts = path.strip_prefix("/live/video-to-video/")?.split('/');
    let stream = parts.next()?.to_owned();
    let door = match parts.next()? {
        "whip" => Door::Whip,
        "whep" => Door::Whep,
        _ => return None,
    };
    let session = parts.next().map(str::to_owned);
    let exchange = EffectId::by_peer(0);
    Some(Call {
        exchange,
        door,
        stream,
        session,
        request,
        body,
    })
}
