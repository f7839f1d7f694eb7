//! A segment on its way to the server, replayable until it is answered.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use core::time::Duration;

use bytes::Bytes;

use super::compare::{Fingerprint, View};
use super::recovery::{Finding, Recovery};
use super::{Policy, Shared};
use crate::error::{Cause, Reason};
use crate::http::{Body, Fault, Headers, In, Method, Out};
use crate::machine::{EffectId, earlier};
use crate::time::Time;
use crate::trickle::{PAUSE, PAUSE_MAX, Seq, headers};

/// The first pause before a begun segment's connection is tried once more.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The longest of these pauses.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often in a row a segment is continued without the server ever holding more of it.
const MAX_STUCK: u32 = 5;

/// The outcome of a segment.
#[derive(Debug)]
pub(super) enum Verdict {
    Delivered,
    /// Given up: what the server may hold of it has to be closed for its readers' sake.
    Lost(Cause),
    /// Another publisher closed the segment: our numbering is stale (trickle spec 6.2-5).
    Stale,
    /// The channel is over.
    Gone,
    /// No further attempt will ever work.
    Fatal(Cause),
}

#[derive(Debug)]
struct Post {
    id: EffectId,
    /// Where its body stands: handed to the driver, and to the transport.
    fed: u64,
    sent: u64,
    /// The offset its body began at.
    base: u64,
    finished: bool,
}

#[derive(Debug)]
enum Phase {
    /// The request is out, or about to be.
    Posting,
    /// Nothing of the body is out; the request is opened again then.
    Pausing(Time),
    /// Some of the body went out before the connection broke.
    Recovering(Recovery),
}

#[derive(Debug)]
pub(super) struct Upload {
    pub(super) seq: Seq,
    /// The owner took it; before, it is only a warm request.
    pub(super) begun: bool,
    pub(super) ended: bool,
    /// Whether the segment has no owner and is empty, sent so that readers and server hear of the channel.
    pub(super) keep_alive: bool,
    /// A POST has left for this seq, so the server may hold the segment.
    pub(super) opened: bool,
    /// Whether its POST begins the publisher's run.
    reset: bool,
    /// Whether a POST that said that the segment has no bytes has left: the server may have closed it and be one
    /// further.
    emptied: bool,
    kept: VecDeque<Bytes>,
    /// The next of `kept` that the current POST has not been given.
    next: usize,
    /// The number of bytes of that chunk that the server has already, after a recovery.
    skip: usize,
    kept_len: u64,
    /// Bytes before `kept`, and their fingerprint.
    trimmed: u64,
    fingerprint: Fingerprint,
    total: u64,
    /// The furthest offset ever handed to a driver.
    reached: u64,
    post: Option<Post>,
    phase: Phase,
    /// Reads along after a recovery, to see that the server's bytes stay ours.
    witness: Option<Recovery>,
    /// The most that the server was found to hold, and how many recoveries ago.
    held: u64,
    stuck: u32,
    /// When something last moved.
    progress: Time,
    trouble: Option<Time>,
    pause: Duration,
}

impl Upload {
    pub(super) fn new(now: Time, seq: Seq, reset: bool) -> Self {
        Self {
            seq,
            begun: false,
            ended: false,
            keep_alive: false,
            opened: false,
            reset,
            emptied: false,
            kept: VecDeque::new(),
            next: 0,
            skip: 0,
            kept_len: 0,
            trimmed: 0,
            fingerprint: Fingerprint::default(),
            total: 0,
            reached: 0,
            post: None,
            phase: Phase::Posting,
            witness: None,
            held: 0,
            stuck: 0,
            progress: now,
            trouble: None,
            pause: PAUSE,
        }
    }

    /// Whether the owner wrote anything.
    pub(super) const fn has_bytes(&self) -> bool {
        self.total > 0
    }

    /// Bytes handed to the transport of the connection that is open, with those that the server holds of others.
    pub(super) fn sent(&self) -> u64 {
        match (&self.phase, &self.post) {
            (Phase::Posting, Some(post)) => post.sent,
            _ => 0,
        }
    }

    /// Bytes taken from the owner and not yet handed to a transport.
    pub(super) fn unsent(&self) -> u64 {
        self.total - self.sent().max(self.trimmed)
    }

