//! The most that is paid for a unit, and the price of a dollar.

use std::collections::BTreeMap;

use livepeer_core::Address;
use livepeer_core::currency::{Currency, PriceTag, wei_per_usd};
use livepeer_core::money::Amount;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::wire::price_list::read_price_list;

use super::super::said::{Origin, shown};
use super::{Reader, Value, pipeline, pipeline_model};

/// The most that is paid for a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cmd::serve) struct Prices {
    max: Option<PriceTag>,
    pipelines: BTreeMap<Pipeline, PriceTag>,
    models: BTreeMap<(Pipeline, String), PriceTag>,
    /// The most for a second of containers, by name; that of all others under the empty name.
    containers: BTreeMap<String, PriceTag>,
    /// The most for apps, by name as with containers.
    apps: BTreeMap<String, PriceTag>,
}

impl Prices {
    /// The ceiling of a model in wei: its own, or its pipeline's, or that of all.
    pub(in crate::cmd::serve) fn of(
        &self,
        pipeline: Pipeline,
        model: &str,
        wei_per_usd: Option<&Amount>,
    ) -> Option<Amount> {
        let own = self.models.get(&(pipeline, model.to_owned()));
        let tag = own.or_else(|| self.pipelines.get(&pipeline));
        self.in_wei(tag, wei_per_usd)
    }

    /// The ceiling of a container for a second: its own, or that of all containers, or that of all.
    pub(in crate::cmd::serve) fn of_container(
        &self,
        name: &str,
        wei_per_usd: Option<&Amount>,
    ) -> Option<Amount> {
        self.in_wei(named(&self.containers, name), wei_per_usd)
    }

    /// The ceiling of an app for a unit of its runners, found likewise.
    pub(in crate::cmd::serve) fn of_app(
        &self,
        name: &str,
        wei_per_usd: Option<&Amount>,
    ) -> Option<Amount> {
        self.in_wei(named(&self.apps, name), wei_per_usd)
    }

    /// A ceiling, or that of all, in wei. One in dollars whose price is not known lets nobody work who wants to be paid.
    fn in_wei(&self, tag: Option<&PriceTag>, wei_per_usd: Option<&Amount>) -> Option<Amount> {
        let tag = tag.or(self.max.as_ref())?;
        Some(tag.of_one(wei_per_usd).unwrap_or_else(Amount::zero))
    }

    /// The ceilings in wei: that of all, and those of pipelines (without a model) and models, containers and apps. Those in
    /// dollars are left out as long as the price of one is not known.
    pub(in crate::cmd::serve) fn all(
        &self,
        wei_per_usd: Option<&Amount>,
    ) -> (Option<Amount>, impl Iterator<Item = (&str, &str, Amount)>) {
        let pipelines = { self.pipelines.iter() }.map(|(of, tag)| (of.name(), "", tag));
        let models = self.models.iter();
        let models = models.map(|((of, model), tag)| (of.name(), model.as_str(), tag));
        let containers = { self.containers.iter() }.map(|(name, tag)| ("byoc", name.as_str(), tag));
        let apps = { self.apps.iter() }.map(|(name, tag)| ("app", name.as_str(), tag));
        let all = pipelines.chain(models).chain(containers).chain(apps);
        let own = all.filter_map(move |(of, name, tag)| Some((of, name, tag.of_one(wei_per_usd)?)));
        let max = self.max.as_ref().and_then(|tag| tag.of_one(wei_per_usd));
        (max, own)
    }

    /// Whether any of them is in dollars.
    fn has_dollars(&self) -> bool {
        let batch = self.pipelines.values().chain(self.models.values());
        let hired = self.containers.values().chain(self.apps.values());
        batch
            .chain(hired)
            .chain(&self.max)
            .any(|tag| tag.currency() == Currency::Usd)
    }
}

/// The price under a name, or that of all others.
fn named<'a>(prices: &'a BTreeMap<String, PriceTag>, name: &str) -> Option<&'a PriceTag> {
    prices.get(name).or_else(|| prices.get(""))
}

/// The source of the price of a dollar in wei.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cmd::serve) enum Dollar {
    /// Nobody says.
    #[default]
    Unknown,
    /// The file stays the same.
    Fixed(Amount),
    /// A contract that is read from time to time.
    Feed(Address),
}

