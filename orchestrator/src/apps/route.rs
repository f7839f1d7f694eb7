//! Requests about apps, by their paths.

use livepeer_core::http::{Headers, Method, Out, Request, Response};
use livepeer_core::wire::app::{DISCOVERY_PATH, SESSION_TOKEN_HEADER};
use livepeer_core::wire::challenge::PAYER_ADDRESS_HEADER;

use crate::paid::Headers as Paid;
use crate::wire;

/// A request about apps.
pub(crate) struct Ask {
    pub(super) route: Route,
    pub(super) method: Method,
    /// All fields, for the app.
    pub(super) headers: Headers,
    pub(super) paid: Paid,
    /// The address to quote for.
    pub(super) payer: String,
    pub(super) secret: String,
    pub(super) token: String,
}

/// The parts of a path. The paths of apps begin with a slash and have their query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Listing,
    Reserve {
        runner: String,
    },
    Payment {
        runner: String,
        session: String,
    },
    Stop {
        runner: String,
        session: String,
    },
    /// A request of a session.
    Call {
        runner: String,
        session: String,
        path: String,
    },
    /// A request to an app that takes single ones.
    Shot {
        runner: String,
        path: String,
    },
    /// A request to an address that nobody guesses.
    Proxy {
        name: String,
        path: String,
    },
    Heartbeat,
    Unregister {
        runner: String,
    },
    Channels {
        runner: String,
        session: String,
    },
    MakeProxy {
        runner: String,
        session: String,
    },
    SelfStop {
        runner: String,
        session: String,
    },
}

impl Ask {
    /// The request about apps that a head begins, if it does.
    ///
    /// # Errors
    /// The answer, if no body can change it.
    pub(crate) fn of(request: &Request, paid: &Paid) -> Option<Result<Self, Out>> {
        let target = request.url.path();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let begins = ["/apps/", "/runner/", "/runners/", "/run/"];
        if path != DISCOVERY_PATH && !begins.iter().any(|begin| path.starts_with(begin)) {
            return None;
        }
        let to_query = |path: &str| match query {
            "" => path.to_owned(),
            query => format!("{path}?{query}"),
        };
        // Addresses that nobody guesses are looked at before paths are made plain.
        if !path.starts_with("/run/")
            && let Some(plain) = plainer(path)
        {
            let location = to_query(&plain);
            return Some(Err(Out::Reply(
                Response::new(307).header("location", location),
            )));
        }
        let parts: Vec<&str> = path[1..].splitn(6, '/').collect();
        let text = |part: &str| part.to_owned();
        let route = match parts[..] {
            ["discovery"] => Route::Listing,
            ["apps", runner, "session"] => Route::Reserve {
                runner: text(runner),
            },
            ["apps", runner, "session", session, "payment"] => Route::Payment {
                runner: text(runner),
                session: text(session),
            },
            ["apps", runner, "session", session, "stop"] => Route::Stop {
                runner: text(runner),
                session: text(session),
            },
            ["apps", runner, "session", session, "app", rest] => Route::Call {
                runner: text(runner),
                session: text(session),
                path: to_query(&escaped(rest)),
            },
            ["apps", runner, "app", ..] => {
                let rest = path.splitn(5, '/').nth(4)?;
                Route::Shot {
                    runner: text(runner),
                    path: to_query(&escaped(rest)),
                }
            }
            ["run", name, ..] => {
                let rest = path[1..].splitn(3, '/').nth(2);
                Route::Proxy {
                    name: text(name),
                    path: to_query(&rest.map_or_else(String::new, escaped)),
                }
            }
            ["runners", "heartbeat"] => Route::Heartbeat,
            ["runners", runner, "unregister"] => Route::Unregister {
                runner: text(runner),
            },
            ["runner", runner, "session", session, what] => {
                let (runner, session) = (text(runner), text(session));
                match what {
                    "channels" => Route::Channels { runner, session },
                    "proxy" => Route::MakeProxy { runner, session },
                    "stop" => Route::SelfStop { runner, session },
                    _ => return None,
                }
            }
            _ => return None,
        };
        let allowed: &[Method] = match route {
            Route::Call { .. } | Route::Shot { .. } | Route::Proxy { .. } => &[],
            Route::Listing => &[Method::Get, Method::Head],
            Route::Channels { .. } => &[Method::Delete, Method::Post],
            _ => &[Method::Post],
        };
        if !allowed.is_empty() && !allowed.contains(&request.method) {
            return Some(Err(wire::not_allowed(allowed)));
        }
        let header = |name| request.headers.get(name).unwrap_or("").to_owned();
        Some(Ok(Self {
            route,
            method: request.method,
            paid: paid.clone(),
            payer: header(PAYER_ADDRESS_HEADER),
            secret: header("authorization"),
            token: header(SESSION_TOKEN_HEADER),
            headers: request.headers.clone(),
        }))
    }
}

