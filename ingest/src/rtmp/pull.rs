//! The stream of a media server by RTMP: a machine without sockets that plays one stream for as long as the server has it.
//!
//! ```text
//!            connected         play is answered
//! Connecting ────────▶ Greeting ───────────────▶ Playing
//!     │ 10 s              │ 10 s                   │ closed, over, 10 s without a byte
//!     └───────────────────┴────────────┬───────────┘
//!                                      ▼
//!           Waiting 0.5 s, then 1 s, 2 s and a little ──▶ Connecting
//! any: the fourth failure since it last played for a while, a codec that is not carried, or stop ──▶ Over
//! ```
//!
//! Frames are handed on as they come. Where decoding may begin and whether there is sound, the bridge finds out.

use std::time::Duration;

use livepeer_core::rng::Seed;
use livepeer_core::{Machine, Time, machine};
use livepeer_media::flv::{self, Damaged};
use livepeer_media::frame::{AccessUnit, Audio};
use rtmp_runtime::amf0::{Amf0Value, Command};
use rtmp_runtime::handshake::{HANDSHAKE_PACKET_LEN, RTMP_VERSION};
use rtmp_runtime::message::{UserControl, msg_type};

use super::chunk::Message;
use super::dial::{self, Attempts, Connection, Dial, Input, Target};
use super::messages::{BadPeer, Messages, object, text};

/// How long it takes to connect, and again until the server plays, at most.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long a server may be silent while it plays.
pub const SILENCE: Duration = Duration::from_secs(10);
/// The pause before the first new attempt; each further one is twice as long.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// At most this many attempts follow one that played for [`GOOD`].
pub const MAX_TRIES: u32 = 3;
/// A connection that played for this long is a good one: attempts are counted anew.
pub const GOOD: Duration = Duration::from_secs(5);

/// The numbers of our commands, by which answers name them.
const CONNECT: f64 = 1.0;
const CREATE: f64 = 2.0;
const PLAY: f64 = 3.0;
/// Plays what is live, and nothing recorded: the start in milliseconds.
const LIVE_ONLY: f64 = -1000.0;
/// How much the server may send ahead, in milliseconds.
const BUFFER: u32 = 1000;

/// An output of the machine.
pub type Output = dial::Output<Event>;

/// News for the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The server plays; what comes next is on a clock of its own.
    Playing,
    /// A picture, in the server's time.
    Video(AccessUnit),
    /// A frame of sound, in the server's time.
    Audio(Audio),
    /// A tag was dropped since it is damaged; pictures that follow may lack what they refer to.
    Damaged(Damaged),
    /// The connection is lost; another attempt follows at that time.
    Lost(String, Time),
    /// There will be no further attempt.
    Over(String),
}

/// The machine. See the [module](self).
#[derive(Debug)]
pub struct Pull {
    dial: Attempts<Event>,
    state: State,
    /// Attempts that failed since one played for a while.
    failed: u32,
}

#[derive(Debug)]
enum State {
    Waiting(Time),
    Connecting(Time),
    Talking(Box<Talk>),
    Over,
}

/// A connection that is made.
#[derive(Debug)]
struct Talk {
    stage: Stage,
    /// When it is given up.
    until: Time,
    /// When it began to play.
    since: Option<Time>,
    messages: Messages,
    /// Bytes of the server's handshake.
    early: Vec<u8>,
    flv: flv::Reader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshake,
    Connect,
    Create,
    Play,
    Playing,
}

/// The end of a connection.
enum End {
    /// Another attempt may do better.
    Lost(String),
    /// No attempt will.
    Over(String),
}

impl From<BadPeer> for End {
    fn from(bad: BadPeer) -> Self {
        Self::Lost(bad.to_string())
    }
}

impl Pull {
    /// A pull of the stream at `target`. It connects at once.
    #[must_use]
    pub fn new(now: Time, target: Target, seed: Seed) -> Self {
        let mut pull = Self {
            dial: Attempts::new(now, target, seed),
            state: State::Over,
            failed: 0,
        };
        pull.connect();
        pull
    }

    /// The next thing to do or know. Call it until it answers [`Output::Idle`](dial::Output::Idle).
    pub fn poll_output(&mut self) -> Output {
        let wake = match &self.state {
            State::Waiting(at) | State::Connecting(at) => Some(*at),
            State::Talking(talk) => Some(talk.until),
            State::Over => None,
        };
        self.dial.next(wake)
    }

    fn connect(&mut self) {
        self.dial.connect();
        self.state = State::Connecting(self.dial.now + PATIENCE);
    }

