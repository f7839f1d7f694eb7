//! Apps that orchestrators rent out: sessions and single calls.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use livepeer_core::capabilities::{Capabilities, Ceilings};
use livepeer_core::discovery;
use livepeer_core::http::{Headers, SWITCHING, Trust, Url};
use livepeer_core::job::app::{Answer, Call, Config, Event, Rental, Use, Wanted};
use livepeer_core::money::Amount;
use livepeer_core::prefer::Limits;
use livepeer_core::wire::app::{Session, app_url};
use livepeer_core::wire::runner::Runner;

use super::account::informed;
use super::event::{AppEvent, Spent};
use super::find::discover;
use super::fleet::Fleet;
use super::peers::{Peers, peer_settings};
use super::rentals::Rented;
use super::{Error, Payer};
use crate::Runtime;

/// The settings of renting an app. Their order makes no difference; [`call`](Self::call) and [`reserve`](Self::reserve)
/// judge them. Made by [`Gateway::app`](super::Gateway::app).
#[must_use = "nobody is asked before `call` or `reserve`"]
#[derive(Clone)]
pub struct AppBuilder<R: Runtime> {
    fleet: Fleet<R>,
    wanted: Wanted,
    peers: Peers,
    config: Config,
}

impl<R: Runtime> AppBuilder<R> {
    pub(super) fn new(fleet: &Fleet<R>, app: &str) -> Self {
        Self::any(fleet).or(app)
    }

    pub(super) fn any(fleet: &Fleet<R>) -> Self {
        Self {
            fleet: fleet.clone(),
            wanted: Wanted::default(),
            peers: Peers::default(),
            config: Config::default(),
        }
    }

    peer_settings!();
    peer_settings!(payer);
    peer_settings!(choice);

    /// Adds an app that does as well.
    pub fn or(mut self, app: &str) -> Self {
        self.wanted.apps.push(app.to_owned());
        self
    }

    /// Adds a model of GPU, as runners name it; without any, all do.
    pub fn gpu(mut self, name: &str) -> Self {
        self.wanted.gpus.push(name.to_owned());
        self
    }

    /// Sets the most to pay per unit of the runner, in wei.
    pub fn max_price(mut self, price: impl Into<Amount>) -> Self {
        let price = price.into();
        self.config.payment.ceilings = Ceilings::of(price.clone());
        self.wanted.max_price = Some(price);
        self
    }

    /// Sets which certificates of orchestrators are good enough; by default the first one seen at each.
    pub const fn trust(mut self, trust: Trust) -> Self {
        self.config.trust = trust;
        self
    }

    /// Changes any other setting.
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// The runners that fit, in the order in which [`call`](Self::call) and [`reserve`](Self::reserve) would ask them.
    ///
    /// # Errors
    /// If the settings are no good, or nobody was found.
    #[doc(alias = "runner_selector")]
    #[doc(alias = "discover_runners")]
    pub async fn list(self) -> Result<Vec<Runner>, Error> {
        let rented = self.start(Use::List).await?;
        loop {
            match rented.machine.next().await {
                Some(Event::Listed(runners)) => return Ok(runners),
                Some(Event::Failed(failed)) => return Err((*failed).into()),
                Some(event) => rented.note(event),
                None => return Err(Error::Closed),
            }
        }
    }

    /// Makes a single request to an app that takes such, and waits for the head of its answer. A metered call is paid for
    /// until its answer has ended, or is dropped.
    ///
    /// # Errors
    /// If the settings are no good, or nobody took the request. An app that refuses is an answer.
    #[doc(alias = "call_runner")]
    pub async fn call(self, call: Call) -> Result<AppAnswer<R>, Error> {
        check_path(&call)?;
        AppAnswer::of(self.start(Use::Call(call)).await?).await
    }

    /// Reserves a session with an app that takes such. It is paid for until it is stopped or dropped.
    ///
    /// # Errors
    /// If the settings are no good, or nobody took it.
    #[doc(alias = "reserve_session")]
    pub async fn reserve(self) -> Result<AppSession<R>, Error> {
        let rented = self.start(Use::Session).await?;
        let runtime = rented.machine.driver().runtime();
        runtime.spawn(Arc::clone(&rented).pump());
        let owner = Owner(rented);
        let rented = &owner.0;
        let reserved = rented.state.until(|state| match &state.over {
            None => Some(Ok(state.session.clone()?)),
            Some(Err(failed)) => Some(Err(failed.clone().into())),
            Some(Ok(())) => Some(Err(Error::Closed)),
        });
        let (session, runner) = reserved.await?;
        Ok(AppSession {
            owner,
            session,
            runner,
            seen: 0,
        })
    }

