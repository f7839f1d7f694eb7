//! Between hyper's messages and the machines'.

use std::error::Error;

use hyper::body::Body as _;
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{StatusCode, Uri, Version};
use livepeer_core::http::{Body, Fault, Headers, Method, Protocol, Request, Response, Url};

/// Fields that are hyper's business, in both directions.
fn is_framing(name: &HeaderName) -> bool {
    [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::HOST,
    ]
    .contains(name)
        || name == "keep-alive"
        || name == "proxy-connection"
}

/// A machine's fields. Those that no peer could read are left out.
pub(crate) fn fields(from: &Headers, to: &mut HeaderMap, version: Version) {
    let all = from.iter();
    to.reserve(all.size_hint().0);
    for (name, value) in all {
        let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) else {
            tracing::warn!(name, "a header field that HTTP cannot carry was left out");
            continue;
        };
        let of_http1 = name == header::CONNECTION || name == header::UPGRADE;
        let skip = is_framing(&name) || (version == Version::HTTP_2 && of_http1);
        if !skip {
            to.append(name, value);
        }
    }
    if to.contains_key(header::UPGRADE) {
        to.append(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// A peer's fields. Bytes that are not UTF-8 are replaced.
pub(super) fn headers(from: &HeaderMap) -> Headers {
    let mut to = Headers::new();
    for (name, value) in from {
        if !is_framing(name) && name != header::UPGRADE {
            to.push_any(
                name.as_str(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            );
        }
    }
    to
}

/// The protocol that a message leaves HTTP/1.1 for, or asks to. Another version of HTTP is not one: what a peer says in it
/// would pass by all checks of its requests.
fn upgrade(fields: &HeaderMap, version: Version) -> Option<String> {
    let named = |name, wanted: &str| {
        let mut words = fields.get_all(name).iter().filter_map(|v| v.to_str().ok());
        words.any(|words| {
            words
                .split(',')
                .any(|w| w.trim().eq_ignore_ascii_case(wanted))
        })
    };
    let asked = fields.get(header::UPGRADE)?.to_str().ok()?;
    let can = version == Version::HTTP_11 && named(header::CONNECTION, "upgrade");
    let http = { asked.split(',') }.any(|one| one.trim().eq_ignore_ascii_case("h2c"));
    (can && !http).then(|| asked.to_owned())
}

/// The head of a reply as a machine sees it.
pub(super) fn reply(head: &hyper::http::response::Parts) -> Response {
    let mut reply = Response::new(head.status.as_u16()).body(Body::Stream);
    reply.headers = headers(&head.headers);
    if let Some(protocol) = upgrade(&head.headers, head.version) {
        reply.headers.push("upgrade", protocol);
    }
    reply
}

/// The request for hyper to send over HTTP/2, or over HTTP/1.1.
pub(super) fn request_head<B>(
    request: &Request,
    http2: bool,
    body: B,
) -> Result<hyper::Request<B>, Fault> {
    let url = &request.url;
    let host = if url.port() == if url.is_secure() { 443 } else { 80 } {
        // The default port goes without saying.
        url.bracketed_host().into_owned()
    } else {
        url.authority()
    };
    let bad =
        |error: &dyn Error| Fault::Protocol(format!("the request cannot be written: {error}"));
    let mut head = hyper::Request::new(body);
    *head.method_mut() = hyper::Method::from_bytes(request.method.as_str().as_bytes())
        .expect("the names of our methods are methods");
    match http2 {
        false => {
            *head.uri_mut() = url.path().parse().map_err(|e| bad(&e))?;
            let host = HeaderValue::try_from(host).map_err(|e| bad(&e))?;
            head.headers_mut().insert(header::HOST, host);
        }
        true => {
            *head.version_mut() = Version::HTTP_2;
            *head.uri_mut() = Uri::builder()
                .scheme(if url.is_secure() { "https" } else { "http" })
                .authority(host)
                .path_and_query(url.path())
                .build()
                .map_err(|e| bad(&e))?;
        }
    }
    let version = head.version();
    fields(&request.headers, head.headers_mut(), version);
    Ok(head)
}

/// The request as a machine sees it; or the status to refuse it with, if no machine could answer it.
pub(super) fn request(
    from: &hyper::Request<hyper::body::Incoming>,
    secure: bool,
) -> Result<Request, StatusCode> {
    let method = Method::from_name(from.method().as_str()).unwrap_or(Method::Other);
    let path = from
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let url = served(path, secure)?;
    if !names_hosts(from.headers(), from.uri(), from.version()) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let mut request = Request::new(method, url).body(Body::Stream);
    request.headers = headers(from.headers());
    if from.body().is_end_stream()
        && let Some(protocol) = upgrade(from.headers(), from.version())
    {
        request.headers.push("upgrade", protocol);
    }
    request.host = host(from);
    request.length = from.body().size_hint().exact();
    if from.version() == Version::HTTP_2 {
        request.protocol = Protocol::Http2;
    }
    Ok(request)
}

/// The URL of a request: the path that its first line names, at an authority of our own. Whatever proxy stood
/// before us judged that path, so nothing else of the request may have a say in it.
fn served(path: &str, secure: bool) -> Result<Url, StatusCode> {
    if !path.starts_with('/') {
        return Err(StatusCode::BAD_REQUEST);
    }
    let url = format!(
        "{}://localhost{path}",
        if secure { "https" } else { "http" }
    );
    Url::parse(&url).map_err(|_| {
        if url.len() > livepeer_core::http::MAX_URL_BYTES {
            StatusCode::URI_TOO_LONG
        } else {
            StatusCode::BAD_REQUEST
        }
    })
}

/// The host that a request names, which is a proxy's name for us if it is not ours.
fn host<B>(from: &hyper::Request<B>) -> Option<String> {
    let named = from.headers().get(header::HOST);
    let named = named.and_then(|host| host.to_str().ok());
    let named = named.or_else(|| from.uri().authority().map(Authority::as_str));
    named.filter(|host| !host.is_empty()).map(String::from)
}

/// Whether a request names one host, or none where HTTP lets it (RFC 9112 3.2, RFC 9113 8.3.1).
fn names_hosts(fields: &HeaderMap, target: &Uri, version: Version) -> bool {
    let mut hosts = fields.get_all(header::HOST).iter();
    let host = hosts.next();
    let named = match host {
        Some(host) => host
            .to_str()
            .is_ok_and(|host| host.is_empty() || is_authority(host)),
        None => version != Version::HTTP_11,
    };
    let target = target.authority();
    named && hosts.next().is_none() && target.is_none_or(|target| is_authority(target.as_str()))
}

/// Whether a text is `host` or `host:port`, without a user name.
fn is_authority(text: &str) -> bool {
    text.parse::<Authority>().is_ok_and(|authority| {
        let port = text.strip_prefix(authority.host());
        !text.contains('@')
            && port.is_some_and(|port| {
                let digits = port.strip_prefix(':').unwrap_or(port);
                digits.bytes().all(|byte| byte.is_ascii_digit())
            })
    })
}

/// The head of a reply for hyper to send.
pub(super) fn response_head(reply: &Response, version: Version) -> hyper::Response<()> {
    let mut head = hyper::Response::new(());
    let status = StatusCode::from_u16(reply.status).unwrap_or_else(|_| {
        tracing::warn!(status = reply.status, "not a status that HTTP can carry");
        StatusCode::INTERNAL_SERVER_ERROR
    });
    *head.status_mut() = status;
    if status.canonical_reason().is_none() && version != Version::HTTP_2 {
        // As the Go server writes it (trickle spec 4).
        if let Ok(reason) = ReasonPhrase::try_from(format!("status code {}", reply.status)) {
            head.extensions_mut().insert(reason);
        }
    }
    fields(&reply.headers, head.headers_mut(), version);
    head
}

/// The reason why hyper gave up, in the machines' words.
pub(super) fn fault(error: &hyper::Error, protocol: Protocol) -> Fault {
    let io = causes(error).find_map(|cause| cause.downcast_ref::<std::io::Error>());
    if error.is_parse_too_large() {
        return Fault::Protocol(format!(
            "the head of its answer is larger than {} bytes",
            super::MAX_HEAD_BYTES
        ));
    }
    if error.is_parse() {
        return Fault::Protocol(format!("what it sent is not HTTP/1.1 ({error})"));
    }
    if let Some(io) = io {
        return Fault::Broken(io.to_string());
    }
    if error.is_incomplete_message() {
        return Fault::Broken("it closed the connection before its answer was complete".into());
    }
    let text = chain(error);
    if protocol == Protocol::Http2 {
        // hyper does not tell HTTP/2 errors apart by type. Frames that make no sense come from peers that do
        // not speak HTTP/2 at all: an HTTP/1.1 answer read as a frame is too long by far.
        if text.contains("frame with invalid size")
            || text.contains("unspecific protocol error detected")
        {
            return Fault::Protocol(format!("what it sent is not HTTP/2 ({text})"));
        }
    }
    Fault::Broken(text)
}

/// Whether the peer said that it did not look at a request: it refused the stream, or went away before it.
pub(super) fn is_unseen(error: &hyper::Error) -> bool {
    let http2 = causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>());
    http2.is_some_and(|error| {
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (error.is_go_away() || (error.is_reset() && refused))
    })
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(url: &str, protocol: Protocol) -> hyper::Request<()> {
        let url = Url::parse(url).expect("a URL");
        let request = Request::new(Method::Post, url)
            .header("authorization", "Bearer x")
            .header("content-length", "17")
            .header("host", "other")
            .header("te", "trailers")
            .header("connection", "close")
            .header("bad", "line\nbreak")
            .protocol(protocol);
        request_head(&request, protocol == Protocol::Http2, ()).expect("it can be written")
    }

    #[test]
    fn a_request_is_addressed_as_its_protocol_wants() {
        for (url, host, target) in [
            ("http://example.org/a?b=c", "example.org", "/a?b=c"),
            ("https://example.org", "example.org", "/"),
            ("https://[::1]:8935/x", "[::1]:8935", "/x"),
            ("https://[::1]/x", "[::1]", "/x"),
            ("http://1.2.3.4:443/", "1.2.3.4:443", "/"),
        ] {
            let head = sent(url, Protocol::Http1);
            assert_eq!(head.headers()["host"], host);
            assert_eq!(head.uri().to_string(), target);
            let head = sent(url, Protocol::Http2);
            assert!(!head.headers().contains_key("host"));
            assert_eq!(head.uri().authority().expect("it has one").as_str(), host);
            assert_eq!(
                head.uri().path_and_query().expect("it has one").as_str(),
                target
            );
        }
    }

    #[test]
    fn framing_is_not_for_machines_to_say() {
        let head = sent("http://h/", Protocol::Http1);
        let mut names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "connection", "host", "te"]);
        let head = sent("http://h/", Protocol::Http2);
        let mut names: Vec<_> = head.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "te"]);
        let back = headers(sent("http://h/", Protocol::Http1).headers());
        let names: Vec<_> = back.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["authorization", "te", "connection"]);
    }

    #[test]
    fn the_path_is_what_the_first_line_says() {
        for path in ["/", "/a?b=c", "//metrics", "/@x:1/", "/http://x/y"] {
            let url = served(path, false).expect("it is a path");
            assert_eq!(url.path(), path);
            assert_eq!(url.authority(), "localhost:80");
        }
        for path in ["*", "", "metrics", ":1/metrics", "@x/metrics", "?metrics"] {
            assert_eq!(served(path, true), Err(StatusCode::BAD_REQUEST), "{path}");
        }
        let long = format!("/{}", "x".repeat(9_000));
        assert_eq!(served(&long, false), Err(StatusCode::URI_TOO_LONG));
    }

    #[test]
    fn a_host_is_an_authority_and_there_is_one() {
        let named = |hosts: &[&str], target: &str, version| {
            let mut fields = HeaderMap::new();
            for host in hosts {
                let host = HeaderValue::from_bytes(host.as_bytes()).expect("it can be written");
                fields.append(header::HOST, host);
            }
            let target = target.parse().expect("a target");
            names_hosts(&fields, &target, version)
        };
        for host in [
            "",
            "x",
            "x:1",
            "x:",
            "1.2.3.4:80",
            "[::1]",
            "[::1]:8935",
            "a_b",
        ] {
            assert!(named(&[host], "/", Version::HTTP_11), "{host}");
        }
        for host in [
            "x/metrics?",
            "x?",
            "x#",
            "/",
            "u@x",
            "x:1/y",
            "x:y",
            "x:1:2",
            "[::1",
            "[::1]y",
            "x y",
            "x\\y",
            "caf\u{e9}",
        ] {
            assert!(!named(&[host], "/", Version::HTTP_11), "{host}");
            assert!(!named(&[host], "/", Version::HTTP_2), "{host}");
        }
        assert!(!named(&["x", "x"], "/", Version::HTTP_11));
        assert!(!named(&[], "/", Version::HTTP_11));
        assert!(named(&[], "/", Version::HTTP_10));
        assert!(named(&[], "http://x/", Version::HTTP_2));
        assert!(!named(&[], "http://u@x/", Version::HTTP_2));
        assert!(
            named(&["y"], "http://x/", Version::HTTP_11),
            "as a proxy is asked"
        );
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced() {
        let mut from = HeaderMap::new();
        let value = HeaderValue::from_bytes(b"caf\xe9").expect("obs-text is allowed");
        from.insert("x-name", value);
        assert_eq!(headers(&from).get("x-name"), Some("caf\u{fffd}"));
    }
}
