//! Backends: containers and apps that speak OpenAI's language, for models that no pipeline of the network serves
//! (front-door spec 1.9). What a caller sends goes through with the model's own name in it, and the backend decides what it
//! makes of the rest; of its answer the form is checked, since a peer writes it.

mod answers;
mod events;

pub use answers::{answer, not_one_of, refusal};
pub use events::{BadEvents, Events};

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::Settings;
use super::form::Form as Parts;
use crate::models::{Models, NotServed};
use crate::prefer::Preferences;
use crate::wire::preferences;
use crate::wire::refused::{Code, Refused};
use crate::wire::strict::{Object, missing, object};

/// A thing that a backend does, which is that of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those that configurations carry")]
pub enum Surface {
    Chat,
    Completions,
    Responses,
    Embeddings,
    Rerank,
    Images,
    Speech,
    Transcriptions,
    Translations,
}

impl Surface {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Chat,
        Self::Completions,
        Self::Responses,
        Self::Embeddings,
        Self::Rerank,
        Self::Images,
        Self::Speech,
        Self::Transcriptions,
        Self::Translations,
    ];

    /// The word in configurations and lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Images => "images",
            Self::Speech => "speech",
            Self::Transcriptions => "transcriptions",
            Self::Translations => "translations",
        }
    }

    /// The surface of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The path of its route, which programs that speak OpenAI's language have as well.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
            Self::Rerank => "/v1/rerank",
            Self::Images => "/v1/images/generations",
            Self::Speech => "/v1/audio/speech",
            Self::Transcriptions => "/v1/audio/transcriptions",
            Self::Translations => "/v1/audio/translations",
        }
    }

    /// Whether a request is a form.
    const fn is_form(self) -> bool {
        matches!(self, Self::Transcriptions | Self::Translations)
    }

    /// Parameters without which a request makes no sense.
    const fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Embeddings => &["input"],
            Self::Rerank => &["query", "documents"],
            _ => &[],
        }
    }
}

/// The program behind a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A container of an operator.
    Container {
        /// Its name.
        capability: String,
        /// How long a job may take there.
        within: Duration,
    },
    /// An app that orchestrators rent out.
    App {
        /// Its name.
        name: String,
    },
}

impl Program {
    /// The word of its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Container { .. } => "byoc",
            Self::App { .. } => "app",
        }
    }
}

/// A program that serves a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The things that it does.
    pub surfaces: Vec<Surface>,
    /// The program.
    pub program: Program,
    /// The program's own path; without one, that of the route.
    pub path: Option<String>,
    /// The program's own name of the model; without one, that by which clients call it.
    pub model: Option<String>,
}

/// Backends by the names that clients say.
pub type Backends = BTreeMap<String, Backend>;

/// A request for a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The name of the model, as the client said it.
    pub name: String,
    /// The backend.
    pub backend: Backend,
    /// The path at the program, without the slash before it.
    pub path: String,
    /// The body.
    pub body: Bytes,
    /// The form of the answer that is wanted.
    pub wanted: Wanted,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A JSON object.
    Json,
    /// A JSON object with vectors of numbers, each of which is to be base64 of its bytes.
    Packed,
    /// A stream of events.
    Events,
    /// The answer as the program gives it.
    Any,
}

