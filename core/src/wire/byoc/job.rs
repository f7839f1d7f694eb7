//! The header that names a job, and the signature under it.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use base64::Engine as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::sender::{SignedBy, read_sender};
use super::stream;
use crate::http::Url;
use crate::sign::{Address, Digest, Signature};
use crate::wire::error::{WireError, cut};
use crate::wire::identity::hex_of;
use crate::wire::json::{BASE64, Fields};
use crate::wire::payment::{MAX_HEADER_BYTES, to_base64};

/// A job for a container: everything but the body of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobRequest {
    /// A name for logs; for a stream, the name by which the orchestrator knows it.
    pub id: String,
    /// A JSON object for the orchestrator, as text: the signature covers it letter by letter.
    pub request: String,
    /// A JSON object with wishes, as text; may be empty. The signature covers it too.
    pub parameters: String,
    /// The container's name at its orchestrators.
    pub capability: String,
    /// How long the container may work, in seconds.
    pub timeout_seconds: u32,
}

/// Wishes of whoever wants a job done: a part of its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The only orchestrators that may do it, if any are named.
    pub include: Vec<Url>,
    /// Orchestrators that may not do it.
    pub exclude: Vec<Url>,
    /// Whether the stream takes video in.
    pub video_in: bool,
    /// Whether the stream gives video out.
    pub video_out: bool,
    /// Whether the stream gives data out.
    pub data_out: bool,
}

/// Why a header names no job, displayed as the reference words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadJob {
    /// The header is not padded standard base64, or too long.
    #[error("Unable to parse job request, err=ErrorSegEncoding")]
    Encoding,
    /// The header is not JSON of a job.
    #[error("Unable to parse job request, err={0}")]
    Json(String),
    /// The header sets no time.
    #[error(
        "Unable to parse job request, err=no timeout_seconds set with request, timeout_seconds is required"
    )]
    NoTimeout,
    /// The header sets a time that nothing can take.
    #[error(
        "Unable to parse job request, err=timeout_seconds must be between 1 and {}",
        u32::MAX
    )]
    Timeout,
    /// The request to sign it names no job.
    #[error("Unable to parse job request, err=no id set with request, id is required")]
    NoId,
    /// The header names no container.
    #[error(
        "Unable to parse job request, err=no capability set with request, capability is required"
    )]
    NoCapability,
    /// The text for the orchestrator is not a JSON object.
    #[error("Unable to unmarshal job request err={0}")]
    Request(String),
    /// The text with wishes is not a JSON object, or names an orchestrator that has no URL.
    #[error("Unable to unmarshal job parameters err={0}")]
    Parameters(String),
}

impl JobRequest {
    /// Reads the header of a caller. A sender and a signature in it are the caller's own, and of no use.
    ///
    /// # Errors
    /// If it names no job that can be done.
    pub fn from_header(header: &str) -> Result<Self, BadJob> {
        let job = Self::read(&fields(header)?)?;
        job.check()?;
        Ok(job)
    }

    fn read(fields: &Fields) -> Result<Self, BadJob> {
        let text = |name| fields.text(name).map_err(BadJob::Json);
        let seconds = fields.integer("timeout_seconds").map_err(BadJob::Json)?;
        Ok(Self {
            id: text("id")?,
            request: text("request")?,
            parameters: text("parameters")?,
            capability: text("capability")?,
            timeout_seconds: match seconds {
                0 => return Err(BadJob::NoTimeout),
                seconds => u32::try_from(seconds).map_err(|_| BadJob::Timeout)?,
            },
        })
    }

    /// Checks a job that a caller put together.
    ///
    /// # Errors
    /// As [`from_header`](Self::from_header).
    pub fn check(&self) -> Result<(), BadJob> {
        if self.timeout_seconds == 0 {
            return Err(BadJob::NoTimeout);
        }
        if self.capability.is_empty() || self.capability.chars().any(char::is_control) {
            return Err(BadJob::NoCapability);
        }
        self.stream_id()?;
        self.wishes()?;
        Ok(())
    }

    /// The stream that a job is about, if it is about one.
    ///
    /// # Errors
    /// If the text for the orchestrator is not a JSON object.
    pub fn stream_id(&self) -> Result<String, BadJob> {
        let details = Fields::only(self.request.as_bytes()).map_err(BadJob::Request)?;
        details.text("stream_id").map_err(BadJob::Request)
    }

