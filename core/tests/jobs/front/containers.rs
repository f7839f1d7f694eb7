//! Jobs for containers through the front door.

use livepeer_core::figures::Jobs;
use livepeer_core::front::MAX_UNSENT;
use livepeer_core::job::byoc::{Attempt, Done, Failed, Left, Order, Served};
use livepeer_core::money::Amount;
use livepeer_core::wire::byoc::{Grounds, JOB_HEADER, JobRequest};

use super::*;

const PATH: &str = "/process/request/turn/it?by=one";

fn door() -> Door {
    Door::with(Config {
        containers: true,
        ..Config::default()
    })
}

fn job() -> JobRequest {
    JobRequest {
        request: "{}".into(),
        capability: "turn".into(),
        timeout_seconds: 30,
        ..JobRequest::default()
    }
}

fn asked(job: &JobRequest, path: &str) -> Request {
    request(Method::Post, path).header(JOB_HEADER, job.to_header(None))
}

/// Takes the only order that was told.
fn order(door: &mut Door) -> (RequestId, Order) {
    match door.others.remove(0) {
        Event::Order(id, order) => (id, *order),
        other => panic!("{other:?}"),
    }
}

fn served(stream: bool) -> Served {
    Served {
        url: Url::parse("https://o.example:8935/").expect("a URL"),
        content_type: if stream {
            "text/event-stream"
        } else {
            "image/png"
        }
        .into(),
        metadata: "m".into(),
        balance: "12".into(),
        stream,
        price: Price::FREE,
        tickets: 0,
        value: Amount::zero(),
        attempts: Vec::new(),
        waited: std::time::Duration::ZERO,
    }
}

#[test]
fn an_order_has_what_its_request_says_and_the_answer_what_the_container_says() {
    let mut door = door();
    let request = asked(&job(), PATH)
        .header("content-type", "multipart/form-data; boundary=x")
        .header("livepeer-orch-search-timeout", "2s")
        .header("livepeer-orch-search-resp-timeout", "100ms");
    let exchange = door.send(request, "any bytes");
    let (id, order) = order(&mut door);
    assert_eq!(order.path, "turn/it?by=one");
    assert_eq!(order.content_type, "multipart/form-data; boundary=x");
    assert_eq!(&order.body[..], b"any bytes");
    assert_eq!(order.job, job());
    assert_eq!(order.search_within, Some(std::time::Duration::from_secs(2)));
    assert_eq!(
        order.token_within,
        Some(std::time::Duration::from_millis(100))
    );
    assert!(!order.may_repeat, "that is for its client to say");
    let done = Done {
        served: served(false),
        body: "png".into(),
    };
    door.tell(|front, now| front.order_done(now, id, done));
    let seen = &door.seen[&exchange];
    assert_eq!((seen.status, seen.text(), seen.ended), (200, "png", true));
    for (name, value) in [
        ("content-type", "image/png"),
        ("livepeer-balance", "12"),
        ("x-metadata", "m"),
        ("x-orchestrator-url", "https://o.example:8935"),
    ] {
        assert_eq!(seen.headers.get(name), Some(value), "{name}");
    }
    assert_eq!((door.front.in_flight(), door.front.held()), (0, 0));
}

#[test]
fn payments_of_containers_and_apps_are_counted_with_all_others() {
    let mut door = door();
    door.send(asked(&job(), PATH), "");
    let (id, _) = order(&mut door);
    let left = |left| Attempt {
        url: Url::parse("https://other.example:8935/").expect("a URL"),
        left,
    };
    let served = Served {
        tickets: 2,
        value: Amount::ratio(3_000_000_000_u64, 1).expect("not by zero"),
        attempts: vec![left(Left::Unpaid), left(Left::Full)],
        ..served(false)
    };
    let body = "png".into();
    door.tell(|front, now| front.order_done(now, id, Done { served, body }));
    door.send(asked(&job(), PATH), "");
    let (id, _) = order(&mut door);
    let failed = Failed::Exhausted {
        reached: true,
        attempts: vec![left(Left::Refused(Grounds::Payment))],
    };
    door.tell(|front, now| front.order_failed(now, id, &failed));
    let value = Amount::ratio(1_000_000_000_u64, 1).expect("not by zero");
    door.tell(|front, now| {
        front.app_paid(now, 5, &value);
        front.app_unpaid(now, 1, 2);
    });
    let page = door.front.to_prometheus(&Jobs::of("live"));
    for line in [
        "livepeer_tickets_sent 7",
        "livepeer_ticket_value_sent 4",
        "livepeer_payment_create_errors 2",
        "livepeer_payment_failures_total{job=\"byoc\"} 2",
        "livepeer_payment_failures_total{job=\"app\"} 3",
    ] {
        assert!(page.lines().any(|have| have == line), "{line}\n{page}");
    }
}

#[test]
fn what_is_no_job_is_refused_in_plain_words_and_reaches_nobody() {
    let with = |change: fn(&mut JobRequest)| {
        let mut job = job();
        change(&mut job);
        asked(&job, PATH)
    };
    let bare = request(Method::Post, PATH);
    for (request, words) in [
        (bare.clone(), "Unable to parse job request, err="),
        (
            bare.clone().header(JOB_HEADER, "e30"),
            "Unable to parse job request, err=ErrorSegEncoding",
        ),
        (
            with(|job| job.timeout_seconds = 0),
            "timeout_seconds is required",
        ),
        (
            with(|job| job.request = "x".into()),
            "Unable to unmarshal job request err=",
        ),
        (
            with(|job| job.parameters = "x".into()),
            "Unable to unmarshal job parameters err=",
        ),
        (asked(&job(), "/process/request/a//b"), "malformed"),
        (asked(&job(), "/process/request/a/%41"), "escapes"),
    ] {
        let mut door = door();
        let exchange = door.send(request, "{}");
        let seen = &door.seen[&exchange];
        if words != "malformed" {
            assert_eq!(seen.status, 400, "{}", seen.text());
            assert!(seen.text().contains(words), "{}", seen.text());
            let kind = seen.headers.get("content-type");
            assert_eq!(kind, Some("text/plain; charset=utf-8"));
        } else {
            assert!(matches!(seen.status, 400 | 404));
        }
        assert!(door.others.is_empty() && door.front.in_flight() == 0);
    }
    // Nothing set, and nothing said, is an empty object.
    let mut door = door();
    door.send(with(|job| job.parameters.clear()), "{}");
    order(&mut door);
    let get = door.get(PATH);
    assert_eq!(door.seen[&get].status, 405);
    let mut closed = Door::new();
    let unknown = closed.send(asked(&job(), PATH), "{}");
    assert_eq!(closed.seen[&unknown].status, 404);
}

