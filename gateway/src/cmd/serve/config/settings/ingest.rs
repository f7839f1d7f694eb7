//! The settings of live entry.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;

use livepeer_core::entry::{self, Hook, MediaServer, key_headers};
use livepeer_core::front::LiveRoutes;
use livepeer_core::http::{Headers, Url};
use livepeer_core::pipeline::Pipeline;
use livepeer_core::wire::entry::StreamName;

use super::{Header, Reader, Value, values};
use crate::args::values::Listen;

/// Live entry: the ways in, and the rules for those who come.
#[derive(Clone, Debug)]
pub(in crate::cmd::serve) struct Ingest {
    entry: entry::Config,
    /// Where RTMP comes in, if it does.
    pub(in crate::cmd::serve) rtmp: Option<SocketAddr>,
    /// The UDP port of WHIP and WHEP, if there is one.
    pub(in crate::cmd::serve) udp: Option<SocketAddr>,
    /// Public addresses that lead to that port.
    pub(in crate::cmd::serve) extra_hosts: Vec<Host>,
    pub(in crate::cmd::serve) ice_servers: Vec<String>,
    pub(in crate::cmd::serve) max_viewers: usize,
    /// Whether viewers by WHEP hold pictures back until sound is in step.
    pub(in crate::cmd::serve) in_step: bool,
    /// Whether outputs are there for players of HLS too.
    pub(in crate::cmd::serve) hls: bool,
}

/// An address with the port of the socket, or with one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cmd::serve) enum Host {
    Ip(IpAddr),
    Socket(SocketAddr),
}

impl Host {
    /// The address, for a socket with that port.
    pub(in crate::cmd::serve) const fn with_port(self, port: u16) -> SocketAddr {
        match self {
            Self::Ip(ip) => SocketAddr::new(ip, port),
            Self::Socket(at) => at,
        }
    }
}

impl Ingest {
    /// The settings of live entry, for a gateway that is reached at `bound` if nothing else was said.
    pub(in crate::cmd::serve) fn entry(&self, bound: &str) -> entry::Config {
        let mut config = self.entry.clone();
        if config.base.is_empty() {
            bound.trim_end_matches('/').clone_into(&mut config.base);
        }
        if config.playback.is_empty() {
            config.playback = format!("{}/live/video-to-video/", config.base);
        }
        config
    }

    /// The routes about live streams that are served.
    pub(super) fn routes(&self, pipelines: &[Pipeline]) -> LiveRoutes {
        match self.udp {
            _ if !pipelines.is_empty() && !pipelines.contains(&Pipeline::LiveVideoToVideo) => {
                LiveRoutes::None
            }
            None => LiveRoutes::Hooks,
            Some(_) => LiveRoutes::All,
        }
    }
}

impl Reader<'_> {
    pub(super) fn ingest(&mut self, public_url: Option<&str>) -> Ingest {
        let playback = self.read("media.playback", |text| {
            values::peer(text).map(|_| format!("{}/", text.trim_end_matches('/')))
        });
        let keys = self.stream_keys();
        let webhook_key = self.text("ingest.webhook_key");
        let key = webhook_key.map_or_else(String::new, |(key, _)| key);
        let webhook = self.hook("ingest.webhook", key_headers(&key));
        let rtmp = self.read("ingest.rtmp", address);
        if let Some(at) = rtmp.filter(|at| !at.ip().is_loopback())
            && keys.is_empty()
            && webhook.is_none()
            && !self.flag("serve.allow_no_auth")
        {
            let origin = self.origin("ingest.rtmp");
            let why = format_args!(
                "whoever reaches {at} could spend: set ingest.keys or ingest.webhook, or listen on loopback"
            )
            .to_string();
            self.wrong(origin, "ingest.rtmp", why);
        }
        let beat = self.header_fields("ingest.heartbeat_headers");
        let told = self.header_fields("events.webhook_headers");
        let count = |number: Option<u64>| number.and_then(|n| usize::try_from(n).ok());
        Ingest {
            entry: entry::Config {
                base: public_url.unwrap_or_default().to_owned(),
                playback: playback.unwrap_or_default(),
                webhook,
                keys,
                heartbeat: self.hook("ingest.heartbeat", beat),
                events: self.hook("events.webhook", told),
                media_server: self.media_server(),
                takeover: self.flag("ingest.takeover"),
                max_streams: count(self.number("ingest.max_streams", 1..=100_000)).unwrap_or(1),
                allow_private: self.open,
            },
            rtmp,
            udp: self.read("ingest.webrtc_udp", address),
            extra_hosts: self.items("ingest.extra_hosts", host),
            ice_servers: self.items("ingest.ice_servers", ice_server),
            max_viewers: count(self.number("ingest.max_viewers", 0..=100_000)).unwrap_or(0),
            in_step: self.flag("media.in_step"),
            hls: self.flag("media.hls"),
        }
    }

    /// A place of the operator's that is told something.
    fn hook(&mut self, path: &str, headers: Headers) -> Option<Hook> {
        let url: Url = self.read(path, values::peer)?;
        let url = self.own(url);
        Some(Hook { url, headers })
    }

    fn header_fields(&mut self, path: &str) -> Headers {
        let mut headers = Headers::new();
        for Header { name, value } in self.headers(path) {
            headers.push_any(&name, value);
        }
        headers
    }

    /// The keys of streams by name; `*` is for all others.
    fn stream_keys(&mut self) -> BTreeMap<String, String> {
        let mut keys = BTreeMap::new();
        for (name, said) in self.table("ingest.keys") {
            let Value::Text(key) = said.value else {
                continue;
            };
            let path = format!("ingest.keys.{name}");
            if key.is_empty() {
                self.wrong(said.origin, path, "an empty key would let everybody in");
            } else if name == "*" {
                keys.insert(String::new(), key);
            } else {
                match StreamName::parse(&name) {
                    Ok(_) => drop(keys.insert(name, key)),
                    Err(why) => self.wrong(said.origin, path, why),
                }
            }
        }
        keys
    }

    fn media_server(&mut self) -> Option<MediaServer> {
        const PATH: &str = "media.mediamtx.password_file";
        let api: Option<Url> = self.read("media.mediamtx.api", values::peer);
        let api = api.map(|url| self.own(url));
        let (user, _) = self.text("media.mediamtx.user")?;
        let password = self.read(PATH, |file| std::fs::read_to_string(file));
        Some(MediaServer {
            api,
            user,
            password: password.map(|text| text.trim_end().to_owned()),
        })
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    Listen::from_str(text).map(|listen| listen.0)
}

fn host(text: &str) -> Result<Host, &'static str> {
    let ip = text.parse().map(Host::Ip);
    ip.or_else(|_| text.parse().map(Host::Socket))
        .map_err(|_| "it is neither an address nor an address with a port")
}

fn ice_server(text: &str) -> Result<String, &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]?=".contains(&b);
    let is_one = ["stun:", "stuns:"]
        .iter()
        .any(|kind| text.starts_with(kind));
    (is_one && text.bytes().all(plain))
        .then(|| text.to_owned())
        .ok_or("it is not stun:HOST:PORT")
}
