//! Bodies of the fuzzers: one function for each target, from bytes to a panic or none.
//!
//! The bodies live here and not in `fuzz/`, so that `cargo test` replays the committed corpora through the very
//! same code (`sim/tests/corpus.rs`). A new target is one line in [`TARGETS`], a function of that name below or
//! beside, the line `livepeer_fuzz::target!(name);` in `fuzz/fuzz_targets/name.rs`, its `[[bin]]` in
//! `fuzz/Cargo.toml`, and a folder of seeds `fuzz/corpus/name/`; a test says which of these is missing.

pub mod apps;
pub mod batch;
pub mod ingest;
pub mod media;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use livepeer_core::capabilities::{Capabilities, Capability, compatible};
use livepeer_core::http::{Headers, Response, Url};
use livepeer_core::job::live::media::stamps::{STAMP_BITS, Scanner, Span, Stamp};
use livepeer_core::payment::{Ticket, Unit};
use livepeer_core::wire::challenge::{Challenge, RefreshRequest};
use livepeer_core::wire::grpc::{Answer, Question};
use livepeer_core::wire::keystore::{
    Cost, Keystore, MAX_PBKDF2_ROUNDS, MAX_SCRYPT_BYTES, MAX_SCRYPT_LANES,
};
use livepeer_core::wire::listing;
use livepeer_core::wire::signer::{PaymentRequest, PaymentResponse, Quote};
use livepeer_core::wire::webhook::WebhookAnswer;
use livepeer_core::wire::{
    Channels, EventContext, OrchestratorAnswer, OrchestratorInfo, Params, Payment, RunnerEvent,
    ScopeChannels, SegmentCredentials, SignerState, Token, error_words, ethereum,
};
use livepeer_media::probe;

use crate::budget::within_budget;

/// A fuzz target: its name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

macro_rules! targets {
    ($($target:path),* $(,)?) => {
        &[$((last_segment(stringify!($target)), $target)),*]
    };
}

/// Every target, by the name of its file and of its corpus.
pub const TARGETS: &[Target] = targets![
    apps::decode_app,
    crate::openai::decode_backend,
    batch::decode_batch_answer,
    batch::decode_batch_form,
    batch::decode_batch_json,
    batch::decode_event_stream,
    batch::decode_multipart,
    apps::decode_byoc,
    decode_chain_answer,
    decode_challenge,
    crate::openai::decode_chat,
    decode_credentials,
    decode_event,
    ingest::decode_flv,
    decode_grpc,
    media::decode_h264,
    decode_image,
    decode_keystore,
    decode_listing,
    decode_orchestrator_info,
    decode_params,
    decode_payment,
    crate::openai::decode_preferences,
    ingest::decode_rtmp,
    ingest::decode_rtp,
    ingest::decode_sdp,
    decode_signer_answer,
    decode_signer_request,
    decode_signer_state,
    decode_sound,
    decode_stamps,
    decode_start_answer,
    decode_token,
    media::decode_ts_frames,
    decode_url,
    crate::openai::decode_wav,
    machine_app,
    machine_batch,
    machine_bridge,
    machine_byoc,
    machine_discovery,
    machine_entry,
    machine_front,
    machine_handshake,
    machine_live_job,
    machine_orchestrator,
    machine_payment_ledger,
    machine_payment_receiver,
    machine_payment_session,
    machine_payment_signer,
    machine_payment_spending,
    machine_pool,
    machine_price_feed,
    machine_programs,
    ingest::machine_rtmp,
    apps::machine_runner,
    machine_trickle_publisher,
    machine_trickle_server,
    machine_trickle_subscriber,
    ingest::machine_webrtc,
    media::mux_frames,
    crate::openai::rebuild_stream,
];

/// Runs the target of that name.
///
/// # Panics
/// If there is none, and if the target finds a fault or takes longer than an input may.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap_or_else(|| panic!("there is no fuzz target {name}"));
    within_budget(name, || target(data));
}

