//! Connections, tasks and timers: how they begin and that they end.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, In, Out, Response};
use livepeer_core::money::Amount;
use livepeer_core::payment::Budget;
use livepeer_core::spend::Spend;
use livepeer_core::store::Record;
use livepeer_core::{Address, Digest};

use super::*;
use crate::driver::MAX_RECORDS;
use crate::keys::{LocalKey, Pending};
use crate::signal::enlist;
use crate::store::{MemoryStore, Store};

/// Waits until a server has no more than `count` connections.
pub(super) async fn connections<R: Runtime>(runtime: &R, socket: &Server<R>, count: usize) {
    let wait = async {
        while socket.connections() > count {
            rest(runtime, Duration::from_millis(2)).await;
        }
    };
    let what = format!("closing all but {count} connections");
    within(runtime, Duration::from_secs(10), &what, wait).await;
}

/// Waits until nobody listens at an address.
pub(super) async fn deaf<R: Runtime>(runtime: &R, at: SocketAddr) {
    let wait = async {
        while runtime.connect(at).await.is_ok() {
            rest(runtime, Duration::from_millis(2)).await;
        }
    };
    within(runtime, Duration::from_secs(10), "closing the socket", wait).await;
}

/// Exchanges share one connection if one follows another; ten at a time take ten, or one over HTTP/2.
pub async fn a_thousand_exchanges_reuse_connections<R: Runtime>(runtime: R) {
    for protocol in [HTTP1, HTTP2] {
        let (server, socket) = Side::server(&runtime, None).await;
        let driver = Driver::new(runtime.clone());
        let client = Side::new(&driver, Habits::Tell);
        let request = |n: usize| {
            post(url(&socket, false, "/sink"), Body::Full(vec![0; n].into())).protocol(protocol)
        };
        for i in 0..500 {
            assert_eq!(
                client.fetch(request(i)).await,
                (200, i.to_string().into_bytes())
            );
            assert_eq!(socket.connections(), 1, "after exchange {i}");
        }
        // Another machine of the same driver shares them.
        let other = Side::new(&driver, Habits::Tell);
        for _ in 0..50 {
            let ids: Vec<_> = (0..10).map(|i| other.open(request(i))).collect();
            let mut ended = 0;
            while ended < ids.len() {
                match other.next().await.1 {
                    In::End(_) => ended += 1,
                    In::Failed(fault) => panic!("{fault}"),
                    _ => {}
                }
            }
        }
        let most = if protocol == HTTP1 { 10 } else { 1 };
        assert!(
            socket.connections() <= most,
            "{} connections",
            socket.connections()
        );
        assert_eq!(
            server.handle.with(|m, _| (m.requests, m.failures)),
            (1000, 0)
        );
    }
}

/// The server closed a connection while it waited in the pool: the next exchange does not notice.
pub async fn a_stale_connection_is_replaced_unnoticed<R: Runtime>(runtime: R) {
    for protocol in [HTTP1, HTTP2] {
        let driver = Driver::new(runtime.clone());
        let client = Side::new(&driver, Habits::Tell);
        let (server, socket) = Side::server(&runtime, None).await;
        let request = post(
            url(&socket, false, "/sink"),
            Body::Full(Bytes::from_static(b"abc")),
        )
        .protocol(protocol);
        assert_eq!(client.fetch(request.clone()).await.0, 200);
        let at = socket.local_addr();
        drop(socket);
        rest(&runtime, Duration::from_millis(50)).await;
        // On a machine that is held up the old listener may take a moment to go.
        let until = runtime.now() + Duration::from_secs(10);
        let again = loop {
            match Server::bind(&server.handle, at, None).await {
                Ok(again) => break again,
                Err(error) if runtime.now() > until => panic!("the port is not free: {error}"),
                Err(_) => rest(&runtime, Duration::from_millis(10)).await,
            }
        };
        assert_eq!(client.fetch(request).await, (200, b"3".to_vec()));
        drop(again);
    }
}

/// A reply with `connection: close` closes, on either side's word.
pub async fn connection_close_is_honoured<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, None).await;
    let mut peer = raw(&runtime, &socket).await;
    peer.write(b"GET /close HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("the server listens");
    let answer = peer.read_all().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    connections(&runtime, &socket, 0).await;
    let client = Side::client(&runtime);
    for _ in 0..3 {
        assert_eq!(
            client.fetch(get(url(&socket, false, "/close"))).await.0,
            200
        );
        connections(&runtime, &socket, 0).await;
    }
}