    /// Whether later segments have to hold back their bytes.
    ///
    /// Connections overtake each other, and what arrives late is lost to whoever reads in order: a later first byte
    /// moves the head past a segment that nobody has seen yet (470, trickle spec 7.3). So if nothing may be lost, the
    /// next one waits for this one's answer, which servers give at once: it costs one round trip a segment.
    ///
    /// In any case while this one is in recovery, because a later first byte would end a server's patience with it
    /// (D6), and while it begins a run and is unanswered: a reset that arrives after a later first byte makes the
    /// server forget that one (D5).
    pub(super) fn holds_back(&self, policy: Policy) -> bool {
        self.begun && (policy == Policy::Block || self.reset || self.is_recovering())
    }

    const fn is_recovering(&self) -> bool {
        matches!(self.phase, Phase::Recovering(_))
    }

    /// Sends the head of the POST.
    pub(super) fn open(&mut self, now: Time, shared: &mut Shared) {
        self.phase = Phase::Posting;
        let mut request = shared.request(Method::Post, self.seq).body(Body::Stream);
        if !shared.config.content.as_str().is_empty() {
            request = request.header(headers::CONTENT_TYPE, shared.config.content.as_str());
        }
        // Only before any byte, and before its end: on a segment that the server has had it would mean another restart,
        // and the server would forget the later ones that are open (trickle spec 5.8, D5).
        if self.reset && self.reached == 0 && !self.emptied {
            request = request.header(headers::RESET, "1");
        }
        self.opened = true;
        (self.next, self.skip) = (0, 0);
        self.post = Some(Post {
            id: shared.out.request(request),
            fed: 0,
            sent: 0,
            base: 0,
            finished: false,
        });
        self.progress = now;
    }

    pub(super) fn begin(&mut self, now: Time, shared: &mut Shared) {
        self.begun = true;
        self.progress = now;
        self.pause = RETRY_PAUSE;
        if self.post.is_none() && !self.is_recovering() {
            self.trouble = None;
            self.open(now, shared);
        }
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        self.total += bytes.len() as u64;
        self.kept_len += bytes.len() as u64;
        self.kept.push_back(bytes);
    }

    /// Hands on what there is.
    pub(super) fn feed(&mut self, now: Time, shared: &mut Shared) {
        if !matches!(self.phase, Phase::Posting) || !self.begun {
            return;
        }
        let Some(post) = &mut self.post else {
            return;
        };
        if post.finished {
            return;
        }
        if post.fed == post.sent && post.fed < self.total {
            self.progress = now;
        }
        while post.fed < self.total {
            let Some(chunk) = self.kept.get(self.next) else {
                break;
            };
            let bytes = chunk.slice(core::mem::take(&mut self.skip)..);
            post.fed += bytes.len() as u64;
            self.next += 1;
            shared.out.http(post.id, Out::Data(bytes));
        }
        self.reached = self.reached.max(post.fed);
        if self.ended && post.fed == self.total {
            post.finished = true;
            self.progress = now;
            shared.out.http(post.id, Out::End(Headers::new()));
        }
    }

    /// Lets go of what is too much to keep; it stays known by its fingerprint.
    fn trim(&mut self, limit: usize) {
        let Some(post) = &self.post else {
            return;
        };
        while self.next > 0
            && let Some(first) = self.kept.front()
        {
            let len = first.len() as u64;
            if self.kept_len - len < limit as u64 || self.trimmed + len > post.sent {
                return;
            }
            self.fingerprint.add(first);
            self.trimmed += len;
            self.kept_len -= len;
            self.next -= 1;
            self.kept.pop_front();
        }
    }

    pub(super) fn owns(&self, id: EffectId) -> bool {
        self.post.as_ref().is_some_and(|post| post.id == id)
            || self.recovery().is_some_and(|recovery| recovery.owns(id))
    }

    fn recovery(&self) -> Option<&Recovery> {
        match &self.phase {
            Phase::Recovering(recovery) => Some(recovery),
            _ => self.witness.as_ref(),
        }
    }

