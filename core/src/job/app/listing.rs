//! Lists of runners, and the candidates among them.

use super::choice::choose;
use super::types::{Attempt, Event, Use};
use super::{MAX_LISTING, Rental, State, refused};
use crate::error::{Cause, Failure, Party};
use crate::exchange::{Bounds, Exchange};
use crate::http::{In, Method, Request, Url};
use crate::machine::EffectId;
use crate::sign::Address;
use crate::wire::app::{DISCOVERY_PATH, discovery_url};
use crate::wire::listing::{MAX_LIST_BYTES, read_runners};
use crate::wire::runner::Mode;

impl Rental {
    pub(super) fn begin(&mut self) {
        if !matches!(self.plan, Use::List) {
            self.introducing.ask(self.now, &mut self.out);
        }
        self.list();
        self.run();
    }

    /// Asks for the next lists, and chooses once all have come.
    pub(super) fn list(&mut self) {
        if !matches!(self.state, State::Listing) {
            return;
        }
        while self.listing.len() < MAX_LISTING
            && let Some(orchestrator) = self.to_list.pop_front()
        {
            let apps = self.wanted.apps.iter().map(alloc::string::String::as_str);
            let gpus = self.wanted.gpus.iter().map(alloc::string::String::as_str);
            let url = discovery_url(&orchestrator, apps, gpus);
            let request = Request::new(Method::Get, url)
                .header("accept", "application/json")
                .trust(self.config.trust);
            let bounds = self.bounds("a request for a list of runners", MAX_LIST_BYTES);
            let exchange = Exchange::start(&mut self.out, self.now, request, bounds);
            if let Some(id) = exchange.id() {
                self.listing.insert(id, (orchestrator, exchange));
            }
        }
        let mode = match self.plan {
            Use::Session => Some(Mode::Persistent),
            Use::Call(_) => Some(Mode::SingleShot),
            Use::List => None,
        };
        let asks_for_work = mode.is_some();
        if !self.listing.is_empty() || (asks_for_work && self.introducing.known().is_none()) {
            return;
        }
        let limits = &self.config.limits;
        let listed = core::mem::take(&mut self.listed).into_iter();
        let listed = listed.filter(|runner| limits.admit(&runner.url, Address::ZERO));
        let chosen = choose(self.now, &self.wanted, mode, &self.history, listed);
        if !asks_for_work && !chosen.is_empty() {
            return self.end(Event::Listed(chosen));
        }
        self.candidates = chosen.into();
        self.next();
    }

    pub(super) const fn bounds(&self, doing: &'static str, limit: usize) -> Bounds {
        Bounds {
            doing,
            what: "the answer in bytes",
            limit,
            within: self.config.within,
            redirects: false,
        }
    }

    pub(super) fn on_listed(&mut self, id: EffectId, step: In) {
        let Some((_, exchange)) = self.listing.get_mut(&id) else {
            return;
        };
        let Some(told) = exchange.step(&mut self.out, step) else {
            return;
        };
        let Some((url, _)) = self.listing.remove(&id) else {
            return;
        };
        let runners = told.and_then(|reply| match reply.status {
            200 => read_runners(&reply.body)
                .map(|(runners, _)| runners)
                .map_err(Cause::from),
            status => Err(refused("to list runners", status, &reply.body)),
        });
        match runners {
            Ok(runners) => {
                // Whoever lists a runner says where it is.
                let named = runners.into_iter().filter_map(|mut runner| {
                    runner.url = runner.url.named_by(&url).ok()?;
                    Some(runner)
                });
                self.listed.extend(named);
            }
            Err(cause) => self.not_listed(url, cause),
        }
        self.list();
    }

    pub(super) fn not_listed(&mut self, url: Url, cause: Cause) {
        let why = Failure::new(Party::Orchestrator(url.clone()), cause);
        let url = url.with_path(DISCOVERY_PATH);
        self.attempts.push(Attempt { url, why });
    }
}
