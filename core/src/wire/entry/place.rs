//! Streams at servers of RTMP that callers name.

use alloc::format;
use alloc::string::String;

use crate::http::{Forbidden, Reach, Url};

/// A stream at a server of RTMP: its address, and where that may lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address.
    pub address: String,
    /// Where it may lead.
    pub reach: Reach,
}

impl Place {
    /// Whether the text of the address alone forbids it. Of one that is not of RTMP, whoever would dial it says so.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn check(&self) -> Result<(), Forbidden> {
        match rtmp_server(&self.address) {
            Some(server) => server.within(self.reach).map(drop),
            None => Ok(()),
        }
    }
}

/// The server of a stream by RTMP, as far as connecting is concerned, from `rtmp://host[:port]/…` or `rtmps://…`; `None` if
/// the text names no such server.
#[must_use]
pub fn rtmp_server(text: &str) -> Option<Url> {
    let (scheme, rest) = text.split_once("://")?;
    let (scheme, usual) = match scheme.to_ascii_lowercase().as_str() {
        "rtmp" => ("http", 1935),
        "rtmps" => ("https", 443),
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // Behind an address of IPv6 in brackets, or behind a name.
    let host = authority.rsplit(']').next().unwrap_or_default();
    let server = if host.contains(':') {
        Url::parse(&format!("{scheme}://{authority}/"))
    } else {
        Url::parse(&format!("{scheme}://{authority}:{usual}/"))
    };
    server.ok()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use core::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn a_server_is_read_with_its_usual_port() {
        for (text, server) in [
            ("rtmp://h/live/x", "http://h:1935/"),
            ("RTMPS://H/live/x", "https://h:443/"),
            ("rtmp://h:7/live", "http://h:7/"),
            ("rtmp://[::1]/live", "http://[::1]:1935/"),
            ("rtmps://[::1]:9/live/a:b", "https://[::1]:9/"),
            ("rtmp://h?x=/", "http://h:1935/"),
        ] {
            let read = rtmp_server(text).map(|url| url.to_string() + url.path());
            assert_eq!(read.as_deref(), Some(server), "{text}");
        }
        for text in [
            "http://h/",
            "rtmp:h",
            "rtmp://",
            "rtmp://0x7f.1/a",
            "rtmp://u@h/a",
            "rtmp://h:0/a",
        ] {
            assert_eq!(rtmp_server(text), None, "{text}");
        }
    }

    #[test]
    fn who_names_an_address_may_name_the_public_and_his_own() {
        let place = |address: &str, reach| Place {
            address: address.into(),
            reach,
        };
        let here = Reach::of_caller(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let lan = Reach::of_caller(Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9))));
        let world = Reach::of_caller(Some(IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8))));
        let unknown = Reach::of_caller(None);
        for (address, allowed) in [
            (
                "rtmp://out.example/live/x",
                &[here, lan, world, unknown][..],
            ),
            ("rtmp://8.8.4.4/live/x", &[here, lan, world, unknown]),
            ("rtmp://127.0.0.1/live/x", &[here]),
            ("rtmp://localhost/live/x", &[here]),
            ("rtmp://[::1]/live/x", &[here]),
            ("rtmp://10.0.0.9:19350/live/x", &[lan]),
            ("rtmps://169.254.169.254/live/x", &[]),
            ("not an address of RTMP", &[here, lan, world, unknown]),
        ] {
            for reach in [here, lan, world, unknown, Reach::Open] {
                let may = reach == Reach::Open || allowed.contains(&reach);
                assert_eq!(
                    place(address, reach).check().is_ok(),
                    may,
                    "{address} {reach:?}"
                );
            }
        }
        let refused = place("rtmp://10.0.0.1/x", here).check().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "a peer may not lead to 10.0.0.1:1935: a private address is named only by who is there himself"
        );
    }
}
