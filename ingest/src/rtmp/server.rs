//! All publishers of a listener: who may come, who has which stream, and what becomes of a stream whose publisher left.

mod ends;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use livepeer_core::wire::entry::{Publication, StreamName};
use livepeer_core::{Machine, Time, machine};
use livepeer_media::flv::{self, Refused};
use livepeer_media::frame::AudioCodec;

use self::ends::End;
use super::connection::{
    AUTHORIZING, BEFORE_PUBLISH, Connection, MAX_BEFORE_ANSWER, MAX_BEFORE_PUBLISH, Overdue, Phase,
    Publishing,
};
use super::dialogue::Heard;
use super::refusals::Refusals;
use super::types::{Config, ConnectionId, Ending, Event, Input, Output, StreamId, Why};

/// Connections at a time, at most.
pub const MAX_CONNECTIONS: usize = 100;
/// Connections from one address at a time, at most.
pub const MAX_PER_ADDRESS: usize = 10;
/// Without takeover, a publisher that sent nothing for this long gives way.
pub const ACTIVE: Duration = Duration::from_secs(5);

/// The code of a refusal before the stream begins.
const BAD_NAME: &str = "NetStream.Publish.BadName";
/// The code of a refusal afterwards.
const REJECTED: &str = "NetStream.Publish.Rejected";

/// A stream and its publisher, if it has one at present.
#[derive(Debug)]
struct Stream {
    id: StreamId,
    publisher: Option<ConnectionId>,
    /// How long it waits for one.
    hold: Option<Time>,
    /// Whether a key frame has come.
    begun: bool,
    /// The sound that was announced first.
    sound: Option<AudioCodec>,
}

/// The machine. See the [room's doc](super).
#[derive(Debug)]
pub struct Server {
    config: Config,
    now: Time,
    connections: BTreeMap<ConnectionId, Connection>,
    streams: BTreeMap<StreamName, Stream>,
    minted: u64,
    refusals: Refusals,
    out: VecDeque<Output>,
}

