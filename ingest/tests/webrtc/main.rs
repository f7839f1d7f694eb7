//! WHIP and WHEP: offers and answers, the port, sessions.

mod doors;
mod offers;
mod senders;
mod viewers;
mod world;
