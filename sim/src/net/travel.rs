//! Steps on their way between machines, and what befalls them.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Out, Request, Response, SWITCHING, Trust};
use livepeer_core::{EffectId, Input, Time};

use super::link::{Exchange, Fate, Way};
use super::{Arrival, Link, Net};

/// At most this many bytes a buffered transport takes from its owner while its peer takes nothing.
const SOCKET_BUFFER: u64 = 64 << 10;

impl Net {
    pub(super) fn arrive(&mut self, what: Arrival) {
        match what {
            Arrival::Input(node, input) => self.input(node, input),
            Arrival::Service(node, life, id, effect) => self.serve_own(node, life, id, effect),
            Arrival::Step(key, there, step) => {
                let now = self.now;
                let Some(way) = self.way(key, there) else {
                    return;
                };
                let failed = matches!(step, In::Failed(_));
                if !failed && way.until.is_some_and(|until| now > until) {
                    return;
                }
                let body = matches!(step, In::Data(_) | In::End(_));
                if body && way.paused || !way.held.is_empty() {
                    way.held.push_back(step);
                } else {
                    self.deliver(key, there, step);
                }
            }
            Arrival::Cut(key) => self.break_off(key, self.now),
            Arrival::Held(key, there) => {
                while let Some(way) = self.way(key, there) {
                    if way.paused {
                        return;
                    }
                    let Some(step) = way.held.pop_front() else {
                        return;
                    };
                    self.deliver(key, there, step);
                }
            }
        }
    }

    fn deliver(&mut self, key: u64, there: bool, step: In) {
        let buffered = self.link_of(key).buffered;
        let Some(exchange) = self.exchanges.get_mut(&key) else {
            return;
        };
        let (to, from) = (*exchange.end(there), *exchange.end(!there));
        let taken = match &step {
            In::Data(bytes) if !buffered => bytes.len(),
            _ => 0,
        };
        let last = matches!(step, In::End(_)) && !there;
        let failed = matches!(step, In::Failed(_));
        if let Some((node, id)) = to {
            if failed {
                self.leave(key, there, (node, id));
            }
            self.input(node, Input::Http(id, step));
        }
        if let Some((node, id)) = from.filter(|_| taken > 0) {
            // A transport without a buffer: bytes are sent when they are there.
            self.input(node, Input::Http(id, In::Sent(taken)));
        }
        if last {
            // The answer is complete; what is left of the request is of no interest.
            self.close(key);
        }
    }

    fn close(&mut self, key: u64) {
        if let Some(exchange) = self.exchanges.remove(&key) {
            for end in [exchange.client, exchange.server].into_iter().flatten() {
                self.ends.remove(&end);
            }
        }
    }

    /// Nothing more goes to and from an end of an exchange.
    pub(super) fn leave(&mut self, key: u64, server: bool, end: (usize, EffectId)) {
        self.ends.remove(&end);
        if let Some(exchange) = self.exchanges.get_mut(&key) {
            *exchange.end(server) = None;
            if exchange.end(!server).is_none() {
                self.exchanges.remove(&key);
            }
        }
    }

    /// Both sides learn at once that it broke.
    pub(super) fn sever(&mut self, key: u64, fault: &Fault) {
        let Some(exchange) = self.exchanges.get(&key) else {
            return;
        };
        let ends = [exchange.client, exchange.server];
        self.close(key);
        for (node, id) in ends.into_iter().flatten() {
            let input = Input::Http(id, In::Failed(fault.clone()));
            self.later(Duration::ZERO, Arrival::Input(node, input));
        }
    }

    /// The connection breaks at that time. Each side notices by itself, and last bytes may still arrive.
    fn break_off(&mut self, key: u64, when: Time) {
        for there in [true, false] {
            let late = when + self.dice.millis(0, 20);
            let told = when + self.dice.millis(0, 60);
            self.fail(key, there, late, told);
        }
    }

    /// Nothing arrives that way after `until`, and the receiver hears that the connection broke.
    pub(super) fn fail(&mut self, key: u64, there: bool, until: Time, told: Time) {
        if let Some(way) = self.way(key, there)
            && way.until.is_none()
        {
            way.until = Some(until);
            way.over = true;
            let told = told.max(way.last.min(until));
            let fault = In::Failed(Fault::Broken("reset".into()));
            self.under_way.enter(told, Arrival::Step(key, there, fault));
        }
    }

    fn link_of(&self, key: u64) -> Link {
        let exchange = self.exchanges.get(&key);
        let link = exchange.and_then(|exchange| self.links.get(&exchange.authority));
        link.copied().unwrap_or_default()
    }

    pub(super) fn latency(&self, key: u64) -> Duration {
        self.link_of(key).latency
    }

