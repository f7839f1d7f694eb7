//! Discovery against scripted endpoints under virtual time, and the recorded contract calls.

mod chain;
mod kinds;
mod lists;
mod precedence;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::discovery::contracts::{self, Contract};
use livepeer_core::discovery::{
    ChainSource, Combine, Config, Discovery, Event, Order, Origin, SIGNER_HEDGE, Source, Wishes,
    plan, subgraph_url,
};
use livepeer_core::http::{self, Body, Fault, Headers, Out, Reach, Response, Url};
use livepeer_core::wire::Token;
use livepeer_core::wire::listing::{Found, StatsFields};
use livepeer_core::{Address, Cause, Effect, EffectId, Input, Machine, Party, Time};
use livepeer_sim::{Driven, Exchanges};
use serde_json::{Value, json};

use crate::peers::{unhex, url};
use crate::{cases, counted};

const START: Time = Time::from_secs(9_000);

/// Status, headers and body; or silence.
type Answer = Option<(u16, Vec<(&'static str, String)>, Vec<u8>)>;

/// Answers a request.
type Script = Box<dyn FnMut(&http::Request) -> Answer>;

struct Bench<M: Machine> {
    machine: M,
    now: Time,
    book: Exchanges,
    script: Script,
    asked: Vec<http::Request>,
    events: Vec<M::Event>,
}

impl<M: Machine> Bench<M> {
    fn new(machine: M, script: impl FnMut(&http::Request) -> Answer + 'static) -> Self {
        let mut this = Self {
            machine,
            now: START,
            book: Exchanges::default(),
            script: Box::new(script),
            asked: Vec::new(),
            events: Vec::new(),
        };
        this.drain();
        this
    }

    fn answer(&mut self, id: EffectId, answer: Answer) {
        let Some((status, headers, body)) = answer else {
            return;
        };
        let mut steps = Vec::new();
        if status == 0 {
            steps.push(http::In::Failed(Fault::Connect("refused".into())));
        } else {
            let mut head = Response::new(status);
            for (name, value) in headers {
                head = head.header(name, value);
            }
            steps.push(http::In::Reply(head));
            for piece in body.chunks(1 << 20) {
                steps.push(http::In::Data(Bytes::copy_from_slice(piece)));
            }
            steps.push(http::In::End(Headers::new()));
        }
        for step in steps {
            self.feed(Input::Http(id, step));
        }
    }

    /// Sleeps exactly until the machine wants to be woken.
    fn nap(&mut self) {
        self.now = self.drain().expect("it waits for a time");
        self.input(Input::Tick);
    }

    fn secs(&mut self, secs: u64) {
        self.pass_millis(1_000 * secs);
    }
}

impl<M: Machine> Driven for Bench<M> {
    livepeer_sim::driven!(machine: M, book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match effect {
            Effect::Http(Out::Request(request)) => {
                let answer = (self.script)(&request);
                self.asked.push(request);
                self.answer(id, answer);
            }
            Effect::Http(Out::Abort) => {}
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: M::Event) {
        self.events.push(event);
    }
}

impl Bench<Discovery> {
    /// Discovery from these sources with the usual settings.
    fn of(
        sources: Vec<(Origin, Source)>,
        script: impl FnMut(&http::Request) -> Answer + 'static,
    ) -> Self {
        let machine = Discovery::new(START, Config::default(), sources);
        Self::new(machine, script)
    }

    fn found(&mut self) -> Vec<Found> {
        let at = self
            .events
            .iter()
            .rposition(|event| matches!(event, Event::Found(_)));
        match self.events.remove(at.expect("something is found")) {
            Event::Found(found) => found,
            _ => unreachable!("it was just found"),
        }
    }

    fn hosts(&mut self) -> Vec<String> {
        self.found()
            .iter()
            .map(|found| found.url.host().to_string())
            .collect()
    }
}

fn endpoints(urls: &[&str]) -> Vec<(Origin, Source)> {
    let source = |text: &&str| {
        let source = Source::Endpoint {
            url: url(text),
            headers: Headers::new(),
        };
        (Origin::Endpoint, source)
    };
    urls.iter().map(source).collect()
}

fn ok(body: &Value) -> Answer {
    Some((200, vec![], body.to_string().into_bytes()))
}

fn list(hosts: &[&str]) -> Answer {
    let all: Vec<Value> = hosts
        .iter()
        .map(|host| json!({"address": format!("https://{host}:8935")}))
        .collect();
    ok(&Value::Array(all))
}
