//! Settings, orders, events and results of jobs for containers, and of streams through them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use crate::error::{Cause, Failure};
use crate::http::{Trust, Url};
use crate::money::{Amount, Price};
use crate::payment::Unit;
use crate::payment::session::{self, Paid};
use crate::prefer::Limits;
use crate::signers::SignerHealth;
use crate::wire::app::BadPath;
use crate::wire::byoc::stream::StreamChannels;
use crate::wire::byoc::{BadJob, Grounds, JobRequest, Scheme, request_url};
use crate::wire::{Params, RunnerEvent, cut};

/// Settings of a [`Byoc`](super::Byoc).
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificates that are good enough for orchestrators.
    pub trust: Trust,
    /// Payments: ceilings, and what leaves at most.
    pub payment: session::Config,
    /// How an own key signs jobs. A remote signer has its own way.
    pub scheme: Scheme,
    /// Orchestrators that may work, by the lists of names. One that wants no money tells no account.
    pub limits: Limits,
    /// How long a job looks for an orchestrator, unless it says otherwise.
    pub search_within: Duration,
    /// How long an orchestrator may take for a token, unless the job says otherwise.
    pub token_within: Duration,
    /// At most this many jobs are under way.
    pub max_jobs: usize,
    /// At most this many bytes of an answer that is no stream are kept.
    pub max_answer: usize,
    /// At most this many input segments of a stream are begun and not yet delivered; one more means that the orchestrator is
    /// too slow.
    pub max_in_flight: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trust: Trust::FirstUse,
            payment: session::Config::new(Unit::Seconds),
            scheme: Scheme::default(),
            limits: Limits::default(),
            search_within: Duration::from_secs(1),
            token_within: Duration::from_millis(500),
            max_jobs: 1_000,
            max_answer: 256 << 20,
            max_in_flight: 3,
        }
    }
}

/// A job, with the body of its request.
#[derive(Clone, Debug)]
pub struct Order {
    /// The job, [checked](JobRequest::check).
    pub job: JobRequest,
    /// The container's own path, with its query; may be empty.
    pub path: String,
    /// The type of the body; may be empty.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
    /// Whether another orchestrator may do the job where one may have done it already: it may run, and be paid, twice.
    pub may_repeat: bool,
    /// How long to look for an orchestrator, if the job says so.
    pub search_within: Option<Duration>,
    /// How long an orchestrator may take for a token, if the job says so.
    pub token_within: Option<Duration>,
}

impl Order {
    /// A job with an empty body, which is done at most once.
    #[must_use]
    pub const fn new(job: JobRequest) -> Self {
        Self {
            job,
            path: String::new(),
            content_type: String::new(),
            body: Bytes::new(),
            may_repeat: false,
            search_within: None,
            token_within: None,
        }
    }

    /// Checks whether the job can be sent at all.
    ///
    /// # Errors
    /// If the job is none, or the path does not reach a container as it was written.
    pub fn check(&self) -> Result<(), BadOrder> {
        self.job.check()?;
        request_url(&Url::parse("https://h").expect("a URL"), &self.path)?;
        Ok(())
    }
}

/// Why an order cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadOrder {
    /// The job is none.
    #[error("{0}")]
    Job(#[from] BadJob),
    /// The path does not reach a container as it was written.
    #[error("{0}")]
    Path(#[from] BadPath),
}

/// Names a job, or a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(super) u64);

/// A request that was sent to an orchestrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trying {
    /// The orchestrator.
    pub url: Url,
    /// The price of a second.
    pub price: Price,
    /// The number of the attempt, from one.
    pub attempt: u32,
}

/// The head of a good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The orchestrator.
    pub url: Url,
    /// The type of the body, as the container says it; may be empty.
    pub content_type: String,
    /// The container's own words about its answer; may be empty.
    pub metadata: String,
    /// The balance that the orchestrator reports, as text; empty if it does not.
    pub balance: String,
    /// Whether the body is a stream of events.
    pub stream: bool,
    /// The price of a second.
    pub price: Price,
    /// The number of tickets that went along.
    pub tickets: u32,
    /// The value of these tickets, in wei.
    pub value: Amount,
    /// Attempts with other orchestrators before.
    pub attempts: Vec<Attempt>,
    /// How long it took from the order to this.
    pub waited: Duration,
}

/// An orchestrator that did not do a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The orchestrator.
    pub url: Url,
    /// Why it did not.
    pub left: Left,
}

