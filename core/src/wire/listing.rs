//! Lists of orchestrators as the various sources write them (handshake spec 7.2).
//!
//! A bad entry never spoils a list: it is left out, and [`Skipped`] says why. An answer that is not a list is an error.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use num_bigint::BigInt;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::{WireError, cut};
use super::json::Members;
use super::runner::{Runner, decimal};
use crate::capabilities::{Capabilities, Capability};
use crate::http::Url;
use crate::sign::Address;

/// The longest answer of a source that is accepted.
pub const MAX_LIST_BYTES: usize = 8 << 20;
/// An answer with more entries is refused.
pub const MAX_LIST_ENTRIES: usize = 100_000;
/// The longest entry that is read; a longer one is left out.
pub const MAX_ENTRY_BYTES: usize = 64 << 10;
/// At most this many capabilities or runners of one entry are read; the rest is ignored.
pub const MAX_PER_ENTRY: usize = 1_000;
/// At most this many left-out entries are reported; the rest is left out in silence.
pub const MAX_SKIPPED: usize = 100;

/// An entry that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The entry's place in the list, from zero.
    pub at: usize,
    /// How it is wrong.
    pub why: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {}: {}", self.at, self.why)
    }
}

/// The entry of a source for one orchestrator.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The URL of the orchestrator.
    pub url: Url,
    /// How far the source trusts it: one is trusted, zero is not, anything else is for the reader to judge.
    pub score: f64,
    /// The on-chain account, from sources that know.
    pub account: Option<Address>,
    /// Further accounts that are registered at the same address: anybody can register it.
    pub other_accounts: Vec<Address>,
    /// The stake in hundred-thousandths of a token, from sources that know.
    pub stake: Option<u64>,
    /// `slug/model`, or the name of an app.
    pub capabilities: Vec<String>,
    /// The live runners of the orchestrator.
    pub runners: Vec<Runner>,
}

impl Found {
    /// An entry of which nothing but the address is known.
    #[must_use]
    pub const fn at(url: Url) -> Self {
        Self {
            url,
            score: 0.0,
            account: None,
            other_accounts: Vec::new(),
            stake: None,
            capabilities: Vec::new(),
            runners: Vec::new(),
        }
    }
}

impl Found {
    /// Every account that is registered there.
    pub fn accounts(&self) -> impl Iterator<Item = &Address> {
        self.account.iter().chain(&self.other_accounts)
    }
}

/// Entries, and what was left out.
pub type Listed<T> = (Vec<T>, Vec<Skipped>);

/// Reads what somebody calls an orchestrator's address: `host:port`, with or without a scheme. Without one it is
/// `https`; without a port it is the scheme's own.
///
/// # Errors
/// For a path, a query or a fragment, and for what is no URL.
pub fn read_address(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let bad = |why: &dyn fmt::Display| format!("address {:?}: {why}", cut(text));
    if text.is_empty() {
        return Err("the address is blank".into());
    }
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("https://{text}"))
    }
    .map_err(|err| bad(&err))?;
    if url.path() != "/" || text.contains(['#', '?']) {
        return Err(bad(
            &"an orchestrator's address has no path, query or fragment",
        ));
    }
    Ok(url)
}

/// Reads `host:port, host:port, …`; blanks between commas are nothing.
#[must_use]
pub fn read_addresses(text: &str) -> Listed<Url> {
    let mut listed = (Vec::new(), Vec::new());
    for (at, part) in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .enumerate()
    {
        keep(&mut listed, at, read_address(part));
    }
    listed
}

/// Reads the array of a webhook, a discovery endpoint or a signer. Only `address` is required of an entry, and its
/// name may be in any case.
///
/// # Errors
/// If it is no JSON array.
pub fn read_list(body: &[u8]) -> Result<Listed<Found>, WireError> {
    let rows: Rows = parse(body, "the list")?;
    let mut listed = (Vec::new(), Vec::new());
    for (at, row) in rows.0.iter().enumerate() {
        let mut inner = Vec::new();
        keep(&mut listed, at, entry(row, &mut inner));
        for why in inner {
            skip(&mut listed.1, at, why);
        }
    }
    Ok(listed)
}

