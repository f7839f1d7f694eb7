//! The session of a viewer (WHEP), and what the viewers of one stream share.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use livepeer_core::Time;
use livepeer_media::Gop;
use livepeer_media::frame::{AccessUnit, Audio, Ticks};
use livepeer_media::h264::ParameterSets;

use crate::sdp::Kind;
use crate::session::End;
use crate::webrtc::{Datagram, Happened, Out, Peer};
use crate::whip::{CONSENT, Connecting};

/// At most this many bytes wait to be sent to a viewer.
const MAX_UNSENT: usize = 2 << 20;
/// How long a viewer may lose more than half of its packets.
const MAX_LOSS_TIME: Duration = Duration::from_secs(10);
/// The part of the packets that a viewer may lose for longer, of 1.
const MAX_LOSS: f32 = 0.5;
/// At most this many packets leave at once; larger pictures follow at [`PACKETS_A_MS`].
const BURST: u32 = 12;
/// The packets of a large picture that leave in a millisecond.
const PACKETS_A_MS: u32 = 10;
/// A viewer that asks for a key frame waits for the next one if it is due within this time.
const KEY_FRAME_SOON: Duration = Duration::from_millis(500);
/// How much sound of the past viewers are given in a burst, as one comes of a job that was slow for a while. They show pictures
/// at once, but play sound no faster than it was made, and would have it late from then on. As long the sound of a stream that
/// begins is held, after the last of a burst: a hole behind its first packets would be waited out, and what follows be late.
const SOUND_AHEAD: Duration = Duration::from_millis(100);
/// How long sound is held at most: some jobs give all that they give in bursts.
const LONGEST_HELD: Duration = Duration::from_secs(1);
/// Packets of sound that are held at most.
const MAX_HELD: usize = 64;
/// Sound that comes sooner than any before, by half a packet, is of a burst: its successors are there already.
const SOONER: Duration = Duration::from_millis(10);
/// How much earlier than any frame says frames are reported to be captured. Pictures and sound are reported of one after the
/// other, and a viewer has them apart by as much as the beginning was found to be earlier in between: as much as this is
/// none. Not so much that a report is taken to be of another time: receivers bear a second.
const LEEWAY: Duration = Duration::from_millis(500);
/// How long the beginning has to stand until it is reported: what waited for the job comes at once, or nearly.
const SETTLED: Duration = Duration::from_millis(200);
/// The step over a break of the stream.
const STEP: Ticks = Ticks(3_000);

/// The parts of a stream that its viewers share.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    gop: Gop,
    sets: ParameterSets,
    /// The number of the group of pictures, and how long the one before it was.
    group: u64,
    group_time: Option<Ticks>,
    group_start: Option<Ticks>,
    /// The offset that is added to the stamps of the source, so that they go on over a break.
    offset: Ticks,
    last: Option<Ticks>,
    broken: bool,
    /// When the frame with a stamp of zero is said to be captured: no later than any frame speaks for, since the first may have
    /// been held up, and the engine reports of no frame that was captured after now.
    origin: Option<Time>,
    /// When that was found out.
    found: Time,
    sound: Sound,
}

/// The sound of a stream since its last break.
#[derive(Debug, Default)]
enum Sound {
    #[default]
    None,
    /// Nobody has got any of it. A stream that waited for its job begins with bursts, of which viewers get no more than the
    /// end: they would play the beginning, and then wait out the gap.
    Held(Held),
    /// When the stream began by the first packet that was sent, and by the soonest.
    Flows(Time, Time),
}

/// The last packets of sound, until no more of a burst comes.
#[derive(Debug)]
struct Held {
    since: Time,
    /// When the stream began by the soonest packet, and when that came.
    soonest: Time,
    found: Time,
    packets: VecDeque<(Ticks, Arc<[u8]>)>,
}

impl Held {
    fn new(now: Time, begun: Time, packet: (Ticks, Arc<[u8]>)) -> Self {
        Self {
            since: now,
            soonest: begun,
            found: now,
            packets: VecDeque::from([packet]),
        }
    }

