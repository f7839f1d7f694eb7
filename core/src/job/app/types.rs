//! Settings, wishes, events and results of renting an app.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use crate::error::{Cause, Failure, Party};
use crate::http::{Headers, Method, Trust, Url};
use crate::payment::Unit;
use crate::payment::session::{self, Paid};
use crate::prefer::Limits;
use crate::signers::SignerHealth;
use crate::wire::app::Session;
use crate::wire::runner::{Runner, RunnerPrice};

/// Settings of a [`Rental`](super::Rental).
#[derive(Clone, Debug)]
pub struct Config {
    /// Certificates that are good enough for orchestrators.
    pub trust: Trust,
    /// Orchestrators whose runners may work, by the lists of names: a runner has the host of its orchestrator, and tells no
    /// account.
    pub limits: Limits,
    /// Payments: ceilings, and what leaves at most. The unit is the runner's.
    pub payment: session::Config,
    /// How long a listing, a reservation and a stop may take each.
    pub within: Duration,
    /// How long the head of an answer to a call may take.
    pub head_within: Duration,
    /// How long a call may be silent once its answer has begun; beyond HTTP, neither side says anything.
    pub silence: Duration,
    /// How long a call may last that has left HTTP.
    pub socket_within: Duration,
    /// At the latest so often metered work is paid.
    pub interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trust: Trust::FirstUse,
            limits: Limits::default(),
            payment: session::Config::new(Unit::Seconds),
            within: Duration::from_secs(5),
            // Queues of the network's apps take that long.
            head_within: Duration::from_secs(600),
            silence: Duration::from_secs(600),
            socket_within: Duration::from_secs(24 * 3_600),
            // A little before whole seconds, which is how they are billed.
            interval: Duration::from_millis(4_900),
        }
    }
}

/// The use that is made of an app.
#[derive(Clone, Debug)]
pub enum Use {
    /// A session, until it is closed.
    Session,
    /// A single request.
    Call(Call),
    /// None: the runners that fit are told.
    List,
}

/// A request to an app.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The app's own path, with its query; may be empty.
    pub path: String,
    /// Header fields. Those that are [ours](crate::wire::app::passes) are left out.
    pub headers: Headers,
    /// The body. It is sent again with the payment.
    pub body: Bytes,
    /// The protocol to leave HTTP for, such as `websocket`: the request has no body then. An app that grants it answers
    /// with status [101](crate::http::SWITCHING), and bytes pass both ways.
    pub upgrade: Option<String>,
    /// Whether another runner may get the request where one may have worked on it: it may run, and be paid, twice.
    pub may_repeat: bool,
}

impl Call {
    /// A POST with a body.
    #[must_use]
    pub const fn post(path: String, body: Bytes) -> Self {
        Self {
            method: Method::Post,
            path,
            headers: Headers::new(),
            body,
            upgrade: None,
            may_repeat: false,
        }
    }

    /// A request without a body.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            ..Self::post(path.into(), Bytes::new())
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_any(name, value);
        self
    }

    /// Sets the body, and its type.
    #[must_use]
    pub fn with_body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.with_header("content-type", content_type)
    }

    /// Sets the protocol to leave HTTP for.
    #[must_use]
    pub fn with_upgrade(mut self, protocol: impl Into<String>) -> Self {
        self.upgrade = Some(protocol.into());
        self
    }

    /// Whether asking twice does no harm.
    pub(super) const fn is_safe(&self) -> bool {
        self.may_repeat || matches!(self.method, Method::Get | Method::Head | Method::Options)
    }
}

/// The head of an app's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The runner.
    pub runner: Url,
    /// The status; also one by which the app refuses.
    pub status: u16,
    /// Header fields that pass.
    pub headers: Headers,
    /// The runner's price, as its list had it; `None` where nothing is paid for this answer alone.
    pub price: Option<RunnerPrice>,
}

/// A runner that was not rented, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The runner, or the orchestrator whose list could not be had.
    pub url: Url,
    /// Why not.
    pub why: Failure,
}

/// An event of a [`Rental`](super::Rental).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The runners that fit, best first; the last event.
    Listed(Vec<Runner>),
    /// A runner is asked.
    Trying(Url),
    /// A session is there, and paid from now on, if it costs anything.
    Reserved {
        /// The session.
        session: Session,
        /// The runner.
        runner: Url,
    },
    /// The answer to a call begins.
    Head(Box<Answer>),
    /// Bytes of the answer; beyond HTTP, of the app.
    Data(Bytes),
    /// The app of a call that has left HTTP takes bytes again.
    Room,
    /// The answer to the call is complete; the last event.
    Done,
    /// The orchestrator took a payment.
    Paid(Box<Paid>),
    /// Payments cannot be made, and why. What was paid lasts for a while.
    Trouble(Box<Failure>),
    /// How remote signers have been.
    Signers(SignerHealth),
    /// The orchestrator has ended the session; the last event.
    Released,
    /// The session was stopped; the last event.
    Closed,
    /// There is no session, or no answer; the last event.
    Failed(Box<Failed>),
}

/// Why nothing came of it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Failed {
    /// No listing has a runner that fits.
    NoRunner {
        /// Listings that could not be had.
        attempts: Vec<Attempt>,
    },
    /// Nobody took it.
    Exhausted {
        /// Runners that were asked.
        attempts: Vec<Attempt>,
    },
    /// The app may have worked on the request, and nobody knows. Others were not asked, for want of leave.
    Undecided {
        /// The runner.
        runner: Url,
        /// The cause.
        cause: Cause,
    },
    /// The answer broke off.
    Broken {
        /// The runner.
        runner: Url,
        /// How.
        cause: Cause,
    },
    /// Our own side failed.
    Ours(Box<Failure>),
}

impl Failed {
    /// How many payments could not be made, as far as that is why.
    pub(crate) fn unmade_payments(&self) -> u64 {
        let of_others = |attempt: &&Attempt| {
            !matches!(
                attempt.why.who,
                Party::Orchestrator(_) | Party::Discovery(_)
            )
        };
        match self {
            Self::Exhausted { attempts } => attempts.iter().filter(of_others).count() as u64,
            Self::Ours(_) => 1,
            _ => 0,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = match self {
            Self::NoRunner { attempts } => {
                f.write_str("no orchestrator lists a runner that fits")?;
                attempts
            }
            Self::Exhausted { attempts } => {
                write!(f, "no runner took it ({} asked)", attempts.len())?;
                attempts
            }
            Self::Undecided { runner, cause } => {
                return write!(
                    f,
                    "the app at {runner} did not answer, and may have worked on the request, which may be made to another \
                     one if it may run twice: {cause}"
                );
            }
            Self::Broken { runner, cause } => {
                return write!(f, "the answer of {runner} broke off: {cause}");
            }
            Self::Ours(failure) => return write!(f, "{failure}"),
        };
        for Attempt { url, why } in attempts {
            write!(f, "; {url}: {}", why.cause)?;
        }
        Ok(())
    }
}
