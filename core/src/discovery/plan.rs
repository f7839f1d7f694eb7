//! The sources of orchestrators, and their order (handshake spec 7.1).

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::Combine;
use super::chain::ChainSource;
use crate::capabilities::Capabilities;
use crate::http::{Headers, Url};
use crate::wire::listing::{Skipped, StatsFields, caps_query, read_address, read_addresses};
use crate::wire::signer::DISCOVERY_PATH;
use crate::wire::{Token, WireError};

/// Where orchestrators can be found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source {
    /// A list at hand; what was left out of it, and why.
    List(Vec<Url>, Vec<Skipped>),
    /// A webhook, a discovery endpoint or a signer: answers a JSON array.
    Endpoint {
        /// The URL, with the query for what is wanted.
        url: Url,
        /// Header fields for this endpoint alone.
        headers: Headers,
    },
    /// The live runners of one orchestrator: its `GET /discovery`.
    Runners(Url),
    /// The Livepeer subgraph.
    Subgraph(Url),
    /// A table of statistics.
    Stats {
        /// The URL of the table.
        url: Url,
        /// The names of the table's fields.
        fields: StatsFields,
    },
    /// The contracts.
    Chain(ChainSource),
}

impl Source {
    /// Allows the addresses that this source lists to be private or local too: see [`Url::opened`].
    #[must_use]
    pub fn opened(mut self) -> Self {
        let open = |url: &mut Url| *url = url.clone().opened();
        match &mut self {
            Self::List(urls, _) => urls.iter_mut().for_each(open),
            Self::Endpoint { url, .. }
            | Self::Runners(url)
            | Self::Subgraph(url)
            | Self::Stats { url, .. } => open(url),
            Self::Chain(chain) => {
                open(&mut chain.endpoint);
                chain.others.iter_mut().for_each(open);
            }
        }
        self
    }
}

/// The public subgraph's URL, for a key of The Graph's gateway.
#[must_use]
pub fn subgraph_url(key: &str) -> Option<Url> {
    const ID: &str = "FE63YgkzcpVocxdCEyEYbvjYqEf2kb1A6daMYRxmejYC";
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric());
    plain
        .then(|| {
            let text =
                "https://gateway.thegraph.com/api/".to_string() + key + "/subgraphs/id/" + ID;
            Url::parse(&text).ok()
        })
        .flatten()
}

/// The wishes of a user, before they are read.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Orchestrators: addresses with commas between.
    pub orchestrators: Option<String>,
    /// A discovery endpoint or webhook.
    pub discovery: Option<String>,
    /// Header fields for the discovery endpoint alone.
    pub discovery_headers: BTreeMap<String, String>,
    /// The remote signer.
    pub signer: Option<String>,
    /// Further signers for the same account, asked when those before give nothing, or not soon.
    pub other_signers: Vec<String>,
    /// Header fields for the signers alone.
    pub signer_headers: BTreeMap<String, String>,
    /// Orchestrators whose live runners are wanted: each is asked for its `/discovery`.
    pub runners: Vec<String>,
    /// A subgraph.
    pub subgraph: Option<String>,
    /// A table of statistics.
    pub stats: Option<String>,
    /// The contracts.
    pub chain: Option<ChainSource>,
}

/// The order of the candidates, by whose rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Ours: the explicit list, then the token's, then the endpoints in the same way, then signer, runners,
    /// indexers and chain. What is empty is as good as absent.
    #[default]
    Ours,
    /// The python client's: the token outranks the arguments field by field, and a field that is there counts even
    /// if it is empty. It knows no indexer and no chain.
    PythonClient,
}

/// Where a source comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the meaning")]
pub enum Origin {
    TokenList,
    List,
    TokenEndpoint,
    Endpoint,
    Signer,
    Runners,
    Subgraph,
    Stats,
    Chain,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TokenList => "token's list",
            Self::List => "list",
            Self::TokenEndpoint => "token's endpoint",
            Self::Endpoint => "endpoint",
            Self::Signer => "signer",
            Self::Runners => "runners",
            Self::Subgraph => "subgraph",
            Self::Stats => "statistics",
            Self::Chain => "chain",
        })
    }
}

/// A choice of sources, and of their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The kinds of sources that are asked, in this order.
    pub order: Vec<Origin>,
    /// Whether the first source that answers is enough.
    pub combine: Combine,
    /// A subgraph, for [`Origin::Subgraph`].
    pub subgraph: Option<Url>,
    /// The contracts, for [`Origin::Chain`].
    pub chain: Option<ChainSource>,
}

impl Choice {
    /// Whether a list at hand is all that is ever asked, if there is one.
    #[must_use]
    pub fn is_list_enough(&self) -> bool {
        self.order.first() == Some(&Origin::List) && self.combine == Combine::First
    }

    /// The sources of a [`plan`] that are chosen, in the order of the choice. What the token names counts as named.
    ///
    /// # Errors
    /// If none of them is.
    pub fn arrange(
        &self,
        mut planned: Vec<(Origin, Source)>,
    ) -> Result<Vec<(Origin, Source)>, WireError> {
        let place = |origin: Origin| {
            let named = match origin {
                Origin::TokenList => Origin::List,
                Origin::TokenEndpoint => Origin::Endpoint,
                origin => origin,
            };
            self.order.iter().position(|chosen| *chosen == named)
        };
        planned.retain(|(origin, _)| place(*origin).is_some());
        planned.sort_by_key(|(origin, _)| place(*origin));
        if planned.is_empty() {
            let why = "none of the chosen sources of orchestrators is named";
            return Err(WireError::new("the options", why));
        }
        Ok(planned)
    }
}

