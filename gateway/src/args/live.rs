//! The input of `live`: a stream that is there, or a sender that comes.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use livepeer_core::wire::entry::StreamName;

use super::Listen;
use super::Place;

/// Where senders and viewers come, unless an option names another address.
pub(crate) const DOOR: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7945);
/// The port of RTMP.
const RTMP_PORT: u16 = 1935;
/// The name of a stream that nobody has named.
const NAME: &str = "live";

/// The input of `live`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A stream of MPEG-TS.
    Place(Place),
    /// A publisher by RTMP, who comes to this address with that application and that name.
    Rtmp {
        /// Where to listen.
        listen: SocketAddr,
        /// The application.
        app: String,
        /// The name.
        name: StreamName,
    },
    /// A sender by WHIP, who comes to this address with that name.
    Whip {
        /// Where to listen, by TCP for requests and by UDP for media.
        listen: SocketAddr,
        /// The name.
        name: StreamName,
    },
}

impl Source {
    /// The name of the stream, if a sender comes with it.
    pub(crate) fn name(&self) -> StreamName {
        match self {
            Self::Rtmp { name, .. } | Self::Whip { name, .. } => name.clone(),
            Self::Place(_) => stream(NAME).expect("it is a name"),
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "whip" {
            return Ok(Self::Whip {
                listen: DOOR,
                name: stream(NAME)?,
            });
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Place(text.parse()?));
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        match scheme {
            "rtmp" => {
                let (app, name) = path.split_once('/').ok_or(
                    "an address to listen on for RTMP names an application and a stream: \
                     rtmp://127.0.0.1:1935/live/NAME",
                )?;
                if app.is_empty() {
                    return Err("the application is empty: rtmp://127.0.0.1:1935/live/NAME".into());
                }
                Ok(Self::Rtmp {
                    listen: address(authority, RTMP_PORT)?,
                    app: app.to_owned(),
                    name: stream(name)?,
                })
            }
            "whip" => Ok(Self::Whip {
                listen: address(authority, DOOR.port())?,
                name: stream(if path.is_empty() { NAME } else { path })?,
            }),
            other => Err(format!(
                "{other}:// cannot be read from; it is a file, -, rtmp://ADDR/live/NAME or whip://ADDR"
            )),
        }
    }
}

/// An address to listen on, with a port or without.
fn address(text: &str, port: u16) -> Result<SocketAddr, String> {
    if text.is_empty() {
        return Ok(SocketAddr::new(DOOR.ip(), port));
    }
    let ip = text.trim_start_matches('[').trim_end_matches(']').parse();
    let listen = match (text, ip) {
        (_, Ok(ip)) => Ok(SocketAddr::new(ip, port)),
        ("localhost", _) => Ok(SocketAddr::new(DOOR.ip(), port)),
        _ => text.parse().map(|Listen(at)| at),
    };
    listen.map_err(|error| format!("{error}; it is listened on, so it is one of this machine"))
}

fn stream(text: &str) -> Result<StreamName, String> {
    let name = StreamName::parse(text).map_err(|bad| bad.to_string())?;
    if name.is_output() {
        return Err("a name that ends with -out is that of an output".to_owned());
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn inputs_are_files_or_addresses() {
        let source = |text: &str| text.parse::<Source>();
        let name = |text| stream(text).expect("a name");
        assert_eq!(source("-"), Ok(Source::Place(Place::Standard)));
        let file = Source::Place(Place::File("whip.ts".into()));
        assert_eq!(source("whip.ts"), Ok(file));
        for (text, listen) in [
            ("rtmp://127.0.0.1:1936/live/cam", "127.0.0.1:1936"),
            ("rtmp://localhost/live/cam", "127.0.0.1:1935"),
            ("rtmp:///live/cam", "127.0.0.1:1935"),
            ("rtmp://[::1]/live/cam", "[::1]:1935"),
            ("rtmp://0.0.0.0:9/live/cam", "0.0.0.0:9"),
        ] {
            let wanted = Source::Rtmp {
                listen: at(listen),
                app: "live".to_owned(),
                name: name("cam"),
            };
            assert_eq!(source(text), Ok(wanted), "{text}");
        }
        for (text, listen, stream) in [
            ("whip", "127.0.0.1:7945", "live"),
            ("whip://", "127.0.0.1:7945", "live"),
            ("whip://127.0.0.1:8080", "127.0.0.1:8080", "live"),
            ("whip://0.0.0.0/cam", "0.0.0.0:7945", "cam"),
        ] {
            let wanted = Source::Whip {
                listen: at(listen),
                name: name(stream),
            };
            assert_eq!(source(text), Ok(wanted), "{text}");
        }
        for text in [
            "",
            "rtmp://127.0.0.1:1935",
            "rtmp://127.0.0.1:1935/live",
            "rtmp://127.0.0.1:1935/live/",
            "rtmp://127.0.0.1//cam",
            "rtmp://example.com/live/cam",
            "whip://example.com",
            "whip://127.0.0.1/cam-out",
            "srt://127.0.0.1",
            "https://example.com/clip.ts",
        ] {
            assert!(source(text).is_err(), "{text}");
        }
    }
}
