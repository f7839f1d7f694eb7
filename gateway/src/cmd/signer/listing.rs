//! The list of orchestrators: found in the chain or named, asked for their prices, and asked again from time to
//! time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use livepeer_core::Address;
use livepeer_core::capabilities::{Capabilities, Ceilings};
use livepeer_core::discovery::{self, ChainSource, Origin, Source};
use livepeer_core::handshake::{self, Handshake, Identity};
use livepeer_core::http::Url;
use livepeer_core::payment::remote::{Listing, SignerServer, listing};
use livepeer_core::wire::OrchestratorInfo;
use livepeer_core::wire::runner::Runner;
use livepeer_runtime::api::{Discovered, discover};
use livepeer_runtime::{Driver, Handle, Runtime};
use tracing::{debug, info, warn};

use super::super::socket::sleep_until;
use crate::args::{ChainArgs, ListingArgs};

/// How often orchestrators are asked (payments spec 12.6).
const REFRESH: Duration = Duration::from_secs(25 * 60);
/// How soon again, when nobody is listed.
const RETRY: Duration = Duration::from_secs(60);
/// How long one look at a source may take; a walk through the contracts asks hundreds of questions.
const FIND_WITHIN: Duration = Duration::from_secs(5 * 60);
/// How many are asked at the same time.
const AT_ONCE: usize = 16;

/// Where orchestrators are found, if they are to be listed: those that are named, or else the contracts.
pub(super) fn source(args: &ListingArgs, chain: &ChainArgs) -> Option<(Origin, Source)> {
    if !args.discovery {
        return None;
    }
    let (origin, source) = if args.orchestrator.is_empty() {
        let (first, others) = chain.rpc.split_first()?;
        let mut source = ChainSource::arbitrum(first.clone(), true).of(chain.controller);
        source.others = others.to_vec();
        if let Some(registry) = args.ai_registry {
            source.ai_registry = registry.0;
        }
        (Origin::Chain, Source::Chain(source))
    } else {
        let named = Source::List(args.orchestrator.clone(), Vec::new());
        (Origin::List, named)
    };
    let open = args.allow_private;
    Some((origin, if open { source.opened() } else { source }))
}

/// Keeps a signer's list up to date, for ever.
pub(super) async fn keep<R: Runtime>(
    driver: Driver<R>,
    signer: Handle<SignerServer, R>,
    (origin, source): (Origin, Source),
    payer: Address,
    ceilings: Ceilings,
) {
    loop {
        let told = find(&driver, origin, source.clone()).await;
        for (origin, failure) in told.failed {
            warn!(%origin, %failure, "no orchestrators were found");
        }
        let urls: Vec<Url> = told.found.into_iter().map(|found| found.url).collect();
        let asked = urls.len();
        let found = ask_all(&driver, urls, payer).await;
        let Listing { listed, left_out } = listing(
            found.iter().map(|(info, runners)| (&**info, &runners[..])),
            &ceilings,
        );
        for left_out in left_out {
            info!("not listed: {left_out}");
        }
        let (answered, count) = (found.len(), listed.len());
        if listed.is_empty() {
            // What was listed before is better than nothing.
            warn!(
                asked,
                answered, "no orchestrators to list; the last list stands"
            );
        } else {
            info!(asked, answered, listed = count, "orchestrators");
            signer.with(|machine, now| machine.set_listed(now, listed));
        }
        let wait = if count == 0 { RETRY } else { REFRESH };
        sleep_until(&driver, driver.now() + wait).await;
    }
}

type Answer = (Arc<OrchestratorInfo>, Vec<Runner>);