    /// Takes the next packet. Whether those at hand are to be sent.
    fn take(&mut self, now: Time, begun: Time, packet: (Ticks, Arc<[u8]>)) -> bool {
        if begun + SOONER <= self.soonest {
            (self.soonest, self.found) = (begun, now);
        }
        let is_long = now >= self.since + LONGEST_HELD;
        if begun > self.soonest + SOUND_AHEAD && !is_long {
            // Time goes on later than it began.
            *self = Self {
                since: self.since,
                ..Self::new(now, begun, packet)
            };
            return false;
        }
        self.packets.push_back(packet);
        while { self.packets.front() }
            .is_some_and(|(pts, _)| crate::whep::begun(now, *pts) > self.soonest + SOUND_AHEAD)
            || self.packets.len() > MAX_HELD
        {
            self.packets.pop_front();
        }
        is_long || now >= self.found + SOUND_AHEAD
    }
}

impl Stream {
    /// Places a picture on the viewers' timeline and keeps it for those who join.
    pub(crate) fn video(&mut self, now: Time, unit: &AccessUnit) -> AccessUnit {
        let pts = self.place(now, unit.pts);
        let unit = AccessUnit {
            pts,
            dts: pts,
            key: unit.key,
            data: self.sets.in_pairs(&unit.data),
        };
        if unit.key {
            self.group += 1;
            self.group_time = self.group_start.map(|start| pts - start);
            self.group_start = Some(pts);
        }
        self.gop.push(&unit);
        self.last = Some(self.last.map_or(pts, |last| last.max(pts)));
        unit
    }

    /// Places sound on the viewers' timeline. The packets that are to be sent now: not those that are too old to be played with
    /// the pictures.
    pub(crate) fn audio(
        &mut self,
        now: Time,
        audio: &Audio,
    ) -> impl Iterator<Item = (Ticks, Arc<[u8]>)> + use<> {
        let pts = self.place(now, audio.pts);
        let begun = begun(now, pts);
        let next = (pts, Arc::from(&audio.data[..]));
        let (held, next) = match std::mem::take(&mut self.sound) {
            Sound::None => {
                self.sound = Sound::Held(Held::new(now, begun, next));
                (VecDeque::new(), None)
            }
            Sound::Held(mut held) => {
                if held.take(now, begun, next) {
                    self.sound = Sound::Flows(held.soonest, held.soonest);
                    (held.packets, None)
                } else {
                    self.sound = Sound::Held(held);
                    (VecDeque::new(), None)
                }
            }
            Sound::Flows(first, soonest) => {
                self.sound = Sound::Flows(first, soonest.min(begun));
                let in_time = first.since(begun) <= SOUND_AHEAD || soonest.since(begun) < SOONER;
                (VecDeque::new(), in_time.then_some(next))
            }
        };
        held.into_iter().chain(next)
    }

    /// The source continues elsewhere: stamps go on from here, and pictures from the next key frame.
    pub(crate) fn restart(&mut self) {
        self.gop.clear();
        self.sets = ParameterSets::default();
        self.group_start = None;
        self.sound = Sound::None;
        self.broken = true;
    }

    pub(crate) fn units(&self) -> &[AccessUnit] {
        self.gop.units()
    }

    fn place(&mut self, now: Time, pts: Ticks) -> Ticks {
        if std::mem::take(&mut self.broken) {
            let next = self.last.map_or(pts, |last| last + STEP);
            self.offset = next - pts;
        }
        let pts = pts + self.offset;
        let begun = begun(now, pts);
        if self.origin.is_none_or(|origin| begun < origin) {
            let leeway = LEEWAY.as_nanos() as u64; // half a second
            self.origin = Some(Time::from_nanos(begun.as_nanos().saturating_sub(leeway)));
            self.found = now;
        }
        pts
    }

    /// When a frame was captured, as far as the viewer is concerned: pictures and sound by one clock.
    fn captured(&self, pts: Ticks) -> Time {
        self.origin.unwrap_or(Time::ZERO) + pts.to_duration()
    }

    /// Whether reports may say when frames were captured: those of pictures wait for the sound that is held, so that both
    /// first ones are of one beginning (`pictures_are_not_reported_of_before_their_sound`).
    fn is_settled(&self, now: Time) -> bool {
        now >= self.found + SETTLED && !matches!(self.sound, Sound::Held(_))
    }

    fn key_frame_is_soon(&self) -> bool {
        let (Some(start), Some(time), Some(last)) = (self.group_start, self.group_time, self.last)
        else {
            return false;
        };
        let due = start + time - last;
        due.0 >= 0 && due.to_duration() <= KEY_FRAME_SOON
    }
}

