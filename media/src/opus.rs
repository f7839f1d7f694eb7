//! Opus packets: how long they play, which are valid, and silence (RFC 6716, section 3).

use crate::ticks::Ticks;

/// Samples a second of every Opus clock.
pub const RATE: u32 = 48_000;
/// Bytes that a frame of a packet has at most.
pub const MAX_FRAME: usize = 1275;
/// Samples that a packet has at most: 120 ms.
pub const MAX_SAMPLES: u32 = 5760;
/// Bytes that a packet has at most: 48 frames of 2.5 ms, each with its length.
pub const MAX_PACKET: usize = 48 * (MAX_FRAME + 2) + 2;

/// Twenty milliseconds of silence.
#[must_use]
pub const fn silence(channels: u8) -> &'static [u8] {
    if channels == 1 {
        &[0xf8, 0xff, 0xfe]
    } else {
        &[0xfc, 0xff, 0xfe]
    }
}

/// The samples of 48 kHz that a packet plays; `None` if it is not a valid packet.
#[must_use]
pub fn samples(packet: &[u8]) -> Option<u32> {
    let (toc, rest) = packet.split_first()?;
    let config = toc >> 3;
    let frame = match config {
        // SILK: 10, 20, 40, 60 ms.
        0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        // Hybrid: 10, 20 ms.
        12..=15 => [480, 960][usize::from(config & 1)],
        // CELT: 2.5, 5, 10, 20 ms.
        _ => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let frames = match toc & 3 {
        0 => (rest.len() <= MAX_FRAME).then_some(1)?,
        1 => (rest.len().is_multiple_of(2) && rest.len() <= 2 * MAX_FRAME).then_some(2)?,
        2 => two_frames(rest)?,
        _ => many_frames(rest)?,
    };
    let samples = frame * frames;
    (samples <= MAX_SAMPLES).then_some(samples)
}

/// The time that a packet plays; `None` if it is not a valid packet.
#[must_use]
pub fn duration(packet: &[u8]) -> Option<Ticks> {
    samples(packet).map(|samples| Ticks::from_48k(i64::from(samples)))
}

/// Whether a decoder of one channel would lose one of this packet's.
#[must_use]
pub fn is_stereo(packet: &[u8]) -> bool {
    packet.first().is_some_and(|toc| toc & 4 != 0)
}

/// Two frames, of which the first has its length before it.
fn two_frames(rest: &[u8]) -> Option<u32> {
    let (first, rest) = length(rest)?;
    let second = rest.len().checked_sub(first)?;
    (second <= MAX_FRAME).then_some(2)
}

/// Up to 48 frames behind a byte that counts them.
fn many_frames(rest: &[u8]) -> Option<u32> {
    let (head, mut rest) = rest.split_first()?;
    let frames = usize::from(head & 0x3f);
    if frames == 0 {
        return None;
    }
    let mut padding = 0;
    if head & 0x40 != 0 {
        loop {
            let (byte, after) = rest.split_first()?;
            rest = after;
            padding += usize::from((*byte).min(254));
            if *byte < 255 {
                break;
            }
        }
    }
    if head & 0x80 == 0 {
        let bytes = rest.len().checked_sub(padding)?;
        let valid = bytes.is_multiple_of(frames) && bytes / frames <= MAX_FRAME;
        return valid.then_some(frames as u32); // at most 63
    }
    let mut bytes = 0;
    for _ in 1..frames {
        let (frame, after) = length(rest)?;
        bytes += frame;
        rest = after;
    }
    let last = rest.len().checked_sub(padding)?.checked_sub(bytes)?;
    (last <= MAX_FRAME).then_some(frames as u32) // at most 63
}

/// A length of one or two bytes, and what follows.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [first @ 0..252, rest @ ..] => Some((usize::from(*first), rest)),
        [first, second, rest @ ..] => Some((4 * usize::from(*second) + usize::from(*first), rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CHROMIUM, FFMPEG, recorded};

    #[test]
    fn recorded_packets_play_as_long_as_their_stamps_say() {
        for recording in [CHROMIUM, FFMPEG] {
            let packets: Vec<_> = recorded(recording)
                .into_iter()
                .filter(|frame| !frame.is_video)
                .collect();
            assert!(packets.len() > 90);
            for two in packets.windows(2) {
                let played = samples(two[0].data).map(i64::from);
                assert_eq!(played, Some(two[1].time - two[0].time));
            }
        }
    }

    #[test]
    fn every_kind_of_packet_has_its_length() {
        let long = |toc: u8, frames: u8| samples(&[toc << 3 | 3, frames, 0]);
        let one = |config: u8| samples(&[config << 3]);
        let expected = [480, 960, 1920, 2880].repeat(3);
        let hybrid = [480, 960].repeat(2);
        let celt = [120, 240, 480, 960].repeat(4);
        for (config, expected) in expected.iter().chain(&hybrid).chain(&celt).enumerate() {
            assert_eq!(one(config as u8), Some(*expected), "configuration {config}");
        }
        assert_eq!(long(16, 1), Some(120));
        assert_eq!(duration(silence(2)), Some(Ticks::from_millis(20)));
        assert_eq!(duration(silence(1)), Some(Ticks::from_millis(20)));
        assert!(is_stereo(silence(2)) && !is_stereo(silence(1)));
    }

    #[test]
    fn what_no_encoder_makes_is_refused() {
        // Nothing; a frame that is too large; 49 frames; 120 ms are the most; a length past the end; no frame at all.
        assert_eq!(samples(&[]), None);
        let mut large = vec![0xfc; 1 + MAX_FRAME];
        assert_eq!(samples(&large), Some(960));
        large.push(0);
        assert_eq!(samples(&large), None);
        assert_eq!(samples(&[16 << 3 | 3, 48]), Some(MAX_SAMPLES));
        assert_eq!(samples(&[16 << 3 | 3, 49]), None);
        assert_eq!(samples(&[3 << 3 | 3, 2]), Some(MAX_SAMPLES));
        assert_eq!(samples(&[3 << 3 | 3, 3]), None);
        assert_eq!(samples(&[0xfe, 9, 1]), None);
        assert_eq!(samples(&[0xff, 0x80]), None);
        assert_eq!(samples(&[0xfd, 1]), None);
        assert_eq!(samples(&[0xff, 0xc2, 255, 255]), None);
    }
}