/// Reads a request for a backend; `None` if its model is not one of a backend, or the request is no good: the route itself
/// says what is wrong.
///
/// # Errors
/// If the backend does something else, a parameter is missing without which it can do nothing, or the caller has wishes
/// about who serves, which are not known of backends.
pub fn read(
    surface: Surface,
    content_type: &str,
    body: &Bytes,
    provider: Option<&str>,
    models: &Models,
    settings: &Settings,
) -> Result<Option<Request>, Refused> {
    if settings.backends.is_empty() {
        return Ok(None);
    }
    let known = |asked: &str| backend(asked, surface, models, settings);
    let wishes = |said: Option<&str>| -> Result<(), Refused> {
        match preferences::read(said, provider, &settings.terms)?.preferences {
            none if none == Preferences::default() => Ok(()),
            _ => Err(Refused::new(
                Code::UnsupportedParameter,
                "Unsupported parameter: 'provider' is not supported with a backend.",
            )
            .at("provider")),
        }
    };
    if surface.is_form() {
        let Ok(form) = Parts::read(content_type, body) else {
            return Ok(None);
        };
        let Some(name) = form.text("model").ok().flatten().map(String::from) else {
            return Ok(None);
        };
        let Some(backend) = known(&name)? else {
            return Ok(None);
        };
        wishes(form.text("provider")?)?;
        let own = backend.model.as_deref().unwrap_or(&name);
        let body = with_model(body, form.all("model").map(|part| &part.content), own);
        return Ok(Some(Request::new(
            name,
            backend,
            surface,
            body,
            Wanted::Any,
        )));
    }
    let Ok(all) = object(body) else {
        return Ok(None);
    };
    let asked = all.get("model").and_then(|model| model.text().ok());
    let Some(name) = asked.map(Cow::into_owned) else {
        return Ok(None);
    };
    let Some(backend) = known(&name)? else {
        return Ok(None);
    };
    for needed in surface.needs() {
        all.get(needed).ok_or_else(|| missing(needed))?;
    }
    let provider = all.get("provider");
    wishes(provider.as_ref().map(|field| field.raw()))?;
    let said = |name: &str| all.get(name).map(|field| field.raw().to_string());
    let streams = said("stream").as_deref() == Some("true");
    let packed = said("encoding_format").as_deref() == Some("\"base64\"");
    let wanted = match surface {
        Surface::Speech => Wanted::Any,
        Surface::Embeddings if packed => Wanted::Packed,
        Surface::Embeddings | Surface::Rerank => Wanted::Json,
        _ if streams => Wanted::Events,
        _ => Wanted::Json,
    };
    let own = backend.model.as_deref().unwrap_or(&name);
    let body = rewritten(&all, own);
    Ok(Some(Request::new(name, backend, surface, body, wanted)))
}

impl Request {
    fn new(name: String, backend: &Backend, surface: Surface, body: Bytes, wanted: Wanted) -> Self {
        let path = backend.path.as_deref().unwrap_or(surface.path());
        Self {
            path: path.trim_start_matches('/').into(),
            name,
            backend: backend.clone(),
            body,
            wanted,
        }
    }
}

/// The backend of a name; `None` if there is none, or if it does something else and the network may have a model of that
/// name.
fn backend<'a>(
    asked: &str,
    surface: Surface,
    models: &Models,
    settings: &'a Settings,
) -> Result<Option<&'a Backend>, Refused> {
    let Some(backend) = settings.backends.get(asked) else {
        return Ok(None);
    };
    if backend.surfaces.contains(&surface) {
        return Ok(Some(backend));
    }
    if models.serves(asked).is_some() {
        return Ok(None);
    }
    let serves: Vec<&str> = backend.surfaces.iter().map(|one| one.name()).collect();
    let serves = serves.join(", ");
    Err(Refused::new(
        Code::ModelNotSupported,
        format!("The model '{asked}' does not serve this route; it serves {serves}."),
    )
    .at("model"))
}

/// The members of a request, as they came, for another model, and without what is for the gateway alone.
fn rewritten(all: &Object<'_>, model: &str) -> Bytes {
    let model = Value::from(model).to_string();
    let mut out = String::from("{");
    for (name, field) in all.iter().filter(|(name, _)| *name != "provider") {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&Value::from(name).to_string());
        out.push(':');
        out.push_str(if name == "model" { &model } else { field.raw() });
    }
    out.push('}');
    out.into()
}

/// A form whose parts of those contents, which are parts of it, say another model.
fn with_model<'a>(body: &Bytes, parts: impl Iterator<Item = &'a Bytes>, model: &str) -> Bytes {
    let start = body.as_ptr() as usize;
    let mut out = Vec::with_capacity(body.len() + model.len());
    let mut copied = 0;
    for part in parts {
        let at = (part.as_ptr() as usize).checked_sub(start);
        let Some(before) = at.and_then(|at| body.get(copied..at)) else {
            continue;
        };
        out.extend_from_slice(before);
        out.extend_from_slice(model.as_bytes());
        copied += before.len() + part.len();
    }
    out.extend_from_slice(body.get(copied..).unwrap_or_default());
    out.into()
}

/// The refusal of a request that only a backend could serve.
#[must_use]
pub fn refuse(body: &[u8], models: &Models) -> Refused {
    unserved(body, models).unwrap_or_else(|refused| refused)
}

fn unserved(body: &[u8], models: &Models) -> Result<Refused, Refused> {
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
