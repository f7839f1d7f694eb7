//! Somebody else has the last word.

use super::*;

#[test]
fn the_webhook_has_the_last_word_before_anything_is_signed() {
    let file = file("signer_http.json");
    each(&file, "cases_webhook", 13, |name, case| {
        let status = u16::try_from(small(&case["webhook_http_status"])).unwrap();
        let mut server = Server::with_webhook(status, text(&case["webhook_body"]));
        let price = ratio(&case["quoted_price"]).to_integer();
        let request = PaymentRequest {
            job_type: text(&case["request_type"]).into(),
            ..fixed(i64::try_from(price).unwrap())
        };
        let (status, _, body) = server.pay(&request);
        assert_eq!(u64::from(status), small(&case["status"]), "{name}");
        let minted = server
            .events
            .iter()
            .any(|event| matches!(event, Event::Minted { .. }));
        assert_eq!(minted, status == 200, "{name}");
        if let Some(message) = case["message"].as_str() {
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["error"]["message"], message, "{name}");
        }
    });
    each(&file, "cases_auth_expiry", 5, |name, case| {
        let state = SignerState {
            auth_expiry: case["state_auth_expiry"].as_i64().unwrap(),
            ..SignerState::default()
        };
        let now = Time::from_secs(small(&case["now"]));
        assert_eq!(is_due(&state, now), case["webhook_called"], "{name}");
    });
    each(&file, "cases_auth_id", 6, |name, case| {
        let answer = match case["webhook_auth_id"].as_str() {
            Some(id) => json!({"status": 200, "auth_id": id}),
            None => json!({"status": 200}),
        };
        let mut server = Server::with_webhook(200, &answer.to_string());
        let mut request = fixed(1);
        let known = text(&case["state_auth_id"]);
        if !known.is_empty() {
            let mut before = decide(START, &request).unwrap().state;
            before.auth_id = known.into();
            request.state = sign_state(&key(), &before);
        }
        let mut headers = Headers::new();
        if let Some(id) = case["header_signer_auth_id"].as_str() {
            headers.push("signer-auth-id", id);
        }
        let path = "/generate-live-payment";
        let (status, _, body) = server.call(Method::Post, path, headers, &request.to_json());
        let result = text(&case["result"]);
        if result == "500" {
            assert_eq!(status, 500, "{name}");
        } else {
            let response = PaymentResponse::from_json(&body).unwrap();
            let state = SignerState::from_json(&response.state.state).unwrap();
            assert_eq!(state.auth_id, result, "{name}");
        }
    });
    each(&file, "cases_client_token", 4, |name, case| {
        let token = Token::decode(text(&case["token"]));
        assert_eq!(token.is_ok(), case["valid"], "{name}");
        let Ok(token) = token else { return };
        let decoded = &case["decoded"];
        assert_eq!(
            token.signer.as_deref(),
            decoded["signer"].as_str(),
            "{name}"
        );
        assert_eq!(
            token.discovery.as_deref(),
            decoded["discovery"].as_str(),
            "{name}"
        );
        let headers = token.signer_headers.unwrap_or_default();
        assert_eq!(
            json!(headers),
            *decoded.get("signer_headers").unwrap_or(&json!({}))
        );
        if let Some(orchestrators) = decoded["orchestrators"].as_array() {
            let trimmed: Vec<&str> = orchestrators.iter().map(|one| text(one).trim()).collect();
            assert_eq!(token.orchestrators.unwrap(), trimmed, "{name}");
        }
    });
}

