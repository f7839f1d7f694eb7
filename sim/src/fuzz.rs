//! What the fuzzers run: one function for each target, from bytes to a panic or none.
//!
//! The bodies live here and not in `fuzz/`, so that `cargo test` replays the committed corpora through the very
//! same code (`sim/tests/corpus.rs`). A new target is one line in [`TARGETS`], a function of that name below or
//! beside, the line `livepeer_fuzz::target!(name);` in `fuzz/fuzz_targets/name.rs`, its `[[bin]]` in
//! `fuzz/Cargo.toml`, and a folder of seeds `fuzz/corpus/name/`; a test says which of these is missing.

use bytes::Bytes;
use livepeer_core::capabilities::{Capability, compatible};
use livepeer_core::http::{Headers, Response, Url};
use livepeer_core::wire::grpc::{Answer, Question};
use livepeer_core::wire::{
    Channels, EventContext, OrchestratorInfo, Params, RunnerEvent, ScopeChannels, Token,
};

/// A fuzz target: its name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

macro_rules! targets {
    ($($target:path),* $(,)?) => {
        &[$((last_segment(stringify!($target)), $target)),*]
    };
}

/// Every target, by the name of its file and of its corpus.
pub const TARGETS: &[Target] = targets![
    decode_event,
    decode_grpc,
    decode_orchestrator_info,
    decode_params,
    decode_start_answer,
    decode_token,
    decode_url,
    machine_orchestrator,
    machine_trickle_publisher,
    machine_trickle_server,
    machine_trickle_subscriber,
];

/// Runs the target of that name.
///
/// # Panics
/// If there is none, and if the target finds a fault.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap_or_else(|| panic!("there is no fuzz target {name}"));
    target(data);
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

/// Whatever an orchestrator says about itself, every question about it has an answer.
pub fn decode_orchestrator_info(data: &[u8]) {
    let raw = Bytes::copy_from_slice(data);
    let nodes = OrchestratorInfo::nodes_instead(data);
    let Ok(info) = OrchestratorInfo::decode(raw.clone()) else {
        return;
    };
    assert_eq!(info.raw, raw, "the raw bytes are those that came");
    assert_eq!(nodes, None, "an info with a transcoder is not a referral");
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
}

/// The answer to a start request names its channels, or is refused.
pub fn decode_start_answer(data: &[u8]) {
    let orchestrator = Url::parse("https://orchestrator.example:8935").expect("a good URL");
    if let Ok(channels) = Channels::from_json(data, &orchestrator) {
        assert!(!channels.manifest_id.is_empty());
        let scope = ScopeChannels::from_json(data, &orchestrator).expect("it asks for less");
        assert_eq!(scope.manifest_id, channels.manifest_id);
        assert_eq!(scope.control, channels.control);
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

/// An orchestrator answers once, credits once and overdraws nobody, whatever gateways do.
pub fn machine_orchestrator(data: &[u8]) {
    crate::steps::orchestrator::run(data);
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
