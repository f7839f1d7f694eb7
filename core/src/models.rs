//! The catalogue of models that can be had now, and what a name that a client says means (front-door spec 1.3).

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::money::Amount;
use crate::pipeline::Pipeline;
use crate::spelling::edits;

/// At most this many models are in a catalogue; further ones are left out.
pub const MAX_LISTED: usize = 10_000;
/// At most this many names near one that does not exist are told.
pub const MAX_NEAR: usize = 5;
/// Letters and digits that two names have to share, where one says more than the other.
const MIN_SHARED: usize = 4;

/// An offer of a model with one pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Wei per unit at the cheapest orchestrator that is within the ceilings; `None` if it says no price.
    pub price: Option<Amount>,
    /// Whether an orchestrator has the model loaded.
    pub warm: bool,
}

/// A model that some orchestrator serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// When it was first seen, in Unix seconds.
    pub since: u64,
    /// Offers of it, by pipeline.
    pub offers: BTreeMap<Pipeline, Offer>,
}

/// The models that can be had, and further names for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Models {
    known: BTreeMap<String, Model>,
    aliases: BTreeMap<String, Alias>,
    discovered: bool,
}

/// A further name for a model, with one pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Since when it is there, in Unix seconds.
    pub since: u64,
    /// The pipeline.
    pub pipeline: Pipeline,
    /// The model's id.
    pub model: String,
}

/// Why a name cannot be used with a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotServed {
    /// Nobody serves a model of that name.
    Unknown,
    /// The model does something else.
    Elsewhere(Vec<Pipeline>),
}

