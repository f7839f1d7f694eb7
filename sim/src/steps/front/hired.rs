//! Containers and apps behind a front door: whatever they say.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::job::byoc::Served;
use livepeer_core::money::{Amount, Price};
use livepeer_core::wire::openai::backend::{Backend, Backends, Program, Surface};
use livepeer_core::wire::sse::{self, MAX_BLANK_LINES};

use super::url;

/// Words of containers and apps, most of which make no sense.
pub(super) fn words(pick: u8) -> Bytes {
    let all = [
        "[1]",
        "{}",
        "{",
        r#"{"data":[{"embedding":[1,-2.5]}]}"#,
        r#"{"data":[1]}"#,
        r#"{"data":[{"embedding":[1e39]}]}"#,
        r#"{"error":{"message":"no"}}"#,
        "data: 1\n\n",
        "data: [DONE]\n\n",
        "data: [DO",
    ];
    match all.get(usize::from(pick) % (all.len() + 1)) {
        Some(words) => Bytes::from_static(words.as_bytes()),
        None => "\n".repeat(MAX_BLANK_LINES + 6).into(),
    }
}

/// A container and an app that serve models.
pub(super) fn backends() -> Backends {
    let container = Backend {
        surfaces: vec![Surface::Embeddings],
        program: Program::Container {
            capability: "vec".into(),
            within: Duration::from_secs(9),
        },
        path: None,
        model: None,
    };
    let app = Backend {
        surfaces: vec![Surface::Chat, Surface::Speech],
        program: Program::App {
            name: "b/app".into(),
        },
        path: None,
        model: Some("own".into()),
    };
    [("b/vec".into(), container), ("b/llm".into(), app)].into()
}

/// The head of a container's answer.
pub(super) fn hired(kind: &str) -> Served {
    Served {
        url: url(),
        content_type: kind.into(),
        metadata: String::new(),
        balance: String::new(),
        stream: kind == sse::CONTENT_TYPE,
        price: Price::FREE,
        tickets: 0,
        value: Amount::zero(),
        attempts: Vec::new(),
        waited: Duration::ZERO,
    }
}
