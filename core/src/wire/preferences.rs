//! A request's `provider`: who may do the job, and at what price (front-door spec 2).

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed as _, Zero as _};

use super::refused::{Code, Refused};
use super::runner::decimal;
use super::strict::{Field, Object, Wrong, checked, missing, not_among};
use crate::http::Url;
use crate::money::Amount;
use crate::prefer::{MAX_NAMED, MaxPrice, Named, Preferences, Sort};
use crate::sign::Address;
use crate::spelling::nearest;

const KEYS: [&str; 13] = [
    "order",
    "only",
    "ignore",
    "allow_fallbacks",
    "sort",
    "max_price",
    "require_warm",
    "require_parameters",
    "preferred_max_latency",
    "preferred_min_throughput",
    "data_collection",
    "zdr",
    "quantizations",
];

/// The words of a gateway in which its callers' preferences are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Names for orchestrators that callers may say.
    pub names: BTreeMap<String, Named>,
    /// The price of a dollar in wei; limits in dollars are refused without it.
    pub wei_per_usd: Option<Amount>,
}

/// Preferences as they were read, and which of them have no effect here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The preferences.
    pub preferences: Preferences,
    /// Paths of the keys that are understood and have no effect yet.
    pub ignored: Vec<String>,
}

/// Reads the preferences of a request from the text of its `provider` and from its `Livepeer-Provider` header. They
/// are merged key by key, and the body's win.
///
/// # Errors
/// For what is not such an object. An unknown key is an error too: a typo in a limit must not cost money.
pub fn read(body: Option<&str>, header: Option<&str>, terms: &Terms) -> Result<Read, Refused> {
    let mut all = Object::empty(PROVIDER);
    if let Some(text) = body {
        let checked = checked(text.as_bytes()).map_err(|wrong| not_json("'provider'", wrong))?;
        all = provider(checked)?;
    }
    if let Some(text) = header {
        let checked = checked(text.as_bytes())
            .map_err(|wrong| not_json("The Livepeer-Provider header", wrong))?;
        all.fill_from(provider(checked)?);
    }
    interpret(&all, terms)
}

const PROVIDER: &str = "provider";

fn not_json(what: &str, wrong: Wrong) -> Refused {
    let why = match wrong {
        Wrong::Json(why) => why,
        Wrong::Deep => "it nests too deeply".into(),
        Wrong::Number(place) => format!("a number is out of range{place}"),
    };
    Refused::new(
        Code::InvalidValue,
        format!("{what} is not valid JSON: {why}."),
    )
    .at(PROVIDER)
}

fn provider(text: &str) -> Result<Object<'_>, Refused> {
    Field::new(PROVIDER, text).object()
}

fn interpret(all: &Object<'_>, terms: &Terms) -> Result<Read, Refused> {
    let mut read = Read::default();
    let Preferences {
        limits,
        order,
        allow_fallbacks,
        sort,
        require_parameters,
    } = &mut read.preferences;
    for (key, value) in all.iter() {
        match key {
            "order" => *order = named(&value, terms)?,
            "only" => limits.only = Some(named(&value, terms)?),
            "ignore" => limits.ignore = named(&value, terms)?,
            "allow_fallbacks" => *allow_fallbacks = value.flag()?,
            "sort" => *sort = Some(sorting(&value)?),
            "max_price" => limits.max_price = max_price(&value, terms)?,
            "require_warm" => limits.require_warm = value.flag()?,
            "require_parameters" => *require_parameters = value.flag()?,
            "preferred_max_latency" | "preferred_min_throughput" => read.ignored.push(value.path),
            "data_collection" if value.text()? == "allow" => {}
            "zdr" if !value.flag()? => {}
            "quantizations" if value.list(MAX_NAMED, "an array")?.is_empty() => {}
            "data_collection" | "zdr" | "quantizations" => {
                return Err(Refused::new(
                    Code::UnsupportedValue,
                    format!(
                        "Unsupported value: no orchestrator promises '{}'.",
                        value.path
                    ),
                )
                .at(value.path));
            }
            _ => return Err(unknown(&value, key, &KEYS)),
        }
    }
    Ok(read)
}

fn unknown(value: &Field<'_>, key: &str, known: &[&'static str]) -> Refused {
    let meant = nearest(key, known.iter().copied())
        .map_or_else(String::new, |key| format!(" Did you mean '{key}'?"));
    Refused::new(
        Code::UnknownParameter,
        format!("Unknown parameter: '{}'.{meant}", value.path),
    )
    .at(&*value.path)
}

fn named(list: &Field<'_>, terms: &Terms) -> Result<Vec<Named>, Refused> {
    list.list(MAX_NAMED, "an array")?
        .iter()
        .map(|entry| {
            let text = entry.text()?;
            name(&text, terms).ok_or_else(|| {
                Refused::new(
                    Code::InvalidValue,
                    format!(
                        "Invalid value: '{text}'. Expected an orchestrator's address (0x…), URL or host."
                    ),
                )
                .at(&*entry.path)
            })
        })
        .collect()
}

/// Reads an orchestrator as people name it: by a name of the gateway's own, an account, a URL, or a host with or
/// without its port. A bare word is a host only if it has a dot or a port, or is `localhost`.
#[must_use]
pub fn name(text: &str, terms: &Terms) -> Option<Named> {
    if let Some(named) = terms.names.get(text) {
        return Some(named.clone());
    }
    if text.starts_with("0x") || text.starts_with("0X") {
        return text.parse::<Address>().ok().map(Named::Address);
    }
    if text.contains("://") {
        return Url::parse(text).ok().map(|url| Named::Origin(url.origin()));
    }
    let url = Url::parse(&format!("https://{text}")).ok()?;
    let has_port = url.authority() == text.to_ascii_lowercase();
    if url.path() != "/" || text.ends_with('/') {
        return None;
    }
    let is_host = has_port || text.contains(['.', ':']) || text.eq_ignore_ascii_case("localhost");
    is_host.then(|| Named::Host(url.host().to_owned(), has_port.then(|| url.port())))
}

