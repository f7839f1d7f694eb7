//! Many orchestrators, and quickly those that fit: what a catalogue of the whole network would stand on. No part of
//! the gateway holds one yet, so that it is measured and tested here.
//!
//! [`CapabilityIndex::find`] answers exactly what asking [`compatible`] and the price of each one
//! would, without asking each one: sets of bits and models decide first, and only what they leave is looked at.

use std::collections::BTreeMap;

use livepeer_core::capabilities::{
    Capabilities, Capability, Ceilings, Model, ModelPrice, Version, compatible,
};
use livepeer_core::http::Url;
use livepeer_core::money::{Amount, Price};
use num_traits::ToPrimitive as _;

#[cfg(test)]
mod tests;

/// A search of the index: the capabilities that a job needs and the limits that an orchestrator has to keep.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The capabilities that the job needs.
    pub wanted: Capabilities,
    /// The most we pay. Where there is a limit, nodes without a price do not fit.
    pub ceilings: Ceilings,
    /// Only nodes that spell out every wanted model.
    pub listed_models_only: bool,
}

/// A handle of one orchestrator in the index; valid until that orchestrator is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(u32);

/// An index of what orchestrators can do and what they ask for it.
#[derive(Clone, Debug, Default)]
pub struct CapabilityIndex {
    nodes: Vec<Option<Node>>,
    by_url: BTreeMap<Url, u32>,
    free: Vec<u32>,
    /// The orchestrators that report their capabilities, and those that do not.
    reported: Set,
    unreported: Set,
    by_bit: BTreeMap<Capability, Set>,
    /// The orchestrators that limit a capability to the models they spell out.
    limited: BTreeMap<Capability, Set>,
    models: BTreeMap<Capability, BTreeMap<String, Vec<Row>>>,
    /// The orchestrators whose demands have to be compared one by one.
    demanding: Set,
    versions: Vec<Rank>,
    base_prices: Vec<Option<Price>>,
}

#[derive(Clone, Debug)]
struct Node {
    url: Url,
    capabilities: Option<Capabilities>,
    prices: Vec<ModelPrice>,
}

/// The entry of one node for one model. Rows are sorted by node.
#[derive(Clone, Copy, Debug)]
struct Row {
    node: u32,
    /// Among the models it has, and not only among its prices.
    listed: bool,
    warm: bool,
    price: Option<Price>,
}

