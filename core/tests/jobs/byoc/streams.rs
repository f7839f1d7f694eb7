//! Streams: the cases of the vectors, and the table of states.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::Effect;
use livepeer_core::error::Cause;
use livepeer_core::http::{Body, Fault, Headers, In, Out, Request, Response};
use livepeer_core::job::byoc::stream::{Begun, StreamEvent, StreamOrder};
use livepeer_core::job::byoc::{Byoc, Config, Event, Failed, JobId, Left};
use livepeer_core::job::live::media::{self, News};
use livepeer_core::money::Price;
use livepeer_core::payment::Payer;
use livepeer_core::wire::byoc::stream::{StreamChannels, read_start_body};
use livepeer_core::wire::byoc::{Grounds, JOB_HEADER, JobRequest, Sender, Token};
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::wire::{KEEP_ALIVE, Params, TicketParams};
use livepeer_core::{EffectId, Input, Time};
use livepeer_sim::Driven;

use super::jobs::params;
use super::{EXCHANGE, text};
use crate::by_hand::{ByHand as _, Outside, has_outside};
use crate::of_kind;
use crate::peers::url;

const A: &str = "https://a.example:8935";
const B: &str = "https://b.example:8935";
const NAME: &str = "turn";

/// A machine, an outside, and channels that take what is written to them.
struct World {
    byoc: Byoc,
    outside: Outside,
    now: Time,
    id: Option<JobId>,
    /// Bytes that are written to a channel whose request is under way.
    posts: BTreeMap<EffectId, Vec<u8>>,
    /// All segments that were written.
    written: Vec<String>,
    seq: u64,
    tokens: u8,
    told: Vec<StreamEvent>,
    paid: usize,
}

has_outside!(World);

impl Driven for World {
    livepeer_sim::driven!(byoc: Byoc, outside.book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        match &effect {
            Effect::Http(Out::Request(request)) if request.body == Body::Stream => {
                self.posts.insert(id, Vec::new());
            }
            Effect::Http(Out::Data(data)) => {
                let post = self.posts.get_mut(&id).expect("an open request");
                post.extend_from_slice(data);
                let sent = In::Sent(data.len());
                self.feed(Input::Http(id, sent));
            }
            Effect::Http(Out::End(_)) => {
                let post = self.posts.remove(&id).expect("an open request");
                self.written.push(String::from_utf8(post).expect("text"));
                self.outside.asked.retain(|(asked, _)| *asked != id);
                for step in [In::Reply(Response::new(200)), In::End(Headers::new())] {
                    self.feed(Input::Http(id, step));
                }
            }
            _ => {}
        }
        let (machine, now) = (&mut self.byoc, self.now);
        self.outside.effect(machine, now, id, effect);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Stream(id, event) => {
                assert_eq!(Some(id), self.id.or(Some(id)));
                self.told.push(*event);
            }
            Event::Paid(..) => self.paid += 1,
            Event::Trying(..) | Event::Done(..) | Event::Failed(..) => {
                panic!("the start of a stream is no job of a caller's: {event:?}")
            }
            _ => {}
        }
    }
}

