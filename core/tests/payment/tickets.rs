//! Tickets, the headers that carry them, tokens and credentials, byte for byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::money::Price;
use livepeer_core::payment::ticket::{aux_data, draw, pad32, wins};
use livepeer_core::payment::{Secret, Ticket};
use livepeer_core::sign::{Digest, Signature, keccak};
use livepeer_core::time::Time;
use livepeer_core::wire::payment::MAX_HEADER_BYTES;
use livepeer_core::wire::signer::identity_json;
use livepeer_core::wire::{
    AuthToken, Payment, SegmentCredentials, SenderParams, check_identity, identity_digest,
    read_identity,
};
use livepeer_proto::net;
use prost::Message as _;
use serde_json::Value;

use crate::support::*;
use crate::vectors;

fn ticket(case: &Value) -> Ticket {
    let nonce = u32::try_from(small(&case["sender_nonce"])).unwrap();
    Ticket::new(&params(case), address(&case["sender"]), nonce)
}

#[test]
fn tickets_are_packed_and_hashed_as_the_contract_does() {
    let file = file("ticket_hash.json");
    lists(&file, &["cases", "cases_aux_data"]);
    each(&file, "cases", 12, |name, case| {
        let ticket = ticket(&case["ticket"]);
        assert_eq!(ticket.packed(), bytes(&case["packed"]), "{name}");
        if let Some(length) = case.get("packed_len") {
            assert_eq!(ticket.packed().len() as u64, small(length), "{name}");
        }
        assert_eq!(ticket.hash(), bytes32(&case["hash"]), "{name}");
    });
    each(&file, "cases_aux_data", 4, |name, case| {
        let round = case["creation_round"].as_i64().unwrap();
        let hash = bytes32(&case["creation_round_block_hash"]);
        assert_eq!(aux_data(round, &hash), bytes(&case["aux_data"]), "{name}");
    });
}

#[test]
fn tickets_are_signed_deterministically_and_verified_strictly() {
    let file = file("ticket_signature.json");
    lists(&file, &["cases", "cases_verify"]);
    each(&file, "cases", 6, |name, case| {
        let key = Key::new(&bytes(&case["private_key"]));
        assert_eq!(key.address(), address(&case["sender"]), "{name}");
        let ticket = ticket(&case["ticket"]);
        assert_eq!(ticket.hash(), bytes32(&case["hash"]), "{name}");
        assert_eq!(
            ticket.digest().0,
            bytes32(&case["personal_digest"]),
            "{name}"
        );
        let signature = key.sign(ticket.digest());
        assert_eq!(signature.0.to_vec(), bytes(&case["sig"]), "{name}");
        ticket.verify(&signature.0).expect(name);
        assert!(ticket.verify(&signature.0[..64]).is_err(), "{name}");
    });
    each(&file, "cases_verify", 9, |name, case| {
        let digest = Digest::personal(&bytes(&case["message"]));
        let verdict = Signature::from_slice(&bytes(&case["sig"]))
            .and_then(|signature| signature.verify(digest, address(&case["address"])));
        assert_eq!(verdict.is_ok(), case["valid"], "{name}: {verdict:?}");
    });
}

#[test]
fn a_ticket_wins_strictly_below_its_probability() {
    let file = file("win_check.json");
    lists(&file, &["cases"]);
    each(&file, "cases", 11, |name, case| {
        let signature = bytes(&case["sig"]);
        let rand = pad32(&uint(&case["recipient_rand"]));
        assert_eq!(draw(&signature, &rand), uint(&case["value"]), "{name}");
        let prob = uint(&case["win_prob"]);
        assert_eq!(wins(&signature, &rand, &prob), case["wins"], "{name}");
    });
}

fn payment(case: &Value) -> Payment {
    let nonces = case["nonces"].as_array().unwrap();
    let sigs = case["sigs"].as_array().unwrap();
    Payment {
        sender: address(&case["sender"]),
        ticket_params: (!nonces.is_empty()).then(|| params(case)),
        tickets: nonces
            .iter()
            .zip(sigs)
            .map(|(nonce, sig)| SenderParams {
                nonce: u32::try_from(small(nonce)).unwrap(),
                signature: bytes(sig).into(),
            })
            .collect(),
        expected_price: Price::new(
            case["price_per_unit"].as_i64().unwrap(),
            case["pixels_per_unit"].as_i64().unwrap(),
        ),
    }
}

