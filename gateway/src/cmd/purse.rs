//! The payer of a job, and the limits on what it spends.

use std::path::Path;

use async_channel::Receiver;
use livepeer_core::chain::ChainView;
use livepeer_core::money::Price;
use livepeer_core::payment::guard::Budget;
use livepeer_core::payment::{nonce::NONCE_KEY, session::LocalAccount};
use livepeer_runtime::api::Payer;
use livepeer_runtime::store::{Sqlite, Store as _};
use livepeer_runtime::{Driver, KeyHolder as _, Runtime, seed};

use super::{chain, key};
use crate::args::PayArgs;
use crate::ui::Failed;

/// The record of what was spent.
const SPENT_KEY: &str = "spent";

/// The payer, and the limits on what it spends.
pub(super) struct Purse<R: Runtime> {
    /// The driver, with store and key, if there are any.
    pub(super) driver: Driver<R>,
    /// An own key's; without one, whoever the endpoints name pays.
    pub(super) account: Option<Payer>,
    /// News of the chain, for it.
    pub(super) chain: Option<Receiver<ChainView>>,
    pub(super) budget: Budget,
    /// The key of the record that keeps what is spent.
    pub(super) budget_key: Option<String>,
}

impl<R: Runtime> Purse<R> {
    /// Opens the store and loads the key, where the options of `command` name them.
    ///
    /// # Errors
    /// If one of them cannot be used, or the chain cannot be read for the key.
    pub(super) async fn open(
        driver: Driver<R>,
        pay: &PayArgs,
        max_price: Option<Price>,
        command: &str,
    ) -> Result<Self, Failed> {
        let mut purse = Self {
            driver,
            account: None,
            chain: None,
            budget: pay.budget(),
            budget_key: None,
        };
        let Some(path) = &pay.store else {
            return Ok(purse);
        };
        let store = Sqlite::open(path).map_err(|error| Failed::store(path, &error))?;
        if recall_spending(&store, path, SPENT_KEY, &mut purse.budget)? {
            purse.budget = purse.budget.next_job();
        }
        purse.budget_key = Some(SPENT_KEY.to_owned());
        purse.driver = purse.driver.with_store(store.clone());
        if !pay.own_key() {
            return Ok(purse);
        }
        let key = key::load(&pay.key, command)?;
        let address = key.address();
        purse.driver = purse.driver.with_key(key);
        let (view, news) = chain::first_view(&purse.driver, &pay.chain, address).await?;
        let policy = pay.policy(address, max_price);
        let mut account = LocalAccount::new(policy, view, seed());
        recall_nonces(&store, path, &mut account)?;
        purse.account = Some(Payer::Account(Box::new(account)));
        // Only the last one counts.
        let (tell, told) = async_channel::bounded(1);
        let push = move |view| drop(tell.force_send(view));
        purse.driver.runtime().spawn(chain::follow(news, push));
        purse.chain = Some(told);
        Ok(purse)
    }
}

/// Restores to `budget` what the record under `key` says was spent, if there is one; whether there was.
///
/// # Errors
/// If the store or the record cannot be read.
pub(super) fn recall_spending(
    store: &Sqlite,
    path: &Path,
    key: &str,
    budget: &mut Budget,
) -> Result<bool, Failed> {
    let records = store.load(key);
    let records = records.map_err(|error| Failed::store(path, &error))?;
    let Some(record) = records.iter().find(|record| record.key == key) else {
        return Ok(false);
    };
    if !budget.restore(record) {
        return Err(Failed::store(path, &"what was spent cannot be read"));
    }
    Ok(true)
}

/// Restores to `account` all nonces that were ever used.
///
/// # Errors
/// If the store or a record cannot be read.
pub(super) fn recall_nonces(
    store: &Sqlite,
    path: &Path,
    account: &mut LocalAccount,
) -> Result<(), Failed> {
    let records = store.load(NONCE_KEY);
    for record in records.map_err(|error| Failed::store(path, &error))? {
        if !account.restore(&record) {
            let why = format!("{} cannot be read", record.key);
            return Err(Failed::store(path, &why));
        }
    }
    Ok(())
}
