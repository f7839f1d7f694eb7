//! The values of options, from text.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use livepeer_core::Address;
use livepeer_core::http::Url;
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::wire::Params;

/// More orchestrators on one machine teach nothing.
const MAX_ORCHESTRATORS: u8 = 16;
/// A longer run has no meaning for a command.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);
/// Model names are at most this long.
const MAX_MODEL_BYTES: usize = 256;

/// The registry of AI services, or the wish to read none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AiRegistry(pub(crate) Option<Address>);

impl FromStr for AiRegistry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self(None)),
            text => match text.parse() {
                Ok(address) => Ok(Self(Some(address))),
                Err(error) => Err(format!("neither an address nor \"none\": {error}")),
            },
        }
    }
}

/// A file, or a standard stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `-`: standard input or output.
    Standard,
    /// A file of that name.
    File(PathBuf),
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("the name is empty"),
            "-" => Ok(Self::Standard),
            name => Ok(Self::File(name.into())),
        }
    }
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) SocketAddr);

impl Listen {
    /// The address `by` ports further, for the next of several. Port 0, any free one, stays.
    pub(crate) fn plus(self, by: u8) -> Option<SocketAddr> {
        let mut address = self.0;
        if address.port() != 0 {
            address.set_port(address.port().checked_add(by.into())?);
        }
        Some(address)
    }
}

impl FromStr for Listen {
    type Err = String;

    /// `127.0.0.1:8935`, `[::1]:8935`, `localhost:8935`; `:8935` is every interface, `8935` loopback.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self(address));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("localhost", text));
        let ip = match host {
            "localhost" => Ipv4Addr::LOCALHOST,
            "" => Ipv4Addr::UNSPECIFIED,
            _ => host.parse().map_err(|_| {
                format!("{host:?} is no IP address; give one and a port, such as 127.0.0.1:8935")
            })?,
        };
        let port = port
            .parse()
            .ok()
            .filter(|_| port.bytes().all(|b| b.is_ascii_digit()))
            .ok_or_else(|| format!("the port {port:?} is not a number from 0 to 65535"))?;
        Ok(Self((ip, port).into()))
    }
}

/// Text that is not to be shown again. It is looked into later, since the parser of the command line quotes what
/// it refuses.
#[derive(Clone)]
pub(super) struct Secret(pub(super) String);

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A header field for a signer.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl fmt::Debug for Header {
    // The value is usually a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: …", self.name)
    }
}

impl Header {
    /// A field that HTTP can carry.
    pub(crate) fn new(name: &str, value: &str) -> Result<Self, &'static str> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err("the name of the field has characters that no header has");
        }
        let framing = ["host", "connection", "content-length", "transfer-encoding"];
        if framing.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err("that field is for HTTP itself and cannot be chosen");
        }
        if value.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err("the value has control characters");
        }
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text
            .split_once(':')
            .ok_or("there is no colon between name and value")?;
        Self::new(name.trim(), value.trim())
    }
}

/// A URL of an orchestrator, `https` if it has no scheme; `None` for blanks between commas.
pub(crate) fn orchestrator(text: &str) -> Result<Option<Url>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    required_orchestrator(text).map(Some)
}

/// Reads an address as [`orchestrator`] does, and not blank. It names a node and not a page: no path, no query.
pub(crate) fn required_orchestrator(text: &str) -> Result<Url, String> {
    let url = peer(text)?;
    if url.path() != "/" || text.contains('#') {
        return Err("an orchestrator is named by scheme, host and port alone".to_owned());
    }
    Ok(url)
}

/// A URL, `https` if it has no scheme.
pub(crate) fn peer(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("https://{text}"))
    };
    url.map_err(|error| error.to_string())
}

/// The origin of web pages, as browsers write it, or `*` for all of them.
pub(crate) fn origin(text: &str) -> Result<String, &'static str> {
    const WHY: &str = "it is neither scheme, host and port such as https://app.example nor *";
    if text == "*" {
        return Ok(text.to_owned());
    }
    let (scheme, host) = text.split_once("://").ok_or(WHY)?;
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]".contains(&b);
    let is_one = matches!(scheme, "http" | "https") && !host.is_empty();
    if is_one && host.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(WHY)
    }
}

