//! Bytes: headers, tokens, refusals, relays of events, and the form for streams.

use std::collections::BTreeSet;

use livepeer_core::http::{Headers, Url};
use livepeer_core::money::Price;
use livepeer_core::sign::Address;
use livepeer_core::time::Time;
use livepeer_core::wire::byoc::stream::{
    StreamChannels, StreamRequest, StreamUrls, about, data_ended, read_start_body, start_body,
};
use livepeer_core::wire::byoc::{
    Grounds, JobRequest, Relay, Relayed, Scheme, Sender, SignRequest, SignedBy, Token, Verdict,
    judge, read_job_signature,
};
use livepeer_core::wire::{identity_digest, sse};
use livepeer_sim::Key;
use serde_json::{Value, json};

use super::{CLIENT, EXCHANGE, HEADER, REAL_NODE, fits, text};
use crate::peers::{unhex, url};
use crate::{cases, counted, of_kind};

fn decoded(header: &str) -> Value {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(header);
    serde_json::from_slice(&bytes.expect("base64")).expect("JSON")
}

/// The key that the vectors sign with: the first development account.
fn key() -> Key {
    let bytes = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    Key::new(&hex::decode(bytes).expect("hex"))
}

fn signed(job: &JobRequest, scheme: Scheme) -> SignedBy {
    SignedBy {
        sender: key().address(),
        signature: key().sign(job.digest(scheme)),
    }
}

#[test]
fn a_header_is_read_or_refused_with_its_one_text() {
    for case in counted(HEADER, "cases", 15) {
        let id = text(&case, "id");
        let (given, out) = (&case["in"], &case["out"]);
        match text(&case, "kind") {
            "decode" => match JobRequest::from_header(text(given, "header")) {
                Ok(job) => {
                    assert_eq!(job.id, text(out, "id"), "{id}");
                    assert_eq!(job.request, text(out, "request"), "{id}");
                    assert_eq!(job.parameters, text(out, "parameters"), "{id}");
                    assert_eq!(job.capability, text(out, "capability"), "{id}");
                    assert_eq!(json!(job.timeout_seconds), out["timeout_seconds"], "{id}");
                    let wishes = job.wishes().expect("checked");
                    let texts = |urls: &[Url]| {
                        let texts = urls.iter().map(ToString::to_string);
                        json!(texts.collect::<Vec<_>>())
                    };
                    assert_eq!(texts(&wishes.include), out["include"], "{id}");
                    assert_eq!(texts(&wishes.exclude), out["exclude"], "{id}");
                    for (said, name) in [
                        (wishes.video_in, "enable_video_ingress"),
                        (wishes.video_out, "enable_video_egress"),
                        (wishes.data_out, "enable_data_output"),
                    ] {
                        assert_eq!(said, out[name].as_bool().unwrap_or(false), "{id}");
                    }
                }
                Err(bad) => {
                    assert_eq!(out["status"], 400, "{id}");
                    let said = bad.to_string();
                    assert!(fits(&said, text(out, "text")), "{id}: {said}");
                }
            },
            "encode" => encodes(id, given, out),
            other => panic!("{id}: nobody tests {other}"),
        }
    }
}

fn encodes(id: &str, given: &Value, out: &Value) {
    match id {
        "signed" => {
            let job = &given["job"];
            let job = JobRequest {
                id: String::new(),
                request: text(job, "request").into(),
                parameters: text(job, "parameters").into(),
                capability: text(job, "capability").into(),
                timeout_seconds: 30,
            };
            assert_eq!(
                format!("{:?}", job.digest(Scheme::Texts)),
                text(out, "digest")
            );
            let header = job.to_header(Some(&signed(&job, Scheme::Texts)));
            assert_eq!(decoded(&header), out["header_json"]);
            assert_eq!(header, text(out, "header"));
            let (read, by) = JobRequest::read_signed(&header).expect("ours");
            assert_eq!(read, job);
            assert_eq!(by.and_then(|by| by.scheme(&read)), Some(Scheme::Texts));
        }
        "token-header" => {
            let address = key().address();
            assert_eq!(address.checksummed(), text(out, "addr"));
            let digest = identity_digest(address);
            assert_eq!(format!("{digest:?}"), text(out, "digest"));
            let sender = Sender(Some(SignedBy {
                sender: address,
                signature: key().sign(digest),
            }));
            assert_eq!(sender.to_header(), text(out, "header"));
            assert_eq!(Sender::from_header(text(out, "header")), Ok(sender));
        }
        "offchain-header" => {
            let header = Sender::default().to_header();
            assert_eq!(decoded(&header), *out);
            assert_eq!(Sender::from_header(&header), Ok(Sender::default()));
            // The reference's gateway says so; its orchestrators do not like it, and ours does.
            let odd = r#"{"addr":"0x0000000000000000000000000000000000000000","sig":"0x"}"#;
            let odd = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, odd);
            assert_eq!(Sender::from_header(&odd), Ok(Sender::default()));
        }
        other => panic!("nobody tests {other}"),
    }
}

