//! Jobs: those of the vectors, and the rest of the table of states.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Request, Response, Url};
use livepeer_core::job::byoc::{Byoc, Config, Done, Event, Failed, JobId, Left, Order};
use livepeer_core::money::{Price, Wei};
use livepeer_core::payment::{Payer, Unit, session};
use livepeer_core::sign::Address;
use livepeer_core::wire::TicketParams;
use livepeer_core::wire::byoc::{
    Grounds, JobRequest, Scheme, Sender, SignRequest, SignedBy, Token, job_signature_json,
};
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::wire::{Payment, sse};
use livepeer_core::{Effect, EffectId, Signers, Time};
use livepeer_sim::Driven;
use num_bigint::BigUint;
use serde_json::Value;

use super::{EXCHANGE, REAL_NODE, fits, text};
use crate::by_hand::{ByHand as _, Outside, has_outside};
use crate::of_kind;
use crate::peers::{introduction, url};

const NAME: &str = "text-reversal";
const SIGNS: &str = "https://signer.example:443/sign-byoc-job";

/// A machine, and a world that signs, stores and counts whatever it wants.
struct World {
    byoc: Byoc,
    outside: Outside,
    now: Time,
    finds: usize,
    heads: usize,
    chunks: Vec<u8>,
    done: Vec<(JobId, Done)>,
    failed: Vec<(JobId, Failed)>,
}

has_outside!(World);

impl Driven for World {
    livepeer_sim::driven!(byoc: Byoc, outside.book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        let (machine, now) = (&mut self.byoc, self.now);
        self.outside.effect(machine, now, id, effect);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Find => self.finds += 1,
            Event::Head(..) => self.heads += 1,
            Event::Chunk(_, chunk) => self.chunks.extend_from_slice(&chunk),
            Event::Done(id, done) => self.done.push((id, *done)),
            Event::Failed(id, failed) => self.failed.push((id, *failed)),
            _ => {}
        }
    }
}

/// The payer.
enum Pays {
    Nobody,
    Key,
    Signer,
}

impl World {
    fn new(pays: &Pays, capability: &str, orchestrators: &[String]) -> Self {
        let now = Time::from_secs(1_790_000_000);
        let outside = Outside::default();
        let payer = match pays {
            Pays::Nobody => Payer::Offchain,
            Pays::Key => outside.account(),
            Pays::Signer => Payer::Remote(Signers::new(url("https://signer.example"))),
        };
        let config = Config {
            payment: session::Config::new(Unit::Seconds),
            ..Config::default()
        };
        let mut byoc = Byoc::new(now, config, capability, payer, [9; 32]);
        byoc.offer(now, orchestrators.iter().map(|at| url(at)));
        let mut world = Self {
            byoc,
            outside,
            now,
            finds: 0,
            heads: 0,
            chunks: Vec::new(),
            done: Vec::new(),
            failed: Vec::new(),
        };
        world.drain();
        world
    }

    /// A world of free orchestrators.
    fn free(orchestrators: &[&str]) -> Self {
        let all: Vec<String> = orchestrators.iter().map(|at| (*at).to_owned()).collect();
        Self::new(&Pays::Nobody, NAME, &all)
    }

    fn submit(&mut self, order: Order) -> JobId {
        let id = self.byoc.submit(self.now, order).expect("a good order");
        self.drain();
        id
    }

