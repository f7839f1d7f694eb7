//! The services that machines run on.

use std::sync::Arc;

use livepeer_core::Time;

use crate::http::Client;
use crate::keys::KeyHolder;
use crate::limit::Limit;
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
    pub(crate) limit: Option<Arc<Limit<R>>>,
}

impl<R: Runtime> Services<R> {
    pub(crate) fn now(&self) -> Time {
        self.runtime.now()
    }
}
