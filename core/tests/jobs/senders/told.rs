//! Status, events and figures of streams.

use super::*;

#[test]
fn a_status_is_told_with_ours_beside_it_and_for_a_while_after_the_end() {
    let mut desk = Desk::new();
    let (sender, stream) = desk.whip("my-cam", "streamId=s1");
    let request = desk.jobs()[0].request_id.clone();
    let whep = format!("http://localhost:8889/my-cam-{request}-out/whep");
    assert_eq!(
        desk.status("s1"),
        json!({ "gateway_status": { "whep_url": whep } })
    );
    desk.tell(|entry, now| entry.started(now, stream, url()));
    let mut context = EventContext::default();
    context.add_orchestrator(Address([7; 20]), &url());
    let said = br#"{"type":"status","state":"ONLINE","inference_status":{"last_params":{"p":1}}}"#;
    let event = RunnerEvent::parse(said, &context).unwrap();
    desk.tell(|entry, now| entry.runner(now, stream, event));
    let said = br#"{"type":"status","state":"DEGRADED_INFERENCE","inference_status":{"fps":3}}"#;
    let event = RunnerEvent::parse(said, &context).unwrap();
    desk.tell(|entry, now| entry.runner(now, stream, event));
    let metrics = IngestMetrics {
        id: "x".into(),
        ..IngestMetrics::default()
    };
    desk.tell(|entry, now| entry.metrics(now, stream, metrics));
    for name in ["s1", "my-cam"] {
        let told = desk.status(name);
        assert_eq!(told["state"], "DEGRADED_INFERENCE");
        assert_eq!(told["inference_status"]["last_params"], json!({ "p": 1 }));
        assert_eq!(
            told["gateway_status"]["ingest_metrics"]["stats"]["conn_quality"],
            "good"
        );
        assert!(!told.to_string().contains("orch-a"), "{told}");
    }
    let (queue, event) = desk.reports.last().unwrap();
    assert_eq!(
        (queue.as_str(), &event["stream_id"]),
        ("stream_ingest_metrics", &json!("s1"))
    );

    desk.tell(|entry, now| entry.left(now, sender, Left::Ended));
    let told = desk.status("s1");
    assert_eq!(
        told["gateway_status"]["error"]["error_message"],
        "whip disconnected"
    );
    desk.pass(REMEMBERED - Duration::from_millis(1));
    assert_eq!(desk.status("my-cam")["state"], "DEGRADED_INFERENCE");
    desk.pass(Duration::from_millis(1));
    assert_eq!(desk.entry.status("s1").unwrap_err().status, 404);
}

#[test]
fn how_media_arrive_is_asked_for_as_long_as_somebody_sends() {
    let mut desk = Desk::new();
    let hook = desk.publish(announced("cam0", "source_id=a&source_type=rtmpConn"));
    desk.pass(MEASURE_EVERY);
    let measured = |desk: &mut Desk| {
        let mut found = Vec::new();
        desk.said.retain(|event| match event {
            Event::Measure(stream, sender) => {
                found.push((*stream, *sender));
                false
            }
            _ => true,
        });
        found
    };
    assert_eq!(measured(&mut desk), [], "its media are at the media server");
    let (first, of_first) = desk.whip("cam1", "");
    desk.pass(Duration::from_secs(2));
    let (second, of_second) = desk.whip("cam2", "");
    desk.pass(Duration::from_secs(3));
    let both = [(of_first, first), (of_second, second)];
    assert_eq!(measured(&mut desk), both);
    desk.tell(|entry, now| entry.left(now, first, Left::Lost));
    desk.pass(MEASURE_EVERY);
    assert_eq!(measured(&mut desk), both[1..]);
    let back = desk.publish(by(Way::Whip, "cam1", ""));
    desk.pass(MEASURE_EVERY);
    assert_eq!(measured(&mut desk), [(of_first, back), both[1]]);
    for sender in [back, second] {
        desk.tell(|entry, now| entry.left(now, sender, Left::Ended));
    }
    desk.pass(MEASURE_EVERY);
    assert_eq!(measured(&mut desk), []);
    assert!(
        desk.jobs().len() == 3 && desk.settled().is_empty(),
        "{hook:?}"
    );
}