    pub(super) fn handle(
        &mut self,
        now: Time,
        id: EffectId,
        step: In,
        shared: &mut Shared,
    ) -> Option<Verdict> {
        if let In::Failed(fault) = &step
            && fault.is_final()
        {
            let fault = fault.clone();
            return Some(Verdict::Fatal(Cause::Link(fault)));
        }
        if self.post.as_ref().is_some_and(|post| post.id == id) {
            return self.handle_post(now, step, shared);
        }
        let view = View {
            kept: &self.kept,
            trimmed: self.trimmed,
            fingerprint: self.fingerprint,
            reached: self.reached,
            complete: self.ended && self.reached == self.total,
            seq: self.seq,
        };
        if let Phase::Recovering(recovery) = &mut self.phase {
            let finding = recovery.handle(now, id, step, &view, shared);
            return self.conclude(now, finding, shared);
        }
        if let Some(witness) = &mut self.witness {
            match witness.handle(now, id, step, &view, shared) {
                Finding::Differs(why) => return Some(Verdict::Lost(differs(why))),
                Finding::Unknown => {}
                // Whatever else it saw, the answer to the POST says more.
                _ => self.dismiss(shared),
            }
        }
        None
    }

    fn handle_post(&mut self, now: Time, step: In, shared: &mut Shared) -> Option<Verdict> {
        match step {
            In::Sent(count) => {
                if let Some(post) = &mut self.post {
                    post.sent = post.fed.min(post.sent + count as u64);
                    self.progress = now;
                    self.trouble = None;
                    self.trim(shared.config.replay_bytes);
                }
                None
            }
            In::Reply(reply) => {
                let post = self.post.take()?;
                if post.finished {
                    shared.let_end(now, post.id);
                } else {
                    shared.out.abort(post.id);
                }
                if headers::closed(&reply.headers) || reply.status == 404 {
                    return Some(Verdict::Gone);
                }
                let named = headers::seq(&reply.headers);
                match reply.status {
                    200 if self.is_recovering() => None,
                    // What a server says to a POST that brought nothing, or nothing that was wanted
                    // (trickle spec 5.4-4). Some say it always, so it is looked up.
                    200 if post.finished && post.fed > post.base && closes(&reply.headers) => {
                        self.break_off(now, &post, None, shared)
                    }
                    200 if post.finished && named.is_none_or(|seq| seq == self.seq) => {
                        Some(Verdict::Delivered)
                    }
                    200 => Some(Verdict::Stale),
                    status if status >= 500 => self.break_off(now, &post, None, shared),
                    _ if !self.begun => {
                        self.rest(now);
                        None
                    }
                    status => Some(Verdict::Lost(Cause::Refused {
                        doing: "a segment",
                        status,
                        reason: Reason::Other,
                        text: String::new(),
                    })),
                }
            }
            In::Failed(fault) => {
                let post = self.post.take()?;
                self.break_off(now, &post, Some(fault), shared)
            }
            In::Data(_) | In::End(_) | In::Request(_) => None,
        }
    }

    /// The connection is gone. Without a byte out the request is simply made again (trickle spec 6.2-7).
    fn break_off(
        &mut self,
        now: Time,
        post: &Post,
        fault: Option<Fault>,
        shared: &mut Shared,
    ) -> Option<Verdict> {
        let never_left =
            fault.as_ref().is_some_and(Fault::is_before_request) && post.sent == post.base;
        if self.is_recovering() {
            return None;
        }
        if self.begun {
            let since = *self.trouble.get_or_insert(now);
            if now.since(since) >= shared.config.recover_within {
                return Some(Verdict::Lost(fault.map_or(
                    Cause::TimedOut {
                        doing: "a segment",
                        after: shared.config.recover_within,
                    },
                    Cause::Link,
                )));
            }
        }
        if never_left && post.base == 0 && self.witness.is_none() {
            // What was handed to the driver cannot have reached anybody.
            self.reached = 0;
        }
        if self.reached == 0 {
            self.emptied |= post.finished && !never_left;
            self.rest(now);
            return None;
        }
        self.stuck += 1;
        if self.stuck > MAX_STUCK {
            return Some(Verdict::Lost(Cause::GaveUp {
                what: "continuing a segment",
                times: MAX_STUCK,
                last: fault.map_or_else(|| "no answer".to_string(), |fault| fault.to_string()),
            }));
        }
        self.recover(now, shared);
        None
    }

    /// Opens the request a little later.
    pub(super) fn rest(&mut self, now: Time) {
        self.phase = Phase::Pausing(now + self.pause);
        let most = if self.begun {
            RETRY_PAUSE_MAX
        } else {
            PAUSE_MAX
        };
        self.pause = (self.pause * 2).min(most);
    }

    /// Asks the server what it holds. A second POST opens at once: while it waits for its first byte, the server
    /// does not count the segment as orphaned (D6).
    fn recover(&mut self, now: Time, shared: &mut Shared) {
        self.dismiss(shared);
        self.open(now, shared);
        self.phase = Phase::Recovering(Recovery::new(now, self.seq, shared));
    }

