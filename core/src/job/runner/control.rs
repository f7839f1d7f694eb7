//! Requests of a runner about a session that it has: channels, addresses, its end (client-1.0 2.8).
//!
//! ```text
//!   Asking ── the answer, or none in time ──▶ Over
//! ```
//! Nothing is asked twice by itself: channels and the end may be asked for again without harm, an address would be a
//! second one.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Config, WITHIN, refused};
use crate::error::{Cause, Failure, Party};
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{Body, Method, Request, Url};
use crate::machine::{Input, Machine, Outbox, Output};
use crate::time::Time;
use crate::wire::WireError;
use crate::wire::app::SESSION_TOKEN_HEADER;
use crate::wire::app::registration::{
    ChannelInfo, MAX_CHANNELS, Proxy, SessionControl, channels_json, proxy_json, read_channels,
    read_removed, removed_json,
};

/// At most this many bytes of an answer are read.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// At most this many bytes has the name of a channel, or its type.
const MAX_NAME_BYTES: usize = 256;

/// A wish about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Channels of these names and types; a name that the session has already is the same channel.
    Channels(Vec<(String, String)>),
    /// An end to the channels of these names.
    NoChannels(Vec<String>),
    /// An address that nobody guesses: of this program on the runner's host, or of the runner.
    Proxy(Option<String>),
    /// The end of the session.
    Stop,
}

/// Why a wish cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadAsk {
    /// No channel is named, or too many are.
    #[error("name 1 to {MAX_CHANNELS} channels at once, not {0}")]
    Count(usize),
    /// A channel cannot be called that.
    #[error("{0:?} is no name of a channel: it has 1 to {MAX_NAME_BYTES} bytes")]
    Name(String),
    /// An address cannot lead there.
    #[error(
        "{0:?} is no address of a program: it is an http:// or https:// URL without a fragment"
    )]
    Target(String),
}

impl Ask {
    /// Judges it before it is sent.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self) -> Result<(), BadAsk> {
        let count = |count| match count {
            1..=MAX_CHANNELS => Ok(()),
            other => Err(BadAsk::Count(other)),
        };
        let name = |name: &String| match name.len() {
            1..=MAX_NAME_BYTES => Ok(()),
            _ => Err(BadAsk::Name(name.clone())),
        };
        match self {
            Self::Channels(all) => {
                count(all.len())?;
                all.iter().try_for_each(|(one, mime_type)| {
                    name(one)?;
                    match mime_type.len() <= MAX_NAME_BYTES {
                        true => Ok(()),
                        false => Err(BadAsk::Name(mime_type.clone())),
                    }
                })
            }
            Self::NoChannels(all) => {
                count(all.len())?;
                all.iter().try_for_each(name)
            }
            // An orchestrator of the reference takes a fragment, and leads to nowhere then.
            Self::Proxy(Some(text)) if text.contains('#') || Url::parse(text).is_err() => {
                Err(BadAsk::Target(text.clone()))
            }
            Self::Proxy(_) | Self::Stop => Ok(()),
        }
    }

    const fn doing(&self) -> &'static str {
        match self {
            Self::Channels(_) => "a request for channels",
            Self::NoChannels(_) => "the end of channels",
            Self::Proxy(_) => "a request for an address",
            Self::Stop => "the end of a session",
        }
    }

    fn request(&self, to: &SessionControl, config: &Config) -> Request {
        let (method, what, body) = match self {
            Self::Channels(all) => {
                let all = all.iter().map(|(name, mime_type)| (&**name, &**mime_type));
                (Method::Post, "channels", channels_json(all))
            }
            Self::NoChannels(all) => {
                let all: Vec<_> = all.iter().map(String::as_str).collect();
                (Method::Delete, "channels", removed_json(&all))
            }
            Self::Proxy(target) => (Method::Post, "proxy", proxy_json(target.as_deref())),
            Self::Stop => (Method::Post, "stop", bytes::Bytes::new()),
        };
        let own = to.url.path().split('?').next().unwrap_or_default();
        let path = alloc::format!("{}/{what}", own.trim_end_matches('/'));
        let request = Request::new(method, to.url.with_path(&path))
            .trust(config.trust)
            .header("accept", "application/json")
            .header(SESSION_TOKEN_HEADER, to.token.as_str());
        match body.is_empty() {
            true => request,
            false => request
                .header("content-type", "application/json")
                .body(Body::Full(body)),
        }
    }
}

