//! No nonce is used twice under one quote, whoever asks.

use livepeer_core::store::{STORE_WITHIN, StoreFailed};

use super::*;

/// The nonces of an answer, and the memory that goes with them.
fn nonces(body: &[u8]) -> (Vec<u32>, StateBlob) {
    let response = PaymentResponse::from_json(body).unwrap();
    let payment = Payment::decode(&response.payment).unwrap();
    let nonces = payment.tickets.iter().map(|ticket| ticket.nonce).collect();
    (nonces, response.state)
}

fn paid(server: &mut Server, request: &PaymentRequest) -> (Vec<u32>, StateBlob) {
    let (status, _, body) = server.pay(request);
    assert_eq!(status, 200);
    nonces(&body)
}

/// Two tickets of one wei for a unit.
fn two() -> PaymentRequest {
    fixed(2)
}

#[test]
fn a_second_session_under_a_quote_goes_on_counting() {
    let mut server = Server::new(|_, _| ());
    let (first, state) = paid(&mut server, &two());
    assert_eq!(first, [1, 2]);
    let (second, later) = paid(&mut server, &two());
    assert_eq!(second, [3, 4], "the caller kept the quote for another job");
    let state_of = |blob: &StateBlob| SignerState::from_json(&blob.state).unwrap();
    assert_eq!(state_of(&later).sender_nonce, 4);
    assert_eq!(state_of(&later).sequence_number, 0);

    // The first session goes on as well, and so does one that comes back with an old blob.
    for expected in [[5, 6], [7, 8]] {
        let request = PaymentRequest {
            state: state.clone(),
            ..two()
        };
        assert_eq!(paid(&mut server, &request).0, expected);
    }

    let mut other = two();
    change(&mut other, |info| {
        info.ticket_params.as_mut().unwrap().recipient_rand_hash = vec![9; 32].into();
    });
    assert_eq!(paid(&mut server, &other).0, [1, 2], "another quote");
}

#[test]
fn a_quote_that_others_wore_out_is_to_be_refreshed() {
    let mut server = Server::new(|_, _| ());
    for _ in 0..5 {
        assert_eq!(paid(&mut server, &fixed(100)).0.len(), 100);
    }
    let (status, headers, _) = server.pay(&fixed(1));
    assert_eq!(status, 480);
    let url = headers.get("livepeer-orchestrator-url");
    assert_eq!(url, Some("https://orch.example:8935"));
}

#[test]
fn nothing_is_signed_before_its_nonces_are_stored() {
    let mut server = Server::new(|_, _| ());
    let id = server.open(Method::Post, "/generate-live-payment", Headers::new());
    server.input(id, http::In::Data(two().to_json().into()));
    server.input(id, http::In::End(Headers::new()));
    let Output::Effect(asked, Effect::Store(record)) = server.signer.poll_output() else {
        panic!("nothing is to be stored");
    };
    assert!(matches!(server.signer.poll_output(), Output::Idle(Some(_))));
    let last = u32::from_be_bytes(record.value.as_deref().unwrap().try_into().unwrap());
    assert_eq!(last, 2);
    server
        .signer
        .handle_input(server.now, Input::Stored(asked, Ok(())));
    assert_eq!(server.settle()[0].1.status, 200);
}

#[test]
fn a_store_that_fails_is_our_own_fault_and_costs_no_nonce() {
    let ask = |server: &mut Server| {
        let id = server.open(Method::Post, "/generate-live-payment", Headers::new());
        server.input(id, http::In::Data(two().to_json().into()));
        server.input(id, http::In::End(Headers::new()));
        let Output::Effect(asked, Effect::Store(_)) = server.signer.poll_output() else {
            panic!("nothing is to be stored");
        };
        asked
    };
    let mut server = Server::new(|_, _| ());
    let asked = ask(&mut server);
    let failed = Err(StoreFailed("disk full".into()));
    server
        .signer
        .handle_input(server.now, Input::Stored(asked, failed));
    assert_eq!(server.settle()[0].1.status, 500);
    let Some(Event::Refused(refusal)) = server.events.last() else {
        panic!("{:?}", server.events);
    };
    assert!(refusal.message.contains("disk full"), "{}", refusal.message);
    assert_eq!(paid(&mut server, &two()).0, [1, 2]);

    ask(&mut server);
    server.now = server.now + STORE_WITHIN;
    server.signer.handle_input(server.now, Input::Tick);
    assert_eq!(server.settle()[0].1.status, 500);
    assert_eq!(
        paid(&mut server, &two()).0,
        [5, 6],
        "those that it was late for may be stored all the same"
    );
}

#[test]
fn a_signer_that_starts_again_knows_which_nonces_it_used() {
    let mut before = Server::new(|_, _| ());
    paid(&mut before, &two());
    paid(&mut before, &two());
    assert_eq!(before.kept.len(), 1, "one record for each quote");
    let mut after = Server::new(|_, _| ());
    for record in before.kept.values() {
        assert!(after.signer.restore(record));
    }
    assert_eq!(paid(&mut after, &two()).0, [5, 6]);
}

#[test]
fn two_payments_that_wait_for_the_webhook_share_no_nonce_and_a_refused_one_spends_none() {
    let mut server = Server::with_webhook(200, r#"{"status":200}"#);
    let ids: Vec<EffectId> = (0..2)
        .map(|_| {
            let id = server.open(Method::Post, "/generate-live-payment", Headers::new());
            server.input(id, http::In::Data(two().to_json().into()));
            server.input(id, http::In::End(Headers::new()));
            id
        })
        .collect();
    let mut replies = server.settle();
    replies.sort_by_key(|(id, _)| *id);
    assert_eq!(replies.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    let mut seen: Vec<u32> = Vec::new();
    for (_, reply) in replies {
        let Body::Full(body) = reply.body else {
            panic!("signers answer a whole body");
        };
        let (used, state) = nonces(&body);
        let state = SignerState::from_json(&state.state).unwrap();
        assert_eq!(used.last(), Some(&state.sender_nonce));
        seen.extend(used);
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4]);

    server.webhook = Some((200, r#"{"status":403}"#.into()));
    assert_eq!(server.pay(&two()).0, 403);
    server.webhook = Some((200, r#"{"status":200}"#.into()));
    assert_eq!(paid(&mut server, &two()).0, [5, 6]);
}
