//! Probabilistic micropayments, both sides of them (payments spec).

pub mod auth;
pub mod budget;
pub mod byoc;
pub mod guard;
pub mod ledger;
pub mod mint;
pub mod nonce;
pub mod price;
pub mod quote;
pub mod receiver;
pub mod redemption;
pub mod remote;
pub(crate) mod requote;
pub mod sender;
pub mod session;
pub mod spending;
pub mod ticket;

pub use crate::units::{Meter, Unit};
pub use auth::Secret;
pub use budget::Budget;
pub use receiver::TicketReceiver;
pub use remote::SignerServer;
pub use session::{Payer, PaymentSession};
pub use spending::Spending;
pub use ticket::{SignedTicket, Ticket};
