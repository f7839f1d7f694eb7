//! Output to another server by RTMP: a machine without sockets that keeps one connection up for as long as a job lasts.
//!
//! ```text
//!            connected         publish is answered
//! Connecting ────────▶ Greeting ────────────────▶ Publishing
//!     │ 10 s              │ 10 s                    │ closed, a fault, 30 s without progress
//!     └───────────────────┴────────────┬────────────┘
//!                                      ▼
//!                Waiting 5 s, then 10, 20, 40, 60 and a little ──▶ Connecting
//! any: a refusal of name or application, or stop ──▶ Over, once what waits for the server to let us publish is sent
//! ```
//!
//! A connection begins with metadata, configurations and a key frame. Frames that come while it is being made wait for it,
//! from a key frame on, so that a server misses nothing of a stream that begins. One that reads too slowly loses pictures up
//! to the next key frame, and never more than [`MAX_QUEUE`] or [`MAX_DELAY`] lies between us and it. What lies there when the
//! stream is stopped is still sent (`a_stream_that_is_stopped_arrives_to_its_last_picture`), and so is what waits for the
//! connection: the attempt at hand goes on for it, and no other one is made
//! (`a_stream_that_ends_before_its_server_lets_it_publish_arrives_whole`).

use std::collections::VecDeque;
use std::time::Duration;

use livepeer_core::rng::Seed;
use livepeer_core::{Machine, Time, machine};
use livepeer_media::aac;
use livepeer_media::flv::{Tag, Writer};
use livepeer_media::frame::{AccessUnit, Audio, AudioCodec, AudioTrack, Ticks, Tracks};
use livepeer_media::h264::Sps;
use livepeer_media::timeline::Kind;
use rtmp_runtime::RtmpError;
use rtmp_runtime::amf0::Amf0Value;
use rtmp_runtime::client::{ClientConfig, ClientEvent, ClientSession};

use super::dial::{self, Attempts, Connection, Dial};

pub use super::dial::{Attempt, BadTarget, Input, Misnamed, Target};

/// How long it takes to connect, and again until the server lets us publish, at most.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before the first new attempt; each further one is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A connection that published for this long is a good one: pauses begin anew.
pub const GOOD: Duration = Duration::from_secs(60);
/// Bytes that wait to be sent, at most.
pub const MAX_QUEUE: usize = 4 << 20;
/// Bytes of frames that wait for a connection, at most; with more, they are dropped up to the next key frame.
pub const MAX_EARLY: usize = 3 << 20;
/// How long bytes wait to be sent before further pictures are dropped.
pub const MAX_DELAY: Duration = Duration::from_secs(3);
/// How long bytes wait to be sent before the connection is given up.
pub const STUCK: Duration = Duration::from_secs(30);

/// Messages of a server that cannot be read, at most: ffmpeg's `onFCPublish` lacks its transaction number.
const MAX_UNREADABLE: u32 = 8;

/// Refusals after which another attempt is of no use.
const FINAL: [&str; 4] = [
    "NetStream.Publish.BadName",
    "NetStream.Publish.Denied",
    "NetConnection.Connect.Rejected",
    "NetConnection.Connect.InvalidApp",
];
/// A server of Enhanced RTMP that restarts: come again at once.
const RECONNECT: &str = "NetConnection.Connect.ReconnectRequest";

/// The last word of a stream that ended by itself.
const STOPPED: &str = "stopped";

/// The clock and channels of silence.
const SILENCE: (u32, u8) = (48_000, 2);

/// Sound that a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sound {
    /// AAC alone, as the large services: anything else is replaced by silence.
    Aac,
    /// AAC, and Opus as Enhanced RTMP has it.
    AacAndOpus,
}

/// An output of the machine.
pub type Output = dial::Output<Event>;

/// News for the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The server takes the stream; it begins with the first key frame since the connection is being made.
    Publishing,
    /// The connection is lost; another attempt follows at that time.
    Lost(String, Time),
    /// The server is too slow: pictures are dropped up to the next key frame.
    Slow,
    /// There will be no further attempt.
    Over(String),
}

/// The machine. See the [module](self).
#[derive(Debug)]
pub struct Push {
    dial: Attempts<Event>,
    tracks: Tracks,
    sound: Sound,
    state: State,
    pause: Duration,
    /// Whether the server's wish for a new connection was followed since the last good one.
    followed: bool,
    /// Messages of the server at hand that could not be read.
    unreadable: u32,
    early: Early,
    /// Whether the stream is over, and only what waits is sent.
    stopping: bool,
    dropped: u64,
}

/// Frames that came before the server let us publish, from a key frame on.
#[derive(Debug, Default)]
struct Early {
    frames: Vec<Frame>,
    bytes: usize,
}

