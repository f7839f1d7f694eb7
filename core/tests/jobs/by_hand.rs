//! The outside of a machine that a test plays by hand: requests wait until the test answers them, and our own side signs,
//! stores and counts whatever the machine wants.

use std::ops::DerefMut;

use bytes::Bytes;
use livepeer_core::chain::ChainView;
use livepeer_core::http::{Fault, Headers, In, Out, Request, Response};
use livepeer_core::payment::Payer;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::session::LocalAccount;
use livepeer_core::sign::SignRefused;
use livepeer_core::{Effect, EffectId, Input, Machine, Time};
use livepeer_sim::{Driven, Exchanges, Key};

pub(crate) struct Outside {
    pub(crate) key: Key,
    pub(crate) signs: bool,
    pub(crate) book: Exchanges,
    /// Requests that the test has to answer.
    pub(crate) asked: Vec<(EffectId, Request)>,
    /// All that was asked, as method and address.
    pub(crate) sent: Vec<String>,
    pub(crate) aborted: Vec<EffectId>,
    /// Bytes that followed the heads of requests, and how many of these said that there are no more.
    pub(crate) said: Vec<u8>,
    pub(crate) said_all: usize,
}

impl Default for Outside {
    fn default() -> Self {
        Self {
            key: Key::new(&[7; 32]),
            signs: true,
            book: Exchanges::default(),
            asked: Vec::new(),
            sent: Vec::new(),
            aborted: Vec::new(),
            said: Vec::new(),
            said_all: 0,
        }
    }
}

impl Outside {
    /// A payer with the key that signs here.
    pub(crate) fn account(&self) -> Payer {
        let policy = Policy::own_key(self.key.address());
        let account = LocalAccount::new(policy, ChainView::development(), [1; 32]);
        Payer::Account(Box::new(account))
    }

    pub(crate) fn effect(
        &mut self,
        machine: &mut impl Machine,
        now: Time,
        id: EffectId,
        effect: Effect,
    ) {
        match effect {
            Effect::Http(Out::Request(request)) => {
                self.sent.push(line(&request));
                self.asked.push((id, request));
            }
            Effect::Http(Out::Abort) => {
                self.asked.retain(|(asked, _)| *asked != id);
                self.aborted.push(id);
            }
            Effect::Http(Out::Data(bytes)) => self.said.extend_from_slice(&bytes),
            Effect::Http(Out::End(_)) => self.said_all += 1,
            Effect::Http(_) => {}
            Effect::Sign(digest) => {
                let signed = match self.signs {
                    true => Ok(self.key.sign(digest)),
                    false => Err(SignRefused("locked".into())),
                };
                machine.handle_input(now, Input::Signed(id, signed));
            }
            Effect::Store(_) => machine.handle_input(now, Input::Stored(id, Ok(()))),
            Effect::Spend(_) => machine.handle_input(now, Input::Spent(id, Ok(now))),
        }
    }

    /// The first request under way whose address, or method and address, begin so.
    pub(crate) fn find(&self, at: &str) -> Option<EffectId> {
        let fits = |(_, request): &&(EffectId, Request)| {
            line(request).starts_with(at) || request.url.to_string().starts_with(at)
        };
        self.asked.iter().find(fits).map(|(id, _)| *id)
    }

    pub(crate) fn take(&mut self, at: &str) -> (EffectId, Request) {
        let id = self
            .find(at)
            .unwrap_or_else(|| panic!("{at} was not asked: {:?}", self.sent));
        let place = self.asked.iter().position(|(asked, _)| *asked == id);
        self.asked.remove(place.expect("found"))
    }
}

fn line(request: &Request) -> String {
    format!("{} {}", request.method.as_str(), request.url)
}

/// Puts the outside of a world, its field `outside`, at the world's own hand.
macro_rules! has_outside {
    ($world:ty) => {
        impl std::ops::Deref for $world {
            type Target = Outside;

            fn deref(&self) -> &Outside {
                &self.outside
            }
        }

        impl std::ops::DerefMut for $world {
            fn deref_mut(&mut self) -> &mut Outside {
                &mut self.outside
            }
        }
    };
}
pub(crate) use has_outside;

/// A world around a machine that is played by hand.
pub(crate) trait ByHand: Driven + DerefMut<Target = Outside> {
    /// Answers the request that [`Outside::find`] finds, as far as the machine listens.
    fn reply(&mut self, at: &str, head: Response, body: impl Into<Bytes>) -> Request {
        let (id, request) = self.take(at);
        for step in [
            In::Reply(head),
            In::Data(body.into()),
            In::End(Headers::new()),
        ] {
            if !self.aborted.contains(&id) {
                self.http(id, step);
            }
        }
        request
    }

    /// Has that request fail.
    fn fail(&mut self, at: &str, fault: Fault) {
        let (id, _) = self.take(at);
        self.http(id, In::Failed(fault));
    }
}

impl<W: Driven + DerefMut<Target = Outside>> ByHand for W {}
