//! The classes that applications speak, against an orchestrator and a signer on loopback.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};

use bytes::Bytes;
use futures_core::Stream;
use futures_io::{AsyncRead as _, AsyncWrite as _};
use livepeer_core::error::{Advice, Cause, Party};
use livepeer_core::job::app::Call;
use livepeer_core::money::Price;
use livepeer_core::payment::Unit;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::nonce::NONCE_KEY;
use livepeer_core::payment::remote::{self, SignerServer};
use livepeer_core::payment::session::{Config, LocalAccount};
use livepeer_core::store::Record;
use livepeer_core::trickle::Seq;
use livepeer_core::wire::Params;
use livepeer_core::wire::batch::BatchRequest;
use livepeer_core::wire::runner::Mode;
use livepeer_core::{ChainView, Misuse, Pipeline};
use livepeer_orchestrator::{
    App, AppPrice, BatchModel, Container, Event, Orchestrator, Payments, Quirks, Tempo, Worker,
};

use super::life::{Full, both};
use super::pace::Paced;
use super::*;
use crate::api::{
    Error, Gateway, Input, JobEvent, LiveVideoJob, OrchestratorSession, Output, OutputEvent, Payer,
    PaymentSession,
};
use crate::keys::{KeyHolder as _, LocalKey};
use crate::seed;
use crate::store::{MemoryStore, Store as _};

/// The model that a [`Place`] has for every pipeline.
pub(super) const BATCH_MODEL: &str = "a/model";

/// The container that a [`Place`] has.
pub(super) const CONTAINER: &str = "echo";

/// The secret that the orchestrator shares with its runners.
pub(super) const REGISTER_SECRET: &str = "word";

/// An orchestrator and a signer behind sockets of their own.
pub(super) struct Place<R: Runtime> {
    orchestrator: Handle<Orchestrator, R>,
    pub(super) service: String,
    pub(super) signer: String,
    driver: Driver<R>,
    _servers: (Server<R>, Server<R>),
    _signer: Handle<SignerServer, R>,
}

/// The payer's key, which the signer has.
fn payer_key() -> LocalKey {
    LocalKey::new(&[7; 32]).expect("a key")
}

impl<R: Runtime> Place<R> {
    /// How many streams run through the container.
    pub(super) fn streams(&self) -> usize {
        self.orchestrator.with(|this, _| this.streams().count())
    }

    pub(super) async fn new(runtime: &R) -> Self {
        Self::priced(runtime, 100).await
    }

    /// An orchestrator that asks for so many wei per unit.
    async fn priced(runtime: &R, wei: i64) -> Self {
        let chain = ChainView::development();
        let listener = runtime.bind(LOOPBACK).await.expect("a free port");
        let at = runtime.local_addr(&listener).expect("it has an address");
        let service = Url::parse(&format!("https://{at}")).expect("the URL of a socket");
        let node = LocalKey::new(&[8; 32]).expect("a key");
        let price = Price::new(wei, 1).expect("a price");
        let payments = Payments::new(node.address(), price, chain.clone());
        let config =
            livepeer_orchestrator::Config::new(service.clone(), node.address()).on_chain(payments);
        let config = Pipeline::batch().fold(config, |config, pipeline| {
            config.with_batch_model(pipeline, BATCH_MODEL, BatchModel::default())
        });
        let second = AppPrice {
            wei: wei * 1_000_000,
            unit: Unit::Seconds,
        };
        let app = |name: &str, mode| App {
            price: Some(second),
            ..App::new(format!("test/{name}"), mode, Worker::Echo(Tempo::default()))
        };
        let container = Container {
            price: Price::new(second.wei, 1).expect("a price"),
            ..Container::new(Worker::Echo(Tempo::default()))
        };
        let config = config
            .with_container(CONTAINER, container)
            .with_app("once", app("once", Mode::SingleShot))
            .with_app("held", app("held", Mode::Persistent));
        let config = livepeer_orchestrator::Config {
            register_secret: Some(REGISTER_SECRET.into()),
            ..config
        };
        let orchestrator = Driver::new(runtime.clone())
            .with_key(node)
            .drive(Orchestrator::new(runtime.now(), config, seed()));
        let tls = tls(&identity(runtime));
        let server = Server::serve(&orchestrator, listener, tls).expect("it has an address");
        let policy = Policy::new(payer_key().address());
        let machine = SignerServer::new(runtime.now(), remote::Config::new(policy), chain, seed());
        let signer = Driver::new(runtime.clone())
            .with_key(payer_key())
            .drive(machine);
        let signing = Server::bind(&signer, LOOPBACK, None)
            .await
            .expect("a free port");
        Self {
            orchestrator,
            service: service.to_string(),
            signer: format!("http://{}", signing.local_addr()),
            driver: Driver::new(runtime.clone()),
            _servers: (server, signing),
            _signer: signer,
        }
    }

