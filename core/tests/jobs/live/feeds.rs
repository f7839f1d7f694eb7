//! Media that go to an orchestrator and its standby: whichever gives output first goes on.

use livepeer_core::job::live::media::{Config, Event, Limits, Media, OutputEvent};
use livepeer_core::trickle::{ContentType, Seq, publisher, subscriber};
use livepeer_core::wire::Channels;

use super::*;

const NOW: Time = Time::from_secs(1_700_000_000);

fn channels_at(host: &str) -> Channels {
    let orchestrator = Url::parse(&format!("https://{host}:8935")).unwrap();
    Channels::from_json(channels(host).as_bytes(), &orchestrator).unwrap()
}

/// Media with an orchestrator in session 0, which is in the middle of an output segment, and a standby in session 1.
fn two() -> Media {
    let mut media = Media::new(NOW, Config::default());
    media.expect_output(NOW, true);
    media.go_to(NOW, 0, &channels_at("a"));
    give(&mut media, 0, b"half");
    media.stand_by(NOW, 1, &channels_at("b"));
    assert_eq!(sessions(&media), [0, 1]);
    told(&mut media);
    news(&mut media);
    media
}

fn begin(media: &mut Media, session: u32) {
    let content = ContentType::new("video/mp2t");
    media.output(NOW, session, subscriber::Event::Begin(Seq::ZERO, content));
}

/// Output comes from an orchestrator.
fn give(media: &mut Media, session: u32, bytes: &'static [u8]) {
    begin(media, session);
    let data = Bytes::from_static(bytes);
    media.output(NOW, session, subscriber::Event::Data(Seq::ZERO, data));
}

fn sessions(media: &Media) -> Vec<u32> {
    media.outputs().map(|(session, _)| session).collect()
}

/// The output that the application is told, one word for each event.
fn told(media: &mut Media) -> Vec<String> {
    let events = std::iter::from_fn(|| media.next_output());
    events
        .map(|event| match event {
            OutputEvent::Begin(seq, _) => format!("begin {seq}"),
            OutputEvent::Data(_, data) => String::from_utf8(data.to_vec()).unwrap(),
            OutputEvent::Anew(seq, bytes) => format!("anew {seq} after {bytes}"),
            other => format!("{other:?}"),
        })
        .collect()
}

/// Events of sessions, as the job is told of them.
fn news(media: &mut Media) -> Vec<(u32, &'static str)> {
    let mut all = Vec::new();
    loop {
        match media.poll_output() {
            Output::Event(news) => match news.event {
                Event::Seen => all.push((news.session, "seen")),
                Event::Ended(_) => all.push((news.session, "ended")),
                Event::Declined => all.push((news.session, "declined")),
                _ => {}
            },
            Output::Idle(_) => return all,
            Output::Effect(..) => {}
        }
    }
}

#[test]
fn the_standby_goes_on_if_it_gives_first_and_the_other_is_not_heard_any_more() {
    let mut media = two();
    // A beginning is no output yet: publishers end and keep alive with empty segments.
    begin(&mut media, 1);
    media.output(NOW, 1, subscriber::Event::End(Seq::ZERO));
    assert_eq!((told(&mut media).len(), sessions(&media).len()), (0, 2));
    give(&mut media, 1, b"whole");
    assert_eq!(told(&mut media), ["anew 0 after 4", "begin 0", "whole"]);
    assert_eq!(
        (news(&mut media), sessions(&media)),
        (vec![(1, "seen")], vec![1])
    );
    give(&mut media, 0, b"late");
    // The job hears of it, and says so.
    media.leave(NOW, 0);
    media.go_to(NOW, 1, &channels_at("b"));
    media.output(NOW, 1, subscriber::Event::End(Seq::ZERO));
    assert_eq!(told(&mut media), ["End(seq 0)"]);
    assert_eq!((news(&mut media), sessions(&media)), (vec![], vec![1]));
}

#[test]
fn the_one_at_work_goes_on_if_it_gives_first_and_the_standby_is_not_heard_any_more() {
    let mut media = two();
    begin(&mut media, 1);
    let rest = Bytes::from_static(b"rest");
    media.output(NOW, 0, subscriber::Event::Data(Seq::ZERO, rest));
    give(&mut media, 1, b"late");
    assert_eq!(
        (told(&mut media), sessions(&media)),
        (vec!["rest".to_owned()], vec![0])
    );
    // The job may have given up the one at work in that very moment. Another one is needed then: the channel of the
    // standby was closed.
    media.leave(NOW, 0);
    media.go_to(NOW, 1, &channels_at("b"));
    assert_eq!(
        (news(&mut media), sessions(&media)),
        (vec![(1, "declined")], vec![])
    );
    media.go_to(NOW, 2, &channels_at("c"));
    assert_eq!(told(&mut media), ["anew 0 after 8"]);
    assert_eq!(sessions(&media), [2]);
}

