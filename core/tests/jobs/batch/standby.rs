//! Orchestrators that do not answer, and those who are asked beside them.

use super::*;

const URLS: [&str; 3] = [
    "https://a.example:8935",
    "https://b.example:8935",
    "https://c.example:8935",
];

/// An answer to a request for a picture, all in one.
const PICTURE: &str = r#"{"images":[{"url":"data:image/png;base64,UE5H","seed":1,"nsfw":false}]}"#;

/// A picture of 512 by 512 takes 5.2 seconds where that is slow, and nobody is asked beside it for ten more.
const BEFORE: Duration = Duration::from_millis(15_200);
const AFTER: Duration = Duration::from_millis(50);

/// How long one answer may take.
const WITHIN: Duration = Duration::from_secs(100);

impl World {
    /// The hosts that have a request and have not answered, in order.
    fn waiting(&self) -> Vec<String> {
        let hosts = self
            .asked
            .iter()
            .map(|(_, _, url, ..)| url.host().to_owned());
        hosts.collect()
    }

    /// Answers the request that `host` has.
    fn answer_of(&mut self, host: &str, status: u16, body: &str) {
        let at = self.waiting().iter().position(|one| one == host);
        self.asked.swap(0, at.expect("it has a request"));
        self.answer(status, "application/json", body.to_owned());
    }

    fn silent_first(orchestrators: usize) -> (Self, JobId) {
        let config = Config {
            // No exchange is left alone for longer than the book allows.
            answer_within: WITHIN,
            ..Config::default()
        };
        let mut world = Self::with(config, Pipeline::TextToImage, &URLS[..orchestrators]);
        let job = world.submit(&picture());
        world.pass(BEFORE);
        assert_eq!(world.waiting(), ["a.example"], "it may be at work");
        world.pass(AFTER);
        (world, job)
    }
}

#[test]
fn beside_a_silent_orchestrator_another_is_asked_and_its_answer_counts() {
    let (mut world, job) = World::silent_first(3);
    assert_eq!(world.waiting(), ["a.example", "b.example"]);
    let silent = world.asked[0].0;
    world.answer_of("b.example", 200, PICTURE);
    let (done, finished) = &world.done[0];
    assert_eq!((*done, finished.served.url.host()), (job, "b.example"));
    let left: Vec<_> = { finished.served.attempts.iter() }
        .map(|attempt| (attempt.url.host(), attempt.reason))
        .collect();
    assert_eq!(left, [("a.example", Left::Timeout)]);
    assert_eq!(world.aborted, [silent]);
    assert_eq!(
        world.suspended,
        [url(URLS[0])],
        "it had fifteen seconds more"
    );
    // The next job does not meet it.
    world.submit(&picture());
    assert_ne!(world.waiting(), ["a.example"]);
}

#[test]
fn a_slow_answer_counts_if_it_comes_before_that_of_the_standby() {
    let (mut world, job) = World::silent_first(2);
    let standby = world.asked[1].0;
    world.pass(Duration::from_secs(5));
    world.answer_of("a.example", 200, PICTURE);
    assert_eq!(
        (world.done[0].0, world.done[0].1.served.url.host()),
        (job, "a.example")
    );
    assert_eq!(world.aborted, [standby]);
    assert!(world.suspended.is_empty(), "{:?}", world.suspended);
}

#[test]
fn a_standby_that_fails_leaves_the_silent_one_its_time() {
    let (mut world, job) = World::silent_first(2);
    world.answer_of("b.example", 500, "boom");
    assert_eq!(world.waiting(), ["a.example"]);
    assert!(world.aborted.is_empty() && world.failed.is_empty());
    world.pass(WITHIN - BEFORE - 2 * AFTER);
    world.answer_of("a.example", 200, PICTURE);
    assert_eq!(world.done[0].0, job);
    let suspended: Vec<_> = world.suspended.iter().map(Url::host).collect();
    assert_eq!(suspended, ["b.example"]);
}

#[test]
fn a_request_that_is_long_for_all_suspends_nobody_who_was_asked_late() {
    let (mut world, _) = World::silent_first(3);
    world.pass(BEFORE + AFTER);
    assert_eq!(world.waiting(), ["a.example", "b.example", "c.example"]);
    world.pass(Duration::from_secs(20));
    world.answer_of("b.example", 200, PICTURE);
    assert_eq!(world.done.len(), 1);
    assert!(world.suspended.is_empty(), "{:?}", world.suspended);
    assert!(world.waiting().is_empty());
}

#[test]
fn where_there_is_nobody_else_a_silent_one_has_its_time_and_is_at_fault_then() {
    let (mut world, job) = World::silent_first(1);
    assert_eq!(world.waiting(), ["a.example"]);
    world.pass(WITHIN - BEFORE - 2 * AFTER);
    assert!(world.failed.is_empty());
    world.pass(AFTER);
    assert!(
        matches!(&world.failed[..], [(id, Failed::TimedOut { attempts })] if *id == job && attempts.len() == 1),
        "{:?}",
        world.failed
    );
    assert_eq!(world.suspended, [url(URLS[0])]);
}

#[test]
fn when_all_are_silent_each_has_its_time() {
    let (mut world, job) = World::silent_first(2);
    world.pass(WITHIN - BEFORE);
    assert_eq!(world.waiting(), ["b.example"]);
    world.pass(BEFORE + AFTER);
    assert!(
        matches!(&world.failed[..], [(id, Failed::TimedOut { attempts })] if *id == job && attempts.len() == 2),
        "{:?}",
        world.failed
    );
    assert_eq!(world.batch.jobs(), 0);
}

#[test]
fn a_caller_that_leaves_leaves_all_of_them() {
    let (mut world, job) = World::silent_first(2);
    world.batch.cancel(world.now, job);
    world.drain();
    assert!(world.waiting().is_empty());
    assert_eq!(world.aborted.len(), 2);
    assert!(world.suspended.is_empty());
}

#[test]
fn a_stream_without_a_head_has_a_standby_after_ten_seconds() {
    let mut world = World::new(Pipeline::Llm, &URLS[..2]);
    world.submit(&chat(true));
    world.pass(Duration::from_secs(10));
    assert_eq!(world.waiting(), ["a.example", "b.example"]);
    // Once there is a head, nobody else is waited for.
    let id = world.asked[1].0;
    let head = Response::new(200).header("content-type", "text/event-stream");
    world.http(id, In::Reply(head));
    assert_eq!(world.waiting(), ["b.example"]);
    assert_eq!(world.heads, 1);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.waiting(), ["b.example"]);
}

#[test]
fn however_large_the_work_a_standby_has_two_thirds_of_the_time() {
    let config = Config {
        answer_within: WITHIN,
        ..Config::default()
    };
    let mut world = World::with(config, Pipeline::TextToImage, &URLS[..2]);
    let mut large = picture();
    large.set("width", 100_000).expect("a field");
    world.submit(&large);
    world.pass(WITHIN / 3 - AFTER);
    assert_eq!(world.waiting(), ["a.example"]);
    world.pass(AFTER);
    assert_eq!(world.waiting(), ["a.example", "b.example"]);
}
