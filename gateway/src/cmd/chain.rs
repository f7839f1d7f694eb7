//! The chain, as those who pay with a key of their own have to know it.

use livepeer_core::Address;
use livepeer_core::chain::{self, ChainView, ChainWatch};
use livepeer_core::http::Trust;
use livepeer_runtime::{Driver, Handle, Runtime};
use tracing::warn;

use crate::args::ChainArgs;
use crate::ui::Failed;

/// The chain as it is now, and who will tell more of it.
///
/// # Errors
/// If no endpoint shows it.
pub(super) async fn first_view<R: Runtime>(
    driver: &Driver<R>,
    args: &ChainArgs,
    payer: Address,
) -> Result<(ChainView, Option<Handle<ChainWatch, R>>), Failed> {
    if args.static_chain {
        return Ok((ChainView::development(), None));
    }
    let config = chain::Config {
        chain_id: args.chain_id,
        controller: args.controller,
        trust: Trust::Public,
        ..chain::Config::arbitrum(args.rpc.clone(), payer)
    };
    let watch = driver.drive(ChainWatch::new(driver.now(), config));
    let mut failures = Vec::new();
    loop {
        match watch.next().await {
            Some(chain::Event::View(view)) => return Ok((*view, Some(watch))),
            Some(chain::Event::EndpointFailed(failure)) => failures.push(failure.to_string()),
            Some(chain::Event::Down) | None => {
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
pub(super) async fn follow<R: Runtime>(watch: Handle<ChainWatch, R>, push: impl Fn(ChainView)) {
    while let Some(event) = watch.next().await {
        match event {
            chain::Event::View(view) => push(*view),
            chain::Event::EndpointFailed(failure) => warn!(%failure, "the next one is asked"),
            chain::Event::Down => warn!("no chain endpoint answers; the last reading stands"),
            _ => {}
        }
    }
}
