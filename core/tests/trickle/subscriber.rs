//! The reaction of a subscriber to answers, silence and broken connections, told step by step.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Fault, Headers, In, Out, Response, Url};
use livepeer_core::trickle::subscriber::{Config, Event, Lag, Subscriber};
use livepeer_core::trickle::{Seq, Start};
use livepeer_core::{Effect, EffectId, Time};
use livepeer_sim::{Driven, Exchanges};

struct Asked {
    id: EffectId,
    index: String,
    at: Time,
    aborted: bool,
    paused: bool,
    done: bool,
}

/// A subscriber, and a test in the place of its server.
struct Hand {
    start: Time,
    now: Time,
    book: Exchanges,
    subscriber: Subscriber,
    asked: Vec<Asked>,
    events: Vec<String>,
}

impl Hand {
    fn new(config: Config, start: Start) -> Self {
        let now = Time::from_secs(1_000);
        let url = Url::parse("http://s/c").unwrap();
        let mut hand = Self {
            start: now,
            now,
            book: Exchanges::default(),
            subscriber: Subscriber::new(now, config, url, start),
            asked: Vec::new(),
            events: Vec::new(),
        };
        hand.drain();
        hand
    }

    /// A subscriber that reads seq 5, of which it has `ab`.
    fn reading(config: Config) -> Self {
        let mut hand = Self::new(config, Start::At(Seq::new(5)));
        hand.serve(5, "ab");
        assert_eq!(hand.told(), ["begin 5", "ab"]);
        hand
    }

    /// The requests for that index that are under way.
    fn live(&self, index: &str) -> Vec<&Asked> {
        let live = |asked: &&Asked| asked.index == index && !asked.aborted && !asked.done;
        self.asked.iter().filter(live).collect()
    }

    fn indexes(&self) -> Vec<&str> {
        self.asked.iter().map(|asked| &*asked.index).collect()
    }

    fn step(&mut self, index: &str, step: In) {
        let last = self.live(index).last().map(|asked| asked.id);
        let id = last.unwrap_or_else(|| panic!("{index} is not asked: {:?}", self.indexes()));
        if matches!(step, In::End(_) | In::Failed(_)) {
            let asked = self.asked.iter_mut().find(|asked| asked.id == id).unwrap();
            asked.done = true;
        }
        self.http(id, step);
    }

    fn reply(&mut self, index: &str, reply: Response) {
        self.step(index, In::Reply(reply));
    }

    fn data(&mut self, index: &str, text: &'static str) {
        self.step(index, In::Data(Bytes::from_static(text.as_bytes())));
    }

    /// The server has that segment, and these bytes of it.
    fn serve(&mut self, seq: u64, text: &'static str) {
        let index = seq.to_string();
        self.reply(&index, ok(seq));
        self.data(&index, text);
    }

    fn end(&mut self, index: &str) {
        self.step(index, In::End(Headers::new()));
    }

    fn cut(&mut self, index: &str) {
        self.step(index, In::Failed(Fault::Broken("reset".into())));
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }

    /// When requests left, in milliseconds since the start.
    fn times(&self) -> Vec<u128> {
        let millis = |asked: &Asked| asked.at.since(self.start).as_millis();
        self.asked.iter().map(millis).collect()
    }
}

impl Driven for Hand {
    livepeer_sim::driven!(subscriber: Subscriber, book);

