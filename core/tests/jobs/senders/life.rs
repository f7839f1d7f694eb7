//! The life of a stream: takeovers, returns, and the end.

use livepeer_core::entry::Ordered;
use livepeer_core::wire::byoc::JobRequest;

use super::*;

/// The states of jobs spec 11.2.
#[test]
fn a_stream_lives_as_its_table_has_it() {
    let mut desk = Desk::new();
    let sender = desk.publish(announced(
        "cam1",
        "source_id=a&source_type=rtmpConn&query=streamId%3Ds1",
    ));
    let stream = desk.admitted(sender);
    assert!(
        desk.settled().is_empty(),
        "the hook waits for the first search"
    );
    let updated = desk.tell(|entry, now| entry.update(now, "cam1", r#"{"a":1}"#));
    assert_eq!(updated, Ok(Updated::Kept), "nobody has to wait");
    assert!(desk.updates().is_empty(), "kept until somebody works");
    desk.tell(|entry, now| entry.started(now, stream, url()));
    assert_eq!(desk.settled(), [sender]);
    assert_eq!(desk.updates(), [r#"{"a":1}"#]);
    let came = " {\"prompt\":\"dog\",\"a\" : 1.0}";
    let updated = desk.tell(|entry, now| entry.update(now, "s1", came));
    assert_eq!(desk.updates().last().unwrap(), came, "byte for byte");
    let told = desk.said.iter().rev().find_map(|event| match event {
        Event::Update(of, _, Some(update)) if *of == stream => Some(*update),
        _ => None,
    });
    assert_eq!(updated, Ok(Updated::Sent(told.expect("somebody waits"))));
    assert_eq!(desk.notices, []);
    let large = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(LARGE_UPDATE - 13));
    for text in [&large[..], &format!("{large} ")] {
        let updated = desk.tell(|entry, now| entry.update(now, "cam1", text));
        assert!(
            matches!(updated, Ok(Updated::Sent(_))),
            "it is sent all the same"
        );
    }
    let name = StreamName::parse("cam1").unwrap();
    assert_eq!(large.len(), LARGE_UPDATE);
    assert_eq!(desk.notices, [Notice::LargeUpdate(name, LARGE_UPDATE + 1)]);

    desk.tell(|entry, now| entry.input(now, stream));
    for _ in 0..4 {
        desk.tell(|entry, now| entry.input(now, stream));
        desk.tell(|entry, now| entry.output_seen(now, stream));
    }
    let other = Url::parse("https://orch-b.example:8935").unwrap();
    desk.tell(|entry, now| entry.swapped(now, stream, &silent(), other));
    desk.tell(|entry, now| entry.stop(now, "cam1")).unwrap();
    assert_eq!(
        desk.traces(),
        [
            "gateway_receive_stream_request",
            "gateway_send_first_ingest_segment",
            "gateway_receive_first_processed_segment",
            "gateway_receive_few_processed_segments",
            "orchestrator_swap",
            "gateway_ingest_stream_closed",
        ]
    );
    let swap = desk
        .reports
        .iter()
        .find(|(_, one)| one["type"] == "orchestrator_swap");
    let swap = &swap.unwrap().1;
    assert_eq!(
        swap["orchestrator_info"]["url"], ORCH,
        "the one that was lost"
    );
    assert_eq!(swap["message"], "the orchestrator: no output for 5s");
    assert_eq!(desk.stopped(), [(stream, Why::Asked)]);
    let (_, kick) = desk.asked.pop_front().unwrap();
    assert_eq!(
        kick.url.to_string(),
        "http://10.0.0.9:9997/v3/rtmpconns/kick/a"
    );
    assert!(desk.tell(|entry, now| entry.stop(now, "cam1")).is_err());
    // What is still told of it changes nothing.
    desk.said.clear();
    desk.tell(|entry, now| entry.started(now, stream, url()));
    desk.tell(|entry, now| entry.job_over(now, stream, JobEnd::Failed("late")));
    assert!(desk.said.is_empty() && desk.entry.is_empty());
}

#[test]
fn a_newer_sender_takes_the_name_at_once_and_quietly() {
    let mut desk = Desk::new();
    let (old_sender, old) = desk.whip("cam1", "streamId=s1");
    desk.tell(|entry, now| entry.started(now, old, url()));
    let (_, new) = desk.whip("cam1", "streamId=s1");
    assert_ne!(old, new);
    assert_eq!(desk.stopped(), [(old, Why::TakenOver)]);
    assert_eq!(desk.kicked(), [old_sender]);
    assert!(desk.errors().is_empty(), "nobody needs to know");
    // The older one's last words do not reach the newer one.
    desk.tell(|entry, now| entry.left(now, old_sender, Left::Ended));
    desk.tell(|entry, now| {
        entry.job_over(now, old, JobEnd::Failed("control channel does not exist"))
    });
    assert_eq!(desk.status("s1")["gateway_status"]["error"], Value::Null);
    let output = OutputName::parse("cam1-out").unwrap();
    assert_eq!(desk.entry.output(&output), Ok(new));
    let request = &desk.jobs()[0].request_id;
    let output = OutputName::parse(&format!("cam1-{request}-out")).unwrap();
    assert_eq!(
        desk.entry.output(&output).unwrap_err().status,
        404,
        "of the older request"
    );
}

#[test]
fn without_takeover_a_name_is_free_once_its_sender_is_gone() {
    let mut desk = Desk::with(Config {
        takeover: false,
        ..config()
    });
    let (first, _) = desk.whip("cam1", "");
    let second = desk.publish(by(Way::Rtmp, "cam1", ""));
    assert_eq!(desk.refused(second), Some(&Denied::Taken));
    desk.tell(|entry, now| entry.left(now, first, Left::Ended));
    desk.whip("cam1", "");
}

#[test]
fn a_sender_that_vanished_may_come_back_for_the_same_work() {
    let mut desk = Desk::new();
    let (sender, stream) = desk.whip("cam1", "");
    desk.tell(|entry, now| entry.left(now, sender, Left::Lost));
    desk.pass(GRACE - Duration::from_millis(1));
    assert!(desk.stopped().is_empty());
    let back = desk.publish(by(Way::Whip, "cam1", "params=%7B%22a%22%3A1%7D"));
    assert_eq!(desk.admitted(back), stream, "the job goes on");
    desk.tell(|entry, now| entry.started(now, stream, url()));
    assert_eq!(desk.updates(), [r#"{"a":1}"#]);
    desk.pass(GRACE);
    assert!(desk.stopped().is_empty());

    desk.tell(|entry, now| entry.left(now, back, Left::Lost));
    let other = desk.publish(by(Way::Whip, "cam1", "pipeline=other"));
    assert_ne!(desk.admitted(other), stream, "other work is another job");

    desk.tell(|entry, now| entry.left(now, other, Left::Lost));
    desk.pass(GRACE);
    assert_eq!(desk.stopped().last().unwrap().1, Why::Disconnected);
    assert_eq!(desk.errors(), ["whip disconnected"]);
}

#[test]
fn media_joins_the_stream_that_a_media_server_announced() {
    let mut desk = Desk::new();
    let hook = desk.publish(announced(
        "cam1",
        "source_id=a&source_type=rtmpConn&query=pipeline%3Dsd",
    ));
    let stream = desk.admitted(hook);
    let sender = desk.publish(by(Way::Rtmp, "cam1", ""));
    assert_eq!(desk.admitted(sender), stream);
    assert_eq!(desk.jobs().len(), 1);
    desk.pass(MEDIA_WITHIN);
    assert!(desk.stopped().is_empty(), "there is media");
    // Another publisher of RTMP goes on with it, and the first one is closed.
    let next = desk.publish(by(Way::Rtmp, "cam1", ""));
    assert_ne!(
        desk.admitted(next),
        stream,
        "it wants other work than the announcement"
    );
    assert_eq!(desk.kicked(), [sender]);
    let again = desk.publish(by(Way::Rtmp, "cam1", ""));
    assert_eq!(desk.admitted(again), desk.admitted(next));
    assert_eq!(desk.kicked(), [sender, next]);

    let lonely = desk.publish(announced("cam2", "source_id=b&source_type=srtConn"));
    desk.admitted(lonely);
    desk.pass(MEDIA_WITHIN);
    assert_eq!(desk.stopped().last().unwrap().1, Why::NoVideo);
    assert_eq!(desk.errors().last(), Some(&"missing video"));
    let (_, kick) = desk.asked.back().unwrap();
    assert_eq!(kick.url.path(), "/v3/srtconns/kick/b");
}

#[test]
fn a_shutdown_is_told_lets_nobody_in_and_ends_what_is_left() {
    let mut desk = Desk::new();
    let (sender, stream) = desk.whip("cam1", "streamId=s1");
    let (began, grace, time) = (desk.now, Duration::from_secs(5), Duration::from_secs(600));
    let ends = began + grace + time;
    desk.tell(|entry, now| entry.drain(now, now + grace, ends));
    assert_eq!(desk.shutdowns(), [("s1".to_owned(), ends)]);
    desk.pass(grace - Duration::from_millis(1));
    let (_, second) = desk.whip("cam3", "");
    assert_eq!(desk.shutdowns()[1..], [("cam3".to_owned(), ends)]);
    desk.pass(Duration::from_millis(1));
    for way in [Way::Whip, Way::Rtmp] {
        let late = desk.publish(by(way, "cam2", ""));
        assert_eq!(desk.refused(late), Some(&Denied::Closing));
    }
    let hook = desk.publish(announced("cam2", "source_id=a&source_type=rtmpConn"));
    assert_eq!(desk.refused(hook), Some(&Denied::Closing));
    assert_eq!(desk.entry.len(), 2, "what runs goes on");
    let other = desk.publish(by(Way::Whip, "cam1", "pipeline=other"));
    assert_eq!(
        desk.refused(other),
        Some(&Denied::Closing),
        "other work is new"
    );
    desk.tell(|entry, now| entry.left(now, sender, Left::Lost));
    let back = desk.publish(by(Way::Whip, "cam1", "streamId=s1"));
    assert_eq!(desk.admitted(back), stream, "a sender may come back");
    desk.pass(time - Duration::from_millis(1));
    assert_eq!(desk.stopped(), []);
    desk.pass(Duration::from_millis(1));
    assert_eq!(
        desk.stopped(),
        [(stream, Why::Closing), (second, Why::Closing)]
    );
    assert!(desk.kicked().contains(&back));
    assert_eq!(desk.shutdowns().len(), 2, "each is told once");
}

#[test]
fn a_shutdown_at_once_ends_all_streams() {
    let mut desk = Desk::new();
    let (sender, stream) = desk.whip("cam1", "");
    desk.tell(Entry::stop_all);
    assert_eq!(desk.stopped(), [(stream, Why::Closing)]);
    assert_eq!(desk.kicked(), [sender]);
    let late = desk.publish(by(Way::Whip, "cam1", ""));
    assert_eq!(desk.refused(late), Some(&Denied::Closing));
}

#[test]
fn there_is_room_for_so_many_streams() {
    let mut desk = Desk::with(Config {
        max_streams: 1,
        ..config()
    });
    desk.whip("cam1", "");
    let more = desk.publish(by(Way::Whip, "cam2", ""));
    assert_eq!(desk.refused(more), Some(&Denied::Full));
    desk.whip("cam1", "");
}

fn order(name: &str, output: &str) -> Publish {
    let job = JobRequest {
        request: "{}".into(),
        capability: "turn".into(),
        timeout_seconds: 30,
        ..JobRequest::default()
    };
    let outputs = [output].into_iter().filter(|output| !output.is_empty());
    let ordered = Ordered {
        job: job.with_media(),
        params: None,
        outputs: outputs.map(String::from).collect(),
    };
    by(Way::Order(Box::new(ordered)), name, "")
}

#[test]
fn a_stream_through_a_container_is_ordered_before_anybody_sends_for_it() {
    let mut desk = Desk::new();
    let ordered = desk.publish(order("cam1", "rtmp://10.0.0.9/live/x"));
    let stream = desk.admitted(ordered);
    let [job] = desk.jobs()[..] else {
        panic!("{:?}", desk.said)
    };
    let container = job.container.as_ref().expect("a container");
    assert_eq!((&*container.capability, &*job.pipeline), ("turn", "turn"));
    assert_eq!(job.outputs[0].address, "rtmp://10.0.0.9/live/x");
    // It goes on, whoever orders the name again or announces it.
    let again = desk.publish(order("cam1", ""));
    assert_eq!(desk.refused(again), Some(&Denied::Exists));
    let hook = desk.publish(announced("cam1", "source_id=a&source_type=rtmpConn"));
    assert_eq!(desk.refused(hook), Some(&Denied::Taken));
    desk.tell(|entry, now| entry.started(now, stream, url()));
    desk.pass(MEDIA_WITHIN - Duration::from_secs(1));
    let sender = desk.publish(by(Way::Whip, "cam1", "pipeline=other"));
    assert_eq!(desk.admitted(sender), stream, "the order says what is done");
    let other = desk.publish(by(Way::Rtmp, "cam1", ""));
    assert_eq!(desk.admitted(other), stream);
    assert_eq!(desk.kicked(), [sender]);
    desk.pass(MEDIA_WITHIN);
    assert!(desk.stopped().is_empty() && desk.jobs().len() == 1);
    desk.tell(|entry, now| entry.left(now, other, Left::Ended));
    assert_eq!(desk.stopped(), [(stream, Why::Disconnected)]);
    // One for which nobody sends is over after a while, and one may not name any place for its output.
    let lonely = desk.publish(order("cam2", ""));
    let lonely = desk.admitted(lonely);
    desk.pass(MEDIA_WITHIN);
    assert_eq!(desk.stopped()[1].0, lonely);
    let inside = desk.publish(order("cam3", "rtmp://127.0.0.1/live/x"));
    assert!(matches!(desk.refused(inside), Some(Denied::Place(_))));
}

/// The media of an ordered stream, as a media server announces them.
fn source(name: &str) -> Publish {
    let hook = announced(name, "source_id=a1&source_type=rtmpConn");
    let Way::Hook(announced) = hook.way else {
        panic!("it is one")
    };
    Publish {
        way: Way::Source(announced),
        ..hook
    }
}

#[test]
fn the_media_of_an_ordered_stream_may_be_at_a_media_server() {
    let mut desk = Desk::new();
    let nobody = desk.publish(source("cam1"));
    let unknown = Denied::Unknown(StreamName::parse("cam1").unwrap());
    assert_eq!(desk.refused(nobody), Some(&unknown));
    let ordered = desk.publish(order("cam1", ""));
    let stream = desk.admitted(ordered);
    desk.tell(|entry, now| entry.started(now, stream, url()));
    desk.pass(MEDIA_WITHIN - Duration::from_secs(1));
    let announces = desk.publish(source("cam1"));
    assert!(
        desk.said
            .iter()
            .any(|event| matches!(event, Event::Settled(id) if *id == announces))
    );
    let pulled = desk.said.iter().any(|event| match event {
        Event::Pull(id, from) => *id == stream && from.address == "rtmp://10.0.0.9/cam1",
        _ => false,
    });
    assert!(pulled && desk.stopped().is_empty(), "{:?}", desk.said);
    // They have a minute to come, and are the stream's from then on.
    desk.pass(MEDIA_WITHIN - Duration::from_secs(1));
    let sender = desk
        .tell(|entry, now| entry.pulled(now, stream))
        .expect("wanted");
    desk.pass(MEDIA_WITHIN);
    let again = desk.publish(source("cam1"));
    assert_eq!(desk.refused(again), Some(&Denied::Taken));
    assert!(desk.stopped().is_empty());
    desk.asked.clear();
    desk.tell(|entry, now| entry.left(now, sender, Left::Ended));
    assert_eq!(desk.stopped(), [(stream, Why::Disconnected)]);
    // Those that do not come end it; and where it is stopped, the media server hears of it.
    let ordered = desk.publish(order("cam2", ""));
    let late = desk.admitted(ordered);
    desk.publish(source("cam2"));
    desk.pass(MEDIA_WITHIN);
    assert_eq!(desk.stopped()[1].0, late);
    desk.publish(order("cam3", ""));
    desk.publish(source("cam3"));
    desk.asked.clear();
    desk.tell(|entry, now| entry.stop(now, "cam3").map(drop))
        .expect("it runs");
    let kicked = desk
        .asked
        .iter()
        .map(|(_, request)| request.url.to_string());
    assert_eq!(
        kicked.collect::<Vec<_>>(),
        ["http://10.0.0.9:9997/v3/rtmpconns/kick/a1"]
    );
}

#[test]
fn a_stream_that_takes_no_video_waits_for_nobody_and_lets_nobody_send() {
    let mut desk = Desk::new();
    let mut blind = order("cam1", "");
    if let Way::Order(ordered) = &mut blind.way {
        let wishes = r#"{"enable_video_ingress":false,"enable_video_egress":false}"#;
        ordered.job.parameters = wishes.into();
    }
    let ordered = desk.publish(blind);
    let stream = desk.admitted(ordered);
    desk.tell(|entry, now| entry.started(now, stream, url()));
    for publish in [
        by(Way::Whip, "cam1", ""),
        by(Way::Rtmp, "cam1", ""),
        source("cam1"),
    ] {
        let sender = desk.publish(publish);
        assert_eq!(desk.refused(sender), Some(&Denied::NoVideo));
    }
    let watched = |desk: &mut Desk, name: &str| {
        let status = desk.tell(|entry, _| entry.status(name)).expect("it runs");
        status.contains("whep_url")
    };
    assert!(!watched(&mut desk, "cam1"), "it gives no video either");
    desk.pass(MEDIA_WITHIN * 10);
    assert!(desk.stopped().is_empty());
    desk.tell(|entry, now| entry.stop(now, "cam1").map(drop))
        .expect("it runs");
    assert_eq!(desk.stopped(), [(stream, Why::Asked)]);
    desk.publish(order("cam2", ""));
    assert!(watched(&mut desk, "cam2"));
}
