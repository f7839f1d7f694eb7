//! Where to look for orchestrators: options of `discover` and `select`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use livepeer_core::Address;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::discovery::{ChainSource, Order, Origin, Source, Wishes, plan, subgraph_url};
use livepeer_core::http::Url;
use livepeer_core::money::Price;
use livepeer_core::wire::Token;

use super::endpoints::{self, Signer};
use super::values::{self, AiRegistry, Header, Secret};
use super::{PeerArgs, Runtime};
use crate::ui::Failed;

/// Options of `discover`.
#[derive(Args, Debug)]
pub(crate) struct DiscoverArgs {
    #[command(flatten)]
    pub(crate) find: FindArgs,
}

/// Options of `select`.
#[derive(Args, Debug)]
pub(crate) struct SelectArgs {
    /// Show all candidates with the parts of their scores, instead of the address of one.
    #[arg(long)]
    pub(crate) explain: bool,
    #[command(flatten)]
    pub(crate) find: FindArgs,
}

/// Where to look, for what, and how long.
#[derive(Args, Debug)]
pub(crate) struct FindArgs {
    /// Orchestrators by address; repeat the option or separate with commas.
    #[arg(long, value_name = "ADDR", help_heading = "Sources")]
    orchestrator: Vec<String>,
    /// A discovery endpoint or webhook: it answers a JSON array of objects with an "address".
    #[arg(long, value_name = "URL", help_heading = "Sources", value_parser = values::peer)]
    discovery: Option<Url>,
    /// A header field for the discovery endpoint; may repeat.
    #[arg(
        long,
        value_name = "NAME:VALUE",
        help_heading = "Sources",
        requires = "discovery"
    )]
    discovery_header: Vec<Secret>,
    /// An orchestrator whose live runners are wanted (its /discovery); may repeat.
    #[arg(long, value_name = "URL", help_heading = "Sources", value_parser = values::required_orchestrator)]
    runners: Vec<Url>,
    /// The Livepeer subgraph: its URL, or a key of The Graph's gateway.
    #[arg(
        long,
        value_name = "URL|KEY",
        help_heading = "Sources",
        hide_env_values = true,
        env = "LIVEPEER_SUBGRAPH"
    )]
    subgraph: Option<Secret>,
    /// A table of orchestrators and their statistics, such as an explorer's API.
    #[arg(long, value_name = "URL", help_heading = "Sources", value_parser = values::peer)]
    stats: Option<Url>,
    /// Read the contracts through this JSON-RPC endpoint of Arbitrum; repeat for further ones, each asked when those
    /// before it fail.
    #[arg(
        long,
        value_name = "URL",
        help_heading = "Sources",
        hide_env_values = true,
        env = "LIVEPEER_RPC",
        value_delimiter = ','
    )]
    rpc: Vec<Secret>,
    /// The Controller contract, for another chain than Arbitrum One.
    #[arg(
        long,
        value_name = "ADDRESS",
        help_heading = "Sources",
        requires = "rpc"
    )]
    controller: Option<Address>,
    /// The registry of AI services; "none" reads the main one only.
    #[arg(
        long,
        value_name = "ADDRESS|none",
        help_heading = "Sources",
        requires = "rpc"
    )]
    ai_registry: Option<AiRegistry>,
    /// Ask all sources and put their answers together, instead of the first that answers.
    #[arg(long, help_heading = "Sources")]
    pub(crate) all: bool,
    /// Only orchestrators that serve this model of live video; without this option all, with all that they serve.
    #[arg(long, value_name = "MODEL", value_parser = values::model)]
    pub(crate) model_id: Option<String>,
    /// The most to pay, in wei per pixel: 1200, 0.5 or 1/3.
    #[arg(long, value_name = "WEI_PER_PIXEL", value_parser = values::price)]
    pub(crate) max_price: Option<Price>,
    /// Accept also orchestrators that ask to be paid as another account than the one registered for their address.
    #[arg(long)]
    pub(crate) any_recipient: bool,
    /// How long to look, and then how long to wait for orchestrators, at most: 30s, 1m.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub(crate) within: Duration,
    /// Keep in this file what was seen of orchestrators, for this and other commands.
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// The runtime that drives the search.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) peers: PeerArgs,
}

impl FindArgs {
    /// The capabilities that orchestrators have to offer.
    pub(crate) fn wanted(&self) -> Capabilities {
        match &self.model_id {
            Some(model) => Capabilities::live_video(model.as_str()),
            None => Capabilities::default(),
        }
    }

