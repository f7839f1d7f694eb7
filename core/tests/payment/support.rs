//! Reading the payment vectors, and who plays in these tests.

use std::str::FromStr;

use livepeer_core::money::{Amount, Wei};
use livepeer_core::sign::Address;
use livepeer_core::time::Time;
use livepeer_core::wire::TicketParams;
use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use serde_json::Value;

use crate::vectors;
pub(crate) use livepeer_sim::Key;

/// All of one file.
pub(crate) fn file(name: &str) -> Value {
    vectors::file(&format!("payments/{name}"))
}

/// Runs `check` on each case of a list and fails unless there are exactly `count` of them.
pub(crate) fn each(file: &Value, list: &str, count: usize, mut check: impl FnMut(&str, &Value)) {
    let cases = file[list].as_array().expect("a list of cases");
    assert_eq!(cases.len(), count, "the number of cases in {list}");
    for case in cases {
        let name = case["name"].as_str().or(case["signature"].as_str());
        check(name.expect("cases have names"), case);
    }
}

/// Fails if a file has lists of cases that the test does not name.
pub(crate) fn lists(file: &Value, known: &[&str]) {
    for key in file.as_object().expect("an object").keys() {
        assert!(
            !key.starts_with("cases") || known.contains(&key.as_str()),
            "nobody tests {key}"
        );
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value).trim_start_matches("0x")).expect("hex")
}

pub(crate) fn bytes32(value: &Value) -> [u8; 32] {
    bytes(value).try_into().expect("32 bytes")
}

pub(crate) fn address(value: &Value) -> Address {
    text(value).parse().expect("an address")
}

/// A decimal string or a number.
pub(crate) fn uint(value: &Value) -> BigUint {
    match value {
        Value::Number(number) => number.as_u64().expect("not negative").into(),
        _ => BigUint::from_str(text(value)).expect("a decimal number"),
    }
}

pub(crate) fn int(value: &Value) -> BigInt {
    match value {
        Value::Number(number) => number.as_i64().expect("64 bits").into(),
        _ => BigInt::from_str(text(value)).expect("a decimal number"),
    }
}

pub(crate) fn small(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no small number"))
}

pub(crate) fn wei(value: &Value) -> Wei {
    Wei::from(uint(value))
}

pub(crate) fn ratio(value: &Value) -> BigRational {
    let text = text(value);
    if text.contains('/') {
        BigRational::from_str(text).expect("a ratio")
    } else {
        BigRational::from_integer(BigInt::from_str(text).expect("a number"))
    }
}

pub(crate) fn amount(value: &Value) -> Amount {
    Amount::from(ratio(value))
}

/// When these tests play: late in 2026.
pub(crate) const START: Time = Time::from_secs(1_790_000_000);

/// The payer's key.
pub(crate) fn key() -> Key {
    Key::new(&[7; 32])
}

/// Ticket parameters from the fields that several files share.
pub(crate) fn params(case: &Value) -> TicketParams {
    TicketParams {
        recipient: address(&case["recipient"]),
        face_value: wei(&case["face_value"]),
        win_prob: uint(&case["win_prob"]),
        recipient_rand_hash: bytes32(&case["recipient_rand_hash"]),
        seed: case
            .get("seed")
            .map(|seed| wei(seed).to_be_bytes())
            .unwrap_or_default()
            .into(),
        expiration_block: case.get("expiration_block").map(uint).unwrap_or_default(),
        creation_round: case["creation_round"].as_i64().expect("a round"),
        creation_round_block_hash: bytes32(&case["creation_round_block_hash"]),
    }
}

/// Lower-case digits.
pub(crate) fn hexed(bytes: &[u8]) -> String {
    hex::encode(bytes)
}
