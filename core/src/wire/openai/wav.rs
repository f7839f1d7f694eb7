//! WAV, as far as runners write it, turned into OpenAI's samples: 24 kHz, 16 bits, one channel.

use alloc::vec::Vec;

use bytes::Bytes;

/// The rate of the samples that clients get.
pub const RATE: u32 = 24_000;
/// The longest sound that is converted, in seconds: far more than the longest text takes.
pub const MAX_SECONDS: u64 = 3_600;

/// Why a sound is not converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWav {
    /// Something else.
    #[error("it is not WAV")]
    NotWav,
    /// Samples of a kind that is not known.
    #[error("its samples are of an unknown kind")]
    Samples,
    /// More than an hour of it.
    #[error("it is longer than an hour")]
    Long,
}

/// Converts a sound. Channels are mixed; a higher rate is averaged down, a lower one filled up along straight lines.
///
/// # Errors
/// If it is not WAV, of unknown samples, or too long.
pub fn to_pcm(sound: &[u8]) -> Result<Bytes, BadWav> {
    let wav = Wav::read(sound)?;
    let mono: Vec<i16> = wav.mono().collect();
    let mut out = Vec::new();
    match wav.rate {
        RATE => push_all(&mut out, mono.iter().copied()),
        rate if rate > RATE => push_all(&mut out, averaged(&mono, rate)),
        rate => push_all(&mut out, filled(&mono, rate)),
    }
    Ok(out.into())
}

fn push_all(out: &mut Vec<u8>, samples: impl Iterator<Item = i16>) {
    for sample in samples {
        out.extend_from_slice(&sample.to_le_bytes());
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Unsigned8,
    /// Samples of that many bytes; the upper two count.
    Signed(usize),
    Float32,
    Float64,
}

struct Wav<'a> {
    rate: u32,
    kind: Kind,
    /// Bytes of one sample.
    width: usize,
    channels: usize,
    data: &'a [u8],
}

impl<'a> Wav<'a> {
    fn read(sound: &'a [u8]) -> Result<Self, BadWav> {
        let rest = sound.strip_prefix(b"RIFF").ok_or(BadWav::NotWav)?;
        let mut rest = rest
            .get(4..)
            .and_then(|rest| rest.strip_prefix(b"WAVE"))
            .ok_or(BadWav::NotWav)?;
        let mut format = None;
        loop {
            let (name, after) = rest.split_first_chunk::<4>().ok_or(BadWav::NotWav)?;
            let (length, after) = after.split_first_chunk::<4>().ok_or(BadWav::NotWav)?;
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            // Writers that do not know the length yet say a larger one than there is.
            let (chunk, after) = after.split_at(length.min(after.len()));
            match name {
                b"fmt " => format = Some(Self::format(chunk)?),
                b"data" => {
                    let (rate, kind, width, channels) = format.ok_or(BadWav::NotWav)?;
                    let wav = Self {
                        rate,
                        kind,
                        width,
                        channels,
                        data: chunk,
                    };
                    let frames = (chunk.len() / (width * channels)) as u64;
                    return if frames / u64::from(rate) > MAX_SECONDS {
                        Err(BadWav::Long)
                    } else {
                        Ok(wav)
                    };
                }
                _ => {}
            }
            // Chunks begin at even places.
            rest = after.get(length % 2..).unwrap_or_default();
        }
    }

    fn format(chunk: &[u8]) -> Result<(u32, Kind, usize, usize), BadWav> {
        const EXTENSIBLE: u16 = 0xfffe;
        let half = |at: usize| {
            let bytes = chunk.get(at..at + 2).ok_or(BadWav::NotWav)?;
            Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
        };
        let tag = match half(0)? {
            EXTENSIBLE => half(24)?,
            tag => tag,
        };
        let rate = u32::from(half(4)?) | u32::from(half(6)?) << 16;
        let (channels, bits) = (half(2)?, half(14)?);
        let kind = match (tag, bits) {
            (1, 8) => Kind::Unsigned8,
            (1, 16) => Kind::Signed(2),
            (1, 24) => Kind::Signed(3),
            (1, 32) => Kind::Signed(4),
            (3, 32) => Kind::Float32,
            (3, 64) => Kind::Float64,
            _ => return Err(BadWav::Samples),
        };
        if rate == 0 || channels == 0 {
            return Err(BadWav::Samples);
        }
        Ok((rate, kind, usize::from(bits / 8), usize::from(channels)))
    }

    /// The mean of the channels, sample by sample. Half a sample at the end is left out.
    fn mono(&self) -> impl Iterator<Item = i16> {
        let frames = self.data.chunks_exact(self.width * self.channels);
        frames.map(|frame| {
            let sum: i64 = frame
                .chunks_exact(self.width)
                .map(|sample| i64::from(self.kind.read(sample)))
                .sum();
            clamped(sum / self.channels as i64)
        })
    }
}

impl Kind {
    fn read(self, sample: &[u8]) -> i16 {
        match self {
            Self::Unsigned8 => (i16::from(sample[0]) - 128) << 8,
            Self::Signed(width) => i16::from_le_bytes([sample[width - 2], sample[width - 1]]),
            Self::Float32 => {
                let bytes = sample.try_into().expect("four bytes were cut out");
                loudness(f64::from(f32::from_le_bytes(bytes)))
            }
            Self::Float64 => {
                let bytes = sample.try_into().expect("eight bytes were cut out");
                loudness(f64::from_le_bytes(bytes))
            }
        }
    }
}

