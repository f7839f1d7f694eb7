//! Callers at a front door whose jobs go to orchestrators that die, come back, lose connections and do badly, while
//! callers are slow or vanish: each is answered once, nobody is charged twice, and nothing is held in the end.
//!
//! `DOOR_SEEDS=10000` plays that many worlds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livepeer_core::front::Outcome;
use livepeer_core::http::{Body, Method, Out, Request, Url};
use livepeer_core::money::Amount;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::{EffectId, Rng, Time};
use livepeer_orchestrator::{BatchModel, Mishap, Quirks};
use livepeer_sim::door::{DOOR, Door};
use livepeer_sim::world::Payee;
use livepeer_sim::{Agenda, Caller, Node, World, seeds};
use serde_json::Value;

use crate::jobs::{MODEL, config, service, worked};
use crate::stage::secs;

const PIPELINES: [Pipeline; 2] = [Pipeline::TextToImage, Pipeline::Llm];

const ORCHESTRATORS: usize = 5;

/// Requests of a world.
const REQUESTS: u64 = 12;

/// A request's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Picture,
    NativePicture,
    Chat {
        stream: bool,
    },
    NativeChat {
        stream: bool,
    },
    /// No runner makes such a picture.
    Impossible,
    /// The front door itself refuses it.
    Nonsense,
}

impl Kind {
    fn draw(dice: &mut Rng) -> Self {
        let stream = dice.below(3) > 0;
        match dice.below(9) {
            0 => Self::Picture,
            1 => Self::NativePicture,
            2..=4 => Self::Chat { stream },
            5 | 6 => Self::NativeChat { stream },
            7 => Self::Impossible,
            _ => Self::Nonsense,
        }
    }

    fn is_stream(self) -> bool {
        matches!(
            self,
            Self::Chat { stream: true } | Self::NativeChat { stream: true }
        )
    }

    /// The request, with so many words in it where it has words.
    fn request(self, words: u64) -> Request {
        let prompt = "word ".repeat(words as usize);
        let chat = |stream| {
            let messages = serde_json::json!([{ "role": "user", "content": prompt.trim_end() }]);
            serde_json::json!({
                "model": MODEL, "stream": stream, "max_tokens": 4_000, "messages": messages,
            })
        };
        let picture = |width: i64| serde_json::json!({ "model_id": MODEL, "prompt": "x", "width": width, "height": 64 });
        let (path, body) = match self {
            Self::Picture => (
                "/v1/images/generations",
                serde_json::json!({ "model": MODEL, "prompt": "x", "size": "64x64" }),
            ),
            Self::NativePicture => ("/text-to-image", picture(64)),
            Self::Chat { stream } => ("/v1/chat/completions", chat(stream)),
            Self::NativeChat { stream } => ("/llm", chat(stream)),
            Self::Impossible => ("/text-to-image", picture(100_000)),
            Self::Nonsense => (
                "/v1/chat/completions",
                serde_json::json!({ "model": MODEL }),
            ),
        };
        let url = Url::parse(&format!("http://{DOOR}{path}")).expect("a URL");
        let mut request = Request::new(Method::Post, url)
            .header("content-type", "application/json")
            .body(Body::Full(body.to_string().into()));
        request.peer = "192.0.2.1".parse().ok();
        request
    }
}

/// A caller with its request.
struct Sent {
    kind: Kind,
    caller: Node<Caller>,
    exchange: EffectId,
    vanished: bool,
}

/// Things that happen.
enum Due {
    Call,
    /// The n-th caller goes away.
    Vanish(usize),
    /// The n-th orchestrator is gone, or back.
    Dies(usize),
    Returns(usize),
    /// Every connection to the n-th orchestrator breaks.
    Cut(usize),
}

struct Play {
    dice: Rng,
    world: World,
    door: Door,
    /// Whether all goes well.
    calm: bool,
    agenda: Agenda<Due>,
    sent: Vec<Sent>,
}

