//! The pictures that are sent: those of a real clip, each with a stamp, and made as large as the bit rate wants.

use std::time::{Duration, SystemTime};

use livepeer_media::demux::{Demux, Event};

use crate::Error;

/// Twelve seconds of H.264 at 30 pictures a second.
const CLIP: &[u8] = include_bytes!("../../../gateway/media/testsrc-360p30-12s.ts");
/// The time between pictures.
pub(crate) const PICTURE_EVERY: Duration = Duration::from_nanos(33_333_333);
/// A key frame is made larger by so many times what other pictures are.
const KEY_SHARES: usize = 8;
/// Names the message in which a stamp is (SEI, user data that is not registered).
const NAME: &[u8; 16] = b"livepeer load  .";
/// The stamp behind the name: stream, number and time in hexadecimal digits, so that nothing in it has to be escaped.
const STAMP: usize = 4 + 8 + 16;

/// Names a picture that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) stream: usize,
    /// Counts the pictures of the stream.
    pub(crate) number: u64,
    /// When it was given to the sender, in nanoseconds since 1970.
    pub(crate) nanos: u64,
}

impl Stamp {
    /// The stamp in a picture, if it has one.
    pub(crate) fn find(picture: &[u8]) -> Option<Self> {
        let at = picture.windows(NAME.len()).position(|some| some == NAME)? + NAME.len();
        let text = std::str::from_utf8(picture.get(at..at + STAMP)?).ok()?;
        let number = |from, to| u64::from_str_radix(&text[from..to], 16).ok();
        Some(Self {
            stream: usize::try_from(number(0, 4)?).ok()?,
            number: number(4, 12)?,
            nanos: number(12, STAMP)?,
        })
    }

    /// How long ago it was given to the sender.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_nanos(nanos().saturating_sub(self.nanos))
    }
}

/// The time in nanoseconds since 1970.
pub(crate) fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_nanos() as u64 // until the year 2554
}

/// See the [module](self).
pub(crate) struct Clip(Vec<Picture>);

struct Picture {
    key: bool,
    data: Vec<u8>,
    /// Bytes that are added.
    more: usize,
}

impl Clip {
    /// The clip at so many bits a second, or at its own if that is more.
    pub(crate) fn new(rate: u64) -> Result<Self, Error> {
        let mut demux = Demux::new();
        demux.push(CLIP)?;
        demux.finish();
        let mut pictures = Vec::new();
        while let Some(event) = demux.next_event() {
            if let Event::Video(unit) = event {
                pictures.push(Picture {
                    key: unit.key,
                    data: unit.data.to_vec(),
                    more: 0,
                });
            }
        }
        if !pictures.first().is_some_and(|first| first.key) {
            return Err("the clip does not begin with a key frame".into());
        }
        let bytes: usize = pictures.iter().map(|picture| picture.data.len()).sum();
        let wanted = PICTURE_EVERY.mul_f64(pictures.len() as f64).as_secs_f64() * rate as f64 / 8.0;
        let share = |key: bool| if key { KEY_SHARES } else { 1 };
        let shares: usize = pictures.iter().map(|picture| share(picture.key)).sum();
        let more = (wanted as usize).saturating_sub(bytes) / shares;
        for picture in &mut pictures {
            picture.more = more * share(picture.key);
        }
        Ok(Self(pictures))
    }

    /// The picture of that number, over and over again: whether it is a key frame, and its bytes, stamped now.
    pub(crate) fn picture(&self, stream: usize, number: u64) -> (bool, Vec<u8>) {
        let Picture { key, data, more } = &self.0[number as usize % self.0.len()];
        let size = NAME.len() + STAMP + more;
        let mut unit = Vec::with_capacity(data.len() + size + size / 255 + 16);
        unit.extend_from_slice(&[0, 0, 0, 1, 6, 5]);
        unit.extend(std::iter::repeat_n(0xff, size / 255));
        unit.push((size % 255) as u8);
        unit.extend_from_slice(NAME);
        unit.extend_from_slice(format!("{stream:04x}{number:08x}{:016x}", nanos()).as_bytes());
        unit.extend(std::iter::repeat_n(0x55, *more));
        unit.push(0x80);
        unit.extend_from_slice(data);
        (*key, unit)
    }
}