#[test]
fn a_job_that_fails_has_one_clear_answer() {
    let attempts = Vec::new;
    let left = livepeer_core::job::byoc::Attempt {
        url: Url::parse("https://o.example:8935").expect("a URL"),
        left: Left::Refused(Grounds::Busy),
    };
    for (failed, status, text) in [
        (
            Failed::Caller {
                status: 422,
                text: "no prompt".into(),
            },
            422,
            "no prompt\n",
        ),
        (
            Failed::NoOrchestrator {
                attempts: attempts(),
            },
            400,
            "No orchestrators found for capability turn\n",
        ),
        (
            Failed::Exhausted {
                reached: false,
                attempts: vec![left],
            },
            503,
            "no orchestrator could process the job\n",
        ),
        (
            Failed::Undecided {
                attempts: attempts(),
            },
            504,
            "no answer came from the orchestrator that has the job; it may have been done\n",
        ),
    ] {
        let mut door = door();
        let exchange = door.send(asked(&job(), PATH), "{}");
        let (id, _) = order(&mut door);
        door.tell(|front, now| front.order_failed(now, id, &failed));
        let seen = &door.seen[&exchange];
        assert_eq!((seen.status, seen.text()), (status, text));
    }
}

#[test]
fn a_stream_is_passed_on_as_it_comes_and_held_back_for_a_slow_client() {
    let mut door = door();
    let exchange = door.send(asked(&job(), PATH), "{}");
    let (id, _) = order(&mut door);
    door.tell(|front, now| front.order_head(now, id, &served(true)));
    assert_eq!(door.seen[&exchange].status, 200);
    door.tell(|front, now| front.relay(now, id, "data: 1\n\n".into()));
    assert_eq!(door.seen[&exchange].text(), "data: 1\n\n");
    // However long the container thinks, nothing of ours comes between its lines.
    door.pass(std::time::Duration::from_secs(600));
    assert_eq!(door.seen[&exchange].text(), "data: 1\n\n");
    assert!(door.pressure.is_empty());
    door.tell(|front, now| front.relay(now, id, vec![b'x'; MAX_UNSENT].into()));
    assert_eq!(door.pressure, [(id, true)]);
    let unsent = door.seen[&exchange].unsent;
    door.http(exchange, In::Sent(unsent));
    assert_eq!(door.pressure, [(id, true), (id, false)]);
    door.tell(|front, now| front.relay_end(now, id));
    assert!(door.seen[&exchange].ended);
    assert_eq!(door.front.in_flight(), 0);
}

#[test]
fn a_stream_that_breaks_does_not_look_whole_and_a_client_that_goes_ends_its_job() {
    for goes in [false, true] {
        let mut door = door();
        let exchange = door.send(asked(&job(), PATH), "{}");
        let (id, _) = order(&mut door);
        door.tell(|front, now| front.order_head(now, id, &served(true)));
        match goes {
            true => door.leave(exchange),
            false => door.tell(|front, now| front.relay_broke(now, id)),
        }
        assert_eq!(door.gone, if goes { vec![id] } else { vec![] });
        let seen = &door.seen[&exchange];
        assert!(!seen.ended && seen.aborted != goes);
        assert_eq!(door.front.in_flight(), 0);
        // Late words change nothing.
        door.tell(|front, now| front.relay(now, id, "x".into()));
        door.tell(|front, now| front.relay_end(now, id));
    }
    // Before its head, too.
    let mut door = door();
    let exchange = door.send(asked(&job(), PATH), "{}");
    let (id, _) = order(&mut door);
    door.leave(exchange);
    assert_eq!(door.gone, [id]);
    // One who takes nothing is let go.
    let exchange = door.send(asked(&job(), PATH), "{}");
    let (id, _) = order(&mut door);
    door.tell(|front, now| front.order_head(now, id, &served(true)));
    door.tell(|front, now| front.relay(now, id, vec![b'x'; MAX_UNSENT + 1].into()));
    door.pass(std::time::Duration::from_secs(61));
    assert!(door.seen[&exchange].aborted);
    assert_eq!(door.gone.last(), Some(&id));
}

#[test]
fn jobs_for_containers_are_counted_by_their_names_and_statuses() {
    let mut door = door();
    let mut answered = |status: u16| {
        door.send(asked(&job(), PATH), "");
        let (id, _) = order(&mut door);
        door.tell(|front, now| front.respond(now, id, Response::new(status)));
    };
    answered(200);
    answered(200);
    answered(503);
    let page = door.front.to_prometheus(&Jobs::of("live"));
    for line in [
        "livepeer_byoc_requests_total{capability=\"turn\",code=\"200\"} 2",
        "livepeer_byoc_requests_total{capability=\"turn\",code=\"503\"} 1",
    ] {
        assert!(page.lines().any(|have| have == line), "{line}\n{page}");
    }
}
