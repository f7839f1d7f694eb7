//! The behaviour of a publisher whose server or connections fail, told step by step.

mod ends;
mod idle;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::error::{Cause, Misuse};
use livepeer_core::http::{Fault, Headers, In, Out, Response, Url};
use livepeer_core::trickle::Seq;
use livepeer_core::trickle::publisher::{
    ANSWER_ENDS_WITHIN, Config, Event, MAX_ERRANDS, Policy, Publisher, Unbegun, Unwritten,
};
use livepeer_core::{Effect, EffectId, Time};
use livepeer_sim::{Driven, Exchanges};

struct Asked {
    id: EffectId,
    line: String,
    reset: bool,
    body: Vec<u8>,
    ended: bool,
    aborted: bool,
}

/// A publisher, and a test in the place of its server.
struct Hand {
    now: Time,
    book: Exchanges,
    publisher: Publisher,
    asked: Vec<Asked>,
    events: Vec<String>,
    losses: BTreeMap<u64, Cause>,
}

impl Hand {
    fn new(config: Config) -> Self {
        let now = Time::from_secs(1_000);
        let url = Url::parse("http://s/c/").unwrap();
        let mut hand = Self {
            now,
            book: Exchanges::default(),
            publisher: Publisher::new(now, config, url),
            asked: Vec::new(),
            events: Vec::new(),
            losses: BTreeMap::new(),
        };
        hand.drain();
        hand
    }

    /// A publisher that has found its place at 5.
    fn ready(config: Config) -> Self {
        let mut hand = Self::new(config);
        hand.reply("GET /c/next", latest(5));
        hand
    }

    /// A publisher whose connection breaks when so much of seq 5 has left.
    fn broken(text: &'static str) -> Self {
        let mut hand = Self::ready(Config::default());
        hand.begin();
        hand.write(text).unwrap();
        hand.sent_and_cut("POST /c/5");
        hand
    }

    /// The last request of that line that is neither answered nor given up.
    fn last(&self, line: &str) -> &Asked {
        self.asked
            .iter()
            .rev()
            .find(|asked| asked.line == line)
            .unwrap_or_else(|| panic!("no {line} among {:?}", self.lines()))
    }

    fn count(&self, line: &str) -> usize {
        self.asked.iter().filter(|asked| asked.line == line).count()
    }

    fn lines(&self) -> Vec<&str> {
        self.asked.iter().map(|asked| &*asked.line).collect()
    }

    fn step(&mut self, line: &str, step: In) {
        let id = self.last(line).id;
        self.http(id, step);
    }

    fn reply(&mut self, line: &str, reply: Response) {
        self.step(line, In::Reply(reply));
    }

    fn cut(&mut self, line: &str) {
        self.step(line, In::Failed(Fault::Broken("reset".into())));
    }

    /// All bytes leave, and then the connection breaks.
    fn sent_and_cut(&mut self, line: &str) {
        let count = self.last(line).body.len();
        self.step(line, In::Sent(count));
        self.cut(line);
    }

    /// The server begins to send what it holds of seq 5.
    fn read_back(&mut self, held: &'static str) {
        self.reply("GET /c/5", stored(5));
        self.step("GET /c/5", data(held));
    }

    /// Ends the reading back.
    fn read_back_ends(&mut self) {
        self.step("GET /c/5", In::End(Headers::new()));
    }

    fn begin(&mut self) -> Seq {
        let seq = self.publisher.begin(self.now).unwrap();
        self.drain();
        seq
    }

    fn write(&mut self, text: &'static str) -> Result<(), Unwritten> {
        let written = self
            .publisher
            .write(self.now, Bytes::from_static(text.as_bytes()));
        self.drain();
        written
    }

    fn end(&mut self) {
        self.publisher.end(self.now).unwrap();
        self.drain();
    }

    /// A whole segment.
    fn publish(&mut self, text: &'static str) -> Seq {
        let seq = self.begin();
        self.write(text).unwrap();
        self.end();
        seq
    }

    fn close(&mut self) {
        self.publisher.close(self.now);
        self.drain();
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}

impl Driven for Hand {
    livepeer_sim::driven!(publisher: Publisher, book);

    fn is_over(&self) -> bool {
        self.publisher.has_ended()
    }

