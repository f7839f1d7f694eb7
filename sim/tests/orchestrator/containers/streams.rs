//! Streams of containers: their channels, what their programs hear, and how they end.

use livepeer_core::trickle::Start;
use livepeer_core::wire::byoc::stream::StreamChannels;

use super::*;

const WISHES: &str =
    r#"{"enable_video_ingress":true,"enable_video_egress":true,"enable_data_output":true}"#;

fn of_stream(container: &str, stream: &str) -> JobRequest {
    JobRequest {
        id: stream.to_owned(),
        request: livepeer_core::wire::byoc::stream::about(stream),
        parameters: WISHES.to_owned(),
        ..job(container, 5)
    }
}

/// A request about a stream, unsigned.
fn about(stage: &mut Stage, what: &str, job: &JobRequest, body: &str) -> Answer {
    let request = Request::new(
        Method::Post,
        service().with_path(&format!("/ai/stream/{what}")),
    )
    .header("livepeer", job.to_header(None))
    .header("content-type", "application/json")
    .body(Body::Full(Bytes::copy_from_slice(body.as_bytes())));
    stage.ask(request)
}

fn channels(answer: &Answer) -> StreamChannels {
    assert_eq!(text(answer), (Some(200), String::new()));
    StreamChannels::from_headers(&answer.headers, &service()).expect("all channels")
}

