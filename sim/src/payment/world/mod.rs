//! A world of payer, signers and recipient in a network, made from one seed.

mod payer;
mod recipient;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livepeer_core::chain::ChainView;
use livepeer_core::http::{Body, Out};
use livepeer_core::money::Amount;
use livepeer_core::payment::ledger::AccountId;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::receiver;
use livepeer_core::payment::session::PaymentId;
use livepeer_core::payment::{PaymentSession, SignerServer, remote};
use livepeer_core::wire::Payment;
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::wire::signer::PaymentResponse;
use livepeer_core::{Address, EffectId, Time};

use self::recipient::{Recipient, Told};
use super::{Model, Settings, Summary};
use crate::{Agenda, Caller, Dice, Faults, Key, Net, Node};

const START: Time = Time::from_secs(1_790_000_000);
const RECIPIENT: Address = Address([0x0e; 20]);
const ORCHESTRATOR: &str = "orchestrator:8935";
const SIGNERS: [&str; 2] = ["signer-0:7936", "signer-1:7936"];

/// How long the owner waits for the answer to its start request.
const START_WITHIN: Duration = Duration::from_secs(20);

enum Due {
    /// The owner has a fresh quote for that life of the payer.
    Renewed(u64),
    /// The owner begins anew.
    Begin(u64),
    /// The owner gives up its start request.
    GiveUp(EffectId),
    Block(u64),
    RecipientCrash,
    PayerCrash,
    Away(&'static str, bool),
    NewPrice(i64),
    Calm,
}

/// See the [module](super).
pub struct World {
    settings: Settings,
    net: Net,
    dice: Dice,
    agenda: Agenda<Due>,
    key: Key,
    faults: bool,

    payer: Option<Node<PaymentSession>>,
    /// Counts the lives of the payer and those of the recipient.
    life: u64,
    recipient_life: u64,
    owner: Node<Caller>,
    /// The start requests, each with the life of the payer that it is for.
    starts: BTreeMap<EffectId, (u64, PaymentId)>,
    signers: [Node<SignerServer>; 2],
    recipient: Node<Recipient>,
    /// The payer's job, and the life of the recipient that it began in.
    job: Option<(String, u64)>,
    chain: ChainView,

    model: Model,
    /// The worth of what came too late for an account, its parameters having expired on the way. Its nonces are seen.
    late: BTreeMap<AccountId, Amount>,
    summary: Summary,
}

impl World {
    /// Runs a seed to its end.
    ///
    /// # Panics
    /// If the model or a machine finds something that must not be.
    #[must_use]
    pub fn run(seed: u64, settings: Settings) -> Summary {
        let mut world = Self::new(seed, settings);
        world.plan();
        let end = START + world.settings.span;
        while world.step(end) {}
        // What is under way arrives.
        world.with_payer(|payer, _| payer.pause());
        while world.step(end + Duration::from_secs(3)) {}
        world.finish()
    }

    fn new(seed: u64, settings: Settings) -> Self {
        let mut dice = Dice::new(seed);
        let mut net = Net::new(START, dice.fork());
        net.service_jitter = Duration::from_millis(25);
        let key = Key::named("payer");
        let chain = ChainView::development();
        let policy = Policy {
            minting: settings.minting,
            ..Policy::new(key.address())
        };
        let signers = SIGNERS.map(|authority| {
            let config = remote::Config::new(policy.clone());
            let signer = SignerServer::new(START, config, chain.clone(), dice.fork());
            let node = net.serve(authority, signer);
            net.give_key(node, key.clone());
            net.tapped(node);
            node
        });
        let old = settings.faults && dice.percent(25);
        let recipient = Recipient::new(START, &settings, key.address(), chain.clone(), old);
        let recipient = net.serve(ORCHESTRATOR, recipient);
        for authority in SIGNERS.into_iter().chain([ORCHESTRATOR]) {
            let link = net.link(authority);
            link.jitter = Duration::from_millis(200);
            link.breaks_per_million = if settings.faults { 5_000 } else { 0 };
        }
        if settings.faults {
            net.faults = Faults {
                budget: u32::MAX,
                cut: 12,
                stall: 6,
                stall_most: Duration::from_secs(15),
                hole: 2,
                deaf: 8,
                twice: 6,
                unkept: 6,
                ..Faults::default()
            };
        }
        let owner = net.add(Caller::default());
        let mut world = Self {
            net,
            dice,
            agenda: Agenda::default(),
            key,
            faults: settings.faults,
            payer: None,
            life: 0,
            recipient_life: 0,
            owner,
            starts: BTreeMap::new(),
            signers,
            recipient,
            job: None,
            chain,
            model: Model::default(),
            late: BTreeMap::new(),
            summary: Summary::default(),
            settings,
        };
        world.begin();
        world
    }

