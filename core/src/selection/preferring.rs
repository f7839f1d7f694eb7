//! Choosing within preferences: those of a gateway, then those of one request (front-door spec 2).

use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::money::Amount;
use crate::pipeline::{Pipeline, WorkUnit};
use crate::pool::{Candidate, Selector};
use crate::prefer::{Limits, MaxPrice, Named, Preferences, Sort};
use crate::rng::Rng;
use crate::wire::batch::BatchRequest;

/// The size of a job, which limits on its price are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Units of work.
    pub units: u64,
    /// The unit.
    pub unit: WorkUnit,
    /// Pictures that the units are for; zero if the job makes none.
    pub pictures: u64,
}

/// Why nobody is left to do a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nobody {
    /// The gateway's own limits leave nobody, or there is nobody at all. The caller is told of neither.
    AtAll,
    /// The request's limits leave nobody of those that there are: how many each of them excludes. Empty if nobody of its
    /// `order` is there and it wants nobody else.
    Fits(Vec<(&'static str, usize)>),
}

/// A policy within preferences: limits narrow what it chooses from, and an order goes before its choice.
///
/// The pool's own policy draws, and does so for one choice at a time as for a whole order.
#[derive(Debug)]
pub struct Preferring<'a, S> {
    /// The limits of the gateway, and of whoever else has a say. All hold.
    pub policies: &'a [&'a Limits],
    /// The preferences of the request. They never widen those limits.
    pub preferences: &'a Preferences,
    /// The size of the job.
    pub size: Size,
    /// The policy that decides where nothing is said.
    pub inner: &'a mut S,
}