    pub(super) fn gateway(&self) -> Gateway<R> {
        Gateway::from(self.driver.clone())
    }

    /// A job with this orchestrator, paid through this signer.
    pub(super) async fn job(&self) -> (LiveVideoJob<R>, Input<R>, Output<R>) {
        let job = self.gateway().live_video("noop");
        let job = job.orchestrator(&self.service).signer(&self.signer);
        job.start().await.expect("it starts")
    }

    async fn session(&self) -> OrchestratorSession<R> {
        let builder = self.gateway().orchestrator(&self.service);
        let connected = builder.signer(&self.signer).model("noop").connect().await;
        connected.expect("somebody listens")
    }

    async fn payments(&self) -> PaymentSession<R> {
        self.session()
            .await
            .payments(Config::new(Unit::PixelSeconds))
    }

    /// Waits until the orchestrator gives a quote.
    pub(super) async fn quoted(&self) {
        while !matches!(self.orchestrator.next().await, Some(Event::Quoted { .. })) {}
    }

    /// How many quotes the orchestrator has given since anybody last counted.
    pub(super) fn quotes(&self) -> usize {
        let events = std::iter::from_fn(|| self.orchestrator.try_next());
        events
            .filter(|event| matches!(event, Event::Quoted { .. }))
            .count()
    }

    /// Waits until the orchestrator has taken so many payments.
    async fn taken(&self, payments: u64) {
        while self.orchestrator.with(|m, _| m.figures().payments) < payments {
            rest(self.driver.runtime(), Duration::from_millis(5)).await;
        }
    }
}

/// A renewal that somebody asks for is not answered with one that came before, and nobody takes it from others.
pub async fn a_renewal_brings_a_word_that_came_after_the_call<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let session = place.session().await;
    let mut last = session.info();
    for _ in 0..3 {
        // One that nobody waits for.
        session
            .handle()
            .with(|handshake, now| handshake.renew(now))
            .expect("it is open");
        while !session.handle().with(|handshake, _| handshake.is_settled()) {
            rest(&runtime, Duration::from_millis(1)).await;
        }
        let unasked = session.info();
        assert_ne!(unasked.raw, last.raw);
        let info = session.renew().await.expect("it answers");
        assert_ne!(info.raw, unasked.raw, "the answer to an earlier question");
        assert_eq!(info.raw, session.info().raw);
        last = info;
    }
    // Two who ask at once are both answered, while others look.
    both(
        async {
            session.renew().await.expect("it answers");
        },
        async {
            session.info();
            session.renew().await.expect("it answers");
        },
    )
    .await;
    // Whoever stops waiting disturbs nobody.
    let mut given_up = Box::pin(session.renew());
    let _ = given_up
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    drop(given_up);
    session.renew().await.expect("it answers");
    // One that has ended says why, to everybody who asks.
    let refused = place.gateway().orchestrator(&place.service);
    let refused = refused.model("nobody-has-it");
    let refused = refused.signer(&place.signer).connect().await;
    assert!(matches!(refused, Err(Error::Rejected(..))), "{refused:?}");
}

/// Further payments go out by themselves, and are told to whoever asks for them later.
pub async fn payments_are_made_and_counted_whoever_listens<R: Runtime>(runtime: R) {
    // Billed by the second, of which each costs more than a ticket is worth: payments follow closely.
    let place = Place::priced(&runtime, 10_000_000_000).await;
    let payments = place.session().await.payments(Config::new(Unit::Seconds));
    assert!(
        payments.pay_every(Duration::from_secs(1)).is_err(),
        "the job has no name yet"
    );
    let first = payments.get_payment().await.expect("the signer signs");
    let first = first.expect("the first one is due");
    assert!(!first.payment().is_empty() && !first.segment().is_empty());
    first.accepted();
    payments.set_manifest_id("job");
    payments
        .pay_every(Duration::from_secs(1))
        .expect("it has a name");
    // Nobody listens, and quotes are renewed all the same.
    place.taken(1).await;
    payments.orchestrator().renew().await.expect("it answers");
    place.taken(2).await;
    // Everybody who asks is told of all of them.
    for mut paid in [payments.paid(), payments.paid()] {
        let paid = [
            paid.next().await.expect("the first"),
            paid.next().await.expect("the second"),
            paid.next().await.expect("the third"),
        ];
        assert!(paid[0].total < paid[1].total && paid[1].total < paid[2].total);
    }
    assert!(payments.covered_until() > Some(runtime.now()));
}

