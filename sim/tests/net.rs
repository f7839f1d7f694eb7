//! The network in a box keeps its promises: order, pressure, breakage, and the same run for the same seed.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Method, Out, Request, Url};
use livepeer_core::sign::keccak;
use livepeer_core::trickle::{Publisher, Server, Start, Subscriber, publisher, server, subscriber};
use livepeer_core::{Digest, Effect, EffectId, Input, Machine, Outbox, Output, Time};
use livepeer_sim::{Caller, Key, Link, Net, Node};

const HOST: &str = "trickle:80";

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn url(path: &str) -> Url {
    Url::parse(&format!("http://{HOST}{path}")).expect("a URL")
}

fn net(seed: u8) -> (Net, Node<Server>) {
    let mut net = Net::new(Time::from_secs(1_000), [seed; 32]);
    let config = server::Config {
        autocreate: true,
        ..server::Config::default()
    };
    let server = Server::new(net.now(), config);
    let server = net.serve(HOST, server);
    (net, server)
}

fn post(path: &str, body: Body) -> Request {
    Request::new(Method::Post, url(path)).body(body)
}

#[test]
fn a_stream_arrives_whole_over_a_link_with_jitter() {
    let (mut net, _) = net(1);
    *net.link(HOST) = Link {
        latency: ms(20),
        jitter: ms(15),
        ..Link::default()
    };
    let channel = url("/ai/trickle/c");
    let config = publisher::Config {
        create: true,
        ..publisher::Config::default()
    };
    let publisher = Publisher::new(net.now(), config, channel.clone());
    let publisher = net.add(publisher);
    let reader = Subscriber::new(
        net.now(),
        subscriber::Config::default(),
        channel,
        Start::At(0.into()),
    );
    let reader = net.add(reader);
    let mut wrote = Vec::new();
    for n in 0_u8..20 {
        let begun = net.run_while(ms(1_000), |net| {
            net.with(publisher, |p, now| p.begin(now)).is_err()
        });
        assert!(begun, "the publisher is ready in time");
        for part in 0..10 {
            let bytes = vec![n.wrapping_mul(31) ^ part; 1_000];
            wrote.extend_from_slice(&bytes);
            net.with(publisher, |p, now| p.write(now, bytes.into()))
                .expect("there is room");
            net.run_for(ms(7));
        }
        net.with(publisher, |p, now| p.end(now))
            .expect("it is open");
    }
    net.run_for(ms(500));
    let mut read = Vec::new();
    for event in net.events(reader) {
        match event {
            subscriber::Event::Data(_, bytes) => read.extend_from_slice(&bytes),
            subscriber::Event::Begin(..) | subscriber::Event::End(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(read == wrote, "{} of {} bytes", read.len(), wrote.len());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let (mut net, _) = net(seed);
        *net.link(HOST) = Link {
            latency: ms(3),
            jitter: ms(30),
            breaks_per_million: 200_000,
            ..Link::default()
        };
        let caller = net.add(Caller::default());
        let ids: Vec<EffectId> = (0..30)
            .map(|n| {
                let request = post(
                    &format!("/ai/trickle/c/{n}"),
                    Body::Full(Bytes::from_static(b"x")),
                );
                net.with(caller, |c, _| c.send(request))
            })
            .collect();
        net.run_for(ms(1_000));
        let order = net.events(caller);
        let answers: Vec<_> = ids
            .iter()
            .map(|id| net.get(caller).answer(*id).clone())
            .map(|answer| (answer.status, answer.fault.is_some(), answer.sent))
            .collect();
        format!("{order:?} {answers:?}")
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn both_sides_learn_of_a_cut_and_of_a_host_that_is_not_there() {
    let (mut net, server) = net(2);
    let caller = net.add(Caller::default());
    let id = net.with(caller, |c, _| c.send(post("/ai/trickle/c/0", Body::Stream)));
    net.with(caller, |c, _| c.write(id, &b"abc"[..]));
    net.run_for(ms(10));
    assert_eq!(
        net.get(server).stats("c").map(|stats| stats.guests),
        Some(1)
    );
    net.cut(HOST);
    net.run_for(ms(10));
    assert_eq!(
        net.get(server).stats("c").map(|stats| stats.guests),
        Some(0)
    );
    assert!(matches!(
        net.get(caller).answer(id).fault,
        Some(Fault::Broken(_))
    ));
    assert_eq!(net.open_exchanges(), 0);

    net.link(HOST).down = true;
    let id = net.with(caller, |c, _| c.send(post("/ai/trickle/c", Body::Empty)));
    let nowhere = Request::new(Method::Get, Url::parse("http://nowhere").expect("a URL"));
    let lost = net.with(caller, |c, _| c.send(nowhere));
    net.run_for(ms(10));
    for id in [id, lost] {
        assert!(matches!(
            net.get(caller).answer(id).fault,
            Some(Fault::Connect(_))
        ));
    }
}

#[test]
fn an_abort_reaches_the_other_side() {
    let (mut net, server) = net(3);
    let caller = net.add(Caller::default());
    let id = net.with(caller, |c, _| c.send(post("/ai/trickle/c/0", Body::Stream)));
    net.with(caller, |c, _| c.write(id, &b"abc"[..]));
    net.run_for(ms(10));
    net.with(caller, |c, _| c.step(id, Out::Abort));
    net.run_for(ms(10));
    assert_eq!(
        net.get(server).stats("c").map(|stats| stats.guests),
        Some(0)
    );
    assert!(
        net.get(caller).answer(id).fault.is_none(),
        "who aborts knows it"
    );
}

/// Signs or stores on request, and holds back request bodies until told.
#[derive(Default)]
struct Probe {
    told: Vec<Input>,
    out: Outbox<()>,
}

impl Machine for Probe {
    type Event = ();

    fn handle_input(&mut self, _: Time, input: Input) {
        self.told.push(input);
    }

    fn poll_output(&mut self) -> Output<()> {
        self.out.pop().unwrap_or(Output::Idle(None))
    }
}

#[test]
fn a_paused_body_waits_and_comes_in_order() {
    let mut net = Net::new(Time::from_secs(1), [0; 32]);
    let probe = net.serve(HOST, Probe::default());
    let caller = net.add(Caller::default());
    let id = net.with(caller, |c, _| c.send(post("/", Body::Stream)));
    net.run_for(ms(10));
    let Some(Input::Http(here, _)) = net.get(probe).told.first() else {
        panic!("there is a request");
    };
    let here = *here;
    net.with(probe, |p, _| p.out.http(here, Out::Pause));
    for n in 0..5_u8 {
        net.with(caller, |c, _| c.write(id, vec![n]));
    }
    net.run_for(ms(10));
    assert_eq!(net.get(probe).told.len(), 1);
    assert_eq!(net.get(caller).answer(id).sent, 0);
    net.with(probe, |p, _| p.out.http(here, Out::Resume));
    net.with(caller, |c, _| {
        c.write(id, vec![5]);
        c.end(id);
    });
    net.run_for(ms(10));
    assert_eq!(net.get(caller).answer(id).sent, 6);
    let bytes: Vec<u8> = net
        .get(probe)
        .told
        .iter()
        .filter_map(|input| match input {
            Input::Http(_, livepeer_core::http::In::Data(bytes)) => Some(bytes[0]),
            _ => None,
        })
        .collect();
    assert_eq!(bytes, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn keys_sign_and_records_are_kept() {
    let mut net = Net::new(Time::from_secs(1), [0; 32]);
    let probe = net.add(Probe::default());
    let digest = Digest(keccak(&[b"x"]));
    net.with(probe, |p, _| p.out.open(Effect::Sign(digest)));
    net.run_for(ms(1));
    assert!(matches!(net.get(probe).told[0], Input::Signed(_, Err(_))));
    let key = Key::named("payer");
    net.give_key(probe, key.clone());
    net.with(probe, |p, _| {
        p.out.open(Effect::Sign(digest));
        p.out.open(Effect::Store(livepeer_core::store::Record {
            key: "a:b".to_owned(),
            value: Some(Bytes::from_static(b"v")),
        }));
    });
    net.run_for(ms(1));
    let Input::Signed(_, Ok(signature)) = &net.get(probe).told[1] else {
        panic!("it signs");
    };
    assert_eq!(signature.recover(digest), Ok(key.address()));
    assert!(matches!(net.get(probe).told[2], Input::Stored(_, Ok(()))));
    assert_eq!(net.stored(probe)["a:b"], &b"v"[..]);
    let write = net.writes(probe);
    net.fail_store(probe, write..write + 1);
    for value in ["w", "x"] {
        net.with(probe, |p, _| {
            p.out.open(Effect::Store(livepeer_core::store::Record {
                key: "a:b".to_owned(),
                value: Some(Bytes::from_static(value.as_bytes())),
            }));
        });
        net.run_for(ms(1));
        let kept = value == "x";
        let told = net.get(probe).told.last();
        assert!(matches!(told, Some(Input::Stored(_, answer)) if answer.is_ok() == kept));
        let value = if kept { b"x" } else { b"v" };
        assert_eq!(net.stored(probe)["a:b"], &value[..]);
    }
}
