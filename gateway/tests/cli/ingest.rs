//! Live video into `serve`: announced by a media server, by RTMP and by WHIP, through the development network, and out to
//! viewers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clients::{install, output, place, tell};
use crate::files::Folder;
use crate::http::{Whole, fetch};
use crate::serve::{Serve, json};
use crate::server::Devnet;

pub(crate) const LIVE: &str = "/live/video-to-video";
/// Everything that ffmpeg 9 sent to a server to publish 60 pictures and their sound as `live/key?token=abc`.
const RECORDING: &[u8] =
    include_bytes!("../../../ingest/tests/vectors/rtmp/ffmpeg9-h264-aac.c2s.bin");
const SENDER: &str = include_str!("../../../ingest/tests/vectors/sdp/ffmpeg9-whip.offer.sdp");
const VIEWER: &str = include_str!("../../../ingest/tests/vectors/sdp/chromium-whep.offer.sdp");
const SDP: (&str, &str) = ("content-type", "application/sdp");
const URLENCODED: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// A gateway before a development network that takes live video.
pub(crate) struct Entry {
    pub(crate) serve: Serve,
    pub(crate) rtmp: String,
    pub(crate) devnet: Devnet,
}

impl Entry {
    pub(crate) fn start(more: &str) -> Self {
        let folder = Folder::new("ingest");
        let file = folder.path("gateway.toml");
        let ingest =
            format!("[ingest]\nrtmp = \"127.0.0.1:0\"\nwebrtc_udp = \"127.0.0.1:0\"\n{more}");
        fs::write(&file, ingest).expect("a folder that can be written");
        let devnet = Devnet::start(1, &[]);
        let serve = Serve::before(&devnet, &["--config", &file, "--log", "info"]);
        let place = { serve.server.introduction.lines() }
            .find_map(|line| line.split("rtmp://").nth(1)?.split('/').next());
        let rtmp = place.expect("a place for RTMP").to_owned();
        Self {
            rtmp,
            serve,
            devnet,
        }
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Whole {
        let path = format!("{LIVE}/{path}");
        fetch(&self.serve.door, method, &path, headers, body.as_bytes())
    }

    /// The status of a stream, once it is as it should be.
    fn status(&self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self.ask("GET", &format!("{name}/status"), &[], "");
            let told = (answer.status == 200).then(|| json(answer.text()));
            if let Some(told) = told.filter(&is_it) {
                return told;
            }
            assert!(Instant::now() < until, "{}", answer.text());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Publishes the recording up to its last words, in twelve seconds, so that reports of the model see it. The
    /// connection stays open.
    fn publish(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.rtmp).expect("it listens");
        let words = b"FCUnpublish";
        let at = RECORDING
            .windows(words.len())
            .position(|some| some == words);
        // The head of its message is before it.
        let sent = &RECORDING[..at.expect("last words") - 15];
        let mut writer = stream.try_clone().expect("a second hand");
        thread::spawn(move || {
            for piece in sent.chunks(sent.len() / 24) {
                // It may be refused, or replaced.
                if writer.write_all(piece).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(500));
            }
        });
        stream
    }
}

fn is_online(status: &Value) -> bool {
    status["state"] == "ONLINE"
}

#[test]
fn a_stream_that_a_media_server_announces_is_started_changed_told_and_stopped() {
    let entry = Entry::start("");
    let form = "source_id=a1&source_type=rtmpConn&query=streamId%3Ds1%26pipeline%3Dnoop";
    let started = entry.ask("POST", "cam1/start", &[URLENCODED], form);
    assert_eq!((started.status, started.text()), (200, ""));
    let told = entry.status("s1", |_| true);
    let whep = told["gateway_status"]["whep_url"].as_str().expect("a URL");
    assert!(
        whep.starts_with(&format!("http://{}{LIVE}/cam1-", entry.serve.door)),
        "{whep}"
    );
    let updated = entry.ask("POST", "cam1/update", &[], r#"{"prompt":"dog"}"#);
    assert_eq!((updated.status, updated.text()), (200, ""));
    let bad = entry.ask("POST", "cam1/update", &[], "prompt=dog");
    assert_eq!(bad.status, 400);
    let stopped = entry.ask("POST", "cam1/stop", &[], "");
    assert_eq!(stopped.status, 200);
    for (path, body) in [("cam1/update", "{}"), ("cam1/stop", "")] {
        let gone = entry.ask("POST", path, &[], body);
        assert_eq!((gone.status, gone.text()), (404, "Stream not found\n"));
    }
    let told = entry.ask("GET", "cam1/status", &[], "");
    assert_eq!(told.status, 200, "for a while");
    assert!(!told.text().contains("127.0.0.1:89"), "{}", told.text());
    // Next to it, a page for people.
    let page = fetch(&entry.serve.door, "GET", "/watch/cam1", &[], b"");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("RTCPeerConnection"), "{}", page.text());
    let missing = entry.ask("POST", "cam1/start", &[URLENCODED], "source_type=rtmpConn");
    assert_eq!(
        (missing.status, missing.text()),
        (400, "Missing source_id\n")
    );
}

