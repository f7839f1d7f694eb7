//! A runner: an app that is rented out, and whoever rents it.

use std::collections::BTreeMap;

use livepeer_core::http::Url;
use livepeer_core::machine::earlier;
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::Unit;
use livepeer_core::sign::keccak;
use livepeer_core::trickle::server::ReaderId;
use livepeer_core::wire::app::registration::{ChannelInfo, HEARTBEAT_TTL};
use livepeer_core::wire::runner::{self as wire, Mode, RunnerPrice};
use livepeer_core::{Address, EffectId, Time};

use super::names::base32;
use super::{App, AppPrice, SWEPT_EVERY};

/// An app that is rented out.
pub(super) struct Runner {
    pub(super) app: App,
    /// Whether it takes work.
    pub(super) ready: bool,
    /// Why it has no price, although it should.
    pub(super) unpriced: Option<String>,
    /// Behind the secrets of its sessions.
    seed: [u8; 32],
    /// `None` for one that the operator set up.
    pub(super) registered: Option<Registration>,
    pub(super) sessions: BTreeMap<String, Rented>,
}

/// A runner's own claim to be there.
pub(super) struct Registration {
    /// The secret for signs of life.
    pub(super) secret: String,
    pub(super) last_beat: Time,
    /// The channel that tells it of its sessions.
    pub(super) news: ChannelInfo,
    /// When it hears on that channel that it is still open.
    pub(super) next_keep: Time,
}

/// A session, or a single call, with a runner.
pub(super) struct Rented {
    pub(super) payer: Address,
    /// The price that is paid; `None` if nothing is.
    pub(super) price: Option<AppPrice>,
    /// The address that nobody guesses, if the session has one for its app.
    pub(super) public: Option<String>,
    /// Addresses that nobody guesses, and the programs that they lead to; `None` is the runner's own.
    pub(super) proxies: BTreeMap<String, Option<Url>>,
    /// Channels, by the names that the runner gave them.
    pub(super) channels: BTreeMap<String, ChannelInfo>,
    /// Readers whose segments are sent out again.
    pub(super) copies: Vec<ReaderId>,
    /// The call that it was rented for.
    pub(super) shot: Option<EffectId>,
}

impl Rented {
    pub(super) const fn new(payer: Address, price: Option<AppPrice>) -> Self {
        Self {
            payer,
            price,
            public: None,
            proxies: BTreeMap::new(),
            channels: BTreeMap::new(),
            copies: Vec::new(),
            shot: None,
        }
    }
}

impl AppPrice {
    /// The price as payments know it.
    pub(super) fn price(self) -> Price {
        Price::new(self.wei, 1).unwrap_or(Price::FREE)
    }

    pub(super) fn is_fixed(self) -> bool {
        self.unit == Unit::Fixed
    }
}

impl Runner {
    pub(super) const fn new(app: App, seed: [u8; 32]) -> Self {
        Self {
            app,
            ready: true,
            unpriced: None,
            seed,
            registered: None,
            sessions: BTreeMap::new(),
        }
    }

    /// Whether a registered runner was silent for too long. It is looked for only now and then.
    pub(super) fn is_gone(&self, now: Time) -> bool {
        let registered = self.registered.as_ref();
        registered.is_some_and(|registered| registered.last_beat + HEARTBEAT_TTL <= now)
    }

    /// When something is to be done.
    pub(super) fn wake(&self) -> Option<Time> {
        let registered = self.registered.as_ref()?;
        let swept = registered.last_beat + HEARTBEAT_TTL + SWEPT_EVERY;
        earlier(Some(swept), Some(registered.next_keep))
    }

    /// How many places are free.
    pub(super) fn free(&self) -> u32 {
        let taken = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        self.app.capacity.saturating_sub(taken)
    }

    /// The secret of a session.
    pub(super) fn token(&self, session: &str) -> String {
        base32(&keccak(&[&self.seed, b"session", session.as_bytes()]))
    }

    /// The runner as the listing has it; `None` for one without the price that it should have.
    pub(super) fn listed(&self, service: &Url, name: &str, priced: bool) -> Option<wire::Runner> {
        if priced && self.unpriced.is_some() {
            return None;
        }
        let app = &self.app;
        let what = match app.mode {
            Mode::Persistent => "session",
            Mode::SingleShot => "app",
        };
        let price = app.price.filter(|_| priced).map(|price| RunnerPrice {
            wei: price.price().of_one(),
            unit: price.unit,
        });
        Some(wire::Runner {
            url: service.with_path(&format!("/apps/{name}/{what}")),
            app: app.name.clone(),
            version: app.version.clone(),
            mode: Some(app.mode),
            capacity: app.capacity,
            used: app.capacity - self.free(),
            available: self.free(),
            gpu: app.gpu.clone(),
            metadata: app.metadata.clone(),
            price,
        })
    }
}

/// The reference's words for a balance that does not cover a fixed price.
pub(super) fn short(session: &str, fee: &Amount, balance: &Amount) -> String {
    let (fee, balance) = (fee.whole_wei(), balance.whole_wei());
    format!("insufficient balance, mid={session}, fee={fee}, balance={balance}")
}
