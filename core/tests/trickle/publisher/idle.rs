//! The behaviour of a publisher while its owner is silent.

use livepeer_core::trickle::publisher::Idle;

use super::*;

/// A publisher that is kept alive while its owner is silent.
fn kept_alive() -> Hand {
    let mut hand = Hand::ready(Config {
        idle: Some(Idle::default()),
        ..Config::default()
    });
    hand.told();
    hand
}

#[test]
fn a_segment_that_falls_silent_is_ended_and_goes_on_as_another() {
    let mut hand = kept_alive();
    hand.begin();
    hand.write("ab").unwrap();
    hand.step("POST /c/5", In::Sent(2));
    hand.pass_millis(2_999);
    hand.write("c").unwrap();
    hand.step("POST /c/5", In::Sent(1));
    hand.pass_millis(2_999);
    assert!(!hand.last("POST /c/5").ended, "each byte counts");
    hand.pass_millis(1);
    assert!(hand.last("POST /c/5").ended);
    assert_eq!(hand.last("POST /c/5").body, b"abc");
    hand.reply("POST /c/5", stored(5));
    assert_eq!(hand.told(), ["cut 5", "delivered 5"]);
    let misuse = Err(Unwritten::Misuse(Misuse::NotOpen));
    assert_eq!(hand.write("d"), misuse);
    assert_eq!(hand.publisher.end(hand.now), Err(Misuse::NotOpen));
    assert_eq!(hand.publish("d"), Seq::new(6));
    hand.reply("POST /c/6", stored(6));
    assert_eq!(hand.told(), ["delivered 6"]);
    // Nobody was woken in time: the owner who writes first is told as well.
    hand.begin();
    hand.write("e").unwrap();
    hand.now = hand.now + Duration::from_secs(3);
    assert_eq!(hand.write("f"), Err(Unwritten::Misuse(Misuse::NotOpen)));
    assert_eq!(hand.told(), ["cut 7"]);
}

#[test]
fn while_nothing_is_published_an_empty_segment_goes_out_now_and_then() {
    let mut hand = kept_alive();
    hand.pass_millis(19_999);
    assert!(!hand.last("POST /c/5").ended);
    for seq in 5..8 {
        let line = format!("POST /c/{seq}");
        hand.pass_millis(1);
        assert!(hand.last(&line).ended && hand.last(&line).body.is_empty());
        hand.reply(&line, stored(seq).header("connection", "close"));
        hand.pass_millis(19_999);
    }
    assert_eq!(hand.told(), [""; 0], "the owner has no part in it");
    assert_eq!(hand.publish("a"), Seq::new(8));
    hand.reply("POST /c/8", stored(8));
    assert_eq!(hand.told(), ["delivered 8"]);
    // One that was begun and has no byte yet makes way.
    assert_eq!(hand.begin(), Seq::new(9));
    hand.pass_millis(20_000);
    assert!(hand.last("POST /c/9").ended);
    hand.reply("POST /c/9", stored(9));
    assert_eq!(hand.told(), ["cut 9", "delivered 9"]);
    // While an answer is awaited, its deadline decides.
    hand.pass_millis(20_000);
    hand.pass_millis(9_999);
    assert_eq!(hand.count("POST /c/10"), 1);
    assert!(!hand.last("POST /c/11").ended);
    hand.close();
    hand.reply("POST /c/10", stored(10));
    hand.reply("DELETE /c", Response::new(200));
    assert_eq!(hand.told(), ["closed Closed"]);
}

#[test]
fn an_empty_segment_that_gets_nowhere_counts_against_the_server_and_is_nobodys_loss() {
    let mut hand = kept_alive();
    for seq in 5..8 {
        hand.pass_millis(20_000);
        hand.reply(&format!("POST /c/{seq}"), Response::new(403));
    }
    let told = hand.told();
    assert!(told.len() == 1 && told[0].contains("GaveUp"), "{told:?}");
}
