//! The size of an image and the duration of sound, read from a file's own words without decoding it.
//!
//! Batch work is paid by pixels and by seconds, so both have to be known before an orchestrator is asked, and a file
//! that nobody could read is refused without a payment. The kind of a file is told by its content alone; names and
//! types that came with it mean nothing. Images are those that orchestrators take: PNG, JPEG and GIF.
//!
//! Time and memory stay in proportion to the file: no list is made longer than the bytes that would fill it, packets
//! are looked at once, at most [`MAX_PACKETS`] of them, and nothing is decoded.

use std::io::Cursor;
use std::panic::catch_unwind;
use std::time::Duration;

use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::units::{Duration as Ticks, TimeBase, Timestamp};
use symphonia::default::formats::{FlacReader, IsoMp4Reader, MkvReader, MpaReader, OggReader};
use thiserror::Error as ThisError;

/// At most this many packets are walked: a day of Opus at its usual pace.
pub const MAX_PACKETS: u32 = 1 << 22;
/// Longer sound is refused: a day.
pub const MAX_SOUND: Duration = Duration::from_secs(24 * 3600);
/// At most this many tags may stand before the sound itself.
const MAX_TAGS: usize = 16;
/// At most this many zeros may stand before the first frame of an MP3 file; recorders leave some there.
const MAX_PADDING: usize = 64 << 10;

/// The kind of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// Portable Network Graphics.
    Png,
    /// A JPEG file.
    Jpeg,
    /// Graphics Interchange Format.
    Gif,
}

/// An image's kind and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// The kind of the file.
    pub kind: ImageKind,
    /// The width in pixels, at least 1.
    pub width: u32,
    /// The height in pixels, at least 1.
    pub height: u32,
}

/// The kind of a file with sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoundKind {
    /// RIFF/WAVE.
    Wav,
    /// MPEG audio, layers I to III.
    Mp3,
    /// Native FLAC.
    Flac,
    /// Ogg, with Vorbis, Opus or FLAC.
    Ogg,
    /// WebM or Matroska.
    WebM,
    /// MP4, M4A and their relatives.
    Mp4,
}

/// The kind and duration of a file with sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sound {
    /// The kind of the file.
    pub kind: SoundKind,
    /// How long the sound plays, more than 0 and at most [`MAX_SOUND`].
    pub duration: Duration,
}

/// The reason why a file has no size or duration that could be paid by.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Unreadable {
    /// No kind of image that is known here.
    #[error("the file is not a PNG, JPEG or GIF image")]
    NotAnImage,
    /// No kind of sound that is known here.
    #[error("the file is not WAV, MP3, FLAC, Ogg, WebM or MP4 audio")]
    NotSound,
    /// The file breaks off or contradicts itself.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// A file without a track of sound.
    #[error("the file has no track of sound")]
    NoTrack,
    /// No pixel, or no moment of sound.
    #[error("the file is empty: its {0} is 0")]
    Empty(&'static str),
    /// Sound beyond [`MAX_SOUND`] or [`MAX_PACKETS`].
    #[error("the sound is longer than a day")]
    TooLong,
}

/// Reads the kind and size of an image; the head of the file is enough.
///
/// # Errors
/// If the file is not an image of a known kind, breaks off before its size, or has no pixel.
pub fn image(file: &[u8]) -> Result<Image, Unreadable> {
    let kind = if file.starts_with(b"\x89PNG\r\n\x1a\n") {
        if file.get(12..16) != Some(b"IHDR") {
            return Err(Unreadable::Damaged("no header comes first".to_owned()));
        }
        ImageKind::Png
    } else if file.starts_with(b"\xff\xd8\xff") {
        ImageKind::Jpeg
    } else if file.starts_with(b"GIF87a") || file.starts_with(b"GIF89a") {
        ImageKind::Gif
    } else {
        return Err(Unreadable::NotAnImage);
    };
    let size =
        imagesize::blob_size(file).map_err(|error| Unreadable::Damaged(error.to_string()))?;
    let side = |pixels: usize, name| match u32::try_from(pixels) {
        Ok(0) => Err(Unreadable::Empty(name)),
        Ok(pixels) => Ok(pixels),
        Err(_) => Err(Unreadable::Damaged(format!(
            "its {name} is {pixels} pixels"
        ))),
    };
    Ok(Image {
        kind,
        width: side(size.width, "width")?,
        height: side(size.height, "height")?,
    })
}

