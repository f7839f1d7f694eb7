//! Cuts an MPEG-TS stream into segments that a reader can start with.
//!
//! Bytes go in as they come, in pieces of any size; segments come out. All segments together are the input, byte
//! for byte. A cut lies between two packets, ahead of a key frame, and ahead of the tables (PAT, PMT) that
//! directly precede it, so that a segment stands alone where the input allows it.
//!
//! ```text
//!  packets   …v a v│PAT PMT V v v a v v a v v│PAT PMT V v …      V starts a key frame, v and a are other packets
//!                  └──────── one segment ────┘
//! ```
//!
//! | the open segment meets | and | then |
//! |---|---|---|
//! | a key frame | it is at least [`Config::min_duration`] long | cut ahead of its tables |
//! | another frame | it is [`Config::max_duration`] long | cut ahead of the frame: [`Start::Elsewhere`] |
//! | a frame of a stream without video | it is at least [`Config::min_duration`] long | cut: [`Start::Frame`] |
//! | any packet | it would pass [`Config::max_bytes`] | cut ahead of the packet |
//!
//! A key frame is one whose packet says so (`random_access_indicator`) or, where the packet is silent, whose
//! first slice is intra coded; for the latter the segmenter waits for the packet with the slice.
//!
//! Durations come from the time stamps in decoding order (trickle spec 8: at least one second of media time a
//! segment), so they add up to the length of the input, whatever its origin, wraps and edits. A stream without
//! PTS is measured by its PCR. To loop an input, push it again into the same segmenter: the jump of the time stamps
//! is an edit like any other.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mpeg2ts_reader::packet::Packet;

use crate::clock::{MediaClock, duration_to_ticks, ticks_to_duration};
use crate::error::{InputError, Warnings};
use crate::keyframe::Scan;
use crate::ts::{self, Kind, PACKET, SYNC, Tables};

/// How far we look for packets, at the start and after damage.
pub const MAX_JUNK: usize = 64 << 10;
/// How far we look for the tables. Broadcasters repeat them ten times a second.
pub const MAX_BYTES_WITHOUT_TABLES: u64 = 4 << 20;

/// When to cut.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Media time that a segment has at least; key frames before that do not cut.
    pub min_duration: Duration,
    /// Media time after which a segment is cut at the next frame, key frame or not.
    pub max_duration: Duration,
    /// Bytes that no segment passes. At least one packet.
    pub max_bytes: usize,
}

impl Default for Config {
    /// At least one second as in the reference (`LIVE_AI_MIN_SEG_DUR`), at most ten seconds and 32 MiB.
    fn default() -> Self {
        Self {
            min_duration: Duration::from_secs(1),
            max_duration: Duration::from_secs(10),
            max_bytes: 32 << 20,
        }
    }
}

/// The first thing in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Start {
    /// A video frame that needs no other, possibly after tables.
    KeyFrame,
    /// A frame of a stream without video; each stands alone.
    Frame,
    /// Wherever the input began, or a limit cut it.
    Elsewhere,
}

/// A run of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Counts from zero.
    pub index: u64,
    /// The bytes, less those that [`Segmenter::take_early`] gave out before.
    pub data: Bytes,
    /// The number of all bytes, those given out early included.
    pub len: usize,
    /// The first thing in the segment.
    pub starts: Start,
    /// Whether it begins with PAT and PMT, so that a reader needs nothing from before.
    pub has_tables: bool,
    /// Presentation time of its first video frame (of any frame, without video), in ticks of 90 kHz, as stamped.
    pub start_pts: Option<u64>,
    /// Media time from the beginning of the input to this segment.
    pub start: Duration,
    /// Media time to the next segment, or to the end of the last frame. Zero if the input has no time stamps.
    pub duration: Duration,
    /// The frames of the video, or of the first stream that is not video if there is none.
    pub frames: Vec<Frame>,
}

/// A frame of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes of the segment before the frame, those given out early included.
    pub at: usize,
    /// Media time from the first frame of the segment to this one, in decoding order.
    pub after: Duration,
}