/// Asks orchestrators for their prices and runners; those that do not answer are left out.
async fn ask_all<R: Runtime>(driver: &Driver<R>, urls: Vec<Url>, payer: Address) -> Vec<Answer> {
    let mut seen = BTreeSet::new();
    let urls: Vec<Url> = urls
        .into_iter()
        .filter(|url| seen.insert(url.clone()))
        .collect();
    let answers: Arc<Mutex<Vec<Option<Answer>>>> =
        Arc::new(Mutex::new(urls.iter().map(|_| None).collect()));
    let (queue, work) = async_channel::unbounded();
    for job in urls.into_iter().enumerate() {
        // It is open: both ends are here.
        let _ = queue.try_send(job);
    }
    drop(queue);
    let (working, worked) = async_channel::bounded::<()>(1);
    for _ in 0..AT_ONCE {
        let (driver, work, working) = (driver.clone(), work.clone(), working.clone());
        let answers = Arc::clone(&answers);
        driver.clone().runtime().spawn(async move {
            let _working = working;
            while let Ok((at, url)) = work.recv().await {
                if let Some(answer) = ask(&driver, &url, payer).await {
                    answers.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(answer);
                }
            }
        });
    }
    drop(working);
    // Nothing is ever sent: it ends when the last worker does.
    let _ = worked.recv().await;
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    answers.drain(..).flatten().collect()
}

async fn ask<R: Runtime>(driver: &Driver<R>, url: &Url, payer: Address) -> Option<Answer> {
    let config = handshake::Config {
        ignore_capacity: true,
        ..handshake::Config::default()
    };
    let wanted = Capabilities::default();
    let machine = Handshake::new(
        driver.now(),
        config,
        url.clone(),
        Identity::Key(payer),
        wanted,
    );
    let handle = driver.drive(machine);
    let info = loop {
        match handle.next().await {
            Some(handshake::Event::Ready(info)) => break info,
            Some(handshake::Event::Failed(failure)) => {
                warn!(%failure, "an orchestrator is not listed");
                return None;
            }
            Some(handshake::Event::Rejected(_) | handshake::Event::Closed) | None => {
                warn!(%url, "an orchestrator is not listed: it does not fit");
                return None;
            }
            Some(_) => {}
        }
    };
    let told = find(driver, Origin::List, Source::Runners(url.clone())).await;
    for (_, failure) in told.failed {
        // Most have none, and say so with status 404.
        debug!(%failure, "no runners");
    }
    let runners = told.found.into_iter().flat_map(|found| found.runners);
    Some((info, runners.collect()))
}

/// Asks a source once, and tells what of it is left out.
async fn find<R: Runtime>(driver: &Driver<R>, origin: Origin, source: Source) -> Discovered {
    let config = discovery::Config::default();
    let discovered = discover(driver, config, vec![(origin, source)], FIND_WITHIN).await;
    for (origin, skipped) in &discovered.skipped {
        info!("not listed: {origin}, {skipped}");
    }
    discovered
}

#[cfg(test)]
mod tests {
    use livepeer_core::http::Reach;

    use super::*;
    use crate::args::Command;
    use crate::args::tests::parsed;

    fn listed(line: &str) -> Option<(Origin, Source)> {
        match parsed(&format!("signer {line}")) {
            Ok(Command::Signer(args)) => source(&args.listing, &args.chain),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_list_comes_from_where_the_command_line_says() {
        let rpc = "--rpc http://127.0.0.1:9 --discovery";
        let registry = "0x0000000000000000000000000000000000000005";
        for (line, ai, reach) in [
            ("--ai-registry none --allow-private", None, Reach::Open),
            (
                &format!("--ai-registry {registry}"),
                Some(registry),
                Reach::Own,
            ),
        ] {
            let Some((Origin::Chain, Source::Chain(chain))) = listed(&format!("{rpc} {line}"))
            else {
                panic!("{line}");
            };
            assert_eq!(
                chain.ai_registry,
                ai.map(|text| text.parse().expect("an address"))
            );
            assert_eq!(chain.endpoint.reach(), reach);
        }
        let named = "--static-chain --discovery --orchestrator https://127.0.0.1:8935";
        let Some((Origin::List, Source::List(urls, _))) = listed(named) else {
            panic!("they are named");
        };
        assert_eq!(urls.len(), 1);
        assert!(listed("--static-chain").is_none());
    }
}
