//! Publisher, server and subscriber over a perfect wire: the normal paths, told as stories.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Out, Url};
use livepeer_core::trickle::publisher::{self, Publisher, Unbegun, Unwritten};
use livepeer_core::trickle::server::{self, Server};
use livepeer_core::trickle::subscriber::{self, Subscriber};
use livepeer_core::trickle::{ContentType, Ending, Seq, Start};
use livepeer_core::{Effect, EffectId, Input, Machine, Misuse, Output, Time};

use crate::clock;

/// One client machine, its exchanges mapped to the server's.
struct Client<M: Machine> {
    machine: M,
    to_server: BTreeMap<EffectId, EffectId>,
    events: Vec<M::Event>,
}

struct World {
    now: Time,
    server: Server,
    minted: u64,
    publisher: Client<Publisher>,
    subscriber: Client<Subscriber>,
    /// Requests that left, as `METHOD path`.
    log: Vec<String>,
    /// While set, requests are refused.
    down: bool,
}

fn url() -> Url {
    Url::parse("http://server/ai/trickle/c").unwrap()
}

fn server(now: Time) -> Server {
    let mut server = Server::new(now, server::Config::default());
    server
        .create_channel(now, "c", "video/MP2T".into())
        .unwrap();
    server
}

impl World {
    fn new(publisher: publisher::Config, subscriber: subscriber::Config, start: Start) -> Self {
        let now = Time::from_secs(1_000);
        Self {
            now,
            server: server(now),
            minted: 0,
            publisher: Client {
                machine: Publisher::new(now, publisher, url()),
                to_server: BTreeMap::new(),
                events: Vec::new(),
            },
            subscriber: Client {
                machine: Subscriber::new(now, subscriber, url(), start),
                to_server: BTreeMap::new(),
                events: Vec::new(),
            },
            log: Vec::new(),
            down: false,
        }
    }

