//! A pull from a media server, under virtual time. The server's side of the dialogue is written with the crate that
//! servers are made of, so that our reading and theirs have nothing in common.

use std::time::Duration;

use livepeer_core::Time;
use livepeer_core::rng::{Rng, Seed};
use livepeer_ingest::rtmp::dial::{Attempt, Dial as _, Input};
use livepeer_ingest::rtmp::pull::{
    Event, FIRST_PAUSE, GOOD, MAX_TRIES, Output, PATIENCE, Pull, SILENCE,
};
use livepeer_ingest::rtmp::push::Target;
use livepeer_media::flv::Writer;
use livepeer_media::frame::{Audio, AudioTrack, Ticks};
use livepeer_media::timeline::Kind;
use rtmp_runtime::amf0::{Amf0Value, Command};
use rtmp_runtime::chunk::{ChunkAssembler, ChunkWriter, Message};
use rtmp_runtime::handshake::Handshake;
use rtmp_runtime::message::{UserControl, msg_type};

use super::pushes::picture;

/// A server in one conversation.
struct Server {
    handshake: Handshake,
    early: Vec<u8>,
    reader: ChunkAssembler,
    writer: ChunkWriter,
    /// The code with which it answers `play`.
    code: &'static str,
    commands: Vec<Command>,
    flv: Writer,
}

impl Server {
    fn new(code: &'static str) -> Self {
        Self {
            handshake: Handshake::new(),
            early: Vec::new(),
            reader: ChunkAssembler::new(),
            writer: ChunkWriter::new(),
            code,
            commands: Vec::new(),
            flv: Writer::default(),
        }
    }

    fn say(&mut self, name: &str, number: f64, arguments: Vec<Amf0Value>) -> Vec<u8> {
        let command = Command {
            name: name.to_owned(),
            transaction_id: number,
            arguments,
        };
        self.send(msg_type::COMMAND_AMF0, 0, command.to_body().unwrap())
    }

    fn send(&mut self, kind: u8, stamp: u32, payload: Vec<u8>) -> Vec<u8> {
        let message = Message {
            chunk_stream_id: 5,
            timestamp: stamp,
            message_type_id: kind,
            message_stream_id: 1,
            payload,
        };
        self.writer.write(&message).unwrap()
    }

    /// Takes bytes of the client, and answers them.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        self.early.extend_from_slice(bytes);
        while !self.handshake.is_done() {
            let (more, taken, _) = match self.handshake.read(&self.early) {
                Ok(read) => read,
                Err(_) => return answer,
            };
            answer.extend(more);
            self.early.drain(..taken);
            if taken == 0 {
                return answer;
            }
        }
        let said = std::mem::take(&mut self.early);
        // Byte by byte, since the size of chunks changes in the middle.
        let mut messages = Vec::new();
        for byte in said.chunks(1) {
            let more = self.reader.push(byte).unwrap();
            for message in &more {
                if message.message_type_id == msg_type::SET_CHUNK_SIZE {
                    let size = message.payload.first_chunk().unwrap();
                    self.reader.set_chunk_size(u32::from_be_bytes(*size));
                }
            }
            messages.extend(more);
        }
        for message in messages {
            if message.message_type_id == msg_type::COMMAND_AMF0 {
                let command = Command::parse(&message.payload).unwrap();
                answer.extend(self.answer(&command));
                self.commands.push(command);
            }
        }
        answer
    }

    fn answer(&mut self, command: &Command) -> Vec<u8> {
        let text = |text: &str| Amf0Value::String(text.to_owned());
        let info = |code| {
            let level = if code == "NetStream.Play.StreamNotFound" {
                "error"
            } else {
                "status"
            };
            Amf0Value::Object(vec![
                ("level".to_owned(), text(level)),
                ("code".to_owned(), text(code)),
            ])
        };
        let (number, nothing) = (command.transaction_id, Amf0Value::Null);
        match command.name.as_str() {
            "connect" => {
                let info = info("NetConnection.Connect.Success");
                self.say("_result", number, vec![nothing, info])
            }
            "createStream" => {
                let stream = Amf0Value::Number(1.0);
                self.say("_result", number, vec![nothing, stream])
            }
            "play" => {
                let reset = info("NetStream.Play.Reset");
                let mut all = self.say("onStatus", 0.0, vec![Amf0Value::Null, reset]);
                let code = info(self.code);
                all.extend(self.say("onStatus", 0.0, vec![nothing, code]));
                all
            }
            _ => Vec::new(),
        }
    }

    fn picture(&mut self, millis: i64, key: bool) -> Vec<u8> {
        let tags: Vec<_> = self.flv.video(&picture(millis, key, 300)).collect();
        let sent = tags.into_iter().flat_map(|tag| {
            assert!(matches!(tag.kind, Kind::Video));
            self.send(msg_type::VIDEO, tag.stamp, tag.body.to_vec())
        });
        sent.collect()
    }

    fn sound(&mut self, millis: i64, track: AudioTrack) -> Vec<u8> {
        let data = track.silence().unwrap();
        let pts = Ticks::from_millis(millis);
        let tags: Vec<_> = self.flv.audio(&Audio { pts, track, data }).collect();
        let sent = tags
            .into_iter()
            .flat_map(|tag| self.send(msg_type::AUDIO, tag.stamp, tag.body.to_vec()));
        sent.collect()
    }
}

