//! H.264 access units: taken apart, put together, and made such that a decoder can start at every IDR picture.
//!
//! [`Stream`] takes one access unit after the other, in either form, and gives back Annex B: slices, SEI and parameter
//! sets after four-byte start codes. Delimiters and filler are left out, parameter sets are remembered and put before an
//! IDR picture that comes without, and a picture size beyond [`MAX_SIDE`] and [`MAX_PIXELS`] is refused.
//!
//! [`Drawing`] draws over pictures without a codec.

mod draw;
mod sps;

use bytes::{BufMut, Bytes, BytesMut};

pub use self::draw::{BLOCK, Block, Drawing};
pub use self::sps::{BadSps, MAX_PIXELS, MAX_REORDER, MAX_SIDE, Sps};

/// Bytes that an access unit has at most.
pub const MAX_UNIT: usize = 4 << 20;
/// After this many access units with a bad SPS, or that lack parameter sets, and no good IDR picture between them, the
/// stream is hopeless.
pub const MAX_BAD_SPS: u32 = 3;
/// After this many access units in a row that cannot be taken apart, the stream is hopeless.
pub const MAX_BAD_UNITS: u32 = 8;
/// Bytes that units without a picture have at most together, while they wait for a picture.
const MAX_HELD: usize = 64 << 10;
/// Parameter sets of each kind that are remembered.
const MAX_SETS: usize = 16;
/// Bytes that a remembered parameter set has at most.
const MAX_SET: usize = 4 << 10;

const START_CODE: [u8; 4] = [0, 0, 0, 1];

const SLICE: u8 = 1;
const IDR: u8 = 5;
const SEI: u8 = 6;
/// The type of a sequence parameter set.
pub const SPS: u8 = 7;
/// The type of a picture parameter set.
pub const PPS: u8 = 8;

/// Supplemental information that is filler, of no bytes.
const NOTHING: [u8; 4] = [SEI, 3, 0, 0x80];

/// The type of a NAL unit; 0, which is unused, for an empty one.
#[must_use]
pub fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |first| first & 0x1f)
}

/// The NAL units of Annex B, without start codes and the zeros around them. Bytes before the first start code are
/// skipped.
pub fn nals(annex_b: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(annex_b);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let end = find_start_code(bytes).unwrap_or(bytes.len());
        rest = after_start_code(&bytes[end..]);
        let zeros = bytes[..end]
            .iter()
            .rev()
            .take_while(|byte| **byte == 0)
            .count();
        Some(&bytes[..end - zeros])
    })
    .filter(|nal| !nal.is_empty())
}

fn find_start_code(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    // Every byte of a picture is looked at here, more than once: so only each third one is, as long as it is above 1 and no
    // start code can reach over it.
    while let Some([first, second, third]) = bytes.get(at..at + 3) {
        match third {
            0 => at += 1,
            1 if (*first, *second) == (0, 0) => return Some(at),
            _ => at += 3,
        }
    }
    None
}

fn after_start_code(bytes: &[u8]) -> Option<&[u8]> {
    find_start_code(bytes).map(|at| &bytes[at + 3..])
}

/// The NAL units of a unit in which each has its length before it, in `size` bytes. `None` in the row: a length past the
/// end.
fn length_prefixed(mut unit: &[u8], size: usize) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if unit.is_empty() {
            return None;
        }
        let nal = unit.split_at_checked(size).and_then(|(length, rest)| {
            let length = length
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            rest.split_at_checked(length)
        });
        unit = nal.map_or(&[], |(_, rest)| rest);
        Some(nal.map(|(nal, _)| nal))
    })
}

/// The reason why an access unit was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Dropped {
    /// A picture size that is refused, or one that cannot be read.
    #[error("bad SPS: {0}")]
    BadSps(#[from] BadSps),
    /// An IDR picture for which no parameter sets ever came: a decoder would fail at it.
    #[error("no parameter sets")]
    NoSets,
    /// A length that reaches past the end, or no NAL unit at all.
    #[error("a NAL unit that is cut off, or none")]
    CutOff,
    /// More than [`MAX_UNIT`] bytes.
    #[error("an access unit of more than {MAX_UNIT} bytes")]
    TooLarge,
    /// A decoder configuration that is cut off or of another version.
    #[error("a decoder configuration that cannot be read")]
    BadConfig,
}

/// A picture, ready to be given a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Annex B as [`AccessUnit::data`](crate::frame::AccessUnit::data) has it.
    pub data: Bytes,
    /// Whether it is an IDR picture.
    pub key: bool,
    /// Whether decoding can begin here in a stream that has no IDR pictures (SEI recovery point, and known parameter sets).
    pub recovers: bool,
}

/// The video of one source. See the [module](self).
#[derive(Debug, Default)]
pub struct Stream {
    sets: ParameterSets,
    sps: Option<Sps>,
    /// Units without a picture, until one comes.
    held: BytesMut,
    length_size: usize,
    bad_sps: u32,
    bad_units: u32,
}

