//! The steps of the play, and the ways to misbehave.

use std::time::Duration;

use livepeer_orchestrator::Quirks;

use crate::steps::Reel;

/// A step of the play. The first byte of most says which one of several it is about.
#[derive(Clone, Debug)]
pub enum Step {
    /// Somebody asks for a token; the second byte says what is wrong with that.
    Token(u8, u8),
    /// A job: container, path, tickets from a nonce on, and what is wrong with it.
    Job(u8, u8, u8, u8),
    /// A session is wanted, or a single call: the app, tickets from a nonce on, and what is wrong with it.
    Rent(u8, u8, u8),
    /// A request of the n-th session.
    Call(u8, u8),
    /// The n-th session is paid on, with tickets from a nonce on.
    Pay(u8, u8),
    /// The n-th session is stopped.
    Stop(u8),
    /// A runner does something with its n-th session.
    Manage(u8, u8),
    /// A runner says that it lives, or goes.
    Beat(u8),
    /// A container registers, or goes.
    Register(u8),
    /// The n-th program does something.
    Program(u8, u8),
    /// The n-th open exchange takes what it was sent, less some bytes; beyond HTTP it says something, too.
    Take(u8, u8),
    /// The peer with the n-th open exchange goes.
    Break(u8),
    /// The orchestrator misbehaves in the n-th way from now on.
    Quirk(u8),
    /// The oldest record is durable, or was not kept.
    Stored(bool),
    /// Time passes: so many tenths of a second.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(20) {
            0 => Self::Token(reel.byte(), reel.byte()),
            1..=3 => Self::Job(reel.byte(), reel.byte(), reel.below(16), reel.byte()),
            4..=6 => Self::Rent(reel.byte(), reel.below(16), reel.byte()),
            7 => Self::Call(reel.byte(), reel.byte()),
            8 => Self::Pay(reel.byte(), reel.below(24)),
            9 => Self::Stop(reel.byte()),
            10 => Self::Manage(reel.byte(), reel.byte()),
            11 => Self::Beat(reel.byte()),
            12 => Self::Register(reel.byte()),
            13 | 14 => Self::Program(reel.byte(), reel.byte()),
            15 => Self::Take(reel.byte(), reel.byte()),
            16 => Self::Break(reel.byte()),
            17 => Self::Quirk(reel.byte()),
            18 => Self::Stored(reel.below(8) != 0),
            _ => Self::Pass(reel.byte()),
        }
    }
}

/// The ways to misbehave.
pub(super) fn quirks(way: u8) -> Quirks {
    let mut quirks = Quirks::default();
    match way % 10 {
        0 => quirks.leaky_places = true,
        1 | 2 => quirks.flood = true,
        3 => quirks.flat_status = true,
        4 => quirks.refuse_0x = true,
        5 => quirks.forget_every = std::num::NonZeroU32::new(2),
        6 => quirks.delay = Duration::from_millis(500),
        7 => quirks.refuse_payments = Some((400, "TicketParams expired".to_owned())),
        _ => {}
    }
    quirks
}
