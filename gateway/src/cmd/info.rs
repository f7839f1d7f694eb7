use crate::args::InfoArgs;
use crate::ui::{Failed, Outcome};

pub(super) fn run(_: &InfoArgs) -> Outcome {
    Err(Failed::new(
        "`info` is not wired to the network yet",
        "Wait for the next commit",
    ))
}
