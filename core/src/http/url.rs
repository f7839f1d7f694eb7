//! URLs as this protocol uses them.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use core::str::FromStr;

/// Where an address may lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Anywhere: our user named it, or we did.
    #[default]
    Own,
    /// Anywhere, and so may whatever the peer there names: our user opened it.
    Open,
    /// To public addresses: a peer named it.
    Public,
    /// To public addresses and this one, on which the peer is that named it.
    PublicOr(IpAddr),
}

/// An absolute `http` or `https` URL, normalised: lower-case scheme and host, explicit port, path from `/`.
///
/// Beside its text, which alone tells one from another, it remembers where it may lead: see [`Reach`], and whether its
/// path is secret: see [`Url::hide_path`].
#[derive(Clone)]
pub struct Url {
    pub(super) secure: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) reach: Reach,
    hidden: bool,
}

/// Bytes of the longest URL that is read: nothing of this protocol comes near it.
pub const MAX_URL_BYTES: usize = 8 << 10;

impl Url {
    /// Reads an absolute URL. A fragment is dropped; user names are refused, and so are hosts that are numbers but no
    /// address in its usual form: some resolvers take `0x7f.1` and `2130706433` for `127.0.0.1`.
    ///
    /// # Errors
    /// If the text is no absolute `http` or `https` URL.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let bad = |why| BadUrl { why };
        if text.len() > MAX_URL_BYTES {
            return Err(bad("it is longer than 8 KiB"));
        }
        if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(bad("it contains blanks or control characters"));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or(bad("it does not start with http:// or https://"))?;
        let secure = if scheme.eq_ignore_ascii_case("https") {
            true
        } else if scheme.eq_ignore_ascii_case("http") {
            false
        } else {
            return Err(bad("the scheme is neither http nor https"));
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        if authority.contains('@') {
            return Err(bad("it carries a user name"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (v6, after) = rest
                    .split_once(']')
                    .ok_or(bad("the bracket of the address is not closed"))?;
                core::net::Ipv6Addr::from_str(v6)
                    .map_err(|_| bad("the address in brackets is not IPv6"))?;
                (
                    v6,
                    after
                        .strip_prefix(':')
                        .or((after.is_empty()).then_some(""))
                        .ok_or(bad("the port is malformed"))?,
                )
            }
            None => match authority.split_once(':') {
                Some((_, "")) => return Err(bad("the port is missing after the colon")),
                Some((host, port)) => (host, port),
                None => (authority, ""),
            },
        };
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        if host
            .bytes()
            .any(|b| !(b.is_ascii_alphanumeric() || b"-._:".contains(&b)))
        {
            return Err(bad("the host has characters that no host name has"));
        }
        if !host.contains(':') && is_odd_number(host) {
            return Err(bad(
                "the host is a number, and not as four parts from 0 to 255",
            ));
        }
        let port = match port {
            "" if secure => 443,
            "" => 80,
            digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or(bad("the port is not between 1 and 65535"))?,
            _ => return Err(bad("the port is not a number")),
        };
        let tail = tail.split('#').next().unwrap_or("");
        let path = if tail.starts_with('/') {
            tail.to_string()
        } else {
            format!("/{tail}")
        };
        Ok(Self {
            secure,
            host: host.to_ascii_lowercase(),
            port,
            path,
            reach: Reach::Own,
            hidden: false,
        })
    }

    /// Reads what a peer calls a URL: an absolute one is taken as it is, one without a host is resolved against
    /// this one with exactly one `/` between (spec/jobs 3.2).
    ///
    /// # Errors
    /// If the result is no URL.
    pub fn resolve(&self, text: &str) -> Result<Self, BadUrl> {
        if text.contains("://") {
            return Self::parse(text);
        }
        let base = self.base();
        Self::parse(&format!(
            "{}{base}/{}",
            self.origin(),
            text.trim_start_matches('/')
        ))
    }

    /// Replaces the path, which starts with `/` and may have a query; the origin stays.
    #[must_use]
    pub fn with_path(&self, path: &str) -> Self {
        debug_assert!(path.starts_with('/'), "a path starts with a slash");
        Self {
            path: path.to_string(),
            ..self.clone()
        }
    }

    /// The path without its query and trailing slashes.
    fn base(&self) -> &str {
        let (path, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
        path.trim_end_matches('/')
    }

    /// Appends one path segment; trailing slashes are stripped before, the query is dropped.
    #[must_use]
    pub fn child(&self, segment: &str) -> Self {
        let base = self.base();
        Self {
            path: format!("{base}/{segment}"),
            ..self.clone()
        }
    }

    /// Keeps the path out of logs: those of RPC endpoints and webhooks often have keys in them.
    #[must_use]
    pub fn hide_path(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Keeps the path out of logs if that of `other` is, which led here.
    #[must_use]
    pub fn hide_path_like(mut self, other: &Self) -> Self {
        self.hidden |= other.hidden;
        self
    }

    /// The URL as logs show it: without the query, which may have keys in it, and without the path if that is hidden.
    #[must_use]
    pub fn shown(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| {
            let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
            let origin = self.origin();
            match (path, self.hidden) {
                ("/", _) => f.write_str(&origin),
                (path, false) => write!(f, "{origin}{path}"),
                (_, true) => write!(f, "{origin}/…"),
            }?;
            f.write_str(if query.is_empty() { "" } else { "?…" })
        })
    }

    /// Whether the scheme is `https`.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host: a name or an address, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host as it stands in a URL: IPv6 in brackets.
    #[must_use]
    pub fn bracketed_host(&self) -> Cow<'_, str> {
        match self.host.contains(':') {
            true => format!("[{}]", self.host).into(),
            false => self.host.as_str().into(),
        }
    }

    /// The port, also where the text left it out.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, starting with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The authority as `host:port`, IPv6 in brackets: what a connection and a certificate pin belong to.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.bracketed_host(), self.port)
    }

