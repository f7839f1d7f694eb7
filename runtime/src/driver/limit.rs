//! The limit on spending that all machines of a driver share.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Mutex;
use std::task::Poll;

use livepeer_core::Time;
use livepeer_core::money::Amount;
use livepeer_core::payment::Spending;
use livepeer_core::payment::spending::{Event, TakeId};
use livepeer_core::spend::SpendRefused;
use livepeer_core::store::Record;

use super::Handle;
use crate::keys::Pending;
use crate::services::Purse;
use crate::{Runtime, lock};

/// The machine that counts, and its answers until those who wait for them take them.
pub(super) struct Limit<R: Runtime> {
    spending: Handle<Spending, R>,
    answers: Mutex<BTreeMap<TakeId, Result<Time, SpendRefused>>>,
}

impl<R: Runtime> Limit<R> {
    pub(super) fn new(spending: Handle<Spending, R>) -> Self {
        Self {
            spending,
            answers: Mutex::default(),
        }
    }

    /// The machine.
    pub(super) const fn spending(&self) -> &Handle<Spending, R> {
        &self.spending
    }

    async fn taken(&self, value: Amount, record: Option<Record>) -> Result<Time, SpendRefused> {
        let taken = self.spending.with(|all, now| all.take(now, &value, record));
        let id = taken.map_err(SpendRefused::Limit)?;
        poll_fn(|cx| {
            // Under one lock: whoever takes the answer of another has filed it before the other looks.
            let mut answers = lock(&self.answers);
            while let Poll::Ready(Some(event)) = self.spending.poll_next(cx) {
                match event {
                    Event::Taken(id, at) => answers.insert(id, Ok(at)),
                    Event::NotStored(id, why) => {
                        answers.insert(id, Err(SpendRefused::NotStored(why)))
                    }
                    _ => None,
                };
            }
            answers.remove(&id).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl<R: Runtime> Purse for Limit<R> {
    fn take(
        &self,
        value: Amount,
        record: Option<Record>,
    ) -> Pending<'_, Result<Time, SpendRefused>> {
        Box::pin(self.taken(value, record))
    }

    fn give_back(&self, at: Time, value: &Amount) {
        self.spending.with(|all, now| all.give_back(now, at, value));
    }
}
