//! `POST /v1/chat/completions`, done by language models of the network (front-door spec 1.4).

use alloc::borrow::{Cow, ToOwned as _};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::stops::Stops;
use super::{Asked as Any, Reading, Settings, Translated, default, model_of, unsupported, wrong};
use crate::models::Models;
use crate::pipeline::Pipeline;
use crate::time::Time;
use crate::wire::batch::fields::Message;
use crate::wire::batch::{BatchRequest, Completion, MAX_MESSAGES, Usage};
use crate::wire::json::{push_number, push_text};
use crate::wire::refused::{Code, Refused};
use crate::wire::strict::{Field, Object, missing, not_among, object};

/// At most this many stop strings.
pub const MAX_STOPS: usize = 4;
/// At most this many bytes in each.
pub const MAX_STOP_BYTES: usize = 64;
/// At most this many pairs of metadata.
pub const MAX_METADATA: usize = 16;

/// Wishes of a chat that its answer heeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whether the answer is a stream of events.
    pub stream: bool,
    /// Whether the stream tells the tokens at its end.
    pub include_usage: bool,
    /// Texts before which the answer ends.
    pub stop: Vec<String>,
    /// The tokens that the answer may have.
    pub max_tokens: u32,
    /// The id of the model.
    pub model: String,
}

const PIPELINE: Pipeline = Pipeline::Llm;

/// Reads a request. `header` is the value of `Livepeer-Provider`.
///
/// # Errors
/// For the first thing that is wrong with it.
pub fn read(
    body: &[u8],
    header: Option<&str>,
    models: &Models,
    settings: &Settings,
) -> Result<Translated, Refused> {
    let all = object(body)?;
    let model = model_of(&all, PIPELINE, models)?;
    let mut reading = Reading::of_json(PIPELINE, &all, header, settings)?;
    let messages = messages(&all.need("messages")?)?;
    refuse_other_shapes(&all)?;

    let mut request = BatchRequest::new(PIPELINE);
    request.set_model(&*model);
    let mut asked = Asked {
        stream: false,
        include_usage: false,
        stop: Vec::new(),
        max_tokens: settings
            .per_model
            .get(&model)
            .and_then(|of| of.max_tokens)
            .unwrap_or(settings.max_tokens),
        model,
    };
    let mut defaults = Vec::new();
    let limit = i64::from(settings.most_tokens);
    let tokens = |name| {
        all.get(name)
            .map(|value| value.integer(1, limit))
            .transpose()
    };
    match (tokens("max_completion_tokens")?, tokens("max_tokens")?) {
        (Some(most), _) | (None, Some(most)) => {
            asked.max_tokens = u32::try_from(most).unwrap_or(settings.most_tokens);
        }
        (None, None) => defaults.push(default("max_tokens", asked.max_tokens)),
    }
    for (name, value) in all.iter() {
        match name {
            "model" | "messages" | "provider" | "max_tokens" | "max_completion_tokens"
            // Looked at already, and harmless.
            | "n" | "tools" | "tool_choice" | "functions" | "function_call" | "response_format" | "logprobs"
            | "modalities"
            // Of no effect on the answer.
            | "user" | "store" | "service_tier" | "safety_identifier" | "prompt_cache_key"
            | "prompt_cache_retention" | "parallel_tool_calls" => {}
            "metadata" => metadata(&value)?,
            "stream" => asked.stream = value.flag()?,
            "stream_options" => asked.include_usage = stream_options(&all, &value)?,
            "stop" => asked.stop = stops(&value)?,
            "temperature" => number(&mut request, &value, name, 2)?,
            "top_p" => number(&mut request, &value, name, 1)?,
            "top_k" => {
                let most = value.integer(-1, i64::from(i32::MAX))?;
                request.set(name, most).map_err(wrong)?;
            }
            _ if value.is_neutral() => {}
            _ => reading.ignore(name)?,
        }
    }
    request.set("messages", messages).map_err(wrong)?;
    request.set("stream", asked.stream).map_err(wrong)?;
    request
        .set("max_tokens", i64::from(asked.max_tokens))
        .map_err(wrong)?;
    Ok(Translated {
        request,
        preferences: reading.preferences,
        asked: Any::Chat(asked),
        ignored: reading.ignored,
        defaults,
    })
}

fn number(
    request: &mut BatchRequest,
    value: &Field<'_>,
    name: &str,
    most: i32,
) -> Result<(), Refused> {
    let text = value.decimal(0, most)?;
    request.set_text(name, text).map_err(wrong)
}

