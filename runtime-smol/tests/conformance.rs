//! The shared suite on smol.

use livepeer_smol::SmolRuntime;

livepeer_runtime::conformance_tests!(SmolRuntime::new(), smol::block_on);
