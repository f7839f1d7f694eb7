//! Options of commands that may pay with a key of their own, and about what may be spent.

use std::path::PathBuf;

use clap::Args;
use livepeer_core::Address;
use livepeer_core::capabilities::Ceilings;
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::Budget;
use livepeer_core::payment::mint::Policy;

use super::signer::{ChainArgs, KeyArgs, TicketArgs};
use super::values;
use crate::ui::Failed;

/// Options about money.
#[derive(Args, Debug)]
pub(crate) struct PayArgs {
    /// The most to spend in all, in wei; with --store, serve counts on over restarts. Tickets count at what they are worth on average.
    #[arg(long, value_name = "WEI", value_parser = values::wei, help_heading = "Money")]
    max_spend: Option<Wei>,
    /// The most to spend in any sixty minutes, in wei; with --store, also over several runs.
    #[arg(long, value_name = "WEI", value_parser = values::wei, help_heading = "Money")]
    pub(super) max_spend_per_hour: Option<Wei>,
    /// Keep in this file what must not be forgotten: what was spent, the nonces of an own key, and what was seen of
    /// orchestrators.
    #[arg(long, value_name = "FILE", help_heading = "Money")]
    pub(crate) store: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) chain: ChainArgs,
    #[command(flatten, next_help_heading = "Tickets of an own key")]
    tickets: TicketArgs,
}

impl PayArgs {
    /// Whether a key of our own pays, and no signer.
    pub(crate) const fn own_key(&self) -> bool {
        self.key.keystore.is_some() || self.key.key_file.is_some()
    }

    /// The limits on spending.
    pub(crate) fn budget(&self) -> Budget {
        let mut budget = Budget::unlimited();
        if let Some(limit) = &self.max_spend {
            budget = budget.per_job(Amount::from(limit));
        }
        if let Some(limit) = &self.max_spend_per_hour {
            budget = budget.per_hour(Amount::from(limit));
        }
        budget
    }

    /// The policy by which the key of `address` signs.
    pub(crate) fn policy(&self, address: Address, max_price: Option<Price>) -> Policy {
        Policy {
            limits: self.tickets.limits(),
            ceilings: max_price.map(Ceilings::of).unwrap_or_default(),
            ..Policy::own_key(address)
        }
    }

    /// Checks what options say together.
    ///
    /// # Errors
    /// If an own key lacks what it needs.
    pub(super) fn validate(&self, command: &str) -> Result<(), Failed> {
        let usage = |cause: &str| Err(Failed::usage(cause, command));
        if !self.own_key() {
            return Ok(());
        }
        if self.store.is_none() {
            return usage(
                "an own key spends its nonces once and for all: say with --store FILE where to keep them",
            );
        }
        if self.chain.rpc.is_empty() && !self.chain.static_chain {
            return usage(
                "an own key has to know the chain: give --rpc URL, or --static-chain for development",
            );
        }
        Ok(())
    }
}