#[test]
fn payment_headers_are_byte_for_byte_those_of_the_reference() {
    let file = file("payment_header.json");
    lists(&file, &["cases", "cases_size"]);
    each(&file, "cases", 3, |name, case| {
        let payment = payment(case);
        let header = text(&case["header_livepeer_payment"]);
        assert_eq!(payment.to_protobuf(), bytes(&case["protobuf"]), "{name}");
        assert_eq!(payment.encode(), header, "{name}");
        assert_eq!(Payment::decode(header).unwrap(), payment, "{name}");

        let key = Key::new(&bytes(&case["private_key"]));
        let mut value = livepeer_core::money::Amount::zero();
        for sent in &payment.tickets {
            let quoted = payment.ticket_params.as_ref().unwrap();
            let ticket = Ticket::new(quoted, payment.sender, sent.nonce);
            assert_eq!(
                key.sign(ticket.digest()).0.to_vec(),
                sent.signature,
                "{name}"
            );
            value += &ticket.expected_value();
        }
        assert_eq!(value, amount(&case["total_ev"]), "{name}");
    });
    let one = file["cases"][0].clone();
    each(&file, "cases_size", 5, |name, case| {
        let mut payment = payment(&one);
        let signature = payment.tickets[0].signature.clone();
        payment.tickets = (1..=u32::try_from(small(&case["num_tickets"])).unwrap())
            .map(|nonce| SenderParams {
                nonce,
                signature: signature.clone(),
            })
            .collect();
        let size = payment.to_protobuf().len();
        assert_eq!(size as u64, small(&case["protobuf_bytes"]), "{name}");
        let header = payment.encode();
        assert_eq!(header.len() as u64, small(&case["header_bytes"]), "{name}");
        assert_eq!(Payment::decode(&header).unwrap(), payment, "{name}");
    });
}

#[test]
fn payment_headers_that_are_none_are_refused() {
    assert_eq!(Payment::decode("").unwrap(), Payment::default());
    for header in ["!", "AQ", "-_-_", "AAAA"] {
        assert!(Payment::decode(header).is_err(), "{header}");
    }
    let long = "A".repeat(MAX_HEADER_BYTES + 4);
    assert!(Payment::decode(&long).is_err());
    let oversized = net::Payment {
        ticket_params: Some(net::TicketParams {
            face_value: vec![1; 33].into(),
            ..net::TicketParams::default()
        }),
        ..net::Payment::default()
    };
    assert!(Payment::from_protobuf(oversized.encode_to_vec().into()).is_err());
}

#[test]
fn auth_tokens_are_authenticated_and_expire() {
    let file = file("auth_token.json");
    lists(&file, &["cases"]);
    each(&file, "cases", 3, |name, case| {
        let secret = Secret(bytes32(&case["secret"]));
        let expiration = Time::from_secs(small(&case["expiration"]));
        let token = secret.token(text(&case["session_id"]).into(), expiration);
        assert_eq!(token.token, bytes(&case["token"]), "{name}");
        assert_eq!(
            token.to_wire().encode_to_vec(),
            bytes(&case["protobuf"]),
            "{name}"
        );

        let second = std::time::Duration::from_secs(1);
        assert!(secret.check(expiration, &token).is_ok(), "{name}");
        let late = secret.check(expiration + second, &token).unwrap_err();
        assert_eq!(late.to_string(), "expired auth token", "{name}");
        let longer = AuthToken {
            expiration: expiration + second,
            ..token
        };
        let forged = secret.check(expiration, &longer).unwrap_err();
        assert_eq!(forged.to_string(), "invalid auth token", "{name}");
    });
}

