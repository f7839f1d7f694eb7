//! Publisher, server and subscriber over a perfect wire: the normal paths, told as stories.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Out, Url};
use livepeer_core::trickle::publisher::{self, Publisher, Unbegun, Unwritten};
use livepeer_core::trickle::server::{self, Server};
use livepeer_core::trickle::subscriber::{self, Subscriber};
use livepeer_core::trickle::{ContentType, Ending, Seq, Start};
use livepeer_core::{Effect, EffectId, Input, Machine, Misuse, Output, Time};

/// A client machine, its exchanges mapped to the server's.
struct Client<M: Machine> {
    machine: M,
    to_server: BTreeMap<EffectId, EffectId>,
    events: Vec<M::Event>,
}

/// The server, and what goes to it.
struct Far {
    server: Server,
    minted: u64,
    /// Requests that left, as `METHOD path`.
    log: Vec<String>,
    /// While set, requests are refused.
    down: bool,
}

struct World {
    now: Time,
    far: Far,
    publisher: Client<Publisher>,
    subscriber: Client<Subscriber>,
}

fn url() -> Url {
    Url::parse("http://server/ai/trickle/c").unwrap()
}

impl World {
    fn new(publisher: publisher::Config, subscriber: subscriber::Config, start: Start) -> Self {
        let now = Time::from_secs(1_000);
        let mut server = Server::new(now, server::Config::default());
        server
            .create_channel(now, "c", "video/MP2T".into())
            .unwrap();
        Self {
            now,
            far: Far {
                server,
                minted: 0,
                log: Vec::new(),
                down: false,
            },
            publisher: Client::new(Publisher::new(now, publisher, url())),
            subscriber: Client::new(Subscriber::new(now, subscriber, url(), start)),
        }
    }