/// Refuses what would give the answer another shape.
fn refuse_other_shapes(all: &Object<'_>) -> Result<(), Refused> {
    if let Some(n) = all.get("n") {
        n.integer(i64::MIN, i64::MAX)?;
        if n.raw() != "1" {
            return Err(Refused::new(
                Code::UnsupportedValue,
                format!("Unsupported value: 'n' must be 1 with the {PIPELINE} pipeline."),
            )
            .at("n"));
        }
    }
    let unused = all
        .get("tool_choice")
        .is_some_and(|choice| choice.raw() == "\"none\"");
    for name in ["tools", "functions"] {
        let Some(list) = all.get(name) else { continue };
        let any = !list.list(usize::MAX, "an array")?.is_empty();
        if any && (name == "functions" || !unused) {
            return Err(unsupported(name, PIPELINE));
        }
    }
    if let Some(format) = all.get("response_format") {
        let kind = format.object()?.need("type")?.text()?;
        if kind != "text" {
            return Err(Refused::new(
                Code::UnsupportedParameter,
                format!(
                    "Unsupported parameter: 'response_format' of type '{kind}' is not supported with the {PIPELINE} pipeline."
                ),
            )
            .at("response_format"));
        }
    }
    if let Some(wanted) = all.get("logprobs")
        && wanted.flag()?
    {
        return Err(unsupported("logprobs", PIPELINE));
    }
    if let Some(modalities) = all.get("modalities") {
        for modality in modalities.list(usize::MAX, "an array")? {
            if modality.text()? != "text" {
                return Err(unsupported("modalities", PIPELINE));
            }
        }
    }
    for name in ["audio", "web_search_options"] {
        if all.get(name).is_some() {
            return Err(unsupported(name, PIPELINE));
        }
    }
    Ok(())
}

fn metadata(value: &Field<'_>) -> Result<(), Refused> {
    let pairs = value.object()?.len();
    if pairs > MAX_METADATA {
        return Err(Refused::new(
            Code::ArrayAboveMaxLength,
            format!(
                "Invalid 'metadata': too many pairs. Expected at most {MAX_METADATA}, but got {pairs} instead."
            ),
        )
        .at("metadata"));
    }
    Ok(())
}

/// Whether the stream tells the tokens.
fn stream_options(all: &Object<'_>, value: &Field<'_>) -> Result<bool, Refused> {
    let options = value.object()?;
    if !matches!(all.get("stream"), Some(stream) if stream.flag()?) {
        return Err(Refused::new(
            Code::InvalidValue,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        )
        .at("stream_options"));
    }
    options
        .get("include_usage")
        .map_or(Ok(false), |wanted| wanted.flag())
}

fn stops(value: &Field<'_>) -> Result<Vec<String>, Refused> {
    const EXPECTED: &str = "a string or an array of strings";
    let all = if value.is_text() {
        Vec::from([value.text()?])
    } else {
        let list = value.list(MAX_STOPS, EXPECTED)?;
        list.iter().map(Field::text).collect::<Result<_, _>>()?
    };
    for stop in &all {
        if stop.len() > MAX_STOP_BYTES {
            return Err(Refused::new(
                Code::StringAboveMaxLength,
                format!(
                    "Invalid 'stop': string too long. Expected a string with maximum length {MAX_STOP_BYTES}, but got a string with length {} instead.",
                    stop.len()
                ),
            )
            .at("stop"));
        }
    }
    let all = all.into_iter().filter(|stop| !stop.is_empty());
    Ok(all.map(Cow::into_owned).collect())
}

fn messages(value: &Field<'_>) -> Result<Vec<Message>, Refused> {
    let list = value.list(MAX_MESSAGES, "an array")?;
    if list.is_empty() {
        return Err(Refused::new(
            Code::EmptyArray,
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        )
        .at("messages"));
    }
    list.iter().map(message).collect()
}

fn message(value: &Field<'_>) -> Result<Message, Refused> {
    let message = value.object()?;
    let role_field = message.need("role")?;
    let role = role_field.text()?;
    let calls = |name| message.get(name).is_some_and(|calls| !calls.is_neutral());
    if matches!(&*role, "tool" | "function") || calls("tool_calls") || calls("function_call") {
        return Err(Refused::new(
            Code::UnsupportedValue,
            format!(
                "Unsupported value: '{}' belongs to a tool call, which the {PIPELINE} pipeline does not support.",
                value.path
            ),
        )
        .at(&*value.path));
    }
    let role = match &*role {
        "developer" => "system",
        known @ ("system" | "user" | "assistant") => known,
        other => {
            let known = ["system", "developer", "user", "assistant"];
            return Err(not_among(&role_field.path, other, &known));
        }
    };
    let content = match message.get("content") {
        Some(content) => words(&content)?,
        None if role == "assistant" => String::new(),
        None => return Err(missing(&format!("{}.content", value.path))),
    };
    Ok(Message::new(role, content))
}

