//! Replays every committed corpus through the functions that the fuzzers run, and holds the fuzz crate together.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use livepeer_sim::fuzz::{TARGETS, run};

fn fuzz_crate() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The files of a folder in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|err| panic!("{}: {err}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    files.sort();
    files
}

/// Prints which input it was, if the target panics.
struct Running<'a>(&'a Path);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input was {}", self.0.display());
        }
    }
}

#[test]
fn no_committed_input_finds_a_fault() {
    for (name, _) in TARGETS {
        let inputs = files(&fuzz_crate().join("corpus").join(name));
        assert!(!inputs.is_empty(), "{name} has no seeds");
        for input in inputs {
            let _running = Running(&input);
            run(name, &fs::read(&input).expect("a readable file"));
        }
    }
}

#[test]
fn short_and_cut_inputs_find_no_fault() {
    for (name, target) in TARGETS {
        target(&[]);
        for input in files(&fuzz_crate().join("corpus").join(name)) {
            let _running = Running(&input);
            let bytes = fs::read(&input).expect("a readable file");
            // All prefixes of short inputs, some of long ones: a fuzzer tries the others.
            for end in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
                target(&bytes[..end]);
            }
        }
    }
}

#[test]
fn every_target_has_its_file_its_binary_and_its_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
    let stems = |folder: &str| -> BTreeSet<String> {
        files(&fuzz_crate().join(folder))
            .iter()
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into())
            .collect()
    };
    assert_eq!(stems("fuzz_targets"), targets, "fuzz/fuzz_targets");
    assert_eq!(stems("corpus"), targets, "fuzz/corpus");
    let manifest = fs::read_to_string(fuzz_crate().join("Cargo.toml")).expect("a manifest");
    for name in &targets {
        let file =
            fs::read_to_string(fuzz_crate().join(format!("fuzz_targets/{name}.rs"))).expect("read");
        assert!(
            file.contains(&format!("livepeer_fuzz::target!({name});")),
            "fuzz_targets/{name}.rs runs another target"
        );
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name} has no [[bin]] in fuzz/Cargo.toml"
        );
    }
    assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
}
