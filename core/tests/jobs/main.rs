//! How orchestrators are found, judged, chosen and kept at hand, and what a live video job does with them.

mod discovery;
#[path = "../support/driven.rs"]
mod driven;
mod handshake;
mod index;
#[path = "../support/key.rs"]
mod key;
mod listings;
mod live;
mod matching;
mod messages;
mod names;
mod peers;
mod pool;
mod prices;
mod properties;
mod references;
mod selection;
mod token;
#[path = "../support/vectors.rs"]
mod vectors;

use serde_json::Value;

/// One list of cases of a file of vectors.
fn cases(name: &str, list: &str) -> Vec<Value> {
    let cases = vectors::file(name)[list].as_array().cloned();
    cases.unwrap_or_else(|| panic!("{name} has no list of {list}"))
}

/// The same, which has so many cases: none is missing, and none is new.
fn counted(name: &str, list: &str, count: usize) -> Vec<Value> {
    let cases = cases(name, list);
    assert_eq!(
        cases.len(),
        count,
        "the number of cases of {list} in {name}"
    );
    cases
}
