//! Decoders, each fed with what it can be fed with at most.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use livepeer_core::Pipeline;
use livepeer_core::capabilities::Capabilities;
use livepeer_core::http::{Headers, Response, Url};
use livepeer_core::job::live::media::stamps::Scanner;
use livepeer_core::trickle::message::{Lines, MAX_LINE, Messages};
use livepeer_core::wire::batch::{
    BatchRequest, MAX_JSON_BYTES, judge, native_chunk, read_answer, read_chunk,
};
use livepeer_core::wire::challenge::{Challenge, MAX_CHALLENGE_BYTES, RefreshRequest};
use livepeer_core::wire::grpc::{self, Answer, Question};
use livepeer_core::wire::jsonrpc::{Ask, read_batch};
use livepeer_core::wire::keystore::Keystore;
use livepeer_core::wire::listing::{self, MAX_ENTRY_BYTES, MAX_LIST_BYTES, StatsFields};
use livepeer_core::wire::multipart;
use livepeer_core::wire::signer::{PaymentRequest, PaymentResponse, Quote};
use livepeer_core::wire::sse::{self, MAX_LINE_BYTES};
use livepeer_core::wire::webhook::WebhookAnswer;
use livepeer_core::wire::{
    Channels, EventContext, MAX_MESSAGE_BYTES, OrchestratorAnswer, Params, Payment, RunnerEvent,
    SegmentCredentials, SignerState, StartRequest, Token, error_words, ethereum, reason,
};
use livepeer_sim::budget::within_budget;

use crate::shapes::{Shape, json, numbered, protobuf, repeated};

