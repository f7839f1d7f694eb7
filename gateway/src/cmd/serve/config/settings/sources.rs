//! Where orchestrators are looked for, and in which order.

use livepeer_core::discovery::{self, ChainSource, Choice, Combine, subgraph_url};

use super::super::said::Origin;
use super::{Reader, values};
use crate::args::{ChainArgs, Endpoints};

type Kind = discovery::Origin;

impl Reader<'_> {
    /// The sources that can be asked, of those that are chosen.
    pub(super) fn sources(&mut self, endpoints: &Endpoints, chain: &ChainArgs) -> Choice {
        const PATH: &str = "orchestrators.sources";
        let all = self.flag("orchestrators.all");
        let subgraph = self.read("orchestrators.subgraph", |text| match subgraph_url(text) {
            Some(url) => Ok(url),
            None => values::peer(text),
        });
        let mut choice = Choice {
            order: Vec::new(),
            combine: if all { Combine::All } else { Combine::First },
            subgraph: subgraph.map(|url| self.own(url)),
            chain: contracts(chain),
        };
        let is_said = self.origin(PATH) != Origin::BuiltIn;
        for (word, origin) in self.list(PATH) {
            let (kind, is_there, key) = match word.as_str() {
                "list" => (Kind::List, !endpoints.orchestrators.is_empty(), "list"),
                "discovery" => (Kind::Endpoint, endpoints.discovery.is_some(), "discovery"),
                "signer" => (Kind::Signer, endpoints.signer.is_some(), "payer.signers"),
                "subgraph" => (Kind::Subgraph, choice.subgraph.is_some(), "subgraph"),
                "chain" => (Kind::Chain, choice.chain.is_some(), "chain.rpc"),
                _ => {
                    let why = format!(
                        "{word:?}: it is neither list, discovery, signer, subgraph nor chain"
                    );
                    self.wrong(origin, PATH, why);
                    continue;
                }
            };
            if is_there && !choice.order.contains(&kind) {
                choice.order.push(kind);
            } else if !is_there && is_said {
                self.wrong(
                    origin,
                    PATH,
                    format_args!("{word:?}: {key} names nobody to ask"),
                );
            }
        }
        if choice.order.is_empty() {
            let why = "no orchestrator is named: set list or discovery, or pay through a signer that knows some";
            self.wrong(Origin::BuiltIn, "orchestrators", why);
        }
        choice
    }
}

/// The contracts, if an endpoint shows them.
fn contracts(chain: &ChainArgs) -> Option<ChainSource> {
    let mut endpoints = chain.rpc.iter().cloned();
    let mut source = ChainSource::arbitrum(endpoints.next()?, true).of(chain.controller);
    source.others = endpoints.collect();
    Some(source)
}
