//! A single pass over the lines of an offer.

use super::fault::{Direction, Fault, MAX_BYTES, MAX_LINES};

/// At most this many media sections has an offer.
pub const MAX_SECTIONS: usize = 4;
/// At most this many payload types has a media section.
pub const MAX_FORMATS: usize = 64;

/// At most this many characters has a user fragment or a password (RFC 8839).
const MAX_CREDENTIAL: usize = 256;
/// At most this many characters has a name of a section: the engine keeps no longer ones.
const MAX_MID: usize = 16;

/// A session description in pieces that borrow from its text.
#[derive(Default)]
pub(super) struct Scan<'a> {
    pub(super) transport: Transport<'a>,
    pub(super) direction: Option<Direction>,
    /// The names in the first `a=group:BUNDLE`.
    pub(super) bundle: Option<&'a str>,
    pub(super) ice_lite: bool,
    pub(super) sections: Vec<Lines<'a>>,
}

/// How to reach a peer and know it again. A section may have its own, or share those of the session.
#[derive(Clone, Copy, Default)]
pub(super) struct Transport<'a> {
    pub(super) ufrag: Option<&'a str>,
    pub(super) password: Option<&'a str>,
    /// The value of a `sha-256` fingerprint, which the engine compares.
    pub(super) sha256: Option<&'a str>,
    /// Whether there is a fingerprint by any function.
    pub(super) fingerprint: bool,
    pub(super) setup: Option<&'a str>,
}

impl<'a> Transport<'a> {
    /// Adds to these those of `other` where there are none.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            ufrag: self.ufrag.or(other.ufrag),
            password: self.password.or(other.password),
            sha256: self.sha256.or(other.sha256),
            fingerprint: self.fingerprint || other.fingerprint,
            setup: self.setup.or(other.setup),
        }
    }

    /// Reads an attribute. Whether it was one of these.
    fn read(&mut self, name: &str, value: &'a str) -> Result<bool, Fault> {
        match name {
            "ice-ufrag" => self.ufrag = Some(credential(value, 4)?),
            "ice-pwd" => self.password = Some(credential(value, 22)?),
            "fingerprint" => {
                let (function, digest) = value
                    .split_once(' ')
                    .ok_or(Fault::Malformed("a=fingerprint"))?;
                self.fingerprint = true;
                if function.eq_ignore_ascii_case("sha-256") {
                    let digest = digest.trim();
                    let bytes = digest.split(':');
                    let hex =
                        |byte: &str| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit());
                    if bytes.clone().count() != 32 || !bytes.clone().all(hex) {
                        return Err(Fault::Malformed("a=fingerprint"));
                    }
                    self.sha256.get_or_insert(digest);
                }
            }
            "setup" => self.setup = Some(value),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// A media section.
pub(super) struct Lines<'a> {
    pub(super) media: &'a str,
    pub(super) port: &'a str,
    pub(super) protocol: &'a str,
    pub(super) formats: &'a str,
    pub(super) transport: Transport<'a>,
    pub(super) mid: Option<&'a str>,
    pub(super) direction: Option<Direction>,
    pub(super) rtcp_mux: bool,
    pub(super) rtcp_rsize: bool,
    pub(super) bundle_only: bool,
    /// The payload types of RTP sections in the order of the offer.
    pub(super) payloads: Vec<Payload<'a>>,
    pub(super) extensions: Vec<(u8, &'a str)>,
    pub(super) ssrc: Option<u32>,
    pub(super) repair: Option<(u32, u32)>,
}

/// A payload type.
#[derive(Clone, Copy, Default)]
pub(super) struct Payload<'a> {
    pub(super) number: u8,
    /// Such as `H264/90000`.
    pub(super) map: Option<&'a str>,
    pub(super) parameters: Option<&'a str>,
    /// Bits of [`FEEDBACK`].
    pub(super) feedback: u8,
}

/// The kinds of feedback that we know; a payload type has a bit for each.
pub(super) const FEEDBACK: [&str; 5] = ["nack", "nack pli", "ccm fir", "transport-cc", "goog-remb"];
/// The bit of `nack pli`.
pub(super) const PLI: u8 = 1 << 1;

