//! A discovery whose sources answer as they like.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livepeer_core::discovery::{ChainSource, Combine, Config, Discovery, Event, Origin, Source};
use livepeer_core::http::{Fault, Headers, In, Out, Reach, Response, Url};
use livepeer_core::wire::listing::StatsFields;
use livepeer_core::{Effect, EffectId, Time};

use super::Reel;
use super::reel::nth;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// The owner wants it fresh.
    Refresh,
    /// The owner closes.
    Close,
    /// The n-th exchange is answered with a status and a body of ours.
    Answer(u8, u8, u8),
    /// The n-th exchange is answered with these bytes.
    Raw(u8, Vec<u8>),
    /// The n-th exchange leads elsewhere.
    Redirect(u8, u8),
    /// The n-th exchange breaks.
    Fail(u8),
    /// Time passes: so many tens of milliseconds, to the third power.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(12) {
            0 => Self::Refresh,
            1 if reel.below(10) == 0 => Self::Close,
            1..=5 => Self::Answer(reel.byte(), reel.byte(), reel.byte()),
            6 | 7 => {
                let pick = reel.byte();
                let count = reel.below(40);
                Self::Raw(pick, (0..count).map(|_| reel.byte()).collect())
            }
            8 => Self::Redirect(reel.byte(), reel.byte()),
            9 => Self::Fail(reel.byte()),
            _ => Self::Pass(reel.byte()),
        }
    }
}

/// Bodies of every source, right and wrong.
const BODIES: [&str; 15] = [
    "[]",
    r#"[{"address":"https://a:1"},{"address":"A:1"},{"address":7}]"#,
    r#"[{"address":"https://b:1","score":1,"capabilities":["x/y"],"runners":[{}]}]"#,
    r#"{"data":{"protocol":{"lastInitializedRound":{"id":"5"}}}}"#,
    r#"{"data":{"transcoders":[{"id":"0x0000000000000000000000000000000000000001","serviceURI":"https://c:1"}]}}"#,
    r#"{"errors":[{"message":"no"}]}"#,
    r#"[{"Address":"0x01","ServiceURI":"https://d:1","Active":true}]"#,
    r#"[{"id":0,"result":"0x10"},{"id":1,"result":"0x0000000000000000000000000000000000000000000000000000000000000007"},{"id":2,"result":"0x0000000000000000000000000000000000000000000000000000000000000008"}]"#,
    r#"[{"id":0,"result":"0x0000000000000000000000000000000000000000000000000000000000000009"}]"#,
    r#"[{"id":0,"result":"0x0000000000000000000000000000000000000000000000000000000000000000"}]"#,
    "null",
    "\u{0}",
    r#"[{"address":"https://127.0.0.1:6379"},{"address":"https://[fd00::1]"},{"address":"http://open:1"},{"address":"e:1"}]"#,
    r#"{"id":null,"error":{"code":-32600,"message":"too many at a time"}}"#,
    r#"{"id":0,"result":"0x0000000000000000000000000000000000000000000000000000000000000009"}"#,
];

/// Plays steps against a discovery.
#[derive(Debug)]
pub struct Player {
    now: Time,
    book: Exchanges,
    machine: Discovery,
    sources: usize,
    secret: Option<Url>,
    open: BTreeMap<EffectId, Url>,
    closed: bool,
}

