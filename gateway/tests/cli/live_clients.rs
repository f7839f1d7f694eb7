//! Senders and viewers of others, unchanged, against `serve` on a development network: every picture that is sent is
//! decoded by all who watch, and sound is in step.
//!
//! Senders and viewers are installed by name from the package registries, which takes minutes, so only where `LIVEPEER_CLIENTS=1` asks
//! for it; one that cannot be had is told. With `LIVEPEER_CLIENTS=required` that fails the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clients::{GATEWAY, install, node, output, python, scripts, tell};
use crate::files::Folder;
use crate::ingest::{Entry, LIVE};
use crate::process::Running;
use crate::server::Devnet;

/// The packages of Python that bring ffmpeg 9, aiortc, and what Livepeer's own client needs.
const PYTHON: [&str; 7] = [
    "imageio-ffmpeg==0.8.1",
    "aiortc==1.16.0",
    "av==18.1.0",
    "aiohttp==3.14.5",
    "grpcio==1.85.3",
    "protobuf==7.36.2",
    "numpy",
];
/// Livepeer's own client, which asks for a newer Python than it needs.
const LIVEPEER: [&str; 3] = ["--no-deps", "--ignore-requires-python", GATEWAY];
/// The packages of Node.
const NODE: [&str; 2] = ["node-datachannel@0.33.4", "playwright-core@1.65.1"];

/// How ffmpeg encodes pictures as live senders do.
const VIDEO: [&str; 10] = [
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
];
/// Pictures of the clip, at 30 a second.
const PICTURES: u64 = 240;
/// How long a program may take, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(120);
/// How far sound may be from its pictures.
const IN_STEP_MS: f64 = 40.0;
/// Time stamps of pictures, 33 ms apart, may be apart by this much.
const STEP_MS: f64 = 50.0;

/// The programs that can be had.
struct Programs {
    folder: Folder,
    python: PathBuf,
    ffmpeg: PathBuf,
    old_ffmpeg: Option<PathBuf>,
    node: Option<PathBuf>,
    chromium: Option<PathBuf>,
}

impl Programs {
    /// Installs them, and makes the clip that they send. Nothing if there is no way to measure.
    fn install() -> Option<Self> {
        let bin = python("clients-live-python", &PYTHON)?;
        let pip = bin.join("pip");
        install(
            Command::new(&pip)
                .args(["install", "--quiet"])
                .args(LIVEPEER),
        )?;
        let python = bin.join("python");
        let script = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
        let ffmpeg = output(Command::new(&python).args(["-c", script])).ok()?;
        let programs = Self {
            folder: Folder::new("live-clients"),
            python,
            ffmpeg: ffmpeg.trim().into(),
            old_ffmpeg: of_system("ffmpeg"),
            node: node("clients-live-node", &NODE),
            chromium: of_system("chromium"),
        };
        programs.make_clip();
        Some(programs)
    }

    /// Makes eight seconds of pictures and tones with the marks that `live_marks.py` reads, and what libdatachannel's script
    /// sends of them.
    fn make_clip(&self) {
        let light = "st(0,floor(X/20));\
            st(1,N+4096*mod(N+floor(N/16)+floor(N/256)+5,16));\
            if(lt(Y,120),16+219*mod(floor(ld(1)/pow(2,ld(0))),2),\
            if(lt(mod(N,30),3),235,60+mod(X+4*N,64)))";
        let tone = "0.5*sin(2*PI*1000*t)*lt(mod(t,1),0.1)";
        let seconds = PICTURES / 30;
        let mut clip = self.ffmpeg(&["-y", "-f", "lavfi", "-i"]);
        clip.arg(format!(
            "color=size=320x240:rate=30:duration={seconds},format=yuv420p,geq=lum='{light}':cb=128:cr=128"
        ));
        clip.args(["-f", "lavfi", "-i"]);
        clip.arg(format!("aevalsrc='{tone}|{tone}':s=48000:d={seconds}"));
        clip.args(["-c:v", "ffv1", "-c:a", "pcm_s16le"]);
        clip.arg(self.folder.path("clip.mkv"));
        let mut pictures = self.ffmpeg(&["-y", "-i"]);
        pictures.arg(self.folder.path("clip.mkv")).args(VIDEO);
        pictures.args(["-an", "-bsf:v", "h264_metadata=aud=insert", "-f", "h264"]);
        pictures.arg(self.folder.path("clip.h264"));
        let mut sound = self.ffmpeg(&["-y", "-i"]);
        sound.arg(self.folder.path("clip.mkv"));
        sound.args([
            "-map", "0:a", "-c:a", "libopus", "-vbr", "off", "-b:a", "64k",
        ]);
        sound
            .args(["-f", "data"])
            .arg(self.folder.path("clip.opus"));
        for mut command in [clip, pictures, sound] {
            output(&mut command).unwrap_or_else(|said| panic!("no clip: {said}"));
        }
    }

