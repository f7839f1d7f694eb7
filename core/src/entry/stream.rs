//! A stream, from the sender that was let in to the last word about it.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::types::{Job, SenderId, Way};
use crate::error::{Failure, Party};
use crate::http::{Reach, Url};
use crate::time::Time;
use crate::wire::entry::{GatewayStatus, JobQuery, Place, StartHook, StreamName, TraceContext};
use crate::wire::{Params, RunnerEvent};

/// A stream that has a name, and its job.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: StreamName,
    /// The way in of who began it.
    pub(super) way: Way,
    /// Where the addresses may lead that who began it names.
    pub(super) named: Reach,
    /// Where the place may be that the output is asked to go to.
    pub(super) output: Reach,
    pub(super) job: JobQuery,
    pub(super) request_id: String,
    pub(super) playback: String,
    /// The sender whose media it is; none while it waits for one.
    pub(super) sender: Option<SenderId>,
    /// The announcement of a media server that has the media, if it was ordered, and where the addresses may lead that are
    /// named there.
    pub(super) announced: Option<(Box<StartHook>, Reach)>,
    /// Whether its media are fetched at the media server that announced it.
    pub(super) pulled: bool,
    /// A sender that is answered once the first search for an orchestrator is over.
    pub(super) waiting: Option<SenderId>,
    /// When it was let in.
    pub(super) began: Time,
    /// The orchestrator at work, or the last one.
    pub(super) orchestrator: Option<Url>,
    /// Whether the job has begun.
    pub(super) runs: bool,
    /// Parameters that came before it had.
    pub(super) params: Option<Params>,
    pub(super) status: Option<RunnerEvent>,
    pub(super) gateway: GatewayStatus,
    pub(super) has_input: bool,
    pub(super) outputs: u32,
    pub(super) swaps: u32,
    /// When it ends, if no media comes before.
    pub(super) until: Option<Time>,
}

impl Stream {
    /// The name for status and events.
    pub(super) fn id(&self) -> &str {
        match &*self.job.stream_id {
            "" => self.name.as_str(),
            id => id,
        }
    }

    /// The job to start.
    pub(super) fn to_job(&self) -> Box<Job> {
        let wanted = Some(&self.job.rtmp_output).filter(|wanted| !wanted.is_empty());
        let wanted = wanted.map(|wanted| Place {
            address: wanted.clone(),
            reach: self.output,
        });
        let mut outputs: Vec<Place> = wanted.into_iter().collect();
        if let (Way::Hook(hook), Some(Place { reach, .. })) = (&self.way, self.source()) {
            let own = hook.outputs(&self.request_id);
            outputs.extend(own.map(|address| Place { address, reach }));
        }
        let container = match &self.way {
            Way::Order(order) => {
                let (all, reach) = (order.outputs.iter().cloned(), self.named);
                outputs.extend(all.map(|address| Place { address, reach }));
                Some(Box::new(order.job.clone()))
            }
            _ => None,
        };
        Box::new(Job {
            name: self.name.clone(),
            request_id: self.request_id.clone(),
            stream_id: self.id().to_string(),
            pipeline: self.job.pipeline.clone(),
            params: self.job.params.clone(),
            orchestrator: self.job.orchestrator.clone(),
            outputs,
            container,
        })
    }

    /// The announcement of a media server, and where the addresses may lead that are named there.
    fn hook(&self) -> Option<(&StartHook, Reach)> {
        match (&self.way, &self.announced) {
            (Way::Hook(hook), _) => Some((hook, self.named)),
            (_, Some((hook, named))) => Some((hook, *named)),
            _ => None,
        }
    }

    /// Whether nobody is to send for it: it was ordered so.
    pub(super) fn takes_no_video(&self) -> bool {
        match &self.way {
            Way::Order(order) => !order.takes_video(),
            _ => false,
        }
    }

    /// Where a media server that announced it has it.
    pub(super) fn source(&self) -> Option<Place> {
        let (hook, named) = self.hook()?;
        let reach = match named {
            // Nobody names it: the hook came from there.
            named if hook.rtmp_url.is_empty() && named != Reach::Open => {
                Reach::of_caller(Some(hook.source.host))
            }
            named => named,
        };
        let address = hook.input();
        Some(Place { address, reach })
    }

    /// The job as events name it.
    pub(super) fn context(&self) -> TraceContext<'_> {
        TraceContext {
            stream_id: self.id(),
            request_id: &self.request_id,
            pipeline: &self.job.pipeline,
            pipeline_id: &self.job.pipeline_id,
            orchestrator: self.orchestrator.as_ref().map(|url| (None, url)),
        }
    }

    /// Whether a newer sender goes on with the job of this one: it brings the media that a media server announced, it
    /// came back, or it replaces another publisher of RTMP; and it wants the same work.
    pub(super) fn goes_on_with(&self, way: &Way, job: &JobQuery) -> bool {
        let announced = matches!(self.way, Way::Hook(_)) && (self.sender.is_none() || self.pulled);
        let same_work = self.job.pipeline == job.pipeline
            && self.job.orchestrator == job.orchestrator
            && self.job.rtmp_output == job.rtmp_output;
        match way {
            // It is announced anew, with all that it wants.
            Way::Hook(_) | Way::Order(_) => false,
            // Its media are fetched, and go on with it then.
            Way::Source(_) => false,
            // The order has said what is to be done.
            Way::Whip | Way::Rtmp if matches!(self.way, Way::Order(_)) => !self.takes_no_video(),
            // Whatever it says, the announcement has said what is to be done.
            Way::Whip | Way::Rtmp if announced => true,
            Way::Rtmp if matches!(self.way, Way::Rtmp) => same_work,
            Way::Whip | Way::Rtmp => same_work && self.until.is_some(),
        }
    }

    /// The orchestrator at work, or the last one, as figures name it; empty if there was none.
    pub(super) fn at(&self) -> String {
        self.orchestrator
            .as_ref()
            .map_or_else(String::new, Url::origin)
    }

    /// The status as it is told.
    pub(super) fn told(&self) -> String {
        self.gateway.merged_with(self.status.as_ref())
    }
}

/// The words of a failure, without the address of any peer: anybody may read them.
#[must_use]
pub fn without_addresses(failure: &Failure) -> String {
    let cause = failure.cause.to_string();
    let (who, hidden) = match &failure.who {
        Party::Orchestrator(url) => ("the orchestrator", Some(url)),
        Party::Channel(url) => ("the trickle channel", Some(url)),
        Party::Signer(url) => ("the signer", Some(url)),
        Party::Discovery(url) => ("the discovery endpoint", Some(url)),
        Party::Chain(url) => ("the chain endpoint", Some(url)),
        Party::Signers => ("the signers", None),
        Party::KeyHolder => ("the key holder", None),
        Party::Store => ("our own store", None),
        Party::Sink => ("our own output", None),
    };
    let is_address =
        |word: &str| word.contains("://") || hidden.is_some_and(|url| word.contains(url.host()));
    let words = { cause.split(' ') }.map(|word| if is_address(word) { "…" } else { word });
    let words: Vec<&str> = words.collect();
    alloc::format!("{who}: {}", words.join(" "))
}
