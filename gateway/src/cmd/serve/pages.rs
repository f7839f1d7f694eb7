//! Pages of the gateway: how it is, its figures, and the description of its routes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::figures::{self, Network};
use livepeer_core::front::route::{Page, ROUTES, Route};
use livepeer_core::front::{APP_METHODS, Admission, Config, LiveRoutes};
use livepeer_core::http::Method;
use livepeer_core::models::Models;
use livepeer_core::money::Amount;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::wire::batch::MAX_MESSAGES;
use livepeer_core::wire::batch::fields::{self, Field, Kind};
use livepeer_core::wire::byoc::JobRequest;
use livepeer_core::{Address, ChainView, Time};
use serde_json::{Value, json};

use super::config::Prices;

const JSON: &str = "application/json";

/// Settings of the door for operators: the pages, and no work.
pub(super) fn operators(door: &Config) -> Config {
    Config {
        pages: vec![Page::Health, Page::Metrics],
        containers: false,
        apps: Vec::new(),
        live: LiveRoutes::None,
        ..door.clone()
    }
}

/// A page: its status, its type and its text.
pub(in crate::cmd) type Answer = (u16, &'static str, Bytes);

/// How the gateway is: the models in its list, and the requests that are not answered yet, by state.
pub(super) fn health(models: &Models, states: &BTreeMap<Admission, u64>) -> Answer {
    let by_name: BTreeMap<_, _> = { states.iter() }
        .map(|(state, count)| (state.name(), count))
        .collect();
    let health = json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "models": models.iter().count(),
        "discovered": models.is_discovered(),
        "in_flight": states.values().sum::<u64>(),
        "states": by_name,
    });
    (200, JSON, health.to_string().into())
}

/// Figures that neither the front door nor live entry knows.
pub(super) struct Figures<'a> {
    /// How many configurations were refused on reload.
    pub(super) reloads_failed: u64,
    /// The price of ETH in dollars and its age, if it is read.
    pub(super) feed: Option<(f64, Duration)>,
    /// The requests at a door for operators.
    pub(super) operators: String,
    pub(super) network: &'a Network,
    /// Questions to endpoints of the chain that failed.
    pub(super) rpc_errors: figures::Endpoints,
    /// The account of an own key, and the chain as it was read last.
    pub(super) account: Option<(Address, ChainView)>,
    pub(super) prices: &'a Prices,
    /// The price of a dollar in wei, if it is known.
    pub(super) wei_per_usd: Option<Amount>,
    pub(super) now: Time,
}

impl Figures<'_> {
    fn to_prometheus(&self) -> String {
        let mut page = figures::Page::new();
        let build = [
            ("node_type", "bctr"),
            ("compiler", "rustc"),
            ("goos", std::env::consts::OS),
            ("goversion", ""),
            ("livepeerversion", env!("CARGO_PKG_VERSION")),
        ];
        page.family("versions", "gauge", "The version of this program.");
        page.line("versions", &build, 1);
        page.value(
            "config_reload_failed_total",
            "counter",
            "Configurations that were refused on reload.",
            self.reloads_failed,
        );
        if let Some((price, age)) = self.feed {
            let help = "Price of ETH in USD, as the contract says it.";
            page.value("price_feed_value", "gauge", help, price);
            let help = "How long ago the contract got that price.";
            page.value("price_feed_age_seconds", "gauge", help, age.as_secs_f64());
        }
        self.network.write(&mut page);
        self.rpc_errors.write(&mut page);
        if let Some((payer, view)) = &self.account {
            figures::account(&mut page, view, *payer, view.age(self.now));
        }
        let (max, own) = self.prices.all(self.wei_per_usd.as_ref());
        figures::ceilings(&mut page, max.as_ref(), own);
        page.finish()
    }
}

/// The figures of front door and live entry, and all others.
pub(super) fn metrics(front: String, live: &str, more: &Figures<'_>) -> Answer {
    let text = front + live + &more.operators + &more.to_prometheus();
    (200, figures::CONTENT_TYPE, text.into())
}

