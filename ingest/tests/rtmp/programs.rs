//! ffmpeg publishes to our listener over real sockets, and decodes what arrived.
//!
//! The programs are installed by name from a package registry, which takes time, so only where `LIVEPEER_CLIENTS=1` asks
//! for it; one that cannot be had is told. With `LIVEPEER_CLIENTS=required` that fails the test.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use livepeer_core::Time;
use livepeer_ingest::rtmp::{Config, ConnectionId, Ending, Event, Input, Output, Server};
use livepeer_media::frame::AudioCodec;

/// The package of Python that brings ffmpeg 9.
const PACKAGE: &str = "imageio-ffmpeg==0.8.1";
/// How long a program may take, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pictures that are sent.
const FRAMES: usize = 90;

enum News {
    Accepted(TcpStream),
    Listener(ConnectionId, Bytes),
    ListenerClosed(ConnectionId),
}

/// Reads a socket until its end, and tells what comes.
fn read(
    mut stream: TcpStream,
    news: Sender<News>,
    tell: impl Fn(Option<Bytes>) -> News + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = stream.read(&mut buffer).unwrap_or(0);
            let data = (count > 0).then(|| Bytes::copy_from_slice(&buffer[..count]));
            if news.send(tell(data)).is_err() || count == 0 {
                return;
            }
        }
    });
}

/// The result of a run of ffmpeg.
#[derive(Default)]
struct Result {
    sound: Option<AudioCodec>,
    video: usize,
    /// The pictures in Annex B.
    bytes: Vec<u8>,
    audio: usize,
    ended: Option<Ending>,
}

/// Drives our listener until the publisher has left.
fn relay(news: &Receiver<News>, sender: &Sender<News>) -> Result {
    let begun = Instant::now();
    let now = || Time::from_secs(1) + begun.elapsed();
    let mut server = Server::new(now(), Config::default());
    let mut sockets = BTreeMap::new();
    let mut result = Result::default();
    while result.ended.is_none() {
        assert!(begun.elapsed() < PATIENCE, "no end");
        let wake = loop {
            match server.poll_output() {
                Output::Write(id, bytes) => {
                    let socket: &mut TcpStream = sockets.get_mut(&id).unwrap();
                    let _ = socket.write_all(&bytes);
                }
                Output::Close(id) => {
                    if let Some(socket) = sockets.remove(&id) {
                        let _ = socket.shutdown(std::net::Shutdown::Both);
                    }
                }
                Output::Event(Event::Asks {
                    connection,
                    publication,
                    ..
                }) => {
                    assert_eq!(publication.key.as_deref(), Some("abc"));
                    server.admit(now(), connection);
                }
                Output::Event(Event::Video(_, unit)) => {
                    result.video += 1;
                    result.bytes.extend_from_slice(&unit.data);
                }
                Output::Event(Event::Audio(_, audio)) => {
                    result.sound = Some(audio.track.codec());
                    result.audio += 1;
                }
                Output::Event(Event::Ended(_, ending)) => result.ended = Some(ending),
                Output::Event(_) => {}
                Output::Idle(wake) => break wake,
            }
        };
        let wait = wake.map_or(PATIENCE, |wake| wake.since(now()));
        match news.recv_timeout(wait) {
            Ok(News::Accepted(stream)) => {
                let id = ConnectionId(sockets.len() as u64);
                let tell = move |data: Option<Bytes>| match data {
                    Some(bytes) => News::Listener(id, bytes),
                    None => News::ListenerClosed(id),
                };
                read(stream.try_clone().unwrap(), sender.clone(), tell);
                sockets.insert(id, stream);
                server.handle_input(now(), Input::Opened(id, IpAddr::V4(Ipv4Addr::LOCALHOST)));
            }
            Ok(News::Listener(id, bytes)) => server.handle_input(now(), Input::Data(id, bytes)),
            Ok(News::ListenerClosed(id)) => server.handle_input(now(), Input::Closed(id)),
            Err(RecvTimeoutError::Timeout) => server.handle_input(now(), Input::Tick),
            Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is kept"),
        }
    }
    result
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program publishes to us with that sound, and decodes what came.
fn publish(program: &Path, sound: &[&str], codec: AudioCodec) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, news) = channel();
    let accepted = sender.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            if accepted.send(News::Accepted(stream)).is_err() {
                return;
            }
        }
    });
    let publisher = Command::new(program)
        .args([
            "-v",
            "error",
            "-nostdin",
            "-re",
            "-f",
            "lavfi",
            "-i",
            "testsrc=size=320x180:rate=30",
        ])
        .args([
            "-f",
            "lavfi",
            "-i",
            "sine=frequency=440:sample_rate=48000",
            "-t",
            "3",
        ])
        .args([
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-tune",
            "zerolatency",
            "-g",
            "30",
        ])
        .args(["-b:v", "200k", "-pix_fmt", "yuv420p"])
        .args(sound)
        .args([
            "-f",
            "flv",
            &format!("rtmp://127.0.0.1:{port}/live/cam1?token=abc"),
        ])
        .spawn();
    let _publisher = Running(publisher.expect("the program runs"));
    let result = relay(&news, &sender);
    assert_eq!(result.sound, Some(codec));
    assert_eq!(result.ended, Some(Ending::Deleted));
    assert_eq!(result.video, FRAMES);
    // Three seconds of frames of 21.3 or 20 ms, and what the encoder puts before and after.
    assert!(
        (140..=155).contains(&result.audio),
        "{} frames of sound",
        result.audio
    );
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("published.h264");
    std::fs::write(&file, &result.bytes).unwrap();
    let mut player = Command::new(program);
    player
        .args(["-v", "error", "-nostdin", "-f", "h264", "-i"])
        .arg(&file);
    player.args(["-f", "null", "-progress", "pipe:1", "-"]);
    let said = output(&mut player).expect("what arrived can be decoded");
    let decoded = said
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("frame="));
    assert_eq!(
        decoded.and_then(|count| count.trim().parse().ok()),
        Some(FRAMES),
        "{said}"
    );
}