    fn answer(
        &mut self,
        at: &str,
        status: u16,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Request {
        let mut head = Response::new(status);
        for (name, value) in headers {
            head.headers.push_any(name, *value);
        }
        self.reply(at, head, body)
    }

    /// Answers the question for a token at that host.
    fn token(&mut self, at: &str, price: i64, balance: i64) -> Request {
        let token = Token {
            service: url(at),
            price: Price::new(price, 1).expect("a price"),
            ticket_params: (price > 0).then(params),
            balance,
            capacity: 1,
        };
        let body = token.to_json(Sender::default());
        self.answer(&format!("{at}/process/token"), 200, &[], body)
    }

    /// Signs the job that the signer is asked to sign, as signers do: one without a name is none.
    fn sign(&mut self, scheme: Scheme) {
        let asked = self.asked.iter();
        let mut asked = asked.filter(|(_, request)| request.url.to_string() == SIGNS);
        let Body::Full(body) = &asked.next().expect("the signer is asked").1.body else {
            panic!("a body");
        };
        let SignRequest(job) = SignRequest::from_json(body).expect("a job");
        let signature = self.key.sign(job.digest(scheme));
        let sender = self.key.address();
        let signed = SignedBy { sender, signature };
        self.answer(SIGNS, 200, &[], job_signature_json(&signed));
    }
}

/// Parameters of tickets that are worth a minute at a price of 1,000 each.
pub(super) fn params() -> TicketParams {
    let certain = (BigUint::from(1_u8) << 256_u32) - 1_u8;
    TicketParams {
        recipient: Address([0x0e; 20]),
        face_value: Wei::from(180_000),
        win_prob: certain / 3_u8,
        recipient_rand_hash: [3; 32],
        seed: Bytes::from_static(&[1]),
        expiration_block: BigUint::from(1_000_000_u32),
        creation_round: 100,
        creation_round_block_hash: [0x11; 32],
    }
}

fn order(may_repeat: bool) -> Order {
    Order {
        may_repeat,
        path: "text-reverse".into(),
        content_type: "application/json".into(),
        body: Bytes::from_static(b"{\"text\":\"abc\"}"),
        ..Order::new(JobRequest {
            request: "{}".into(),
            capability: NAME.into(),
            timeout_seconds: 30,
            ..JobRequest::default()
        })
    }
}

const A: &str = "https://orch-a.example:8935";
const B: &str = "https://orch-b.example:8935";
const AT_A: &str = "https://orch-a.example:8935/process/request/text-reverse";
const AT_B: &str = "https://orch-b.example:8935/process/request/text-reverse";

/// Plays a case of the vectors. Whatever is asked is answered as its script says, at the time that it says.
fn play(case: &Value) -> World {
    let id = text(case, "id");
    let given = &case["in"];
    let request = &given["request"];
    let headers = &request["headers"];
    let job = JobRequest::from_header(text(headers, "livepeer")).expect(id);
    let orchestrators = given["orchestrators"].as_array().into_iter().flatten();
    let orchestrators: Vec<String> = orchestrators
        .map(|at| at.as_str().expect(id).into())
        .collect();
    let pays = match given["onchain"] == false {
        true => Pays::Nobody,
        false => Pays::Key,
    };
    let mut world = World::new(&pays, &job.capability, &orchestrators);
    let path = text(request, "path").trim_start_matches("/process/request");
    let millis = |name: &str| {
        let text = headers[name].as_str()?;
        livepeer_core::wire::app::registration::go_duration(text)
    };
    world.submit(Order {
        path: path.into(),
        content_type: text(headers, "content-type").into(),
        body: text(request, "body_text").to_owned().into(),
        search_within: millis("livepeer-orch-search-timeout"),
        token_within: millis("livepeer-orch-search-resp-timeout"),
        ..Order::new(job)
    });
    let mut script: Vec<&Value> = given["peers"].as_array().into_iter().flatten().collect();
    for _ in 0..200 {
        if !world.done.is_empty() || !world.failed.is_empty() {
            break;
        }
        let place = script
            .iter()
            .position(|peer| world.find(text(peer, "at")).is_some() && peer["reply"] != "never");
        let Some(place) = place else {
            world.pass(Duration::from_millis(50));
            continue;
        };
        let peer = script.remove(place);
        let (at, reply) = (text(peer, "at"), &peer["reply"]);
        if reply == "connection refused" {
            world.fail(at, Fault::Connect("refused".into()));
            continue;
        }
        let status = u16::try_from(reply["status"].as_u64().expect(id)).expect(id);
        let fields = reply["headers"].as_object().into_iter().flatten();
        let fields: Vec<_> = fields
            .map(|(name, value)| (name.as_str(), value.as_str().expect(id)))
            .collect();
        let body = match at.strip_suffix("/process/token") {
            Some(home) if reply.get("body_json").is_some() => {
                let read = reply["body_json"].to_string();
                let mut token = Token::from_json(read.as_bytes(), &url(home)).expect(id);
                // Theirs have expired long ago.
                token.ticket_params = token.ticket_params.map(|_| params());
                token.to_json(Sender::default())
            }
            _ => super::super::pipelines::body(reply),
        };
        world.answer(at, status, &fields, body);
    }
    world
}

#[test]
fn exchanges_of_the_vectors_end_as_they_say() {
    let mut seen = Vec::new();
    for case in of_kind(EXCHANGE, "exchange")
        .iter()
        .chain(&of_kind(REAL_NODE, "exchange"))
    {
        let (id, out) = (text(case, "id"), &case["out"]);
        let request = &case["in"]["request"];
        if !text(request, "path").starts_with("/process/request/")
            || text(request, "method") != "POST"
        {
            continue;
        }
        if JobRequest::from_header(text(&request["headers"], "livepeer")).is_err() {
            continue;
        }
        seen.push(id.to_owned());
        let world = play(case);
        let reply = &out["reply"];
        let (status, said, headers) = match (&world.done[..], &world.failed[..]) {
            ([(_, done)], []) => {
                let body = match done.served.stream {
                    true => String::from_utf8(world.chunks.clone()).expect(id),
                    false => String::from_utf8(done.body.to_vec()).expect(id),
                };
                let url = done.served.url.to_string();
                let headers = [
                    ("content-type", done.served.content_type.clone()),
                    ("livepeer-balance", done.served.balance.clone()),
                    ("x-metadata", done.served.metadata.clone()),
                    ("x-orchestrator-url", url),
                ];
                (200, body, headers.to_vec())
            }
            ([], [(_, failed)]) => (
                failed.status(),
                failed.text(world.byoc.capability()),
                Vec::new(),
            ),
            other => panic!("{id}: {other:?}"),
        };
        assert_eq!(
            u64::from(status),
            reply["status"].as_u64().expect(id),
            "{id}: {said}"
        );
        if let Some(wanted) = reply["body_text"].as_str() {
            assert!(fits(&said, wanted), "{id}: {said:?}");
        }
        if let Some(wanted) = reply["sse_data"].as_array() {
            let mut events = Vec::new();
            let read = sse::Reader::new().data(&said.clone().into(), |event| events.push(event));
            assert_eq!(read, Ok(()), "{id}");
            let events: Vec<_> = events
                .iter()
                .map(|event| Value::from(String::from_utf8_lossy(event)))
                .collect();
            assert_eq!(events, *wanted, "{id}");
            assert!(!said.contains("\n\n\n"), "{id}");
        }
        for (name, value) in headers {
            if let Some(wanted) = reply["headers"][name].as_str() {
                assert_eq!(value, wanted, "{id} {name}");
            }
        }
        for never in out["upstream_never"].as_array().into_iter().flatten() {
            let never = never.as_str().expect(id);
            assert!(
                !world.sent.iter().any(|sent| sent.ends_with(never)),
                "{id}: {never}"
            );
        }
        assert!(world.asked.is_empty(), "{id}: {:?}", world.asked);
    }
    assert!(seen.len() >= 13, "{seen:?}");
}

#[test]
fn a_job_is_signed_and_paid_ahead_and_charged_by_the_second() {
    let mut world = World::new(&Pays::Key, NAME, &[A.into()]);
    let asked = world.submit(order(false));
    let request = world.token(A, 1_000, 0);
    let sender = Sender::from_header(request.headers.get("livepeer-eth-address").expect("sent"));
    assert_eq!(
        sender.expect("signed").0.map(|by| by.sender),
        Some(world.key.address())
    );
    assert_eq!(request.headers.get("livepeer-capability"), Some(NAME));
    let (id, request) = world.take(AT_A);
    let (job, by) =
        JobRequest::read_signed(request.headers.get("livepeer").expect("sent")).expect("good");
    assert_eq!(
        by.and_then(|by: SignedBy| by.scheme(&job)),
        Some(Scheme::Texts)
    );
    assert_eq!(job.parameters, "{}", "put in before signing");
    assert_eq!(
        request.body,
        Body::Full(Bytes::from_static(b"{\"text\":\"abc\"}"))
    );
    // A minute is the least that it wants to see: one ticket.
    let payment =
        Payment::decode(request.headers.get(PAYMENT_HEADER).expect("paid")).expect("good");
    assert_eq!(payment.tickets.len(), 1);
    world.pass(Duration::from_millis(2_100));
    let head = Response::new(200).header("livepeer-balance", "57000");
    for step in [
        In::Reply(head),
        In::Data("ok".into()),
        In::End(Headers::new()),
    ] {
        world.http(id, step);
    }
    let (done, answer) = world.done.pop().expect("done");
    assert_eq!((done, &answer.body[..]), (asked, &b"ok"[..]));
    assert_eq!(answer.served.tickets, 1);
    let left = world
        .byoc
        .payments(&url(A))
        .and_then(|payments| payments.balance().cloned());
    assert_eq!(left.map(|left| left.to_string()).as_deref(), Some("57000"));
    // The next one needs three seconds more than lie there.
    world.submit(order(false));
    world.token(A, 1_000, 57_000);
    let (_, request) = world.take(AT_A);
    let payment =
        Payment::decode(request.headers.get(PAYMENT_HEADER).expect("paid")).expect("good");
    assert_eq!(payment.tickets.len(), 1);
}

#[test]
fn where_enough_lies_no_ticket_goes_along() {
    let mut world = World::new(&Pays::Key, NAME, &[A.into()]);
    world.submit(order(false));
    world.token(A, 1_000, 200_000);
    // The payer has never signed for a balance there, so that it cannot refer to it: the first job pays.
    world.answer(AT_A, 200, &[("livepeer-balance", "259000")], "ok");
    world.submit(order(false));
    world.token(A, 1_000, 259_000);
    let (_, request) = world.take(AT_A);
    assert_eq!(request.headers.get(PAYMENT_HEADER), None);
}

#[test]
fn who_may_have_done_it_is_the_last_to_be_asked_without_leave() {
    type Then = fn(&mut World);
    let ends: [(Left, Then); 4] = [
        (Left::Broken, |world| {
            world.fail(AT_A, Fault::Broken("reset".into()))
        }),
        (Left::Refused(Grounds::Timeout), |world| {
            let text = "job not able to be processed err=Post \"http://10.0.0.2:9000/run\": context canceled\n";
            world.answer(AT_A, 500, &[], text);
        }),
        (Left::Refused(Grounds::Container), |world| {
            world.answer(
                AT_A,
                500,
                &[],
                "job not able to be processed err=Post \"http://10.0.0.2\": EOF\n",
            );
        }),
        (Left::Timeout, |world| {
            world.pass(Duration::from_secs(35));
            assert_eq!(
                world.aborted.len(),
                2,
                "a question for a token, and the request"
            );
        }),
    ];
    for (left, end) in ends {
        for may_repeat in [false, true] {
            let mut world = World::free(&[A, B]);
            world.submit(order(may_repeat));
            world.token(A, 0, 0);
            end(&mut world);
            if may_repeat {
                world.token(B, 0, 0);
                world.answer(AT_B, 200, &[], "ok");
                let (_, done) = world.done.pop().expect("done");
                assert_eq!(done.served.attempts.len(), 1);
                assert_eq!(done.served.attempts[0].left, left);
            } else {
                let (_, failed) = world.failed.pop().expect("failed");
                assert_eq!(failed.status(), 504, "{left:?}");
                assert!(!failed.text(NAME).contains("10.0.0.2"));
                let Failed::Undecided { attempts } = failed else {
                    panic!("{failed:?}");
                };
                assert_eq!(attempts.last().map(|attempt| &attempt.left), Some(&left));
                assert!(world.find(AT_B).is_none());
            }
        }
    }
}

#[test]
fn who_did_not_do_it_is_followed_by_others() {
    type Then = fn(&mut World);
    let ends: [Then; 5] = [
        |world| world.fail(AT_A, Fault::Connect("refused".into())),
        |world| drop(world.answer(AT_A, 503, &[], "No capacity available for capability\n")),
        |world| drop(world.answer(AT_A, 429, &[], "slow down\n")),
        |world| drop(world.answer(AT_A, 500, &[], "x\n")),
        |world| drop(world.answer(AT_A, 301, &[("location", B)], "")),
    ];
    for end in ends {
        let mut world = World::free(&[A, B]);
        world.submit(order(false));
        world.token(A, 0, 0);
        end(&mut world);
        world.token(B, 0, 0);
        world.answer(AT_B, 200, &[], "ok");
        assert_eq!(world.done.len(), 1);
    }
}

#[test]
fn a_stream_ends_in_bounded_time() {
    // One that never says that it is over, and never says anything else.
    let mut world = World::free(&[A]);
    world.submit(order(true));
    world.token(A, 0, 0);
    let (id, _) = world.take(AT_A);
    world.http(
        id,
        In::Reply(Response::new(200).header("content-type", "text/event-stream")),
    );
    world.http(id, In::Data("data: 1\n\n".into()));
    assert_eq!((world.heads, &world.chunks[..]), (1, &b"data: 1\n\n"[..]));
    world.pass(Duration::from_secs(39));
    assert!(world.failed.is_empty());
    world.pass(Duration::from_secs(2));
    assert!(
        matches!(world.failed[..], [(_, Failed::Broken { .. })]),
        "{:?}",
        world.failed
    );
    assert!(world.aborted.contains(&id));
    // One that floods blank lines, however slowly.
    let mut world = World::free(&[A]);
    world.submit(order(false));
    world.token(A, 0, 0);
    let (id, _) = world.take(AT_A);
    world.http(
        id,
        In::Reply(Response::new(200).header("content-type", "text/event-stream")),
    );
    for _ in 0..70 {
        if world.done.is_empty() {
            world.http(id, In::Data("\n".into()));
        }
    }
    assert_eq!(world.done.len(), 1);
    assert!(world.aborted.contains(&id) && world.chunks.is_empty());
    // A link that breaks in the middle, and a line without end.
    for long in [false, true] {
        let mut world = World::free(&[A, B]);
        world.submit(order(true));
        world.token(A, 0, 0);
        let (id, _) = world.take(AT_A);
        world.http(
            id,
            In::Reply(Response::new(200).header("content-type", "text/event-stream")),
        );
        world.http(
            id,
            match long {
                true => In::Data(vec![b'x'; (1 << 20) + 1].into()),
                false => In::Failed(Fault::Broken("reset".into())),
            },
        );
        assert!(matches!(world.failed[..], [(_, Failed::Broken { .. })]));
        assert!(world.find(AT_B).is_none(), "nobody goes on with it");
    }
}

#[test]
fn nobody_runs_a_job_that_is_not_signed() {
    let mut world = World::new(&Pays::Key, NAME, &[A.into()]);
    world.signs = false;
    world.submit(order(false));
    assert!(
        matches!(&world.failed[..], [(_, Failed::Ours(_))]),
        "{:?}",
        world.failed
    );
    // A signer that cannot, and one that signs something else.
    for good in [false, true] {
        let mut world = World::new(&Pays::Signer, NAME, &[A.into()]);
        world.submit(order(false));
        let said = introduction(&world.key);
        world.answer(
            "https://signer.example:443/sign-orchestrator-info",
            200,
            &[],
            said,
        );
        world.token(A, 0, 0);
        let (status, body) = match good {
            false => (404, "404 page not found\n".to_owned()),
            true => {
                let signed = world.key.sign(JobRequest::default().digest(Scheme::Texts));
                let sender = world.key.address();
                (
                    200,
                    format!(r#"{{"sender":"{sender}","signature":"{signed:?}"}}"#),
                )
            }
        };
        world.answer(SIGNS, status, &[], body);
        assert!(
            matches!(&world.failed[..], [(_, Failed::Ours(_))]),
            "{:?}",
            world.failed
        );
        assert!(world.find(AT_A).is_none());
    }
    // One that signs.
    let mut world = World::new(&Pays::Signer, NAME, &[A.into()]);
    world.submit(order(false));
    let said = introduction(&world.key);
    world.answer(
        "https://signer.example:443/sign-orchestrator-info",
        200,
        &[],
        said,
    );
    world.token(A, 0, 0);
    world.sign(Scheme::Framed);
    world.answer(AT_A, 200, &[], "ok");
    assert_eq!(world.done.len(), 1);
}

#[test]
fn orchestrators_are_looked_for_once_and_those_who_ask_money_are_passed_over_where_nobody_pays() {
    let mut world = World::free(&[]);
    world.submit(order(false));
    assert_eq!(world.finds, 1);
    world.byoc.offer(world.now, Vec::<Url>::new());
    world.drain();
    assert!(matches!(
        &world.failed[..],
        [(_, Failed::NoOrchestrator { .. })]
    ));
    // Nobody says anything.
    world.submit(order(false));
    world.pass(Duration::from_secs(11));
    assert_eq!(world.failed.len(), 2);
    let mut world = World::free(&[A]);
    world.submit(order(false));
    world.token(A, 1_000, 0);
    let (_, failed) = world.failed.pop().expect("failed");
    let Failed::NoOrchestrator { attempts } = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(attempts[0].left, Left::TooDear);
}

#[test]
fn who_goes_away_leaves_nothing_open_and_the_end_is_the_end() {
    let mut world = World::free(&[A, B]);
    let id = world.submit(order(false));
    world.token(A, 0, 0);
    world.byoc.cancel(world.now, id);
    world.drain();
    assert!(world.asked.is_empty() && world.done.is_empty() && world.failed.is_empty());
    world.submit(order(false));
    world.byoc.close(world.now);
    world.drain();
    assert!(matches!(&world.failed[..], [(_, Failed::Closed)]));
    assert!(world.asked.is_empty());
    assert!(world.byoc.submit(world.now, order(false)).is_err());
    // What cannot be sent is refused before anybody is asked.
    let mut world = World::free(&[A]);
    for path in ["/a/../b", "/a b", "//"] {
        let bad = Order {
            path: path.into(),
            ..order(false)
        };
        assert!(world.byoc.submit(world.now, bad).is_err(), "{path}");
    }
    let other = JobRequest {
        capability: "other".into(),
        ..order(false).job
    };
    assert!(world.byoc.submit(world.now, Order::new(other)).is_err());
}

#[test]
fn a_signature_that_is_refused_has_the_signer_asked_again_who_pays() {
    const WHO: &str = "https://signer.example:443/sign-orchestrator-info";
    for answers in [true, false] {
        let mut world = World::new(&Pays::Signer, NAME, &[A.into(), B.into()]);
        world.submit(order(false));
        let said = introduction(&world.key);
        world.answer(WHO, 200, &[], said.clone());
        world.token(A, 0, 0);
        world.sign(Scheme::Texts);
        world.answer(AT_A, 400, &[], "Could not verify job creds\n");
        if answers {
            world.answer(WHO, 200, &[], said);
            world.token(B, 0, 0);
            world.answer(AT_B, 200, &[], "ok");
            assert_eq!(world.done.len(), 1);
        } else {
            world.answer(WHO, 500, &[], "boom");
            assert!(
                matches!(&world.failed[..], [(_, Failed::Ours(_))]),
                "{:?}",
                world.failed
            );
        }
    }
}
