//! Work that is handed to a program.
//!
//! ```text
//!                     ┌── the program is lost ──┬── the time is over ──┬── whoever asked has gone ──▶ over
//!  handed on ──▶ waiting ──▶ head ──▶ bytes ──▶ end ──▶ over
//! ```
//!
//! Jobs for containers and calls of apps differ in what they make of heads, bytes and failures: the purpose of a task
//! decides (`byoc/job.rs`, `apps/call.rs`). Bytes that whoever asked does not take stop the program. Where a program leaves
//! HTTP, bytes pass the other way too, and those that it does not take stop whoever asked.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::alarms::Alarms;
use livepeer_core::http::{Body, Fault, Headers, In, Out, Response, SWITCHING, Url};
use livepeer_core::intake::Held;
use livepeer_core::{EffectId, Time};

use super::workers::{Doer, Lost, Made, News};
use super::{Orchestrator, apps, byoc, wire};

/// A program whose peer has not taken this many bytes of its answer waits; so does a peer beyond HTTP.
const MAX_UNSENT: usize = 64 << 10;

/// How long a program may go on beyond HTTP once its peer has ended.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Blank lines at a time, and how long after the last ones, of a stream that floods.
const FLOOD: &[u8] = &[b'\n'; 1024];
const FLOOD_EVERY: Duration = Duration::from_millis(1);

/// The purpose of a task.
pub(super) enum Purpose {
    Job(Box<byoc::Job>),
    Call(Box<apps::Call>),
}

impl From<byoc::Job> for Purpose {
    fn from(job: byoc::Job) -> Self {
        Self::Job(Box::new(job))
    }
}

impl From<apps::Call> for Purpose {
    fn from(call: apps::Call) -> Self {
        Self::Call(Box::new(call))
    }
}

/// Work of a peer that a program does.
pub(super) struct Task {
    held: Option<Held>,
    pub(super) purpose: Purpose,
    source: Source,
    /// Bytes of the answer that the peer has not taken yet.
    unsent: usize,
    /// Whether the head of the answer has gone out.
    pub(super) begun: bool,
    /// Bytes of the peer, once HTTP was left.
    beyond: Option<Beyond>,
}

/// Bytes of a peer beyond HTTP.
#[derive(Default)]
struct Beyond {
    /// Bytes that the program has not taken yet.
    untaken: usize,
    /// Whether the peer is held back.
    held: bool,
}

impl Task {
    pub(super) fn job_mut(&mut self) -> Option<&mut byoc::Job> {
        match &mut self.purpose {
            Purpose::Job(job) => Some(job),
            Purpose::Call(_) => None,
        }
    }

    pub(super) fn into_job(self) -> Option<byoc::Job> {
        match self.purpose {
            Purpose::Job(job) => Some(*job),
            Purpose::Call(_) => None,
        }
    }

    pub(super) fn into_call(self) -> Option<apps::Call> {
        match self.purpose {
            Purpose::Job(_) => None,
            Purpose::Call(call) => Some(*call),
        }
    }
}

enum Source {
    At {
        exchange: EffectId,
        url: Url,
        /// Whether the head of its answer is here.
        answers: bool,
        paused: bool,
    },
    BuiltIn(Made),
    /// Blank lines for as long as there is time; whether it waits for the peer to take some.
    Flood(bool),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// A program that is built in goes on.
    Next,
    /// The work is billed.
    Bill,
    /// The time for the work is over.
    Cut,
}

/// The work that programs do.
#[derive(Default)]
pub(super) struct Works {
    /// By the exchange of whoever asked.
    tasks: BTreeMap<EffectId, Task>,
    /// The task of each exchange of ours with a program.
    asked: BTreeMap<EffectId, EffectId>,
    alarms: Alarms<(EffectId, Alarm)>,
}

impl Works {
    pub(super) fn has(&self, id: EffectId) -> bool {
        self.tasks.contains_key(&id)
    }

    pub(super) fn wake(&self) -> Option<Time> {
        self.alarms.next()
    }