/// The plainer path that a request is sent on to, if there is one: without empty segments and dots, and with a slash behind
/// an app's root.
fn plainer(path: &str) -> Option<String> {
    let mut plain: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    for segment in &segments {
        match *segment {
            "" | "." => {}
            ".." => {
                plain.pop();
            }
            segment => plain.push(segment),
        }
    }
    let root = matches!(
        plain[..],
        ["apps", _, "app"] | ["apps", _, "session", _, "app"]
    );
    let ends = matches!(segments.last(), Some(&("" | "." | "..")));
    let slash = if root || ends { "/" } else { "" };
    let plain = format!("/{}{slash}", plain.join("/"));
    (plain != path).then_some(plain)
}

/// The path of an app as the reference hands it on: an escaped slash is one, and every other escape is escaped once more.
fn escaped(rest: &str) -> String {
    let slashes = rest.replace("%2F", "/").replace("%2f", "/");
    format!("/{}", slashes.replace('%', "%25"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use livepeer_core::http::Url;

    fn of(method: Method, target: &str) -> Option<Result<Route, (u16, String)>> {
        let url = Url::parse("https://orch").expect("a URL").with_path(target);
        let request = Request::new(method, url);
        let paid = Paid {
            payment: String::new(),
            segment: String::new(),
        };
        Some(match Ask::of(&request, &paid)? {
            Ok(ask) => Ok(ask.route),
            Err(Out::Reply(head)) => {
                let field = head.headers.get("location").or(head.headers.get("allow"));
                Err((head.status, field.unwrap_or("").to_owned()))
            }
            Err(_) => unreachable!("an answer"),
        })
    }

    fn call(path: &str) -> Option<Result<Route, (u16, String)>> {
        let (runner, session, path) = ("r1".into(), "s1".into(), path.into());
        Some(Ok(Route::Call {
            runner,
            session,
            path,
        }))
    }

    #[test]
    fn paths_reach_an_app_as_the_reference_hands_them_on() {
        let app = |rest: &str| of(Method::Get, &format!("/apps/r1/session/s1/app/{rest}"));
        assert_eq!(app("v1/x?b=2&a=1&b=1"), call("/v1/x?b=2&a=1&b=1"));
        assert_eq!(app(""), call("/"));
        assert_eq!(app("a%2Fb/c"), call("/a/b/c"));
        assert_eq!(app("a%20b%3Fc"), call("/a%2520b%253Fc"));
        let away = |to: &str| Some(Err((307, to.to_owned())));
        assert_eq!(app("a//b/../c/"), away("/apps/r1/session/s1/app/a/c/"));
        assert_eq!(of(Method::Post, "/apps/r1/app"), away("/apps/r1/app/"));
        let shot = |path: &str| {
            let (runner, path) = ("r1".into(), path.into());
            Some(Ok(Route::Shot { runner, path }))
        };
        assert_eq!(
            of(Method::Put, "/apps/r1/app/a/b/c/d?e"),
            shot("/a/b/c/d?e")
        );
        let proxy = |path: &str| {
            let (name, path) = ("abc".into(), path.into());
            Some(Ok(Route::Proxy { name, path }))
        };
        assert_eq!(of(Method::Get, "/run/abc"), proxy(""));
        assert_eq!(of(Method::Get, "/run/abc/x//y?z"), proxy("/x//y?z"));
    }

    #[test]
    fn methods_and_other_paths_are_refused() {
        let allow = |methods: &str| Some(Err((405, methods.to_owned())));
        assert_eq!(of(Method::Get, "/apps/r1/session"), allow("POST"));
        assert_eq!(of(Method::Post, "/discovery"), allow("GET, HEAD"));
        assert_eq!(
            of(Method::Get, "/runner/r/session/s/channels"),
            allow("DELETE, POST")
        );
        for path in [
            "/apps/r1",
            "/apps/r1/session/s1",
            "/runner/r/session/s/x",
            "/x",
            "/runners/r",
        ] {
            assert_eq!(of(Method::Post, path), None, "{path}");
        }
    }
}
