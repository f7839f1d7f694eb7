//! The hook by which a media server in front of the gateway starts a job (media spec 3.4).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::net::IpAddr;

use bytes::Bytes;

use super::query::{decoded, first};
use super::{JobQuery, Refusal, StreamName};
use crate::http::{Reach, Url};
use crate::wire::multipart;

/// At most this many bytes are in the query that a hook passes on.
pub const MAX_QUERY_BYTES: usize = multipart::MAX_TEXT_BYTES;
/// At most this many bytes are in the id of a media server's connection.
const MAX_ID_BYTES: usize = 64;
/// The port of a media server's API.
const API_PORT: u16 = 9997;

/// The way in which a stream came to the media server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the protocols")]
pub enum SourceKind {
    Rtmp,
    Rtmps,
    Srt,
    Rtsp,
    Rtsps,
    WebRtc,
    /// A source that the media server fetches itself, and that cannot be kicked.
    Pulled,
}

impl SourceKind {
    /// Reads what the media server calls it, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        Some(match text.as_str() {
            "rtmpconn" => Self::Rtmp,
            "rtmpsconn" => Self::Rtmps,
            "srtconn" => Self::Srt,
            "rtspsession" => Self::Rtsp,
            "rtspssession" => Self::Rtsps,
            "webrtcsession" => Self::WebRtc,
            _ if text.ends_with("source") => Self::Pulled,
            _ => return None,
        })
    }

    /// The word for it in the question to a webhook.
    #[must_use]
    pub const fn auth_type(self) -> &'static str {
        match self {
            Self::Rtmp | Self::Rtmps | Self::Pulled => "rtmp",
            Self::Srt => "srt",
            Self::Rtsp | Self::Rtsps => "rtsp",
            Self::WebRtc => "whip",
        }
    }

    /// The group of the media server's API that knows it.
    const fn group(self) -> Option<&'static str> {
        Some(match self {
            Self::Rtmp => "rtmpconns",
            Self::Rtmps => "rtmpsconns",
            Self::Srt => "srtconns",
            Self::Rtsp => "rtspsessions",
            Self::Rtsps => "rtspssessions",
            Self::WebRtc => "webrtcsessions",
            Self::Pulled => return None,
        })
    }
}

/// A connection at a media server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaSource {
    /// The way in which it came.
    pub kind: SourceKind,
    /// Its id: letters, digits and `-`, at most 64, so that it can stand in a path.
    pub id: String,
    /// Where the media server is.
    pub host: IpAddr,
}

impl MediaSource {
    /// Where a `POST` ends the connection; `None` if it cannot be ended. Without `api`, the API is at the usual port of the
    /// media server's host.
    #[must_use]
    pub fn kick_url(&self, api: Option<&Url>) -> Option<Url> {
        self.api("kick", api)
    }

    /// Where a `GET` tells whether the connection is still there.
    #[must_use]
    pub fn exists_url(&self) -> Option<Url> {
        self.api("get", None)
    }

    fn api(&self, verb: &str, api: Option<&Url>) -> Option<Url> {
        let path = format!("/v3/{}/{verb}/{}", self.kind.group()?, self.id);
        match api {
            Some(api) => Some(api.with_path(&path)),
            None => {
                let host = bracketed(self.host);
                Url::parse(&format!("http://{host}:{API_PORT}{path}")).ok()
            }
        }
    }
}

fn bracketed(host: IpAddr) -> String {
    match host {
        IpAddr::V4(host) => host.to_string(),
        IpAddr::V6(host) => match host.to_ipv4_mapped() {
            Some(host) => host.to_string(),
            None => format!("[{host}]"),
        },
    }
}

