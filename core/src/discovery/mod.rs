//! Finding orchestrators: lists, endpoints, signers, indexers and the chain, in one order of precedence.
//!
//! [`plan`] turns what a user said into [`Source`]s; one [`Discovery`] asks them, keeps the last good answer of each
//! through failures, and asks again from time to time.
//!
//! ```text
//!            one source after the other            all at once
//!            (Combine::First)                      (Combine::All)
//!   new ──▶ Asking ──fails──▶ Asking the next      Asking all of them
//!             │ answer, or an earlier good one        │ every one answered or failed
//!             ▼                                       ▼
//!           Settled ◀─────────────────────────────────┘
//!             │ refresh, or retry after a failure
//!             └──────▶ Asking
//! ```
//! Signers' lists are alike: one that is silent for [`SIGNER_HEDGE`] does not keep the next signer from being asked as
//! well, and the first answer settles it.
//!
//! Settling tells [`Event::Found`], or [`Event::Nothing`] if no source ever gave an answer. It never ends by itself.

mod chain;
pub mod contracts;
mod dialogue;
mod merge;
mod plan;

pub use crate::exchange::MAX_REDIRECTS;
pub use chain::{ChainSource, MAX_POOL};
pub use plan::{Choice, Order, Origin, Source, Wishes, plan, subgraph_url};

use alloc::vec::Vec;
use core::time::Duration;

use crate::error::Failure;
use crate::http::Trust;
use crate::machine::{Input, Machine, Outbox, Output, earlier};
use crate::time::Time;
use crate::wire::listing::{Found, Listed, Skipped};

use dialogue::Dialogue;
use merge::merge;

/// How long a search before a job may take, at most: the discovery endpoint and, after it, the signer have time to answer.
pub const WITHIN: Duration = Duration::from_secs(10);

/// How long a signer may take before the next one is asked as well.
pub const SIGNER_HEDGE: Duration = Duration::from_secs(1);

/// How sources are asked.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long one answer of an endpoint may take; walks through the chain take many.
    pub within: Duration,
    /// Answers are this fresh; `None` asks once, and again only on [`Discovery::refresh`].
    pub refresh: Option<Duration>,
    /// After a failure it is tried again this soon; failures in a row double it, up to the refresh.
    pub retry: Duration,
    /// Whether the first source that answers is enough.
    pub combine: Combine,
    /// Certificates that are good enough for endpoints.
    pub trust: Trust,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(5),
            refresh: Some(Duration::from_secs(60)),
            retry: Duration::from_secs(5),
            combine: Combine::First,
            trust: Trust::Public,
        }
    }
}

/// How the answers of several sources are combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Combine {
    /// A source stands in for those before it.
    #[default]
    First,
    /// Together they know more than each alone; what the earlier one says of an orchestrator counts.
    All,
}

/// An event of a discovery, for its owner.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The orchestrators there are, in order of precedence and each once. May be none.
    Found(Vec<Found>),
    /// An entry was left out.
    Skipped(Origin, Skipped),
    /// A source failed; its earlier answer or another source stands in, if there is one.
    SourceFailed(Origin, Failure),
    /// No source has given an answer so far; why each did not. It is tried again.
    Nothing(Vec<Failure>),
}

/// Looks for orchestrators. See the [module](self).
#[derive(Debug)]
pub struct Discovery {
    config: Config,
    sources: Vec<Entry>,
    settled: bool,
    again_at: Option<Time>,
    failures: u32,
    closed: bool,
    now: Time,
    out: Outbox<Event>,
}

/// A source, and what it said.
#[derive(Debug)]
struct Entry {
    origin: Origin,
    source: Source,
    asking: Option<Dialogue>,
    /// From the walk before.
    chain: Option<chain::Known>,
    good: Option<Vec<Found>>,
    /// How the last attempt ended, if it failed.
    failure: Option<Failure>,
    /// Asked in this round already.
    done: bool,
    /// When it was asked last.
    began: Time,
}

impl Entry {
    /// The time from which on the next source need not wait for the answer to this one.
    fn hedge_at(&self, next: Origin) -> Time {
        if self.origin == Origin::Signer && next == Origin::Signer {
            self.began + SIGNER_HEDGE
        } else {
            Time::MAX
        }
    }
}

impl Discovery {
    /// Asks the sources, as [`plan`] brought them in order.
    #[must_use]
    pub fn new(now: Time, config: Config, sources: Vec<(Origin, Source)>) -> Self {
        let entries = sources.into_iter().map(|(origin, source)| Entry {
            origin,
            source,
            asking: None,
            chain: None,
            good: None,
            failure: None,
            done: false,
            began: now,
        });
        let mut this = Self {
            config,
            sources: entries.collect(),
            settled: true,
            again_at: None,
            failures: 0,
            closed: false,
            now,
            out: Outbox::default(),
        };
        this.begin();
        this
    }

    /// Asks again now; nothing happens while it is asking.
    pub fn refresh(&mut self, now: Time) {
        self.pass(now);
        if self.settled && !self.closed {
            self.begin();
        }
        self.go_on();
    }

    /// Stops waiting: sources that have not answered by now have failed, those not asked yet are not asked in this
    /// round, and the orchestrators found so far are told.
    pub fn give_up(&mut self, now: Time) {
        self.pass(now);
        if self.settled {
            return;
        }
        for at in 0..self.sources.len() {
            let entry = &mut self.sources[at];
            entry.done = true;
            if let Some(dialogue) = entry.asking.take() {
                let failure = dialogue.give_up(&mut self.out, self.now);
                self.answered(at, Err(failure));
            }
        }
        self.go_on();
    }

