//! The time stamps of an MPEG-TS stream, found as its bytes go by.
//!
//! A frame's presentation time stamp (PTS) stands in the header of its PES packet, which begins in a TS packet of its
//! own. No table is needed to find it: the stream id behind the start code says whether the frame is video. Stamps
//! count 90,000 times a second in 33 bits and wrap after 26.5 hours.

use core::time::Duration;

/// Ticks of a time stamp in a second.
pub const TICKS_PER_SECOND: u64 = 90_000;

/// The bits of a time stamp.
pub const STAMP_BITS: u32 = 33;

const STAMPS: u64 = 1 << STAMP_BITS;

/// The bytes of a TS packet, and the first of them.
const PACKET: usize = 188;
const SYNC: u8 = 0x47;

/// A segment whose stamps lie further apart has a jump in it, and says nothing about where others lie.
pub const MAX_SPAN: Duration = Duration::from_secs(60);

/// Ticks from one time stamp to another, the shorter way around the wrap.
#[must_use]
pub const fn distance(from: u64, to: u64) -> i64 {
    let forward = to.wrapping_sub(from) & (STAMPS - 1);
    if forward < STAMPS / 2 {
        forward as i64
    } else {
        forward as i64 - STAMPS as i64
    }
}

/// The ticks that pass in `time`.
pub(super) const fn ticks(time: Duration) -> i64 {
    (time.as_millis() as u64 * TICKS_PER_SECOND / 1000) as i64
}

/// A time stamp, and where it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When the frame is shown, in ticks.
    pub pts: u64,
    /// Whether the frame is video; anything else is audio or data.
    pub video: bool,
    /// Bytes of the stream before the packet in which the frame begins.
    pub at: u64,
}

/// Finds time stamps in a stream that comes in pieces of any size.
///
/// Bytes that are no packets are skipped. The pieces' sizes make no difference to what is found.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// The packet that has begun and is not whole: it begins with the sync byte.
    packet: [u8; PACKET],
    have: usize,
    /// Bytes before that packet.
    before: u64,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            packet: [0; PACKET],
            have: 0,
            before: 0,
        }
    }
}

impl Scanner {
    /// Takes the next bytes, and hands over the stamps in them.
    pub fn push(&mut self, mut data: &[u8], mut found: impl FnMut(Stamp)) {
        while !data.is_empty() {
            if self.have == 0 {
                let junk = data.iter().position(|byte| *byte == SYNC);
                let junk = junk.unwrap_or(data.len());
                self.before += junk as u64;
                data = &data[junk..];
                // The usual case: a whole packet, looked at where it lies.
                if let Some((packet, rest)) = data.split_first_chunk::<PACKET>() {
                    self.look(packet, &mut found);
                    data = rest;
                    continue;
                }
            }
            let take = data.len().min(PACKET - self.have);
            self.packet[self.have..self.have + take].copy_from_slice(&data[..take]);
            self.have += take;
            data = &data[take..];
            if self.have == PACKET {
                self.have = 0;
                let packet = self.packet;
                self.look(&packet, &mut found);
            }
        }
    }

    fn look(&mut self, packet: &[u8; PACKET], found: &mut impl FnMut(Stamp)) {
        let at = self.before;
        self.before += PACKET as u64;
        if let Some((pts, video)) = stamp_of(packet) {
            found(Stamp { pts, video, at });
        }
    }
}

/// The time stamp of the frame that begins in `packet`, and whether it is video.
fn stamp_of(packet: &[u8; PACKET]) -> Option<(u64, bool)> {
    let starts = packet[1] & 0x40 != 0;
    let broken = packet[1] & 0x80 != 0;
    let scrambled = packet[3] & 0xc0 != 0;
    if !starts || broken || scrambled || packet[3] & 0x10 == 0 {
        return None;
    }
    let adaptation = match packet[3] & 0x20 {
        0 => 0,
        _ => 1 + usize::from(packet[4]),
    };
    let pes = packet.get(4 + adaptation..)?;
    let header: &[u8; 14] = pes.first_chunk()?;
    let video = match (&header[..3], header[3]) {
        ([0, 0, 1], 0xe0..=0xef) => true,
        ([0, 0, 1], 0xc0..=0xdf | 0xbd | 0xfd) => false,
        _ => return None,
    };
    // '10' begins the optional header, the stamp's own prefix says whether a DTS follows, and three bits mark it.
    let [flags, which, _, a, b, c, d, e] = header[6..14] else {
        return None;
    };
    let marked = flags & 0xc0 == 0x80 && which & 0x80 != 0 && a & 0xe0 == 0x20;
    if !marked || a & c & e & 1 == 0 {
        return None;
    }
    let pts = u64::from(a >> 1 & 7) << 30
        | u64::from(b) << 22
        | u64::from(c >> 1) << 15
        | u64::from(d) << 7
        | u64::from(e >> 1);
    Some((pts, video))
}

/// The stretch of a stream's clock that the frames of a segment cover. Where there is video, only video counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    video: bool,
    first: u64,
    /// From the first stamp to the lowest and to the highest; frames are not sent in the order in which they are shown.
    low: i64,
    high: i64,
    frames: u32,
}

