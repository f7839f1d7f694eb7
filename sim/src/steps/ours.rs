//! Our own side of a machine that is played with: the key, the store and the limit on spending.

use livepeer_core::http::Fault;
use livepeer_core::payment::Budget;
use livepeer_core::sign::SignRefused;
use livepeer_core::store::StoreFailed;
use livepeer_core::{Digest, Effect, EffectId, Input, Time};

use crate::purse::Wish;
use crate::{Key, Purse};

/// The key, the store and the limit on spending, each of which answers when the play says so.
pub(super) struct Ours {
    key: Key,
    unsaved: Vec<EffectId>,
    unsigned: Vec<(EffectId, Digest)>,
    purse: Purse,
    /// Records of the limit that are not answered.
    uncounted: Vec<EffectId>,
}

impl Ours {
    /// A key, an empty store, and a limit whose count is stored if it is `durable`.
    pub(super) fn new(now: Time, key: Key, limits: Budget, durable: bool) -> Self {
        Self {
            key,
            unsaved: Vec::new(),
            unsigned: Vec::new(),
            purse: Purse::new(now, limits, durable),
            uncounted: Vec::new(),
        }
    }

    /// The key of the payer.
    pub(super) const fn key(&self) -> &Key {
        &self.key
    }

    /// The amount that counts as spent, and its limits.
    pub(super) const fn budget(&self) -> &Budget {
        self.purse.budget()
    }

    /// Takes in an effect that is for our own side, and tells what the machine hears of it at once.
    pub(super) fn asked(&mut self, now: Time, id: EffectId, effect: Effect) -> Vec<Input> {
        match effect {
            Effect::Store(_) => self.unsaved.push(id),
            Effect::Sign(digest) => self.unsigned.push((id, digest)),
            Effect::Spend(change) => {
                let wishes = self.purse.spend(now, id, change);
                return self.answers(wishes);
            }
            other @ Effect::Http(_) => panic!("{other:?}"),
        }
        Vec::new()
    }

    /// The n-th record is durable, or was not kept: one of the machine if there are any, else the oldest of the limit.
    pub(super) fn stored(&mut self, now: Time, pick: u8, keeps: bool) -> Vec<Input> {
        let full = || StoreFailed("the disk is full".into());
        let kept = keeps.then_some(()).ok_or_else(full);
        if let Some(at) = usize::from(pick).checked_rem(self.unsaved.len()) {
            return vec![Input::Stored(self.unsaved.remove(at), kept)];
        }
        if self.uncounted.is_empty() {
            return Vec::new();
        }
        let id = self.uncounted.remove(0);
        let wishes = self.purse.stored(now, id, kept);
        self.answers(wishes)
    }

    /// The n-th signature is made, or refused.
    pub(super) fn signed(&mut self, pick: u8, signs: bool) -> Option<Input> {
        let at = usize::from(pick).checked_rem(self.unsigned.len())?;
        let (id, digest) = self.unsigned.remove(at);
        let refused = || SignRefused("locked".into());
        let signed = signs.then(|| self.key.sign(digest)).ok_or_else(refused);
        Some(Input::Signed(id, signed))
    }

    /// Does one thing that was asked for, the newest first; `None` if nothing is left to do.
    pub(super) fn serve(&mut self, now: Time) -> Option<Vec<Input>> {
        if let Some((id, digest)) = self.unsigned.pop() {
            return Some(vec![Input::Signed(id, Ok(self.key.sign(digest)))]);
        }
        if let Some(id) = self.unsaved.pop() {
            return Some(vec![Input::Stored(id, Ok(()))]);
        }
        (!self.uncounted.is_empty()).then(|| self.stored(now, 0, true))
    }

    /// Whether all that was asked for is done.
    pub(super) const fn is_idle(&self) -> bool {
        self.unsaved.is_empty() && self.unsigned.is_empty() && self.uncounted.is_empty()
    }

    /// Lets the store be silent for good: see [`Purse::forsake`].
    pub(super) fn forsake(&mut self, now: Time) {
        self.purse.forsake(now);
    }

    fn answers(&mut self, wishes: Vec<Wish>) -> Vec<Input> {
        let answer = |wish| match wish {
            Wish::Store(id, _) => {
                self.uncounted.push(id);
                None
            }
            Wish::Answer(input) => Some(input),
        };
        wishes.into_iter().filter_map(answer).collect()
    }
}

/// A connection that broke, or none that came about.
pub(super) fn fault(connected: bool) -> Fault {
    match connected {
        true => Fault::Broken("reset".into()),
        false => Fault::Connect("refused".into()),
    }
}