    async fn start(self, plan: Use) -> Result<Arc<Rented<R>>, Error> {
        let payer = self.peers.payer()?;
        let mut orchestrators = self.peers.orchestrators()?;
        let mut runners = Vec::new();
        let driver = self.fleet.driver();
        if orchestrators.is_empty() {
            let sources = self.peers.sources(&Capabilities::default())?;
            let config = discovery::Config {
                combine: self.peers.combine(),
                ..discovery::Config::default()
            };
            let mut all = discover(driver, config, sources, discovery::WITHIN).await;
            if all.found.is_empty() {
                return Err(Error::NothingFound(Box::new(all)));
            }
            for found in &mut all.found {
                runners.append(&mut found.runners);
                orchestrators.push(found.url.clone());
            }
        }
        let payer = informed(payer, driver)?;
        let (now, config, wanted) = (driver.now(), self.config, self.wanted);
        Ok(Rented::start(self.fleet.rentals(), driver, |history| {
            // A listing that has runners has all that its orchestrators have.
            match runners.is_empty() {
                true => Rental::new(now, config, orchestrators, wanted, plan, payer, history),
                false => Rental::of(now, config, runners, wanted, plan, payer, history),
            }
        }))
    }
}

impl<R: Runtime> fmt::Debug for AppBuilder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppBuilder")
            .field("wanted", &self.wanted)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

fn check_path(call: &Call) -> Result<(), Error> {
    let any = Url::parse("https://h/app").expect("a URL");
    app_url(&any, &call.path)?;
    Ok(())
}

/// Stops the session when it is dropped.
struct Owner<R: Runtime>(Arc<Rented<R>>);

impl<R: Runtime> Drop for Owner<R> {
    fn drop(&mut self) {
        self.0.machine.with(Rental::close);
    }
}

/// A session with an app, paid for until it is stopped. Dropping it stops it too, as long as the runtime goes on:
/// orchestrators end free sessions at no other time.
#[doc(alias = "LiveRunnerSession")]
pub struct AppSession<R: Runtime> {
    owner: Owner<R>,
    session: Session,
    runner: Url,
    seen: u64,
}

impl<R: Runtime> AppSession<R> {
    /// The session's name, and where its app is.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// The runner.
    #[must_use]
    pub const fn runner(&self) -> &Url {
        &self.runner
    }

    /// Makes a request to the app, which is paid for with the session. Any number of them may be under way. One that has
    /// left HTTP ends with the session.
    ///
    /// # Errors
    /// If the path is no good, or the session is over. An app that refuses is an answer.
    pub async fn call(&self, call: Call) -> Result<AppAnswer<R>, Error> {
        check_path(&call)?;
        let rented = &self.owner.0;
        if rented.is_over() {
            return Err(Error::Closed);
        }
        let (app, mode) = (String::new(), None);
        let runner = Runner::at(self.session.app.clone(), app, mode);
        let config = Config {
            // It was admitted, wherever its app is.
            limits: Limits::default(),
            ..rented.machine.with(|rental, _| rental.config().clone())
        };
        let now = rented.machine.now();
        let driver = rented.machine.driver();
        let call = Rented::start(&rented.rentals, driver, |history| {
            // Who has the session has paid.
            let (payer, wanted) = (Payer::Offchain, Wanted::default());
            Rental::of(
                now,
                config,
                [runner],
                wanted,
                Use::Call(call),
                payer,
                history,
            )
        });
        let answer = AppAnswer::of(call).await?;
        if answer.has_left_http() {
            // Its orchestrator does not end it with the session, and nobody pays for it any more.
            let (session, call) = (Arc::clone(rented), Arc::clone(&answer.rented));
            driver.runtime().spawn(session.end_with(call));
        }
        Ok(answer)
    }

    /// The next event; `None` once the session is over. Of many that nobody reads the oldest are dropped.
    pub async fn next(&mut self) -> Option<AppEvent> {
        let seen = &mut self.seen;
        let state = &self.owner.0.state;
        let next = state.until(|state| match state.events.read(seen) {
            Some(event) => Some(Some(event)),
            None => state.over.is_some().then_some(None),
        });
        next.await
    }

    /// Waits until the session is over, whoever ended it.
    pub async fn ended(&self) {
        let state = &self.owner.0.state;
        state
            .until(|state| state.over.is_some().then_some(()))
            .await;
    }

    /// Payments so far.
    #[must_use]
    pub fn spent(&self) -> Spent {
        self.owner.0.state.with(|state| state.spent.clone())
    }

