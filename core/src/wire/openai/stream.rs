//! Streamed answers, rebuilt chunk by chunk (front-door spec 1.5, 3.2): those of runners lack `object`, repeat the role,
//! count tokens in every chunk, and end without `[DONE]`.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use num_bigint::BigInt;
use serde_json::{Value, json};

use super::chat::{self, Asked};
use super::stops::Stops;
use crate::time::Time;
use crate::wire::batch::{Chunk, Completion, Usage, read_chunk};
use crate::wire::json::{push_number, push_text};
use crate::wire::refused::{Code, Refused};
use crate::wire::sse;

/// The stream of a client, rebuilt from that of an orchestrator.
///
/// ```text
///   chunk(payload) ──▶ Nothing | Frame ─── again
///        │                                            both: then `close`, which ends the client's stream
///        ├──▶ Last: the answer is whole; the orchestrator's stream is of no more use
///        └──▶ Failed: the runner failed            ended() and broken(why) ──▶ Last | Failed
/// ```
///
/// Nothing that comes after `Last` or `Failed` changes anything.
#[derive(Clone, Debug)]
pub struct Rebuild {
    asked: Asked,
    stops: Stops,
    /// The beginning of every frame, up to `choices`; known with the first chunk.
    head: Option<Vec<u8>>,
    request_id: String,
    begun: Time,
    usage: Option<Usage>,
    has_role: bool,
    outcome: Option<Outcome>,
}

#[derive(Clone, Debug)]
enum Outcome {
    Completed,
    Failed(Refused),
}

/// The consequence of a chunk, or of the end of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Rebuilt {
    /// Nothing for the client yet.
    Nothing,
    /// One event for the client.
    Frame(Bytes),
    /// The last event of the answer. [`Rebuild::close`] is next.
    Last(Bytes),
    /// The stream is broken: the client is told by [`Rebuild::close`].
    Failed,
}

/// Facts about a job, for the comment at the end of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The id of the request.
    pub request_id: &'a str,
    /// The orchestrator.
    pub orchestrator: &'a str,
    /// Orchestrators that were tried.
    pub attempts: u32,
    /// Units that are charged for.
    pub units: u64,
    /// Wei that are charged.
    pub cost_wei: &'a BigInt,
    /// The time from the request to the first event.
    pub first_event: Duration,
    /// The time from the request until now.
    pub total: Duration,
}

impl Rebuild {
    /// A stream that begins now. Both stand in for what the runner does not say.
    #[must_use]
    pub fn new(asked: Asked, request_id: &str, now: Time) -> Self {
        Self {
            stops: Stops::new(&asked.stop),
            asked,
            head: None,
            request_id: request_id.into(),
            begun: now,
            usage: None,
            has_role: false,
            outcome: None,
        }
    }

    /// Takes the payload of an orchestrator's event.
    pub fn chunk(&mut self, payload: &[u8]) -> Rebuilt {
        if self.outcome.is_some() {
            return Rebuilt::Nothing;
        }
        match read_chunk(payload) {
            Chunk::Part(completion) => self.part(&completion),
            // The runner's last chunk says why it ends; one that ends without saying so has ended well.
            Chunk::Done => self.last("stop"),
            Chunk::Failed(text) => self.fail(Refused::peer(Code::RunnerFailed, &text)),
            Chunk::Skipped => Rebuilt::Nothing,
        }
    }

    /// Says that the orchestrator's stream is over. Without a finished chunk or `[DONE]` before, it has broken off.
    pub fn ended(&mut self) -> Rebuilt {
        self.broken(Refused::new(
            Code::UpstreamStreamBroken,
            "The orchestrator's stream broke off before its end.",
        ))
    }

    /// Says that the stream cannot go on.
    pub fn broken(&mut self, why: Refused) -> Rebuilt {
        if self.outcome.is_some() {
            return Rebuilt::Nothing;
        }
        self.fail(why)
    }