#[test]
fn a_stream_by_rtmp_goes_through_a_model_and_can_be_watched() {
    let entry = Entry::start("[ingest.keys]\nkey = \"abc\"\n");
    let unknown = entry.ask("POST", "key-out/whep", &[SDP], VIEWER);
    assert_eq!(
        (unknown.status, unknown.field("retry-after")),
        (404, Some("1"))
    );
    let mut first = entry.publish();
    let before = entry.status("key", is_online);
    // Another publisher takes the name over, and the job goes on; the end of another stream is none of theirs.
    let _second = entry.publish();
    let form = "source_id=a1&source_type=rtmpConn";
    assert_eq!(
        entry.ask("POST", "cam1/start", &[URLENCODED], form).status,
        200
    );
    assert_eq!(entry.ask("POST", "cam1/stop", &[], "").status, 200);
    let mut said = Vec::new();
    first.read_to_end(&mut said).expect("it is closed");
    assert!(String::from_utf8_lossy(&said).contains("replaced"));
    let told = entry.status("key", is_online);
    assert_eq!(told["gateway_status"], before["gateway_status"]);
    assert!(
        !told.to_string().contains("orchestrator_info\":{\"url"),
        "{told}"
    );
    let watched = entry.ask("POST", "key-out/whep", &[SDP], VIEWER);
    assert_eq!(watched.status, 201, "{}", watched.text());
    let place = watched.field("location").expect("a session").to_owned();
    assert!(watched.text().contains("m=video"));
    let session = place.strip_prefix(&format!("{LIVE}/")).expect("a path");
    assert!(
        session.starts_with("key-") && session.contains("-out/whep/"),
        "{place}"
    );
    let left = entry.ask("DELETE", session, &[], "");
    assert_eq!(left.status, 200);
    let stopped = entry.ask("POST", "key/stop", &[], "");
    assert_eq!(stopped.status, 200);
}

#[test]
fn a_wrong_key_is_refused_by_rtmp_and_by_whip() {
    let entry = Entry::start("[ingest.keys]\n\"*\" = \"other\"\n");
    let mut sender = entry.publish();
    let mut said = Vec::new();
    sender.read_to_end(&mut said).expect("it is closed");
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("NetStream.Publish.BadName"), "{said}");

    let path = "cam1/whip";
    let refused = entry.ask("POST", path, &[SDP], SENDER);
    assert_eq!(
        (refused.status, refused.field("www-authenticate")),
        (401, Some("Bearer"))
    );
    assert!(!refused.text().contains("m="), "no SDP in a refusal");
    let bearer = ("authorization", "Bearer other");
    let taken = entry.ask("POST", path, &[SDP, bearer], SENDER);
    assert_eq!(taken.status, 201, "{}", taken.text());
    let playback = taken.field("livepeer-playback-url").expect("a URL");
    assert!(
        playback.contains("/cam1-") && playback.ends_with("-out/whep"),
        "{playback}"
    );
    let place = taken.field("location").expect("a session").to_owned();
    let place = place.strip_prefix(&format!("{LIVE}/")).expect("a path");
    let left = entry.ask("DELETE", place, &[], "");
    assert_eq!(left.status, 200);
    let ended =
        |told: &Value| told["gateway_status"]["error"]["error_message"] == "whip disconnected";
    entry.status("cam1", ended);
    let bad = entry.ask("POST", "cam1/whip?params=%7Bx", &[SDP, bearer], SENDER);
    assert_eq!((bad.status, bad.text()), (400, "Invalid model params\n"));
}