impl Payload<'_> {
    /// The value of a format parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters?.split(';').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            key.trim()
                .eq_ignore_ascii_case(name)
                .then_some(value.trim())
        })
    }
}

pub(super) fn scan(body: &[u8]) -> Result<Scan<'_>, Fault> {
    if body.len() > MAX_BYTES {
        return Err(Fault::TooLarge);
    }
    let text = std::str::from_utf8(body).map_err(|_| Fault::Malformed("text: it is not UTF-8"))?;
    if text.lines().nth(MAX_LINES).is_some() {
        return Err(Fault::TooLarge);
    }
    let mut lines = text.lines();
    if lines.next() != Some("v=0") {
        return Err(Fault::Malformed("first line: v=0 is missing"));
    }
    let mut scan = Scan::default();
    let mut begun = (false, false);
    for line in lines.filter(|line| !line.is_empty()) {
        if line
            .bytes()
            .any(|byte| byte.is_ascii_control() && byte != b'\t')
        {
            return Err(Fault::Malformed("line: it has control characters"));
        }
        let (kind, value) = line
            .split_once('=')
            .ok_or(Fault::Malformed("line without ="))?;
        match kind {
            "m" => {
                if scan.sections.len() == MAX_SECTIONS {
                    return Err(Fault::Unsupported("more than four media sections"));
                }
                scan.sections.push(Lines::read(value)?);
            }
            "a" => {
                let (name, value) = value.split_once(':').unwrap_or((value, ""));
                match scan.sections.last_mut() {
                    Some(section) => section.attribute(name, value)?,
                    None => scan.attribute(name, value)?,
                }
            }
            "o" => begun.0 = true,
            "t" => begun.1 = true,
            _ if kind.len() == 1 => {}
            _ => return Err(Fault::Malformed("line without a type")),
        }
    }
    if begun != (true, true) {
        return Err(Fault::Malformed("session: o= or t= is missing"));
    }
    for section in &scan.sections {
        if section
            .payloads
            .iter()
            .any(|payload| payload.number >= 35 && payload.map.is_none())
        {
            return Err(Fault::Malformed("payload type without a=rtpmap"));
        }
    }
    scan.check_names()?;
    Ok(scan)
}

impl<'a> Scan<'a> {
    fn attribute(&mut self, name: &str, value: &'a str) -> Result<(), Fault> {
        match name {
            "group" => {
                if let Some(names) = value.strip_prefix("BUNDLE") {
                    self.bundle.get_or_insert(names);
                }
            }
            "ice-lite" => self.ice_lite = true,
            _ => {
                if !self.transport.read(name, value)? {
                    self.direction = Direction::from_name(name).or(self.direction);
                }
            }
        }
        Ok(())
    }

    /// Names are unique, and a bundle names sections that are there.
    fn check_names(&self) -> Result<(), Fault> {
        let named = |mid: &str| self.sections.iter().filter(|s| s.mid == Some(mid)).count();
        if self
            .sections
            .iter()
            .filter_map(|s| s.mid)
            .any(|mid| named(mid) > 1)
        {
            return Err(Fault::Malformed("a=mid: two sections have the same"));
        }
        // At most 1,000 lines of 64 KiB in all: a list that is longer than the sections names one twice or an absent one.
        let mut bundled = self.bundle.unwrap_or_default().split_ascii_whitespace();
        if bundled.clone().nth(MAX_SECTIONS).is_some() || bundled.any(|mid| named(mid) == 0) {
            return Err(Fault::Malformed(
                "a=group: it names sections that are not there",
            ));
        }
        Ok(())
    }

    /// Whether a section travels in the bundle.
    pub(super) fn bundles(&self, mid: &str) -> bool {
        self.bundle
            .is_some_and(|names| names.split_ascii_whitespace().any(|name| name == mid))
    }
}

