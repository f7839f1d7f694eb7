//! `signer`: the remote signer as a service.

mod listing;

use std::sync::Arc;
use std::time::Duration;

use livepeer_core::Address;
use livepeer_core::chain::ChainView;
use livepeer_core::money::Amount;
use livepeer_core::onchain::FRESH;
use livepeer_core::payment::nonce::NONCE_KEY;
use livepeer_core::payment::remote::{self, Event, SignerServer};
use livepeer_runtime::http::Limits;
use livepeer_runtime::store::{Sqlite, Store as _};
use livepeer_runtime::tls::{Identity, server_config};
use livepeer_runtime::{Driver, Handle, KeyHolder as _, Runtime, seed};
use rustls::ServerConfig;
use tracing::{info, warn};

use super::chain::News;
use super::socket::Socket;
use super::stop::Stop;
use super::{chain, key, on};
use crate::args::SignerArgs;
use crate::ui::{self, Failed, Outcome, Wei};

/// How long requests under way may take when the signer stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn run(args: &SignerArgs) -> Outcome {
    on::run(args.runtime, Work(args))
}

struct Work<'a>(&'a SignerArgs);

impl on::Work for Work<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let tls = tls(args)?;
        // Before the key: a port that is taken needs no password.
        let socket = Socket::open(&driver, args.listen.0, "--listen").await?;
        let key = key::load(&args.key, "signer")?;
        let payer = key.address();
        let mut driver = driver.with_key(key);
        let mut spent = Vec::new();
        if let Some(path) = &args.store {
            let unusable = |error: &dyn std::fmt::Display| Failed::store(path, error);
            let store = Sqlite::open(path).map_err(|error| unusable(&error))?;
            spent = store.load(NONCE_KEY).map_err(|error| unusable(&error))?;
            driver = driver.with_store(store);
        }
        let (view, news) = chain::first_view(&driver, &args.chain, payer).await?;
        let policy = args.policy(payer);
        let ceilings = policy.ceilings.clone();
        let config = remote::Config {
            webhook: args.webhook()?,
            discovery: args.listing.discovery,
            figures: true,
            chain_fresh: matches!(news, News::Endpoints(_)).then_some(FRESH),
            ..remote::Config::new(policy)
        };
        stop.in_order(STOP_WITHIN + Duration::from_secs(1));
        let mut machine = SignerServer::new(driver.now(), config, view.clone(), seed());
        for record in spent {
            if let (false, Some(path)) = (machine.restore(&record), &args.store) {
                return Err(Failed::store(
                    path,
                    &format!("{} cannot be read", record.key),
                ));
            }
        }
        let signer = driver.drive(machine);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = socket.url(scheme)?;
        let server = socket.serve(&signer, tls, Limits::default())?;
        driver.runtime().spawn(log_events(signer.clone()));
        let fed = signer.clone();
        let push = move |view| fed.with(|machine, now| machine.set_chain(now, view));
        driver.runtime().spawn(chain::follow(news, push));
        if let Some(source) = listing::source(&args.listing, &args.chain) {
            let keeping = listing::keep(driver.clone(), signer.clone(), source, payer, ceilings);
            driver.runtime().spawn(keeping);
        }
        ui::print(&format!(
            "signer  {url}  pays as {payer}\n{}",
            funds(&view, payer)
        ))?;
        stop.pressed().await;
        server.shutdown(driver.now() + STOP_WITHIN).await;
        ui::tell("stopped");
        Ok(())
    }
}

fn tls(args: &SignerArgs) -> Result<Option<Arc<ServerConfig>>, Failed> {
    let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) else {
        return Ok(None);
    };
    Identity::from_pem_files(cert, key)
        .and_then(|identity| server_config(&identity))
        .map(Some)
        .map_err(|error| Failed::new(error, "Check --tls-cert and --tls-key"))
}

async fn log_events<R: Runtime>(signer: Handle<SignerServer, R>) {
    while let Some(event) = signer.next().await {
        match event {
            Event::Minted {
                orchestrator,
                auth_id,
                tickets,
                value,
                fee,
            } => {
                info!(%orchestrator, auth_id, tickets, value = %Wei(&value), fee = %Wei(&fee), "payment");
            }
            Event::Refused(refusal) if refusal.status >= 500 => {
                warn!(status = refusal.status, "refused: {}", refusal.message);
            }
            Event::Refused(refusal) => {
                info!(status = refusal.status, "refused: {}", refusal.message);
            }
            _ => {}
        }
    }
}

/// A line about the money of the account, and about what is wrong with it.
fn funds(view: &ChainView, payer: Address) -> String {
    let Some(account) = view.sender(payer) else {
        return String::new();
    };
    let (deposit, reserve) = (
        Amount::from(&account.deposit),
        Amount::from(&account.reserve_remaining),
    );
    let mut text = format!(
        "funds   deposit {}, reserve {}, round {}, L1 block {}\n",
        Wei(&deposit),
        Wei(&reserve),
        view.round,
        view.l1_block
    );
    if account.unlocks_soon(view.round) {
        text.push_str(
            "warning: the deposit is set to unlock soon; no payment is made until the unlock is canceled\n",
        );
    } else if deposit.is_zero() || reserve.is_zero() {
        text.push_str("warning: without deposit and reserve no payment is made\n");
    }
    text
}