impl Stream {
    /// Takes the decoder configuration that containers of MP4's family carry (`avcC`): the size of the lengths, and
    /// parameter sets.
    ///
    /// # Errors
    /// If it is cut off, has no SPS, or asks for a size that is refused.
    pub fn configure(&mut self, config: &[u8]) -> Result<(), Dropped> {
        let [1, _, _, _, lengths, sequences, ..] = *config else {
            return Err(Dropped::BadConfig);
        };
        let mut rest = &config[6..];
        let mut sets = ParameterSets::default();
        let mut sps = None;
        let mut take = |count: u8, rest: &mut &[u8], sps: &mut Option<Sps>| {
            for _ in 0..count {
                let (length, after) = rest.split_first_chunk().ok_or(Dropped::BadConfig)?;
                let length = usize::from(u16::from_be_bytes(*length));
                let (nal, after) = after.split_at_checked(length).ok_or(Dropped::BadConfig)?;
                *rest = after;
                if nal_type(nal) == SPS {
                    *sps = Some(Sps::read(nal)?);
                }
                sets.remember(nal);
            }
            Ok::<(), Dropped>(())
        };
        take(sequences & 0x1f, &mut rest, &mut sps)?;
        let (pictures, mut rest) = rest.split_first().ok_or(Dropped::BadConfig)?;
        take(*pictures, &mut rest, &mut sps)?;
        self.sps = Some(sps.ok_or(Dropped::BadConfig)?);
        self.sets = sets;
        self.length_size = usize::from(lengths & 3) + 1;
        Ok(())
    }

    /// The sequence parameter set that came last.
    #[must_use]
    pub const fn sps(&self) -> Option<&Sps> {
        self.sps.as_ref()
    }

    /// Whether so many access units were bad that the source has to be given up.
    #[must_use]
    pub const fn is_hopeless(&self) -> bool {
        self.bad_sps >= MAX_BAD_SPS || self.bad_units >= MAX_BAD_UNITS
    }

    /// Takes an access unit in Annex B. `None`: it has no picture, and what it has comes before the next one.
    ///
    /// # Errors
    /// If it has to be dropped; the next one may be good.
    pub fn annex_b(&mut self, unit: &[u8]) -> Result<Option<Picture>, Dropped> {
        self.take(unit.len(), nals(unit).map(Some))
    }

    /// Takes an access unit in which each NAL unit has its length before it, in as many bytes as
    /// [`Stream::configure`] heard; four if it was not called.
    ///
    /// # Errors
    /// If it has to be dropped; the next one may be good.
    pub fn length_prefixed(&mut self, unit: &[u8]) -> Result<Option<Picture>, Dropped> {
        let size = match self.length_size {
            0 => 4,
            size => size,
        };
        self.take(unit.len(), length_prefixed(unit, size))
    }

    fn take<'a>(
        &mut self,
        len: usize,
        units: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<Option<Picture>, Dropped> {
        let taken = self.read(len, units);
        match &taken {
            Ok(picture) => {
                self.bad_units = 0;
                if picture.as_ref().is_some_and(|picture| picture.key) {
                    self.bad_sps = 0;
                }
            }
            Err(Dropped::BadSps(_) | Dropped::NoSets) => {
                self.bad_sps = self.bad_sps.saturating_add(1)
            }
            Err(_) => self.bad_units = self.bad_units.saturating_add(1),
        }
        taken
    }

    fn read<'a>(
        &mut self,
        len: usize,
        units: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<Option<Picture>, Dropped> {
        if len > MAX_UNIT {
            return Err(Dropped::TooLarge);
        }
        let mut data = BytesMut::with_capacity(len + 64);
        let mut found = Found::default();
        let mut sps = None;
        let mut any = false;
        for nal in units {
            let nal = nal.ok_or(Dropped::CutOff)?;
            any |= !nal.is_empty();
            let kind = nal_type(nal);
            match kind {
                SPS => sps = Some(Sps::read(nal)?),
                SLICE | IDR | SEI | PPS => {}
                _ => continue,
            }
            found.see(kind, nal);
            put(&mut data, nal);
        }
        if !any {
            return Err(Dropped::CutOff);
        }
        // Only a unit that is good as a whole is learnt from.
        self.sps = sps.or(self.sps);
        if found.sets {
            nals(&data).for_each(|nal| self.sets.remember(nal));
        }
        if !found.slice {
            if self.held.len() + data.len() <= MAX_HELD {
                self.held.extend_from_slice(&data);
            }
            return Ok(None);
        }
        found.recovers &= self.sets.is_complete();
        if found.key || found.recovers {
            if !self.sets.is_complete() {
                return Err(Dropped::NoSets);
            }
            let held = Found::in_units(&self.held);
            if !(found.sps || held.sps) || !(found.pps || held.pps) {
                // All of them, in their order; those that the picture brings itself follow.
                data = joined(&self.sets.units(), &data);
            }
        }
        if !self.held.is_empty() {
            data = joined(&self.held, &data);
            self.held.clear();
        }
        Ok(Some(Picture {
            data: data.freeze(),
            key: found.key,
            recovers: found.recovers,
        }))
    }
}