    /// Whether both are at one scheme, host and port.
    #[must_use]
    pub fn is_same_origin(&self, other: &Self) -> bool {
        (self.secure, self.port) == (other.secure, other.port) && self.host == other.host
    }

    /// The origin as `scheme://host:port`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!(
            "{}://{}",
            if self.secure { "https" } else { "http" },
            self.authority()
        )
    }
}

/// Whether resolvers might read a host as an IPv4 address that is not written as one.
fn is_odd_number(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or("");
    let digits = last.strip_prefix("0x").or(last.strip_prefix("0X"));
    let number = match digits {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()),
    };
    number && host.parse::<Ipv4Addr>().is_err()
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path == "/" { "" } else { &self.path };
        write!(f, "{}{path}", self.origin())
    }
}

/// The text of [`Url::shown`].
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.shown(), f)
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        Self::parse(text)
    }
}

/// The text is not a URL that this protocol can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable URL: {why}")]
pub struct BadUrl {
    why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn urls_are_normalised() {
        for (text, shown) in [
            ("HTTPS://Example.com", "https://example.com:443"),
            ("http://h/a?b#c", "http://h:80/a?b"),
            ("http://h?b", "http://h:80/?b"),
            ("https://[::1]:8935/x", "https://[::1]:8935/x"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn logs_show_no_query_and_no_path_that_is_hidden() {
        let url = |text| Url::parse(text).unwrap();
        let long = url("https://h:1/v3/key/?auth=key");
        for (url, shown) in [
            (url("https://h:1"), "https://h:1"),
            (url("https://h:1/?auth=key"), "https://h:1?…"),
            (long.clone(), "https://h:1/v3/key/?…"),
            (long.clone().hide_path(), "https://h:1/…?…"),
            (
                long.child("x").hide_path_like(&long),
                "https://h:1/v3/key/x",
            ),
            (long.hide_path().child("x"), "https://h:1/…"),
        ] {
            assert_eq!(url.shown().to_string(), shown);
            assert_eq!(alloc::format!("{url:?}"), shown);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_with_a_reason() {
        for text in [
            "",
            "h:1",
            "ftp://h",
            "http://",
            "http://h:0",
            "http://h:70000",
            "http://h:",
            "http://a b",
            "http://u@h",
            "http://[::1",
            "http://[zz]:1",
            "http://h:1x",
            "http://h:+1",
            // Other forms of 127.0.0.1, and a zone.
            "http://2130706433",
            "http://0x7f000001",
            "http://0177.0.0.1",
            "http://127.1",
            "http://0x7f.1",
            "http://127.0.0.1.",
            "http://[fe80::1%eth0]",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn peers_urls_resolve_with_exactly_one_slash() {
        let base = Url::parse("https://orch:8935/").unwrap();
        for text in [
            "ai/trickle/x",
            "/ai/trickle/x",
            "https://orch:8935/ai/trickle/x",
        ] {
            assert_eq!(
                base.resolve(text).unwrap().to_string(),
                "https://orch:8935/ai/trickle/x"
            );
        }
        assert_eq!(
            Url::parse("http://h/c/").unwrap().child("-1").path(),
            "/c/-1"
        );
    }
}