fn quirks(dice: &mut Rng) -> Quirks {
    let runner = |mishap| Quirks {
        runner: Some(mishap),
        ..Quirks::default()
    };
    match dice.below(10) {
        0 => Quirks {
            silent: true,
            ..Quirks::default()
        },
        1 => Quirks {
            busy: true,
            ..Quirks::default()
        },
        2 => Quirks {
            stale_every: std::num::NonZeroU32::new(7),
            ..Quirks::default()
        },
        3 => runner(Mishap::Answers(503, "overloaded".into())),
        4 => runner(Mishap::Answers(500, "cuda".into())),
        5 => runner(Mishap::NotJson),
        6 => runner(Mishap::Breaks),
        _ => Quirks::default(),
    }
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut dice = Rng::new(seeds::seed(seed));
        let payee = [Payee::Nobody, Payee::Signer, Payee::OwnKey][dice.below(3) as usize];
        let calm = dice.below(4) == 0;
        let configs = (0..ORCHESTRATORS).map(|n| {
            // The first one is good, and cannot die.
            let quirks = match n > 0 && !calm {
                true => quirks(&mut dice),
                false => Quirks::default(),
            };
            let model = BatchModel {
                capacity: 64,
                takes: Duration::from_millis(50),
                pace: Duration::from_millis(1 + dice.below(20)),
                ..BatchModel::default()
            };
            config(n, payee, PIPELINES[0], quirks).with_batch_model(PIPELINES[1], MODEL, model)
        });
        let mut world = World::new(seeds::seed(seed), configs.collect());
        for n in 0..ORCHESTRATORS {
            let link = world.net.link(&service(n).authority());
            link.latency = Duration::from_millis(1 + dice.below(8));
            link.jitter = Duration::from_millis(dice.below(4));
        }
        let door = world.door(&PIPELINES, MODEL, payee);
        let mut play = Self {
            dice,
            world,
            door,
            calm,
            agenda: Agenda::default(),
            sent: Vec::new(),
        };
        play.plan();
        play
    }

    fn later(&mut self, within: u64, what: Due) {
        let at = self.world.net.now() + Duration::from_millis(self.dice.below(within));
        self.agenda.enter(at, what);
    }

    fn plan(&mut self) {
        for _ in 0..REQUESTS {
            self.later(2_000, Due::Call);
        }
        if self.calm {
            return;
        }
        for _ in 0..self.dice.below(5) {
            let n = 1 + self.dice.below(ORCHESTRATORS as u64 - 1) as usize;
            self.later(2_500, Due::Dies(n));
            self.later(6_000, Due::Returns(n));
        }
        for _ in 0..self.dice.below(3) {
            let n = self.dice.below(ORCHESTRATORS as u64) as usize;
            self.later(2_500, Due::Cut(n));
        }
    }

    fn happen(&mut self, what: Due) {
        match what {
            Due::Call => self.call(),
            Due::Vanish(n) => {
                let sent = &mut self.sent[n];
                sent.vanished = true;
                let id = sent.exchange;
                let leave = |caller: &mut Caller, _| caller.step(id, Out::Abort);
                self.world.net.with(sent.caller, leave);
            }
            Due::Dies(n) => {
                let authority = service(n).authority();
                self.world.net.link(&authority).down = true;
                self.world.net.cut(&authority);
            }
            Due::Returns(n) => self.world.net.link(&service(n).authority()).down = false,
            Due::Cut(n) => self.world.net.cut(&service(n).authority()),
        }
    }

    fn call(&mut self) {
        let kind = Kind::draw(&mut self.dice);
        let caller = self.world.net.add(Caller::default());
        let mut words = 1 + self.dice.below(60);
        if !self.calm && self.dice.below(4) == 0 {
            // Some are so slow that a long stream has to wait for them.
            self.world
                .net
                .slow_down(caller, 2_000 + self.dice.below(60_000));
            words = if self.dice.below(8) == 0 {
                1_500
            } else {
                words
            };
        }
        let request = kind.request(words);
        let send = |caller: &mut Caller, _: Time| caller.send(request);
        let exchange = self.world.net.with(caller, send);
        if !self.calm && self.dice.below(4) == 0 {
            let n = self.sent.len();
            self.later(400, Due::Vanish(n));
        }
        self.sent.push(Sent {
            kind,
            caller,
            exchange,
            vanished: false,
        });
    }

    /// Lets time pass until `done`, at most `patience`. Says whether it came to that.
    fn run(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.world.net.now() + patience;
        while !done(self) {
            let next = self.agenda.next().map_or(end, |at| at.min(end));
            if self.world.pass_at(&mut self.door, next) {
                continue;
            }
            if self.agenda.next().is_none_or(|at| at > next) {
                return done(self);
            }
            let what = self.agenda.pop().expect("it was just seen");
            self.happen(what);
        }
        true
    }

    fn is_over(&self) -> bool {
        let net = &self.world.net;
        let over =
            |sent: &Sent| sent.vanished || net.get(sent.caller).answer(sent.exchange).is_over();
        self.agenda.next().is_none() && self.sent.iter().all(over)
    }

    /// Every caller that stayed has an answer of the right kind.
    fn check_answers(&self) {
        for Sent {
            kind,
            caller,
            exchange,
            vanished,
        } in &self.sent
        {
            let answer = self.world.net.get(*caller).answer(*exchange);
            if *vanished {
                continue;
            }
            let text = answer.text();
            let status = answer
                .status
                .unwrap_or_else(|| panic!("{kind:?}: {answer:?}"));
            let told = match kind {
                Kind::Impossible | Kind::Nonsense => {
                    let refused = (400..500).contains(&status);
                    // Where nobody good can be reached, nobody says that the picture is impossible.
                    let nobody = !self.calm && *kind == Kind::Impossible && status == 503;
                    assert!(refused || nobody, "{kind:?}: {status} {text}");
                    continue;
                }
                _ if status != 200 => {
                    assert!(!self.calm && status >= 500, "{kind:?}: {status} {text}");
                    continue;
                }
                kind if kind.is_stream() => {
                    let whole =
                        text.ends_with("data: [DONE]") || text.contains("finish_reason\":\"stop");
                    let broken = answer.fault.is_some() || text.contains("error");
                    assert!(whole || !self.calm && broken, "{kind:?}: {text}");
                    continue;
                }
                _ => serde_json::from_str::<Value>(&text).expect("JSON"),
            };
            let name = match kind {
                Kind::Picture => "data",
                Kind::NativePicture => "images",
                _ => "choices",
            };
            let list = told[name].as_array();
            assert_eq!(list.map(Vec::len), Some(1), "{kind:?}: {text}");
        }
    }

    /// Every request is over once, with work wanted for it at most once, and what callers are told to pay was charged.
    fn check_money(&self) {
        let log = &self.door.log;
        let over: BTreeSet<_> = log.finished.keys().copied().collect();
        assert!(log.wanted.is_subset(&over), "each that wanted work is over");
        assert_eq!(over.len(), self.sent.len(), "each is over");
        let mut costs: BTreeMap<Url, Amount> = BTreeMap::new();
        for summary in log.finished.values() {
            if let (Outcome::Answered | Outcome::Broken, Some(served)) =
                (summary.outcome, &summary.served)
            {
                *costs.entry(served.url.clone()).or_default() += &served.cost;
            }
        }
        let charged = worked(&self.world);
        for n in 0..ORCHESTRATORS {
            let at = service(n);
            let cost = costs.remove(&at).unwrap_or_default();
            let fees: Amount = charged.get(&n).into_iter().flatten().cloned().sum();
            assert!(cost <= fees, "{at}: callers pay {cost} for {fees}");
            if self.calm {
                assert_eq!(cost, fees, "{at}: somebody was charged twice");
            }
        }
        assert!(costs.is_empty(), "others were paid: {costs:?}");
        for (pipeline, batch) in &self.door.batches {
            let name = format!("{}_{MODEL}", pipeline.capability().id());
            for (n, node) in self.world.orchestrators.iter().enumerate() {
                let payments = self.world.net.get(*batch).payments(&service(n));
                let ours = payments.and_then(|payments| payments.balance().cloned());
                let theirs = self.world.net.get(*node).balance(self.world.payer, &name);
                let (ours, theirs) = (
                    ours.unwrap_or_default(),
                    theirs.cloned().unwrap_or_default(),
                );
                assert!(
                    ours <= theirs,
                    "{n}: we count on {ours}, and there is {theirs}"
                );
            }
        }
    }
}

