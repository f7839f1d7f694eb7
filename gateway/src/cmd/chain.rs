//! The chain, as those who pay with a key of their own have to know it.

use livepeer_core::chain::{ChainView, MAX_AGE};
use livepeer_core::http::{Trust, Url};
use livepeer_core::onchain::{self, ChainWatch};
use livepeer_core::{Address, figures};
use livepeer_runtime::{Driver, Handle, Runtime};
use tracing::warn;

use super::socket::sleep_until;
use crate::args::ChainArgs;
use crate::ui::Failed;

/// Sources of later views of the chain.
#[derive(Clone)]
pub(super) enum News<R: Runtime> {
    /// Endpoints of a real one.
    Endpoints(Handle<ChainWatch, R>),
    /// The clock, by which the chain for development goes.
    Clock(Driver<R>),
}

/// The chain as it is now, and who will tell more of it.
///
/// # Errors
/// If no endpoint shows it.
pub(super) async fn first_view<R: Runtime>(
    driver: &Driver<R>,
    args: &ChainArgs,
    payer: Address,
) -> Result<(ChainView, News<R>), Failed> {
    if args.static_chain {
        let view = ChainView::development_at(driver.now());
        return Ok((view, News::Clock(driver.clone())));
    }
    let config = onchain::Config {
        chain_id: args.chain_id,
        controller: args.controller,
        trust: Trust::Public,
        ..onchain::Config::arbitrum(args.rpc.clone(), payer)
    };
    let watch = driver.drive(ChainWatch::new(driver.now(), config));
    let mut failures = Vec::new();
    loop {
        match watch.next().await {
            Some(onchain::Event::View(view)) => return Ok((*view, News::Endpoints(watch))),
            Some(onchain::Event::EndpointFailed(failure)) => failures.push(failure.to_string()),
            Some(onchain::Event::Down) | None => {
                return Err(Failed::new(
                    failures.join("; "),
                    "Check --rpc and the network; for another deployment, --chain-id and --controller",
                ));
            }
            Some(_) => {}
        }
    }
}

/// Pushes each further reading of the chain to whoever lives by it.
pub(super) async fn follow<R: Runtime>(news: News<R>, push: impl Fn(ChainView)) {
    let watch = match news {
        News::Endpoints(watch) => watch,
        News::Clock(driver) => loop {
            push(next_block(&driver).await);
        },
    };
    while let Some(event) = watch.next().await {
        match event {
            onchain::Event::View(view) => push(*view),
            onchain::Event::EndpointFailed(failure) => warn!(%failure, "the next one is asked"),
            onchain::Event::Down => warn!("no chain endpoint answers; the last reading stands"),
            onchain::Event::Stale(age) => warn!(
                age = age.as_secs(),
                until = MAX_AGE.as_secs(),
                "the chain was read so many seconds ago; an own key pays by it until then"
            ),
            _ => {}
        }
    }
}

impl<R: Runtime> News<R> {
    /// Questions to endpoints that failed so far.
    pub(super) fn errors(&self) -> figures::Endpoints {
        match self {
            Self::Endpoints(watch) => watch.with(|watch, _| watch.errors().clone()),
            Self::Clock(_) => figures::Endpoints::default(),
        }
    }

    /// Reads the chain at these endpoints from now on, unless it is the one for development.
    pub(super) fn set_endpoints(&self, rpc: &[Url]) {
        if let Self::Endpoints(watch) = self {
            watch.with(|watch, now| watch.set_endpoints(now, rpc.to_vec()));
        }
    }
}

/// Waits for the next block of the chain for development.
pub(super) async fn next_block<R: Runtime>(driver: &Driver<R>) -> ChainView {
    let due = ChainView::development_at(driver.now()).next_development_block();
    sleep_until(driver, due).await;
    ChainView::development_at(due)
}