    pub(super) fn get_mut(&mut self, id: EffectId) -> Option<&mut Task> {
        self.tasks.get_mut(&id)
    }

    /// Bills the work at that time, or no more.
    pub(super) fn bill(&mut self, id: EffectId, at: Option<Time>) {
        self.alarms.set((id, Alarm::Bill), at);
    }
}

impl Orchestrator {
    /// Hands the request of a peer to a program, which may take as long as `within`.
    pub(super) fn hand_on(
        &mut self,
        now: Time,
        id: EffectId,
        purpose: impl Into<Purpose>,
        doer: Doer,
        within: Duration,
    ) {
        let held = self
            .exchanges
            .remove(&id)
            .and_then(|exchange| exchange.held);
        let source = match doer {
            Doer::At(request) => {
                let url = request.url.clone();
                let exchange = self.out.request(request);
                self.works.asked.insert(exchange, id);
                let (answers, paused) = (false, false);
                Source::At {
                    exchange,
                    url,
                    answers,
                    paused,
                }
            }
            Doer::BuiltIn(made) => {
                if !made.silent {
                    let at = now + made.tempo.takes;
                    self.works.alarms.set((id, Alarm::Next), Some(at));
                }
                Source::BuiltIn(made)
            }
        };
        self.works.alarms.set((id, Alarm::Cut), Some(now + within));
        let task = Task {
            held,
            purpose: purpose.into(),
            source,
            unsent: 0,
            begun: false,
            beyond: None,
        };
        self.works.tasks.insert(id, task);
    }

    /// Does what is due. False if nothing was.
    pub(super) fn works_due(&mut self, now: Time) -> bool {
        let Some((id, alarm)) = self.works.alarms.ring(now) else {
            return false;
        };
        match (alarm, self.works.tasks.get(&id).map(|task| &task.purpose)) {
            (_, None) => {}
            (Alarm::Next, _) => self.go_on(now, id),
            (Alarm::Bill, Some(Purpose::Job(_))) => self.bill_job(now, id),
            (Alarm::Bill, Some(Purpose::Call(_))) => {}
            (Alarm::Cut, Some(Purpose::Job(_))) => self.job_over_time(now, id),
            (Alarm::Cut, Some(Purpose::Call(_))) => self.cut_call(now, id),
        }
        true
    }

    /// A program of somebody else did something.
    pub(super) fn program_step(&mut self, now: Time, exchange: EffectId, step: In) {
        let Some(&id) = self.works.asked.get(&exchange) else {
            return;
        };
        let task = self.works.tasks.get_mut(&id);
        let Some(Source::At { url, answers, .. }) = task.map(|task| &mut task.source) else {
            return;
        };
        let broken = || Fault::Broken("no answer".to_owned());
        let news = match step {
            In::Reply(head) if !std::mem::replace(answers, true) => News::Head(head),
            In::Data(bytes) if *answers => News::Data(bytes),
            In::End(_) if *answers => News::End,
            In::End(_) => News::Lost(Lost::new(url.clone(), &broken())),
            In::Failed(fault) => News::Lost(Lost::new(url.clone(), &fault)),
            In::Sent(bytes) => return self.taken(id, bytes),
            In::Reply(_) | In::Data(_) | In::Request(_) => return,
        };
        if matches!(news, News::End | News::Lost(_)) {
            self.works.asked.remove(&exchange);
            if let Some(task) = self.works.tasks.get_mut(&id) {
                task.source = Source::Over;
            }
        }
        self.program_news(now, id, news);
    }

    fn program_news(&mut self, now: Time, id: EffectId, news: News) {
        match self.works.tasks.get(&id).map(|task| &task.purpose) {
            Some(Purpose::Job(_)) => self.job_news(now, id, news),
            Some(Purpose::Call(_)) => self.call_news(now, id, news),
            None => {}
        }
    }

