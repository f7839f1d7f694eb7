//! Apps that an orchestrator rents out (live runners, jobs spec 6): their listing, sessions, calls and payments.
//!
//! ```text
//!                    ┌──────────── a demand for payment, 402 ◀── priced, no payment headers
//!  reserve, call ──▶ checks ──▶ place taken ──▶ AwaitingReceipt ──▶ rented ──▶ answered, or handed on ──▶ released
//!                    │                               └─ refused: place free ◀── balance (fixed prices)
//!                    └─ refused
//! ```
//!
//! Checks are made in the order of the reference (client-1.0 6.2): runner known and ready 404, mode 400, price at hand 503,
//! the demand 402, payment 402, credentials 403, session 403, fixed price 400, name in use 409, place 503, tickets 400,
//! fixed price not on account 400. A session of a runner is released by whoever rents, by the runner, when it is not paid
//! for, and with its runner. A free one has no other end. Whoever leaves before the answer to a reservation has a session.

mod call;
mod live;
mod names;
mod paying;
mod route;
mod runner;
mod runners;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Method, Out};
use livepeer_core::machine::earlier;
use livepeer_core::payment::Unit;
use livepeer_core::wire::app::{Session, listing_json};
use livepeer_core::wire::runner::{Gpu, Mode, Runner as Listed};
use livepeer_core::{Address, EffectId, Time};

use super::event::{Event, Surface};
use super::paid::No;
use super::workers::Worker;
use super::{Orchestrator, account, wire};

pub(super) use call::Call;
pub(super) use paying::Renting;
pub(super) use route::Ask;
use route::Route;
use runner::{Rented, Runner};

/// At most this many runners register.
pub const MAX_RUNNERS: usize = 1_000;

/// At most this many sessions at once, with all runners together.
pub const MAX_SESSIONS: usize = 10_000;

/// How often a registered runner that went silent is looked for.
const SWEPT_EVERY: Duration = Duration::from_secs(5);

/// An app that is rented out.
#[derive(Clone, Debug)]
pub struct App {
    /// The name by which it is looked for.
    pub name: String,
    /// How one works with it.
    pub mode: Mode,
    /// The program behind it.
    pub worker: Worker,
    /// How many sessions, or calls, at once.
    pub capacity: u32,
    /// The price; `None` takes nothing. Without a chain nothing is paid.
    pub price: Option<AppPrice>,
    /// Whether sessions get an address that nobody guesses.
    pub proxy: bool,
    /// The version of the program; may be empty.
    pub version: String,
    /// The operator's own words.
    pub metadata: Option<String>,
    /// The GPU that it runs on.
    pub gpu: Option<Gpu>,
}

/// The price of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppPrice {
    /// Wei for a unit; more than nothing.
    pub wei: i64,
    /// The unit.
    pub unit: Unit,
}

impl App {
    /// An app for nothing that takes four sessions, or calls, at once.
    #[must_use]
    pub fn new(name: impl Into<String>, mode: Mode, worker: Worker) -> Self {
        Self {
            name: name.into(),
            mode,
            worker,
            capacity: 4,
            price: None,
            proxy: false,
            version: String::new(),
            metadata: None,
            gpu: None,
        }
    }
}

/// The apps of an orchestrator.
#[derive(Default)]
pub(super) struct Apps {
    /// By the name in their address.
    runners: BTreeMap<String, Runner>,
    /// The runner and the session of each address that nobody guesses.
    proxies: BTreeMap<String, (String, String)>,
    /// How many signs of life came from registered runners.
    beats: u32,
}

impl Apps {
    pub(super) fn new(all: &BTreeMap<String, App>, mut seed: impl FnMut() -> [u8; 32]) -> Self {
        let runner = |app: &App, seed| Runner::new(app.clone(), seed);
        Self {
            runners: all
                .iter()
                .map(|(name, app)| (name.clone(), runner(app, seed())))
                .collect(),
            ..Self::default()
        }
    }

    /// When something is to be done.
    pub(super) fn wake(&self) -> Option<Time> {
        let wakes = self.runners.values().map(Runner::wake);
        wakes.fold(None, earlier)
    }

    /// A runner that can be reached at all.
    fn live(&self, now: Time, name: &str) -> Result<&Runner, No> {
        let runner = self.runners.get(name).filter(|runner| !runner.is_gone(now));
        runner.ok_or_else(|| no(404, "runner not found"))
    }