/// Bytes of the segment that is still open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Early {
    /// The segment they belong to.
    pub index: u64,
    /// Whole packets.
    pub data: Bytes,
}

/// Cuts one stream. See the [module](self).
#[derive(Debug)]
pub struct Segmenter {
    config: Config,
    /// The open segment from its first byte that was not given out, then what was not looked at yet.
    buffer: BytesMut,
    /// Where the next packet starts in the buffer.
    next: usize,
    open: Open,
    tables: Tables,
    /// The run of tables that ends where the next packet starts.
    run: Option<TableRun>,
    /// The last video frame, until its first slice was seen.
    candidate: Option<Candidate>,
    video: MediaClock,
    other: MediaClock,
    pcr: MediaClock,
    done: VecDeque<Segment>,
    warnings: Warnings,
    consumed: u64,
    in_step: bool,
    ended: Option<Result<(), InputError>>,
}

/// State of the open segment.
#[derive(Debug)]
struct Open {
    index: u64,
    taken: usize,
    starts: Start,
    has_tables: bool,
    start_pts: Option<u64>,
    /// Ticks of media time before it.
    start: u64,
    /// The clocks when it began; that of the video as soon as there is a frame.
    video: Option<u64>,
    other: u64,
    pcr: u64,
    frames: Vec<Frame>,
    /// The clock at the first of them.
    first_frame: Option<u64>,
}

impl Open {
    fn close(&mut self, data: Bytes, length: u64) -> Segment {
        let start = ticks_to_duration(self.start);
        Segment {
            index: self.index,
            len: self.taken + data.len(),
            data,
            starts: self.starts,
            has_tables: self.has_tables,
            start_pts: self.start_pts,
            start,
            // A difference, so that rounding does not add up.
            duration: ticks_to_duration(self.start + length) - start,
            frames: std::mem::take(&mut self.frames),
        }
    }

    /// A frame begins `at` so many bytes after those given out.
    fn mark(&mut self, at: usize, ticks: u64) {
        let first = *self.first_frame.get_or_insert(ticks);
        self.frames.push(Frame {
            at: self.taken + at,
            after: ticks_to_duration(ticks.saturating_sub(first)),
        });
    }
}

/// Tables, padding and bare clock references in a row.
#[derive(Clone, Copy, Debug)]
struct TableRun {
    at: usize,
    pat: bool,
    pmt: bool,
}

impl TableRun {
    const fn complete(run: Option<Self>) -> bool {
        matches!(
            run,
            Some(Self {
                pat: true,
                pmt: true,
                ..
            })
        )
    }
}

#[derive(Debug)]
struct Candidate {
    at: usize,
    has_tables: bool,
    pts: Option<u64>,
    ticks: u64,
    scan: Scan,
}