    /// A program that is built in goes on until it needs time, or its peer does.
    fn go_on(&mut self, now: Time, id: EffectId) {
        loop {
            let Some(task) = self.works.tasks.get_mut(&id) else {
                return;
            };
            let full = task.unsent >= MAX_UNSENT;
            let news = match &mut task.source {
                Source::Flood(waits) if full => {
                    *waits = true;
                    return self.out.http(id, Out::Report);
                }
                Source::Flood(_) => {
                    self.works
                        .alarms
                        .set((id, Alarm::Next), Some(now + FLOOD_EVERY));
                    return self.pass(id, Bytes::from_static(FLOOD));
                }
                Source::BuiltIn(made) if full => {
                    made.waits = true;
                    return self.out.http(id, Out::Report);
                }
                Source::BuiltIn(made) => {
                    if let Some(head) = made.head.take() {
                        News::Head(head)
                    } else if let Some(piece) = made.pieces.pop_front() {
                        News::Data(piece)
                    } else if let Some(again) = &made.again {
                        News::Data(again.clone())
                    } else if made.socket.as_ref().is_some_and(|s| !s.is_over()) {
                        return;
                    } else {
                        task.source = Source::Over;
                        News::End
                    }
                }
                Source::At { .. } | Source::Over => return,
            };
            let pace = match &task.source {
                Source::BuiltIn(made) if matches!(news, News::Data(_)) => match made.again {
                    // Other work goes on beside one that never ends.
                    Some(_) => made.tempo.pace.max(FLOOD_EVERY),
                    None => made.tempo.pace,
                },
                _ => Duration::ZERO,
            };
            self.program_news(now, id, news);
            if !pace.is_zero() && self.works.has(id) {
                return self.works.alarms.set((id, Alarm::Next), Some(now + pace));
            }
        }
    }

    // ---- towards whoever asked -------------------------------------------------------------------------------

    /// Begins an answer whose bytes follow.
    pub(super) fn begin_answer(&mut self, id: EffectId, mut head: Response) {
        head.body = Body::Stream;
        if let Some(task) = self.works.tasks.get_mut(&id) {
            task.begun = true;
            task.beyond = (head.status == SWITCHING).then(Beyond::default);
            self.out.http(id, Out::Reply(head));
        }
    }

    /// Passes bytes of an answer on, and stops the program if they are not taken.
    pub(super) fn pass(&mut self, id: EffectId, bytes: Bytes) {
        let Some(task) = self.works.tasks.get_mut(&id) else {
            return;
        };
        if bytes.is_empty() {
            return;
        }
        task.unsent += bytes.len();
        self.out.http(id, Out::Data(bytes));
        if task.unsent >= MAX_UNSENT
            && let Source::At {
                exchange, paused, ..
            } = &mut task.source
            && !std::mem::replace(paused, true)
        {
            self.out.http(*exchange, Out::Pause);
            self.out.http(id, Out::Report);
        }
    }

    /// Ends a task and its program. Whoever asked has its answer, or gets one now.
    pub(super) fn end_task(&mut self, id: EffectId) -> Option<Task> {
        let mut task = self.works.tasks.remove(&id)?;
        for alarm in [Alarm::Next, Alarm::Bill, Alarm::Cut] {
            self.works.alarms.set((id, alarm), None);
        }
        if let Source::At { exchange, .. } = task.source {
            self.works.asked.remove(&exchange);
            self.out.abort(exchange);
        }
        if let Some(held) = task.held.take() {
            self.intake.release(held);
        }
        Some(task)
    }

    /// Sends blank lines from now on, in place of what its program says.
    pub(super) fn flood(&mut self, now: Time, id: EffectId) {
        if let Some(task) = self.works.tasks.get_mut(&id) {
            if let Source::At { exchange, .. } = task.source {
                self.works.asked.remove(&exchange);
                self.out.abort(exchange);
            }
            task.source = Source::Flood(false);
            self.works
                .alarms
                .set((id, Alarm::Next), Some(now + FLOOD_EVERY));
        }
    }