    fn ffmpeg(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.ffmpeg);
        command.args(["-v", "error", "-nostdin"]).args(arguments);
        command
    }

    fn python(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(scripts().join(script)).args(arguments);
        command
    }

    fn node(&self, script: &str) -> Option<Command> {
        let mut command = Command::new("node");
        command.arg(self.node.as_ref()?.join(script));
        Some(command)
    }

    fn browser(&self, arguments: &[&str]) -> Option<Command> {
        let mut command = self.node("live_chromium.mjs")?;
        command.arg(self.chromium.as_ref()?).args(arguments);
        Some(command)
    }

    /// A sender of the clip, to that place by RTMP or by WHIP; nothing if it is absent.
    fn sender(&self, kind: Sender, rtmp: &str, whip: &str) -> Option<Command> {
        let clip = self.folder.path("clip.mkv");
        let send = |program: &Path, sound: &str, form: &str, url: &str| {
            let mut command = Command::new(program);
            command.args(["-v", "error", "-nostdin", "-re", "-i", &clip]);
            command.args(VIDEO).args(["-c:a", sound, "-f", form, url]);
            command
        };
        match kind {
            Sender::OldFfmpeg => Some(send(self.old_ffmpeg.as_ref()?, "aac", "flv", rtmp)),
            Sender::Ffmpeg => Some(send(&self.ffmpeg, "aac", "flv", rtmp)),
            Sender::FfmpegOpus => Some(send(&self.ffmpeg, "libopus", "flv", rtmp)),
            Sender::FfmpegWhip => Some(send(&self.ffmpeg, "libopus", "whip", whip)),
            Sender::Aiortc => Some(self.python("live_aiortc.py", &["send", whip, &clip])),
            Sender::Datachannel => {
                let mut command = self.node("live_datachannel.mjs")?;
                command.arg(whip);
                command.arg(self.folder.path("clip.h264"));
                command.arg(self.folder.path("clip.opus"));
                Some(command)
            }
            Sender::Chromium => self.browser(&["send", whip, &(PICTURES / 30).to_string()]),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    OldFfmpeg,
    Ffmpeg,
    FfmpegOpus,
    FfmpegWhip,
    Aiortc,
    Datachannel,
    Chromium,
}

impl Sender {
    const ALL: [Self; 7] = [
        Self::OldFfmpeg,
        Self::Ffmpeg,
        Self::FfmpegOpus,
        Self::FfmpegWhip,
        Self::Aiortc,
        Self::Datachannel,
        Self::Chromium,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::OldFfmpeg => "ffmpeg of the system by RTMP",
            Self::Ffmpeg => "ffmpeg 9 by RTMP",
            Self::FfmpegOpus => "ffmpeg 9 by Enhanced RTMP with Opus",
            Self::FfmpegWhip => "ffmpeg 9 by WHIP",
            Self::Aiortc => "aiortc by WHIP",
            Self::Datachannel => "libdatachannel by WHIP",
            Self::Chromium => "Chromium by WHIP",
        }
    }

    /// Whether viewers by WebRTC hear the sound; those of RTMP hear the other kind.
    const fn sends_opus(self) -> bool {
        !matches!(self, Self::OldFfmpeg | Self::Ffmpeg)
    }
}

/// The path of a program of the system, whose package of that name is installed if it can be.
fn of_system(name: &str) -> Option<PathBuf> {
    let find = || {
        let folders = std::env::var_os("PATH")?;
        let mut files = std::env::split_paths(&folders).map(|folder| folder.join(name));
        files.find(|file| file.is_file())
    };
    find().or_else(|| {
        let mut apt = Command::new("apt-get");
        apt.args([
            "install",
            "--yes",
            "--quiet",
            "--no-install-recommends",
            name,
        ]);
        install(apt.env("DEBIAN_FRONTEND", "noninteractive"))?;
        find()
    })
}

/// A viewer that runs, and says what it saw in the end.
struct Viewer {
    name: &'static str,
    running: Running,
    said: BufReader<ChildStdout>,
}

impl Viewer {
    /// Starts a viewer, until it is about to watch.
    fn start(name: &'static str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start(&mut command);
        let said = running.0.stdout.take().expect("it is piped");
        let mut said = BufReader::new(said);
        let mut line = String::new();
        said.read_line(&mut line).expect("text");
        assert_eq!(line.trim(), "ready", "{name}");
        Self {
            name,
            running,
            said,
        }
    }