/// An orchestrator's answer to a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Told {
    /// The channels that were asked for, in that order.
    Channels(Vec<ChannelInfo>),
    /// The names of the channels that are gone.
    NoChannels(Vec<String>),
    /// The address.
    Proxy(Proxy),
    /// The session is over.
    Stopped,
}

/// The only event of a [`SessionCall`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// The wish is granted.
    Done(Told),
    /// The wish is refused, or the orchestrator did not answer.
    Failed(Failure),
}

/// A wish about a session, on its way.
#[doc(alias = "create_trickle_channels")]
#[doc(alias = "remove_trickle_channels")]
#[doc(alias = "create_proxy")]
#[doc(alias = "stop_runner_session")]
#[derive(Debug)]
pub struct SessionCall {
    now: Time,
    at: Url,
    ask: Ask,
    exchange: Exchange,
    out: Outbox<SessionEvent>,
}

impl SessionCall {
    /// Asks where the session is managed.
    ///
    /// # Errors
    /// If the wish cannot be sent.
    pub fn new(now: Time, config: &Config, to: &SessionControl, ask: Ask) -> Result<Self, BadAsk> {
        ask.check()?;
        let mut out = Outbox::default();
        let bounds = Bounds {
            doing: ask.doing(),
            what: "the orchestrator's answer in bytes",
            limit: MAX_ANSWER_BYTES,
            within: WITHIN,
            redirects: false,
        };
        let exchange = Exchange::start(&mut out, now, ask.request(to, config), bounds);
        Ok(Self {
            now,
            at: to.url.clone(),
            ask,
            exchange,
            out,
        })
    }

    fn answered(&mut self, answer: Result<Reply, Cause>) {
        let told = answer.and_then(|reply| self.read(&reply));
        self.out.event(match told {
            Ok(told) => SessionEvent::Done(told),
            Err(cause) => {
                SessionEvent::Failed(Failure::new(Party::Orchestrator(self.at.clone()), cause))
            }
        });
    }

    fn read(&self, reply: &Reply) -> Result<Told, Cause> {
        if !reply.is_success() {
            return Err(refused(self.ask.doing(), reply));
        }
        // Whoever keeps a channel says where it is, within bounds.
        let judged = |url: Url| {
            let judged = url.named_by(&self.at);
            judged.map_err(|forbidden| Cause::Link(forbidden.into()))
        };
        Ok(match &self.ask {
            Ask::Channels(asked) => {
                let channels = read_channels(&reply.body)?;
                if channels.len() != asked.len() {
                    let why = alloc::format!(
                        "it has {} channels in place of {}",
                        channels.len(),
                        asked.len()
                    );
                    return Err(WireError::new("list of channels", why).into());
                }
                let channels = channels.into_iter().map(|mut channel| {
                    channel.url = judged(channel.url)?;
                    channel.internal_url = channel.internal_url.map(judged).transpose()?;
                    Ok(channel)
                });
                Told::Channels(channels.collect::<Result<_, Cause>>()?)
            }
            Ask::NoChannels(_) => Told::NoChannels(read_removed(&reply.body)?),
            Ask::Proxy(_) => Told::Proxy(Proxy::from_json(&reply.body)?),
            Ask::Stop => Told::Stopped,
        })
    }
}

impl Machine for SessionCall {
    type Event = SessionEvent;

    fn handle_input(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        if let Some(cause) = self.exchange.late(&mut self.out, self.now) {
            self.answered(Err(cause));
        }
        if let Input::Http(id, step) = input
            && self.exchange.owns(id)
            && let Some(answer) = self.exchange.step(&mut self.out, step)
        {
            self.answered(answer);
        }
    }

    fn poll_output(&mut self) -> Output<SessionEvent> {
        let wake = self.exchange.wake();
        self.out.pop().unwrap_or(Output::Idle(wake))
    }
}
