//! The list of models: what the orchestrators that are known offer, within the ceilings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use futures_lite::future;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::http::Reach;
use livepeer_core::models::{Alias, Models, Offer};
use livepeer_core::pipeline::Pipeline;
use livepeer_core::pool::{self, Offered};
use livepeer_core::wire::OrchestratorInfo;
use livepeer_runtime::Runtime;
use livepeer_runtime::api::Survey;
use tracing::warn;

use super::config::Settings;
use super::wiring::Wiring;
use crate::cmd::peers;
use crate::cmd::socket::sleep_until;

/// How soon again, while nobody is found.
const SOON: Duration = Duration::from_secs(2);
/// How long a search may take, and then how long the orchestrators.
const WITHIN: Duration = Duration::from_secs(10);

/// Keeps the list of models.
pub(super) struct Catalogue<R: Runtime> {
    wiring: Arc<Wiring<R>>,
    /// When each name was first seen, in Unix seconds.
    since: BTreeMap<String, u64>,
}

impl<R: Runtime> Catalogue<R> {
    pub(super) const fn new(wiring: Arc<Wiring<R>>) -> Self {
        Self {
            wiring,
            since: BTreeMap::new(),
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
        let found: Vec<Offered> = if settings.endpoints.orchestrators.is_empty() {
            let found = self.found(settings).await?;
            found.iter().map(Offered::from).collect()
        } else {
            let named = settings.endpoints.orchestrators.iter();
            named.cloned().map(Offered::from).collect()
        };
        let mut pool = pool::Config::default();
        pool.handshake.trust = self.wiring.peers().trust;
        pool.handshake.pin_change = self.wiring.peers().pin_change;
        pool.handshake.ignore_capacity = true;
        let own = self.wiring.purse().identity();
        let payer = own.unwrap_or_else(|| peers::payer(&settings.endpoints));
        let survey =
            Survey::take(driver, pool, &payer, Capabilities::default(), found, WITHIN).await;
        match survey {
            Ok(survey) => Some(survey.look(|pool| {
                let sessions = pool.sessions();
                self.models(settings, sessions.iter().map(|(_, session)| session.info))
            })),
            Err(error) => {
                warn!(%error, "the list of models stays as it was");
                None
            }
        }
    }

    async fn found(&self, settings: &Settings) -> Option<Vec<livepeer_core::wire::listing::Found>> {
        let places = settings.endpoints.discovery.iter().map(|(url, _)| url);
        let mut places = places.chain(settings.endpoints.signer.iter().map(|signer| &signer.url));
        let mut search = self
            .wiring
            .gateway()
            .discover()
            .payer(peers::payer(&settings.endpoints));
        if places.any(|url| url.reach() == Reach::Open) {
            search = search.allow_private();
        }
        if let Some((url, headers)) = &settings.endpoints.discovery {
            search = search.discovery(&url.to_string());
            for header in headers {
                search = search.discovery_header(&header.name, &header.value);
            }
        }
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
                let ceiling = settings
                    .prices
                    .of(pipeline, name)
                    .map(|price| price.of_one());
                if price
                    .as_ref()
                    .zip(ceiling.as_ref())
                    .is_some_and(|(price, most)| price > most)
                {
                    continue;
                }
                let since = *self.since.entry(name.to_owned()).or_insert(now);
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
            let since = *self.since.entry(name.clone()).or_insert(now);
            let alias = Alias {
                since,
                pipeline: *pipeline,
                model: model.clone(),
            };
            models.alias(name.as_str(), alias);
        }
        models
    }
}