/// A pull, and the server that it is connected to if there is one.
struct Pulling {
    pull: Pull,
    now: Time,
    /// The servers that it meets, the next one last.
    servers: Vec<Server>,
    link: Option<(Attempt, Server)>,
    events: Vec<Event>,
    wake: Option<Time>,
    attempts: usize,
}

impl Pulling {
    fn new(servers: Vec<Server>) -> Self {
        Self::seeded(servers, [7; 32])
    }

    fn seeded(mut servers: Vec<Server>, seed: Seed) -> Self {
        servers.reverse();
        let now = Time::from_secs(1_000);
        let target = Target::parse("rtmp://10.0.0.9/ai/cam1?a=b").unwrap();
        let mut pulling = Self {
            pull: Pull::new(now, target, seed),
            now,
            servers,
            link: None,
            events: Vec::new(),
            wake: None,
            attempts: 0,
        };
        pulling.drain();
        pulling
    }

    fn drain(&mut self) {
        loop {
            match self.pull.poll_output() {
                Output::Connect(attempt) => {
                    assert!(self.link.is_none(), "a second connection");
                    self.attempts += 1;
                    match self.servers.pop() {
                        Some(server) => {
                            self.link = Some((attempt, server));
                            self.pull.hear(self.now, Input::Connected(attempt));
                        }
                        None => {
                            let closed = Input::Closed(attempt, "connection refused".to_owned());
                            self.pull.hear(self.now, closed);
                        }
                    }
                }
                Output::Write(attempt, bytes) => {
                    let (at, server) = self.link.as_mut().expect("a connection");
                    assert_eq!(*at, attempt);
                    let answer = server.take(&bytes);
                    self.data(&answer);
                }
                Output::Finish(_) | Output::Close(_) => self.link = None,
                Output::Event(event) => self.events.push(event),
                Output::Idle(wake) => {
                    assert!(wake.is_none_or(|wake| wake > self.now), "a spinning driver");
                    self.wake = wake;
                    return;
                }
            }
        }
    }

    /// Bytes of the server come, in pieces.
    fn data(&mut self, bytes: &[u8]) {
        let Some(attempt) = self.link.as_ref().map(|(attempt, _)| *attempt) else {
            return;
        };
        for piece in bytes.chunks(700) {
            let data = Input::Data(attempt, piece.to_vec().into());
            self.pull.hear(self.now, data);
        }
    }

    fn server(&mut self, say: impl FnOnce(&mut Server) -> Vec<u8>) {
        let (_, server) = self.link.as_mut().expect("a connection");
        let said = say(server);
        self.data(&said);
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.wake.filter(|wake| *wake < end).unwrap_or(end);
            self.pull.hear(self.now, Input::Tick);
            self.drain();
        }
    }

    /// When it connected again, or will.
    fn again(&self) -> Vec<Time> {
        let again = self.events.iter().filter_map(|event| match event {
            Event::Lost(_, at) => Some(*at),
            _ => None,
        });
        again.collect()
    }

    fn lost(&self) -> Vec<&str> {
        let why = self.events.iter().filter_map(|event| match event {
            Event::Lost(why, _) | Event::Over(why) => Some(why.as_str()),
            _ => None,
        });
        why.collect()
    }
}

const PLAYS: &str = "NetStream.Play.Start";

#[test]
fn frames_of_a_media_server_come_as_they_are() {
    let mut pulling = Pulling::new(vec![Server::new(PLAYS)]);
    assert_eq!(pulling.events, [Event::Playing]);
    let commands = &pulling.link.as_ref().unwrap().1.commands;
    let names: Vec<_> = commands.iter().map(|command| &*command.name).collect();
    assert_eq!(names, ["connect", "createStream", "play"]);
    let Amf0Value::Object(wishes) = &commands[0].arguments[0] else {
        panic!("{commands:?}")
    };
    let app = ("app".to_owned(), Amf0Value::String("ai".to_owned()));
    assert!(wishes.contains(&app), "{wishes:?}");
    let name = Amf0Value::String("cam1?a=b".to_owned());
    assert_eq!(commands[2].arguments[1], name);
    let opus = AudioTrack::Opus { channels: 2 };
    pulling.server(|server| {
        let mut all = server.picture(0, true);
        all.extend(server.sound(10, opus));
        all.extend(server.picture(40, false));
        all
    });
    let [
        _,
        Event::Video(first),
        Event::Audio(sound),
        Event::Video(second),
    ] = &pulling.events[..]
    else {
        panic!("{:?}", pulling.events)
    };
    assert_eq!(first.data, picture(0, true, 300).data);
    assert_eq!((first.key, second.key), (true, false));
    assert_eq!(second.dts - first.dts, Ticks::from_millis(40));
    assert_eq!(
        (sound.pts - first.dts, sound.track),
        (Ticks::from_millis(10), opus)
    );
    pulling.pull.stop(pulling.now);
    pulling.drain();
    assert_eq!(pulling.lost(), ["stopped"]);
    assert!(pulling.link.is_none());
}

