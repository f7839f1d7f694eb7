//! A front door before orchestrators of which most fail, each in its own way.
//!
//! `LIVEPEER_CHAOS` says how many requests are made: 64 unless said otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::files::Folder;
use crate::http::{Whole, call, fetch};
use crate::process::signal;
use crate::serve::{FORM, JSON, LLM, Serve, form, json, wav};
use crate::server::Devnet;

/// Callers at a time.
const CALLERS: usize = 8;

/// Beside a good one: a runner that never answers, no room, a lie about the price, chunks that end the process of the
/// reference's gateway, and no answer to anything.
const QUIRKS: [&str; 5] = [
    "1:runner-silent",
    "2:busy",
    "3:price-lie",
    "4:no-choices",
    "5:silent",
];

/// The n-th request: its answer, checked, and what the gateway says that it costs.
fn ask(door: &str, n: usize) -> u128 {
    let post = |path: &str, body: String| fetch(door, "POST", path, &[JSON], body.as_bytes());
    let chat = |more: &str| {
        format!(
            r#"{{"model":"{LLM}","max_tokens":16,{more}"messages":[{{"role":"user","content":"word{n}"}}]}}"#
        )
    };
    let good = |answer: &Whole| {
        assert_eq!(answer.status, 200, "{n}: {}{}", answer.head, answer.text());
    };
    let answer = match n % 8 {
        0 => {
            let size = 64 + 8 * (n / 8 % 4);
            let answer = post(
                "/text-to-image",
                format!(r#"{{"prompt":"a hat","width":{size},"height":64}}"#),
            );
            good(&answer);
            let url = json(answer.text())["images"][0]["url"].clone();
            let picture = fetch(door, "GET", url.as_str().expect("a URL"), &[], b"");
            assert_eq!(picture.status, 200, "{n}");
            assert_eq!(
                picture.body[16..20],
                (size as u32).to_be_bytes(),
                "{n}: its width"
            );
            answer
        }
        1 => {
            let answer = post("/llm", chat(r#""stream":false,"#));
            good(&answer);
            let said = json(answer.text())["choices"][0]["message"]["content"].to_string();
            assert!(said.contains(&format!("word{n}")), "{n}: {said}");
            answer
        }
        2 => {
            let answer = post("/v1/chat/completions", chat(r#""stream":true,"#));
            good(&answer);
            let text = answer.text();
            let whole = text.contains("data: [DONE]") && text.contains(&format!("word{n}"));
            // Once words are out nobody else can go on, and the caller is told.
            let told = text.contains("\"error\"") && !text.contains("[DONE]");
            assert!(whole || told, "{n}: {text}");
            answer
        }
        3 => {
            let answer = post("/text-to-speech", r#"{"text":"good morning"}"#.to_owned());
            good(&answer);
            assert!(json(answer.text())["audio"]["url"].is_string());
            answer
        }
        4 => {
            let body = r#"{"prompt":"a hat","size":"64x64","response_format":"b64_json"}"#;
            let answer = post("/v1/images/generations", body.to_owned());
            good(&answer);
            let picture = json(answer.text())["data"][0]["b64_json"].to_string();
            assert!(picture.starts_with("\"iVBOR"), "{n}: {picture}");
            answer
        }
        5 => {
            let answer = fetch(
                door,
                "POST",
                "/audio-to-text",
                &[FORM],
                &form(&[("audio", &wav())]),
            );
            good(&answer);
            assert!(
                json(answer.text())["text"]
                    .to_string()
                    .contains("2.000 seconds")
            );
            answer
        }
        6 => {
            // Our own checks find no fault with it, and every runner does.
            let answer = post(
                "/text-to-image",
                r#"{"prompt":"a hat","width":5000,"height":8}"#.to_owned(),
            );
            assert_eq!(answer.status, 400, "{n}: {}", answer.text());
            assert!(answer.text().contains("pixels"), "{n}: {}", answer.text());
            answer
        }
        _ => {
            let answer = post("/text-to-image", r#"{"prompt":""}"#.to_owned());
            assert_eq!(answer.status, 400, "{n}: {}", answer.text());
            answer
        }
    };
    let cost = answer.field("livepeer-cost-wei");
    cost.map_or(0, |cost| cost.parse().expect("wei"))
}

/// The fees that orchestrators say they charged, in wei, and how many tickets each account got.
fn books(devnet: &Devnet) -> (u128, BTreeMap<String, u128>) {
    let (mut charged, mut tickets) = (0, BTreeMap::new());
    while let Ok(line) = devnet.server.said.recv_timeout(Duration::from_secs(5)) {
        assert!(
            !line.contains("already seen"),
            "a nonce was used twice: {line}"
        );
        if let Some((account, rest)) = line.split_once(" paid ") {
            let count = rest.split(' ').next().and_then(|n| n.parse::<u128>().ok());
            *tickets.entry(account.to_owned()).or_default() += count.expect("a number");
        } else if let Some((_, rest)) = line.split_once(" for ")
            && let Some((fee, left)) = rest.split_once(" wei")
        {
            let fee = fee.replace(',', "");
            charged += fee.parse::<u128>().expect("whole wei");
            assert!(!left.contains('-'), "somebody is owed: {line}");
        }
    }
    (charged, tickets)
}

#[test]
fn every_request_is_answered_right_and_none_charged_twice_whoever_fails() {
    let count = std::env::var("LIVEPEER_CHAOS").ok();
    let count: usize = count.and_then(|n| n.parse().ok()).unwrap_or(64);
    let quirks = QUIRKS.map(|quirk| format!("--quirk={quirk}"));
    let fast = ["--work-time=1ms", "--token-time=1ms", "--capacity=64"];
    let options: Vec<&str> = { quirks.iter().map(String::as_str) }.chain(fast).collect();
    let devnet = Devnet::start(6, &options);
    let dead = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let dead = format!("https://{}", dead.local_addr().expect("it is bound"));
    let folder = Folder::new("chaos");
    let file = folder.path("gateway.toml");
    let list = [&devnet.orchestrators[..], &[dead]].concat();
    let text = format!(
        "[payer]\nsigners = [{:?}]\n[orchestrators]\nlist = {list:?}\n[pools]\nstandby = \"2s\"",
        devnet.signer
    );
    fs::write(&file, text).expect("there is room");
    let serve = Serve::start(&["--config", &file]);
    serve.knows_models();
    let (began, next) = (Instant::now(), AtomicUsize::new(0));
    let caller = || {
        let mut cost = 0;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return cost;
            }
            cost += ask(&serve.door, n);
        }
    };
    let cost: u128 = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        let costs = callers
            .into_iter()
            .map(|caller| caller.join().expect("it ends"));
        costs.sum()
    });
    let took = began.elapsed();
    let figures = call(&serve.ops, "GET", "/metrics", &[], b"").1;
    drop(serve);
    signal(devnet.server.running.0.id(), "TERM");
    let (charged, tickets) = books(&devnet);
    assert!(cost > 0 && !tickets.is_empty(), "nothing was paid");
    assert_eq!(
        charged, cost,
        "orchestrators charged another sum than callers were told"
    );
    let errors = { figures.lines() }.filter(|line| line.starts_with("livepeer_ai_request_errors{"));
    println!("{count} requests in {took:?}; {tickets:?}");
    errors.for_each(|line| println!("{line}"));
}
