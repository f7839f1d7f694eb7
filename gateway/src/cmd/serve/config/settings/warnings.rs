//! Settings that can be meant, and are probably not.

use std::path::Path;

use super::super::said::shown;
use super::{Reader, Settings};

/// Files that nobody else should read.
const SECRETS: [&str; 4] = [
    "payer.key_file",
    "payer.password_file",
    "serve.tls.key",
    "media.mediamtx.password_file",
];

impl Reader<'_> {
    /// Warns about what has no effect, or not the one that is wanted.
    pub(super) fn doubts(&mut self, settings: &Settings) {
        let served = &settings.pools.pipelines;
        for (name, said) in self.table("models.alias") {
            let Some((pipeline, _)) = settings.aliases.get(&name) else {
                continue;
            };
            if !served.is_empty() && !served.contains(pipeline) {
                let path = format!("models.alias.{}", shown(&[name]));
                let pipeline = pipeline.name();
                let why = format_args!("it is never used: pools.pipelines leaves out {pipeline}");
                self.warn(said.origin, path, why);
            }
        }
        for key in SECRETS {
            if let Some((file, origin)) = self.text(key)
                && is_open(Path::new(&file))
            {
                let why =
                    format!("{file:?} can be read by others; chmod 600 keeps it to its owner");
                self.warn(origin, key, why);
            }
        }
    }
}

/// Whether others than its owner may read a file.
#[cfg(unix)]
fn is_open(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
const fn is_open(_: &Path) -> bool {
    false
}
