//! How an orchestrator words what its runner did (jobs spec 2.4).

use livepeer_core::Pipeline;

/// A way in which the runners of batch work misbehave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mishap {
    /// Answers every request with this status and detail.
    Answers(u16, String),
    /// Closes the connection before it answers.
    Gone,
    /// Answers with something that is not JSON.
    NotJson,
    /// Never answers.
    Silent,
    /// Streams a chunk without choices after the first token.
    NoChoices,
    /// Streams an error after the first token. Only orchestrators that hand on chunks as they are tell of it so.
    ErrorChunk,
    /// Dies after the first token of a stream, which ends as if it were complete.
    Dies,
    /// Takes the whole exchange along when it dies after the first token of a stream.
    Breaks,
}

/// A request that a runner refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) detail: String,
}

/// Consequences of a runner's failure at the orchestrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// Status 500 with a text.
    Text(String),
    /// Status 200 with `null`, as if it were an answer.
    Null,
    /// The handler dies: the exchange breaks, and its slot never comes back.
    Panic,
}

impl Refused {
    pub(super) fn new(status: u16, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }

    /// The orchestrator's wording.
    pub(super) fn consequence(self, pipeline: Pipeline, stream: bool) -> Consequence {
        use Pipeline as P;
        let Self { status, detail } = self;
        let name = match pipeline {
            P::SegmentAnything2 => "segment anything 2",
            P::Llm => "LLM",
            other => other.name(),
        };
        let known = match status {
            400 | 401 | 500 => true,
            422 => pipeline != P::Llm,
            413 | 415 => pipeline == P::AudioToText,
            _ => false,
        };
        if pipeline == P::Llm && stream {
            return Consequence::Text(format!("unexpected status code: {status}"));
        }
        match pipeline {
            _ if known => {
                Consequence::Text(format!("{name} container returned {status}: {detail}"))
            }
            P::ImageToVideo => Consequence::Text(format!("{name} container returned no content")),
            P::AudioToText | P::SegmentAnything2 | P::ImageToText | P::Llm => Consequence::Null,
            _ => Consequence::Panic,
        }
    }
}

impl Mishap {
    /// The consequence for a request that gets no other answer; `None` if it gets one, or none at all.
    pub(super) fn consequence(&self, pipeline: Pipeline, stream: bool) -> Option<Consequence> {
        match self {
            Self::Answers(status, detail) => {
                Some(Refused::new(*status, detail.as_str()).consequence(pipeline, stream))
            }
            // As it is: with the address that only the orchestrator knows.
            Self::Gone => Some(Consequence::Text(format!(
                "Post \"http://10.0.0.2:8000/{}\": EOF",
                pipeline.name()
            ))),
            Self::NotJson => Some(Consequence::Text("unexpected end of JSON input".to_owned())),
            _ => None,
        }
    }
}