#[test]
fn once_the_one_at_work_is_left_its_output_is_the_standbys_to_give() {
    let mut media = two();
    media.leave(NOW, 0);
    give(&mut media, 0, b"late");
    assert_eq!((told(&mut media).len(), sessions(&media).len()), (0, 2));
    media.go_to(NOW, 1, &channels_at("b"));
    give(&mut media, 1, b"whole");
    assert_eq!(told(&mut media), ["anew 0 after 4", "begin 0", "whole"]);
    // Without a standby it counts until another works.
    let mut media = two();
    media.leave(NOW, 1);
    media.leave(NOW, 0);
    give(&mut media, 0, b"late");
    assert_eq!(told(&mut media), ["begin 0", "late"]);
}

#[test]
fn a_standby_that_takes_no_input_is_given_up_before_it_holds_too_much() {
    let limits = Limits {
        bytes: 1_000,
        ..Limits::default()
    };
    let config = Config {
        limits,
        ..Config::default()
    };
    let mut media = Media::new(NOW, config);
    media.expect_output(NOW, true);
    media.open(NOW, publisher::Config::default());
    media.go_to(NOW, 0, &channels_at("a"));
    media.stand_by(NOW, 1, &channels_at("b"));
    media.begin(NOW).unwrap();
    // Nobody answers, so nobody takes any. The application waits for the one at work alone.
    media.write(NOW, Bytes::from(vec![1; 2_000]));
    assert_eq!((news(&mut media), sessions(&media)), (vec![], vec![0, 1]));
    media.write(NOW, Bytes::from_static(b"x"));
    assert_eq!(
        (news(&mut media), sessions(&media)),
        (vec![(1, "ended")], vec![0])
    );
}

#[test]
fn a_standby_that_was_left_after_it_gave_is_left_for_another() {
    let mut media = two();
    give(&mut media, 1, b"half");
    assert_eq!(news(&mut media), [(1, "seen")]);
    // The job did not hear of its output in time, and takes the other one to be at work, whose channel is closed.
    media.leave(NOW, 1);
    assert_eq!(news(&mut media), [(0, "declined")]);
    media.leave(NOW, 0);
    media.go_to(NOW, 2, &channels_at("c"));
    give(&mut media, 2, b"whole");
    let told = told(&mut media);
    assert_eq!(
        told[told.len() - 3..],
        ["anew 0 after 4", "begin 0", "whole"]
    );
    assert_eq!(sessions(&media), [2]);
}

#[test]
fn output_that_the_end_of_the_job_cuts_short_is_told_and_nothing_after_it() {
    let mut media = Media::new(NOW, Config::default());
    media.go_to(NOW, 0, &channels_at("a"));
    give(&mut media, 0, b"half");
    media.end(NOW);
    // What came before the end is still handed over.
    let data = Bytes::from_static(b"more");
    media.output(NOW, 0, subscriber::Event::Data(Seq::ZERO, data));
    media.output_over(NOW);
    give(&mut media, 0, b"late");
    media.output_over(NOW);
    let cut = format!("{:?}", OutputEvent::Truncated(Seq::ZERO, 8));
    assert_eq!(told(&mut media), ["begin 0", "half", "more", &cut]);
}

#[test]
fn nothing_is_told_to_be_missing_before_all_output_from_before_the_end_is_handed_over() {
    let input = |answers| {
        let mut media = Media::new(NOW, Config::default());
        media.expect_output(NOW, true);
        media.open(NOW, publisher::Config::default());
        media.go_to(NOW, 0, &channels_at("a"));
        for _ in 0..2 {
            media.begin(NOW).unwrap();
            media.write(NOW, Bytes::from_static(b"in"));
            media.end_segment(NOW);
        }
        loop {
            match media.poll_output() {
                Output::Effect(id, Effect::Http(Out::Data(data))) => {
                    media.handle_input(NOW, Input::Http(id, In::Sent(data.len())));
                }
                Output::Idle(_) => break,
                _ => {}
            }
        }
        media.expect_output(NOW, answers);
        media.end(NOW);
        media
    };
    let gap = |from| format!("{:?}", OutputEvent::Gap(Seq::new(from)..Seq::new(2)));
    let mut media = input(true);
    give(&mut media, 0, b"out");
    media.output(NOW, 0, subscriber::Event::End(Seq::ZERO));
    assert_eq!(told(&mut media), ["begin 0", "out", "End(seq 0)"]);
    media.output_over(NOW);
    assert_eq!(told(&mut media), [gap(1)]);
    assert_eq!(media.figures().missing, 1);
    // Whoever drops the output unread has missed it all.
    let mut media = input(true);
    media.expect_output(NOW, false);
    assert_eq!(
        (told(&mut media), media.figures().missing),
        (vec![gap(0)], 2)
    );
    // Nobody reads, so nothing is missing.
    assert_eq!(input(false).figures().missing, 0);
}
