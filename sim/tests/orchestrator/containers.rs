//! Jobs for containers: who gets one, what comes back, what it costs, and which places come back.

mod streams;

use bytes::Bytes;
use livepeer_core::http::{Body, Method, Out, Request, Url};
use livepeer_core::money::Price;
use livepeer_core::payment::Ticket;
use livepeer_core::wire::byoc::{JobRequest, Scheme, Sender, SignedBy, Token};
use livepeer_core::wire::payment::PAYMENT_HEADER;
use livepeer_core::wire::{Payment, SenderParams, identity_digest};
use livepeer_orchestrator::{Config, Container, Event, Quirks, Tempo, Worker};
use livepeer_sim::{Answer, Key};

use crate::program::{PROGRAM, Program};
use crate::stage::{Stage, ms, off_chain, on_chain, secs, service};

/// Wei for a second: a minute of it is three tickets of the usual worth.
const SECOND: i64 = 400_000_000;

fn at_program(path: &str) -> Worker {
    Worker::At(Url::parse(&format!("http://{PROGRAM}{path}")).expect("a URL"))
}

fn with_containers(config: Config) -> Config {
    let price = Price::new(SECOND, 1).expect("a price");
    let outside = Container {
        price,
        token: "t0k".to_owned(),
        ..Container::new(at_program("/base"))
    };
    let echo = Container {
        price,
        ..Container::new(Worker::Echo(Tempo::default()))
    };
    Config {
        register_secret: Some("boot".to_owned()),
        ..config
            .with_container("outside", outside)
            .with_container("echo", echo)
    }
}

fn job(container: &str, timeout_seconds: u32) -> JobRequest {
    JobRequest {
        id: "j1".to_owned(),
        request: r#"{"run":"x"}"#.to_owned(),
        parameters: "{}".to_owned(),
        capability: container.to_owned(),
        timeout_seconds,
    }
}

/// The header of a job that nobody checked.
fn encoded(json: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, json)
}

fn signed(key: &Key, job: &JobRequest) -> SignedBy {
    SignedBy {
        sender: key.address(),
        signature: key.sign(job.digest(Scheme::Texts)),
    }
}

fn request(path: &str, header: String, body: &str) -> Request {
    Request::new(
        Method::Post,
        service().with_path(&format!("/process/request{path}")),
    )
    .header("livepeer", header)
    .header("content-type", "application/json")
    .body(Body::Full(Bytes::copy_from_slice(body.as_bytes())))
}

fn unsigned(container: &str, path: &str, body: &str) -> Request {
    request(path, job(container, 10).to_header(None), body)
}

fn off() -> Stage {
    Stage::new(with_containers(off_chain()))
}

fn quirky(stage: &mut Stage, quirks: Quirks) {
    stage
        .net
        .with(stage.orch, |orch, now| orch.set_quirks(now, quirks));
}

fn free(stage: &Stage, container: &str) -> u32 {
    stage.net.get(stage.orch).free_places(container)
}

fn ask_token(stage: &mut Stage, sender: Sender, container: &str) -> Answer {
    let url = service().with_path("/process/token");
    let request = Request::new(Method::Get, url)
        .header("livepeer-eth-address", sender.to_header())
        .header("livepeer-capability", container);
    stage.ask(request)
}

fn token(stage: &mut Stage, sender: Sender, container: &str) -> Token {
    let answer = ask_token(stage, sender, container);
    assert_eq!(answer.status, Some(200), "{}", answer.text());
    Token::from_json(&answer.body, &service()).expect("a token")
}

fn payer(stage: &Stage) -> Sender {
    let sender = stage.payer.address();
    let signature = stage.payer.sign(identity_digest(sender));
    Sender(Some(SignedBy { sender, signature }))
}

/// Tickets under the parameters of a token.
fn tickets(stage: &Stage, token: &Token, nonces: std::ops::RangeInclusive<u32>) -> String {
    let params = token.ticket_params.clone().expect("a priced token");
    let sender = stage.payer.address();
    let tickets = nonces.map(|nonce| {
        let signature = stage
            .payer
            .sign(Ticket::new(&params, sender, nonce).digest());
        let signature = Bytes::copy_from_slice(&signature.0);
        SenderParams { nonce, signature }
    });
    let tickets = tickets.collect();
    let payment = Payment {
        sender,
        ticket_params: Some(params),
        tickets,
        expected_price: Some(token.price),
    };
    payment.encode()
}

fn text(answer: &Answer) -> (Option<u16>, String) {
    (answer.status, answer.text())
}