    fn dismiss(&mut self, shared: &mut Shared) {
        if let Some(mut witness) = self.witness.take() {
            witness.abort(shared);
        }
    }

    fn conclude(&mut self, now: Time, finding: Finding, shared: &mut Shared) -> Option<Verdict> {
        match finding {
            Finding::Unknown => None,
            Finding::Gone => Some(Verdict::Gone),
            Finding::Differs(why) => Some(Verdict::Lost(differs(why))),
            Finding::Closed(held) if self.ended && held == self.total => Some(Verdict::Delivered),
            Finding::Closed(_) => Some(Verdict::Stale),
            Finding::Evicted => Some(Verdict::Stale),
            Finding::Open(held) => {
                if held < self.trimmed {
                    return Some(Verdict::Lost(Cause::TooMuch {
                        what: "what the server lacks of the segment",
                        limit: shared.config.replay_bytes,
                    }));
                }
                let Phase::Recovering(recovery) =
                    core::mem::replace(&mut self.phase, Phase::Posting)
                else {
                    return None;
                };
                self.witness = Some(recovery);
                if self.post.is_none() {
                    self.open(now, shared);
                }
                if let Some(post) = &mut self.post {
                    (post.base, post.fed, post.sent) = (held, held, held);
                }
                (self.next, self.skip) = (0, 0);
                let mut at = self.trimmed;
                while let Some(chunk) = self.kept.get(self.next)
                    && at + chunk.len() as u64 <= held
                {
                    at += chunk.len() as u64;
                    self.next += 1;
                }
                self.skip = (held - at) as usize;
                self.progress = now;
                if held > self.held {
                    self.held = held;
                    self.stuck = 0;
                }
                shared.resumed(self.seq, held);
                None
            }
        }
    }

    pub(super) fn tick(&mut self, now: Time, shared: &mut Shared) -> Option<Verdict> {
        if let Some(since) = self.trouble
            && self.begun
            && now.since(since) >= shared.config.recover_within
        {
            return Some(Verdict::Lost(Cause::TimedOut {
                doing: "a segment",
                after: shared.config.recover_within,
            }));
        }
        if let Some(witness) = &mut self.witness {
            witness.read_along(now, shared);
        }
        match &mut self.phase {
            Phase::Pausing(until) if *until <= now => {
                self.open(now, shared);
                None
            }
            Phase::Pausing(_) => None,
            Phase::Recovering(recovery) => {
                let finding = recovery.tick(now, shared);
                self.conclude(now, finding, shared)
            }
            Phase::Posting => {
                if self.deadline(shared).is_some_and(|due| due <= now) {
                    let post = self.post.take()?;
                    shared.out.abort(post.id);
                    return self.break_off(now, &post, None, shared);
                }
                None
            }
        }
    }

    /// When silence on the POST means that its connection is dead.
    fn deadline(&self, shared: &Shared) -> Option<Time> {
        let post = self.post.as_ref()?;
        if !self.begun {
            return None;
        }
        if post.fed > post.sent {
            Some(self.progress + shared.config.stall_within)
        } else if post.finished {
            Some(self.progress + shared.config.answer_within)
        } else {
            None
        }
    }

    pub(super) fn wake(&self, shared: &Shared) -> Option<Time> {
        let own = match &self.phase {
            Phase::Pausing(until) => Some(*until),
            Phase::Recovering(recovery) => recovery.wake(),
            Phase::Posting => self.deadline(shared),
        };
        let trouble = self
            .trouble
            .filter(|_| self.begun)
            .map(|since| since + shared.config.recover_within);
        let witness = self.witness.as_ref();
        let anew = witness.and_then(|witness| witness.asks_anew(shared));
        earlier(earlier(own, trouble), anew)
    }

    pub(super) fn abort(&mut self, shared: &mut Shared) {
        if let Some(post) = self.post.take() {
            shared.out.abort(post.id);
        }
        if let Phase::Recovering(recovery) = &mut self.phase {
            recovery.abort(shared);
        }
        self.dismiss(shared);
    }
}

fn closes(headers: &Headers) -> bool {
    headers
        .get(headers::CONNECTION)
        .is_some_and(|value| value.eq_ignore_ascii_case("close"))
}

fn differs(why: &'static str) -> Cause {
    Cause::Nonsense {
        what: "what it holds of a segment",
        why: why.into(),
    }
}