/// Plays a seed; how often a client was too slow, and how many jobs nobody waited for any more.
fn play(seed: u64) -> (usize, usize) {
    let mut play = Play::new(seed);
    assert!(
        play.run(secs(600), Play::is_over),
        "somebody waits for ever"
    );
    // Jobs that nobody waits for are given up at once.
    play.run(secs(2), |_| false);
    assert_eq!(play.door.jobs(&play.world.net), 0, "a job for nobody");
    play.check_answers();
    play.check_money();
    let front = play.door.front;
    let door = play.world.net.get(front);
    assert_eq!((door.in_flight(), door.held()), (0, 0));
    play.world.net.with(front, |front, now| front.drain(now));
    assert!(
        play.run(secs(60), |play| play.door.log.drained),
        "it drains"
    );
    for batch in play.door.batches.values().copied().collect::<Vec<_>>() {
        assert_eq!(play.world.net.get(batch).pool().lent(), 0, "a lease is out");
        play.world.net.with(batch, |batch, now| batch.close(now));
        assert_eq!(play.world.net.under_way(batch), 0, "an exchange is open");
    }
    (play.door.log.full, play.door.log.given_up)
}

#[test]
fn every_caller_is_answered_once_and_nobody_is_charged_twice_whoever_dies_vanishes_or_is_slow() {
    let played = seeds::play("DOOR", &seeds::wanted("DOOR", &[654], 12), play);
    let (full, given_up): (Vec<usize>, Vec<usize>) = played.into_iter().unzip();
    let (full, given_up): (usize, usize) = (full.iter().sum(), given_up.iter().sum());
    println!("{full} times a client was too slow, {given_up} jobs were given up");
    assert!(seeds::alone("DOOR").is_some() || given_up > 0);
}