fn entry(row: &RawValue, skipped: &mut Vec<String>) -> Result<Found, String> {
    let Value::Object(fields) = value(row)? else {
        return Err("it is no object".into());
    };
    let field = |name: &str| {
        let same = fields
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        fields.get(name).or(same.map(|(_, value)| value))
    };
    let address = match field("address") {
        Some(Value::String(text)) => text,
        Some(Value::Null) | None => return Err("it has no address".into()),
        Some(_) => return Err("its address is no text".into()),
    };
    let mut found = Found::at(read_address(address)?.told());
    // A score of another type is as good as none.
    found.score = field("score").and_then(Value::as_f64).unwrap_or(0.0);
    if let Some(Value::Array(all)) = field("capabilities") {
        let all = all.iter().take(MAX_PER_ENTRY).filter_map(Value::as_str);
        found.capabilities = all.map(ToString::to_string).collect();
    }
    if let Some(Value::Array(all)) = field("runners") {
        for runner in all.iter().take(MAX_PER_ENTRY) {
            match Runner::read(runner) {
                Ok(runner) => found.runners.push(runner),
                Err(bad) => skipped.push(format!("runner: {bad}")),
            }
        }
    }
    Ok(found)
}

/// Reads an orchestrator's own `GET /discovery`: the runners of all its entries.
///
/// # Errors
/// If it is no JSON array.
pub fn read_runners(body: &[u8]) -> Result<Listed<Runner>, WireError> {
    let (entries, skipped) = read_list(body)?;
    let runners = entries.into_iter().flat_map(|entry| entry.runners);
    Ok((runners.collect(), skipped))
}

/// Reads a table of performance: the score of every account in `region`, which is upper-cased (handshake spec 7.2).
///
/// # Errors
/// If it is no JSON object; keep the old scores then.
pub fn read_scores(body: &[u8], region: &str) -> Result<BTreeMap<Address, f64>, WireError> {
    let region = region.to_ascii_uppercase();
    let table: Members<MAX_LIST_ENTRIES> = parse(body, "the performance table")?;
    // The last of several members of one name counts.
    let table: BTreeMap<String, Box<RawValue>> = table.0.into_iter().collect();
    let score = |(account, of): (String, Box<RawValue>)| {
        let of: Value = value(&of).ok()?;
        Some((
            account.parse().ok()?,
            of.get(&region)?.get("score")?.as_f64()?,
        ))
    };
    Ok(table.into_iter().filter_map(score).collect())
}

/// Reads the subgraph's answer to the question for the current round.
///
/// # Errors
/// If it is an error, which comes with status 200, or has no round.
pub fn read_round(body: &[u8]) -> Result<u64, WireError> {
    #[derive(Deserialize)]
    struct Data {
        protocol: Option<Protocol>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Protocol {
        last_initialized_round: Round,
    }
    #[derive(Deserialize)]
    struct Round {
        id: String,
    }
    let data: Data = graph(body)?;
    let round = data
        .protocol
        .map(|protocol| protocol.last_initialized_round.id);
    round
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| WireError::new("the subgraph's answer", "it names no round"))
}

/// Reads the subgraph's answer to the question for orchestrators. Those that registered no URI are left out,
/// untold.
///
/// # Errors
/// If it is an error, which comes with status 200, or no list.
pub fn read_subgraph(body: &[u8]) -> Result<Listed<Found>, WireError> {
    #[derive(Deserialize)]
    struct Data {
        transcoders: Rows,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Transcoder {
        id: String,
        #[serde(rename = "serviceURI")]
        service_uri: Option<String>,
        total_stake: Option<String>,
    }
    let data: Data = graph(body)?;
    let mut listed = (Vec::new(), Vec::new());
    for (at, row) in data.transcoders.0.iter().enumerate() {
        let read = || -> Result<Option<Found>, String> {
            let row: Transcoder = serde_json::from_str(row.get()).map_err(|err| err.to_string())?;
            let Some(uri) = row.service_uri.filter(|uri| !uri.trim().is_empty()) else {
                return Ok(None);
            };
            let mut found = Found::at(read_address(&uri)?.told());
            found.account = Some(row.id.parse().map_err(|err| format!("id: {err}"))?);
            // Written in whole tokens with a fraction.
            let stake = row.total_stake.as_deref().and_then(decimal);
            found.stake = stake.and_then(|tokens| {
                let units = (tokens * BigInt::from(100_000)).to_integer();
                u64::try_from(units).ok()
            });
            Ok(Some(found))
        };
        match read() {
            Ok(None) => {}
            Ok(Some(found)) => listed.0.push(found),
            Err(why) => skip(&mut listed.1, at, why),
        }
    }
    Ok(listed)
}

/// The `data` of a GraphQL answer.
fn graph<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, WireError> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
        #[serde(borrow)]
        errors: Option<&'a RawValue>,
    }
    const WHAT: &str = "the subgraph's answer";
    let answer: Answer<'_> = parse(body, WHAT)?;
    if let Some(errors) = answer.errors {
        return Err(WireError::new(
            WHAT,
            format!("it says {}", cut(errors.get())),
        ));
    }
    let data = answer
        .data
        .ok_or_else(|| WireError::new(WHAT, "it has no data"))?;
    serde_json::from_str(data.get()).map_err(|err| WireError::new(WHAT, err.to_string()))
}

