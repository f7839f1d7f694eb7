//! A whole network under virtual time: orchestrators, a remote signer, a chain whose blocks go by, and gateways
//! that run live video jobs through them.
//!
//! The world is a [`Net`] with the usual machines in it, and the little that carries events between the machines of one
//! gateway. Whatever a test wants to break it reaches through [`World::net`].

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::chain::ChainView;
use livepeer_core::handshake::Identity;
use livepeer_core::http::Url;
use livepeer_core::job::LiveVideoJob;
use livepeer_core::job::live::media::{self, Media, OutputEvent};
use livepeer_core::job::live::{self, Ending, Readers, Started, Wires};
use livepeer_core::money::Price;
use livepeer_core::payment::Payer;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::remote::{self, SignerServer};
use livepeer_core::payment::session::{LocalAccount, Paid};
use livepeer_core::pool::{self, Outcome, Quickest, SessionPool};
use livepeer_core::trickle::{Seq, Subscriber, publisher, subscriber};
use livepeer_core::wire::{RunnerEvent, StartRequest, identity_digest};
use livepeer_core::{Address, Failure, Machine, Rng, Seed, Signers, Time};
use livepeer_orchestrator::{Event, Orchestrator};

use crate::{Key, Net, Node};

/// The time when every world begins.
pub const BEGINNING: Time = Time::from_secs(1_700_000_000);

/// The name of the payer's key.
const PAYER: &str = "payer";

/// A block comes this often.
pub const BLOCK_TIME: Duration = Duration::from_secs(12);

/// See the [module](self).
pub struct World {
    /// All machines, and the links between them.
    pub net: Net,
    /// The orchestrators, in the order of their configurations.
    pub orchestrators: Vec<Node<Orchestrator>>,
    /// The remote signer.
    pub signer: Node<SignerServer>,
    /// The signer's address.
    pub signer_url: Url,
    /// The account whose money the signer spends.
    pub payer: Address,
    chain: ChainView,
    next_block: Time,
    rng: Rng,
    /// Events of the orchestrators, each with the orchestrator's number.
    pub told: Vec<(usize, Event)>,
}

/// Payer of the work of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payee {
    /// Nobody.
    Nobody,
    /// The remote signer.
    Signer,
    /// The payer's own key.
    OwnKey,
}

/// A gateway with one job.
pub struct Gateway {
    /// The job.
    pub job: Node<LiveVideoJob>,
    /// The pool that the job gets its sessions from.
    pub pool: Node<SessionPool<Quickest>>,
    /// The input, and what the output answers of it.
    pub media: Node<Media>,
    /// The readers of the output.
    pub outputs: Readers<Node<Subscriber>>,
    /// Events so far.
    pub log: Log,
}

/// Events that a [`Gateway`] saw.
#[derive(Debug, Default)]
pub struct Log {
    /// Every session that started.
    pub started: Vec<Started>,
    /// Payments that were accepted.
    pub paid: Vec<Paid>,
    /// Failures to make payments.
    pub held: Vec<Failure>,
    /// New prices that were paid.
    pub repriced: Vec<Price>,
    /// Events of the runners.
    pub runner: Vec<RunnerEvent>,
    /// Orchestrators that were said to be lost.
    pub blamed: Vec<Url>,
    /// Sessions that failed, and how.
    pub failed: Vec<Failure>,
    /// How the job ended.
    pub ended: Option<Ending>,
    /// Standbys that got input too.
    pub standbys: usize,
    /// Output segments, in order. The last one may not be complete yet.
    pub segments: Vec<Vec<u8>>,
    /// Output segments that were told to be cut short.
    pub truncated: BTreeSet<usize>,
    /// Input segments that have no output, as the reader of the output is told.
    pub gaps: Vec<Range<Seq>>,
    /// Input segments whose beginning comes a second time, and the number of the output segment that begins with it.
    pub repeated: Vec<(usize, Range<Seq>)>,
}

impl Log {
    /// How many input segments have no output, as the reader of the output is told.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.gaps
            .iter()
            .map(|gap| gap.end.get() - gap.start.get())
            .sum()
    }
}

