//! The vectors of the token that stands for a set of options.

use livepeer_core::wire::Token;
use serde_json::{Value, json};

use crate::counted;

#[test]
fn tokens() {
    for case in &counted("capabilities/discovery.json", "tokens", 21) {
        let id = case["id"].as_str().expect("an id");
        let decoded = Token::decode(case["token"].as_str().expect("a token"));
        match (&case["expect"], decoded) {
            (Value::String(outcome), decoded) => {
                assert_eq!(outcome, "error", "{id}: no such outcome");
                let error = decoded.expect_err(id);
                assert!(!error.to_string().contains('\n'), "{id}: one line");
            }
            (expected, decoded) => {
                let token = decoded.unwrap_or_else(|error| panic!("{id}: {error}"));
                let read = json!({
                    "orchestrators": token.orchestrators,
                    "signer": token.signer,
                    "discovery": token.discovery,
                    "signer_headers": token.signer_headers,
                    "discovery_headers": token.discovery_headers,
                });
                assert_eq!(&read, expected, "{id}");
            }
        }
    }
}
