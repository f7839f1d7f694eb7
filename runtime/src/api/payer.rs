//! Who pays, as builders are told, and how addresses are written.

use livepeer_core::Signers;
use livepeer_core::http::Url;
use livepeer_core::payment::Payer;

use super::Error;

/// Adds a remote signer; signers stand in for each other.
pub(super) fn add_signer(payer: &mut Payer, url: Url) {
    *payer = Payer::Remote(match std::mem::take(payer) {
        Payer::Remote(signers) => signers.or(url),
        Payer::Offchain | Payer::Account(_) => Signers::new(url),
    });
}

/// Adds a header field for the remote signers, if there are any.
pub(super) fn add_header(payer: &mut Payer, name: &str, value: &str) {
    if let Payer::Remote(signers) = payer {
        signers.add_header(name, value);
    }
}

/// Reads an orchestrator's address: `HOST:PORT`, or a URL with scheme `https` (or `http`, in cleartext). Without a
/// scheme `https` is meant (handshake spec 1.2).
///
/// # Errors
/// If it is no URL, or has a path.
pub fn orchestrator_url(text: &str) -> Result<Url, Error> {
    service_url(text).map(|url| url.with_path("/"))
}

/// Reads a service's address; without a scheme `https` is meant.
///
/// # Errors
/// If it is no URL.
pub fn service_url(text: &str) -> Result<Url, Error> {
    let text = text.trim();
    let parsed = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("https://{text}"))
    };
    parsed.map_err(|why| Error::Url {
        text: text.to_string(),
        why,
    })
}
