//! The services that machines run on.

use std::sync::Arc;

use livepeer_core::Time;
use livepeer_core::money::Amount;
use livepeer_core::spend::SpendRefused;
use livepeer_core::store::Record;

use crate::http::Client;
use crate::keys::{KeyHolder, Pending};
use crate::rt::Runtime;
use crate::store::Store;

/// A runtime, an HTTP client with its connections and pins, a key holder, a store, and a limit on spending.
#[derive(Clone)]
pub(crate) struct Services<R: Runtime> {
    pub(crate) runtime: R,
    pub(crate) client: Client<R>,
    pub(crate) key_holder: Arc<dyn KeyHolder>,
    pub(crate) store: Arc<dyn Store>,
    /// The limit on spending, if there is one.
    pub(crate) limit: Option<Arc<dyn Purse>>,
}

impl<R: Runtime> Services<R> {
    pub(crate) fn now(&self) -> Time {
        self.runtime.now()
    }
}

/// A limit on spending, as those see it who spend.
pub(crate) trait Purse: Send + Sync {
    /// Counts an amount, stores the record with it, and waits until it may leave.
    fn take(
        &self,
        value: Amount,
        record: Option<Record>,
    ) -> Pending<'_, Result<Time, SpendRefused>>;

    /// Counts an amount no more that was counted at that time.
    fn give_back(&self, at: Time, value: &Amount);
}
