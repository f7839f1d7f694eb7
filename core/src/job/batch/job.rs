//! A job and where it stands.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::types::{Attempt, Config, File, Left, Served};
use crate::exchange::Exchange;
use crate::http::{Body, Url};
use crate::machine::EffectId;
use crate::payment::session::{Bill, PaymentId};
use crate::pool::Lease;
use crate::prefer::Preferences;
use crate::selection::Size;
use crate::time::Time;
use crate::wire::batch::Answer;
use crate::wire::sse;

/// A job from its submission to its last event.
pub(super) struct Job {
    /// The settings that the job began with.
    pub(super) config: Arc<Config>,
    pub(super) content_type: String,
    pub(super) body: Body,
    pub(super) size: Size,
    pub(super) stream: bool,
    /// Whether an answer without any picture is good.
    pub(super) takes_empty: bool,
    pub(super) preferences: Preferences,
    pub(super) began: Time,
    /// When the present phase began, and how long the phases before took.
    pub(super) since: Time,
    pub(super) selecting: Duration,
    pub(super) paying: Duration,
    pub(super) upstream: Duration,
    /// Requests sent.
    pub(super) tries: u32,
    /// Since when the time for tries runs.
    pub(super) trying_since: Time,
    /// The orchestrators that the job does not go to again.
    pub(super) tried: Vec<Url>,
    pub(super) attempts: Vec<Attempt>,
    /// How many orchestrators each of the job's preferences excludes, if they left nobody when it last looked.
    pub(super) excluded: Option<Vec<(&'static str, usize)>>,
    /// Whether orchestrators were looked for on its account.
    pub(super) looked: bool,
    /// Whether the last attempt ended because it took too long.
    pub(super) was_late: bool,
    /// Whether the owner holds back the stream.
    pub(super) paused: bool,
    pub(super) engaged: Option<Engaged>,
    /// The orchestrators that have the request as well, and have said nothing.
    pub(super) silent: Vec<Silent>,
    pub(super) served: Option<Box<Served>>,
    pub(super) stage: Stage,
}

/// The orchestrator that a job is with.
pub(super) struct Engaged {
    pub(super) lease: Lease,
    pub(super) url: Url,
    /// The payment that is awaited, or whose outcome is.
    pub(super) payment: Option<PaymentId>,
    /// Requests sent to it.
    pub(super) tries: u32,
    /// Whether credentials were renewed for it once.
    pub(super) renewed: bool,
    /// When it got the request.
    pub(super) asked: Time,
    /// How long it took for the head of a good answer.
    pub(super) first: Option<Duration>,
    /// How long it took for all of a good answer, its results aside.
    pub(super) took: Option<Duration>,
}

/// An orchestrator that has the request of a job, has said nothing, and is waited for beside another.
pub(super) struct Silent {
    pub(super) engaged: Engaged,
    pub(super) flight: Box<InFlight>,
}

pub(super) enum Stage {
    /// No orchestrator yet, or no more.
    Selecting,
    /// The payment is being made.
    Paying,
    /// The request is on its way.
    InFlight(Box<InFlight>),
    /// Results are downloaded.
    Fetching(Box<Fetching>),
}

/// A request that was sent, and its answer so far.
pub(super) struct InFlight {
    pub(super) exchange: EffectId,
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// The time from which on the answer is late; of a stream, without any news.
    pub(super) until: Time,
    /// When another orchestrator is asked as well.
    pub(super) standby: Option<Time>,
    pub(super) bill: Option<Bill>,
    pub(super) events: Option<Events>,
}

/// A stream of events.
pub(super) struct Events {
    pub(super) reader: sse::Reader,
    /// Whether a chunk went out, so that nobody else can go on.
    pub(super) begun: bool,
    /// Whether the last chunk went out.
    pub(super) finished: bool,
}

/// Results that are there.
pub(super) struct Kept {
    pub(super) files: Vec<File>,
    /// Bytes that further ones may have.
    pub(super) room: usize,
}

/// Results that are being downloaded.
pub(super) struct Fetching {
    pub(super) answer: Answer,
    pub(super) kept: Kept,
    pub(super) waiting: VecDeque<(String, Url)>,
    pub(super) fetches: BTreeMap<EffectId, (String, Exchange)>,
}

impl Job {
    /// The lease of the orchestrator at `url`, if that has the request or gets it now.
    pub(super) fn lease_of(&mut self, url: &Url) -> Option<&mut Lease> {
        let silent = self.silent.iter_mut().map(|silent| &mut silent.engaged);
        let mut all = self.engaged.iter_mut().chain(silent);
        let engaged = all.find(|engaged| engaged.url == *url)?;
        Some(&mut engaged.lease)
    }

    pub(super) fn exclude(&mut self, url: &Url) {
        if !self.tried.contains(url) {
            self.tried.push(url.clone());
        }
    }

    pub(super) fn left(&mut self, url: Url, reason: Left) {
        self.exclude(&url);
        self.attempts.push(Attempt { url, reason });
    }

    /// Ends a phase: how long it took.
    pub(super) fn lap(&mut self, now: Time) -> Duration {
        let took = now.since(self.since);
        self.since = now;
        took
    }
}