    /// Carries everything that is under way; the time to wake at.
    fn settle(&mut self) -> Option<Time> {
        loop {
            let mut moved = false;
            let mut wake = None;
            moved |= self.publisher.drain(
                self.now,
                &mut self.server,
                &mut self.minted,
                &mut self.log,
                self.down,
                &mut wake,
            );
            moved |= self.subscriber.drain(
                self.now,
                &mut self.server,
                &mut self.minted,
                &mut self.log,
                self.down,
                &mut wake,
            );
            let mut back = VecDeque::new();
            loop {
                match self.server.poll_output() {
                    Output::Effect(id, Effect::Http(out)) => back.push_back((id, out)),
                    Output::Effect(..) => unreachable!("a server asks for http only"),
                    Output::Event(_) => {}
                    Output::Idle(at) => {
                        wake = [wake, at].into_iter().flatten().min();
                        break;
                    }
                }
            }
            moved |= !back.is_empty();
            for (id, out) in back {
                if let Out::Data(bytes) = &out {
                    let sent = In::Sent(bytes.len());
                    self.server.handle_input(self.now, Input::Http(id, sent));
                }
                self.publisher.deliver(self.now, id, &out);
                self.subscriber.deliver(self.now, id, &out);
            }
            if !moved {
                return wake;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        clock::pass(self, self.now, self.now + time, Self::settle, Self::tick);
    }

    fn tick(&mut self, now: Time) {
        self.now = now;
        self.server.handle_input(now, Input::Tick);
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

    /// What the subscriber told, one word an event.
    fn told(&mut self) -> Vec<String> {
        self.subscriber
            .events
            .drain(..)
            .map(|event| match event {
                subscriber::Event::Begin(seq, _) => format!("begin {seq}"),
                subscriber::Event::Data(_, bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                subscriber::Event::End(seq) => format!("end {seq}"),
                subscriber::Event::Truncated(seq, told) => format!("truncated {seq} {told}"),
                subscriber::Event::Gap(range) => format!("gap {}..{}", range.start, range.end),
                subscriber::Event::Discontinuity => "discontinuity".into(),
                subscriber::Event::Closed(ending) => format!("{ending:?}"),
                other => panic!("{other:?}"),
            })
            .collect()
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

impl<M: Machine> Client<M> {
    fn drain(
        &mut self,
        now: Time,
        server: &mut Server,
        minted: &mut u64,
        log: &mut Vec<String>,
        down: bool,
        wake: &mut Option<Time>,
    ) -> bool {
        let mut moved = false;
        loop {
            match self.machine.poll_output() {
                Output::Idle(at) => {
                    *wake = [*wake, at].into_iter().flatten().min();
                    return moved;
                }
                Output::Event(event) => self.events.push(event),
                Output::Effect(id, Effect::Http(out)) => {
                    moved = true;
                    match out {
                        Out::Request(request) => {
                            log.push(format!(
                                "{} {}",
                                request.method.as_str(),
                                request.url.path()
                            ));
                            if down {
                                let fault = Fault::Connect("refused".into());
                                let input = Input::Http(id, In::Failed(fault));
                                self.machine.handle_input(now, input);
                                continue;
                            }
                            let theirs = EffectId::by_peer(*minted);
                            *minted += 1;
                            self.to_server.insert(id, theirs);
                            let body = request.body.clone();
                            server.handle_input(now, Input::Http(theirs, In::Request(request)));
                            if body == Body::Empty {
                                let end = In::End(Headers::new());
                                server.handle_input(now, Input::Http(theirs, end));
                            }
                        }
                        Out::Data(bytes) => {
                            if let Some(theirs) = self.to_server.get(&id) {
                                let len = bytes.len();
                                server.handle_input(now, Input::Http(*theirs, In::Data(bytes)));
                                let sent = Input::Http(id, In::Sent(len));
                                self.machine.handle_input(now, sent);
                            }
                        }
                        Out::End | Out::EndWith(_) => {
                            if let Some(theirs) = self.to_server.get(&id) {
                                let end = In::End(Headers::new());
                                server.handle_input(now, Input::Http(*theirs, end));
                            }
                        }
                        Out::Abort => {
                            if let Some(theirs) = self.to_server.remove(&id) {
                                let fault = In::Failed(Fault::Broken("reset".into()));
                                server.handle_input(now, Input::Http(theirs, fault));
                            }
                        }
                        Out::Pause | Out::Resume | Out::Report | Out::Reply(_) => {}
                    }
                }
                Output::Effect(..) => unreachable!("only http is asked for"),
            }
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
                    Body::Stream => {}
                }
            }
            Out::Data(bytes) => input(In::Data(bytes.clone())),
            Out::End => input(In::End(Headers::new())),
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
    let mut sorted = world.log.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), world.log.len(), "{:?}", world.log);
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
    assert_eq!(world.told(), ["EndOfStream"]);
    assert!(matches!(
        world.publisher.events.last(),
        Some(publisher::Event::Closed(Ending::Closed))
    ));
    assert_eq!(
        world.publisher.machine.begin(world.now),
        Err(Unbegun::Misuse(Misuse::Ended))
    );
    let requests = world.log.len();
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.log.len(), requests, "nothing is asked after the end");
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
    world.down = true;
    world.settle();
    world.down = false;
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
        .log
        .iter()
        .filter(|line| line.starts_with("GET /ai/trickle/c/-1"))
        .count();
    assert_eq!(gets, 1 + 250 / 20);
    world.pass(Duration::from_secs(200));
    assert_eq!(world.told(), ["EndOfStream"], "swept");
}

#[test]
fn a_missing_channel_is_waited_for_and_then_a_failure() {
    let mut world = world();
    world.server.delete_channel(world.now, "c");
    world.pass(Duration::from_secs(9));
    assert!(world.told().is_empty());
    world
        .server
        .create_channel(world.now, "c", ContentType::default())
        .unwrap();
    world.pass(Duration::from_secs(60));
    assert!(world.told().is_empty());
    world.server.delete_channel(world.now, "c");
    world.settle();
    assert_eq!(world.told(), ["EndOfStream"]);
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