    /// Stops the session, and waits until the orchestrator knows, or a few seconds.
    #[doc(alias = "stop_runner_session")]
    #[doc(alias = "aclose")]
    pub async fn stop(self) {
        let rented = &self.owner.0;
        rented.machine.with(Rental::close);
        rented.state.until(|state| state.over.clone()).await.ok();
    }
}

impl<R: Runtime> fmt::Debug for AppSession<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppSession")
            .field("session", &self.session)
            .field("runner", &self.runner)
            .finish_non_exhaustive()
    }
}

/// The answer of an app: its head, and its body as a `Stream`. Dropping it closes the exchange.
#[doc(alias = "LiveRunnerCallResult")]
#[doc(alias = "LiveRunnerCallStream")]
pub struct AppAnswer<R: Runtime> {
    rented: Arc<Rented<R>>,
    head: Answer,
}

impl<R: Runtime> AppAnswer<R> {
    async fn of(rented: Arc<Rented<R>>) -> Result<Self, Error> {
        loop {
            match rented.machine.next().await {
                Some(Event::Head(head)) => {
                    let head = *head;
                    return Ok(Self { rented, head });
                }
                Some(Event::Failed(failed)) => {
                    rented.note(Event::Failed(failed.clone()));
                    return Err((*failed).into());
                }
                Some(event) => rented.note(event),
                None => return Err(Error::Closed),
            }
        }
    }

    /// The head.
    #[must_use]
    pub const fn head(&self) -> &Answer {
        &self.head
    }

    /// The status; also one by which the app refuses.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.head.status
    }

    /// The header fields.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        &self.head.headers
    }

    /// The runner that answers.
    #[must_use]
    pub const fn runner(&self) -> &Url {
        &self.head.runner
    }

    /// Whether the app has left HTTP, as it was [asked](Call::with_upgrade) to: bytes pass both ways.
    #[must_use]
    pub const fn has_left_http(&self) -> bool {
        self.head.status == SWITCHING
    }

    /// A way to say something to an app that has left HTTP.
    #[must_use]
    pub fn speaker(&self) -> AppSpeaker<R> {
        AppSpeaker(Arc::clone(&self.rented))
    }

    /// Payments so far.
    #[must_use]
    pub fn spent(&self) -> Spent {
        self.rented.state.with(|state| state.spent.clone())
    }

    /// The next bytes of the body; `None` after the last ones.
    ///
    /// # Errors
    /// If the answer broke off.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        while !self.rented.is_over() {
            match std::task::ready!(self.rented.machine.poll_next(cx)) {
                Some(Event::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Some(Event::Failed(failed)) => {
                    self.rented.note(Event::Failed(failed.clone()));
                    return Poll::Ready(Some(Err((*failed).into())));
                }
                Some(event) => self.rented.note(event),
                None => break,
            }
        }
        Poll::Ready(None)
    }

    /// The whole body.
    ///
    /// # Errors
    /// If it broke off, or is larger than `limit` bytes.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(data) = self.next().await {
            let data = data?;
            if data.len() > limit - all.len() {
                return Err(Error::AnswerTooLarge { limit });
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }
}

impl<R: Runtime> Stream for AppAnswer<R> {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_data(cx)
    }
}

impl<R: Runtime> Drop for AppAnswer<R> {
    fn drop(&mut self) {
        self.rented.machine.with(Rental::close);
        self.rented.leave();
    }
}

/// The way to an app that has left HTTP, made by [`AppAnswer::speaker`]; what the app says comes by the answer, which
/// somebody has to read meanwhile. Clones say something to the same app.
#[derive(Clone)]
pub struct AppSpeaker<R: Runtime>(Arc<Rented<R>>);

impl<R: Runtime> AppSpeaker<R> {
    /// Says something, once the app takes it; after [`end`](Self::end), nothing. Dropped before that, nothing was said.
    ///
    /// # Errors
    /// If it is over.
    pub async fn say(&self, bytes: Bytes) -> Result<(), Error> {
        let machine = &self.0.machine;
        let room = self.0.state.until(|state| match state.over {
            Some(_) => Some(Err(Error::Closed)),
            None => machine
                .with(|rental, _| rental.has_room())
                .then_some(Ok(())),
        });
        room.await?;
        machine.with(|rental, now| rental.say(now, bytes));
        Ok(())
    }

    /// Says that no more comes. The app may go on, and ends in its turn.
    pub fn end(&self) {
        self.0.machine.with(Rental::say_no_more);
    }
}

impl<R: Runtime> fmt::Debug for AppSpeaker<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AppSpeaker").finish_non_exhaustive()
    }
}

impl<R: Runtime> fmt::Debug for AppAnswer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppAnswer")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}