    /// Decides what will happen when.
    fn plan(&mut self) {
        let span = u64::try_from(self.settings.span.as_millis()).unwrap_or(u64::MAX);
        for block in 1..=span / 12_000 {
            self.later(Duration::from_secs(12 * block), Due::Block(1));
        }
        if !self.faults {
            return;
        }
        // In the last half minute all goes well: what is alive then has to stay so.
        let calm = span - 30_000;
        self.later(Duration::from_millis(calm), Due::Calm);
        let at = |dice: &mut Dice| dice.millis(1_000, calm);
        for _ in 0..self.dice.between(0, 2) {
            let when = at(&mut self.dice);
            self.later(when, Due::RecipientCrash);
        }
        for _ in 0..self.dice.between(0, 2) {
            let when = at(&mut self.dice);
            self.later(when, Due::PayerCrash);
        }
        for signer in SIGNERS {
            if self.dice.percent(50) {
                let when = at(&mut self.dice);
                let long = self.dice.millis(500, 40_000);
                self.later(when, Due::Away(signer, true));
                self.later(when + long, Due::Away(signer, false));
            }
        }
        for _ in 0..self.dice.between(0, 3) {
            let when = at(&mut self.dice);
            let long = self.dice.millis(500, 5_000);
            self.later(when, Due::Away(ORCHESTRATOR, true));
            self.later(when + long, Due::Away(ORCHESTRATOR, false));
        }
        if self.dice.percent(30) {
            let when = at(&mut self.dice);
            self.later(when, Due::Block(45));
        }
        if self.dice.percent(30) {
            let when = at(&mut self.dice);
            let low = u64::try_from(self.settings.price / 2).unwrap_or(1).max(1);
            let price = self.dice.between(low, low * 3);
            self.later(when, Due::NewPrice(i64::try_from(price).unwrap_or(1)));
        }
    }

    fn later(&mut self, after: Duration, what: Due) {
        self.agenda.enter(self.net.now() + after, what);
    }

    /// Does the next thing that is due up to `end`.
    fn step(&mut self, end: Time) -> bool {
        let next = self.agenda.next().filter(|at| *at <= end);
        if !self.net.step(next.unwrap_or(end)) {
            let Some(next) = next else { return false };
            self.net.run_until(next);
            let what = self.agenda.pop().expect("something is due");
            self.happen(what);
        }
        self.listen();
        true
    }

    fn happen(&mut self, what: Due) {
        match what {
            Due::Renewed(life) if life == self.life => {
                let info = self.info();
                self.with_payer(|payer, now| payer.renew(now, &info));
            }
            Due::Begin(life) if life == self.life => self.begin(),
            Due::Renewed(_) | Due::Begin(_) => {}
            Due::GiveUp(start) => {
                self.net
                    .with(self.owner, |owner, _| owner.step(start, Out::Abort));
                self.started(start, None);
            }
            Due::Block(blocks) => self.pass_blocks(blocks),
            Due::RecipientCrash => self.crash_recipient(),
            Due::PayerCrash => {
                self.summary.crashes += 1;
                self.begin();
            }
            Due::Away(authority, away) => self.net.link(authority).down = away,
            Due::NewPrice(price) => self
                .net
                .with(self.recipient, |recipient, _| recipient.price = price),
            Due::Calm => {
                self.faults = false;
                self.summary.mishaps = u32::MAX - self.net.faults.budget;
                self.net.faults = Faults::default();
                for authority in SIGNERS.into_iter().chain([ORCHESTRATOR]) {
                    let link = self.net.link(authority);
                    (link.down, link.breaks_per_million) = (false, 0);
                }
            }
        }
    }

    fn pass_blocks(&mut self, blocks: u64) {
        self.chain.l1_block += blocks;
        let view = || self.chain.clone();
        for signer in self.signers {
            self.net
                .with(signer, |signer, now| signer.set_chain(now, view()));
        }
        if let Some(payer) = self.payer {
            self.net
                .with(payer, |payer, now| payer.set_chain(now, view()));
        }
        self.net.with(self.recipient, |recipient, now| {
            recipient.receiver.set_chain(now, view());
        });
    }

    // ---- what is said ----------------------------------------------------------------------------------------

    /// Hears what the machines told and sent since the last step.
    fn listen(&mut self) {
        self.watch();
        let mut touched = BTreeSet::new();
        for told in self.net.events(self.recipient) {
            touched.extend(self.recipient_told(told));
        }
        let receiver = &self.net.get(self.recipient).receiver;
        for account in touched {
            self.model.balance(&account, receiver.balance(&account));
        }
        for start in self.net.events(self.owner) {
            let answer = self.net.get(self.owner).answer(start);
            if answer.is_over() {
                let taken = answer.fault.is_none() && answer.status == Some(200);
                let name = answer.text();
                let life = name.split('-').next().and_then(|life| life.parse().ok());
                self.started(start, life.filter(|_| taken).map(|life| (name, life)));
            }
        }
        if let Some(payer) = self.payer {
            while let Some(event) = self.net.event(payer) {
                self.told(event);
            }
        }
    }