/// A stream that a media server has, for which a job is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartHook {
    /// The stream.
    pub stream: StreamName,
    /// The path before the stream's name at the media server; often empty.
    pub prefix: String,
    /// The connection that brings it.
    pub source: MediaSource,
    /// The query of the ingest address as it came.
    pub query: String,
    /// The parameters of the job.
    pub job: JobQuery,
    /// Where the stream is fetched, if not at the media server.
    pub rtmp_url: String,
    /// Where the addresses may lead that the hook names.
    pub named: Reach,
}

impl StartHook {
    /// Reads a hook: the part of the path that names the stream, with a prefix or without, and a form, urlencoded or
    /// multipart, sent from `host`. `None`: the media server tells of an output of ours, which is answered with 200.
    ///
    /// # Errors
    /// 400 with the texts of the reference, in its order of checks; 414 for a query of more than [`MAX_QUERY_BYTES`].
    pub fn read(
        path: &str,
        content_type: &str,
        body: &Bytes,
        host: Option<IpAddr>,
    ) -> Result<Option<Self>, Refusal> {
        let refused = |text: &'static str| Refusal::new(400, text);
        let (prefix, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() {
            return Err(refused("Missing stream name"));
        }
        let fields = form(content_type, body)?;
        let (id, kind) = (first(&fields, "source_id"), first(&fields, "source_type"));
        if id.is_empty() {
            return Err(refused("Missing source_id"));
        }
        if kind.is_empty() {
            return Err(refused("Missing source_type"));
        }
        let kind = SourceKind::parse(&kind).ok_or(refused("unknown media source"))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if id.len() > MAX_ID_BYTES || !id.bytes().all(plain) {
            return Err(refused(
                "source_id must have 1 to 64 letters, digits and '-'",
            ));
        }
        let host = host.ok_or(refused("the sender's address is not known"))?;
        let query = first(&fields, "query");
        if query.len() > MAX_QUERY_BYTES {
            return Err(Refusal::new(414, "query too long"));
        }
        let pairs = decoded(&query)?;
        let stream = StreamName::parse(name)?;
        if stream.is_output() {
            return Ok(None);
        }
        if !prefix.is_empty() {
            prefix
                .split('/')
                .try_for_each(|part| StreamName::parse(part).map(drop))?;
        }
        Ok(Some(Self {
            stream,
            prefix: prefix.to_owned(),
            source: MediaSource { kind, id, host },
            job: JobQuery::of(&pairs)?,
            query,
            rtmp_url: first(&fields, "rtmp_url"),
            named: Reach::of_caller(Some(host)),
        }))
    }

    /// Where the stream is fetched.
    #[must_use]
    pub fn input(&self) -> String {
        if self.rtmp_url.is_empty() {
            let slash = if self.prefix.is_empty() { "" } else { "/" };
            format!(
                "rtmp://{}/{}{slash}{}",
                bracketed(self.source.host),
                self.prefix,
                self.stream
            )
        } else {
            self.rtmp_url.clone()
        }
    }

    /// Where the output is pushed to beside the place that is asked for: two places where the stream is fetched.
    #[must_use]
    pub fn outputs(&self, request_id: &str) -> [String; 2] {
        let input = self.input();
        [format!("{input}-out"), format!("{input}-{request_id}-out")]
    }
}

/// The text fields of a form. A body of another type has none.
fn form(content_type: &str, body: &Bytes) -> Result<Vec<(String, String)>, Refusal> {
    let kind = content_type.split(';').next().unwrap_or("").trim();
    if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        // An escape takes three bytes for one.
        if body.len() > 4 * MAX_QUERY_BYTES {
            return Err(Refusal::new(414, "query too long"));
        }
        return decoded(&String::from_utf8_lossy(body));
    }
    if kind.eq_ignore_ascii_case("multipart/form-data") {
        if body.len() > 4 * MAX_QUERY_BYTES {
            return Err(Refusal::new(414, "query too long"));
        }
        let parts = multipart::read(content_type, body).map_err(|err| Refusal {
            status: 400,
            text: err.to_string().into(),
        })?;
        let text = |part: multipart::Part| {
            let value = String::from_utf8_lossy(&part.content).into_owned();
            (part.name, value)
        };
        return Ok(parts.into_iter().map(text).collect());
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
    const FORM: &str = "application/x-www-form-urlencoded";

    fn read(path: &str, body: &str) -> Result<Option<StartHook>, Refusal> {
        StartHook::read(path, FORM, &Bytes::from(body.to_owned()), Some(HOST))
    }

    fn start(path: &str, body: &str) -> StartHook {
        match read(path, body) {
            Ok(Some(start)) => start,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_kinds_of_forms_are_read() {
        let plain = start(
            "ai/cam1",
            "source_id=a-1&source_type=rtmpConn&query=pipeline%3Dnoop%26streamId%3Ds1",
        );
        let body = "--x\r\ncontent-disposition: form-data; name=\"source_id\"\r\n\r\na-1\r\n\
                    --x\r\ncontent-disposition: form-data; name=\"source_type\"\r\n\r\nRTMPCONN\r\n\
                    --x\r\ncontent-disposition: form-data; name=\"query\"\r\n\r\npipeline=noop&streamId=s1\r\n--x--\r\n";
        let multipart = StartHook::read(
            "ai/cam1",
            "multipart/form-data; boundary=x",
            &Bytes::from_static(body.as_bytes()),
            Some(HOST),
        );
        assert_eq!(multipart, Ok(Some(plain.clone())));
        assert_eq!(
            (plain.job.pipeline.as_str(), plain.job.stream_id.as_str()),
            ("noop", "s1")
        );
        assert_eq!(plain.input(), "rtmp://10.0.0.9/ai/cam1");
    }

    /// Media spec 8, row 58.
    #[test]
    fn hostile_hooks_are_refused() {
        for id in [
            "../../x?y",
            "a/b",
            "a%2Fb",
            "",
            &"a".repeat(MAX_ID_BYTES + 1),
            "%C3%A9",
        ] {
            let refused = read("cam1", &format!("source_id={id}&source_type=rtmpConn"));
            assert_eq!(refused.map_err(|refusal| refusal.status), Err(400), "{id}");
        }
        for (size, status) in [(MAX_QUERY_BYTES + 1, 414), (1 << 20, 414)] {
            let body = format!(
                "source_id=a&source_type=rtmpConn&query={}",
                "q".repeat(size)
            );
            assert_eq!(
                read("cam1", &body).map_err(|refusal| refusal.status),
                Err(status),
                "{size}"
            );
        }
        for path in ["", "ai/", "a b", "../cam1", "a//b", "ai/%2e%2e"] {
            let refused = read(path, "source_id=a&source_type=rtmpConn");
            assert_eq!(
                refused.map_err(|refusal| refusal.status),
                Err(400),
                "{path}"
            );
        }
    }

    #[test]
    fn connections_are_kicked_where_they_are() {
        let url = |kind, host| {
            let kind = SourceKind::parse(kind).unwrap();
            let id = "abc".to_owned();
            MediaSource { kind, id, host }
                .kick_url(None)
                .map(|url| url.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            url("webRTCSession", HOST),
            some("http://10.0.0.9:9997/v3/webrtcsessions/kick/abc")
        );
        let six = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
        assert_eq!(
            url("srtConn", six),
            some("http://[fd00::2]:9997/v3/srtconns/kick/abc")
        );
        let mapped = IpAddr::V6(Ipv4Addr::new(10, 0, 0, 9).to_ipv6_mapped());
        assert_eq!(
            url("rtspsSession", mapped),
            some("http://10.0.0.9:9997/v3/rtspssessions/kick/abc")
        );
        assert_eq!(
            url("rtspSource", HOST),
            None,
            "nobody is there to be kicked"
        );
        assert_eq!(SourceKind::parse("zzz"), None);
        assert_eq!(
            SourceKind::parse("SRTCONN").map(SourceKind::auth_type),
            Some("srt")
        );
    }
}
