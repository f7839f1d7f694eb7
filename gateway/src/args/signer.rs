//! Options of `signer`.

use std::path::PathBuf;

use clap::Args;
use livepeer_core::Address;
use livepeer_core::capabilities::{Capability, Ceilings};
use livepeer_core::http::{Headers, Url};
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::remote::Webhook;
use livepeer_core::payment::sender::SenderLimits;
use livepeer_core::wire::ethereum::{CHAIN_ID, CONTROLLER};

use super::Runtime;
use super::values::{self, AiRegistry, Header, Listen, Secret};
use crate::ui::Failed;

const COMMAND: &str = "signer";

/// Options of `signer`.
#[derive(Args, Debug)]
pub(crate) struct SignerArgs {
    /// Where to listen. ADDR is ip:port, or a port on loopback.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8935")]
    pub(crate) listen: Listen,
    /// The certificates to show, leaf first, in PEM. Without them the signer speaks plain HTTP.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of the certificates, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Keep in this file which nonces were used, so that a restart does not use one again under a quote that a caller
    /// kept.
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// The runtime that drives the signer.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    callers: CallerArgs,
    #[command(flatten)]
    pub(crate) listing: ListingArgs,
}

/// Options about the key. One way to it has to be named, by option or by environment.
#[derive(Args, Debug)]
#[command(next_help_heading = "Key of the account that pays")]
pub(crate) struct KeyArgs {
    /// An encrypted key file, as geth writes it. Its password is in LIVEPEER_SIGNER_PASSWORD or --password-file, or
    /// is asked for.
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    pub(crate) keystore: Option<PathBuf>,
    /// A file whose first line is the password of the keystore.
    #[arg(long, value_name = "FILE", requires = "keystore")]
    pub(crate) password_file: Option<PathBuf>,
    /// A file with the key itself, 64 hexadecimal digits. For `signer` without any file it is in LIVEPEER_SIGNER_KEY.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

/// Options about the chain.
#[derive(Args, Debug)]
#[command(next_help_heading = "Chain")]
pub(crate) struct ChainArgs {
    /// An Ethereum JSON-RPC endpoint; repeat the option or separate with commas, and each stands in for those
    /// before it.
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        value_parser = values::peer,
        env = "LIVEPEER_RPC",
        hide_env_values = true
    )]
    pub(crate) rpc: Vec<Url>,
    /// The chain that the endpoints must serve.
    #[arg(long, value_name = "ID", default_value_t = CHAIN_ID)]
    pub(crate) chain_id: u64,
    /// The contract that knows all others.
    #[arg(long, value_name = "ADDRESS", default_value_t = CONTROLLER)]
    pub(crate) controller: Address,
    /// No chain but the one for development, in which everybody is funded and blocks go by the clock.
    #[arg(long, conflicts_with = "rpc")]
    pub(crate) static_chain: bool,
}

/// Options about money.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// The most to pay for a unit, in wei: 1200, 0.5 or 1/3. A unit is a pixel or, with live runners, a second.
    #[arg(long, value_name = "WEI", value_parser = values::price)]
    max_price: Option<Price>,
    /// The most to pay for a unit of one model, in wei, such as live-video-to-video/noop=1200; may repeat. The model
    /// `default` stands for those of its pipeline that are not named.
    #[arg(long, value_name = "PIPELINE/MODEL=WEI", value_parser = model_price)]
    max_model_price: Vec<(Capability, String, Price)>,
    #[command(flatten)]
    tickets: TicketArgs,
}

/// Options about the tickets that a key signs.
#[derive(Args, Debug)]
pub(crate) struct TicketArgs {
    /// The most that one ticket may be worth on average, in wei.
    #[arg(long, value_name = "WEI", default_value = "3000000000000", value_parser = values::wei)]
    max_ticket_ev: Wei,
    /// The most that the tickets of one payment may be worth together, in wei.
    #[arg(long, value_name = "WEI", default_value = "20000000000000", value_parser = values::wei)]
    max_total_ev: Wei,
    /// A ticket may pay at most the deposit divided by this.
    #[arg(long, value_name = "N", default_value_t = 1)]
    deposit_multiplier: u64,
}

impl TicketArgs {
    /// The limits that the options set.
    pub(crate) fn limits(&self) -> SenderLimits {
        SenderLimits {
            max_ev: Amount::from(&self.max_ticket_ev),
            max_total_ev: Amount::from(&self.max_total_ev),
            deposit_multiplier: self.deposit_multiplier,
        }
    }
}

