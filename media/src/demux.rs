//! MPEG-TS to frames, each as early as it is certain.
//!
//! | a PES ends | because |
//! |---|---|
//! | where its length says | it has one |
//! | with a packet that holds stuffing | encoders stuff the last packet of a frame; of a model's pictures that is 45 of 47 |
//! | where the next one starts | it had neither |
//! | when no bytes come for [`IDLE`] | the caller says so with [`Demux::idle`] |
//!
//! The first rule and the second hand a picture on without waiting for the next one. Counters of packets are not looked
//! at: models begin them anew with each segment, and on a reliable connection nothing is lost in between; if segments
//! are, say so with [`Demux::lost`].
//!
//! The first program is followed, and in it the first video and the first sound that are known here: H.264 and H.265,
//! Opus and AAC. Pictures of H.265 are recognised, so that somebody can be told, and not handed on.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use mpeg2ts_reader::psi::pat::{PatSection, ProgramDescriptor};

use crate::error::InputError;
use crate::frame::{AccessUnit, Audio, AudioCodec, AudioTrack, Ticks, Tracks, VideoCodec};
use crate::segmenter::{MAX_BYTES_WITHOUT_TABLES, MAX_JUNK};
use crate::timeline::Unwrap;
use crate::ts::{self, LAST_RESERVED_PID, PACKET, PAT_PID, SYNC, Section};
use crate::{aac, h264};

/// Without bytes for so long, a frame that has no length is taken to be complete: call [`Demux::idle`].
pub const IDLE: Duration = Duration::from_millis(20);
/// Bytes that a PES has at most; of a larger one nothing is handed on.
pub const MAX_PES: usize = h264::MAX_UNIT;

/// The distance of pictures that is assumed where time stamps are missing: 30 a second.
const STEP: i64 = 3000;

/// An event of a demultiplexer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The tracks that the tables announce, or other ones than before.
    Tracks(Tracks),
    /// A picture. Its time stamps are those of the stream, unwrapped.
    Video(AccessUnit),
    /// A frame of sound, likewise.
    Audio(Audio),
    /// A frame was dropped, for a reason other than the end of what was read.
    Dropped(Dropped),
    /// So far nothing says what is in the packets. Told once.
    NoTables,
}

/// The reason why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Dropped {
    /// A PES of more than [`MAX_PES`] bytes.
    #[error("a frame of more than {MAX_PES} bytes")]
    TooLarge,
    /// A PES that is shorter than it says.
    #[error("a frame that breaks off")]
    CutOff,
    /// Something that is no PES, or ends inside its header.
    #[error("a frame whose header cannot be read")]
    BadHeader,
    /// A picture that no decoder should see.
    #[error(transparent)]
    Video(#[from] h264::Dropped),
    /// Sound that cannot be taken apart.
    #[error("a packet of sound that cannot be read")]
    Audio,
}

/// The demultiplexer of one stream. See the [module](self).
#[derive(Debug)]
pub struct Demux {
    /// Bytes that are not a whole packet yet, or not known to be packets.
    buffer: BytesMut,
    in_step: bool,
    junk: usize,
    without_tables: u64,
    pat: Section,
    pmt: Option<(u16, Section)>,
    tracks: Tracks,
    video: Option<(u16, Pes)>,
    audio: Option<(u16, Pes)>,
    channels: u8,
    stream: h264::Stream,
    clock: Unwrap,
    /// Where the next frame of each is expected, if it does not say.
    next_video: i64,
    next_audio: i64,
    events: VecDeque<Event>,
}

impl Default for Demux {
    fn default() -> Self {
        Self::new()
    }
}

