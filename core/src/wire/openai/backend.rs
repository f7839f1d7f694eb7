//! Surfaces of OpenAI that no pipeline of the network serves: embeddings, reranking, translations. They need a backend
//! of one's own, and this gateway has none (front-door spec 1.9).

use crate::models::{Models, NotServed};
use crate::wire::refused::{Code, Refused};
use crate::wire::strict::{missing, object};

/// The refusal of a request that only a backend could serve.
#[must_use]
pub fn refuse(body: &[u8], models: &Models) -> Refused {
    refusal(body, models).unwrap_or_else(|refused| refused)
}

fn refusal(body: &[u8], models: &Models) -> Result<Refused, Refused> {
    let all = object(body)?;
    let asked = all.need("model")?.text()?;
    if asked.is_empty() {
        return Err(missing("model"));
    }
    let why = models
        .serves(&asked)
        .map_or(NotServed::Unknown, NotServed::Elsewhere);
    Ok(super::not_served(&asked, why, None, models))
}

/// The refusal of a translation: the pipeline writes down what it hears, in the language that it hears.
#[must_use]
pub fn no_translation() -> Refused {
    Refused::new(
        Code::UnsupportedOperation,
        "audio-to-text transcribes and cannot translate; no app or BYOC backend for 'translations' is configured.",
    )
    .at("model")
}