/// No task, no connection and no timer outlives the machine they were for.
pub async fn dropping_the_handle_closes_everything<R: Runtime>(runtime: R) {
    for protocol in [HTTP1, HTTP2] {
        let (server, socket) = Side::serving(&runtime, None, Habits::Tell).await;
        let client = Side::client(&runtime);
        let other = client.handle.clone();
        client.open(get(url(&socket, false, "/wait")).protocol(protocol));
        client.open(post(url(&socket, false, "/up"), Body::Stream).protocol(protocol));
        server.accept().await;
        client
            .handle
            .with(|m, now| m.wake_in(now, Duration::from_secs(3600)));
        drop(client);
        rest(&runtime, Duration::from_millis(50)).await;
        assert!(socket.connections() > 0, "one handle is left");
        drop(other);
        connections(&runtime, &socket, 0).await;
        // And the other way round: a server goes with its machine.
        let client = Side::client(&runtime);
        let id = client.open(get(url(&socket, false, "/last")).protocol(protocol));
        // The steps of those who are gone come first.
        while !matches!(
            server.next().await,
            (_, In::Request(request)) if request.url.path() == "/last"
        ) {}
        server.handle.close();
        assert!(
            server.handle.next().await.is_some(),
            "what was told stays told"
        );
        client.fault(id).await;
        connections(&runtime, &socket, 0).await;
        deaf(&runtime, socket.local_addr()).await;
    }
}

/// An exchange that is given up closes its connection, and nothing more is told of it.
pub async fn an_abort_closes_the_connection<R: Runtime>(runtime: R) {
    let (_server, socket) = Side::server(&runtime, None).await;
    let client = Side::client(&runtime);
    for path in ["/wait", "/source/1000000000"] {
        let id = client.open(get(url(&socket, false, path)));
        rest(&runtime, Duration::from_millis(50)).await;
        client.step(id, Out::Abort);
        connections(&runtime, &socket, 0).await;
        while client.handle.try_next().is_some() {}
        client.step(id, Out::Abort);
        client.step(id, Out::Data(Bytes::from_static(b"late")));
        rest(&runtime, Duration::from_millis(20)).await;
        assert!(client.handle.try_next().is_none());
    }
    // Also while it still connects, and while its failure is on the way: nothing comes of it once it was given up.
    let nowhere = Url::parse("http://192.0.2.1:9/").expect("a URL");
    let (server, closed) = Side::server(&runtime, None).await;
    let refused = url(&closed, false, "/");
    drop((server, closed));
    for to in std::iter::once(nowhere).chain(std::iter::repeat_n(refused, 200)) {
        let id = client.open(get(to));
        client.step(id, Out::Abort);
        while client.handle.try_next().is_some() {}
        rest(&runtime, Duration::from_millis(1)).await;
        assert!(client.handle.try_next().is_none());
    }
}

/// Alarms set in any order ring in theirs, and never early.
pub async fn timers_fire_in_order_and_not_early<R: Runtime>(runtime: R) {
    let client = Side::client(&runtime);
    for millis in [120, 20, 70, 20, 200] {
        client
            .handle
            .with(|m, now| m.wake_in(now, Duration::from_millis(millis)));
    }
    let rung = |count| {
        let (client, runtime) = (&client, &runtime);
        async move {
            loop {
                let rung = client.handle.with(|m, _| m.rung.clone());
                if rung.len() >= count {
                    break rung;
                }
                rest(runtime, Duration::from_millis(5)).await;
            }
        }
    };
    let five = rung(5).await;
    assert!(five.is_sorted());
    for (at, rang) in five {
        assert!(rang >= at, "{at:?} {rang:?}");
    }
    // A nearer alarm does not wait for a farther one.
    client
        .handle
        .with(|m, now| m.wake_in(now, Duration::from_secs(3600)));
    client
        .handle
        .with(|m, now| m.wake_in(now, Duration::from_millis(10)));
    assert_eq!(rung(6).await.len(), 6);
}

/// A signature and a record come back by id.
pub async fn signatures_and_records_are_answered<R: Runtime>(runtime: R) {
    let store = MemoryStore::default();
    let key = LocalKey::new(&[1; 32]).expect("a key");
    let driver = Driver::new(runtime.clone())
        .with_key(key)
        .with_store(store.clone());
    assert_ne!(driver.key_holder().address(), Address::ZERO);
    let side = Side::new(&driver, Habits::Tell);
    side.handle.with(|m, _| {
        m.sign(Digest([7; 32]));
        m.store("a:1");
        m.store("a:2");
    });
    assert_eq!(
        side.handle.with(|m, _| m.answers.clone()),
        [
            "signed own#0 true",
            "stored own#1 true",
            "stored own#2 true"
        ]
    );
    assert_eq!(store.records().len(), 2);
    let nobody = Side::client(&runtime);
    nobody.handle.with(|m, _| m.sign(Digest([7; 32])));
    assert_eq!(
        nobody.handle.with(|m, _| m.answers.clone()),
        ["signed own#0 false"]
    );
}