    /// A step of whoever asked.
    pub(super) fn task_step(&mut self, now: Time, id: EffectId, step: &In) {
        let Some(task) = self.works.tasks.get_mut(&id) else {
            return;
        };
        match (step, &task.purpose) {
            (In::Failed(_), Purpose::Job(_)) => self.job_deserted(now, id),
            (In::Failed(_), Purpose::Call(_)) => self.call_deserted(now, id),
            (In::Sent(bytes), _) => {
                task.unsent = task.unsent.saturating_sub(*bytes);
                if task.unsent >= MAX_UNSENT {
                    return;
                }
                match &mut task.source {
                    Source::At {
                        exchange, paused, ..
                    } => {
                        if std::mem::take(paused) {
                            self.out.http(*exchange, Out::Resume);
                        }
                    }
                    Source::BuiltIn(Made { waits, .. }) | Source::Flood(waits) => {
                        if std::mem::take(waits) {
                            self.works.alarms.set((id, Alarm::Next), Some(now));
                        }
                        if task.beyond.is_some() {
                            self.taken(id, 0);
                        }
                    }
                    Source::Over => {}
                }
            }
            (In::Data(bytes), _) => self.hear(now, id, bytes),
            (In::End(_), _) => self.heard_all(now, id),
            _ => {}
        }
    }

    // ---- beyond HTTP -----------------------------------------------------------------------------------------

    /// Passes bytes of whoever asked to the program, and holds whoever asked back if they are not taken.
    fn hear(&mut self, now: Time, id: EffectId, bytes: &Bytes) {
        let Some(task) = self.works.tasks.get_mut(&id) else {
            return;
        };
        let Some(beyond) = &mut task.beyond else {
            return;
        };
        let full = match &mut task.source {
            Source::At { exchange, .. } => {
                beyond.untaken += bytes.len();
                let full = beyond.untaken >= MAX_UNSENT;
                self.out.http(*exchange, Out::Data(bytes.clone()));
                if full {
                    self.out.http(*exchange, Out::Report);
                }
                full
            }
            Source::BuiltIn(Made {
                socket: Some(socket),
                pieces,
                waits,
                ..
            }) => {
                pieces.push_back(socket.answer(bytes));
                if !*waits {
                    self.works.alarms.set((id, Alarm::Next), Some(now));
                }
                *waits
            }
            _ => return,
        };
        if full && !std::mem::replace(&mut beyond.held, true) {
            self.out.http(id, Out::Pause);
        }
    }

    /// The program, or the transport to it, took so many bytes.
    fn taken(&mut self, id: EffectId, bytes: usize) {
        let task = self.works.tasks.get_mut(&id);
        let Some(beyond) = task.and_then(|task| task.beyond.as_mut()) else {
            return;
        };
        beyond.untaken = beyond.untaken.saturating_sub(bytes);
        if beyond.untaken < MAX_UNSENT && std::mem::take(&mut beyond.held) {
            self.out.http(id, Out::Resume);
        }
    }

    /// Takes note that whoever asked says no more: the program may end in its turn.
    fn heard_all(&mut self, now: Time, id: EffectId) {
        let Some(task) = self.works.tasks.get_mut(&id) else {
            return;
        };
        if task.beyond.is_none() {
            return;
        }
        match &mut task.source {
            Source::At { exchange, .. } => self.out.http(*exchange, Out::End(Headers::new())),
            Source::BuiltIn(Made {
                socket: Some(socket),
                ..
            }) => {
                socket.end();
                self.works.alarms.set((id, Alarm::Next), Some(now));
            }
            _ => return,
        }
        let cut = Some(now + END_WITHIN);
        self.works.alarms.set((id, Alarm::Cut), cut);
    }

    /// Answers what can be answered still, since the orchestrator closes.
    pub(super) fn close_works(&mut self) {
        let all: Vec<EffectId> = self.works.tasks.keys().copied().collect();
        for id in all {
            if let Some(task) = self.end_task(id) {
                let last = match task.begun {
                    true => Out::Abort,
                    false => wire::text_reply(503, "gave up"),
                };
                self.out.http(id, last);
            }
        }
    }
}
