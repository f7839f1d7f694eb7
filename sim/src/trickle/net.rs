//! The wire between client machines and one server, in virtual time: one link per exchange.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use livepeer_core::http::{Body, Fault, Headers, In, Method, Out, Request};
use livepeer_core::trickle::headers;
use livepeer_core::{EffectId, Time};

use crate::Dice;

/// At most this many bytes a transport takes from its owner while its peer takes nothing.
const SOCKET_BUFFER: u64 = 64 << 10;

/// Faults that links may have, in percent of the exchanges opened while there is a budget.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// How many faulty links there may be in all.
    pub budget: u32,
    /// The connection breaks after some bytes or some time.
    pub cut: u64,
    /// Nothing passes for a while, then everything.
    pub stall: u64,
    /// The longest such while.
    pub stall_most: Duration,
    /// Nothing ever passes, and nobody says so.
    pub hole: u64,
    /// The request arrives twice; the second copy breaks off soon.
    pub twice: u64,
    /// An answer to an unfinished request is lost with the connection.
    pub lose_early_answers: u64,
    /// One-way latency in milliseconds, least and most.
    pub latency: (u64, u64),
    /// Bytes per second that clients with a slow link take.
    pub slow: Option<u64>,
}

/// Something that arrives.
#[derive(Debug)]
pub enum Delivery {
    /// At the server.
    ToServer(EffectId, In),
    /// At that client.
    ToClient(usize, EffectId, In),
}

#[derive(Debug)]
enum Fate {
    Fine,
    CutUp(u64),
    CutDown(u64),
    CutAt(Time),
    Stall(Time, Time),
    Hole,
}

#[derive(Debug, Default)]
struct Way {
    queue: VecDeque<(Time, In)>,
    last: Time,
    over: bool,
}

impl Way {
    fn push(&mut self, at: Time, step: In) {
        if self.over {
            return;
        }
        self.last = self.last.max(at);
        self.over = matches!(step, In::Failed(_));
        self.queue.push_back((self.last, step));
    }

    /// The connection breaks: what would arrive later than `until` never does.
    fn break_off(&mut self, until: Time, tell_at: Time) {
        if self.over {
            return;
        }
        self.queue.retain(|(at, _)| *at <= until);
        self.last = self.last.min(until);
        self.push(
            tell_at.max(self.last),
            In::Failed(Fault::Broken("reset".into())),
        );
    }
}

#[derive(Debug)]
struct Link {
    /// `None` is a copy that nobody listens to.
    client: Option<(usize, EffectId)>,
    server_id: EffectId,
    latency: Duration,
    fate: Fate,
    up: Way,
    down: Way,
    /// Reports of the bytes that the transports took, on their way to the owners.
    up_sent: VecDeque<(Time, In)>,
    down_sent: VecDeque<(Time, In)>,
    /// Bytes that the server's side took and was not asked to report yet, and when the last of them is out.
    unreported: usize,
    unreported_until: Time,
    up_bytes: u64,
    down_bytes: u64,
    unsent: u64,
    request_done: bool,
    reply_done: bool,
    paused: bool,
    slow: Option<u64>,
    label: String,
}

/// All links.
#[derive(Debug)]
pub struct Net {
    faults: Faults,
    dice: Dice,
    links: BTreeMap<u64, Link>,
    by_client: BTreeMap<(usize, EffectId), u64>,
    by_server: BTreeMap<EffectId, u64>,
    minted: u64,
    /// Until when nobody can connect.
    refused_until: Time,
    /// Requests that left, with the client and the time.
    pub log: Vec<(Time, usize, String)>,
    /// Clients that have a slow link.
    pub slow_clients: Vec<usize>,
}

impl Net {
    /// A net with those faults.
    #[must_use]
    pub fn new(faults: Faults, dice: Dice) -> Self {
        Self {
            faults,
            dice,
            links: BTreeMap::new(),
            by_client: BTreeMap::new(),
            by_server: BTreeMap::new(),
            minted: 0,
            refused_until: Time::ZERO,
            log: Vec::new(),
            slow_clients: Vec::new(),
        }
    }

    /// From now on new links are sound.
    pub const fn stop_faults(&mut self) {
        self.faults.budget = 0;
        self.refused_until = Time::ZERO;
    }

    /// Nobody can connect until then.
    pub const fn refuse_until(&mut self, until: Time) {
        self.refused_until = until;
    }

    /// How many exchanges a client has under way.
    #[must_use]
    pub fn live(&self, client: usize) -> usize {
        self.links
            .values()
            .filter(|link| {
                link.client.is_some_and(|(who, _)| who == client)
                    && !(link.request_done && link.reply_done)
                    && !link.down.over
            })
            .count()
    }