impl World {
    /// A world of those orchestrators, which take their payments on the chain of this world.
    #[must_use]
    pub fn new(seed: Seed, mut configs: Vec<livepeer_orchestrator::Config>) -> Self {
        let mut rng = Rng::new(seed);
        let mut net = Net::new(BEGINNING, rng.fork());
        let chain = ChainView::development();
        let key = Key::named(PAYER);
        let policy = Policy::new(key.address());
        let config = remote::Config::new(policy);
        let signer = SignerServer::new(net.now(), config, chain.clone(), rng.fork());
        let signer = net.serve("signer:7936", signer);
        let payer = key.address();
        net.give_key(signer, key);
        let orchestrators = configs
            .drain(..)
            .map(|mut config| {
                if let Some(payments) = &mut config.payments {
                    payments.chain = chain.clone();
                }
                let authority = config.service.authority();
                let machine = Orchestrator::new(net.now(), config, rng.fork());
                let node = net.serve(&authority, machine);
                net.give_key(node, Key::named(&authority));
                node
            })
            .collect();
        Self {
            next_block: net.now() + BLOCK_TIME,
            net,
            orchestrators,
            signer,
            signer_url: Url::parse("http://signer:7936").expect("a URL"),
            payer,
            chain,
            rng,
            told: Vec::new(),
        }
    }

    /// A gateway that wants to run `request` at one of all orchestrators, paid by the signer.
    pub fn gateway(&mut self, config: live::Config, request: StartRequest) -> Gateway {
        let (identity, payer) = self.payer(Payee::Signer);
        self.gateway_of(config, request, identity, payer)
    }

    /// Adds a gateway as [`gateway`](Self::gateway) does, paid by the payer's own key.
    pub fn own_key_gateway(&mut self, config: live::Config, request: StartRequest) -> Gateway {
        let (identity, payer) = self.payer(Payee::OwnKey);
        let gateway = self.gateway_of(config, request, identity, payer);
        self.give_payers_key(gateway.job);
        gateway
    }

    /// A payer, and how it introduces itself.
    pub(crate) fn payer(&mut self, payee: Payee) -> (Identity, Payer) {
        let payer = match payee {
            Payee::Nobody => Payer::Offchain,
            Payee::Signer => Payer::Remote(Signers::new(self.signer_url.clone())),
            Payee::OwnKey => {
                let account = LocalAccount::new(
                    Policy::own_key(self.payer),
                    self.chain.clone(),
                    self.rng.fork(),
                );
                let identity = Identity::Static {
                    address: self.payer,
                    signature: Key::named(PAYER).sign(identity_digest(self.payer)),
                };
                return (identity, Payer::Account(Box::new(account)));
            }
        };
        (payer.identity(), payer)
    }

