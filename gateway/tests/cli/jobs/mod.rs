//! Whole jobs, and what ends them.

mod liar;
mod output;
mod peer;
mod secrets;
mod senders;
mod signers;

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use livepeer_core::wire::Payment;
use livepeer_core::wire::signer::PaymentResponse;
use livepeer_orchestrator::Quirks;

use crate::process::{CLIP, signal};
use crate::run::{Ended, RUNTIMES, Scratch, run, start, start_fed};
use crate::server;
use liar::Lie;

/// Faster than real time, and slow enough that nobody has to be waited for.
const SPEED: &str = "8";

/// The clip's bytes.
fn clip_bytes() -> Vec<u8> {
    std::fs::read(CLIP).expect("the clip comes with the sources")
}

/// A development network of one orchestrator.
struct Devnet {
    network: server::Devnet,
    orchestrator: String,
    signer: String,
}

impl Devnet {
    fn start(runtime: &str) -> Self {
        let mut network = server::Devnet::start(1, &["--runtime", runtime]);
        Self {
            orchestrator: network.orchestrators.remove(0),
            signer: std::mem::take(&mut network.signer),
            network,
        }
    }

    /// Stops it as its user would; everything it said on stderr while it ran.
    fn stop(self) -> String {
        self.network.server.stop("INT")
    }
}

/// The command line of a job in that network, with further options.
fn live<'a>(net: &'a Devnet, input: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["live", "--orchestrator", &net.orchestrator];
    arguments.extend(["--signer", &net.signer]);
    arguments.extend(["--input", input, "--output", output]);
    arguments.extend(more);
    arguments
}

/// Runs a job with the clip as its input and nothing done with its output; without a signer nobody pays.
fn job(orchestrator: &str, signer: &str, more: &[&str]) -> Ended {
    let name = thread::current().name().unwrap_or_default().to_owned();
    let output = Scratch::new(&name.replace("::", "-"));
    let mut arguments = vec!["live", "--orchestrator", orchestrator];
    arguments.extend(["--input", CLIP, "--output", output.path()]);
    match signer {
        "" => arguments.push("--offchain"),
        signer => arguments.extend(["--signer", signer]),
    }
    arguments.extend(more);
    run(&arguments)
}

#[test]
fn a_file_comes_back_byte_for_byte_and_is_paid_for() {
    for runtime in RUNTIMES {
        let net = Devnet::start(runtime);
        let output = Scratch::new(&format!("file-{runtime}"));
        let ended = run(&live(
            &net,
            CLIP,
            output.path(),
            &[
                "--model-id",
                "noop",
                "--runtime",
                runtime,
                "--speed",
                SPEED,
                "--json",
            ],
        ));
        ended.succeeded();
        assert!(output.bytes() == clip_bytes(), "{runtime}");
        let figures = ended.json();
        assert_eq!(figures["segments_out"], 12, "{figures}");
        assert_eq!(figures["segments_in"], 12, "{figures}");
        assert_eq!(figures["segments_lost"], 0, "{figures}");
        assert!(figures["payments"].as_u64() >= Some(1), "{figures}");
        let said = net.stop();
        assert!(said.contains("its input is over"), "{said}");
        assert!(!said.contains("refused"), "{said}");
    }
}

#[test]
fn an_off_chain_network_works_for_those_who_pay_nothing() {
    for processes in [&[][..], &["--processes"]] {
        let net = server::Devnet::start(1, &[&["--offchain"], processes].concat());
        assert_eq!(net.signer, "", "{}", net.server.introduction);
        let orchestrator = &net.orchestrators[0];
        let info = run(&["info", orchestrator, "--json"]);
        info.succeeded();
        let info = info.json();
        for member in ["address", "price", "tickets"] {
            assert!(info[member].is_null(), "{info}");
        }
        let ended = job(orchestrator, "", &["--speed", SPEED, "--json"]);
        ended.succeeded();
        assert_eq!(ended.json()["segments_in"], 12, "{}", ended.text());
        assert!(!net.server.stop("INT").contains("refused"));
    }
}

#[test]
fn standard_input_comes_back_on_standard_output() {
    for runtime in RUNTIMES {
        let net = Devnet::start(runtime);
        let arguments = live(
            &net,
            "-",
            "-",
            &["--model-id", "noop", "--runtime", runtime, "--speed", SPEED],
        );
        let ended = start_fed(&arguments).end(clip_bytes());
        ended.succeeded();
        assert!(ended.stdout == clip_bytes(), "{runtime}: {}", ended.stderr);
        assert!(ended.stderr.contains("segments out"), "{}", ended.stderr);
        net.stop();
    }
}