/// A sample from -1 to 1 in 16 bits. Louder ones are as loud as can be, and one that is no number is silent.
fn loudness(value: f64) -> i16 {
    (value * 32_767.0) as i16
}

fn clamped(value: i64) -> i16 {
    value.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// Makes fewer samples, each the mean of the stretch that it stands for.
fn averaged(samples: &[i16], rate: u32) -> impl Iterator<Item = i16> {
    let (rate, step) = (u64::from(rate), u64::from(RATE));
    let count = samples.len() as u64 * step / rate;
    // Places are counted in parts of a sample, as many as the new rate has.
    (0..count).map(move |at| {
        let (from, to) = (at * rate, (at + 1) * rate);
        let mut sum = 0;
        let mut place = from;
        while place < to {
            let sample = place / step;
            let until = ((sample + 1) * step).min(to);
            let value = samples.get(sample as usize).copied().unwrap_or_default();
            sum += i64::from(value) * (until - place) as i64;
            place = until;
        }
        clamped(sum / rate as i64)
    })
}

/// Makes more samples, each on the line between its two neighbours.
fn filled(samples: &[i16], rate: u32) -> impl Iterator<Item = i16> {
    let (rate, step) = (u64::from(rate), u64::from(RATE));
    let count = samples.len() as u64 * step / rate;
    let value = |at: u64| i64::from(samples[(at as usize).min(samples.len() - 1)]);
    (0..count).map(move |at| {
        let (sample, part) = (at * rate / step, at * rate % step);
        let (part, whole) = (part as i64, step as i64);
        clamped((value(sample) * (whole - part) + value(sample + 1) * part) / whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(tag: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut out = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
        out.extend(tag.to_le_bytes());
        out.extend(channels.to_le_bytes());
        out.extend(rate.to_le_bytes());
        out.extend([0; 6]);
        out.extend(bits.to_le_bytes());
        out.extend(b"LIST\x03\0\0\0abc\0data");
        out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        out.extend(data);
        out
    }

    fn samples(sound: &[u8]) -> Vec<i16> {
        let pcm = to_pcm(sound).unwrap();
        let pairs = pcm.chunks_exact(2);
        pairs
            .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
            .collect()
    }

    #[test]
    fn every_kind_of_sample_is_read() {
        assert_eq!(
            samples(&wav(1, 1, RATE, 8, &[128, 255, 0])),
            [0, 127 << 8, -32_768]
        );
        assert_eq!(samples(&wav(1, 1, RATE, 16, &[1, 0, 0, 128])), [1, -32_768]);
        assert_eq!(
            samples(&wav(1, 1, RATE, 24, &[9, 1, 0, 9])),
            [1],
            "half a sample is left out"
        );
        assert_eq!(samples(&wav(1, 1, RATE, 32, &[9, 9, 1, 0])), [1]);
        let loud: Vec<u8> = [1.0_f32, -2.0, f32::NAN, 0.5]
            .iter()
            .flat_map(|sample| sample.to_le_bytes())
            .collect();
        assert_eq!(
            samples(&wav(3, 1, RATE, 32, &loud)),
            [32_767, -32_768, 0, 16_383]
        );
        assert_eq!(
            samples(&wav(3, 1, RATE, 64, &1.0_f64.to_le_bytes())),
            [32_767]
        );
        assert_eq!(
            samples(&wav(1, 2, RATE, 16, &[2, 0, 4, 0])),
            [3],
            "the mean of two channels"
        );
    }

    #[test]
    fn other_rates_become_that_of_openai() {
        let ramp: Vec<u8> = (0..8_i16).flat_map(|at| (at * 100).to_le_bytes()).collect();
        assert_eq!(samples(&wav(1, 1, 48_000, 16, &ramp)), [50, 250, 450, 650]);
        let slow = samples(&wav(1, 1, 12_000, 16, &ramp));
        assert_eq!(slow[..5], [0, 50, 100, 150, 200]);
        assert_eq!(slow.len(), 16);
        assert_eq!(samples(&wav(1, 1, 44_100, 16, &[0; 882])).len(), 240);
    }

    #[test]
    fn what_is_not_wav_or_too_long_is_refused() {
        let good = wav(1, 1, 8_000, 16, &[0; 16]);
        for length in 0..good.len() - 16 {
            assert_eq!(to_pcm(&good[..length]), Err(BadWav::NotWav), "{length}");
        }
        // Cut within its samples it is as good as it is long.
        assert!(to_pcm(&good[..good.len() - 3]).is_ok());
        assert_eq!(to_pcm(&wav(2, 1, 8_000, 16, &[])), Err(BadWav::Samples));
        assert_eq!(to_pcm(&wav(1, 0, 8_000, 16, &[])), Err(BadWav::Samples));
        assert_eq!(to_pcm(&wav(1, 1, 0, 16, &[])), Err(BadWav::Samples));
        assert_eq!(to_pcm(&wav(1, 1, 1, 16, &[0; 7_210])), Err(BadWav::Long));
        assert!(to_pcm(&wav(1, 1, 8_000, 16, &[])).unwrap().is_empty());
    }
}
