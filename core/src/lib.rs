//! The Livepeer gateway protocol as state machines without I/O.
//!
//! Livepeer is an open network that sells GPU video and AI work. This crate is its demand side: how a gateway finds
//! orchestrators, agrees on capabilities and price, pays with probabilistic tickets, carries live video, and moves on
//! when an orchestrator fails. The crate opens no socket, reads no clock, draws no random number, spawns nothing and
//! needs no `std`. Whoever embeds it brings those, in any runtime or in none; `livepeer-runtime` does so over hyper and
//! rustls, `livepeer-sim` over a simulated network.
//!
//! # A machine
//!
//! Everything that happens over time is a [`Machine`]: a value with two verbs.
//!
//! ```text
//!            handle_input(now, Input)                        poll_output() -> Output
//!   ─────────────────────────────────────▶  machine  ─────────────────────────────────────▶
//!   Tick                time has passed                Effect(id, Http(step))   HTTP, as client or server
//!   Http(id, step)      a step of an exchange          Effect(id, Sign(digest)) a signature
//!   Signed(id, ..)      the answer to Sign             Effect(id, Store(..))    a durable record
//!   Stored(id, ..)      the answer to Store            Event(event)             news for the owner
//!                                                      Idle(wake)               drained: wait until then
//! ```
//!
//! Commands are methods of their own (`publisher.begin(now)`, `job.stop(now)`), all with the time as an argument. An
//! `Err` of a command is a mistake of the caller, described by [`Misuse`], and changes nothing. Whatever a peer did is an
//! event that carries a [`Failure`]: its [`Cause`], the guilty [`Party`], and by [`Failure::advice`] the remedy.
//!
//! The contract, with its eleven rules, is in [`machine`]; the ones that matter first:
//!
//! - Calls may come in any order and number. No order is illegal, and an answer to an exchange that is over is ignored.
//! - Drain to [`Output::Idle`] before you wait. The time it names is in the future, so that a driver cannot spin.
//! - Deadlines, retries and bounds are the machine's. A driver sets none.
//! - Our own side fails too: a refused signature and a failed store have answers of their own.
//! - The same seed and the same calls give the same outputs, byte for byte.
//!
//! # The loop
//!
//! A driver drains the machine, performs what it asks for, and feeds the answers. Over plain `TcpStream`s, one exchange
//! at a time, a complete driver is this (`examples/tcp` runs it, and is a test as well):
//!
//! ```
#![doc = include_str!("../examples/tcp/drive.rs")]
//! ```
//!
//! A driver that carries video streams bodies in both directions, runs exchanges side by side and reports what left by
//! [`http::In::Sent`]; [`http`] says what each step means. `examples/memory.rs` joins a publisher, a server and a
//! subscriber by hand and shows the server's half of the contract.
//!
//! # Which machine
//!
//! | you want to | machine | it asks for |
//! |---|---|---|
//! | find orchestrators | [`discovery::Discovery`] | HTTP |
//! | know one orchestrator's terms, and keep them fresh | [`handshake::Handshake`] | HTTP (gRPC), signatures |
//! | have the best of many at hand | [`pool::SessionPool`] | HTTP, signatures |
//! | pay an orchestrator | [`payment::PaymentSession`] | HTTP, signatures, records |
//! | run live video through a model, across orchestrators | [`job::LiveVideoJob`] with [`job::live::media::Media`] | all three |
//! | have one request after another answered by a model, across orchestrators | [`job::batch::Batch`] | all three |
//! | write a trickle channel, or read one | [`trickle::Publisher`], [`trickle::Subscriber`] | HTTP |
//! | serve trickle channels | [`trickle::Server`] | HTTP, as server |
//! | answer applications that want batch work | [`front::Front`] | HTTP, as server |
//! | let senders of live video in, and tell how they do | [`entry::Entry`] | HTTP |
//! | sign for other gateways | [`payment::SignerServer`] | HTTP, signatures, records |
//! | check and keep tickets, as an orchestrator | [`payment::TicketReceiver`] | records |
//! | follow rounds, blocks and accounts of the chain | [`onchain::ChainWatch`] | HTTP |
//!
//! Each machine's page has its states as a diagram, its events, and the bounds of what it holds.
//!
//! # The rooms
//!
//! | room | what lives there |
//! |---|---|
//! | [`time`], [`rng`], [`sign`], [`store`], [`money`], [`units`] | time, chance, keys, records, amounts and units of work as values |
//! | [`http`] | requests, answers and their steps; [`http::Url`] and the rule of who may name which address |
//! | [`pipeline`] | the pipelines that are sold, their models and units of work |
//! | [`capabilities`] | what is asked for and what is offered, and why they do not match |
//! | [`wire`] | every byte format: JSON, protobuf, base64, gRPC framing. No other room parses |
//! | [`error`] | failures: cause, guilty party, advice |
//! | [`discovery`], [`selection`], [`pool`] | finding orchestrators, choosing one, keeping some ready |
//! | [`handshake`], [`signers`] | an orchestrator's terms; the remote signers and how they are doing |
//! | [`payment`] | tickets on both sides, signer service, ledger |
//! | [`chain`], [`onchain`] | the chain's state as a value; the machine that reads it |
//! | [`trickle`] | the live sequence of segments that carries video |
//! | [`job`] | jobs, which put the rooms together |
//! | [`front`] | the front door: routes, limits and the form of answers |
//! | [`entry`] | live entry: who sends under which name, and what is told of it |
//!
//! Terms are those of the network: the repository's `GLOSSARY.md` explains each.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod alarms;
pub mod capabilities;
pub mod chain;
pub mod currency;
pub mod discovery;
pub mod entry;
pub mod error;
mod exchange;
pub mod figures;
pub mod front;
pub mod handshake;
pub mod http;
pub mod intake;
pub mod job;
pub mod machine;
pub mod models;
pub mod money;
pub mod onchain;
pub mod payment;
pub mod pipeline;
pub mod pool;
pub mod prefer;
pub mod rng;
pub mod selection;
pub mod sign;
pub mod signers;
pub mod spelling;
pub mod spend;
pub mod store;
pub mod time;
mod track_record;
pub mod trickle;
pub mod units;
pub mod wire;

pub use chain::ChainView;
pub use error::{Advice, Cause, Failure, Misuse, Party};
pub use machine::{Child, Effect, EffectId, Input, Machine, Outbox, Output};
pub use pipeline::{Pipeline, WorkUnit};
pub use rng::{Rng, Seed};
pub use sign::{Address, Digest, Signature};
pub use signers::{SignerHealth, Signers};
pub use time::Time;
pub use track_record::TrackRecord;