/// A store that keeps nothing while told so.
#[derive(Clone, Default)]
pub(super) struct Full {
    pub(super) kept: MemoryStore,
    pub(super) full: Arc<AtomicBool>,
}

impl Store for Full {
    fn put(&self, records: Vec<Record>) -> Pending<'_, io::Result<()>> {
        if self.full.load(Ordering::Relaxed) {
            let error = io::Error::from(io::ErrorKind::StorageFull);
            return Box::pin(std::future::ready(Err(error)));
        }
        self.kept.put(records)
    }

    fn load(&self, prefix: &str) -> io::Result<Vec<Record>> {
        self.kept.load(prefix)
    }
}

/// A store that fails is an answer like any other, and is asked again.
pub async fn a_store_that_fails_answers_too<R: Runtime>(runtime: R) {
    let store = Full::default();
    let driver = Driver::new(runtime).with_store(store.clone());
    let side = Side::new(&driver, Habits::Tell);
    for full in [true, false] {
        store.full.store(full, Ordering::Relaxed);
        side.handle.with(|m, _| {
            m.store("a:1");
            m.store("a:2");
        });
    }
    assert_eq!(
        side.handle.with(|m, _| m.answers.clone()),
        [
            "stored own#0 false",
            "stored own#1 false",
            "stored own#2 true",
            "stored own#3 true"
        ]
    );
    assert_eq!(store.kept.records().len(), 2);
}

/// All machines of a driver and of its clones spend from one limit, and what was spent is in the store before it leaves.
pub async fn all_machines_of_a_driver_spend_from_one_limit<R: Runtime>(runtime: R) {
    let wei = |n| Amount::ratio(n, 1).expect("an amount");
    let take = |n| Spend::Take {
        value: wei(n),
        record: None,
    };
    let store = Full::default();
    let spent = || {
        let mut budget = Budget::unlimited();
        let records = store.kept.records();
        assert_eq!(budget.restore("spent", &records), Some(Vec::new()));
        budget.spent()
    };
    let driver = Driver::new(runtime)
        .with_store(store.clone())
        .with_limit(Budget::unlimited().per_job(wei(5)), Some("spent".into()));
    let one = Side::new(&driver, Habits::Tell);
    let other = Side::new(&driver.clone(), Habits::Tell);
    let spend = |side: &Side<R>, spend| {
        side.handle.with(|m, _| m.spend(spend));
        let answers = side.handle.with(|m, _| m.answers.clone());
        answers.last().map(|last| last.ends_with("true"))
    };
    let at = driver.now();
    assert_eq!(spend(&one, take(3)), Some(true));
    assert_eq!((spend(&other, take(3)), spent()), (Some(false), wei(3)));
    assert_eq!((spend(&other, take(2)), spent()), (Some(true), wei(5)));
    let value = wei(3);
    spend(&one, Spend::GiveBack { value, at });
    assert_eq!(spent(), wei(2), "stored without a further payment");
    store.full.store(true, Ordering::Relaxed);
    assert_eq!(spend(&other, take(1)), Some(false), "it is not stored");
    store.full.store(false, Ordering::Relaxed);
    assert_eq!((spend(&other, take(3)), spent()), (Some(true), wei(5)));
    let unlimited = Driver::new(driver.runtime().clone()).with_store(store.clone());
    for (driver, value, taken) in [
        (&driver, 1, false),
        (&driver, 0, true),
        (&unlimited, 9, true),
    ] {
        let key = format!("nonce:{value}");
        let record = Some(Record {
            key: key.clone(),
            value: Some(Bytes::from_static(b"1")),
        });
        let value = wei(value);
        let side = Side::new(driver, Habits::Tell);
        assert_eq!(spend(&side, Spend::Take { value, record }), Some(taken));
        assert_eq!(
            store.kept.get(&key).is_some(),
            taken,
            "stored before it leaves"
        );
    }
}

/// A store that keeps nothing before it is told to.
struct Slow(MemoryStore, async_channel::Receiver<()>);

impl Store for Slow {
    fn put(&self, records: Vec<Record>) -> Pending<'_, io::Result<()>> {
        Box::pin(async move {
            let _ = self.1.recv().await;
            self.0.put(records).await
        })
    }

    fn load(&self, prefix: &str) -> io::Result<Vec<Record>> {
        self.0.load(prefix)
    }
}

