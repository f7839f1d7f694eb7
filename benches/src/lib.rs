//! Benchmarks of the protocol machines, and what several of them share.

#![allow(missing_debug_implementations, reason = "nothing here is printed")]

pub mod front;
pub mod index;
pub mod payment;
pub mod process;
pub mod times;