/// A payment that is dropped, made or half made, counts as refused: the next one comes from a fresh quote.
pub async fn a_payment_that_nobody_wants_any_more_locks_nothing<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let payments = place.payments().await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        // Given up while it is made.
        let mut making = Box::pin(payments.get_payment());
        let _ = making
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        drop(making);
        let payment = loop {
            match payments.get_payment().await {
                Ok(payment) => break payment.expect("it is due"),
                // The one that was given up is still under way.
                Err(Error::Misuse(Misuse::StillOpen)) => {
                    rest(&runtime, Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert!(!seen.contains(&payment.payment().to_owned()));
        seen.push(payment.payment().to_owned());
        // Given up when it is there.
        drop(payment);
    }
    let payment = payments.get_payment().await.expect("nothing is locked");
    payment.expect("it is due").accepted();
    assert!(payments.paid().next().await.is_ok());
}

/// Our own store fails: the session names it, and says so to everybody who asks.
pub async fn a_payment_session_says_why_it_ended<R: Runtime>(runtime: R) {
    let mut place = Place::new(&runtime).await;
    let store = Full::default();
    store.full.store(true, std::sync::atomic::Ordering::Relaxed);
    place.driver = place.driver.with_key(payer_key()).with_store(store.clone());
    let policy = Policy::new(payer_key().address());
    let account = LocalAccount::new(policy, ChainView::development(), seed());
    let session = place
        .gateway()
        .orchestrator(&place.service)
        .payer(Payer::Account(Box::new(account)))
        .connect();
    let session = session.await.expect("somebody listens");
    let payments = session.payments(Config::new(Unit::PixelSeconds));
    for _ in 0..2 {
        let Err(error) = payments.get_payment().await else {
            panic!("nothing was stored");
        };
        assert_eq!(error.advice(), Some(Advice::Stop));
        let Error::Failed(failure) = error else {
            panic!("{error}");
        };
        assert_eq!(failure.who, Party::Store);
        assert!(matches!(failure.cause, Cause::GaveUp { .. }), "{failure}");
    }
    assert!(payments.paid().next().await.is_err());
    assert!(store.kept.records().is_empty());
}

/// The nonces of a payment are known to all later work of the driver. Where they cannot be read, no work begins that an
/// own key would pay for, of whatever kind.
pub async fn work_with_an_own_key_begins_with_the_nonces_that_were_used<R: Runtime>(runtime: R) {
    let mut place = Place::new(&runtime).await;
    let store = MemoryStore::default();
    place.driver = place.driver.with_key(payer_key()).with_store(store.clone());
    let gateway = place.gateway();
    let policy = Policy::new(payer_key().address());
    let account = LocalAccount::new(policy, ChainView::development(), seed());
    let own = || Payer::Account(Box::new(account.clone()));
    let connect = || gateway.orchestrator(&place.service).payer(own()).connect();
    let session = connect().await.expect("somebody listens");
    let quote = session.info().ticket_params.clone();
    let quote = quote.expect("it is paid");
    let payments = session.payments(Config::new(Unit::PixelSeconds));
    let payment = payments.get_payment().await.expect("a payment");
    payment.expect("it is due").accepted();
    let spent = place.driver.spent_nonces().expect("it can be read");
    assert!(spent.last(&quote.recipient_rand_hash) > 0);

    let spoiled = Record {
        key: format!("{NONCE_KEY}17"),
        value: Some(Bytes::from_static(b"17")),
    };
    store.put(vec![spoiled]).await.expect("there is room");
    let live = gateway.live_video("noop").orchestrator(&place.service);
    let llm = BatchRequest::new(Pipeline::Llm);
    let batch = gateway.submit(llm).orchestrator(&place.service);
    let container = gateway.byoc(CONTAINER).orchestrator(&place.service);
    let app = gateway.app("test/once").orchestrator(&place.service);
    let refusals = [
        connect().await.err(),
        live.payer(own()).start().await.err(),
        batch.payer(own()).warm_up().err(),
        container.payer(own()).send().err(),
        app.payer(own())
            .call(Call::new(Method::Get, ""))
            .await
            .err(),
    ];
    for refusal in refusals {
        let Some(Error::Store(why)) = refusal else {
            panic!("{refusal:?}");
        };
        assert_eq!(why.to_string(), "nonce:0x17 is no record of a nonce");
    }
}

/// An update has arrived when the call returns, and each of several calls at the same time waits for its own.
pub async fn parameters_are_updated_and_the_orchestrator_has_them<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let (job, input, _output) = place.job().await;
    let params = |n| Params::parse(&format!(r#"{{"n":{n}}}"#)).expect("an object");
    for n in 0..3 {
        job.update_params(params(n)).await.expect("it is taken");
    }
    both(
        async { job.update_params(params(3)).await.expect("it is taken") },
        async { job.update_params(params(4)).await.expect("it is taken") },
    )
    .await;
    drop(input);
    job.stop().await.expect("in order");
}

/// A runner that dies while its orchestrator lives costs nothing, for a standby gets the same input. On a machine that
/// is held up for too long it may cost something, which is told.
pub async fn a_runner_that_dies_behind_its_orchestrator_costs_no_segment<R: Runtime>(runtime: R) {
    let fast = Paced::faster(&runtime, 5);
    let places = [Place::new(&fast).await, Place::new(&fast).await];
    let builder = places[0].gateway().live_video("noop");
    let builder = builder.signer(&places[0].signer);
    let (job, mut publisher, mut output) = builder
        .orchestrators(
            places
                .iter()
                .map(|place| Url::parse(&place.service).expect("a URL")),
        )
        .start()
        .await
        .expect("it starts");
    let first = job.orchestrator();
    let (mut sent, mut back, mut gaps) = (Vec::new(), Vec::new(), 0);
    let input = async {
        for n in 0..60_u8 {
            if n == 12 {
                let dies = |place: &&Place<_>| place.service == first.to_string();
                let place = places.iter().find(dies).expect("one of them");
                let quirks = Quirks {
                    no_output: true,
                    ..Quirks::default()
                };
                place
                    .orchestrator
                    .with(|machine, now| machine.set_quirks(now, quirks));
            }
            if n > 20 && job.orchestrator() != first {
                break;
            }
            sent.push(vec![n; 1_000]);
            let segment = Bytes::from(vec![n; 1_000]);
            publisher.publish(segment).await.expect("the job goes on");
            rest(&fast, Duration::from_secs(1)).await;
        }
        publisher.close().await;
    };
    let reading = async {
        while let Some(event) = output.next().await.expect("the job goes on") {
            match event {
                OutputEvent::Begin(..) => back.push(Vec::new()),
                OutputEvent::Data(_, data) => back.last_mut().expect("it began").extend(data),
                OutputEvent::Anew(..) => drop(back.pop()),
                OutputEvent::Gap(gap) => gaps += gap.end.get() - gap.start.get(),
                _ => {}
            }
        }
    };
    both(input, reading).await;
    assert_ne!(job.orchestrator(), first);
    let figures = job.media_figures();
    assert_eq!((figures.missing, figures.begun), (gaps, sent.len() as u64));
    assert!(gaps > 0 || back.concat() == sent.concat());
    job.wait().await.expect("its output is complete");
}

/// The output is a stream, in each of its three forms, and everybody who reads events gets all of them.
pub async fn output_and_events_are_streams<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let segments: Vec<Bytes> = (0..3_u8).map(|n| vec![n; 1000].into()).collect();
    let publish = async |mut input: Input<R>| {
        for segment in &segments {
            let mut open = input.begin().await.expect("there is room");
            // As an `AsyncWrite`, in pieces.
            for piece in segment.chunks(300) {
                let written = poll_fn(|cx| Pin::new(&mut open).poll_write(cx, piece)).await;
                assert_eq!(written.expect("there is room"), piece.len());
            }
            let closed = poll_fn(|cx| Pin::new(&mut open).poll_close(cx)).await;
            closed.expect("there is room");
        }
        assert_eq!(input.close().await.delivered, 3);
    };
    // Whole segments. A first one takes what is owed until the model is seen reading, so there may be fewer.
    let (job, input, mut output) = place.job().await;
    both(publish(input), async {
        let (mut back, mut all) = (output.segments(), Vec::new());
        let mut expected = Seq::new(0);
        while let Some(segment) = item(&mut back).await {
            let (seq, data) = segment.expect("it comes back");
            assert_eq!(seq, expected);
            expected = expected.next();
            all.extend_from_slice(&data);
        }
        assert!(all == segments.concat() && expected <= Seq::new(3));
    })
    .await;
    job.wait().await.expect("its output is complete");
    for mut events in [job.events(), job.events()] {
        let paid = item(&mut events).await;
        assert!(matches!(paid, Some(JobEvent::Paid(_))), "{paid:?}");
    }
    // Everything that happens.
    let (job, input, mut output) = place.job().await;
    both(publish(input), async {
        let (mut ended, mut bytes) = (0, 0);
        while let Some(event) = item(&mut output).await {
            match event.expect("the job goes on") {
                OutputEvent::Data(_, data) => bytes += data.len(),
                OutputEvent::End(_) => ended += 1,
                _ => {}
            }
        }
        assert!(
            (1..=3).contains(&ended) && bytes == 3000,
            "{ended}, {bytes}"
        );
    })
    .await;
    job.wait().await.expect("its output is complete");
    // Bytes.
    let (job, input, output) = place.job().await;
    both(publish(input), async {
        let (mut reader, mut all) = (output.into_reader(), Vec::new());
        let mut some = [0; 700];
        loop {
            let read = poll_fn(|cx| Pin::new(&mut reader).poll_read(cx, &mut some)).await;
            match read.expect("the job goes on") {
                0 => break,
                read => all.extend_from_slice(&some[..read]),
            }
        }
        assert!(all == segments.concat());
    })
    .await;
    job.wait().await.expect("its output is complete");
}

async fn item<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

/// An MPEG-TS stream is cut where a decoder can begin, and comes back whole; what is not one is refused with its
/// reason.
pub async fn mpeg_ts_is_cut_and_comes_back<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let (job, mut input, mut output) = place.job().await;
    let clip: &[u8] = include_bytes!("../../../gateway/media/testsrc-360p30-12s.ts");
    let publish = async {
        let odd = input.publish_ts(clip).await.expect("it can be cut");
        assert!(odd.is_empty(), "{odd}");
        let refused = input.publish_ts(&b"no transport stream"[..]).await;
        assert!(matches!(refused, Err(Error::Ts(_))), "{refused:?}");
        input.close().await
    };
    let read = async {
        let (mut back, mut first) = (Vec::new(), Vec::new());
        while let Some((_, segment)) = output.next_segment().await.expect("the job goes on") {
            // The tables come first.
            let mut packets = segment.chunks(188).take(3);
            first.push(packets.any(|packet| packet[1] & 0x1f == 0 && packet[2] == 0));
            back.extend_from_slice(&segment);
        }
        assert!(
            back == clip,
            "{} of {} bytes came back",
            back.len(),
            clip.len()
        );
        // A first segment takes what is owed until the model is seen reading, so there may be fewer than twelve.
        assert!((1..=12).contains(&first.len()) && first.iter().all(|tables| *tables));
    };
    let mut flushed = None;
    both(async { flushed = Some(publish.await) }, read).await;
    assert_eq!(flushed.expect("it was closed").delivered, 12);
    job.wait().await.expect("its output is complete");
}

/// A live job runs with the orchestrator and the payer of a session, which goes on.
pub async fn a_job_runs_against_a_session<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let session = place.session().await;
    let (job, mut input, mut output) = session.live_video("noop").start().await.expect("it starts");
    assert_eq!(job.orchestrator(), *session.url());
    both(
        async {
            let segment = Bytes::from_static(b"segment");
            input.publish(segment).await.expect("there is room");
            input.close().await;
        },
        async {
            let back = output.next_segment().await.expect("the job goes on");
            assert_eq!(back.expect("it comes back").1, &b"segment"[..]);
            while output
                .next_segment()
                .await
                .expect("the job goes on")
                .is_some()
            {}
        },
    )
    .await;
    assert!(job.spent().payments > 0);
    job.wait().await.expect("its output is complete");
    session.renew().await.expect("it answers");
}