    /// The report of what it saw.
    fn report(mut self) -> Value {
        let mut text = String::new();
        self.said.read_to_string(&mut text).expect("text");
        self.running.wait(PATIENCE);
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|_| panic!("{}: {text}", self.name))
    }
}

/// Lines that a program says, until one that has all those words.
fn line_with(said: &Receiver<String>, words: &[&str]) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let wait = until.saturating_duration_since(Instant::now());
        let line = said.recv_timeout(wait);
        let line = line.unwrap_or_else(|_| panic!("nothing with {words:?}"));
        if words.iter().all(|word| line.contains(word)) {
            return line;
        }
    }
}

/// Carries a stream from its sender to everybody who watches. The faults of what they saw.
fn carry(programs: &Programs, entry: &Entry, kind: Sender, at: usize) -> Option<Vec<String>> {
    let name = format!("cam{at}");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = free.local_addr().expect("it is bound");
    drop(free);
    let door = format!("http://{}{LIVE}/{name}", entry.serve.door);
    let push = format!("rtmp://{server}/live/out");
    let rtmp = format!("rtmp://{}/live/{name}?rtmpOutput={push}", entry.rtmp);
    let whip = format!("{door}/whip?rtmpOutput={push}");
    let mut sender = programs.sender(kind, &rtmp, &whip)?;

    let file = programs.folder.path(&format!("{name}.mkv"));
    let mut server = programs.ffmpeg(&["-listen", "1", "-i", &push, "-c", "copy", &file]);
    // It says that the connection was closed.
    let mut server = Running::start(server.stderr(Stdio::null()));
    let whep = format!("{door}-out/whep");
    let aiortc = Viewer::start(
        "aiortc",
        programs.python("live_aiortc.py", &["watch", &whep]),
    );
    let chromium =
        { programs.browser(&["watch", &whep]) }.map(|command| Viewer::start("Chromium", command));
    let client = entry.devnet.as_ref().map(|devnet| {
        let script = programs.python("live_output.py", &[]);
        (Viewer::start("Python client", script), devnet)
    });

    let (told, sent) = channel();
    thread::spawn(move || told.send(output(&mut sender)));
    let client = client.map(|(client, devnet)| watch_channel(client, devnet));
    let sent = sent.recv_timeout(PATIENCE).expect("it ends");
    let sent = sent.unwrap_or_else(|said| panic!("{}: {said}", kind.name()));
    // Programs without a report send all of the clip.
    let sent = { sent.lines() }
        .find_map(|line| serde_json::from_str::<Value>(line).ok())
        .map_or(PICTURES, |told| told["sent"].as_u64().expect("a count"));
    let over = line_with(&entry.serve.server.said, &["a live job is over"]);

    let mut faults = Vec::new();
    for way in ["in", "out"] {
        if !over.contains(&format!("pictures_{way}={sent}")) {
            faults.push(format!("{sent} sent: {over}"));
        }
    }
    server.wait(PATIENCE);
    let pushed = output(&mut programs.python("live_file.py", &[&file])).expect("a file");
    let pushed: Value = serde_json::from_str(pushed.trim()).expect("a report");
    let mut reports = vec![("RTMP push", pushed, !kind.sends_opus())];
    reports.extend(client.map(|viewer| ("Python client", viewer.report(), true)));
    reports.push(("aiortc", aiortc.report(), kind.sends_opus()));
    // How far apart Chromium plays both is a matter of its buffers, which swing with the load of the machine: that is told, and
    // judged is which times of the sender it takes the sound and the pictures to be of.
    reports.extend(chromium.map(|viewer| ("Chromium", viewer.report(), kind.sends_opus())));
    let pushed = reports[0].1.clone();
    for (viewer, report, hears) in reports {
        tell(&format!("{}, seen by {viewer}: {report}", kind.name()));
        let loses = entry.devnet.is_none();
        let faults_of = judge((kind, loses), viewer, &report, sent, &pushed, hears);
        faults.extend(
            faults_of
                .into_iter()
                .map(|fault| format!("{viewer}: {fault}")),
        );
    }
    Some(faults)
}

/// Has Livepeer's own client watch the output of the next session of a development network.
fn watch_channel(mut client: Viewer, devnet: &Devnet) -> Viewer {
    let line = line_with(&devnet.server.said, &["session ", " runs noop"]);
    let session = line.split_whitespace().nth(1).expect("its name");
    let orchestrator = &devnet.orchestrators[0];
    let mut stdin = client.running.0.stdin.take().expect("it is piped");
    writeln!(stdin, "{orchestrator}/ai/trickle/{session}-out").expect("it reads");
    client
}

