//! Results that clients fetch by the addresses in answers: kept for a while, and bounded in total.
//!
//! All results of one answer are kept or none. Where there is no room the oldest answers go first; a shell with a folder
//! is told of each result and hands it back when memory has let go of it.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound;
use core::time::Duration;

use bytes::Bytes;

use crate::time::Time;

/// A result and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The path under which clients fetch it, such as `/stream/0a1b2c3d/0.png`.
    pub path: String,
    /// The media type.
    pub content_type: &'static str,
    /// The content.
    pub content: Bytes,
    /// When it may be forgotten.
    pub until: Time,
}

/// The results in memory.
#[derive(Debug)]
pub(super) struct Objects {
    most: usize,
    held: usize,
    kept: BTreeMap<String, Object>,
    /// The paths of each answer, oldest first, and when they are over.
    answers: VecDeque<(Time, Vec<String>)>,
}

impl Objects {
    pub(super) const fn new(most: usize) -> Self {
        Self {
            most,
            held: 0,
            kept: BTreeMap::new(),
            answers: VecDeque::new(),
        }
    }

    /// Keeps the results of an answer; false if they are more than all the memory there is.
    pub(super) fn keep(&mut self, objects: &[Object]) -> bool {
        let more: usize = objects.iter().map(|object| object.content.len()).sum();
        if more > self.most {
            return false;
        }
        while self.held + more > self.most {
            self.forget_oldest();
        }
        let Some(until) = objects.iter().map(|object| object.until).max() else {
            return true;
        };
        for object in objects {
            self.held += object.content.len();
            if let Some(old) = self.kept.insert(object.path.clone(), object.clone()) {
                self.held -= old.content.len();
            }
        }
        let paths = objects.iter().map(|object| object.path.clone()).collect();
        self.answers.push_back((until, paths));
        true
    }

    pub(super) fn get(&self, path: &str) -> Option<&Object> {
        self.kept.get(path)
    }

    /// Whether a result is kept whose path begins so.
    pub(super) fn has_any(&self, prefix: &str) -> bool {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let mut kept = self.kept.range::<str, _>(from);
        kept.next()
            .is_some_and(|(path, _)| path.starts_with(prefix))
    }

    /// Forgets what is over.
    pub(super) fn tick(&mut self, now: Time) {
        while self.next().is_some_and(|until| until <= now) {
            self.forget_oldest();
        }
    }

    /// When the oldest answer is over.
    pub(super) fn next(&self) -> Option<Time> {
        self.answers.front().map(|(until, _)| *until)
    }

    /// Bytes that are kept.
    pub(super) const fn bytes(&self) -> usize {
        self.held
    }

    pub(super) const fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    fn forget_oldest(&mut self) {
        let Some((_, paths)) = self.answers.pop_front() else {
            return;
        };
        for path in paths {
            if let Some(old) = self.kept.remove(&path) {
                self.held -= old.content.len();
            }
        }
    }
}

/// How long the names of results may be.
const MAX_NAME: usize = 128;

/// A name for a result among others of its answer, after the one it had at its orchestrator: letters, digits, dots and
/// dashes, and no name twice.
pub(super) fn name_among(taken: &[String], given: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = given
        .chars()
        .map(|c| if safe(c) { c } else { '_' })
        .take(MAX_NAME)
        .collect();
    let name = match name.trim_start_matches('.') {
        "" => String::from("result"),
        name => String::from(name),
    };
    if !taken.contains(&name) {
        return name;
    }
    let other = |count: &usize| !taken.contains(&alloc::format!("{count}-{name}"));
    let count = (1..=taken.len()).find(other).unwrap_or(taken.len());
    alloc::format!("{count}-{name}")
}

/// The media type that the ending of a name stands for.
pub(super) fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "wav" => "audio/wav",
        "flac" => "audio/flac",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        _ => "application/octet-stream",
    }
}

/// The results of one answer as objects that are kept from now on for so long.
pub(super) fn objects(
    now: Time,
    keep: Duration,
    files: impl IntoIterator<Item = (String, Bytes)>,
) -> Vec<Object> {
    files
        .into_iter()
        .map(|(path, content)| Object {
            content_type: content_type(&path),
            path,
            content,
            until: now + keep,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn answer(now: u64, name: &str, count: usize, size: usize) -> Vec<Object> {
        let content = Bytes::from(alloc::vec![7; size]);
        let files = (0..count).map(|n| (format!("/stream/{name}/{n}.png"), content.clone()));
        objects(Time::from_secs(now), Duration::from_secs(60), files)
    }

    #[test]
    fn all_results_of_an_answer_are_kept_however_many() {
        let mut kept = Objects::new(1_000);
        assert!(kept.keep(&answer(0, "a", 40, 10)));
        assert!((0..40).all(|n| kept.get(&format!("/stream/a/{n}.png")).is_some()));
        assert!(kept.has_any("/stream/a/") && !kept.has_any("/stream/b/"));
        kept.tick(Time::from_secs(59));
        assert_eq!(kept.bytes(), 400);
        kept.tick(Time::from_secs(60));
        assert_eq!((kept.bytes(), kept.next()), (0, None));
    }

    #[test]
    fn the_oldest_answers_make_room_and_what_is_too_large_is_not_taken() {
        let mut kept = Objects::new(1_000);
        assert!(kept.keep(&answer(0, "a", 5, 100)));
        assert!(kept.keep(&answer(1, "b", 5, 100)));
        assert!(!kept.keep(&answer(2, "c", 11, 100)), "larger than all");
        assert!(kept.has_any("/stream/a/"), "and nothing went for it");
        assert!(kept.keep(&answer(3, "d", 1, 100)));
        assert!(!kept.has_any("/stream/a/"), "whole answers go");
        assert!(kept.has_any("/stream/b/") && kept.has_any("/stream/d/"));
        assert_eq!(kept.bytes(), 600);
    }

    #[test]
    fn a_name_is_safe_and_its_own() {
        let mut taken: Vec<String> = Vec::new();
        for (given, name) in [
            ("0.png", "0.png"),
            ("0.png", "1-0.png"),
            ("0.png", "2-0.png"),
            ("..", "result"),
            ("a b/é.wav", "a_b__.wav"),
            (".htaccess", "htaccess"),
        ] {
            let made = name_among(&taken, given);
            assert_eq!(made, name);
            taken.push(made);
        }
        assert_eq!(content_type("/files/x/0.png"), "image/png");
        assert_eq!(content_type("x.html"), "application/octet-stream");
    }
}
