//! The signer's answers over HTTP.

use livepeer_core::payment::remote::{MAX_EXCHANGES, MAX_HELD};
use livepeer_core::wire::signer::{ListedOrchestrator, MAX_SIGNER_BODY};

use super::*;

fn listed(address: &str, capabilities: &[&str]) -> ListedOrchestrator {
    ListedOrchestrator {
        address: address.into(),
        capabilities: capabilities.iter().map(|cap| (*cap).into()).collect(),
        runners: Vec::new(),
    }
}

fn provoke(name: &str) -> (Server, (u16, Headers, Vec<u8>)) {
    let mut server = Server::new(|_, _| ());
    let mut request = fixed(1);
    match name {
        "missing_orchestrator" => request.orchestrator = None,
        "zero_price" => change(&mut request, |info| {
            info.price_info.as_mut().unwrap().price_per_unit = 0;
        }),
        "no_ticket_params" => change(&mut request, |info| info.ticket_params = None),
        "refresh" => change(&mut request, |info| {
            info.ticket_params.as_mut().unwrap().expiration_block = vec![1].into();
        }),
        "price" => {
            server = Server::new(|config, _| {
                config.policy.ceilings = Ceilings::of(Price::new(500, 1).unwrap());
            });
            request = fixed(1_000);
        }
        "no_tickets" => {
            request.job_type = "live".into();
            change(&mut request, |info| {
                let params = info.ticket_params.as_mut().unwrap();
                params.face_value = vec![1, 0, 0].into();
            });
            // The second call still has less than one ticket's worth on account.
            for _ in 0..2 {
                let (status, _, body) = server.pay(&request);
                assert_eq!(status, 200);
                request.state = PaymentResponse::from_json(&body).unwrap().state;
                server.now = server.now + Duration::from_secs(1);
            }
        }
        "create_failed" => {
            let one = Amount::from(&Wei::from(1));
            server = Server::new(|config, _| config.policy.limits.max_total_ev = one);
            request = fixed(2);
        }
        "auth_id_changed" => {
            server = Server::with_webhook(200, r#"{"status":200,"auth_id":"one"}"#);
            let (status, _, body) = server.pay(&request);
            assert_eq!(status, 200);
            request.state = PaymentResponse::from_json(&body).unwrap().state;
            server.webhook = Some((200, r#"{"status":200,"auth_id":"two"}"#.into()));
        }
        "webhook_rejects" => {
            server = Server::with_webhook(200, r#"{"status":403,"reason":"denied"}"#);
        }
        "webhook_rejects_without_reason" => {
            server = Server::with_webhook(200, r#"{"status":429}"#);
        }
        "webhook_max_price_malformed" => {
            let answer = r#"{"status":200,"maxPrice":{"price":2,"currency":"usd","unit":"fixed"}}"#;
            server = Server::with_webhook(200, answer);
        }
        "discovery_empty" => {
            server = Server::new(|config, _| config.discovery = true);
            let answer = server.call(Method::Get, "/discover-orchestrators", Headers::new(), b"");
            return (server, answer);
        }
        "no_auth_token" => change(&mut request, |info| info.auth_token = None),
        "no_deposit" => {
            server = Server::new(|_, chain| {
                chain.anyone.as_mut().unwrap().deposit = Wei::zero();
            });
        }
        other => panic!("nobody tests {other}"),
    }
    let answer = server.pay(&request);
    (server, answer)
}

#[test]
fn every_error_has_its_status_and_its_envelope() {
    let file = file("signer_http.json");
    lists(
        &file,
        &[
            "cases_error",
            "cases_decode",
            "cases_webhook",
            "cases_auth_expiry",
            "cases_auth_id",
            "cases_client_token",
        ],
    );
    each(&file, "cases_error", 14, |name, case| {
        let (server, (status, headers, body)) = provoke(name);
        assert_eq!(u64::from(status), small(&case["status"]), "{name}");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            text(&case["body"]),
            "{name}"
        );
        assert_eq!(
            headers.get("content-type"),
            case["content_type"].as_str(),
            "{name}"
        );
        for (field, value) in case["headers"].as_object().unwrap() {
            let field = field.to_ascii_lowercase();
            assert_eq!(headers.get(&field), value.as_str(), "{name}");
        }
        let Some(Event::Refused(refusal)) = server.events.last() else {
            panic!("{name}: {:?}", server.events);
        };
        assert_eq!(refusal.message, text(&case["internal_message"]), "{name}");
    });
}

#[test]
fn requests_are_read_as_go_reads_them() {
    let file = file("signer_http.json");
    each(&file, "cases_decode", 16, |name, case| {
        let read = PaymentRequest::from_json(text(&case["raw_body"]).as_bytes());
        assert_eq!(read.is_ok(), case["decodes"], "{name}: {read:?}");
        let Ok(request) = read else {
            let mut server = Server::new(|_, _| ());
            let body = text(&case["raw_body"]).as_bytes();
            let path = "/generate-live-payment";
            let (status, ..) = server.call(Method::Post, path, Headers::new(), body);
            assert_eq!(u64::from(status), small(&case["status"]), "{name}");
            return;
        };
        let body = request.to_json();
        assert_eq!(PaymentRequest::from_json(&body).unwrap(), request, "{name}");
        for (field, value) in case.as_object().unwrap() {
            match field.as_str() {
                "name" | "raw_body" | "decodes" => {}
                "has_state" => assert_eq!(!request.state.is_empty(), *value, "{name}"),
                "manifest_id" => assert_eq!(request.manifest_id, text(value), "{name}"),
                "in_pixels" => assert_eq!(Some(request.in_pixels), value.as_i64(), "{name}"),
                "state" => assert_eq!(request.state.state, bytes(value), "{name}"),
                "sig" => assert_eq!(request.state.sig, bytes(value), "{name}"),
                "max_price" => {
                    let unit = Unit::from_signer_type(&request.job_type);
                    let max = request.max_price.as_ref();
                    let max = max.map(|max| max.parse(unit).unwrap());
                    let expected = value.is_string().then(|| ratio(value));
                    assert_eq!(max, expected, "{name}");
                }
                other => panic!("{name}: nobody tests {other}"),
            }
        }
    });
}

#[test]
fn unknown_paths_wrong_methods_and_long_bodies_are_refused() {
    let mut server = Server::new(|_, _| ());
    for (method, path, status) in [
        (Method::Get, "/generate-live-payment", 405),
        (Method::Get, "/sign-orchestrator-info", 405),
        (Method::Post, "/discover-orchestrators", 404),
        (Method::Post, "/generate-live-payment/", 404),
        (Method::Post, "/", 404),
    ] {
        let (got, headers, body) = server.call(method, path, Headers::new(), b"");
        assert_eq!(got, status, "{path}");
        assert_eq!(headers.get("content-type"), Some("application/json"));
        assert!(serde_json::from_slice::<Value>(&body).unwrap()["error"]["message"].is_string());
    }
    let id = server.open(Method::Post, "/generate-live-payment", Headers::new());
    for _ in 0..2 {
        server.input(id, http::In::Data(vec![b' '; 1 << 19].into()));
    }
    assert!(server.settle().is_empty(), "a mebibyte is fine");
    server.input(id, http::In::Data(vec![b' '].into()));
    assert_eq!(server.settle()[0].1.status, 413);
}

#[test]
fn a_wrong_method_is_told_the_right_ones_and_who_may_read_may_ask_for_the_head() {
    let mut server = Server::new(|config, _| (config.discovery, config.figures) = (true, true));
    for (method, path, allow) in [
        (Method::Get, "/generate-live-payment", "POST"),
        (Method::Head, "/sign-orchestrator-info", "POST"),
        (Method::Post, "/discover-orchestrators", "GET, HEAD"),
        (Method::Delete, "/healthz", "GET, HEAD"),
    ] {
        let (status, headers, _) = server.call(method, path, Headers::new(), b"");
        assert_eq!((status, headers.get("allow")), (405, Some(allow)), "{path}");
    }
    for path in ["/healthz", "/metrics"] {
        let (status, ..) = server.call(Method::Head, path, Headers::new(), b"");
        assert_eq!(status, 200, "{path}");
    }
    let (status, ..) = server.call(Method::Head, "/discover-orchestrators", Headers::new(), b"");
    assert_eq!(status, 503, "as GET says");
}

#[test]
fn good_answers_end_with_the_end_of_a_line() {
    let mut server = Server::new(|config, _| config.discovery = true);
    server
        .signer
        .set_listed(START, vec![listed("https://a:8935", &["a"])]);
    for (method, path, body) in [
        (Method::Post, "/sign-orchestrator-info", Vec::new()),
        (Method::Post, "/generate-live-payment", fixed(1).to_json()),
        (Method::Get, "/discover-orchestrators", Vec::new()),
        (
            Method::Get,
            "/discover-orchestrators?caps=nothing",
            Vec::new(),
        ),
    ] {
        let (status, _, body) = server.call(method, path, Headers::new(), &body);
        assert_eq!((status, body.last()), (200, Some(&b'\n')), "{path}");
    }
}

#[test]
fn empty_capabilities_are_none() {
    let mut server = Server::new(|_, _| ());
    let mut body: Value = serde_json::from_slice(&fixed(1).to_json()).unwrap();
    let mut carried = Vec::new();
    for capabilities in [Value::Null, json!(""), json!([])] {
        body["capabilities"] = capabilities;
        let path = "/generate-live-payment";
        let (_, _, answer) = server.call(
            Method::Post,
            path,
            Headers::new(),
            body.to_string().as_bytes(),
        );
        let response = PaymentResponse::from_json(&answer).unwrap();
        carried.push(
            SegmentCredentials::decode(&response.segment)
                .unwrap()
                .capabilities,
        );
    }
    assert_eq!(carried, [None, None, None]);
}

#[test]
fn a_session_that_was_never_billed_is_billed_what_is_paid_ahead() {
    let mut request = fixed(1);
    request.job_type = "live".into();
    let state = decide(START, &request).unwrap().state;
    let text = state.to_json();
    let stamp = "\"LastUpdate\":\"2026-09-21T14:13:20Z\"";
    assert!(text.contains(stamp), "{text}");
    for other in [
        "\"LastUpdate\":\"0001-01-01T00:00:00Z\"",
        "\"LastUpdate\":null",
        "\"Other\":1",
    ] {
        let text = text.replace(stamp, other);
        let sig = key().sign(Digest::personal(text.as_bytes())).0.to_vec();
        request.state = StateBlob {
            state: text.into_bytes().into(),
            sig: sig.into(),
        };
        let plan = decide(START + Duration::from_secs(5), &request).unwrap();
        assert_eq!(plan.units, 10, "{other}");
    }
}

#[test]
fn a_memory_without_a_price_is_refused_in_the_words_of_the_reference() {
    let mut request = fixed(1);
    let mut state = decide(START, &request).unwrap().state;
    state.initial_price_per_unit = 0;
    request.state = sign_state(&key(), &state);
    let refusal = decide(START, &request).unwrap_err();
    assert_eq!(
        (refusal.status, &*refusal.message),
        (400, "invalid initial price in state")
    );
    // What the request says is looked at before.
    request.max_price = Some(MaxPrice::new("0", Unit::Fixed));
    let refusal = decide(START, &request).unwrap_err();
    assert_eq!(refusal.message, "maxPrice.price must be a positive decimal");
}

#[test]
fn of_a_ceiling_with_several_faults_the_first_is_told() {
    let parse = |price: &str, currency: &str, unit: &str, of| {
        let max = MaxPrice {
            price: price.into(),
            currency: currency.into(),
            unit: unit.into(),
        };
        max.parse(of).unwrap_err().to_string()
    };
    for (told, expected) in [
        (
            parse("", "", "", None),
            "maxPrice.price must be a positive decimal",
        ),
        (parse("1", "usd", "", None), "maxPrice.currency must be wei"),
        (
            parse("1", "wei", "", None),
            "maxPrice requires payment type live, lv2v, or fixed",
        ),
        (
            parse("1", "wei", "seconds", Some(Unit::Fixed)),
            "maxPrice.unit must be fixed for payment type fixed",
        ),
    ] {
        assert_eq!(told, expected);
    }
}

#[test]
fn strangers_bodies_take_a_bounded_part_of_memory() {
    let mut server = Server::new(|_, _| ());
    let mebibyte = bytes::Bytes::from(vec![b' '; MAX_SIGNER_BODY]);
    let path = "/generate-live-payment";
    let send = |server: &mut Server, peer: &str| {
        let id = server.open_from(peer.parse().ok(), Method::Post, path, Headers::new());
        server.input(id, http::In::Data(mebibyte.clone()));
        let replies = server.settle();
        (id, replies.first().map(|(_, reply)| reply.status))
    };
    let share = MAX_HELD / MAX_SIGNER_BODY / 2;
    let mut open = Vec::new();
    for peer in ["192.0.2.1", "192.0.2.2"] {
        // The heads count as well, so the last one does not fit.
        for _ in 1..share {
            let (id, status) = send(&mut server, peer);
            assert_eq!(status, None);
            open.push(id);
        }
        assert_eq!(send(&mut server, peer).1, Some(429), "{peer} has its share");
    }
    let small = |server: &mut Server, peer: &str| {
        let id = server.open_from(peer.parse().ok(), Method::Post, path, Headers::new());
        server.input(id, http::In::Data(fixed(1).to_json().into()));
        server.input(id, http::In::End(Headers::new()));
        server.settle()[0].1.status
    };
    assert_eq!(small(&mut server, "192.0.2.3"), 200, "others are served");
    assert_eq!(send(&mut server, "192.0.2.3").1, None);
    assert_eq!(
        send(&mut server, "192.0.2.4").1,
        Some(503),
        "all of it is taken"
    );
    // What is given up is given back.
    for id in open {
        let fault = http::Fault::Broken("gone".into());
        server.input(id, http::In::Failed(fault));
    }
    assert_eq!(send(&mut server, "192.0.2.1").1, None);
}

#[test]
fn one_address_takes_at_most_half_of_the_places() {
    let mut server = Server::new(|_, _| ());
    let path = "/generate-live-payment";
    let open = |server: &mut Server, peer: &str| {
        server.open_from(peer.parse().ok(), Method::Post, path, Headers::new());
        server.settle().first().map(|(_, reply)| reply.status)
    };
    for _ in 0..MAX_EXCHANGES / 2 {
        assert_eq!(open(&mut server, "192.0.2.1"), None);
    }
    assert_eq!(open(&mut server, "192.0.2.1"), Some(429));
    assert_eq!(open(&mut server, "192.0.2.2"), None);
}

#[test]
fn a_body_that_never_ends_and_a_key_that_never_signs_have_deadlines() {
    let mut server = Server::new(|_, _| ());
    server.open(Method::Post, "/generate-live-payment", Headers::new());
    server.now = START + Duration::from_secs(10);
    server.signer.handle_input(server.now, Input::Tick);
    assert_eq!(server.settle()[0].1.status, 408);

    let id = server.open(Method::Post, "/sign-orchestrator-info", Headers::new());
    let Output::Effect(asked, Effect::Sign(_)) = server.signer.poll_output() else {
        panic!("no signature is asked for");
    };
    let refused = Err(SignRefused("locked".into()));
    server
        .signer
        .handle_input(server.now, Input::Signed(asked, refused));
    let replies = server.settle();
    assert_eq!((replies[0].0, replies[0].1.status), (id, 500));

    server.open(Method::Post, "/sign-orchestrator-info", Headers::new());
    while !matches!(server.signer.poll_output(), Output::Idle(_)) {}
    server.now = server.now + Duration::from_secs(30);
    server.signer.handle_input(server.now, Input::Tick);
    assert_eq!(server.settle()[0].1.status, 500);
}

#[test]
fn the_signer_says_who_it_is_and_signs_that_once() {
    let mut server = Server::new(|_, _| ());
    let mut answers = Vec::new();
    for body in [&b""[..], b"{}", b"garbage"] {
        let path = "/sign-orchestrator-info";
        let (status, _, body) = server.call(Method::Post, path, Headers::new(), body);
        assert_eq!(status, 200);
        answers.push(livepeer_core::wire::read_identity(&body).unwrap());
    }
    assert_eq!(answers[0].0, key().address());
    assert!(answers.iter().all(|one| *one == answers[0]));
}

#[test]
fn a_first_call_without_a_job_gets_a_random_one() {
    let mut server = Server::new(|_, _| ());
    let mut request = fixed(1);
    request.manifest_id.clear();
    let mut names = Vec::new();
    for _ in 0..2 {
        let (_, _, body) = server.pay(&request);
        let response = PaymentResponse::from_json(&body).unwrap();
        let credentials = SegmentCredentials::decode(&response.segment).unwrap();
        names.push(credentials.manifest_id);
    }
    assert!(
        names
            .iter()
            .all(|name| name.len() == 8 && hex::decode(name).is_ok())
    );
    assert_ne!(names[0], names[1]);
}

#[test]
fn what_a_signer_makes_is_signed_for_the_quote_and_only_for_it() {
    let mut server = Server::new(|_, _| ());
    let (_, _, body) = server.pay(&fixed(3));
    let response = PaymentResponse::from_json(&body).unwrap();
    let payment = Payment::decode(&response.payment).unwrap();
    assert_eq!(payment.sender, key().address());
    assert_eq!(payment.expected_price, Price::new(3, 1));
    let params = payment.ticket_params.clone().unwrap();
    for ticket in &payment.tickets {
        livepeer_core::payment::Ticket::new(&params, payment.sender, ticket.nonce)
            .verify(&ticket.signature)
            .unwrap();
    }
    let credentials = SegmentCredentials::decode(&response.segment).unwrap();
    credentials.verify(payment.sender).unwrap();
    let token = AuthToken::from_wire(quote(&1_u32.into(), (3, 1), &[1]).auth_token.unwrap());
    assert_eq!(credentials.auth_token, Some(token));
}

#[test]
fn a_worn_quote_is_to_be_refreshed() {
    let mut request = fixed(1);
    let mut state = decide(START, &request).unwrap().state;
    for (nonce, status) in [(499, 200), (500, 480), (600, 480)] {
        state.sender_nonce = nonce;
        request.state = sign_state(&key(), &state);
        let decided = decide(START, &request).map_or_else(|refusal| refusal.status, |_| 200);
        assert_eq!(decided, status, "{nonce}");
    }
    // Under another commitment nonces begin again.
    change(&mut request, |info| {
        info.ticket_params.as_mut().unwrap().recipient_rand_hash = vec![9; 32].into();
    });
    assert_eq!(*decide(START, &request).unwrap().nonces.start(), 1);
}

#[test]
fn orchestrators_are_listed_by_what_they_can() {
    let mut server = Server::new(|config, _| config.discovery = true);
    let all = vec![
        listed("https://a:8935", &["live-video-to-video/noop"]),
        listed("https://b:8935", &["text to image/x", "my-app"]),
    ];
    server.signer.set_listed(START, all);
    for (query, expected) in [
        ("", vec!["https://a:8935", "https://b:8935"]),
        ("?caps=", vec!["https://a:8935", "https://b:8935"]),
        ("?caps=live-video-to-video%2Fnoop", vec!["https://a:8935"]),
        ("?caps=text+to+image/x&caps=nothing", vec!["https://b:8935"]),
        (
            "?caps=my-app&caps=live-video-to-video/noop",
            vec!["https://a:8935", "https://b:8935"],
        ),
        ("?caps=nothing", vec![]),
    ] {
        let path = format!("/discover-orchestrators{query}");
        let (status, _, body) = server.call(Method::Get, &path, Headers::new(), b"");
        assert_eq!(status, 200);
        let listed: Vec<Value> = serde_json::from_slice(&body).unwrap();
        let addresses: Vec<&str> = listed.iter().map(|one| text(&one["address"])).collect();
        assert_eq!(addresses, expected, "{query}");
        assert!(
            listed
                .iter()
                .all(|one| one["score"] == 1 && one.get("runners").is_none())
        );
    }
}