    pub(super) fn http(&mut self, node: usize, id: EffectId, step: Out) {
        if let Out::Request(request) = step {
            return self.open(node, id, request);
        }
        let Some(key) = self.ends.get(&(node, id)).copied() else {
            return;
        };
        let Some(exchange) = self.exchanges.get_mut(&key) else {
            return;
        };
        let there = exchange.client == Some((node, id));
        match step {
            Out::Request(_) => {}
            Out::Report => self.report(key, there),
            Out::Reply(mut head) => {
                let early = !exchange.there.over && self.faults.lose_early_answers > 0;
                if early && self.dice.percent(self.faults.lose_early_answers) {
                    // The peer was still sending, so a reset overtakes the answer.
                    let (now, at) = (self.now, self.now + self.latency(key));
                    self.fail(key, true, now, at);
                    return self.fail(key, false, now, at);
                }
                if let Fate::Deaf(Some(status)) = exchange.fate
                    && !there
                {
                    exchange.fate = Fate::Fine;
                    head = Response::new(status).body(Body::Full("gave up".into()));
                }
                if head.status == SWITCHING && exchange.there.until.is_none() {
                    // The request is over, and what follows it may come.
                    exchange.there.over = false;
                }
                let body = std::mem::replace(&mut head.body, Body::Stream);
                self.travel(key, there, In::Reply(head));
                self.body(key, there, body);
            }
            Out::Data(bytes) => self.data(key, there, bytes),
            Out::End(trailers) => self.travel(key, there, In::End(trailers)),
            Out::Abort => {
                let at = self.now + self.latency(key);
                self.fail(key, there, at, at);
                self.leave(key, !there, (node, id));
            }
            // Who pauses is who receives: the other way.
            Out::Pause => exchange.way(!there).paused = true,
            Out::Resume => {
                exchange.way(!there).paused = false;
                self.later(Duration::ZERO, Arrival::Held(key, !there));
            }
        }
    }

    fn way(&mut self, key: u64, there: bool) -> Option<&mut Way> {
        Some(self.exchanges.get_mut(&key)?.way(there))
    }

    fn open(&mut self, node: usize, id: EffectId, request: Request) {
        let authority = request.url.authority();
        let link = self.links.get(&authority).copied().unwrap_or_default();
        let server = self.names.get(&authority).filter(|_| !link.down).copied();
        let nobody = || Fault::Connect(format!("nobody listens at {authority}"));
        let reached = server.ok_or_else(nobody).and_then(|server| {
            let shown = link.certificate;
            let pin = self.pins.entry((node, authority.clone())).or_insert(shown);
            if request.trust == Trust::Afresh {
                *pin = shown;
            }
            let (remembered, seen) = ([*pin; 32], [shown; 32]);
            let changed = Fault::CertificateChanged { remembered, seen };
            (remembered == seen).then_some(server).ok_or(changed)
        });
        let server = match reached {
            Ok(server) => server,
            Err(fault) => {
                self.opened += 1;
                let input = Input::Http(id, In::Failed(fault));
                return self.later(link.latency, Arrival::Input(node, input));
            }
        };
        let faulty = self.faults.budget > 0;
        let fate = self.faults.draw(self.now, &mut self.dice);
        let once = self.faults.never_twice;
        let copy = faulty
            && once.is_none_or(|header| request.headers.get(header).is_none())
            && self.dice.percent(self.faults.twice);
        let copy = copy.then(|| request.clone());
        let key = self.connect(Some((node, id)), server, authority, fate, request, None);
        if let Fate::CutAt(when) = fate {
            self.under_way.enter(when, Arrival::Cut(key));
        }
        if let Some(copy) = copy {
            let authority = copy.url.authority();
            let first = self.exchanges.get(&key).map(|first| first.there.last);
            let key = self.connect(None, server, authority, Fate::Fine, copy, first);
            let gone = self.now + link.latency + self.dice.millis(1, 400);
            self.fail(key, true, gone, gone);
        }
    }

    fn connect(
        &mut self,
        client: Option<(usize, EffectId)>,
        server: usize,
        authority: String,
        fate: Fate,
        mut request: Request,
        no_earlier: Option<Time>,
    ) -> u64 {
        let key = self.opened;
        self.opened += 1;
        let server = (server, EffectId::by_peer(key));
        self.exchanges.insert(
            key,
            Exchange {
                client,
                server: Some(server),
                authority,
                fate,
                there: Way {
                    last: no_earlier.unwrap_or_default(),
                    ..Way::default()
                },
                back: Way::default(),
            },
        );
        for end in client.into_iter().chain([server]) {
            self.ends.insert(end, key);
        }
        let body = std::mem::replace(&mut request.body, Body::Stream);
        self.travel(key, true, In::Request(request));
        self.body(key, true, body);
        key
    }