/// A decoder: its name, the most it is fed with, and itself.
type Decoder = (&'static str, usize, fn(&[u8]));

/// Inputs need not be longer to show a time that grows with their square, and longer ones cost more than they show.
const ENOUGH: usize = 128 << 10;

/// The length that is enough for lists, which are the longest inputs that are read.
const LONG_LIST: usize = MAX_LIST_BYTES / 8;

fn orchestrator() -> Url {
    Url::parse("https://orchestrator.example:8935").expect("a URL")
}

/// The result is of no interest here.
fn any<T>(_: T) {}

fn text(data: &[u8]) -> &str {
    std::str::from_utf8(data).unwrap_or_default()
}

const JSON: &[Decoder] = &[
    ("a list", MAX_LIST_BYTES, |data| {
        any(listing::read_list(data))
    }),
    ("a subgraph's answer", MAX_LIST_BYTES, |data| {
        any(listing::read_subgraph(data))
    }),
    ("statistics", MAX_LIST_BYTES, |data| {
        any(listing::read_stats(data, &StatsFields::default()))
    }),
    ("scores", MAX_LIST_BYTES, |data| {
        any(listing::read_scores(data, "FRA"))
    }),
    ("a round", MAX_LIST_BYTES, |data| {
        any(listing::read_round(data))
    }),
    ("runners", MAX_LIST_BYTES, |data| {
        any(listing::read_runners(data))
    }),
    ("answers of a chain", 4 << 20, |data| {
        any(read_batch(data, &[Ask::ChainId, Ask::Block]))
    }),
    ("a block", 4 << 20, |data| {
        any(ethereum::Block::from_json(data))
    }),
    ("a start request", 1 << 20, |data| {
        any(StartRequest::from_json(data))
    }),
    ("a start answer", 64 << 10, |data| {
        any(Channels::from_json(data, &orchestrator()))
    }),
    ("an event", 1 << 20, |data| {
        let context = EventContext(vec![("stream_id", "s".into())]);
        if let Ok(event) = RunnerEvent::parse(data, &context) {
            any(event.clone().merged_over(Some(&event)));
        }
    }),
    ("parameters", 1 << 20, |data| {
        any(Params::parse(text(data)).map(|params| params.to_json()))
    }),
    ("a challenge", MAX_CHALLENGE_BYTES, |data| {
        any(Challenge::from_json(data))
    }),
    ("a refresh request", 1 << 20, |data| {
        any(RefreshRequest::from_json(data))
    }),
    ("a payment request", 1 << 20, |data| {
        any(PaymentRequest::from_json(data))
    }),
    ("a payment response", 1 << 20, |data| {
        any(PaymentResponse::from_json(data))
    }),
    ("a webhook's answer", 64 << 10, |data| {
        any(WebhookAnswer::from_json(data))
    }),
    ("words of an error", 1 << 20, |data| any(error_words(data))),
    ("a signer's state", 1 << 20, |data| {
        any(SignerState::from_json(data))
    }),
    ("a keystore", 64 << 10, |data| any(Keystore::parse(data))),
    ("a token", 64 << 10, |data| {
        any(Token::decode(&STANDARD.encode(data)))
    }),
    ("a reason", 1 << 20, |data| any(reason(text(data)))),
    ("batch requests", MAX_JSON_BYTES, |data| {
        let body = Bytes::copy_from_slice(data);
        Pipeline::batch().for_each(|pipeline| any(BatchRequest::read_json(pipeline, &body)));
    }),
    ("batch answers", 1 << 20, |data| {
        let body = Bytes::copy_from_slice(data);
        Pipeline::batch().for_each(|pipeline| any(read_answer(pipeline, &body)));
    }),
    ("a chunk", MAX_LINE_BYTES, |data| {
        any(read_chunk(data));
        any(native_chunk(&Bytes::copy_from_slice(data)));
    }),
    ("a refusal", 64 << 10, |data| {
        any(judge(Pipeline::Llm, true, 400, data));
        any(judge(Pipeline::Llm, true, 500, data));
    }),
];

const PROTOBUF: &[Decoder] = &[
    ("an orchestrator's info", grpc::MAX_MESSAGE_BYTES, |data| {
        if let Ok(OrchestratorAnswer::Info(info)) =
            OrchestratorAnswer::decode(Bytes::copy_from_slice(data))
        {
            any(info.byoc_price("noop"));
        }
    }),
    ("a quote", 1 << 20, |data| any(Quote::decode(data))),
    ("capabilities", 1 << 20, |data| {
        any(Capabilities::from_bytes(data))
    }),
    ("a payment", 64 << 10, |data| {
        any(Payment::from_protobuf(Bytes::copy_from_slice(data)))
    }),
    ("credentials", 64 << 10, |data| {
        any(SegmentCredentials::decode(&STANDARD.encode(data)))
    }),
];

fn hold(decoders: &[Decoder], shapes: fn(usize) -> Vec<Shape>) {
    for (name, most, decode) in decoders {
        for (shape, input) in shapes(ENOUGH.min(*most)) {
            within_budget(&format!("{name} of {shape}"), || decode(&input));
        }
    }
}

#[test]
fn json_of_any_excess_is_read_in_time() {
    hold(JSON, json);
}

#[test]
fn protobuf_of_any_excess_is_read_in_time() {
    hold(PROTOBUF, protobuf);
}

#[test]
fn the_longest_lists_are_read_in_time() {
    let account = |n: usize| format!("0x{n:040x}");
    let comma = |n: usize| if n == 0 { "" } else { "," };
    let list = |entry: &dyn Fn(usize) -> String| {
        let entry = |n| format!("{}{}", comma(n), entry(n));
        numbered("[", entry, "]", LONG_LIST)
    };
    let runner =
        r#"{"url":"https://a:1/r","app":"x","price":{"price_per_unit":1,"currency":"wei"}},"#;
    let long = repeated("", runner, "{}", MAX_ENTRY_BYTES - 100);
    let long = text(&long);
    let entries: [(&str, Vec<u8>); 6] = [
        (
            "distinct entries",
            list(&|n| format!(r#"{{"address":"o{n}:1"}}"#)),
        ),
        ("equal entries", list(&|_| r#"{"address":"o:1"}"#.into())),
        ("bad entries", list(&|_| r#"{"address":7}"#.into())),
        ("empty entries", list(&|_| "{}".into())),
        (
            "many runners",
            list(&|n| format!(r#"{{"address":"o{n}:1","runners":[{long}]}}"#)),
        ),
        ("many capabilities", {
            let caps = repeated("[", r#""x/y","#, r#""z"]"#, MAX_ENTRY_BYTES - 100);
            list(&|n| format!(r#"{{"address":"o{n}:1","capabilities":{}}}"#, text(&caps)))
        }),
    ];
    for (name, body) in entries {
        within_budget(&format!("a list of {name}"), || {
            if let Ok(listed) = listing::read_list(&body) {
                any(listing::named_by(listed, &orchestrator()));
            }
            any(listing::read_runners(&body));
        });
    }
    let row = |n: usize| {
        format!(
            r#"{{"id":"{}","serviceURI":"https://o{n}:1","totalStake":"{}e99"}}"#,
            account(n),
            "9".repeat(90)
        )
    };
    let graph = [&br#"{"data":{"transcoders":"#[..], &list(&row), b"}}"].concat();
    within_budget("a subgraph's answer", || {
        any(listing::read_subgraph(&graph))
    });
    let row = |n: usize| {
        format!(
            r#"{{"Address":"{}","ServiceURI":"https://o{n}:1","Active":true}}"#,
            account(n)
        )
    };
    let stats = list(&row);
    within_budget("statistics", || {
        any(listing::read_stats(&stats, &StatsFields::default()))
    });
    let score = |n: usize| format!(r#"{}"{}":{{"FRA":{{"score":1}}}}"#, comma(n), account(n));
    let scores = numbered("{", score, "}", LONG_LIST);
    within_budget("scores", || any(listing::read_scores(&scores, "fra")));
    let addresses = numbered("", |n| format!("o{n}:1,"), "", LONG_LIST);
    within_budget("addresses", || {
        any(listing::read_addresses(text(&addresses)))
    });
    let logs = numbered(
        r#"[{"id":0,"result":["#,
        |n| format!("{}{{}}", comma(n)),
        "]}]",
        LONG_LIST,
    );
    let ask = Ask::Logs {
        from: 0,
        of: Vec::new(),
        topics: Vec::new(),
    };
    within_budget("logs", || any(read_batch(&logs, &[ask])));
}

/// Bytes as a peer sends them that means harm: one at a time.
#[test]
fn streams_are_read_in_time_also_byte_by_byte() {
    for (name, input) in [
        ("letters", vec![b'x'; MAX_MESSAGE_BYTES]),
        ("line feeds", vec![b'\n'; MAX_MESSAGE_BYTES]),
        ("sync bytes", vec![0x47; MAX_MESSAGE_BYTES]),
        ("zeros", vec![0; MAX_MESSAGE_BYTES]),
        ("data lines", repeated("", "data:\n", "", MAX_MESSAGE_BYTES)),
    ] {
        let input = Bytes::from(input);
        within_budget(&format!("a message of {name}"), || {
            let mut messages = Messages::default();
            input.chunks(1).for_each(|byte| messages.data(byte));
            any(messages.end());
        });
        within_budget(&format!("lines of {name}"), || {
            let mut lines = Lines::new(MAX_LINE);
            input.chunks(1).for_each(|byte| lines.data(byte, |_| ()));
            lines.data(&input, |_| ());
            lines.end(|_| ());
        });
        within_budget(&format!("events of {name}"), || {
            let mut reader = sse::Reader::new();
            for at in 0..input.len() {
                any(reader.data(&input.slice(at..=at), any));
            }
            any(reader.data(&input, any));
            any(reader.end());
        });
        within_budget(&format!("time stamps of {name}"), || {
            let mut scanner = Scanner::default();
            input.chunks(1).for_each(|byte| scanner.push(byte, any));
            scanner.push(&input, any);
        });
        let mut framed = vec![0];
        framed.extend_from_slice(&(input.len() as u32).to_be_bytes());
        framed.extend_from_slice(&input);
        within_budget(&format!("a call of {name}"), || {
            let mut question = Question::default();
            framed.chunks(1).for_each(|byte| any(question.data(byte)));
            any(question.end());
            let mut answer = Answer::default();
            any(answer.head(&Response::new(200).header("content-type", "application/grpc")));
            framed.chunks(1).for_each(|byte| any(answer.data(byte)));
            any(answer.end(&Headers::new()));
        });
    }
}

#[test]
fn forms_of_any_excess_are_read_in_time() {
    let boundary = "b".repeat(multipart::MAX_BOUNDARY_BYTES);
    let content_type = format!("multipart/form-data; boundary={boundary}");
    let nearly = format!("\r\n--{}", &boundary[1..]);
    let part = format!("--{boundary}\r\nContent-Disposition: form-data; name=a; filename=f\r\n");
    for inside in ["\r", "\n", "\r\n", "-", "b", "\r\n--", ":", &nearly, "x"] {
        for (at, head) in [
            ("before a form", String::new()),
            ("in a header", part.clone()),
            ("in a part", format!("{part}\r\n")),
        ] {
            let end = format!("\r\n--{boundary}--");
            let body = Bytes::from(repeated(&head, inside, &end, 2 * ENOUGH));
            within_budget(&format!("{inside:?} {at}"), || {
                any(multipart::read(&content_type, &body));
            });
        }
    }
    let body = Bytes::from(repeated("", &format!("{part}\r\n\r\n"), "", 2 * ENOUGH));
    within_budget("parts", || any(multipart::read(&content_type, &body)));
    for inside in ["a=b;", "\"", "\\", "a=\"\\\"", "=", ";"] {
        let long = repeated("multipart/form-data;", inside, "", ENOUGH);
        within_budget(&format!("a content type of {inside}"), || {
            any(multipart::read(text(&long), &body));
        });
    }
}

#[test]
fn long_addresses_and_headers_are_read_in_time() {
    for part in ["a", "/", "/..", "/.", "%2e", "@", ":", "[", "?", "#", "é"] {
        let long = part.repeat(ENOUGH / part.len());
        within_budget(&format!("an address of {part}"), || {
            for text in [
                long.clone(),
                format!("https://{long}"),
                format!("https://a/{long}"),
            ] {
                any(Url::parse(&text));
                any(orchestrator().resolve(&text));
                any(listing::read_address(&text));
            }
        });
    }
    within_budget("headers", || {
        let mut headers = Headers::new();
        for n in 0..10_000 {
            headers.push_any(&format!("x-{n}"), "1");
        }
        any(format!("{headers:?}"));
    });
}