impl Reader<'_> {
    pub(super) fn dollar(&mut self) -> Dollar {
        let fixed = self.read("chain.eth_usd", |text| {
            wei_per_usd(text).ok_or("it is not the price of an ETH in USD, such as 2500")
        });
        let feed: Option<Address> = self.read("chain.price_feed", str::parse);
        if feed.is_some() && self.list("chain.rpc").is_empty() {
            let why = "a contract is read through an endpoint: name one in chain.rpc";
            self.wrong(self.origin("chain.price_feed"), "chain.price_feed", why);
        }
        match (fixed, feed) {
            (Some(_), Some(_)) => {
                let why = format!(
                    "chain.eth_usd is set too ({}); keep one",
                    self.origin("chain.eth_usd")
                );
                self.wrong(self.origin("chain.price_feed"), "chain.price_feed", why);
                Dollar::Unknown
            }
            (Some(fixed), None) => Dollar::Fixed(fixed),
            (None, Some(feed)) => Dollar::Feed(feed),
            (None, None) => Dollar::Unknown,
        }
    }

    pub(super) fn prices(&mut self, dollar: &Dollar) -> Prices {
        let mut prices = Prices {
            max: self.price("prices.max", dollar),
            ..Prices::default()
        };
        self.price_list(&mut prices, dollar);
        // What the configuration says itself goes over what the file says.
        for (name, said) in self.table("prices") {
            if ["max", "file"].contains(&name.as_str()) {
                continue;
            }
            let path = format!("prices.{}", shown(std::slice::from_ref(&name)));
            let Value::Text(text) = &said.value else {
                continue;
            };
            let Some(price) = self.tag(&path, text, said.origin.clone(), dollar) else {
                continue;
            };
            match (name.as_str(), name.split_once('/')) {
                ("byoc", _) => drop(prices.containers.insert(String::new(), price)),
                ("app", _) => drop(prices.apps.insert(String::new(), price)),
                (_, Some(("byoc", one))) => drop(prices.containers.insert(one.to_owned(), price)),
                (_, Some(("app", one))) => drop(prices.apps.insert(one.to_owned(), price)),
                (_, Some(_)) => match pipeline_model(&name) {
                    Ok(model) => drop(prices.models.insert(model, price)),
                    Err(why) => self.wrong(said.origin, path, why),
                },
                (_, None) => match pipeline(&name) {
                    Ok(pipeline) => drop(prices.pipelines.insert(pipeline, price)),
                    Err(why) => self.wrong(said.origin, path, why),
                },
            }
        }
        if prices.has_dollars() && matches!(dollar, Dollar::Fixed(_)) {
            let why = "some prices are in USD, and this price of ETH stays as it is; chain.price_feed follows it";
            self.warn(self.origin("chain.eth_usd"), "chain.eth_usd", why);
        }
        prices
    }

    fn price(&mut self, path: &str, dollar: &Dollar) -> Option<PriceTag> {
        let (text, origin) = self.text(path)?;
        self.tag(path, &text, origin, dollar)
    }

    fn tag(&mut self, path: &str, text: &str, origin: Origin, dollar: &Dollar) -> Option<PriceTag> {
        self.value(path, text, origin, |text| match PriceTag::parse(text) {
            Some(tag) if tag.currency() == Currency::Usd && *dollar == Dollar::Unknown => {
                Err(NO_DOLLAR)
            }
            Some(tag) => Ok(tag),
            None => Err("it is not a price such as 1200, 0.5, 1/3 or 0.50USD/1000000"),
        })
    }

    /// Takes the prices of the file, if there is one.
    fn price_list(&mut self, prices: &mut Prices, dollar: &Dollar) {
        let base = prices.max.clone();
        let listed = self.read("prices.file", |file| {
            let text = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
            let listed = read_price_list(&text, base.as_ref()).map_err(|error| error.why)?;
            let in_dollars = |tag: &PriceTag| tag.currency() == Currency::Usd;
            if *dollar == Dollar::Unknown && listed.iter().any(|one| in_dollars(&one.price)) {
                return Err(NO_DOLLAR.to_owned());
            }
            Ok(listed)
        });
        for one in listed.into_iter().flatten() {
            match one.model {
                None => drop(prices.pipelines.insert(one.pipeline, one.price)),
                Some(model) => drop(prices.models.insert((one.pipeline, model), one.price)),
            }
        }
    }
}

const NO_DOLLAR: &str = "it needs a price of ETH: set chain.price_feed or chain.eth_usd";
