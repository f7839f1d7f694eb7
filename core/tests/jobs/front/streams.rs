//! Streamed answers: when their heads go out, what silence and slowness do, and how they end.

use std::time::Duration;

use livepeer_core::EffectId;
use livepeer_core::error::{Broken, Cause, Failure, Party};
use livepeer_core::front::{Config, MAX_UNSENT, Outcome, RequestId};
use livepeer_core::http::{In, Url};
use livepeer_core::job::batch::{Failed, Finished, Served};
use livepeer_core::money::Amount;
use livepeer_core::pool::{Tried, Why};
use livepeer_sim::Driven as _;

use super::{CHAT, Door, payload, served};

/// A stream whose orchestrator has sent its head.
pub(super) fn begun(door: &mut Door, path: &str) -> (EffectId, RequestId, Served) {
    let body = if path == "/llm" {
        r#"{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#
    } else {
        CHAT
    };
    let exchange = door.post(path, body);
    let (id, work) = door.want();
    let served = served(&work, Vec::new());
    door.tell(|front, now| front.head(now, id, served.clone()));
    (exchange, id, served)
}

#[test]
fn a_head_waits_for_the_first_event_so_that_an_early_failure_keeps_its_status() {
    let mut door = Door::new();
    let (exchange, id, served) = begun(&mut door, "/v1/chat/completions");
    door.pass(Duration::from_secs(9));
    assert!(door.seen.is_empty());
    let failed = Failed::NoOrchestrator {
        attempts: Vec::new(),
        tried: Vec::new(),
        again: None,
    };
    door.tell(|front, now| front.failed(now, id, failed));
    assert_eq!(door.seen[&exchange].status, 503);

    // Nobody was tried, and the caller hears why and for how long.
    for (known, after, told) in [
        (1, None, "the one that is known is not free."),
        (
            3,
            Some(Duration::from_millis(11_500)),
            "none of the 3 that are known is free; the first one may be asked again in 12 s.",
        ),
    ] {
        let (exchange, id, _) = begun(&mut door, "/v1/chat/completions");
        let tried = Tried {
            url: Url::parse("https://a.example:8935").expect("a URL"),
            why: Why::Full,
        };
        let tried = vec![tried; known];
        door.tell(|front, now| {
            let failed = Failed::NoOrchestrator {
                attempts: Vec::new(),
                tried,
                again: after.map(|after| now + after),
            };
            front.failed(now, id, failed);
        });
        let body = String::from_utf8_lossy(&door.seen[&exchange].body).into_owned();
        assert!(
            body.contains(&format!("No orchestrator could do this llm job: {told}")),
            "{body}"
        );
    }

    // The operator's limit on spending: no client tries that again.
    let limit = Failed::Ours(Box::new(Failure::new(
        Party::KeyHolder,
        Cause::Guard(Box::new(Broken::Budget {
            per: "hour",
            spent: Amount::zero(),
            value: Amount::zero(),
            limit: Amount::zero(),
        })),
    )));
    for path in ["/v1/chat/completions", "/llm"] {
        let (exchange, id, _) = begun(&mut door, path);
        door.tell(|front, now| front.failed(now, id, limit.clone()));
        let seen = &door.seen[&exchange];
        assert_eq!(seen.status, 402);
        assert_eq!(seen.headers.get("x-should-retry"), Some("false"));
    }

    let (exchange, id, _) = begun(&mut door, "/v1/chat/completions");
    door.tell(|front, now| front.chunk(now, id, &payload("x", "")));
    let seen = &door.seen[&exchange];
    assert_eq!((seen.status, seen.ended), (200, false));
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("livepeer-cost-wei", "4266667"),
    ] {
        assert_eq!(seen.headers.get(name), Some(value));
    }
    let finished = Finished {
        answer: None,
        files: Vec::new(),
        served,
    };
    door.tell(|front, now| front.done(now, id, finished));
    let seen = &door.seen[&exchange];
    assert!(
        seen.ended && seen.text().ends_with("data: [DONE]\n\n"),
        "{}",
        seen.text()
    );
}

#[test]
fn silence_is_filled_with_comments_and_ends_as_a_break() {
    let mut door = Door::new();
    let (exchange, id, _) = begun(&mut door, "/v1/chat/completions");
    let mut comments = 0;
    for _ in 0..130 {
        door.pass(Duration::from_secs(1));
        let Some(seen) = door.seen.get_mut(&exchange) else {
            continue;
        };
        let unsent = std::mem::take(&mut seen.unsent);
        comments = seen.text().matches(": keep-alive\n\n").count();
        if unsent > 0 && !seen.ended {
            door.http(exchange, In::Sent(unsent));
        }
    }
    assert_eq!(comments, 8, "after 10 s, and every 15 s");
    let seen = &door.seen[&exchange];
    assert!(
        seen.ended && seen.text().contains("upstream_stream_broken"),
        "{}",
        seen.text()
    );
    assert!(!seen.text().contains("[DONE]"));
    assert_eq!(door.gone, [id], "the job is cancelled");
    assert_eq!(door.finished[0].outcome, Outcome::Broken);
}

