//! The text that the engine sees of an offer, and the answer to it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::fault::Direction;
use super::offer::{Format, Kind, Offer, Role, Section, Setup, Taken};

/// The words of an answer besides what the offer decides.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// A number that names the session.
    pub id: u64,
    /// Our user fragment.
    pub ufrag: &'a str,
    /// Our password.
    pub password: &'a str,
    /// The SHA-256 of our certificate, in the form of SDP.
    pub fingerprint: &'a str,
    /// The addresses at which the peer reaches us.
    pub addresses: &'a [SocketAddr],
    /// The sources of video and audio of a session that sends.
    pub senders: &'a [Sender],
}

/// A source of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The kind of media.
    pub kind: Kind,
    /// The source.
    pub ssrc: u32,
    /// The source of its retransmissions.
    pub repair: Option<u32>,
}

/// The name that our pictures and our sound share, so that a player keeps them in step.
const STREAM: &str = "livepeer";

impl Offer {
    /// The offer as the engine sees it: what was taken, and nothing of the peer's text besides.
    #[must_use]
    pub fn for_engine(&self) -> String {
        let mut text =
            String::from("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE");
        for (section, _) in self.taken() {
            put(&mut text, format_args!(" {}", section.mid));
        }
        text.push_str("\r\n");
        for (section, taken) in self.taken() {
            media_line(&mut text, taken);
            let setup = match self.setup {
                Setup::Active => "passive",
                Setup::Passive => "actpass",
            };
            let direction = match self.role {
                Role::Whip { .. } => Direction::SendOnly,
                Role::Whep => Direction::RecvOnly,
            };
            put(
                &mut text,
                format_args!(
                    "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
                    self.ufrag, self.password
                ),
            );
            put(
                &mut text,
                format_args!("a=fingerprint:sha-256 {}\r\n", self.fingerprint),
            );
            put(
                &mut text,
                format_args!("a=setup:{setup}\r\na=mid:{}\r\n", section.mid),
            );
            shared(&mut text, taken, direction);
            if let Some((source, repair)) = taken.sources {
                if let Some(repair) = repair {
                    put(
                        &mut text,
                        format_args!("a=ssrc-group:FID {source} {repair}\r\n"),
                    );
                    put(&mut text, format_args!("a=ssrc:{repair} cname:-\r\n"));
                }
                put(&mut text, format_args!("a=ssrc:{source} cname:-\r\n"));
            }
        }
        text
    }

    /// The answer.
    #[must_use]
    pub fn answer(&self, answer: &Answer<'_>) -> String {
        let mut text = String::from("v=0\r\n");
        put(
            &mut text,
            format_args!(
                "o=- {} 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE",
                answer.id
            ),
        );
        for (section, _) in self.taken() {
            put(&mut text, format_args!(" {}", section.mid));
        }
        text.push_str("\r\na=ice-lite\r\na=msid-semantic: WMS *\r\n");
        let mut first = true;
        for section in &self.sections {
            match &section.taken {
                Some(taken) => {
                    media_line(&mut text, taken);
                    if std::mem::take(&mut first) {
                        candidates(&mut text, answer.addresses);
                    }
                    self.accepted(&mut text, section, taken, answer);
                }
                None => rejected(&mut text, section),
            }
        }
        text
    }