#[test]
fn a_server_that_is_not_there_is_asked_so_often_and_no_more() {
    let mut pulling = Pulling::new(Vec::new());
    let began = pulling.now;
    pulling.pass(Duration::from_secs(60));
    assert_eq!(pulling.attempts, 1 + MAX_TRIES as usize);
    assert_eq!(pulling.lost(), ["connection refused"; 4]);
    assert!(matches!(pulling.events.last(), Some(Event::Over(_))));
    let again = pulling.again();
    assert_eq!(again.len(), 3);
    let mut before = began;
    for (at, times) in again.iter().zip([1, 2, 4]) {
        let (waits, pause) = (at.since(before), FIRST_PAUSE * times);
        assert!(waits >= pause && waits <= pause + pause / 4, "{waits:?}");
        before = *at;
    }
    // Media spec 8, row 60: not all of us ask at one time.
    let mut other = Pulling::seeded(Vec::new(), [8; 32]);
    other.pass(Duration::from_secs(60));
    assert!(
        other
            .again()
            .iter()
            .zip(&again)
            .all(|(one, two)| one != two)
    );
}

#[test]
fn a_stream_that_was_there_is_looked_for_anew() {
    let servers = (0..3).map(|_| Server::new(PLAYS)).collect();
    let mut pulling = Pulling::new(servers);
    pulling.server(|server| server.picture(0, true));
    pulling.pass(GOOD);
    pulling.server(|server| {
        server
            .writer
            .write(&UserControl::StreamEof(1).to_message())
            .unwrap()
    });
    pulling.pass(2 * FIRST_PAUSE);
    pulling.server(|server| server.picture(0, true));
    pulling.pass(SILENCE + 2 * FIRST_PAUSE);
    let wanted = ["the stream is over at the server", "the server is silent"];
    assert_eq!(pulling.lost(), wanted);
    let playing = pulling
        .events
        .iter()
        .filter(|event| **event == Event::Playing);
    assert_eq!(playing.count(), 3, "attempts are counted anew");
}

#[test]
fn a_server_that_does_not_play_is_left_and_says_why_if_it_says_so() {
    let mut pulling = Pulling::new(vec![Server::new("NetStream.Play.StreamNotFound")]);
    assert_eq!(
        pulling.lost(),
        ["the server says NetStream.Play.StreamNotFound"]
    );
    // What it says after that is nobody's.
    assert!(pulling.link.is_none());
    let mut silent = Server::new(PLAYS);
    silent.code = "NetStream.Play.Reset";
    pulling = Pulling::new(vec![silent]);
    pulling.pass(PATIENCE);
    assert_eq!(pulling.lost(), ["the server does not play in time"]);
    let mut other = Pulling::new(vec![Server::new(PLAYS)]);
    other.data(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    other.drain();
    assert_eq!(other.lost().len(), 1, "not RTMP");
}

#[test]
fn whatever_a_server_says_the_machine_goes_on_or_ends() {
    for seed in 0..200_u64 {
        let mut bits = [0; 32];
        bits[..8].copy_from_slice(&seed.to_be_bytes());
        let mut chance = Rng::new(bits);
        let servers = (0..8).map(|_| Server::new(PLAYS)).collect();
        let mut pulling = Pulling::new(servers);
        for turn in 0..20 {
            let Some((attempt, server)) = &mut pulling.link else {
                pulling.pass(Duration::from_secs(1));
                continue;
            };
            let attempt = *attempt;
            let mut said = server.picture(40 * turn, turn % 5 == 0);
            for _ in 0..chance.below(4).min(said.len() as u64) {
                let at = chance.below(said.len() as u64) as usize;
                said[at] = chance.below(256) as u8;
            }
            pulling
                .pull
                .hear(pulling.now, Input::Data(attempt, said.into()));
            pulling.drain();
        }
        pulling.pass(Duration::from_secs(120));
        assert!(
            matches!(pulling.events.last(), Some(Event::Over(_))),
            "{seed}"
        );
        assert!(pulling.link.is_none() && pulling.wake.is_none(), "{seed}");
    }
}
