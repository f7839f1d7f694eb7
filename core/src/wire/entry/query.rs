//! Queries, and forms in the form of queries (`application/x-www-form-urlencoded`).

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::Refusal;
use crate::wire::Params;

/// A percent sign without two hexadecimal digits behind it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid URL escape {0:?}")]
pub struct BadEscape(pub String);

/// The pairs of a query, decoded, in their order. A key without `=` has an empty value.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = Result<(String, String), BadEscape>> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        })
}

/// Replaces `+` and escapes; bytes that are not UTF-8 are mended.
fn decode(text: &str) -> Result<String, BadEscape> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => {
                let digits = behind.get(..2).and_then(|digits| {
                    let digit = |byte: u8| char::from(byte).to_digit(16);
                    Some(16 * digit(digits[0])? + digit(digits[1])?)
                });
                let Some(byte) = digits else {
                    let shown = [b"%", &behind[..behind.len().min(2)]].concat();
                    return Err(BadEscape(String::from_utf8_lossy(&shown).into_owned()));
                };
                rest = &behind[2..];
                byte as u8 // of two digits
            }
            byte => *byte,
        });
    }
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|err| String::from_utf8_lossy(err.as_bytes()).into_owned()))
}

/// The first value of `key`; absent is empty, as in the reference.
pub(super) fn first(pairs: &[(String, String)], key: &str) -> String {
    let found = pairs.iter().find(|(name, _)| name == key);
    found.map_or("", |(_, value)| value).to_owned()
}

/// The parameters of a job, as the query of an ingest address has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobQuery {
    /// The pipeline, which is the model: `pipeline` of the query, as the reference has it, else `model`. Empty means the
    /// default one.
    pub pipeline: String,
    /// The model's first parameters.
    pub params: Option<Params>,
    /// Names the stream for status and events; empty if the sender gave no name.
    pub stream_id: String,
    /// Where the output is pushed to; empty for nowhere.
    pub rtmp_output: String,
    /// A text that the URL of the orchestrator has to contain; empty for any.
    pub orchestrator: String,
    /// The pipeline's own id, which only a webhook gives.
    pub pipeline_id: String,
}

impl JobQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 if an escape is broken or the parameters are not a JSON object.
    pub fn read(query: &str) -> Result<Self, Refusal> {
        Self::of(&decoded(query)?)
    }

    pub(super) fn of(pairs: &[(String, String)]) -> Result<Self, Refusal> {
        let pipeline = first(pairs, "pipeline");
        let params = first(pairs, "params");
        let params = (!params.is_empty()).then(|| Params::parse(&params));
        Ok(Self {
            pipeline: if pipeline.is_empty() {
                first(pairs, "model")
            } else {
                pipeline
            },
            params: params.transpose().map_err(|_| Refusal::BAD_PARAMS)?,
            stream_id: first(pairs, "streamId"),
            rtmp_output: first(pairs, "rtmpOutput"),
            orchestrator: first(pairs, "orchestrator"),
            pipeline_id: String::new(),
        })
    }
}

/// All pairs of a query.
pub(super) fn decoded(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    pairs(query)
        .collect::<Result<_, _>>()
        .map_err(|err| Refusal {
            status: 400,
            text: err.to_string().into(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_in_their_order() {
        let read: Result<Vec<_>, _> = pairs("a=1&b=%7B%22x%22%3a1%7D&&c&a=2+3&=z").collect();
        let read = read.unwrap();
        assert_eq!(first(&read, "a"), "1");
        assert_eq!(first(&read, "b"), "{\"x\":1}");
        assert_eq!(first(&read, "c"), "");
        assert_eq!(read[3], ("a".into(), "2 3".into()));
        assert_eq!(first(&read, "d"), "");
        for (query, shown) in [("a=%zz", "%zz"), ("%", "%"), ("a=%4", "%4")] {
            let err = pairs(query).find_map(Result::err);
            assert_eq!(err, Some(BadEscape(shown.into())), "{query}");
        }
        let asked = |query| JobQuery::read(query).map(|job| job.pipeline);
        assert_eq!(asked("model=clock"), Ok("clock".into()));
        assert_eq!(asked("model=clock&pipeline=noop"), Ok("noop".into()));
        assert_eq!(asked("streamId=1"), Ok(String::new()));
        assert_eq!(
            pairs("a=%ff").next(),
            Some(Ok(("a".into(), "\u{fffd}".into())))
        );
    }
}
