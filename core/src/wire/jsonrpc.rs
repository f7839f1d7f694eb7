//! Ethereum's JSON-RPC, in batches.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use core::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::WireError;
use super::error::cut;
use super::ethereum::Block;
use crate::http::Headers;
use crate::sign::Address;

/// The longest answer that is accepted.
pub const MAX_ANSWER_BYTES: usize = 4 << 20;

const WHAT: &str = "the JSON-RPC answer";

/// A question.
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
        /// The contracts whose logs are asked for.
        of: Vec<Address>,
        /// The first topic.
        topics: Vec<[u8; 32]>,
    },
}

/// How many questions an endpoint takes at a time. Some limit batches, some take none, and none says so beforehand: an
/// endpoint that refuses a batch is asked half as many from then on, and single questions in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimit(usize);

impl Default for BatchLimit {
    fn default() -> Self {
        Self(usize::MAX)
    }
}

impl BatchLimit {
    /// Halves the limit after a batch of `refused` questions was refused: a batch of one becomes a question without a
    /// batch. Returns whether that was possible.
    fn halve(&mut self, refused: usize) -> bool {
        let could = self.0 > 0;
        self.0 = self.0.min(refused) / 2;
        could
    }
}

/// Questions to one endpoint, asked as many at a time as it takes.
#[derive(Clone, Debug)]
pub struct Asking {
    asks: Vec<Ask>,
    told: Vec<Told>,
}

impl Asking {
    /// Asks all of `asks`.
    #[must_use]
    pub const fn new(asks: Vec<Ask>) -> Self {
        let told = Vec::new();
        Self { asks, told }
    }

    fn next(&self, limit: BatchLimit) -> &[Ask] {
        let left = &self.asks[self.told.len()..];
        &left[..left.len().min(limit.0.max(1))]
    }

    /// The body of the next request.
    #[must_use]
    pub fn body(&self, limit: BatchLimit) -> Bytes {
        match (limit.0, self.next(limit)) {
            (0, [ask]) => question(0, ask).to_string().into(),
            (_, some) => batch(some),
        }
    }

