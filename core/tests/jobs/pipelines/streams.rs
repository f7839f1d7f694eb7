//! Streams of language models: from an orchestrator's bytes to a client's events.

use bytes::Bytes;
use livepeer_core::Pipeline;
use livepeer_core::wire::batch::{Chunk, native_chunk, native_error, read_answer, read_chunk};
use livepeer_core::wire::sse;
use serde_json::{Value, json};

use super::{REAL_NODE, STREAM, body, text};
use crate::of_kind;

/// The events that a client of the reference's route gets for an orchestrator's stream that comes in these pieces.
fn played(pieces: &[Bytes], broke: bool) -> Vec<Bytes> {
    let (mut reader, mut payloads) = (sse::Reader::new(), Vec::new());
    let mut broken = broke;
    for piece in pieces {
        broken |= reader
            .data(piece, |payload| payloads.push(payload))
            .is_err();
    }
    if !broken {
        payloads.extend(reader.end());
    }
    let mut events = Vec::new();
    for payload in payloads {
        match read_chunk(&payload) {
            Chunk::Part(part) => {
                events.push(native_chunk(&payload));
                if part.is_finished() {
                    return events;
                }
            }
            Chunk::Failed(text) => {
                events.push(native_error(&text));
                return events;
            }
            Chunk::Done | Chunk::Skipped => {}
        }
    }
    events.push(native_error("the stream broke off"));
    events
}

fn assert_same(id: &str, have: &[Bytes], want: &[Value]) {
    assert_eq!(have.len(), want.len(), "{id}: {have:?}");
    for (have, want) in have.iter().zip(want) {
        let have: Value = serde_json::from_slice(have).expect(id);
        if text(want, "error") == "re:.+" {
            assert!(!text(&have, "error").is_empty(), "{id}");
        } else {
            assert_eq!(have, *want, "{id}");
        }
    }
}

#[test]
fn events_are_those_of_the_vectors_however_the_stream_is_cut() {
    let mut seen = 0;
    for file in [STREAM, REAL_NODE] {
        for case in of_kind(file, "exchange") {
            let (id, out) = (text(&case, "id"), &case["out"]["reply"]);
            let request = &case["in"]["request"];
            if text(request, "path") != "/llm" {
                continue;
            }
            let Some(want) = out["events_json"].as_array() else {
                continue;
            };
            seen += 1;
            let reply = &case["in"]["peers"][0]["reply"];
            let whole = body(reply);
            if reply.get("body_json").is_some() {
                // One event for a whole answer.
                let answer = read_answer(Pipeline::Llm, &whole).expect(id);
                assert_same(id, &[answer.to_json()], want);
                continue;
            }
            let broke = reply["then"] == "reset";
            assert_same(id, &played(core::slice::from_ref(&whole), broke), want);
            let crumbs: Vec<_> = (0..whole.len()).map(|at| whole.slice(at..=at)).collect();
            assert_same(id, &played(&crumbs, broke), want);
            for at in 0..whole.len() {
                let halves = [whole.slice(..at), whole.slice(at..)];
                assert_same(id, &played(&halves, broke), want);
            }
        }
    }
    assert_eq!(seen, 10);
}

#[test]
fn a_stream_is_no_answer_to_a_request_without_one() {
    for case in of_kind(REAL_NODE, "exchange") {
        if case["id"] == "llm-sse-for-json" {
            let reply = body(&case["in"]["peers"][0]["reply"]);
            assert!(read_answer(Pipeline::Llm, &reply).is_err());
            return;
        }
    }
    panic!("the case is missing");
}

fn events(stream: &[u8]) -> Vec<String> {
    let (mut reader, mut found) = (sse::Reader::new(), Vec::new());
    let mut keep = |payload: Bytes| found.push(String::from_utf8_lossy(&payload).into_owned());
    reader
        .data(&Bytes::copy_from_slice(stream), &mut keep)
        .expect("no long line");
    if let Some(last) = reader.end() {
        keep(last);
    }
    found
}

#[test]
fn events_are_read_as_the_standard_has_them() {
    for (stream, want) in [
        (
            &b"data: a\n\ndata:b\r\n\r\ndata: c\r\r"[..],
            &["a", "b", "c"][..],
        ),
        (b"data: a\ndata: b\n\n", &["a\nb"]),
        (b"data\n\n", &[""]),
        (b"data:  a\n\n", &[" a"]),
        (b": ping\n\nevent: x\nid: 7\nretry: 9\ndata: a\n\n", &["a"]),
        (b"\xef\xbb\xbfdata: a\n\n", &["a"]),
        (b"\n\n\n\ndatum: a\n\n", &[]),
        // The reference's readers take what lacks its end.
        (b"data: a\n", &["a"]),
        (b"data: a", &["a"]),
        (b"data: a\r", &["a"]),
    ] {
        assert_eq!(
            events(stream),
            want,
            "{:?}",
            String::from_utf8_lossy(stream)
        );
    }
}

