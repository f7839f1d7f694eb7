//! Streams of a container (jobs spec 5): channels, the program that is told of them, and the bill.
//!
//! ```text
//!  start ──▶ checks ──▶ channels ──▶ program told ──▶ running ──▶ stop, unpaid twice, control channel gone ──▶ ended
//!              └─ refused              └─ refused: channels gone, place free
//! ```
//!
//! The container's place is taken until the stream has ended. A stream whose id is in use is refused, and the one that
//! runs is left alone; the reference closes its channels.

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::http::{Body, Method, Out, Response, Url};
use livepeer_core::machine::earlier;
use livepeer_core::money::{Amount, Price};
use livepeer_core::trickle::ContentType;
use livepeer_core::trickle::server::ReaderId;
use livepeer_core::wire::byoc::stream::{StreamChannels, read_start_body};
use livepeer_core::wire::byoc::{BALANCE_HEADER, Wishes};
use livepeer_core::{Address, EffectId, Time};
use serde_json::{Value, json};

use super::job::{About, Job, Pending, Plan, What};
use super::no;
use crate::event::Event;
use crate::paid::No;
use crate::workers::{Doer, Made, Order, Worker};
use crate::{Orchestrator, TRICKLE, account, wire};

/// A stream is billed this often.
const BILLED_EVERY: Duration = Duration::from_secs(23);

/// How often a program that is built in says that it is there.
const SIGN_EVERY: Duration = Duration::from_secs(10);

/// At most this many streams run.
const MAX_STREAMS: usize = 1_000;

/// The longest id of a stream.
const MAX_ID_BYTES: usize = 128;

/// The reference's words for an id that is in use.
const IN_USE: &str = "Error adding stream to external capabilities";

/// A stream that runs.
pub(crate) struct Stream {
    container: String,
    payer: Address,
    price: Price,
    channels: Vec<String>,
    /// The reader of the program that is built in.
    copy: Option<ReaderId>,
    next_bill: Time,
    /// When the program that is built in says that it is there.
    next_sign: Option<Time>,
    /// Whether the last bill was not covered.
    warned: bool,
}

/// The streams of an orchestrator, by their ids.
#[derive(Default)]
pub(crate) struct Streams(BTreeMap<String, Stream>);

impl Streams {
    /// When something is to be done.
    pub(crate) fn wake(&self) -> Option<Time> {
        let wakes = self
            .0
            .values()
            .map(|one| earlier(Some(one.next_bill), one.next_sign));
        wakes.fold(None, earlier)
    }
}

/// The channels of a stream: suffix of the name, media type, and whether it is wanted.
fn layout(wishes: &Wishes) -> [(&'static str, &'static str, bool); 5] {
    [
        ("-control", wire::JSON, true),
        ("-events", wire::JSON, true),
        ("", "video/MP2T", wishes.video_in),
        ("-out", "video/MP2T", wishes.video_out),
        ("-data", "application/jsonl", wishes.data_out),
    ]
}

impl Orchestrator {
    /// The streams that run, by their ids.
    pub fn streams(&self) -> impl Iterator<Item = &str> {
        self.streams.0.keys().map(String::as_str)
    }