/// Why an orchestrator did not do a job. Its own words stay here: they may tell where its containers are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// No token came, or none that could be read.
    NoToken,
    /// The limits admit others only.
    Excluded,
    /// The token says that the container takes no more.
    Full,
    /// The orchestrator asks more than is paid, or anything where nothing is.
    TooDear,
    /// The payment could not be made.
    Unpaid,
    /// The orchestrator was not reached.
    Unreached,
    /// The link broke after the request was sent.
    Broken,
    /// No answer came in time.
    Timeout,
    /// The channels of the stream that it started cannot be used.
    Unusable,
    /// The orchestrator refused.
    Refused(Grounds),
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToken => f.write_str("it gave no token"),
            Self::Excluded => f.write_str("it is excluded"),
            Self::Full => f.write_str("it has no such container, or no room in it"),
            Self::TooDear => f.write_str("it asks more than we pay"),
            Self::Unpaid => f.write_str("it could not be paid"),
            Self::Unreached => f.write_str("it was not reached"),
            Self::Broken => f.write_str("the link broke"),
            Self::Unusable => f.write_str("it names no channels that can be used"),
            Self::Timeout | Self::Refused(Grounds::Timeout) => {
                f.write_str("the container took too long")
            }
            Self::Refused(Grounds::Busy) => f.write_str("it has no room"),
            Self::Refused(Grounds::Balance) => f.write_str("it counts less money than we do"),
            Self::Refused(Grounds::Signature) => f.write_str("it does not take our signature"),
            Self::Refused(Grounds::Payment) => f.write_str("it does not take our payment"),
            Self::Refused(Grounds::Container) => f.write_str("it lost its container"),
            Self::Refused(Grounds::Status(status)) => write!(f, "it refused with status {status}"),
        }
    }
}

/// A job that was done.
#[derive(Clone, Debug)]
pub struct Done {
    /// The head of the answer.
    pub served: Served,
    /// The whole body, if it is no stream.
    pub body: Bytes,
}

/// An event of a [`Byoc`](super::Byoc).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Find orchestrators and [offer](super::Byoc::offer) them, even if there are none.
    Find,
    /// A request was sent.
    Trying(JobId, Box<Trying>),
    /// A stream of events begins.
    Head(JobId, Box<Served>),
    /// Bytes of a stream of events: whole lines.
    Chunk(JobId, Bytes),
    /// The job is done; its last event.
    Done(JobId, Box<Done>),
    /// The job failed; its last event.
    Failed(JobId, Box<Failed>),
    /// News of a stream.
    Stream(JobId, Box<StreamEvent>),
    /// An orchestrator took a payment.
    Paid(Url, Box<Paid>),
    /// How remote signers have been, whenever that has changed.
    Signers(SignerHealth),
}

/// Why a job was not done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Failed {
    /// The container refused the request, with these words.
    Caller {
        /// The container's status.
        status: u16,
        /// The container's words.
        text: String,
    },
    /// Nobody offers the container.
    NoOrchestrator {
        /// Orchestrators that were asked.
        attempts: Vec<Attempt>,
    },
    /// Nobody did it.
    Exhausted {
        /// Whether at least one was reached.
        reached: bool,
        /// Orchestrators that were asked.
        attempts: Vec<Attempt>,
    },
    /// The container may have done it, and nobody knows. Others were not asked, for want of leave.
    Undecided {
        /// Orchestrators that were asked; the last one may have done it.
        attempts: Vec<Attempt>,
    },
    /// The answer broke off.
    Broken {
        /// The orchestrator.
        url: Url,
        /// How.
        cause: Cause,
    },
    /// Our own side failed.
    Ours(Box<Failure>),
    /// The owner closed everything.
    Closed,
}

