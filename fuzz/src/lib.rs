//! The frame of a fuzz target. What a target does is in `livepeer_sim::fuzz`.
//!
//! `cargo +nightly fuzz run decode_url` searches for new inputs. An ordinary build, also on stable, makes
//! programs that replay the files or folders named on their command line. An input that takes longer than
//! `livepeer_sim::budget::STEP_BUDGET` is a fault like any other.

/// Makes the file it stands in the fuzz target of that name.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        #[cfg(fuzzing)]
        $crate::fuzz_target!(|data: &[u8]| $crate::run(stringify!($name), data));

        #[cfg(not(fuzzing))]
        fn main() {
            $crate::replay(stringify!($name), std::env::args_os().skip(1));
        }
    };
}

#[cfg(fuzzing)]
pub use libfuzzer_sys::fuzz_target;
pub use livepeer_sim::fuzz::run;

/// Runs the target of that name over files, and over the files in folders.
pub fn replay(name: &str, paths: impl Iterator<Item = std::ffi::OsString>) {
    for path in paths.map(std::path::PathBuf::from) {
        let files = match std::fs::read_dir(&path) {
            Ok(folder) => folder
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .collect(),
            Err(_) => vec![path],
        };
        for file in files {
            match std::fs::read(&file) {
                Ok(data) => run(name, &data),
                Err(err) => eprintln!("{}: {err}", file.display()),
            }
        }
    }
}
