//! Offers that are taken, and the parts of them that are.

pub use livepeer_media::timeline::Kind;

use super::fault::{Direction, Fault};
use super::scan::{FEEDBACK, Lines, PLI, Payload, Scan, Transport, scan};

/// The part that a peer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The peer sends (WHIP).
    Whip {
        /// Whether audio that we cannot take is left out instead of refusing the offer.
        drop_audio: bool,
    },
    /// The peer receives (WHEP).
    Whep,
}

/// Our part of the DTLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Active: we begin, since the peer said `passive`.
    Active,
    /// The peer begins.
    Passive,
}

/// The profiles of H.264 that are taken, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the meaning")]
pub enum H264Profile {
    Baseline,
    ConstrainedBaseline,
    Main,
    ConstrainedHigh,
    High,
}

impl H264Profile {
    /// The profile that `profile-level-id` names; 4:4:4, High 10 and Extended are not taken.
    #[must_use]
    pub const fn from_id(id: u32) -> Option<Self> {
        let (idc, constraints) = ((id >> 16) as u8, (id >> 8) as u8);
        Some(match (idc, constraints) {
            (0x42, iop) if iop & 0x4f == 0x40 => Self::ConstrainedBaseline,
            (0x42, iop) if iop & 0x4f == 0 => Self::Baseline,
            (0x4d, iop) if iop & 0x8f == 0x80 => Self::ConstrainedBaseline,
            (0x4d, iop) if iop & 0xaf == 0 => Self::Main,
            (0x64, 0) => Self::High,
            (0x64, 0x0c) => Self::ConstrainedHigh,
            _ => return None,
        })
    }
}

/// The `profile-level-id` of an offer that names none.
const UNSAID_ID: u32 = 0x42_00_1f;
/// Level 5.2, which no sender scales down to: the bit stream says its own.
const OUR_LEVEL: u32 = 0x34;

/// A payload type that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its number in both directions.
    pub number: u8,
    /// The payload type of its retransmissions.
    pub repair: Option<u8>,
    /// The packetization mode and the `profile-level-id` of our answer, for H.264.
    pub h264: Option<(u8, u32)>,
    /// The format parameters of our answer.
    pub parameters: String,
    pub(super) feedback: u8,
}

impl Format {
    /// The feedback that both sides know.
    pub fn feedback(&self) -> impl Iterator<Item = &'static str> {
        let bits = self.feedback;
        let known = FEEDBACK.iter().enumerate();
        known
            .filter(move |(bit, _)| bits & (1 << bit) != 0)
            .map(|(_, name)| *name)
    }

    /// Whether the peer can be asked for a key frame.
    #[must_use]
    pub const fn has_pli(&self) -> bool {
        self.feedback & PLI != 0
    }
}

/// A section that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Video or audio.
    pub kind: Kind,
    /// At least one payload type, the best first.
    pub formats: Vec<Format>,
    /// Header extensions: their ids and names.
    pub extensions: Vec<(u8, &'static str)>,
    pub(super) rtcp_rsize: bool,
    /// The peer's source, and that of its retransmissions.
    pub(super) sources: Option<(u32, Option<u32>)>,
}

/// A section of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name, if it has one.
    pub mid: String,
    /// The media of the section; `None` if our answer rejects it.
    pub taken: Option<Taken>,
    /// Media, protocol and formats, for the answer that rejects it.
    pub(super) line: (String, String, String),
}

/// An offer that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The peer's user fragment.
    pub ufrag: String,
    /// The peer's password.
    pub(super) password: String,
    /// The SHA-256 of the peer's certificate, in the form of SDP.
    pub(super) fingerprint: String,
    /// Our part of the handshake.
    pub setup: Setup,
    /// The sections in their order.
    pub sections: Vec<Section>,
    pub(super) role: Role,
}

impl Offer {
    /// The part that the peer asked for.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The section of a kind, with its name.
    #[must_use]
    pub fn section(&self, kind: Kind) -> Option<(&str, &Taken)> {
        self.sections.iter().find_map(|section| {
            let taken = section.taken.as_ref()?;
            (taken.kind == kind).then_some((section.mid.as_str(), taken))
        })
    }
}