    /// A client's exchanges under way, for messages.
    #[must_use]
    pub fn describe(&self, client: usize) -> Vec<&str> {
        self.links
            .values()
            .filter(|link| {
                link.client.is_some_and(|(who, _)| who == client)
                    && !(link.request_done && link.reply_done)
                    && !link.down.over
            })
            .map(|link| &*link.label)
            .collect()
    }

    /// A client's connections break, without its knowing: it is gone.
    pub fn forget_client(&mut self, now: Time, client: usize) {
        for link in self.links.values_mut() {
            if let Some((who, id)) = link.client
                && who == client
            {
                self.by_client.remove(&(who, id));
                link.client = None;
                let at = now + link.latency;
                link.up.break_off(at, at);
                link.down.queue.clear();
                link.down.over = true;
            }
        }
    }

    /// The server died: every connection breaks, and what it sent last may be lost.
    pub fn kill_server(&mut self, now: Time) {
        for link in self.links.values_mut() {
            let at = now + link.latency / 2;
            link.down.break_off(at, at);
            link.up.queue.clear();
            link.up.over = true;
            self.by_server.remove(&link.server_id);
        }
    }

    /// A client's output.
    pub fn client_out(&mut self, now: Time, client: usize, id: EffectId, out: Out) {
        match out {
            Out::Request(request) => self.open(now, client, id, request),
            out => {
                let Some(key) = self.by_client.get(&(client, id)) else {
                    return;
                };
                let Some(link) = self.links.get_mut(key) else {
                    return;
                };
                link.client_out(now, out, &mut self.dice);
            }
        }
    }

    fn open(&mut self, now: Time, client: usize, id: EffectId, request: Request) {
        let label = format!("{} {}", request.method.as_str(), request.url.path());
        self.log.push((now, client, label.clone()));
        let latency = self
            .dice
            .millis(self.faults.latency.0, self.faults.latency.1);
        let server_id = EffectId::by_peer(self.minted);
        let key = self.minted;
        self.minted += 1;
        let faulty = self.faults.budget > 0;
        let mut fate = Fate::Fine;
        if faulty {
            let roll = self.dice.between(0, 99);
            let (cut, stall, hole) = (self.faults.cut, self.faults.stall, self.faults.hole);
            if roll < cut {
                fate = match self.dice.between(0, 3) {
                    0 => Fate::CutAt(now + self.dice.millis(0, 3_000)),
                    1 => Fate::CutDown(self.dice.between(0, 4_000)),
                    _ => Fate::CutUp(self.dice.between(0, 4_000)),
                };
            } else if roll < cut + stall {
                let from = now + self.dice.millis(0, 500);
                let most = self.faults.stall_most.as_millis() as u64;
                fate = Fate::Stall(from, from + self.dice.millis(1, most.max(1)));
            } else if roll < cut + stall + hole {
                fate = Fate::Hole;
            }
            if !matches!(fate, Fate::Fine) {
                self.faults.budget -= 1;
            }
        }
        let slow = self
            .slow_clients
            .contains(&client)
            .then_some(self.faults.slow)
            .flatten();
        let mut link = Link {
            client: Some((client, id)),
            server_id,
            latency,
            fate,
            up: Way::default(),
            down: Way::default(),
            up_sent: VecDeque::new(),
            down_sent: VecDeque::new(),
            unreported: 0,
            unreported_until: Time::ZERO,
            up_bytes: 0,
            down_bytes: 0,
            unsent: 0,
            request_done: request.body != Body::Stream,
            reply_done: false,
            paused: false,
            slow,
            label,
        };
        self.by_client.insert((client, id), key);
        if now < self.refused_until {
            let fault = Fault::Connect("refused".into());
            link.down.push(now + latency, In::Failed(fault));
            link.up.over = true;
            self.links.insert(key, link);
            return;
        }
        self.by_server.insert(server_id, key);
        // A handshake, then the request.
        let at = now + latency * 3;
        // A restart said twice is two restarts, whatever the order; nothing on the way repeats such a POST.
        let once = request.headers.get(headers::RESET).is_some();
        let copy =
            (faulty && !once && self.dice.percent(self.faults.twice)).then(|| request.clone());
        let done = link.request_done;
        let full = match &request.body {
            Body::Full(bytes) => Some(bytes.clone()),
            _ => None,
        };
        let get = matches!(request.method, Method::Get | Method::Head);
        link.send_up(at, In::Request(request.body(Body::Stream)));
        if let Some(bytes) = full {
            link.send_up(at, In::Data(bytes));
        }
        if done {
            link.send_up(at, In::End(Headers::new()));
        }
        self.links.insert(key, link);
        if let Some(copy) = copy {
            let server_id = EffectId::by_peer(self.minted);
            let key = self.minted;
            self.minted += 1;
            let mut echo = Link {
                client: None,
                server_id,
                latency,
                fate: Fate::Fine,
                up: Way::default(),
                down: Way::default(),
                up_sent: VecDeque::new(),
                down_sent: VecDeque::new(),
                unreported: 0,
                unreported_until: Time::ZERO,
                up_bytes: 0,
                down_bytes: 0,
                unsent: 0,
                request_done: done,
                reply_done: false,
                paused: false,
                slow: None,
                label: "copy".into(),
            };
            echo.send_up(at, In::Request(copy.body(Body::Stream)));
            if get {
                echo.send_up(at, In::End(Headers::new()));
            }
            let gone = at + self.dice.millis(1, 400);
            echo.up.break_off(gone, gone);
            self.by_server.insert(server_id, key);
            self.links.insert(key, echo);
        }
    }