#[test]
fn the_webhook_sees_the_callers_headers_and_the_state_as_it_will_be() {
    let mut server = Server::with_webhook(200, r#"{"status":200,"expiry":1790000060}"#);
    let mut headers = Headers::new();
    headers.push("x-api-key", "one");
    headers.push("x-api-key", "two");
    let mut request = fixed(1);
    let path = "/generate-live-payment";
    let (_, _, body) = server.call(Method::Post, path, headers, &request.to_json());
    let asked = &server.asked[0];
    let length = request.to_json().len().to_string();
    assert_eq!(
        asked["headers"],
        json!({"Content-Length": [length], "X-Api-Key": ["one", "two"]})
    );
    assert_eq!(asked["state"]["SenderNonce"], 1);
    assert_eq!(
        asked["state"]["AuthExpiry"], 0,
        "the answer is not known yet"
    );

    request.state = PaymentResponse::from_json(&body).unwrap().state;
    let state = SignerState::from_json(&request.state.state).unwrap();
    assert_eq!(state.auth_expiry, 1_790_000_060);
    for (after, asked) in [(60, 1), (61, 2)] {
        server.now = START + Duration::from_secs(after);
        assert_eq!(server.pay(&request).0, 200);
        assert_eq!(
            server.asked.len(),
            asked,
            "an answer holds until its expiry"
        );
    }
}

#[test]
fn an_answer_that_is_more_or_less_than_one_value_grants_nothing() {
    for answer in [
        r#"{"status":200} trailing"#,
        r#"{"status":200}{"status":403}"#,
        r#"{"status":200}]"#,
        r#"{"status":200"#,
        r#"{"status":"200"}"#,
        r#"{"status":200.0}"#,
        r#"[{"status":200}]"#,
        r#"{"status":200,"maxPrice":{"price":"cheap","currency":"wei","unit":"fixed"}}"#,
        "null",
        "",
    ] {
        let mut server = Server::with_webhook(200, answer);
        assert_eq!(server.pay(&fixed(1)).0, 500, "{answer}");
        assert!(server.kept.is_empty(), "{answer}");
    }
    let mut server = Server::with_webhook(200, " {\"status\":200}\r\n");
    assert_eq!(server.pay(&fixed(1)).0, 200);
}

#[test]
fn a_memory_with_bytes_behind_it_is_none() {
    let mut request = fixed(1);
    let mut text = decide(START, &request).unwrap().state.to_json();
    text.push_str("{}");
    let sig = key().sign(Digest::personal(text.as_bytes())).0.to_vec();
    request.state = StateBlob {
        state: text.into_bytes().into(),
        sig: sig.into(),
    };
    let refusal = decide(START, &request).unwrap_err();
    assert_eq!((refusal.status, &*refusal.message), (400, "invalid state"));
}

#[test]
fn a_webhook_that_is_silent_or_endless_or_gone_is_an_error() {
    let wait = |server: &mut Server| {
        let id = server.open(Method::Post, "/generate-live-payment", Headers::new());
        server.input(id, http::In::Data(fixed(1).to_json().into()));
        server.input(id, http::In::End(Headers::new()));
        loop {
            match server.signer.poll_output() {
                Output::Effect(asked, Effect::Http(http::Out::Request(_))) => return asked,
                Output::Idle(_) => panic!("the webhook was not asked"),
                _ => {}
            }
        }
    };
    let mut server = Server::with_webhook(200, "");
    wait(&mut server);
    server.now = START + Duration::from_secs(5);
    server.signer.handle_input(server.now, Input::Tick);
    let replies = server.settle();
    assert_eq!(replies[0].1.status, 500);
    assert_eq!(server.signer.open_exchanges(), 0);

    let mut server = Server::with_webhook(200, "");
    let asked = wait(&mut server);
    for _ in 0..3 {
        server.input(asked, http::In::Data(vec![b' '; 1 << 19].into()));
    }
    assert_eq!(server.settle()[0].1.status, 500);

    let mut server = Server::with_webhook(200, "");
    let asked = wait(&mut server);
    let fault = http::Fault::Connect("refused".into());
    server.input(asked, http::In::Failed(fault));
    assert_eq!(server.settle()[0].1.status, 500);
    server.input(asked, http::In::End(Headers::new()));
    assert!(server.settle().is_empty(), "late steps mean nothing");
}