    /// Whether the answer is over: the orchestrator's stream is of no more use.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    /// Tokens so far, if the runner counted them.
    #[must_use]
    pub const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// The end of the client's stream: the tokens if they were asked for, the facts, and `[DONE]`; or the error. A stream
    /// that is not over has broken off.
    pub fn close(&mut self, facts: &Facts<'_>) -> Bytes {
        self.ended();
        let failure = match &self.outcome {
            Some(Outcome::Failed(why)) => Some(why.event()),
            _ => None,
        };
        let mut out = Vec::new();
        if failure.is_none() && self.asked.include_usage {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(self.head(&Completion::default()));
            out.extend_from_slice(b"[],\"usage\":");
            chat::push_usage(&mut out, &self.usage.unwrap_or_default());
            out.extend_from_slice(b"}\n\n");
        }
        let outcome = if failure.is_some() {
            "failed"
        } else {
            "completed"
        };
        let comment = self.facts(facts, outcome).to_string();
        out.extend_from_slice(&sse::comment(&format!("livepeer {comment}")));
        out.extend_from_slice(&failure.unwrap_or(Bytes::from_static(b"data: [DONE]\n\n")));
        out.into()
    }

    fn facts(&self, facts: &Facts<'_>, outcome: &str) -> Value {
        json!({
            "request_id": facts.request_id,
            "orchestrator": facts.orchestrator,
            "attempts": facts.attempts,
            "units": facts.units,
            "cost_wei": facts.cost_wei.to_string(),
            "prompt_tokens": self.usage.map(|usage| usage.prompt_tokens),
            "completion_tokens": self.usage.map(|usage| usage.completion_tokens),
            "ttft_ms": millis(facts.first_event),
            "total_ms": millis(facts.total),
            "outcome": outcome,
        })
    }

    fn part(&mut self, completion: &Completion) -> Rebuilt {
        if completion.usage != Usage::default() {
            self.usage = Some(completion.usage);
        }
        let Some(choice) = completion.choices.first() else {
            return Rebuilt::Nothing;
        };
        self.head(completion);
        let passed = self.stops.pass(&choice.content);
        if passed.stopped {
            return self.finish(&passed.text, "stop");
        }
        if choice.finish_reason.is_empty() {
            // Text that is held back whole is no event.
            if passed.text.is_empty() && !choice.content.is_empty() {
                return Rebuilt::Nothing;
            }
            return Rebuilt::Frame(self.frame(&passed.text, None));
        }
        let reason = chat::finish_reason(&choice.finish_reason, &completion.usage, &self.asked);
        let text = passed.text + &self.stops.rest();
        self.finish(&text, reason)
    }

    fn last(&mut self, reason: &'static str) -> Rebuilt {
        let text = self.stops.rest();
        self.finish(&text, reason)
    }

    fn finish(&mut self, text: &str, reason: &'static str) -> Rebuilt {
        self.outcome = Some(Outcome::Completed);
        Rebuilt::Last(self.frame(text, Some(reason)))
    }

    fn fail(&mut self, why: Refused) -> Rebuilt {
        self.outcome = Some(Outcome::Failed(why));
        Rebuilt::Failed
    }

    /// The beginning of every frame, which is that of the first.
    fn head(&mut self, completion: &Completion) -> &[u8] {
        self.head.get_or_insert_with(|| {
            let mut out = Vec::from(*b"{\"id\":");
            push_text(&mut out, &chat::id(&completion.id, &self.request_id));
            out.extend_from_slice(b",\"object\":\"chat.completion.chunk\",\"created\":");
            push_number(&mut out, chat::created(completion, self.begun));
            out.extend_from_slice(b",\"model\":");
            push_text(&mut out, chat::model(&completion.model, &self.asked));
            out.extend_from_slice(b",\"choices\":");
            out
        })
    }

    fn frame(&mut self, text: &str, reason: Option<&str>) -> Bytes {
        let has_role = core::mem::replace(&mut self.has_role, true);
        let tells_usage = self.asked.include_usage;
        let head = self.head(&Completion::default());
        let mut out = Vec::with_capacity(head.len() + text.len() + 150);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(head);
        out.extend_from_slice(b"[{\"index\":0,\"delta\":{");
        if !has_role {
            out.extend_from_slice(b"\"role\":\"assistant\",");
        }
        if !has_role || !text.is_empty() {
            out.extend_from_slice(b"\"content\":");
            push_text(&mut out, text);
        }
        out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":");
        match reason {
            Some(reason) => push_text(&mut out, reason),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b"}]");
        if tells_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        out.extend_from_slice(b"}\n\n");
        out.into()
    }
}

/// Milliseconds with three places.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1_000.0
}