/// Reads the kind of a file with sound and how long it plays. What an MP3 file says of itself was often guessed by its
/// recorder, and a WebM of a browser says nothing; there the packets are walked instead.
///
/// # Errors
/// If the file is not sound of a known kind, is damaged before its first packet, or plays for no time or too long.
pub fn sound(file: &[u8]) -> Result<Sound, Unreadable> {
    let (kind, file) = sound_kind(file)?;
    // The parsers of containers give up on some hostile files by panicking, which must not end whoever asks:
    // `a_file_that_makes_its_parser_panic_is_damaged`. Nothing of theirs outlives the call.
    catch_unwind(|| sound_of(kind, file))
        .unwrap_or_else(|_| Err(Unreadable::Damaged("it cannot be parsed".to_owned())))
}

fn sound_of(kind: SoundKind, file: &[u8]) -> Result<Sound, Unreadable> {
    let bytes = Box::new(Cursor::new(file));
    let source = MediaSourceStream::new(bytes, MediaSourceStreamOptions::default());
    let options = FormatOptions::default();
    let duration = match kind {
        SoundKind::Wav => wav(file),
        SoundKind::Mp3 => packed(MpaReader::try_new(source, options), Says::Guesses),
        SoundKind::Flac => packed(FlacReader::try_new(source, options), Says::Truth),
        SoundKind::Ogg => packed(OggReader::try_new(source, options), Says::Truth),
        SoundKind::WebM => packed(MkvReader::try_new(source, options), Says::Truth),
        SoundKind::Mp4 => packed(IsoMp4Reader::try_new(source, options), Says::Truth),
    }?;
    if duration > MAX_SOUND {
        return Err(Unreadable::TooLong);
    }
    if duration.is_zero() {
        return Err(Unreadable::Empty("duration"));
    }
    Ok(Sound { kind, duration })
}

/// The duration of a WAV file: its bytes of sound, as many as are there, by its bytes a second.
fn wav(file: &[u8]) -> Result<Duration, Unreadable> {
    const RIFF: usize = 12;
    const HEAD: usize = 8;
    let damaged = |what: &str| Unreadable::Damaged(what.to_owned());
    let mut rest = file.get(RIFF..).unwrap_or_default();
    let mut rate = None;
    while let Some((head, body)) = rest.split_at_checked(HEAD) {
        let length = usize::try_from(number(head, 4, 4)).unwrap_or(usize::MAX);
        let chunk = &body[..length.min(body.len())];
        match &head[..4] {
            b"fmt " if chunk.len() >= 16 => {
                // PCM, floats, the two logarithmic ones, and the extensible format know frames; others only bytes.
                let frames = matches!(number(chunk, 0, 2), 1 | 3 | 6 | 7 | 0xfffe);
                rate = Some(if frames {
                    number(chunk, 4, 4) * number(chunk, 12, 2)
                } else {
                    number(chunk, 8, 4)
                });
            }
            b"data" => {
                let rate = rate.ok_or_else(|| damaged("its sound comes before its format"))?;
                let millis = (chunk.len() as u64).saturating_mul(1000);
                let millis = millis.checked_div(rate);
                return millis
                    .map(Duration::from_millis)
                    .ok_or_else(|| damaged("its sound has no rate"));
            }
            _ => {}
        }
        // Chunks begin at even places.
        let next = length.saturating_add(length % 2);
        rest = body.get(next..).unwrap_or_default();
    }
    Err(Unreadable::NoTrack)
}

/// The little-endian number of `len` bytes, at most 8, at a place that is there.
fn number(bytes: &[u8], from: usize, len: usize) -> u64 {
    let bytes = bytes[from..from + len].iter().rev();
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Duration of a file in its own words, if it says anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Truth,
    Guesses,
}

