//! `vectors/jobs/10`, `16`, `17`, `20`, `21`: apps that orchestrators rent out, and those who offer them.

mod bytes;
mod registrations;
mod rentals;
mod sessions;

use serde_json::Value;

const OLDER: &str = "jobs/10-live-runner.json";
const SESSION: &str = "jobs/16-runner-session.json";
const CALL: &str = "jobs/17-runner-call.json";
const REGISTRATION: &str = "jobs/20-runner-registration.json";
const ORCHESTRATOR: &str = "jobs/21-runner-orchestrator.json";

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Texts of a member that is one text, with commas between, or a list of texts.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split(',').map(|one| one.trim().to_owned()).collect(),
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}