    fn accepted(&self, text: &mut String, section: &Section, taken: &Taken, answer: &Answer<'_>) {
        let setup = match self.setup {
            Setup::Active => "active",
            Setup::Passive => "passive",
        };
        let direction = match self.role {
            Role::Whip { .. } => Direction::RecvOnly,
            Role::Whep => Direction::SendOnly,
        };
        put(
            text,
            format_args!(
                "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n",
                answer.ufrag, answer.password
            ),
        );
        put(
            text,
            format_args!("a=fingerprint:sha-256 {}\r\n", answer.fingerprint),
        );
        put(
            text,
            format_args!("a=setup:{setup}\r\na=mid:{}\r\n", section.mid),
        );
        shared(text, taken, direction);
        let Some(sender) = answer
            .senders
            .iter()
            .find(|sender| sender.kind == taken.kind)
        else {
            return;
        };
        let track = name(taken.kind);
        put(text, format_args!("a=msid:{STREAM} {track}\r\n"));
        if let Some(repair) = sender.repair {
            put(
                text,
                format_args!("a=ssrc-group:FID {} {repair}\r\n", sender.ssrc),
            );
        }
        for source in std::iter::once(sender.ssrc).chain(sender.repair) {
            put(text, format_args!("a=ssrc:{source} cname:{STREAM}\r\n"));
            put(
                text,
                format_args!("a=ssrc:{source} msid:{STREAM} {track}\r\n"),
            );
        }
    }

    fn taken(&self) -> impl Iterator<Item = (&Section, &Taken)> {
        self.sections
            .iter()
            .filter_map(|section| Some((section, section.taken.as_ref()?)))
    }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Video => "video",
        Kind::Audio => "audio",
    }
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line)
        .expect("a string takes all that is written");
}

fn media_line(text: &mut String, taken: &Taken) {
    put(
        text,
        format_args!("m={} 9 UDP/TLS/RTP/SAVPF", name(taken.kind)),
    );
    for format in &taken.formats {
        put(text, format_args!(" {}", format.number));
        if let Some(repair) = format.repair {
            put(text, format_args!(" {repair}"));
        }
    }
    text.push_str("\r\nc=IN IP4 0.0.0.0\r\n");
}

/// Lines of a section that both texts have in the same words.
fn shared(text: &mut String, taken: &Taken, direction: Direction) {
    for (id, name) in &taken.extensions {
        put(text, format_args!("a=extmap:{id} {name}\r\n"));
    }
    let direction = match direction {
        Direction::SendOnly => "sendonly",
        Direction::RecvOnly => "recvonly",
        Direction::SendRecv => "sendrecv",
        Direction::Inactive => "inactive",
    };
    put(text, format_args!("a={direction}\r\na=rtcp-mux\r\n"));
    if taken.rtcp_rsize {
        text.push_str("a=rtcp-rsize\r\n");
    }
    for format in &taken.formats {
        payload(text, format);
    }
}

fn payload(text: &mut String, format: &Format) {
    let number = format.number;
    let map = if format.h264.is_some() {
        "H264/90000"
    } else {
        "opus/48000/2"
    };
    put(text, format_args!("a=rtpmap:{number} {map}\r\n"));
    for feedback in format.feedback() {
        put(text, format_args!("a=rtcp-fb:{number} {feedback}\r\n"));
    }
    put(
        text,
        format_args!("a=fmtp:{number} {}\r\n", format.parameters),
    );
    if let Some(repair) = format.repair {
        put(
            text,
            format_args!("a=rtpmap:{repair} rtx/90000\r\na=fmtp:{repair} apt={number}\r\n"),
        );
    }
}

/// Host candidates, the first the most wanted (RFC 8445, 5.1.2).
fn candidates(text: &mut String, addresses: &[SocketAddr]) {
    for (foundation, address) in (1..).zip(addresses) {
        let preference = 65_536_u32.saturating_sub(foundation);
        let priority = (126 << 24) | (preference << 8) | 255;
        let (ip, port) = (address.ip(), address.port());
        put(
            text,
            format_args!("a=candidate:{foundation} 1 udp {priority} {ip} {port} typ host\r\n"),
        );
    }
    text.push_str("a=end-of-candidates\r\n");
}

fn rejected(text: &mut String, section: &Section) {
    let (media, protocol, format) = &section.line;
    put(
        text,
        format_args!("m={media} 0 {protocol} {format}\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\n"),
    );
    if !section.mid.is_empty() {
        put(text, format_args!("a=mid:{}\r\n", section.mid));
    }
}
