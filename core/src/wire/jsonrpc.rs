//! Ethereum's JSON-RPC, in batches.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::WireError;
use super::ethereum::Block;
use super::info::cut;
use crate::sign::Address;

/// A longer answer is refused.
pub const MAX_ANSWER_BYTES: usize = 4 << 20;

const WHAT: &str = "the JSON-RPC answer";

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `eth_call` of a contract at the latest block.
    Call {
        /// The contract.
        to: Address,
        /// Selector and arguments.
        data: Vec<u8>,
    },
    /// `eth_chainId`.
    ChainId,
    /// `eth_blockNumber`.
    BlockNumber,
    /// `eth_getBlockByNumber` of the latest block, without its transactions.
    Block,
    /// `eth_getLogs` from a block on, of any of the contracts, with any of the topics first.
    Logs {
        /// The first block looked at.
        from: u64,
        /// Whose logs.
        of: Vec<Address>,
        /// The first topic.
        topics: Vec<[u8; 32]>,
    },
}

/// The body that asks all of `asks` at once.
#[must_use]
pub fn batch(asks: &[Ask]) -> Bytes {
    let one = |(id, ask): (usize, &Ask)| {
        let (method, params) = match ask {
            Ask::Call { to, data } => (
                "eth_call",
                json!([{"to": to.to_string(), "data": hex_text(data)}, "latest"]),
            ),
            Ask::ChainId => ("eth_chainId", json!([])),
            Ask::BlockNumber => ("eth_blockNumber", json!([])),
            Ask::Block => ("eth_getBlockByNumber", json!(["latest", false])),
            Ask::Logs { from, of, topics } => {
                let of: Vec<String> = of.iter().map(ToString::to_string).collect();
                let topics: Vec<String> = topics.iter().map(|topic| hex_text(topic)).collect();
                (
                    "eth_getLogs",
                    json!([{
                        "fromBlock": format!("{from:#x}"), "toBlock": "latest",
                        "address": of, "topics": [topics],
                    }]),
                )
            }
        };
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    };
    let all: Vec<Value> = asks.iter().enumerate().map(one).collect();
    Value::Array(all).to_string().into()
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// What a call returned.
    Data(Vec<u8>),
    /// A block's number, or the chain's.
    Number(u64),
    /// A block.
    Block(Block),
    /// How many logs there are.
    Logs(usize),
}

/// Reads the answers to `asks`, which may come in any order.
///
/// # Errors
/// If one of them is missing, an error, or of the wrong shape: half a batch is no answer.
pub fn read_batch(body: &[u8], asks: &[Ask]) -> Result<Vec<Told>, WireError> {
    #[derive(Deserialize)]
    struct Answer {
        id: Option<u64>,
        result: Option<Value>,
        error: Option<Value>,
    }
    let bad = |why: String| WireError::new(WHAT, why);
    if body.len() > MAX_ANSWER_BYTES {
        return Err(bad(format!("longer than {MAX_ANSWER_BYTES} bytes")));
    }
    // Whoever does not take batches answers with one error.
    if let Ok(Answer {
        error: Some(error), ..
    }) = serde_json::from_slice(body)
    {
        return Err(bad(format!("it says {}", cut(&error.to_string()))));
    }
    let answers: Vec<Answer> = serde_json::from_slice(body).map_err(|err| bad(err.to_string()))?;
    let mut told: Vec<Option<Told>> = asks.iter().map(|_| None).collect();
    for answer in answers {
        let slot = answer
            .id
            .and_then(|id| usize::try_from(id).ok())
            .filter(|id| *id < asks.len());
        if let Some(error) = answer.error {
            return Err(bad(format!("it says {}", cut(&error.to_string()))));
        }
        let (Some(at), Some(result)) = (slot, answer.result) else {
            continue;
        };
        told[at] = match (&asks[at], &result) {
            (Ask::Call { .. }, Value::String(text)) => unhex(text).map(Told::Data),
            (Ask::Block, Value::Object(_)) => Block::from_json(result.to_string().as_bytes())
                .ok()
                .map(Told::Block),
            (Ask::BlockNumber | Ask::ChainId, Value::String(text)) => text
                .strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .map(Told::Number),
            (Ask::Logs { .. }, Value::Array(logs)) => Some(Told::Logs(logs.len())),
            _ => None,
        };
    }
    told.into_iter()
        .enumerate()
        .map(|(at, told)| {
            told.ok_or_else(|| bad(format!("question {at} of {} has no answer", asks.len())))
        })
        .collect()
}

fn hex_text(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("0x")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_asks_in_order_and_is_answered_in_any() {
        let asks = [
            Ask::Call {
                to: Address([1; 20]),
                data: alloc::vec![0xab],
            },
            Ask::BlockNumber,
            Ask::Logs {
                from: 16,
                of: alloc::vec![],
                topics: alloc::vec![[2; 32]],
            },
        ];
        let sent: Value = serde_json::from_slice(&batch(&asks)).unwrap();
        assert_eq!(sent[0]["method"], "eth_call");
        assert_eq!(sent[0]["params"][0]["data"], "0xab");
        assert_eq!(sent[2]["params"][0]["fromBlock"], "0x10");
        let body = br#"[{"id":2,"result":[{},{}]},{"id":0,"result":"0x0102"},{"id":1,"result":"0xff"},{"id":9,"result":1}]"#;
        let told = read_batch(body, &asks).unwrap();
        assert_eq!(
            told,
            [
                Told::Data(alloc::vec![1, 2]),
                Told::Number(255),
                Told::Logs(2)
            ]
        );
    }

    #[test]
    fn half_a_batch_is_no_answer() {
        let asks = [Ask::BlockNumber, Ask::BlockNumber];
        for body in [
            r#"[{"id":0,"result":"0x1"}]"#,
            r#"[{"id":0,"result":"0x1"},{"id":1,"error":{"code":-32000}}]"#,
            r#"[{"id":0,"result":"0x1"},{"id":1,"result":1}]"#,
            r#"{"error":{"message":"no batches"}}"#,
            "garbage",
            "null",
        ] {
            assert!(read_batch(body.as_bytes(), &asks).is_err(), "{body}");
        }
    }
}