    fn effect(&mut self, id: EffectId, effect: Effect) {
        let Effect::Http(out) = effect else {
            panic!("only http is asked for");
        };
        if let Out::Request(request) = out {
            let index = request.url.path().rsplit('/').next().unwrap().into();
            self.asked.push(Asked {
                id,
                index,
                at: self.now,
                aborted: false,
                paused: false,
                done: false,
            });
            return;
        }
        let asked = self.asked.iter_mut().find(|asked| asked.id == id).unwrap();
        match out {
            Out::Abort => asked.aborted = true,
            Out::Pause => asked.paused = true,
            Out::Resume => asked.paused = false,
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        self.events.push(told(event));
    }
}

/// An event as one word.
pub(crate) fn told(event: Event) -> String {
    match event {
        Event::Begin(seq, _) => format!("begin {seq}"),
        Event::Data(_, bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Event::End(seq) => format!("end {seq}"),
        Event::Truncated(seq, told) => format!("truncated {seq} {told}"),
        Event::Gap(range) => format!("gap {}..{}", range.start, range.end),
        Event::Discontinuity => "discontinuity".into(),
        Event::Closed(ending) => format!("closed {ending:?}"),
        other => panic!("{other:?}"),
    }
}

fn ok(seq: u64) -> Response {
    Response::new(200).header("lp-trickle-seq", seq.to_string())
}

fn latest(reply: Response, head: u64) -> Response {
    reply.header("lp-trickle-latest", head.to_string())
}

fn elsewhere(head: u64) -> Response {
    latest(Response::new(470), head)
}

#[test]
fn a_special_index_is_kept_until_a_seq_is_named_and_never_used_again() {
    let mut hand = Hand::new(Config::default(), Start::Current);
    hand.cut("-2");
    hand.pass_millis(250);
    hand.pass_millis(20_000);
    hand.reply("-2", ok(41));
    hand.data("-2", "x");
    hand.end("-2");
    hand.cut("42");
    hand.pass_millis(1_000);
    assert_eq!(hand.told(), ["begin 41", "x", "end 41"]);
    assert_eq!(hand.indexes(), ["-2", "-2", "-2", "42", "42"]);
}

#[test]
fn the_next_segment_is_asked_for_before_this_one_is_read() {
    let mut hand = Hand::reading(Config::default());
    hand.serve(6, "next");
    assert_eq!(hand.told(), [""; 0], "in order");
    hand.data("5", "c");
    hand.end("5");
    assert_eq!(hand.told(), ["c", "end 5", "begin 6", "next"]);
    assert_eq!(hand.indexes(), ["5", "6", "7"]);
}

#[test]
fn a_channel_that_was_there_is_asked_again_at_once_and_then_slower() {
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(5)));
    hand.serve(5, "x");
    hand.end("5");
    hand.cut("6");
    assert_eq!(hand.live("6").len(), 1);
    hand.cut("6");
    assert_eq!(hand.live("6").len(), 0);
    hand.pass_millis(250);
    assert_eq!(hand.live("6").len(), 1);
    hand.reply("6", ok(6));
    assert_eq!(hand.told(), ["begin 5", "x", "end 5"]);
}

#[test]
fn an_early_segment_is_held_within_bounds() {
    let config = Config {
        ahead_bytes: 6,
        ..Config::default()
    };
    let mut hand = Hand::reading(config);
    hand.serve(6, "1234");
    assert!(!hand.live("6")[0].paused);
    hand.data("6", "5678");
    assert!(hand.live("6")[0].paused);
    hand.end("5");
    assert!(!hand.live("6")[0].paused);
    assert_eq!(hand.told(), ["end 5", "begin 6", "1234", "5678"]);
}

#[test]
fn a_broken_body_is_resumed_without_a_byte_twice() {
    let mut hand = Hand::reading(Config::default());
    hand.cut("5");
    hand.serve(5, "a");
    assert_eq!(hand.told(), [""; 0]);
    hand.data("5", "bcd");
    hand.end("5");
    assert_eq!(hand.told(), ["cd", "end 5"]);
}

#[test]
fn a_body_that_breaks_too_often_is_told_as_cut() {
    let mut hand = Hand::reading(Config::default());
    for _ in 0..3 {
        hand.cut("5");
        hand.serve(5, "ab");
    }
    hand.cut("5");
    assert_eq!(hand.told(), ["truncated 5 2"]);
    hand.serve(6, "x");
    assert_eq!(hand.told(), ["begin 6", "x"]);
}

#[test]
fn what_the_server_no_longer_has_of_a_broken_body_is_told_as_cut() {
    // Evicted; ended before what is known; nothing at all.
    let stories: [fn(&mut Hand); 3] = [
        |hand| hand.reply("5", elsewhere(10)),
        |hand| {
            hand.serve(5, "a");
            hand.end("5");
        },
        |hand| {
            hand.reply("5", ok(5));
            hand.end("5");
        },
    ];
    for story in stories {
        let mut hand = Hand::reading(Config::default());
        hand.cut("5");
        story(&mut hand);
        assert_eq!(hand.told(), ["truncated 5 2"]);
    }
}

#[test]
fn another_segment_of_the_same_number_is_noticed() {
    let mut hand = Hand::reading(Config::default());
    hand.cut("5");
    hand.serve(5, "aXYZ");
    assert_eq!(hand.told(), ["truncated 5 2", "discontinuity"]);
    hand.serve(5, "aXYZ");
    assert_eq!(hand.told(), ["begin 5", "aXYZ"]);
}