    /// Gives an attempt up.
    fn lost(&mut self, why: String) {
        self.dial.close();
        if let State::Talking(talk) = &self.state
            && talk
                .since
                .is_some_and(|since| self.dial.now >= since + GOOD)
        {
            self.failed = 0;
        }
        self.failed += 1;
        if self.failed > MAX_TRIES {
            return self.over(why);
        }
        let at = self.dial.after(FIRST_PAUSE * (1 << (self.failed - 1)));
        self.state = State::Waiting(at);
        self.dial.tell(Event::Lost(why, at));
    }

    fn over(&mut self, why: String) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Over => return,
            State::Connecting(_) | State::Talking(_) => {
                self.dial.close();
            }
            State::Waiting(_) => {}
        }
        self.dial.tell(Event::Over(why));
    }
}

impl Dial for Pull {
    type News = Event;

    fn target(&self) -> &Target {
        &self.dial.target
    }

    fn hear(&mut self, now: Time, input: Input) {
        dial::hear(self, now, input);
    }

    fn stop(&mut self, now: Time) {
        self.dial.pass(now);
        self.over("stopped".to_owned());
    }
}

impl Connection for Pull {
    type News = Event;

    fn attempts(&mut self) -> &mut Attempts<Event> {
        &mut self.dial
    }

    fn connected(&mut self) {
        if !matches!(self.state, State::Connecting(_)) {
            return;
        }
        let mut hello = vec![RTMP_VERSION];
        // A time and a version, both of which may be zero, and chance.
        hello.extend([0; 8]);
        while hello.len() < 1 + HANDSHAKE_PACKET_LEN {
            hello.extend(self.dial.chance.bytes32());
        }
        hello.truncate(1 + HANDSHAKE_PACKET_LEN);
        self.state = State::Talking(Box::new(Talk {
            stage: Stage::Handshake,
            until: self.dial.now + PATIENCE,
            since: None,
            messages: Messages::new(),
            early: Vec::new(),
            flv: flv::Reader::default(),
        }));
        self.dial.write(hello);
    }

    fn data(&mut self, bytes: &[u8]) {
        let State::Talking(talk) = &mut self.state else {
            return;
        };
        let (mut out, mut told) = (Vec::new(), Vec::new());
        let read = talk.read(self.dial.now, bytes, &self.dial.target, &mut out, &mut told);
        if !out.is_empty() {
            self.dial.write(out);
        }
        told.into_iter().for_each(|news| self.dial.tell(news));
        match read {
            Ok(()) => {}
            Err(End::Lost(why)) => self.lost(why),
            Err(End::Over(why)) => self.over(why),
        }
    }

    fn closed(&mut self, why: String) {
        if matches!(self.state, State::Connecting(_) | State::Talking(_)) {
            self.lost(why);
        }
    }

    fn expire(&mut self) {
        match &self.state {
            State::Waiting(at) if self.dial.now >= *at => self.connect(),
            State::Connecting(at) if self.dial.now >= *at => {
                self.lost("no connection in time".into())
            }
            State::Talking(talk) if self.dial.now >= talk.until => {
                let why = match talk.stage {
                    Stage::Playing => "the server is silent",
                    _ => "the server does not play in time",
                };
                self.lost(why.to_owned());
            }
            _ => {}
        }
    }
}

impl Talk {
    /// Takes bytes of the server; puts our answers into `out`, and what the owner has to know into `told`.
    fn read(
        &mut self,
        now: Time,
        mut bytes: &[u8],
        target: &Target,
        out: &mut Vec<u8>,
        told: &mut Vec<Event>,
    ) -> Result<(), End> {
        if self.stage == Stage::Playing {
            self.until = now + SILENCE;
        }
        if self.stage == Stage::Handshake && !self.greet(&mut bytes, target, out)? {
            return Ok(());
        }
        while let Some(message) = self.messages.next(&mut bytes, out)? {
            if message.is_end() && self.stage == Stage::Playing {
                return Err(End::Lost("the stream is over at the server".to_owned()));
            }
            if let Some(command) = message.command()? {
                self.command(now, &command, target, out, told)?;
            } else if message.is_media() && matches!(self.stage, Stage::Play | Stage::Playing) {
                self.play(now, told);
                self.media(message, told)?;
            }
        }
        Ok(())
    }

