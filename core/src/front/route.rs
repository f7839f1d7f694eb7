//! The routes of the front door, as one table (front-door spec 1.2).
//!
//! A path is percent-decoded once, segment by segment. One slash at its end is forgiven, an empty segment is not.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use crate::http::Method;
use crate::pipeline::Pipeline;
use crate::wire::MAX_MESSAGE_BYTES;
use crate::wire::batch::fields::file_of;
use crate::wire::byoc::stream::MAX_BODY_BYTES;
use crate::wire::entry::{Door, MAX_QUERY_BYTES};
use crate::wire::openai::backend::Surface;
use crate::wire::refused::{Code, Refused, Shape};

/// A thing that the front door does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// A batch job in Livepeer's own form.
    Batch(Pipeline),
    /// The result of a video that was asked for with `Prefer: respond-async`.
    VideoResult,
    /// A result of a batch job in Livepeer's own form.
    ResultFile,
    /// A conversation with a language model.
    Chat,
    /// The models that are served.
    Models,
    /// A model that is served.
    Model,
    /// A text that goes on, which only a backend makes.
    Completions,
    /// An answer in the newer form of OpenAI, which only a backend gives.
    Responses,
    /// Pictures from a text.
    Generations,
    /// Pictures from a picture and a text.
    Edits,
    /// A transcript.
    Transcriptions,
    /// A transcript in another language, which only a backend makes.
    Translations,
    /// Spoken text.
    Speech,
    /// Vectors of texts, which only a backend makes.
    Embeddings,
    /// Texts by how well they fit, which only a backend tells.
    Rerank,
    /// A picture that an answer names.
    File,
    /// Whether the process lives.
    Alive,
    /// Whether new work is taken.
    Ready,
    /// A page that the shell writes.
    Page(Page),
    /// A request about a live stream.
    Live(Live),
    /// A job for a container that operators brought.
    Container,
    /// A call of an app that orchestrators rent out.
    App,
}

/// A request about a live stream (jobs spec 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Live {
    /// A media server has the stream, and a job is to begin.
    Start,
    /// Other parameters for the model.
    Update,
    /// A question how the stream is.
    Status,
    /// The end of the stream.
    Stop,
    /// An order for a stream through a container.
    Order,
    /// Other parameters for the container of a stream that was ordered.
    Change,
    /// A media server has the media of a stream that was ordered.
    Source,
    /// The data that a container says beside its video.
    Data,
    /// A test stream of our own.
    SmokeTest,
    /// A session of WHIP or WHEP is to begin.
    Door(Door),
    /// A session of WHIP or WHEP changes or ends.
    Session(Door),
    /// A part of the output, for players of HLS.
    Hls,
}

/// A page whose content the front door does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Page {
    /// How all is going, for people and probes.
    Health,
    /// Figures in the text format of Prometheus.
    Metrics,
    /// The description of the routes.
    OpenApi,
    /// A live stream to be watched, and sent, with a browser.
    Watch,
}

/// A right that the key of a caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those that keys carry")]
pub enum Scope {
    Batch,
    Chat,
    Models,
    Images,
    Audio,
    Embeddings,
    Rerank,
    Apps,
    Byoc,
    Live,
    Push,
    Usage,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The methods that are answered; all of them if there is none.
    pub methods: &'static [Method],
    /// The path. `{hex}` stands for eight hexadecimal digits, `{secret}` for 32 letters and digits, another word in
    /// braces for one segment, and with `…` for one or more up to the end.
    pub path: &'static str,
    /// The route; `None` for a path that is reserved and not served yet.
    pub route: Option<Route>,
    /// The right that is needed, if any.
    pub scope: Option<Scope>,
    /// The shape of errors.
    pub shape: Shape,
}

/// A request's route, and the parts of the path that its row leaves open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The route.
    pub route: Route,
    /// The right that is needed, if any.
    pub scope: Option<Scope>,
    /// The shape of errors.
    pub shape: Shape,
    /// The open parts, decoded.
    pub parts: Vec<String>,
}

const GET: &[Method] = &[Method::Get];
const POST: &[Method] = &[Method::Post];
const ANY: &[Method] = &[];
/// Methods of what web pages ask for, whether or not they may: a preflight is answered all the same.
const GET_FROM_PAGES: &[Method] = &[Method::Get, Method::Options];
const POST_FROM_PAGES: &[Method] = &[Method::Post, Method::Options];

const fn row(
    methods: &'static [Method],
    path: &'static str,
    route: Option<Route>,
    scope: Option<Scope>,
    shape: Shape,
) -> Row {
    Row {
        methods,
        path,
        route,
        scope,
        shape,
    }
}