impl Models {
    /// An empty catalogue: nobody has been asked yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            known: BTreeMap::new(),
            aliases: BTreeMap::new(),
            discovered: false,
        }
    }

    /// Gives a model a further name.
    pub fn alias(&mut self, name: impl Into<String>, alias: Alias) {
        self.aliases.insert(name.into(), alias);
    }

    /// Says that orchestrators have been asked, and that the catalogue is what they have.
    pub const fn discovered(&mut self) {
        self.discovered = true;
    }

    /// Adds what one orchestrator offers, seen at that Unix second. The cheapest price is kept, and whether anybody
    /// has the model loaded.
    pub fn offer(&mut self, since: u64, name: &str, pipeline: Pipeline, offer: Offer) {
        if !self.known.contains_key(name) && self.known.len() >= MAX_LISTED {
            return;
        }
        let model = self.known.entry(name.to_owned()).or_insert_with(|| Model {
            since,
            offers: BTreeMap::new(),
        });
        let known = model.offers.entry(pipeline).or_insert_with(|| Offer {
            price: None,
            warm: false,
        });
        known.warm |= offer.warm;
        known.price = match (known.price.take(), offer.price) {
            (Some(known), Some(other)) => Some(known.min(other)),
            (known, other) => known.or(other),
        };
    }

    /// Whether orchestrators have been asked since the start.
    #[must_use]
    pub const fn is_discovered(&self) -> bool {
        self.discovered
    }

    /// The models by name, in byte order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Model)> {
        self.known
            .iter()
            .map(|(name, model)| (name.as_str(), model))
    }

    /// The further names, and what they stand for.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &Alias)> {
        self.aliases
            .iter()
            .map(|(name, alias)| (name.as_str(), alias))
    }

    /// A model by its id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Model> {
        self.known.get(id)
    }

    /// The pipelines that a name can be used with; `None` if nobody serves it.
    #[must_use]
    pub fn serves(&self, asked: &str) -> Option<Vec<Pipeline>> {
        match self.resolve(asked, Pipeline::LiveVideoToVideo) {
            Ok(_) => Some(Vec::from([Pipeline::LiveVideoToVideo])),
            Err(NotServed::Elsewhere(pipelines)) => Some(pipelines),
            Err(NotServed::Unknown) => None,
        }
    }

    /// The model that a name means to a route that needs `pipeline`: an alias, a pipeline's name with a model's, or a
    /// model's.
    ///
    /// # Errors
    /// If nobody serves it, or if it does something else.
    pub fn resolve<'a>(&'a self, asked: &'a str, pipeline: Pipeline) -> Result<&'a str, NotServed> {
        let named = self
            .aliases
            .get(asked)
            .map(|alias| (alias.pipeline, alias.model.as_str()))
            .or_else(|| {
                let (before, rest) = asked.split_once('/')?;
                let named = Pipeline::from_name(before)?;
                let model = if rest.is_empty() {
                    named.default_model()
                } else {
                    rest
                };
                Some((named, model))
            });
        let id = named.map_or(asked, |(_, model)| model);
        let offers = &self.known.get(id).ok_or(NotServed::Unknown)?.offers;
        match named {
            Some((named, _)) if !offers.contains_key(&named) => Err(NotServed::Unknown),
            Some((named, _)) if named != pipeline => Err(NotServed::Elsewhere(Vec::from([named]))),
            None if !offers.contains_key(&pipeline) => {
                Err(NotServed::Elsewhere(offers.keys().copied().collect()))
            }
            _ => Ok(id),
        }
    }

    /// Names that a client may have meant, nearest first: those that are the same but for their owner or for capitals, those
    /// that differ by a few letters, and those that say more or less of the same, such as `llama3` for
    /// `meta-llama/llama-3.1-8B-Instruct`.
    #[must_use]
    pub fn near(&self, asked: &str) -> Vec<&str> {
        let asked = asked.to_ascii_lowercase();
        let short = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        let letters = |name: &str| -> String {
            let name = short(name);
            name.chars().filter(|c| c.is_alphanumeric()).collect()
        };
        let (asked_short, asked_letters) = (short(&asked), letters(&asked));
        let says_the_same = |letters: &str| {
            let least = letters.len().min(asked_letters.len());
            least >= MIN_SHARED
                && (letters.contains(&asked_letters) || asked_letters.contains(letters))
        };
        let rank = |name: &str| {
            let name = name.to_ascii_lowercase();
            if !asked_short.is_empty() && short(&name) == asked_short {
                return Some(0);
            }
            edits(&asked, &name).or_else(|| says_the_same(&letters(&name)).then_some(usize::MAX))
        };
        let names = self.known.keys().chain(self.aliases.keys());
        let mut near: Vec<(usize, &str)> = names
            .filter_map(|name| Some((rank(name)?, name.as_str())))
            .collect();
        near.sort();
        near.truncate(MAX_NEAR);
        near.into_iter().map(|(_, name)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(price: i64, warm: bool) -> Offer {
        Offer {
            price: Amount::ratio(price, 1),
            warm,
        }
    }

    #[test]
    fn the_first_meaning_of_a_name_wins() {
        let mut models = Models::new();
        models.offer(1, "a/turbo", Pipeline::TextToImage, offer(7, false));
        models.offer(2, "a/turbo", Pipeline::TextToImage, offer(5, true));
        models.offer(2, "llm/a", Pipeline::Llm, offer(1, true));
        let alias = Alias {
            since: 1,
            pipeline: Pipeline::TextToImage,
            model: "a/turbo".into(),
        };
        models.alias("small", alias);
        assert_eq!(models.get("a/turbo").unwrap().since, 1);
        assert_eq!(
            models.get("a/turbo").unwrap().offers[&Pipeline::TextToImage],
            offer(5, true)
        );
        for (asked, with, means) in [
            ("small", Pipeline::TextToImage, Ok("a/turbo")),
            ("a/turbo", Pipeline::TextToImage, Ok("a/turbo")),
            (
                "text-to-image/a/turbo",
                Pipeline::TextToImage,
                Ok("a/turbo"),
            ),
            // A pipeline's name before a slash is that of the pipeline, even if a model is called so.
            ("llm/a", Pipeline::Llm, Err(NotServed::Unknown)),
            ("llm/llm/a", Pipeline::Llm, Ok("llm/a")),
            ("A/turbo", Pipeline::TextToImage, Err(NotServed::Unknown)),
            ("llm/", Pipeline::Llm, Err(NotServed::Unknown)),
            (
                "a/turbo",
                Pipeline::Llm,
                Err(NotServed::Elsewhere(Vec::from([Pipeline::TextToImage]))),
            ),
        ] {
            assert_eq!(models.resolve(asked, with), means, "{asked}");
        }
        assert_eq!(models.near("A/Turbo"), ["a/turbo"]);
        assert_eq!(models.near("turbo"), ["a/turbo"]);
        assert_eq!(models.near("a/turbi"), ["a/turbo"]);
        assert_eq!(models.near("smal"), ["small"]);
        models.offer(1, "meta/chat-3.1-8B", Pipeline::Llm, offer(1, true));
        for asked in ["chat3", "chat-3.1", "chat-3.1-8b-instruct"] {
            assert_eq!(models.near(asked), ["meta/chat-3.1-8B"]);
        }
        for asked in ["gpt-9", "", "8b", "/"] {
            assert!(models.near(asked).is_empty(), "{asked}");
        }
    }
}