#[derive(Debug)]
enum Frame {
    Video(AccessUnit),
    Audio(Audio),
}

#[derive(Debug)]
enum State {
    Waiting(Time),
    Connecting(Time),
    Greeting(Time, Box<ClientSession>),
    Publishing(Box<Publishing>),
    Over,
}

#[derive(Debug)]
struct Publishing {
    session: ClientSession,
    since: Time,
    writer: Writer,
    /// Whether metadata and a key frame were sent.
    begun: bool,
    /// The frames of silence that were sent, and when the first was due.
    silence: Option<(Ticks, u64)>,
    /// Whether pictures are dropped until a key frame.
    dropping: bool,
    /// Frames that wait to be sent: since when, and how many bytes.
    queue: VecDeque<(Time, usize)>,
    queued: usize,
}

impl Push {
    /// A push to `target` of an output with those tracks. It connects at once.
    #[must_use]
    pub fn new(now: Time, target: Target, tracks: Tracks, sound: Sound, seed: Seed) -> Self {
        let mut push = Self {
            dial: Attempts::new(now, target, seed),
            tracks,
            sound,
            state: State::Over,
            pause: FIRST_PAUSE,
            followed: false,
            unreadable: 0,
            early: Early::default(),
            stopping: false,
            dropped: 0,
        };
        push.connect();
        push
    }

    /// Pictures and frames of sound that a slow server did not get.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether the server takes the stream now.
    #[must_use]
    pub const fn is_publishing(&self) -> bool {
        matches!(self.state, State::Publishing(_))
    }

