//! WHIP and WHEP: offers and answers, the port, sessions.

mod offers;
