//! Results of batch jobs as files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use bytes::Bytes;
use livepeer_core::Pipeline;
use livepeer_runtime::api::{Answer, Finished};

use crate::ui::Failed;

/// At most this many names are tried for a file before a folder counts as full.
const MAX_NAMES: u32 = 100_000;

/// Writes the results of an answer to files of their own, none of which was there before, and puts their names in the
/// place of the URLs that led to them. The names, each once.
///
/// # Errors
/// If the folder or a file cannot be written.
pub(super) fn write(
    pipeline: Pipeline,
    done: &mut Finished,
    folder: &Path,
) -> Result<Vec<String>, Failed> {
    let mut written = Vec::new();
    for file in &done.files {
        let name = create(pipeline, folder, ending(&file.content), &file.content)?;
        for url in done.answer.iter_mut().flat_map(Answer::urls_mut) {
            if *url == file.url {
                url.clone_from(&name);
            }
        }
        written.push(name);
    }
    if let Some(answer @ Answer::Masks { .. }) = &done.answer {
        written.push(create(pipeline, folder, "json", &answer.to_json())?);
    }
    Ok(written)
}

/// The content of all results.
pub(super) fn all(done: &Finished) -> Vec<Bytes> {
    let masks = { done.answer.iter() }.filter(|answer| matches!(answer, Answer::Masks { .. }));
    let files = done.files.iter().map(|file| file.content.clone());
    files.chain(masks.map(Answer::to_json)).collect()
}

/// The answer as JSON.
pub(super) fn json(answer: &Answer) -> serde_json::Value {
    serde_json::from_slice(&answer.to_json()).expect("an answer is written as JSON")
}

/// Writes a new file, named for the pipeline and a number.
fn create(
    pipeline: Pipeline,
    folder: &Path,
    ending: &str,
    content: &[u8],
) -> Result<String, Failed> {
    let failed = |path: &Path, error: &io::Error| {
        Failed::file("cannot write", &path.display().to_string(), error)
    };
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    for number in 1..=MAX_NAMES {
        let path = folder.join(format!("{pipeline}-{number}.{ending}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(&path, &error)),
            Ok(mut file) => {
                file.write_all(content)
                    .map_err(|error| failed(&path, &error))?;
                return Ok(path.display().to_string());
            }
        }
    }
    Err(Failed::new(
        format_args!("{} has no room for another name", folder.display()),
        "Name another folder with --output",
    ))
}

/// The ending for a content, told by its first bytes: names that peers give mean nothing.
fn ending(content: &[u8]) -> &'static str {
    let brand = content.get(4..8);
    match content {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [0xff, 0xd8, 0xff, ..] => "jpg",
        [b'G', b'I', b'F', b'8', ..] => "gif",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'A',
            b'V',
            b'E',
            ..,
        ] => "wav",
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => "webp",
        [b'f', b'L', b'a', b'C', ..] => "flac",
        [b'I', b'D', b'3', ..] => "mp3",
        _ if brand == Some(b"ftyp") => "mp4",
        _ => "bin",
    }
}
