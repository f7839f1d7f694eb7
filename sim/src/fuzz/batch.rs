//! Texts that batch jobs read: requests, answers, streams and forms.

use bytes::Bytes;
use livepeer_core::Pipeline;
use livepeer_core::wire::batch::{
    Answer, BatchRequest, MAX_CLIENT_TEXT, Media, Probe, Verdict, data_url, judge, native_chunk,
    read_answer, read_chunk,
};
use livepeer_core::wire::multipart::{self, MAX_TEXT_BYTES};
use livepeer_core::wire::sse;

const BOUNDARY: [u8; 30] = [0xab; 30];

/// The content type of the forms that are read.
pub const FORM: &str = "multipart/form-data; boundary=b0undary";

/// A pipeline, chosen by the first byte, and the rest.
fn chosen(data: &[u8]) -> Option<(Pipeline, Bytes)> {
    let (first, rest) = data.split_first()?;
    let pipeline = Pipeline::ALL[usize::from(*first) % Pipeline::ALL.len()];
    Some((pipeline, Bytes::copy_from_slice(rest)))
}

/// A request that passes has units, once its file is measured, and reads again as it was written.
fn admitted(mut request: BatchRequest) {
    if request.check().is_err() {
        return;
    }
    let media = match request.needs() {
        Some(Probe::Image) => Some(Media::Image {
            width: 64,
            height: 64,
        }),
        Some(Probe::Audio) => Some(Media::Audio {
            duration: core::time::Duration::from_millis(2_500),
        }),
        None => None,
    };
    if media.is_some_and(|media| request.measured(media).is_err()) {
        return;
    }
    assert!(request.units().is_some(), "nothing is left to be measured");
    let sent = request.encode(&BOUNDARY);
    let body = sent.to_bytes();
    let pipeline = request.pipeline();
    let again = if request.file().is_some() {
        BatchRequest::read_form(pipeline, &sent.content_type, &body)
    } else {
        BatchRequest::read_json(pipeline, &body)
    };
    let again = again.expect("our own writing");
    assert_eq!(again.model(), request.model());
    assert_eq!(
        again.encode(&BOUNDARY).to_bytes(),
        body,
        "read and written again"
    );
}

/// A request in JSON is refused, or can be passed on.
pub fn decode_batch_json(data: &[u8]) {
    if let Some((pipeline, body)) = chosen(data)
        && let Ok(request) = BatchRequest::read_json(pipeline, &body)
    {
        admitted(request);
    }
}

/// A request as a form is refused, or can be passed on.
pub fn decode_batch_form(data: &[u8]) {
    // Mended text grows, and a boundary inside of a file would be our own doing.
    if let Some((pipeline, body)) = chosen(data)
        && body.len() < MAX_TEXT_BYTES / 4
        && !body.windows(4).any(|four| four == b"abab")
        && let Ok(request) = BatchRequest::read_form(pipeline, FORM, &body)
    {
        admitted(request);
    }
}

/// An answer that is read comes out as it went in; a refusal gives clients a short line at most.
pub fn decode_batch_answer(data: &[u8]) {
    let Some((pipeline, body)) = chosen(data) else {
        return;
    };
    if let Ok(answer) = read_answer(pipeline, &body) {
        for url in answer.urls() {
            let _ = data_url(url);
        }
        let again = read_answer(pipeline, &answer.to_json()).expect("our own writing");
        match (&again, &answer) {
            // Numbers with a fraction may lose their last digit.
            (
                Answer::Text { text, chunks },
                Answer::Text {
                    text: said,
                    chunks: all,
                },
            ) => {
                assert_eq!((text, chunks.len()), (said, all.len()));
            }
            _ => assert_eq!(again, answer),
        }
    }
    for status in [400, 500] {
        if let Verdict::Caller { text, .. } = judge(pipeline, true, status, &body) {
            assert!(text.chars().count() <= MAX_CLIENT_TEXT);
            assert!(!text.contains(char::is_control));
        }
    }
}

/// A stream has the same events wherever it is cut, and they can be written again. The first byte says where to cut.
pub fn decode_event_stream(data: &[u8]) {
    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<Bytes>> {
        let (mut reader, mut events) = (sse::Reader::new(), Vec::new());
        for piece in pieces {
            let piece = Bytes::copy_from_slice(piece);
            reader.data(&piece, |payload| events.push(payload)).ok()?;
        }
        events.extend(reader.end());
        Some(events)
    }
    let Some((at, stream)) = data.split_first() else {
        return;
    };
    let (head, tail) = stream.split_at(stream.len() * usize::from(*at) / 256);
    let whole = events([stream]);
    assert_eq!(events([head, tail]), whole);
    assert_eq!(events(stream.chunks(1)), whole);
    for payload in whole.unwrap_or_default() {
        let _ = read_chunk(&payload);
        let native = native_chunk(&payload);
        assert_eq!(native_chunk(&native), native, "nothing more to leave out");
        assert_eq!(events([&sse::event(&payload)[..]]), Some(vec![payload]));
    }
}

/// A form that is read can be written again.
pub fn decode_multipart(data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    let Ok(parts) = multipart::read(FORM, &body) else {
        return;
    };
    let mut form = multipart::Writer::new("another");
    if body.windows(9).any(|nine| nine == b"--another") {
        return;
    }
    for part in &parts {
        match &part.file_name {
            Some(file_name) => form.file(&part.name, file_name, part.content.clone()),
            None => form.text(&part.name, &String::from_utf8_lossy(&part.content)),
        }
    }
    let content_type = form.content_type();
    let Ok(again) = multipart::read(&content_type, &form.end().concat().into()) else {
        assert!(
            data.len() > 64,
            "names and texts may have grown, but not from nothing"
        );
        return;
    };
    assert_eq!(again.len(), parts.len());
    for (again, part) in again.iter().zip(&parts) {
        if part.file_name.is_some() {
            assert_eq!(again.content, part.content);
        }
    }
}