#[test]
fn falling_behind_is_told_and_the_policy_says_where_to_go_on() {
    let story = |lag| {
        let config = Config {
            lag,
            ..Config::default()
        };
        let mut hand = Hand::new(config, Start::At(Seq::new(5)));
        hand.reply("5", elsewhere(20));
        (hand.told(), hand.asked.last().unwrap().index.clone())
    };
    assert_eq!(story(Lag::Live), (vec!["gap 5..20".into()], "20".into()));
    assert_eq!(story(Lag::Current), (vec!["gap 5..19".into()], "19".into()));
    assert_eq!(
        story(Lag::Earliest),
        (vec!["gap 5..16".into()], "16".into())
    );
    assert!(story(Lag::Fail).0[0].contains("TooMuch"));
}

#[test]
fn behind_a_channel_of_short_segments_the_head_is_reached_without_a_pause() {
    let config = Config {
        lag: Lag::Earliest,
        ..Config::default()
    };
    let mut hand = Hand::new(config, Start::At(Seq::new(5)));
    hand.reply("5", elsewhere(20));
    // The oldest was gone by the time that the question arrived: the head is not.
    hand.reply("16", elsewhere(23));
    assert_eq!(hand.told(), ["gap 5..16", "gap 16..23"]);
    assert_eq!(hand.live("23").len(), 1, "it did not wait");
    hand.serve(23, "x");
    assert_eq!(hand.told(), ["begin 23", "x"]);
}

#[test]
fn a_head_that_runs_away_is_not_chased_at_full_speed() {
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(5)));
    for _ in 0..40 {
        let Some(at) = hand.asked.last().map(|asked| asked.index.clone()) else {
            unreachable!("it asks at once");
        };
        if !hand.live(&at).is_empty() {
            let head: u64 = at.parse().unwrap();
            hand.reply(&at, elsewhere(head + 100));
        }
        hand.pass_millis(10);
    }
    let asked = hand.asked.len();
    assert!((4..=8).contains(&asked), "{asked} requests in 400 ms");
}

#[test]
fn being_further_behind_than_wanted_is_falling_behind_too() {
    let config = Config {
        max_lag: Some(2),
        ..Config::default()
    };
    let mut hand = Hand::new(config, Start::At(Seq::new(5)));
    hand.reply("5", latest(ok(5), 8));
    hand.data("5", "x");
    hand.end("5");
    assert_eq!(hand.told(), ["begin 5", "x", "end 5"]);
    hand.reply("6", latest(ok(6), 10));
    hand.data("6", "y");
    assert_eq!(hand.told(), ["gap 6..10"]);
    assert_eq!(hand.live("10").len(), 1);
}

#[test]
fn a_segment_the_server_never_had_is_waited_for_a_little() {
    // Its publisher may be continuing it: its slot is not due for another one.
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(5)));
    hand.reply("5", elsewhere(7));
    for _ in 0..3 {
        hand.pass_millis(250);
        hand.reply("5", elsewhere(7));
    }
    hand.pass_millis(250);
    hand.serve(5, "late");
    hand.end("5");
    assert_eq!(hand.told(), ["begin 5", "late", "end 5"]);
    for _ in 0..8 {
        hand.reply("6", elsewhere(9));
        hand.pass_millis(250);
    }
    hand.reply("6", elsewhere(9));
    assert_eq!(hand.told(), ["gap 6..9"]);
}

#[test]
fn racing_with_the_head_is_retried_at_once_and_then_slower() {
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(5)));
    for _ in 0..4 {
        hand.reply("5", elsewhere(5));
        hand.pass_millis(300);
    }
    assert_eq!(hand.told(), [""; 0]);
    let times = hand.times();
    assert_eq!(times[..2], [0, 50]);
    assert!(
        times.windows(2).skip(1).all(|two| two[1] - two[0] >= 250),
        "{times:?}"
    );
}

#[test]
fn ahead_of_the_head_is_waited_out_within_a_budget() {
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(5)));
    for _ in 0..200 {
        if hand.live("5").is_empty() {
            break;
        }
        hand.reply("5", elsewhere(4));
        hand.pass_millis(250);
    }
    let told = hand.told();
    assert!(told[0].contains("ahead of the head"), "{told:?}");
    let took = hand.times().last().copied().unwrap();
    assert!((29_000..=30_500).contains(&took), "{took}");
}

#[test]
fn segments_that_were_closed_by_hand_do_not_tell_where_the_head_was() {
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(5)));
    // A publisher that loses two segments before the server has a byte of them deletes both.
    for (seq, index) in [(5, "5"), (6, "6")] {
        hand.reply(index, latest(ok(seq), 5));
        hand.end(index);
        hand.pass_millis(250);
    }
    assert_eq!(hand.told(), ["begin 5", "end 5", "begin 6", "end 6"]);
    for _ in 0..8 {
        hand.reply("7", elsewhere(5));
        hand.pass_millis(250);
        assert_eq!(hand.told(), [""; 0], "nothing restarted");
    }
    hand.serve(7, "on");
    assert_eq!(hand.told(), ["begin 7", "on"]);
}

