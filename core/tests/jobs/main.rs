//! How orchestrators are found, judged, chosen and kept at hand, and what a live video job does with them.

mod app;
mod batch;
mod by_hand;
mod byoc;
mod discovery;
mod entry;
mod front;
mod handshake;
mod listings;
mod live;
mod matching;
mod messages;
mod names;
mod openai;
mod peers;
mod pipelines;
mod pool;
mod prices;
mod properties;
mod reference;
mod references;
mod selection;
mod senders;
mod token;
#[path = "../support/vectors.rs"]
mod vectors;

use serde_json::Value;

/// Reads a list of cases from a file of vectors.
fn cases(name: &str, list: &str) -> Vec<Value> {
    let cases = vectors::file(name)[list].as_array().cloned();
    cases.unwrap_or_else(|| panic!("{name} has no list of {list}"))
}

/// Reads a list that has `count` cases: none is missing, and none is new.
fn counted(name: &str, list: &str, count: usize) -> Vec<Value> {
    let cases = cases(name, list);
    assert_eq!(
        cases.len(),
        count,
        "the number of cases of {list} in {name}"
    );
    cases
}

/// The cases of one kind in a file of vectors of jobs.
fn of_kind(name: &str, kind: &str) -> Vec<Value> {
    let mut cases = cases(name, "cases");
    cases.retain(|case| case["kind"] == kind);
    cases
}

/// The bytes that went over the wire: given as JSON, or as text that may not be JSON.
fn raw(of: &Value, what: &str) -> String {
    match of.get(format!("{what}_json")) {
        Some(json) => json.to_string(),
        None => of[format!("{what}_text")].as_str().unwrap().to_owned(),
    }
}