/// Jobs of one kind have one pool of sessions, at the same time and one after the other, and each its own quote. One that
/// ends leaves the other alone; those of another kind have their own.
pub async fn jobs_of_one_kind_share_their_sessions<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let gateway = place.gateway();
    let start = async || {
        let job = gateway.live_video("noop").orchestrator(&place.service);
        job.signer(&place.signer).start().await.expect("it starts")
    };
    let pools = async |all, idle| {
        while gateway.pools() != (all, idle) {
            rest(&runtime, Duration::from_millis(1)).await;
        }
    };
    start().await.0.stop().await.expect("in order");
    pools(1, 1).await;
    let (mut one, mut other) = (None, None);
    both(async { one = Some(start().await) }, async {
        other = Some(start().await)
    })
    .await;
    assert_eq!(gateway.pools(), (1, 0), "one pool for both");
    let ((one, ..), (other, mut input, mut output)) = (one.expect("one"), other.expect("two"));
    // A nonce that was used before would be refused.
    assert!(one.spent().payments > 0 && other.spent().payments > 0);
    one.stop().await.expect("in order");
    let segment = Bytes::from_static(b"segment");
    input.publish(segment).await.expect("the other goes on");
    let back = output.next_segment().await.expect("the job goes on");
    assert_eq!(back.expect("it comes back").1, &b"segment"[..]);
    assert_eq!(gateway.pools(), (1, 0));
    other.stop().await.expect("in order");
    pools(1, 1).await;
    let free = gateway.live_video("noop").orchestrator(&place.service);
    let refused = free.start().await;
    assert!(
        matches!(refused, Err(Error::NoOrchestrator(_))),
        "{refused:?}"
    );
    // Nobody pays in it, so it took nothing, and has nothing to leave.
    pools(1, 1).await;
}