#[test]
fn segment_credentials_are_byte_for_byte_those_of_the_reference() {
    let file = file("segment_credentials.json");
    lists(&file, &["cases"]);
    each(&file, "cases", 5, |name, case| {
        let header = text(&case["header_livepeer_segment"]);
        if name == "offchain_only_auth_token" {
            let token = SegmentCredentials::decode(header).unwrap().auth_token;
            assert_eq!(SegmentCredentials::offchain(token.as_ref()), header);
            assert_eq!(text(&case["header_livepeer_payment"]), "");
            return;
        }
        let key = Key::new(&bytes(&case["private_key"]));
        let token = net::AuthToken::decode(&*bytes(&case["auth_token"])).unwrap();
        let capabilities = case["capabilities"]
            .is_string()
            .then(|| net::Capabilities::decode(&*bytes(&case["capabilities"])).unwrap())
            .map(|wire| Capabilities::from_wire(wire).unwrap());
        let mut credentials = SegmentCredentials::for_payment(
            text(&case["manifest_id"]).into(),
            Some(AuthToken::from_wire(token)),
            capabilities,
        );
        assert_eq!(credentials.seq as u64, small(&case["seq"]), "{name}");
        assert_eq!(credentials.hash, bytes32(&case["segment_hash"]), "{name}");
        assert_eq!(credentials.flattened(), bytes(&case["flattened"]), "{name}");
        assert_eq!(
            keccak(&[&credentials.flattened()]),
            bytes32(&case["keccak"]),
            "{name}"
        );
        credentials.signature = key.sign(credentials.digest()).0.to_vec().into();
        assert_eq!(credentials.signature, bytes(&case["sig"]), "{name}");
        if name == "with_capabilities" {
            // Our encoder leaves out an empty message as the value of a map, theirs does not: the same message.
            let again = SegmentCredentials::decode(&credentials.encode()).unwrap();
            assert_eq!(again, credentials, "{name}");
        } else {
            assert_eq!(credentials.encode(), header, "{name}");
        }
        let decoded = SegmentCredentials::decode(header).unwrap();
        assert_eq!(decoded, credentials, "{name}");
        decoded.verify(address(&case["address"])).expect(name);
    });
}

#[test]
fn an_orchestrator_request_is_signed_over_the_checksummed_address() {
    let file = file("orchestrator_request.json");
    lists(&file, &["cases", "cases_verify"]);
    each(&file, "cases", 2, |name, case| {
        let key = Key::new(&bytes(&case["private_key"]));
        let address = key.address();
        assert_eq!(address.checksummed(), text(&case["address"]), "{name}");
        assert_eq!(address.checksummed(), text(&case["signed_text"]), "{name}");
        assert_eq!(
            keccak(&[address.checksummed().as_bytes()]),
            bytes32(&case["keccak_of_text"]),
            "{name}"
        );
        let signature = key.sign(identity_digest(address));
        assert_eq!(signature.0.to_vec(), bytes(&case["sig"]), "{name}");
        let request = net::OrchestratorRequest {
            address: address.0.to_vec().into(),
            sig: signature.0.to_vec().into(),
            ignore_capacity_check: true,
            ..net::OrchestratorRequest::default()
        };
        let expected = bytes(&case["request_protobuf"]);
        assert_eq!(request.encode_to_vec(), expected, "{name}");

        let body = identity_json(address, &signature);
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer, case["sign_orchestrator_info_response"], "{name}");
        assert_eq!(read_identity(&body).unwrap(), (address, signature));
    });
    each(&file, "cases_verify", 4, |name, case| {
        let signature = Signature::from_slice(&bytes(&case["sig"])).unwrap();
        let verdict = check_identity(address(&case["address"]), &signature);
        assert_eq!(verdict.is_ok(), case["valid"], "{name}: {verdict:?}");
    });
}

#[test]
fn headers_are_read_whole_only() {
    let file = file("payment_header.json");
    let header = text(&file["cases"][1]["header_livepeer_payment"]);
    let message = STANDARD.decode(header).unwrap();
    let whole = Payment::decode(header).unwrap();
    for end in 0..message.len() {
        // Cut protobuf may still be a message, but never the same one.
        let cut = Payment::from_protobuf(message[..end].to_vec().into());
        assert_ne!(cut.ok(), Some(whole.clone()), "{end}");
    }
    for tail in ["A", "====", " "] {
        assert!(Payment::decode(&format!("{header}{tail}")).is_err());
    }
}

#[test]
fn every_file_of_vectors_has_its_test() {
    let folder = vectors::path("payments");
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    files.sort();
    let tests = [
        include_str!("chain.rs"),
        include_str!("challenge.rs"),
        include_str!("money.rs"),
        include_str!("recipient.rs"),
        include_str!("signer/books.rs"),
        include_str!("signer/service.rs"),
        include_str!("signer/webhook.rs"),
        include_str!("tickets.rs"),
    ];
    assert_eq!(files.len(), 21);
    for file in files {
        let read = format!("file(\"{file}\")");
        assert!(tests.iter().any(|test| test.contains(&read)), "{file}");
    }
}
