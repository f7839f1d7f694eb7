//! Machines made for the scenarios.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Headers, In, Out, Request, Response, SWITCHING};
use livepeer_core::spend::Spend;
use livepeer_core::store::Record;
use livepeer_core::{Digest, Effect, EffectId, Input, Machine, Outbox, Output, Time};

/// The behaviour of a [`Script`] by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habits {
    /// Tells every input as an event and does nothing unasked.
    Tell,
    /// Answers requests by their path and tells nothing:
    ///
    /// | path | answer |
    /// |---|---|
    /// | `/echo` | 200, the request's body as it comes; asked to leave HTTP: 101, and the bytes that come |
    /// | `/sink` | 200 when the body has ended, its length as text |
    /// | `/source/N` | 200, N bytes of zeros, as fast as they are taken |
    /// | `/early` | 200 at the first body byte |
    /// | `/status/N` | N, empty |
    /// | `/close` | 200, empty, `connection: close` |
    /// | `/grpc` | 200, the length of the request's body as text, and `grpc-status: 0` after it |
    /// | `/wait` | none |
    Serve,
}

/// A machine that does as it is told.
#[derive(Debug)]
pub struct Script {
    habits: Habits,
    out: Outbox<(EffectId, In)>,
    serving: BTreeMap<EffectId, Serving>,
    alarms: Vec<(Time, EffectId)>,
    /// The times when alarms were due, and when they went off.
    pub rung: Vec<(Time, Time)>,
    /// Outcomes of signing and storing.
    pub answers: Vec<String>,
    /// How many exchanges peers opened.
    pub requests: usize,
    /// How many of them failed.
    pub failures: usize,
}

#[derive(Debug)]
struct Serving {
    path: String,
    received: usize,
    /// Bytes still to send, and on their way.
    to_send: usize,
    in_flight: usize,
    replied: bool,
    /// The end of the request is still to come, and of what follows it the beginning.
    asks: bool,
}