#[test]
fn a_stream_of_blank_lines_alone_is_of_no_use() {
    for line_end in ["\n", "\r", "\r\n"] {
        let mut reader = sse::Reader::new();
        let mut read = |text: String| reader.data(&text.into(), |_| ());
        let blank = line_end.repeat(sse::MAX_BLANK_LINES);
        for _ in 0..3 {
            // Anything between begins anew.
            let more = format!(": keep-alive{line_end}{blank}");
            assert_eq!(read(more), Ok(()));
        }
        assert_eq!(read(line_end.into()), Err(sse::BadStream::Blank));
        assert_eq!(
            read("data: a".into()),
            Err(sse::BadStream::Blank),
            "it stays so"
        );
    }
}

#[test]
fn a_line_may_have_a_mebibyte_and_no_more() {
    for (chunk, length, fits) in [
        (usize::MAX, sse::MAX_LINE_BYTES, true),
        (usize::MAX, sse::MAX_LINE_BYTES + 1, false),
        (1 << 10, sse::MAX_LINE_BYTES, true),
        (1 << 10, sse::MAX_LINE_BYTES + 1, false),
    ] {
        let mut line = b"data: ".to_vec();
        line.resize(length, b'x');
        line.extend_from_slice(b"\n\n");
        let (mut reader, mut told) = (sse::Reader::new(), 0);
        let mut good = true;
        for part in line.chunks(chunk.min(line.len())) {
            let part = Bytes::copy_from_slice(part);
            good &= reader.data(&part, |_| told += 1).is_ok();
        }
        assert_eq!(
            (good, told),
            (fits, usize::from(fits)),
            "{length} in {chunk}"
        );
        assert_eq!(reader.end(), None);
        let more = Bytes::from_static(b"data: a\n\n");
        assert_eq!(reader.data(&more, |_| ()).is_ok(), fits, "it stays so");
    }
    // Many lines of one event are bounded together.
    let line = Bytes::from([b"data: ", &vec![b'x'; 1 << 19][..], b"\n"].concat());
    let mut reader = sse::Reader::new();
    assert!(reader.data(&line, |_| ()).is_ok());
    assert!(reader.data(&line, |_| ()).is_err());
}

#[test]
fn a_payload_that_came_in_one_piece_is_a_part_of_it() {
    let piece = Bytes::from_static(b": x\n\ndata: {\"a\":1}\n\ndata: b\n\n");
    let mut told = Vec::new();
    let mut reader = sse::Reader::new();
    reader.data(&piece, |payload| told.push(payload)).unwrap();
    let within = piece.as_ptr_range();
    assert!(
        told.iter()
            .all(|payload| within.contains(&payload.as_ptr()))
    );
    assert_eq!(told.len(), 2);
}

#[test]
fn chunks_are_told_apart() {
    let choice = json!({"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":""}]});
    let Chunk::Part(part) = read_chunk(choice.to_string().as_bytes()) else {
        panic!();
    };
    assert!(!part.is_finished(), "an empty reason is none");
    assert_eq!(part.choices[0].content, "a");
    for (payload, want) in [
        ("[DONE]", Chunk::Done),
        (" [DONE] ", Chunk::Done),
        ("{oops", Chunk::Skipped),
        ("null", Chunk::Skipped),
        ("[]", Chunk::Skipped),
        (r#"{"choices":7}"#, Chunk::Skipped),
        (r#"{"error":"oom"}"#, Chunk::Failed("oom".into())),
        (
            r#"{"error":{"message":"oom"},"choices":[]}"#,
            Chunk::Failed("oom".into()),
        ),
        (r#"{"error":7}"#, Chunk::Failed("the runner failed".into())),
    ] {
        assert_eq!(read_chunk(payload.as_bytes()), want, "{payload}");
    }
    assert!(matches!(read_chunk(b"{}"), Chunk::Failed(_)));
    assert!(matches!(
        read_chunk(br#"{"choices":null}"#),
        Chunk::Failed(_)
    ));
}

#[test]
fn what_is_written_is_read_again() {
    for payload in ["", "a", "{\"a\":1}", "two\nlines", "\n", " blank"] {
        let written = sse::event(payload.as_bytes());
        assert_eq!(events(&written), [payload], "{payload:?}");
    }
    assert_eq!(sse::event(b"a"), "data: a\n\n");
    assert_eq!(sse::comment("a\nb"), ": a b\n\n");
    assert_eq!(events(&sse::comment("data: x\n\ndata: y")), [""; 0]);
}

#[test]
fn only_null_options_are_left_out_of_what_clients_get() {
    let same = |text: &'static str| {
        let payload = Bytes::from_static(text.as_bytes());
        assert_eq!(native_chunk(&payload), payload, "{text}");
    };
    same(r#"{"choices":[{"index":0,"logprobs":null}]}"#);
    same("null");
    same(r#"{"choices":[{"delta":{"content":"null"}}]}"#);
    let payload = Bytes::from_static(
        br#"{"choices":[{"delta":{"tool_calls":[1]},"finish_reason":null,"message":null}]}"#,
    );
    let want: &[u8] = br#"{"choices":[{"delta":{"tool_calls":[1]}}]}"#;
    assert_eq!(native_chunk(&payload), want);
}
