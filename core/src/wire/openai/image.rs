//! `POST /v1/images/generations` and `/v1/images/edits` (front-door spec 1.6, 1.7).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::form::{self, Form};
use super::{Asked as Any, Reading, Settings, Translated, default, model, written, wrong};
use crate::models::Models;
use crate::pipeline::Pipeline;
use crate::time::Time;
use crate::wire::batch::fields::{self, Kind};
use crate::wire::batch::{BatchRequest, FilePart};
use crate::wire::refused::{Code, Refused};
use crate::wire::strict::{Field, missing, not_among, object};

/// At most this many pictures of one request.
pub const MAX_PICTURES: i64 = 10;
/// The smallest and the largest width and height, and what both are multiples of.
const SIDES: (u32, u32, u32) = (64, 4_096, 8);

/// Wishes of a request that its answer with pictures heeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whether the pictures are in the answer itself, instead of addresses.
    pub inline: bool,
    /// Their width and height; of an edit that is the size of its picture, once that is known.
    pub size: Option<(u32, u32)>,
    /// The size that an edit asked for, which has no effect.
    edit_size: Option<String>,
    /// Whether an answer is refused if all pictures are flagged.
    refuse_nsfw: bool,
}

/// A picture of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// The address at which the client finds it. Not looked at if the client wants the bytes.
    pub url: &'a str,
    /// Its bytes.
    pub content: &'a [u8],
    /// The seed that makes the same again.
    pub seed: i64,
    /// Whether the model thinks that it should not be shown everywhere.
    pub nsfw: bool,
}

/// Reads a request for pictures from words.
///
/// # Errors
/// For the first thing that is wrong with it.
pub fn read(
    body: &[u8],
    header: Option<&str>,
    models: &Models,
    settings: &Settings,
) -> Result<Translated, Refused> {
    const PIPELINE: Pipeline = Pipeline::TextToImage;
    let all = object(body)?;
    let mut reading = Reading::of_json(PIPELINE, &all, header, settings)?;
    let prompt = all.need("prompt")?.words()?;
    let mut defaults = Vec::new();
    let named = all.get("model").map(|value| value.text()).transpose()?;
    let named = named.filter(|name| !name.is_empty());
    let id = match &named {
        Some(name) => model(name, PIPELINE, models)?,
        None => default_model(PIPELINE, &mut defaults),
    };
    let mut request = BatchRequest::new(PIPELINE);
    request.set_model(&*id);
    request.set("prompt", &*prompt).map_err(wrong)?;
    let count = all
        .get("n")
        .map_or(Ok(1), |value| value.integer(1, MAX_PICTURES))?;
    let (width, height) = match all.get("size").map(|value| value.text()).transpose()? {
        Some(size) if size != "auto" => read_size(&size)?,
        _ => {
            let of = settings.per_model.get(&id).and_then(|of| of.size);
            let (width, height) = of.unwrap_or(settings.size);
            defaults.push(default("size", format_args!("{width}x{height}")));
            (width, height)
        }
    };
    let format = all
        .get("response_format")
        .map(|value| value.text())
        .transpose()?;
    let asked = Asked {
        inline: is_inline(format.as_deref(), named.as_deref().unwrap_or(""))?,
        size: Some((width, height)),
        edit_size: None,
        refuse_nsfw: settings.refuse_nsfw,
    };
    for (name, value) in all.iter() {
        match name {
            "prompt" | "model" | "n" | "size" | "response_format" | "provider" | "user"
            | "safety_identifier" => {}
            "output_format" => png(&value.text()?)?,
            "output_compression" if value.raw() == "100" => {}
            "background" => opaque(&value.text()?)?,
            "quality" | "style" | "moderation" if is_plain(&value) => {}
            "stream" | "partial_images" if !value.is_neutral() => {
                return Err(Refused::new(
                    Code::UnsupportedParameter,
                    format!("Unsupported parameter: '{name}' is not supported for images."),
                )
                .at(name));
            }
            _ if is_extension(PIPELINE, name) => extend(&mut request, name, &value)?,
            _ if value.is_neutral() => {}
            _ => reading.ignore(name)?,
        }
    }
    for (name, value) in [
        ("width", i64::from(width)),
        ("height", i64::from(height)),
        ("num_images_per_prompt", count),
    ] {
        request.set(name, value).map_err(wrong)?;
    }
    Ok(Translated {
        request,
        preferences: reading.preferences,
        asked: Any::Images(asked),
        ignored: reading.ignored,
        defaults,
    })
}

