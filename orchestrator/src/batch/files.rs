//! Results that wait to be downloaded.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

/// The path that the addresses of results begin with.
pub(super) const PATH: &str = "/stream/";

/// At most this many results are kept; the oldest give way.
pub const MAX_FILES: usize = 10_000;

/// Results of more bytes than this together are not kept; the oldest give way.
pub const MAX_FILE_BYTES: usize = 256 << 20;

/// Results by their path.
#[derive(Debug, Default)]
pub(crate) struct Files {
    kept: BTreeMap<String, File>,
    /// Paths in the order in which they came.
    order: VecDeque<String>,
    bytes: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) media_type: &'static str,
    pub(crate) content: Bytes,
}

impl Files {
    /// Keeps a result; returns its path. Under a name that the request has used before, it takes the other's place.
    pub(super) fn keep(&mut self, request: &str, name: &str, file: File) -> String {
        let path = format!("{PATH}{request}/{name}");
        self.bytes += file.content.len();
        match self.kept.insert(path.clone(), file) {
            Some(before) => self.bytes -= before.content.len(),
            None => self.order.push_back(path.clone()),
        }
        while self.order.len() > MAX_FILES || self.bytes > MAX_FILE_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(gone) = self.kept.remove(&oldest) {
                self.bytes -= gone.content.len();
            }
        }
        path
    }

    /// The result of that path.
    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.kept.get(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_results_give_way_to_new_ones() {
        let file = |size: usize| File {
            media_type: "image/png",
            content: vec![7; size].into(),
        };
        let mut files = Files::default();
        let first = files.keep("a", "1.png", file(MAX_FILE_BYTES / 2));
        let second = files.keep("a", "2.png", file(MAX_FILE_BYTES / 2));
        assert!(files.get(&first).is_some());
        let third = files.keep("b", "1.png", file(1));
        assert!(files.get(&first).is_none());
        assert!(files.get(&second).is_some() && files.get(&third).is_some());
        for n in 0..MAX_FILES {
            files.keep("c", &n.to_string(), file(0));
        }
        assert!(files.get(&third).is_none());
        assert_eq!((files.kept.len(), files.bytes), (MAX_FILES, 0));
    }

    #[test]
    fn an_equal_name_in_a_request_replaces_what_was() {
        let mut files = Files::default();
        for byte in [1, 2] {
            let content = Bytes::copy_from_slice(&[byte]);
            files.keep(
                "a",
                "x.png",
                File {
                    media_type: "image/png",
                    content,
                },
            );
        }
        assert_eq!(
            files.get("/stream/a/x.png").map(|file| file.content[0]),
            Some(2)
        );
        assert_eq!((files.order.len(), files.bytes), (1, 1));
    }
}
