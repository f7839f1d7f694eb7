use crate::args::DevnetArgs;
use crate::ui::{Failed, Outcome};

pub(super) fn run(_: &DevnetArgs) -> Outcome {
    Err(Failed::new(
        "`devnet` is not wired to the network yet",
        "Wait for the next commit",
    ))
}