    /// Where to look, in order.
    ///
    /// # Errors
    /// If token or options are malformed, or name no place to look.
    pub(crate) fn sources(&self, command: &str) -> Result<Vec<(Origin, Source)>, Failed> {
        let mut token = endpoints::token(&self.peers, command)?;
        let signer = endpoints::signer(&self.peers, &token, command)?;
        // Who signs is decided there, for the list of a signer and for its signature alike.
        token.signer = None;
        let wishes = self.wishes(signer.as_ref(), command)?;
        if !names_a_place(&token, &wishes) {
            return Err(Failed::usage(
                "no place to look is named: give --orchestrator, --discovery, --signer, --runners, \
                 --subgraph, --rpc or a --token",
                command,
            ));
        }
        let sources = plan(Order::Ours, &token, &wishes, &self.wanted())
            .map_err(|error| Failed::usage(error.why, command))?;
        let open = self.peers.allow_private;
        let sources = sources.into_iter();
        Ok(sources
            .map(|(origin, source)| (origin, if open { source.opened() } else { source }))
            .collect())
    }

    /// The signer that introduces us to the orchestrators found; `None` if there is none.
    ///
    /// # Errors
    /// If token or header fields are malformed.
    pub(crate) fn signer(&self, command: &str) -> Result<Option<Signer>, Failed> {
        let token = endpoints::token(&self.peers, command)?;
        endpoints::signer(&self.peers, &token, command)
    }

    fn wishes(&self, signer: Option<&Signer>, command: &str) -> Result<Wishes, Failed> {
        let fields = |headers: &[Header]| -> BTreeMap<String, String> {
            let pairs = headers
                .iter()
                .map(|header| (header.name.clone(), header.value.clone()));
            pairs.collect()
        };
        let own: Vec<Header> = self
            .discovery_header
            .iter()
            .map(|text| text.0.parse())
            .collect::<Result<_, _>>()
            .map_err(|why| Failed::usage(format_args!("--discovery-header: {why}"), command))?;
        Ok(Wishes {
            orchestrators: (!self.orchestrator.is_empty()).then(|| self.orchestrator.join(",")),
            discovery: self.discovery.as_ref().map(Url::to_string),
            discovery_headers: fields(&own),
            signer: signer.map(|signer| signer.url.to_string()),
            other_signers: signer.map_or_else(Vec::new, |signer| {
                signer.others.iter().map(Url::to_string).collect()
            }),
            signer_headers: signer.map_or_else(BTreeMap::new, |signer| fields(&signer.headers)),
            runners: self.runners.iter().map(Url::to_string).collect(),
            subgraph: match &self.subgraph {
                Some(text) => Some(subgraph(&text.0, command)?),
                None => None,
            },
            stats: self.stats.as_ref().map(Url::to_string),
            chain: self.chain(command)?,
        })
    }

    fn chain(&self, command: &str) -> Result<Option<ChainSource>, Failed> {
        let mut endpoints = self
            .rpc
            .iter()
            .filter(|text| !text.0.is_empty())
            // The text may be a secret and is not repeated.
            .map(|text| values::peer(&text.0))
            .collect::<Result<Vec<Url>, String>>()
            .map_err(|why| Failed::usage(format_args!("--rpc: {why}"), command))?
            .into_iter();
        let Some(first) = endpoints.next() else {
            return Ok(None);
        };
        let mut chain = ChainSource::arbitrum(first, true);
        chain.others = endpoints.collect();
        if let Some(controller) = self.controller {
            chain = chain.of(controller);
        }
        if let Some(registry) = self.ai_registry {
            chain.ai_registry = registry.0;
        }
        Ok(Some(chain))
    }
}

/// Whether there is anything to plan with.
fn names_a_place(token: &Token, wishes: &Wishes) -> bool {
    token.orchestrators.is_some()
        || token.discovery.is_some()
        || wishes.orchestrators.is_some()
        || wishes.discovery.is_some()
        || wishes.signer.is_some()
        || !wishes.runners.is_empty()
        || wishes.subgraph.is_some()
        || wishes.stats.is_some()
        || wishes.chain.is_some()
}

/// A key is turned into the URL that it opens.
fn subgraph(text: &str, command: &str) -> Result<String, Failed> {
    match subgraph_url(text) {
        Some(url) => Ok(url.to_string()),
        None => values::peer(text)
            .map(|url| url.to_string())
            .map_err(|why| Failed::usage(format_args!("--subgraph: {why}"), command)),
    }
}
