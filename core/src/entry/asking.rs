//! The question whether a stream may begin.

use alloc::format;
use alloc::string::{String, ToString as _};

use super::figures::{Figures, Told};
use super::types::{AUTH_WITHIN, Config, Denied, Hook, Notice, Publish, Way};
use crate::exchange::{Bounds, Exchange};
use crate::http::{Body, In, Method, Reach, Request};
use crate::machine::Outbox;
use crate::sign::keccak;
use crate::time::Time;
use crate::wire::entry::{AuthAnswer, AuthQuestion, JobQuery, Place};

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
    /// Where the addresses may lead that the webhook names.
    named: Reach,
    pub(super) since: Time,
    pub(super) exchange: Exchange,
}

/// The verdict on a sender, with where its output may go, and what the operator should know of it.
pub(super) type Verdict = (Result<(JobQuery, Reach), Denied>, Option<Notice>);

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
            named: Reach::lent(&webhook.url),
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
                    (self.applied(answer), None)
                }
                Err(_) => (Err(Denied::Forbidden), None),
            },
            Err(cause) => unknown(&cause),
        })
    }

    /// The job as the webhook wants it.
    fn applied(&mut self, answer: AuthAnswer) -> Result<(JobQuery, Reach), Denied> {
        let asked = core::mem::take(&mut self.job);
        let output = asked.rtmp_output.clone();
        let job = answer.applied_to(asked);
        if job.rtmp_output == output {
            return Ok((job, self.publish.named));
        }
        check("rtmp_output_url", &job.rtmp_output, self.named)?;
        Ok((job, self.named))
    }

    /// The verdict, if the webhook is late.
    pub(super) fn late<E>(&mut self, out: &mut Outbox<E>, now: Time) -> Option<Verdict> {
        self.exchange.late(out, now).map(|cause| unknown(&cause))
    }
}

/// Whether an address may be named, as far as its text shows.
pub(super) fn check(field: &str, address: &str, reach: Reach) -> Result<(), Denied> {
    let place = Place {
        address: address.to_string(),
        reach,
    };
    let checked = place.check();
    checked.map_err(|why| Denied::Place(format!("{field}: {why}")))
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
        Way::Order(order) => Ok(JobQuery {
            pipeline: order.job.capability.clone(),
            params: order.params.clone(),
            ..JobQuery::default()
        }),
        // The order has said what is to be done.
        Way::Source(_) => Ok(JobQuery::default()),
        Way::Whip | Way::Rtmp => JobQuery::read(&publish.query).map_err(|_| Denied::BadParams),
    }
}