    /// The server's output.
    pub fn server_out(&mut self, now: Time, id: EffectId, out: Out) {
        let Some(key) = self.by_server.get(&id) else {
            return;
        };
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let lose = self.dice.percent(self.faults.lose_early_answers);
        link.server_out(now, out, lose, &mut self.dice);
    }

    /// When something arrives next.
    #[must_use]
    pub fn next_time(&self) -> Option<Time> {
        self.links.values().filter_map(Link::next_time).min()
    }

    /// The next thing that has arrived by now.
    pub fn pop(&mut self, now: Time) -> Option<Delivery> {
        let mut found = None;
        let mut spent = Vec::new();
        for (key, link) in &mut self.links {
            if let Fate::CutAt(when) = link.fate
                && when <= now
            {
                link.fate = Fate::Fine;
                link.cut(when, &mut self.dice);
            }
            if let Some(delivery) = link.pop(now) {
                found = Some(delivery);
                break;
            }
            if link.is_spent() {
                spent.push(*key);
            }
        }
        for key in spent {
            if let Some(link) = self.links.remove(&key) {
                if let Some(client) = link.client {
                    self.by_client.remove(&client);
                }
                self.by_server.remove(&link.server_id);
            }
        }
        found
    }
}

impl Link {
    fn shift(&self, at: Time) -> Time {
        match self.fate {
            Fate::Stall(from, until) if at >= from && at < until => until,
            _ => at,
        }
    }

    fn send_up(&mut self, at: Time, step: In) {
        if matches!(self.fate, Fate::Hole) {
            return;
        }
        let at = self.shift(at);
        self.up.push(at, step);
    }

    /// The connection breaks at that time. Each side notices by itself, and last bytes may still arrive.
    fn cut(&mut self, when: Time, dice: &mut Dice) {
        let late = when + dice.millis(0, 20);
        self.up.break_off(late, when + dice.millis(0, 60));
        let late = when + dice.millis(0, 20);
        self.down.break_off(late, when + dice.millis(0, 60));
    }

    fn client_out(&mut self, now: Time, out: Out, dice: &mut Dice) {
        match out {
            Out::Data(bytes) => {
                let len = bytes.len() as u64;
                let stuck = match self.fate {
                    Fate::Hole => Some(Time::MAX),
                    Fate::Stall(from, until) if now >= from && now < until => Some(until),
                    _ => None,
                };
                let taken_at = match stuck {
                    Some(until) if self.unsent + len > SOCKET_BUFFER => until,
                    _ => now + Duration::from_micros(dice.between(1, 500)),
                };
                if stuck.is_some() {
                    self.unsent += len;
                }
                if taken_at < Time::MAX && !self.up.over {
                    self.up_sent.push_back((taken_at, In::Sent(bytes.len())));
                }
                let at = now + self.latency;
                if let Fate::CutUp(after) = self.fate {
                    if self.up_bytes + len > after {
                        let passes = (after - self.up_bytes) as usize;
                        if passes > 0 {
                            self.send_up(at, In::Data(bytes.slice(..passes)));
                        }
                        self.up_bytes = after;
                        self.cut(self.up.last.max(now), dice);
                        self.fate = Fate::Fine;
                        return;
                    }
                    self.up_bytes += len;
                }
                self.send_up(at, In::Data(bytes));
            }
            Out::End(_) => {
                self.request_done = true;
                self.send_up(now + self.latency, In::End(Headers::new()));
            }
            Out::Abort => {
                let at = now + self.latency;
                self.up.break_off(at, at);
                self.down.queue.clear();
                self.down.over = true;
                self.up_sent.clear();
                self.client = None;
            }
            Out::Pause => self.paused = true,
            Out::Resume => self.paused = false,
            Out::Request(_) | Out::Reply(_) | Out::Report => {}
        }
    }