/// A page that shows the stream which the last part of its path names, and sends a camera under that name.
pub(in crate::cmd) const fn watch() -> Answer {
    let page = include_bytes!("../watch.html");
    (200, "text/html; charset=utf-8", Bytes::from_static(page))
}

/// The description of the routes of a door as a page.
pub(super) fn description(door: &Config) -> Answer {
    (200, JSON, describe(door).to_string().into())
}

/// Whether a route is for applications. Live streams have clients that know their routes: media servers, encoders,
/// browsers.
fn is_described(route: Route, door: &Config) -> bool {
    match route {
        Route::Page(Page::Metrics | Page::Watch) | Route::Live(_) => false,
        Route::Container => door.containers,
        Route::App => !door.apps.is_empty(),
        Route::Completions | Route::Responses => door.is_backed(route),
        _ => true,
    }
}

/// The description of the routes, from the tables by which they are served.
fn describe(door: &Config) -> Value {
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for row in ROUTES {
        let Some(route) = row.route else {
            continue;
        };
        if !is_described(route, door) {
            continue;
        }
        let path = row.path.replace('…', "");
        let path = path
            .replace("{hex}", "{request}")
            .replace("{secret}", "{token}");
        let methods: &[Method] = match route {
            Route::App => &APP_METHODS,
            _ => row.methods,
        };
        let methods = methods.iter().map(|method| {
            let name = method.as_str().to_lowercase();
            let operation = operation(route, &path, *method);
            (name, operation)
        });
        paths.insert(path.clone(), Value::Object(methods.collect()));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Livepeer gateway",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Livepeer's batch routes, those of OpenAI that orchestrators can serve, containers and apps.",
        },
        "paths": paths,
    })
}

fn operation(route: Route, path: &str, method: Method) -> Value {
    let mut parameters: Vec<Value> = { path.split('/') }
        .filter_map(|word| word.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } }))
        .collect();
    if route == Route::Container {
        parameters.push(job_header());
    }
    let content = |kind: &str| json!({ kind: {} });
    let good = match route {
        Route::ResultFile | Route::File | Route::Speech | Route::Container | Route::App => {
            json!({ "*/*": {} })
        }
        Route::Chat | Route::Completions | Route::Responses | Route::Batch(Pipeline::Llm) => {
            json!({ JSON: {}, "text/event-stream": {} })
        }
        Route::Transcriptions | Route::Translations => {
            json!({ JSON: {}, "text/plain": {}, "text/event-stream": {} })
        }
        _ => content(JSON),
    };
    let name = path.trim_matches('/').replace(['/', '{', '}', '-'], "_");
    let name = match route {
        Route::App => format!("{}_{name}", method.as_str().to_lowercase()),
        _ => name,
    };
    let mut operation = json!({
        "operationId": name,
        "parameters": parameters,
        "responses": {
            "200": { "description": "The answer.", "content": good },
            "default": { "description": "An error, in the shape of the route.", "content": { JSON: {}, "text/plain": {} } },
        },
    });
    if let Some(body) = body(route) {
        operation["requestBody"] = body;
    }
    operation
}

/// The header that names a job for a container.
fn job_header() -> Value {
    let job = JobRequest {
        request: "{}".into(),
        parameters: "{}".into(),
        capability: "text-reversal".into(),
        timeout_seconds: 30,
        ..JobRequest::default()
    };
    json!({
        "name": "Livepeer",
        "in": "header",
        "required": true,
        "description": "The job as JSON in base64: request and parameters (JSON in texts), capability, timeout_seconds.",
        "schema": { "type": "string", "format": "byte", "minLength": 1 },
        "example": job.to_header(None),
    })
}