#[test]
fn a_stream_that_is_being_made_comes_back_as_it_is_made() {
    let net = Devnet::start("tokio");
    let arguments = live(&net, "-", "-", &["--model-id", "noop"]);
    // Half of the first segment, and then nothing for as long as nothing has come back.
    let clip = clip_bytes();
    let mut job = start_fed(&arguments);
    job.write(&clip[..40_000]);
    assert_eq!(job.read(20_000), clip[..20_000]);
    let ended = job.end(clip[40_000..].to_vec());
    ended.succeeded();
    assert!(ended.stdout == clip[20_000..], "{}", ended.stderr);
    net.stop();
}

#[test]
fn a_model_that_changes_the_stream_changes_its_time_stamps_only() {
    let net = Devnet::start("tokio");
    let output = Scratch::new("retimed");
    let ended = run(&live(
        &net,
        CLIP,
        output.path(),
        &["--model-id", "retime", "--speed", SPEED],
    ));
    ended.succeeded();
    let (before, after) = (time_stamps(&clip_bytes()), time_stamps(&output.bytes()));
    assert!(before.len() > 300, "{} pictures", before.len());
    let hour = 3600 * 90_000;
    let moved: Vec<u64> = before.iter().map(|pts| pts + hour).collect();
    assert_eq!(after, moved);
}

/// Every presentation time stamp in the stream, in 90 kHz.
fn time_stamps(stream: &[u8]) -> Vec<u64> {
    use mpeg2ts::ts::{ReadTsPacket as _, TsPacketReader, TsPayload};
    let mut reader = TsPacketReader::new(stream);
    let mut stamps = Vec::new();
    while let Some(packet) = reader.read_ts_packet().expect("a stream") {
        if let Some(TsPayload::PesStart(pes)) = packet.payload {
            stamps.extend(pes.header.pts.map(|pts| pts.as_u64()));
        }
    }
    stamps
}

#[test]
fn a_token_says_whom_to_ask_and_who_signs() {
    let net = Devnet::start("tokio");
    for (discovery, orchestrators) in [
        (Some(format!("{}/discover-orchestrators", net.signer)), None),
        (None, Some(vec![net.orchestrator.clone()])),
    ] {
        let token = serde_json::json!({
            "signer": net.signer,
            "discovery": discovery,
            "orchestrators": orchestrators,
        });
        let token = STANDARD.encode(token.to_string());
        let output = Scratch::new("token");
        let ended = run(&[
            "live",
            "--token",
            &token,
            "--model-id",
            "noop",
            "--input",
            CLIP,
            "--output",
            output.path(),
            "--speed",
            SPEED,
        ]);
        ended.succeeded();
        assert!(output.bytes() == clip_bytes());
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    for runtime in RUNTIMES {
        let net = Devnet::start(runtime);
        let output = Scratch::new(&format!("interrupted-{runtime}"));
        let job = start(&live(
            &net,
            CLIP,
            output.path(),
            &["--model-id", "noop", "--loop", "--runtime", runtime],
        ));
        // Until something came back it may not have started.
        let began = Instant::now();
        while std::fs::metadata(output.path()).map_or(0, |file| file.len()) == 0 {
            assert!(began.elapsed() < Duration::from_secs(30));
            thread::sleep(Duration::from_millis(20));
        }
        signal(job.0.id(), "INT");
        let pressed = Instant::now();
        let ended = job.end(Vec::new());
        assert!(pressed.elapsed() < Duration::from_secs(10));
        assert_eq!(ended.code(), Some(130), "{ended:?}");
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended:?}");
        let clip = clip_bytes();
        assert!(
            clip.starts_with(&output.bytes()),
            "whole, as far as it goes"
        );
        let said = net.stop();
        assert!(said.contains("its input is over"), "{said}");
    }
}

#[test]
fn a_signer_that_does_not_pay_ends_the_job_with_its_reason() {
    let net = Devnet::start("tokio");
    let text = |text: &str| text.as_bytes().to_vec();
    let said = |message: &str| format!("{{\"error\":{{\"message\":\"{message}\"}}}}").into_bytes();
    let cases: [(u16, Vec<u8>, &str); 8] = [
        (
            480,
            said("refresh session for remote signer"),
            "fresh quote",
        ),
        (
            481,
            said("orchestrator price exceeds the ceiling"),
            "ceiling",
        ),
        (482, said("no tickets"), "nothing is due"),
        (500, said("the disk is full"), "the disk is full"),
        (200, text("<html>It works!</html>"), "signer"),
        (200, text("{}"), "payment is missing"),
        (
            200,
            text(
                "{\"payment\":\"AAAA\",\"segCreds\":\"AAAA\",\"state\":{\"State\":\"AA==\",\"Sig\":\"AA==\"}}",
            ),
            "signer",
        ),
        (200, vec![b'['; 1 << 20], "signer"),
    ];
    for (status, body, expected) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let lie: Box<Lie> = Box::new(move |_, _| (status, body.clone()));
        let signer = liar::start(&net.signer, lie);
        let ended = job(&net.orchestrator, &signer, &[]);
        let line = ended.error();
        assert!(line.contains(expected), "{status} {shown}: {line}");
    }
    let said = net.stop();
    assert!(!said.contains("paid"), "{said}");
}