    /// Has a machine sign with the payer's own key.
    pub(crate) fn give_payers_key<M: Machine + 'static>(&mut self, node: Node<M>) {
        self.net.give_key(node, Key::named(PAYER));
    }

    /// A seed for a machine.
    pub(crate) fn seed(&mut self) -> Seed {
        self.rng.fork()
    }

    /// The URLs of all orchestrators.
    #[must_use]
    pub fn services(&self) -> Vec<Url> {
        let urls = self.orchestrators.iter();
        urls.map(|node| self.net.get(*node).config().service.clone())
            .collect()
    }

    /// Lets the next thing happen, or time pass until `end`, which has come if this says no.
    pub(crate) fn pass(&mut self, end: Time) -> bool {
        self.listen();
        let next = self.next_block.min(end);
        if !self.net.step(next) {
            self.net.run_until(next);
            if self.net.now() >= self.next_block {
                self.block();
            }
        }
        self.net.now() < end
    }

    /// Adds a gateway as [`gateway`](Self::gateway) does, that shares the pool of another one of this kind.
    pub fn gateway_beside(
        &mut self,
        other: &Gateway,
        config: live::Config,
        request: StartRequest,
    ) -> Gateway {
        let (_, payer) = self.payer(Payee::Signer);
        self.gateway_with(other.pool, config, request, payer)
    }

    fn gateway_of(
        &mut self,
        config: live::Config,
        request: StartRequest,
        identity: Identity,
        payer: Payer,
    ) -> Gateway {
        let urls = self.services();
        let mut pools = pool::Config::default();
        pools.handshake.terms.paying = payer.paying();
        pools.handshake.ignore_capacity = true;
        pools.share = u32::MAX;
        let now = self.net.now();
        let mut pool = SessionPool::new(
            now,
            pools,
            identity,
            Capabilities::live_video(request.model_id.as_str()),
            Quickest,
            self.rng.fork(),
        );
        pool.offer(now, urls);
        let pool = self.net.add(pool);
        self.gateway_with(pool, config, request, payer)
    }

    fn gateway_with(
        &mut self,
        pool: Node<SessionPool<Quickest>>,
        config: live::Config,
        request: StartRequest,
        payer: Payer,
    ) -> Gateway {
        let now = self.net.now();
        let job = LiveVideoJob::new(now, config, request, payer);
        let mut media = Media::new(now, media::Config::default());
        media.expect_output(now, true);
        let config = publisher::Config {
            idle: Some(publisher::Idle::default()),
            ..publisher::Config::default()
        };
        media.open(now, config);
        Gateway {
            pool,
            job: self.net.add(job),
            media: self.net.add(media),
            outputs: Readers::default(),
            log: Log::default(),
        }
    }

    /// Lets time pass, and carries what comes up between the machines of these gateways.
    pub fn run_for(&mut self, span: Duration, gateways: &mut [Gateway]) {
        let end = self.net.now() + span;
        self.run_until(end, gateways, |_, _| false);
        self.net.run_until(end);
    }

    /// Lets time pass until `done`, at most `patience`. Says whether it came to that.
    pub fn run_till(
        &mut self,
        patience: Duration,
        gateways: &mut [Gateway],
        done: impl FnMut(&mut Self, &mut [Gateway]) -> bool,
    ) -> bool {
        let end = self.net.now() + patience;
        self.run_until(end, gateways, done)
    }

    fn run_until(
        &mut self,
        end: Time,
        gateways: &mut [Gateway],
        mut done: impl FnMut(&mut Self, &mut [Gateway]) -> bool,
    ) -> bool {
        loop {
            carry(&mut self.net, gateways);
            self.listen();
            if done(self, gateways) {
                return true;
            }
            if !self.pass(end) {
                return false;
            }
        }
    }

    /// Publishes one segment over `span`, if the gateway's session takes it; waits for it up to ten seconds.
    pub fn publish(&mut self, gateway: &mut Gateway, segment: &[u8], span: Duration) -> bool {
        let gateways = std::slice::from_mut(gateway);
        let patience = Duration::from_secs(10);
        let begun = self.run_till(patience, gateways, |world, gateways| {
            gateways[0].log.ended.is_some() || gateways[0].begin(&mut world.net)
        });
        if !begun || gateways[0].log.ended.is_some() {
            return false;
        }
        for part in segment.chunks(segment.len().div_ceil(4).max(1)) {
            gateways[0].write(&mut self.net, Bytes::copy_from_slice(part));
            self.run_for(span / 4, gateways);
        }
        gateways[0].end(&mut self.net);
        true
    }

    /// Ends the gateway's input and waits until its job has ended, at most a minute.
    pub fn finish(&mut self, gateway: &mut Gateway) -> Option<Ending> {
        gateway.close(&mut self.net);
        let gateways = std::slice::from_mut(gateway);
        self.run_till(Duration::from_secs(60), gateways, |_, gateways| {
            gateways[0].log.ended.is_some()
        });
        gateways[0].log.ended.clone()
    }

    /// Changes what the chain shows from now on; blocks go on from there.
    pub fn set_chain(&mut self, change: impl FnOnce(&mut ChainView)) {
        change(&mut self.chain);
        let chain = self.chain.clone();
        for node in &self.orchestrators {
            self.net
                .with(*node, |machine, now| machine.set_chain(now, chain.clone()));
        }
        self.net
            .with(self.signer, |machine, now| machine.set_chain(now, chain));
    }

    fn block(&mut self) {
        self.next_block = self.next_block + BLOCK_TIME;
        self.set_chain(|chain| chain.l1_block += 1);
    }

    fn listen(&mut self) {
        for (n, node) in self.orchestrators.iter().enumerate() {
            self.told
                .extend(self.net.events(*node).into_iter().map(|event| (n, event)));
        }
    }
}

impl Log {
    fn note(&mut self, event: &live::Event) {
        match event {
            live::Event::Started(started) => self.started.push((**started).clone()),
            live::Event::Standby(..) => self.standbys += 1,
            live::Event::Lost(url, _) => self.blamed.push(url.clone()),
            live::Event::Release(_, Outcome::Failed(failure)) => self.failed.push(failure.clone()),
            live::Event::Paid(paid) => self.paid.push(paid.clone()),
            live::Event::PaymentHeld(why) => self.held.push(why.clone()),
            live::Event::Repriced { to, .. } => self.repriced.push(*to),
            live::Event::Runner(event) => self.runner.push(event.clone()),
            live::Event::Ended(ending) => self.ended = Some(ending.clone()),
            _ => {}
        }
    }
}

/// The machines of a gateway in their network.
struct Wired<'a> {
    job: Node<LiveVideoJob>,
    media: Node<Media>,
    pool: Node<SessionPool<Quickest>>,
    net: &'a mut Net,
}