/// The body of a request; `None` for routes without one.
fn body(route: Route) -> Option<Value> {
    let schema = match route {
        // What a container or an app takes is its own.
        Route::Container | Route::App => {
            return Some(json!({ "content": { "*/*": {} } }));
        }
        Route::Batch(pipeline) => of_fields(pipeline),
        Route::VideoResult => object(
            &["request_id"],
            json!({ "request_id": { "type": "string", "pattern": "^[0-9a-f]{8}$" } }),
        ),
        Route::Chat => object(
            &["model", "messages"],
            json!({
                "model": text(),
                "messages": messages(),
                "max_tokens": { "type": "integer", "minimum": 1 },
                "max_completion_tokens": { "type": "integer", "minimum": 1 },
                "stream": { "type": "boolean" },
                "temperature": { "type": "number", "minimum": 0, "maximum": 2 },
                "top_p": { "type": "number", "minimum": 0, "maximum": 1 },
            }),
        ),
        Route::Completions => object(
            &["model"],
            json!({ "model": text(), "prompt": text(), "stream": { "type": "boolean" } }),
        ),
        Route::Responses => object(
            &["model"],
            json!({ "model": text(), "input": text(), "stream": { "type": "boolean" } }),
        ),
        Route::Generations => object(
            &["prompt"],
            json!({
                "prompt": text(),
                "model": any_text(),
                "n": { "type": "integer", "minimum": 1, "maximum": 10 },
                "size": {
                    "type": "string",
                    "pattern": "^(auto|[1-9][0-9]{1,3}x[1-9][0-9]{1,3})$",
                    "description": "auto, or width and height in pixels: multiples of 8 from 64 to 4096.",
                },
                "response_format": { "enum": ["url", "b64_json"] },
            }),
        ),
        Route::Edits => object(
            &["image", "prompt"],
            json!({ "image": file(), "prompt": text(), "model": any_text() }),
        ),
        Route::Transcriptions => object(
            &["file", "model"],
            json!({
                "file": file(),
                "model": text(),
                "response_format": { "enum": ["json", "text", "srt", "vtt", "verbose_json"] },
            }),
        ),
        Route::Translations => object(
            &["file", "model"],
            json!({ "file": file(), "model": text() }),
        ),
        Route::Speech => object(
            &["model", "input"],
            json!({
                "model": text(),
                "input": { "type": "string", "minLength": 1, "maxLength": 4096 },
                "voice": text(),
                "response_format": { "enum": ["wav", "flac", "pcm"] },
            }),
        ),
        Route::Embeddings => object(
            &["model", "input"],
            json!({ "model": text(), "input": text() }),
        ),
        Route::Rerank => object(
            &["model", "query", "documents"],
            json!({
                "model": text(),
                "query": text(),
                "documents": { "type": "array", "items": text() },
            }),
        ),
        _ => return None,
    };
    let kind = if route.takes_form() {
        "multipart/form-data"
    } else {
        JSON
    };
    Some(json!({ "required": true, "content": { kind: { "schema": schema } } }))
}

