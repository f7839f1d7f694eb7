//! The things that the sessions of a port share, and the names of one.

use std::net::SocketAddr;
use std::time::Instant;

use livepeer_core::Time;
use str0m::config::DtlsCert;

/// The certificate that all sessions of a process show. Peers know it by its hash in the answer.
#[derive(Clone, Debug)]
pub struct Certificate(pub(super) DtlsCert);

impl Certificate {
    /// Makes one, with a key on P-256. This takes milliseconds: once a process, not once a session.
    ///
    /// # Panics
    /// If the crypto library cannot make a key, as on a machine without entropy.
    #[must_use]
    pub fn generate() -> Self {
        let provider = str0m::crypto::from_feature_flags();
        let made = provider.dtls_provider.generate_certificate();
        Self(made.expect("the crypto library makes certificates"))
    }
}

/// The engine's clock: an instant, and the time that it was. Only differences count, so any instant will do.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    instant: Instant,
    time: Time,
}

impl Clock {
    /// A clock on which it is `time` at `instant`.
    #[must_use]
    pub const fn new(instant: Instant, time: Time) -> Self {
        Self { instant, time }
    }

    pub(crate) fn instant(&self, time: Time) -> Instant {
        self.instant + time.since(self.time)
    }

    pub(crate) fn time(&self, instant: Instant) -> Time {
        // The engine's "never" lies a century ahead; a timer there is as good as none.
        self.time + instant.saturating_duration_since(self.instant)
    }
}

/// Our names in ICE.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) ufrag: String,
    pub(crate) password: String,
}

/// Everything that the sessions of a port share.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) clock: Clock,
    pub(crate) certificate: Certificate,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) in_step: bool,
}
