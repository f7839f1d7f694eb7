//! Runners of batch work that need no GPU: toys, but honest ones. Their results depend on what they are given and on
//! nothing else, and show it.

use bytes::Bytes;
use livepeer_core::Pipeline;
use livepeer_core::Time;
use livepeer_core::sign::keccak;
use livepeer_core::wire::batch::fields::Value as Field;
use livepeer_core::wire::batch::{BatchRequest, Media};
use serde_json::{Value, json};

use super::chat::{self, Chat};
use super::picture::Picture;
use super::runner::Refused;
use super::sound;

/// The longest side of a picture, in pixels.
pub const MAX_SIDE: u32 = 4096;

/// At most this many pixels are made for one request, those of all its pictures together: 256 pictures of 512 by 512.
pub const MAX_PIXELS: u64 = 64 << 20;

/// The factor by which a picture is enlarged.
const SCALE: u32 = 4;

/// The frames of a film.
const FRAMES: u32 = 25;

/// The fields of a mask along each side.
const MASK: u32 = 32;

/// The result of a runner's work.
#[derive(Debug)]
pub(super) enum Made {
    /// Something to download: pictures, a film.
    Images(Vec<Image>),
    /// A recording to download.
    Speech(Bytes),
    /// An answer without anything to download.
    Json(Value),
    /// Words of a language model.
    Chat(Chat),
}

/// A picture or film, and the seed that made it.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) content: Bytes,
    pub(super) seed: i64,
}

/// Does the work of one request. `media` is what its file was measured as.
///
/// # Errors
/// If the request is not one that such a runner takes.
pub(super) fn make(
    now: Time,
    request: &BatchRequest,
    media: Option<Media>,
) -> Result<Made, Refused> {
    let file = request.file().map_or(&[][..], |file| &file.content);
    let prompt = request.text("prompt").unwrap_or_default();
    let (width, height) = match media {
        Some(Media::Image { width, height }) => (width, height),
        _ => (0, 0),
    };
    Ok(match request.pipeline() {
        Pipeline::TextToImage => {
            let width = side(request, "width", 1024)?;
            let height = side(request, "height", 576)?;
            Made::Images(pictures(request, width, height, &[prompt.as_bytes()])?)
        }
        Pipeline::ImageToImage => Made::Images(pictures(
            request,
            width,
            height,
            &[prompt.as_bytes(), file],
        )?),
        Pipeline::Upscale => {
            let (width, height) = (width.saturating_mul(SCALE), height.saturating_mul(SCALE));
            Made::Images(pictures(
                request,
                width,
                height,
                &[prompt.as_bytes(), file],
            )?)
        }
        Pipeline::ImageToVideo => {
            let width = side(request, "width", 1024)?;
            let height = side(request, "height", 576)?;
            affordable(width, height, FRAMES.into())?;
            let seed = seed_of(request, &[file]);
            let hash = keccak(&[file, &seed.to_be_bytes()]);
            let per_second = request.integer("fps").unwrap_or(6).clamp(1, 60) as u16;
            let content = Picture {
                width,
                height,
                hash,
            }
            .film(FRAMES, per_second);
            Made::Images(vec![Image { content, seed }])
        }
        Pipeline::AudioToText => Made::Json(transcript(file, media)),
        Pipeline::SegmentAnything2 => Made::Json(masks(request, file)),
        Pipeline::ImageToText => {
            let hash = hex::encode(&keccak(&[file])[..4]);
            let mut text = format!("a picture of {width} by {height} pixels, {hash}");
            if !prompt.is_empty() {
                text.push_str(", seen with the words: ");
                text.push_str(prompt);
            }
            Made::Json(json!({ "text": text }))
        }
        Pipeline::TextToSpeech => {
            let text = request.text("text").unwrap_or_default();
            let voice = request.text("description").unwrap_or_default();
            Made::Speech(sound::spoken(text, voice))
        }
        Pipeline::Llm => Made::Chat(echo(now, request)),
        other => {
            return Err(Refused::new(
                400,
                format!("{} is no batch work", other.name()),
            ));
        }
    })
}

/// Draws as many pictures as are asked for, each from a seed of its own.
fn pictures(
    request: &BatchRequest,
    width: u32,
    height: u32,
    from: &[&[u8]],
) -> Result<Vec<Image>, Refused> {
    let count = request.integer("num_images_per_prompt").unwrap_or(1).max(1);
    affordable(width, height, count.unsigned_abs())?;
    let first = seed_of(request, from);
    Ok((0..count)
        .map(|n| {
            let seed = first.wrapping_add(n);
            let hash = keccak(&[from, &[&seed.to_be_bytes()]].concat());
            let content = Picture {
                width,
                height,
                hash,
            }
            .png();
            Image { content, seed }
        })
        .collect())
}

