//! The front door's one error value, in the shape of each kind of route (front-door spec 1.11).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::batch::client_text;
use crate::http::Headers;

/// At most this many attempts are told.
pub const MAX_ATTEMPTS_TOLD: usize = 20;

/// The reason of a refusal. Status, type and advice about coming back follow from it, so that none of them can
/// contradict another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(
    missing_docs,
    reason = "each is the word that `name` gives, which clients know"
)]
pub enum Code {
    ArrayAboveMaxLength,
    ContentPolicyViolation,
    DecimalAboveMaxValue,
    DecimalBelowMinValue,
    Draining,
    EmptyArray,
    EmptyString,
    HeaderTooLarge,
    InsufficientQuota,
    IntegerAboveMaxValue,
    IntegerBelowMinValue,
    InternalError,
    InvalidAudio,
    InvalidContentType,
    InvalidImage,
    InvalidJson,
    InvalidMultipart,
    InvalidType,
    InvalidValue,
    MethodNotAllowed,
    MissingRequiredParameter,
    ModelNotFound,
    ModelNotSupported,
    NoMatchingOrchestrator,
    NoOrchestrator,
    OrchestratorRefused,
    OriginNotAllowed,
    OutcomeUnknown,
    Overloaded,
    RequestTimeout,
    RequestTooLarge,
    ResultUnavailable,
    RunnerFailed,
    RunnerRefused,
    StoreUnavailable,
    StringAboveMaxLength,
    UnknownParameter,
    UnknownUrl,
    UnsupportedContentEncoding,
    UnsupportedOperation,
    UnsupportedParameter,
    UnsupportedValue,
    UpstreamInvalid,
    UpstreamStreamBroken,
    UpstreamTimeout,
    UriTooLong,
}

impl Code {
    /// The word in an answer.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ArrayAboveMaxLength => "array_above_max_length",
            Self::ContentPolicyViolation => "content_policy_violation",
            Self::DecimalAboveMaxValue => "decimal_above_max_value",
            Self::DecimalBelowMinValue => "decimal_below_min_value",
            Self::Draining => "draining",
            Self::EmptyArray => "empty_array",
            Self::EmptyString => "empty_string",
            Self::HeaderTooLarge => "header_too_large",
            Self::InsufficientQuota => "insufficient_quota",
            Self::IntegerAboveMaxValue => "integer_above_max_value",
            Self::IntegerBelowMinValue => "integer_below_min_value",
            Self::InternalError => "internal_error",
            Self::InvalidAudio => "invalid_audio",
            Self::InvalidContentType | Self::UnsupportedContentEncoding => "invalid_content_type",
            Self::InvalidImage => "invalid_image",
            Self::InvalidJson => "invalid_json",
            Self::InvalidMultipart => "invalid_multipart",
            Self::InvalidType => "invalid_type",
            Self::InvalidValue => "invalid_value",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::MissingRequiredParameter => "missing_required_parameter",
            Self::ModelNotFound => "model_not_found",
            Self::ModelNotSupported => "model_not_supported",
            Self::NoMatchingOrchestrator => "no_matching_orchestrator",
            Self::NoOrchestrator => "no_orchestrator",
            Self::OrchestratorRefused => "orchestrator_refused",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Overloaded => "overloaded",
            Self::RequestTimeout => "request_timeout",
            Self::RequestTooLarge => "request_too_large",
            Self::ResultUnavailable => "result_unavailable",
            Self::RunnerFailed => "runner_failed",
            Self::RunnerRefused => "runner_refused",
            Self::StoreUnavailable => "store_unavailable",
            Self::StringAboveMaxLength => "string_above_max_length",
            Self::UnknownParameter => "unknown_parameter",
            Self::UnknownUrl => "unknown_url",
            Self::UnsupportedOperation => "unsupported_operation",
            Self::UnsupportedParameter => "unsupported_parameter",
            Self::UnsupportedValue => "unsupported_value",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::UpstreamStreamBroken => "upstream_stream_broken",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UriTooLong => "uri_too_long",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InsufficientQuota => 402,
            Self::OriginNotAllowed => 403,
            Self::UnknownUrl | Self::ModelNotFound | Self::NoMatchingOrchestrator => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::RequestTooLarge => 413,
            Self::UriTooLong => 414,
            Self::UnsupportedContentEncoding => 415,
            Self::HeaderTooLarge => 431,
            Self::OutcomeUnknown
            | Self::InternalError
            | Self::RunnerFailed
            | Self::UpstreamStreamBroken => 500,
            Self::UpstreamInvalid | Self::ResultUnavailable => 502,
            Self::NoOrchestrator | Self::Overloaded | Self::Draining | Self::StoreUnavailable => {
                503
            }
            Self::UpstreamTimeout => 504,
            _ => 400,
        }
    }

    /// OpenAI's `type`: whose fault it is.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        if matches!(self, Self::InsufficientQuota) {
            "insufficient_quota"
        } else if self.status() >= 500 {
            "server_error"
        } else {
            "invalid_request_error"
        }
    }

    /// The header fields that say whether and when to come back. Clients of OpenAI obey them, and retry 5xx otherwise.
    fn advice(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::NoMatchingOrchestrator
            | Self::ContentPolicyViolation
            | Self::InsufficientQuota
            | Self::OutcomeUnknown
            // Each try costs a fee.
            | Self::UpstreamInvalid
            | Self::ResultUnavailable => &[("x-should-retry", "false")],
            Self::NoOrchestrator => &[("retry-after", "2")],
            Self::Overloaded | Self::Draining | Self::StoreUnavailable => {
                &[("retry-after-ms", "250"), ("x-should-retry", "true")]
            }
            Self::RequestTimeout | Self::RequestTooLarge | Self::HeaderTooLarge | Self::UriTooLong => {
                &[("connection", "close")]
            }
            _ => &[],
        }
    }
}