const fn batch(path: &'static str, pipeline: Pipeline) -> Row {
    let route = Some(Route::Batch(pipeline));
    row(POST, path, route, Some(Scope::Batch), Shape::Native)
}

const fn open_ai(path: &'static str, route: Route, scope: Scope) -> Row {
    row(POST, path, Some(route), Some(scope), Shape::OpenAi)
}

const fn page(path: &'static str, route: Route) -> Row {
    row(GET, path, Some(route), None, Shape::OpenAi)
}

const fn live(methods: &'static [Method], path: &'static str, live: Live) -> Row {
    let route = Some(Route::Live(live));
    row(methods, path, route, Some(Scope::Live), Shape::Plain)
}

/// A path that is reserved: asked for today, it is unknown.
const fn reserved(
    methods: &'static [Method],
    path: &'static str,
    scope: Option<Scope>,
    shape: Shape,
) -> Row {
    row(methods, path, None, scope, shape)
}

/// The table. The first row that fits a path wins.
#[rustfmt::skip]
pub const ROUTES: &[Row] = &[
    batch("/text-to-image", Pipeline::TextToImage),
    batch("/image-to-image", Pipeline::ImageToImage),
    batch("/image-to-video", Pipeline::ImageToVideo),
    batch("/upscale", Pipeline::Upscale),
    batch("/audio-to-text", Pipeline::AudioToText),
    batch("/segment-anything-2", Pipeline::SegmentAnything2),
    batch("/llm", Pipeline::Llm),
    batch("/image-to-text", Pipeline::ImageToText),
    batch("/text-to-speech", Pipeline::TextToSpeech),
    row(POST, "/image-to-video/result", Some(Route::VideoResult), Some(Scope::Batch), Shape::Native),
    row(GET, "/stream/{list.m3u8}", Some(Route::Live(Live::Hls)), None, Shape::Plain),
    row(GET, "/stream/{mid}/{list.m3u8}", Some(Route::Live(Live::Hls)), None, Shape::Plain),
    row(GET, "/stream/{mid}/{profile}/{number.ts}", Some(Route::Live(Live::Hls)), None, Shape::Plain),
    row(GET, "/stream/{hex}/{name}", Some(Route::ResultFile), None, Shape::Plain),
    open_ai("/v1/chat/completions", Route::Chat, Scope::Chat),
    row(GET, "/v1/models", Some(Route::Models), Some(Scope::Models), Shape::OpenAi),
    row(GET, "/v1/models/{id…}", Some(Route::Model), Some(Scope::Models), Shape::OpenAi),
    open_ai("/v1/images/generations", Route::Generations, Scope::Images),
    open_ai("/v1/images/edits", Route::Edits, Scope::Images),
    open_ai("/v1/audio/transcriptions", Route::Transcriptions, Scope::Audio),
    open_ai("/v1/audio/translations", Route::Translations, Scope::Audio),
    open_ai("/v1/audio/speech", Route::Speech, Scope::Audio),
    open_ai("/v1/responses", Route::Responses, Scope::Chat),
    open_ai("/v1/completions", Route::Completions, Scope::Chat),
    open_ai("/v1/embeddings", Route::Embeddings, Scope::Embeddings),
    open_ai("/v1/rerank", Route::Rerank, Scope::Rerank),
    row(GET, "/files/{secret}/{name}", Some(Route::File), None, Shape::Plain),
    page("/healthz", Route::Alive),
    page("/readyz", Route::Ready),
    page("/health", Route::Page(Page::Health)),
    page("/metrics", Route::Page(Page::Metrics)),
    page("/openapi.json", Route::Page(Page::OpenApi)),
    page("/watch/{stream}", Route::Page(Page::Watch)),
    live(&[Method::Put], "/live/video-to-video/smoketest", Live::SmokeTest),
    live(POST, "/live/video-to-video/{stream}/start", Live::Start),
    live(POST_FROM_PAGES, "/live/video-to-video/{stream}/update", Live::Update),
    live(GET_FROM_PAGES, "/live/video-to-video/{stream}/status", Live::Status),
    live(POST_FROM_PAGES, "/live/video-to-video/{stream}/stop", Live::Stop),
    live(ANY, "/live/video-to-video/{stream}/whip", Live::Door(Door::Whip)),
    live(ANY, "/live/video-to-video/{stream}/whip/{session}", Live::Session(Door::Whip)),
    live(ANY, "/live/video-to-video/{stream}/whep", Live::Door(Door::Whep)),
    live(ANY, "/live/video-to-video/{stream}/whep/{session}", Live::Session(Door::Whep)),
    live(POST, "/live/video-to-video/{prefix}/{stream}/start", Live::Start),

    reserved(GET, "/v1/apps", Some(Scope::Apps), Shape::OpenAi),
    row(ANY, "/apps/{path…}", Some(Route::App), Some(Scope::Apps), Shape::OpenAi),
    reserved(POST, "/v1/sessions", Some(Scope::Apps), Shape::OpenAi),
    reserved(&[Method::Get, Method::Delete], "/v1/sessions/{id}", Some(Scope::Apps), Shape::OpenAi),
    reserved(ANY, "/v1/sessions/{id}/app/{path…}", Some(Scope::Apps), Shape::OpenAi),
    row(POST, "/process/request/{route…}", Some(Route::Container), Some(Scope::Byoc), Shape::Plain),
    row(POST, "/process/request", Some(Route::Container), Some(Scope::Byoc), Shape::Plain),
    live(POST, "/process/stream/start", Live::Order),
    live(POST_FROM_PAGES, "/process/stream/{stream}/update", Live::Change),
    live(GET_FROM_PAGES, "/process/stream/{stream}/status", Live::Status),
    live(GET_FROM_PAGES, "/process/stream/{stream}/data", Live::Data),
    live(POST_FROM_PAGES, "/process/stream/{stream}/stop", Live::Stop),
    live(POST, "/process/stream/{stream}/rtmp", Live::Source),
    live(ANY, "/process/stream/{stream}/whip", Live::Door(Door::Whip)),
    live(ANY, "/process/stream/{stream}/whip/{session}", Live::Session(Door::Whip)),
    reserved(ANY, "/process/stream/{path…}", Some(Scope::Byoc), Shape::Plain),
    reserved(ANY, "/live/video-to-video/{path…}", Some(Scope::Live), Shape::Plain),
    reserved(&[Method::Patch, Method::Delete], "/whip/{resource}", None, Shape::Plain),
    reserved(&[Method::Patch, Method::Delete], "/whep/{resource}", None, Shape::Plain),
    reserved(&[Method::Put, Method::Post], "/live/{name}/{segment}", Some(Scope::Push), Shape::Plain),
    reserved(GET, "/stream/{path…}", None, Shape::Plain),
    reserved(GET, "/recordings/{path…}", None, Shape::Plain),
    reserved(GET, "/v1/usage", Some(Scope::Usage), Shape::OpenAi),
    reserved(GET, "/v1/key", None, Shape::OpenAi),
];