/// Reads a request for a picture from a picture.
///
/// # Errors
/// For the first thing that is wrong with it.
pub fn read_edit(
    content_type: &str,
    body: &Bytes,
    header: Option<&str>,
    models: &Models,
    settings: &Settings,
) -> Result<Translated, Refused> {
    const PIPELINE: Pipeline = Pipeline::ImageToImage;
    let all = Form::read(content_type, body)?;
    let provider = all.text("provider")?;
    let mut reading = Reading::new(PIPELINE, provider, header, settings)?;
    if all.all("mask").next().is_some() {
        return Err(super::unsupported("mask", PIPELINE));
    }
    let mut pictures = all.all("image");
    let picture = pictures.next().ok_or_else(|| missing("image"))?;
    if pictures.next().is_some() {
        return Err(Refused::new(
            Code::UnsupportedValue,
            format!("Unsupported value: 'image' must be one image with the {PIPELINE} pipeline."),
        )
        .at("image"));
    }
    let prompt = all.need("prompt")?;
    let count = all.integer("n", 1, MAX_PICTURES)?.unwrap_or(1);
    if !is_picture(&picture.content) {
        return Err(unreadable());
    }
    let mut defaults = Vec::new();
    let named = all.text("model")?.filter(|name| !name.is_empty());
    let id = match named {
        Some(name) => model(name, PIPELINE, models)?,
        None => default_model(PIPELINE, &mut defaults),
    };
    let mut request = BatchRequest::new(PIPELINE);
    request.set_model(&*id);
    request.set("prompt", prompt).map_err(wrong)?;
    request.set("num_images_per_prompt", count).map_err(wrong)?;
    request
        .set_file(FilePart {
            name: picture.file_name.clone().unwrap_or_else(|| "image".into()),
            content: picture.content.clone(),
        })
        .map_err(wrong)?;
    let mut asked = Asked {
        inline: is_inline(all.text("response_format")?, named.unwrap_or(""))?,
        size: None,
        edit_size: None,
        refuse_nsfw: settings.refuse_nsfw,
    };
    for (name, part) in all.iter() {
        match name {
            "image" | "prompt" | "model" | "n" | "response_format" | "provider" | "user"
            | "safety_identifier" => {}
            "size" => match form::text(name, part)? {
                "auto" => {}
                size => asked.edit_size = Some(size.into()),
            },
            "output_format" => png(form::text(name, part)?)?,
            "background" => opaque(form::text(name, part)?)?,
            "quality" | "style" | "moderation" | "input_fidelity"
                if matches!(&*part.content, b"auto" | b"standard" | b"low") => {}
            "output_compression" if *part.content == *b"100" => {}
            "stream" | "partial_images" if !matches!(&*part.content, b"false" | b"0") => {
                return Err(Refused::new(
                    Code::UnsupportedParameter,
                    format!("Unsupported parameter: '{name}' is not supported for images."),
                )
                .at(name));
            }
            "stream" | "partial_images" => {}
            _ if is_extension(PIPELINE, name) => {
                let text = form::text(name, part)?;
                request.set_text(name, text).map_err(|_| {
                    let kind = kind_of(PIPELINE, name).map_or("a value", words);
                    form::not(name, kind, text)
                })?;
            }
            _ => reading.ignore(name)?,
        }
    }
    Ok(Translated {
        request,
        preferences: reading.preferences,
        asked: Any::Images(asked),
        ignored: reading.ignored,
        defaults,
    })
}

impl Asked {
    /// Takes the size of the picture of an edit. The answer has that size too, so any other that was asked for is told
    /// as ignored: its name is the answer then.
    pub fn measured(&mut self, width: u32, height: u32) -> Option<&'static str> {
        self.size = Some((width, height));
        let other = self.edit_size.take()?;
        (other != format!("{width}x{height}")).then_some("size")
    }
}

/// The refusal of a picture that cannot be decoded.
#[must_use]
pub fn unreadable() -> Refused {
    Refused::new(
        Code::InvalidImage,
        "The image is not a readable PNG, JPEG or GIF.",
    )
    .at("image")
}