impl CapabilityIndex {
    /// An index without anybody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_url.len()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_url.is_empty()
    }

    /// Takes in an orchestrator, in place of what was known of it.
    pub fn insert(
        &mut self,
        url: Url,
        capabilities: Option<Capabilities>,
        base_price: Option<Price>,
        prices: Vec<ModelPrice>,
    ) -> Entry {
        self.remove(&url);
        let id = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            self.versions.push(Rank::UNTOLD);
            self.base_prices.push(None);
            (self.nodes.len() - 1) as u32
        });
        let at = id as usize;
        self.base_prices[at] = base_price;
        match &capabilities {
            None => self.unreported.insert(id),
            Some(offered) => {
                self.reported.insert(id);
                self.versions[at] = Rank::of(&offered.version);
                if !offered.mandatories.words().is_empty() {
                    self.demanding.insert(id);
                }
                for capability in offered.bits.iter() {
                    self.by_bit.entry(capability).or_default().insert(id);
                }
                for capability in offered.constraints.keys() {
                    self.limited.entry(*capability).or_default().insert(id);
                }
                for (capability, name, model) in offered.models() {
                    let row = self.row(capability, name, id);
                    row.listed = true;
                    row.warm = model.warm;
                }
            }
        }
        // The first of equal prices counts.
        for priced in prices.iter().rev() {
            self.row(priced.capability, &priced.model, id).price = Some(priced.price);
        }
        self.by_url.insert(url.clone(), id);
        self.nodes[at] = Some(Node {
            url,
            capabilities,
            prices,
        });
        Entry(id)
    }

    /// Forgets an orchestrator; whether it was known.
    pub fn remove(&mut self, url: &Url) -> bool {
        let Some(id) = self.by_url.remove(url) else {
            return false;
        };
        let node = self.nodes[id as usize]
            .take()
            .expect("a known address has its node");
        for set in [
            &mut self.reported,
            &mut self.unreported,
            &mut self.demanding,
        ] {
            set.remove(id);
        }
        if let Some(offered) = &node.capabilities {
            for capability in offered.bits.iter() {
                if let Some(set) = self.by_bit.get_mut(&capability) {
                    set.remove(id);
                }
            }
            for capability in offered.constraints.keys() {
                if let Some(set) = self.limited.get_mut(capability) {
                    set.remove(id);
                }
            }
            for (capability, name, _) in offered.models() {
                self.drop_row(capability, name, id);
            }
        }
        for priced in &node.prices {
            self.drop_row(priced.capability, &priced.model, id);
        }
        self.free.push(id);
        true
    }

    /// The URL of an orchestrator.
    #[must_use]
    pub fn url(&self, entry: Entry) -> Option<&Url> {
        self.node(entry.0).map(|node| &node.url)
    }

    /// The capabilities of an orchestrator, if it reports any.
    #[must_use]
    pub fn capabilities(&self, entry: Entry) -> Option<&Capabilities> {
        self.node(entry.0)?.capabilities.as_ref()
    }

    /// The price of a job at an orchestrator: the sum over the job's models, each at its listed price or else the base
    /// price; for a job without models the base price. `None` if a price is missing.
    #[must_use]
    pub fn price(&self, entry: Entry, wanted: &Capabilities) -> Option<Amount> {
        self.node(entry.0)?;
        let base = self.base_prices[entry.0 as usize];
        if wanted.models().next().is_none() {
            return base.map(|price| price.of_one());
        }
        let mut sum = Amount::zero();
        for (capability, model, _) in wanted.models() {
            let rows = self.rows(capability, model);
            let listed = rows.binary_search_by_key(&entry.0, |row| row.node);
            let listed = listed.ok().and_then(|at| rows[at].price);
            sum += &listed.or(base)?.of_one();
        }
        Some(sum)
    }

    /// Everybody who fits, in the order of their entries.
    #[must_use]
    pub fn find(&self, query: &Query) -> Vec<Entry> {
        let wanted = &query.wanted;
        let mut fit = self.reported.clone();
        for capability in wanted.bits.iter() {
            fit.keep(self.by_bit.get(&capability));
        }
        for (capability, name, asked) in wanted.models() {
            let offering = self.offering(capability, name, asked);
            match self.limited.get(&capability) {
                Some(limited) if !query.listed_models_only => {
                    fit.keep_or_absent(&offering, limited)
                }
                None if !query.listed_models_only => {}
                _ => fit.keep(Some(&offering)),
            }
        }
        if wanted.bits.is_subset_of(&Capabilities::legacy()) && !query.listed_models_only {
            fit.add(&self.unreported);
        }
        // What sets do not tell: demands, runner versions, and a list of words that is too long for its bits.
        let long = wanted.bits.words().last() == Some(&0);
        let runners = wanted
            .models()
            .any(|(_, _, model)| !model.runner_version.is_empty());
        let each = long || runners;
        let demanding_nobody = self.demanding.len() == 0;
        let minimum = Minimum::of(&wanted.min_version);
        let limit = query.ceilings.limit(wanted).map(Limit::new);
        let mut columns = self.columns(wanted);
        let mut found = Vec::with_capacity(fit.len());
        fit.for_each(|id| {
            let at = id as usize;
            let new_enough = if each {
                None
            } else {
                minimum.met_by(self.versions[at])
            };
            let fits = match new_enough {
                Some(fits) if demanding_nobody || !self.demanding.contains(id) => {
                    fits || !self.reported.contains(id)
                }
                _ => {
                    let node = self.node(id).expect("sets hold only nodes that are there");
                    compatible(node.capabilities.as_ref(), wanted).is_ok()
                }
            };
            if !fits {
                return;
            }
            if let Some(limit) = &limit
                && !limit.allows(&mut columns, id, self.base_prices[at])
            {
                return;
            }
            found.push(Entry(id));
        });
        found
    }

    fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.get(id as usize)?.as_ref()
    }

    fn rows(&self, capability: Capability, model: &str) -> &[Row] {
        self.models
            .get(&capability)
            .and_then(|models| models.get(model))
            .map_or(&[], Vec::as_slice)
    }

    fn row(&mut self, capability: Capability, model: &str, node: u32) -> &mut Row {
        let models = self.models.entry(capability).or_default();
        if !models.contains_key(model) {
            models.insert(model.into(), Vec::new());
        }
        let rows = models.get_mut(model).expect("it was just put there");
        let at = match rows.binary_search_by_key(&node, |row| row.node) {
            Ok(at) => at,
            Err(at) => {
                let row = Row {
                    node,
                    listed: false,
                    warm: false,
                    price: None,
                };
                rows.insert(at, row);
                at
            }
        };
        &mut rows[at]
    }

    fn drop_row(&mut self, capability: Capability, model: &str, node: u32) {
        let Some(models) = self.models.get_mut(&capability) else {
            return;
        };
        let Some(rows) = models.get_mut(model) else {
            return;
        };
        if let Ok(at) = rows.binary_search_by_key(&node, |row| row.node) {
            rows.remove(at);
        }
        if rows.is_empty() {
            models.remove(model);
        }
    }

    fn offering(&self, capability: Capability, model: &str, asked: &Model) -> Set {
        let mut set = Set::default();
        for row in self.rows(capability, model) {
            if row.listed && (row.warm || !asked.warm) {
                set.insert(row.node);
            }
        }
        set
    }

    /// The price columns of a job's models, each with a cursor.
    fn columns(&self, wanted: &Capabilities) -> Vec<(&[Row], usize)> {
        wanted
            .models()
            .map(|(capability, model, _)| (self.rows(capability, model), 0))
            .collect()
    }
}