    /// A stream may begin: its channels are made, and its program is told.
    pub(super) fn start_stream(
        &mut self,
        now: Time,
        id: EffectId,
        pending: Pending,
    ) -> Result<(), No> {
        let refused = |this: &mut Self, why: No| {
            this.containers.give_back(&pending.container);
            Err(why)
        };
        let wishes = match pending.job.wishes() {
            Ok(wishes) => wishes,
            Err(err) => return refused(self, no(400, err.to_string())),
        };
        let Ok(params) = read_start_body(&pending.body) else {
            return refused(self, no(400, "Invalid JSON body".into()));
        };
        let stream = pending.job.id.clone();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if stream.is_empty() || stream.len() > MAX_ID_BYTES || !stream.bytes().all(plain) {
            return refused(
                self,
                no(400, "the id of the stream is not one of a channel".into()),
            );
        }
        if self.streams.0.contains_key(&stream) || self.streams.0.len() >= MAX_STREAMS {
            return refused(self, no(500, IN_USE.into()));
        }
        let Some(offered) = self.containers.get(&pending.container) else {
            return Err(no(400, "No capacity available for capability".into()));
        };
        let worker = offered.container.worker.clone();
        let mut names = Vec::new();
        let mut urls = Vec::new();
        for (suffix, content, wanted) in layout(&wishes) {
            let name = format!("{stream}{suffix}");
            let url = self.config.service.with_path(&format!("{TRICKLE}{name}"));
            if wanted {
                let made = self
                    .server
                    .create_channel(now, &name, ContentType::new(content));
                // A channel that is there belongs to somebody else.
                if !matches!(made, Ok(true)) {
                    self.delete_channels(now, &names);
                    return refused(self, no(500, IN_USE.into()));
                }
                names.push(name);
            }
            urls.push(wanted.then_some(url));
        }
        let mut urls = urls.into_iter();
        let mut next = || urls.next().flatten();
        let channels = StreamChannels {
            control: next(),
            events: next(),
            publish: next(),
            subscribe: next(),
            data: next(),
        };
        let body = told(&stream, &channels, params).to_string();
        let built_in = !matches!(worker, Worker::At(_));
        let doer = match built_in {
            true => Doer::BuiltIn(Made::json(
                200,
                &json!({ "status": "started" }),
                worker.tempo(),
            )),
            false => worker.prepare(order(&pending, "/stream/start", &stream, body.into())),
        };
        let plan = Plan {
            id: stream,
            channels,
            names,
            built_in,
        };
        self.hand_job(now, id, pending, doer, Some(About::Start(Box::new(plan))));
        Ok(())
    }

    /// A program is told of a change, or of the end. A stream that nobody knows is its own affair.
    pub(super) fn tell_stream(
        &mut self,
        now: Time,
        id: EffectId,
        pending: Pending,
    ) -> Result<(), No> {
        let stream = pending.job.stream_id().unwrap_or_default();
        let Some(offered) = self.containers.get(&pending.container) else {
            return Err(no(400, "No capacity available for capability".into()));
        };
        let (path, about) = match pending.what {
            What::Stop => ("/stream/stop", About::Stop(stream.clone())),
            _ => ("/stream/params", About::Update),
        };
        let worker = offered.container.worker.clone();
        let doer = match worker {
            Worker::At(_) => worker.prepare(order(&pending, path, &stream, pending.body.clone())),
            _ => {
                if matches!(about, About::Update) {
                    // It says back what it is told. Errors: it has no channel for data.
                    let said = [&pending.body[..], b"\n"].concat();
                    let _ = self
                        .server
                        .publish(now, &format!("{stream}-data"), said.into());
                }
                Doer::BuiltIn(Made::json(
                    200,
                    &json!({ "status": "success" }),
                    worker.tempo(),
                ))
            }
        };
        self.hand_job(now, id, pending, doer, Some(about));
        Ok(())
    }

    /// The program has answered, or is lost: then there is no status.
    pub(super) fn stream_told(
        &mut self,
        now: Time,
        id: EffectId,
        about: About,
        answer: Option<(u16, Vec<u8>)>,
    ) {
        let lost = || (500, b"Error sending request to worker".to_vec());
        let balance = self.told_balance(id);
        let (status, body) = match (&about, answer) {
            (About::Stop(_), None) => (200, Vec::new()),
            (_, None) => lost(),
            (_, Some((401, _))) => {
                self.remove_container_of(id);
                (500, b"Orchestrator worker failure".to_vec())
            }
            (_, Some(answer)) => answer,
        };
        let mut head = Response::new(status).header(BALANCE_HEADER, balance);
        let runs = match about {
            About::Start(plan) if status < 400 => {
                plan.channels.push_headers(&mut head.headers);
                head.status = 200;
                self.run_stream(now, id, *plan);
                true
            }
            About::Start(plan) => {
                self.delete_channels(now, &plan.names);
                head.body = Body::Full(body.into());
                false
            }
            About::Stop(stream) => {
                self.end_stream(now, &stream);
                head.body = Body::Full(body.into());
                true
            }
            About::Update => {
                head.body = Body::Full(body.into());
                true
            }
        };
        self.finish_job(id, !runs);
        self.answer(now, id, vec![Out::Reply(head)]);
    }

    /// Somebody left before its stream began.
    pub(super) fn drop_stream(&mut self, now: Time, about: &About) {
        if let About::Start(plan) = about {
            self.delete_channels(now, &plan.names);
        }
    }