/// The faults of what a viewer saw, held against what was `pushed`, which has as many pictures as were sent. Where an
/// orchestrator may be lost, pictures may come twice and late.
fn judge(
    (kind, loses): (Sender, bool),
    viewer: &str,
    report: &Value,
    sent: u64,
    pushed: &Value,
    hears: bool,
) -> Vec<String> {
    let count = |name: &str| report[name].as_u64();
    let within = |name: &str, most: f64| report[name].as_f64().is_some_and(|it| it.abs() <= most);
    let missing = |report: &Value| -> Vec<u64> {
        serde_json::from_value(report["missing"].clone()).expect("numbers")
    };
    let mut faults = Vec::new();
    let mut hold = |holds: bool, what: &str| {
        if !holds {
            faults.push(format!("{what}: {report}"));
        }
    };
    hold(count("unreadable") == Some(0), "pictures are spoilt");
    hold(loses || count("again") == Some(0), "pictures come twice");
    // Pictures that the sender left out, as browsers do that are short of time.
    let skipped = missing(pushed);
    let mut lost = missing(report);
    lost.retain(|one| !skipped.contains(one));
    // A browser that is short of time does not show every picture, and says so.
    let own = count("dropped").unwrap_or(0);
    hold(lost.len() as u64 <= own, "pictures are missing");
    // aiortc has a picture once the next one comes, so never the last.
    let unseen = u64::from(viewer == "aiortc");
    let last = count("last").map(|last| last + unseen);
    hold(
        last.is_some() && last >= pushed["last"].as_u64(),
        "the end is missing",
    );
    if ["RTMP push", "Python client"].contains(&viewer) {
        hold(
            count("decoded").map(|all| all - count("again").unwrap_or(0)) == Some(sent),
            "not every picture was decoded",
        );
    }
    // Pages draw when they come to it.
    if kind != Sender::Chromium && viewer != "Chromium" && !loses {
        hold(within("step_max_ms", STEP_MS), "time stamps have gaps");
    }
    if hears {
        hold(count("tones") >= Some(3), "sound is missing");
        hold(within("apart_ms", IN_STEP_MS), "sound is out of step");
    }
    faults
}

#[test]
fn every_picture_of_every_sender_reaches_every_viewer() {
    let asked = std::env::var("LIVEPEER_CLIENTS").unwrap_or_default();
    if asked.is_empty() {
        return tell(
            "not run: LIVEPEER_CLIENTS=1 installs and runs senders and viewers of live video",
        );
    }
    let Some(programs) = Programs::install() else {
        assert_ne!(
            asked, "required",
            "ffmpeg, aiortc or Livepeer's client are absent"
        );
        return tell("ffmpeg, aiortc or Livepeer's client are absent: nothing can be measured");
    };
    if programs.browser(&[]).is_none() {
        assert_ne!(asked, "required", "Chromium or Node's packages are absent");
        tell("nobody watches with Chromium: it is absent");
    }
    let entry = match std::env::var("LIVEPEER_ORCHESTRATORS") {
        Ok(addresses) => Entry::before_others(&addresses),
        Err(_) => Entry::start(""),
    };
    let mut faults = Vec::new();
    for (at, kind) in Sender::ALL.into_iter().enumerate() {
        match carry(&programs, &entry, kind, at) {
            Some(found) => faults.extend(
                found
                    .into_iter()
                    .map(|one| format!("{}, {one}", kind.name())),
            ),
            None => {
                assert_ne!(asked, "required", "{} is absent", kind.name());
                tell(&format!("{} is absent", kind.name()));
            }
        }
    }
    // Orchestrators of others have no such model.
    if entry.devnet.is_some() {
        faults.extend(draw(&programs, &entry));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Sends the clip through a model that makes a second picture after each, with a clock drawn into it. The fault of that.
fn draw(programs: &Programs, entry: &Entry) -> Option<String> {
    let drawn = format!("rtmp://{}/live/drawn?model=clock", entry.rtmp);
    let sender = programs.sender(Sender::Ffmpeg, &drawn, "");
    output(&mut sender.expect("it is there")).unwrap_or_else(|said| panic!("{said}"));
    let over = line_with(&entry.serve.server.said, &["a live job is over"]);
    let counts = [("in", PICTURES), ("out", 2 * PICTURES)];
    let holds = |(way, pictures)| over.contains(&format!("pictures_{way}={pictures}"));
    let is_right = counts.into_iter().all(holds);
    (!is_right).then(|| format!("{PICTURES} sent to a clock: {over}"))
}