/// The duration of a file whose sound is in packets.
fn packed(reader: Result<impl FormatReader, Error>, says: Says) -> Result<Duration, Unreadable> {
    let mut reader = reader.map_err(|error| Unreadable::Damaged(error.to_string()))?;
    let track = reader.default_track(TrackType::Audio);
    let track = track.ok_or(Unreadable::NoTrack)?;
    let (id, base) = (track.id, track.time_base);
    let base = base.ok_or_else(|| Unreadable::Damaged("its sound has no rate".to_owned()))?;
    match said(&reader, track).filter(|_| says == Says::Truth) {
        Some(duration) => Ok(duration),
        None => walked(&mut reader, id, base),
    }
}

/// The kind of a file with sound, and the file without the tags before it.
fn sound_kind(mut file: &[u8]) -> Result<(SoundKind, &[u8]), Unreadable> {
    for _ in 0..MAX_TAGS {
        let Some(rest) = after_tag(file)? else {
            break;
        };
        file = rest;
    }
    let at = |from: usize, mark: &[u8]| file.get(from..).is_some_and(|rest| rest.starts_with(mark));
    if at(0, b"RIFF") && at(8, b"WAVE") {
        return Ok((SoundKind::Wav, file));
    }
    let marks: [(usize, &[u8], SoundKind); 4] = [
        (0, b"fLaC", SoundKind::Flac),
        (0, b"OggS", SoundKind::Ogg),
        (0, b"\x1a\x45\xdf\xa3", SoundKind::WebM),
        (4, b"ftyp", SoundKind::Mp4),
    ];
    if let Some((_, _, kind)) = marks.iter().find(|(from, mark, _)| at(*from, mark)) {
        return Ok((*kind, file));
    }
    let zeros = file.iter().take(MAX_PADDING).take_while(|b| **b == 0);
    let frames = &file[zeros.count()..];
    match frames {
        // Eleven bits of ones, a version that exists, a layer that exists.
        [0xff, second, ..] if second & 0xe0 == 0xe0 && second & 0x18 != 0x08 && second & 6 != 0 => {
            Ok((SoundKind::Mp3, frames))
        }
        _ => Err(Unreadable::NotSound),
    }
}

/// The rest of a file that begins with an ID3v2 tag.
fn after_tag(file: &[u8]) -> Result<Option<&[u8]>, Unreadable> {
    const HEAD: usize = 10;
    const FOOTER: u8 = 0x10;
    let Some(head) = file.get(..HEAD).filter(|head| head.starts_with(b"ID3")) else {
        return Ok(None);
    };
    // Seven bits a byte.
    let size = head[6..].iter();
    let size = size.fold(0, |size, byte| size << 7 | usize::from(byte & 0x7f));
    let footer = if head[5] & FOOTER == 0 { 0 } else { HEAD };
    match file.get(HEAD + size + footer..) {
        Some(rest) => Ok(Some(rest)),
        None => Err(Unreadable::Damaged("it ends within a tag".to_owned())),
    }
}

/// The duration that the file itself gives to a track, or to the whole; `None` if it gives none.
fn said(reader: &dyn FormatReader, track: &Track) -> Option<Duration> {
    let media = reader.media_info();
    let of_track = track.duration.zip(track.time_base);
    let of_all = media.duration.zip(media.time_base);
    [of_track, of_all]
        .into_iter()
        .flatten()
        .map(|(ticks, base)| time(base, ticks))
        .find(|duration| !duration.is_zero())
}

/// The end of the last packet of a track. A file may end in the middle: what was there before counts.
fn walked(
    reader: &mut dyn FormatReader,
    track: u32,
    base: TimeBase,
) -> Result<Duration, Unreadable> {
    let (mut first, mut last, mut end) = (None, None, Timestamp::ZERO);
    for _ in 0..MAX_PACKETS {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) | Err(_) => {
                let from = first.unwrap_or(end).max(Timestamp::ZERO);
                let ticks = end.duration_from(from).unwrap_or(Ticks::ZERO);
                return Ok(time(base, ticks));
            }
        };
        if packet.track_id != track {
            continue;
        }
        first.get_or_insert(packet.pts);
        // A packet that does not say how long it plays plays as long as the one before.
        let usual = last.and_then(|last| packet.pts.duration_from(last));
        let plays = if packet.dur.is_zero() {
            usual.unwrap_or(Ticks::ZERO)
        } else {
            packet.dur
        };
        last = Some(packet.pts);
        end = end.max(packet.pts.saturating_add(plays));
    }
    Err(Unreadable::TooLong)
}

