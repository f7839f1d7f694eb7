//! Bounded size is not bounded time: large inputs, each built to be worst, take a fraction of
//! [`STEP_BUDGET`](livepeer_sim::budget::STEP_BUDGET).

mod decoders;
mod ingest;
mod machines;
mod shapes;