    /// A runner that takes work.
    fn ready(&self, now: Time, name: &str) -> Result<&Runner, No> {
        let runner = self.live(now, name)?;
        if !runner.ready {
            return Err(no(404, "runner not found"));
        }
        Ok(runner)
    }

    /// A session, of a runner that takes work.
    fn rented(&self, now: Time, runner: &str, session: &str) -> Result<&Rented, No> {
        let rented = self.ready(now, runner)?.sessions.get(session);
        rented.ok_or_else(|| no(404, "runner session not found"))
    }

    fn rented_mut(&mut self, runner: &str, session: &str) -> Option<&mut Rented> {
        self.runners.get_mut(runner)?.sessions.get_mut(session)
    }

    /// The runner that has a session of that name for that payer.
    fn of_account(&self, payer: Address, session: &str) -> Option<String> {
        let has = |runner: &Runner| {
            runner
                .sessions
                .get(session)
                .is_some_and(|s| s.payer == payer)
        };
        self.runners
            .iter()
            .find(|(_, runner)| has(runner))
            .map(|(name, _)| name.clone())
    }
}

fn no(status: u16, text: impl Into<String>) -> No {
    No::new(Surface::App, status, text)
}

impl Orchestrator {
    /// Whether it rents out apps at all.
    pub(super) fn has_apps(&self) -> bool {
        !self.config.apps.is_empty() || self.config.register_secret.is_some()
    }

    /// Places of a runner that are free; zero for one that is not there.
    #[must_use]
    pub fn free_sessions(&self, runner: &str) -> u32 {
        self.apps.runners.get(runner).map_or(0, Runner::free)
    }

    /// The sessions that are rented, each with its runner.
    pub fn rented(&self) -> impl Iterator<Item = (&str, &str)> {
        self.apps.runners.iter().flat_map(|(name, runner)| {
            let sessions = runner.sessions.keys();
            sessions.map(move |session| (name.as_str(), session.as_str()))
        })
    }

    /// A request about apps is complete. `None` if its answer comes later.
    pub(super) fn app_asked(
        &mut self,
        now: Time,
        id: EffectId,
        ask: Ask,
        body: Bytes,
    ) -> Result<Option<Vec<Out>>, No> {
        let answer = match &ask.route {
            Route::Listing => {
                let listed = listing_json(&self.config.service, &self.runners(now));
                wire::bytes_reply(200, wire::JSON, listed)
            }
            Route::Reserve { runner } => return self.reserve(now, id, &runner.clone(), ask),
            Route::Payment { runner, session } => {
                return self.session_payment(now, id, runner, session, &ask.paid);
            }
            Route::Stop { runner, session } => {
                self.apps.live(now, runner)?;
                self.release(now, runner, session);
                Out::Reply(livepeer_core::http::Response::new(204))
            }
            Route::Call {
                runner,
                session,
                path,
            } => {
                self.apps.rented(now, runner, session)?;
                let to = (runner.clone(), session.clone());
                let path = path.clone();
                self.call_session(now, id, to, path, ask, body);
                return Ok(None);
            }
            Route::Proxy { name, path } => {
                let (name, path) = (name.clone(), path.clone());
                return self.call_proxy(now, id, &name, path, ask, body);
            }
            Route::Shot { runner, path } => {
                let (runner, path) = (runner.clone(), path.clone());
                return self.shoot(now, id, &runner, path, ask, body);
            }
            Route::Heartbeat => self.heartbeat(now, &ask.secret, &body)?,
            Route::Unregister { runner } => self.unregister(now, runner, &ask.secret)?,
            Route::Channels { runner, session } => {
                self.check_token(now, runner, session, &ask.token)?;
                match ask.method {
                    Method::Delete => self.remove_channels(now, runner, session, &body)?,
                    _ => self.make_channels(now, runner, session, &body)?,
                }
            }
            Route::MakeProxy { runner, session } => {
                self.check_token(now, runner, session, &ask.token)?;
                self.make_proxy(runner, session, &body)?
            }
            Route::SelfStop { runner, session } => {
                self.check_token(now, runner, session, &ask.token)?;
                self.release(now, runner, session);
                Out::Reply(livepeer_core::http::Response::new(204))
            }
        };
        Ok(Some(vec![answer]))
    }

