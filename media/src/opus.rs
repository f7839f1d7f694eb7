//! Opus packets: how long they play, which are valid, and silence (RFC 6716, section 3).

use crate::frame::Ticks;

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