impl Failed {
    /// The status to answer a caller with (jobs spec 4.3).
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Caller { status, .. } => *status,
            Self::NoOrchestrator { .. } => 400,
            Self::Exhausted { reached: true, .. } | Self::Broken { .. } => 502,
            Self::Exhausted { reached: false, .. } | Self::Closed => 503,
            Self::Undecided { .. } => 504,
            Self::Ours(_) => 500,
        }
    }

    /// Orchestrators that were asked for it in vain.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        match self {
            Self::NoOrchestrator { attempts }
            | Self::Exhausted { attempts, .. }
            | Self::Undecided { attempts } => attempts,
            Self::Caller { .. } | Self::Broken { .. } | Self::Ours(_) | Self::Closed => &[],
        }
    }

    /// The text to answer a caller with. `capability` is the container's name.
    #[must_use]
    pub fn text(&self, capability: &str) -> String {
        match self {
            Self::Caller { text, .. } => text.clone(),
            Self::NoOrchestrator { .. } => {
                alloc::format!("No orchestrators found for capability {capability}")
            }
            Self::Exhausted { .. } => "no orchestrator could process the job".into(),
            Self::Undecided { .. } => {
                "no answer came from the orchestrator that has the job; it may have been done"
                    .into()
            }
            Self::Broken { .. } => "the answer broke off".into(),
            Self::Ours(_) => "the gateway cannot pay for the job".into(),
            Self::Closed => "the gateway is closing".into(),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = match self {
            Self::Caller { status, text } => {
                let text = cut(text.trim());
                return write!(f, "the container refused the request ({status}): {text}");
            }
            Self::Broken { url, cause } => {
                return write!(f, "the answer of {url} broke off: {cause}");
            }
            Self::Ours(failure) => return write!(f, "{failure}"),
            Self::Closed => return f.write_str("everything was closed"),
            Self::NoOrchestrator { attempts } if attempts.is_empty() => {
                return f.write_str("no orchestrator was found");
            }
            Self::NoOrchestrator { attempts } => {
                write!(
                    f,
                    "no orchestrator offers the container ({} asked)",
                    attempts.len()
                )?;
                attempts
            }
            Self::Exhausted { attempts, .. } => {
                write!(f, "no orchestrator did the job ({} asked)", attempts.len())?;
                attempts
            }
            Self::Undecided { attempts } => {
                f.write_str(
                    "the orchestrator that has the job did not answer, and may have done it; it may be given to another \
                     one if it may run twice",
                )?;
                attempts
            }
        };
        for Attempt { url, left } in attempts {
            write!(f, "; {url}: {left}")?;
        }
        Ok(())
    }
}

/// A stream to be started.
#[derive(Clone, Debug)]
pub struct StreamOrder {
    /// The job, [checked](JobRequest::check). Its parameters say which channels are wanted, its time is how long an
    /// orchestrator may take to start the stream. The name of the stream is drawn anew for each start.
    pub job: JobRequest,
    /// The container's first parameters.
    pub params: Option<Params>,
    /// Whether another orchestrator may start the stream where nobody knows if one runs it already: it may run, and be paid,
    /// twice.
    pub may_repeat: bool,
    /// How long to look for an orchestrator, if the order says so.
    pub search_within: Option<Duration>,
    /// How long an orchestrator may take for a token, if the order says so.
    pub token_within: Option<Duration>,
}

impl StreamOrder {
    /// A stream without parameters, which is never run twice.
    #[must_use]
    pub const fn new(job: JobRequest) -> Self {
        Self {
            job,
            params: None,
            may_repeat: false,
            search_within: None,
            token_within: None,
        }
    }

    /// Checks whether the stream can be ordered at all.
    ///
    /// # Errors
    /// If the job is none.
    pub fn check(&self) -> Result<(), BadJob> {
        self.job.check()
    }
}

/// Names a change of a stream's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpdateId(pub(super) u64);

/// An event of a stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StreamEvent {
    /// An orchestrator is asked to start it.
    Trying(Trying),
    /// The stream runs.
    Begun(Box<Begun>),
    /// The session of that number is given up; its channels are dead.
    Left(u32),
    /// The orchestrator was lost, and why. Another one is looked for, or the end follows.
    Lost(Url, Failure),
    /// The container said something.
    Runner(RunnerEvent),
    /// A change of the parameters was answered, or why it was not.
    Updated(UpdateId, Result<StreamAnswer, Box<Failure>>),
    /// The last event: the words of the container at an end in order, or why there was another.
    Ended(Result<Bytes, Box<Failed>>),
}

/// A stream that runs at an orchestrator.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The orchestrator.
    pub url: Url,
    /// The number of the session, from zero: each has its own channels.
    pub session: u32,
    /// The channels.
    pub channels: StreamChannels,
    /// The price of a second.
    pub price: Price,
    /// Orchestrators that had the stream before.
    pub swaps: u32,
    /// Orchestrators that did not start it.
    pub attempts: Vec<Attempt>,
}

/// The container's answer to a request about a stream, as its orchestrator gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAnswer {
    /// The status.
    pub status: u16,
    /// The type of the body; may be empty.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}