    /// The runners that take work, as the listing has them.
    #[must_use]
    pub fn runners(&self, now: Time) -> Vec<Listed> {
        let service = &self.config.service;
        let ready = self.apps.runners.iter();
        ready
            .filter(|(_, runner)| runner.ready && !runner.is_gone(now))
            .filter_map(|(name, runner)| runner.listed(service, name, self.till.is_some()))
            .collect()
    }

    /// Where the sessions of a runner are reserved.
    fn sessions_url(&self, runner: &str) -> livepeer_core::http::Url {
        self.config
            .service
            .with_path(&format!("/apps/{runner}/session"))
    }

    /// Rents a place of a runner to a payer.
    fn rent(&mut self, now: Time, name: &str, session: String, rented: Rented) -> Result<(), No> {
        let all: usize = self
            .apps
            .runners
            .values()
            .map(|runner| runner.sessions.len())
            .sum();
        let runner = self.apps.ready(now, name)?;
        if runner.sessions.contains_key(&session) {
            return Err(no(409, "session already exists"));
        }
        if runner.free() == 0 || all >= MAX_SESSIONS {
            return Err(no(503, "no capacity available for runner"));
        }
        let proxied = runner.app.proxy && runner.app.mode == Mode::Persistent;
        let payer = rented.payer;
        if let Some(runner) = self.apps.runners.get_mut(name) {
            runner.sessions.insert(session.clone(), rented);
        }
        if proxied {
            self.add_proxy(name, &session, None);
        }
        self.tell_runner(now, name, &session, true);
        self.out.event(Event::Rented {
            runner: name.to_owned(),
            session,
            payer,
        });
        Ok(())
    }

    /// The answer to a reservation.
    fn reserved(&self, runner: &str, session: &str) -> Out {
        let mut told = Session::at(&self.sessions_url(runner), session);
        let rented = self
            .apps
            .runners
            .get(runner)
            .and_then(|runner| runner.sessions.get(session));
        if let Some(proxy) = rented.and_then(|rented| rented.public.as_ref()) {
            told.app = self.config.service.with_path(&format!("/run/{proxy}"));
        }
        wire::bytes_reply(200, wire::JSON, told.to_json())
    }

    /// Ends a session. Nothing happens if there is none of that name.
    fn release(&mut self, now: Time, name: &str, session: &str) {
        let runner = self.apps.runners.get_mut(name);
        let Some(rented) = runner.and_then(|runner| runner.sessions.remove(session)) else {
            return;
        };
        for proxy in rented.proxies.keys() {
            self.apps.proxies.remove(proxy);
        }
        for reader in &rented.copies {
            self.end_copy(*reader);
        }
        for channel in rented.channels.values() {
            self.server.delete_channel(now, &channel.channel_name);
        }
        if let Some(till) = &mut self.till {
            till.get_mut().stop_meter(&account(rented.payer, session));
        }
        self.tell_runner(now, name, session, false);
        self.out.event(Event::Released {
            runner: name.to_owned(),
            session: session.to_owned(),
        });
        if let Some(id) = rented.shot {
            self.cut_call(now, id);
        }
    }

    /// A session is not paid for any more. False if there is none.
    pub(super) fn session_exhausted(&mut self, now: Time, payer: Address, session: &str) -> bool {
        let Some(runner) = self.apps.of_account(payer, session) else {
            return false;
        };
        self.release(now, &runner, session);
        true
    }

    /// Looks after registered runners. False if there was nothing to do.
    pub(super) fn apps_due(&mut self, now: Time) -> bool {
        let due = |runner: &Runner| runner.wake().is_some_and(|due| due <= now);
        let found = self.apps.runners.iter().find(|(_, runner)| due(runner));
        let Some(name) = found.map(|(name, _)| name.clone()) else {
            return false;
        };
        self.look_after(now, &name);
        true
    }

    /// Ends every session, since the orchestrator closes.
    pub(super) fn close_apps(&mut self, now: Time) {
        let all: Vec<_> = self
            .rented()
            .map(|(runner, session)| (runner.to_owned(), session.to_owned()))
            .collect();
        for (runner, session) in all {
            self.release(now, &runner, &session);
        }
    }
}
