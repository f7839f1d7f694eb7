//! The payer of all work of a process, and the one limit on what it spends.

use std::path::Path;
use std::sync::Mutex;

use async_channel::Receiver;
use livepeer_core::chain::ChainView;
use livepeer_core::http::Url;
use livepeer_core::money::Price;
use livepeer_core::payment::Budget;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::session::LocalAccount;
use livepeer_core::{Address, figures};
use livepeer_runtime::api::Payer;
use livepeer_runtime::store::{Sqlite, Store as _};
use livepeer_runtime::{Driver, KeyHolder as _, Runtime, seed};

use super::chain::{self, News};
use super::{key, lock, peers};
use crate::args::{ChainArgs, Endpoints, KeyArgs, PayArgs};
use crate::ui::Failed;

/// The beginning of the keys of records of what was spent.
const SPENT_KEY: &str = "spent";

/// The options and settings that a purse is opened by.
pub(super) struct Terms<'a> {
    pub(super) store: Option<&'a Path>,
    pub(super) key: &'a KeyArgs,
    pub(super) chain: &'a ChainArgs,
    pub(super) budget: Budget,
    /// Whether a run is a job of its own: what earlier ones spent counts for the hour only.
    pub(super) one_job: bool,
    /// The policy of an own key.
    pub(super) policy: &'a dyn Fn(Address) -> Policy,
    pub(super) command: &'a str,
}

/// The payer, and the driver with its store.
pub(super) struct Purse<R: Runtime> {
    /// The driver, with store, key and limit, if there are any.
    pub(super) driver: Driver<R>,
    /// A key of our own; without one, the signer that the endpoints name pays.
    own: Option<Own<R>>,
    /// Readings of the chain for it. Only the last one counts.
    views: Option<Receiver<ChainView>>,
}

/// A key of our own.
struct Own<R: Runtime> {
    policy: Policy,
    view: Mutex<ChainView>,
    news: News<R>,
}

impl<R: Runtime> Purse<R> {
    /// Opens the purse of a command that does one job.
    ///
    /// # Errors
    /// As [`Purse::open`].
    pub(super) async fn of_job(
        driver: Driver<R>,
        pay: &PayArgs,
        max_price: Option<Price>,
        command: &str,
    ) -> Result<Self, Failed> {
        let terms = Terms {
            store: pay.store.as_deref(),
            key: &pay.key,
            chain: &pay.chain,
            budget: pay.budget(),
            one_job: true,
            policy: &|address| pay.policy(address, max_price),
            command,
        };
        Self::open(driver, terms).await
    }

    /// Opens store and key, and has all that the driver's machines spend counted against the limits.
    ///
    /// # Errors
    /// If one of them cannot be used, or no endpoint shows the chain.
    pub(super) async fn open(mut driver: Driver<R>, terms: Terms<'_>) -> Result<Self, Failed> {
        let mut budget = terms.budget;
        if let Some(path) = terms.store {
            let opened = Sqlite::open(path).map_err(|error| Failed::store(path, &error))?;
            recall_spending(&opened, path, &mut budget).await?;
            if terms.one_job {
                budget = budget.next_job();
            }
            driver = driver.with_store(opened);
        }
        let key = terms.store.map(|_| SPENT_KEY.to_owned());
        let mut purse = Self {
            driver: driver.with_limit(budget, key),
            own: None,
            views: None,
        };
        if terms.key.keystore.is_none() && terms.key.key_file.is_none() {
            return Ok(purse);
        }
        let key = key::load(terms.key, terms.command)?;
        let address = key.address();
        purse.driver = purse.driver.with_key(key);
        let (view, news) = chain::first_view(&purse.driver, terms.chain, address).await?;
        purse.own = Some(Own {
            policy: (terms.policy)(address),
            view: Mutex::new(view),
            news: news.clone(),
        });
        // What cannot be read is told now, and not with the first job.
        if let (Some(path), Err(error)) = (terms.store, purse.driver.spent_nonces()) {
            return Err(Failed::store(path, &error));
        }
        let (tell, views) = async_channel::bounded(1);
        let push = move |view| drop(tell.force_send(view));
        purse.driver.runtime().spawn(chain::follow(news, push));
        purse.views = Some(views);
        Ok(purse)
    }

    /// The account of our own key, if it pays.
    pub(super) fn address(&self) -> Option<Address> {
        self.own.as_ref().map(|own| own.policy.address)
    }

    /// Further readings of the chain, for an own key.
    pub(super) fn views(&self) -> Option<Receiver<ChainView>> {
        self.views.clone()
    }

    /// The account of our own key, if it pays, and the chain as it was read last.
    pub(super) fn chain(&self) -> Option<(Address, ChainView)> {
        let own = self.own.as_ref()?;
        Some((own.policy.address, lock(&own.view).clone()))
    }

    /// Questions to endpoints of the chain of an own key that failed so far.
    pub(super) fn rpc_errors(&self) -> figures::Endpoints {
        let own = self.own.as_ref();
        own.map(|own| own.news.errors()).unwrap_or_default()
    }

    /// Reads the chain of an own key at these endpoints from now on.
    pub(super) fn set_endpoints(&self, rpc: &[Url]) {
        if let Some(own) = &self.own {
            own.news.set_endpoints(rpc);
        }
    }

    pub(super) fn set_chain(&self, view: ChainView) {
        if let Some(own) = &self.own {
            *lock(&own.view) = view;
        }
    }

    /// The payer of all work: the own key, or the one that the endpoints name.
    pub(super) fn payer(&self, endpoints: &Endpoints) -> Payer {
        let Some(own) = &self.own else {
            return peers::payer(endpoints);
        };
        let account = LocalAccount::new(own.policy.clone(), lock(&own.view).clone(), seed());
        Payer::Account(Box::new(account))
    }
}

/// Restores to `budget` what the store says was spent, and writes in today's form what an earlier version wrote.
async fn recall_spending(store: &Sqlite, path: &Path, budget: &mut Budget) -> Result<(), Failed> {
    let unusable = |error: &dyn std::fmt::Display| Failed::store(path, error);
    let records = store.load(SPENT_KEY).map_err(|error| unusable(&error))?;
    let Some(anew) = budget.restore(SPENT_KEY, &records) else {
        return Err(unusable(&"what was spent cannot be read"));
    };
    if !anew.is_empty() {
        store.put(anew).await.map_err(|error| unusable(&error))?;
    }
    Ok(())
}
