//! Sound as WAV: tones are written, and what was recorded is measured.

use bytes::Bytes;
use livepeer_core::sign::keccak;

/// Samples of a tone per second.
const RATE: u32 = 8_000;

/// How many samples a character of a text is spoken for: 60 milliseconds.
const PER_CHARACTER: usize = RATE as usize * 60 / 1000;

/// The longest tone: 30 seconds.
const LONGEST: usize = 30 * RATE as usize;

/// A text as a sequence of tones, one for each character; `voice` decides how high they are.
pub(super) fn spoken(text: &str, voice: &str) -> Bytes {
    let base = 150 + u32::from(keccak(&[voice.as_bytes()])[0]);
    let samples = text.chars().flat_map(|character| {
        let height = match character {
            ' ' => 0,
            other => base + 8 * (other as u32 % 64),
        };
        (0..PER_CHARACTER as u32).map(move |n| triangle(n * height))
    });
    let data: Vec<u8> = samples.take(LONGEST).flat_map(i16::to_le_bytes).collect();
    wav(&data)
}

/// A triangle wave between -8,000 and 8,000, which goes round once in [`RATE`] steps.
const fn triangle(phase: u32) -> i16 {
    let at = (phase % RATE) as i32;
    let quarter = RATE as i32 / 4;
    let height = match at / quarter {
        0 => at,
        1 | 2 => 2 * quarter - at,
        _ => at - 4 * quarter,
    };
    (height * 4) as i16
}

/// Samples of 16 bits in one channel, with the head of a WAV file.
fn wav(data: &[u8]) -> Bytes {
    let length = data.len() as u32;
    let mut file = Vec::with_capacity(44 + data.len());
    file.extend(b"RIFF");
    file.extend((36 + length).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    file.extend([1_u16, 1].map(u16::to_le_bytes).concat());
    file.extend([RATE, 2 * RATE].map(u32::to_le_bytes).concat());
    file.extend([2_u16, 16].map(u16::to_le_bytes).concat());
    file.extend(b"data");
    file.extend(length.to_le_bytes());
    file.extend_from_slice(data);
    file.into()
}

/// Measures of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recording {
    /// How long it is.
    pub(super) millis: u64,
    /// The loudest sample, in thousandths of the loudest there can be.
    pub(super) peak: u32,
}

/// Measures a WAV file of whole numbers; `None` for any other file.
pub(super) fn measure(file: &[u8]) -> Option<Recording> {
    let mut rest = file
        .strip_prefix(b"RIFF")?
        .get(4..)?
        .strip_prefix(b"WAVE")?;
    let mut format = None;
    loop {
        let (head, after) = rest.split_at_checked(8)?;
        let length = u32::from_le_bytes(head[4..].try_into().ok()?) as usize;
        // Writers to a pipe do not know the length, and say the most there is.
        let (body, after) = after.split_at(length.min(after.len()));
        match &head[..4] {
            b"fmt " => format = Some(Format::read(body)?),
            b"data" => return format?.measure(body),
            _ => {}
        }
        rest = after.get(length % 2..)?;
    }
}

struct Format {
    rate: u64,
    /// Bytes of a sample in all channels, and in one.
    frame: usize,
    sample: usize,
}

impl Format {
    fn read(body: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_le_bytes(body.get(at..at + 2)?.try_into().ok()?));
        let rate = u32::from_le_bytes(body.get(4..8)?.try_into().ok()?);
        // 1 is whole numbers, 0xfffe whatever is further below, which mostly is whole numbers too.
        let whole = matches!(word(0)?, 1 | 0xfffe);
        let (channels, bits) = (usize::from(word(2)?), usize::from(word(14)?));
        let good = whole && rate > 0 && channels > 0 && matches!(bits, 8 | 16 | 24 | 32);
        good.then_some(Self {
            rate: rate.into(),
            frame: channels * bits / 8,
            sample: bits / 8,
        })
    }

    fn measure(&self, data: &[u8]) -> Option<Recording> {
        let frames = (data.len() / self.frame) as u64;
        let loudest = data
            .chunks_exact(self.sample)
            .map(|sample| match *sample {
                // Eight bits have their zero in the middle.
                [byte] => i32::from(byte.wrapping_sub(128).cast_signed()) << 24,
                [a, b] => i32::from_le_bytes([0, 0, a, b]),
                [a, b, c] => i32::from_le_bytes([0, a, b, c]),
                [a, b, c, d] => i32::from_le_bytes([a, b, c, d]),
                _ => 0,
            })
            .map(i32::unsigned_abs)
            .max()?;
        Some(Recording {
            millis: frames * 1000 / self.rate,
            peak: ((u64::from(loudest) * 1000) >> 31) as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spoken_text_can_be_measured() {
        let speech = spoken("hello there", "a calm voice");
        let heard = measure(&speech).expect("a recording");
        assert_eq!(heard.millis, 11 * 60);
        assert!((200..=245).contains(&heard.peak), "{heard:?}");
        assert_ne!(speech, spoken("hello there", "a deep voice"));
        let long = measure(&spoken(&"x".repeat(10_000), "")).expect("a recording");
        assert_eq!(long.millis, 30_000);
    }

    #[test]
    fn other_files_cannot_be_measured_and_are_no_danger() {
        let speech = spoken("hi", "");
        for cut in 0..44 {
            assert_eq!(measure(&speech[..cut]), None, "{cut}");
        }
        for at in 0..44 {
            let mut broken = speech.to_vec();
            broken[at] ^= 0x81;
            let _ = measure(&broken);
        }
        assert_eq!(measure(b"OggS"), None);
    }
}