impl Wires for Wired<'_> {
    type Choice = Quickest;

    fn with_job<T>(&mut self, act: impl FnOnce(&mut LiveVideoJob, Time) -> T) -> T {
        self.net.with(self.job, act)
    }

    fn with_media<T>(&mut self, act: impl FnOnce(&mut Media, Time) -> T) -> T {
        self.net.with(self.media, act)
    }

    fn with_pool<T>(&mut self, act: impl FnOnce(&mut SessionPool<Quickest>, Time) -> T) -> T {
        self.net.with(self.pool, act)
    }
}

/// Takes the events of all machines of some gateways to where they matter.
fn carry(net: &mut Net, gateways: &mut [Gateway]) {
    loop {
        let mut moved = false;
        for gateway in &mut *gateways {
            moved |= gateway.carry(net);
        }
        for n in 0..gateways.len() {
            let pool = gateways[n].pool;
            while let Some(event) = net.event(pool) {
                moved = true;
                for gateway in gateways.iter().filter(|one| one.pool == pool) {
                    gateway.wires(net).on_pool(event.clone());
                }
            }
        }
        if !moved {
            return;
        }
    }
}

impl Gateway {
    /// Takes the events of its own machines to where they matter. Says whether there were any.
    fn carry(&mut self, net: &mut Net) -> bool {
        let mut any = false;
        loop {
            let mut moved = false;
            while let Some(event) = net.event(self.job) {
                moved = true;
                self.log.note(&event);
                self.wires(net).on_job(event);
            }
            while let Some(news) = net.event(self.media) {
                moved = true;
                self.wires(net).on_media(news);
            }
            moved |= self.read(net);
            any |= moved;
            if !moved {
                if self.log.ended.is_some() {
                    net.with(self.media, Media::output_over);
                    self.take_output(net);
                }
                return any;
            }
        }
    }

    /// Begins a segment of the input. False if that is not possible now.
    pub fn begin(&mut self, net: &mut Net) -> bool {
        net.get(self.media).is_handed_over()
            && net.with(self.media, |media, now| media.begin(now)).is_ok()
    }

    /// Writes to it.
    pub fn write(&mut self, net: &mut Net, bytes: Bytes) {
        net.with(self.media, |media, now| media.write(now, bytes));
    }

    /// Ends it.
    pub fn end(&mut self, net: &mut Net) {
        net.with(self.media, |media, now| media.end_segment(now));
    }

    /// Ends the input.
    pub fn close(&mut self, net: &mut Net) {
        net.with(self.media, |media, now| media.close(now));
    }

    fn wires<'a>(&self, net: &'a mut Net) -> Wired<'a> {
        Wired {
            job: self.job,
            media: self.media,
            pool: self.pool,
            net,
        }
    }

    /// Reads the output of whoever works, and of a standby. Says whether there was anything.
    fn read(&mut self, net: &mut Net) -> bool {
        let mut outputs = Vec::new();
        if self.log.ended.is_none() {
            let media = net.get(self.media);
            outputs.extend(media.outputs().map(|(session, url)| (session, url.clone())));
        }
        let (now, config) = (net.now(), subscriber::Config::default());
        let left = self
            .outputs
            .follow(now, &config, outputs, |reader| net.add(reader));
        for (_, reader) in left {
            net.with(reader, |reader, now| reader.close(now));
        }
        let mut moved = false;
        for (session, reader) in self.outputs.iter() {
            while let Some(event) = net.event(*reader) {
                moved = true;
                net.with(self.media, |media, now| media.output(now, session, event));
            }
        }
        self.take_output(net);
        moved
    }

    fn take_output(&mut self, net: &mut Net) {
        while let Some(event) = net.with(self.media, |media, _| media.next_output()) {
            match event {
                OutputEvent::Begin(..) => self.log.segments.push(Vec::new()),
                OutputEvent::Data(_, bytes) => {
                    if let Some(last) = self.log.segments.last_mut() {
                        last.extend_from_slice(&bytes);
                    }
                }
                OutputEvent::Anew(..) => drop(self.log.segments.pop()),
                OutputEvent::Truncated(..) => {
                    let last = self.log.segments.len().saturating_sub(1);
                    self.log.truncated.insert(last);
                }
                OutputEvent::Gap(gap) => self.log.gaps.push(gap),
                OutputEvent::Repeated(numbers) => {
                    self.log.repeated.push((self.log.segments.len(), numbers));
                }
                _ => {}
            }
        }
    }
}
