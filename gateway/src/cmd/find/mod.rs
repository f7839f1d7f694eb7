//! `discover`, `info` and `select`, and the orchestrators that a job may ask when the command line names none itself.

pub(super) mod discover;
pub(super) mod info;
pub(super) mod select;

use livepeer_core::capabilities::Capabilities;
use livepeer_core::http::{Reach, Url};
use livepeer_runtime::api::Gateway;
use livepeer_runtime::{Driver, Runtime};

use super::peers;
use crate::args::Endpoints;
use crate::ui::Failed;
use discover::nobody;

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
    let places = endpoints.discovery.iter().map(|(url, _)| url);
    let mut places = places.chain(endpoints.signer.iter().map(|signer| &signer.url));
    let mut search = Gateway::from(driver.clone())
        .discover()
        .capabilities(wanted.clone())
        .payer(peers::payer(endpoints));
    if places.any(|url| url.reach() == Reach::Open) {
        search = search.allow_private();
    }
    if let Some((url, headers)) = &endpoints.discovery {
        search = search.discovery(&url.to_string());
        for header in headers {
            search = search.discovery_header(&header.name, &header.value);
        }
    }
    let discovered = search.find().await?;
    if discovered.found.is_empty() {
        return Err(nobody(&discovered));
    }
    let found = discovered.found.into_iter();
    Ok(found.map(|one| one.url).collect())
}