#[test]
fn a_job_reaches_the_program_with_its_path_and_body_and_no_other_field() {
    let mut stage = off();
    let program = Program::serve(&mut stage);
    let asked = unsigned("outside", "/a/b?c=d", r#"{"a":1}"#).header("x-other", "1");
    let answer = stage.ask(asked);
    assert_eq!(text(&answer), (Some(200), "the app's words".to_owned()));
    let field = |name| answer.headers.get(name);
    assert_eq!(field("livepeer-balance"), Some("0"));
    assert_eq!(field("content-type"), Some("text/plain"));
    assert_eq!((field("x-metadata"), field("x-other")), (Some("{}"), None));
    let seen = stage.net.get(program).last();
    assert_eq!(seen.request.url.path(), "/base/a/b");
    assert_eq!(seen.body, br#"{"a":1}"#);
    let fields: Vec<_> = seen.request.headers.iter().collect();
    let expected = [
        ("content-type", "application/json"),
        ("authorization", "Bearer t0k"),
    ];
    assert_eq!(fields, expected);
    assert_eq!(free(&stage, "outside"), 4);
}

#[test]
fn signatures_without_a_chain_may_be_empty_or_say_0x() {
    let mut stage = off();
    let empty = job("echo", 10).to_header(None);
    let json = |sig: &str| {
        let text = format!(
            r#"{{"request":"{{}}","capability":"echo","timeout_seconds":9,"sig":"{sig}"}}"#
        );
        encoded(&text)
    };
    for header in [empty.clone(), json(""), json("0x")] {
        let answer = stage.ask(request("/x", header, "hi"));
        assert_eq!(text(&answer), (Some(200), "hi".to_owned()));
    }
    // The reference's own gateways send it, and its orchestrators refuse it.
    quirky(
        &mut stage,
        Quirks {
            refuse_0x: true,
            ..Quirks::default()
        },
    );
    assert_eq!(stage.ask(request("/x", json(""), "hi")).status, Some(200));
    let refused = stage.ask(request("/x", json("0x"), "hi"));
    assert_eq!(
        text(&refused),
        (Some(400), "Could not verify job creds".to_owned())
    );
}

#[test]
fn jobs_are_refused_in_the_words_of_the_reference() {
    let mut stage = off();
    Program::serve(&mut stage);
    let creds = "Could not verify job creds";
    let header = encoded;
    for (header, status, words) in [
        ("%%%".to_owned(), 400, creds),
        (String::new(), 400, creds),
        (
            header(r#"{"request":"{}","capability":"echo"}"#),
            400,
            "no timeout_seconds set with request, timeout_seconds is required",
        ),
        (
            header(r#"{"request":"{}","capability":"none","timeout_seconds":3}"#),
            503,
            "No capacity available for capability",
        ),
        (
            header(r#"{"request":"x","capability":"echo","timeout_seconds":3}"#),
            400,
            "Unable to unmarshal job request details err=",
        ),
    ] {
        let answer = stage.ask(request("/x", header, ""));
        assert_eq!(answer.status, Some(status), "{words}");
        assert!(answer.text().starts_with(words), "{}", answer.text());
    }
    let get = Request::new(Method::Get, service().with_path("/process/request/x"));
    assert_eq!(stage.ask(get).status, Some(405));
    let worker = stage.ask(unsigned("outside", "/status/422", "{}"));
    assert_eq!(text(&worker), (Some(422), "the app's words".to_owned()));
    assert_eq!((free(&stage, "echo"), free(&stage, "outside")), (4, 4));
}

#[test]
fn a_container_that_is_lost_is_gone_until_it_registers_again() {
    let mut stage = off();
    let answer = stage.ask(unsigned("outside", "/x", "{}"));
    let lost = format!(
        "job not able to be processed, removing capability err=Post \"http://{PROGRAM}/base/x\": dial tcp {PROGRAM}: connect: connection refused"
    );
    assert_eq!(text(&answer), (Some(500), lost));
    assert_eq!(answer.headers.get("livepeer-balance"), Some("0"));
    assert_eq!(token(&mut stage, Sender(None), "outside").capacity, 0);
    assert_eq!(stage.ask(unsigned("outside", "/x", "{}")).status, Some(503));
    let program = Program::serve(&mut stage);
    let register = |secret: &'static str, body: &str| {
        Request::new(Method::Post, service().with_path("/capability/register"))
            .header("authorization", secret)
            .body(Body::Full(Bytes::copy_from_slice(body.as_bytes())))
    };
    let body = format!(
        r#"{{"name":"outside","url":"http://{PROGRAM}","capacity":2,"price_per_unit":5,"price_scaling":1}}"#
    );
    let refused = stage.ask(register("wrong", &body));
    assert_eq!(
        text(&refused),
        (Some(400), "invalid authorization".to_owned())
    );
    let taken = stage.ask(register("boot", &body));
    assert_eq!(text(&taken), (Some(200), "ok".to_owned()));
    assert_eq!(token(&mut stage, Sender(None), "outside").capacity, 2);
    assert_eq!(stage.ask(unsigned("outside", "/x", "{}")).status, Some(200));
    // A program that does not know its word is lost as well.
    let wrong = stage.ask(unsigned("outside", "/status/401", "{}"));
    let words = "job not able to be processed, removing capability err=worker auth token failed";
    assert_eq!(text(&wrong), (Some(500), words.to_owned()));
    assert_eq!(stage.net.get(program).seen.len(), 2);
    assert_eq!(free(&stage, "outside"), 0);
    let unregister = Request::new(Method::Post, service().with_path("/capability/unregister"))
        .header("authorization", "boot")
        .body(Body::Full("echo".into()));
    assert_eq!(text(&stage.ask(unregister)), (Some(200), "ok".to_owned()));
    assert_eq!(free(&stage, "echo"), 0);
}

#[test]
fn statuses_below_400_stay_what_they_are_unless_the_node_is_a_real_one() {
    let mut stage = off();
    Program::serve(&mut stage);
    let of = |stage: &mut Stage| stage.ask(unsigned("outside", "/status/201", "{}")).status;
    assert_eq!(of(&mut stage), Some(201));
    quirky(
        &mut stage,
        Quirks {
            flat_status: true,
            ..Quirks::default()
        },
    );
    assert_eq!(of(&mut stage), Some(200));
}

#[test]
fn a_stream_ends_with_the_balance_and_done() {
    let mut stage = off();
    let answer = stage.ask(unsigned("echo", "/events", r#"{"text":"one two"}"#));
    assert_eq!(
        answer.headers.get("content-type"),
        Some("text/event-stream")
    );
    assert_eq!(answer.headers.get("livepeer-payment-balance"), Some("0"));
    let expected = "data: {\"n\":0,\"text\":\"one\"}\n\ndata: {\"n\":1,\"text\":\"two\"}\n\n\
                    data: {\"balance\": 0.000}\n\ndata: [DONE]";
    assert_eq!(answer.text(), expected);
    assert_eq!(free(&stage, "echo"), 4);
}

#[test]
fn a_stream_that_floods_ends_when_its_time_is_over() {
    let mut stage = off();
    quirky(
        &mut stage,
        Quirks {
            flood: true,
            ..Quirks::default()
        },
    );
    let header = job("echo", 1).to_header(None);
    let id = stage.send(request("/events", header, r#"{"text":"one"}"#));
    stage.net.run_for(ms(500));
    let caller = stage.caller;
    let so_far = stage.net.get(caller).answer(id).clone();
    assert!(
        so_far.end.is_none() && so_far.body.ends_with(&[b'\n'; 100]),
        "a flood"
    );
    let whole = stage.answer(id);
    assert!(whole.body.len() > so_far.body.len());
    assert_eq!(free(&stage, "echo"), 4);
}

#[test]
fn places_come_back_unless_they_leak() {
    for leaky_places in [false, true] {
        let mut stage = off();
        Program::serve(&mut stage);
        quirky(
            &mut stage,
            Quirks {
                leaky_places,
                ..Quirks::default()
            },
        );
        // Too long.
        let slow = request("/silent", job("outside", 1).to_header(None), "{}");
        let answer = stage.ask(slow);
        assert_eq!(answer.status, Some(500));
        assert!(
            answer.text().ends_with("context canceled"),
            "{}",
            answer.text()
        );
        // Gone.
        let id = stage.send(unsigned("outside", "/silent", "{}"));
        stage.net.run_for(ms(100));
        assert_eq!(free(&stage, "outside"), if leaky_places { 2 } else { 3 });
        let caller = stage.caller;
        stage
            .net
            .with(caller, |caller, _| caller.step(id, Out::Abort));
        stage.net.run_for(ms(100));
        // Not JSON.
        let bad = JobRequest {
            request: "x".to_owned(),
            ..job("outside", 5)
        };
        assert_eq!(
            stage.ask(request("/x", bad.to_header(None), "{}")).status,
            Some(400)
        );
        assert_eq!(free(&stage, "outside"), if leaky_places { 1 } else { 4 });
    }
}

// ---- money ----

#[test]
fn a_job_needs_a_minute_on_account_and_is_charged_by_the_second() {
    let mut stage = Stage::new(with_containers(on_chain()));
    let program = Program::serve(&mut stage);
    let introduced = payer(&stage);
    assert_eq!(
        ask_token(&mut stage, Sender(None), "outside").status,
        Some(400)
    );
    let offer = token(&mut stage, introduced, "outside");
    assert_eq!((offer.balance, offer.capacity), (0, 4));
    assert_eq!(offer.price, Price::new(SECOND, 1).expect("a price"));
    let job = job("outside", 10);
    let header = job.to_header(Some(&signed(&stage.payer, &job)));
    let unpaid = stage.ask(request("/x", header.clone(), "{}"));
    assert_eq!(
        text(&unpaid),
        (Some(400), "Insufficient balance for request".to_owned())
    );
    // Two tickets are sixteen billions, less than a minute's twenty-four.
    let few = tickets(&stage, &offer, 1..=2);
    let few = stage.ask(request("/x", header.clone(), "{}").header(PAYMENT_HEADER, few));
    assert_eq!(few.status, Some(400));
    let enough = tickets(&stage, &offer, 3..=4);
    let paid = request("/open", header.clone(), "{}").header(PAYMENT_HEADER, enough);
    let id = stage.send(paid);
    stage.net.run_for(ms(1_500));
    let asked = stage.net.get(program).last().id;
    stage.net.with(program, |program, _| program.end(asked));
    let answer = stage.answer(id);
    assert_eq!(answer.status, Some(200));
    // Four tickets, less two seconds.
    let left = 4 * 8_000_000_000 - 2 * SECOND;
    assert_eq!(token(&mut stage, introduced, "outside").balance, left);
    let answer = stage.ask(request("/x", header, "{}"));
    let told = (left - SECOND).to_string();
    assert_eq!(answer.headers.get("livepeer-balance"), Some(&*told));
    let billed = stage
        .events()
        .into_iter()
        .filter(|event| matches!(event, Event::Billed { .. }));
    assert_eq!(billed.count(), 2, "refused jobs cost nothing");
}

#[test]
fn a_signature_of_somebody_else_is_none() {
    let mut stage = Stage::new(with_containers(on_chain()));
    let job = job("echo", 10);
    let theirs = SignedBy {
        sender: stage.payer.address(),
        ..signed(&Key::named("thief"), &job)
    };
    let framed = SignedBy {
        sender: stage.payer.address(),
        signature: stage.payer.sign(job.digest(Scheme::Framed)),
    };
    for header in [
        job.to_header(None),
        job.to_header(Some(&theirs)),
        job.to_header(Some(&framed)),
    ] {
        let answer = stage.ask(request("/x", header, "{}"));
        assert_eq!(
            text(&answer),
            (Some(400), "Could not verify job creds".to_owned())
        );
    }
    let config = Config {
        job_schemes: Scheme::ALL.to_vec(),
        ..with_containers(on_chain())
    };
    let mut stage = Stage::new(config);
    let answer = stage.ask(request("/x", job.to_header(Some(&framed)), "{}"));
    assert!(
        answer.text().starts_with("Insufficient balance"),
        "it was signed"
    );
}

#[test]
fn a_stream_that_is_not_paid_for_any_more_says_so_and_ends() {
    let mut stage = Stage::new(with_containers(on_chain()));
    let program = Program::serve(&mut stage);
    let introduced = payer(&stage);
    let offer = token(&mut stage, introduced, "outside");
    let job = job("outside", 600);
    let header = job.to_header(Some(&signed(&stage.payer, &job)));
    // Three tickets are a minute: the thirteenth bill finds nothing.
    let paid = tickets(&stage, &offer, 1..=3);
    let id = stage.send(request("/open", header, "{}").header(PAYMENT_HEADER, paid));
    stage.net.run_for(secs(1));
    let asked = stage.net.get(program).last().id;
    stage.net.with(program, |program, _| {
        program.say(asked, "data: 1\n\ndata: 2")
    });
    stage.net.run_for(secs(62));
    let caller = stage.caller;
    assert_eq!(
        stage.net.get(caller).answer(id).text(),
        "data: 1",
        "half a line waits for its end"
    );
    stage.net.run_for(secs(4));
    let answer = stage.net.get(caller).answer(id).clone();
    assert!(answer.end.is_some());
    let end = "data: 1\n\nevent: insufficient balance\ndata: {\"balance\": 0}\n\ndata: [DONE]";
    assert_eq!(answer.text(), end);
    assert!(stage.net.get(program).last().gone, "the program is told");
    assert_eq!(free(&stage, "outside"), 4);
}