#[test]
fn a_slow_client_holds_up_the_orchestrator_and_goes_on_when_it_reads() {
    let mut door = Door::new();
    let (exchange, id, _) = begun(&mut door, "/llm");
    let chunk = payload(&"x".repeat(10_000), "");
    let mut told = 0;
    while door.pressure.is_empty() {
        door.tell(|front, now| front.chunk(now, id, &chunk));
        told += 1;
        assert!(told < 100, "it never says stop");
    }
    let unsent = door.seen[&exchange].unsent;
    assert!(unsent > MAX_UNSENT && unsent < MAX_UNSENT + 11_000);
    assert_eq!(door.pressure, [(id, true)]);
    assert_eq!(door.seen[&exchange].asked_to_report, 1);
    door.http(exchange, In::Sent(unsent / 4));
    assert_eq!(door.pressure.len(), 1, "not yet");
    door.pass(Duration::from_secs(59));
    door.http(exchange, In::Sent(unsent / 2));
    assert_eq!(door.pressure, [(id, true), (id, false)]);
    assert!(door.gone.is_empty());
}

#[test]
fn a_client_that_reads_nothing_for_a_minute_is_dropped() {
    let mut door = Door::with(Config {
        stream_silence: Duration::from_secs(600),
        ..Config::default()
    });
    let (exchange, id, _) = begun(&mut door, "/llm");
    let chunk = payload(&"x".repeat(300_000), "");
    door.tell(|front, now| front.chunk(now, id, &chunk));
    door.pass(Duration::from_secs(59));
    assert!(!door.seen[&exchange].aborted);
    door.pass(Duration::from_secs(1));
    assert!(door.seen[&exchange].aborted);
    assert_eq!(
        (door.gone.as_slice(), door.front.in_flight()),
        (&[id][..], 0)
    );
    assert_eq!(door.finished[0].outcome, Outcome::Gone);
}

#[test]
fn a_stop_string_ends_the_answer_and_the_orchestrators_work() {
    let mut door = Door::new();
    let body = CHAT.replace("\"stream\"", r#""stop":"END","stream""#);
    let exchange = door.post("/v1/chat/completions", &body);
    let (id, work) = door.want();
    let served = served(&work, Vec::new());
    door.tell(|front, now| front.head(now, id, served));
    door.tell(|front, now| front.chunk(now, id, &payload("so far E", "")));
    door.tell(|front, now| front.chunk(now, id, &payload("ND and more", "")));
    let seen = &door.seen[&exchange];
    assert!(seen.ended && seen.text().contains(r#""finish_reason":"stop""#));
    assert!(!seen.text().contains("ND"), "{}", seen.text());
    assert_eq!(door.gone, [id]);
}

#[test]
fn a_stream_of_llm_ends_as_go_ends_it_or_with_done_if_that_is_wanted() {
    for (done_on_native, end) in [(false, "}\n\n"), (true, "}\n\ndata: [DONE]\n\n")] {
        let mut door = Door::with(Config {
            done_on_native,
            ..Config::default()
        });
        let (exchange, id, _) = begun(&mut door, "/llm");
        door.tell(|front, now| front.chunk(now, id, &payload("a", "")));
        door.tell(|front, now| front.chunk(now, id, &payload("b", "stop")));
        door.tell(|front, now| front.chunk(now, id, &payload("c", "")));
        let seen = &door.seen[&exchange];
        assert!(seen.ended && seen.text().ends_with(end), "{}", seen.text());
        assert_eq!(
            seen.text().matches("data: {").count(),
            2,
            "what follows is dropped"
        );
        assert!(
            door.gone.is_empty(),
            "the job has come to its end by itself"
        );
    }
}

#[test]
fn an_orchestrator_that_dies_in_mid_stream_is_an_event_and_no_good_end() {
    for (path, done_on_native) in [("/llm", true), ("/v1/chat/completions", false)] {
        let mut door = Door::with(Config {
            done_on_native,
            ..Config::default()
        });
        let (exchange, id, served) = begun(&mut door, path);
        door.tell(|front, now| front.chunk(now, id, &payload("a", "")));
        let cause = Cause::Gone("the rest of the answer");
        let url = served.url.clone();
        let failed = Failed::Broken {
            served: Box::new(served),
            failure: Box::new(Failure::new(Party::Orchestrator(url), cause)),
        };
        door.tell(|front, now| front.failed(now, id, failed));
        let seen = &door.seen[&exchange];
        let last = seen.text().trim_end().rsplit("data: ").next().unwrap();
        assert!(
            seen.ended && last.starts_with(r#"{"error":"#),
            "{}",
            seen.text()
        );
        assert!(!seen.text().contains("[DONE]"));
        assert_eq!(door.finished[0].error, Some("upstream_stream_broken"));
    }
}
