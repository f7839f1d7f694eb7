//! Wishes of a runner about a session, and an orchestrator that answers as it likes.

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::http::{Headers, In, Out, Request, Response, Url};
use livepeer_core::job::runner::{Ask, Config, SessionCall, SessionEvent, Told};
use livepeer_core::wire::app::registration::SessionControl;
use livepeer_core::{Effect, EffectId, Time};
use serde_json::json;

use super::Reel;
use super::ours::fault;
use super::reel::count_all;
use crate::{Driven, Exchanges};

/// A step of the play.
#[derive(Clone, Debug)]
pub enum Step {
    /// The answer comes whole, of that kind and that content.
    Answer(u8, u8),
    /// The head of an answer comes, and no more.
    Head,
    /// The exchange breaks, or never came about.
    Fail(bool),
    /// Time passes: so many tenths of a second, to the second power.
    Pass(u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(8) {
            0..=3 => Self::Answer(reel.byte(), reel.byte()),
            4 => Self::Head,
            5 => Self::Fail(reel.below(2) == 0),
            _ => Self::Pass(reel.below(10)),
        }
    }
}

/// Plays steps against a wish.
#[derive(Debug)]
pub struct Player {
    now: Time,
    book: Exchanges,
    machine: SessionCall,
    /// How many channels are named.
    count: usize,
    open: Option<EffectId>,
    asked: usize,
    over: bool,
    /// How often each event was told.
    seen: BTreeMap<String, u32>,
}

fn home() -> Url {
    Url::parse("https://orch:8935/runner/r/session/s").expect("a URL")
}

impl Player {
    /// A wish of that kind.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn new(flavour: u8) -> Self {
        let count = 1 + usize::from(flavour / 4 % 25);
        let names = (0..count).map(|n| format!("c{n}"));
        let ask = match flavour % 4 {
            0 => Ask::Channels(names.map(|name| (name, "a/b".into())).collect()),
            1 => Ask::NoChannels(names.collect()),
            2 => Ask::Proxy(Some("http://10.0.0.2:9000/ui".into()).filter(|_| flavour & 4 == 0)),
            _ => Ask::Stop,
        };
        let now = Time::from_secs(1_790_000_000);
        let to = SessionControl {
            url: home(),
            token: "token".into(),
        };
        let machine = SessionCall::new(now, &Config::default(), &to, ask);
        let mut player = Self {
            now,
            book: Exchanges::default(),
            machine: machine.expect("a wish"),
            count,
            open: None,
            asked: 0,
            over: false,
            seen: BTreeMap::new(),
        };
        player.drain();
        player
    }

    /// Plays one; whether the wish has an answer.
    ///
    /// # Panics
    /// If an invariant breaks.
    pub fn play(&mut self, step: &Step) -> bool {
        match (step, self.open) {
            (Step::Pass(tenths), _) => {
                let tenths = u64::from(*tenths);
                self.pass(Duration::from_millis(tenths * tenths * 100));
            }
            (Step::Answer(kind, what), Some(id)) => {
                let (status, body) = answer(*kind, *what, self.count);
                for step in [
                    In::Reply(Response::new(status)),
                    In::Data(body.into()),
                    In::End(Headers::new()),
                ] {
                    if self.open.is_some() {
                        if matches!(step, In::End(_)) {
                            self.open = None;
                        }
                        self.http(id, step);
                    }
                }
            }
            (Step::Head, Some(id)) => self.http(id, In::Reply(Response::new(200))),
            (Step::Fail(connected), Some(id)) => {
                self.open = None;
                self.http(id, In::Failed(fault(*connected)));
            }
            (_, None) => {}
        }
        self.over
    }

    /// Ends the play: nobody answers any more.
    ///
    /// # Panics
    /// If it does not end.
    pub fn finish(&mut self) {
        self.pass(Duration::from_secs(10));
        assert!(self.over && self.open.is_none() && self.asked == 1);
    }
}

/// Makes an answer to somebody who named so many channels.
fn answer(kind: u8, what: u8, count: usize) -> (u16, String) {
    let at = match what % 4 {
        0 => "http://127.0.0.1:2375/c",
        1 => "https://elsewhere:8935/c",
        _ => "https://orch:8935/ai/trickle/c",
    };
    let channel = json!({"name": "c", "channel_name": "s-c", "url": at, "mime_type": "a/b"});
    let told = match kind % 8 {
        0 => return (404, "runner session not found".into()),
        1 => return (401, "invalid authorization".into()),
        2 => return (200, " ".repeat((256 << 10) + 1)),
        3 => return (200, "garbage".into()),
        4 => json!({"deleted": vec!["c"; usize::from(what)]}),
        5 => json!({"proxy_id": "p", "url": at}),
        _ if kind & 8 == 0 => json!({"channels": vec![channel; usize::from(what / 4 % 32)]}),
        _ => json!({"channels": vec![channel; count]}),
    };
    (200, told.to_string())
}

impl Driven for Player {
    crate::driven!(machine: SessionCall, book);

    fn is_over(&self) -> bool {
        self.over
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(Request { url, headers, .. })) => {
                assert!(!self.over && url.is_same_origin(&home()), "{url}");
                assert_eq!(headers.get("livepeer-session-token"), Some("token"));
                self.asked += 1;
                assert_eq!(self.asked, 1, "nothing is asked twice");
                self.open = Some(id);
            }
            Effect::Http(Out::Abort) => self.open = None,
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: SessionEvent) {
        assert!(!self.over, "{event:?} after the last event");
        self.over = true;
        let kind = match event {
            SessionEvent::Done(Told::Channels(channels)) => {
                for channel in channels {
                    assert_ne!(channel.url.host(), "127.0.0.1", "what peers name is judged");
                }
                "Channels"
            }
            SessionEvent::Done(Told::NoChannels(_)) => "NoChannels",
            SessionEvent::Done(Told::Proxy(_)) => "Proxy",
            SessionEvent::Done(_) => "Stopped",
            _ => "Failed",
        };
        *self.seen.entry(kind.to_owned()).or_default() += 1;
    }
}

/// Plays what the bytes say. Returns how often each event was told.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    Reel::new(data).play_each(Player::new, |player, reel| match reel {
        Some(reel) => player.play(&Step::read(reel)),
        None => {
            player.finish();
            count_all(&mut seen, &player.seen);
            true
        }
    });
    seen
}
