//! The wires between the front door and apps that orchestrators rent out: a call is made, or made in the session of its
//! client, and what the app says is handed back as it comes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_channel::Receiver;
use bytes::Bytes;
use futures_lite::future;
use livepeer_core::front::{AppRequest, AppSessionId, RequestId};
use livepeer_core::wire::runner::{Mode, Runner};
use livepeer_runtime::Runtime;
use livepeer_runtime::api::{AppAnswer, AppBuilder, AppFailed, AppSession, Error, Spent};
use tracing::warn;

use super::lock;
use super::sessions::{Pace, Use};
use super::wiring::{Wiring, with_places};

/// How long it is remembered whether an app has sessions.
const KNOWN_FOR: Duration = Duration::from_secs(30);

impl<R: Runtime> Wiring<R> {
    /// Makes a call, and hands on its answer to the end.
    pub(super) async fn app(
        self: Arc<Self>,
        id: RequestId,
        request: Box<AppRequest>,
        steered: Receiver<Pace>,
    ) {
        let held = match self.is_held(&request.app).await {
            Ok(held) => held,
            Err(error) => return self.not_called(id, &error),
        };
        let called = Use {
            id,
            request,
            steered,
        };
        if held {
            return self.call_in_session(called);
        }
        let app = self.renting(&called.request.app);
        match app.call(called.request.call.clone()).await {
            Ok(mut answer) => {
                self.pass_on(&called, &mut answer, None).await;
                self.paid(&answer.spent());
            }
            Err(error) => self.not_called(id, &error),
        }
    }

    /// Whether an app is held in sessions.
    async fn is_held(&self, app: &str) -> Result<bool, Error> {
        let now = self.gateway().driver().now();
        let known = lock(&self.apps().held).get(app).copied();
        if let Some((held, at)) = known
            && now < at + KNOWN_FOR
        {
            return Ok(held);
        }
        let listed = self.renting(app).list().await?;
        let single = |runner: &Runner| runner.mode != Some(Mode::Persistent);
        let held = !listed.iter().any(single);
        lock(&self.apps().held).insert(app.to_owned(), (held, now));
        Ok(held)
    }

    /// Gives a call to the task of its session, which begins with the first one.
    fn call_in_session(self: Arc<Self>, called: Use) {
        let (session, app) = (called.request.session, called.request.app.clone());
        let Some(holding) = lock(&self.apps().holding).clone() else {
            return self.not_called(called.id, &Error::Closed);
        };
        let mut sessions = lock(&self.apps().sessions);
        let sender = sessions.entry(session).or_insert_with(|| {
            let (sender, calls) = async_channel::unbounded();
            let held = Arc::clone(&self).hold(session, app, calls);
            self.runtime().spawn(async move {
                held.await;
                drop(holding);
            });
            sender
        });
        let _ = sender.try_send(called);
    }

    /// Reserves a session, and has calls made in it until it is over.
    async fn hold(self: Arc<Self>, id: AppSessionId, app: String, calls: Receiver<Use>) {
        let session = match self.renting(&app).reserve().await {
            Ok(session) => Arc::new(session),
            Err(error) => {
                return self.lost(id, &calls, &error);
            }
        };
        // Nothing is ever sent: each call has one, and the last one that goes says it.
        let (call, calls_over) = async_channel::bounded::<Infallible>(1);
        loop {
            let over = async {
                session.ended().await;
                None
            };
            let next = async { calls.recv().await.ok() };
            let Some(called) = future::or(next, over).await else {
                break;
            };
            let made = Arc::clone(&self).in_session(called, Arc::clone(&session));
            let call = call.clone();
            self.runtime().spawn(async move {
                made.await;
                drop(call);
            });
        }
        self.lost(id, &calls, &Error::Closed);
        // A session is stopped when the last call in it is over, and who ends all of them waits for that.
        drop(call);
        let _ = calls_over.recv().await;
        self.paid(&session.spent());
        if let Ok(session) = Arc::try_unwrap(session) {
            session.stop().await;
        }
    }

    /// Makes a call in a session, which ends with its answer, or when all calls are broken off.
    async fn in_session(self: Arc<Self>, called: Use, session: Arc<AppSession<R>>) {
        let calling = async {
            match session.call(called.request.call.clone()).await {
                Ok(mut answer) => {
                    let key = Some(called.request.key.as_str());
                    self.pass_on(&called, &mut answer, key).await;
                }
                Err(error) => self.not_called(called.id, &error),
            }
        };
        let cut = async {
            self.apps().until_cut().await;
            self.not_called(called.id, &Error::Closed);
        };
        future::or(calling, cut).await;
    }