    /// The wishes. Of orchestrators whose names are no URLs, none can be meant: that is an error too.
    ///
    /// # Errors
    /// If the text with wishes is not a JSON object of this kind.
    pub fn wishes(&self) -> Result<Wishes, BadJob> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Text {
            orchestrators: Option<Filter>,
            enable_video_ingress: bool,
            enable_video_egress: bool,
            enable_data_output: bool,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Filter {
            include: Option<Vec<String>>,
            exclude: Option<Vec<String>>,
        }
        if self.parameters.is_empty() {
            return Ok(Wishes::default());
        }
        let bad = |why: String| BadJob::Parameters(why);
        let text: Option<Text> =
            serde_json::from_str(&self.parameters).map_err(|err| bad(err.to_string()))?;
        let text = text.unwrap_or_default();
        let filter = text.orchestrators.unwrap_or_default();
        let urls = |texts: Option<Vec<String>>| {
            let urls = texts.unwrap_or_default().into_iter().map(|text| {
                let named = |err| bad(format!("orchestrator {:?}: {err}", cut(&text)));
                Url::parse(&text).map_err(named)
            });
            urls.collect::<Result<Vec<_>, _>>()
        };
        Ok(Wishes {
            include: urls(filter.include)?,
            exclude: urls(filter.exclude)?,
            video_in: text.enable_video_ingress,
            video_out: text.enable_video_egress,
            data_out: text.enable_data_output,
        })
    }

    /// The job as it is signed and sent: without wishes the text with them is an empty object, because orchestrators
    /// that start a stream refuse to read no text.
    #[must_use]
    pub fn to_send(mut self) -> Self {
        if self.parameters.is_empty() {
            self.parameters = "{}".into();
        }
        self
    }

    /// The job as it wishes for video in and out, unless its wishes say otherwise. Text that is no JSON object stays as it is.
    #[must_use]
    pub fn with_media(mut self) -> Self {
        let text = match self.parameters.as_str() {
            "" => "{}",
            text => text,
        };
        if let Ok(serde_json::Value::Object(mut wishes)) = serde_json::from_str(text) {
            for name in ["enable_video_ingress", "enable_video_egress"] {
                wishes.entry(name).or_insert(true.into());
            }
            self.parameters = serde_json::Value::Object(wishes).to_string();
        }
        self
    }

    /// The job as it is about a stream of that name: its container and its orchestrator find it there.
    #[must_use]
    pub fn about_stream(mut self, name: &str) -> Self {
        self.request = stream::also_about(&self.request, name);
        self.id = name.into();
        self
    }

    /// The digest to sign.
    #[must_use]
    pub fn digest(&self, scheme: Scheme) -> Digest {
        match scheme {
            Scheme::Texts => {
                Digest::node(format!("{}{}", self.request, self.parameters).as_bytes())
            }
            Scheme::Framed => Digest::node(&self.framed()),
        }
    }