    /// Carries everything that is under way; the time to wake at.
    fn settle(&mut self) -> Option<Time> {
        loop {
            let (published, publisher) = self.publisher.drain(self.now, &mut self.far);
            let (asked, subscriber) = self.subscriber.drain(self.now, &mut self.far);
            let (back, server) = self.far.drain(self.now);
            if !published && !asked && back.is_empty() {
                return [publisher, subscriber, server].into_iter().flatten().min();
            }
            for (id, out) in back {
                self.publisher.deliver(self.now, id, &out);
                self.subscriber.deliver(self.now, id, &out);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(wake) = self.settle().filter(|wake| *wake <= end) {
            assert!(wake > self.now, "a machine wants to wake in the past");
            self.tick(wake);
        }
        self.tick(end);
        self.settle();
    }

    fn tick(&mut self, now: Time) {
        self.now = now;
        self.far.server.handle_input(now, Input::Tick);
        self.publisher.machine.handle_input(now, Input::Tick);
        self.subscriber.machine.handle_input(now, Input::Tick);
    }

    fn publish(&mut self, parts: &[&'static str]) -> Seq {
        let seq = self.publisher.machine.begin(self.now).unwrap();
        for part in parts {
            let bytes = Bytes::from_static(part.as_bytes());
            self.publisher.machine.write(self.now, bytes).unwrap();
            self.settle();
        }
        self.publisher.machine.end(self.now).unwrap();
        self.settle();
        seq
    }

    /// The events of the subscriber, one word each.
    fn told(&mut self) -> Vec<String> {
        let events = self.subscriber.events.drain(..);
        events.map(crate::subscriber::told).collect()
    }

    fn delivered(&self) -> Vec<u64> {
        self.publisher
            .events
            .iter()
            .filter_map(|event| match event {
                publisher::Event::Delivered(seq) => Some(seq.get()),
                _ => None,
            })
            .collect()
    }
}

impl Far {
    fn input(&mut self, now: Time, id: EffectId, step: In) {
        self.server.handle_input(now, Input::Http(id, step));
    }

    /// The server's output, of which every byte leaves at once, and when it wants to be woken.
    fn drain(&mut self, now: Time) -> (Vec<(EffectId, Out)>, Option<Time>) {
        let mut said = Vec::new();
        let wake = loop {
            match self.server.poll_output() {
                Output::Effect(id, Effect::Http(out)) => said.push((id, out)),
                Output::Effect(..) => unreachable!("a server asks for http only"),
                Output::Event(_) => {}
                Output::Idle(wake) => break wake,
            }
        };
        for (id, out) in &said {
            if let Out::Data(bytes) = out {
                self.input(now, *id, In::Sent(bytes.len()));
            }
        }
        (said, wake)
    }
}

impl<M: Machine> Client<M> {
    const fn new(machine: M) -> Self {
        Self {
            machine,
            to_server: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// Carries what the client says; whether it said anything, and when it wants to be woken.
    fn drain(&mut self, now: Time, far: &mut Far) -> (bool, Option<Time>) {
        let mut moved = false;
        loop {
            match self.machine.poll_output() {
                Output::Idle(wake) => return (moved, wake),
                Output::Event(event) => self.events.push(event),
                Output::Effect(id, Effect::Http(out)) => {
                    moved = true;
                    self.carry(now, id, out, far);
                }
                Output::Effect(..) => unreachable!("only http is asked for"),
            }
        }
    }

    fn carry(&mut self, now: Time, id: EffectId, out: Out, far: &mut Far) {
        if let Out::Request(request) = out {
            let line = format!("{} {}", request.method.as_str(), request.url.path());
            far.log.push(line);
            if far.down {
                let fault = Fault::Connect("refused".into());
                let refused = Input::Http(id, In::Failed(fault));
                return self.machine.handle_input(now, refused);
            }
            let theirs = EffectId::by_peer(far.minted);
            far.minted += 1;
            self.to_server.insert(id, theirs);
            let all = request.body == Body::Empty;
            far.input(now, theirs, In::Request(request));
            if all {
                far.input(now, theirs, In::End(Headers::new()));
            }
            return;
        }
        let Some(theirs) = self.to_server.get(&id).copied() else {
            return;
        };
        match out {
            Out::Data(bytes) => {
                let sent = In::Sent(bytes.len());
                far.input(now, theirs, In::Data(bytes));
                self.machine.handle_input(now, Input::Http(id, sent));
            }
            Out::End(_) => far.input(now, theirs, In::End(Headers::new())),
            Out::Abort => {
                self.to_server.remove(&id);
                far.input(now, theirs, In::Failed(Fault::Broken("reset".into())));
            }
            _ => {}
        }
    }

    fn deliver(&mut self, now: Time, id: EffectId, out: &Out) {
        let Some(ours) = self
            .to_server
            .iter()
            .find(|(_, theirs)| **theirs == id)
            .map(|(ours, _)| *ours)
        else {
            return;
        };
        let machine = &mut self.machine;
        let mut input = |step| machine.handle_input(now, Input::Http(ours, step));
        match out {
            Out::Reply(reply) => {
                let body = reply.body.clone();
                input(In::Reply(reply.clone()));
                match body {
                    Body::Empty => input(In::End(Headers::new())),
                    Body::Full(bytes) => {
                        input(In::Data(bytes));
                        input(In::End(Headers::new()));
                    }
                    Body::Pieces(pieces) => {
                        pieces.into_iter().for_each(|piece| input(In::Data(piece)));
                        input(In::End(Headers::new()));
                    }
                    Body::Stream => {}
                }
            }
            Out::Data(bytes) => input(In::Data(bytes.clone())),
            Out::End(_) => input(In::End(Headers::new())),
            Out::Abort => input(In::Failed(Fault::Broken("reset".into()))),
            _ => {}
        }
    }
}

fn world() -> World {
    World::new(
        publisher::Config::default(),
        subscriber::Config::default(),
        Start::Next,
    )
}

#[test]
fn what_is_published_is_read_while_it_is_written() {
    let mut world = world();
    world.settle();
    assert!(matches!(
        world.publisher.events[..],
        [publisher::Event::Ready(seq)] if seq == Seq::ZERO
    ));
    assert_eq!(world.publisher.machine.begin(world.now), Ok(Seq::ZERO));
    world.settle();
    for part in ["ab", "cd"] {
        world
            .publisher
            .machine
            .write(world.now, Bytes::from_static(part.as_bytes()))
            .unwrap();
        world.settle();
    }
    assert_eq!(world.told(), ["begin 0", "ab", "cd"]);
    world.publisher.machine.end(world.now).unwrap();
    world.settle();
    assert_eq!(world.told(), ["end 0"]);
    assert_eq!(world.delivered(), [0]);
    for n in 1..20 {
        assert_eq!(world.publish(&["x"]), Seq::new(n));
        assert_eq!(
            world.told(),
            [format!("begin {n}"), "x".into(), format!("end {n}")]
        );
    }
    assert_eq!(world.delivered().len(), 20);
    // Every segment's POST and GET left before the one before it was over, and none left twice.
    let mut sorted = world.far.log.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), world.far.log.len(), "{:?}", world.far.log);
}

#[test]
fn closing_the_publisher_ends_the_stream_for_its_readers() {
    let mut world = world();
    world.settle();
    world.publish(&["x"]);
    world.publisher.machine.close(world.now);
    world.settle();
    assert_eq!(world.told(), ["begin 0", "x", "end 0"]);
    world.pass(publisher::LINGER);
    assert_eq!(world.told(), ["closed EndOfStream"]);
    assert!(matches!(
        world.publisher.events.last(),
        Some(publisher::Event::Closed(Ending::Closed))
    ));
    assert_eq!(
        world.publisher.machine.begin(world.now),
        Err(Unbegun::Misuse(Misuse::Ended))
    );
    let requests = world.far.log.len();
    world.pass(Duration::from_secs(3600));
    assert_eq!(
        world.far.log.len(),
        requests,
        "nothing is asked after the end"
    );
}

#[test]
fn a_new_publisher_continues_where_the_old_one_left() {
    let mut world = world();
    world.settle();
    world.publish(&["a"]);
    world.publish(&["b"]);
    let config = publisher::Config::default();
    world.publisher.machine = Publisher::new(world.now, config, url());
    world.publisher.to_server.clear();
    world.settle();
    assert_eq!(world.publish(&["c"]), Seq::new(2));
    let told = world.told();
    assert_eq!(told[told.len() - 3..], ["begin 2", "c", "end 2"]);
}

#[test]
fn a_reader_may_begin_inside_the_segment_that_is_written() {
    let config = subscriber::Config::default();
    let mut world = World::new(publisher::Config::default(), config, Start::Current);
    world.far.down = true;
    world.settle();
    world.far.down = false;
    // The subscriber's first request failed, so by its second a segment is under way.
    world.pass(Duration::from_millis(200));
    world.pass(Duration::from_millis(200));
    let _ = world.told();
    world.publish(&["old"]);
    world.publisher.machine.begin(world.now).unwrap();
    let part = Bytes::from_static(b"new");
    world.publisher.machine.write(world.now, part).unwrap();
    world.settle();
    assert_eq!(world.told(), ["begin 0", "old", "end 0", "begin 1", "new"]);
    world
        .subscriber
        .machine
        .jump(world.now, Start::Current)
        .unwrap();
    world.settle();
    assert_eq!(
        world.told(),
        ["truncated 1 3", "discontinuity", "begin 1", "new"]
    );
}

#[test]
fn a_silent_channel_is_asked_again_and_again_but_never_given_up() {
    let mut world = world();
    world.pass(Duration::from_secs(250));
    assert!(world.told().is_empty());
    // The owner of the server keeps the channel; the idle sweep would not.
    let gets = world
        .far
        .log
        .iter()
        .filter(|line| line.starts_with("GET /ai/trickle/c/-1"))
        .count();
    assert_eq!(gets, 1 + 250 / 20);
    world.pass(Duration::from_secs(200));
    assert_eq!(world.told(), ["closed EndOfStream"], "swept");
}

#[test]
fn a_missing_channel_is_waited_for_and_then_a_failure() {
    let mut world = world();
    world.far.server.delete_channel(world.now, "c");
    world.pass(Duration::from_secs(9));
    assert!(world.told().is_empty());
    world
        .far
        .server
        .create_channel(world.now, "c", ContentType::default())
        .unwrap();
    world.pass(Duration::from_secs(60));
    assert!(world.told().is_empty());
    world.far.server.delete_channel(world.now, "c");
    world.settle();
    assert_eq!(world.told(), ["closed EndOfStream"]);
    // The publisher did not own it.
    assert!(matches!(
        world.publisher.events[..],
        [publisher::Event::Closed(Ending::Failed(_))]
    ));
}

#[test]
fn a_publisher_blocks_when_too_much_is_unanswered_or_unsent() {
    let config = publisher::Config {
        max_unsent_bytes: 4,
        ..publisher::Config::default()
    };
    let mut publisher = Publisher::new(Time::ZERO, config, url());
    assert_eq!(publisher.begin(Time::ZERO), Err(Unbegun::Busy));
    let Output::Effect(id, _) = publisher.poll_output() else {
        panic!("it asks for the head");
    };
    let reply = livepeer_core::http::Response::new(200).header("lp-trickle-latest", "7");
    publisher.handle_input(Time::ZERO, Input::Http(id, In::Reply(reply)));
    for n in 7..10 {
        assert_eq!(publisher.begin(Time::ZERO), Ok(Seq::new(n)));
        if n == 7 {
            publisher
                .write(Time::ZERO, Bytes::from_static(b"123"))
                .unwrap();
            let more = Bytes::from_static(b"45");
            assert_eq!(
                publisher.write(Time::ZERO, more.clone()),
                Err(Unwritten::Full(more))
            );
        }
        assert_eq!(
            publisher.begin(Time::ZERO),
            Err(Unbegun::Misuse(Misuse::StillOpen))
        );
        publisher.end(Time::ZERO).unwrap();
    }
    assert_eq!(publisher.begin(Time::ZERO), Err(Unbegun::Busy));
    assert_eq!(publisher.end(Time::ZERO), Err(Misuse::NotOpen));
}
