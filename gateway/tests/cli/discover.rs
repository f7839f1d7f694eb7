//! `discover` and `select` on real sockets: against the development network, and against sources that misbehave.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::http::{Request, listen, respond};
use crate::process::CLIP;
use crate::run::{Ended, RUNTIMES, Scratch, run};
use crate::server::Devnet;

fn discover(runtime: &str, more: &[&str]) -> Ended {
    run(&[&["discover", "--runtime", runtime], more].concat())
}

fn select(runtime: &str, more: &[&str]) -> Ended {
    run(&[&["select", "--runtime", runtime], more].concat())
}

#[test]
fn the_development_network_is_discovered_through_its_signer() {
    let network = Devnet::start(3, &[]);
    for runtime in RUNTIMES {
        let ran = discover(runtime, &["--signer", &network.signer, "--json"]);
        let report = ran.json();
        let rows = report["orchestrators"].as_array().expect("rows");
        assert_eq!(rows.len(), 3);
        for row in rows {
            let address = row["address"].as_str().expect("an address").to_owned();
            assert!(network.orchestrators.contains(&address), "{address}");
            assert_eq!(row["wei_per_unit"], "100");
            assert!(row["latency_ms"].as_f64().is_some_and(|ms| ms > 0.0));
            assert!(
                row["version"]
                    .as_str()
                    .is_some_and(|version| !version.is_empty())
            );
            let models = row["models"].as_array().expect("models");
            assert!(
                models
                    .iter()
                    .any(|model| model["name"] == "live-video-to-video/noop")
            );
            assert!(row["rejected"].is_null());
        }
        let table = discover(runtime, &["--signer", &network.signer]);
        let table = table.text();
        assert_eq!(table.lines().count(), 4, "{table}");
        for part in [
            "address", "wei/unit", "models", "latency", "version", "rejected",
        ] {
            assert!(
                table
                    .lines()
                    .next()
                    .is_some_and(|heading| heading.contains(part))
            );
        }
    }
}

#[test]
fn whoever_is_of_no_use_is_listed_with_the_reason_and_does_not_hold_up_the_others() {
    let network = Devnet::start(1, &[]);
    let (good, dead) = (&network.orchestrators[0], "127.0.0.1:1");
    let mute = silent().replace("http://", "https://");
    for runtime in RUNTIMES {
        let list = format!("{mute},{dead},no:port,{good},{good}/");
        let ran = discover(
            runtime,
            &[
                "--orchestrator",
                &list,
                "--signer",
                &network.signer,
                "--within",
                "2s",
                "--json",
            ],
        );
        assert!(ran.took < Duration::from_secs(4), "{:?}", ran.took);
        let report = ran.json();
        let rows = report["orchestrators"].as_array().expect("rows");
        assert_eq!(rows.len(), 3, "each once: {report}");
        assert_eq!(rows[0]["address"], good.as_str());
        assert!(rows[0]["rejected"].is_null());
        assert_eq!(rows[1]["rejected"], "no answer within 2.0 s");
        assert!(
            rows[2]["rejected"]
                .as_str()
                .is_some_and(|why| why.contains("refused"))
        );
        let skipped = report["skipped"].as_array().expect("entries");
        assert_eq!(skipped.len(), 1, "{report}");
        assert!(
            skipped[0]["why"]
                .as_str()
                .is_some_and(|why| why.contains("entry 2"))
        );
    }
}

#[test]
fn when_all_are_rejected_the_table_says_why_and_the_exit_code_that() {
    let network = Devnet::start(2, &[]);
    for runtime in RUNTIMES {
        let ran = discover(runtime, &["--signer", &network.signer, "--max-price", "99"]);
        assert!(
            ran.error()
                .contains("none of the 2 orchestrators found can be worked with")
        );
        assert_eq!(
            ran.text()
                .matches("asks 100 wei per unit, above the ceiling of 99")
                .count(),
            2
        );
        let ran = select(runtime, &["--signer", &network.signer, "--max-price", "99"]);
        assert!(ran.error().contains("(2 tried)"));
        let ran = discover(
            runtime,
            &["--offchain", "--orchestrator", &network.orchestrators[0]],
        );
        assert!(ran.text().contains("sig check failed"), "{}", ran.text());
        assert!(ran.error().contains("the only orchestrator found"));
    }
}

