//! The question whether a stream may begin.

use alloc::format;
use alloc::string::{String, ToString as _};

use super::figures::{Figures, Told};
use super::types::{AUTH_WITHIN, Config, Denied, Hook, Notice, Publish, Way};
use crate::exchange::{Bounds, Exchange};
use crate::http::{Body, In, Method, Request};
use crate::machine::Outbox;
use crate::sign::keccak;
use crate::time::Time;
use crate::wire::entry::{AuthAnswer, AuthQuestion, JobQuery};

/// At most this many bytes of the webhook's answer are read: parameters may have a megabyte.
const MAX_ANSWER: usize = 2 << 20;

const BOUNDS: Bounds = Bounds {
    doing: "the question whether a stream may begin",
    what: "the webhook's answer in bytes",
    limit: MAX_ANSWER,
    within: AUTH_WITHIN,
    redirects: false,
};

/// A sender that waits for the webhook.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) publish: Publish,
    pub(super) job: JobQuery,
    pub(super) request_id: String,
    pub(super) since: Time,
    pub(super) exchange: Exchange,
}

/// The verdict on a sender, and what the operator should know of it.
pub(super) type Verdict = (Result<JobQuery, Denied>, Option<Notice>);

impl Asking {
    /// Asks the webhook.
    pub(super) fn start<E>(
        out: &mut Outbox<E>,
        now: Time,
        config: &Config,
        webhook: &Hook,
        asked: (Publish, JobQuery, String),
    ) -> Self {
        let (publish, job, request_id) = asked;
        let body = question(config, &publish, &job, &request_id);
        let mut request = Request::new(Method::Post, webhook.url.clone())
            .header("content-type", "application/json")
            .body(Body::Full(body));
        for (name, value) in webhook.headers.iter() {
            request.headers.push_any(name, value);
        }
        Self {
            publish,
            job,
            request_id,
            since: now,
            exchange: Exchange::start(out, now, request, BOUNDS),
        }
    }

    /// Takes a step of the exchange. The verdict, once there is one.
    pub(super) fn step<E>(
        &mut self,
        out: &mut Outbox<E>,
        figures: &mut Figures,
        now: Time,
        step: In,
    ) -> Option<Verdict> {
        let answer = self.exchange.step(out, step)?;
        figures.told(Told::Auth, answer.as_ref().ok().map(|reply| reply.status));
        Some(match answer {
            Ok(reply) => match AuthAnswer::read(reply.status, &reply.body) {
                Ok(answer) => {
                    figures.let_in(now.since(self.since));
                    (Ok(answer.applied_to(core::mem::take(&mut self.job))), None)
                }
                Err(_) => (Err(Denied::Forbidden), None),
            },
            Err(cause) => unknown(&cause),
        })
    }

    /// The verdict, if the webhook is late.
    pub(super) fn late<E>(&mut self, out: &mut Outbox<E>, now: Time) -> Option<Verdict> {
        self.exchange.late(out, now).map(|cause| unknown(&cause))
    }
}

/// A webhook that says nothing lets nobody in, and holds it against nobody.
fn unknown(cause: &crate::Cause) -> Verdict {
    (
        Err(Denied::Failed),
        Some(Notice::NoVerdict(cause.to_string())),
    )
}

fn question(config: &Config, publish: &Publish, job: &JobQuery, request_id: &str) -> bytes::Bytes {
    let name = publish.name.as_str();
    let live = format!("{}/live/video-to-video", config.base);
    let id = if job.stream_id.is_empty() {
        name
    } else {
        &job.stream_id
    };
    AuthQuestion {
        stream: name,
        stream_key: publish.key.as_deref().unwrap_or(name),
        kind: publish.way.auth_type(),
        query_params: &publish.query,
        gateway_host: config.host(),
        whep_url: &playback(config, publish, request_id),
        status_url: &format!("{live}/{id}/status"),
        update_url: &format!("{live}/{name}/update"),
    }
    .to_json()
}

/// Where the output of a request is watched.
pub(super) fn playback(config: &Config, publish: &Publish, request_id: &str) -> String {
    let output = publish.name.output_of(request_id);
    format!("{}{output}/whep", config.playback)
}

/// Whether a sender has the key that its stream needs. The time that this takes says nothing of the key.
pub(super) fn has_key(config: &Config, publish: &Publish) -> bool {
    let keys = &config.keys;
    let wanted = keys.get(publish.name.as_str()).or_else(|| keys.get(""));
    let hash = |key: &str| keccak(&[key.as_bytes()]);
    wanted.is_none_or(|wanted| {
        let given = publish.key.as_deref().unwrap_or_default();
        hash(wanted) == hash(given)
    })
}

/// Reads what a sender wants.
pub(super) fn job(publish: &Publish) -> Result<JobQuery, Denied> {
    match &publish.way {
        Way::Hook(hook) => Ok(hook.job.clone()),
        Way::Whip | Way::Rtmp => JobQuery::read(&publish.query).map_err(|_| Denied::BadParams),
    }
}
