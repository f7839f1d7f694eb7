//! Leave to send, as the webhook, the keys and the media server have it.

use super::*;

/// The starts of the vectors: what the webhook is asked, what follows of its answer, and who is kicked.
#[test]
fn starts_go_as_the_vectors_have_it() {
    let mut played = 0;
    for case in cases("jobs/06-live-entry.json", "cases") {
        let (given, wanted) = (&case["in"], &case["out"]);
        let path = given["request"]["path"].as_str().unwrap_or_default();
        let Some(upstream) = wanted["upstream"].as_array().filter(|all| !all.is_empty()) else {
            continue;
        };
        let Some(stream) = path.strip_suffix("/start") else {
            continue;
        };
        played += 1;
        let mut desk = Desk::with(Config {
            webhook: given["webhook"]
                .as_str()
                .and_then(|url| hooked(url, given["webhook_key"].as_str().unwrap())),
            ..config()
        });
        let stream = stream.rsplit_once('/').unwrap().1;
        let form = given["request"]["body_text"].as_str().unwrap();
        let sender = desk.publish(announced(stream, form));
        let mut upstream = upstream.iter();
        if let Some((id, asked)) = desk.asked.pop_front() {
            is_request(&asked, upstream.next().unwrap());
            let reply = &given["peers"][0]["reply"];
            let body = match reply["body_text"].as_str() {
                Some(text) => text.to_owned(),
                None => reply["body_json"].to_string(),
            };
            desk.respond(id, reply["status"].as_u64().unwrap() as u16, body);
        }
        let status = wanted["reply"]["status"].as_u64().unwrap();
        if status == 200 {
            let stream = desk.admitted(sender);
            desk.tell(|entry, now| entry.job_over(now, stream, JobEnd::NoOrchestrator));
            assert_eq!(desk.settled(), [sender], "it is answered");
        } else {
            let denied = desk.refused(sender).expect("it is refused");
            assert_eq!(u64::from(denied.status()), status);
        }
        let (_, kick) = desk.asked.pop_front().expect("a kick");
        is_request(&kick, upstream.next().unwrap());
        assert!(upstream.next().is_none() && desk.asked.is_empty());
        for trace in wanted["traces"].as_array().into_iter().flatten() {
            assert!(desk.traces().contains(&trace.as_str().unwrap()), "{trace}");
        }
    }
    assert_eq!(played, 5);
}

#[test]
fn a_heartbeat_ends_the_streams_that_its_answer_names() {
    let mut played = 0;
    for case in cases("jobs/06-live-entry.json", "cases") {
        let (given, wanted) = (&case["in"], &case["out"]);
        if given["tick"] != "heartbeat" {
            continue;
        }
        played += 1;
        let mut headers = Headers::new();
        for (name, value) in given["heartbeat_headers"].as_object().unwrap() {
            headers.push_any(name, value.as_str().unwrap());
        }
        let mut desk = Desk::with(Config {
            heartbeat: Some(Hook {
                url: Url::parse(given["heartbeat_url"].as_str().unwrap()).unwrap(),
                headers,
            }),
            ..config()
        });
        let mut ids = BTreeMap::new();
        for (name, stream) in given["streams"].as_object().unwrap() {
            let id = stream["stream_id"].as_str().unwrap();
            let (_, stream) = desk.whip(name, &format!("streamId={id}"));
            ids.insert(stream, name.clone());
        }
        desk.pass(BEAT_EVERY);
        let (id, beat) = desk.asked.pop_front().expect("a beat");
        is_request(&beat, &wanted["upstream"][0]);
        let reply = &given["peers"][0]["reply"];
        let body = match reply["body_text"].as_str() {
            Some(text) => text.to_owned(),
            None => reply["body_json"].to_string(),
        };
        desk.respond(id, reply["status"].as_u64().unwrap() as u16, body);
        let ended: Vec<_> = desk.stopped();
        let stopped = wanted["stopped"].as_array().unwrap();
        assert_eq!(ended.len(), stopped.len());
        for ((id, why), stopped) in ended.iter().zip(stopped) {
            assert_eq!(
                (ids[id].as_str(), why),
                (stopped["stream"].as_str().unwrap(), &Why::Terminated)
            );
            assert_eq!(desk.errors(), [stopped["reason"].as_str().unwrap()]);
        }
        desk.pass(BEAT_EVERY);
        assert_eq!(desk.asked.len(), 1, "and again");
    }
    assert_eq!(played, 2);
}

