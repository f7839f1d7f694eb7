//! Names of streams, and where they stand in addresses.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;

/// At most this many bytes are in the name of a stream.
pub const MAX_NAME_BYTES: usize = 128;

/// The end of the names under which outputs are played.
const OUTPUT: &str = "-out";
/// The digits of a request id.
const REQUEST_DIGITS: usize = 8;
/// The parameter of an ingest address that holds the stream key.
const TOKEN: &str = "token";
/// A part of an ingest path that names no stream.
const APP: &str = "live";

/// The name of a stream: letters, digits, `-`, `_` and `.`, so that it stands for itself in every address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(String);

/// A text that is no name of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a stream's name has 1 to {MAX_NAME_BYTES} letters, digits, '-', '_' and '.', and does not begin with '.'"
)]
pub struct BadStreamName;

impl StreamName {
    /// Reads a name.
    ///
    /// # Errors
    /// If it is empty, too long, begins with a dot, or has other characters than those of a name.
    pub fn parse(text: &str) -> Result<Self, BadStreamName> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let good = !text.is_empty()
            && text.len() <= MAX_NAME_BYTES
            && !text.starts_with('.')
            && text.bytes().all(plain);
        good.then(|| Self(text.to_owned())).ok_or(BadStreamName)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the name of an output, which is never taken as input: it would feed a model its own pictures.
    #[must_use]
    pub fn is_output(&self) -> bool {
        self.0.ends_with(OUTPUT)
    }

    /// The name under which the output of a request is played.
    #[must_use]
    pub fn output_of(&self, request_id: &str) -> String {
        format!("{}-{request_id}{OUTPUT}", self.0)
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an output, as it stands in the address of a player: `{stream}-{request id}-out`, or `{stream}-out` for
/// whichever request is the latest. It is read from the right, since streams may have `-` in their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputName {
    /// The stream.
    pub stream: StreamName,
    /// The request, eight hexadecimal digits.
    pub request_id: Option<String>,
}

impl OutputName {
    /// Reads the part of a path; `None` is answered with [`Refusal::MALFORMED_OUTPUT`](super::Refusal::MALFORMED_OUTPUT).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_suffix(OUTPUT)?;
        let request = rest.rsplit_once('-').filter(|(stream, id)| {
            let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            !stream.is_empty() && id.len() == REQUEST_DIGITS && id.bytes().all(is_digit)
        });
        let (stream, request_id) = match request {
            Some((stream, id)) => (stream, Some(id.to_owned())),
            None => (rest, None),
        };
        Some(Self {
            stream: StreamName::parse(stream).ok()?,
            request_id,
        })
    }
}

/// A stream that somebody wants to publish: its name, its key and the parameters of its job.
#[derive(Clone, PartialEq, Eq)]
pub struct Publication {
    /// The stream.
    pub name: StreamName,
    /// The stream key, from the parameter `token` or the part of the path behind the name.
    pub key: Option<String>,
    /// The query as it came, without its question mark.
    pub query: String,
}

/// The key is a secret, and the query may hold it.
impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |is_there| if is_there { "<hidden>" } else { "" };
        f.debug_struct("Publication")
            .field("name", &self.name.0)
            .field("key", &hidden(self.key.is_some()))
            .field("query", &hidden(!self.query.is_empty()))
            .finish()
    }
}