#[test]
fn who_signs_for_another_introduces_nobody() {
    let digest = identity_digest(Address([7; 20]));
    let sender = Sender(Some(SignedBy {
        sender: key().address(),
        signature: key().sign(digest),
    }));
    let refused = Sender::from_header(&sender.to_header()).expect_err("another's text");
    assert!(refused.to_string().contains("signature"), "{refused}");
}

#[test]
fn every_token_of_the_vectors_is_read_and_written_again() {
    let mut seen = BTreeSet::new();
    for case in cases(EXCHANGE, "cases")
        .iter()
        .chain(&cases(REAL_NODE, "cases"))
    {
        for peer in case["in"]["peers"].as_array().into_iter().flatten() {
            let at = text(peer, "at");
            let Some(asked) = at.strip_suffix("/process/token") else {
                continue;
            };
            let given = &peer["reply"]["body_json"];
            if given.is_null() {
                continue;
            }
            let asked = url(asked);
            let token = Token::from_json(given.to_string().as_bytes(), &asked).expect(at);
            assert_eq!(token.service, asked);
            assert_eq!(
                json!(token.capacity),
                json!(given["available_capacity"].as_u64().unwrap_or(0))
            );
            assert_eq!(
                token.ticket_params.is_some(),
                given.get("ticket_params").is_some()
            );
            let sender = given["sender_address"]["sig"].as_str() != Some("");
            let sender = Sender(sender.then(|| SignedBy {
                sender: key().address(),
                signature: key().sign(identity_digest(key().address())),
            }));
            let written: Value = serde_json::from_slice(&token.to_json(sender)).expect("JSON");
            let same = |name: &str| assert_eq!(written.get(name), given.get(name), "{at} {name}");
            for name in [
                "sender_address",
                "ticket_params",
                "available_capacity",
                "LastNonce",
                "balance",
            ] {
                same(name);
            }
            assert_eq!(
                written["price"]["pricePerUnit"].as_i64().unwrap_or(0),
                given["price"]["pricePerUnit"].as_i64().unwrap_or(0)
            );
            seen.insert((
                token.price.wei(),
                token.ticket_params.is_some(),
                token.capacity,
            ));
            // Payments are made from it like from any other quote.
            let info = token.to_info("text-reversal", Time::from_secs(1_800));
            let again =
                livepeer_core::wire::OrchestratorInfo::decode(info.raw.clone()).expect("protobuf");
            assert_eq!(again.ticket_params, token.ticket_params);
            assert_eq!(again.price, Some(token.price));
            assert_eq!(again.auth_token, info.auth_token);
        }
    }
    let priced = (1_000, true, 1);
    let free = (0, false, 2);
    assert!(seen.contains(&priced) && seen.contains(&free), "{seen:?}");
}

