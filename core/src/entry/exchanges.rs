//! Time, and the answers of webhooks and media servers.

use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::figures::Told;
use super::stream::Stream;
use super::{BEAT_EVERY, Entry, Event, MEASURE_EVERY, Notice, StreamId, Why};
use crate::error::Cause;
use crate::exchange::{Bounds, Exchange, Reply};
use crate::http::{Body, In, Method, Request};
use crate::machine::{EffectId, earlier};
use crate::time::Time;
use crate::wire::entry::{heartbeat, read_heartbeat};

const BEAT: Bounds = Bounds {
    doing: "a heartbeat",
    what: "the heartbeat's answer in bytes",
    limit: 1 << 20,
    within: BEAT_EVERY,
    redirects: false,
};

/// The status of an answer, if there is one.
fn status(answer: &Result<Reply, Cause>) -> Option<u16> {
    answer.as_ref().ok().map(|reply| reply.status)
}

impl Entry {
    /// Takes time forward and does what is due.
    pub(super) fn advance(&mut self, now: Time) -> Time {
        self.now = self.now.max(now);
        let now = self.now;
        while let Some((_, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            let sent = self
                .streams
                .get(&id)
                .is_some_and(|one| one.sender.is_some());
            let why = if sent {
                Why::Disconnected
            } else {
                Why::NoVideo
            };
            self.end(id, why);
        }
        if self.shutdown.is_some_and(|down| down.ends <= now) {
            while let Some(id) = self.streams.keys().next().copied() {
                self.end(id, Why::Closing);
            }
        }
        let out = &mut self.out;
        let late = self.asking.iter_mut();
        let late: Vec<_> = late
            .filter_map(|(id, asking)| Some((*id, asking.late(out, now)?)))
            .collect();
        for (id, verdict) in late {
            self.figures.told(Told::Auth, None);
            self.judged(id, verdict);
        }
        let mut failed = Vec::new();
        let (out, figures) = (&mut self.out, &mut self.figures);
        self.kicks.retain_mut(|kick| match kick.late(out, now) {
            Some(cause) => {
                figures.told(Told::Kick, None);
                failed.push(Notice::NoKick(cause.to_string()));
                false
            }
            None => true,
        });
        if let Some(cause) = self.beat.as_mut().and_then(|beat| beat.late(out, now)) {
            failed.push(Notice::NoBeat(cause.to_string()));
            self.figures.told(Told::Heartbeat, None);
            self.rest();
        }
        for notice in failed {
            self.out_notice(Some(notice));
        }
        if self.next_beat.is_some_and(|at| at <= now) {
            self.next_beat = None;
            self.tell_beat();
        }
        if self.next_measure.is_some_and(|at| at <= now) {
            self.measure();
        }
        self.remembered.tick(now);
        if self.news.tick(&mut self.out, now) {
            self.figures.told(Told::Events, None);
        }
        self.tell_news();
        now
    }

    fn tell_news(&mut self) {
        let config = Arc::clone(&self.config);
        self.news
            .send(&mut self.out, self.now, config.events.as_ref());
        let lost = self.news.notice();
        self.out_notice(lost);
    }

    /// Asks how the media of all senders arrive, and again later if there are any.
    fn measure(&mut self) {
        let mut all = Vec::new();
        for (id, stream) in &self.streams {
            all.extend(stream.sender.map(|sender| (*id, sender)));
        }
        // One that is waited for has left.
        all.retain(|(_, sender)| self.senders.contains_key(sender));
        self.next_measure = (!all.is_empty()).then_some(self.now + MEASURE_EVERY);
        for (id, sender) in all {
            self.out.event(Event::Measure(id, sender));
        }
    }

    fn tell_beat(&mut self) {
        let Some(to) = &self.config.heartbeat else {
            return;
        };
        let body = heartbeat(self.streams.values().map(Stream::id));
        let mut request = Request::new(Method::Post, to.url.clone())
            .header("content-type", "application/json")
            .body(Body::Full(body));
        for (name, value) in to.headers.iter() {
            request.headers.push_any(name, value);
        }
        self.beat = Some(Exchange::start(&mut self.out, self.now, request, BEAT));
    }

    /// Waits for the next heartbeat.
    pub(super) fn rest(&mut self) {
        self.beat = None;
        let told = self.config.heartbeat.is_some();
        self.next_beat = told.then_some(self.now + BEAT_EVERY);
    }

    /// Takes the answer to a heartbeat, which may end streams.
    fn beaten(&mut self, step: In) {
        let Some(beat) = &mut self.beat else {
            return;
        };
        let Some(answer) = beat.step(&mut self.out, step) else {
            return;
        };
        self.rest();
        self.figures.told(Told::Heartbeat, status(&answer));
        match answer {
            Ok(reply) => {
                if !reply.is_success() {
                    let why = alloc::format!("it answered {}", reply.status);
                    self.out_notice(Some(Notice::NoBeat(why)));
                }
                for ended in read_heartbeat(reply.status, &reply.body) {
                    let of_id = |(_, one): &(&StreamId, &Stream)| one.id() == ended;
                    let all: Vec<_> = self
                        .streams
                        .iter()
                        .filter(of_id)
                        .map(|(id, _)| *id)
                        .collect();
                    for id in all {
                        self.end(id, Why::Terminated);
                    }
                }
            }
            Err(cause) => self.out_notice(Some(Notice::NoBeat(cause.to_string()))),
        }
    }

    fn kicked(&mut self, at: usize, step: In) {
        let Some(answer) = self.kicks[at].step(&mut self.out, step) else {
            return;
        };
        self.kicks.swap_remove(at);
        self.figures.told(Told::Kick, status(&answer));
        let why = match answer {
            // The connection may be gone already.
            Ok(reply) if reply.status < 400 || reply.status == 404 => return,
            Ok(reply) => alloc::format!("it answered {}", reply.status),
            Err(cause) => cause.to_string(),
        };
        self.out_notice(Some(Notice::NoKick(why)));
    }

    pub(super) fn heard(&mut self, id: EffectId, step: In) {
        let asked = self
            .asking
            .iter_mut()
            .find(|(_, one)| one.exchange.owns(id));
        if let Some((sender, asking)) = asked {
            let sender = *sender;
            let (out, figures) = (&mut self.out, &mut self.figures);
            if let Some(verdict) = asking.step(out, figures, self.now, step) {
                self.judged(sender, verdict);
            }
        } else if self.beat.as_ref().is_some_and(|beat| beat.owns(id)) {
            self.beaten(step);
        } else if let Some(at) = self.kicks.iter().position(|kick| kick.owns(id)) {
            self.kicked(at, step);
        } else if self.news.owns(id) {
            if let Some(answer) = self.news.step(&mut self.out, self.now, step) {
                self.figures.told(Told::Events, status(&answer));
            }
            self.tell_news();
        }
    }

    pub(super) fn wake(&self) -> Option<Time> {
        let asking = self.asking.values().filter_map(|one| one.exchange.wake());
        let kicks = self.kicks.iter().filter_map(Exchange::wake);
        let beat = self.beat.as_ref().and_then(Exchange::wake);
        let due = self.due.first().map(|(at, _)| *at);
        let shutdown = self.shutdown.filter(|_| !self.streams.is_empty());
        let others = [
            shutdown.map(|down| down.ends),
            beat,
            self.next_beat,
            self.next_measure,
            due,
            self.remembered.wake(),
            self.news.wake(),
        ];
        asking
            .chain(kicks)
            .map(Some)
            .chain(others)
            .fold(None, earlier)
    }
}