/// The shape of an answer that refuses: each kind of route has its own, because its clients read no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `{"error":{"message","type","param","code"}}`, on `/v1`.
    OpenAi,
    /// `{"error":{"message"},"detail":{"msg"}}`, on Livepeer's own routes: Go's clients read the one half, Livepeer's
    /// SDKs the other.
    Native,
    /// The text alone, on file routes.
    Plain,
}

impl Shape {
    /// The content type of a refusal.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Native => "application/json",
            Self::Plain => "text/plain; charset=utf-8",
        }
    }
}

/// A request that is answered with an error: what is wrong, and what the caller can do about it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The reason.
    pub code: Code,
    /// The sentence that names cause and remedy.
    pub message: String,
    /// The parameter that is at fault, as a path: `messages[0].role`.
    pub param: Option<String>,
    /// Header fields beside those that follow from the code.
    pub headers: Headers,
    /// Further facts for programs. OpenAI's shape alone has a place for them.
    metadata: Map<String, Value>,
}

impl Refused {
    /// Refuses for that reason, in these words.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
            headers: Headers::new(),
            metadata: Map::new(),
        }
    }

    /// Names the parameter that is at fault.
    #[must_use]
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Adds a header field; `name` in lower case.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    pub(super) fn telling(mut self, key: &str, value: Value) -> Self {
        self.metadata.insert(key.into(), value);
        self
    }

    /// Refuses to work for a web page that the operator did not name.
    #[must_use]
    pub fn origin(origin: &str) -> Self {
        let text =
            "may not ask this gateway for work; its operator can name the page in serve.cors.";
        Self::new(Code::OriginNotAllowed, format!("The page {origin} {text}"))
    }

    /// Refuses a path that leads nowhere.
    #[must_use]
    pub fn unknown_url(method: &str, path: &str) -> Self {
        Self::new(
            Code::UnknownUrl,
            format!("Unknown request URL: {method} {path}. Check the path and the method."),
        )
    }

    /// Refuses a segment that is pushed for transcoding, which nothing here does.
    #[must_use]
    pub fn segment(method: &str, path: &str) -> Self {
        Self::new(
            Code::UnknownUrl,
            format!(
                "{method} {path}: segments are not taken by HTTP. Send the stream by RTMP, or by WHIP to \
                 /live/video-to-video/{{stream}}/whip."
            ),
        )
    }

    /// Refuses a method that a path does not have; `allowed` as in the header field `Allow`.
    #[must_use]
    pub fn method(method: &str, path: &str, allowed: &str) -> Self {
        Self::new(
            Code::MethodNotAllowed,
            format!("Method {method} is not allowed for {path}; use {allowed}."),
        )
        .with("allow", allowed)
    }

    /// Refuses a body that is longer than `limit` bytes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            Code::RequestTooLarge,
            format!("The request body is larger than {limit} bytes."),
        )
    }

    /// Refuses a body of that media type, where JSON is taken.
    #[must_use]
    pub fn not_json(media_type: &str) -> Self {
        Self::new(
            Code::InvalidContentType,
            format!("This route takes a JSON body, not {media_type}."),
        )
    }

    /// Refuses a model that nobody serves.
    #[must_use]
    pub fn no_model(asked: &str) -> Self {
        Self::new(
            Code::ModelNotFound,
            format!("The model '{asked}' does not exist or you do not have access to it."),
        )
        .at("model")
    }

    /// Says that no orchestrator did the job, and why not, for each that was tried: its URL and a word or two.
    #[must_use]
    pub fn no_orchestrator<'a>(
        pipeline: &str,
        attempts: impl IntoIterator<Item = (String, &'a str)>,
    ) -> Self {
        let all: Vec<Value> = attempts
            .into_iter()
            .map(|(orchestrator, reason)| json!({"orchestrator": orchestrator, "reason": reason}))
            .collect();
        let refused = Self::new(
            Code::NoOrchestrator,
            format!(
                "No orchestrator could do this {pipeline} job; {} {} tried.",
                all.len(),
                if all.len() == 1 { "was" } else { "were" }
            ),
        );
        if all.is_empty() {
            return refused;
        }
        let told = all.into_iter().take(MAX_ATTEMPTS_TOLD).collect();
        refused.telling("attempts", Value::Array(told))
    }

    /// Says that none of the orchestrators that are known could be tried, and when the first of those that are left alone
    /// for a while may be.
    #[must_use]
    pub fn nobody_free(pipeline: &str, known: usize, again: Option<Duration>) -> Self {
        let none = match known {
            1 => "the one that is known is not free".to_string(),
            _ => format!("none of the {known} that are known is free"),
        };
        let again = again.map_or_else(String::new, |after| {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            format!("; the first one may be asked again in {} s", seconds.max(1))
        });
        Self::new(
            Code::NoOrchestrator,
            format!("No orchestrator could do this {pipeline} job: {none}{again}."),
        )
    }

    /// Says that the last orchestrator's answer was of no use. Each try costs a fee, so the caller is not asked to come
    /// back.
    #[must_use]
    pub fn no_answer(pipeline: &str) -> Self {
        Self::new(
            Code::UpstreamInvalid,
            format!("The orchestrator's answer is not one of {pipeline}."),
        )
    }

    /// Says that the request's own preferences leave nobody: how many candidates each of them excludes.
    #[must_use]
    pub fn no_match(excluded: &[(&str, usize)]) -> Self {
        let why = if excluded.is_empty() {
            "none of 'order' is available and 'allow_fallbacks' is false".to_string()
        } else {
            let each: Vec<String> = excluded
                .iter()
                .map(|(key, count)| format!("{key} excludes {count}"))
                .collect();
            each.join(", ")
        };
        let refused = Self::new(
            Code::NoMatchingOrchestrator,
            format!("No orchestrator fits this request's 'provider': {why}."),
        )
        .at("provider");
        if excluded.is_empty() {
            return refused;
        }
        let counts = excluded
            .iter()
            .map(|(key, count)| ((*key).to_string(), Value::from(*count)))
            .collect();
        refused.telling("excluded", Value::Object(counts))
    }

    /// Passes on what a peer said: shortened, without control characters.
    #[must_use]
    pub fn peer(code: Code, said: &str) -> Self {
        Self::new(code, client_text(said))
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.code.status()
    }

    /// The header fields of the answer, but for type and length of its body.
    pub fn all_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.code
            .advice()
            .iter()
            .copied()
            .chain(self.headers.iter())
    }

    /// The body of the answer.
    #[must_use]
    pub fn body(&self, shape: Shape) -> Bytes {
        match shape {
            Shape::OpenAi => self.open_ai().to_string().into(),
            Shape::Native => {
                json!({"error": {"message": self.message}, "detail": {"msg": self.message}})
                    .to_string()
                    .into()
            }
            Shape::Plain => format!("{}\n", self.message).into(),
        }
    }

    /// The event of a stream whose head is out already.
    #[must_use]
    pub fn event(&self) -> Bytes {
        format!("data: {}\n\n", self.open_ai()).into()
    }

    fn open_ai(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": self.code.kind(),
            "param": self.param,
            "code": self.code.name(),
        });
        if !self.metadata.is_empty() {
            error["metadata"] = Value::Object(self.metadata.clone());
        }
        json!({ "error": error })
    }
}
