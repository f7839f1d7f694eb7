//! `src/net.rs` is what `lp_rpc.proto` generates.

use std::path::Path;

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = protox::compile([root.join("lp_rpc.proto")], [root]).expect("the schema compiles");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
    prost_build::Config::new()
        // Maps in key order, so that encoding is deterministic.
        .btree_map(["."])
        .bytes(["."])
        .out_dir(out)
        .compile_fds(schema)
        .expect("the code generates");
    let fresh = std::fs::read_to_string(out.join("net.rs")).expect("it was just written");
    let committed = root.join("src/net.rs");
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(&committed, &fresh).expect("the source tree is writable");
    }
    let current = std::fs::read_to_string(&committed).expect("the generated file is committed");
    assert!(
        fresh == current,
        "src/net.rs is stale: run REGENERATE=1 cargo test -p livepeer-proto"
    );
}