impl Server {
    /// A listener without connections.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        Self {
            config,
            now,
            connections: BTreeMap::new(),
            streams: BTreeMap::new(),
            minted: 0,
            refusals: Refusals::default(),
            out: VecDeque::new(),
        }
    }

    /// Takes in one fact.
    pub fn handle_input(&mut self, now: Time, input: Input) {
        self.advance(now);
        match input {
            Input::Tick => {}
            Input::Opened(id, address) => self.opened(id, address),
            Input::Data(id, bytes) => self.data(id, &bytes),
            Input::Closed(id) => {
                if let Some(connection) = self.connections.remove(&id) {
                    self.left(id, &connection);
                    if !matches!(connection.phase, Phase::Closing) {
                        self.tell(Event::Closed(id, Why::Peer));
                    }
                }
            }
        }
    }

    /// The next thing to do or know. Call it until it answers [`Output::Idle`].
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.out.pop_front() {
            return output;
        }
        let connections = self.connections.values().filter_map(Connection::wake);
        let holds = self.streams.values().filter_map(|stream| stream.hold);
        Output::Idle(connections.chain(holds).min())
    }

    /// The connection may publish what it asked for. Ignored if it does not wait for this any more.
    pub fn admit(&mut self, now: Time, id: ConnectionId) {
        self.advance(now);
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        let Phase::Authorizing(publication, kept) = &mut connection.phase else {
            self.connections.insert(id, connection);
            return;
        };
        let (publication, kept) = (publication.clone(), std::mem::take(kept).freeze());
        let name = publication.name.clone();
        let active = |server: &Self, old: &ConnectionId| {
            let old = server.connections.get(old).map(|old| &old.phase);
            matches!(old, Some(Phase::Publishing(old)) if now < old.last_bytes + ACTIVE)
        };
        let old = self.streams.get(&name).and_then(|stream| stream.publisher);
        if !self.config.takeover && old.is_some_and(|old| active(self, &old)) {
            let why = "this stream has a publisher already".to_owned();
            self.close(id, connection, BAD_NAME, &why.clone(), Why::Refused(why));
            return;
        }
        if let Some(old) = old.and_then(|old| Some((old, self.connections.remove(&old)?))) {
            self.close_silently(old.0, old.1, REJECTED, "replaced", Why::Replaced);
        }
        let minted = &mut self.minted;
        let stream = self.streams.entry(name.clone()).or_insert_with(|| {
            *minted += 1;
            Stream {
                id: StreamId(*minted),
                publisher: None,
                hold: None,
                begun: false,
                sound: None,
            }
        });
        (stream.publisher, stream.hold) = (Some(id), None);
        let mut out = Vec::new();
        let accepted = connection.dialogue.accept(name.as_str(), &mut out);
        connection.phase = Phase::Publishing(Box::new(Publishing::new(now, publication)));
        connection.deadline = None;
        self.write(id, out);
        match accepted {
            Ok(()) => self.read(id, connection, &kept),
            Err(bad) => self.drop_bad(id, connection, Why::Bad(bad)),
        }
    }

    /// The connection may not publish what it asked for. Ignored if it does not wait for this any more.
    pub fn refuse(&mut self, now: Time, id: ConnectionId, why: &str) {
        self.advance(now);
        if let Some(connection) = self.connections.remove(&id) {
            if matches!(connection.phase, Phase::Authorizing(..)) {
                self.refusals.add(now, connection.address);
                self.close(id, connection, BAD_NAME, why, Why::Refused(why.to_owned()));
            } else {
                self.connections.insert(id, connection);
            }
        }
    }

    /// Ends a stream, with a word for its publisher. Ignored if it is over.
    pub fn stop(&mut self, now: Time, stream: StreamId, why: &str) {
        self.advance(now);
        let found = self.streams.iter().find(|(_, found)| found.id == stream);
        let Some((name, publisher)) = found.map(|(name, found)| (name.clone(), found.publisher))
        else {
            return;
        };
        self.streams.remove(&name);
        self.tell(Event::Ended(stream, Ending::Stopped));
        if let Some(id) = publisher
            && let Some(connection) = self.connections.remove(&id)
        {
            let stopped = Why::Stopped(why.to_owned());
            self.close_silently(id, connection, REJECTED, why, stopped);
        }
    }

    /// The connections at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The streams at present, with those whose publisher may come back.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    fn tell(&mut self, event: Event) {
        self.out.push_back(Output::Event(event));
    }

    fn write(&mut self, id: ConnectionId, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.out.push_back(Output::Write(id, bytes.into()));
        }
    }

    fn opened(&mut self, id: ConnectionId, address: IpAddr) {
        let same = self
            .connections
            .values()
            .filter(|other| other.address == address);
        let why = if self.refusals.is_banned(self.now, address) {
            Why::Banned
        } else if self.connections.len() >= MAX_CONNECTIONS || same.count() >= MAX_PER_ADDRESS {
            Why::TooMany
        } else {
            self.connections
                .insert(id, Connection::new(self.now, address));
            return;
        };
        self.out.push_back(Output::Close(id));
        self.tell(Event::Closed(id, why));
    }

    fn data(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        match &mut connection.phase {
            Phase::Closing => {
                self.connections.insert(id, connection);
            }
            Phase::Authorizing(_, kept) => {
                if kept.len() + bytes.len() > MAX_BEFORE_ANSWER {
                    self.drop_bad(id, connection, Why::TooEarly(MAX_BEFORE_ANSWER));
                } else {
                    kept.extend_from_slice(bytes);
                    self.connections.insert(id, connection);
                }
            }
            Phase::Handshake | Phase::Open => {
                // Only up to the answer to `publish`: what comes behind it has a bound of its own.
                let room = MAX_BEFORE_PUBLISH - connection.before_publish.min(MAX_BEFORE_PUBLISH);
                let (early, late) = bytes.split_at(room.min(bytes.len()));
                connection.before_publish += early.len();
                self.read(id, connection, early);
                if late.is_empty() {
                    return;
                }
                let phase = self
                    .connections
                    .get(&id)
                    .map(|connection| &connection.phase);
                if matches!(phase, Some(Phase::Handshake | Phase::Open)) {
                    if let Some(connection) = self.connections.remove(&id) {
                        self.drop_bad(id, connection, Why::TooEarly(MAX_BEFORE_PUBLISH));
                    }
                } else {
                    self.data(id, late);
                }
            }
            Phase::Publishing(publishing) => {
                if publishing.count(self.now, bytes.len()) {
                    self.drop_bad(id, connection, Why::TooFast);
                } else {
                    self.read(id, connection, bytes);
                }
            }
        }
    }

    /// Hands bytes to the dialogue, acts on what is heard, and puts the connection back if it goes on.
    fn read(&mut self, id: ConnectionId, mut connection: Connection, mut bytes: &[u8]) {
        let mut out = Vec::new();
        let goes_on = loop {
            match connection
                .dialogue
                .next(&mut bytes, &self.config.apps, &mut out)
            {
                Ok(None) => break Ok(()),
                Ok(Some(heard)) => {
                    if let Err(end) = self.heard(id, &mut connection, heard) {
                        break Err(end);
                    }
                    if let Phase::Authorizing(_, kept) = &mut connection.phase {
                        kept.extend_from_slice(bytes);
                        break Ok(());
                    }
                }
                Err(bad) => break Err(End::Silently(Why::Bad(bad))),
            }
        };
        self.write(id, out);
        match goes_on {
            Ok(()) => {
                self.connections.insert(id, connection);
            }
            Err(End::Silently(why)) => self.drop_bad(id, connection, why),
            Err(End::Refused(code, why)) => {
                let text = why.to_string();
                self.close(id, connection, code, &text, why);
            }
            Err(End::Answered(why)) => {
                self.left(id, &connection);
                self.finish(id, connection, why);
            }
        }
    }

    fn heard(
        &mut self,
        id: ConnectionId,
        connection: &mut Connection,
        heard: Heard,
    ) -> Result<(), End> {
        match heard {
            Heard::Hello => {
                connection.phase = Phase::Open;
                connection.deadline = Some(self.now + BEFORE_PUBLISH);
            }
            Heard::Connected => {}
            Heard::BadApp(app) => return Err(End::Answered(Why::BadApp(app))),
            Heard::Publish { app, name } => {
                let publication = Publication::of_rtmp(&app, &name);
                let Some(publication) = publication.ok().filter(|wanted| !wanted.name.is_output())
                else {
                    return Err(End::Refused(BAD_NAME, Why::BadName));
                };
                connection.phase = Phase::Authorizing(publication.clone(), bytes::BytesMut::new());
                connection.deadline = Some(self.now + AUTHORIZING);
                self.tell(Event::Asks {
                    connection: id,
                    address: connection.address,
                    publication,
                });
            }
            Heard::Deleted => {
                self.end_stream(connection, Ending::Deleted);
                return Err(End::Silently(Why::Deleted));
            }
            // Whether the publisher comes back, it says next, or the hold tells.
            Heard::Unpublished => {}
            Heard::Video { .. } | Heard::Audio { .. } | Heard::Data(_) => {
                if let Phase::Publishing(publishing) = &mut connection.phase {
                    return self.media(publishing, heard);
                }
            }
        }
        Ok(())
    }

    fn media(&mut self, publishing: &mut Publishing, heard: Heard) -> Result<(), End> {
        let now = self.now;
        let Some(stream) = self.streams.get_mut(&publishing.publication.name) else {
            return Ok(());
        };
        let id = stream.id;
        match heard {
            Heard::Video { stamp, body } => match publishing.flv.video(stamp, body) {
                Ok(Some(flv::Video::Unit(unit))) => {
                    let (begun, begins) = publishing.video(now, unit.key);
                    if begins {
                        self.begin(publishing);
                    }
                    if begun {
                        self.tell(Event::Video(id, unit));
                    }
                }
                Ok(Some(flv::Video::Dropped(damaged))) => self.tell(Event::Damaged(id, damaged)),
                Ok(_) => {}
                Err(refused) => return Err(self.unfit(publishing, refused)),
            },
            Heard::Audio { stamp, body } => match publishing.flv.audio(stamp, body) {
                Ok(Some(flv::Sound::Config(track))) => {
                    let codec = track.codec();
                    let changed = stream.begun && stream.sound.is_some_and(|old| old != codec);
                    if changed {
                        let refused = Refused::Codec(format!("{codec:?} after another").into());
                        return Err(self.unfit(publishing, refused));
                    }
                    stream.sound = Some(codec);
                }
                Ok(Some(flv::Sound::Frame(audio))) => {
                    if publishing.audio(now) {
                        self.tell(Event::Audio(id, audio));
                    }
                }
                Ok(Some(flv::Sound::Dropped(damaged))) => self.tell(Event::Damaged(id, damaged)),
                Ok(None) => {}
                Err(refused) => return Err(self.unfit(publishing, refused)),
            },
            Heard::Data(script) => publishing.declare(&script),
            _ => {}
        }
        Ok(())
    }

    /// A codec that changes ends the stream; whatever else is wrong, its publisher may come back with something better.
    fn unfit(&mut self, publishing: &Publishing, refused: Refused) -> End {
        let name = &publishing.publication.name;
        let begun = self.streams.get(name).is_some_and(|stream| stream.begun);
        if let (true, Refused::Codec(_)) = (begun, &refused)
            && let Some(stream) = self.streams.remove(name)
        {
            self.tell(Event::Ended(stream.id, Ending::CodecChanged));
        }
        End::Refused(REJECTED, Why::Media(refused))
    }

    /// Begins the stream, or goes on with it.
    fn begin(&mut self, publishing: &Publishing) {
        let Some(stream) = self.streams.get_mut(&publishing.publication.name) else {
            return;
        };
        let Some(connection) = stream.publisher else {
            return;
        };
        let id = stream.id;
        let event = match std::mem::replace(&mut stream.begun, true) {
            true => Event::Resumed(id, connection),
            false => Event::Opened {
                stream: id,
                connection,
                publication: publishing.publication.clone(),
            },
        };
        self.tell(event);
    }

    /// Time passes: what is due happens.
    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        let now = self.now;
        let due: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.wake().is_some_and(|wake| wake <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(connection) = self.connections.remove(&id) {
                self.expire(id, connection);
            }
        }
        let over = |stream: &Stream| stream.hold.is_some_and(|hold| hold <= now);
        let gone: Vec<_> = self
            .streams
            .extract_if(.., |_, stream| over(stream))
            .collect();
        for (_, stream) in gone {
            self.tell(Event::Ended(stream.id, Ending::Gone));
        }
    }

    fn expire(&mut self, id: ConnectionId, mut connection: Connection) {
        match &mut connection.phase {
            Phase::Closing => self.out.push_back(Output::Close(id)),
            Phase::Handshake => self.drop_bad(id, connection, Why::TooLate("handshake")),
            Phase::Open => self.drop_bad(id, connection, Why::TooLate("publish")),
            Phase::Authorizing(..) => {
                self.close(
                    id,
                    connection,
                    BAD_NAME,
                    "no answer in time",
                    Why::TooLate("answer of ours"),
                );
            }
            Phase::Publishing(publishing) => match publishing.overdue(self.now) {
                None => {
                    self.connections.insert(id, connection);
                }
                Some(Overdue::Silent) => self.drop_bad(id, connection, Why::TooLate("bytes")),
                Some(Overdue::NoKeyFrame) => {
                    self.close(
                        id,
                        connection,
                        REJECTED,
                        "no key frame",
                        Why::TooLate("key frame"),
                    );
                }
                Some(Overdue::NoVideo) => {
                    self.close(id, connection, REJECTED, "no video", Why::TooLate("video"));
                }
            },
        }
    }
}

impl Machine for Server {
    type Event = Output;

    fn handle_input(&mut self, now: Time, _: machine::Input) {
        Self::handle_input(self, now, Input::Tick);
    }

    fn poll_output(&mut self) -> machine::Output<Output> {
        match Self::poll_output(self) {
            Output::Idle(at) => machine::Output::Idle(at),
            output => machine::Output::Event(output),
        }
    }
}