/// Jobs that begin at the same time look for orchestrators once, and so does one that begins soon after.
pub async fn jobs_of_one_kind_look_for_orchestrators_once<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let (listener, listing) = listen(&runtime, "http").await;
    let asked = Arc::new(AtomicUsize::new(0));
    let list = format!(r#"[{{"address":"{}"}}]"#, place.service);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", list.len());
    let answer = format!("{head}connection: close\r\n\r\n{list}");
    let (listens, counted) = (runtime.clone(), Arc::clone(&asked));
    runtime.spawn(async move {
        while let Ok((peer, _)) = listens.accept(&listener).await {
            let mut peer = Raw(peer);
            peer.read_to("\r\n\r\n").await;
            counted.fetch_add(1, Ordering::Relaxed);
            peer.write(answer.as_bytes()).await.expect("it listens");
        }
    });
    let gateway = place.gateway();
    let start = async || {
        let job = gateway.live_video("noop").discovery(&listing.to_string());
        job.signer(&place.signer)
            .start()
            .await
            .expect("it starts")
            .0
    };
    let (mut one, mut other) = (None, None);
    both(async { one = Some(start().await) }, async {
        other = Some(start().await)
    })
    .await;
    let third = start().await;
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    for job in one.into_iter().chain(other).chain([third]) {
        assert!(job.spent().payments > 0);
        job.stop().await.expect("in order");
    }
}

