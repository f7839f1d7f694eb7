//! A trickle network in one thread without a socket: a publisher, a server and a subscriber, joined by hand, under a
//! clock that jumps. `cargo run -p livepeer-core --example memory`.
//!
//! The program shows the other half of the contract: a server answers exchanges that peers opened, so its driver mints
//! their ids with [`EffectId::by_peer`]. `livepeer-sim` has the same with latency, loss and seeds.

use std::collections::BTreeMap;
use std::error::Error;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Out, Url};
use livepeer_core::machine::earlier;
use livepeer_core::trickle::{
    ContentType, Publisher, Seq, Server, Start, Subscriber, publisher, server, subscriber,
};
use livepeer_core::{Effect, EffectId, Input, Machine, Output, Time};

/// The numbers of the two clients.
const PUBLISHER: usize = 0;
const SUBSCRIBER: usize = 1;

/// The names that both ends have for each exchange.
#[derive(Default)]
struct Wire {
    to_server: BTreeMap<(usize, EffectId), EffectId>,
    to_client: BTreeMap<EffectId, (usize, EffectId)>,
}

impl Wire {
    /// The server's name for the exchange that `client` calls `id`, minted when it is first seen.
    fn server_id(&mut self, client: usize, id: EffectId) -> EffectId {
        let minted = self.to_client.len() as u64;
        let named = *self
            .to_server
            .entry((client, id))
            .or_insert_with(|| EffectId::by_peer(minted));
        self.to_client.insert(named, (client, id));
        named
    }
}

/// The steps by which one side sees what the other asked for.
fn seen(out: Out) -> Vec<In> {
    let whole = |body: Body| match body {
        Body::Empty => vec![In::End(Headers::new())],
        Body::Full(bytes) => vec![In::Data(bytes), In::End(Headers::new())],
        Body::Pieces(pieces) => {
            let end = In::End(Headers::new());
            pieces.into_iter().map(In::Data).chain([end]).collect()
        }
        Body::Stream => Vec::new(),
    };
    match out {
        Out::Request(mut request) => {
            let body = whole(std::mem::replace(&mut request.body, Body::Stream));
            [vec![In::Request(request)], body].concat()
        }
        Out::Reply(mut reply) => {
            let body = whole(std::mem::replace(&mut reply.body, Body::Stream));
            [vec![In::Reply(reply)], body].concat()
        }
        Out::Data(bytes) => vec![In::Data(bytes)],
        Out::End(trailers) => vec![In::End(trailers)],
        Out::Abort => vec![In::Failed(Fault::Broken("the other side gave up".into()))],
        // Nothing is read ahead here, and what is sent is reported at once.
        Out::Report | Out::Pause | Out::Resume => Vec::new(),
    }
}

/// Outputs of a machine: its effects on exchanges, its events, and when it wants to wake.
type Drained<E> = (Vec<(EffectId, Out)>, Vec<E>, Option<Time>);

fn drain<M: Machine>(machine: &mut M) -> Drained<M::Event> {
    let (mut steps, mut events) = (Vec::new(), Vec::new());
    loop {
        match machine.poll_output() {
            Output::Effect(id, Effect::Http(out)) => steps.push((id, out)),
            Output::Effect(..) => unreachable!("trickle neither signs nor stores"),
            Output::Event(event) => events.push(event),
            Output::Idle(wake) => return (steps, events, wake),
        }
    }
}

/// Tells whoever sent body bytes that they are on their way.
fn report<M: Machine>(machine: &mut M, now: Time, id: EffectId, out: &Out) {
    if let Out::Data(bytes) = out {
        machine.handle_input(now, Input::Http(id, In::Sent(bytes.len())));
    }
}

/// Publishes a segment for each payload, and returns what a subscriber gets of them.
fn relay(payloads: &[Bytes]) -> Result<Vec<(Seq, Bytes)>, Box<dyn Error>> {
    let mut now = Time::from_secs(1);
    let channel = Url::parse("http://relay.example/ai/trickle/clip")?;
    let mut server = Server::new(now, server::Config::default());
    server.create_channel(now, "clip", ContentType::new(ContentType::MPEG_TS))?;
    let mut publisher = Publisher::new(now, publisher::Config::default(), channel.clone());
    let start = Start::At(Seq::ZERO);
    let mut subscriber = Subscriber::new(now, subscriber::Config::default(), channel, start);

    let mut wire = Wire::default();
    let mut waiting = payloads.iter();
    let mut came = Vec::new();
    loop {
        // A segment may begin whenever the publisher lets it: not more than three are under way at a time.
        if !waiting.as_slice().is_empty() && publisher.begin(now).is_ok() {
            if let Some(payload) = waiting.next() {
                publisher.write(now, payload.clone())?;
            }
            publisher.end(now)?;
            if waiting.as_slice().is_empty() {
                publisher.close(now);
            }
        }

        let (published, _, publisher_wakes) = drain(&mut publisher);
        let (asked, events, subscriber_wakes) = drain(&mut subscriber);
        let (answered, _, server_wakes) = drain(&mut server);
        let quiet = published.is_empty() && asked.is_empty() && answered.is_empty();

        for event in events {
            match event {
                subscriber::Event::Data(seq, bytes) => came.push((seq, bytes)),
                subscriber::Event::Closed(_) => return Ok(came),
                _ => {}
            }
        }
        let published = published.into_iter().map(|(id, out)| (PUBLISHER, id, out));
        let asked = asked.into_iter().map(|(id, out)| (SUBSCRIBER, id, out));
        for (client, id, out) in published.chain(asked) {
            if client == PUBLISHER {
                report(&mut publisher, now, id, &out);
            }
            let named = wire.server_id(client, id);
            for step in seen(out) {
                server.handle_input(now, Input::Http(named, step));
            }
        }
        for (id, out) in answered {
            report(&mut server, now, id, &out);
            let (client, named) = wire.to_client[&id];
            for step in seen(out) {
                match client {
                    PUBLISHER => publisher.handle_input(now, Input::Http(named, step)),
                    _ => subscriber.handle_input(now, Input::Http(named, step)),
                }
            }
        }

        if quiet {
            // No machine has anything to do: time jumps to the first that wants to wake.
            let first = earlier(publisher_wakes, earlier(subscriber_wakes, server_wakes));
            now = first.ok_or("everything waits for ever")?;
            publisher.handle_input(now, Input::Tick);
            subscriber.handle_input(now, Input::Tick);
            server.handle_input(now, Input::Tick);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let payloads = ["one", "two", "three"].map(Bytes::from);
    for (seq, bytes) in relay(&payloads)? {
        println!("segment {seq} brought {bytes:?}");
    }
    Ok(())
}

#[test]
fn every_segment_comes_back_in_order() -> Result<(), Box<dyn Error>> {
    let payloads = ["one", "two", "three", "four"].map(Bytes::from);
    let came = relay(&payloads)?;
    assert_eq!(came.len(), payloads.len());
    for ((seq, bytes), (number, payload)) in came.into_iter().zip((0..).zip(payloads)) {
        assert_eq!((seq, bytes), (Seq::new(number), payload));
    }
    Ok(())
}