impl<'a> Lines<'a> {
    fn read(line: &'a str) -> Result<Self, Fault> {
        let malformed = || Fault::Malformed("m= line");
        let mut words = line.splitn(4, ' ');
        let mut word = || {
            words
                .next()
                .filter(|word| !word.is_empty())
                .ok_or_else(malformed)
        };
        let (media, port, protocol, formats) = (word()?, word()?, word()?, word()?);
        let mut payloads = Vec::new();
        if protocol.contains("RTP") {
            for format in formats.split_ascii_whitespace() {
                if payloads.len() == MAX_FORMATS {
                    return Err(Fault::Unsupported(
                        "more than 64 payload types in a section",
                    ));
                }
                let number = format.parse().ok().filter(|number| *number <= 127);
                let number =
                    number.ok_or(Fault::Malformed("payload type: not a number up to 127"))?;
                payloads.push(Payload {
                    number,
                    ..Payload::default()
                });
            }
        }
        Ok(Self {
            media,
            port,
            protocol,
            formats,
            transport: Transport::default(),
            mid: None,
            direction: None,
            rtcp_mux: false,
            rtcp_rsize: false,
            bundle_only: false,
            payloads,
            extensions: Vec::new(),
            ssrc: None,
            repair: None,
        })
    }

    fn attribute(&mut self, name: &str, value: &'a str) -> Result<(), Fault> {
        match name {
            "mid" => {
                let token = |b: u8| b.is_ascii_graphic();
                if value.is_empty() || value.len() > MAX_MID || !value.bytes().all(token) {
                    return Err(Fault::Malformed("a=mid: not a word of 1 to 16 characters"));
                }
                self.mid = Some(value);
            }
            "rtcp-mux" => self.rtcp_mux = true,
            "rtcp-rsize" => self.rtcp_rsize = true,
            "bundle-only" => self.bundle_only = true,
            "rtpmap" => {
                if let Some((payload, map)) = self.payload(value) {
                    payload.map.get_or_insert(map);
                }
            }
            "fmtp" => {
                if let Some((payload, parameters)) = self.payload(value) {
                    payload.parameters.get_or_insert(parameters);
                }
            }
            "rtcp-fb" => self.feedback(value),
            "extmap" => {
                // `id[/direction] uri [attributes]`
                let mut words = value.split_ascii_whitespace();
                let id = words
                    .next()
                    .and_then(|id| id.split('/').next()?.parse().ok());
                if let (Some(id @ 1..=14), Some(uri)) = (id, words.next())
                    && self.extensions.len() < MAX_FORMATS
                {
                    self.extensions.push((id, uri));
                }
            }
            "ssrc" => {
                let ssrc = value.split(' ').next().and_then(|ssrc| ssrc.parse().ok());
                self.ssrc = self.ssrc.or(ssrc);
            }
            "ssrc-group" => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("FID") {
                    let mut number = || words.next()?.parse().ok();
                    self.repair = self.repair.or(number().zip(number()));
                }
            }
            _ => {
                if !self.transport.read(name, value)? {
                    self.direction = Direction::from_name(name).or(self.direction);
                }
            }
        }
        Ok(())
    }

    /// The payload type that an attribute is about, and the rest of it.
    fn payload(&mut self, value: &'a str) -> Option<(&mut Payload<'a>, &'a str)> {
        let (number, rest) = value.split_once(' ')?;
        let number: u8 = number.parse().ok()?;
        let payload = self
            .payloads
            .iter_mut()
            .find(|payload| payload.number == number)?;
        Some((payload, rest.trim()))
    }

    fn feedback(&mut self, value: &'a str) {
        let Some((number, kind)) = value.split_once(' ') else {
            return;
        };
        let Some(bit) = FEEDBACK.iter().position(|known| *known == kind.trim()) else {
            return;
        };
        let number = number.parse::<u8>().ok();
        // A star means all payload types of the section.
        let meant =
            |payload: &&mut Payload<'_>| number.is_none_or(|number| number == payload.number);
        self.payloads
            .iter_mut()
            .filter(meant)
            .for_each(|payload| payload.feedback |= 1 << bit);
    }
}

/// A user fragment or a password: of so many characters at least.
fn credential(value: &str, least: usize) -> Result<&str, Fault> {
    let ice = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_' | b'=');
    if !(least..=MAX_CREDENTIAL).contains(&value.len()) || !value.bytes().all(ice) {
        return Err(Fault::Malformed("a=ice-ufrag or a=ice-pwd"));
    }
    Ok(value)
}