    /// Counts what a session, or a call without one, was paid with.
    fn paid(&self, spent: &Spent) {
        self.front().with(|front, now| {
            front.app_paid(now, spent.tickets, &spent.expected_value);
            front.app_unpaid(now, spent.unmade, spent.refused);
        });
    }

    /// A session is over, or never came to be, for that reason: calls that wait for it are not made.
    fn lost(&self, id: AppSessionId, calls: &Receiver<Use>, why: &Error) {
        self.apps().end(id);
        self.front().with(|front, now| front.session_over(now, id));
        calls.close();
        while let Ok(called) = calls.try_recv() {
            self.not_called(called.id, why);
        }
    }

    /// The rent of an app, as the configuration has it.
    fn renting(&self, app: &str) -> AppBuilder<R> {
        let config = self.config();
        let settings = &config.settings;
        let app_of = self.gateway().app(app);
        let renting = match &settings.runners[..] {
            [] => with_places!(app_of, settings, self.peers()),
            // A list that is at hand is enough.
            runners if self.peers().open => app_of
                .orchestrators(runners.iter().cloned())
                .allow_private(),
            runners => app_of.orchestrators(runners.iter().cloned()),
        };
        let mut renting = renting
            .payer(self.purse().payer(&settings.endpoints))
            .trust(self.peers().trust)
            .config(|rental| rental.limits = settings.limits.clone());
        if let Some(price) = settings.prices.of_app(app, self.wei_per_usd().as_ref()) {
            renting = renting.max_price(price);
        }
        renting
    }

    /// Hands an answer to the front door, until it is over or nobody waits any more.
    async fn pass_on(&self, called: &Use, answer: &mut AppAnswer<R>, key: Option<&str>) {
        let id = called.id;
        self.front().with(|front, now| {
            front.app_head(now, id, answer.head(), &called.request.app, key);
        });
        let speaker = answer.speaker();
        // What a client beyond HTTP said and its app has not taken; the front door holds it back.
        let (mut said, mut said_all) = (VecDeque::<Bytes>::new(), false);
        let mut goes = true;
        loop {
            if said_all && said.is_empty() {
                said_all = false;
                speaker.end();
            }
            let steered = async { Told::Steered(called.steered.recv().await.ok()) };
            let heard = async {
                match goes {
                    true => Told::Heard(answer.next().await),
                    false => future::pending().await,
                }
            };
            let taken = async {
                match said.front() {
                    // One that is over says so itself.
                    Some(bytes) if speaker.say(bytes.clone()).await.is_ok() => Told::Taken,
                    _ => future::pending().await,
                }
            };
            match future::or(steered, future::or(heard, taken)).await {
                Told::Steered(Some(Pace::Go)) => goes = true,
                Told::Steered(Some(Pace::Stop)) => goes = false,
                Told::Steered(Some(Pace::Said(bytes))) => said.push_back(bytes),
                Told::Steered(Some(Pace::SaidAll)) => said_all = true,
                // Dropping the answer closes the exchange.
                Told::Steered(None) => return,
                Told::Taken => {
                    let bytes = said.pop_front().map_or(0, |bytes| bytes.len());
                    self.front().with(|front, now| front.taken(now, id, bytes));
                }
                Told::Heard(Some(Ok(data))) => {
                    self.front().with(|front, now| front.relay(now, id, data));
                }
                Told::Heard(Some(Err(error))) => {
                    warn!(%id, %error, "an app's answer broke off");
                    self.front().with(|front, now| front.relay_broke(now, id));
                    return self.over(id);
                }
                Told::Heard(None) => {
                    self.front().with(|front, now| front.relay_end(now, id));
                    return self.over(id);
                }
            }
        }
    }

    fn not_called(&self, id: RequestId, error: &Error) {
        warn!(%id, %error, "an app was not called");
        let failed = match error {
            Error::App(failed) => (**failed).clone(),
            // Nobody was found, or the session ended meanwhile.
            _ => AppFailed::Exhausted {
                attempts: Vec::new(),
            },
        };
        self.front()
            .with(|front, now| front.app_failed(now, id, &failed));
        self.over(id);
    }
}

/// News for the task of a call.
enum Told {
    Steered(Option<Pace>),
    Heard(Option<Result<Bytes, Error>>),
    /// The app takes the oldest of what its client said.
    Taken,
}
