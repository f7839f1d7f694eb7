//! Peers to talk to, from options and token together.
//!
//! The order is that of the product (handshake spec 7.1): what is named explicitly, then what the token names;
//! empty counts as absent. Header fields follow the endpoint they were given for and nobody else: those of a
//! token go to the signer that the same token names.

use livepeer_core::http::Url;
use livepeer_core::wire::Token;

use super::values::{Header, peer, required_orchestrator};
use super::{PayArgs, PeerArgs};
use crate::ui::Failed;

/// Peers to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// Orchestrators in order of preference; empty only if there is another place to ask for them: discovery, or
    /// else the signer.
    pub(crate) orchestrators: Vec<Url>,
    /// The place to ask for orchestrators, with header fields for it.
    pub(crate) discovery: Option<(Url, Vec<Header>)>,
    /// The signer, which also pays; `None` if there is none.
    pub(crate) signer: Option<Signer>,
}

/// A remote signer, or several for one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signer {
    pub(crate) url: Url,
    /// Further signers, asked in this order when those before do not answer.
    pub(crate) others: Vec<Url>,
    /// Header fields for the signers.
    pub(crate) headers: Vec<Header>,
}

pub(super) fn token(peers: &PeerArgs, command: &str) -> Result<Token, Failed> {
    match &peers.token {
        Some(text) => Token::decode(&text.0)
            .map_err(|error| Failed::usage(format_args!("--token: {}", error.why), command)),
        None => Ok(Token::default()),
    }
}

/// The signer; `None` if there is none.
pub(super) fn signer(
    peers: &PeerArgs,
    token: &Token,
    command: &str,
) -> Result<Option<Signer>, Failed> {
    let own_headers: Vec<Header> = peers
        .signer_header
        .iter()
        .map(|text| text.0.parse())
        .collect::<Result<_, _>>()
        .map_err(|why| Failed::usage(format_args!("--signer-header: {why}"), command))?;
    Ok(if peers.offchain {
        None
    } else if let Some((url, others)) = peers.signer.split_first() {
        Some(Signer {
            url: peers.own(url.clone()),
            others: others.iter().cloned().map(|url| peers.own(url)).collect(),
            headers: own_headers,
        })
    } else if let Some(text) = named(&token.signer) {
        let mut headers = fields("signer headers", &token.signer_headers)?;
        headers.extend(own_headers);
        Some(Signer {
            url: peers.own(peer(&text).map_err(|why| in_token("signer", why))?),
            others: Vec::new(),
            headers,
        })
    } else {
        None
    })
}

fn in_token(what: &str, why: String) -> Failed {
    Failed::new(
        format_args!("the {what} in the token: {why}"),
        "Ask whoever gave you the token for a new one",
    )
}

fn fields(
    what: &str,
    fields: &Option<std::collections::BTreeMap<String, String>>,
) -> Result<Vec<Header>, Failed> {
    match fields {
        None => Ok(Vec::new()),
        Some(fields) => fields
            .iter()
            .map(|(name, value)| Header::new(name.trim(), value.trim()))
            .collect::<Result<_, _>>()
            .map_err(|why| in_token(what, why.to_owned())),
    }
}

fn named(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

pub(super) fn resolve(
    explicit: Vec<Url>,
    peers: &PeerArgs,
    command: &str,
) -> Result<Endpoints, Failed> {
    let token = token(peers, command)?;
    let signer = signer(peers, &token, command)?;
    let mut orchestrators = explicit;
    if orchestrators.is_empty() {
        orchestrators = token
            .orchestrators
            .iter()
            .flatten()
            .map(|text| required_orchestrator(text))
            .collect::<Result<_, _>>()
            .map_err(|why| in_token("orchestrators", why))?;
    }
    // Twice the same would be asked twice.
    let mut seen = std::collections::BTreeSet::new();
    orchestrators.retain(|url| seen.insert(url.clone()));
    let orchestrators = orchestrators.into_iter().map(|url| peers.own(url));
    let orchestrators: Vec<Url> = orchestrators.collect();

    let discovery = match named(&token.discovery) {
        Some(text) => Some((
            peers.own(peer(&text).map_err(|why| in_token("discovery endpoint", why))?),
            fields("discovery headers", &token.discovery_headers)?,
        )),
        None => None,
    };

    if orchestrators.is_empty() && discovery.is_none() && signer.is_none() {
        return Err(Failed::usage(
            "no orchestrator is named: give --orchestrator URL, or a --signer or --token that knows some",
            command,
        ));
    }
    Ok(Endpoints {
        orchestrators,
        discovery,
        signer,
    })
}

/// The peers of a job, which somebody has to pay for unless it is off-chain.
///
/// # Errors
/// As [`resolve`], and if nobody is named to pay.
pub(super) fn of_job(
    explicit: &[Option<Url>],
    peers: &PeerArgs,
    pay: &PayArgs,
    command: &str,
) -> Result<Endpoints, Failed> {
    let explicit = explicit.iter().flatten().cloned().collect();
    let endpoints = resolve(explicit, peers, command)?;
    if endpoints.signer.is_none() && !peers.offchain && !pay.own_key() {
        return Err(Failed::usage(
            "nobody is named to sign the payments: give --signer URL, a --token that names \
             one, a key of your own, or --offchain",
            command,
        ));
    }
    Ok(endpoints)
}
