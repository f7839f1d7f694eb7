//! The payer of all work, and what of its spending has to outlive a crash.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use livepeer_core::chain::ChainView;
use livepeer_core::payment::guard::Budget;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::session::LocalAccount;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::{Address, Time};
use livepeer_runtime::api::Payer;
use livepeer_runtime::store::Sqlite;
use livepeer_runtime::{Driver, KeyHolder as _, Runtime, seed};

use super::config::Settings;
use super::lock;
use crate::args::FrontArgs;
use crate::cmd::chain::{self, News};
use crate::cmd::purse::{recall_nonces, recall_spending};
use crate::cmd::{key, peers};
use crate::ui::Failed;

/// Records of what was spent, one for each model.
const SPENT_KEY: &str = "spent/";
/// A model that rested for longer begins with what the store knows: the one that worked for it may have been closed.
const RESTED: Duration = Duration::from_secs(5 * 60);
/// At most this many models are remembered to be at work.
const MAX_USED: usize = 1_024;

/// The payer and its store.
pub(super) struct Purse<R: Runtime> {
    /// The driver, with store and key, if there are any.
    pub(super) driver: Driver<R>,
    /// The store and its path.
    store: Option<(Sqlite, PathBuf)>,
    own: Option<Own<R>>,
    limits: Budget,
    used: Mutex<Used>,
}

/// When each model was last worked for.
#[derive(Default)]
struct Used(BTreeMap<(Pipeline, String), Time>);

impl Used {
    /// Whether a model has rested, or is new, before a job that begins now.
    fn rested(&self, pipeline: Pipeline, model: &str, now: Time) -> bool {
        let last = self.0.get(&(pipeline, model.to_owned()));
        last.is_none_or(|last| *last + RESTED <= now)
    }

    /// Notes that a job has begun, so that a machine works for the model. Callers name models: of those beyond
    /// [`MAX_USED`] nothing is remembered, and the store is asked each time.
    fn began(&mut self, pipeline: Pipeline, model: &str, now: Time) {
        let key = (pipeline, model.to_owned());
        if self.0.len() >= MAX_USED && !self.0.contains_key(&key) {
            self.0.retain(|_, last| *last + RESTED > now);
        }
        if self.0.len() < MAX_USED || self.0.contains_key(&key) {
            self.0.insert(key, now);
        }
    }
}

/// A key of our own.
struct Own<R: Runtime> {
    policy: Policy,
    view: Mutex<ChainView>,
    news: Mutex<Option<News<R>>>,
}

/// Payer and budget of one job.
pub(super) struct Means {
    pub(super) payer: Payer,
    pub(super) budget: Budget,
    pub(super) budget_key: Option<String>,
}

impl<R: Runtime> Purse<R> {
    /// Opens store and key.
    ///
    /// # Errors
    /// If one of them cannot be used, or no endpoint shows the chain.
    pub(super) async fn open(
        driver: Driver<R>,
        args: &FrontArgs,
        settings: &Settings,
    ) -> Result<Self, Failed> {
        let mut purse = Self {
            driver,
            store: None,
            own: None,
            limits: args.pay.budget(),
            used: Mutex::default(),
        };
        if let Some(path) = &settings.store {
            let store = Sqlite::open(path).map_err(|error| Failed::store(path, &error))?;
            purse.driver = purse.driver.with_store(store.clone());
            purse.store = Some((store, path.clone()));
        }
        if settings.key.keystore.is_none() && settings.key.key_file.is_none() {
            return Ok(purse);
        }
        let key = key::load(&settings.key, "serve")?;
        let address = key.address();
        purse.driver = purse.driver.with_key(key);
        let (view, news) = chain::first_view(&purse.driver, &settings.chain, address).await?;
        purse.own = Some(Own {
            policy: args.pay.policy(address, None),
            view: Mutex::new(view),
            news: Mutex::new(Some(news)),
        });
        // What cannot be read is told now, and not with the first job.
        purse.account()?;
        Ok(purse)
    }

    /// The account of our own key, if it pays.
    pub(super) fn address(&self) -> Option<Address> {
        self.own.as_ref().map(|own| own.policy.address)
    }

    /// The payer, to those who ask who we are.
    pub(super) fn payer(&self, settings: &Settings) -> Payer {
        match &self.own {
            Some(own) => Payer::Account(Box::new(Self::plain(own))),
            None => peers::payer(&settings.endpoints),
        }
    }

    /// News of the chain, once, for an own key.
    pub(super) fn take_news(&self) -> Option<News<R>> {
        lock(&self.own.as_ref()?.news).take()
    }

    pub(super) fn set_chain(&self, view: ChainView) {
        if let Some(own) = &self.own {
            *lock(&own.view) = view;
        }
    }

    /// Notes that a job of that model has begun. Not before: of several jobs that are the first ones, any may be the one
    /// whose account and budget the machine for the model gets.
    pub(super) fn began(&self, pipeline: Pipeline, model: &str) {
        lock(&self.used).began(pipeline, model, self.driver.now());
    }

    /// Payer and budget for a job of that model.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn means(
        &self,
        settings: &Settings,
        pipeline: Pipeline,
        model: &str,
    ) -> Result<Means, Failed> {
        let now = self.driver.now();
        let fresh = lock(&self.used).rested(pipeline, model, now);
        let key = format!("{SPENT_KEY}{}/{model}", pipeline.name());
        let mut budget = self.limits.clone();
        if let Some((store, path)) = self.store.as_ref().filter(|_| fresh) {
            recall_spending(store, path, &key, &mut budget)?;
        }
        Ok(Means {
            payer: match &self.own {
                Some(own) if fresh => Payer::Account(Box::new(self.account_of(own)?)),
                // The one that works for it has its own account; this one only says which.
                Some(own) => Payer::Account(Box::new(Self::plain(own))),
                None => peers::payer(&settings.endpoints),
            },
            budget,
            budget_key: self.store.is_some().then_some(key),
        })
    }

    fn account(&self) -> Result<(), Failed> {
        self.own
            .as_ref()
            .map_or(Ok(()), |own| self.account_of(own).map(drop))
    }

    fn plain(own: &Own<R>) -> LocalAccount {
        LocalAccount::new(own.policy.clone(), lock(&own.view).clone(), seed())
    }

    /// The account with all nonces that were ever used.
    fn account_of(&self, own: &Own<R>) -> Result<LocalAccount, Failed> {
        let mut account = Self::plain(own);
        if let Some((store, path)) = &self.store {
            recall_nonces(store, path, &mut account)?;
        }
        Ok(account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_callers_make_up_are_not_remembered_without_end() {
        let mut used = Used::default();
        let begin = Time::from_secs(1_000);
        assert!(used.rested(Pipeline::Llm, "real", begin));
        assert!(
            used.rested(Pipeline::Llm, "real", begin),
            "no job has begun"
        );
        used.began(Pipeline::Llm, "real", begin);
        assert!(!used.rested(Pipeline::Llm, "real", begin));
        for n in 0..3 * MAX_USED {
            used.began(Pipeline::Llm, &n.to_string(), begin);
        }
        assert_eq!(used.0.len(), MAX_USED);
        assert!(!used.rested(Pipeline::Llm, "real", begin), "it is at work");
        let later = begin + RESTED;
        used.began(Pipeline::Llm, "another", later);
        assert_eq!(used.0.len(), 1, "those that rested are forgotten");
        assert!(used.rested(Pipeline::Llm, "real", later));
    }
}