    /// Takes an answer; all answers in the order of the questions, or `None` if the next request is due.
    ///
    /// # Errors
    /// If the answer is malformed, and asking for less would not help.
    pub fn answered(
        &mut self,
        limit: &mut BatchLimit,
        body: &[u8],
    ) -> Result<Option<Vec<Told>>, WireError> {
        let some = self.next(*limit);
        match read_batch(body, some) {
            Ok(told) => {
                self.told.extend(told);
                let all = self.told.len() == self.asks.len();
                Ok(all.then(|| core::mem::take(&mut self.told)))
            }
            Err(_) if is_refusal(body) && limit.halve(some.len()) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// Takes a status that is no success; whether the next request, which asks for less, is due.
    pub fn refused(&self, limit: &mut BatchLimit, status: u16) -> bool {
        matches!(status, 400 | 413 | 500) && limit.halve(self.next(*limit).len())
    }
}

/// Whether an answer is an error, or has one in it: it may be about the batch, or about how much of it was done.
fn is_refusal(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<Value>,
    }
    let is_error = |answer: &Answer| answer.error.is_some();
    match serde_json::from_slice::<Answer>(body) {
        Ok(answer) => is_error(&answer),
        Err(_) => {
            let answers = serde_json::from_slice::<Vec<Answer>>(body);
            answers.is_ok_and(|answers| answers.iter().any(is_error))
        }
    }
}

/// How long to leave a peer alone that says so: the seconds of `retry-after`, up to [`MAX_RETRY_AFTER`]. Dates are not
/// read.
#[must_use]
pub fn retry_after(headers: &Headers) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// How long an endpoint is left alone, at most, whatever it asks for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// The body that asks all of `asks` at once.
#[must_use]
pub fn batch(asks: &[Ask]) -> Bytes {
    let all = asks.iter().enumerate().map(|(id, ask)| question(id, ask));
    Value::Array(all.collect()).to_string().into()
}

fn question(id: usize, ask: &Ask) -> Value {
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
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The data that a call returned.
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
    // Whoever does not take batches answers with one error; a single question has a single answer.
    let answers: Vec<Answer> = match serde_json::from_slice(body) {
        Ok(Answer {
            error: Some(error), ..
        }) => return Err(bad(format!("it says {}", cut(&error.to_string())))),
        Ok(answer @ Answer { id: Some(_), .. }) => Vec::from([answer]),
        _ => serde_json::from_slice(body).map_err(|err| bad(err.to_string()))?,
    };
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

    /// Asks five questions of an endpoint that takes so many at a time; how many there were in each request.
    fn asked_of(most: usize, limit: &mut BatchLimit, by_status: bool) -> Vec<usize> {
        let mut asking = Asking::new(alloc::vec![Ask::BlockNumber; 5]);
        let mut sizes = Vec::new();
        loop {
            let sent: Value = serde_json::from_slice(&asking.body(*limit)).unwrap();
            let ids: Vec<&Value> = match &sent {
                Value::Array(all) => all.iter().map(|one| &one["id"]).collect(),
                one => alloc::vec![&one["id"]],
            };
            sizes.push(ids.len());
            let bare = sent.is_object();
            let answer = |id: &&Value| json!({"id": id, "result": "0x7"});
            let told = if !bare && ids.len() > most {
                if by_status {
                    assert!(asking.refused(limit, 413), "there is less to ask for");
                    continue;
                }
                json!({"error": {"message": "too many requests in one batch"}})
            } else if bare {
                answer(&ids[0])
            } else {
                ids.iter().map(answer).collect()
            };
            let told = asking.answered(limit, told.to_string().as_bytes());
            if let Some(told) = told.expect("asking for less helps") {
                assert_eq!(told, alloc::vec![Told::Number(7); 5]);
                return sizes;
            }
        }
    }

    #[test]
    fn an_endpoint_that_limits_batches_is_asked_half_as_much_and_remembered() {
        for by_status in [false, true] {
            let mut limit = BatchLimit::default();
            assert_eq!(asked_of(5, &mut limit, by_status), [5]);
            assert_eq!(asked_of(3, &mut limit, by_status), [5, 2, 2, 1]);
            assert_eq!(asked_of(3, &mut limit, by_status), [2, 2, 1]);
            assert_eq!(asked_of(1, &mut limit, by_status), [2, 1, 1, 1, 1, 1]);
            // None at all: a single question is no batch of one.
            if !by_status {
                let single = asked_of(0, &mut limit, by_status);
                assert_eq!(single, [1, 1, 1, 1, 1, 1]);
            }
        }
        let mut limit = BatchLimit(0);
        let mut asking = Asking::new(alloc::vec![Ask::BlockNumber]);
        let refused = asking.answered(&mut limit, br#"{"id":0,"error":{"message":"reverted"}}"#);
        assert!(refused.is_err(), "there is nothing less to ask for");
        assert!(!asking.refused(&mut limit, 500));
    }

    #[test]
    fn who_wants_to_be_left_alone_is_for_as_long_as_it_says() {
        let said = |text: &str| {
            let mut headers = Headers::new();
            headers.push("retry-after", text);
            retry_after(&headers)
        };
        assert_eq!(said("7"), Some(Duration::from_secs(7)));
        assert_eq!(said("999999999"), Some(MAX_RETRY_AFTER));
        assert_eq!(said("-1"), None);
        assert_eq!(said("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        assert_eq!(retry_after(&Headers::new()), None);
    }

    #[test]
    fn half_a_batch_is_no_answer() {
        let asks = [Ask::BlockNumber, Ask::BlockNumber];
        for body in [
            r#"[{"id":0,"result":"0x1"}]"#,
            r#"[{"id":0,"result":"0x1"},{"id":1,"error":{"code":-32000}}]"#,
            r#"[{"id":0,"result":"0x1"},{"id":1,"result":1}]"#,
            r#"{"error":{"message":"no batches"}}"#,
            r#"{"id":0,"result":"0x1"}"#,
            "garbage",
            "null",
        ] {
            assert!(read_batch(body.as_bytes(), &asks).is_err(), "{body}");
        }
    }
}
