//! Options of `run`: one batch job.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use livepeer_core::Pipeline;
use livepeer_core::http::Url;
use livepeer_core::money::Price;
use livepeer_core::wire::batch::fields::{self, Message, Value};
use livepeer_core::wire::batch::{BadRequest, BatchRequest};

use super::pay::PayArgs;
use super::values::Place;
use super::{Endpoints, PeerArgs, Runtime, endpoints, values};
use crate::ui::Failed;

/// Options of `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The pipeline: text-to-image, image-to-image, image-to-video, upscale, audio-to-text, segment-anything-2, llm,
    /// image-to-text or text-to-speech.
    #[arg(value_name = "PIPELINE", value_parser = pipeline)]
    pub(crate) pipeline: Pipeline,
    /// The model; without this option the pipeline's usual one.
    #[arg(long, value_name = "MODEL", value_parser = values::model)]
    model: Option<String>,
    /// A field of the request, such as prompt="a coffee shop at sunset"; may repeat. Of llm, prompt is a question and
    /// system an instruction, in place of messages.
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<Set>,
    /// The file to work on: PATH, or image=PATH, or audio=PATH.
    #[arg(long, value_name = "[image=|audio=]PATH")]
    file: Option<Work>,
    /// The folder for pictures, clips, sound and masks, in which no file that is there is written over; or - for the one
    /// result on standard output.
    #[arg(long, value_name = "DIR|-", default_value = ".")]
    pub(crate) output: Place,
    /// Orchestrators that may do it; repeat the option or separate with commas. Without a scheme, https is meant.
    /// Without this option the token, or else the signer, is asked for a list.
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = values::orchestrator)]
    orchestrator: Vec<Option<Url>>,
    /// The most to pay, in wei per pixel, token, millisecond or thousandth of a character: 1200, 0.5 or 1/3.
    #[arg(long, value_name = "WEI_PER_UNIT", value_parser = values::price)]
    pub(crate) max_price: Option<Price>,
    /// The runtime that drives the job.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
    /// Print answer and figures as JSON, also of a job that fails or is interrupted.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) peers: PeerArgs,
    #[command(flatten)]
    pub(crate) pay: PayArgs,
}

/// A field and its value.
#[derive(Clone, Debug)]
struct Set(String, String);

impl FromStr for Set {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("write it as FIELD=VALUE")?;
        Ok(Self(name.trim().to_owned(), value.to_owned()))
    }
}

/// A file, and the field that it is meant for, if that is said.
#[derive(Clone, Debug)]
struct Work {
    field: Option<&'static str>,
    path: PathBuf,
}

impl FromStr for Work {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A path may have an equals sign of its own.
        for field in ["image", "audio"] {
            let path = text
                .strip_prefix(field)
                .and_then(|rest| rest.strip_prefix('='));
            if let Some(path) = path {
                let (field, path) = (Some(field), path.into());
                return Ok(Self { field, path });
            }
        }
        let path = text.into();
        Ok(Self { field: None, path })
    }
}

fn pipeline(name: &str) -> Result<Pipeline, String> {
    let found = Pipeline::batch().find(|pipeline| pipeline.name() == name);
    found.ok_or_else(|| {
        let names: Vec<_> = Pipeline::batch().map(Pipeline::name).collect();
        format!("the pipelines are {}", names.join(", "))
    })
}

impl RunArgs {
    /// The orchestrators to ask and the signer, as `live` finds them.
    ///
    /// # Errors
    /// If token or header fields are malformed, or nobody is named to do the work or to sign for it.
    pub(crate) fn endpoints(&self) -> Result<Endpoints, Failed> {
        endpoints::of_job(&self.orchestrator, &self.peers, &self.pay, "run")
    }

    /// The path of the file to work on.
    pub(crate) fn path(&self) -> Option<&PathBuf> {
        self.file.as_ref().map(|file| &file.path)
    }

    /// The request, apart from its file.
    ///
    /// # Errors
    /// If the pipeline has no such field, or a value is of another kind.
    pub(crate) fn request(&self) -> Result<BatchRequest, BadRequest> {
        let mut request = BatchRequest::new(self.pipeline);
        let mut spoken = Vec::new();
        for Set(name, value) in &self.set {
            match &name[..] {
                "prompt" if self.pipeline == Pipeline::Llm => {
                    spoken.push(Message::new("user", value.as_str()));
                }
                "system" if self.pipeline == Pipeline::Llm => {
                    spoken.insert(0, Message::new("system", value.as_str()));
                }
                name => request.set_text(name, value)?,
            }
        }
        if !spoken.is_empty() {
            request.set("messages", spoken)?;
        }
        if let Some(model) = &self.model {
            request.set_model(model.as_str());
        }
        if self.pipeline == Pipeline::Llm && request.get("stream").is_none() {
            request.set("stream", !self.json)?;
        }
        request.complete();
        Ok(request)
    }

    /// Checks what options say together.
    ///
    /// # Errors
    /// If they contradict each other or leave something open.
    pub(super) fn validate(&self) -> Result<(), Failed> {
        let bad = |bad: BadRequest| Failed::usage(bad, "run");
        let usage = |cause: &str| Err(Failed::usage(cause, "run"));
        let request = self.request().map_err(bad)?;
        let (field, given) = (fields::file_of(self.pipeline), self.file.as_ref());
        match (field, given) {
            (None, Some(_)) => return usage(&format!("{} takes no --file", self.pipeline)),
            (Some(field), None) => {
                return usage(&format!("{} needs --file {field}=PATH", self.pipeline));
            }
            (Some(field), Some(file)) if file.field.is_some_and(|said| said != field) => {
                return usage(&format!("the file of {} is {field}", self.pipeline));
            }
            (Some(_), Some(_)) => {}
            // Without a file there is nothing more to come.
            (None, None) => {
                if self.pipeline == Pipeline::Llm && request.messages().is_empty() {
                    return usage("llm needs --set prompt=\"a question\", or --set messages=JSON");
                }
                request.check().map_err(bad)?;
            }
        }
        if self.json && request.is_stream() {
            return usage("--json and stream=true would both write to standard output");
        }
        if self.output == Place::Standard {
            if self.json {
                return usage("--json and --output - would both write to standard output");
            }
            if let Some(Value::Integer(many @ 2..)) = request.get("num_images_per_prompt") {
                return usage(&format!(
                    "--output - takes one picture, not {many}: name a folder"
                ));
            }
        }
        super::one_payer(&self.peers, &self.pay, "run")?;
        self.endpoints().map(drop)
    }
}