impl<S: Selector> Preferring<'_, S> {
    /// The candidates in the order in which they are to be tried.
    ///
    /// # Errors
    /// If nobody is left.
    pub fn rank(&mut self, rng: &mut Rng, from: &[Candidate<'_>]) -> Result<Vec<usize>, Nobody> {
        let left = self.left(from)?;
        if self.preferences.is_single_try() && self.preferences.sort.is_none() {
            let one = self.draw(rng, from, &left).ok_or(Nobody::AtAll)?;
            return Ok(Vec::from([one]));
        }
        let mut rest = left;
        let mut ranked = Vec::new();
        for named in &self.preferences.order {
            let first = rest.iter().position(|at| is(named, &from[*at]));
            ranked.extend(first.map(|first| rest.remove(first)));
        }
        if self.preferences.allow_fallbacks || self.preferences.order.is_empty() {
            ranked.extend(self.rank_rest(rng, from, rest));
        }
        if self.preferences.is_single_try() {
            ranked.truncate(1);
        }
        if ranked.is_empty() {
            return Err(if self.preferences.allow_fallbacks {
                Nobody::AtAll
            } else {
                Nobody::Fits(Vec::new())
            });
        }
        Ok(ranked)
    }

    /// The first in that order. Nothing but the one draw is done if the request wants no order.
    ///
    /// # Errors
    /// If nobody is left.
    pub fn first(&mut self, rng: &mut Rng, from: &[Candidate<'_>]) -> Result<usize, Nobody> {
        if self.preferences.order.is_empty() && self.preferences.sort.is_none() {
            let left = self.left(from)?;
            return self.draw(rng, from, &left).ok_or(Nobody::AtAll);
        }
        let ranked = self.rank(rng, from)?;
        ranked.first().copied().ok_or(Nobody::AtAll)
    }

    /// Candidates that neither the gateway nor the request excludes.
    fn left(&self, from: &[Candidate<'_>]) -> Result<Vec<usize>, Nobody> {
        let mut left: Vec<usize> = (0..from.len()).collect();
        for limits in self.policies {
            left.retain(|at| self.excluded(limits, &from[*at]).is_none());
        }
        if left.is_empty() {
            return Err(Nobody::AtAll);
        }
        let limits = &self.preferences.limits;
        let mut excluded: Vec<(&'static str, usize)> = Vec::new();
        left.retain(|at| {
            let why = self.excluded(limits, &from[*at]);
            if let Some(key) = why {
                match excluded.iter_mut().find(|(known, _)| *known == key) {
                    Some((_, count)) => *count += 1,
                    None => excluded.push((key, 1)),
                }
            }
            why.is_none()
        });
        if left.is_empty() {
            excluded.sort_by_key(|(key, _)| KEYS.iter().position(|known| known == key));
            return Err(Nobody::Fits(excluded));
        }
        Ok(left)
    }

    /// The first limit that excludes a candidate.
    fn excluded(&self, limits: &Limits, candidate: &Candidate<'_>) -> Option<&'static str> {
        let [only, ignore, max_price, require_warm] = KEYS;
        let named = |list: &[Named]| list.iter().any(|named| is(named, candidate));
        if limits.only.as_deref().is_some_and(|list| !named(list)) {
            return Some(only);
        }
        if named(&limits.ignore) {
            return Some(ignore);
        }
        let price = price(candidate);
        if !self.size.is_within(&limits.max_price, &price) {
            return Some(max_price);
        }
        (limits.require_warm && !candidate.warm).then_some(require_warm)
    }

    /// The order of those that nobody named: drawn, then sorted if an order is wanted, so that ties stay as drawn.
    fn rank_rest(
        &mut self,
        rng: &mut Rng,
        from: &[Candidate<'_>],
        mut rest: Vec<usize>,
    ) -> Vec<usize> {
        let mut drawn = Vec::with_capacity(rest.len());
        while let Some(at) = self.draw(rng, from, &rest) {
            rest.retain(|left| *left != at);
            drawn.push(at);
        }
        match self.preferences.sort {
            None => {}
            // A candidate without a price takes none.
            Some(Sort::Price) => drawn.sort_by_cached_key(|at| price(&from[*at])),
            Some(Sort::Latency) => drawn.sort_by_key(|at| {
                let seen = from[*at].record.first_byte;
                (seen.is_none(), seen)
            }),
            Some(Sort::Throughput) => drawn.sort_by_key(|at| {
                let seen = from[*at].speed;
                (seen.is_none(), Reverse(seen))
            }),
        }
        drawn
    }

    /// Draws once by the inner policy, among some of the candidates.
    fn draw(&mut self, rng: &mut Rng, from: &[Candidate<'_>], left: &[usize]) -> Option<usize> {
        if left.len() == from.len() {
            return self.inner.select(rng, from);
        }
        let some: Vec<Candidate<'_>> = left.iter().map(|at| from[*at].clone()).collect();
        let at = self.inner.select(rng, &some)?;
        left.get(at).copied()
    }
}

/// The limits by which candidates are excluded, in the order in which they are looked at.
const KEYS: [&str; 4] = ["only", "ignore", "max_price", "require_warm"];

impl<S: Selector> Selector for Preferring<'_, S> {
    fn select(&mut self, rng: &mut Rng, from: &[Candidate<'_>]) -> Option<usize> {
        self.first(rng, from).ok()
    }
}

impl Size {
    /// The size of a request; `None` as long as its file is to be measured.
    #[must_use]
    pub fn of(request: &BatchRequest) -> Option<Self> {
        let pipeline = request.pipeline();
        let pictures = match pipeline {
            Pipeline::TextToImage | Pipeline::ImageToImage => {
                let count = request.integer("num_images_per_prompt").unwrap_or(1);
                u64::try_from(count).unwrap_or(1).max(1)
            }
            Pipeline::Upscale => 1,
            _ => 0,
        };
        Some(Self {
            units: request.units()?,
            unit: pipeline.work_unit(),
            pictures,
        })
    }

    /// Whether a price per unit is within a limit; equal is within.
    fn is_within(&self, limit: &MaxPrice, price: &Amount) -> bool {
        let whole = price.times(self.units);
        let within = |limit: &Option<Amount>, count| {
            limit
                .as_ref()
                .is_none_or(|limit| whole <= limit.times(count))
        };
        limit.unit.as_ref().is_none_or(|limit| price <= limit)
            && within(&limit.request, 1)
            && (self.unit != WorkUnit::Token || within(&limit.token, self.units))
            && (self.pictures == 0 || within(&limit.image, self.pictures))
            && (self.unit != WorkUnit::Millisecond || within(&limit.millisecond, self.units))
    }
}

fn is(named: &Named, candidate: &Candidate<'_>) -> bool {
    named.is(candidate.url, candidate.info.address)
}

fn price(candidate: &Candidate<'_>) -> Amount {
    candidate
        .info
        .price
        .map_or_else(Amount::zero, |price| price.of_one())
}
