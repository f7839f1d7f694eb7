//! Data that a container says beside its video, on its way to a client.

use std::sync::Arc;

use async_channel::Receiver;
use futures_lite::future;
use livepeer_core::front::{Front, RequestId};
use livepeer_core::wire::byoc::stream::{data_ended, data_event};
use livepeer_runtime::Runtime;
use livepeer_runtime::api::ByocData;

use super::job::Word;
use super::{Live, line, lock};
use crate::cmd::serve::sessions::Pace;

impl<R: Runtime> Live<R> {
    /// Passes on what a container says from now on, an event a line.
    pub(super) fn data(self: &Arc<Self>, id: RequestId, stream: &str) {
        let found = match self.entry.with(|entry, _| entry.find(stream)) {
            Ok(found) => found,
            Err(refusal) => return self.refused(id, &refusal),
        };
        let (tell, told) = async_channel::bounded(1);
        let says = lock(&self.state).streams.get(&found).is_some_and(|one| {
            // A task that has ended drops the word, and that says it.
            one.says_data && one.words.try_send(Word::Data(tell)).is_ok()
        });
        if !says {
            return self.respond(id, line(503, "Stream data not available"));
        }
        let steered = self.wiring.begun(id);
        let begins = |front: &mut Front, now| front.data_head(now, id);
        if !self.wiring.front().with(begins) {
            return self.wiring.over(id);
        }
        let live = Arc::clone(self);
        self.runtime().spawn(async move {
            live.say_data(id, told, &steered).await;
            live.wiring.over(id);
        });
    }

    async fn say_data(&self, id: RequestId, told: Receiver<ByocData<R>>, steered: &Receiver<Pace>) {
        let mut data = None;
        let mut goes = true;
        loop {
            let pace = async { Err(steered.recv().await.ok()) };
            let line = async {
                if data.is_none() {
                    // The stream begins, or is over before.
                    data = told.recv().await.ok();
                }
                match &mut data {
                    Some(data) => Ok(data.next().await),
                    None => Ok(None),
                }
            };
            let next = match goes {
                true => future::or(pace, line).await,
                false => pace.await,
            };
            let line = match next {
                Err(Some(pace)) => {
                    goes = matches!(pace, Pace::Go);
                    continue;
                }
                // Nobody waits any more.
                Err(None) => return,
                Ok(line) => line,
            };
            let front = self.wiring.front();
            let Some(line) = line else {
                return front.with(|front, now| {
                    front.relay(now, id, data_ended());
                    front.relay_end(now, id);
                });
            };
            front.with(|front, now| front.relay(now, id, data_event(&line)));
        }
    }
}
