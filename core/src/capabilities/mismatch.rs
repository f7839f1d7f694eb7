//! Why an offer is not enough.

use alloc::string::{String, ToString};

use super::{Bits, Capability, TooOld, Version};

/// Why a node does not fit a job, in the words of the node's operator and the job's owner alike.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// The node reports no capabilities, and the job needs more than nodes of that age have.
    #[error("the node reports no capabilities")]
    Unreported,
    /// The node's software is too old, or its age cannot be told.
    #[error("the node's version {found:?} {}, at least {minimum} is needed", words(*why))]
    Version {
        /// The version that the node reports.
        found: String,
        /// The lowest version that the job accepts.
        minimum: String,
        /// Why it is not enough.
        why: TooOld,
    },
    /// The node takes only jobs that ask for more than this one.
    #[error(
        "the node takes only jobs that ask for {}",
        list(unasked, "more words of capabilities")
    )]
    Demands {
        /// The capabilities that the node wants every job to ask for and this one does not. Empty if only the number of
        /// words is wrong.
        unasked: Bits,
    },
    /// The node limits the capability to other models.
    #[error("no model {model:?} for {capability}")]
    ModelMissing {
        /// The capability.
        capability: Capability,
        /// The model.
        model: String,
    },
    /// The model has to be loaded and is not.
    #[error("model {model:?} for {capability} is not loaded")]
    ModelCold {
        /// The capability.
        capability: Capability,
        /// The model.
        model: String,
    },
    /// The model's runner is too old, or its age cannot be told.
    #[error(
        "the runner of {model:?} for {capability}: version {found:?} {}, at least {minimum} is needed",
        words(*why)
    )]
    Runner {
        /// The capability.
        capability: Capability,
        /// The model.
        model: String,
        /// The version that the node reports for the runner.
        found: String,
        /// The lowest version that the job accepts.
        minimum: String,
        /// Why it is not enough.
        why: TooOld,
    },
    /// The node lacks capabilities.
    #[error("the node lacks {}", list(missing, "words of capabilities"))]
    Lacks {
        /// The missing capabilities. Empty if only the number of words is wrong.
        missing: Bits,
        /// How many words the job asks for; a list longer than the node's never fits.
        asked_words: usize,
        /// How many words the node offers.
        offered_words: usize,
    },
}

const fn words(why: TooOld) -> &'static str {
    match why {
        TooOld::Untold => "is untold",
        TooOld::Undefined => "is undefined",
        TooOld::Unreadable => "is none",
        TooOld::Lower => "is too low",
    }
}

fn list(bits: &Bits, otherwise: &str) -> String {
    if bits.is_empty() {
        otherwise.to_string()
    } else {
        bits.to_string()
    }
}

/// A [`Mismatch`] that costs nothing to make.
pub(super) enum Difference<'a> {
    Version(&'a Version, &'a Version, TooOld),
    Demands(&'a Bits, &'a Bits),
    ModelMissing(Capability, &'a str),
    ModelCold(Capability, &'a str),
    Runner(Capability, &'a str, &'a Version, &'a Version, TooOld),
    Lacks(&'a Bits, &'a Bits),
}

impl Difference<'_> {
    #[cold]
    pub(super) fn into_owned(self) -> Mismatch {
        match self {
            Self::Version(found, minimum, why) => Mismatch::Version {
                found: found.to_string(),
                minimum: minimum.to_string(),
                why,
            },
            Self::Demands(demanded, asked) => Mismatch::Demands {
                unasked: demanded.without(asked),
            },
            Self::ModelMissing(capability, model) => Mismatch::ModelMissing {
                capability,
                model: model.into(),
            },
            Self::ModelCold(capability, model) => Mismatch::ModelCold {
                capability,
                model: model.into(),
            },
            Self::Runner(capability, model, found, minimum, why) => Mismatch::Runner {
                capability,
                model: model.into(),
                found: found.to_string(),
                minimum: minimum.to_string(),
                why,
            },
            Self::Lacks(asked, offered) => Mismatch::Lacks {
                missing: asked.without(offered),
                asked_words: asked.words().len(),
                offered_words: offered.words().len(),
            },
        }
    }
}