impl Route {
    /// Whether an orchestrator is asked: such a request is refused while the gateway shuts down.
    #[must_use]
    pub const fn makes_work(self) -> bool {
        matches!(
            self,
            Self::Batch(_)
                | Self::Chat
                | Self::Completions
                | Self::Responses
                | Self::Generations
                | Self::Edits
                | Self::Transcriptions
                | Self::Translations
                | Self::Speech
                | Self::Embeddings
                | Self::Rerank
                | Self::Live(Live::Start | Live::SmokeTest | Live::Order)
                | Self::Container
                | Self::App
        )
    }

    /// Whether the request's body is read.
    #[must_use]
    pub const fn has_body(self) -> bool {
        match self {
            Self::VideoResult => true,
            Self::Live(live) => !matches!(live, Live::Status | Live::Hls | Live::Data),
            _ => self.makes_work(),
        }
    }

    /// Whether the body is or may be a form; of all other routes but those of live streams, containers and apps it is JSON.
    #[must_use]
    pub fn takes_form(self) -> bool {
        match self {
            Self::Edits
            | Self::Transcriptions
            | Self::Translations
            | Self::Live(_)
            | Self::Container
            | Self::App => true,
            Self::Batch(pipeline) => file_of(pipeline).is_some(),
            _ => false,
        }
    }

    /// The surface that a backend has to have for it, if one may serve it.
    #[must_use]
    pub const fn surface(self) -> Option<Surface> {
        Some(match self {
            Self::Chat => Surface::Chat,
            Self::Completions => Surface::Completions,
            Self::Responses => Surface::Responses,
            Self::Embeddings => Surface::Embeddings,
            Self::Rerank => Surface::Rerank,
            Self::Generations => Surface::Images,
            Self::Speech => Surface::Speech,
            Self::Transcriptions => Surface::Transcriptions,
            Self::Translations => Surface::Translations,
            _ => return None,
        })
    }