#[test]
fn a_runner_names_no_queue_of_its_own() {
    let mut desk = Desk::new();
    let (_, stream) = desk.whip("cam1", "");
    for (said, queue) in [
        (
            r#"{"event":{"a":1},"queue_event_type":"create_new_payment"}"#,
            "ai_stream_events",
        ),
        (
            r#"{"event":{"a":1},"queue_event_type":"stream_trace"}"#,
            "stream_trace",
        ),
        (r#"{"type":"status"}"#, "ai_stream_status"),
    ] {
        let event = RunnerEvent::parse(said.as_bytes(), &EventContext::default()).unwrap();
        desk.tell(|entry, now| entry.runner(now, stream, event));
        assert_eq!(desk.reports.last().unwrap().0, queue);
    }
}

#[test]
fn a_failure_is_told_without_the_address_of_whoever_failed() {
    let mut desk = Desk::new();
    let (sender, stream) = desk.whip("cam1", "");
    desk.tell(|entry, now| entry.started(now, stream, url()));
    desk.tell(|entry, now| entry.swapped(now, stream, &silent(), url()));
    let link = Fault::Connect(format!(
        "tcp connect to orch-a.example:8935 ({ORCH}) refused"
    ));
    let failure = Failure::new(Party::Orchestrator(url()), Cause::Link(link));
    let text = without_addresses(&failure);
    assert_eq!(
        text,
        "the orchestrator: cannot connect: tcp connect to … … refused"
    );
    let each = "signer http://10.0.0.7:8936: cannot connect; signer http://b.example/: it asks";
    let all = Failure::new(Party::Signers, Cause::Link(Fault::Connect(each.into())));
    assert_eq!(
        without_addresses(&all),
        "the signers: cannot connect: signer … cannot connect; signer … it asks"
    );
    desk.tell(|entry, now| entry.job_over(now, stream, JobEnd::Failed(&text)));
    let told = desk.status("cam1");
    let message = &told["gateway_status"]["error"]["error_message"];
    assert_eq!(message, &format!("Too many swaps: {text}"));
    assert_eq!(desk.kicked(), [sender]);
}

#[test]
fn a_large_update_is_sent_and_warned_of() {
    let mut desk = Desk::new();
    let (_, stream) = desk.whip("cam1", "");
    desk.tell(|entry, now| entry.started(now, stream, url()));
    let large = format!(r#"{{"prompt":"{}"}}"#, "x".repeat(32 << 10));
    desk.tell(|entry, now| entry.update(now, "cam1", &large))
        .unwrap();
    let name = StreamName::parse("cam1").unwrap();
    assert_eq!(desk.notices, [Notice::LargeUpdate(name, large.len())]);
    assert_eq!(desk.updates(), [large], "in one message");
    let refused = desk.tell(|entry, now| entry.update(now, "nobody", "{}"));
    assert_eq!(refused.unwrap_err().status, 404);
    let refused = desk.tell(|entry, now| entry.update(now, "cam1", "[1]"));
    assert_eq!(refused.unwrap_err().status, 400);
}

#[test]
fn events_are_told_in_order_and_again_until_they_are_taken_or_too_many() {
    let mut desk = Desk::with(Config {
        events: hooked("https://listen.example/", "k"),
        ..config()
    });
    desk.whip("cam1", "");
    let (id, told) = desk.asked.pop_front().unwrap();
    let event = &full(&told)[0];
    assert_eq!(
        (&event["type"], &event["gateway"]),
        (&json!("stream_trace"), &json!("gw.example"))
    );
    assert_eq!(event["data"]["type"], "gateway_receive_stream_request");
    assert_eq!(event["timestamp"], "1790000000000");
    assert_eq!(event["id"].as_str().unwrap().len(), 36);
    // Nothing else is told meanwhile, and nothing waits for it.
    desk.whip("cam2", "");
    assert!(desk.asked.is_empty());
    desk.respond(id, 503, "");
    desk.pass(Duration::from_secs(1));
    let (id, again) = desk.asked.pop_front().unwrap();
    let all = full(&again);
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(&all[0], event, "the same one");
    desk.respond(id, 204, "");
    assert_eq!(desk.entry.waiting(), (0, 0));

    // A place that never takes any: each is tried ten times, then it is lost, and told so.
    desk.whip("cam3", "");
    desk.asked.clear();
    desk.pass(Duration::from_secs(600));
    assert_eq!(desk.entry.waiting().0, 0);
    assert_eq!(desk.notices, [Notice::EventsLost(1)]);
}

#[test]
fn figures_count_what_becomes_of_streams_and_name_nobody_who_sends() {
    let hook = "https://auth.example/hook";
    let mut desk = Desk::with(Config {
        webhook: hooked(hook, "k1"),
        heartbeat: hooked(hook, "k1"),
        ..config()
    });
    for (status, body) in [(200, "{}"), (403, "")] {
        desk.publish(by(Way::Whip, "secret-cam", "pipeline=noop"));
        desk.pass(Duration::from_millis(120));
        let (id, _) = desk.asked.pop_front().expect("a question");
        desk.respond(id, status, body.to_owned());
    }
    let stream = desk.stream();
    desk.tell(|entry, now| entry.started(now, stream, url()));
    desk.pass(Duration::from_millis(300));
    desk.tell(|entry, now| entry.output_seen(now, stream));
    let worth = Amount::ratio(3_000_000_000_u64, 1).expect("not by zero");
    desk.tell(|entry, now| entry.paid(now, 2, &worth));
    desk.tell(Entry::unpaid);
    let other = Url::parse("https://orch-b.example:8935").unwrap();
    desk.tell(|entry, now| entry.swapped(now, stream, &silent(), other));
    let metrics = IngestMetrics {
        received: 7,
        sent: 3,
        ..IngestMetrics::default()
    };
    desk.tell(|entry, now| entry.metrics(now, stream, metrics));
    // One heartbeat is answered, the next one is not.
    desk.pass(BEAT_EVERY);
    let (id, _) = desk.asked.pop_front().expect("a heartbeat");
    desk.respond(id, 204, String::new());
    desk.pass(BEAT_EVERY);
    desk.pass(BEAT_EVERY);
    let page = |desk: &Desk| {
        let door = Front::new(desk.now, Arc::default(), [1; 32]);
        desk.entry.to_prometheus() + &door.to_prometheus(desk.entry.jobs())
    };
    let at_work = page(&desk);
    assert!(at_work.contains("ai_current_live_pipelines{pipeline=\"noop\"} 1\n"));
    desk.tell(|entry, now| entry.job_over(now, stream, JobEnd::Failed("it broke")));
    let page = page(&desk);
    for line in [
        "ai_live_attempt{model_name=\"noop\"} 1",
        "ai_current_live_pipelines{pipeline=\"noop\"} 0",
        "ai_first_segment_delay_ms_bucket{orchestrator_uri=\"https://orch-a.example:8935\",le=\"250\"} 0",
        "ai_first_segment_delay_ms_bucket{orchestrator_uri=\"https://orch-a.example:8935\",le=\"500\"} 1",
        "live_swap_total{reason=\"silent\"} 1",
        "auth_webhook_time_milliseconds_sum 120",
        "auth_webhook_time_milliseconds_count 1",
        "webhook_requests_total{hook=\"auth\",code=\"200\"} 1",
        "webhook_requests_total{hook=\"auth\",code=\"403\"} 1",
        "webhook_requests_total{hook=\"heartbeat\",code=\"204\"} 1",
        "webhook_requests_total{hook=\"heartbeat\",code=\"none\"} 1",
        "ai_whip_transport_bytes_received 7",
        "ai_whip_transport_bytes_sent 3",
        "tickets_sent 2",
        "ticket_value_sent 3",
        "payment_create_errors 1",
        "payment_failures_total{job=\"live\"} 1",
        "ai_request_errors{error_code=\"silent\",orchestrator_uri=\"https://orch-a.example:8935\",pipeline=\"live-video-to-video\",model_name=\"noop\"} 1",
        "ai_request_errors{error_code=\"failed\",orchestrator_uri=\"https://orch-b.example:8935\",pipeline=\"live-video-to-video\",model_name=\"noop\"} 1",
    ] {
        assert!(
            page.lines().any(|have| have == format!("livepeer_{line}")),
            "{line}\n{page}"
        );
    }
    assert!(
        !page.contains("secret") && !page.contains("auth.example"),
        "{page}"
    );
}
