//! WHIP and WHEP: offers and answers, the port, sessions.

mod doors;
mod hostile;
mod offers;
mod senders;
mod viewers;
mod world;