/// A version in one word, for quick comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u64);

impl Rank {
    /// Untold or undefined: meets no minimum at all.
    const UNTOLD: Self = Self(0);
    /// No version: meets a minimum that is none either.
    const UNREADABLE: Self = Self(1);
    /// Numbers too large for a word; they have to be looked at.
    const LARGE: Self = Self(u64::MAX);

    fn of(version: &Version) -> Self {
        const BITS: u32 = 20;
        match version.numbers() {
            None if version.is_empty() || version.as_str() == "undefined" => Self::UNTOLD,
            None => Self::UNREADABLE,
            Some(numbers) if numbers.iter().all(|n| n >> BITS == 0) => {
                let [major, minor, patch] = numbers;
                Self((major << (2 * BITS) | minor << BITS | patch) + 2)
            }
            Some(_) => Self::LARGE,
        }
    }
}

/// A minimum version, ready to be compared with many.
enum Minimum {
    /// Anything will do.
    None,
    /// Anything that is told.
    Told,
    /// At least that.
    AtLeast(Rank),
}

impl Minimum {
    fn of(version: &Version) -> Self {
        match (version.is_empty(), version.numbers()) {
            (true, _) => Self::None,
            (false, None) => Self::Told,
            (false, Some(_)) => Self::AtLeast(Rank::of(version)),
        }
    }

    /// Whether a version meets it; `None` if ranks do not tell.
    fn met_by(&self, rank: Rank) -> Option<bool> {
        match self {
            Self::None => Some(true),
            Self::Told => Some(rank > Rank::UNTOLD),
            Self::AtLeast(least) if *least == Rank::LARGE || rank == Rank::LARGE => None,
            Self::AtLeast(least) => Some(rank >= *least),
        }
    }
}

/// A price ceiling, ready to be compared with many prices.
struct Limit {
    exact: Amount,
    /// The ceiling as a price, if it fits into one.
    quick: Option<Price>,
}

impl Limit {
    fn new(exact: Amount) -> Self {
        let ratio = exact.as_ratio();
        let quick = ratio
            .numer()
            .to_i64()
            .zip(ratio.denom().to_i64())
            .and_then(|(wei, per)| Price::new(wei, per));
        Self { exact, quick }
    }

    /// Whether node `id` is within. Nodes come by rising id, so that cursors only move on.
    fn allows(&self, columns: &mut [(&[Row], usize)], id: u32, base: Option<Price>) -> bool {
        let listed = |(rows, at): &mut (&[Row], usize)| {
            while rows.get(*at).is_some_and(|row| row.node < id) {
                *at += 1;
            }
            let row = rows.get(*at).filter(|row| row.node == id);
            row.and_then(|row| row.price).or(base)
        };
        match (columns, self.quick) {
            ([], Some(quick)) => base.is_some_and(|price| price <= quick),
            ([one], Some(quick)) => listed(one).is_some_and(|price| price <= quick),
            ([], None) => base.is_some_and(|price| price.of_one() <= self.exact),
            (several, _) => {
                let mut sum = Amount::zero();
                for column in several {
                    match listed(column) {
                        None => return false,
                        Some(price) => sum += &price.of_one(),
                    }
                }
                sum <= self.exact
            }
        }
    }
}

/// A set of nodes, one bit each.
#[derive(Clone, Debug, Default)]
struct Set(Vec<u64>);

impl Set {
    fn insert(&mut self, id: u32) {
        let word = id as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (id % 64);
    }

    fn remove(&mut self, id: u32) {
        if let Some(word) = self.0.get_mut(id as usize / 64) {
            *word &= !(1 << (id % 64));
        }
    }

    fn contains(&self, id: u32) -> bool {
        self.0
            .get(id as usize / 64)
            .is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// Keeps the orchestrators that are in the other set too; none, if there is no other set.
    fn keep(&mut self, other: Option<&Self>) {
        let other = other.map_or(&[][..], |other| &other.0);
        self.0.truncate(other.len());
        for (word, also) in self.0.iter_mut().zip(other) {
            *word &= also;
        }
    }

    /// Keeps those that are in `one`, and those that are not in `other`.
    fn keep_or_absent(&mut self, one: &Self, other: &Self) {
        for (at, word) in self.0.iter_mut().enumerate() {
            let one = one.0.get(at).copied().unwrap_or(0);
            let other = other.0.get(at).copied().unwrap_or(0);
            *word &= one | !other;
        }
    }

    fn for_each(&self, mut each: impl FnMut(u32)) {
        for (at, word) in self.0.iter().enumerate() {
            let mut left = *word;
            while left != 0 {
                each(at as u32 * 64 + left.trailing_zeros());
                left &= left - 1;
            }
        }
    }
}