    /// Has the model see what signers signed, and the payments that left the payer.
    fn watch(&mut self) {
        for signer in self.signers {
            for step in self.net.tapped(signer) {
                if let Out::Reply(reply) = step
                    && reply.status == 200
                    && let Body::Full(body) = reply.body
                {
                    let made = PaymentResponse::from_json(&body).expect("a payment");
                    let payment = Payment::decode(&made.payment).expect("a payment");
                    self.model.signed(&payment);
                }
            }
        }
        let Some(payer) = self.payer else { return };
        for step in self.net.tapped(payer) {
            if let Out::Request(request) = step
                && let Some(payment) = request.headers.get(PAYMENT_HEADER)
            {
                self.leaves(payment);
            }
        }
    }

    /// A payment leaves the payer.
    fn leaves(&mut self, payment: &str) {
        let payment = Payment::decode(payment).expect("our own");
        self.model.signed(&payment);
        if let Some(payer) = self.payer {
            self.model.sent(&payment, self.net.stored(payer));
        }
    }

    /// Hears an event of the recipient. Returns the account whose balance it changed.
    fn recipient_told(&mut self, told: Told) -> Option<AccountId> {
        let (block, store) = (self.chain.l1_block, self.net.stored(self.recipient));
        match told {
            Told::Receipt(event, account, payment) => {
                let credit = match event {
                    receiver::Event::Credited(_, credit) => {
                        self.summary.taken += 1;
                        credit
                    }
                    receiver::Event::Rejected(_, why) => {
                        if matches!(why.why, receiver::Refused::Expired) {
                            *self.late.entry(account.clone()).or_default() +=
                                &Model::worth(&payment);
                        }
                        why.credit
                    }
                    other => panic!("{other:?} is no receipt"),
                };
                let (tickets, value) = (credit.tickets, &credit.value);
                self.model
                    .credited(&account, &payment, tickets, value, block, store);
                Some(account)
            }
            Told::Other(receiver::Event::Won(ticket)) => {
                let key = receiver::winner_key(&ticket.signature);
                assert!(store.contains_key(&key), "a winner was not kept");
                None
            }
            Told::Other(receiver::Event::Metered(account, fee)) => {
                self.model.debited(&account, &fee);
                Some(account)
            }
            Told::Other(receiver::Event::Exhausted(account, shortfall)) => {
                let balance = shortfall.balance;
                assert!(balance.is_none_or(|balance| balance < shortfall.fee));
                self.summary.cut += 1;
                Some(account)
            }
            Told::Other(other) => panic!("nobody expects {other:?}"),
        }
    }

    // ---- the end ---------------------------------------------------------------------------------------------

    /// Ends a life of the payer: what it says of its payments has to agree with the recipient's account.
    fn settle(&mut self, payer: Node<PaymentSession>) {
        // What is under way may or may not arrive.
        self.net.with(payer, |payer, now| payer.close(now));
        self.watch();
        self.summary.spent = self.net.spent(payer);
        let payer = self.net.get(payer);
        self.summary.undecided += payer.undecided();
        if let Some((manifest, life)) = self.job.take()
            && life == self.recipient_life
        {
            let account = AccountId {
                sender: self.key.address(),
                session: manifest,
            };
            let credited = self.model.credits(&account);
            let late = self.late.get(&account).cloned().unwrap_or_default();
            let (known, undecided) = (payer.total(), payer.undecided());
            assert!(
                credited <= known.clone() + undecided.clone(),
                "{credited} was credited, the payer knows of {known}, and {undecided} is undecided"
            );
            // Sent twice, what came too late is called seen, as if it had been taken.
            assert!(
                *known <= credited.clone() + late.clone(),
                "{credited} was credited, {late} came too late, the payer knows of {known}"
            );
        }
    }

    fn finish(mut self) -> Summary {
        if let Some(payer) = self.payer.take() {
            self.settle(payer);
            let limit = self.settings.per_job.as_ref();
            let spent = &self.summary.spent;
            assert!(
                limit.is_none_or(|limit| spent <= limit),
                "the budget was passed"
            );
        }
        self.summary.store_failures = self.net.store_failures;
        self.summary.credited = self.model.total_credited.clone();
        assert!(
            self.summary.credited <= self.summary.spent,
            "more was credited than ever left the payer"
        );
        self.summary
    }
}