/// How much a source has on its way.
const WINDOW: usize = 1 << 20;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Script {
    /// A machine with these habits.
    #[must_use]
    pub fn new(habits: Habits) -> Self {
        Self {
            habits,
            out: Outbox::default(),
            serving: BTreeMap::new(),
            alarms: Vec::new(),
            rung: Vec::new(),
            answers: Vec::new(),
            requests: 0,
            failures: 0,
        }
    }

    pub(super) fn open(&mut self, request: Request) -> EffectId {
        self.out.request(request)
    }

    pub(super) fn step(&mut self, id: EffectId, step: Out) {
        self.out.http(id, step);
    }

    pub(super) fn sign(&mut self, digest: Digest) -> EffectId {
        self.out.open(Effect::Sign(digest))
    }

    pub(super) fn store(&mut self, key: &str) -> EffectId {
        self.out.open(Effect::Store(Record {
            key: key.into(),
            value: Some(Bytes::from_static(b"kept")),
        }))
    }

    pub(super) fn spend(&mut self, spend: Spend) -> EffectId {
        self.out.open(Effect::Spend(spend))
    }

    pub(super) fn spend_no_more(&mut self, id: EffectId) {
        self.out.forward(id, Effect::Spend(Spend::Cancel));
    }

    pub(super) fn wake_in(&mut self, now: Time, after: Duration) {
        self.alarms.push((now + after, EffectId::by_peer(0)));
        self.alarms.sort();
    }

    fn serve(&mut self, id: EffectId, step: In) {
        match step {
            In::Request(request) => {
                self.requests += 1;
                let path = request.url.path().to_owned();
                let number = || -> usize {
                    let digits = path.rsplit('/').next().unwrap_or_default();
                    digits.parse().unwrap_or_default()
                };
                let mut to_send = 0;
                if path.starts_with("/status/") {
                    let reply = Response::new(number() as u16);
                    return self.out.http(id, Out::Reply(reply));
                } else if path == "/close" {
                    let reply = Response::new(200).header("connection", "close");
                    return self.out.http(id, Out::Reply(reply));
                } else if path.starts_with("/source/") {
                    to_send = number();
                }
                let replied = path == "/echo" || path.starts_with("/source/");
                let asks = request.upgrade();
                if replied {
                    let reply = match asks {
                        Some(protocol) => Response::new(SWITCHING).header("upgrade", protocol),
                        None => Response::new(200),
                    };
                    self.out.http(id, Out::Reply(reply.body(Body::Stream)));
                }
                let serving = Serving {
                    path,
                    received: 0,
                    to_send,
                    in_flight: 0,
                    replied,
                    asks: asks.is_some(),
                };
                self.serving.insert(id, serving);
                self.send(id);
            }
            In::Data(data) => {
                let Some(serving) = self.serving.get_mut(&id) else {
                    return;
                };
                serving.received += data.len();
                if serving.path == "/echo" {
                    self.out.http(id, Out::Data(data));
                } else if serving.path == "/early" && !serving.replied {
                    serving.replied = true;
                    let reply = Response::new(200).body(Body::Full(Bytes::from_static(b"enough")));
                    self.out.http(id, Out::Reply(reply));
                }
            }
            In::Sent(bytes) => {
                if let Some(serving) = self.serving.get_mut(&id) {
                    serving.in_flight = serving.in_flight.saturating_sub(bytes);
                }
                self.send(id);
            }
            In::End(_) => {
                let Some(serving) = self.serving.get_mut(&id) else {
                    return;
                };
                if std::mem::take(&mut serving.asks) {
                    return;
                }
                let length = Bytes::from(serving.received.to_string());
                match serving.path.as_str() {
                    "/echo" => self.out.http(id, Out::End(Headers::new())),
                    "/sink" => {
                        let reply = Response::new(200).body(Body::Full(length));
                        self.out.http(id, Out::Reply(reply));
                    }
                    "/grpc" => {
                        let mut trailers = Headers::new();
                        trailers.push("grpc-status", "0");
                        let reply = Response::new(200).body(Body::Stream);
                        self.out.http(id, Out::Reply(reply));
                        self.out.http(id, Out::Data(length));
                        self.out.http(id, Out::End(trailers));
                    }
                    _ => {}
                }
            }
            In::Failed(_) => {
                self.failures += 1;
                self.serving.remove(&id);
            }
            In::Reply(_) => {}
        }
    }

    fn send(&mut self, id: EffectId) {
        let Some(serving) = self.serving.get_mut(&id) else {
            return;
        };
        if !serving.path.starts_with("/source/") {
            return;
        }
        while serving.to_send > 0 && serving.in_flight < WINDOW {
            let n = serving.to_send.min(ZEROS.len());
            serving.to_send -= n;
            serving.in_flight += n;
            self.out
                .http(id, Out::Data(Bytes::from_static(&ZEROS[..n])));
        }
        if serving.to_send == 0 {
            self.serving.remove(&id);
            self.out.http(id, Out::End(Headers::new()));
        }
    }
}

impl Machine for Script {
    type Event = (EffectId, In);

    fn handle_input(&mut self, now: Time, input: Input) {
        while let Some((at, _)) = self.alarms.first().copied()
            && at <= now
        {
            self.alarms.remove(0);
            self.rung.push((at, now));
        }
        match (input, self.habits) {
            (Input::Http(id, step), Habits::Tell) => self.out.event((id, step)),
            (Input::Http(id, step), Habits::Serve) => self.serve(id, step),
            (Input::Signed(id, answer), _) => {
                self.answers
                    .push(format!("signed {id:?} {}", answer.is_ok()));
            }
            (Input::Stored(id, answer), _) => {
                self.answers
                    .push(format!("stored {id:?} {}", answer.is_ok()));
            }
            (Input::Spent(id, answer), _) => {
                self.answers
                    .push(format!("spent {id:?} {}", answer.is_ok()));
            }
            (Input::Tick, _) => {}
        }
    }

    fn poll_output(&mut self) -> Output<(EffectId, In)> {
        self.out
            .pop()
            .unwrap_or_else(|| Output::Idle(self.alarms.first().map(|(at, _)| *at)))
    }
}