/// An object. What it may lack may also be null.
fn object(required: &[&str], mut properties: Value) -> Value {
    for (name, property) in properties.as_object_mut().into_iter().flatten() {
        if !required.contains(&name.as_str()) && property["type"].is_string() {
            property["type"] = json!([property["type"], "null"]);
        } else if !required.contains(&name.as_str())
            && let Some(Value::Array(values)) = property.get_mut("enum")
        {
            values.push(Value::Null);
        }
    }
    json!({ "type": "object", "required": required, "properties": properties })
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

/// A text that may be empty, which counts as if it were absent.
fn any_text() -> Value {
    json!({ "type": "string" })
}

fn file() -> Value {
    json!({ "type": "string", "format": "binary", "minLength": 1 })
}

fn messages() -> Value {
    let message = json!({
        "type": "object",
        "required": ["role", "content"],
        "properties": {
            "role": { "enum": ["system", "user", "assistant"] },
            "content": { "type": "string" },
        },
    });
    json!({ "type": "array", "minItems": 1, "maxItems": MAX_MESSAGES, "items": message })
}

/// The schema of a pipeline's request, from its table.
fn of_fields(pipeline: Pipeline) -> Value {
    let mut properties: BTreeMap<&str, Value> = { fields::of(pipeline).iter() }
        .map(|field| {
            (
                field.name,
                of_field(field, fields::file_of(pipeline).is_some()),
            )
        })
        .collect();
    let mut required = Vec::new();
    if let Some(name) = fields::file_of(pipeline) {
        properties.insert(name, file());
        required.push(name);
    }
    match pipeline {
        Pipeline::TextToImage | Pipeline::ImageToImage | Pipeline::Upscale => {
            required.push("prompt")
        }
        Pipeline::Llm => required.extend(["model", "messages", "max_tokens", "stream"]),
        Pipeline::TextToSpeech => required.push("text"),
        _ => {}
    }
    // A required text says something, and work has a size. A model without a name is the usual one.
    for name in required.iter().filter(|name| **name != "model") {
        if let Some(property) = properties.get_mut(name) {
            match property["type"].as_str() {
                Some("string") => property["minLength"] = 1.into(),
                Some("integer") => property["minimum"] = 1.into(),
                _ => {}
            }
        }
    }
    if matches!(pipeline, Pipeline::TextToImage | Pipeline::ImageToVideo) {
        for side in ["width", "height"] {
            if let Some(property) = properties.get_mut(side) {
                property["minimum"] = 1.into();
            }
        }
    }
    object(&required, json!(properties))
}

fn of_field(field: &Field, form: bool) -> Value {
    let mut schema = match field.kind {
        Kind::Model | Kind::Text => json!({ "type": "string" }),
        Kind::Integer => json!({ "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX }),
        Kind::Float => json!({ "type": "number" }),
        // As they are written in forms.
        Kind::Flag if form => {
            json!({ "enum": [true, false, 1, 0, "1", "0", "t", "f", "T", "F", "true", "false", "TRUE", "FALSE", "True", "False"] })
        }
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Messages => {
            let mut all = messages();
            // As the network reads it: what a message lacks is empty, and the runner judges roles.
            let text = json!({ "type": ["string", "null"] });
            all["items"]["required"] = json!([]);
            all["items"]["properties"] = json!({ "role": text, "content": text });
            all
        }
    };
    if !field.default.is_empty() {
        schema["description"] = format!("{} if absent.", field.default).into();
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_that_is_served_is_described() {
        let door = Config {
            containers: true,
            apps: vec!["acme/*".into()],
            ..Config::default()
        };
        let described = describe(&door);
        let paths = described["paths"].as_object().expect("an object");
        let served = { ROUTES.iter() }
            .filter(|row| row.route.is_some_and(|route| is_described(route, &door)));
        assert_eq!(paths.len(), served.count());
        let closed = describe(&Config::default());
        for path in ["/process/request/{route}", "/apps/{path}"] {
            assert!(paths.contains_key(path) && closed["paths"].get(path).is_none());
        }
        // The job that is shown is one that is taken.
        let header = &paths["/process/request/{route}"]["post"]["parameters"][1]["example"];
        let job = JobRequest::from_header(header.as_str().expect("a text"));
        assert_eq!(job.expect("a job").capability, "text-reversal");
        let schema = |path: &str, kind: &str| {
            described["paths"][path]["post"]["requestBody"]["content"][kind]["schema"].clone()
        };
        let image = schema("/image-to-image", "multipart/form-data");
        assert_eq!(image["properties"]["image"]["format"], "binary");
        assert_eq!(image["required"], json!(["image", "prompt"]));
        let llm = schema("/llm", JSON);
        assert_eq!(llm["properties"]["max_tokens"]["type"], "integer");
        assert_eq!(llm["properties"]["messages"]["type"], "array");
        let message = &llm["properties"]["messages"]["items"];
        assert_eq!(message["required"], json!([]));
        // What a schema can say of what is refused, it says.
        assert_eq!(llm["properties"]["max_tokens"]["minimum"], 1);
        assert_eq!(llm["properties"]["model"], json!({ "type": "string" }));
        let picture = schema("/text-to-image", JSON);
        assert_eq!(picture["properties"]["prompt"]["minLength"], 1);
        assert_eq!(picture["properties"]["width"]["minimum"], 1);
        // What may be left out may be null, and nothing has a list of values that is none.
        let form = schema("/upscale", "multipart/form-data");
        let flags = form["properties"]["safety_check"]["enum"].as_array();
        assert!(flags.is_some_and(|all| all.contains(&json!("T")) && all.contains(&Value::Null)));
        assert!(form["properties"]["image"].get("enum").is_none());
        let speech = schema("/text-to-speech", JSON);
        assert_eq!(speech["required"], json!(["text"]));
    }
}