impl Segmenter {
    /// A segmenter at the beginning of a stream.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            buffer: BytesMut::new(),
            next: 0,
            open: Open {
                index: 0,
                taken: 0,
                starts: Start::Elsewhere,
                has_tables: false,
                start_pts: None,
                start: 0,
                video: None,
                other: 0,
                pcr: 0,
                frames: Vec::new(),
                first_frame: None,
            },
            tables: Tables::default(),
            run: None,
            candidate: None,
            video: MediaClock::default(),
            other: MediaClock::default(),
            pcr: MediaClock::default(),
            done: VecDeque::new(),
            warnings: Warnings::default(),
            consumed: 0,
            in_step: false,
            ended: None,
        }
    }

    /// Takes the next bytes. Fetch [`Segmenter::next_segment`] until it is empty before the next call, so that
    /// no more than one segment and `data` are held.
    ///
    /// # Errors
    /// If the input cannot be cut; every later call says the same. Segments cut before are still there.
    pub fn push(&mut self, data: &[u8]) -> Result<(), InputError> {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        self.consumed += data.len() as u64;
        self.buffer.extend_from_slice(data);
        let result = self.packets(false);
        if let Err(error) = &result {
            self.ended = Some(Err(error.clone()));
        }
        result
    }

    /// The input is complete: closes the last segment.
    ///
    /// # Errors
    /// If nothing of the input could be cut; see [`Segmenter::push`].
    pub fn finish(&mut self) -> Result<(), InputError> {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        let result = self.close();
        self.ended = Some(result.clone());
        result
    }

    /// The oldest segment that is complete.
    pub fn next_segment(&mut self) -> Option<Segment> {
        self.done.pop_front()
    }

    /// Bytes of the open segment that surely belong to it, for readers that do not want to wait for its end.
    /// Fetch [`Segmenter::next_segment`] first: those before come first. `None` until the tables were found, so
    /// that nothing goes out of an input that is no MPEG-TS.
    pub fn take_early(&mut self) -> Option<Early> {
        self.tables.program()?;
        let sure = [
            Some(self.next),
            self.run.map(|run| run.at),
            self.candidate.as_ref().map(|candidate| candidate.at),
        ]
        .into_iter()
        .flatten()
        .min()
        .filter(|sure| *sure > 0)?;
        let data = self.buffer.split_to(sure).freeze();
        self.open.taken += sure;
        self.move_marks(sure);
        Some(Early {
            index: self.open.index,
            data,
        })
    }

    /// Oddities of the input so far; complete after [`Segmenter::finish`].
    pub fn warnings(&self) -> Warnings {
        Warnings {
            jumps: if self.open.video.is_some() {
                self.video.jumps()
            } else {
                self.other.jumps()
            },
            ..self.warnings
        }
    }

    /// Whether the stream has video, once that is known.
    pub fn has_video(&self) -> Option<bool> {
        self.tables.program().map(|program| program.video.is_some())
    }

    fn packets(&mut self, last: bool) -> Result<(), InputError> {
        loop {
            if !self.in_step && !self.find_step(last)? {
                return Ok(());
            }
            while self.buffer.len() - self.next >= PACKET {
                if self.buffer[self.next] != SYNC {
                    self.in_step = false;
                    break;
                }
                self.packet();
            }
            if self.in_step {
                return self.expect_tables();
            }
        }
    }

    /// Skips to the next run of packets; whether there is one in what we have.
    fn find_step(&mut self, last: bool) -> Result<bool, InputError> {
        let rest = &self.buffer[self.next..];
        // Only a run tells packets from chance; at the end of the input, what there is must do.
        let run = if last {
            (rest.len() / PACKET).clamp(1, ts::SYNC_RUN)
        } else {
            ts::SYNC_RUN
        };
        let searched = match rest.len().checked_sub(run * PACKET) {
            Some(last) => last.min(MAX_JUNK),
            None if last => 0,
            None => return Ok(false),
        };
        let found = ts::find_packets(rest, searched, run).filter(|_| rest.len() >= PACKET);
        let Some(skip) = found else {
            return if searched < MAX_JUNK && !last {
                Ok(false)
            } else if self.tables.program().is_none() && self.next == 0 {
                Err(InputError::NotMpegTs {
                    looks_like: ts::guess_format(rest),
                })
            } else if last {
                Ok(false)
            } else {
                Err(InputError::LostSync {
                    at: self.consumed - rest.len() as u64,
                    searched,
                })
            };
        };
        if skip > 0 {
            self.warnings.junk_bytes += skip as u64;
            self.run = None;
            self.next += skip;
        }
        self.in_step = true;
        Ok(true)
    }

    fn expect_tables(&self) -> Result<(), InputError> {
        let searched = self.consumed - (self.buffer.len() - self.next) as u64;
        if self.tables.program().is_none() && searched > MAX_BYTES_WITHOUT_TABLES {
            return Err(InputError::NoTables { searched });
        }
        Ok(())
    }

    /// Looks at the packet at `next`, which is whole and starts with the sync byte, and steps over it.
    fn packet(&mut self) {
        if self.open.taken + self.next + PACKET > self.config.max_bytes
            && self.open.taken + self.next > 0
        {
            self.candidate = None;
            self.run = None;
            self.warnings.forced_cuts += 1;
            self.cut(self.next, Start::Elsewhere, false, None);
        }
        let at = self.next;
        self.next += PACKET;

        let mut bytes = [0; PACKET];
        bytes.copy_from_slice(&self.buffer[at..at + PACKET]);
        let packet = Packet::new(&bytes);
        let pid = u16::from(packet.pid());
        let starts = packet.payload_unit_start_indicator();
        let adaptation = (bytes[3] & 0x20 != 0)
            .then(|| packet.adaptation_field())
            .flatten();
        let payload = ts::payload(&bytes);

        if let Some(program) = self.tables.program()
            && program.pcr == pid
            && let Some(Ok(pcr)) = adaptation.as_ref().map(|field| field.pcr())
        {
            self.pcr.advance(pcr.base());
        }
        match self.tables.kind(pid) {
            Kind::Table => {
                let run = self.run.get_or_insert(TableRun {
                    at,
                    pat: false,
                    pmt: false,
                });
                run.pat |= pid == ts::PAT_PID;
                run.pmt |= pid > ts::LAST_RESERVED_PID;
                self.tables.feed(pid, starts, payload);
            }
            Kind::Stuffing => {}
            // Nothing but a clock reference: it may stand between tables and key frame.
            _ if payload.is_empty() => {}
            Kind::Video(codec) => {
                let run = self.run.take();
                let start = run.map_or(at, |run| run.at);
                let flagged =
                    adaptation.is_some_and(|adaptation| adaptation.random_access_indicator());
                let clear = !packet.transport_scrambling_control().is_scrambled();
                if starts {
                    let frame = clear.then(|| ts::frame_start(payload)).flatten();
                    let stamps = frame.as_ref().and_then(|frame| frame.stamps);
                    let mut candidate = Candidate {
                        at: start,
                        has_tables: TableRun::complete(run),
                        pts: stamps.map(|stamps| stamps.pts),
                        ticks: match stamps {
                            Some(stamps) => self.video.advance(stamps.dts),
                            None if self.video.has_begun() => self.video.elapsed(),
                            // Scrambled, or without stamps: only the clock reference tells the time.
                            None => self.pcr.elapsed(),
                        },
                        scan: Scan::new(codec),
                    };
                    let bitstream = frame.map_or(&[][..], |frame| frame.bitstream);
                    let known = if flagged {
                        Some(true)
                    } else if clear {
                        candidate.scan.feed(bitstream)
                    } else {
                        Some(false)
                    };
                    // The frame before was over without a slice: an ordinary one.
                    if let Some(before) = self.candidate.take() {
                        let moved = self.frame(&before, false);
                        candidate.at -= moved;
                    }
                    match known {
                        Some(key) => {
                            self.frame(&candidate, key);
                        }
                        None => self.candidate = Some(candidate),
                    }
                } else if let Some(mut candidate) = self.candidate.take() {
                    let known = if clear {
                        candidate.scan.feed(payload)
                    } else {
                        Some(false)
                    };
                    match known {
                        Some(key) => {
                            self.frame(&candidate, key);
                        }
                        None => self.candidate = Some(candidate),
                    }
                }
            }
            Kind::Other => {
                let run = self.run.take();
                let start = run.map_or(at, |run| run.at);
                let ours = self
                    .tables
                    .program()
                    .is_some_and(|program| program.other == Some(pid));
                if starts && ours {
                    let frame = ts::frame_start(payload);
                    let stamps = frame.and_then(|frame| frame.stamps);
                    if let Some(stamps) = stamps {
                        self.other.advance(stamps.dts);
                    }
                    self.other_frame(
                        start,
                        TableRun::complete(run),
                        stamps.map(|stamps| stamps.pts),
                    );
                }
            }
        }
    }

    /// A video frame whose nature is known; how many bytes a cut took off the buffer.
    fn frame(&mut self, frame: &Candidate, key: bool) -> usize {
        let starts = if key {
            Start::KeyFrame
        } else {
            Start::Elsewhere
        };
        let Some(began) = self.open.video else {
            // The first frame of a segment that did not begin with one, in particular of the first segment.
            self.open.video = Some(frame.ticks);
            self.open.starts = starts;
            self.open.start_pts = frame.pts;
            if self.open.taken == 0 && frame.at == 0 {
                self.open.has_tables = frame.has_tables;
            }
            self.open.mark(frame.at, frame.ticks);
            return 0;
        };
        let length = frame.ticks.saturating_sub(began);
        let too_long = !key && length >= duration_to_ticks(self.config.max_duration);
        self.warnings.forced_cuts += u64::from(too_long);
        let cuts = too_long || key && length >= duration_to_ticks(self.config.min_duration);
        let moved = if cuts {
            self.cut(frame.at, starts, frame.has_tables, Some(frame))
        } else {
            0
        };
        self.open.mark(frame.at - moved, frame.ticks);
        moved
    }

    /// A frame of the first stream that is not video.
    fn other_frame(&mut self, at: usize, has_tables: bool, pts: Option<u64>) {
        let length = self.length(false);
        if self.has_video() == Some(true) {
            // The video decides, unless none comes.
            if self.open.video.is_none() && length >= duration_to_ticks(self.config.max_duration) {
                self.warnings.forced_cuts += 1;
                self.cut(at, Start::Elsewhere, has_tables, None);
            }
            return;
        }
        if self.open.start_pts.is_none() {
            self.open.start_pts = pts;
            self.open.starts = Start::Frame;
            if self.open.taken == 0 && at == 0 {
                self.open.has_tables = has_tables;
            }
        }
        if length >= duration_to_ticks(self.config.min_duration) {
            self.cut(at, Start::Frame, has_tables, None);
            self.open.start_pts = pts;
            self.open.mark(0, self.other.elapsed());
        } else {
            self.open.mark(at, self.other.elapsed());
        }
    }

    /// Ticks of the open segment so far, or, at the end of the input, with its last frame.
    fn length(&self, at_end: bool) -> u64 {
        let since = |clock: &MediaClock, began: u64| {
            let now = if at_end { clock.end() } else { clock.elapsed() };
            now.saturating_sub(began)
        };
        match self.open.video {
            Some(began) => since(&self.video, began),
            None => match since(&self.other, self.open.other) {
                0 => since(&self.pcr, self.open.pcr),
                other => other,
            },
        }
    }

    /// Closes the open segment ahead of `at` and opens the next; how many bytes went off the buffer.
    fn cut(
        &mut self,
        at: usize,
        starts: Start,
        has_tables: bool,
        frame: Option<&Candidate>,
    ) -> usize {
        let length = match (frame, self.open.video) {
            // The frame's own time: the clock may have gone on to a later frame.
            (Some(frame), Some(began)) => frame.ticks.saturating_sub(began),
            _ => self.length(false),
        };
        let data = self.buffer.split_to(at).freeze();
        let next = Open {
            index: self.open.index + 1,
            taken: 0,
            starts,
            has_tables,
            start_pts: frame.and_then(|frame| frame.pts),
            start: self.open.start + length,
            // A segment cut by size begins inside the video, unless there is none.
            video: match frame {
                Some(frame) => Some(frame.ticks),
                None => self.open.video.map(|_| self.video.elapsed()),
            },
            other: self.other.elapsed(),
            pcr: self.pcr.elapsed(),
            frames: Vec::new(),
            first_frame: None,
        };
        let mut open = std::mem::replace(&mut self.open, next);
        self.done.push_back(open.close(data, length));
        self.move_marks(at);
        at
    }

    /// The first `by` bytes of the buffer are gone.
    fn move_marks(&mut self, by: usize) {
        self.next -= by;
        if let Some(run) = &mut self.run {
            run.at -= by;
        }
        if let Some(candidate) = &mut self.candidate {
            candidate.at -= by;
        }
    }

    fn close(&mut self) -> Result<(), InputError> {
        if self.consumed == 0 {
            return Err(InputError::Empty);
        }
        self.packets(true)?;
        if self.tables.program().is_none() {
            return Err(InputError::NoTables {
                searched: self.consumed,
            });
        }
        if let Some(candidate) = self.candidate.take() {
            self.frame(&candidate, false);
        }
        self.warnings.trailing_bytes = (self.buffer.len() - self.next) as u64;
        if self.open.taken + self.buffer.len() > 0 {
            let length = self.length(true);
            let data = self.buffer.split().freeze();
            self.done.push_back(self.open.close(data, length));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