impl Demux {
    /// A demultiplexer at the beginning of a stream, or anywhere in it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            in_step: false,
            junk: 0,
            without_tables: 0,
            pat: Section::default(),
            pmt: None,
            tracks: Tracks::default(),
            video: None,
            audio: None,
            channels: 2,
            stream: h264::Stream::default(),
            clock: Unwrap::new(33),
            next_video: 0,
            next_audio: 0,
            events: VecDeque::new(),
        }
    }

    /// Takes the next bytes. Fetch [`Demux::next_event`] until it is empty before the next call.
    ///
    /// # Errors
    /// If nothing like packets was found for [`MAX_JUNK`] bytes; every later call fails as well, until [`Demux::lost`].
    pub fn push(&mut self, data: &[u8]) -> Result<(), InputError> {
        if self.junk > MAX_JUNK {
            return Err(InputError::NotMpegTs { looks_like: None });
        }
        let rest = self.in_place(data);
        self.buffer.extend_from_slice(rest);
        loop {
            if !self.in_step && !self.find_step()? {
                return Ok(());
            }
            while self.buffer.len() >= PACKET && self.buffer[0] == SYNC {
                let mut packet = [0; PACKET];
                self.buffer.copy_to_slice(&mut packet);
                self.packet(&packet);
            }
            if self.buffer.len() < PACKET {
                // The room in which packets were looked for is not needed again.
                if self.buffer.capacity() > 2 * PACKET {
                    self.buffer = BytesMut::from(&self.buffer[..]);
                }
                return Ok(());
            }
            self.in_step = false;
        }
    }

    /// Reads packets where they are, the one that has begun before included. What is left is less than a packet, or none.
    fn in_place<'a>(&mut self, mut data: &'a [u8]) -> &'a [u8] {
        if !self.in_step {
            return data;
        }
        if !self.buffer.is_empty() {
            let missing = PACKET - self.buffer.len();
            let (end, rest) = data.split_at(missing.min(data.len()));
            self.buffer.extend_from_slice(end);
            data = rest;
            match <[u8; PACKET]>::try_from(&self.buffer[..]) {
                Ok(packet) if packet[0] == SYNC => {
                    self.buffer.clear();
                    self.packet(&packet);
                }
                _ => return data,
            }
        }
        while let Some((packet, rest)) = data.split_first_chunk()
            && packet[0] == SYNC
        {
            self.packet(packet);
            data = rest;
        }
        data
    }

    /// No bytes came for [`IDLE`]: a frame that does not say where it ends is complete, unless it breaks off inside a
    /// packet.
    pub fn idle(&mut self) {
        if self.buffer.is_empty() {
            self.flush();
        }
    }

    /// The stream is complete, and so are its last frames.
    pub fn finish(&mut self) {
        self.flush();
    }

    /// Bytes are missing before those that come next: frames that are not complete will not be.
    pub fn lost(&mut self) {
        self.buffer.clear();
        self.in_step = false;
        self.junk = 0;
        for (_, pes) in [&mut self.video, &mut self.audio].into_iter().flatten() {
            *pes = Pes::default();
        }
    }

    /// The next event.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The PID of the video that is followed.
    pub(crate) fn video_pid(&self) -> Option<u16> {
        self.video.as_ref().map(|(pid, _)| *pid)
    }

    /// The sequence parameter set of the pictures that came last.
    #[must_use]
    pub const fn sps(&self) -> Option<&h264::Sps> {
        self.stream.sps()
    }

    /// Skips to the next packets; whether there are some in what we have.
    fn find_step(&mut self) -> Result<bool, InputError> {
        let Some(last) = self.buffer.len().checked_sub(PACKET + 1) else {
            return Ok(false);
        };
        // Two sync bytes at the distance of a packet tell packets from chance.
        let found = ts::find_packets(&self.buffer, last, 2);
        let skip = found.unwrap_or(last + 1);
        self.junk += skip;
        if self.junk > MAX_JUNK {
            let looks_like = ts::guess_format(&self.buffer);
            self.buffer.clear();
            return Err(InputError::NotMpegTs { looks_like });
        }
        self.buffer.advance(skip);
        self.in_step = found.is_some();
        Ok(self.in_step)
    }

    fn packet(&mut self, packet: &[u8; PACKET]) {
        self.junk = 0;
        let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
        let starts = packet[1] & 0x40 != 0;
        let is_damaged = packet[1] & 0x80 != 0;
        let is_scrambled = packet[3] & 0xc0 != 0;
        let payload = ts::payload(packet);
        if self.pmt.is_none() || self.tracks == Tracks::default() {
            self.wait_for_tables();
        }
        if is_damaged || is_scrambled || payload.is_empty() {
            return;
        }
        if pid == PAT_PID {
            self.pat(starts, payload);
        } else if self.pmt.as_ref().is_some_and(|(at, _)| *at == pid) {
            self.pmt(starts, payload);
        } else if let Some((_, pes)) = self.video.as_mut().filter(|(at, _)| *at == pid) {
            let ended = pes.feed(starts, payload, has_stuffing(packet));
            ended
                .into_iter()
                .flatten()
                .for_each(|pes| self.picture(pes));
        } else if let Some((_, pes)) = self.audio.as_mut().filter(|(at, _)| *at == pid) {
            let ended = pes.feed(starts, payload, has_stuffing(packet));
            ended.into_iter().flatten().for_each(|pes| self.sound(pes));
        }
    }

    fn wait_for_tables(&mut self) {
        let before = self.without_tables;
        self.without_tables = before.saturating_add(PACKET as u64);
        let limit = MAX_BYTES_WITHOUT_TABLES;
        if before <= limit && self.without_tables > limit {
            self.events.push_back(Event::NoTables);
        }
    }

    fn pat(&mut self, starts: bool, payload: &[u8]) {
        let mut program = None;
        self.pat.feed(starts, payload, |section| {
            let body = ts::body(section, 0).unwrap_or(&[]);
            let first = PatSection::new(body)
                .programs()
                .find_map(|entry| match entry {
                    ProgramDescriptor::Program { pid, .. } => Some(u16::from(pid)),
                    ProgramDescriptor::Network { .. } => None,
                });
            program = first.or(program);
        });
        let Some(program) = program.filter(|pid| *pid > LAST_RESERVED_PID) else {
            return;
        };
        if self.pmt.as_ref().is_none_or(|(pid, _)| *pid != program) {
            self.pmt = Some((program, Section::default()));
        }
    }

    fn pmt(&mut self, starts: bool, payload: &[u8]) {
        let mut found = None;
        if let Some((_, section)) = &mut self.pmt {
            section.feed(starts, payload, |section| {
                found = ts::body(section, 2).and_then(Found::read).or(found);
            });
        }
        let Some(found) = found else {
            return;
        };
        follow(&mut self.video, found.video.map(|(pid, _)| pid));
        follow(&mut self.audio, found.audio.map(|(pid, _)| pid));
        self.channels = found.channels;
        let tracks = Tracks {
            video: found.video.map(|(_, codec)| codec),
            audio: found.audio.map(|(_, codec)| codec),
        };
        if tracks != self.tracks {
            self.tracks = tracks;
            self.events.push_back(Event::Tracks(tracks));
        }
    }

    /// Ends the frames that do not say where they end.
    fn flush(&mut self) {
        if let Some(pes) = self.video.as_mut().and_then(|(_, pes)| pes.end()) {
            self.picture(pes);
        }
        if let Some(pes) = self.audio.as_mut().and_then(|(_, pes)| pes.end()) {
            self.sound(pes);
        }
    }

    fn picture(&mut self, pes: Ended) {
        if self.tracks.video != Some(VideoCodec::H264) {
            return;
        }
        let unit = pes.and_then(|pes| {
            let (stamps, unit) = content(&pes)?;
            let (pts, dts) = match stamps {
                Some(stamps) => {
                    let dts = self.clock.next(stamps.dts);
                    // A PTS lies close to its DTS, whichever of them wraps first.
                    let mut clock = self.clock;
                    (clock.next(stamps.pts), dts)
                }
                None => (self.next_video, self.next_video),
            };
            self.next_video = dts.saturating_add(STEP);
            let picture = self.stream.annex_b(unit)?;
            Ok(picture.map(|picture| AccessUnit {
                pts: Ticks(pts),
                dts: Ticks(dts),
                key: picture.key,
                data: picture.data,
            }))
        });
        match unit {
            Ok(Some(unit)) => self.events.push_back(Event::Video(unit)),
            Ok(None) => {}
            Err(dropped) => self.events.push_back(Event::Dropped(dropped)),
        }
    }

    fn sound(&mut self, pes: Ended) {
        if let Err(dropped) = pes.and_then(|pes| self.frames(&pes)) {
            self.events.push_back(Event::Dropped(dropped));
        }
    }

    /// Takes a PES of sound apart; what was read before a fault is handed on.
    fn frames(&mut self, pes: &Bytes) -> Result<(), Dropped> {
        let (stamps, mut rest) = content(pes)?;
        let mut pts = match stamps {
            Some(stamps) => self.clock.next(stamps.pts),
            None => self.next_audio,
        };
        let mut count = 0;
        let begin = pts;
        while !rest.is_empty() {
            let (track, data, after) = if self.tracks.audio == Some(AudioCodec::Aac) {
                let (config, data, after) = aac::read_adts(rest).ok_or(Dropped::Audio)?;
                (AudioTrack::Aac(config), data, after)
            } else {
                let (data, after) = read_opus(rest).ok_or(Dropped::Audio)?;
                let channels = self.channels;
                (AudioTrack::Opus { channels }, data, after)
            };
            let duration = track.duration(data).ok_or(Dropped::Audio)?;
            count += 1;
            self.events.push_back(Event::Audio(Audio {
                pts: Ticks(pts),
                track,
                data: pes.slice_ref(data),
            }));
            pts = match track {
                // Counted from the first, so that roundings do not add up.
                AudioTrack::Aac(config) => begin.saturating_add(config.duration(count).0),
                AudioTrack::Opus { .. } => pts.saturating_add(duration.0),
            };
            self.next_audio = pts;
            rest = after;
        }
        Ok(())
    }
}

