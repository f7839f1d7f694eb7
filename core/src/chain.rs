//! The chain as far as payments need it: a second clock, and what accounts hold (payments spec 15).
//!
//! Machines are given a [`ChainView`]; a [`ChainWatch`](crate::onchain::ChainWatch) makes them from what JSON-RPC
//! endpoints say.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::currency::WEI_PER_ETH;
use crate::money::Wei;
use crate::sign::Address;
use crate::time::Time;

/// The ticket broker's record of a payer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// Pays winning tickets first.
    pub deposit: Wei,
    /// The round from which it may withdraw; zero if it has not asked to.
    pub withdraw_round: u64,
    /// The rest of the reserve, which pays winning tickets when the deposit is used up.
    pub reserve_remaining: Wei,
    /// The part of the reserve that recipients have claimed in this round.
    pub reserve_claimed: Wei,
    /// The part of `reserve_claimed` that we as recipient have claimed. A payer leaves it zero.
    pub claimed_by_us: Wei,
    /// The face values of tickets that we are redeeming right now. A payer leaves it zero.
    pub pending: Wei,
}

impl SenderInfo {
    /// Whether the funds may be gone soon: a withdrawal is due at or before the next round.
    #[must_use]
    pub fn unlocks_soon(&self, last_round: u64) -> bool {
        self.withdraw_round != 0 && self.withdraw_round <= last_round.saturating_add(1)
    }
}

/// A reading of the chain, given to the machines by their owner, who watches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainView {
    /// The last L1 block seen.
    pub l1_block: u64,
    /// The last initialized round.
    pub round: u64,
    /// The L1 block hash of that round; zeroes while the chain does not know it (seen on Arbitrum).
    pub round_block_hash: [u8; 32],
    /// The block hash of the round before, used while the current one is unknown.
    pub previous_round_block_hash: [u8; 32],
    /// Wei per gas. Recipients only.
    pub gas_price: Wei,
    /// How many orchestrators share a reserve. Recipients only.
    pub pool_size: u64,
    /// Whether the recipient is an active orchestrator in this round. Recipients only.
    pub active: bool,
    /// The payers known. A payer needs itself here.
    pub senders: BTreeMap<Address, SenderInfo>,
    /// When it was read; `None` does not age: views for development, and those that somebody keeps by hand.
    pub read_at: Option<Time>,
    /// The funds that every other payer is taken to hold; `None` leaves them unknown. For development networks.
    pub anyone: Option<SenderInfo>,
}

/// Ethereum has a new block this often.
pub const BLOCK_TIME: Duration = Duration::from_secs(12);

/// The greatest age of a reading that payers rely on: ticket parameters live for forty blocks, and an older reading
/// does not tell whether they have ended, nor whether there still is a deposit.
pub const MAX_AGE: Duration = Duration::from_secs(40 * BLOCK_TIME.as_secs());

impl ChainView {
    /// A view for development: everybody is funded, and nothing moves but what is pushed.
    #[must_use]
    pub fn development() -> Self {
        Self {
            l1_block: 1_000,
            round: 100,
            round_block_hash: [0x11; 32],
            previous_round_block_hash: [0x10; 32],
            gas_price: Wei::from(10_000_000),
            pool_size: 1,
            active: true,
            senders: BTreeMap::new(),
            read_at: None,
            anyone: Some(SenderInfo {
                deposit: Wei::from(10 * WEI_PER_ETH),
                reserve_remaining: Wei::from(10 * WEI_PER_ETH),
                ..SenderInfo::default()
            }),
        }
    }

    /// The view for development at `now`: with as many blocks as a chain of that pace would have since 1970, so that
    /// all programs with the same clock see the same chain.
    #[must_use]
    pub fn development_at(now: Time) -> Self {
        Self {
            l1_block: now.as_secs() / BLOCK_TIME.as_secs(),
            ..Self::development()
        }
    }

    /// When the block after this view's comes, in development.
    #[must_use]
    pub const fn next_development_block(&self) -> Time {
        Time::from_secs((self.l1_block + 1).saturating_mul(BLOCK_TIME.as_secs()))
    }

    /// How old this is, if it ages.
    #[must_use]
    pub fn age(&self, now: Time) -> Option<Duration> {
        self.read_at.map(|read_at| now.since(read_at))
    }

    /// The known funds of a payer.
    #[must_use]
    pub fn sender(&self, who: Address) -> Option<&SenderInfo> {
        self.senders.get(&who).or(self.anyone.as_ref())
    }

    /// The round in which tickets are created now, with its block hash: the previous one while the current one's
    /// hash is unknown.
    #[must_use]
    pub fn creation_round(&self) -> (u64, [u8; 32]) {
        if self.round_block_hash == [0; 32] && self.round > 0 {
            (self.round - 1, self.previous_round_block_hash)
        } else {
            (self.round, self.round_block_hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_development_chain_goes_by_the_clock() {
        let view = ChainView::development_at(Time::from_secs(1_200));
        assert_eq!(view.l1_block, 100);
        let next = view.next_development_block();
        assert_eq!(next, Time::from_secs(1_212));
        assert_eq!(ChainView::development_at(next).l1_block, 101);
        let before = next - Duration::from_nanos(1);
        assert_eq!(ChainView::development_at(before), view);
    }
}