    /// Body bytes leave, as far as the exchange's fate lets them.
    fn data(&mut self, key: u64, there: bool, mut bytes: Bytes) {
        let (now, buffered) = (self.now, self.link_of(key).buffered);
        let taken_at = now + Duration::from_micros(self.dice_of(buffered && there));
        let Some(exchange) = self.exchanges.get_mut(&key) else {
            return;
        };
        let (stuck, fate, client) = (exchange.stuck_until(now), exchange.fate, exchange.client);
        let way = exchange.way(there);
        if way.over {
            return;
        }
        let len = bytes.len() as u64;
        if buffered && there {
            let full = stuck.filter(|_| way.stuck + len > SOCKET_BUFFER);
            way.stuck += if stuck.is_some() { len } else { 0 };
            let taken_at = full.unwrap_or(taken_at);
            if let Some((node, id)) = client.filter(|_| taken_at < Time::MAX) {
                let sent = Input::Http(id, In::Sent(bytes.len()));
                self.under_way.enter(taken_at, Arrival::Input(node, sent));
            }
        } else if buffered {
            way.unreported += bytes.len();
        }
        let limit = match fate {
            Fate::CutThere(limit) if there => limit,
            Fate::CutBack(limit) if !there => limit,
            _ => u64::MAX,
        };
        let room = limit - way.bytes;
        way.bytes = limit.min(way.bytes + len);
        if room >= len {
            return self.travel(key, there, In::Data(bytes));
        }
        bytes.truncate(room as usize);
        if !bytes.is_empty() {
            self.travel(key, there, In::Data(bytes));
        }
        if let Some(exchange) = self.exchanges.get_mut(&key) {
            exchange.fate = Fate::Fine;
            let when = exchange.way(there).last.max(now);
            self.break_off(key, when);
        }
    }

    /// How many microseconds a transport takes to take bytes, if it does so before they arrive.
    fn dice_of(&mut self, buffered: bool) -> u64 {
        if buffered {
            self.dice.between(1, 500)
        } else {
            0
        }
    }

    /// A buffered transport reports what it took of an answer, once it is out.
    fn report(&mut self, key: u64, there: bool) {
        let Some(exchange) = self.exchanges.get_mut(&key) else {
            return;
        };
        let from = *exchange.end(!there);
        let way = exchange.way(there);
        let sent = std::mem::take(&mut way.unreported);
        if let Some((node, id)) = from.filter(|_| sent > 0) {
            let at = way.last.max(self.now);
            let sent = Input::Http(id, In::Sent(sent));
            self.under_way.enter(at, Arrival::Input(node, sent));
        }
    }

    fn all(&mut self, key: u64, there: bool, pieces: impl IntoIterator<Item = Bytes>) {
        for bytes in pieces.into_iter().filter(|bytes| !bytes.is_empty()) {
            self.data(key, there, bytes);
        }
    }

    fn body(&mut self, key: u64, there: bool, body: Body) {
        match body {
            Body::Stream => return,
            Body::Empty => {}
            Body::Full(bytes) => self.all(key, there, [bytes]),
            Body::Pieces(pieces) => self.all(key, there, pieces),
        }
        self.travel(key, there, In::End(Headers::new()));
    }

    /// A step goes on its way.
    fn travel(&mut self, key: u64, there: bool, step: In) {
        let link = self.link_of(key);
        if link.breaks_per_million > 0
            && self.dice.below(1_000_000) < u64::from(link.breaks_per_million)
        {
            let fault = Fault::Broken("the link broke".into());
            return self.sever(key, &fault);
        }
        let jitter = u64::try_from(link.jitter.as_nanos()).unwrap_or(u64::MAX);
        let jitter = Duration::from_nanos(self.dice.below(jitter.saturating_add(1)));
        let soonest = self.now + link.latency + jitter;
        let Some(exchange) = self.exchanges.get_mut(&key) else {
            return;
        };
        let mut soonest = exchange.shift(soonest);
        let rate = exchange.client.and_then(|client| self.slow.get(&client.0));
        if let (In::Data(bytes), Some(rate), false) = (&step, rate, there) {
            let takes = Duration::from_micros(bytes.len() as u64 * 1_000_000 / rate);
            soonest = soonest.max(exchange.back.last) + takes;
        }
        let lost = match exchange.fate {
            Fate::Hole => true,
            Fate::Deaf(_) => !there,
            _ => false,
        };
        let way = exchange.way(there);
        if way.over || lost {
            return;
        }
        way.over = matches!(step, In::End(_));
        way.last = way.last.max(soonest);
        let at = way.last;
        self.under_way.enter(at, Arrival::Step(key, there, step));
    }
}
