//! The states of a request from its first byte to its last (front-door spec 7.1).

use alloc::collections::BTreeMap;

use super::{Running, State};

/// The state of a request. Those between `Limiting` and `Reading`, and between `Parsed` and `Working`, in which tenants are
/// asked for and budgets reserved, come with keys of tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admission {
    /// Its head is looked at: the route, the method, whether new work is taken.
    New,
    /// A place among the requests at a time is asked for.
    Limiting,
    /// The body comes in.
    Reading,
    /// The body is looked at. The request waits there for the first search, if nobody is known yet who has its model.
    Parsed,
    /// The shell does what it asks for, and the client has nothing yet.
    Working,
    /// Work is under way, and the client comes back for the result.
    Detached,
    /// The client has the beginning of its answer.
    Answering,
}

impl Admission {
    /// The word in figures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Limiting => "limiting",
            Self::Reading => "reading",
            Self::Parsed => "parsed",
            Self::Working => "working",
            Self::Detached => "detached",
            Self::Answering => "answering",
        }
    }
}

impl Running {
    pub(super) fn admission(&self) -> Admission {
        match &self.state {
            State::Reading(_) => Admission::Reading,
            State::Parsed(_) => Admission::Parsed,
            State::Working(_) if self.exchange.is_none() => Admission::Detached,
            State::Working(job) => match &job.stream {
                Some(stream) if stream.pace.is_head_out() => Admission::Answering,
                _ => Admission::Working,
            },
            State::Relaying(_) => Admission::Answering,
            State::Fetching | State::Calling(_) => Admission::Working,
        }
    }
}

/// How many requests are in each state; those without any are left out.
pub(super) fn count<'a>(running: impl Iterator<Item = &'a Running>) -> BTreeMap<Admission, u64> {
    let mut states = BTreeMap::new();
    for running in running {
        *states.entry(running.admission()).or_default() += 1;
    }
    states
}
