//! Remote signers for one account: where they are, what only they are told, and how they have been.
//!
//! [`Signers`] is the value that a handshake asks for an identity and a payment session for payments. Each asks in an
//! order of its own, and notes in [`SignerHealth`] how the signers answer.
//!
//! ```text
//!              failed: rests for FIRST_REST                    failed: twice as long, up to LONGEST_REST
//!  Healthy ───────────────────────────────────▶ Resting(until) ◀──┐
//!     ▲  ▲                                        │  │  └──────────┘
//!     │  └───────────── answered ─────────────────┘  │ until: in its place again, and on trial:
//!     └──────────────────────────────────────────────┘ one more failure makes it rest for twice as long
//! ```
//!
//! A signer that rests is asked after all others, when they failed too. What one machine learned is taken along to
//! the next one with [`SignerHealth::merge`]: it is a plain value, and the later news of each signer counts.

mod health;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::error::Party;
use crate::http::{Body, Headers, Method, Request, Trust, Url};
use crate::time::Time;

pub use health::{FIRST_REST, LONGEST_REST, MAX_SIGNERS, SignerHealth, Standing};
pub(crate) use health::{all_failed, note};

/// Where remote signers for one account are, in the order in which they are asked, and how they have been.
#[derive(Clone, Debug)]
pub struct Signers {
    /// At least one; only the origin of each is used.
    urls: Vec<Url>,
    headers: Headers,
    trust: Trust,
    health: SignerHealth,
}

impl Signers {
    /// A single signer, publicly trusted. The path of `url` does not matter.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self {
            urls: alloc::vec![url],
            headers: Headers::new(),
            trust: Trust::Public,
            health: SignerHealth::default(),
        }
    }

    /// Another signer for the same account, asked when those before it gave nothing, or not soon.
    #[must_use]
    pub fn or(mut self, url: Url) -> Self {
        self.urls.push(url);
        self
    }

    /// Header fields for signers, such as an authorization. They go nowhere else (handshake spec 16-14).
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Certificates that are good enough for the signers. The headers may be secret.
    #[must_use]
    pub const fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// With what is known of how they have been: a signer that rests is asked last.
    #[must_use]
    pub fn health(mut self, health: SignerHealth) -> Self {
        self.health = health;
        self
    }

    /// Adds a header field for signers.
    pub fn add_header(&mut self, name: &str, value: &str) {
        self.headers.push_any(name, value);
    }

    /// Takes in what somebody else saw of the signers.
    pub fn learn(&mut self, seen: &SignerHealth) {
        self.health.merge(seen);
    }

    /// The addresses of the signers, in the order in which they are asked.
    #[must_use]
    pub fn urls(&self) -> &[Url] {
        &self.urls
    }

    /// The header fields for signers.
    #[must_use]
    pub const fn fields(&self) -> &Headers {
        &self.headers
    }

    /// How the signers have been.
    #[must_use]
    pub const fn seen(&self) -> &SignerHealth {
        &self.health
    }

    /// The signer at `at`, as failures name it.
    pub(crate) fn party(&self, at: usize) -> Party {
        Party::Signer(self.urls[at].clone())
    }

    /// Whether the signer at `at` is asked in its turn.
    pub(crate) fn standing(&self, now: Time, at: usize) -> Standing {
        self.health.standing(now, &self.urls[at])
    }

    /// How long the last answer of the signer at `at` took, if there was one.
    pub(crate) fn took(&self, at: usize) -> Option<Duration> {
        self.health.took(&self.urls[at])
    }

    /// Notes that the signer at `at` answered after `took`.
    pub(crate) fn answered(&mut self, now: Time, at: usize, took: Duration) {
        self.health.answered(now, &self.urls[at], took);
    }

    /// Notes that the signer at `at` gave no answer, or none that could be used.
    pub(crate) fn failed(&mut self, now: Time, at: usize) {
        self.health.failed(now, &self.urls[at]);
    }

    /// The order in which to ask now.
    pub(crate) fn order(&self, now: Time) -> VecDeque<usize> {
        self.health.order(now, &self.urls)
    }

    /// A request to the signer at `at`.
    pub(crate) fn request(&self, at: usize, path: &str, body: impl Into<Bytes>) -> Request {
        let mut request = Request::new(Method::Post, self.urls[at].with_path(path))
            .header("content-type", "application/json")
            .trust(self.trust)
            .body(Body::Full(body.into()));
        for (name, value) in self.headers.iter() {
            request.headers.push_any(name, value);
        }
        request
    }
}
