//! The payer of a job, and how addresses are written.

use livepeer_core::handshake::{Identity, Paying, Signers};
use livepeer_core::http::{Headers, Url};
use livepeer_core::payment::Funds;
use livepeer_core::payment::session::{LocalAccount, RemoteSigner};
use livepeer_core::{Address, SignerHealth};

use super::Error;

/// The payer of the work.
#[derive(Clone, Debug, Default)]
pub enum Payer {
    /// Nobody: for orchestrators without a chain.
    #[default]
    Offchain,
    /// A remote signer, or several for one account, in the order in which they are asked. Those that failed lately
    /// are asked last, in this and all other jobs of a driver ([`Driver::signer_health`](crate::Driver::signer_health)).
    Signer {
        /// The addresses of the signers; paths are dropped.
        urls: Vec<Url>,
        /// Header fields for them and nobody else, such as an authorization.
        headers: Headers,
    },
    /// An account whose key the driver holds ([`Driver::with_signer`](crate::Driver::with_signer)). Its nonces are
    /// money: give the driver a store that survives ([`Driver::with_store`](crate::Driver::with_store)), and what it
    /// kept to [`LocalAccount::restore`]. A job that lasts wants news of the chain
    /// ([`LiveVideoJob::set_chain`](super::LiveVideoJob::set_chain)).
    Account(Box<LocalAccount>),
}

impl Payer {
    /// Whether money flows.
    #[must_use]
    pub const fn pays(&self) -> bool {
        !matches!(self, Self::Offchain)
    }

    /// The kind of payer, for the choice of orchestrators.
    pub(super) const fn paying(&self) -> Paying {
        match self {
            Self::Offchain => Paying::Nobody,
            Self::Signer { .. } => Paying::Remote,
            Self::Account(_) => Paying::OwnKey,
        }
    }

    pub(super) fn identity(&self, health: SignerHealth) -> Identity {
        match self {
            Self::Offchain => Identity::Offchain,
            Self::Signer { urls, headers } => {
                let mut urls = urls.iter().cloned();
                let Some(first) = urls.next() else {
                    return Identity::Offchain;
                };
                let signers = urls.fold(Signers::new(first), Signers::or);
                Identity::Remote(signers.headers(headers.clone()).health(health))
            }
            Self::Account(account) => Identity::Key(account.policy.address),
        }
    }

    /// The account behind a signer is known only after the handshake.
    pub(super) fn funds(&self, health: SignerHealth) -> Funds {
        match self {
            Self::Offchain => Funds::Offchain,
            Self::Signer { urls, headers } => {
                let mut urls = urls.iter().cloned();
                let Some(first) = urls.next() else {
                    return Funds::Offchain;
                };
                let signer = urls.fold(RemoteSigner::new(first, Address::ZERO), RemoteSigner::or);
                Funds::Remote(signer.headers(headers.clone()).health(health))
            }
            Self::Account(account) => Funds::Local(account.clone()),
        }
    }

    pub(super) fn add_signer(&mut self, url: Url) {
        match self {
            Self::Signer { urls, .. } => urls.push(url),
            Self::Offchain | Self::Account(_) => {
                *self = Self::Signer {
                    urls: vec![url],
                    headers: Headers::new(),
                }
            }
        }
    }

    pub(super) fn add_header(&mut self, name: &str, value: &str) {
        if let Self::Signer { headers, .. } = self {
            headers.push_any(name, value);
        }
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