impl Player {
    /// A discovery; the byte picks its sources.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let now = Time::from_secs(10_000);
        let url = |text: &str| Url::parse(text).expect("a URL");
        let mut sources = Vec::new();
        let mut headers = Headers::new();
        headers.push("authorization", "secret");
        let endpoint = url("https://endpoint/list");
        if flavour & 1 != 0 {
            let source = Source::Endpoint {
                url: endpoint.clone(),
                headers,
            };
            sources.push((Origin::Endpoint, source));
        }
        if flavour & 2 != 0 {
            sources.push((Origin::Subgraph, Source::Subgraph(url("https://graph/"))));
        }
        if flavour & 4 != 0 {
            let chain = ChainSource {
                others: vec![url("https://rpc2")],
                ..ChainSource::arbitrum(url("https://rpc"), flavour & 8 != 0)
            };
            sources.push((Origin::Chain, Source::Chain(chain)));
        }
        if flavour & 16 != 0 {
            let source = Source::Stats {
                url: url("https://stats"),
                fields: StatsFields::default(),
            };
            sources.push((Origin::Stats, source));
        }
        if flavour & 32 != 0 {
            sources.push((Origin::List, Source::List(vec![url("https://a:1")], vec![])));
        }
        let config = Config {
            combine: if flavour & 64 == 0 {
                Combine::First
            } else {
                Combine::All
            },
            refresh: (flavour & 128 == 0).then(|| Duration::from_secs(60)),
            ..Config::default()
        };
        let count = sources.len();
        let mut this = Self {
            now,
            book: Exchanges::default(),
            machine: Discovery::new(now, config, sources),
            sources: count,
            secret: Some(endpoint),
            open: BTreeMap::new(),
            closed: false,
        };
        this.drain();
        this
    }

    /// Plays one.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) {
        match step {
            Step::Refresh => {
                self.machine.refresh(self.now);
                self.drain();
            }
            Step::Close => {
                self.machine.close(self.now);
                self.drain();
                self.closed = true;
                assert!(self.open.is_empty(), "left open: {:?}", self.open);
            }
            Step::Answer(pick, status, body) => {
                if let Some(id) = self.pick(*pick) {
                    let status =
                        [200, 200, 200, 204, 404, 500, 503, 413, 429][usize::from(status % 9)];
                    let body = BODIES[usize::from(*body) % BODIES.len()].as_bytes();
                    self.respond(id, status, body);
                }
            }
            Step::Raw(pick, body) => {
                if let Some(id) = self.pick(*pick) {
                    self.respond(id, 200, body.clone());
                }
            }
            Step::Redirect(pick, place) => {
                if let Some(id) = self.pick(*pick) {
                    let places = [
                        "/next",
                        "https://elsewhere/",
                        "http://open/",
                        "::",
                        "",
                        "https://127.0.0.1:2375/",
                        "https://[64:ff9b::10.0.0.1]/",
                    ];
                    let place = places[usize::from(*place) % places.len()];
                    self.http(id, In::Reply(Response::new(302).header("location", place)));
                    self.http(id, In::End(Headers::new()));
                }
            }
            Step::Fail(pick) => {
                if let Some(id) = self.pick(*pick) {
                    self.http(id, In::Failed(Fault::Broken("reset".into())));
                }
            }
            Step::Pass(tens) => {
                let tens = u64::from(*tens);
                self.leap(Duration::from_millis(tens * tens * tens / 10));
            }
        }
    }

    /// Ends the play: nobody answers any more, the machine settles, and closes.
    ///
    /// # Panics
    /// If the machine does not.
    pub fn finish(&mut self) {
        self.settle(1_000, Duration::from_secs(600));
        self.machine.close(self.now);
        assert_eq!(self.drain(), None);
        assert!(self.open.is_empty());
    }

    fn pick(&mut self, n: u8) -> Option<EffectId> {
        let id = nth(n, self.open.keys().copied())?;
        self.open.remove(&id);
        Some(id)
    }
}

impl Driven for Player {
    crate::driven!(machine: Discovery, book);

    const MAX_OUTPUTS: usize = 1_000;

    fn is_over(&self) -> bool {
        self.closed
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(request)) => {
                assert!(!self.closed, "it asks after its end");
                let secret = self.secret.as_ref().map(Url::origin);
                assert!(
                    request.headers.get("authorization").is_none()
                        || secret == Some(request.url.origin()),
                    "the endpoint's headers are for the endpoint"
                );
                assert!(
                    request.url.clone().as_written().is_ok() && request.url.is_secure(),
                    "a redirect leads to {}",
                    request.url
                );
                self.open.insert(id, request.url);
                assert!(self.open.len() <= self.sources, "one question per source");
            }
            Effect::Http(Out::Abort) => {
                self.open.remove(&id);
            }
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        assert!(!self.closed, "{event:?} after the end");
        if let Event::Found(found) = event {
            let urls: BTreeSet<Url> = found.iter().map(|found| found.url.with_path("/")).collect();
            assert_eq!(urls.len(), found.len(), "everybody once");
            for one in &found {
                let url = one.url.clone();
                assert!(url.as_written().is_ok(), "it was told of {}", one.url);
                let own = one.url.reach() == Reach::Own;
                assert!(
                    !own || one.url.host() == "a",
                    "only the list at hand is ours"
                );
            }
        }
    }

    fn idle(&mut self, wake: Option<Time>) {
        assert!(
            self.open.is_empty() || wake.is_some(),
            "it waits without a deadline"
        );
    }
}

/// Plays what the bytes say: the sources, then steps.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) {
    let mut reel = Reel::new(data);
    let mut player = Player::new(reel.byte());
    reel.play(Step::read, |step| player.play(step));
    player.finish();
}