    fn server_out(&mut self, now: Time, out: Out, lose_early: bool, dice: &mut Dice) {
        if matches!(self.fate, Fate::Hole) {
            return;
        }
        let at = self.shift(now + self.latency);
        match out {
            Out::Reply(reply) => {
                let early = !self.request_done;
                let body = reply.body.clone();
                if early && lose_early {
                    // The peer was still sending, so a reset overtakes the answer.
                    self.reply_done = true;
                    self.down
                        .push(at, In::Failed(Fault::Broken("reset".into())));
                    self.up.queue.clear();
                    self.up.over = true;
                    return;
                }
                self.down.push(at, In::Reply(reply));
                match body {
                    Body::Empty => self.finish_reply(at),
                    Body::Full(bytes) => {
                        self.down.push(at, In::Data(bytes));
                        self.finish_reply(at);
                    }
                    Body::Stream => {}
                }
            }
            Out::Data(bytes) => {
                let mut at = at;
                if let Some(rate) = self.slow {
                    let takes = Duration::from_micros(bytes.len() as u64 * 1_000_000 / rate);
                    at = at.max(self.down.last) + takes;
                }
                let len = bytes.len() as u64;
                self.unreported += bytes.len();
                self.unreported_until = at;
                if let Fate::CutDown(after) = self.fate {
                    if self.down_bytes + len > after {
                        let passes = (after - self.down_bytes) as usize;
                        if passes > 0 {
                            self.down.push(at, In::Data(bytes.slice(..passes)));
                        }
                        self.down_bytes = after;
                        self.cut(at, dice);
                        self.fate = Fate::Fine;
                        return;
                    }
                    self.down_bytes += len;
                }
                self.down.push(at, In::Data(bytes));
            }
            Out::End(_) => self.finish_reply(at),
            Out::Abort => {
                self.down
                    .push(at, In::Failed(Fault::Broken("reset".into())));
                self.up.over = true;
            }
            Out::Report => {
                let sent = In::Sent(std::mem::take(&mut self.unreported));
                self.down_sent.push_back((self.unreported_until, sent));
            }
            Out::Pause | Out::Resume | Out::Request(_) => {}
        }
    }

    fn finish_reply(&mut self, at: Time) {
        self.reply_done = true;
        self.down.push(at, In::End(Headers::new()));
    }

    fn next_time(&self) -> Option<Time> {
        let down = match self.down.queue.front() {
            Some((_, In::Data(_) | In::End(_))) if self.paused => None,
            Some((at, _)) => Some(*at),
            None => None,
        };
        let cut = match self.fate {
            Fate::CutAt(when) if !self.is_spent() => Some(when),
            _ => None,
        };
        [
            down,
            cut,
            self.up.queue.front().map(|(at, _)| *at),
            self.up_sent.front().map(|(at, _)| *at),
            self.down_sent.front().map(|(at, _)| *at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn pop(&mut self, now: Time) -> Option<Delivery> {
        if self.up.queue.front().is_some_and(|(at, _)| *at <= now) {
            let (_, step) = self.up.queue.pop_front()?;
            return Some(Delivery::ToServer(self.server_id, step));
        }
        if self.down_sent.front().is_some_and(|(at, _)| *at <= now) {
            let (_, step) = self.down_sent.pop_front()?;
            return Some(Delivery::ToServer(self.server_id, step));
        }
        if self.up_sent.front().is_some_and(|(at, _)| *at <= now) {
            let (_, step) = self.up_sent.pop_front()?;
            if let Some((client, id)) = self.client {
                return Some(Delivery::ToClient(client, id, step));
            }
        }
        let held =
            self.paused && matches!(self.down.queue.front(), Some((_, In::Data(_) | In::End(_))));
        if !held && self.down.queue.front().is_some_and(|(at, _)| *at <= now) {
            let (_, step) = self.down.queue.pop_front()?;
            if let Some((client, id)) = self.client {
                return Some(Delivery::ToClient(client, id, step));
            }
        }
        None
    }

    fn is_spent(&self) -> bool {
        let quiet = self.up.queue.is_empty()
            && self.down.queue.is_empty()
            && self.up_sent.is_empty()
            && self.down_sent.is_empty();
        quiet
            && ((self.request_done && self.reply_done)
                || (self.up.over && (self.down.over || self.client.is_none())))
    }
}