/// Follows another PID, if it is another one.
fn follow(stream: &mut Option<(u16, Pes)>, pid: Option<u16>) {
    if stream.as_ref().map(|(pid, _)| *pid) != pid {
        *stream = pid.map(|pid| (pid, Pes::default()));
    }
}

/// The time stamps of a PES, and its content.
fn content(pes: &[u8]) -> Result<(Option<ts::Stamps>, &[u8]), Dropped> {
    let start = ts::frame_start(pes).ok_or(Dropped::BadHeader)?;
    Ok((start.stamps, start.bitstream))
}

/// The first packet of Opus behind its control header, and what follows.
fn read_opus(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, mut rest) = bytes.split_first_chunk::<2>()?;
    if head[0] != 0x7f || head[1] & 0xe0 != 0xe0 {
        return None;
    }
    let mut size = 0;
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        size += usize::from(*byte);
        if *byte < 255 {
            break;
        }
    }
    // Samples to leave out at the beginning and at the end.
    let trims = [0x10, 0x08].iter().filter(|flag| head[1] & **flag != 0);
    rest = rest.get(2 * trims.count()..)?;
    if head[1] & 0x04 != 0 {
        let (length, after) = rest.split_first()?;
        rest = after.get(usize::from(*length)..)?;
    }
    rest.split_at_checked(size)
}

