//! The list of models: what the orchestrators that are known offer, within the ceilings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use futures_lite::future;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::figures::Network;
use livepeer_core::models::{Alias, MAX_LISTED, Models, Offer};
use livepeer_core::pipeline::Pipeline;
use livepeer_core::pool::{self, Offered, Tried, Why};
use livepeer_core::wire::OrchestratorInfo;
use livepeer_runtime::Runtime;
use livepeer_runtime::api::Survey;
use tracing::warn;

use super::config::Settings;
use super::wiring::{Wiring, with_places};
use crate::cmd::peers;
use crate::cmd::socket::sleep_until;

/// How soon again, while nobody is found.
const SOON: Duration = Duration::from_secs(2);
/// How long a search may take, and then how long the orchestrators.
const WITHIN: Duration = Duration::from_secs(10);

/// At most this many bytes of names are remembered that are not in the list any more.
const MAX_REMEMBERED: usize = 1 << 20;

/// When each name was first seen, in Unix seconds. Names of the list are kept, as many as there may be in it; those that
/// are not in it any more as long as there is room.
struct Since {
    names: BTreeMap<String, First>,
    /// The number of the list that is being made.
    list: u64,
}

struct First {
    at: u64,
    /// The number of the last list that had the name.
    list: u64,
}

impl Since {
    const fn new() -> Self {
        Self {
            names: BTreeMap::new(),
            list: 0,
        }
    }

    /// When a name of the list was first seen.
    fn of(&mut self, name: &str, now: u64) -> u64 {
        let list = self.list;
        if let Some(first) = self.names.get_mut(name) {
            first.list = list;
            return first.at;
        }
        if self.names.len() < 2 * MAX_LISTED {
            self.names.insert(name.to_owned(), First { at: now, list });
        }
        now
    }

    /// Ends the list. Of names that it lacks, those that lack longest are forgotten once there is no more room.
    fn tidy(&mut self) {
        let list = self.list;
        self.list += 1;
        let mut old: Vec<(u64, &String)> = { self.names.iter() }
            .filter(|(_, first)| first.list != list)
            .map(|(name, first)| (first.list, name))
            .collect();
        old.sort_unstable_by(|one, other| other.cmp(one));
        let mut room = MAX_REMEMBERED;
        let kept = old.iter().take_while(|(_, name)| {
            let left = room.checked_sub(name.len());
            room = left.unwrap_or(0);
            left.is_some()
        });
        let kept = kept.count().min(MAX_LISTED);
        let gone: Vec<String> = old[kept..]
            .iter()
            .map(|(_, name)| (*name).clone())
            .collect();
        for name in gone {
            self.names.remove(&name);
        }
    }
}

/// Keeps the list of models.
pub(super) struct Catalogue<R: Runtime> {
    wiring: Arc<Wiring<R>>,
    since: Since,
}

impl<R: Runtime> Catalogue<R> {
    pub(super) const fn new(wiring: Arc<Wiring<R>>) -> Self {
        Self {
            wiring,
            since: Since::new(),
        }
    }

    /// Asks everybody now, then as often as the configuration says, and whenever `asked` says so.
    pub(super) async fn keep(mut self, asked: Receiver<()>) {
        let driver = self.wiring.gateway().driver().clone();
        let mut anybody = false;
        loop {
            if let Some(models) = self.look().await {
                anybody |= models.iter().next().is_some();
                self.wiring.set_models(models);
            }
            let every = self.wiring.config().settings.refresh;
            let due = driver.now() + if anybody { every } else { SOON.min(every) };
            let asked = async {
                if asked.recv().await.is_err() {
                    future::pending::<()>().await;
                }
            };
            future::or(sleep_until(&driver, due), asked).await;
        }
    }

    /// The models that can be had now; `None` if nobody could be asked.
    async fn look(&mut self) -> Option<Models> {
        let config = self.wiring.config();
        let settings = &config.settings;
        let driver = self.wiring.gateway().driver();
        let found = self.found(settings).await?;
        let count = found.len();
        let found = found.iter().map(Offered::from).collect();
        let mut pool = pool::Config::default();
        pool.handshake.trust = self.wiring.peers().trust;
        pool.handshake.pin_change = self.wiring.peers().pin_change;
        pool.handshake.ignore_capacity = true;
        let payer = self.wiring.purse().payer(&settings.endpoints);
        let survey =
            Survey::take(driver, pool, &payer, Capabilities::default(), found, WITHIN).await;
        match survey {
            Ok(survey) => Some(survey.look(|pool| {
                let sessions = pool.sessions();
                self.wiring.note_network(|network| {
                    network.begin(count);
                    for Tried { url, why } in pool.tried() {
                        if let Why::Failed(failure) = why {
                            network.failed(&url.origin(), failure.cause.word());
                        }
                    }
                    for (url, session) in &sessions {
                        note(network, &url.origin(), session.info);
                    }
                });
                self.models(settings, sessions.iter().map(|(_, session)| session.info))
            })),
            Err(error) => {
                warn!(%error, "the list of models stays as it was");
                None
            }
        }
    }