/// An amount that is counted for nobody, since it is wanted no more or its machine is gone, is given back.
pub async fn an_amount_that_nobody_waits_for_is_given_back<R: Runtime>(runtime: R) {
    let (go, going) = async_channel::bounded(8);
    let kept = MemoryStore::default();
    let driver = Driver::new(runtime.clone())
        .with_store(Slow(kept.clone(), going))
        .with_limit(Budget::unlimited(), Some("spent".into()));
    let take = |n| Spend::Take {
        value: Amount::ratio(n, 1).expect("an amount"),
        record: None,
    };
    let [stays, leaves, dies] = [(); 3].map(|()| Side::new(&driver, Habits::Tell));
    stays.handle.with(|m, _| m.spend(take(1)));
    let given_up = leaves.handle.with(|m, _| m.spend(take(2)));
    leaves.handle.with(|m, _| m.spend_no_more(given_up));
    dies.handle.with(|m, _| m.spend(take(4)));
    dies.handle.close();
    let limit = driver.limit().expect("there is one");
    let spent = || limit.with(|all, _| all.budget().spent().whole_wei());
    assert_eq!(spent(), 7.into(), "all of it may be on its way");
    let recalled = || {
        let mut budget = Budget::unlimited();
        let read = budget.restore("spent", &kept.records());
        (read.is_some(), budget.spent().whole_wei())
    };
    let waits = async {
        while spent() != 1.into() || recalled() != (true, 1.into()) {
            let _ = go.try_send(());
            rest(&runtime, Duration::from_millis(2)).await;
        }
    };
    within(&runtime, Duration::from_secs(10), "giving back", waits).await;
    let answers = |side: &Side<R>| side.handle.with(|m, _| m.answers.len());
    assert_eq!([&stays, &leaves, &dies].map(answers), [1, 0, 0]);
}

/// A store that never answers.
struct Hung;

impl Store for Hung {
    fn put(&self, _: Vec<Record>) -> Pending<'_, io::Result<()>> {
        Box::pin(std::future::pending())
    }

    fn load(&self, _: &str) -> io::Result<Vec<Record>> {
        Ok(Vec::new())
    }
}

/// Records that find no room in the queue for a store that hangs fail at once.
pub async fn a_store_that_hangs_holds_a_bounded_number_of_records<R: Runtime>(runtime: R) {
    let driver = Driver::new(runtime).with_store(Hung);
    let side = Side::new(&driver, Habits::Tell);
    side.handle.with(|m, _| {
        for _ in 0..MAX_RECORDS + 2 {
            m.store("a:1");
        }
    });
    let answers = side.handle.with(|m, _| m.answers.clone());
    let late = |n| format!("stored own#{n} false");
    assert_eq!(answers, [late(MAX_RECORDS), late(MAX_RECORDS + 1)]);
}

/// Shutting down closes what is idle at once, and lets what runs end.
pub async fn shutdown_lets_exchanges_end<R: Runtime>(runtime: R) {
    for protocol in [HTTP1, HTTP2] {
        let (server, socket) = Side::serving(&runtime, None, Habits::Tell).await;
        let client = Side::client(&runtime);
        let ours = client.open(get(url(&socket, false, "/")).protocol(protocol));
        let (theirs, _) = server.accept().await;
        server.of(theirs).await;
        let idle = raw(&runtime, &socket).await;
        let at = socket.local_addr();
        let answer = async {
            rest(&runtime, Duration::from_millis(50)).await;
            deaf(&runtime, at).await;
            let reply = Response::new(200).body(Body::Full(Bytes::from_static(b"done")));
            server.step(theirs, Out::Reply(reply));
            assert_eq!(client.reply(ours).await.status, 200);
            assert_eq!(client.rest(ours).await.0, b"done");
        };
        let began = runtime.now();
        let shutdown = socket.shutdown(runtime.now() + Duration::from_secs(20));
        both(answer, shutdown).await;
        assert!(runtime.now().since(began) < Duration::from_secs(10));
        drop(idle);
        // What does not end is ended.
        let (server, socket) = Side::serving(&runtime, None, Habits::Tell).await;
        let client = Side::client(&runtime);
        let ours = client.open(get(url(&socket, false, "/")).protocol(protocol));
        server.accept().await;
        socket
            .shutdown(runtime.now() + Duration::from_millis(50))
            .await;
        client.fault(ours).await;
    }
}

pub(super) async fn both(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut a_done, mut b_done) = (false, false);
    std::future::poll_fn(|cx| {
        a_done = a_done || a.as_mut().poll(cx).is_ready();
        b_done = b_done || b.as_mut().poll(cx).is_ready();
        if a_done && b_done {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// A task that asks for an event again and again in vain is listed once.
pub async fn a_task_that_waits_again_waits_once<R: Runtime>(_runtime: R) {
    let mut waiting = Vec::new();
    for _ in 0..1_000 {
        let mut again = false;
        std::future::poll_fn(|cx| {
            enlist(&mut waiting, cx);
            if std::mem::replace(&mut again, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
    assert!(waiting.len() <= 2, "{} places", waiting.len());
}