    fn effect(&mut self, id: EffectId, effect: Effect) {
        let Effect::Http(out) = effect else {
            panic!("only http is asked for");
        };
        if let Out::Request(request) = out {
            self.asked.push(Asked {
                id,
                line: format!("{} {}", request.method.as_str(), request.url.path()),
                reset: request.headers.get("lp-trickle-reset").is_some(),
                body: Vec::new(),
                ended: false,
                aborted: false,
            });
            return;
        }
        let asked = self.asked.iter_mut().find(|asked| asked.id == id).unwrap();
        match out {
            Out::Data(bytes) => asked.body.extend_from_slice(&bytes),
            Out::End(_) => asked.ended = true,
            Out::Abort => asked.aborted = true,
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        self.events.push(match event {
            Event::Ready(seq) => format!("ready {seq}"),
            Event::Writable => "writable".into(),
            Event::Delivered(seq) => format!("delivered {seq}"),
            Event::Lost(seq, failure) => {
                self.losses.insert(seq.get(), failure.cause);
                format!("lost {seq}")
            }
            Event::Cut(seq) => format!("cut {seq}"),
            Event::Resumed(seq, held) => format!("resumed {seq} {held}"),
            Event::Closed(ending) => format!("closed {ending:?}"),
            other => panic!("{other:?}"),
        });
    }
}

fn latest(head: u64) -> Response {
    Response::new(200).header("lp-trickle-latest", head.to_string())
}

fn stored(seq: u64) -> Response {
    Response::new(200).header("lp-trickle-seq", seq.to_string())
}

fn data(text: &'static str) -> In {
    In::Data(Bytes::from_static(text.as_bytes()))
}

#[test]
fn an_answer_that_never_ends_is_given_up() {
    let dribble = |hand: &mut Hand, line: &str| {
        let within = ANSWER_ENDS_WITHIN.as_millis() as u64;
        for _ in 0..within / 100 {
            assert!(!hand.last(line).aborted, "{line} was given no time to end");
            hand.step(line, data("x"));
            hand.pass_millis(100);
        }
        assert!(hand.last(line).aborted, "{line} goes on for ever");
    };
    // The question where to begin, segments, the creation of a channel, and DELETEs of segments.
    let mut hand = Hand::new(Config::default());
    hand.reply("GET /c/next", latest(5));
    dribble(&mut hand, "GET /c/next");
    for n in 5..8 {
        hand.publish("one");
        let line = format!("POST /c/{n}");
        hand.reply(&line, stored(n));
        dribble(&mut hand, &line);
    }
    assert_eq!(
        hand.told(),
        ["ready 5", "delivered 5", "delivered 6", "delivered 7"]
    );
    hand.publish("two");
    hand.reply("POST /c/8", Response::new(400));
    hand.reply("DELETE /c/8", Response::new(200));
    dribble(&mut hand, "DELETE /c/8");
    // The channel's DELETE is the end, whatever else would come of it.
    hand.close();
    hand.pass_millis(1_000);
    hand.reply("DELETE /c", Response::new(200));
    assert!(hand.last("DELETE /c").aborted);
    assert!(hand.publisher.has_ended());
    let create = Config {
        create: true,
        ..Config::default()
    };
    let mut hand = Hand::new(create);
    hand.reply("GET /c/next", Response::new(404));
    hand.reply("POST /c", Response::new(200));
    dribble(&mut hand, "POST /c");
}

#[test]
fn an_answer_that_ends_leaves_its_connection_to_the_next() {
    let mut hand = Hand::ready(Config::default());
    hand.publish("one");
    hand.reply("POST /c/5", stored(5));
    hand.step("POST /c/5", In::End(Headers::new()));
    hand.pass_millis(60_000);
    assert!(!hand.last("POST /c/5").aborted);
}

#[test]
fn answers_that_do_not_end_are_bounded_in_number() {
    let mut hand = Hand::ready(Config::default());
    for n in 5..5 + 2 * MAX_ERRANDS as u64 {
        hand.publish("x");
        hand.reply(&format!("POST /c/{n}"), stored(n));
    }
    let open = hand
        .asked
        .iter()
        .filter(|asked| asked.ended && !asked.aborted);
    assert!(open.count() <= MAX_ERRANDS);
}

#[test]
fn only_the_first_post_of_a_run_resets_and_its_bytes_go_first() {
    let mut hand = Hand::ready(Config::default());
    assert_eq!(hand.told(), ["ready 5"]);
    assert!(hand.last("POST /c/5").reset);
    // Nothing has left, so the repetition resets as well.
    hand.cut("POST /c/5");
    hand.pass_millis(250);
    assert_eq!(hand.count("POST /c/5"), 2);
    assert!(hand.last("POST /c/5").reset);
    assert_eq!(hand.publish("one"), Seq::new(5));
    assert!(!hand.last("POST /c/6").reset);
    assert_eq!(hand.begin(), Seq::new(6));
    hand.write("two").unwrap();
    // A reset that arrived after a later byte would undo it.
    assert_eq!(hand.last("POST /c/6").body, b"");
    hand.reply("POST /c/5", stored(5));
    assert_eq!(hand.last("POST /c/6").body, b"two");
    assert_eq!(hand.told(), ["delivered 5"]);
}

#[test]
fn an_empty_first_segment_resets_only_until_its_end_has_left() {
    let mut hand = Hand::ready(Config::default());
    hand.begin();
    hand.end();
    hand.begin();
    // Segment 6 is open already. Should the server have closed 5, another reset would be a restart below its head, and
    // take 6 away.
    hand.cut("POST /c/5");
    hand.pass_millis(250);
    assert_eq!(hand.count("POST /c/5"), 2);
    assert!(!hand.last("POST /c/5").reset);
    hand.reply("POST /c/5", stored(5));
    assert_eq!(hand.told(), ["ready 5", "delivered 5"]);
}

#[test]
fn a_segment_continues_where_the_server_has_it() {
    let mut hand = Hand::ready(Config::default());
    hand.begin();
    hand.write("abc").unwrap();
    hand.write("def").unwrap();
    hand.sent_and_cut("POST /c/5");
    // A second POST waits while the segment is read back.
    assert_eq!(hand.count("POST /c/5"), 2);
    assert!(!hand.last("POST /c/5").reset);
    hand.read_back("ab");
    hand.write("ghi").unwrap();
    assert_eq!(hand.last("POST /c/5").body, b"");
    hand.pass_millis(50);
    hand.step("GET /c/5", data("cd"));
    hand.pass_millis(99);
    assert_eq!(
        hand.last("POST /c/5").body,
        b"",
        "bytes may still be on the way"
    );
    hand.pass_millis(1);
    assert_eq!(hand.last("POST /c/5").body, b"efghi");
    hand.end();
    assert!(hand.last("POST /c/5").ended);
    hand.reply("POST /c/5", stored(5));
    assert_eq!(hand.told(), ["ready 5", "resumed 5 4", "delivered 5"]);
    assert!(hand.last("GET /c/5").aborted);
}

#[test]
fn what_the_server_holds_beyond_what_was_sent_is_reported() {
    for held in ["abX", "abcd"] {
        let mut hand = Hand::broken("abc");
        hand.read_back(held);
        assert_eq!(hand.told(), ["ready 5", "lost 5"]);
        assert!(matches!(hand.losses[&5], Cause::Nonsense { .. }));
        // Its readers are woken.
        assert_eq!(hand.count("DELETE /c/5"), 1);
        // What is still written of it goes nowhere.
        hand.write("def").unwrap();
        hand.end();
        assert_eq!(hand.begin(), Seq::new(6));
    }
}

#[test]
fn late_bytes_of_the_broken_request_are_reported_and_not_papered_over() {
    let mut hand = Hand::broken("abcdef");
    hand.read_back("ab");
    hand.pass_millis(100);
    assert_eq!(hand.last("POST /c/5").body, b"cdef");
    // The old request had more after all, so the new one's bytes came twice.
    hand.step("GET /c/5", data("cdcd"));
    assert!(matches!(hand.losses[&5], Cause::Nonsense { .. }));
}

#[test]
fn a_lost_answer_to_a_complete_segment_is_found_out() {
    let mut hand = Hand::ready(Config::default());
    hand.publish("abc");
    hand.sent_and_cut("POST /c/5");
    hand.read_back("abc");
    hand.read_back_ends();
    assert_eq!(hand.told(), ["ready 5", "delivered 5"]);
}

#[test]
fn a_segment_that_was_closed_too_early_is_lost_and_the_head_is_asked_for() {
    let mut hand = Hand::broken("abc");
    hand.read_back("ab");
    hand.read_back_ends();
    assert_eq!(hand.told(), ["ready 5", "lost 5"]);
    hand.end();
    hand.reply("GET /c/next", latest(9));
    assert_eq!(hand.begin(), Seq::new(9));
}

#[test]
fn an_answer_with_connection_close_is_looked_up() {
    // What servers say to a POST whose bytes they did not want (D4), and some say always.
    let mut hand = Hand::ready(Config::default());
    hand.publish("abc");
    hand.reply("POST /c/5", stored(5).header("connection", "close"));
    assert_eq!(hand.told(), ["ready 5"]);
    hand.read_back("abc");
    hand.read_back_ends();
    assert_eq!(hand.told(), ["delivered 5"]);
}

#[test]
fn a_read_back_that_answers_late_is_believed_whatever_the_head_says() {
    let mut hand = Hand::ready(Config::default());
    hand.begin();
    hand.write("abc").unwrap();
    hand.sent_and_cut("POST /c/5");
    hand.pass_millis(100);
    assert_eq!(hand.count("GET /c/next"), 2, "it was silent");
    hand.read_back("ab");
    assert!(hand.last("GET /c/next").aborted);
    hand.pass_millis(100);
    assert_eq!(hand.told(), ["ready 5", "resumed 5 2"]);
    assert_eq!(hand.count("GET /c/5"), 1);
}

#[test]
fn a_silent_read_back_is_empty_only_if_the_channels_head_says_so() {
    let mut hand = Hand::broken("abc");
    hand.pass_millis(100);
    // Moved by our own first byte: the GET is lost.
    hand.reply("GET /c/next", latest(6));
    hand.pass_millis(100);
    assert_eq!(hand.count("GET /c/5"), 2);
    assert_eq!(hand.told(), ["ready 5"]);
    hand.pass_millis(100);
    hand.reply("GET /c/next", latest(5));
    hand.pass_millis(100);
    assert_eq!(hand.told(), ["resumed 5 0"]);
    assert_eq!(hand.last("POST /c/5").body, b"abc");
}

#[test]
fn what_is_no_longer_kept_is_recognised_and_not_repeated() {
    let config = Config {
        replay_bytes: 2,
        ..Config::default()
    };
    let story = |held: &'static str| {
        let mut hand = Hand::ready(config.clone());
        hand.begin();
        for part in ["abcdefghi", "jklmnopqr", "stu"] {
            hand.write(part).unwrap();
            let count = part.len();
            hand.step("POST /c/5", In::Sent(count));
        }
        hand.cut("POST /c/5");
        hand.read_back(held);
        hand.pass_millis(100);
        hand.told();
        (hand.losses.remove(&5), hand.last("POST /c/5").body.clone())
    };
    assert_eq!(story("abcdefghijklmnopqrs"), (None, b"tu".to_vec()));
    assert!(matches!(
        story("abcdefghijklmnopq").0,
        Some(Cause::TooMuch { .. })
    ));
    assert!(matches!(
        story("abcdefXhijklmnopqrs").0,
        Some(Cause::Nonsense { .. })
    ));
}

#[test]
fn a_connection_that_takes_nothing_is_given_up_in_seconds() {
    let mut hand = Hand::ready(Config::default());
    hand.begin();
    hand.write("abc").unwrap();
    hand.pass_millis(4_999);
    assert_eq!(hand.count("GET /c/5"), 0);
    hand.pass_millis(1);
    assert_eq!(hand.count("GET /c/5"), 1);
    hand.pass_millis(10_000);
    assert_eq!(hand.told(), ["ready 5", "lost 5"]);
    assert!(matches!(hand.losses[&5], Cause::TimedOut { .. }));
}

#[test]
fn three_lost_segments_in_a_row_end_it() {
    let mut hand = Hand::ready(Config::default());
    for n in 5..8 {
        hand.publish("x");
        hand.reply(&format!("POST /c/{n}"), Response::new(413));
    }
    let told = hand.told();
    assert_eq!(told[..4], ["ready 5", "lost 5", "lost 6", "lost 7"]);
    assert!(told[4].contains("GaveUp"), "{told:?}");
    assert_eq!(hand.drain(), None);
}

#[test]
fn another_certificate_ends_it_at_once() {
    let changed = Fault::CertificateChanged {
        remembered: [1; 32],
        seen: [2; 32],
    };
    let untrusted = Fault::Untrusted("UnknownIssuer".into());
    for (fault, name) in [(changed, "CertificateChanged"), (untrusted, "Untrusted")] {
        let mut hand = Hand::ready(Config::default());
        hand.step("POST /c/5", In::Failed(fault));
        assert!(hand.told()[1].contains(name));
    }
}

#[test]
fn a_channel_that_is_gone_ends_it_as_the_end_of_the_stream() {
    let gone = Response::new(404);
    let closed = stored(5).header("lp-trickle-closed", "terminated");
    for reply in [gone, closed] {
        let mut hand = Hand::ready(Config::default());
        hand.begin();
        hand.reply("POST /c/5", reply);
        assert_eq!(hand.told(), ["ready 5", "lost 5", "closed EndOfStream"]);
    }
}

#[test]
fn a_missing_channel_is_created_if_that_is_wanted() {
    let config = Config {
        create: true,
        ..Config::default()
    };
    let mut hand = Hand::new(config);
    hand.reply("GET /c/next", Response::new(404));
    hand.reply("POST /c", Response::new(200));
    assert_eq!(hand.told(), ["ready 0"]);
    let mut hand = Hand::new(Config::default());
    hand.reply("GET /c/next", Response::new(404));
    assert!(hand.told()[0].contains("Gone"));
}

#[test]
fn an_unusable_head_leads_to_zero_after_bounded_tries() {
    let mut hand = Hand::new(Config::default());
    hand.reply("GET /c/next", latest(5).header("x", ""));
    assert_eq!(hand.told(), ["ready 5"]);
    for answer in [Response::new(400), Response::new(200)] {
        let mut hand = Hand::new(Config::default());
        for _ in 0..3 {
            hand.reply("GET /c/next", answer.clone());
            hand.pass_millis(1_000);
        }
        assert_eq!(hand.told(), ["ready 0"]);
        assert!(hand.last("POST /c/0").reset);
    }
}

#[test]
fn each_policy_gives_up_what_it_says_and_wakes_the_readers() {
    let four = |policy| {
        let config = Config {
            policy,
            ..Config::default()
        };
        let mut hand = Hand::ready(config);
        for _ in 0..3 {
            hand.publish("x");
        }
        let begun = hand.publisher.begin(hand.now).map(Seq::get).ok();
        hand.drain();
        let deleted: Vec<u64> = (5..9)
            .filter(|n| hand.count(&format!("DELETE /c/{n}")) > 0)
            .collect();
        (begun, hand.told().split_off(1), deleted)
    };
    assert_eq!(four(Policy::Block), (None, vec![], vec![]));
    // It had no byte, so there is nothing to wake anybody from, and its number is free.
    assert_eq!(
        four(Policy::DropNewest),
        (Some(8), vec!["lost 8".to_string()], vec![])
    );
    assert_eq!(
        four(Policy::DropOldest),
        (Some(8), vec!["lost 5".to_string()], vec![5])
    );
    let all = ["lost 5", "lost 6", "lost 7"].map(String::from).to_vec();
    assert_eq!(four(Policy::SkipToLive), (Some(8), all, vec![5, 6, 7]));

    let full = |policy| {
        let config = Config {
            policy,
            max_unsent_bytes: 4,
            ..Config::default()
        };
        let mut hand = Hand::ready(config);
        hand.publish("abc");
        hand.begin();
        let full = hand.write("de");
        (full.is_ok(), hand.told().split_off(1))
    };
    assert_eq!(full(Policy::Block), (false, vec![]));
    assert_eq!(full(Policy::DropNewest), (true, vec!["lost 6".to_string()]));
    assert_eq!(full(Policy::DropOldest), (true, vec!["lost 5".to_string()]));
    assert_eq!(full(Policy::SkipToLive), (true, vec!["lost 5".to_string()]));
}

#[test]
fn writable_follows_when_there_is_room_again() {
    let config = Config {
        max_unsent_bytes: 4,
        ..Config::default()
    };
    let mut hand = Hand::ready(config);
    hand.begin();
    hand.write("abcd").unwrap();
    assert_eq!(
        hand.write("e"),
        Err(Unwritten::Full(Bytes::from_static(b"e")))
    );
    hand.step("POST /c/5", In::Sent(1));
    assert_eq!(hand.told(), ["ready 5"]);
    hand.step("POST /c/5", In::Sent(1));
    assert_eq!(hand.told(), ["writable"]);
    hand.write("e").unwrap();
}

#[test]
fn a_seq_that_somebody_else_closed_is_skipped_but_not_in_a_hurry() {
    let mut hand = Hand::ready(Config::default());
    for n in 5..9 {
        hand.reply(&format!("POST /c/{n}"), stored(n));
        assert_eq!(hand.count(&format!("POST /c/{}", n + 1)), 0);
        hand.pass_millis(250);
        assert_eq!(hand.count(&format!("POST /c/{}", n + 1)), 1);
    }
    assert_eq!(hand.begin(), Seq::new(9));
}
