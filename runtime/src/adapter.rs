//! The public face of an adapter, written once for all of them.

/// Fills a runtime into the types that applications name, and re-exports the others: an adapter crate is all that an
/// application depends on.
#[macro_export]
macro_rules! adapter {
    ($runtime:ty) => {
        /// The entry for applications: finds orchestrators, pays them and sends them work.
        pub type Gateway = $crate::api::Gateway<$runtime>;

        /// A live video job.
        pub type LiveVideoJob = $crate::api::LiveVideoJob<$runtime>;
        /// The settings of a live video job.
        pub type LiveVideoJobBuilder = $crate::api::LiveVideoJobBuilder<$runtime>;
        /// The events of a job.
        pub type Events = $crate::api::Events<$runtime>;
        /// The input of a job.
        pub type Input = $crate::api::Input<$runtime>;
        /// An open segment of the input.
        pub type Segment<'a> = $crate::api::Segment<'a, $runtime>;
        /// The output of a job.
        pub type Output = $crate::api::Output<$runtime>;
        /// The whole segments of an output, as a stream.
        pub type Segments<'a> = $crate::api::Segments<'a, $runtime>;
        /// The bytes of an output, to be read.
        pub type OutputReader = $crate::api::OutputReader<$runtime>;

        /// A session with one orchestrator.
        pub type OrchestratorSession = $crate::api::OrchestratorSession<$runtime>;
        /// The settings of a session with an orchestrator.
        pub type OrchestratorSessionBuilder = $crate::api::OrchestratorSessionBuilder<$runtime>;
        /// The payer's side of one job.
        pub type PaymentSession = $crate::api::PaymentSession<$runtime>;
        /// A payment to send along with a request.
        pub type Payment<'a> = $crate::api::Payment<'a, $runtime>;
        /// The payments that an orchestrator took.
        pub type PaidPayments = $crate::api::PaidPayments<$runtime>;

        /// The settings of a search for orchestrators.
        pub type Search = $crate::api::Search<$runtime>;
        /// Orchestrators that were asked, and those that could be worked with.
        pub type Survey = $crate::api::Survey<$runtime>;

        /// A driver of machines.
        pub type Driver = $crate::Driver<$runtime>;
        /// A running machine.
        pub type Handle<M> = $crate::Handle<M, $runtime>;
        /// A runner of ours that an orchestrator rents out.
        pub type Registration = $crate::api::Registration<$runtime>;
        /// A session of a runner of ours, as its app manages it.
        pub type RunnerSession = $crate::api::RunnerSession<$runtime>;
        /// The settings of a batch job.
        pub type Submission<A = Finished> = $crate::api::Submission<$runtime, A>;
        /// A batch job under way.
        pub type BatchJob = $crate::api::BatchJob<$runtime>;
        /// The chunks of a stream.
        pub type Chunks = $crate::api::Chunks<$runtime>;

        /// A listening socket.
        pub type Server = $crate::http::Server<$runtime>;

        pub use $crate::api::{
            self, Discovered, Error, Flushed, JobEvent, MAX_SEGMENT_BYTES, Matching, MediaFigures,
            OutputEvent, Over, Payer, Spent, Swapped,
        };
        pub use $crate::api::{
            Answer, AudioToText, BatchEvent, BatchFailed, BatchRequest, Caption, Completion,
            FilePart, Finished, ImageToImage, ImageToText, ImageToVideo, Images, Llm, Masks,
            Message, Picture, Reply, SegmentAnything2, Served, Speech, Task, TaskAnswer,
            TextToImage, TextToSpeech, Transcript, Upscale,
        };
        pub use $crate::livepeer_core::capabilities::Capabilities;
        pub use $crate::livepeer_core::chain::ChainView;
        pub use $crate::livepeer_core::error::{Advice, Cause, Failure, Misuse, Party};
        pub use $crate::livepeer_core::handshake::PinChange;
        pub use $crate::livepeer_core::http::{Trust, Url};
        pub use $crate::livepeer_core::money::{Amount, Price, Wei};
        pub use $crate::livepeer_core::payment::Budget;
        pub use $crate::livepeer_core::payment::session::{LocalAccount, Paid};
        pub use $crate::livepeer_core::pipeline::{Pipeline, WorkUnit};
        pub use $crate::livepeer_core::prefer::Preferences;
        pub use $crate::livepeer_core::trickle::{ContentType, Seq};
        pub use $crate::livepeer_core::units::Unit;
        pub use $crate::livepeer_core::wire::{
            Channels, OrchestratorInfo, Params, RunnerEvent, Token,
        };
        pub use $crate::livepeer_core::{self as core, Time};
        pub use $crate::livepeer_media::{self as media, Speed, Warnings};
        pub use $crate::{
            KeyHolder, LocalKey, MemoryStore, NoKey, Pins, Store, http, keys, seed, store, tls,
        };
    };
}
