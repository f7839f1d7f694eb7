//! The recorded bytes.

use super::*;

#[test]
fn identities_are_signed_as_the_reference_signs_them() {
    for case in counted("capabilities/handshake.json", "sign", 4) {
        let key = Key::new(&unhex(&case["private_key"]));
        let address = key.address();
        assert_eq!(address.0.as_slice(), unhex(&case["address"]));
        assert_eq!(address.checksummed(), case["message"].as_str().unwrap());
        let digest = identity_digest(address);
        assert_eq!(digest.0.as_slice(), unhex(&case["eth_text_hash"]));
        let message = livepeer_core::sign::keccak(&[address.checksummed().as_bytes()]);
        assert_eq!(message.as_slice(), unhex(&case["keccak_message"]));
        assert_eq!(
            key.sign(digest).0.as_slice(),
            unhex(&case["signature"]),
            "{}",
            case["id"]
        );
    }
}

#[test]
fn signatures_are_judged_as_the_reference_judges_them() {
    for case in counted("capabilities/handshake.json", "verify", 6) {
        let address = Address::from_wire(&unhex(&case["address"]));
        let digest = Digest::personal(&unhex(&case["message_hex"]));
        let outcome = Signature::from_slice(&unhex(&case["signature"]))
            .and_then(|signature| signature.verify(digest, address));
        assert_eq!(
            outcome.is_ok(),
            case["valid"].as_bool().unwrap(),
            "{}",
            case["id"]
        );
        match (case["error"].as_str(), outcome) {
            (Some("invalid signature length"), Err(BadSignature::Length(_)))
            | (Some("signature s value too high"), Err(BadSignature::HighS))
            | (Some("signature v value must be 27 or 28"), Err(BadSignature::V(_)))
            | (None, Ok(()) | Err(BadSignature::OtherSigner(_))) => {}
            (expected, got) => panic!("{}: {expected:?}, {got:?}", case["id"]),
        }
    }
}

#[test]
fn requests_are_the_bytes_of_the_reference() {
    for case in counted("capabilities/handshake.json", "request_wire", 3) {
        let fields = &case["fields"];
        let identity = if fields["address"].is_null() {
            Identity::Offchain
        } else {
            Identity::Static {
                address: Address::from_wire(&unhex(&fields["address"])),
                signature: Signature::from_slice(&unhex(&fields["sig"])).unwrap(),
            }
        };
        let mut wanted = Capabilities::default();
        if let Some(asked) = fields["capabilities"].as_object() {
            for (id, n) in asked["capacities"].as_object().unwrap() {
                let id = Capability::new(id.parse().unwrap()).unwrap();
                wanted.capacities.insert(id, n.as_u64().unwrap() as u32);
            }
            for (id, models) in asked["constraints"].as_object().unwrap() {
                let id = Capability::new(id.parse().unwrap()).unwrap();
                let names = models.as_object().unwrap().keys();
                let models = names.map(|name| (name.clone(), Default::default()));
                wanted.constraints.insert(id, models.collect());
            }
        }
        let config = Config {
            ignore_capacity: fields["ignoreCapacityCheck"].as_bool().unwrap_or(false),
            ..Config::default()
        };
        let mut bench = Bench::asking(config, identity, wanted);
        let (_, request) = bench.request();
        let Body::Full(body) = request.body else {
            panic!("a call has all of its body");
        };
        let (message, framed) = (unhex(&case["message_hex"]), unhex(&case["grpc_frame_hex"]));
        assert_eq!(framed[5..], message);
        if case["id"] == "wi-03" {
            // The reference writes out the empty value of a map's entry, two bytes; prost leaves it away. Protobuf
            // reads both alike.
            assert_eq!(body.len(), framed.len() - 2);
            let theirs = net::OrchestratorRequest::decode(&message[..]).unwrap();
            assert_eq!(
                net::OrchestratorRequest::decode(&body[5..]).unwrap(),
                theirs
            );
        } else {
            assert_eq!(body, framed, "{}", case["id"]);
        }
        assert_eq!(
            request.url.to_string(),
            "https://orch.example:8935/net.Orchestrator/GetOrchestrator"
        );
        assert_eq!(
            request.headers.get("content-type"),
            Some("application/grpc")
        );
        assert_eq!(request.headers.get("te"), Some("trailers"));
        assert_eq!(request.protocol, http::Protocol::Http2);
        assert_eq!(request.trust, Trust::FirstUse);
    }
}

#[test]
fn refusals_are_sorted_by_what_they_are_known_to_mean() {
    for case in counted("capabilities/failover.json", "handshake_errors", 9) {
        let config = Config {
            pin_change: PinChange::Refuse,
            ..Config::default()
        };
        let mut bench = Bench::new(config, Identity::Offchain);
        let (id, _) = bench.request();
        let text = case["message"].as_str().unwrap();
        if text.contains("CERTIFICATE_VERIFY_FAILED") {
            // The reference's library hides the fact in a status; our transport tells it.
            let (remembered, seen) = ([1; 32], [2; 32]);
            bench.http(
                id,
                http::In::Failed(Fault::CertificateChanged { remembered, seen }),
            );
        } else {
            bench.refuse(id, case["grpc_status"].as_u64().unwrap() as u16, text);
        }
        let class = match Class::of(&bench.failure()) {
            Class::Auth => "auth",
            Class::Capacity => "capacity",
            Class::Payer => "payer",
            Class::Misconfigured => "orchestrator_misconfigured",
            Class::CertificateChanged => "certificate_changed",
            Class::Timeout => "timeout",
            Class::NotAnOrchestrator => "not_an_orchestrator",
            Class::Unreachable => "unreachable",
            other => panic!("{other:?}"),
        };
        assert_eq!(class, case["class"].as_str().unwrap(), "{}", case["id"]);
    }
}
