//! A price feed whose endpoints and contract answer as they like.

use std::time::Duration;

use livepeer_core::http::{Fault, In, Out, Trust, Url};
use livepeer_core::onchain::PriceFeed;
use livepeer_core::onchain::feed::{Config, Event, Reading};
use livepeer_core::{Address, Effect, EffectId, Time};

use super::Reel;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// The owner follows the n-th contract.
    Follow(u8),
    /// The owner wants no price any more.
    Stop,
    /// There are so many endpoints now.
    Endpoints(u8),
    /// The question is answered with a status, and by a contract with that description, answer and age.
    Answer(u8, u8, u8, u8),
    /// The question is answered with these bytes.
    Raw(Vec<u8>),
    /// The exchange breaks.
    Fail,
    /// Time passes: so many seconds, to the second power.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(12) {
            0 => Self::Follow(reel.below(3)),
            1 if reel.below(4) == 0 => Self::Stop,
            1..=6 => Self::Answer(reel.byte(), reel.byte(), reel.byte(), reel.byte()),
            7 => {
                let count = reel.below(40);
                Self::Raw((0..count).map(|_| reel.byte()).collect())
            }
            8 => Self::Fail,
            9 => Self::Endpoints(reel.byte()),
            _ => Self::Pass(reel.byte()),
        }
    }
}

const DESCRIPTIONS: [&str; 8] = [
    "ETH / USD",
    "ETH / USD",
    "ETH/usd",
    "USD / ETH",
    "BTC / USD",
    "ETH / USD / X",
    "",
    "\u{1f4b0}",
];

/// The answers of a contract, below zero and beyond 64 bits too.
const ANSWERS: [i128; 6] = [345_612_345_678, 200_000_000_000, 1, 0, -5, i128::MAX];

fn word(number: i128) -> String {
    let fill = if number < 0 { "ff" } else { "00" };
    fill.repeat(16) + &format!("{number:032x}")
}

fn body(now: Time, description: u8, answer: u8, age: u8) -> String {
    let text = DESCRIPTIONS[usize::from(description) % DESCRIPTIONS.len()];
    let coded: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let answer = ANSWERS[usize::from(answer) % ANSWERS.len()];
    let updated = i128::from(now.as_secs()) + 7_200 - 600 * i128::from(age);
    let decimals = if age == 13 { 78 } else { 8 };
    let answered_in = i128::from(age != 7);
    let results = [
        "a4b1".to_owned(),
        word(32) + &word(text.len() as i128) + &format!("{coded:0<64}"),
        word(decimals),
        [1, answer, 1, updated, answered_in].map(word).concat(),
    ];
    let answer = |(id, result)| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"0x{result}"}}"#);
    let answers: Vec<String> = results.into_iter().enumerate().map(answer).collect();
    format!("[{}]", answers.join(","))
}

fn endpoints(count: u8) -> Vec<Url> {
    let url = |n| Url::parse(&format!("https://rpc{n}/key")).expect("a URL");
    (0..count % 3).map(url).collect()
}

/// Plays steps against a price feed.
#[derive(Debug)]
pub struct Player {
    now: Time,
    book: Exchanges,
    machine: PriceFeed,
    /// The question that is not answered yet.
    open: Option<EffectId>,
    following: bool,
    last: Option<Reading>,
    told_stale: bool,
}

impl Player {
    /// A feed with so many endpoints.
    #[must_use]
    pub fn new(count: u8) -> Self {
        let now = Time::from_secs(1_787_078_840);
        let config = Config {
            endpoints: endpoints(count),
            chain_id: 42_161,
            trust: Trust::Public,
        };
        Self {
            now,
            book: Exchanges::default(),
            machine: PriceFeed::new(now, config),
            open: None,
            following: false,
            last: None,
            told_stale: false,
        }
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Follow(n) => {
                self.machine.follow(self.now, Address([*n; 20]));
                self.following = true;
                self.last = self.machine.reading().cloned();
                self.drain();
            }
            Step::Stop => {
                self.machine.stop(self.now);
                (self.following, self.last) = (false, None);
                self.drain();
                assert!(self.open.is_none(), "left open");
            }
            Step::Endpoints(count) => {
                self.machine.set_endpoints(self.now, endpoints(*count));
                self.drain();
            }
            Step::Answer(status, description, answer, age) => {
                if let Some(id) = self.open.take() {
                    let status = [200, 200, 200, 200, 429, 500, 413][usize::from(status % 7)];
                    let body = body(self.now, *description, *answer, *age);
                    self.respond(id, status, body);
                }
            }
            Step::Raw(body) => {
                if let Some(id) = self.open.take() {
                    self.respond(id, 200, body.clone());
                }
            }
            Step::Fail => {
                if let Some(id) = self.open.take() {
                    self.http(id, In::Failed(Fault::Broken("reset".into())));
                }
            }
            Step::Pass(seconds) => {
                let seconds = u64::from(*seconds);
                self.leap(Duration::from_secs(seconds * seconds));
            }
        }
    }

    /// Ends the play: nobody answers any more, and the owner stops.
    ///
    /// # Panics
    /// If the machine does not.
    pub fn finish(&mut self) {
        self.leap(Duration::from_secs(3 * 24 * 3_600));
        self.machine.stop(self.now);
        self.last = None;
        assert_eq!(self.drain(), None, "nothing is due");
        assert!(self.open.is_none());
    }
}

impl Driven for Player {
    crate::driven!(machine: PriceFeed, book);

    const MAX_OUTPUTS: usize = 1_000;

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(_)) => {
                assert!(self.following, "nobody wants a price");
                assert!(self.open.replace(id).is_none(), "one question at a time");
            }
            Effect::Http(Out::Abort) => self.open = self.open.filter(|open| *open != id),
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Priced(read) => {
                assert!(read.wei_per_usd.is_positive());
                let newer = |last: &Reading| last.updated_at < read.updated_at;
                assert!(self.last.as_ref().is_none_or(newer), "no news");
                self.last = Some(read);
                self.told_stale = false;
            }
            Event::Stale(_) => assert!(!std::mem::replace(&mut self.told_stale, true), "told once"),
            _ => {}
        }
    }

    fn idle(&mut self, wake: Option<Time>) {
        assert!(
            self.open.is_none() || wake.is_some(),
            "it waits without a deadline"
        );
        assert_eq!(
            self.machine.reading(),
            self.last.as_ref(),
            "the last good one stays"
        );
    }
}

/// Plays what the bytes say: the endpoints, then steps.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    reel.play(Step::read, |step| player.play(step));
    player.finish();
}