#[test]
fn a_stream_sends_its_video_out_again_until_it_is_stopped() {
    let mut stage = off();
    let job = of_stream("echo", "s1");
    let started = about(&mut stage, "start", &job, r#"{"params":null}"#);
    let channels = channels(&started);
    let url = |url: &Option<Url>| url.clone().expect("a channel");
    assert_eq!(url(&channels.publish).path(), "/ai/trickle/s1");
    assert_eq!(url(&channels.data).path(), "/ai/trickle/s1-data");
    assert_eq!(free(&stage, "echo"), 3);
    let output = stage.reader(&url(&channels.subscribe), Start::Next);
    let data = stage.reader(&url(&channels.data), Start::Next);
    let events = stage.reader(&url(&channels.events), Start::Current);
    let publisher = stage.publisher(&url(&channels.publish), false);
    assert!(stage.publish(publisher, b"a segment", ms(20)));
    stage.net.run_for(secs(11));
    assert_eq!(stage.read(output), (vec![b"a segment".to_vec()], false));
    let told = String::from_utf8(stage.read(data).0.concat()).expect("text");
    assert_eq!(told, "{\"bytes\":9,\"segment\":0}\n");
    assert_eq!(
        stage.read(events).0.len(),
        2,
        "a sign of life every ten seconds"
    );
    // The id is in use, and whoever has it keeps it.
    let again = about(&mut stage, "start", &job, r#"{"params":null}"#);
    assert_eq!(
        text(&again),
        (
            Some(500),
            "Error adding stream to external capabilities".to_owned()
        )
    );
    assert!(stage.publish(publisher, b"another", ms(20)));
    assert_eq!(
        about(&mut stage, "update", &job, r#"{"a":2}"#).status,
        Some(200)
    );
    let paid = about(&mut stage, "payment", &job, "");
    assert_eq!(paid.headers.get("livepeer-balance"), Some("0"));
    for _ in 0..2 {
        assert_eq!(about(&mut stage, "stop", &job, "{}").status, Some(200));
    }
    stage.net.run_for(secs(1));
    assert_eq!(stage.read(output), (vec![b"another".to_vec()], true));
    assert_eq!(free(&stage, "echo"), 4);
    assert_eq!(stage.net.get(stage.orch).streams().count(), 0);
}

#[test]
fn a_program_is_told_of_its_streams_and_may_refuse_them() {
    let mut stage = off();
    let program = Program::serve(&mut stage);
    let job = of_stream("outside", "s1");
    channels(&about(&mut stage, "start", &job, r#"{"params":{"a":1}}"#));
    let seen = stage.net.get(program).last();
    assert_eq!(seen.request.url.path(), "/base/stream/start");
    assert_eq!(seen.request.headers.get("x-stream-id"), Some("s1"));
    assert_eq!(
        seen.request.headers.get("authorization"),
        Some("Bearer t0k")
    );
    let told: serde_json::Value = serde_json::from_slice(&seen.body).expect("JSON");
    let channel = |suffix: &str| format!("https://orch:8935/ai/trickle/s1{suffix}");
    let expected = serde_json::json!({
        "gateway_request_id": "s1", "subscribe_url": channel(""), "publish_url": channel("-out"),
        "control_url": channel("-control"), "events_url": channel("-events"),
        "data_url": channel("-data"), "params": { "a": 1 },
    });
    assert_eq!(told, expected);
    let changed = about(&mut stage, "update", &job, r#"{"a":2}"#);
    assert_eq!(text(&changed), (Some(200), "the app's words".to_owned()));
    let seen = stage.net.get(program).last();
    let path = seen.request.url.path();
    assert_eq!(
        (path, &seen.body[..]),
        ("/base/stream/params", &br#"{"a":2}"#[..])
    );
    stage.net.link(PROGRAM).down = true;
    let lost = about(
        &mut stage,
        "start",
        &of_stream("outside", "s2"),
        r#"{"params":null}"#,
    );
    assert_eq!(
        text(&lost),
        (Some(500), "Error sending request to worker".to_owned())
    );
    assert_eq!(
        free(&stage, "outside"),
        3,
        "the container stays, and so does the first stream"
    );
    let reader = Request::new(Method::Get, service().with_path("/ai/trickle/s2-events/0"));
    assert_eq!(stage.ask(reader).status, Some(404));
    // The program is gone, and the stream ends all the same.
    assert_eq!(about(&mut stage, "stop", &job, "{}").status, Some(200));
    assert_eq!(free(&stage, "outside"), 4);
}

#[test]
fn bad_requests_for_streams_are_refused_and_keep_nothing() {
    let mut stage = off();
    let good = of_stream("echo", "s1");
    let with = |id: &str| of_stream("echo", id);
    for (job, body, status, words) in [
        (with("s1"), "[", 400, "Invalid JSON body"),
        (
            with("a/b"),
            "{}",
            400,
            "the id of the stream is not one of a channel",
        ),
        (
            with(""),
            "{}",
            400,
            "the id of the stream is not one of a channel",
        ),
        (
            of_stream("none", "s1"),
            "{}",
            400,
            "No capacity available for capability",
        ),
        (
            JobRequest {
                parameters: "x".to_owned(),
                ..good.clone()
            },
            "{}",
            400,
            "Unable to unmarshal job parameters err=",
        ),
    ] {
        let answer = about(&mut stage, "start", &job, body);
        assert_eq!(answer.status, Some(status), "{words}");
        assert!(answer.text().starts_with(words), "{}", answer.text());
    }
    assert_eq!(free(&stage, "echo"), 4);
    // Wishes that are not there are none.
    let bare = JobRequest {
        parameters: String::new(),
        ..good
    };
    assert_eq!(
        channels(&about(&mut stage, "start", &bare, "{}")).publish,
        None
    );
}

#[test]
fn a_stream_that_is_not_paid_is_warned_once_and_then_ends() {
    let mut stage = Stage::new(with_containers(on_chain()));
    let introduced = payer(&stage);
    let offer = token(&mut stage, introduced, "echo");
    let job = of_stream("echo", "s1");
    let header = job.to_header(Some(&signed(&stage.payer, &job)));
    let request = |what: &str, payment: String| {
        Request::new(
            Method::Post,
            service().with_path(&format!("/ai/stream/{what}")),
        )
        .header("livepeer", header.clone())
        .header(PAYMENT_HEADER, payment)
        .body(Body::Full("{}".into()))
    };
    let unpaid = stage.ask(request("start", String::new()));
    assert_eq!(
        text(&unpaid),
        (Some(402), "Insufficient balance for request".to_owned())
    );
    // Four tickets are eighty seconds, of which a start takes none.
    let first = tickets(&stage, &offer, 1..=4);
    channels(&stage.ask(request("start", first)));
    stage.net.run_for(secs(70));
    let more = tickets(&stage, &offer, 5..=8);
    let paid = stage.ask(request("payment", more));
    assert_eq!(paid.status, Some(200));
    let left: i64 = paid
        .headers
        .get("livepeer-balance")
        .and_then(|left| left.parse().ok())
        .expect("a number");
    let expected = 8 * 8_000_000_000 - 69 * SECOND;
    assert!((expected - left).abs() < 100, "{left}");
    // The seventh bill is a second more than there is, and the eighth ends it.
    stage.net.run_for(secs(7 * 23 - 70 + 5));
    assert_eq!(stage.net.get(stage.orch).streams().count(), 1, "warned");
    stage.net.run_for(secs(23));
    assert_eq!(stage.net.get(stage.orch).streams().count(), 0);
    assert_eq!(free(&stage, "echo"), 4);
    let late = stage.ask(request("payment", String::new()));
    let words = "Failed to process payment, request not valid err=Insufficient balance for request";
    assert_eq!(text(&late), (Some(400), words.to_owned()));
}
