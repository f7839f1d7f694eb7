//! AAC: its configuration, the ADTS header of its frames, and silence (ISO 14496-3).

use crate::ticks::Ticks;

/// Samples of one frame.
pub const SAMPLES: u32 = 1024;
/// Bytes of an ADTS header without a checksum.
pub const ADTS: usize = 7;
/// Bytes that a frame has at most, so that the 13 bits of ADTS hold it with its header.
pub const MAX_FRAME: usize = 0x1fff - ADTS;

const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000,
    7350,
];

/// The configuration of AAC-LC as ADTS can say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The place of the sampling rate in the table of the standard, at most 12.
    rate: u8,
    /// The channel configuration, 1 to 7: as many channels, but for 7, which is 8.
    channels: u8,
}

impl Config {
    /// The configuration with that sampling rate and that many channels; `None` if AAC has no such one.
    #[must_use]
    pub fn new(rate: u32, channels: u8) -> Option<Self> {
        let rate = RATES.iter().position(|known| *known == rate)? as u8; // below 13
        let channels = match channels {
            1..=6 => channels,
            8 => 7,
            _ => return None,
        };
        Some(Self { rate, channels })
    }

    /// Reads an AudioSpecificConfig. What follows the first two bytes, as ffmpeg sends it, only says that there is no
    /// extension or one that decoders of AAC-LC may ignore. `None` if it is not AAC-LC that ADTS can say.
    #[must_use]
    pub fn read(config: &[u8]) -> Option<Self> {
        let [first, second, ..] = *config else {
            return None;
        };
        let object = first >> 3;
        let rate = (first & 7) << 1 | second >> 7;
        let channels = second >> 3 & 0xf;
        let known = object == 2 && usize::from(rate) < RATES.len() && (1..=7).contains(&channels);
        known.then_some(Self { rate, channels })
    }

    /// The AudioSpecificConfig.
    #[must_use]
    pub const fn write(self) -> [u8; 2] {
        [2 << 3 | self.rate >> 1, self.rate << 7 | self.channels << 3]
    }

    /// Samples a second.
    #[must_use]
    pub const fn rate(self) -> u32 {
        RATES[self.rate as usize]
    }

    /// The number of channels.
    #[must_use]
    pub const fn channels(self) -> u8 {
        if self.channels == 7 { 8 } else { self.channels }
    }

    /// The ADTS header of a frame of that many bytes; `None` if it is longer than [`MAX_FRAME`].
    #[must_use]
    pub fn adts(self, frame: usize) -> Option<[u8; ADTS]> {
        let length = frame + ADTS;
        (length <= MAX_FRAME + ADTS).then_some([
            0xff,
            0xf1,
            1 << 6 | self.rate << 2 | self.channels >> 2,
            (self.channels & 3) << 6 | (length >> 11) as u8, // two bits
            (length >> 3) as u8,                             // the middle eight
            ((length & 7) << 5) as u8 | 0x1f,                // the last three
            0xfc,
        ])
    }

    /// The time that `frames` frames play, rounded down; counted together so that roundings do not add up.
    #[must_use]
    pub fn duration(self, frames: u64) -> Ticks {
        let samples = i128::from(frames) * i128::from(SAMPLES);
        let ticks = samples * 90_000 / i128::from(self.rate());
        Ticks(i64::try_from(ticks).unwrap_or(i64::MAX))
    }

    /// A frame of silence, for the configurations of which one is known.
    #[must_use]
    pub const fn silence(self) -> Option<&'static [u8]> {
        // The frames say nothing of the rate: all spectra are empty.
        match self.channels {
            1 => Some(&[0x00, 0xc8, 0x00, 0x80, 0x23, 0x80]),
            2 => Some(&[0x21, 0x10, 0x04, 0x60, 0x8c, 0x1c]),
            _ => None,
        }
    }
}

/// The first ADTS frame in `bytes`: its configuration, its raw data, and what follows. `None` if there is none that is
/// whole, or it holds several raw blocks or another object type than AAC-LC.
#[must_use]
pub fn read_adts(bytes: &[u8]) -> Option<(Config, &[u8], &[u8])> {
    let head: &[u8; ADTS] = bytes.first_chunk()?;
    let is_frame = head[0] == 0xff && head[1] & 0xf6 == 0xf0;
    let length =
        usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5]) >> 5;
    let header = if head[1] & 1 == 1 { ADTS } else { ADTS + 2 };
    let config = Config {
        rate: head[2] >> 2 & 0xf,
        channels: (head[2] & 1) << 2 | head[3] >> 6,
    };
    let is_known = head[2] >> 6 == 1
        && head[6] & 3 == 0
        && usize::from(config.rate) < RATES.len()
        && config.channels != 0;
    if !is_frame || !is_known || length < header {
        return None;
    }
    let (frame, rest) = bytes.split_at_checked(length)?;
    Some((config, &frame[header..], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read_and_written() {
        let stereo = Config::new(48_000, 2).expect("a usual one");
        assert_eq!(stereo.write(), [0x11, 0x90]);
        assert_eq!(Config::read(&[0x11, 0x90]), Some(stereo));
        // With what ffmpeg adds.
        let mono = Config::read(&[0x11, 0x88, 0x56, 0xe5, 0x00]).expect("a mono one");
        assert_eq!((mono.rate(), mono.channels()), (48_000, 1));
        let eight = Config::new(44_100, 8).expect("AAC has 7.1");
        assert_eq!(Config::read(&eight.write()), Some(eight));
        assert_eq!(eight.channels(), 8);
        // Cut off; another object type; a rate in words; channels in words.
        for bad in [
            &[][..],
            &[0x11],
            &[0x2b, 0x90],
            &[0x17, 0x90],
            &[0x11, 0x80],
        ] {
            assert_eq!(Config::read(bad), None, "{bad:?}");
        }
        assert_eq!(Config::new(48_001, 2), None);
        assert_eq!(Config::new(48_000, 7), None);
    }

    #[test]
    fn frames_are_found_behind_their_headers() {
        for channels in [1, 2] {
            let config = Config::new(44_100, channels).expect("a usual one");
            let silence = config.silence().expect("it is known");
            let mut bytes = config.adts(silence.len()).expect("it is short").to_vec();
            bytes.extend_from_slice(silence);
            bytes.push(9);
            assert_eq!(read_adts(&bytes), Some((config, silence, &[9][..])));
            for cut in 0..ADTS + silence.len() {
                assert_eq!(read_adts(&bytes[..cut]), None);
            }
        }
        let config = Config::new(8000, 6).expect("a usual one");
        assert_eq!(config.silence(), None);
        assert!(config.adts(MAX_FRAME).is_some());
        assert_eq!(config.adts(MAX_FRAME + 1), None);
    }

    #[test]
    fn durations_are_counted_together() {
        let config = Config::new(44_100, 2).expect("a usual one");
        assert_eq!(config.duration(1), Ticks(2089));
        assert_eq!(config.duration(44_100), Ticks(1024 * 90_000));
    }
}
