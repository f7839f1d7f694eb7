//! How addresses are written.

use livepeer_core::http::Url;

use super::Error;

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
