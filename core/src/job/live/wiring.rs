//! Wiring of a job's machines, for whoever drives them: which event goes where, and the readers of the output.

use alloc::vec::Vec;

use super::media::{self, Media};
use super::{Event, LiveVideoJob};
use crate::http::Url;
use crate::pipeline::Pipeline;
use crate::pool::{self, Candidate, Outcome, Selector, SessionPool, among};
use crate::prefer::{Limits, Preferences};
use crate::selection::{Preferring, Size};
use crate::time::Time;
use crate::trickle::{Seq, Start, Subscriber, subscriber};

/// A live job has no size that a price for all of it could be compared with.
const SIZE: Size = Size {
    units: 0,
    unit: Pipeline::LiveVideoToVideo.work_unit(),
    pictures: 0,
};

/// Access to the machines of a job, wherever they are, and what goes from one to the other.
pub trait Wires {
    /// The way in which the pool chooses.
    type Choice: Selector;

    /// Does something with the job.
    fn with_job<T>(&mut self, act: impl FnOnce(&mut LiveVideoJob, Time) -> T) -> T;

    /// Does something with its media.
    fn with_media<T>(&mut self, act: impl FnOnce(&mut Media, Time) -> T) -> T;

    /// Does something with the pool that it gets its orchestrators from.
    fn with_pool<T>(&mut self, act: impl FnOnce(&mut SessionPool<Self::Choice>, Time) -> T) -> T;

    /// Takes an event of the job to where it matters. Returns it if the application may want to know of it.
    fn on_job(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::NeedLease => self.lend(),
            Event::Release(lease, outcome) => {
                self.with_pool(|pool, now| pool.give_back(now, lease, outcome));
            }
            Event::Standby(session, channels) => {
                self.with_media(|media, now| media.stand_by(now, session, &channels));
            }
            Event::Left(session) => self.with_media(|media, now| media.leave(now, session)),
            event => {
                self.with_media(|media, now| match &event {
                    Event::Started(started) => {
                        media.go_to(now, started.session, &started.channels);
                    }
                    Event::Runner(event) => media.runner_said(now, event),
                    // Nobody is left to write to.
                    Event::Ended(_) => media.end(now),
                    _ => {}
                });
                return Some(event);
            }
        }
        None
    }

    /// Takes an event of the pool to the job.
    fn on_pool(&mut self, event: pool::Event) {
        let tried = match event {
            pool::Event::Available(_) => return self.lend(),
            pool::Event::Exhausted(tried) => tried,
            pool::Event::NoIdentity(_) => Vec::new(),
            _ => return,
        };
        // Only a job that waits is told; otherwise the call is refused and nothing happens.
        let _ = self.with_job(|job, now| job.no_lease(now, tried));
    }

    /// Takes news of the media to the job.
    fn on_media(&mut self, news: media::News) {
        let delivered = matches!(news.event, media::Event::Delivered);
        self.with_job(|job, now| job.on_media(now, news));
        if delivered {
            self.with_media(Media::close_channel);
        }
    }

    /// Lends the job a session, if it waits for one and there is one.
    fn lend(&mut self) {
        let wish = self.with_job(|job, _| {
            let wish = || (job.orchestrators(), job.limits().to_vec());
            job.needs_lease().then(wish)
        });
        let take = |(has, limits): (Vec<Url>, Vec<Limits>)| {
            self.with_pool(|pool, now| {
                pool.take_by(now, |selector, rng, from| {
                    let mut within = Preferring {
                        policies: &limits.iter().collect::<Vec<_>>(),
                        preferences: &Preferences::default(),
                        size: SIZE,
                        inner: selector,
                    };
                    let another = |one: &Candidate<'_>| !has.contains(one.url);
                    among(from, another, |from| within.select(rng, from))
                })
            })
        };
        if let Some(lease) = wish.and_then(take)
            && let Err(lease) = self.with_job(|job, now| job.assign(now, lease))
        {
            self.with_pool(|pool, now| pool.give_back(now, lease, Outcome::Unused));
        }
    }
}

/// The readers of a job's output: one for each of [`Media::outputs`], of a type of the driver's.
#[derive(Debug)]
pub struct Readers<S>(Vec<(u32, S)>);

impl<S> Default for Readers<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S> Readers<S> {
    /// Whether there is a reader for each channel of output, and none more.
    #[must_use]
    pub fn fit(&self, media: &Media) -> bool {
        let sessions = self.0.iter().map(|(session, _)| *session);
        sessions.eq(media.outputs().map(|(session, _)| session))
    }

    /// Has these channels read, each from its first segment on: it is new, and nothing of it may be missed. Returns the
    /// readers that are not needed any more.
    pub fn follow(
        &mut self,
        now: Time,
        config: &subscriber::Config,
        outputs: Vec<(u32, Url)>,
        mut drive: impl FnMut(Subscriber) -> S,
    ) -> Vec<(u32, S)> {
        let mut before = core::mem::take(&mut self.0);
        for (session, channel) in outputs {
            let at = before.iter().position(|(other, _)| *other == session);
            self.0.push(match at {
                Some(at) => before.remove(at),
                None => {
                    let start = Start::At(Seq::ZERO);
                    let subscriber = Subscriber::new(now, config.clone(), channel, start);
                    (session, drive(subscriber))
                }
            });
        }
        before
    }

    /// The readers, each with the session that [`Media::output`] wants to know. That of whoever works comes first.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &S)> {
        self.0.iter().map(|(session, reader)| (*session, reader))
    }
}