/// The words of a message: a text, or parts of text with a line end between.
fn words(content: &Field<'_>) -> Result<String, Refused> {
    if content.is_text() {
        return Ok(content.text()?.into_owned());
    }
    let parts = content.list(usize::MAX, "a string or an array of parts")?;
    let words: Vec<Cow<'_, str>> = parts.iter().map(part).collect::<Result<_, _>>()?;
    Ok(words.join("\n"))
}

fn part<'a>(value: &Field<'a>) -> Result<Cow<'a, str>, Refused> {
    let part = value.object()?;
    let kind_field = part.need("type")?;
    let kind = kind_field.text()?;
    match &*kind {
        "text" => part.need("text")?.text(),
        "refusal" => part.need("refusal")?.text(),
        other => Err(Refused::new(
            Code::UnsupportedValue,
            format!(
                "Unsupported value: '{}' is of type '{other}'; the {PIPELINE} pipeline takes text only.",
                value.path
            ),
        )
        .at(&*kind_field.path)),
    }
}

/// Writes the whole answer: `request_id` and `now` stand in for what the runner does not say.
#[must_use]
pub fn answer(asked: &Asked, completion: &Completion, request_id: &str, now: Time) -> Bytes {
    let choice = completion.choices.first();
    let content = choice.map_or("", |choice| choice.content.as_str());
    let mut stops = Stops::new(&asked.stop);
    let mut passed = stops.pass(content);
    passed.text.push_str(&stops.rest());
    let reason = choice.map_or("", |choice| choice.finish_reason.as_str());
    let reason = if passed.stopped {
        "stop"
    } else {
        finish_reason(reason, &completion.usage, asked)
    };
    let mut out = Vec::with_capacity(passed.text.len() + 400);
    let mut raw = |json: &str| out.extend_from_slice(json.as_bytes());
    raw("{\"choices\":[{\"finish_reason\":\"");
    raw(reason);
    raw("\",\"index\":0,\"logprobs\":null,\"message\":{\"content\":");
    push_text(&mut out, &passed.text);
    out.extend_from_slice(b",\"refusal\":null,\"role\":\"assistant\"}}],\"created\":");
    push_number(&mut out, created(completion, now));
    out.extend_from_slice(b",\"id\":");
    push_text(&mut out, &id(&completion.id, request_id));
    out.extend_from_slice(b",\"model\":");
    push_text(&mut out, model(&completion.model, asked));
    out.extend_from_slice(b",\"object\":\"chat.completion\",\"usage\":");
    push_usage(&mut out, &completion.usage);
    out.push(b'}');
    out.into()
}

/// OpenAI's word for why an answer ends. Runners say `stop` even where they ran into the limit.
pub(super) fn finish_reason(said: &str, usage: &Usage, asked: &Asked) -> &'static str {
    match said {
        "length" => "length",
        "content_filter" => "content_filter",
        _ if usage.completion_tokens == u64::from(asked.max_tokens) => "length",
        _ => "stop",
    }
}

pub(super) fn id(said: &str, request_id: &str) -> String {
    if said.is_empty() {
        format!("chatcmpl-{request_id}")
    } else {
        said.to_owned()
    }
}

pub(super) fn created(completion: &Completion, now: Time) -> i64 {
    match completion.created {
        0 => i64::try_from(now.as_secs()).unwrap_or(0),
        said => said,
    }
}

pub(super) fn model<'a>(said: &'a str, asked: &'a Asked) -> &'a str {
    if said.is_empty() { &asked.model } else { said }
}

pub(super) fn push_usage(out: &mut Vec<u8>, usage: &Usage) {
    let all = [
        ("{\"completion_tokens\":", usage.completion_tokens),
        (",\"prompt_tokens\":", usage.prompt_tokens),
        (",\"total_tokens\":", usage.total_tokens),
    ];
    for (name, count) in all {
        out.extend_from_slice(name.as_bytes());
        push_number(out, count);
    }
    out.push(b'}');
}
