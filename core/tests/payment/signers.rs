//! The memory of how remote signers did.

use std::time::Duration;

use livepeer_core::http::Url;
use livepeer_core::signers::{FIRST_REST, LONGEST_REST, MAX_SIGNERS, SignerHealth, Standing};

use crate::support::START;

fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL")
}

#[test]
fn a_signer_that_fails_rests_for_longer_and_longer_and_an_answer_ends_that() {
    let one = url("http://one:1/some/path");
    let mut health = SignerHealth::default();
    assert_eq!(health.standing(START, &one), Standing::Healthy);
    let mut rests = Vec::new();
    let mut now = START;
    for _ in 0..8 {
        health.failed(now, &one);
        let Standing::Resting(until) = health.standing(now, &url("http://one:1")) else {
            panic!("it rests");
        };
        rests.push(until.since(now).as_secs());
        assert_eq!(health.resting(now).count(), 1);
        assert_eq!(health.standing(until, &one), Standing::Healthy);
        now = until;
    }
    assert_eq!(rests, [10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(LONGEST_REST.as_secs(), 300);
    health.failed(now, &one);
    health.answered(now, &one, Duration::from_millis(7));
    assert_eq!(health.standing(now, &one), Standing::Healthy);
    assert_eq!(health.took(&one), Some(Duration::from_millis(7)));
    health.failed(now, &one);
    assert_eq!(
        health.standing(now, &one),
        Standing::Resting(now + FIRST_REST)
    );
}

#[test]
fn of_two_memories_the_later_news_of_each_signer_count() {
    let (one, two) = (url("http://one"), url("http://two"));
    let later = START + Duration::from_secs(1);
    let (mut mine, mut theirs) = (SignerHealth::default(), SignerHealth::default());
    mine.failed(START, &one);
    mine.answered(later, &two, Duration::ZERO);
    theirs.answered(later, &one, Duration::ZERO);
    theirs.failed(START, &two);
    let mut both = mine.clone();
    both.merge(&theirs);
    assert_eq!(both.resting(START).count(), 0);
    theirs.merge(&mine);
    assert_eq!(both, theirs);
    // The same failure, told twice, is one failure.
    mine.failed(later, &one);
    let told = mine.clone();
    mine.merge(&told);
    assert_eq!(mine, told);
}

#[test]
fn what_is_remembered_has_a_bound() {
    let mut health = SignerHealth::default();
    for index in 0..=MAX_SIGNERS {
        let at = START + Duration::from_millis(index as u64);
        health.failed(at, &url(&format!("http://signer:{}", index + 1)));
    }
    assert_eq!(health.resting(START).count(), MAX_SIGNERS);
    let first = url("http://signer:1");
    assert_eq!(health.standing(START, &first), Standing::Healthy);
}