#[test]
fn a_head_far_below_for_a_second_is_a_restart() {
    let mut hand = Hand::reading(Config::default());
    hand.end("5");
    hand.told();
    // One low answer proves nothing (D3).
    hand.reply("6", elsewhere(1));
    hand.pass_millis(250);
    hand.reply("6", elsewhere(6));
    hand.pass_millis(250);
    for _ in 0..4 {
        hand.reply("6", elsewhere(1));
        hand.pass_millis(250);
        assert_eq!(hand.told(), [""; 0]);
    }
    hand.reply("6", elsewhere(1));
    assert_eq!(hand.told(), ["discontinuity"]);
    hand.pass_millis(250);
    hand.serve(1, "anew");
    assert_eq!(hand.told(), ["begin 1", "anew"]);
}

#[test]
fn an_empty_segment_is_one_and_a_hand_closed_head_is_not_spun_on() {
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(5)));
    hand.reply("5", latest(ok(5), 9));
    hand.end("5");
    assert_eq!(hand.told(), ["begin 5", "end 5"]);
    assert_eq!(hand.live("6").len(), 1, "at once: readable ones may follow");
    hand.reply("6", latest(ok(6), 6));
    hand.end("6");
    assert_eq!(hand.live("7").len(), 0);
    hand.pass_millis(250);
    assert_eq!(hand.live("7").len(), 1);
}

#[test]
fn an_unanswered_request_is_renewed_before_the_old_one_is_let_go() {
    let mut hand = Hand::new(Config::default(), Start::Next);
    hand.pass_millis(20_000);
    assert_eq!(hand.live("-1").len(), 2);
    let old = hand.live("-1")[0].id;
    // The old one may still answer, and then counts.
    hand.http(old, In::Reply(ok(7)));
    hand.http(old, In::Data(Bytes::from_static(b"x")));
    assert_eq!(hand.told(), ["begin 7", "x"]);
    assert_eq!(hand.live("-1").len(), 1);
    let mut hand = Hand::new(Config::default(), Start::Next);
    hand.pass_millis(21_000);
    assert_eq!(hand.live("-1").len(), 1);
    hand.pass_millis(60 * 60 * 1_000);
    assert_eq!(hand.told(), [""; 0], "silence is not a failure");
}

#[test]
fn a_head_without_a_byte_is_renewed_as_an_unanswered_request_is() {
    // The new request wins as soon as it is answered.
    let mut hand = Hand::new(Config::default(), Start::Next);
    hand.reply("-1", ok(7));
    hand.pass_millis(19_999);
    assert_eq!(hand.indexes(), ["-1"]);
    hand.pass_millis(1);
    assert_eq!(hand.indexes(), ["-1", "7"], "its seq is known by now");
    hand.serve(7, "x");
    assert!(hand.asked[0].aborted);
    assert_eq!(hand.told(), ["begin 7", "x"]);

    // Or the old one goes on within the overlap, and nothing of it is missed or told twice.
    for new_one_fails in [false, true] {
        let mut hand = Hand::new(Config::default(), Start::At(Seq::new(7)));
        hand.reply("7", ok(7));
        hand.pass_millis(20_000);
        let (old, new) = (hand.live("7")[0].id, hand.live("7")[1].id);
        if new_one_fails {
            hand.http(new, In::Failed(Fault::Broken("reset".into())));
        }
        hand.http(old, In::Data(Bytes::from_static(b"x")));
        hand.http(new, In::Reply(ok(7)));
        hand.http(new, In::Data(Bytes::from_static(b"x")));
        hand.http(old, In::Data(Bytes::from_static(b"y")));
        assert_eq!(hand.told(), ["begin 7", "x", "y"]);
    }

    // Or the old one breaks: the new one has to answer for itself.
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(7)));
    hand.reply("7", ok(7));
    hand.pass_millis(20_000);
    let old = hand.live("7")[0].id;
    hand.http(old, In::Failed(Fault::Broken("reset".into())));
    hand.serve(7, "x");
    assert_eq!(hand.told(), ["begin 7", "x"]);

    // For as long as it lasts, one every twenty seconds.
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(7)));
    for _ in 0..10 {
        hand.reply("7", ok(7));
        hand.pass_millis(20_000);
    }
    assert_eq!(hand.indexes(), ["7"; 11]);
    assert_eq!(hand.told(), [""; 0]);
}

