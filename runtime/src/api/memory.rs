//! The memory of orchestrators, in the driver's store, between jobs and between runs.

use std::time::Duration;

use livepeer_core::pool::{self, Selector, SessionPool};

use crate::{Drivable, Handle, Runtime};

/// How long a job or a survey that is over waits for its store.
pub(super) const REMEMBER_WITHIN: Duration = Duration::from_secs(1);

/// Tells a pool what earlier runs saw. A store that cannot be read costs experience and nothing else.
pub(super) fn recall<S: Selector, R: Runtime>(pool: &Handle<SessionPool<S>, R>)
where
    SessionPool<S>: Drivable,
{
    match pool.driver().store().load(pool::RECORD_KEY) {
        Ok(records) => pool.with(|pool, now| {
            for record in records {
                if let Some(value) = &record.value {
                    pool.recall(now, &record.key, value);
                }
            }
        }),
        Err(error) => {
            tracing::warn!(%error, "what earlier runs saw of orchestrators cannot be read")
        }
    }
}