/// Options about callers.
#[derive(Args, Debug)]
#[command(next_help_heading = "Callers")]
struct CallerArgs {
    /// Ask this URL before each payment whether the caller may have it.
    #[arg(long, value_name = "URL", value_parser = values::peer)]
    webhook: Option<Url>,
    /// A header field for the webhook, such as "Authorization: Bearer …"; may repeat.
    #[arg(long, value_name = "NAME:VALUE", requires = "webhook")]
    webhook_header: Vec<Secret>,
    /// Sign for everybody who reaches an address beyond loopback. Without a webhook it has to be said.
    #[arg(long)]
    allow_no_auth: bool,
}

/// Options about the list of orchestrators.
#[derive(Args, Debug)]
#[command(next_help_heading = "List of orchestrators")]
pub(crate) struct ListingArgs {
    /// Answer /discover-orchestrators with those orchestrators that are within the limits: of --orchestrator, or
    /// else all that the chain knows.
    #[arg(long)]
    pub(crate) discovery: bool,
    /// An orchestrator to list; repeat the option or separate with commas.
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        value_parser = values::required_orchestrator,
        requires = "discovery"
    )]
    pub(crate) orchestrator: Vec<Url>,
    /// The registry of AI services, for another chain than Arbitrum One; "none" reads the main one only.
    #[arg(
        long,
        value_name = "ADDRESS|none",
        requires = "discovery",
        conflicts_with = "orchestrator"
    )]
    pub(crate) ai_registry: Option<AiRegistry>,
    /// List also orchestrators whose addresses are on this machine or in private networks. Otherwise only those are
    /// that --orchestrator names.
    #[arg(long, requires = "discovery")]
    pub(crate) allow_private: bool,
}

impl SignerArgs {
    /// Checks what options say together.
    ///
    /// # Errors
    /// If they contradict each other, or leave something open that would cost money.
    pub(super) fn validate(&self) -> Result<(), Failed> {
        let usage = |cause: &str| Err(Failed::usage(cause, COMMAND));
        if self.chain.rpc.is_empty() && !self.chain.static_chain {
            return usage(
                "nothing says what the chain is: give --rpc URL, or --static-chain for development",
            );
        }
        if self.callers.webhook.is_none()
            && !self.callers.allow_no_auth
            && !self.listen.0.ip().is_loopback()
        {
            return usage(
                "whoever reaches it could spend: give --webhook URL, --allow-no-auth if a proxy sees to it, or \
                 --listen on loopback",
            );
        }
        if self.listing.discovery && self.listing.orchestrator.is_empty() && self.chain.static_chain
        {
            return usage("--discovery without a chain needs --orchestrator");
        }
        self.webhook().map(drop)
    }

    /// The policy by which tickets are signed for the account of `address`.
    pub(crate) fn policy(&self, address: Address) -> Policy {
        let limits = &self.limits;
        let mut ceilings = limits.max_price.map(Ceilings::of).unwrap_or_default();
        for (capability, model, price) in &limits.max_model_price {
            ceilings = ceilings.and(*capability, model.as_str(), *price);
        }
        Policy {
            limits: limits.tickets.limits(),
            ceilings,
            ..Policy::new(address)
        }
    }

    /// The webhook to ask before each payment, if the options name one.
    ///
    /// # Errors
    /// If a header field is malformed.
    pub(crate) fn webhook(&self) -> Result<Option<Webhook>, Failed> {
        let Some(url) = self.callers.webhook.clone() else {
            return Ok(None);
        };
        let mut headers = Headers::new();
        for text in &self.callers.webhook_header {
            let Header { name, value } = text
                .0
                .parse()
                .map_err(|why| Failed::usage(format_args!("--webhook-header: {why}"), COMMAND))?;
            headers.push_any(&name, value);
        }
        Ok(Some(Webhook { url, headers }))
    }
}

fn model_price(text: &str) -> Result<(Capability, String, Price), String> {
    let (name, price) = text
        .rsplit_once('=')
        .ok_or("there is no = between model and price")?;
    let (pipeline, model) = name
        .split_once('/')
        .ok_or("there is no / between pipeline and model")?;
    let capability = Capability::from_name(pipeline)
        .ok_or_else(|| format!("there is no pipeline {pipeline:?}"))?;
    Ok((capability, values::model(model)?, values::price(price)?))
}