#[test]
fn a_payment_that_is_not_the_payers_is_not_sent() {
    let net = Devnet::start("tokio");
    let lie: Box<Lie> = Box::new(|_, real| {
        let (status, body) = real();
        let mut answer = PaymentResponse::from_json(&body).expect("the signer pays");
        let mut payment = Payment::decode(&answer.payment).expect("the signer's");
        let mut signature = payment.tickets[0].signature.to_vec();
        signature[10] ^= 1;
        payment.tickets[0].signature = signature.into();
        answer.payment = payment.encode();
        (status, answer.to_json())
    });
    let signer = liar::start(&net.signer, lie);
    let ended = job(&net.orchestrator, &signer, &[]);
    assert!(ended.error().contains("signature"), "{}", ended.error());
    let said = net.stop();
    assert!(!said.contains("paid"), "{said}");
}

#[test]
fn a_payment_made_twice_is_not_sent_twice() {
    let net = Devnet::start("tokio");
    let first: Mutex<Option<(u16, Vec<u8>)>> = Mutex::default();
    let lie: Box<Lie> = Box::new(move |_, real| {
        let mut first = first.lock().expect("nobody panics with it");
        first.get_or_insert_with(real).clone()
    });
    let signer = liar::start(&net.signer, lie);
    let ended = job(&net.orchestrator, &signer, &["--loop"]);
    assert!(ended.error().contains("nonce"), "{}", ended.error());
    let said = net.stop();
    assert_eq!(said.matches(" paid ").count(), 1, "{said}");
}

/// The first payment lasts a minute.
#[test]
fn a_session_that_is_not_paid_for_any_more_is_cut_off() {
    let net = Devnet::start("tokio");
    let lie: Box<Lie> = Box::new(|n, real| match n {
        0 => real(),
        _ => (482, b"{\"error\":{\"message\":\"no tickets\"}}".to_vec()),
    });
    let signer = liar::start(&net.signer, lie);
    let began = Instant::now();
    let ended = job(&net.orchestrator, &signer, &["--loop"]);
    let after = began.elapsed();
    // Two metering intervals after what was paid for, at the latest.
    assert!((50..75).contains(&after.as_secs()), "{after:?}");
    assert!(
        ended.error().contains("ended the session"),
        "{}",
        ended.error()
    );
    let said = net.stop();
    assert!(said.contains("cut off"), "{said}");
}

#[test]
fn an_orchestrator_that_refuses_payments_ends_the_job_with_its_words() {
    let net = Devnet::start("tokio");
    let quirks = Quirks {
        refuse_payments: Some((400, "invalid ticket signature".to_owned())),
        ..Quirks::default()
    };
    let ended = job(&peer::start(Some(100), quirks), &net.signer, &[]);
    assert!(
        ended.error().contains("invalid ticket signature"),
        "{}",
        ended.error()
    );
}

#[test]
fn a_start_answer_without_a_channel_ends_the_job() {
    let quirks = Quirks {
        leave_out: Some("publish_url".to_owned()),
        ..Quirks::default()
    };
    let ended = job(&peer::start(None, quirks), "", &[]);
    assert!(ended.error().contains("publish_url"));
}

#[test]
fn what_is_no_orchestrator_or_no_signer_is_told_at_once() {
    let net = Devnet::start("tokio");
    let nobody = {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        format!("http://{}", port.local_addr().expect("it is bound"))
    };
    for (orchestrator, signer, expected) in [
        (
            nobody.replace("http", "https"),
            net.signer.clone(),
            "cannot connect",
        ),
        (
            net.signer.replace("http", "https"),
            net.signer.clone(),
            "orchestrator",
        ),
        (net.orchestrator.clone(), nobody, "signer"),
        (
            net.orchestrator.clone(),
            net.orchestrator.replace("https", "http"),
            "signer",
        ),
    ] {
        let ended = job(&orchestrator, &signer, &[]);
        assert!(ended.error().contains(expected), "{}", ended.error());
    }
    let taken = run(&[
        "devnet",
        "--listen",
        net.orchestrator.trim_start_matches("https://"),
    ]);
    assert!(taken.error().contains("in use"), "{}", taken.error());
}

#[test]
fn input_that_is_no_stream_costs_nothing() {
    let net = Devnet::start("tokio");
    for (bytes, expected) in [
        (Vec::new(), "empty"),
        (b"GIF89a".repeat(1000), "MPEG-TS"),
        (vec![0x47; 100], "MPEG-TS"),
    ] {
        let arguments = live(&net, "-", "-", &[]);
        let ended = start_fed(&arguments).end(bytes);
        assert!(ended.error().contains(expected), "{}", ended.error());
        assert!(ended.stdout.is_empty());
    }
    let said = net.stop();
    assert!(!said.contains("session"), "{said}");
}