/// Brings the sources in order.
///
/// # Errors
/// If there is no source, or the URL of one is malformed.
pub fn plan(
    order: Order,
    token: &Token,
    wishes: &Wishes,
    wanted: &Capabilities,
) -> Result<Vec<(Origin, Source)>, WireError> {
    let sources = match order {
        Order::Ours => ours(token, wishes, wanted)?,
        Order::PythonClient => pythons(token, wishes, wanted)?,
    };
    if sources.is_empty() {
        return Err(WireError::new(
            "the options",
            "none says where to find orchestrators: name some, a discovery endpoint or a signer",
        ));
    }
    Ok(sources)
}

fn ours(
    token: &Token,
    wishes: &Wishes,
    wanted: &Capabilities,
) -> Result<Vec<(Origin, Source)>, WireError> {
    let there = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
    let mut sources = Vec::new();
    if let Some(text) = there(&wishes.orchestrators) {
        push_list(&mut sources, Origin::List, read_addresses(&text));
    }
    if let Some(list) = &token.orchestrators {
        push_list(&mut sources, Origin::TokenList, read_all(list));
    }
    if let Some(text) = there(&token.discovery) {
        let headers = token.discovery_headers.as_ref();
        sources.push((Origin::TokenEndpoint, endpoint(&text, headers, wanted)?));
    }
    if let Some(text) = there(&wishes.discovery) {
        let headers = Some(&wishes.discovery_headers);
        sources.push((Origin::Endpoint, endpoint(&text, headers, wanted)?));
    }
    if let Some(text) = there(&token.signer) {
        let headers = token.signer_headers.as_ref();
        sources.push((Origin::Signer, signer(&text, headers, wanted)?));
    } else if let Some(text) = there(&wishes.signer) {
        let headers = Some(&wishes.signer_headers);
        for text in core::iter::once(&text).chain(&wishes.other_signers) {
            sources.push((Origin::Signer, signer(text, headers, wanted)?));
        }
    }
    for text in &wishes.runners {
        sources.push((Origin::Runners, Source::Runners(url(text)?)));
    }
    if let Some(text) = there(&wishes.subgraph) {
        sources.push((Origin::Subgraph, Source::Subgraph(url(&text)?)));
    }
    if let Some(text) = there(&wishes.stats) {
        let fields = StatsFields::default();
        let url = url(&text)?;
        sources.push((Origin::Stats, Source::Stats { url, fields }));
    }
    if let Some(chain) = &wishes.chain {
        sources.push((Origin::Chain, Source::Chain(chain.clone())));
    }
    Ok(sources)
}

fn pythons(
    token: &Token,
    wishes: &Wishes,
    wanted: &Capabilities,
) -> Result<Vec<(Origin, Source)>, WireError> {
    let mut sources = Vec::new();
    match (&token.orchestrators, &wishes.orchestrators) {
        (Some(list), _) => push_list(&mut sources, Origin::TokenList, read_all(list)),
        (None, Some(text)) => push_list(&mut sources, Origin::List, read_addresses(text)),
        (None, None) => {}
    }
    let there = |text: &&String| !text.trim().is_empty();
    match (&token.discovery, &wishes.discovery) {
        (Some(text), _) if there(&text) => {
            let headers = token.discovery_headers.as_ref();
            sources.push((Origin::TokenEndpoint, endpoint(text, headers, wanted)?));
        }
        (None, Some(text)) if there(&text) => {
            let headers = Some(&wishes.discovery_headers);
            sources.push((Origin::Endpoint, endpoint(text, headers, wanted)?));
        }
        _ => {}
    }
    let headers = token
        .signer_headers
        .as_ref()
        .or(Some(&wishes.signer_headers));
    if let Some(text) = token
        .signer
        .as_ref()
        .or(wishes.signer.as_ref())
        .filter(there)
    {
        sources.push((Origin::Signer, signer(text, headers, wanted)?));
    }
    Ok(sources)
}

fn read_all(list: &[String]) -> (Vec<Url>, Vec<Skipped>) {
    let mut listed = (Vec::new(), Vec::new());
    for (at, text) in list.iter().enumerate() {
        match read_address(text) {
            Ok(url) => listed.0.push(url),
            Err(why) => listed.1.push(Skipped { at, why }),
        }
    }
    listed
}

/// Adds a list of orchestrators, unless it has no entry, good or bad.
fn push_list(
    sources: &mut Vec<(Origin, Source)>,
    origin: Origin,
    (urls, skipped): (Vec<Url>, Vec<Skipped>),
) {
    if !urls.is_empty() || !skipped.is_empty() {
        sources.push((origin, Source::List(urls, skipped)));
    }
}

fn endpoint(
    text: &str,
    headers: Option<&BTreeMap<String, String>>,
    wanted: &Capabilities,
) -> Result<Source, WireError> {
    Ok(Source::Endpoint {
        url: caps_query(&url(text)?, wanted),
        headers: fields(headers),
    })
}

fn signer(
    text: &str,
    headers: Option<&BTreeMap<String, String>>,
    wanted: &Capabilities,
) -> Result<Source, WireError> {
    let url = url(text)?.with_path(DISCOVERY_PATH);
    Ok(Source::Endpoint {
        url: caps_query(&url, wanted),
        headers: fields(headers),
    })
}

/// A URL; `https` if it says nothing else.
fn url(text: &str) -> Result<Url, WireError> {
    let text = text.trim();
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&("https://".to_string() + text))
    };
    url.map_err(|err| WireError::new("the options", alloc::format!("{text:?}: {err}")))
}

fn fields(headers: Option<&BTreeMap<String, String>>) -> Headers {
    let mut fields = Headers::new();
    for (name, value) in headers.into_iter().flatten() {
        fields.push_any(name, value.as_str());
    }
    fields
}