#[test]
fn ffmpeg_publishes_and_every_picture_arrives() {
    let asked = std::env::var("LIVEPEER_CLIENTS").unwrap_or_default();
    if asked.is_empty() {
        return tell("not run: LIVEPEER_CLIENTS=1 installs and runs it");
    }
    let found = [("ffmpeg of the system", system()), ("ffmpeg 9", package())];
    for (name, program) in &found {
        let Some(program) = program else {
            tell(&format!("{name} is absent"));
            assert_ne!(asked, "required", "{name} is absent");
            continue;
        };
        publish(
            program,
            &["-c:a", "aac", "-b:a", "48k", "-ac", "1"],
            AudioCodec::Aac,
        );
        tell(&format!("{name}: H.264 and AAC arrived"));
        if *name == "ffmpeg 9" {
            publish(
                program,
                &["-c:a", "libopus", "-b:a", "32k", "-ac", "1"],
                AudioCodec::Opus,
            );
            tell(&format!("{name}: H.264 and Opus arrived"));
        }
    }
}

/// Says something that is seen although the test passes.
fn tell(what: &str) {
    let _ = writeln!(std::io::stderr(), "programs of others: {what}");
}

fn system() -> Option<PathBuf> {
    let mut command = Command::new("ffmpeg");
    output(command.arg("-version"))?;
    Some("ffmpeg".into())
}

fn package() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ffmpeg-python");
    let bin = place.join("bin");
    if !bin.join("pip").exists() {
        output(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    }
    output(Command::new(bin.join("pip")).args(["install", "--quiet", PACKAGE]))?;
    let script = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
    let path = output(Command::new(bin.join("python")).args(["-c", script]))?;
    Some(path.trim().into())
}

/// The output of a command that has to succeed.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