fn sorting(value: &Field<'_>) -> Result<Sort, Refused> {
    if value.is_object() {
        let object = value.object()?;
        for (key, member) in object.iter() {
            if !matches!(key, "by" | "partition") {
                return Err(unknown(&member, key, &["by", "partition"]));
            }
        }
        let by = object.need("by")?;
        return sort_by(&by);
    }
    sort_by(value)
}

fn sort_by(value: &Field<'_>) -> Result<Sort, Refused> {
    let text = value.text()?;
    match &*text {
        "price" => Ok(Sort::Price),
        "latency" => Ok(Sort::Latency),
        "throughput" => Ok(Sort::Throughput),
        other => Err(not_among(
            &value.path,
            other,
            &["price", "latency", "throughput"],
        )),
    }
}

fn max_price(value: &Field<'_>, terms: &Terms) -> Result<MaxPrice, Refused> {
    let mut price = MaxPrice::default();
    if !value.is_object() {
        price.unit = Some(amount(value)?);
        return Ok(price);
    }
    let object = value.object()?;
    if object.len() == 0 {
        return Err(missing(&format!("{}.wei_per_unit", value.path)));
    }
    for (key, member) in object.iter() {
        // A price of prompts is read, and has no effect: they cost nothing here.
        let wei = amount(&member)?;
        let usd = |per: u64| {
            let wei_per_usd = terms.wei_per_usd.as_ref().ok_or_else(|| {
                Refused::new(
                    Code::UnsupportedParameter,
                    format!(
                        "Unsupported parameter: '{}' is in USD, and this gateway has no price of ETH.",
                        member.path
                    ),
                )
                .at(&*member.path)
            })?;
            let wei = wei.as_ratio() * wei_per_usd.as_ratio() / BigInt::from(per);
            Ok::<_, Refused>(Some(Amount::from(wei)))
        };
        match key {
            "wei_per_unit" => price.unit = Some(wei),
            "request_wei" => price.request = lower(price.request.take(), Some(wei)),
            "request" => price.request = lower(price.request.take(), usd(1)?),
            "completion" => price.token = usd(1_000_000)?,
            "image" => price.image = usd(1)?,
            "audio" => price.millisecond = usd(60_000)?,
            "prompt" => {}
            _ => {
                let known = [
                    "wei_per_unit",
                    "request_wei",
                    "completion",
                    "image",
                    "audio",
                    "request",
                    "prompt",
                ];
                return Err(unknown(&member, key, &known));
            }
        }
    }
    Ok(price)
}

fn lower(one: Option<Amount>, other: Option<Amount>) -> Option<Amount> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// A number, or a text that is a decimal or a fraction; exactly.
fn amount(value: &Field<'_>) -> Result<Amount, Refused> {
    let text = if value.is_text() {
        value.text()?.into_owned()
    } else if value
        .raw()
        .starts_with(|c: char| c == '-' || c.is_ascii_digit())
    {
        value.raw().into()
    } else {
        return Err(value.not("a number or a string"));
    };
    ratio(&text)
        .filter(|ratio| !ratio.is_negative())
        .map(Amount::from)
        .ok_or_else(|| {
            Refused::new(
                Code::InvalidValue,
                format!("Invalid value: '{text}'. Expected a non-negative decimal or fraction."),
            )
            .at(&*value.path)
        })
}

fn ratio(text: &str) -> Option<BigRational> {
    let digits = |text: &str| {
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        (plain && text.bytes().any(|b| b.is_ascii_digit())).then_some(())
    };
    match text.split_once('/') {
        None => digits(text).and_then(|()| decimal(text)),
        Some((over, under)) => {
            digits(over)?;
            digits(under)?;
            let under = decimal(under).filter(|under| !under.is_zero())?;
            Some(decimal(over)? / under)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orchestrator_is_named_in_many_ways() {
        let terms = Terms {
            names: BTreeMap::from([("fast".into(), Named::Host("f.example".into(), None))]),
            wei_per_usd: None,
        };
        let host = |host: &str, port| Some(Named::Host(host.into(), port));
        for (text, is) in [
            ("fast", host("f.example", None)),
            ("A.example", host("a.example", None)),
            ("a.example:8935", host("a.example", Some(8935))),
            ("a.example:443", host("a.example", Some(443))),
            ("localhost", host("localhost", None)),
            ("localhost:7935", host("localhost", Some(7935))),
            ("[::1]:7935", host("::1", Some(7935))),
            ("127.0.0.1", host("127.0.0.1", None)),
            (
                "https://A.example",
                Some(Named::Origin("https://a.example:443".into())),
            ),
            ("openai", None),
            ("", None),
            ("a.example/x", None),
            ("0x12", None),
        ] {
            assert_eq!(name(text, &terms), is, "{text}");
        }
    }

    #[test]
    fn a_number_is_read_exactly_or_not_at_all() {
        for text in [
            "", "-", "1/0", "1_0", "1/2/3", "NaN", "1e1000", "0x1", " 1", "e5",
        ] {
            assert_eq!(ratio(text), None, "{text}");
        }
        for (text, over, under) in [
            ("90", 90, 1),
            ("0.5", 1, 2),
            ("250/3", 250, 3),
            ("1e-2", 1, 100),
        ] {
            let exact = BigRational::new(over.into(), under.into());
            assert_eq!(ratio(text), Some(exact), "{text}");
        }
    }
}