#[test]
fn a_key_of_ones_own_pays_and_its_limits_outlast_the_program() {
    let net = Devnet::start("tokio");
    let key = Scratch::with("own-key", "01".repeat(32));
    let (store, output) = (Scratch::new("own-store"), Scratch::new("own-output"));
    let job = |more: &[&str]| {
        let mut arguments = vec![
            "live",
            "--orchestrator",
            &net.orchestrator,
            "--speed",
            SPEED,
        ];
        arguments.extend(["--input", CLIP, "--output", output.path()]);
        arguments.extend(["--key-file", key.path(), "--static-chain"]);
        arguments.extend(["--store", store.path()]);
        arguments.extend(more);
        run(&arguments)
    };
    for runtime in RUNTIMES {
        let ended = job(&["--runtime", runtime, "--json"]);
        ended.succeeded();
        assert!(output.bytes() == clip_bytes(), "{runtime}");
        let figures = ended.json();
        assert!(figures["payments"].as_u64() >= Some(1), "{figures}");
    }
    // The first payment alone is worth 168 gwei.
    let ended = job(&["--max-spend", "1000"]);
    assert!(
        ended.error().contains("limit of 1000 wei per job"),
        "{}",
        ended.error()
    );
    // Twice that much was spent by the two jobs before, and it is not forgotten.
    let ended = job(&["--max-spend-per-hour", "400000000000"]);
    assert!(ended.error().contains("wei per hour"), "{}", ended.error());
    job(&["--max-spend", "400000000000"]).succeeded();
    let said = net.stop();
    assert!(!said.contains("refused"), "{said}");
}

#[test]
fn an_own_key_needs_a_store_and_a_chain_and_nobody_else() {
    let key = Scratch::with("needy-key", "02".repeat(32));
    let orchestrator = [
        "live",
        "--orchestrator",
        "127.0.0.1:1",
        "--input",
        "-",
        "--output",
        "-",
    ];
    for (more, expected) in [
        (&["--static-chain"][..], "--store"),
        (&["--store", "x"], "--rpc"),
        (&["--store", "x", "--static-chain", "--offchain"], "twice"),
        (
            &[
                "--store",
                "x",
                "--static-chain",
                "--signer",
                "http://127.0.0.1:1",
            ],
            "twice",
        ),
    ] {
        let ended = run(&[&orchestrator[..], &["--key-file", key.path()], more].concat());
        assert_eq!(ended.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn a_changed_certificate_is_accepted_once_or_strictly_refused() {
    let net = Devnet::start("tokio");
    let pins = Scratch::new("pins");
    let info = |more: &[&str]| {
        let mut info = vec!["info", &net.orchestrator, "--signer", &net.signer];
        info.extend(["--pins", pins.path()]);
        run(&[&info[..], more].concat())
    };
    info(&[]).succeeded();
    info(&["--runtime", "smol"]).succeeded();
    // Somebody else answers there now, as far as we remember.
    let mut forged = pins.bytes();
    let last = forged.len() - 2;
    forged[last] = if forged[last] == b'0' { b'1' } else { b'0' };
    assert_ne!(forged, pins.bytes());
    std::fs::write(pins.path(), &forged).expect("there is room");
    let ended = info(&["--pins-strict"]);
    assert!(ended.error().contains("certificate"), "{}", ended.error());
    let strict = ["--pins", pins.path(), "--pins-strict"];
    let ended = job(&net.orchestrator, &net.signer, &strict);
    assert!(ended.error().contains("certificate"), "{}", ended.error());
    assert_eq!(pins.bytes(), forged, "nothing new is believed");
    // Otherwise that is what a restart looks like.
    let ended = info(&[]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("another certificate"),
        "{}",
        ended.stderr
    );
    assert_ne!(pins.bytes(), forged, "the new one is remembered");
    let again = info(&[]);
    assert!(!again.stderr.contains("certificate"), "{}", again.stderr);
    assert!(!net.stop().contains("paid"));
}

#[test]
fn what_cannot_be_had_is_not_paid_for() {
    let net = Devnet::start("tokio");
    for (more, expected) in [
        (&["--model-id", "painter"][..], "painter"),
        (&["--max-price", "99"], "99"),
        (&["--max-price", "199/2"], "199/2"),
    ] {
        let ended = job(&net.orchestrator, &net.signer, more);
        assert!(ended.error().contains(expected), "{}", ended.error());
    }
    let ended = job(&net.orchestrator, "", &[]);
    assert!(ended.error().contains("orchestrator"), "{}", ended.error());
    assert!(!net.stop().contains("session"));
}
