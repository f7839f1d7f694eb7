//! The shared suite on tokio, with its tasks on threads of their own and all on one.

use std::future::Future;

use livepeer_tokio::TokioRuntime;
use tokio::runtime::Builder;

fn on(mut builder: Builder, future: impl Future<Output = ()>) {
    let runtime = builder.enable_all().build();
    runtime.expect("the system has threads").block_on(future);
}

mod many_threads {
    use super::*;

    livepeer_runtime::conformance_tests!(TokioRuntime::new(), |scenario| {
        on(Builder::new_multi_thread(), scenario);
    });
}

mod one_thread {
    use super::*;

    livepeer_runtime::conformance_tests!(TokioRuntime::new(), |scenario| {
        on(Builder::new_current_thread(), scenario);
    });
}
