//! Amounts that count against a limit which several machines share.

use alloc::boxed::Box;

use crate::error::Broken;
use crate::money::Amount;
use crate::store::{Record, StoreFailed};
use crate::time::Time;

/// A change of what is spent. Who keeps the count is [`payment::Spending`](crate::payment::Spending).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spend {
    /// Counts this before it may leave.
    Take {
        /// The amount.
        value: Amount,
        /// A fact that has to be durable before it may leave, too: one commit makes both so.
        record: Option<Record>,
    },
    /// Counts what was asked for under this id no more, as soon as it is counted: whoever asked goes on without the
    /// answer. Has no answer.
    Cancel,
    /// Counts this no more: it was taken, and never left. Has no answer.
    GiveBack {
        /// The amount that was taken.
        value: Amount,
        /// The time at which it was counted.
        at: Time,
    },
}

/// The reason why an amount is not counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpendRefused {
    /// The limit that it would pass.
    #[error("{0}")]
    Limit(Box<Broken>),
    /// The count would not survive a crash.
    #[error("{0}")]
    NotStored(StoreFailed),
}