#[test]
fn a_connection_that_fell_silent_inside_a_segment_is_checked() {
    let mut hand = Hand::reading(Config::default());
    hand.reply("6", ok(6));
    hand.pass_millis(20_000);
    assert_eq!(hand.live("5").len(), 2);
    hand.serve(5, "abc");
    assert_eq!(hand.told(), ["c"]);
    assert_eq!(hand.live("5").len(), 1, "the dead one is let go");
}

#[test]
fn a_segment_that_stays_silent_while_the_next_has_bytes_is_given_up() {
    let mut hand = Hand::reading(Config::default());
    hand.serve(6, "x");
    hand.pass_millis(9_999);
    assert_eq!(hand.told(), [""; 0]);
    hand.pass_millis(1);
    assert_eq!(hand.told(), ["truncated 5 2", "begin 6", "x"]);
}

#[test]
fn the_end_of_the_stream_waits_for_the_segment_being_read() {
    for over in [
        Response::new(404),
        ok(6).header("lp-trickle-closed", "terminated"),
        // D24: a branch of the Go server says it so.
        Response::new(471).header("lp-trickle-closed", "terminated"),
    ] {
        let mut hand = Hand::reading(Config::default());
        hand.reply("6", over);
        assert_eq!(hand.told(), [""; 0]);
        hand.data("5", "c");
        hand.end("5");
        assert_eq!(hand.told(), ["c", "end 5", "closed EndOfStream"]);
    }
}

#[test]
fn a_channel_may_be_made_a_little_later_than_it_is_asked_for() {
    let mut hand = Hand::new(Config::default(), Start::Next);
    while hand.now.since(hand.start) < Duration::from_secs(9) {
        hand.reply("-1", Response::new(404));
        hand.pass_millis(250);
    }
    hand.reply("-1", ok(0));
    hand.data("-1", "x");
    assert_eq!(hand.told(), ["begin 0", "x"]);
    let mut hand = Hand::new(Config::default(), Start::Next);
    while !hand.live("-1").is_empty() {
        hand.reply("-1", Response::new(404));
        hand.pass_millis(250);
    }
    assert!(hand.told()[0].contains("Gone"));
}

#[test]
fn failures_in_a_row_end_it_and_a_good_answer_starts_the_count_anew() {
    let bad = || {
        [
            Response::new(500),
            ok(6),
            Response::new(200),
            ok(5).header("x", "").header("lp-trickle-latest", "-1"),
        ]
    };
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(5)));
    for reply in &bad()[..3] {
        hand.reply("5", reply.clone());
        hand.pass_millis(5_000);
    }
    hand.reply("5", bad()[3].clone());
    hand.end("5");
    assert_eq!(hand.told(), ["begin 5", "end 5"]);
    for n in 0..6 {
        assert_eq!(hand.told(), [""; 0], "{n}");
        hand.cut("6");
        hand.pass_millis(5_000);
    }
    assert!(hand.told()[0].contains("GaveUp"));
    assert_eq!(hand.drain(), None);
}

#[test]
fn a_missing_head_is_asked_for() {
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(5)));
    hand.reply("5", Response::new(470));
    hand.reply("next", latest(Response::new(200), 30));
    assert_eq!(hand.told(), ["gap 5..30"]);
    let mut hand = Hand::new(Config::default(), Start::At(Seq::new(5)));
    hand.reply("5", Response::new(470));
    hand.reply("next", Response::new(200));
    assert_eq!(hand.told(), [""; 0]);
    hand.pass_millis(250);
    assert_eq!(hand.live("5").len(), 1);
}

#[test]
fn an_owner_may_call_silence_a_failure() {
    let config = Config {
        idle_within: Some(Duration::from_secs(30)),
        ..Config::default()
    };
    let mut hand = Hand::reading(config);
    hand.pass_millis(29_999);
    assert_eq!(hand.told(), [""; 0]);
    hand.pass_millis(1);
    let told = hand.told();
    assert_eq!(told[0], "truncated 5 2");
    assert!(told[1].contains("TimedOut"));
}

#[test]
fn a_jump_drops_everything_and_says_so() {
    let mut hand = Hand::reading(Config::default());
    hand.serve(6, "x");
    hand.subscriber.jump(hand.now, Start::Next).unwrap();
    hand.drain();
    assert_eq!(hand.told(), ["truncated 5 2", "discontinuity"]);
    assert!(hand.live("5").is_empty() && hand.live("6").is_empty());
    hand.reply("-1", ok(3));
    hand.data("-1", "y");
    assert_eq!(hand.told(), ["begin 3", "y"]);
}