/// The time of that many ticks; beyond what a time can be, the longest one.
fn time(base: TimeBase, ticks: Ticks) -> Duration {
    let nanos = base.calc_duration_saturating(ticks).as_nanos();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAC: &[u8] = include_bytes!("../testdata/tone.flac");
    const UNSAID_FLAC: &[u8] = include_bytes!("../testdata/tone-unsaid.flac");
    const MP3: &[u8] = include_bytes!("../testdata/tone.mp3");
    const UNSAID_MP3: &[u8] = include_bytes!("../testdata/tone-unsaid.mp3");
    const VORBIS: &[u8] = include_bytes!("../testdata/tone.ogg");
    const OPUS: &[u8] = include_bytes!("../testdata/tone.opus");
    const WEBM: &[u8] = include_bytes!("../testdata/tone.webm");
    const UNSAID_WEBM: &[u8] = include_bytes!("../testdata/tone-unsaid.webm");
    const M4A: &[u8] = include_bytes!("../testdata/tone.m4a");
    const FRAGMENTS: &[u8] = include_bytes!("../testdata/tone-fragments.mp4");
    const SILENT: &[u8] = include_bytes!("../testdata/silent.mp4");

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        file.extend(width.to_be_bytes());
        file.extend(height.to_be_bytes());
        file.extend([8, 2, 0, 0, 0]);
        file
    }

    fn jpeg(width: u16, height: u16) -> Vec<u8> {
        // A thumbnail of another size stands in the first segment.
        let mut file = b"\xff\xd8\xff\xe1\x00\x0c\xff\xd8\xff\xc0\x00\x11\x08\x00\x01\x00".to_vec();
        file.extend(b"\xff\xc0\x00\x11\x08");
        file.extend(height.to_be_bytes());
        file.extend(width.to_be_bytes());
        file.extend([3; 10]);
        file
    }

    fn gif(width: u16, height: u16) -> Vec<u8> {
        let mut file = b"GIF89a".to_vec();
        file.extend(width.to_le_bytes());
        file.extend(height.to_le_bytes());
        file.extend([0; 3]);
        file
    }

    /// Half a second of mono at 8 kHz, with those lengths in its two heads.
    fn wav(riff: u32, data: u32) -> Vec<u8> {
        let mut file = b"RIFF".to_vec();
        file.extend(riff.to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
        file.extend(data.to_le_bytes());
        file.extend([0; 8000]);
        file
    }

    fn plays(file: &[u8]) -> (SoundKind, u128) {
        let sound = sound(file).expect("readable");
        (sound.kind, sound.duration.as_millis())
    }

    #[test]
    fn the_size_of_an_image_is_read_from_its_head() {
        let is = |kind, width, height| {
            Ok(Image {
                kind,
                width,
                height,
            })
        };
        assert_eq!(image(&png(640, 360)), is(ImageKind::Png, 640, 360));
        assert_eq!(image(&jpeg(1920, 1080)), is(ImageKind::Jpeg, 1920, 1080));
        assert_eq!(image(&gif(3, 65535)), is(ImageKind::Gif, 3, 65535));
    }

    #[test]
    fn a_file_without_pixels_or_of_another_kind_is_no_image() {
        for other in [
            &b""[..],
            b"RIFF\x24\0\0\0WEBPVP8 ",
            b"BM\0\0",
            b"<svg/>",
            b"\x89PNG",
            FLAC,
        ] {
            assert_eq!(image(other), Err(Unreadable::NotAnImage));
        }
        assert_eq!(image(&png(0, 8)), Err(Unreadable::Empty("width")));
        assert_eq!(image(&jpeg(8, 0)), Err(Unreadable::Empty("height")));
        for whole in [png(7, 7), jpeg(7, 7), gif(7, 7)] {
            for end in 8..whole.len() {
                let cut = image(&whole[..end]);
                assert!(
                    matches!(
                        cut,
                        Ok(Image {
                            width: 7,
                            height: 7,
                            ..
                        })
                    ) || matches!(cut, Err(Unreadable::Damaged(_))),
                    "{end}: {cut:?}"
                );
            }
        }
    }

    #[test]
    fn the_duration_is_read_where_the_file_says_it() {
        assert_eq!(plays(FLAC), (SoundKind::Flac, 2500));
        assert_eq!(plays(VORBIS), (SoundKind::Ogg, 2500));
        assert_eq!(plays(WEBM), (SoundKind::WebM, 2508));
        assert_eq!(plays(M4A).0, SoundKind::Mp4);
        assert!((2500..2600).contains(&plays(M4A).1));
        assert_eq!(plays(OPUS).0, SoundKind::Ogg);
        assert!((2500..2520).contains(&plays(OPUS).1));
    }

    #[test]
    fn packets_are_walked_where_the_file_does_not_say_how_long_it_plays() {
        assert_eq!(plays(UNSAID_FLAC), (SoundKind::Flac, 2500));
        for (file, kind) in [
            (UNSAID_WEBM, SoundKind::WebM),
            (FRAGMENTS, SoundKind::Mp4),
            (UNSAID_MP3, SoundKind::Mp3),
            (MP3, SoundKind::Mp3),
        ] {
            let (is, millis) = plays(file);
            assert_eq!(is, kind);
            assert!((2490..2600).contains(&millis), "{kind:?}: {millis}");
        }
    }

    #[test]
    fn a_wav_file_plays_as_long_as_it_is_whatever_its_head_says() {
        for (riff, data) in [(8036, 8000), (u32::MAX, u32::MAX), (800_036, 800_000)] {
            assert_eq!(
                plays(&wav(riff, data)),
                (SoundKind::Wav, 500),
                "{riff} {data}"
            );
        }
        assert_eq!(plays(&wav(8036, 8000)[..4044]), (SoundKind::Wav, 250));
        assert_eq!(sound(&wav(36, 0)[..44]), Err(Unreadable::Empty("duration")));
    }

    #[test]
    fn tags_and_padding_stand_before_the_sound() {
        let tagged = |file: &[u8]| [&b"ID3\x04\0\0\0\0\x01\x02"[..], &[7; 130], file].concat();
        assert_eq!(plays(&tagged(MP3)), plays(MP3));
        assert_eq!(plays(&tagged(&tagged(FLAC))), plays(FLAC));
        let bare = MP3.iter().position(|byte| *byte == 0xff).expect("a frame");
        assert_eq!(plays(&[&[0; 1000], &MP3[bare..]].concat()), plays(MP3));
        assert!(matches!(
            sound(b"ID3\x04\0\0\x7f\x7f\x7f\x7fshort"),
            Err(Unreadable::Damaged(_))
        ));
    }

    #[test]
    fn a_file_that_makes_its_parser_panic_is_damaged() {
        let broken = sound(include_bytes!("../testdata/panics.mp4"));
        assert_eq!(
            broken,
            Err(Unreadable::Damaged("it cannot be parsed".to_owned()))
        );
    }

    #[test]
    fn what_is_no_sound_is_refused_and_a_cut_file_never_plays_longer() {
        for other in [
            &b""[..],
            b"hello",
            b"\xff\xf1\x50\x80",
            &png(8, 8),
            &[0; 100],
        ] {
            assert_eq!(sound(other), Err(Unreadable::NotSound));
        }
        assert_eq!(sound(SILENT), Err(Unreadable::NoTrack));
        for whole in [
            UNSAID_FLAC,
            MP3,
            UNSAID_MP3,
            VORBIS,
            OPUS,
            WEBM,
            UNSAID_WEBM,
            M4A,
            FRAGMENTS,
        ] {
            let longest = sound(whole).expect("readable").duration;
            for end in (0..whole.len()).step_by(whole.len() / 60) {
                if let Ok(cut) = sound(&whole[..end]) {
                    assert!(
                        cut.duration <= longest,
                        "{:?} {end}: {:?}",
                        cut.kind,
                        cut.duration
                    );
                }
            }
        }
    }
}
