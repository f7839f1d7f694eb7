//! Answers of orchestrators, their trickle servers and the signer: most of them good.

use std::sync::Arc;

use livepeer_core::http::{Method, Request, Response};
use livepeer_core::wire::challenge::{Challenge, REFRESH_PATH};
use livepeer_core::wire::payment::payment_result;
use serde_json::json;

use super::Player;
use crate::steps::payment_session::{GOOD, decoded, signers_answer};

impl Player {
    /// Makes an answer to a request.
    pub(super) fn made(&mut self, request: &Request, kind: u8) -> (Response, Vec<u8>) {
        let of = |(status, body)| (Response::new(status), body);
        let path = request.url.path();
        // Most answers are good: a job that ends at once shows little.
        let kind = if kind < 128 { kind % 32 } else { GOOD };
        if request.url.host() == "signer" {
            return of(signers_answer(
                self.now,
                self.ours.key(),
                &self.chain,
                request,
                kind,
            ));
        }
        match path {
            "/live-video-to-video" => of(self.started(kind % 16)),
            "/payment" => {
                let info = self.quote(&request.url, kind / 2);
                of(match kind {
                    0 => (400, b"TicketParams expired".to_vec()),
                    1 => (400, b"invalid ticket senderNonce: already seen".to_vec()),
                    2 => (403, b"expired auth token".to_vec()),
                    3 => (500, b"insufficient sender reserve".to_vec()),
                    4 => (502, Vec::new()),
                    5 => (200, b"garbage".to_vec()),
                    _ => (200, payment_result(info).to_vec()),
                })
            }
            REFRESH_PATH => {
                let orchestrator = request.url.with_path("/");
                let info = decoded(&self.quote(&orchestrator, kind / 2));
                let token = info.auth_token.as_ref();
                let demand = Challenge {
                    manifest_id: token.map_or_else(String::new, |token| token.session_id.clone()),
                    payment_url: orchestrator.child("payment"),
                    orchestrator,
                    info: Arc::unwrap_or_clone(info),
                };
                of(match kind {
                    0 => (404, b"404 page not found".to_vec()),
                    1 => (409, b"fixed price not found for session".to_vec()),
                    _ => (200, demand.to_json()),
                })
            }
            _ => trickle_answer(request, kind),
        }
    }

    /// Makes an answer to a request to start.
    fn started(&mut self, kind: u8) -> (u16, Vec<u8>) {
        let id = format!("m{}", self.quotes);
        let url = |suffix: &str| match kind {
            6 => format!("http://127.0.0.1:2375/{id}{suffix}"),
            _ => format!("/ai/trickle/{id}{suffix}"),
        };
        let mut answer = json!({
            "manifest_id": id,
            "publish_url": url(""),
            "subscribe_url": url("-out"),
            "control_url": url("-control"),
            "events_url": url("-events"),
        });
        let text = |status, text: &str| (status, text.as_bytes().to_vec());
        match kind {
            0 => return text(400, "TicketParams expired"),
            1 => return text(403, "expired auth token"),
            2 => return text(503, "insufficient capacity"),
            3 => return text(500, "OrchestratorCapped"),
            4 => return text(200, "garbage"),
            5 => answer["control_url"].take(),
            7 => return (200, vec![b' '; (64 << 10) + 1]),
            _ => json!(null),
        };
        (200, answer.to_string().into_bytes())
    }
}

/// Makes an answer of a trickle server.
fn trickle_answer(request: &Request, kind: u8) -> (Response, Vec<u8>) {
    let path = request.url.path();
    let index = path.rsplit('/').next().unwrap_or_default();
    let seq = index.parse().unwrap_or(0_u64);
    let head = |status| Response::new(status).header("lp-trickle-seq", seq.to_string());
    let closed = || Response::new(200).header("lp-trickle-closed", "terminated");
    if request.method != Method::Get {
        return match kind {
            0 => (closed(), Vec::new()),
            1 => (Response::new(404), b"stream not found".to_vec()),
            2 => (Response::new(500), b"no".to_vec()),
            _ => (head(200), Vec::new()),
        };
    }
    if index == "next" {
        let latest = Response::new(200).header("lp-trickle-latest", "0");
        return (latest, b"0".to_vec());
    }
    let event = match kind {
        0 => return (closed(), Vec::new()),
        1 => return (Response::new(404), b"stream not found".to_vec()),
        2 => {
            let late = Response::new(470).header("lp-trickle-latest", (seq + 3).to_string());
            return (late, Vec::new());
        }
        3 => "nonsense",
        4 => r#"{"type":"error","message":"out of memory"}"#,
        5..=8 => r#"{"type":"status","state":"LOADING"}"#,
        9 | 10 => r#"{"type":"heartbeat"}"#,
        _ => r#"{"type":"status","state":"ONLINE"}"#,
    };
    (head(200), event.as_bytes().to_vec())
}