/// Reads an offer.
///
/// # Errors
/// [`Fault`], with the status to answer with.
pub fn read(body: &[u8], role: Role) -> Result<Offer, Fault> {
    let scan = scan(body)?;
    // The sections of a bundle share the transport of the first that has one.
    let first = scan
        .sections
        .iter()
        .find(|section| section.transport.ufrag.is_some());
    let transport = first.map_or(scan.transport, |section| {
        section.transport.or(scan.transport)
    });
    let Transport {
        ufrag: Some(ufrag),
        password: Some(password),
        ..
    } = transport
    else {
        return Err(Fault::Malformed("a=ice-ufrag or a=ice-pwd is missing"));
    };
    if !transport.fingerprint {
        return Err(Fault::Malformed("a=fingerprint is missing"));
    }
    let sections = scan
        .sections
        .iter()
        .map(|lines| section(&scan, lines, role));
    let sections = sections.collect::<Result<Vec<_>, _>>()?;
    check_sections(&sections, role)?;
    // The engine knows no other function, though the RFC does.
    let fingerprint = transport
        .sha256
        .ok_or(Fault::Unsupported("no sha-256 fingerprint"))?;
    if scan.ice_lite {
        return Err(Fault::Unsupported("both sides are ICE-lite"));
    }
    let setup = match transport.setup {
        Some("actpass" | "active") => Setup::Passive,
        Some("passive") => Setup::Active,
        _ => {
            return Err(Fault::Unsupported(
                "a=setup has to be actpass, active or passive",
            ));
        }
    };
    Ok(Offer {
        ufrag: ufrag.to_owned(),
        password: password.to_owned(),
        fingerprint: fingerprint.to_owned(),
        setup,
        sections,
        role,
    })
}

fn check_sections(sections: &[Section], role: Role) -> Result<(), Fault> {
    let count = |kind| {
        let taken = sections.iter().filter_map(|section| section.taken.as_ref());
        taken.filter(|taken| taken.kind == kind).count()
    };
    match (count(Kind::Video), count(Kind::Audio)) {
        (0, _) if role != Role::Whep => Err(Fault::Unsupported("no H.264 video")),
        (0, 0) => Err(Fault::Unsupported(
            "no H.264 video and no Opus audio to be received",
        )),
        (0 | 1, 0 | 1) => Ok(()),
        _ => Err(Fault::Unsupported("more than one video or audio section")),
    }
}

fn section(scan: &Scan<'_>, lines: &Lines<'_>, role: Role) -> Result<Section, Fault> {
    Ok(Section {
        mid: lines.mid.unwrap_or_default().to_owned(),
        taken: take(scan, lines, role)?,
        line: (
            lines.media.to_owned(),
            lines.protocol.to_owned(),
            lines.formats.split(' ').next().unwrap_or("0").to_owned(),
        ),
    })
}

/// Everything of a section that is taken. `None`: it is rejected, and the others need not be.
fn take(scan: &Scan<'_>, lines: &Lines<'_>, role: Role) -> Result<Option<Taken>, Fault> {
    let kind = match lines.media {
        "video" => Kind::Video,
        "audio" => Kind::Audio,
        _ => return Ok(None),
    };
    if lines.port == "0" && !lines.bundle_only {
        return Ok(None);
    }
    let direction = lines
        .direction
        .or(scan.direction)
        .unwrap_or(Direction::SendRecv);
    match (role, direction) {
        (Role::Whip { .. }, Direction::SendOnly | Direction::SendRecv)
        | (Role::Whep, Direction::RecvOnly | Direction::SendRecv) => {}
        (Role::Whip { .. }, _) => {
            return Err(Fault::Unsupported("a section that does not send"));
        }
        (Role::Whep, _) => return Ok(None),
    }
    let formats = match kind {
        Kind::Video => h264(lines, role),
        Kind::Audio => opus(lines, role),
    };
    if formats.is_empty() {
        return match (kind, role) {
            (Kind::Video, _) => Err(Fault::Unsupported("no H.264 video")),
            (Kind::Audio, Role::Whip { drop_audio: false }) => Err(Fault::Unsupported(
                "audio without Opus; with ?audio=drop it is left out",
            )),
            (Kind::Audio, _) => Ok(None),
        };
    }
    let mid = lines.mid.ok_or(Fault::Malformed("a=mid is missing"))?;
    if !lines.rtcp_mux {
        return Err(Fault::Unsupported("a section without a=rtcp-mux"));
    }
    if !scan.bundles(mid) && (scan.bundle.is_some() || scan.sections.len() > 1) {
        return Err(Fault::Unsupported("a section outside a=group:BUNDLE"));
    }
    let sources = match lines.repair {
        Some((source, repair)) => Some((source, Some(repair))),
        None => lines.ssrc.map(|source| (source, None)),
    };
    Ok(Some(Taken {
        kind,
        formats,
        extensions: extensions(lines, kind, role),
        rtcp_rsize: lines.rtcp_rsize,
        sources: sources.filter(|_| role != Role::Whep),
    }))
}

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";

