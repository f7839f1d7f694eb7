//! Preferences about who does a job: those of one request, and the policies of a gateway (front-door spec 2).

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::http::Url;
use crate::money::Amount;
use crate::sign::Address;

/// At most this many orchestrators are named in one list.
pub const MAX_NAMED: usize = 32;

/// An orchestrator as people name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// The account that is paid.
    Address(Address),
    /// Scheme, host and port of its URL.
    Origin(String),
    /// The host, and its port unless any will do.
    Host(String, Option<u16>),
    /// A text that is somewhere in its URL, as senders of live video name it.
    Part(String),
}

impl Named {
    /// Whether an orchestrator at that URL, paid at that account, is the one that is named.
    #[must_use]
    pub fn is(&self, url: &Url, account: Address) -> bool {
        match self {
            Self::Address(address) => *address == account,
            Self::Origin(origin) => url.origin() == *origin,
            Self::Host(host, port) => {
                url.host().eq_ignore_ascii_case(host) && port.is_none_or(|port| url.port() == port)
            }
            Self::Part(part) => url.to_string().contains(part.as_str()),
        }
    }
}

/// The order in which orchestrators are tried; the others wait in the order of the draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The cheapest per unit first.
    Price,
    /// The quickest to a first byte first.
    Latency,
    /// The most units per second first.
    Throughput,
}

/// The most that a job may cost. All that are set hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaxPrice {
    /// Wei for a unit, whatever the unit of the pipeline is.
    pub unit: Option<Amount>,
    /// Wei for the whole request.
    pub request: Option<Amount>,
    /// Wei for each token of an answer.
    pub token: Option<Amount>,
    /// Wei for each picture.
    pub image: Option<Amount>,
    /// Wei for each millisecond of audio.
    pub millisecond: Option<Amount>,
}

/// A limit on who may do a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Nobody else, if there is such a list; an empty one excludes everybody.
    pub only: Option<Vec<Named>>,
    /// None of these.
    pub ignore: Vec<Named>,
    /// The most that is paid.
    pub max_price: MaxPrice,
    /// Only those that have the model loaded.
    pub require_warm: bool,
}

impl Limits {
    /// Whether the lists of names admit an orchestrator at that URL, paid at that account.
    #[must_use]
    pub fn admit(&self, url: &Url, account: Address) -> bool {
        let named = |list: &[Named]| list.iter().any(|named| named.is(url, account));
        self.only.as_deref().is_none_or(named) && !named(&self.ignore)
    }
}

/// The preferences of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preferences {
    /// The limits that the caller sets. They narrow those of the gateway, and never widen them.
    pub limits: Limits,
    /// Orchestrators to be tried first, in this order; who is not there is passed over.
    pub order: Vec<Named>,
    /// Whether others are tried too: without it nobody beside `order` is, or without an `order` only one.
    pub allow_fallbacks: bool,
    /// The order of the rest; drawn by the pool's policy if nothing is said.
    pub sort: Option<Sort>,
    /// Whether parameters that a pipeline does not have are an error instead of being left out.
    pub require_parameters: bool,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            order: Vec::new(),
            allow_fallbacks: true,
            sort: None,
            require_parameters: false,
        }
    }
}

impl Preferences {
    /// Whether a job that fails at the first orchestrator is over.
    #[must_use]
    pub const fn is_single_try(&self) -> bool {
        !self.allow_fallbacks && self.order.is_empty()
    }
}