/// Whether the adaptation field of a packet is longer than what it holds.
fn has_stuffing(packet: &[u8; PACKET]) -> bool {
    if packet[3] & 0x20 == 0 {
        return false;
    }
    let length = usize::from(packet[4]);
    let Some(field) = packet.get(5..5 + length) else {
        return false;
    };
    let Some((flags, fields)) = field.split_first() else {
        return true; // a length of 0 is one byte of stuffing
    };
    let mut used = 0;
    for (flag, bytes) in [(0x10, 6), (0x08, 6), (0x04, 1)] {
        used += if flags & flag == 0 { 0 } else { bytes };
    }
    for flag in [0x02, 0x01] {
        if flags & flag != 0 {
            used += 1 + fields.get(used).map_or(0, |length| usize::from(*length));
        }
    }
    fields.len() > used
}

/// The streams of a program.
#[derive(Clone, Copy)]
struct Found {
    video: Option<(u16, VideoCodec)>,
    audio: Option<(u16, AudioCodec)>,
    channels: u8,
}

impl Found {
    /// Reads what lies between header and checksum of a program map table.
    fn read(body: &[u8]) -> Option<Self> {
        let mut found = Self {
            video: None,
            audio: None,
            channels: 2,
        };
        // After the PID of the clock: that which describes the program, then the streams.
        let (_, mut rest) = described(body.get(2..)?)?;
        while let Some((kind, [high, low, after @ ..])) = rest.split_first() {
            let pid = u16::from(high & 0x1f) << 8 | u16::from(*low);
            let Some((descriptors, after)) = described(after) else {
                break;
            };
            rest = after;
            if pid <= LAST_RESERVED_PID {
                continue;
            }
            match kind {
                0x1b => found.video = found.video.or(Some((pid, VideoCodec::H264))),
                0x24 => found.video = found.video.or(Some((pid, VideoCodec::H265))),
                0x0f => found.audio = found.audio.or(Some((pid, AudioCodec::Aac))),
                0x06 if found.audio.is_none() => {
                    if let Some(channels) = opus_channels(descriptors) {
                        found.audio = Some((pid, AudioCodec::Opus));
                        found.channels = channels;
                    }
                }
                _ => {}
            }
        }
        Some(found)
    }
}