    /// The name in figures and logs: the path's own words.
    #[must_use]
    pub fn name(self) -> &'static str {
        ROUTES
            .iter()
            .find(|row| row.route == Some(self))
            .map_or("", |row| row.path)
    }
}

impl Live {
    /// At most this many bytes of the body of such a request.
    #[must_use]
    pub const fn max_body(self) -> usize {
        match self {
            // An escape takes three bytes for one.
            Self::Start | Self::Source => 4 * MAX_QUERY_BYTES,
            Self::Order | Self::Change | Self::Stop => MAX_BODY_BYTES,
            Self::Update => MAX_MESSAGE_BYTES,
            Self::Door(_) | Self::Session(_) => MAX_OFFER,
            Self::SmokeTest | Self::Status | Self::Hls | Self::Data => MAX_SMALL,
        }
    }

    /// Whether a session of WHIP or WHEP is meant.
    #[must_use]
    pub const fn is_at_a_door(self) -> bool {
        matches!(self, Self::Door(_) | Self::Session(_))
    }
}

/// At most this many bytes of an offer of WebRTC, or of a change to it.
const MAX_OFFER: usize = 64 << 10;
/// At most this many bytes of a request with a few words.
const MAX_SMALL: usize = 16 << 10;

/// The target of a request, by its method and its path as the first line has it.
///
/// # Errors
/// If the path is malformed or unknown, or does not have the method. The error has the shape of the path's row.
pub fn find(method: Method, target: &str) -> Result<Target, (Shape, Refused)> {
    let path = target.split('?').next().unwrap_or(target);
    let path = match path.strip_suffix('/') {
        Some(stripped) if !stripped.is_empty() => stripped,
        _ => path,
    };
    let segments = decoded(path).ok_or_else(|| {
        let refused = Refused::new(Code::InvalidValue, "malformed path");
        (Shape::Plain, refused)
    })?;
    let shown = || path.chars().take(MAX_SHOWN).collect::<String>();
    let unknown = |shape| (shape, Refused::unknown_url(method.as_str(), &shown()));
    let Some((row, parts)) = ROUTES
        .iter()
        .find_map(|row| Some((row, parts(row.path, &segments)?)))
    else {
        return Err(unknown(Shape::OpenAi));
    };
    let Some(route) = row.route else {
        if row.scope == Some(Scope::Push) {
            let refused = Refused::segment(method.as_str(), &shown());
            return Err((row.shape, refused));
        }
        return Err(unknown(row.shape));
    };
    if !row.answers(method) {
        let allowed: Vec<&str> = row.methods.iter().map(|method| method.as_str()).collect();
        let allowed = allowed.join(", ");
        let mut refused = Refused::method(method.as_str(), path, &allowed);
        if method == Method::Other {
            refused.message =
                alloc::format!("This method is not allowed for {path}; use {allowed}.");
        }
        return Err((row.shape, refused));
    }
    Ok(Target {
        route,
        scope: row.scope,
        shape: row.shape,
        parts,
    })
}

/// The end of the name of a list of HLS, and of a segment.
pub(super) const LIST: &str = ".m3u8";
pub(super) const SEGMENT: &str = ".ts";
/// At most this many characters of a path that is unknown are told back.
const MAX_SHOWN: usize = 256;

impl Row {
    /// Whether the method is answered. Whoever may read may also ask how long it is.
    fn answers(&self, method: Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(&method)
            || (method == Method::Head && self.methods.contains(&Method::Get))
    }
}

/// The open parts of a path that fits the pattern.
fn parts(pattern: &str, segments: &[Cow<'_, str>]) -> Option<Vec<String>> {
    // Most patterns are left with a look at their beginning.
    let begins = segments.first().map_or("", |first| first);
    if !pattern[1..].starts_with(begins) && !pattern[1..].starts_with('{') {
        return None;
    }
    let mut parts = Vec::new();
    let mut rest = segments;
    for want in pattern.split('/').skip(1) {
        let (first, others) = rest.split_first()?;
        if want.ends_with("…}") {
            if rest.iter().any(|segment| segment.is_empty()) {
                return None;
            }
            parts.push(rest.join("/"));
            return Some(parts);
        }
        let fits = match want {
            "{hex}" => first.len() == 8 && first.bytes().all(is_hex),
            "{list.m3u8}" => first.ends_with(LIST),
            "{number.ts}" => first.ends_with(SEGMENT),
            "{secret}" => first.len() == 32 && first.bytes().all(|b| b.is_ascii_alphanumeric()),
            _ if want.starts_with('{') => !first.is_empty(),
            _ => want == *first,
        };
        if !fits {
            return None;
        }
        if want.starts_with('{') {
            parts.push(first.clone().into_owned());
        }
        rest = others;
    }
    rest.is_empty().then_some(parts)
}

const fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'a'..=b'f')
}

