//! `discover`, `info` and `select`, and the orchestrators that a job may ask when the command line names none itself.

pub(super) mod discover;
pub(super) mod info;
pub(super) mod select;

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::capabilities::Capabilities;
use livepeer_core::discovery::{Config, Order, Wishes, plan};
use livepeer_core::http::{Reach, Url};
use livepeer_core::wire::Token;
use livepeer_runtime::api::discover;
use livepeer_runtime::{Driver, Runtime};

use crate::args::{Endpoints, Header};
use crate::ui::Failed;
use discover::nobody;

/// How long the search may take, at most: the discovery endpoint and, after it, the signer have time to answer.
const WITHIN: Duration = Duration::from_secs(10);

/// The orchestrators that are named, or those that the discovery endpoint knows, or else the signer.
///
/// # Errors
/// If nobody names any.
pub(super) async fn orchestrators<R: Runtime>(
    driver: &Driver<R>,
    endpoints: &Endpoints,
    wanted: &Capabilities,
) -> Result<Vec<Url>, Failed> {
    if !endpoints.orchestrators.is_empty() {
        return Ok(endpoints.orchestrators.clone());
    }
    let mut wishes = Wishes::default();
    let places = endpoints.discovery.iter().map(|(url, _)| url);
    let mut places = places.chain(endpoints.signer.iter().map(|signer| &signer.url));
    let open = places.any(|url| url.reach() == Reach::Open);
    if let Some((url, headers)) = &endpoints.discovery {
        wishes.discovery = Some(url.to_string());
        wishes.discovery_headers = fields(headers);
    }
    if let Some(signer) = &endpoints.signer {
        wishes.signer = Some(signer.url.to_string());
        wishes.other_signers = signer.others.iter().map(Url::to_string).collect();
        wishes.signer_headers = fields(&signer.headers);
    }
    let sources = plan(Order::Ours, &Token::default(), &wishes, wanted)?;
    let sources = sources.into_iter();
    let sources =
        sources.map(|(origin, source)| (origin, if open { source.opened() } else { source }));
    let discovered = discover(driver, Config::default(), sources.collect(), WITHIN).await;
    if discovered.found.is_empty() {
        return Err(nobody(&discovered));
    }
    let found = discovered.found.into_iter();
    Ok(found.map(|one| one.url).collect())
}

fn fields(headers: &[Header]) -> BTreeMap<String, String> {
    let pair = |header: &Header| (header.name.clone(), header.value.clone());
    headers.iter().map(pair).collect()
}
