//! The trickle machines without sockets: what sequencing and fan-out cost per event.

#![allow(missing_docs, reason = "criterion makes functions without any")]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use livepeer_core::http::{Body, Headers, In, Method, Out, Request, Response, Url};
use livepeer_core::trickle::publisher::{Config as PublisherConfig, Publisher};
use livepeer_core::trickle::server::{Config, Server};
use livepeer_core::trickle::subscriber::{Config as SubscriberConfig, Subscriber};
use livepeer_core::trickle::{Seq, Start};
use livepeer_core::{Effect, EffectId, Input, Machine, Output, Time};

const CHUNKS: u64 = 64;

struct Relay {
    server: Server,
    now: Time,
    minted: u64,
    sent: Vec<(EffectId, usize)>,
    url: Url,
}

impl Relay {
    fn new(channels: usize) -> Self {
        let now = Time::from_secs(1_000);
        let mut server = Server::new(now, Config::default());
        for n in 0..channels {
            server
                .create_channel(now, &format!("c{n}"), "video/MP2T".into())
                .expect("a new server takes channels");
        }
        let url = Url::parse("http://s/ai/trickle").expect("a URL");
        Self {
            server,
            now,
            minted: 0,
            sent: Vec::new(),
            url,
        }
    }

    fn open(&mut self, method: Method, path: &str) -> EffectId {
        let id = EffectId::by_peer(self.minted);
        self.minted += 1;
        let request = Request::new(method, self.url.child(path)).body(Body::Stream);
        self.input(id, In::Request(request));
        id
    }

    fn input(&mut self, id: EffectId, step: In) {
        self.server.handle_input(self.now, Input::Http(id, step));
        self.drain();
        // The transport takes everything at once.
        for (id, count) in core::mem::take(&mut self.sent) {
            self.server
                .handle_input(self.now, Input::Http(id, In::Sent(count)));
        }
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.server.poll_output() {
                Output::Effect(id, Effect::Http(Out::Data(bytes))) => {
                    self.sent.push((id, bytes.len()));
                }
                Output::Idle(_) => return,
                output => {
                    black_box(output);
                }
            }
        }
    }

    /// Sends a segment of a channel to so many readers while it is written.
    fn segment(&mut self, channel: usize, seq: u64, readers: usize, chunk: &Bytes) {
        let path = format!("c{channel}/{seq}");
        let post = self.open(Method::Post, &path);
        for _ in 0..readers {
            self.open(Method::Get, &path);
        }
        for _ in 0..CHUNKS {
            self.input(post, In::Data(chunk.clone()));
        }
        self.input(post, In::End(Headers::new()));
    }
}

fn server(c: &mut Criterion) {
    let mut group = c.benchmark_group("trickle server, chunks handed to readers");
    let chunk = Bytes::from(vec![7; 8 << 10]);
    for readers in [1, 8, 64] {
        group.throughput(Throughput::Elements(CHUNKS * readers as u64));
        group.bench_function(BenchmarkId::new("readers of one channel", readers), |b| {
            let mut relay = Relay::new(1);
            let mut seq = 0;
            b.iter(|| {
                relay.segment(0, seq, readers, &chunk);
                seq += 1;
            });
        });
    }
    for channels in [10, 1_000] {
        group.throughput(Throughput::Elements(CHUNKS * channels as u64));
        group.bench_function(BenchmarkId::new("channels of one reader", channels), |b| {
            let mut relay = Relay::new(channels);
            let mut seq = 0;
            b.iter(|| {
                for channel in 0..channels {
                    relay.segment(channel, seq, 1, &chunk);
                }
                seq += 1;
            });
        });
    }
    group.finish();
}

fn clients(c: &mut Criterion) {
    let mut group = c.benchmark_group("trickle clients, chunks");
    let chunk = Bytes::from(vec![7; 64 << 10]);
    let now = Time::from_secs(1_000);
    let url = Url::parse("http://s/c").expect("a URL");
    group.throughput(Throughput::Elements(CHUNKS));
    group.bench_function("publisher", |b| {
        let mut publisher = Publisher::new(now, PublisherConfig::default(), url.clone());
        let mut posts = std::collections::VecDeque::new();
        let out = |publisher: &mut Publisher, posts: &mut std::collections::VecDeque<_>| {
            loop {
                match publisher.poll_output() {
                    Output::Effect(id, Effect::Http(Out::Request(request))) => {
                        posts.push_back((id, request.url.path().to_string()));
                    }
                    Output::Idle(_) => return,
                    output => {
                        black_box(output);
                    }
                }
            }
        };
        out(&mut publisher, &mut posts);
        let (probe, _) = posts.pop_front().expect("it asks for the head");
        let head = Response::new(200).header("lp-trickle-latest", "0");
        publisher.handle_input(now, Input::Http(probe, In::Reply(head)));
        b.iter(|| {
            publisher.begin(now).expect("nothing is in flight");
            out(&mut publisher, &mut posts);
            let (post, path) = posts.pop_front().expect("a POST is out");
            for _ in 0..CHUNKS {
                publisher.write(now, chunk.clone()).expect("there is room");
                out(&mut publisher, &mut posts);
                let sent = Input::Http(post, In::Sent(chunk.len()));
                publisher.handle_input(now, sent);
            }
            publisher.end(now).expect("it was begun");
            let seq = path.rsplit('/').next().unwrap_or("").to_string();
            let reply = Response::new(200).header("lp-trickle-seq", seq);
            publisher.handle_input(now, Input::Http(post, In::Reply(reply)));
            out(&mut publisher, &mut posts);
        });
    });
    group.bench_function("subscriber", |b| {
        let start = Start::At(Seq::ZERO);
        let config = SubscriberConfig::default();
        let mut subscriber = Subscriber::new(now, config, url.clone(), start);
        let mut asked = std::collections::VecDeque::new();
        let mut at = now;
        let out = |subscriber: &mut Subscriber, asked: &mut std::collections::VecDeque<_>| {
            loop {
                match subscriber.poll_output() {
                    Output::Effect(id, Effect::Http(Out::Request(request))) => {
                        asked.push_back((id, request.url.path().to_string()));
                    }
                    Output::Idle(_) => return,
                    output => {
                        black_box(output);
                    }
                }
            }
        };
        b.iter(|| {
            at = at + Duration::from_secs(1);
            out(&mut subscriber, &mut asked);
            let (get, path) = asked.pop_front().expect("it asks for a segment");
            let seq = path.rsplit('/').next().unwrap_or("").to_string();
            let reply = Response::new(200).header("lp-trickle-seq", seq);
            subscriber.handle_input(at, Input::Http(get, In::Reply(reply)));
            for _ in 0..CHUNKS {
                subscriber.handle_input(at, Input::Http(get, In::Data(chunk.clone())));
                out(&mut subscriber, &mut asked);
            }
            subscriber.handle_input(at, Input::Http(get, In::End(Headers::new())));
            out(&mut subscriber, &mut asked);
        });
    });
    group.finish();
}

criterion_group!(benches, server, clients);
criterion_main!(benches);