#[test]
fn an_answer_of_the_webhook_says_what_the_job_is() {
    let mut desk = Desk::with(Config {
        webhook: hooked("https://auth.example/hook", "k1"),
        ..config()
    });
    let sender = desk.publish(by(Way::Whip, "cam1", "pipeline=noop&streamId=s1"));
    let (id, asked) = desk.asked.pop_front().expect("a question");
    assert_eq!(full(&asked)["type"], "livepeer-whip");
    assert!(desk.said.is_empty(), "nobody is let in before the answer");
    let answer = json!({ "pipeline": "sd", "pipeline_id": "p9", "rtmp_output_url": "rtmp://out/x",
        "pipeline_parameters": { "a": 1 } });
    desk.respond(id, 200, answer.to_string());
    desk.admitted(sender);
    let [job] = desk.jobs()[..] else {
        panic!("{:?}", desk.said)
    };
    assert_eq!(
        (&*job.pipeline, &*job.stream_id, &*job.outputs[0].address),
        ("sd", "s1", "rtmp://out/x")
    );
    assert_eq!(job.params.as_ref().unwrap().to_json(), r#"{"a":1}"#);
    assert_eq!(desk.reports[0].1["pipeline_id"], "p9");
}

#[test]
fn a_webhook_that_says_nothing_lets_nobody_in_and_is_not_waited_for() {
    for (way, kicks) in [("whip", 0), ("hook", 1)] {
        let mut desk = Desk::with(Config {
            webhook: hooked("https://auth.example/hook", "k1"),
            ..config()
        });
        let publish = match way {
            "whip" => by(Way::Whip, "cam1", ""),
            _ => announced("cam1", "source_id=a&source_type=rtmpConn"),
        };
        let late = desk.publish(publish.clone());
        desk.pass(AUTH_WITHIN - Duration::from_millis(1));
        assert_eq!(desk.refused(late), None);
        desk.pass(Duration::from_millis(1));
        assert_eq!(desk.refused(late), Some(&Denied::Failed));
        assert!(matches!(&desk.notices[..], [Notice::NoVerdict(_)]));
        assert_eq!(desk.asked.len(), kicks);
        let broken = desk.publish(publish);
        let (id, _) = desk.asked.pop_back().unwrap();
        desk.http(id, In::Failed(Fault::Connect("refused".into())));
        assert_eq!(desk.refused(broken), Some(&Denied::Failed));
    }
}

#[test]
fn a_sender_that_goes_before_the_answer_is_forgotten() {
    let mut desk = Desk::with(Config {
        webhook: hooked("https://auth.example/hook", ""),
        ..config()
    });
    let sender = desk.publish(by(Way::Rtmp, "cam1", ""));
    let (_, asked) = &desk.asked[0];
    assert_eq!(full(asked)["type"], "rtmp");
    assert_eq!(asked.headers.get("x-api-key"), None);
    desk.tell(|entry, now| entry.left(now, sender, Left::Ended));
    assert!(desk.asked.is_empty() && desk.said.is_empty() && desk.entry.is_empty());
}

#[test]
fn keys_are_asked_for_where_there_are_any() {
    let mut desk = Desk::with(Config {
        keys: [
            ("cam1".to_owned(), "k1".to_owned()),
            (String::new(), "k2".to_owned()),
        ]
        .into(),
        ..config()
    });
    for (name, key, fits) in [
        ("cam1", Some("k1"), true),
        ("cam1", Some("k2"), false),
        ("cam1", None, false),
        ("other", Some("k2"), true),
        ("other", Some(""), false),
    ] {
        let mut publish = by(Way::Whip, name, "");
        publish.key = key.map(str::to_owned);
        let sender = desk.publish(publish);
        let wanted = (!fits).then_some(&Denied::Unauthorized);
        assert_eq!(desk.refused(sender), wanted, "{name} {key:?}");
    }
    let hook = desk.publish(announced("cam2", "source_id=a&source_type=rtmpConn"));
    assert_eq!(
        desk.refused(hook),
        None,
        "the media server knows its senders"
    );
}

#[test]
fn a_media_server_is_told_who_asks_if_it_is_the_operators() {
    let api = Url::parse("http://media.example:19997").expect("a URL");
    for (api, host, place, shown) in [
        (Some(api), "10.0.0.9", "http://media.example:19997", true),
        (None, "127.0.0.1", "http://127.0.0.1:9997", true),
        (None, "10.0.0.9", "http://10.0.0.9:9997", false),
    ] {
        let mut desk = Desk::with(Config {
            media_server: Some(MediaServer {
                api,
                user: "admin".into(),
                password: Some("pw".into()),
            }),
            ..config()
        });
        let form = "source_id=a&source_type=webRTCSession";
        let sender = desk.publish(announced_by(host, "cam1", form));
        desk.admitted(sender);
        desk.tell(|entry, now| entry.stop(now, "cam1")).unwrap();
        let (id, kick) = desk.asked.pop_front().unwrap();
        let path = "/v3/webrtcsessions/kick/a";
        assert_eq!(kick.url.to_string(), format!("{place}{path}"));
        assert_eq!(
            kick.headers.get("authorization"),
            shown.then_some("Basic YWRtaW46cHc="),
            "{place}"
        );
        desk.respond(id, 401, "");
        assert!(matches!(&desk.notices[..], [Notice::NoKick(_)]));
    }
}

#[test]
fn senders_name_places_that_are_public_or_their_own() {
    let hook = |rtmp_url: &str, output: &str| {
        let form = format!(
            "source_id=a&source_type=rtmpConn&rtmp_url={rtmp_url}&query=rtmpOutput%3D{output}"
        );
        announced("cam1", &form)
    };
    let whip = |output: &str| by(Way::Whip, "cam1", &format!("rtmpOutput={output}"));
    let (own, foreign) = ("rtmp://10.0.0.9/x", "rtmp://10.0.0.1:7/x");
    let told = |field: &str| {
        format!(
            "{field}: a peer may not lead to 10.0.0.1:7: a private address is named only by who is there himself"
        )
    };
    for (publish, refused) in [
        (hook(own, own), None),
        (hook("", "rtmp://out.example/x"), None),
        (hook(foreign, ""), Some("rtmp_url")),
        (hook("rtmp://localhost/x", ""), Some("rtmp_url")),
        (hook("", foreign), Some("rtmpOutput")),
        (whip(own), None),
        (whip(foreign), Some("rtmpOutput")),
    ] {
        let mut desk = Desk::new();
        let sender = desk.publish(publish.clone());
        match (desk.refused(sender), refused) {
            (None, None) => {
                let [job] = desk.jobs()[..] else {
                    panic!("{:?}", desk.said)
                };
                let reach = Reach::of_caller("10.0.0.9".parse().ok());
                assert!(job.outputs.iter().all(|output| output.reach == reach));
            }
            (Some(Denied::Place(why)), Some(field)) => {
                assert!(why.starts_with(field), "{why}");
                assert_eq!(desk.notices, [Notice::Place(why.clone())]);
                if !why.contains("localhost") {
                    assert_eq!(*why, told(field));
                }
            }
            other => panic!("{other:?}"),
        }
        // Where the operator allows it, everybody may.
        let mut desk = Desk::with(Config {
            allow_private: true,
            ..config()
        });
        let sender = desk.publish(publish);
        assert_eq!(desk.refused(sender), None);
    }
}

#[test]
fn a_stream_is_fetched_where_its_hook_came_from_whoever_forwarded_it() {
    let mut desk = Desk::new();
    let mut publish = announced("cam1", "source_id=a&source_type=rtmpConn");
    publish.named = Reach::Public;
    desk.publish(publish);
    let pulled = desk.said.iter().find_map(|event| match event {
        Event::Pull(_, from) => Some(from.clone()),
        _ => None,
    });
    let from = pulled.expect("it is fetched");
    assert_eq!(from.address, "rtmp://10.0.0.9/cam1");
    assert_eq!(from.check(), Ok(()));
}

#[test]
fn a_webhook_names_places_as_the_peer_that_it_is() {
    for (hook, output, allowed) in [
        ("http://10.0.0.3/hook", "rtmp://10.0.0.3/x", true),
        ("http://10.0.0.3/hook", "rtmp://10.0.0.9/x", false),
        ("https://auth.example/hook", "rtmp://out.example/x", true),
        ("https://auth.example/hook", "rtmp://127.0.0.1/x", false),
    ] {
        let mut desk = Desk::with(Config {
            webhook: hooked(hook, "k1"),
            ..config()
        });
        let sender = desk.publish(by(Way::Whip, "cam1", ""));
        let (id, _) = desk.asked.pop_front().expect("a question");
        desk.respond(id, 200, json!({ "rtmp_output_url": output }).to_string());
        match desk.refused(sender) {
            None => assert!(allowed, "{hook} {output}"),
            Some(Denied::Place(why)) => {
                assert!(why.starts_with("rtmp_output_url: ") && !allowed, "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}
