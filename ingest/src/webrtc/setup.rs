//! The engine's settings for an offer that was taken.

use str0m::Rtc;
use str0m::format::{Codec, CodecConfig, FormatParams};
use str0m::media::{Frequency, Mid, Pt};
use str0m::rtp::{Extension, ExtensionMap};

use super::Unmade;
use crate::fragments::Fragments;
use crate::sdp::{Kind, Offer, Role, Taken};

/// The engine has to have taken all that our answer says.
pub(super) fn check(rtc: &Rtc, mid: Mid, taken: &Taken) -> Result<(), Unmade> {
    let media = rtc.media(mid).filter(|media| !media.disabled());
    let media = media.ok_or_else(|| Unmade(format!("no section {mid}")))?;
    let known = |number: u8| media.remote_pts().iter().any(|pt| **pt == number);
    match taken.formats.iter().find(|format| !known(format.number)) {
        Some(format) => Err(Unmade(format!("no payload type {}", format.number))),
        None => Ok(()),
    }
}

pub(super) fn codecs(offer: &Offer) -> CodecConfig {
    let mut config = CodecConfig::empty();
    for section in &offer.sections {
        for format in section.taken.iter().flat_map(|taken| &taken.formats) {
            let number = Pt::new_with_value(format.number);
            match format.h264 {
                Some((mode, id)) => {
                    let repair = format.repair.map(Pt::new_with_value);
                    config.add_h264(number, repair, mode == 1, id);
                }
                None => config.add_config(
                    number,
                    None,
                    Codec::Opus,
                    Frequency::FORTY_EIGHT_KHZ,
                    Some(2),
                    FormatParams::parse_line(&format.parameters),
                ),
            }
        }
    }
    config
}

pub(super) fn fragments(offer: &Offer) -> Vec<(Pt, Fragments)> {
    let video = match offer.role() {
        Role::Whip { .. } => offer.section(Kind::Video),
        Role::Whep => None,
    };
    let formats = video.into_iter().flat_map(|(_, taken)| &taken.formats);
    formats
        .map(|format| (Pt::new_with_value(format.number), Fragments::default()))
        .collect()
}

pub(super) fn extensions(offer: &Offer) -> ExtensionMap {
    let mut map = ExtensionMap::empty();
    for section in &offer.sections {
        for (id, name) in section.taken.iter().flat_map(|taken| &taken.extensions) {
            let known = [
                Extension::RtpMid,
                Extension::TransportSequenceNumber,
                Extension::AudioLevel,
                Extension::PlayoutDelay,
            ];
            if let Some(extension) = known
                .into_iter()
                .find(|extension| extension.as_uri() == *name)
            {
                map.set(*id, extension);
            }
        }
    }
    map
}