impl World {
    fn new(pays: bool, orchestrators: &[&str]) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let outside = Outside::default();
        let payer = match pays {
            true => outside.account(),
            false => Payer::Offchain,
        };
        let mut byoc = Byoc::new(now, Config::default(), NAME, payer, [9; 32]);
        byoc.offer(now, orchestrators.iter().map(|at| url(at)));
        let mut world = Self {
            byoc,
            outside,
            now,
            id: None,
            posts: BTreeMap::new(),
            written: Vec::new(),
            seq: 0,
            tokens: 0,
            told: Vec::new(),
            paid: 0,
        };
        world.drain();
        world
    }

    fn open(&mut self, change: impl FnOnce(&mut StreamOrder)) {
        let mut order = StreamOrder::new(JobRequest {
            id: "of-the-client".into(),
            request: r#"{"run":"turn"}"#.into(),
            parameters: r#"{"enable_video_ingress":true,"enable_video_egress":true}"#.into(),
            capability: NAME.into(),
            timeout_seconds: 30,
        });
        order.params = Some(Params::parse(r#"{"width":512}"#).expect("parameters"));
        change(&mut order);
        let opened = self.byoc.open_stream(self.now, order);
        self.id = Some(opened.expect("a good order"));
        self.drain();
    }

    fn token(&mut self, at: &str, price: i64, balance: i64) {
        self.tokens += 1;
        let fresh = TicketParams {
            recipient_rand_hash: [self.tokens; 32],
            ..params()
        };
        let token = Token {
            service: url(at),
            price: Price::new(price, 1).expect("a price"),
            ticket_params: (price > 0).then_some(fresh),
            balance,
            capacity: 1,
        };
        let body = token.to_json(Sender::default());
        self.answer(&format!("{at}/process/token"), 200, body);
    }

    fn answer(&mut self, at: &str, status: u16, body: impl Into<Bytes>) -> Request {
        self.reply(at, Response::new(status), body)
    }

    /// Answers the request for a start at that host; hands back the request and the name of the stream.
    fn starts(&mut self, at: &str) -> (Request, String) {
        let name = self.name_at(at);
        let channel = |suffix: &str| Some(url(&format!("{at}/ai/trickle/{name}{suffix}")));
        let channels = StreamChannels {
            publish: channel(""),
            subscribe: channel("-out"),
            control: channel("-control"),
            events: channel("-events"),
            data: None,
        };
        let mut head = Response::new(200);
        channels.push_headers(&mut head.headers);
        let request = self.reply(&format!("POST {at}/ai/stream/start"), head, "");
        (request, name)
    }

    /// The name of the stream that the orchestrator at that host is asked to start.
    fn name_at(&self, at: &str) -> String {
        let asked = self.asked.iter().map(|(_, request)| request);
        let start = url(&format!("{at}/ai/stream/start"));
        let mut starts = asked.filter(|request| request.url == start);
        job_of(starts.next().expect("a start is asked for")).id
    }

    /// The container says something.
    fn says(&mut self, text: &str) {
        let events = self
            .asked
            .iter()
            .map(|(_, request)| request.url.to_string());
        let mut events = events.filter(|at| at.contains("-events/"));
        let at = events.next().expect("the events are read");
        let head = Response::new(200).header("lp-trickle-seq", self.seq.to_string());
        self.seq += 1;
        self.reply(&format!("GET {at}"), head, text.to_owned());
    }

    /// Lets time pass; the container says from time to time that it is there.
    fn lives(&mut self, seconds: u64) {
        for _ in 0..seconds / 10 {
            self.says(r#"{"type":"status","state":"ONLINE"}"#);
            self.pass(Duration::from_secs(10));
        }
    }

    fn begun(&mut self) -> Begun {
        let at = { self.told.iter() }.position(|event| matches!(event, StreamEvent::Begun(_)));
        match self.told.remove(at.expect("it runs")) {
            StreamEvent::Begun(begun) => *begun,
            other => panic!("{other:?}"),
        }
    }

    fn end(&self) -> Option<&Result<Bytes, Box<Failed>>> {
        match self.told.last()? {
            StreamEvent::Ended(end) => Some(end),
            _ => None,
        }
    }

    fn command(&mut self, act: impl FnOnce(&mut Byoc, Time, JobId)) {
        let (now, id) = (self.now, self.id.expect("a stream"));
        act(&mut self.byoc, now, id);
        self.drain();
    }

    fn stop(&mut self) {
        self.command(|byoc, now, id| byoc.stop_stream(now, id, "enough".into()));
    }

    /// Has the orchestrator remove the control channel, as it does at the end of a session.
    fn close_control(&mut self) {
        let posts: Vec<_> = self.posts.keys().copied().collect();
        for id in posts {
            self.posts.remove(&id);
            self.outside.asked.retain(|(asked, _)| *asked != id);
            let closed = Response::new(200).header("lp-trickle-closed", "terminated");
            self.http(id, In::Reply(closed));
            self.http(id, In::End(Headers::new()));
        }
    }
}

fn job_of(request: &Request) -> JobRequest {
    let header = request.headers.get(JOB_HEADER).expect("a job");
    JobRequest::read_signed(header).expect("a job").0
}

#[test]
fn a_stream_is_started_under_a_name_of_its_own_changed_and_stopped() {
    let mut world = World::new(false, &[A]);
    world.open(|_| ());
    world.token(A, 0, 0);
    let (request, name) = world.starts(A);
    assert!(
        name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()),
        "{name}"
    );
    let job = job_of(&request);
    assert_eq!(
        (&*job.id, &*job.stream_id().expect("JSON")),
        (&*name, &*name)
    );
    assert!(job.request.contains(r#""run":"turn""#), "{}", job.request);
    assert!(request.headers.get(PAYMENT_HEADER).is_none(), "it is free");
    let Body::Full(body) = &request.body else {
        panic!("a body");
    };
    let first = read_start_body(body).expect("a body").expect("parameters");
    assert_eq!(first["width"], 512);
    let begun = world.begun();
    assert_eq!(
        (begun.session, begun.swaps, begun.url.clone()),
        (0, 0, url(A))
    );
    assert!(begun.channels.publish.is_some() && begun.channels.data.is_none());
    world.says(r#"{"type":"status","state":"ONLINE"}"#);
    assert!(matches!(world.told.last(), Some(StreamEvent::Runner(event)) if event.is_status()));
    world.lives(20);
    assert_eq!(
        world.written,
        [KEEP_ALIVE, KEEP_ALIVE],
        "the channel is kept alive"
    );
    // What a container takes as parameters is its own matter.
    world.command(|byoc, now, id| {
        byoc.update_stream(now, id, r#"{"width":640}"#.into())
            .expect("it runs");
    });
    let update = world.answer(&format!("POST {A}/ai/stream/update"), 422, "too wide");
    assert_eq!(job_of(&update).stream_id().expect("JSON"), name);
    let Some(StreamEvent::Updated(_, Ok(answer))) = world.told.last() else {
        panic!("{:?}", world.told.last());
    };
    assert_eq!((answer.status, &answer.body[..]), (422, &b"too wide"[..]));
    world.stop();
    assert!(world.end().is_none(), "the container has a last word");
    let stop = world.answer(&format!("POST {A}/ai/stream/stop"), 200, "bye");
    assert_eq!(stop.body, Body::Full("enough".into()));
    assert!(
        world.find("DELETE").is_some(),
        "the control channel goes too"
    );
    world.answer("DELETE", 200, "");
    assert_eq!(world.end(), Some(&Ok(Bytes::from("bye"))));
    assert_eq!(world.byoc.streams(), 0);
    world.command(|byoc, now, id| {
        assert!(byoc.update_stream(now, id, Bytes::new()).is_err());
        byoc.stop_stream(now, id, Bytes::new());
    });
}

#[test]
fn whoever_refuses_or_names_no_channels_is_passed_over_and_what_it_may_have_started_is_stopped() {
    let mut world = World::new(false, &[A, B]);
    world.open(|_| ());
    world.token(A, 0, 0);
    let first = world.name_at(A);
    world.answer(
        &format!("POST {A}/ai/stream/start"),
        400,
        "Invalid JSON body\n",
    );
    world.token(B, 0, 0);
    // Something runs there that nobody can use.
    world.answer(&format!("POST {B}/ai/stream/start"), 200, "");
    let stop = world.answer(&format!("POST {B}/ai/stream/stop"), 200, "");
    assert_eq!(job_of(&stop).stream_id().expect("JSON"), first);
    // Nobody else is found.
    world.pass(Duration::from_secs(11));
    let Some(Err(failed)) = world.end() else {
        panic!("{:?}", world.told);
    };
    let Failed::Exhausted { attempts, .. } = &**failed else {
        panic!("{failed}");
    };
    let left: Vec<_> = attempts.iter().map(|attempt| &attempt.left).collect();
    let refused = Left::Refused(Grounds::Status(400));
    assert_eq!(left, [&refused, &Left::Unusable]);
}

#[test]
fn a_start_whose_answer_is_lost_is_undone_before_another_is_asked() {
    for (stopped, leave) in [(true, false), (false, false), (false, true)] {
        let mut world = World::new(false, &[A, B]);
        world.open(|order| order.may_repeat = leave);
        world.token(A, 0, 0);
        let lost = world.name_at(A);
        world.fail(
            &format!("POST {A}/ai/stream/start"),
            Fault::Broken("reset".into()),
        );
        if leave {
            world.token(B, 0, 0);
            world.starts(B);
            world.begun();
            continue;
        }
        assert!(
            world.find(&format!("POST {B}")).is_none(),
            "first things first"
        );
        let stop = format!("POST {A}/ai/stream/stop");
        if !stopped {
            world.fail(&stop, Fault::Connect("refused".into()));
            let Some(Err(failed)) = world.end() else {
                panic!("{:?}", world.told);
            };
            let Failed::Undecided { attempts } = &**failed else {
                panic!("{failed}");
            };
            assert_eq!(attempts[0].left, Left::Broken);
            continue;
        }
        let asked = world.answer(&stop, 200, "");
        assert_eq!(job_of(&asked).stream_id().expect("JSON"), lost);
        world.token(B, 0, 0);
        let (_, name) = world.starts(B);
        assert_ne!(name, lost, "each start has its own name");
        world.begun();
    }
}

#[test]
fn an_orchestrator_that_is_silent_slow_or_gone_is_told_to_stop_and_another_goes_on() {
    for way in 0..4 {
        let mut world = World::new(false, &[A, B]);
        world.open(|_| ());
        world.token(A, 0, 0);
        world.starts(A);
        let begun = world.begun();
        let media = |event| News {
            session: begun.session,
            event,
        };
        match way {
            0 => world.pass(Duration::from_secs(30)),
            1 => world.close_control(),
            2 => world.command(|byoc, now, id| {
                for _ in 0..4 {
                    byoc.on_stream_media(now, id, &media(media::Event::Begun));
                }
            }),
            _ => world.command(|byoc, now, id| {
                byoc.on_stream_media(now, id, &media(media::Event::Ended(None)));
            }),
        }
        let lost = world
            .told
            .iter()
            .any(|event| matches!(event, StreamEvent::Lost(at, _) if *at == url(A)));
        assert!(lost, "{way}: {:?}", world.told);
        world.answer(&format!("POST {A}/ai/stream/stop"), 200, "");
        world.token(B, 0, 0);
        world.starts(B);
        let next = world.begun();
        assert_eq!((next.session, next.swaps), (1, 1));
        // News of the one that was left is not laid to the next.
        world.command(|byoc, now, id| {
            byoc.on_stream_media(now, id, &media(media::Event::Ended(None)));
        });
        assert!(world.end().is_none());
        // Nobody is left, and the input is over anyway.
        world.command(|byoc, now, id| {
            let event = media::Event::Delivered;
            byoc.on_stream_media(now, id, &News { session: 1, event });
        });
        world.pass(Duration::from_secs(11));
        world.answer(&format!("POST {B}/ai/stream/stop"), 200, "done");
        world.answer("DELETE", 200, "");
        world.pass(Duration::from_secs(60));
        assert_eq!(world.end(), Some(&Ok(Bytes::from("done"))));
    }
}

#[test]
fn a_stream_is_paid_for_as_long_as_it_runs() {
    let mut world = World::new(true, &[A, B]);
    world.open(|_| ());
    world.token(A, 1_000, 0);
    let (request, _) = world.starts(A);
    assert!(
        request.headers.get(PAYMENT_HEADER).is_some(),
        "two minutes ahead"
    );
    world.begun();
    world.lives(50);
    // The orchestrator has billed twice by then.
    world.token(A, 1_000, 74_000);
    let payment = world.answer(&format!("POST {A}/ai/stream/payment"), 200, "");
    assert!(payment.headers.get(PAYMENT_HEADER).is_some());
    assert_eq!(world.paid, 1, "what was used is known");
    world.lives(50);
    // Enough lies there: nothing is sent.
    world.token(A, 1_000, 900_000);
    assert!(world.find(&format!("POST {A}/ai/stream/payment")).is_none());
    world.lives(50);
    for _ in 0..2 {
        world.token(A, 1_000, 0);
        world.answer(
            &format!("POST {A}/ai/stream/payment"),
            400,
            "invalid ticket\n",
        );
        world.pass(Duration::from_millis(200));
    }
    let lost = world.told.iter().find_map(|event| match event {
        StreamEvent::Lost(_, failure) => Some(failure.cause.clone()),
        _ => None,
    });
    assert!(
        matches!(lost, Some(Cause::Refused { status: 400, .. })),
        "{lost:?}"
    );
    world.answer(&format!("POST {A}/ai/stream/stop"), 200, "");
    world.token(B, 1_000, 0);
    world.starts(B);
    world.begun();
    // One that has no token for us any more is gone.
    world.lives(50);
    for _ in 0..3 {
        world.answer(
            &format!("{B}/process/token"),
            503,
            "insufficient sender reserve\n",
        );
        world.pass(Duration::from_millis(200));
    }
    let lost = world
        .told
        .iter()
        .any(|event| matches!(event, StreamEvent::Lost(at, _) if *at == url(B)));
    assert!(lost, "{:?}", world.told);
}

#[test]
fn a_stream_that_nobody_waits_for_is_stopped_where_it_may_run() {
    let mut world = World::new(false, &[A]);
    world.open(|_| ());
    world.token(A, 0, 0);
    world.command(Byoc::cancel);
    world.answer(&format!("POST {A}/ai/stream/stop"), 200, "");
    assert!(world.end().is_some_and(Result::is_ok));
    // Before anybody is asked there is nothing to stop.
    let mut world = World::new(false, &[A]);
    world.open(|_| ());
    world.stop();
    assert_eq!(world.end(), Some(&Ok(Bytes::new())));
    let mut world = World::new(false, &[A]);
    world.open(|_| ());
    world.token(A, 0, 0);
    world.starts(A);
    world.command(|byoc, now, _| byoc.close(now));
    let Some(Err(failed)) = world.end() else {
        panic!("{:?}", world.told);
    };
    assert_eq!(**failed, Failed::Closed);
}

#[test]
fn the_channels_of_the_vectors_are_read() {
    for case in of_kind(EXCHANGE, "peer_reply") {
        let (input, out) = (&case["in"], &case["out"]);
        if text(input, "job") != "byoc_stream" {
            continue;
        }
        let mut world = World::new(false, &[A, B]);
        world.open(|order| order.job.parameters = "{}".into());
        world.token(A, 0, 0);
        let reply = &input["reply"];
        let status = reply["status"].as_u64().expect("a status");
        let mut head = Response::new(u16::try_from(status).expect("a status"));
        for (name, value) in reply["headers"].as_object().expect("headers") {
            let value = value.as_str().expect("text").replace("orch-a.", "a.");
            head.headers.push_any(name, value);
        }
        let body = text(reply, "body_text").to_owned();
        world.reply(&format!("POST {A}/ai/stream/start"), head, body);
        match text(out, "class") {
            "done" => {
                let channels = world.begun().channels;
                for (name, ours) in [
                    ("publish_url", channels.publish),
                    ("subscribe_url", channels.subscribe),
                    ("control_url", channels.control),
                    ("events_url", channels.events),
                    ("data_url", channels.data),
                ] {
                    let wanted = out[name].as_str().map(|at| at.replace("orch-a.", "a."));
                    assert_eq!(ours.map(|at| at.to_string()), wanted, "{name}");
                }
            }
            "other" => {
                world.token(B, 0, 0);
                world.name_at(B);
            }
            other => panic!("{other}"),
        }
    }
}
