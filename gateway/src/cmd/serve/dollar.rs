//! The price of a dollar, as the contract says it that the configuration names.

use std::sync::Arc;

use async_channel::Sender;
use livepeer_core::http::Trust;
use livepeer_core::onchain::PriceFeed;
use livepeer_core::onchain::feed::{Config, Event};
use livepeer_runtime::{Handle, Runtime};
use tracing::{info, warn};

use super::config;
use super::wiring::Wiring;

/// Follows the price of a dollar.
pub(super) struct Dollar<R: Runtime> {
    wiring: Arc<Wiring<R>>,
    feed: Handle<PriceFeed, R>,
    /// Has the list of models made anew: other ones may be within the ceilings.
    look: Sender<()>,
}

impl<R: Runtime> Dollar<R> {
    pub(super) fn new(wiring: Arc<Wiring<R>>, look: Sender<()>) -> Self {
        let driver = wiring.gateway().driver();
        let config = Config {
            endpoints: Vec::new(),
            chain_id: wiring.config().settings.chain.chain_id,
            trust: Trust::Public,
        };
        let feed = driver.drive(PriceFeed::new(driver.now(), config));
        let this = Self { wiring, feed, look };
        this.set_config();
        this
    }

    /// Goes by the configuration as it is now.
    pub(super) fn set_config(&self) {
        let config = self.wiring.config();
        let settings = &config.settings;
        self.feed.with(|feed, now| {
            feed.set_endpoints(now, settings.chain.rpc.clone());
            match &settings.dollar {
                config::Dollar::Feed(contract) => feed.follow(now, *contract),
                config::Dollar::Unknown | config::Dollar::Fixed(_) => feed.stop(now),
            }
        });
        self.tell();
    }

    /// Has the list of models made anew.
    pub(super) fn look(&self) {
        let _ = self.look.try_send(());
    }

    /// Tells the price, under the feed's lock: no earlier one goes over a later one.
    fn tell(&self) {
        self.feed.with(|feed, _| {
            self.wiring.set_dollar(feed.reading().cloned());
        });
    }

    /// Hands on each price until the gateway ends.
    pub(super) async fn run(self: Arc<Self>) {
        while let Some(event) = self.feed.next().await {
            match event {
                Event::Priced(read) => {
                    info!(wei = %read.wei_per_usd.whole_wei(), "a dollar costs");
                    self.tell();
                    self.look();
                }
                Event::Unfit(why) => {
                    warn!(
                        why,
                        "chain.price_feed is no price of ETH; limits in USD admit nobody"
                    );
                }
                Event::Bad(why) => warn!(why, "the price of ETH stays as it was"),
                Event::EndpointFailed(failure) => {
                    warn!(%failure, "the next one is asked");
                    let errors = self.feed.with(|feed, _| feed.errors().clone());
                    self.wiring.note_feed_errors(errors);
                }
                Event::GaveUp => warn!("the price of ETH cannot be read; the last one stands"),
                Event::Stale(age) => warn!(age = age.as_secs(), "the price of ETH is old"),
                _ => {}
            }
        }
    }
}
