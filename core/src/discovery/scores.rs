//! The table of performance that somebody else measures (handshake spec 7.2).

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::time::Duration;

use super::dialogue::{bounds, document};
use crate::error::{Cause, Failure, Party};
use crate::exchange::{Exchange, Reply};
use crate::http::{Method, Request, Trust, Url};
use crate::machine::{Input, Machine, Outbox, Output};
use crate::sign::Address;
use crate::time::Time;
use crate::wire::listing::{MAX_LIST_BYTES, read_scores};

/// How fresh the scores are kept.
pub const REFRESH: Duration = Duration::from_secs(10 * 60);

/// How long one answer may take.
const WITHIN: Duration = Duration::from_secs(5);

/// An event of a score reading, for its owner.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ScoresEvent {
    /// The scores of the region; they replace all earlier ones.
    Scores(BTreeMap<Address, f64>),
    /// The source gave no newer scores; the earlier ones stay.
    Failed(Failure),
}

/// Asks for the scores of one region, again and again.
///
/// ```text
///   new ──▶ Asking ──▶ Settled ──(ten minutes)──▶ Asking …
/// ```
#[derive(Debug)]
pub struct Scores {
    url: Url,
    region: String,
    exchange: Option<Exchange>,
    again_at: Option<Time>,
    now: Time,
    out: Outbox<ScoresEvent>,
}

impl Scores {
    /// Asks the table at `url` for `region`.
    #[must_use]
    pub fn new(now: Time, url: Url, region: String) -> Self {
        let mut this = Self {
            url,
            region,
            exchange: None,
            again_at: None,
            now,
            out: Outbox::default(),
        };
        this.ask();
        this
    }

    /// Ends the reading.
    pub fn close(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.again_at = None;
        if let Some(mut exchange) = self.exchange.take() {
            exchange.abort(&mut self.out);
        }
    }

    fn ask(&mut self) {
        let request = Request::new(Method::Get, self.url.clone()).trust(Trust::Public);
        let bounds = bounds(MAX_LIST_BYTES, WITHIN);
        self.again_at = None;
        self.exchange = Some(Exchange::start(&mut self.out, self.now, request, bounds));
    }

    fn answered(&mut self, outcome: Result<Reply, Cause>) {
        self.exchange = None;
        self.again_at = Some(self.now + REFRESH);
        let scores = outcome.and_then(document).and_then(|body| {
            read_scores(&body, &self.region).map_err(|err| Cause::Nonsense {
                what: err.what,
                why: err.why,
            })
        });
        self.out.event(match scores {
            Ok(scores) => ScoresEvent::Scores(scores),
            Err(cause) => {
                ScoresEvent::Failed(Failure::new(Party::Discovery(self.url.clone()), cause))
            }
        });
    }
}

impl Machine for Scores {
    type Event = ScoresEvent;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        if let Input::Http(id, step) = input
            && let Some(exchange) = self.exchange.as_mut().filter(|exchange| exchange.owns(id))
            && let Some(outcome) = exchange.step(&mut self.out, step)
        {
            self.answered(outcome);
        }
        let late = self
            .exchange
            .as_mut()
            .and_then(|exchange| exchange.late(&mut self.out, self.now));
        if let Some(cause) = late {
            self.answered(Err(cause));
        }
        if self.again_at.is_some_and(|at| at <= self.now) {
            self.ask();
        }
    }

    fn poll_output(&mut self) -> Output<ScoresEvent> {
        self.out.pop().unwrap_or_else(|| {
            let until = self.exchange.as_ref().and_then(Exchange::wake);
            Output::Idle(until.or(self.again_at))
        })
    }
}