/// The package of Python that brings ffmpeg 9.
const FFMPEG: &str = "imageio-ffmpeg==0.8.1";

/// ffmpeg 9, installed by name, or nothing where it cannot be had.
fn ffmpeg() -> Option<PathBuf> {
    let place = place("clients-ffmpeg");
    let bin = place.join("bin");
    if !bin.join("pip").exists() {
        install(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    }
    install(Command::new(bin.join("pip")).args(["install", "--quiet", FFMPEG]))?;
    let script = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
    let path = output(Command::new(bin.join("python")).args(["-c", script])).ok()?;
    Some(path.trim().into())
}

/// Four seconds of a test picture and a tone, as they happen.
const TEST: &[&str] = &[
    "-v",
    "error",
    "-nostdin",
    "-re",
    "-f",
    "lavfi",
    "-i",
    "testsrc=size=320x240:rate=30",
    "-f",
    "lavfi",
    "-i",
    "sine=sample_rate=48000",
    "-t",
    "4",
    "-c:v",
    "libx264",
    "-profile:v",
    "baseline",
    "-tune",
    "zerolatency",
    "-g",
    "30",
    "-pix_fmt",
    "yuv420p",
    "-ac",
    "2",
];
/// The pictures in it.
const PICTURES: usize = 120;

/// Video that ffmpeg sends by RTMP and by WHIP goes through the model, every picture of it, and what is pushed by RTMP can be
/// decoded.
#[test]
fn ffmpeg_sends_and_every_picture_goes_through_the_model() {
    let asked = std::env::var("LIVEPEER_CLIENTS").unwrap_or_default();
    if asked.is_empty() {
        return tell("not run: LIVEPEER_CLIENTS=1 installs and runs ffmpeg");
    }
    let Some(program) = ffmpeg() else {
        assert_ne!(asked, "required", "ffmpeg is absent");
        return tell("ffmpeg is absent");
    };
    let entry = Entry::start("");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = free.local_addr().expect("it is bound");
    drop(free);
    let mut viewer = Command::new(&program);
    viewer.args(["-v", "error", "-nostdin", "-listen", "1", "-i"]);
    viewer.arg(format!("rtmp://{at}/live/out"));
    viewer.args(["-f", "null", "-progress", "pipe:1", "-"]);
    let viewer = viewer.stdout(Stdio::piped()).spawn().expect("it runs");

    let door = &entry.serve.door;
    let rtmp = format!(
        "rtmp://{}/live/cam1?rtmpOutput=rtmp://{at}/live/out",
        entry.rtmp
    );
    let whip = format!("http://{door}{LIVE}/cam2/whip");
    let drawn = format!("rtmp://{}/live/cam3?pipeline=clock", entry.rtmp);
    // A clock is drawn into a second picture after each.
    for (name, form, sound, url, made) in [
        ("cam1", "flv", "aac", rtmp, 1),
        ("cam2", "whip", "libopus", whip, 1),
        ("cam3", "flv", "aac", drawn, 2),
    ] {
        let mut sender = Command::new(&program);
        sender.args(TEST).args(["-c:a", sound, "-f", form, &url]);
        output(&mut sender).unwrap_or_else(|said| panic!("{name}: {said}"));
        let mut said = entry.serve.server.said.iter();
        let over = said
            .find(|line| line.contains("a live job is over"))
            .expect("its end");
        for (way, pictures) in [("in", PICTURES), ("out", made * PICTURES)] {
            let wanted = format!("pictures_{way}={pictures}");
            assert!(over.contains(&wanted), "{name}: {over}");
        }
    }
    let seen = viewer.wait_with_output().expect("it ends with the stream");
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    let decoded = { seen.lines().rev() }.find_map(|line| line.strip_prefix("frame="));
    let decoded: usize = decoded
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0);
    // Its connection is made while the first pictures come; it begins with a key frame after that.
    assert!(
        (1..=PICTURES).contains(&decoded),
        "{decoded} pictures\n{seen}"
    );
    tell(&format!(
        "ffmpeg 9 by RTMP and WHIP: every picture; {decoded} decoded of {PICTURES} pushed by RTMP"
    ));
}
