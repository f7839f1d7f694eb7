//! The shared suite on tokio.

use std::future::Future;

use livepeer_tokio::TokioRuntime;

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new()
        .expect("the system has threads")
        .block_on(future);
}

livepeer_runtime::conformance_tests!(TokioRuntime::new(), block_on);