/// The name of a model.
pub(crate) fn model(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("the name is empty"),
        name if name.len() > MAX_MODEL_BYTES => Err("the name is longer than 256 bytes"),
        name if name.chars().any(char::is_control) => Err("the name has control characters"),
        name => Ok(name.to_owned()),
    }
}

/// Parameters of a model.
pub(crate) fn params(text: &str) -> Result<Params, String> {
    Params::parse(text).map_err(|error| error.why)
}

/// How many orchestrators.
pub(crate) fn orchestrators(text: &str) -> Result<NonZeroU8, String> {
    text.parse::<NonZeroU8>()
        .ok()
        .filter(|n| n.get() <= MAX_ORCHESTRATORS)
        .ok_or_else(|| format!("it is not a number from 1 to {MAX_ORCHESTRATORS}"))
}

/// Whether so many ports follow on the first one.
pub(crate) fn enough_ports(listen: Listen, orchestrators: NonZeroU8) -> Result<(), String> {
    match listen.plus(orchestrators.get() - 1) {
        Some(_) => Ok(()),
        None => Err(format!(
            "{orchestrators} orchestrators need that many ports from --listen on, and {} is too \
             close to 65535",
            listen.0.port()
        )),
    }
}

/// `90`, `90s`, `10m`, `1h30m`, `250ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "it is not a time such as 90s, 10m or 1h30m";
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return duration(&format!("{text}s"));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(|b| !b.is_ascii_digit()).count();
        let (unit, tail) = tail.split_at(letters);
        let number: u32 = number.parse().map_err(|_| WRONG)?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(WRONG),
        };
        total = total.saturating_add(unit.saturating_mul(number));
        rest = tail;
    }
    match total {
        Duration::ZERO if text.is_empty() => Err(WRONG),
        Duration::ZERO => Err("it must be longer than 0s"),
        total if total > MAX_DURATION => Err("it is longer than a year"),
        total => Ok(total),
    }
}

/// `500B`, `64KiB`, `1MiB`, `1GiB`.
pub(crate) fn size(text: &str) -> Result<NonZeroUsize, &'static str> {
    const WRONG: &str = "it is not a size such as 500B, 64KiB or 1MiB";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err(WRONG),
    };
    number
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .and_then(NonZeroUsize::new)
        .ok_or(WRONG)
}

/// A whole amount of wei.
pub(crate) fn wei(text: &str) -> Result<Wei, &'static str> {
    match text.parse::<u64>() {
        Ok(wei) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Wei::from(wei)),
        _ => Err("it is not a whole amount of wei"),
    }
}

/// An amount of wei, or of ETH with up to eighteen places: `0.05ETH`.
pub(crate) fn amount(text: &str) -> Result<Amount, &'static str> {
    const WRONG: &str = "it is not an amount such as 50000000000000000 or 0.05ETH";
    const PLACES: usize = 18;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let wei = match text.strip_suffix("ETH").map(str::trim_end) {
        None => text.to_owned(),
        Some(eth) => {
            let (whole, places) = eth.split_once('.').unwrap_or((eth, "0"));
            if !digits(whole) || !digits(places) || places.len() > PLACES {
                return Err(WRONG);
            }
            format!("{whole}{places:0<PLACES$}")
        }
    };
    let wei: i128 = { wei.parse().ok() }.filter(|_| digits(&wei)).ok_or(WRONG)?;
    Amount::ratio(wei, 1).ok_or(WRONG)
}

/// Wei for a unit: a whole number, a decimal, or a fraction.
pub(crate) fn price(text: &str) -> Result<Price, &'static str> {
    const WRONG: &str = "it is not an amount of wei such as 1200, 0.5 or 1/3";
    const MAX_PLACES: u32 = 18;
    let number = |digits: &str| {
        (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
            .then(|| digits.parse::<i64>().ok())
            .flatten()
            .ok_or(WRONG)
    };
    let (wei, per) = if let Some((wei, per)) = text.split_once('/') {
        (number(wei.trim())?, number(per.trim())?)
    } else if let Some((_, places)) = text.split_once('.') {
        let scale = u32::try_from(places.len()).map_err(|_| WRONG)?;
        if scale == 0 || scale > MAX_PLACES || text.starts_with('.') {
            return Err(WRONG);
        }
        (number(&text.replacen('.', "", 1))?, 10_i64.pow(scale))
    } else {
        (number(text)?, 1)
    };
    Price::new(wei, per).ok_or(WRONG)
}