    /// A warning to the viewers at the server of the sound, if it is not the output's own.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        let replaced = self.is_silent() && self.tracks.audio.is_some();
        replaced.then_some("the server takes no Opus: sound is replaced by silence")
    }

    /// The next thing to do or know. Call it until it answers [`Output::Idle`].
    pub fn poll_output(&mut self) -> Output {
        self.dial.next(self.wake())
    }

    /// Takes a picture of the output.
    pub fn video(&mut self, now: Time, unit: &AccessUnit) {
        self.dial.pass(now);
        if !self.stopping {
            self.show(unit);
        }
    }

    fn show(&mut self, unit: &AccessUnit) {
        let silent = self.is_silent();
        let State::Publishing(publishing) = &mut self.state else {
            if self.is_connected() && (unit.key || !self.early.frames.is_empty()) {
                self.keep(Frame::Video(unit.clone()), unit.data.len());
            }
            return;
        };
        if unit.key && publishing.has_room(self.dial.now) {
            publishing.dropping = false;
        } else if !publishing.has_room(self.dial.now) && !publishing.dropping {
            publishing.dropping = true;
            self.dial.tell(Event::Slow);
        }
        if publishing.dropping {
            self.dropped += u64::from(publishing.begun);
            return;
        }
        if !publishing.begun {
            publishing.begun = true;
            let audio = if silent {
                Some(AudioCodec::Aac)
            } else {
                self.tracks.audio
            };
            let metadata = metadata(unit, audio);
            match publishing.session.send_metadata(&metadata) {
                Ok(bytes) => self.write(bytes),
                Err(fault) => return self.lost(&fault.to_string()),
            }
        }
        let State::Publishing(publishing) = &mut self.state else {
            return;
        };
        let mut tags = Vec::new();
        if silent {
            tags.extend(publishing.silence_until(unit.dts));
        }
        tags.extend(publishing.writer.video(unit));
        self.send(tags);
    }

    /// Takes a frame of sound of the output.
    pub fn audio(&mut self, now: Time, audio: &Audio) {
        self.dial.pass(now);
        if !self.stopping {
            self.sound(audio);
        }
    }

    fn sound(&mut self, audio: &Audio) {
        let silent = self.is_silent();
        let State::Publishing(publishing) = &mut self.state else {
            if self.is_connected() && !silent && !self.early.frames.is_empty() {
                self.keep(Frame::Audio(audio.clone()), audio.data.len());
            }
            return;
        };
        if silent || !publishing.begun {
            return;
        }
        if publishing.dropping {
            self.dropped += 1;
            return;
        }
        let tags = publishing.writer.audio(audio).collect();
        self.send(tags);
    }

    /// Keeps a frame until the server lets us publish.
    fn keep(&mut self, frame: Frame, bytes: usize) {
        self.early.bytes += bytes;
        self.early.frames.push(frame);
        if self.early.bytes > MAX_EARLY {
            self.dropped += self.early.frames.len() as u64;
            self.early = Early::default();
        }
    }

    /// Whether silence stands for the output's sound.
    fn is_silent(&self) -> bool {
        self.sound == Sound::Aac && self.tracks.audio != Some(AudioCodec::Aac)
    }

    const fn is_connected(&self) -> bool {
        !matches!(self.state, State::Waiting(_) | State::Over)
    }

    fn connect(&mut self) {
        self.dial.connect();
        self.state = State::Connecting(self.dial.now + PATIENCE);
    }

    fn read(&mut self, bytes: &[u8]) {
        // Byte by byte, for servers say little: at a message that it cannot read, the crate forgets what it wanted to
        // answer to those before in the same bytes. The message itself is behind it then.
        for byte in bytes.chunks(1) {
            let session = match &mut self.state {
                State::Greeting(_, session) => session,
                State::Publishing(publishing) => &mut publishing.session,
                _ => return,
            };
            let (answer, events) = match session.handle_data(byte) {
                Ok(heard) => heard,
                Err(fault) => {
                    self.unreadable += 1;
                    if self.unreadable > MAX_UNREADABLE {
                        return self.lost(&fault.to_string());
                    }
                    continue;
                }
            };
            if !answer.is_empty() {
                self.write(answer);
            }
            for event in events {
                match event {
                    ClientEvent::Publishing => self.publishing(),
                    ClientEvent::Error { code, description } => {
                        return self.refused(&code, &description);
                    }
                    ClientEvent::Closed => return self.lost("the server closed the stream"),
                    _ => {}
                }
            }
        }
    }

    fn write(&mut self, bytes: Vec<u8>) {
        if let State::Publishing(publishing) = &mut self.state {
            publishing.queued += bytes.len();
            publishing.queue.push_back((self.dial.now, bytes.len()));
        }
        self.dial.write(bytes);
    }

    fn publishing(&mut self) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Greeting(_, session) => {
                self.state = State::Publishing(Box::new(Publishing {
                    session: *session,
                    since: self.dial.now,
                    writer: Writer::default(),
                    begun: false,
                    silence: None,
                    dropping: true,
                    queue: VecDeque::new(),
                    queued: 0,
                }));
                self.dial.tell(Event::Publishing);
                for frame in std::mem::take(&mut self.early).frames {
                    match frame {
                        Frame::Video(unit) => self.show(&unit),
                        Frame::Audio(audio) => self.sound(&audio),
                    }
                }
                if self.stopping {
                    self.over(STOPPED);
                }
            }
            other => self.state = other,
        }
    }

    fn refused(&mut self, code: &str, description: &str) {
        let why = format!("{code}: {}", short(description));
        if code == RECONNECT && !self.followed {
            self.followed = true;
            self.dial.close();
            self.connect();
        } else if FINAL.contains(&code) {
            self.over(&why);
        } else {
            self.lost(&why);
        }
    }

    fn send(&mut self, tags: Vec<Tag>) {
        for tag in tags {
            let State::Publishing(publishing) = &mut self.state else {
                return;
            };
            let written: Result<Vec<u8>, RtmpError> = match tag.kind {
                Kind::Video => publishing.session.send_video(tag.stamp, &tag.body),
                Kind::Audio => publishing.session.send_audio(tag.stamp, &tag.body),
            };
            match written {
                Ok(bytes) => self.write(bytes),
                Err(fault) => return self.lost(&fault.to_string()),
            }
        }
    }

    /// Closes the connection, and makes another one after a pause.
    fn lost(&mut self, why: &str) {
        self.dial.close();
        self.wait(why);
    }

    fn wait(&mut self, why: &str) {
        if self.stopping {
            // The connection is closed.
            self.early = Early::default();
            self.state = State::Over;
            return self.dial.tell(Event::Over(short(why).to_owned()));
        }
        if let State::Publishing(publishing) = &self.state
            && self.dial.now >= publishing.since + GOOD
        {
            self.pause = FIRST_PAUSE;
            self.followed = false;
        }
        self.early = Early::default();
        let again = self.dial.after(self.pause);
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        self.state = State::Waiting(again);
        self.dial.tell(Event::Lost(short(why).to_owned(), again));
    }

    fn over(&mut self, why: &str) {
        match self.state {
            State::Over => return,
            State::Waiting(_) => {}
            // The last frames were written just now.
            State::Publishing(_) => self.dial.finish(),
            State::Connecting(_) | State::Greeting(..) => self.dial.close(),
        }
        self.early = Early::default();
        self.state = State::Over;
        self.dial.tell(Event::Over(why.to_owned()));
    }

    fn wake(&self) -> Option<Time> {
        match &self.state {
            State::Waiting(at) | State::Connecting(at) | State::Greeting(at, _) => Some(*at),
            State::Publishing(publishing) => {
                publishing.queue.front().map(|(since, _)| *since + STUCK)
            }
            State::Over => None,
        }
    }
}