    /// Takes the server's handshake; whether it is over. S2 is not compared: some servers send something of their own.
    fn greet(
        &mut self,
        bytes: &mut &[u8],
        target: &Target,
        out: &mut Vec<u8>,
    ) -> Result<bool, End> {
        const WANTED: usize = 1 + 2 * HANDSHAKE_PACKET_LEN;
        let (taken, rest) = bytes.split_at((WANTED - self.early.len()).min(bytes.len()));
        *bytes = rest;
        self.early.extend_from_slice(taken);
        if let Some(first) = self.early.first().filter(|first| **first != RTMP_VERSION) {
            return Err(BadPeer::Version(*first).into());
        }
        if self.early.len() < WANTED {
            return Ok(false);
        }
        out.extend_from_slice(&self.early[1..=HANDSHAKE_PACKET_LEN]);
        self.early = Vec::new();
        self.messages.introduce(false, out)?;
        let codecs = ["avc1", "mp4a", "Opus"].map(text).into();
        let wishes = object([
            ("app", text(target.app.clone())),
            ("flashVer", text("LNX 9,0,124,2")),
            ("tcUrl", text(target.application())),
            ("fpad", Amf0Value::Boolean(false)),
            ("capabilities", Amf0Value::Number(15.0)),
            ("audioCodecs", Amf0Value::Number(4071.0)),
            ("videoCodecs", Amf0Value::Number(252.0)),
            ("videoFunction", Amf0Value::Number(1.0)),
            // Enhanced RTMP.
            ("fourCcList", Amf0Value::StrictArray(codecs)),
        ]);
        self.messages
            .say("connect", CONNECT, vec![wishes], 0, out)?;
        self.stage = Stage::Connect;
        Ok(true)
    }

    fn command(
        &mut self,
        now: Time,
        command: &Command,
        target: &Target,
        out: &mut Vec<u8>,
        told: &mut Vec<Event>,
    ) -> Result<(), End> {
        let code = code(command);
        match (command.name.as_str(), self.stage) {
            ("_error", _) => {
                let code = code.unwrap_or("it did not say why");
                return Err(End::Lost(format!("refused by the server: {code}")));
            }
            ("_result", Stage::Connect) if is(command.transaction_id, CONNECT) => {
                let nothing = vec![Amf0Value::Null];
                self.messages.say("createStream", CREATE, nothing, 0, out)?;
                self.stage = Stage::Create;
            }
            ("_result", Stage::Create) if is(command.transaction_id, CREATE) => {
                let Some(Amf0Value::Number(stream)) = command.arguments.get(1) else {
                    return Err(End::Lost("the server names no stream".to_owned()));
                };
                let stream = *stream as u32; // a small whole number
                let wanted = vec![
                    Amf0Value::Null,
                    text(target.name.clone()),
                    Amf0Value::Number(LIVE_ONLY),
                ];
                self.messages.say("play", PLAY, wanted, stream, out)?;
                let buffer = UserControl::SetBufferLength {
                    stream_id: stream,
                    buffer_ms: BUFFER,
                };
                self.messages.control(&buffer, out)?;
                self.stage = Stage::Play;
            }
            ("onStatus", Stage::Play | Stage::Playing) => match code {
                Some("NetStream.Play.Start") => self.play(now, told),
                Some("NetStream.Play.Reset" | "NetStream.Data.Start") | None => {}
                Some("NetStream.Play.PublishNotify") => {}
                Some(code) => return Err(End::Lost(format!("the server says {code}"))),
            },
            _ => {}
        }
        Ok(())
    }

    /// The server plays.
    fn play(&mut self, now: Time, told: &mut Vec<Event>) {
        if self.since.is_none() {
            self.stage = Stage::Playing;
            self.since = Some(now);
            self.until = now + SILENCE;
            told.push(Event::Playing);
        }
    }

    fn media(&mut self, message: Message, told: &mut Vec<Event>) -> Result<(), End> {
        let Message {
            kind,
            stamp,
            payload,
            ..
        } = message;
        let refused = |why: flv::Refused| End::Over(why.to_string());
        match kind {
            msg_type::VIDEO => match self.flv.video(stamp, payload).map_err(refused)? {
                Some(flv::Video::Unit(unit)) => told.push(Event::Video(unit)),
                Some(flv::Video::Dropped(damaged)) => told.push(Event::Damaged(damaged)),
                _ => {}
            },
            msg_type::AUDIO => match self.flv.audio(stamp, payload).map_err(refused)? {
                Some(flv::Sound::Frame(audio)) => told.push(Event::Audio(audio)),
                Some(flv::Sound::Dropped(damaged)) => told.push(Event::Damaged(damaged)),
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }
}

/// Whether an answer is to the command of that number. They are small whole numbers.
fn is(number: f64, command: f64) -> bool {
    (number - command).abs() < 0.5
}

/// The code in the information that comes with a command.
fn code(command: &Command) -> Option<&str> {
    let info = command
        .arguments
        .iter()
        .rev()
        .find_map(|value| match value {
            Amf0Value::Object(fields) | Amf0Value::EcmaArray(fields) => Some(fields),
            _ => None,
        });
    info?.iter().find_map(|field| match field {
        (key, Amf0Value::String(code)) if key == "code" => Some(code.as_str()),
        _ => None,
    })
}

impl Machine for Pull {
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
