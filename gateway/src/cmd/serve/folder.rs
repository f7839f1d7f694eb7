//! Results in a folder, for those that no longer fit in memory and for the time after a restart.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use livepeer_core::front::Object;
use tracing::warn;

use crate::ui::Failed;

/// A folder of results. Names are those of the paths under which clients fetch them.
#[derive(Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Opens the folder, and makes it if there is none.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(super) fn open(path: &Path) -> Result<Self, Failed> {
        fs::create_dir_all(path)
            .map_err(|error| Failed::file("cannot use", &path.display().to_string(), &error))?;
        Ok(Self(path.to_owned()))
    }

    /// Keeps a result: all of it or nothing.
    pub(super) fn keep(&self, object: &Object) {
        let Some(path) = self.path(&object.path) else {
            return;
        };
        let kept = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| {
                let beside = path.with_extension("new");
                fs::write(&beside, &object.content)?;
                fs::rename(&beside, &path)
            });
        if let Err(error) = kept {
            warn!(path = object.path, %error, "a result could not be kept");
        }
    }

    /// A result, if it is there.
    pub(super) fn get(&self, path: &str) -> Option<Bytes> {
        fs::read(self.path(path)?).ok().map(Bytes::from)
    }

    /// The file of a result. Only plain words lead into the folder, and none out of it.
    fn path(&self, path: &str) -> Option<PathBuf> {
        let mut file = self.0.clone();
        for word in path.strip_prefix('/')?.split('/') {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            if word.is_empty() || word.starts_with('.') || !word.bytes().all(plain) {
                return None;
            }
            file.push(word);
        }
        Some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livepeer_core::Time;

    #[test]
    fn a_result_is_found_again_and_no_path_leads_out_of_the_folder() {
        let root = std::env::temp_dir().join(format!("livepeer-folder-{}", std::process::id()));
        let folder = Folder::open(&root).expect("a folder");
        let object = Object {
            path: "/stream/0a1b2c3d/0.png".to_owned(),
            content_type: "image/png",
            content: Bytes::from_static(b"picture"),
            until: Time::from_millis(1),
        };
        folder.keep(&object);
        assert_eq!(folder.get(&object.path), Some(object.content.clone()));
        for other in [
            "/stream/0a1b2c3d/1.png",
            "/../x",
            "/stream/../x",
            "//x",
            "stream/x",
            "/a b",
        ] {
            assert_eq!(folder.get(other), None, "{other}");
            folder.keep(&Object {
                path: other.to_owned(),
                ..object.clone()
            });
        }
        assert!(!root.parent().expect("a parent").join("x").exists());
        fs::remove_dir_all(root).expect("it is there");
    }
}
