//! The steps of the play, and the ways to misbehave.

use std::time::Duration;

use livepeer_orchestrator::{Mishap, Quirks};

use crate::steps::Reel;

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// A handshake; the byte says what is wrong with it.
    Hello(u8),
    /// A start under the n-th quote, with tickets from a nonce on; the last byte says what is wrong with it.
    Start(u8, u8, u8, u8),
    /// A payment under the n-th quote for the m-th session, likewise.
    Pay(u8, u8, u8, u8, u8),
    /// Batch work of the n-th kind under the n-th quote, with tickets from a nonce on; the last byte says what is wrong
    /// with it.
    Batch(u8, u8, u8, u8, u8),
    /// The orchestrator, or its runners, misbehave in the n-th way from now on.
    Quirk(u8),
    /// The n-th open exchange takes what it was sent, less some bytes.
    Take(u8, u8),
    /// A request for a fresh quote for the n-th session.
    Refresh(u8),
    /// A request that means nothing: path, method, and whether it looks like gRPC.
    Junk(u8, u8, bool),
    /// The n-th open exchange sends some bytes.
    Write(u8, u8),
    /// The n-th open exchange sends no more.
    End(u8),
    /// The n-th open exchange breaks.
    Break(u8),
    /// The n-th session's m-th channel is written to, read or deleted.
    Channel(u8, u8, u8),
    /// The oldest record is durable, or was not kept.
    Stored(bool),
    /// Blocks go by.
    Blocks(u8),
    /// The owner ends the n-th session.
    Expel(u8),
    /// Time passes: so many tenths of a second.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(20) {
            0 => Self::Hello(reel.byte()),
            1 | 2 => Self::Start(reel.byte(), reel.below(8), reel.below(4), reel.byte()),
            3 | 4 => {
                let (quote, session) = (reel.byte(), reel.byte());
                Self::Pay(quote, session, reel.below(16), reel.below(5), reel.byte())
            }
            5 => Self::Refresh(reel.byte()),
            6 => Self::Junk(reel.byte(), reel.byte(), reel.below(2) == 0),
            7 => Self::Write(reel.byte(), reel.byte()),
            8 => Self::End(reel.byte()),
            9 => Self::Break(reel.byte()),
            10 | 11 => Self::Channel(reel.byte(), reel.byte(), reel.byte()),
            12 | 13 => Self::Stored(reel.below(8) != 0),
            14 => match reel.below(3) {
                0 => Self::Blocks(reel.below(30)),
                1 => Self::Expel(reel.byte()),
                _ => Self::Stored(true),
            },
            16 | 17 => {
                let (kind, quote) = (reel.byte(), reel.byte());
                Self::Batch(kind, quote, reel.below(24), reel.below(4), reel.byte())
            }
            18 => Self::Quirk(reel.byte()),
            19 => Self::Take(reel.byte(), reel.byte()),
            _ => Self::Pass(reel.byte()),
        }
    }
}

/// The ways to misbehave.
pub(super) fn quirks(way: u8) -> Quirks {
    let runner = |status| Some(Mishap::Answers(status, "no".to_owned()));
    let quirk = |runner| Quirks {
        runner,
        ..Quirks::default()
    };
    match way % 16 {
        0 => quirk(runner(400)),
        1 => quirk(runner(503)),
        2 => quirk(Some(Mishap::Gone)),
        3 => quirk(Some(Mishap::Silent)),
        4 => quirk(Some(Mishap::NoChoices)),
        5 => quirk(Some(Mishap::ErrorChunk)),
        6 => quirk(Some(Mishap::Dies)),
        7 => quirk(Some(Mishap::Breaks)),
        8 => Quirks {
            busy: true,
            ..Quirks::default()
        },
        9 => Quirks {
            overcharge: Some(9),
            data_urls: true,
            ..Quirks::default()
        },
        10 => Quirks {
            equal_names: true,
            delay: Duration::from_millis(500),
            ..Quirks::default()
        },
        _ => Quirks::default(),
    }
}