/// The name at the end of a path.
const fn last_segment(path: &'static str) -> &'static str {
    let bytes = path.as_bytes();
    let mut start = bytes.len();
    while start > 0 && bytes[start - 1] != b':' && bytes[start - 1] != b' ' {
        start -= 1;
    }
    path.split_at(start).1
}

/// Decodes an orchestrator's info and asks it everything: every question has an answer.
pub fn decode_orchestrator_info(data: &[u8]) {
    let raw = Bytes::copy_from_slice(data);
    let info = OrchestratorInfo::decode(raw.clone());
    let answer = OrchestratorAnswer::decode(raw.clone());
    let Ok(info) = info else {
        let referred = matches!(answer, Err(_) | Ok(OrchestratorAnswer::Referral(_)));
        assert!(referred, "an answer is an info where an info can be read");
        return;
    };
    assert_eq!(info.raw, raw, "the raw bytes are those that came");
    let told = matches!(answer, Ok(OrchestratorAnswer::Info(told)) if *told == info);
    assert!(told, "an info with a transcoder is not a referral");
    let _ = info.price_for(Capability::LIVE_VIDEO_TO_VIDEO, "noop");
    let _ = info.byoc_price("noop");
    if let Some(capabilities) = &info.capabilities {
        let _ = compatible(Some(capabilities), capabilities);
        let _ = capabilities.all_capacities();
        assert!(
            capabilities.models().count() <= livepeer_core::wire::MAX_MODELS,
            "models are bounded"
        );
    }
}

/// Reads lists of every kind: each entry has a usable address, and nothing is read without bound.
pub fn decode_listing(data: &[u8]) {
    let usable = |found: &listing::Found| {
        assert!(!found.url.host().is_empty());
        assert!(found.runners.len() <= listing::MAX_PER_ENTRY);
    };
    for listed in [
        listing::read_list(data),
        listing::read_subgraph(data),
        listing::read_stats(data, &listing::StatsFields::default()),
    ] {
        let Ok((found, skipped)) = listed else {
            continue;
        };
        found.iter().for_each(usable);
        assert!(found.len() <= listing::MAX_LIST_ENTRIES);
        assert!(skipped.len() <= listing::MAX_SKIPPED);
    }
    let _ = listing::read_runners(data);
    let _ = listing::read_scores(data, "FRA");
    let _ = listing::read_round(data);
    if let Ok(text) = core::str::from_utf8(data) {
        for url in listing::read_addresses(text).0 {
            assert_eq!(listing::read_address(&url.to_string()), Ok(url));
        }
    }
}

/// A URL that is accepted can be shown and read again, and so can what it is made into.
pub fn decode_url(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else {
        return;
    };
    let base = Url::parse("https://orchestrator.example:8935/base/").expect("a good URL");
    let _ = base.resolve(text);
    let Ok(url) = Url::parse(text) else {
        return;
    };
    let again = Url::parse(&url.to_string());
    assert_eq!(again.as_ref(), Ok(&url), "shown and read again");
    assert!(url.port() != 0 && !url.host().is_empty() && url.path().starts_with('/'));
    let child = url.child("-1");
    assert_eq!(Url::parse(&child.to_string()), Ok(child));
    // A public peer leads to public addresses, whatever it writes.
    if let Ok(named) = url.named_by(&base) {
        assert!(named.is_secure());
        assert!(named.admits(core::net::Ipv4Addr::LOCALHOST.into()).is_err() || named == base);
    }
}

/// An image has pixels, and no more of its bytes change its size.
pub fn decode_image(data: &[u8]) {
    if let Ok(image) = probe::image(data) {
        assert!(image.width > 0 && image.height > 0);
        assert_eq!(probe::image(&[data, b"tail"].concat()), Ok(image));
    }
}

/// Sound plays for a time that can be paid, whatever the file claims.
pub fn decode_sound(data: &[u8]) {
    if let Ok(sound) = probe::sound(data) {
        assert!(!sound.duration.is_zero() && sound.duration <= probe::MAX_SOUND);
    }
}

/// The answer to a start request names its channels, or is refused.
pub fn decode_start_answer(data: &[u8]) {
    let orchestrator = Url::parse("https://orchestrator.example:8935").expect("a good URL");
    if let Ok(channels) = Channels::from_json(data, &orchestrator) {
        assert!(!channels.manifest_id.is_empty());
        let scope = ScopeChannels::from_json(data, &orchestrator).expect("it asks for less");
        assert_eq!(scope.manifest_id, channels.manifest_id);
        assert_eq!(scope.control, channels.control);
        if let Ok(channels) = channels.named_by(&orchestrator) {
            assert!(channels.control.is_secure());
        }
    }
}

/// An event is read, or skipped.
pub fn decode_event(data: &[u8]) {
    let context = EventContext(vec![("stream_id", "s".into())]);
    if let Ok(event) = RunnerEvent::parse(data, &context) {
        assert_eq!(
            event.event.get("stream_id").and_then(|id| id.as_str()),
            Some("s"),
            "the context wins over the peer"
        );
        let merged = event.clone().merged_over(Some(&event));
        assert_eq!(merged, event, "over itself nothing changes");
    }
}

/// Parameters that are accepted come out as they went in.
pub fn decode_params(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else {
        return;
    };
    if let Ok(params) = Params::parse(text) {
        assert_eq!(Params::parse(&params.to_json()).as_ref(), Ok(&params));
    }
}

/// A token is read or refused.
pub fn decode_token(data: &[u8]) {
    if let Ok(text) = core::str::from_utf8(data)
        && let Ok(token) = Token::decode(text)
    {
        let orchestrators = token.orchestrators.unwrap_or_default();
        assert!(orchestrators.iter().all(|entry| !entry.is_empty()));
    }
}

/// A gRPC message is the same whether it comes whole or in two pieces. The first byte says where to part it.
pub fn decode_grpc(data: &[u8]) {
    let Some((at, body)) = data.split_first() else {
        return;
    };
    let (head, tail) = body.split_at(body.len() * usize::from(*at) / 256);
    let ask = |pieces: &[&[u8]]| {
        let mut question = Question::default();
        for piece in pieces {
            question.data(piece)?;
        }
        question.end()
    };
    assert_eq!(ask(&[body]), ask(&[head, tail]));

    let answer = |pieces: &[&[u8]]| {
        let mut answer = Answer::default();
        answer.head(&Response::new(200).header("content-type", "application/grpc"))?;
        for piece in pieces {
            answer.data(piece)?;
        }
        let mut trailers = Headers::new();
        trailers.push("grpc-status", "0");
        trailers.push("grpc-message", String::from_utf8_lossy(head));
        answer.end(&trailers)
    };
    assert_eq!(answer(&[body]), answer(&[head, tail]));
}

/// A rental ends once, no app runs a call twice without leave, no runner is paid more than three times at first, and nothing
/// is left open, whatever peers and users do.
pub fn machine_app(data: &[u8]) {
    crate::steps::app::run(data);
}

/// Batch jobs end once each, no nonce leaves twice and nothing is left open, whatever peers and callers do.
pub fn machine_batch(data: &[u8]) {
    crate::steps::batch::run(data);
}

/// A bridge gives models whole segments whose time only goes forward, whatever senders, clocks and job do.
pub fn machine_bridge(data: &[u8]) {
    crate::steps::bridge::run(data);
}

/// Jobs for a container end once each, none runs twice without leave, no nonce leaves twice and nothing is left open,
/// whatever peers and callers do.
pub fn machine_byoc(data: &[u8]) {
    crate::steps::byoc::run(data);
}

/// A price feed asks one question at a time, and its price stays until there is a newer good one.
pub fn machine_price_feed(data: &[u8]) {
    crate::steps::price_feed::run(data);
}

/// A discovery names everybody once and keeps secrets, whatever its sources answer.
pub fn machine_discovery(data: &[u8]) {
    crate::steps::discovery::run(data);
}

/// A handshake ends once, and accepts a new certificate at most once a call.
pub fn machine_handshake(data: &[u8]) {
    crate::steps::handshake::run(data);
}

/// A live job ends, gives every lease back, blames nobody for its own side and pays no nonce twice, whatever
/// orchestrators, runners and its owner do.
pub fn machine_live_job(data: &[u8]) {
    crate::steps::live_job::run(data);
}

/// A pool lends nobody who is suspended, and leaves no job waiting, whatever orchestrators and jobs do.
pub fn machine_pool(data: &[u8]) {
    crate::steps::pool::run(data);
}

/// An orchestrator answers once, credits once and overdraws nobody, whatever gateways do.
pub fn machine_orchestrator(data: &[u8]) {
    crate::steps::orchestrator::run(data);
}

/// Programs of an orchestrator are asked once, places come back and sessions end, whatever gateways, programs and runners do.
pub fn machine_programs(data: &[u8]) {
    crate::steps::programs::run(data);
}

/// A payment that is read comes out as it went in, and its tickets have hashes.
pub fn decode_payment(data: &[u8]) {
    let Ok(payment) = Payment::from_protobuf(Bytes::copy_from_slice(data)) else {
        return;
    };
    let again = Payment::from_protobuf(payment.to_protobuf().into());
    assert_eq!(again.as_ref(), Ok(&payment));
    if let Some(params) = &payment.ticket_params {
        for sent in payment.tickets.iter().take(8) {
            let ticket = Ticket::new(params, payment.sender, sent.nonce);
            assert!(matches!(ticket.packed().len(), 168 | 232));
            let _ = ticket.verify(&sent.signature);
            let _ = ticket.expected_value();
        }
    }
    if let Ok(text) = core::str::from_utf8(data) {
        let _ = Payment::decode(text);
    }
}

/// Credentials that are read come out as they went in.
pub fn decode_credentials(data: &[u8]) {
    let header = STANDARD.encode(data);
    if let Ok(credentials) = SegmentCredentials::decode(&header) {
        let again = SegmentCredentials::decode(&credentials.encode());
        assert_eq!(again.as_ref(), Ok(&credentials));
        let _ = credentials.verify(livepeer_core::Address::ZERO);
    }
}

/// A demand for payment is read, refused, or is none.
pub fn decode_challenge(data: &[u8]) {
    if let Ok(Some(challenge)) = Challenge::from_json(data) {
        let again = Challenge::from_json(&challenge.to_json());
        assert_eq!(again, Ok(Some(challenge)));
    }
    let _ = RefreshRequest::from_json(data);
}

/// A request to a signer that is read comes out as it went in; its price ceiling is a number or none.
pub fn decode_signer_request(data: &[u8]) {
    let Ok(request) = PaymentRequest::from_json(data) else {
        return;
    };
    assert_eq!(
        PaymentRequest::from_json(&request.to_json()).as_ref(),
        Ok(&request)
    );
    if let Some(max) = &request.max_price {
        for unit in [Unit::PixelSeconds, Unit::Seconds, Unit::Fixed] {
            let _ = max.parse(Some(unit));
        }
    }
    if let Some(raw) = &request.orchestrator {
        let _ = Quote::decode(raw);
    }
    if let Some(raw) = &request.capabilities {
        let _ = Capabilities::from_bytes(raw);
    }
}

/// A signer's or webhook's answer is read or refused.
pub fn decode_signer_answer(data: &[u8]) {
    if let Ok(response) = PaymentResponse::from_json(data) {
        let again = PaymentResponse::from_json(&response.to_json());
        assert_eq!(again, Ok(response));
    }
    let _ = WebhookAnswer::from_json(data);
    let _ = error_words(data);
}

/// A state that is read is written in bytes that are stable from then on.
pub fn decode_signer_state(data: &[u8]) {
    if let Ok(state) = SignerState::from_json(data) {
        let text = state.to_json();
        let again = SignerState::from_json(text.as_bytes()).expect("our own");
        assert_eq!(again.to_json(), text);
    }
}

/// Places at which a stream of time stamps is cut, from its beginning on: some more than a few packets have.
const MAX_CUTS: usize = 1 << 10;

/// Time stamps are the same wherever the stream is cut, and the span of a segment has all of its frames in it.
pub fn decode_stamps(data: &[u8]) {
    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Stamp> {
        let (mut scanner, mut stamps) = (Scanner::default(), Vec::new());
        for piece in pieces {
            scanner.push(piece, |stamp| stamps.push(stamp));
        }
        stamps
    }
    let whole = scan([data]);
    assert_eq!(scan(data.chunks(1)), whole, "byte by byte");
    for at in 0..=data.len().min(MAX_CUTS) {
        let (head, tail) = data.split_at(at);
        assert_eq!(scan([head, tail]), whole, "cut at byte {at}");
    }
    let (mut read, mut span) = (0, None);
    for stamp in &whole {
        assert!(stamp.at >= read, "packets do not overlap");
        read = stamp.at + 188;
        assert!(read <= data.len() as u64, "only whole packets have stamps");
        assert!(stamp.pts < 1 << STAMP_BITS);
        Span::add(&mut span, *stamp);
    }
    if let Some(span) = span {
        let _ = span.plays();
        for stamp in whole {
            assert_eq!(span.beyond(stamp).is_some(), span.contains(stamp));
        }
    }
}

/// A keystore that is read costs no more than a password may.
pub fn decode_keystore(data: &[u8]) {
    if let Ok(keystore) = Keystore::parse(data) {
        match keystore.cost {
            Cost::Scrypt { bytes, lanes } => {
                assert!((1..=MAX_SCRYPT_BYTES).contains(&bytes));
                assert!((1..=MAX_SCRYPT_LANES).contains(&lanes));
            }
            Cost::Pbkdf2 { rounds } => assert!((1..=MAX_PBKDF2_ROUNDS).contains(&rounds)),
        }
    }
}

/// Reads the answers of a chain, or refuses them.
pub fn decode_chain_answer(data: &[u8]) {
    let _ = ethereum::Block::from_json(data);
    let _ = ethereum::read_sender_info(data);
    let _ = ethereum::read_address(data, 1);
    if let Ok(text) = ethereum::read_text(data) {
        assert!(text.len() < data.len());
    }
}

/// Ledgers and nonces are what the simplest thing that could be right says.
pub fn machine_payment_ledger(data: &[u8]) {
    crate::steps::payment_ledger::run(data);
}

/// A recipient counts each ticket once, after it is durable, whatever it is sent.
pub fn machine_payment_receiver(data: &[u8]) {
    crate::steps::payment_receiver::run(data);
}

/// Nothing wrong leaves a payer, whatever its signer and orchestrator say.
pub fn machine_payment_session(data: &[u8]) {
    crate::steps::payment_session::run(data);
}

/// Live entry answers every sender once, and gives every name to one stream at a time.
pub fn machine_entry(data: &[u8]) {
    crate::steps::entry::run(data);
}

/// A front door answers everybody once, and gives every place back.
pub fn machine_front(data: &[u8]) {
    crate::steps::front::run(data);
}

/// A signer answers everybody once, and signs only what it decided.
pub fn machine_payment_signer(data: &[u8]) {
    crate::steps::payment_signer::run(data);
}

/// A limit that many sessions share holds, whatever the store does.
pub fn machine_payment_spending(data: &[u8]) {
    crate::steps::payment_spending::run(data);
}

/// A publisher ends with one outcome per segment, whatever its server says.
pub fn machine_trickle_publisher(data: &[u8]) {
    crate::steps::trickle_publisher::run(data);
}

/// A server answers everybody and keeps its word to readers, whatever peers do.
pub fn machine_trickle_server(data: &[u8]) {
    crate::steps::trickle_server::run(data);
}

/// A subscriber tells each byte once and ends, whatever its server says.
pub fn machine_trickle_subscriber(data: &[u8]) {
    crate::steps::trickle_subscriber::run(data);
}
