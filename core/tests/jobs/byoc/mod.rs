//! `vectors/jobs/08`, `09`, and the BYOC cases of `18` and `22`: containers that an operator brought.

mod bytes;
mod jobs;
mod streams;

use serde_json::Value;

const HEADER: &str = "jobs/08-byoc-header.json";
const EXCHANGE: &str = "jobs/09-byoc-exchange.json";
const CLIENT: &str = "jobs/18-byoc-client.json";
const REAL_NODE: &str = "jobs/22-real-node.json";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Whether a text is the one of a vector, or matches the beginning of a pattern there.
fn fits(said: &str, wanted: &str) -> bool {
    match wanted.strip_prefix("re:") {
        None => said.trim_end() == wanted.trim_end(),
        Some(pattern) => {
            let literal = pattern.trim_start_matches('^').trim_end_matches(".+");
            said.contains(literal) && !said.is_empty()
        }
    }
}