/// The kinds of NAL units in an access unit.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    slice: bool,
    key: bool,
    sps: bool,
    pps: bool,
    sets: bool,
    recovers: bool,
}

impl Found {
    fn in_units(annex_b: &[u8]) -> Self {
        let mut found = Self::default();
        nals(annex_b).for_each(|nal| found.see(nal_type(nal), nal));
        found
    }

    fn see(&mut self, kind: u8, nal: &[u8]) {
        self.slice |= matches!(kind, SLICE | IDR);
        self.key |= kind == IDR;
        self.sps |= kind == SPS;
        self.pps |= kind == PPS;
        self.sets |= matches!(kind, SPS | PPS);
        self.recovers |= kind == SEI && is_recovery_point(nal);
    }
}

/// Whether the first message of an SEI unit is a recovery point.
fn is_recovery_point(nal: &[u8]) -> bool {
    nal.get(1) == Some(&6)
}

fn put(out: &mut BytesMut, nal: &[u8]) {
    out.put_slice(&START_CODE);
    out.put_slice(nal);
}

fn joined(first: &[u8], second: &[u8]) -> BytesMut {
    let mut all = BytesMut::with_capacity(first.len() + second.len());
    all.put_slice(first);
    all.put_slice(second);
    all
}

/// The parameter sets that were heard last, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct ParameterSets {
    sequence: Vec<Bytes>,
    picture: Vec<Bytes>,
}

impl ParameterSets {
    /// Learns the parameter sets in an access unit of Annex B.
    pub fn learn(&mut self, annex_b: &[u8]) {
        nals(annex_b).for_each(|nal| self.remember(nal));
    }

    /// The access unit with every parameter set before it.
    #[must_use]
    pub fn before(&self, annex_b: &[u8]) -> Bytes {
        joined(&self.units(), annex_b).freeze()
    }

    /// Learns from an access unit, and returns it as packetizers of WebRTC need it. They keep the last parameter set of each
    /// kind, and send the two before the next NAL unit of another kind: of a unit with more of them, or with one alone, the
    /// rest would be lost. Here every picture parameter set that is known stands right behind its sequence parameter set, and
    /// a unit that says nothing between two such pairs. A picture without parameter sets stays as it is, and so does one
    /// whose pair is all there is.
    #[must_use]
    pub fn in_pairs(&mut self, unit: &Bytes) -> Bytes {
        let kinds: Vec<u8> = nals(unit)
            .map(nal_type)
            .take_while(|kind| !matches!(*kind, SLICE | IDR))
            .filter(|kind| matches!(*kind, SPS | PPS))
            .collect();
        if kinds.is_empty() {
            return unit.clone();
        }
        self.learn(unit);
        if kinds == [SPS, PPS] && (self.sequence.len(), self.picture.len()) == (1, 1) {
            return unit.clone();
        }
        let mut out = BytesMut::with_capacity(unit.len() + 64 * self.picture.len());
        for picture in &self.picture {
            let of = sps::second_number(&picture[1..]);
            let mut all = self.sequence.iter();
            let Some(sequence) = all.find(|set| sps::first_number(&set[4..]) == of) else {
                continue;
            };
            if !out.is_empty() {
                put(&mut out, &NOTHING);
            }
            put(&mut out, sequence);
            put(&mut out, picture);
        }
        let rest = nals(unit).filter(|nal| !matches!(nal_type(nal), SPS | PPS));
        rest.for_each(|nal| put(&mut out, nal));
        out.freeze()
    }

    /// Whether pictures can be decoded with what is known.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        !self.sequence.is_empty() && !self.picture.is_empty()
    }

    fn remember(&mut self, nal: &[u8]) {
        let (sets, payload) = match nal_type(nal) {
            SPS => (&mut self.sequence, 4),
            PPS => (&mut self.picture, 1),
            _ => return,
        };
        let Some(number) = sps::first_number(nal.get(payload..).unwrap_or(&[])) else {
            return;
        };
        if nal.len() > MAX_SET {
            return;
        }
        let same = |set: &Bytes| sps::first_number(&set[payload..]) == Some(number);
        match sets.iter().position(same) {
            Some(at) if sets[at] == nal => {}
            Some(at) => sets[at] = Bytes::copy_from_slice(nal),
            None if sets.len() < MAX_SETS => sets.push(Bytes::copy_from_slice(nal)),
            None => {}
        }
    }

    fn units(&self) -> BytesMut {
        let mut out = BytesMut::new();
        for nal in self.sequence.iter().chain(&self.picture) {
            put(&mut out, nal);
        }
        out
    }
}

#[cfg(test)]
mod tests;
