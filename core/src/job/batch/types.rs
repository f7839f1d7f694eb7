//! Values that batch jobs take and tell.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use crate::error::{Cause, Failure};
use crate::http::{Fault, Trust, Url};
use crate::money::{Amount, Price};
use crate::payment::session;
use crate::pool::{self, Tried, TryLimit};
use crate::prefer::Limits;
use crate::sign::Address;
use crate::signers::SignerHealth;
use crate::time::Time;
use crate::units::Unit;
use crate::wire::batch::Answer;

/// Names one job among those of its [`Batch`](super::Batch).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(super) u64);

/// Settings of a [`Batch`](super::Batch).
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Certificates that are good enough for orchestrators and for the places of their results.
    pub trust: Trust,
    /// Settings of the pool. How sessions are shared, and whether capacity counts, is the machine's own.
    pub pool: pool::Config,
    /// Settings of the payments. Name, capabilities and trust are the machine's own.
    pub payment: session::Config,
    /// Limits of the gateway on who does its jobs, beside the ceiling of the handshakes. Those of a request come on top.
    pub limits: Limits,
    /// Tries of one job, with one orchestrator and in all. The time is looked at between tries only: a request under way
    /// is never cut by it.
    pub tries: TryLimit,
    /// How long a job waits for its first orchestrator, at most.
    pub select_within: Duration,
    /// How long one answer may take, at most, from the request to its last byte. Not for streams.
    pub answer_within: Duration,
    /// How long an orchestrator may take for the head of its answer, beside a time for work of that size, before another
    /// one is asked as well; `None` asks nobody else. See [`tries`](Self::tries) for the number of them.
    pub standby_after: Option<Duration>,
    /// How long a stream may be silent, its head included.
    pub stream_silence: Duration,
    /// How long the download of a result may take, at most.
    pub download_within: Duration,
    /// The most bytes of a result that are downloaded.
    pub max_result: usize,
    /// The most bytes of an answer that are read.
    pub max_answer: usize,
    /// How long it is remembered that nobody was found, and nobody is looked for again.
    pub nobody_for: Duration,
    /// The most bytes of all results of a job.
    pub max_results: usize,
    /// At most this many jobs at a time.
    pub max_jobs: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trust: Trust::FirstUse,
            pool: pool::Config {
                ready: 8,
                // A slot may be free a moment later; one that never is rests longer each time.
                full_pause: Duration::from_millis(500),
                ..pool::Config::default()
            },
            payment: session::Config::new(Unit::Fixed),
            limits: Limits::default(),
            tries: TryLimit::BATCH,
            select_within: Duration::from_secs(6),
            answer_within: Duration::from_secs(300),
            standby_after: Some(Duration::from_secs(10)),
            stream_silence: Duration::from_secs(120),
            download_within: Duration::from_secs(4),
            max_result: 300_000_000,
            max_results: 1 << 30,
            max_answer: 256 << 20,
            nobody_for: Duration::from_secs(2),
            max_jobs: 8_192,
        }
    }
}

/// News of batch jobs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Look for orchestrators, and answer with [`Batch::offer`](super::Batch::offer) or
    /// [`Batch::replace`](super::Batch::replace), also if there are none.
    Find,
    /// An orchestrator gets the request.
    Trying(JobId, Box<Trying>),
    /// An orchestrator answers with a stream. Told again if that one fails before its first chunk and another goes on.
    Head(JobId, Box<Served>),
    /// The payload of an event of a stream, as it came.
    Chunk(JobId, Bytes),
    /// The job is done. Its last event.
    Done(JobId, Box<Finished>),
    /// The job failed. Its last event.
    Failed(JobId, Box<Failed>),
    /// The orchestrator at this address took a payment.
    Paid(Url, Box<session::Paid>),
    /// How remote signers have been, whenever that has changed.
    Signers(SignerHealth),
    /// Other news of the pool.
    Pool(pool::Event),
}

/// The outcome of a job that is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The answer; `None` after a stream.
    pub answer: Option<Answer>,
    /// The results that the answer names, each distinct URL once.
    pub files: Vec<File>,
    /// Facts about who did it, and what it cost.
    pub served: Served,
}

impl Finished {
    /// The content of the result that a URL of the answer leads to.
    #[must_use]
    pub fn content(&self, url: &str) -> Option<&Bytes> {
        let file = self.files.iter().find(|file| file.url == url)?;
        Some(&file.content)
    }
}

/// An orchestrator that gets the request now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trying {
    /// The URL of the orchestrator.
    pub url: Url,
    /// The account that is paid.
    pub address: Address,
    /// Wei per unit; `None` where nothing is paid.
    pub price: Option<Price>,
    /// The number of the try, from one.
    pub attempt: u32,
}

/// An orchestrator that was tried in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The URL of the orchestrator.
    pub url: Url,
    /// Why it was left.
    pub reason: Left,
}

