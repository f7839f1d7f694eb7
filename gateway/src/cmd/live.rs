use crate::args::LiveArgs;
use crate::ui::{Failed, Outcome};

pub(super) fn run(_: &LiveArgs) -> Outcome {
    Err(Failed::new(
        "`live` is not wired to the network yet",
        "Wait for the next commit",
    ))
}
