//! Links, exchanges over them, and what may befall an exchange.

use std::collections::VecDeque;
use std::time::Duration;

use livepeer_core::http::In;
use livepeer_core::{EffectId, Time};

use crate::Dice;

/// How steps travel to a server and back.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// A step is under way at least this long.
    pub latency: Duration,
    /// The most that a step may be under way beyond that; steps of one exchange stay in order.
    pub jitter: Duration,
    /// The number of steps, of a million, that break their exchange.
    pub breaks_per_million: u32,
    /// New exchanges fail.
    pub down: bool,
    /// Transports take bytes before they arrive. Without that, bytes are sent when they are there.
    pub buffered: bool,
    /// The certificate that the server shows. Clients remember it, and take another only if they say so.
    pub certificate: u8,
}

impl Default for Link {
    /// A millisecond, nothing breaks.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            breaks_per_million: 0,
            down: false,
            buffered: false,
            certificate: 0,
        }
    }
}

/// Faults that exchanges may have, in percent of those opened while there is a budget.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// How many faulty exchanges there may be in all.
    pub budget: u32,
    /// The connection breaks after some bytes or some time. Each side notices by itself.
    pub cut: u64,
    /// Nothing passes for a while, then everything.
    pub stall: u64,
    /// The longest such while.
    pub stall_most: Duration,
    /// Nothing ever passes, and nobody says so.
    pub hole: u64,
    /// The request arrives and its answer does not: nobody says so, or somebody in between gives up with a status.
    pub deaf: u64,
    /// The request arrives twice; the second copy is no earlier, and breaks off soon.
    pub twice: u64,
    /// Requests with this header never arrive twice.
    pub never_twice: Option<&'static str>,
    /// An answer to an unfinished request is lost with the connection.
    pub lose_early_answers: u64,
    /// Records, in percent, that a store says it did not keep; of some that is not true.
    pub unkept: u64,
}

/// Fate of an exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Fate {
    #[default]
    Fine,
    CutThere(u64),
    CutBack(u64),
    CutAt(Time),
    Stall(Time, Time),
    Hole,
    Deaf(Option<u16>),
}

impl Faults {
    /// Draws what befalls an exchange that is opened.
    pub(super) fn draw(&mut self, now: Time, dice: &mut Dice) -> Fate {
        if self.budget == 0 {
            return Fate::Fine;
        }
        let roll = dice.between(0, 99);
        let fate = if roll < self.cut {
            match dice.between(0, 3) {
                0 => Fate::CutAt(now + dice.millis(0, 3_000)),
                1 => Fate::CutBack(dice.between(0, 4_000)),
                _ => Fate::CutThere(dice.between(0, 4_000)),
            }
        } else if roll < self.cut + self.stall {
            let from = now + dice.millis(0, 500);
            let most = self.stall_most.as_millis() as u64;
            Fate::Stall(from, from + dice.millis(1, most.max(1)))
        } else if roll < self.cut + self.stall + self.hole {
            Fate::Hole
        } else if roll < self.cut + self.stall + self.hole + self.deaf {
            let status = [None, None, None, Some(408), Some(502), Some(504)];
            Fate::Deaf(status[dice.between(0, 5) as usize])
        } else {
            return Fate::Fine;
        };
        self.budget -= 1;
        fate
    }

    /// Whether something that happens so often in a hundred cases happens now, while there are faults.
    pub(super) fn befalls(&self, chance: u64, dice: &mut Dice) -> bool {
        self.budget > 0 && chance > 0 && dice.percent(chance)
    }
}

/// A direction of an exchange.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// The last step arrives no earlier than the one before.
    pub(super) last: Time,
    /// The receiver wants no bytes now; what arrives waits.
    pub(super) paused: bool,
    pub(super) held: VecDeque<In>,
    /// Nothing more goes this way.
    pub(super) over: bool,
    /// The connection broke: what would arrive later than this never does.
    pub(super) until: Option<Time>,
    /// The bytes that went this way, and those that a transport took and was not asked to report.
    pub(super) bytes: u64,
    pub(super) unreported: usize,
    /// The bytes that were taken while nothing passed.
    pub(super) stuck: u64,
}

/// An exchange between two machines. An end that has heard the last word is `None`, as is the client of a copy.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) client: Option<(usize, EffectId)>,
    pub(super) server: Option<(usize, EffectId)>,
    pub(super) authority: String,
    pub(super) fate: Fate,
    pub(super) there: Way,
    pub(super) back: Way,
}

impl Exchange {
    pub(super) const fn way(&mut self, there: bool) -> &mut Way {
        if there {
            &mut self.there
        } else {
            &mut self.back
        }
    }

    pub(super) const fn end(&mut self, server: bool) -> &mut Option<(usize, EffectId)> {
        if server {
            &mut self.server
        } else {
            &mut self.client
        }
    }

    /// When something arrives that would arrive at `at`.
    pub(super) fn shift(&self, at: Time) -> Time {
        match self.fate {
            Fate::Stall(from, until) if at >= from && at < until => until,
            _ => at,
        }
    }

    /// Until when nothing passes, if nothing does now.
    pub(super) fn stuck_until(&self, now: Time) -> Option<Time> {
        match self.fate {
            Fate::Hole => Some(Time::MAX),
            Fate::Stall(from, until) if now >= from && now < until => Some(until),
            _ => None,
        }
    }
}
