//! Programs that do the work of containers and apps: one at an address of its own, reached as a proxy does, or one that is
//! built in.

mod builtin;
mod made;
mod openai;
mod socket;

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, Method, Request, Response, Trust, Url};

pub(super) use builtin::echo;
pub(super) use made::Made;
pub use made::Tempo;

/// A longer body of a request for a program is refused.
pub const MAX_WORK_BYTES: usize = 64 << 20;

/// A program that does the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Worker {
    /// A program at this address, to which the path of the work is appended.
    At(Url),
    /// A program that is built in and says back what it is told.
    Echo(Tempo),
    /// A program that is built in: asked to `start` in a session, it makes the channels `in` and `out`, and sends what comes
    /// in out again. Anything else it says back.
    Live(Tempo),
}

/// A request for a program.
#[derive(Clone)]
pub(super) struct Order {
    pub(super) method: Method,
    /// The path behind the program's own, with its query; empty or with a slash in front.
    pub(super) path: String,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
}

/// A program, about to work.
pub(super) enum Doer {
    At(Request),
    BuiltIn(Made),
}

impl Worker {
    /// How fast a program works that is built in.
    pub(super) const fn tempo(&self) -> Tempo {
        match self {
            Self::At(_) => Tempo {
                takes: Duration::ZERO,
                pace: Duration::ZERO,
            },
            Self::Echo(tempo) | Self::Live(tempo) => *tempo,
        }
    }

    /// Prepares a request for this program.
    pub(super) fn prepare(&self, order: Order) -> Doer {
        let Order {
            method,
            path,
            headers,
            body,
        } = order;
        match self {
            Self::At(url) => {
                let mut request = Request::new(method, joined(url, &path))
                    .trust(Trust::FirstUse)
                    .body(if body.is_empty() {
                        Body::Empty
                    } else {
                        Body::Full(body)
                    });
                request.headers = headers;
                Doer::At(request)
            }
            Self::Echo(tempo) | Self::Live(tempo) => {
                Doer::BuiltIn(echo(method.as_str(), &path, &headers, body, *tempo))
            }
        }
    }
}

/// The address of a path behind the one of a program. The root of a program has no slash at its end, unless it is that of
/// its host.
fn joined(url: &Url, path: &str) -> Url {
    let own = url
        .path()
        .split('?')
        .next()
        .unwrap_or("")
        .trim_end_matches('/');
    let (path, query) = path
        .split_once('?')
        .map_or((path, None), |(path, query)| (path, Some(query)));
    let path = match path {
        "/" if !own.is_empty() => "",
        path => path,
    };
    let slash = if own.is_empty() && path.is_empty() {
        "/"
    } else {
        ""
    };
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    url.with_path(&format!("{own}{path}{slash}{query}"))
}

/// News of a program.
pub(super) enum News {
    Head(Response),
    Data(Bytes),
    End,
    Lost(Lost),
}

/// A program that did not answer, or not to the end.
pub(super) struct Lost {
    pub(super) url: Url,
    pub(super) why: String,
}

impl Lost {
    pub(super) fn new(url: Url, fault: &Fault) -> Self {
        let why = match fault {
            fault if fault.is_before_request() => {
                format!("dial tcp {}: connect: connection refused", url.authority())
            }
            _ => "EOF".to_owned(),
        };
        Self { url, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_appended_to_that_of_the_program() {
        let joined = |url: &str, path: &str| {
            let url = Url::parse(url).expect("a URL");
            joined(&url, path).path().to_owned()
        };
        let base = "http://10.0.0.2:8080/base";
        assert_eq!(joined(base, "/v1/x?b=2&a=1"), "/base/v1/x?b=2&a=1");
        assert_eq!(joined(base, "/"), "/base");
        assert_eq!(joined(base, ""), "/base");
        assert_eq!(joined("http://10.0.0.2:8080", ""), "/");
        assert_eq!(joined("http://10.0.0.2:8080/", "/a/"), "/a/");
        assert_eq!(joined("http://10.0.0.2:8080", "/?q"), "/?q");
    }
}