/// All that an application holds may be dropped on a thread that knows no runtime.
pub async fn anything_can_be_dropped_anywhere<R: Runtime>(runtime: R) {
    fn elsewhere(what: impl Send + 'static) {
        let dropped = std::thread::spawn(move || drop(what)).join();
        assert!(dropped.is_ok(), "dropping it panicked");
    }
    let place = Place::new(&runtime).await;
    let running = |place: &Place<R>| place.orchestrator.with(|m, _| m.figures().running);
    // With its ends and without, in both orders.
    let (one, mut input, output) = place.job().await;
    input
        .publish(Bytes::from_static(b"segment"))
        .await
        .expect("there is room");
    elsewhere(one);
    elsewhere(input);
    elsewhere(output);
    while running(&place) > 0 {
        // It is stopped in order all the same.
        rest(&runtime, Duration::from_millis(5)).await;
    }
    let (two, input, output) = place.job().await;
    elsewhere(output);
    elsewhere(input);
    elsewhere(two);
    elsewhere(place.job().await);
    elsewhere(place.gateway());
    let session = place.session().await;
    elsewhere(session);
    elsewhere(place.payments().await);
    elsewhere(place.driver.clone());
    let side = Side::client(&runtime);
    side.open(get(Url::parse("http://127.0.0.1:9/").expect("a URL")));
    elsewhere(side.handle);
    elsewhere(place);
}