    fn run_stream(&mut self, now: Time, id: EffectId, plan: Plan) {
        let Some(Job {
            container,
            payer,
            price,
            ..
        }) = self.job(id)
        else {
            return;
        };
        let (container, payer, price) = (container.clone(), *payer, *price);
        let name = |url: &Option<Url>| {
            let url = url.as_ref()?;
            url.path().strip_prefix(TRICKLE).map(str::to_owned)
        };
        let channels = &plan.channels;
        let copy = match (plan.built_in, name(&channels.publish)) {
            (true, Some(from)) => {
                self.begin_copy(now, &from, name(&channels.subscribe), name(&channels.data))
            }
            _ => None,
        };
        self.out.event(Event::StreamStarted {
            container: container.clone(),
            stream: plan.id.clone(),
            payer,
        });
        let stream = Stream {
            container,
            payer,
            price,
            channels: plan.names,
            copy,
            next_bill: now + BILLED_EVERY,
            next_sign: plan.built_in.then_some(now),
            warned: false,
        };
        self.streams.0.insert(plan.id, stream);
    }

    fn end_stream(&mut self, now: Time, id: &str) {
        let Some(stream) = self.streams.0.remove(id) else {
            return;
        };
        if let Some(reader) = stream.copy {
            self.end_copy(reader);
        }
        self.delete_channels(now, &stream.channels);
        self.containers.give_back(&stream.container);
        self.out.event(Event::StreamEnded {
            container: stream.container,
            stream: id.to_owned(),
        });
    }

    fn delete_channels(&mut self, now: Time, names: &[String]) {
        for name in names {
            self.server.delete_channel(now, name);
        }
    }

    /// Bills streams, and says of programs that are built in that they are there. False if there was nothing to do.
    pub(crate) fn streams_due(&mut self, now: Time) -> bool {
        let due = |one: &Stream| {
            earlier(Some(one.next_bill), one.next_sign).is_some_and(|due| due <= now)
        };
        let found = self.streams.0.iter_mut().find(|(_, one)| due(one));
        let Some((id, stream)) = found else {
            return false;
        };
        let id = id.clone();
        if stream.next_sign.is_some_and(|sign| sign <= now) {
            stream.next_sign = Some(now + SIGN_EVERY);
            // A gateway that deleted the channel does not want to know.
            let _ = self
                .server
                .publish(now, &format!("{id}-events"), wire::heartbeat_event(now));
        }
        if stream.next_bill > now {
            return true;
        }
        stream.next_bill = now + BILLED_EVERY;
        let (container, payer) = (stream.container.clone(), stream.payer);
        let fee = stream.price.fee(BILLED_EVERY.as_secs());
        let free = stream.price.is_free();
        let mut unpaid = false;
        if !free && let Some(till) = &mut self.till {
            let left = till
                .get_mut()
                .charge(now, &account(payer, &container), &fee);
            unpaid = left.as_ref().is_none_or(|left| *left < Amount::zero());
            self.figures.billed += &fee;
            self.out.event(Event::Billed {
                to: container,
                payer,
                fee,
                balance: left,
            });
        }
        let control = self.server.stats(&format!("{id}-control")).is_some();
        let Some(stream) = self.streams.0.get_mut(&id) else {
            return true;
        };
        let warned = std::mem::replace(&mut stream.warned, unpaid);
        if (unpaid && warned) || !control {
            self.end_stream(now, &id);
        }
        true
    }

    /// Ends every stream, since the orchestrator closes.
    pub(crate) fn close_streams(&mut self, now: Time) {
        let all: Vec<String> = self.streams.0.keys().cloned().collect();
        for id in all {
            self.end_stream(now, &id);
        }
    }
}

/// The body that tells a program of a stream: its input is where it subscribes, its output where it publishes.
fn told(stream: &str, channels: &StreamChannels, params: Option<Value>) -> Value {
    let mut body = json!({ "gateway_request_id": stream });
    for (name, url) in [
        ("control_url", &channels.control),
        ("events_url", &channels.events),
        ("subscribe_url", &channels.publish),
        ("publish_url", &channels.subscribe),
        ("data_url", &channels.data),
    ] {
        if let Some(url) = url {
            body[name] = url.to_string().into();
        }
    }
    body["params"] = params.unwrap_or(Value::Null);
    body
}

fn order(pending: &Pending, path: &str, stream: &str, body: bytes::Bytes) -> Order {
    let mut headers = pending.headers.clone();
    headers.push("x-stream-id", stream);
    Order {
        method: Method::Post,
        path: path.to_owned(),
        headers,
        body,
    }
}
