//! Peers as an application names them, in any order, and what follows from all of it together.

use std::collections::BTreeMap;

use livepeer_core::Signers;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::discovery::{Choice, Combine, Order, Origin, Source, Wishes, plan};
use livepeer_core::http::{Headers, Url};
use livepeer_core::wire::Token;

use super::{Error, Payer, orchestrator_url, service_url};

/// Orchestrators, signers, a discovery endpoint and a payer, as they were named. Nothing is judged before all is said:
/// what is named explicitly outranks the token, whichever came first, and empty counts as absent (handshake spec 7.1).
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    orchestrators: Vec<Named>,
    payer: Option<Payer>,
    signers: Vec<String>,
    signer_headers: Headers,
    discovery: Option<String>,
    discovery_headers: Headers,
    token: Token,
    choice: Option<Choice>,
    open: bool,
}

/// The settings that say where orchestrators are found: searches with the same ones find the same.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Places {
    discovery: Option<String>,
    discovery_headers: Headers,
    token: Token,
    choice: Option<Choice>,
    open: bool,
}

/// An address, read already or not.
#[derive(Clone, Debug)]
enum Named {
    Url(Url),
    Text(String),
}

impl Peers {
    pub(super) fn add_orchestrator(&mut self, text: &str) {
        self.orchestrators.push(Named::Text(text.to_owned()));
    }

    pub(super) fn add_orchestrators(&mut self, urls: impl IntoIterator<Item = Url>) {
        self.orchestrators.extend(urls.into_iter().map(Named::Url));
    }

    pub(super) fn set_payer(&mut self, payer: Payer) {
        self.payer = Some(payer);
    }

    pub(super) fn add_signer(&mut self, url: &str) {
        self.signers.push(url.to_owned());
    }

    pub(super) fn add_signer_header(&mut self, name: &str, value: &str) {
        self.signer_headers.push_any(name, value);
    }

    pub(super) fn set_discovery(&mut self, url: &str) {
        self.discovery = Some(url.to_owned());
    }

    pub(super) fn add_discovery_header(&mut self, name: &str, value: &str) {
        self.discovery_headers.push_any(name, value);
    }

    pub(super) fn set_token(&mut self, token: &Token) {
        self.token = token.clone();
    }

    pub(super) fn set_choice(&mut self, choice: Choice) {
        self.choice = Some(choice);
    }

    /// Whether the first source that answers is enough.
    pub(super) fn combine(&self) -> Combine {
        let choice = self.choice.as_ref();
        choice.map_or(Combine::First, |choice| choice.combine)
    }

    /// Lets all of them be, name and lead to private addresses.
    pub(super) fn set_open(&mut self) {
        self.open = true;
    }

    /// The address as it may be used.
    pub(super) fn own(&self, url: Url) -> Url {
        if self.open { url.opened() } else { url }
    }

    /// The payer of the work.
    pub(super) fn payer(&self) -> Result<Payer, Error> {
        let has_headers = self.signer_headers.iter().next().is_some();
        if let Some(payer) = &self.payer {
            if !self.signers.is_empty() || has_headers {
                return Err(Error::Options(
                    "a payer and a signer, or header fields for one, are both set: set one of them",
                ));
            }
            return Ok(payer.clone());
        }
        let (signers, from_token) = self.signers();
        let mut urls = Vec::new();
        for signer in signers {
            urls.push(self.own(service_url(signer)?));
        }
        let mut urls = urls.into_iter();
        let Some(first) = urls.next() else {
            if has_headers {
                return Err(Error::Options(
                    "there are header fields for a signer, and no signer: name it too",
                ));
            }
            return Ok(Payer::Offchain);
        };
        let mut signers = urls.fold(Signers::new(first), Signers::or);
        let fields = self.token.signer_headers.iter().flatten();
        let fields = fields.filter(|_| from_token);
        let fields = fields.map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fields.chain(self.signer_headers.iter()) {
            signers.add_header(name, value);
        }
        Ok(Payer::Remote(signers))
    }

    /// The signers, and whether it is the token that names them.
    fn signers(&self) -> (Vec<&String>, bool) {
        let named: Vec<_> = self.signers.iter().collect();
        if named.is_empty() {
            let signer = self.token.signer.as_ref().filter(|url| !url.is_empty());
            return (signer.into_iter().collect(), true);
        }
        (named, false)
    }