/// The seed asked for, or else one of what the picture is made from.
fn seed_of(request: &BatchRequest, from: &[&[u8]]) -> i64 {
    request.integer("seed").unwrap_or_else(|| {
        let [a, b, c, d, ..] = keccak(from);
        i64::from(u32::from_be_bytes([a, b, c, d]) >> 1)
    })
}

/// A side of a picture that is asked for.
fn side(request: &BatchRequest, name: &str, default: u32) -> Result<u32, Refused> {
    let Some(asked) = request.integer(name) else {
        return Ok(default);
    };
    u32::try_from(asked)
        .ok()
        .filter(|side| (1..=MAX_SIDE).contains(side))
        .ok_or_else(|| {
            let detail = json!({ "detail": [{
                "loc": ["body", name],
                "msg": format!("must be from 1 to {MAX_SIDE} pixels"),
                "type": "value_error",
            }] });
            Refused::new(422, detail.to_string())
        })
}

fn affordable(width: u32, height: u32, count: u64) -> Result<(), Refused> {
    let pixels = u64::from(width) * u64::from(height);
    match pixels.checked_mul(count) {
        Some(1..=MAX_PIXELS) => Ok(()),
        _ => Err(Refused::new(
            400,
            format!("{count} pictures of {width} by {height} pixels are too much for one request"),
        )),
    }
}

/// A transcript that says how long the recording is, and how loud.
fn transcript(file: &[u8], media: Option<Media>) -> Value {
    let heard = sound::measure(file);
    let millis = match (heard, media) {
        (Some(heard), _) => heard.millis,
        (None, Some(Media::Audio { duration })) => duration.as_millis() as u64,
        _ => 0,
    };
    let seconds = millis as f64 / 1000.0;
    let mut text = format!("{seconds:.3} seconds of sound");
    if let Some(heard) = heard {
        let percent = f64::from(heard.peak) / 10.0;
        text.push_str(&format!(", at most {percent:.1} percent loud"));
    }
    json!({ "text": text, "chunks": [{ "text": text, "timestamp": [0.0, seconds] }] })
}

/// Masks of 32 by 32 fields with a disc in each, whose place is that of the hash; each a JSON array in a string.
fn masks(request: &BatchRequest, file: &[u8]) -> Value {
    let count = if request.get("multimask_output") != Some(&Field::Flag(false)) {
        3
    } else {
        1
    };
    let asked = ["point_coords", "point_labels", "box", "mask_input"]
        .map(|name| request.text(name).unwrap_or_default());
    let hash = keccak(&[&[file], &asked.map(str::as_bytes)[..]].concat());
    let (mut masks, mut logits, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    for place in hash.chunks(3).take(count) {
        let [x, y, size] = [place[0], place[1], place[2]].map(|byte| i32::from(byte) % MASK as i32);
        // Positive inside of the disc, negative outside.
        let depth = |row: i32, column: i32| {
            let radius = 2 + size / 4;
            radius * radius - (row - y).pow(2) - (column - x).pow(2)
        };
        let field = |of: &dyn Fn(i32) -> Value| -> Value {
            (0..MASK as i32)
                .map(|row| {
                    (0..MASK as i32)
                        .map(|column| of(depth(row, column)))
                        .collect::<Value>()
                })
                .collect()
        };
        masks.push(field(&|depth| u8::from(depth >= 0).into()));
        logits.push(field(&|depth| depth.into()));
        scores.push(f64::from(place[2]) / 255.0);
    }
    json!({
        "masks": Value::from(masks).to_string(),
        "logits": Value::from(logits).to_string(),
        "scores": Value::from(scores).to_string(),
    })
}

/// The last message, said back.
fn echo(now: Time, request: &BatchRequest) -> Chat {
    let messages = request.messages();
    let said = messages.last().map_or("", |message| &message.content);
    let most = request.integer("max_tokens").unwrap_or(256).max(0);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut tokens = chat::tokens(said);
    let heard = tokens.by_ref().take(most).map(str::to_owned).collect();
    let hash = keccak(&[said.as_bytes(), &now.as_nanos().to_be_bytes()]);
    Chat {
        id: format!("chatcmpl-{}", hex::encode(&hash[..4])),
        model: request.model().to_owned(),
        created: now,
        tokens: heard,
        cut: tokens.next().is_some(),
        prompt: messages
            .iter()
            .map(|message| chat::tokens(&message.content).count())
            .sum(),
    }
}