/// The segments of a path, percent-decoded; `None` if they are not text.
fn decoded(path: &str) -> Option<Vec<Cow<'_, str>>> {
    path.split('/').skip(1).map(decoded_segment).collect()
}

fn decoded_segment(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, others) = rest.split_at_checked(2)?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).ok()?;
        bytes.push(byte[0]);
        rest = others;
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(method: Method, path: &str) -> Result<(Route, Vec<String>), (u16, String)> {
        find(method, path)
            .map(|target| (target.route, target.parts))
            .map_err(|(_, refused)| (refused.status(), refused.message))
    }

    #[test]
    fn a_path_is_decoded_once_and_one_slash_at_its_end_is_forgiven() {
        let chat = Ok((Route::Chat, Vec::new()));
        for path in [
            "/v1/chat/completions",
            "/v1/chat/completions/",
            "/v1/chat/completions?x=/",
            "/v1/%63hat/completions",
        ] {
            assert_eq!(target(Method::Post, path), chat, "{path}");
        }
        for path in [
            "//v1/chat/completions",
            "/v1//chat/completions",
            "/v1/chat/completions//",
            "/v1/chat%2Fcompletions",
            "/v1/%2563hat/completions",
            "/V1/chat/completions",
            "/v1",
            "/",
        ] {
            let refused = target(Method::Post, path).expect_err(path);
            assert_eq!(refused.0, 404, "{path}");
        }
        for path in ["/%00", "/%zz", "/%f", "/v1/models/%ff", "/%"] {
            let malformed = Err((400, "malformed path".into()));
            assert_eq!(target(Method::Get, path), malformed, "{path}");
        }
    }

    #[test]
    fn the_name_of_a_model_may_have_slashes_in_either_form() {
        for path in [
            "/v1/models/a/b-1",
            "/v1/models/a%2Fb-1",
            "/v1/models/a/b-1/",
        ] {
            let found = target(Method::Get, path);
            assert_eq!(found, Ok((Route::Model, alloc::vec!["a/b-1".into()])));
        }
    }

    #[test]
    fn a_method_that_a_path_does_not_have_is_named_with_those_it_has() {
        for (method, path, message, shape) in [
            (
                Method::Get,
                "/v1/chat/completions/",
                "Method GET is not allowed for /v1/chat/completions; use POST.",
                Shape::OpenAi,
            ),
            (
                Method::Options,
                "/llm",
                "Method OPTIONS is not allowed for /llm; use POST.",
                Shape::Native,
            ),
            (
                Method::Other,
                "/llm",
                "This method is not allowed for /llm; use POST.",
                Shape::Native,
            ),
            (
                Method::Trace,
                "/llm",
                "Method TRACE is not allowed for /llm; use POST.",
                Shape::Native,
            ),
        ] {
            let (have, refused) = find(method, path).expect_err(path);
            assert_eq!((have, refused.status()), (shape, 405));
            assert_eq!(refused.message, message);
            assert_eq!(refused.headers.get("allow"), Some("POST"));
        }
        assert!(
            find(Method::Head, "/v1/models").is_ok(),
            "a kind of reading"
        );
    }

    #[test]
    fn files_are_named_by_what_cannot_be_guessed() {
        let secret = "a".repeat(32);
        for (path, route) in [
            ("/stream/0a1b2c3d/0.png".into(), Route::ResultFile),
            (alloc::format!("/files/{secret}/0.png"), Route::File),
        ] {
            let found = find(Method::Get, &path).expect("a file");
            assert_eq!((found.route, found.parts.len()), (route, 2));
        }
        for path in [
            "/stream/0a1b2c3/0.png",
            "/stream/0A1B2C3D/0.png",
            "/files/x/0.png",
        ] {
            assert!(find(Method::Get, path).is_err(), "{path}");
        }
    }

    #[test]
    fn what_is_reserved_is_unknown_in_the_shape_of_its_clients() {
        for row in ROUTES.iter().filter(|row| row.route.is_none()) {
            let path = row.path.replace("{path…}", "a/b").replace("{route…}", "a");
            let method = row.methods.first().copied().unwrap_or(Method::Get);
            let (shape, refused) = find(method, &path).expect_err(&path);
            assert_eq!(
                (shape, refused.code),
                (row.shape, Code::UnknownUrl),
                "{path}"
            );
        }
    }
}
