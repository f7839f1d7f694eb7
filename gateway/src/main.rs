//! A small, fast Livepeer gateway.

#[allow(
    dead_code,
    unused_imports,
    reason = "the commands that use it come with the sessions"
)]
mod media;

fn main() {}
