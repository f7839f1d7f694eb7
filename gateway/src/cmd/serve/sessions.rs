//! Sessions that clients have with apps, and words to the task of a request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use livepeer_core::Time;
use livepeer_core::front::{AppRequest, AppSessionId, RequestId};

use super::lock;

/// A word to the task of a request: about the pace of its answer, or of its client beyond HTTP.
pub(super) enum Pace {
    Stop,
    Go,
    Said(Bytes),
    SaidAll,
}

/// Sessions of clients, and what is known of apps.
pub(super) struct Apps {
    /// Calls for the task of each session; the end of it when nobody has its other end.
    pub(super) sessions: Mutex<BTreeMap<AppSessionId, Sender<Use>>>,
    /// Whether an app is held in sessions, and since when that is known.
    pub(super) held: Mutex<BTreeMap<String, (bool, Time)>>,
    /// Nothing is ever sent: each task of a session has one, and the last one that goes says it to who waits.
    pub(super) holding: Mutex<Option<Sender<Infallible>>>,
    stopped: Receiver<Infallible>,
    /// Nothing is ever sent: calls in sessions go on until it is closed.
    calls: (Sender<Infallible>, Receiver<Infallible>),
}

/// A call, and words about the pace of its answer.
pub(super) struct Use {
    pub(super) id: RequestId,
    pub(super) request: Box<AppRequest>,
    pub(super) steered: Receiver<Pace>,
}

impl Apps {
    pub(super) fn new() -> Self {
        let (holding, stopped) = async_channel::bounded(1);
        Self {
            sessions: Mutex::default(),
            held: Mutex::default(),
            holding: Mutex::new(Some(holding)),
            stopped,
            calls: async_channel::bounded(1),
        }
    }

    /// Has a session stopped once its calls are over.
    pub(super) fn end(&self, id: AppSessionId) {
        lock(&self.sessions).remove(&id);
    }

    /// Has calls in sessions broken off that are still under way: only then can their sessions be stopped.
    pub(super) fn cut(&self) {
        self.calls.0.close();
    }

    /// Waits until calls in sessions are to be broken off.
    pub(super) async fn until_cut(&self) {
        let Err(_) = self.calls.1.recv().await;
    }

    /// Has all sessions stopped once their calls are over, and waits until they are.
    pub(super) async fn end_all(&self) {
        lock(&self.sessions).clear();
        drop(lock(&self.holding).take());
        let _ = self.stopped.recv().await;
    }
}
