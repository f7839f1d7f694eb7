//! Bodies of fuzzers for containers that operators brought, and for apps that orchestrators rent out.

use livepeer_core::http::Url;
use livepeer_core::wire::app::registration::{
    Heartbeat, Registered, SessionNews, channels_answer, go_duration, read_channels,
};
use livepeer_core::wire::app::{Session, app_url, is_session_over, is_untouched};
use livepeer_core::wire::byoc::stream::{StreamRequest, read_start_body};
use livepeer_core::wire::byoc::{JobRequest, Relay, Sender, Token, judge};

fn home() -> Url {
    Url::parse("https://orch.example:8935")
        .expect("a URL")
        .opened()
}

/// Jobs, tokens and refusals are read or not; what is read can be written again. A relay gives the same whatever the
/// pieces, and never two blank lines in a row.
pub fn decode_byoc(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(job) = JobRequest::from_header(&text) {
        let job = job.to_send();
        let header = job.to_header(None);
        assert_eq!(JobRequest::read_signed(&header).ok(), Some((job, None)));
    }
    let _ = Sender::from_header(&text);
    if let Ok(token) = Token::from_json(data, &home()) {
        let again = Token::from_json(&token.to_json(Sender::default()), &home());
        assert_eq!(
            again.map(|token| token.ticket_params),
            Ok(token.ticket_params)
        );
    }
    let _ = StreamRequest::from_json(data);
    let _ = read_start_body(data);
    let _ = judge(500, data);
    let _ = judge(400, data);
    let whole = relayed([data]);
    assert_eq!(relayed(data.chunks(1)), whole);
    if let Some(said) = whole {
        assert!(!said.windows(3).any(|three| three == b"\n\n\n"), "a flood");
        assert!(!said.contains(&b'\r'));
    }
}

fn relayed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let (mut relay, mut out) = (Relay::new(), Vec::new());
    for piece in pieces {
        let relayed = relay.data(piece).ok()?;
        out.extend_from_slice(&relayed.bytes);
        if relayed.ended {
            return Some(out);
        }
    }
    out.extend_from_slice(&relay.end());
    Some(out)
}

/// Messages of and about apps are read or not; what is read can be written again.
pub fn decode_app(data: &[u8]) {
    if let Ok(session) = Session::from_json(data, &home()) {
        assert_eq!(Session::from_json(&session.to_json(), &home()), Ok(session));
    }
    if let Ok(beat) = Heartbeat::from_json(data) {
        let again = Heartbeat::from_json(&beat.to_json());
        assert_eq!(again.map(|beat| beat.runner_url), Ok(beat.runner_url));
    }
    if let Ok(told) = Registered::from_json(data, false) {
        let again = Registered::from_json(&told.to_json(), false);
        assert_eq!(again.map(|told| told.runner_id), Ok(told.runner_id));
    }
    if let Ok(channels) = read_channels(data) {
        assert_eq!(read_channels(&channels_answer(&channels)), Ok(channels));
    }
    let _ = SessionNews::from_json(data);
    let _ = (is_untouched(404, data), is_session_over(404, data));
    let text = String::from_utf8_lossy(data);
    let _ = go_duration(&text);
    if let Ok(url) = app_url(&home().with_path("/apps/r/app"), &text) {
        assert!(url.is_same_origin(&home()) && url.path().starts_with("/apps/r/app/"));
        assert_eq!(Url::parse(&url.to_string()), Ok(url));
    }
}

/// A runner says what it lives by to nobody else, knows its sessions, and leaves nothing open, whatever its orchestrator
/// answers.
pub fn machine_runner(data: &[u8]) {
    crate::steps::runner::run(data);
    crate::steps::runner_session::run(data);
}