/// When a stream began whose frame of that stamp is captured now.
fn begun(now: Time, pts: Ticks) -> Time {
    let since = pts.to_duration().as_nanos() as u64;
    Time::from_nanos(now.as_nanos().saturating_sub(since))
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Connecting(Connecting),
    /// Connected: what is kept of the stream is owed.
    Joining,
    /// For a key frame.
    Waiting,
    Playing,
}

#[derive(Debug)]
pub(crate) struct Viewer {
    peer: Peer,
    state: State,
    heard: Time,
    /// Where this viewer's stamps begin, of video and of audio.
    offsets: (u64, u64),
    /// The group of pictures that was sent again last.
    repeated: Option<u64>,
    wants_key: bool,
    lossy_since: Option<Time>,
    /// Whether reports of the engine are left out, for another follows.
    unreported: bool,
    /// Packets of media that wait for their turn.
    queue: VecDeque<Datagram>,
    unsent: usize,
    tokens: u32,
    filled: Time,
}

impl Viewer {
    pub(crate) fn new(now: Time, peer: Peer, offsets: (u64, u64)) -> Self {
        Self {
            peer,
            state: State::Connecting(Connecting::new(now)),
            heard: now,
            offsets,
            repeated: None,
            wants_key: false,
            lossy_since: None,
            unreported: false,
            queue: VecDeque::new(),
            unsent: 0,
            tokens: BURST,
            filled: now,
        }
    }

    pub(crate) const fn is_waiting(&self) -> bool {
        matches!(&self.state, State::Connecting(connecting) if !connecting.heard)
    }

    pub(crate) fn accepts(&self, now: Time, from: SocketAddr, data: &[u8]) -> bool {
        self.peer.accepts(now, from, data)
    }

    pub(crate) fn receive(&mut self, now: Time, datagram: &Datagram, stun: bool) {
        if stun {
            self.heard = now;
            if let State::Connecting(connecting) = &mut self.state {
                connecting.hear(now);
            }
        }
        self.peer.receive(now, datagram.peer, &datagram.data);
    }

    pub(crate) fn tick(&mut self, now: Time) -> Result<(), End> {
        match &self.state {
            State::Connecting(connecting) if now >= connecting.by => {
                return Err(End::NotConnected("STUN and DTLS were not done in time"));
            }
            State::Connecting(_) => {}
            _ if now >= self.heard + CONSENT => return Err(End::Gone),
            _ => {}
        }
        if self
            .lossy_since
            .is_some_and(|since| now.since(since) >= MAX_LOSS_TIME)
        {
            return Err(End::TooSlow);
        }
        self.peer.tick(now);
        Ok(())
    }