/// The names of the fields in a table of orchestrators' statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsFields {
    /// The account.
    pub account: String,
    /// Where it is.
    pub uri: String,
    /// Whether it is active; empty if the table has only active ones.
    pub active: String,
    /// The stake; empty if the table does not tell.
    pub stake: String,
}

impl Default for StatsFields {
    fn default() -> Self {
        Self {
            account: "Address".into(),
            uri: "ServiceURI".into(),
            active: "Active".into(),
            stake: "DelegatedStake".into(),
        }
    }
}

/// Reads a table of statistics: an array of objects. Inactive ones and ones without a URI are left out,
/// untold.
///
/// # Errors
/// If it is no JSON array.
pub fn read_stats(body: &[u8], names: &StatsFields) -> Result<Listed<Found>, WireError> {
    let rows: Rows = parse(body, "the statistics")?;
    let mut listed = (Vec::new(), Vec::new());
    for (at, row) in rows.0.iter().enumerate() {
        let read = || -> Result<Option<Found>, String> {
            let row = value(row)?;
            let active = names.active.is_empty() || row[&names.active].as_bool() == Some(true);
            let uri = row[&names.uri].as_str().unwrap_or("").trim();
            if !active || uri.is_empty() {
                return Ok(None);
            }
            let mut found = Found::at(read_address(uri)?.told());
            found.account = row[&names.account]
                .as_str()
                .and_then(|text| text.parse().ok());
            Ok(Some(found))
        };
        match read() {
            Ok(None) => {}
            Ok(Some(found)) => listed.0.push(found),
            Err(why) => skip(&mut listed.1, at, why),
        }
    }
    Ok(listed)
}

/// A discovery URL with a query for what is wanted: `caps=slug/model` for every model by rising id, then by model;
/// an existing query stays. Only reserved characters are escaped, and slashes are not (handshake spec 7.2).
#[must_use]
pub fn caps_query(base: &Url, wanted: &Capabilities) -> Url {
    let mut path = base.path().to_string();
    for cap in caps(wanted) {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str("caps=");
        for byte in cap.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                path.push(byte.into());
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    base.with_path(&path)
}

/// `slug/model` for every wanted model, by rising id, then by model, in the python client's spelling. BYOC and
/// empty model names are left out, for nobody lists them.
#[must_use]
pub fn caps(wanted: &Capabilities) -> Vec<String> {
    let named = |(capability, model, _): (Capability, &str, _)| {
        let slug = capability.client_slug().filter(|_| !model.is_empty())?;
        Some(format!("{slug}/{model}"))
    };
    wanted.models().filter_map(named).collect()
}

/// Entries as named by the peer at `by`: addresses that it may not name are left out, with the reason.
#[must_use]
pub fn named_by(listed: Listed<Found>, by: &Url) -> Listed<Found> {
    let (all, mut skipped) = listed;
    let mut found = Vec::with_capacity(all.len());
    for (at, mut one) in all.into_iter().enumerate() {
        match one.url.named_by(by) {
            Ok(url) => {
                one.url = url;
                found.push(one);
            }
            Err(forbidden) => skip(&mut skipped, at, forbidden.to_string()),
        }
    }
    (found, skipped)
}

fn keep<T>(listed: &mut Listed<T>, at: usize, read: Result<T, String>) {
    match read {
        Ok(found) => listed.0.push(found),
        Err(why) => skip(&mut listed.1, at, why),
    }
}

fn skip(skipped: &mut Vec<Skipped>, at: usize, why: String) {
    if skipped.len() < MAX_SKIPPED {
        skipped.push(Skipped { at, why });
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], what: &'static str) -> Result<T, WireError> {
    if body.len() > MAX_LIST_BYTES {
        return Err(WireError::new(
            what,
            format!("longer than {MAX_LIST_BYTES} bytes"),
        ));
    }
    serde_json::from_slice(body).map_err(|err| WireError::new(what, err.to_string()))
}

fn value(row: &RawValue) -> Result<Value, String> {
    if row.get().len() > MAX_ENTRY_BYTES {
        return Err(format!("it is longer than {MAX_ENTRY_BYTES} bytes"));
    }
    serde_json::from_str(row.get()).map_err(|err| err.to_string())
}

/// The elements of an array, unread; not more than we take.
struct Rows(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = Rows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut all: S) -> Result<Rows, S::Error> {
                let mut rows = Vec::new();
                while let Some(row) = all.next_element()? {
                    if rows.len() == MAX_LIST_ENTRIES {
                        return Err(serde::de::Error::custom("too many entries"));
                    }
                    rows.push(row);
                }
                Ok(Rows(rows))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}
