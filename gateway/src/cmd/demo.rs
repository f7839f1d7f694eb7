use crate::args::DemoArgs;
use crate::ui::{Failed, Outcome};

pub(super) fn run(_: &DemoArgs) -> Outcome {
    Err(Failed::new(
        "`demo` is not wired to the network yet",
        "Wait for the next commit",
    ))
}