impl Dial for Push {
    type News = Event;

    fn target(&self) -> &Target {
        &self.dial.target
    }

    fn hear(&mut self, now: Time, input: Input) {
        dial::hear(self, now, input);
    }

    fn stop(&mut self, now: Time) {
        self.dial.pass(now);
        self.stopping = true;
        if self.early.frames.is_empty() {
            self.over(STOPPED);
        }
    }
}

impl Connection for Push {
    type News = Event;

    fn attempts(&mut self) -> &mut Attempts<Event> {
        &mut self.dial
    }

    fn connected(&mut self) {
        if !matches!(self.state, State::Connecting(_)) {
            return;
        }
        let mut config = ClientConfig::default();
        config.app = self.dial.target.app.clone();
        config.stream_key = self.dial.target.name.clone();
        config.tc_url = Some(self.dial.target.application());
        let mut session = Box::new(ClientSession::new(config));
        self.unreadable = 0;
        self.write(session.start());
        self.state = State::Greeting(self.dial.now + PATIENCE, session);
    }

    fn data(&mut self, bytes: &[u8]) {
        self.read(bytes);
    }

    fn sent(&mut self, count: usize) {
        if let State::Publishing(publishing) = &mut self.state {
            publishing.sent(count);
        }
    }

    fn closed(&mut self, why: String) {
        if self.is_connected() {
            self.wait(&why);
        }
    }

    fn expire(&mut self) {
        if self.wake().is_none_or(|wake| wake > self.dial.now) {
            return;
        }
        match &self.state {
            State::Waiting(_) => self.connect(),
            State::Connecting(_) => self.lost("no connection in time"),
            State::Greeting(..) => self.lost("no answer to publish in time"),
            State::Publishing(_) => self.lost("the server takes nothing"),
            State::Over => {}
        }
    }
}

impl Machine for Push {
    type Event = Output;

    fn handle_input(&mut self, now: Time, _: machine::Input) {
        self.hear(now, Input::Tick);
    }

    fn poll_output(&mut self) -> machine::Output<Output> {
        match Self::poll_output(self) {
            Output::Idle(at) => machine::Output::Idle(at),
            output => machine::Output::Event(output),
        }
    }
}

impl Publishing {
    fn has_room(&self, now: Time) -> bool {
        let fresh = self
            .queue
            .front()
            .is_none_or(|(since, _)| now < *since + MAX_DELAY);
        self.queued < MAX_QUEUE && fresh
    }

    fn sent(&mut self, mut count: usize) {
        while let Some((_, bytes)) = self.queue.front_mut() {
            let taken = count.min(*bytes);
            *bytes -= taken;
            self.queued -= taken;
            count -= taken;
            if *bytes > 0 {
                return;
            }
            self.queue.pop_front();
        }
    }

    /// The frames of silence that are due before a picture.
    fn silence_until(&mut self, picture: Ticks) -> Vec<Tag> {
        let (rate, channels) = SILENCE;
        let Some(config) = aac::Config::new(rate, channels) else {
            return Vec::new();
        };
        let track = AudioTrack::Aac(config);
        let (origin, sent) = self.silence.get_or_insert((picture, 0));
        // After a gap, silence goes on where the pictures are.
        if picture - *origin - config.duration(*sent) > Ticks::SECOND {
            (*origin, *sent) = (picture, 0);
        }
        let mut tags = Vec::new();
        loop {
            let pts = *origin + config.duration(*sent);
            let Some(data) = track.silence().filter(|_| pts <= picture) else {
                return tags;
            };
            tags.extend(self.writer.audio(&Audio { pts, track, data }));
            *sent += 1;
        }
    }
}

/// The description of the stream before it begins.
fn metadata(unit: &AccessUnit, audio: Option<AudioCodec>) -> Vec<(String, Amf0Value)> {
    let size = Sps::of(&unit.data).map(|sps| [("width", sps.width), ("height", sps.height)]);
    let audio = audio.map(|audio| match audio {
        AudioCodec::Aac => 10,
        AudioCodec::Opus => u32::from_be_bytes(*b"Opus"),
    });
    let codecs = [("videocodecid", 7)]
        .into_iter()
        .chain(audio.map(|audio| ("audiocodecid", audio)));
    let fields = size.into_iter().flatten().chain(codecs);
    fields
        .map(|(key, value)| (key.to_owned(), Amf0Value::Number(value.into())))
        .collect()
}

/// The beginning of a server's text.
fn short(text: &str) -> &str {
    const SHOWN: usize = 200;
    let end = (0..=SHOWN.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