    /// Ends the discovery.
    pub fn close(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.closed = true;
        self.again_at = None;
        self.abort();
        self.settled = true;
    }

    fn begin(&mut self) {
        self.settled = false;
        self.again_at = None;
        for entry in &mut self.sources {
            entry.done = false;
            entry.failure = None;
        }
        self.go_on();
    }

    fn pass(&mut self, now: Time) {
        self.now = self.now.max(now);
        for at in 0..self.sources.len() {
            let entry = &mut self.sources[at];
            let late = entry
                .asking
                .as_mut()
                .and_then(|asking| asking.tick(&mut self.out, self.now));
            if let Some(outcome) = late {
                self.answered(at, outcome);
            }
        }
        if self.settled && self.again_at.is_some_and(|at| at <= self.now) {
            self.begin();
        }
        self.go_on();
    }

    /// Asks the next sources, or settles.
    fn go_on(&mut self) {
        while !self.settled {
            let mut known = self.sources.iter().filter(|entry| entry.done);
            if self.config.combine == Combine::First && known.any(|entry| entry.good.is_some()) {
                self.abort();
                return self.settle();
            }
            match self.next() {
                Some((at, due)) if due <= self.now => self.ask(at),
                Some(_) => return,
                None if self.is_asking() => return,
                None => self.settle(),
            }
        }
    }

    /// The source to ask next, and when, unless an answer comes before.
    fn next(&self) -> Option<(usize, Time)> {
        let mut waiting = self.sources.iter().enumerate();
        let (at, next) = waiting.find(|(_, entry)| !entry.done && entry.asking.is_none())?;
        let due = match self.config.combine {
            Combine::All => None,
            Combine::First => {
                let asked = self.sources.iter().filter(|entry| entry.asking.is_some());
                asked.map(|entry| entry.hedge_at(next.origin)).max()
            }
        };
        Some((at, due.unwrap_or(self.now)))
    }

    fn is_asking(&self) -> bool {
        self.sources.iter().any(|entry| entry.asking.is_some())
    }

    fn abort(&mut self) {
        for entry in &mut self.sources {
            if let Some(mut dialogue) = entry.asking.take() {
                dialogue.abort(&mut self.out);
            }
        }
    }

    fn ask(&mut self, at: usize) {
        let entry = &mut self.sources[at];
        if let Source::List(urls, skipped) = &entry.source {
            let found = urls.iter().cloned().map(Found::at).collect();
            let listed = (found, skipped.clone());
            return self.answered(at, Ok((listed, None)));
        }
        entry.began = self.now;
        let known = entry.chain.take();
        entry.asking = Some(Dialogue::start(
            &mut self.out,
            self.now,
            &self.config,
            &entry.source,
            known,
        ));
    }

    fn answered(&mut self, at: usize, outcome: dialogue::Outcome) {
        let entry = &mut self.sources[at];
        entry.asking = None;
        entry.done = true;
        match outcome {
            Ok(((found, skipped), known)) => {
                entry.chain = known;
                for skipped in skipped {
                    self.out.event(Event::Skipped(entry.origin, skipped));
                }
                entry.good = Some(found);
            }
            Err(failure) => {
                entry.failure = Some(failure.clone());
                self.out.event(Event::SourceFailed(entry.origin, failure));
            }
        }
    }

    fn settle(&mut self) {
        self.settled = true;
        let failed = self.sources.iter().any(|entry| entry.failure.is_some());
        self.failures = if failed { self.failures + 1 } else { 0 };
        self.again_at = self.config.refresh.map(|refresh| {
            let pause = if failed {
                let doubled = self
                    .config
                    .retry
                    .saturating_mul(1 << (self.failures - 1).min(16));
                doubled.min(refresh)
            } else {
                refresh
            };
            self.now + pause.max(Duration::from_millis(1))
        });
        let done = self.sources.iter().filter(|entry| entry.done);
        let good = done.filter_map(|entry| entry.good.as_ref());
        let lists: Vec<&Vec<Found>> = match self.config.combine {
            Combine::First => good.take(1).collect(),
            Combine::All => good.collect(),
        };
        if lists.is_empty() {
            let failures = self
                .sources
                .iter()
                .filter_map(|entry| entry.failure.clone());
            self.out.event(Event::Nothing(failures.collect()));
        } else {
            self.out
                .event(Event::Found(merge(lists.into_iter().flatten())));
        }
    }

    fn wake(&self) -> Option<Time> {
        let asking = self
            .sources
            .iter()
            .filter_map(|entry| entry.asking.as_ref());
        let own = if self.settled {
            self.again_at
        } else {
            let next = self.next().map(|(_, due)| due);
            next.filter(|due| *due < Time::MAX)
        };
        asking.map(Dialogue::wake).fold(own, earlier)
    }
}

impl Machine for Discovery {
    type Event = Event;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        if let Input::Http(id, step) = input {
            let asked = self
                .sources
                .iter()
                .position(|entry| entry.asking.as_ref().is_some_and(|asking| asking.owns(id)));
            if let Some(at) = asked {
                let asking = self.sources[at].asking.as_mut().expect("it was just found");
                if let Some(outcome) = asking.step(&mut self.out, self.now, step) {
                    self.answered(at, outcome);
                }
            }
        }
        self.pass(now);
    }

    fn poll_output(&mut self) -> Output<Event> {
        self.out.pop().unwrap_or_else(|| Output::Idle(self.wake()))
    }
}

/// The answer that every source ends with.
type Answer = (Listed<Found>, Option<chain::Known>);