    pub(crate) fn deadline(&self, now: Time) -> Option<Time> {
        let state = match &self.state {
            State::Connecting(connecting) => connecting.by,
            _ => self.heard + CONSENT,
        };
        let queue = (!self.queue.is_empty()).then(|| now + Duration::from_millis(1));
        let lossy = self.lossy_since.map(|since| since + MAX_LOSS_TIME);
        [Some(state), queue, lossy, self.peer.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes what the engine has to say, and gives the viewer what it is owed of its stream; datagrams go to `send`, packets
    /// of media when it is their turn.
    pub(crate) fn drain(
        &mut self,
        now: Time,
        stream: Option<&Stream>,
        send: &mut VecDeque<Datagram>,
    ) -> Result<(), End> {
        self.unreported = stream.is_some_and(|stream| !stream.is_settled(now));
        self.poll(send)?;
        if let Some(stream) = stream {
            self.serve(stream, send)?;
        }
        let passed = now.since(self.filled).as_millis().min(1_000) as u32; // at most 1,000
        if passed > 0 {
            self.tokens = self.tokens.saturating_add(passed * PACKETS_A_MS).min(BURST);
            self.filled = now;
        }
        while self.tokens > 0
            && let Some(datagram) = self.queue.pop_front()
        {
            self.tokens -= 1;
            self.unsent -= datagram.data.len();
            send.push_back(datagram);
        }
        if self.unsent > MAX_UNSENT {
            return Err(End::TooSlow);
        }
        Ok(())
    }

    fn poll(&mut self, send: &mut VecDeque<Datagram>) -> Result<(), End> {
        while let Some(out) = self.peer.poll() {
            match out {
                Out::Send(datagram) if is_media(&datagram.data) => {
                    self.unsent += datagram.data.len();
                    self.queue.push_back(datagram);
                }
                Out::Send(datagram) if self.unreported && is_report(&datagram.data) => {}
                Out::Send(datagram) => send.push_back(datagram),
                Out::Happened(happened) => self.happened(happened)?,
            }
        }
        Ok(())
    }

    fn happened(&mut self, happened: Happened) -> Result<(), End> {
        match happened {
            Happened::Connected => self.state = State::Joining,
            Happened::KeyFrameWanted => self.wants_key = true,
            Happened::Loss(loss) if loss > MAX_LOSS => {
                self.lossy_since.get_or_insert(self.peer.now());
            }
            Happened::Loss(_) => self.lossy_since = None,
            Happened::Closed => return Err(End::Disconnected),
            Happened::Broken(_) if matches!(self.state, State::Connecting(_)) => {
                return Err(End::NotConnected("DTLS failed"));
            }
            Happened::Broken(text) => return Err(End::Broken(text)),
            Happened::Media(..) | Happened::Torn | Happened::Endless | Happened::Paused(_) => {}
        }
        Ok(())
    }

    /// Gives the viewer what it is owed of the stream so far: the pictures since the last key frame when it joins, and
    /// once more a group when it has lost them.
    fn serve(&mut self, stream: &Stream, send: &mut VecDeque<Datagram>) -> Result<(), End> {
        if self.state == State::Joining {
            self.wants_key = false;
            self.repeated = Some(stream.group);
            let ready = !self.peer.wants(Kind::Video) || !stream.units().is_empty();
            self.state = if ready {
                State::Playing
            } else {
                State::Waiting
            };
            return self.send_units(stream, send);
        }
        if std::mem::take(&mut self.wants_key)
            && self.state == State::Playing
            && self.repeated != Some(stream.group)
            && !stream.key_frame_is_soon()
        {
            self.repeated = Some(stream.group);
            return self.send_units(stream, send);
        }
        Ok(())
    }

    fn send_units(&mut self, stream: &Stream, send: &mut VecDeque<Datagram>) -> Result<(), End> {
        for unit in stream.units() {
            self.send_unit(stream, unit.pts, Arc::from(&unit.data[..]));
            // The engine holds only so many pictures that were not polled.
            self.poll(send)?;
        }
        Ok(())
    }

    pub(crate) fn video(
        &mut self,
        now: Time,
        stream: &Stream,
        unit: &AccessUnit,
        data: &Arc<[u8]>,
        send: &mut VecDeque<Datagram>,
    ) {
        self.peer.tick(now);
        if self.state == State::Waiting && unit.key {
            self.state = State::Playing;
        }
        if self.state == State::Playing {
            // The pictures before do not wait behind this one.
            self.unsent = 0;
            send.extend(self.queue.drain(..));
            self.tokens = BURST;
            self.send_unit(stream, unit.pts, Arc::clone(data));
        }
    }

    fn send_unit(&mut self, stream: &Stream, pts: Ticks, data: Arc<[u8]>) {
        let stamp = self.offsets.0 + u64::try_from(pts.0).unwrap_or(0);
        self.peer.send_video(stream.captured(pts), stamp, data);
    }

    pub(crate) fn audio(&mut self, now: Time, stream: &Stream, pts: Ticks, data: &Arc<[u8]>) {
        if self.state == State::Playing {
            self.peer.tick(now);
            let stamp = self.offsets.1 + u64::try_from(pts.to_48k()).unwrap_or(0);
            self.peer
                .send_audio(stream.captured(pts), stamp, Arc::clone(data));
        }
    }

    /// The stream broke: what follows begins with a key frame.
    pub(crate) fn wait(&mut self) {
        if self.state == State::Playing && self.peer.wants(Kind::Video) {
            self.state = State::Waiting;
        }
    }

    pub(crate) fn close(&mut self, send: &mut VecDeque<Datagram>) {
        self.peer.close();
        while let Some(out) = self.peer.poll() {
            if let Out::Send(datagram) = out {
                send.push_back(datagram);
            }
        }
    }
}

/// A packet of RTP; control packets have a type of 64 to 95 (RFC 5761).
fn is_media(data: &[u8]) -> bool {
    matches!(data, [128..=191, second, ..] if !matches!(second & 0x7f, 64..=95))
}

/// A control packet that begins with a sender report, which also is legible where it is encrypted (RFC 3711, 3.4).
fn is_report(data: &[u8]) -> bool {
    matches!(data, [128..=191, SENDER_REPORT, ..])
}

/// The type of a sender report (RFC 3550, 6.4.1).
const SENDER_REPORT: u8 = 200;

#[cfg(test)]
mod tests;
