//! Options of `serve`. Each is a key of the configuration, which judges them together with file and environment.

use std::path::PathBuf;

use clap::Args;
use livepeer_core::http::Url;
use livepeer_core::wire::ethereum::{CHAIN_ID, CONTROLLER};

use super::{PayArgs, PeerArgs, Runtime};
use crate::args::endpoints;

/// The value of a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    Text(String),
    List(Vec<String>),
    On,
    Number(u64),
}

/// Options of `serve`.
#[derive(Args, Debug)]
pub(crate) struct FrontArgs {
    /// The configuration file, in TOML. Environment and options go over what it says.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Say what is wrong with the configuration, and start nothing.
    #[arg(long)]
    pub(crate) check: bool,
    /// Print the configuration with the place where each value was said, and start nothing.
    #[arg(long, conflicts_with = "check")]
    pub(crate) print_config: bool,
    /// Where to listen, 127.0.0.1:9935 if nothing is said; repeat the option or separate with commas. ADDR is ip:port,
    /// a port on loopback, or unix:/path.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    listen: Vec<String>,
    /// Where to answer operators (/metrics); if nothing is said, unix:ops.sock in the current folder, for nobody but this
    /// user, and 127.0.0.1:5935.
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    ops: Vec<String>,
    /// Take work from everybody who reaches an address beyond loopback. It has to be said.
    #[arg(long)]
    allow_no_auth: bool,
    /// Where callers reach the gateway, for addresses in answers; otherwise where their request says it was sent.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Where results are kept: memory, or dir:/path.
    #[arg(long, value_name = "PLACE")]
    objects: Option<String>,
    /// Orchestrators to ask; repeat the option or separate with commas. Without a scheme, https is meant.
    /// Without this option the token, or else the signer, is asked for a list.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    orchestrator: Vec<String>,
    /// The most to pay for a unit of any pipeline, in wei: 1200, 0.5 or 1/3.
    #[arg(long, value_name = "WEI")]
    max_price: Option<String>,
    /// The runtime that drives the gateway; tokio if nothing is said.
    #[arg(long, value_enum)]
    runtime: Option<Runtime>,
    #[command(flatten)]
    pub(crate) peers: PeerArgs,
    #[command(flatten)]
    pub(crate) pay: PayArgs,
    /// The level of the log, if the command line or its variable says one.
    #[arg(skip)]
    pub(super) log: Option<String>,
}

impl FrontArgs {
    /// The keys that the options set: path, value and option.
    ///
    /// # Errors
    /// If the token or a header field is malformed.
    pub(crate) fn said(&self) -> Result<Vec<(String, Flag, &'static str)>, String> {
        let mut said = Vec::new();
        let mut list = |path: &str, list: Vec<String>, flag| {
            if !list.is_empty() {
                said.push((path.to_owned(), Flag::List(list), flag));
            }
        };
        let texts = |urls: &[Url]| urls.iter().map(Url::to_string).collect::<Vec<_>>();
        let (peers, pay) = (&self.peers, &self.pay);
        let token = endpoints::token(peers, "serve").map_err(|failed| failed.line())?;
        let signer = endpoints::signer(peers, &token, "serve").map_err(|failed| failed.line())?;
        list(
            "orchestrators.list",
            token.orchestrators.unwrap_or_default(),
            "--token",
        );
        list(
            "orchestrators.list",
            self.orchestrator.clone(),
            "--orchestrator",
        );
        list("serve.listen", self.listen.clone(), "--listen");
        list("serve.ops", self.ops.clone(), "--ops");
        list("chain.rpc", texts(&pay.chain.rpc), "--rpc");
        if let Some(signer) = signer {
            let all = [std::slice::from_ref(&signer.url), &signer.others].concat();
            list("payer.signers", texts(&all), "--signer");
            for header in signer.headers {
                let path = format!("payer.signer_headers.{}", header.name);
                said.push((path, Flag::Text(header.value), "--signer-header"));
            }
        }
        if let Some(discovery) = token.discovery.filter(|url| !url.is_empty()) {
            said.push((
                "orchestrators.discovery".into(),
                Flag::Text(discovery),
                "--token",
            ));
            for (name, value) in token.discovery_headers.into_iter().flatten() {
                let path = format!("orchestrators.discovery_headers.{name}");
                said.push((path, Flag::Text(value), "--token"));
            }
        }
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let texts = [
            ("serve.public_url", self.public_url.clone(), "--public-url"),
            (
                "serve.runtime",
                self.runtime.map(|one| one.name().to_owned()),
                "--runtime",
            ),
            ("log.level", self.log.clone(), "--log"),
            ("store.objects", self.objects.clone(), "--objects"),
            ("store.path", path(&pay.store), "--store"),
            ("prices.max", self.max_price.clone(), "--max-price"),
            ("payer.keystore", path(&pay.key.keystore), "--keystore"),
            (
                "payer.password_file",
                path(&pay.key.password_file),
                "--password-file",
            ),
            ("payer.key_file", path(&pay.key.key_file), "--key-file"),
            (
                "payer.max_spend_per_hour",
                pay.max_spend_per_hour.as_ref().map(ToString::to_string),
                "--max-spend-per-hour",
            ),
            ("orchestrators.pins", path(&peers.pins), "--pins"),
            (
                "orchestrators.trust",
                peers.ca_trust.then(|| "ca".to_owned()),
                "--ca-trust",
            ),
            (
                "chain.controller",
                (pay.chain.controller != CONTROLLER).then(|| pay.chain.controller.to_string()),
                "--controller",
            ),
        ];
        for (path, text, flag) in texts {
            said.extend(text.map(|text| (path.to_owned(), Flag::Text(text), flag)));
        }
        let flags = [
            ("payer.offchain", peers.offchain, "--offchain"),
            ("chain.static", pay.chain.static_chain, "--static-chain"),
            ("serve.allow_no_auth", self.allow_no_auth, "--allow-no-auth"),
        ];
        for (path, on, flag) in flags {
            said.extend(on.then(|| (path.to_owned(), Flag::On, flag)));
        }
        if pay.chain.chain_id != CHAIN_ID {
            let id = Flag::Number(pay.chain.chain_id);
            said.push(("chain.chain_id".to_owned(), id, "--chain-id"));
        }
        Ok(said)
    }
}