    /// The orchestrators that are named, each once; none if they have to be found.
    pub(super) fn orchestrators(&self) -> Result<Vec<Url>, Error> {
        match &self.choice {
            Some(choice) if !choice.is_list_enough() => Ok(Vec::new()),
            _ => self.listed(),
        }
    }

    /// The orchestrators that are named, each once.
    pub(super) fn listed(&self) -> Result<Vec<Url>, Error> {
        let mut all = Vec::new();
        for named in &self.orchestrators {
            all.push(match named {
                Named::Url(url) => url.clone(),
                Named::Text(text) => orchestrator_url(text)?,
            });
        }
        if all.is_empty() {
            for text in self.token.orchestrators.iter().flatten() {
                all.push(orchestrator_url(text)?);
            }
        }
        let mut urls: Vec<Url> = Vec::new();
        for url in all.into_iter().map(|url| self.own(url)) {
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        Ok(urls)
    }

    pub(super) fn places(&self) -> Places {
        Places {
            discovery: self.discovery.clone(),
            discovery_headers: self.discovery_headers.clone(),
            token: self.token.clone(),
            choice: self.choice.clone(),
            open: self.open,
        }
    }

    /// The places to ask for orchestrators: the named ones, then discovery endpoints, then the signers; or those that
    /// were chosen.
    pub(super) fn sources(&self, wanted: &Capabilities) -> Result<Vec<(Origin, Source)>, Error> {
        let mut urls = self.listed()?.into_iter().map(|url| url.to_string());
        let mut wishes = Wishes {
            orchestrators: urls
                .next()
                .map(|first| urls.fold(first, |all, next| all + "," + &next)),
            discovery: self.discovery.clone(),
            discovery_headers: fields(&self.discovery_headers),
            ..Wishes::default()
        };
        if let Payer::Remote(signers) = self.payer()? {
            let mut urls = signers.urls().iter().map(Url::to_string);
            wishes.signer = urls.next();
            wishes.other_signers = urls.collect();
            wishes.signer_headers = fields(signers.fields());
        }
        let token = Token {
            discovery: self.token.discovery.clone(),
            discovery_headers: self.token.discovery_headers.clone(),
            ..Token::default()
        };
        if let Some(choice) = &self.choice {
            wishes.subgraph = choice.subgraph.as_ref().map(Url::to_string);
            wishes.chain.clone_from(&choice.chain);
        }
        let mut sources = plan(Order::Ours, &token, &wishes, wanted)?;
        if let Some(choice) = &self.choice {
            sources = choice.arrange(sources)?;
        }
        let own = |source: Source| if self.open { source.opened() } else { source };
        Ok(sources
            .into_iter()
            .map(|(origin, source)| (origin, own(source)))
            .collect())
    }
}

fn fields(headers: &Headers) -> BTreeMap<String, String> {
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    headers.iter().map(pair).collect()
}

/// The settings of peers that every builder has, in the same words.
macro_rules! peer_settings {
    () => {
        /// Adds an orchestrator (`HOST:PORT` or a URL); those added first are asked first. Without any, they are found
        /// through the discovery endpoint or the signer.
        pub fn orchestrator(mut self, url: &str) -> Self {
            self.peers.add_orchestrator(url);
            self
        }

        /// Adds orchestrators whose addresses are read already.
        pub fn orchestrators(
            mut self,
            urls: impl IntoIterator<Item = livepeer_core::http::Url>,
        ) -> Self {
            self.peers.add_orchestrators(urls);
            self
        }

        /// Sets the endpoint that knows orchestrators.
        #[doc(alias = "discovery_url")]
        pub fn discovery(mut self, url: &str) -> Self {
            self.peers.set_discovery(url);
            self
        }

        /// Adds a header field for the discovery endpoint alone, such as an authorization.
        #[doc(alias = "discovery_headers")]
        pub fn discovery_header(mut self, name: &str, value: &str) -> Self {
            self.peers.add_discovery_header(name, value);
            self
        }
    };
    (choice) => {
        /// Chooses the sources that are asked for orchestrators, and their order. Those that are named are one of them, and
        /// without this setting the only one.
        pub fn sources(mut self, choice: livepeer_core::discovery::Choice) -> Self {
            self.peers.set_choice(choice);
            self
        }
    };
    (payer) => {
        /// Sets who pays, with everything about it. Excludes a signer. An own account signs with the key of the driver
        /// ([`Driver::with_key`](crate::Driver::with_key)), which then wants a store that survives
        /// ([`Driver::with_store`](crate::Driver::with_store)), and a job that lasts wants news of the chain
        /// ([`LiveVideoJob::set_chain`](crate::api::LiveVideoJob::set_chain)).
        pub fn payer(mut self, payer: $crate::api::Payer) -> Self {
            self.peers.set_payer(payer);
            self
        }

        /// Pays through the remote signer at `url`; of several, a later one is asked when those before it do not answer
        /// soon, and first while they rest ([`Driver::signer_health`](crate::Driver::signer_health)). Without a signer
        /// nothing is paid.
        #[doc(alias = "signer_url")]
        pub fn signer(mut self, url: &str) -> Self {
            self.peers.add_signer(url);
            self
        }

        /// Adds a header field for the signers alone, such as an authorization.
        #[doc(alias = "signer_headers")]
        pub fn signer_header(mut self, name: &str, value: &str) -> Self {
            self.peers.add_signer_header(name, value);
            self
        }

        /// Takes what the token names: orchestrators, discovery endpoint and signer, each with its header fields. What
        /// is named explicitly outranks it.
        pub fn token(mut self, token: &livepeer_core::wire::Token) -> Self {
            self.peers.set_token(token);
            self
        }

        /// Lets peers be at private addresses, name such, and lead from `https` to `http`: see
        /// [`Url::opened`](livepeer_core::http::Url::opened).
        pub fn allow_private(mut self) -> Self {
            self.peers.set_open();
            self
        }
    };
}
pub(super) use peer_settings;

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            orchestrators: Some(vec!["token.example:8935".into()]),
            signer: Some("https://token-signer.example".into()),
            signer_headers: Some(BTreeMap::from([("authorization".into(), "t".into())])),
            ..Token::default()
        }
    }

    fn said(peers: &Peers) -> (Vec<String>, Vec<String>, usize) {
        let orchestrators = peers.orchestrators().expect("addresses");
        let Payer::Remote(signers) = peers.payer().expect("one payer") else {
            panic!("a signer is named");
        };
        (
            orchestrators.iter().map(Url::to_string).collect(),
            signers.urls().iter().map(Url::to_string).collect(),
            signers.fields().iter().count(),
        )
    }

    #[test]
    fn the_order_of_naming_makes_no_difference() {
        let steps: [fn(&mut Peers); 4] = [
            |peers| peers.set_token(&token()),
            |peers| peers.add_orchestrator("one.example:8935"),
            |peers| peers.add_signer_header("authorization", "s"),
            |peers| peers.add_signer("https://signer.example"),
        ];
        let mut all = Vec::new();
        for first in 0..steps.len() {
            let mut peers = Peers::default();
            for step in steps[first..].iter().chain(&steps[..first]) {
                step(&mut peers);
            }
            all.push(said(&peers));
        }
        assert_eq!(all[0].0, ["https://one.example:8935"]);
        assert_eq!(all[0].1, ["https://signer.example:443"]);
        // Those of the token go to the token's signer and nobody else.
        assert_eq!(all[0].2, 1);
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    }

    #[test]
    fn a_token_is_enough() {
        let mut peers = Peers::default();
        peers.set_token(&token());
        peers.add_signer_header("more", "s");
        let said = said(&peers);
        assert_eq!(said.0, ["https://token.example:8935"]);
        assert_eq!((said.1.len(), said.2), (1, 2));
    }

    #[test]
    fn what_contradicts_itself_is_refused_at_the_end() {
        let mut peers = Peers::default();
        peers.add_signer_header("authorization", "s");
        assert!(matches!(peers.payer(), Err(Error::Options(_))));
        peers.add_signer("https://signer.example");
        assert!(peers.payer().is_ok());
        peers.set_payer(Payer::Offchain);
        assert!(matches!(peers.payer(), Err(Error::Options(_))));
        peers.add_orchestrator("not a host");
        assert!(matches!(peers.orchestrators(), Err(Error::Url { .. })));
        let nobody = Peers::default().sources(&Capabilities::default());
        assert!(matches!(nobody, Err(Error::Input(_))));
    }
}
