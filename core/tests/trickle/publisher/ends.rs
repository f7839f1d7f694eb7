//! How a publisher ends.

use super::*;

#[test]
fn closing_waits_for_answers_and_deletes_before_it_ends_the_warm_post() {
    let config = Config {
        linger: Duration::ZERO,
        ..Config::default()
    };
    let mut hand = Hand::ready(config);
    hand.begin();
    hand.write("abc").unwrap();
    hand.close();
    assert!(hand.last("POST /c/5").ended);
    assert_eq!(hand.count("DELETE /c"), 0);
    hand.reply("POST /c/5", stored(5));
    assert_eq!(hand.count("DELETE /c"), 1);
    assert!(!hand.last("POST /c/6").aborted);
    hand.reply("DELETE /c", Response::new(200));
    assert!(hand.last("POST /c/6").aborted);
    assert_eq!(hand.told(), ["ready 5", "delivered 5", "closed Closed"]);
}

#[test]
fn closing_leaves_readers_time_to_fetch_the_last_segment() {
    let mut hand = Hand::ready(Config::default());
    hand.begin();
    hand.close();
    hand.reply("POST /c/5", stored(5));
    hand.pass_millis(499);
    assert_eq!(hand.count("DELETE /c"), 0);
    assert_eq!(
        hand.publisher.begin(hand.now),
        Err(Unbegun::Misuse(Misuse::Ended))
    );
    hand.pass_millis(1);
    assert_eq!(hand.count("DELETE /c"), 1);
    hand.reply("DELETE /c", Response::new(200));
    assert_eq!(hand.told(), ["ready 5", "delivered 5", "closed Closed"]);
}

#[test]
fn a_channel_whose_readers_had_the_time_is_deleted_at_once() {
    // Its last delivery is a second ago.
    let mut hand = Hand::ready(Config::default());
    hand.begin();
    hand.end();
    hand.reply("POST /c/5", stored(5));
    hand.pass_millis(1_000);
    hand.close();
    assert_eq!(hand.count("DELETE /c"), 1);
    // It delivered nothing.
    let mut hand = Hand::ready(Config::default());
    hand.close();
    assert_eq!(hand.count("DELETE /c"), 1);
}

#[test]
fn a_channel_that_ends_while_the_publisher_lingers_is_the_end() {
    let mut hand = Hand::ready(Config::default());
    hand.begin();
    hand.close();
    hand.reply("POST /c/5", stored(5));
    hand.reply("POST /c/6", Response::new(404));
    assert_eq!(hand.told().last().unwrap(), "closed EndOfStream");
    hand.pass_millis(10_000);
    assert_eq!(hand.count("DELETE /c"), 0);
}