impl Publication {
    /// Reads what an RTMP client calls application and stream: `live`, `cam1?token=abc`.
    ///
    /// Clients cut an address with many parts in different places, so both are joined first. Parts that name no stream
    /// are left out: the first one, which is the application, and `live` everywhere.
    ///
    /// # Errors
    /// If there is no name, or it is not one.
    pub fn of_rtmp(app: &str, stream: &str) -> Result<Self, BadStreamName> {
        let cut = |text: &'_ str| {
            let (path, query) = text.split_once('?').unwrap_or((text, ""));
            (path.to_owned(), query.to_owned())
        };
        let (app, early) = cut(app);
        let (stream, late) = cut(stream);
        let query = match (early.is_empty(), late.is_empty()) {
            (false, false) => format!("{early}&{late}"),
            _ => early + &late,
        };
        let path = format!("{}/{stream}", app.trim_start_matches('/'));
        let mut parts = path
            .split('/')
            .skip(1)
            .filter(|part| !part.is_empty() && *part != APP);
        let name = StreamName::parse(parts.next().unwrap_or(""))?;
        Ok(Self::new(name, parts.next(), query))
    }

    /// Reads a name from the path of a request and the query behind it.
    ///
    /// # Errors
    /// If it is not a name.
    pub fn of_path(name: &str, query: &str) -> Result<Self, BadStreamName> {
        Ok(Self::new(StreamName::parse(name)?, None, query.to_owned()))
    }

    fn new(name: StreamName, key: Option<&str>, query: String) -> Self {
        let token = super::query::pairs(&query)
            .flatten()
            .find(|(key, _)| key == TOKEN)
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty());
        Self {
            key: token.or_else(|| key.map(ToOwned::to_owned)),
            name,
            query,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_named_from_the_right() {
        let read = |text| OutputName::parse(text).map(|name| (name.stream.0, name.request_id));
        let found =
            |stream: &str, id: Option<&str>| Some((stream.to_owned(), id.map(ToOwned::to_owned)));
        assert_eq!(read("cam1-0a1b2c3d-out"), found("cam1", Some("0a1b2c3d")));
        assert_eq!(
            read("my-cam-0a1b2c3d-out"),
            found("my-cam", Some("0a1b2c3d"))
        );
        assert_eq!(read("my-cam-out"), found("my-cam", None));
        assert_eq!(
            read("-0a1b2c3d-out"),
            found("-0a1b2c3d", None),
            "eight digits alone are a name"
        );
        assert_eq!(read("cam-0A1B2C3D-out"), found("cam-0A1B2C3D", None));
        for text in ["cam1", "-out", "out", "a b-out", "../x-out", ""] {
            assert_eq!(read(text), None, "{text}");
        }
        let name = StreamName::parse("my-cam").unwrap();
        let output = name.output_of("0a1b2c3d");
        assert!(StreamName::parse(&output).unwrap().is_output());
        assert_eq!(OutputName::parse(&output).unwrap().stream, name);
    }

    #[test]
    fn names_stand_for_themselves_in_an_address() {
        for name in ["cam1", "my-cam", "a.b_c", "-", "9"] {
            assert!(StreamName::parse(name).is_ok(), "{name}");
        }
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for name in [
            "",
            ".",
            "..",
            ".x",
            "a/b",
            "a?b",
            "a b",
            "a%2fb",
            "\u{e9}",
            long.as_str(),
        ] {
            assert_eq!(StreamName::parse(name), Err(BadStreamName), "{name}");
        }
    }

    #[test]
    fn an_rtmp_address_may_be_cut_anywhere() {
        let read = |app, stream| {
            let found = Publication::of_rtmp(app, stream).unwrap();
            (found.name.0, found.key.unwrap_or_default(), found.query)
        };
        let want = |name: &str, key: &str, query: &str| {
            (name.to_owned(), key.to_owned(), query.to_owned())
        };
        assert_eq!(read("live", "cam1"), want("cam1", "", ""));
        assert_eq!(read("/live/", "cam1"), want("cam1", "", ""));
        assert_eq!(
            read("live", "cam1?token=a%2Bb"),
            want("cam1", "a+b", "token=a%2Bb")
        );
        assert_eq!(read("live", "cam1/key"), want("cam1", "key", ""));
        assert_eq!(read("live/cam1", "key"), want("cam1", "key", ""));
        assert_eq!(read("stream", "live/cam1/key"), want("cam1", "key", ""));
        assert_eq!(
            read("live?x=1", "cam1?token=k"),
            want("cam1", "k", "x=1&token=k")
        );
        assert_eq!(
            read("live", "cam1/key?token=other").1,
            "other",
            "the parameter is more explicit"
        );
        assert_eq!(Publication::of_rtmp("live", ""), Err(BadStreamName));
        assert_eq!(Publication::of_rtmp("live", "live"), Err(BadStreamName));
        let shown = format!(
            "{:?}",
            Publication::of_rtmp("live", "cam1?token=secret").unwrap()
        );
        assert!(!shown.contains("secret"), "{shown}");
    }
}