/// Why an orchestrator was left. Displays as the word that callers are told (front-door spec 1.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// No capacity.
    Busy,
    /// A nonce was used before.
    Nonce,
    /// The balance is too low, in the orchestrator's eyes.
    Balance,
    /// The credentials or the payment are refused.
    Credentials,
    /// The price is above ours, or has risen.
    Price,
    /// No answer in time.
    Timeout,
    /// No connection, or a broken one.
    Unreachable,
    /// Another certificate than before.
    Certificate,
    /// An answer with that status and nothing that is known better.
    Status(u16),
    /// An answer that is none, or results that cannot be had.
    InvalidAnswer,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "busy",
            Self::Nonce => "nonce",
            Self::Balance => "balance",
            Self::Credentials => "credentials",
            Self::Price => "price",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Certificate => "certificate",
            Self::Status(status) => return write!(f, "status {status}"),
            Self::InvalidAnswer => "invalid_answer",
        })
    }
}

impl From<&Cause> for Left {
    fn from(cause: &Cause) -> Self {
        match cause {
            Cause::Link(Fault::CertificateChanged { .. } | Fault::Untrusted(_)) => {
                Self::Certificate
            }
            Cause::Link(_) => Self::Unreachable,
            Cause::TimedOut { .. } | Cause::Silent { .. } => Self::Timeout,
            Cause::TooDear { .. } | Cause::Free | Cause::Guard(_) => Self::Price,
            Cause::Refused { status, .. } => Self::Status(*status),
            _ => Self::InvalidAnswer,
        }
    }
}

/// Facts about who did a job, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The URL of the orchestrator.
    pub url: Url,
    /// The account that was paid.
    pub address: Address,
    /// How many units were paid for.
    pub units: u64,
    /// Wei per unit; `None` where nothing is paid.
    pub price: Option<Price>,
    /// The fee in wei, exact: units times price. Tickets are worth at least that much, and the rest stays on account.
    pub cost: Amount,
    /// The number of tickets that went along with the request that was answered.
    pub tickets: u32,
    /// The value of these tickets, in wei.
    pub value: Amount,
    /// The orchestrators that were tried before.
    pub attempts: Vec<Attempt>,
    /// How long the job took until the head of the answer.
    pub waited: Duration,
    /// How much of that was spent on finding and choosing orchestrators.
    pub selecting: Duration,
    /// How much of that was spent on payments.
    pub paying: Duration,
    /// How much of that was spent on waiting for orchestrators.
    pub upstream: Duration,
}

/// A result that was brought along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The URL in the answer that leads to it; every place with that URL means this file.
    pub url: String,
    /// The base name of a URL; of a `data:` URL a drawn name and the ending of its type.
    pub name: String,
    /// The content.
    pub content: Bytes,
}

/// The party that finds fault with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// The program that runs the model.
    Runner,
    /// The orchestrator.
    Orchestrator,
}

impl fmt::Display for RefusedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Runner => "the runner",
            Self::Orchestrator => "the orchestrator",
        })
    }
}

/// Counts in one line, each after a semicolon.
struct Excluded<'a>(&'a [(&'static str, usize)]);

impl fmt::Display for Excluded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.0.iter();
        all.try_for_each(|(key, count)| write!(f, "; {key} excludes {count}"))
    }
}

/// Attempts in one line, each after a semicolon.
struct Tries<'a>(&'a [Attempt]);

impl fmt::Display for Tries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.0.iter();
        all.try_for_each(|one| write!(f, "; {}: {}", one.url, one.reason))
    }
}

/// Orchestrators without a session in one line, each after a semicolon.
struct Others<'a>(&'a [Tried]);

impl fmt::Display for Others<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|one| write!(f, "; {one}"))
    }
}

/// The failure of a job.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Failed {
    /// The request is the caller's to mend.
    #[error("{by} refuses the request: {text}")]
    Caller {
        /// The words of the party that refuses, cut and without control characters.
        text: String,
        /// The party that failed.
        by: RefusedBy,
    },
    /// Nobody did it: who was tried, and why the pool had nobody else.
    #[error("no orchestrator did the job{}{}", Tries(.attempts), Others(.tried))]
    NoOrchestrator {
        /// The orchestrators that got the request.
        attempts: Vec<Attempt>,
        /// The orchestrators without a session.
        tried: Vec<Tried>,
        /// When the first of those that are left alone for a while may be asked again.
        again: Option<Time>,
    },
    /// The preferences leave nobody.
    #[error("the preferences leave no orchestrator{}", Excluded(.excluded))]
    NoMatch {
        /// How many orchestrators each of them excludes; empty if none of those to be tried is there.
        excluded: Vec<(&'static str, usize)>,
    },
    /// Nobody offers the model.
    #[error("no orchestrator offers the model")]
    UnknownModel,
    /// No whole answer came in time.
    #[error("no answer came in time{}", Tries(.attempts))]
    TimedOut {
        /// The orchestrators that got the request, the last one included.
        attempts: Vec<Attempt>,
    },
    /// There was an answer, and its results cannot be had.
    #[error("the results cannot be had: {failure}")]
    ResultLost {
        /// The orchestrators that got the request, the last one included.
        attempts: Vec<Attempt>,
        /// Why not.
        failure: Box<Failure>,
    },
    /// A stream broke after its head.
    #[error("the answer broke off: {failure}")]
    Broken {
        /// The orchestrator that broke off, and what it was paid.
        served: Box<Served>,
        /// The cause.
        failure: Box<Failure>,
    },
    /// Our own side failed: signer, key holder or store.
    #[error("{0}")]
    Ours(Box<Failure>),
    /// The machine was closed.
    #[error("the gateway was closed")]
    Closed,
}