impl Span {
    /// Adds a frame to a span, or begins one with it.
    pub fn add(span: &mut Option<Self>, stamp: Stamp) {
        match span {
            Some(span) if span.video == stamp.video => {
                let at = distance(span.first, stamp.pts);
                span.low = span.low.min(at);
                span.high = span.high.max(at);
                span.frames = span.frames.saturating_add(1);
            }
            Some(span) if span.video => {}
            _ => {
                *span = Some(Self {
                    video: stamp.video,
                    first: stamp.pts,
                    low: 0,
                    high: 0,
                    frames: 1,
                });
            }
        }
    }

    /// Whether the frames belong together.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.high - self.low <= ticks(MAX_SPAN)
    }

    /// Ticks from the highest stamp to that of a frame: above zero if the frame lies behind the span. `None` if the
    /// frame is of the other kind.
    #[must_use]
    pub fn beyond(&self, stamp: Stamp) -> Option<i64> {
        (stamp.video == self.video).then(|| distance(self.first, stamp.pts) - self.high)
    }

    /// Whether a frame lies between the lowest stamp and the highest.
    #[must_use]
    pub fn contains(&self, stamp: Stamp) -> bool {
        self.beyond(stamp)
            .is_some_and(|beyond| beyond <= 0 && beyond >= self.low - self.high)
    }

    /// How long the frames play, the last one as long as the others. `None` for a single frame.
    #[must_use]
    pub fn plays(&self) -> Option<Duration> {
        let between = u64::try_from(self.high - self.low).ok()?;
        let frames = u64::from(self.frames);
        let all = between * frames / frames.checked_sub(1).filter(|steps| *steps > 0)?;
        Some(Duration::from_micros(all * 100 / 9))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// A packet in which a frame with this stamp begins, behind an adaptation field of `padding` bytes.
    fn packet(pts: u64, id: u8, padding: u8) -> Vec<u8> {
        let mut packet = Vec::from([SYNC, 0x41, 0x00, 0x30, padding]);
        packet.resize(5 + usize::from(padding), 0xff);
        packet.extend([0, 0, 1, id, 0, 0, 0x80, 0x80, 5]);
        packet.extend([
            0x21 | (pts >> 29) as u8 & 0x0e,
            (pts >> 22) as u8,
            (pts >> 14) as u8 | 1,
            (pts >> 7) as u8,
            (pts << 1) as u8 | 1,
        ]);
        packet.resize(PACKET, 0xaa);
        packet
    }

    fn found(stream: &[u8], piece: usize) -> Vec<(u64, bool, u64)> {
        let (mut scanner, mut all) = (Scanner::default(), Vec::new());
        for piece in stream.chunks(piece) {
            scanner.push(piece, |stamp| {
                all.push((stamp.pts, stamp.video, stamp.at));
            });
        }
        all
    }

    #[test]
    fn stamps_are_found_whole_and_byte_by_byte_with_junk_before_between_and_after() {
        let stamps = [
            (0, 0xe0),
            (STAMPS - 1, 0xef),
            (1 << 32, 0xc0),
            (123_456_789, 0xbd),
        ];
        let mut stream = Vec::from(*b"junk");
        let mut expected = Vec::new();
        for (n, (pts, id)) in stamps.into_iter().enumerate() {
            expected.push((pts, id >= 0xe0, stream.len() as u64));
            stream.extend(packet(pts, id, n as u8 * 40));
            stream.extend(b"more junk");
        }
        for piece in [1, 7, PACKET, stream.len()] {
            assert_eq!(found(&stream, piece), expected, "pieces of {piece}");
        }
        let cut = stream.len() - PACKET;
        assert_eq!(
            found(&stream[..cut], 5),
            expected[..3],
            "the last is not whole"
        );
    }

    #[test]
    fn what_is_not_the_beginning_of_a_frame_with_a_stamp_is_passed_over() {
        let good = packet(9000, 0xe0, 20);
        assert_eq!(found(&good, PACKET).len(), 1);
        // No start, broken, scrambled, no payload, no start code, padding stream, no stamp, a marker missing, and an
        // adaptation field that leaves no room.
        let changes = [
            (1, 0x01),
            (1, 0xc1),
            (3, 0xb0),
            (3, 0x20),
            (25, 7),
            (28, 0xbe),
            (32, 0x00),
            (34, 0x20),
            (4, 180),
            (4, 255),
        ];
        for (at, byte) in changes {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(found(&bad, PACKET), [], "byte {at} is {byte:#x}");
        }
    }

    #[test]
    fn a_span_reaches_across_the_wrap_and_knows_what_lies_in_it() {
        let stamp = |pts: u64| Stamp {
            pts: pts % STAMPS,
            video: true,
            at: 0,
        };
        let start = STAMPS - 45_000;
        let mut span = None;
        for frame in [0, 2, 1, 3, 5, 4] {
            Span::add(&mut span, stamp(start + frame * 18_000));
        }
        let sound = Stamp {
            video: false,
            ..stamp(start + 900_000)
        };
        Span::add(&mut span, sound);
        let span = span.expect("frames were added");
        assert!(span.contains(stamp(start)) && span.contains(stamp(start + 90_000)));
        assert!(!span.contains(stamp(start - 1)) && !span.contains(stamp(start + 90_001)));
        assert!(!span.contains(sound));
        assert_eq!(span.beyond(stamp(start + 99_000)), Some(9_000));
        assert_eq!(span.plays(), Some(Duration::from_millis(1_200)));
        assert!(span.is_sound());
    }
}