/// Descriptors behind the 12 bits of their length, and what follows.
fn described(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length) & 0xfff))
}

/// The channels of a private stream that is registered as Opus, if there are one or two.
fn opus_channels(mut descriptors: &[u8]) -> Option<u8> {
    let mut is_opus = false;
    let mut channels = 2;
    while let [tag, length, rest @ ..] = descriptors {
        let (descriptor, after) = rest.split_at_checked(usize::from(*length))?;
        match (tag, descriptor) {
            (0x05, [b'O', b'p', b'u', b's', ..]) => is_opus = true,
            (0x7f, [0x80, code, ..]) => channels = *code,
            _ => {}
        }
        descriptors = after;
    }
    // 0 is two languages, one a channel. Above 2 is surround sound.
    let channels = if channels == 0 { 2 } else { channels };
    (is_opus && channels <= 2).then_some(channels)
}

/// A PES that is complete.
type Ended = Result<Bytes, Dropped>;

/// A PES that comes in packets.
#[derive(Debug, Default)]
struct Pes {
    bytes: BytesMut,
    is_open: bool,
}

impl Pes {
    /// Takes the payload of a packet: the PES that it shows to have ended before it, and the one that ends with it.
    fn feed(&mut self, starts: bool, payload: &[u8], stuffed: bool) -> [Option<Ended>; 2] {
        let mut before = None;
        if starts {
            before = self.end().or(self.is_open.then_some(Err(Dropped::CutOff)));
            // As much as it says that it has.
            self.bytes = BytesMut::with_capacity(length(payload).unwrap_or(payload.len()));
            self.is_open = true;
        }
        if !self.is_open {
            return [before, None];
        }
        if self.bytes.len() + payload.len() > MAX_PES {
            *self = Self::default();
            return [before, Some(Err(Dropped::TooLarge))];
        }
        self.bytes.extend_from_slice(payload);
        let complete = match length(&self.bytes) {
            Some(length) if self.bytes.len() >= length => {
                self.bytes.truncate(length);
                true
            }
            None => stuffed,
            Some(_) => false,
        };
        [before, complete.then(|| Ok(self.take()))]
    }

    /// Ends what does not say how long it is. What does say so and breaks off is never handed on.
    fn end(&mut self) -> Option<Ended> {
        (self.is_open && length(&self.bytes).is_none() && !self.bytes.is_empty())
            .then(|| Ok(self.take()))
    }

    fn take(&mut self) -> Bytes {
        self.is_open = false;
        std::mem::take(&mut self.bytes).freeze()
    }
}

/// The length of a whole PES that begins so, if it says one.
fn length(pes: &[u8]) -> Option<usize> {
    let length = pes.get(4..6)?;
    match u16::from_be_bytes([length[0], length[1]]) {
        0 => None,
        length => Some(6 + usize::from(length)),
    }
}

#[cfg(test)]
mod tests;
