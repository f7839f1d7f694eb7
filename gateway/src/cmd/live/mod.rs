//! `live`: an MPEG-TS stream through a live video job.

pub(super) mod job;

use async_channel::Receiver;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::chain::ChainView;
use livepeer_core::payment::guard::Budget;
use livepeer_core::payment::{nonce::NONCE_KEY, session::LocalAccount};
use livepeer_runtime::api::{Gateway, Payer};
use livepeer_runtime::store::{Sqlite, Store as _};
use livepeer_runtime::{Driver, KeyHolder as _, Runtime, seed};

use super::files::Files;
use super::sink::Sink;
use super::source::{self, Input};
use super::stop::Stop;
use super::{chain, find, key, on, peers};
use crate::args::{LiveArgs, Place};
use crate::ui::{self, Failed, Outcome};
use job::Plan;

pub(super) fn run(args: &LiveArgs) -> Outcome {
    on::run(args.runtime, Live(args))
}

struct Live<'a>(&'a LiveArgs);

impl on::Work for Live<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let endpoints = args.endpoints()?;
        files(args).are_apart("live")?;
        let input = source::start(Input::from_place(&args.input, args.repeat))?;
        let driver = peers::with_pins(driver, &args.peers)?;
        let purse = Purse::open(driver, args).await?;
        let driver = purse.driver;
        let wanted = Capabilities::live_video(args.model_id.as_str());
        let orchestrators = find::orchestrators(&driver, &endpoints, &wanted).await?;
        let payer = purse.account.unwrap_or_else(|| peers::payer(&endpoints));
        let plan = Plan {
            model: args.model_id.clone(),
            speed: args.speed,
            limit: args.duration,
            total: None,
            pays: payer.pays(),
            whole: orchestrators.len() > 1,
            chain: purse.chain,
        };
        let mut builder = Gateway::from(driver.clone())
            .live_video(&args.model_id)
            .orchestrators(orchestrators)
            .payer(payer)
            .budget(purse.budget, purse.budget_key)
            .output_within(args.output_timeout)
            .loading_within(args.loading_timeout)
            .trust(peers::trust(&args.peers))
            .pin_change(peers::pin_change(&args.peers));
        if let Some(params) = &args.params {
            builder = builder.params(params.clone());
        }
        if let Some(price) = args.max_price {
            builder = builder.max_price(price);
        }
        // Only now: no file is made for a command line that is no good.
        let sink = Sink::open(&args.output)?;
        let ran = job::run(&driver, builder, &plan, input, sink, stop).await;
        peers::save_pins(&driver, &args.peers)?;
        let (summary, outcome) = ran?;
        let outcome = outcome.and(if summary.segments_lost > 0 {
            Err(Failed::new(
                format_args!("{} segments were lost", summary.segments_lost),
                "See the log with --log info; the output has all the others",
            ))
        } else {
            Ok(())
        });
        // Also of a job that failed: it may have cost money.
        match (args.json, &args.output) {
            (true, _) => return ui::print_json_with(&summary, outcome),
            (false, Place::Standard) => ui::tell(&summary.to_table()),
            (false, Place::File(_)) => ui::print(&summary.to_table())?,
        }
        outcome
    }
}

/// The files that a job reads and writes.
fn files(args: &LiveArgs) -> Files {
    let key = &args.pay.key;
    Files::default()
        .input("--input", &args.input)
        .output("--output", &args.output)
        .writes("--store", args.pay.store.as_deref())
        .writes("--pins", args.peers.pins.as_deref())
        .reads("--keystore", key.keystore.as_deref())
        .reads("--key-file", key.key_file.as_deref())
        .reads("--password-file", key.password_file.as_deref())
}

/// The record of what was spent.
const SPENT_KEY: &str = "spent";

/// The payer, and the limits on what it spends.
struct Purse<R: Runtime> {
    /// The driver, with store and key, if there are any.
    driver: Driver<R>,
    /// An own key's; without one, whoever the endpoints name pays.
    account: Option<Payer>,
    /// News of the chain, for it.
    chain: Option<Receiver<ChainView>>,
    budget: Budget,
    /// The key of the record that keeps what is spent.
    budget_key: Option<String>,
}

impl<R: Runtime> Purse<R> {
    async fn open(driver: Driver<R>, args: &LiveArgs) -> Result<Self, Failed> {
        let pay = &args.pay;
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
        let unusable = |error: &dyn std::fmt::Display| Failed::store(path, error);
        let store = Sqlite::open(path).map_err(|error| unusable(&error))?;
        let spent = store.load(SPENT_KEY).map_err(|error| unusable(&error))?;
        if let Some(record) = spent.iter().find(|record| record.key == SPENT_KEY) {
            if !purse.budget.restore(record) {
                return Err(unusable(&"what was spent cannot be read"));
            }
            purse.budget = purse.budget.next_job();
        }
        purse.budget_key = Some(SPENT_KEY.to_owned());
        purse.driver = purse.driver.with_store(store.clone());
        if !pay.own_key() {
            return Ok(purse);
        }
        let key = key::load(&pay.key, "live")?;
        let address = key.address();
        purse.driver = purse.driver.with_key(key);
        let (view, news) = chain::first_view(&purse.driver, &pay.chain, address).await?;
        let policy = pay.policy(address, args.max_price);
        let mut account = LocalAccount::new(policy, view, seed());
        for record in store.load(NONCE_KEY).map_err(|error| unusable(&error))? {
            if !account.restore(&record) {
                return Err(unusable(&format!("{} cannot be read", record.key)));
            }
        }
        purse.account = Some(Payer::Account(Box::new(account)));
        // Only the last one counts.
        let (tell, told) = async_channel::bounded(1);
        let push = move |view| drop(tell.force_send(view));
        purse.driver.runtime().spawn(chain::follow(news, push));
        purse.chain = Some(told);
        Ok(purse)
    }
}