    /// The bytes that [`Scheme::Framed`] signs.
    #[must_use]
    pub fn framed(&self) -> Vec<u8> {
        let texts = [&self.id, &self.capability, &self.request, &self.parameters];
        let mut bytes = b"LP_BYOC_JOB_V1\0\0".to_vec();
        bytes.extend_from_slice(&self.timeout_seconds.to_be_bytes());
        for text in texts {
            // A header holds no text that this cuts.
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    /// The header's value, as signed by `signed`; `None` where there is no chain, and nothing is signed.
    #[must_use]
    pub fn to_header(&self, signed: Option<&SignedBy>) -> String {
        #[derive(Serialize)]
        struct Header<'a> {
            id: &'a str,
            request: &'a str,
            parameters: &'a str,
            capability: &'a str,
            capability_url: &'a str,
            sender: String,
            sig: String,
            timeout_seconds: u32,
        }
        let header = Header {
            id: &self.id,
            request: &self.request,
            parameters: &self.parameters,
            capability: &self.capability,
            capability_url: "",
            sender: signed.map_or(Address::ZERO, |by| by.sender).checksummed(),
            sig: signed.map_or_else(String::new, |by| format!("{:?}", by.signature)),
            timeout_seconds: self.timeout_seconds,
        };
        let json = serde_json::to_vec(&header).expect("strings and numbers always serialise");
        to_base64(&json)
    }

    /// Reads a header as an orchestrator does: the job and what its sender signed. A signature may be empty, or lack its
    /// `0x`; the one that says only `0x` is none.
    ///
    /// # Errors
    /// If it is no job with a time, or the signature is none.
    pub fn read_signed(header: &str) -> Result<(Self, Option<SignedBy>), BadJob> {
        let fields = fields(header)?;
        let text = |name| fields.text(name).map_err(BadJob::Json);
        let job = Self::read(&fields)?;
        let signed =
            read_sender(&text("sender")?, &text("sig")?).map_err(|err| BadJob::Json(err.why))?;
        Ok((job, signed))
    }
}

fn fields(header: &str) -> Result<Fields, BadJob> {
    if header.len() > MAX_HEADER_BYTES {
        return Err(BadJob::Encoding);
    }
    let bytes = BASE64.decode(header).map_err(|_| BadJob::Encoding)?;
    Fields::only(&bytes).map_err(BadJob::Json)
}

/// How a job is signed. Orchestrators up to 0.9.2 know the first way only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// The texts for the orchestrator and with wishes, one after the other.
    #[default]
    Texts,
    /// A tag, the time, and four texts with their lengths: nothing of one can be read as a part of another.
    Framed,
}

impl Scheme {
    /// All of them, the common one first.
    pub const ALL: [Self; 2] = [Self::Texts, Self::Framed];
}

impl SignedBy {
    /// The way in which the payer signed this job, if it did.
    #[must_use]
    pub fn scheme(&self, job: &JobRequest) -> Option<Scheme> {
        let signed = |scheme: &Scheme| {
            self.signature
                .verify(job.digest(*scheme), self.sender)
                .is_ok()
        };
        Scheme::ALL.into_iter().find(signed)
    }
}

/// A request to a remote signer for the signature under a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignRequest(pub JobRequest);

impl SignRequest {
    /// The body of the request.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let job = &self.0;
        json!({
            "id": job.id,
            "capability": job.capability,
            "request": job.request,
            "parameters": job.parameters,
            "timeout_seconds": job.timeout_seconds,
        })
        .to_string()
        .into()
    }
}

impl SignRequest {
    /// Reads the body of such a request. Text of the job that is not JSON is refused: whatever else this key signs is none.
    ///
    /// # Errors
    /// If it names no job.
    pub fn from_json(body: &[u8]) -> Result<Self, BadJob> {
        let fields = Fields::only(body).map_err(BadJob::Json)?;
        let job = JobRequest::read(&fields)?;
        if job.id.is_empty() {
            return Err(BadJob::NoId);
        }
        job.check()?;
        Ok(Self(job))
    }
}

/// A remote signer's answer with the signature under a job.
#[must_use]
pub fn job_signature_json(signed: &SignedBy) -> Vec<u8> {
    let sender = signed.sender.checksummed();
    let signature = format!("{:?}", signed.signature);
    json!({"sender": sender, "signature": signature})
        .to_string()
        .into_bytes()
}

/// Reads a remote signer's answer, and finds out in which way it signed `job`.
///
/// # Errors
/// If it is not the JSON object, or a signature of something else: tickets would be spent on a request that must fail.
pub fn read_job_signature(body: &[u8], job: &JobRequest) -> Result<(SignedBy, Scheme), WireError> {
    const WHAT: &str = "job signature";
    let bad = |why: String| WireError::new(WHAT, why);
    let fields = Fields::only(body).map_err(bad)?;
    let text = |name| fields.text(name).map_err(bad);
    let sender = text("sender")?
        .parse()
        .map_err(|err| bad(format!("sender: {err}")))?;
    let signature = hex_of(&text("signature")?).map_err(bad)?;
    let signature = Signature::from_slice(&signature).map_err(|err| bad(err.to_string()))?;
    let signed = SignedBy { sender, signature };
    let scheme = signed.scheme(job);
    let scheme = scheme.ok_or_else(|| bad("it is not of this job".into()))?;
    Ok((signed, scheme))
}
