//! Data that a container says beside its video, on its way to a client.

use std::sync::Arc;

use async_channel::Receiver;
use livepeer_core::front::{Front, RequestId};
use livepeer_core::wire::byoc::stream::data_ended;
use livepeer_core::wire::sse;
use livepeer_runtime::Runtime;
use livepeer_runtime::api::ByocData;

use super::job::Word;
use super::{Live, line, lock};
use crate::cmd::serve::reins::{Reins, Turn};

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
            live.say_data(id, told, Reins::new(steered)).await;
            live.wiring.over(id);
        });
    }

    async fn say_data(&self, id: RequestId, told: Receiver<ByocData<R>>, mut reins: Reins) {
        let mut data = None;
        loop {
            let line = async {
                if data.is_none() {
                    // The stream begins, or is over before.
                    data = told.recv().await.ok();
                }
                match &mut data {
                    Some(data) => data.next().await,
                    None => None,
                }
            };
            let line = match reins.turn(line).await {
                Turn::Again => continue,
                Turn::Gone => return,
                Turn::Came(line) => line,
            };
            let front = self.wiring.front();
            let Some(line) = line else {
                return front.with(|front, now| {
                    front.relay(now, id, data_ended());
                    front.relay_end(now, id);
                });
            };
            front.with(|front, now| front.relay(now, id, sse::event(&line)));
        }
    }
}
