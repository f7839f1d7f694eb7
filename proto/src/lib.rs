//! The wire messages between Livepeer gateways and orchestrators.
#![no_std]