/// Writes the answer.
///
/// # Errors
/// If there is no picture, or all of them are flagged and the gateway refuses those.
pub fn answer(asked: &Asked, pictures: &[Picture<'_>], now: Time) -> Result<Bytes, Refused> {
    if pictures.is_empty() {
        return Err(Refused::new(
            Code::UpstreamInvalid,
            "The orchestrator answered without an image.",
        ));
    }
    if asked.refuse_nsfw && pictures.iter().all(|picture| picture.nsfw) {
        return Err(Refused::new(
            Code::ContentPolicyViolation,
            "The model flagged every picture as unsafe, and this gateway does not pass those on.",
        ));
    }
    let data: Vec<Value> = pictures
        .iter()
        .map(|picture| {
            let mut one = if asked.inline {
                json!({"b64_json": STANDARD.encode(picture.content)})
            } else {
                json!({"url": picture.url})
            };
            one["seed"] = picture.seed.into();
            if picture.nsfw {
                one["nsfw"] = true.into();
            }
            one
        })
        .collect();
    let mut answer = json!({"created": now.as_secs(), "data": data, "output_format": "png"});
    if let Some((width, height)) = asked.size {
        answer["size"] = format!("{width}x{height}").into();
    }
    Ok(written(&answer).into())
}

fn default_model(pipeline: Pipeline, defaults: &mut Vec<String>) -> String {
    let id = pipeline.default_model();
    defaults.push(default("model", id));
    id.into()
}

fn read_size(text: &str) -> Result<(u32, u32), Refused> {
    let bad = |why: &str| {
        let shown: String = text.chars().take(64).collect();
        Refused::new(
            Code::InvalidValue,
            format!("Invalid value: '{shown}'. {why}"),
        )
        .at("size")
    };
    let side = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u32::MAX))
    };
    let sides = text
        .split_once('x')
        .and_then(|(w, h)| Some((side(w)?, side(h)?)));
    let (width, height) =
        sides.ok_or_else(|| bad("Expected 'auto' or '<width>x<height>' in pixels."))?;
    let (least, most, step) = SIDES;
    let good = |side: u32| (least..=most).contains(&side) && side.is_multiple_of(step);
    if !good(width) || !good(height) {
        return Err(bad(&format!(
            "Width and height must be multiples of {step} from {least} to {most}."
        )));
    }
    Ok((width, height))
}

/// OpenAI's own image models answer with bytes and take no format; their clients rely on it, whatever stands behind the
/// name.
fn is_inline(format: Option<&str>, named: &str) -> Result<bool, Refused> {
    match format {
        None => Ok(["gpt-image", "chatgpt-image"]
            .iter()
            .any(|prefix| named.starts_with(prefix))),
        Some("url") => Ok(false),
        Some("b64_json") => Ok(true),
        Some(other) => Err(not_among("response_format", other, &["url", "b64_json"])),
    }
}

fn png(format: &str) -> Result<(), Refused> {
    if format == "png" {
        return Ok(());
    }
    Err(Refused::new(
        Code::UnsupportedValue,
        format!("Unsupported value: 'output_format' must be 'png', not '{format}'."),
    )
    .at("output_format"))
}

fn opaque(background: &str) -> Result<(), Refused> {
    if background != "transparent" {
        return Ok(());
    }
    Err(Refused::new(
        Code::UnsupportedValue,
        "Unsupported value: 'background' cannot be 'transparent'.",
    )
    .at("background"))
}

fn is_plain(value: &Field<'_>) -> bool {
    matches!(value.raw(), "\"auto\"" | "\"standard\"")
}

fn is_picture(bytes: &[u8]) -> bool {
    let magic: [&[u8]; 4] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"];
    magic.iter().any(|magic| bytes.starts_with(magic))
}

fn kind_of(pipeline: Pipeline, name: &str) -> Option<Kind> {
    fields::of(pipeline)
        .iter()
        .find(|field| field.name == name)
        .map(|field| field.kind)
}

/// Whether a parameter is one of the pipeline's own, beyond OpenAI's.
fn is_extension(pipeline: Pipeline, name: &str) -> bool {
    !matches!(
        name,
        "model_id" | "width" | "height" | "num_images_per_prompt"
    ) && kind_of(pipeline, name).is_some()
}

fn extend(request: &mut BatchRequest, name: &str, value: &Field<'_>) -> Result<(), Refused> {
    match kind_of(request.pipeline(), name) {
        Some(Kind::Integer) => {
            let number = value.integer(i64::MIN, i64::MAX)?;
            request.set(name, number).map_err(wrong)
        }
        Some(Kind::Float) => {
            let number = value.decimal(i32::MIN, i32::MAX)?;
            request.set_text(name, number).map_err(wrong)
        }
        Some(Kind::Flag) => request.set(name, value.flag()?).map_err(wrong),
        _ => request.set(name, &*value.text()?).map_err(wrong),
    }
}

const fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => "an integer",
        Kind::Float => "a number",
        Kind::Flag => "a boolean",
        _ => "a text",
    }
}
