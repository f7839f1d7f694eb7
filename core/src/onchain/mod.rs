//! Machines that speak with the chain, through JSON-RPC endpoints (payments spec 15).

pub mod feed;
mod watch;

pub use feed::PriceFeed;
pub use watch::{ChainWatch, Config, Event, FRESH};

use core::time::Duration;

use crate::error::{Cause, Failure, Party, Reason};
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{Body, Method, Request, Trust, Url};
use crate::machine::Outbox;
use crate::time::Time;
use crate::wire::error_words;
use crate::wire::jsonrpc::{Asking, BatchLimit, MAX_ANSWER_BYTES};

const DOING: &str = "a question to the chain";

/// Asks an endpoint what is left to ask.
fn ask<E>(
    out: &mut Outbox<E>,
    now: Time,
    (endpoint, trust, within): (&Url, Trust, Duration),
    asking: &Asking,
    limit: BatchLimit,
) -> Exchange {
    let request = Request::new(Method::Post, endpoint.clone())
        .header("content-type", "application/json")
        .trust(trust)
        .body(Body::Full(asking.body(limit)));
    let bounds = Bounds {
        doing: DOING,
        what: "the answer in bytes",
        limit: MAX_ANSWER_BYTES,
        within,
        redirects: false,
    };
    Exchange::start(out, now, request, bounds)
}

/// The cause of a failure with an answer that is no success.
fn refusal(reply: &Reply) -> Cause {
    Cause::Refused {
        doing: DOING,
        status: reply.status,
        reason: Reason::Other,
        text: error_words(&reply.body),
    }
}

/// The failure of an endpoint. Keys are part of its path, and of the query.
fn failure(endpoint: &Url, cause: Cause) -> Failure {
    Failure::new(Party::Chain(endpoint.with_path("/")), cause)
}