#[test]
fn the_choice_is_explained_by_the_parts_of_every_score() {
    let network = Devnet::start(3, &[]);
    for runtime in RUNTIMES {
        let select = |more: &[&str]| {
            let common = ["--signer", &network.signer, "--model-id", "noop"];
            select(runtime, &[&common, more].concat())
        };
        let ran = select(&[]);
        let chosen = ran.text();
        assert!(
            network
                .orchestrators
                .iter()
                .any(|url| *url == chosen.trim()),
            "{chosen}"
        );
        let report = select(&["--json"]).json();
        let rows = report["candidates"].as_array().expect("rows");
        assert_eq!(rows.len(), 3);
        let number = |row: &serde_json::Value, part: &str| row[part].as_f64().expect("a number");
        let chances: Vec<f64> = rows.iter().map(|row| number(row, "probability")).collect();
        assert!((chances.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(chances.is_sorted_by(|a, b| a >= b), "the likeliest first");
        for (row, chance) in rows.iter().zip(&chances) {
            let weight = |row: &serde_json::Value| {
                number(row, "price").powi(2)
                    * number(row, "latency").powi(2)
                    * number(row, "reliability").powi(4)
                    * number(row, "spread")
                    * number(row, "warmth")
            };
            let all: f64 = rows.iter().map(weight).sum();
            assert!(
                (weight(row) / all - chance).abs() < 1e-9,
                "the parts come to it"
            );
        }
        let table = select(&["--explain"]);
        let table = table.text();
        assert!(
            table.contains("reliability") && table.contains("this draw: https://"),
            "{table}"
        );
    }
}

#[test]
fn what_a_job_saw_of_an_orchestrator_counts_in_the_next_run() {
    let network = Devnet::start(1, &[]);
    let store = Scratch::new("store");
    let common = [
        "--orchestrator",
        &network.orchestrators[0],
        "--signer",
        &network.signer,
        "--model-id",
        "noop",
        "--store",
        store.path(),
    ];
    for (runtime, jobs) in [("tokio", 1), ("smol", 2)] {
        let mut job = vec!["live", "--runtime", runtime];
        job.extend(["--input", CLIP, "--output", "/dev/null", "--speed", "max"]);
        job.extend(common);
        let ran = run(&job);
        assert_eq!(ran.code(), Some(0), "{}", ran.stderr);
        let report = select(runtime, &[&common[..], &["--json"]].concat()).json();
        assert_eq!(report["candidates"][0]["good"], jobs, "{report}");
        assert_eq!(report["candidates"][0]["bad"], 0, "{report}");
    }
}

#[test]
fn an_empty_list_is_an_answer_and_says_so() {
    let source = document("[]");
    for runtime in RUNTIMES {
        let ran = discover(runtime, &["--discovery", &source]);
        assert!(ran.error().contains("the sources know no orchestrator"));
        assert!(ran.text().is_empty());
    }
}

#[test]
fn malformed_entries_are_left_out_one_by_one_and_malformed_lists_whole() {
    let network = Devnet::start(1, &[]);
    let good = &network.orchestrators[0];
    let source = document(format!(
        r#"[5, {{"address":"{good}"}}, {{"address":"x y"}}, {{"score":1}}, null]"#
    ));
    for runtime in RUNTIMES {
        let report = discover(
            runtime,
            &[
                "--discovery",
                &source,
                "--signer",
                &network.signer,
                "--json",
            ],
        )
        .json();
        assert_eq!(report["orchestrators"].as_array().map(Vec::len), Some(1));
        assert_eq!(
            report["skipped"].as_array().map(Vec::len),
            Some(4),
            "{report}"
        );
        for nonsense in ["{", "{}", "\"\"", "[[[[", "<html></html>", "[{\"address\":"] {
            let ran = discover(runtime, &["--discovery", &document(nonsense)]);
            let error = ran.error();
            assert!(error.contains("endpoint"), "{nonsense}: {error}");
            assert!(error.contains("nonsense"), "{nonsense}: {error}");
        }
    }
}

#[test]
fn an_answer_of_ten_megabytes_is_cut_off() {
    let source = server(|stream| {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n[";
        let entry = r#"{"address":"https://127.0.0.1:1"},"#.repeat(1000);
        let mut told = stream.write_all(head.as_bytes());
        // The client hangs up before the end.
        for _ in 0..10_000_000 / entry.len() {
            told = told.and_then(|()| stream.write_all(entry.as_bytes()));
        }
    });
    for runtime in RUNTIMES {
        let ran = discover(runtime, &["--discovery", &source]);
        assert!(ran.error().contains("8388608"), "{}", ran.error());
        assert!(ran.took < Duration::from_secs(5), "{:?}", ran.took);
    }
}

#[test]
fn redirects_are_followed_but_not_in_circles() {
    let target = document("[]");
    let elsewhere = server(move |stream| {
        let head = format!(
            "HTTP/1.1 302 Found\r\nlocation: {target}/list\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let _ = stream.write_all(head.as_bytes());
    });
    let circle = server(|stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
    });
    for runtime in RUNTIMES {
        let ran = discover(runtime, &["--discovery", &elsewhere]);
        assert!(ran.error().contains("the sources know no orchestrator"));
        let ran = discover(runtime, &["--discovery", &circle]);
        assert!(
            ran.error().contains("a redirect: there are more than five"),
            "{}",
            ran.error()
        );
    }
}

#[test]
fn a_source_that_leads_into_our_network_is_refused_unless_that_is_allowed() {
    // Nobody is ever asked there: the address is none that a host has.
    let into = server(|stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 302 Found\r\nlocation: http://0.0.0.0:1/list\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        );
    });
    for runtime in RUNTIMES {
        let ran = discover(runtime, &["--discovery", &into]);
        let error = ran.error();
        assert!(error.contains("may not lead to 0.0.0.0:1"), "{error}");
        assert!(error.contains("--allow-private"), "{error}");
        let ran = discover(runtime, &["--discovery", &into, "--allow-private"]);
        assert!(!ran.error().contains("may not lead"), "{}", ran.error());
    }
}

#[test]
fn nobody_is_waited_for_longer_than_asked() {
    let mute = silent();
    for runtime in RUNTIMES {
        let ran = discover(runtime, &["--discovery", &mute, "--within", "1s"]);
        assert!(
            ran.error()
                .contains("no answer to the question for orchestrators within 1")
        );
        assert!(ran.took < Duration::from_secs(3), "{:?}", ran.took);
        // A mute orchestrator is not waited for longer either.
        let mute = mute.replace("http://", "https://");
        let ran = discover(
            runtime,
            &["--orchestrator", &mute, "--offchain", "--within", "1s"],
        );
        assert!(
            ran.text().contains("no answer within 1.0 s"),
            "{}",
            ran.text()
        );
        assert!(ran.took < Duration::from_secs(3), "{:?}", ran.took);
        // An unanswering contract endpoint hands over to the next one, and that one's fault is told.
        let ran = discover(
            runtime,
            &["--rpc", "http://127.0.0.1:1/key", "--rpc", &document("{}")],
        );
        assert!(ran.error().contains("chain"), "{}", ran.error());
        assert!(!ran.error().contains("key"), "{}", ran.error());
    }
}

#[test]
fn a_source_that_fails_hands_over_to_the_next_and_is_told() {
    let network = Devnet::start(1, &[]);
    for runtime in RUNTIMES {
        let ran = discover(
            runtime,
            &[
                "--discovery",
                "http://127.0.0.1:1",
                "--signer",
                &network.signer,
            ],
        );
        assert_eq!(ran.code(), Some(0), "{}", ran.stderr);
        assert!(ran.text().contains(&network.orchestrators[0]));
        assert!(ran.stderr.contains("no answer: endpoint"), "{}", ran.stderr);
    }
}

/// Answers every request with this.
fn server(answer: impl Fn(&mut TcpStream) + Send + Clone + 'static) -> String {
    listen(move |mut stream| {
        if Request::read(&mut BufReader::new(&stream)).is_ok() {
            answer(&mut stream);
        }
    })
}

/// A server that answers everything with this document.
fn document(body: impl Into<String>) -> String {
    let body: String = body.into();
    server(move |stream| {
        // The client may have hung up: that is for the test to judge.
        let _ = respond(stream, (200, body.as_bytes()));
    })
}

/// A server that takes connections and never says anything.
fn silent() -> String {
    listen(|mut stream| {
        let mut rest = [0; 1024];
        while stream.read(&mut rest).is_ok_and(|n| n > 0) {}
    })
}