    async fn found(&self, settings: &Settings) -> Option<Vec<livepeer_core::wire::listing::Found>> {
        let search = self.wiring.gateway().discover();
        let search = with_places!(search, settings, self.wiring.peers())
            .payer(peers::payer(&settings.endpoints));
        match search.within(WITHIN).find().await {
            Ok(discovered) => Some(discovered.found),
            Err(error) => {
                warn!(%error, "nobody can be looked for");
                None
            }
        }
    }

    fn models<'a>(
        &mut self,
        settings: &Settings,
        infos: impl Iterator<Item = &'a OrchestratorInfo>,
    ) -> Models {
        let now = self.wiring.gateway().driver().now().as_nanos() / 1_000_000_000;
        let mut models = Models::new();
        models.discovered();
        let everything = Capabilities::default();
        let listed = &settings.pools.pipelines;
        for info in infos {
            let Some(offered) = &info.capabilities else {
                continue;
            };
            let prices = info.prices(&everything);
            for (capability, name, model) in offered.models() {
                let pipeline = { Pipeline::ALL.iter() }
                    .find(|pipeline| pipeline.capability() == capability)
                    .filter(|pipeline| **pipeline != Pipeline::LiveVideoToVideo);
                let Some(pipeline) = pipeline.copied() else {
                    continue;
                };
                if !listed.is_empty() && !listed.contains(&pipeline) {
                    continue;
                }
                let price = prices(capability, name).map(|price| price.of_one());
                let ceiling = self.wiring.ceiling(pipeline, name);
                if price
                    .as_ref()
                    .zip(ceiling.as_ref())
                    .is_some_and(|(price, most)| price > most)
                {
                    continue;
                }
                let since = self.since.of(name, now);
                models.offer(
                    since,
                    name,
                    pipeline,
                    Offer {
                        price,
                        warm: model.warm,
                    },
                );
            }
        }
        for (name, (pipeline, model)) in &settings.aliases {
            let since = self.since.of(name, now);
            let alias = Alias {
                since,
                pipeline: *pipeline,
                model: model.clone(),
            };
            models.alias(name.as_str(), alias);
        }
        self.since.tidy();
        models
    }
}

/// Notes what an orchestrator has for live video.
fn note(network: &mut Network, url: &str, info: &OrchestratorInfo) {
    let live = Pipeline::LiveVideoToVideo.capability();
    let everything = Capabilities::default();
    let prices = info.prices(&everything);
    let offered = info.capabilities.iter().flat_map(Capabilities::models);
    for (_, model, offer) in offered.filter(|(capability, ..)| *capability == live) {
        if let Some(price) = prices(live, model) {
            network.price(url, &price.of_one());
        }
        network.containers(url, model, offer.in_use, offer.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_remembered_with_their_first_day_and_not_without_end() {
        let mut since = Since::new();
        assert_eq!(since.of("real", 1), 1);
        since.tidy();
        // Orchestrators that offer other names each minute.
        let long = "x".repeat(1_000);
        for minute in 0..20u64 {
            assert_eq!(since.of("real", 2 + minute), 1);
            for n in 0..500 {
                since.of(&format!("{minute}-{n}-{long}"), minute);
            }
            since.tidy();
            let held: usize = since.names.keys().map(String::len).sum();
            assert!(held <= MAX_REMEMBERED + 501 * 1_100, "{held}");
        }
        // One of the last is known still, one of the first is not.
        assert_eq!(since.of(&format!("18-7-{long}"), 99), 18);
        assert_eq!(since.of(&format!("3-7-{long}"), 99), 99);
        for n in 0..3 * MAX_LISTED {
            since.of(&n.to_string(), 100);
        }
        assert!(since.names.len() <= 2 * MAX_LISTED);
    }
}