/// The header extensions to answer with. The orientation of video is not among them: a phone that may not send the
/// angle turns its pictures before it encodes them.
fn extensions(lines: &Lines<'_>, kind: Kind, role: Role) -> Vec<(u8, &'static str)> {
    let wanted: &[&'static str] = match (role, kind) {
        (Role::Whip { .. }, Kind::Video) => &[MID, TRANSPORT_CC],
        (Role::Whip { .. }, Kind::Audio) => &[MID, TRANSPORT_CC, AUDIO_LEVEL],
        (Role::Whep, Kind::Video) => &[MID, TRANSPORT_CC, PLAYOUT_DELAY],
        (Role::Whep, Kind::Audio) => &[MID, TRANSPORT_CC],
    };
    let mut taken = Vec::<(u8, &'static str)>::new();
    for (id, uri) in &lines.extensions {
        if let Some(name) = wanted.iter().find(|name| *name == uri)
            && taken
                .iter()
                .all(|(other, known)| other != id && known != name)
        {
            taken.push((*id, name));
        }
    }
    taken
}

fn codec(payload: &Payload<'_>) -> Option<(String, u32)> {
    let mut parts = payload.map?.split('/');
    let name = parts.next()?.to_ascii_lowercase();
    Some((name, parts.next()?.trim().parse().ok()?))
}

/// Whether a number can carry media next to control packets on one port (RFC 5761).
const fn is_free(number: u8) -> bool {
    !matches!(number, 64..=95)
}

fn h264(lines: &Lines<'_>, role: Role) -> Vec<Format> {
    let mut found = Vec::<(H264Profile, Format)>::new();
    for payload in lines
        .payloads
        .iter()
        .filter(|payload| is_free(payload.number))
    {
        if codec(payload) != Some(("h264".to_owned(), 90_000)) {
            continue;
        }
        let mode = payload
            .parameter("packetization-mode")
            .map_or(Some(0), |mode| mode.parse().ok());
        let id = payload.parameter("profile-level-id");
        let id = id.map_or(Some(UNSAID_ID), |id| u32::from_str_radix(id, 16).ok());
        let (Some(mode @ 0..=1), Some(id)) = (mode, id) else {
            continue;
        };
        let Some(profile) = H264Profile::from_id(id) else {
            continue;
        };
        // The first of each kind: the engine does not tell two apart.
        let same = |(other, format): &(_, Format)| {
            *other == profile && format.h264.is_some_and(|(other, _)| other == mode)
        };
        if found.iter().any(same) {
            continue;
        }
        let id = match role {
            Role::Whip { .. } => id & !0xff | OUR_LEVEL,
            Role::Whep => id,
        };
        let parameters = format!(
            "level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={id:06x}"
        );
        let format = Format {
            number: payload.number,
            repair: repair(lines, payload.number),
            h264: Some((mode, id)),
            parameters,
            feedback: payload.feedback,
        };
        found.push((profile, format));
    }
    // Mode 0 has no fragments: only if nothing else is there.
    let whole = |(_, format): &(_, Format)| format.h264.is_some_and(|(mode, _)| mode == 1);
    if found.iter().any(whole) {
        found.retain(whole);
    }
    if role == Role::Whep {
        found.sort_by_key(|(profile, _)| std::cmp::Reverse(*profile));
        found.truncate(1);
    }
    found.into_iter().map(|(_, format)| format).collect()
}

/// The payload type that repeats another one (RFC 4588).
fn repair(lines: &Lines<'_>, number: u8) -> Option<u8> {
    let repairs = |payload: &&Payload<'_>| {
        is_free(payload.number)
            && codec(payload) == Some(("rtx".to_owned(), 90_000))
            && payload.parameter("apt").and_then(|apt| apt.parse().ok()) == Some(number)
    };
    Some(lines.payloads.iter().find(repairs)?.number)
}

fn opus(lines: &Lines<'_>, role: Role) -> Vec<Format> {
    let is_opus = |payload: &&Payload<'_>| {
        is_free(payload.number) && codec(payload) == Some(("opus".to_owned(), 48_000))
    };
    let payload = lines.payloads.iter().find(is_opus);
    let format = |payload: &Payload<'_>| Format {
        number: payload.number,
        repair: None,
        h264: None,
        parameters: match (role, payload.parameters) {
            // Without `stereo` Chromium sends mono; with `usedtx` its pauses would stall runners.
            (Role::Whip { .. }, _) => "minptime=10;useinbandfec=1;stereo=1".to_owned(),
            (Role::Whep, Some(parameters)) => parameters.to_owned(),
            (Role::Whep, None) => "minptime=10;useinbandfec=1".to_owned(),
        },
        feedback: payload.feedback,
    };
    payload.map(format).into_iter().collect()
}
