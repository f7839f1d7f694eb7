//! Forms are read as a library of many users reads them.

use bytes::Bytes;
use futures_lite::future::block_on;
use futures_lite::stream;
use livepeer_core::wire::multipart::{self, BadForm};
use livepeer_sim::fuzz::batch::FORM;
use proptest::prelude::*;

use crate::cases;

/// Name, name of the file, content.
type Part = (String, Option<String>, Vec<u8>);

fn ours(body: &[u8]) -> Result<Vec<Part>, BadForm> {
    let parts = multipart::read(FORM, &Bytes::copy_from_slice(body))?;
    let part = |part: multipart::Part| (part.name, part.file_name, part.content.to_vec());
    Ok(parts.into_iter().map(part).collect())
}

fn theirs(body: &[u8]) -> multer::Result<Vec<Part>> {
    let boundary = multer::parse_boundary(FORM)?;
    let body = Bytes::copy_from_slice(body);
    let pieces = stream::once(Ok::<_, std::convert::Infallible>(body));
    let mut form = multer::Multipart::new(pieces, boundary);
    block_on(async {
        let mut parts = Vec::new();
        while let Some(field) = form.next_field().await? {
            let name = field.name().unwrap_or_default().to_owned();
            let file_name = field.file_name().map(str::to_owned);
            parts.push((name, file_name, field.bytes().await?.to_vec()));
        }
        Ok(parts)
    })
}

/// Content that is rich in what delimiters are made of.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"\r\n"[..]),
        Just(&b"\r"[..]),
        Just(&b"\n"[..]),
        Just(&b"--"[..]),
        Just(&b"-"[..]),
        Just(&b"--b0undar"[..]),
        Just(&b"x"[..]),
        Just(&b"\xff\0"[..]),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn part() -> impl Strategy<Value = Part> {
    let name = "[a-z][a-z _]{0,5}";
    (name, prop::option::of("[a-z]{0,3}[.]png"), content())
}

fn form(parts: &[Part]) -> Vec<u8> {
    let mut form = Vec::new();
    for (name, file_name, content) in parts {
        form.extend_from_slice(b"--b0undary\r\nContent-Disposition: form-data; name=\"");
        form.extend_from_slice(name.as_bytes());
        form.push(b'"');
        if let Some(file_name) = file_name {
            form.extend_from_slice(format!("; filename=\"{file_name}\"").as_bytes());
        }
        form.extend_from_slice(b"\r\n\r\n");
        form.extend_from_slice(content);
        form.extend_from_slice(b"\r\n");
    }
    form.extend_from_slice(b"--b0undary--\r\n");
    form
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_form_reads_as_what_was_put_in(parts in prop::collection::vec(part(), 0..5)) {
        let written = form(&parts);
        prop_assert_eq!(theirs(&written).ok(), Some(parts.clone()));
        prop_assert_eq!(ours(&written), Ok(parts));
    }

    #[test]
    fn a_damaged_form_is_refused_or_reads_as_the_library_reads_it(
        parts in prop::collection::vec(part(), 1..4),
        at in any::<prop::sample::Index>(),
        with in content(),
        delimiter in prop::sample::select(&["", "--b0undary", "\r\n--b0undary\r\n", "\r\n--b0undary--"][..]),
        cut in any::<bool>(),
    ) {
        let mut damaged = form(&parts);
        // The library finds the first delimiter also in the middle of a line, which the reference does not.
        let first = b"--b0undary".len();
        let at = first + at.index(damaged.len() - first);
        let with = [&with[..], delimiter.as_bytes()].concat();
        if cut {
            damaged.truncate(at);
        } else {
            damaged.splice(at..at, with);
        }
        if let (Ok(ours), Ok(theirs)) = (ours(&damaged), theirs(&damaged)) {
            prop_assert_eq!(ours, theirs, "{:?}", String::from_utf8_lossy(&damaged));
        }
    }
}