#[test]
fn a_token_that_cannot_be_meant_is_refused() {
    let asked = url("https://orch-a.example:8935");
    for (body, said) in [
        ("", "EOF"),
        ("[]", "job token"),
        (
            r#"{"price":{"pricePerUnit":-1,"pixelsPerUnit":1}}"#,
            "price",
        ),
        (r#"{"price":{"pricePerUnit":1}}"#, "price"),
        (r#"{"ticket_params":{"face_value":"!"}}"#, "face_value"),
        (r#"{"service_addr":"http://127.0.0.1:1"}"#, "service_addr"),
        (r#"{"available_capacity":"many"}"#, "available_capacity"),
    ] {
        let refused = Token::from_json(body.as_bytes(), &asked)
            .expect_err(body)
            .to_string();
        assert!(refused.contains(said), "{body}: {refused}");
    }
    let least = Token::from_json(b"{}", &asked).expect("nothing is needed");
    assert_eq!((least.price, least.capacity), (Price::FREE, 0));
    assert_eq!(least.service, asked);
}

#[test]
fn a_client_of_the_first_version_sends_the_same_job() {
    let mut seen = 0;
    for case in cases(CLIENT, "cases") {
        let id = text(&case, "id");
        for sent in case["out"]["upstream"].as_array().into_iter().flatten() {
            let theirs = &sent["livepeer_json"];
            if !theirs.is_object() {
                continue;
            }
            let job = JobRequest {
                id: text(theirs, "id").into(),
                request: text(theirs, "request").into(),
                parameters: text(theirs, "parameters").into(),
                capability: text(theirs, "capability").into(),
                timeout_seconds: u32::try_from(theirs["timeout_seconds"].as_u64().expect(id))
                    .expect(id),
            };
            let signature = theirs.get("sig").map(|sig| SignedBy {
                sender: text(theirs, "sender").parse().expect(id),
                signature: livepeer_core::Signature(unhex(sig).try_into().expect(id)),
            });
            let ours = decoded(&job.to_header(signature.as_ref()));
            for (name, value) in theirs.as_object().expect(id) {
                let (ours, theirs) = (ours[name].to_string(), value.to_string());
                assert!(ours.eq_ignore_ascii_case(&theirs), "{id} {name}: {ours}");
            }
            if let Some(header) = sent["headers"]["livepeer"].as_str()
                && !header.starts_with('<')
            {
                let (read, by) = JobRequest::read_signed(header).expect(id);
                assert_eq!((read, by), (job, signature), "{id}");
            }
            seen += 1;
        }
        // The signer is asked in their words, too.
        for sent in case["out"]["upstream"].as_array().into_iter().flatten() {
            let body = &sent["body_json"];
            if !text(sent, "url").ends_with("/sign-byoc-job") || text(body, "id").starts_with('<') {
                continue;
            }
            let job = JobRequest {
                id: text(body, "id").into(),
                request: text(body, "request").into(),
                parameters: text(body, "parameters").into(),
                capability: text(body, "capability").into(),
                timeout_seconds: u32::try_from(body["timeout_seconds"].as_u64().expect(id))
                    .expect(id),
            };
            let ours: Value = serde_json::from_slice(&SignRequest(job).to_json()).expect("JSON");
            assert_eq!(ours, *body, "{id}");
        }
    }
    assert!(seen > 20, "{seen} jobs");
}

#[test]
fn a_job_is_signed_in_either_way() {
    for case in of_kind(CLIENT, "encode") {
        let (given, out) = (&case["in"]["sign_byoc_job"], &case["out"]);
        let job = JobRequest {
            id: text(given, "id").into(),
            request: text(given, "request").into(),
            parameters: text(given, "parameters").into(),
            capability: text(given, "capability").into(),
            timeout_seconds: u32::try_from(given["timeout_seconds"].as_u64().unwrap()).unwrap(),
        };
        assert_eq!(hex::encode(job.framed()), text(out, "payload_hex"));
        let answer = out["answer"].to_string();
        let (by, scheme) = read_job_signature(answer.as_bytes(), &job).expect("ours");
        assert_eq!(scheme, Scheme::Framed);
        assert_eq!(by, signed(&job, Scheme::Framed));
        let plain = signed(&job, Scheme::Texts);
        assert_eq!(format!("{:?}", plain.signature), text(out, "v0_signature"));
        assert_eq!(plain.scheme(&job), Some(Scheme::Texts));
        let other = JobRequest {
            request: "{}".into(),
            ..job
        };
        let refused = read_job_signature(answer.as_bytes(), &other).expect_err("another job");
        assert!(refused.to_string().contains("not of this job"), "{refused}");
    }
}

#[test]
fn refusals_say_who_may_do_it_instead() {
    let other = |may_have_run, grounds| Verdict::Other {
        may_have_run,
        grounds,
    };
    for case in cases(REAL_NODE, "cases") {
        let (id, out) = (text(&case, "id"), &case["out"]);
        if text(&case, "kind") != "peer_reply" || text(&case["in"], "job") != "byoc" {
            continue;
        }
        let reply = &case["in"]["reply"];
        let status = u16::try_from(reply["status"].as_u64().expect(id)).expect(id);
        match judge(status, text(reply, "body_text").as_bytes()) {
            Verdict::Other { may_have_run, .. } => {
                assert_eq!(text(out, "class"), "other", "{id}");
                let repeats = out["may_have_run"].as_bool().unwrap_or(false);
                assert_eq!(may_have_run, repeats, "{id}");
            }
            Verdict::Caller { .. } => assert_eq!(text(out, "class"), "request", "{id}"),
        }
    }
    let unreached = "job not able to be processed, removing capability err=Post \"http://10.0.0.2/run\": dial tcp 10.0.0.2:80: connect: connection refused\n";
    let unknown =
        "job not able to be processed, removing capability err=worker auth token failed\n";
    for (status, body, verdict) in [
        (
            422,
            "text missing\n",
            Verdict::Caller {
                status: 422,
                text: "text missing".into(),
            },
        ),
        (
            404,
            "",
            Verdict::Caller {
                status: 404,
                text: String::new(),
            },
        ),
        (
            402,
            "Insufficient balance for request\n",
            other(false, Grounds::Balance),
        ),
        (
            400,
            "Insufficient balance for request\n",
            other(false, Grounds::Balance),
        ),
        (
            402,
            "Could not parse payment\n",
            other(false, Grounds::Payment),
        ),
        (
            400,
            "Could not verify job creds\n",
            other(false, Grounds::Signature),
        ),
        (
            503,
            "No capacity available for capability\n",
            other(false, Grounds::Busy),
        ),
        (408, "", other(false, Grounds::Status(408))),
        (429, "slow down\n", other(false, Grounds::Status(429))),
        (500, "x\n", other(false, Grounds::Status(500))),
        (500, unreached, other(false, Grounds::Container)),
        (500, unknown, other(false, Grounds::Container)),
        (502, "", other(true, Grounds::Status(502))),
        (504, "", other(true, Grounds::Timeout)),
        (307, "", other(false, Grounds::Status(307))),
    ] {
        assert_eq!(judge(status, body.as_bytes()), verdict, "{status} {body}");
    }
}

/// All that comes out of a relay that gets a stream in pieces of `size` bytes; whether it said that this is the end.
fn relayed(stream: &[u8], size: usize) -> (String, bool) {
    let mut relay = Relay::new();
    let mut out = Vec::new();
    for piece in stream.chunks(size) {
        let Relayed { bytes, ended } = relay.data(piece).expect("short lines");
        out.extend_from_slice(&bytes);
        if ended {
            assert!(relay.end().is_empty(), "nothing comes after the end");
            return (String::from_utf8(out).expect("text"), true);
        }
    }
    out.extend_from_slice(&relay.end());
    (String::from_utf8(out).expect("text"), false)
}

#[test]
fn events_are_passed_on_without_floods_of_blank_lines() {
    let mut seen = 0;
    for case in cases(EXCHANGE, "cases")
        .iter()
        .chain(&cases(REAL_NODE, "cases"))
    {
        for peer in case["in"]["peers"].as_array().into_iter().flatten() {
            let reply = &peer["reply"];
            let out = &case["out"]["reply"];
            if text(&reply["headers"], "content-type") != sse::CONTENT_TYPE
                || !text(peer, "at").contains("/process/request")
            {
                continue;
            }
            seen += 1;
            let id = text(case, "id");
            for size in [1, 7, 1 << 20] {
                let (said, _) = relayed(text(reply, "body_text").as_bytes(), size);
                assert!(!said.contains("\n\n\n"), "{id}: {said:?}");
                if let Some(wanted) = out["body_text"].as_str() {
                    assert_eq!(said, wanted, "{id}");
                }
                let mut events = Vec::new();
                let mut reader = sse::Reader::new();
                reader
                    .data(&said.clone().into(), |event| events.push(event))
                    .expect(id);
                if let Some(wanted) = out["sse_data"].as_array() {
                    let texts: Vec<_> = events
                        .iter()
                        .map(|event| json!(String::from_utf8_lossy(event)))
                        .collect();
                    assert_eq!(texts, *wanted, "{id}");
                }
                for name in out["sse_event_names"].as_array().into_iter().flatten() {
                    assert!(
                        said.contains(&format!("event: {}\n", name.as_str().unwrap())),
                        "{id}"
                    );
                }
            }
        }
    }
    assert_eq!(seen, 4);
}

#[test]
fn a_relay_ends_at_the_last_event_a_flood_or_a_line_without_end() {
    // Words about the end are not the end.
    let words = "data: {\"t\":\"[DONE]\"}\n\ndata:[DONE]\nmore";
    assert_eq!(
        relayed(words.as_bytes(), 3),
        ("data: {\"t\":\"[DONE]\"}\n\ndata:[DONE]\n\n".into(), true)
    );
    let flood = format!("data: 1\n{}", "\n".repeat(65));
    assert_eq!(relayed(flood.as_bytes(), 9), ("data: 1\n\n".into(), true));
    assert_eq!(
        relayed("\r\n".repeat(65).as_bytes(), 1),
        (String::new(), true)
    );
    // A worker that breaks off in the middle leaves a whole event.
    assert_eq!(
        relayed(b"data: 1\r\n\r\ndata: 2", 1),
        ("data: 1\n\ndata: 2\n\n".into(), false)
    );
    assert_eq!(relayed(b"", 1), (String::new(), false));
    let mut relay = Relay::new();
    assert!(relay.data(&[b'x'; 1 << 20]).is_ok());
    assert!(relay.data(b"x").is_err(), "a line of more than a megabyte");
}

#[test]
fn the_form_for_streams() {
    for case in cases(EXCHANGE, "cases") {
        let (id, given, out) = (text(&case, "id"), &case["in"], &case["out"]);
        let job = text(given, "job");
        if job == "byoc_stream" && given["reply"]["status"] == 200 {
            let mut headers = Headers::new();
            for (name, value) in given["reply"]["headers"].as_object().expect(id) {
                headers.push_any(name, value.as_str().expect(id));
            }
            let home = url(text(given, "orchestrator"));
            let channels = StreamChannels::from_headers(&headers, &home).expect(id);
            for (channel, name) in [
                (&channels.publish, "publish_url"),
                (&channels.subscribe, "subscribe_url"),
                (&channels.control, "control_url"),
                (&channels.events, "events_url"),
                (&channels.data, "data_url"),
            ] {
                let said = channel.as_ref().map(ToString::to_string);
                assert_eq!(said.as_deref(), out[name].as_str(), "{id} {name}");
            }
            let mut again = Headers::new();
            channels.push_headers(&mut again);
            assert_eq!(
                StreamChannels::from_headers(&again, &home),
                Ok(channels.clone())
            );
            let moved = channels.at_home(&url("https://10.1.1.1:9"));
            let control = moved.control.expect("always there").to_string();
            assert_eq!(control, "https://10.1.1.1:9/ai/trickle/a1b2c3d4-control");
        } else if job == "byoc_stream" {
            let status = u16::try_from(given["reply"]["status"].as_u64().unwrap()).unwrap();
            let verdict = judge(status, text(&given["reply"], "body_text").as_bytes());
            assert!(
                matches!(
                    verdict,
                    Verdict::Other {
                        may_have_run: false,
                        ..
                    }
                ),
                "{id}"
            );
        }
        let request = &given["request"];
        if text(request, "path") == "/process/stream/start"
            && let Some(body) = request["body_text"].as_str()
        {
            let read = StreamRequest::from_json(body.as_bytes());
            match out["reply"]["status"].as_u64() {
                Some(200) => {
                    let wanted = text(&out["reply"]["body_json_subset"], "stream_id");
                    let id = read.expect(id).stream_id(7);
                    assert_eq!(id, wanted);
                    let urls = StreamUrls {
                        stream_id: id,
                        ..StreamUrls::default()
                    };
                    let written: Value = serde_json::from_slice(&urls.to_json()).expect("JSON");
                    for key in out["reply"]["body_json_keys"].as_array().expect("keys") {
                        assert!(written[key.as_str().expect("a name")].is_string(), "{key}");
                    }
                }
                _ => assert!(read.is_err(), "{id}"),
            }
        }
    }
    let start = of_kind(REAL_NODE, "exchange")
        .into_iter()
        .find(|case| case["id"] == "stream-worker-start");
    let start = start.expect("one of the cases");
    let request = StreamRequest::from_json(text(&start["in"]["request"], "body_text").as_bytes())
        .expect("good");
    let body = start_body(request.params.as_ref());
    let written: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(written, start["out"]["upstream_last"]["body_json"]);
    assert_eq!(read_start_body(&body), Ok(Some(written["params"].clone())));
    assert_eq!(read_start_body(&start_body(None)), Ok(None));
    assert!(read_start_body(b"[]").is_err());
    assert_eq!(request.stream_id(0), "n1-sid1");
    assert_eq!(StreamRequest::default().stream_id(0xab), "000000ab");
    assert_eq!(about("d-1"), r#"{"stream_id":"d-1"}"#);
    let mut last = Vec::new();
    let read = sse::Reader::new().data(&data_ended(), |event| last.push(event));
    assert_eq!(
        (read, last),
        (Ok(()), vec![r#"{"type":"stream_ended"}"#.into()])
    );
}
