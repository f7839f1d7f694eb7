//! The wires between the front door and containers: an order is submitted, and what the container says is handed back as it
//! comes. Nothing is decided here.

use std::sync::Arc;

use async_channel::Receiver;
use livepeer_core::front::RequestId;
use livepeer_core::job::byoc::{Failed, Order};
use livepeer_runtime::Runtime;
use livepeer_runtime::api::{ByocEvent, ByocJob, ByocSubmission, Error};
use tracing::warn;

use super::reins::{Reins, Turn};
use super::sessions::Pace;
use super::wiring::{Wiring, with_places};

impl<R: Runtime> Wiring<R> {
    /// Places an order, and hands on what comes of it to its last word.
    pub(super) async fn order(
        self: Arc<Self>,
        id: RequestId,
        order: Order,
        steered: Receiver<Pace>,
    ) {
        match self.container(order).send() {
            Ok(job) => self.relay(id, job, Reins::new(steered)).await,
            Err(error) => {
                warn!(%id, %error, "a job for a container did not begin");
                self.front()
                    .with(|front, now| front.order_failed(now, id, &Failed::Closed));
            }
        }
        self.over(id);
    }

    /// A job as the configuration has it.
    pub(super) fn container(&self, order: Order) -> ByocSubmission<R> {
        let config = self.config();
        let settings = &config.settings;
        let price = settings
            .prices
            .of_container(&order.job.capability, self.wei_per_usd().as_ref());
        let mut job = with_places!(self.gateway().order(order), settings, self.peers())
            .payer(self.purse().payer(&settings.endpoints))
            .trust(self.peers().trust)
            .config(|job| job.limits = settings.limits.clone());
        if let Some(price) = price {
            job = job.max_price(price);
        }
        job
    }

    /// Hands what the container says to the front door, until it is over or nobody waits any more.
    async fn relay(&self, id: RequestId, mut job: ByocJob<R>, mut reins: Reins) {
        loop {
            let event = match reins.turn(job.next()).await {
                Turn::Again => continue,
                // Dropping the job cancels it.
                Turn::Gone | Turn::Came(None) => return,
                Turn::Came(Some(event)) => event,
            };
            let last = matches!(event, ByocEvent::Done(_) | ByocEvent::Failed(_));
            if let ByocEvent::Failed(failed @ Failed::Ours(_)) = &event {
                let error = Error::from(failed.clone());
                warn!(%id, %error, "a job for a container failed");
            }
            self.front().with(|front, now| match event {
                ByocEvent::Head(served) => front.order_head(now, id, &served),
                ByocEvent::Chunk(chunk) => front.relay(now, id, chunk),
                ByocEvent::Done(done) => front.order_done(now, id, done),
                ByocEvent::Failed(failed) => front.order_failed(now, id, &failed),
                _ => {}
            });
            if last {
                return;
            }
        }
    }
}
