//! The shapes of OpenAI: recorded requests of its SDKs become batch requests, and answers of runners become answers that
//! those SDKs read.

mod bad_input;
mod exchanges;
mod preferences;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use livepeer_core::models::{Alias, Models, Offer};
use livepeer_core::money::Amount;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::wire::openai::backend::{Backend, Backends, Program, Surface};
use livepeer_core::wire::openai::{Settings, Translated, chat, image, speech, transcript};
use livepeer_core::wire::refused::{Refused, Shape};
use serde_json::Value;

use crate::vectors;

/// The instant of all cases, in Unix seconds.
const NOW: u64 = 1_790_000_000;
const REQUEST: &str = "req_01K5ZT8M3Q0V7J4X9B2C6D8E0F";

fn cases(name: &str) -> Vec<Value> {
    let file = vectors::file(&format!("front/{name}.json"));
    file["cases"].as_array().expect("a list of cases").clone()
}

/// The catalogue of all cases.
pub(crate) fn models() -> Models {
    let mut models = Models::new();
    models.discovered();
    for (id, pipeline, over, under, warm) in [
        (
            "meta-llama/Meta-Llama-3.1-8B-Instruct",
            Pipeline::Llm,
            12_500,
            3,
            true,
        ),
        (
            "meta-llama/llama-3.1-8B-Instruct",
            Pipeline::Llm,
            12_500,
            3,
            false,
        ),
        (
            "stabilityai/sdxl-turbo",
            Pipeline::TextToImage,
            100,
            1,
            true,
        ),
        (
            "stabilityai/sdxl-turbo",
            Pipeline::ImageToImage,
            100,
            1,
            true,
        ),
        (
            "SG161222/RealVisXL_V4.0_Lightning",
            Pipeline::TextToImage,
            100,
            1,
            false,
        ),
        (
            "openai/whisper-large-v3",
            Pipeline::AudioToText,
            7,
            2,
            false,
        ),
        (
            "parler-tts/parler-tts-large-v1",
            Pipeline::TextToSpeech,
            11,
            1,
            false,
        ),
    ] {
        let price = Amount::ratio(over, under);
        models.offer(NOW, id, pipeline, Offer { price, warm });
    }
    for (name, pipeline, model) in [
        (
            "gpt-4o-mini",
            Pipeline::Llm,
            "meta-llama/Meta-Llama-3.1-8B-Instruct",
        ),
        (
            "gpt-image-1",
            Pipeline::TextToImage,
            "SG161222/RealVisXL_V4.0_Lightning",
        ),
        (
            "whisper-1",
            Pipeline::AudioToText,
            "openai/whisper-large-v3",
        ),
        (
            "tts-1",
            Pipeline::TextToSpeech,
            "parler-tts/parler-tts-large-v1",
        ),
    ] {
        let (since, model) = (NOW, model.into());
        models.alias(
            name,
            Alias {
                since,
                pipeline,
                model,
            },
        );
    }
    models
}

/// The backends of all cases.
pub(crate) fn backends() -> Backends {
    let container = |capability: &str| Program::Container {
        capability: capability.into(),
        within: Duration::from_secs(60),
    };
    let app = Program::App {
        name: "acme/vllm".into(),
    };
    let backend = |surface, program, path: &str, model: &str| Backend {
        surfaces: vec![surface],
        program,
        path: Some(path.into()),
        model: Some(model.into()),
    };
    let vectors = container("openai-embeddings");
    let ranks = container("rerank");
    Backends::from([
        (
            "bge-m3".into(),
            backend(
                Surface::Embeddings,
                vectors,
                "/v1/embeddings",
                "BAAI/bge-m3",
            ),
        ),
        (
            "bge-reranker".into(),
            backend(
                Surface::Rerank,
                ranks,
                "/v1/rerank",
                "BAAI/bge-reranker-v2-m3",
            ),
        ),
        (
            "qwen3-tools".into(),
            backend(Surface::Chat, app, "/v1/chat/completions", "Qwen/Qwen3-8B"),
        ),
    ])
}

fn settings() -> Settings {
    let mut settings = Settings {
        backends: backends(),
        ..Settings::default()
    };
    settings
        .voices
        .retain(|name, _| name == "alloy" || name == "onyx");
    settings
}

/// A recorded request.
struct Request {
    path: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Request {
    fn of(case: &Value) -> Self {
        let request = &case["in"]["request"];
        let headers = request["headers"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            path: text(&request["path"]).trim_end_matches('/').into(),
            headers: headers
                .map(|field| (text(&field[0]).to_ascii_lowercase(), text(&field[1])))
                .collect(),
            body: bytes(request, "body").unwrap_or_default(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(have, _)| have == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Reads the request as its route does; `None` for a route of another kind.
    fn read(&self) -> Option<Result<Translated, Refused>> {
        let (models, settings) = (models(), settings());
        let provider = self.header("livepeer-provider");
        let content_type = self.header("content-type").unwrap_or_default();
        Some(match &*self.path {
            "/v1/chat/completions" => chat::read(&self.body, provider, &models, &settings),
            "/v1/images/generations" => image::read(&self.body, provider, &models, &settings),
            "/v1/images/edits" => {
                image::read_edit(content_type, &self.body, provider, &models, &settings)
            }
            "/v1/audio/transcriptions" => {
                transcript::read(content_type, &self.body, provider, &models, &settings)
            }
            "/v1/audio/speech" => speech::read(&self.body, provider, &models, &settings),
            _ => return None,
        })
    }
}

/// A body as text, as bytes or as JSON.
fn bytes(of: &Value, what: &str) -> Option<Bytes> {
    let get = |form: &str| of.get(format!("{what}_{form}"));
    if let Some(text) = get("text") {
        return Some(text.as_str().unwrap().to_owned().into());
    }
    if let Some(base64) = get("b64") {
        return Some(STANDARD.decode(base64.as_str().unwrap()).unwrap().into());
    }
    get("json").map(|json| json.to_string().into())
}

/// Compares a refusal with an answer of a case: status, body, and the header fields that are ours.
fn check_refused(id: &str, refused: &Refused, reply: &Value) {
    assert_eq!(
        u64::from(refused.status()),
        reply["status"],
        "{id}: {refused}"
    );
    let ours: Value = serde_json::from_slice(&refused.body(Shape::OpenAi)).unwrap();
    let theirs = bytes(reply, "body").unwrap();
    let mut theirs: Value = serde_json::from_slice(&theirs).unwrap();
    let message = theirs["error"]["message"].as_str().unwrap().to_owned();
    if let Some(pattern) = message.strip_prefix("re:^") {
        let prefix = pattern.trim_end_matches(".+");
        let told = &refused.message;
        assert!(
            told.starts_with(prefix) && told.len() > prefix.len(),
            "{id}: {told}"
        );
        theirs["error"]["message"] = ours["error"]["message"].clone();
    }
    assert_eq!(ours, theirs, "{id}");
    let told: Vec<(&str, &str)> = refused.all_headers().collect();
    let wanted: Vec<(&str, &str)> = reply["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| (field[0].as_str().unwrap(), field[1].as_str().unwrap()))
        .filter(|(name, _)| !["content-type", "x-request-id"].contains(name))
        .collect();
    assert_eq!(told, wanted, "{id}");
}
