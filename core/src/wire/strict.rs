//! JSON as the front door reads it from callers: strictly, because a misread parameter costs money
//! (front-door spec 1.12).

use alloc::borrow::Cow;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::refused::{Code, Refused};

/// At most this many levels of arrays and objects.
pub(super) const MAX_DEPTH: usize = 64;
/// At most this many members of one object.
pub(super) const MAX_MEMBERS: usize = 4_096;

/// A value of a request, where it is, and what it must be. `null` counts as absent everywhere.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    /// The path, as errors say it: `messages[0].role`.
    pub(super) path: String,
    raw: &'a str,
}

/// The members of one object in their order, without those that are `null`.
#[derive(Clone, Debug)]
pub(super) struct Object<'a> {
    path: String,
    members: Vec<(Cow<'a, str>, &'a str)>,
}

/// Reads a body that is one JSON object and nothing else.
pub(super) fn object(body: &[u8]) -> Result<Object<'_>, Refused> {
    let text = checked(body).map_err(|wrong| match wrong {
        Wrong::Json(why) => Refused::new(
            Code::InvalidJson,
            format!("The request body is not valid JSON: {why}."),
        ),
        Wrong::Deep => Refused::new(
            Code::InvalidJson,
            format!("The request body nests deeper than {MAX_DEPTH} levels."),
        ),
        Wrong::Number(place) => Refused::new(
            Code::InvalidType,
            format!("The request body has a number that is out of range{place}."),
        ),
    })?;
    if !text.starts_with('{') {
        return Err(Refused::new(
            Code::InvalidJson,
            format!(
                "The request body must be a JSON object, not {}.",
                kind(text)
            ),
        ));
    }
    Ok(Object::read(String::new(), text))
}

/// Why a text is not JSON that is accepted.
pub(super) enum Wrong {
    Json(String),
    Deep,
    /// A number that no double holds, and where.
    Number(String),
}

/// The value as text, once all of it is known to be good: every string decodes, no key comes twice in an object, and
/// nothing follows.
pub(super) fn checked(body: &[u8]) -> Result<&str, Wrong> {
    let text = core::str::from_utf8(body).map_err(|_| Wrong::Json("it is not UTF-8".into()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim();
    let found = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_str(text);
    let level = Level {
        left: MAX_DEPTH,
        found: &found,
    };
    match level.deserialize(&mut reader).and_then(|()| reader.end()) {
        Ok(()) => Ok(text),
        Err(err) => Err(found.into_inner().unwrap_or_else(|| {
            let text = err.to_string();
            match text.strip_prefix("number out of range") {
                Some(place) => Wrong::Number(place.into()),
                None => Wrong::Json(text),
            }
        })),
    }
}

/// Walks over a value and all in it.
#[derive(Clone, Copy)]
struct Level<'c> {
    left: usize,
    found: &'c RefCell<Option<Wrong>>,
}

impl Level<'_> {
    fn down(self) -> Option<Self> {
        let left = self.left.checked_sub(1)?;
        Some(Self { left, ..self })
    }

    fn fail<E: Error>(self, wrong: Wrong) -> E {
        *self.found.borrow_mut() = Some(wrong);
        E::custom("")
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let down = self.down().ok_or_else(|| self.fail(Wrong::Deep))?;
        while items.next_element_seed(down)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let down = self.down().ok_or_else(|| self.fail(Wrong::Deep))?;
        let mut keys = BTreeSet::new();
        while let Some(Key(key)) = members.next_key()? {
            if keys.len() == MAX_MEMBERS {
                let why = format!("an object has more than {MAX_MEMBERS} members");
                return Err(self.fail(Wrong::Json(why)));
            }
            if keys.contains(&key) {
                return Err(self.fail(Wrong::Json(format!("duplicate key '{key}'"))));
            }
            keys.insert(key);
            members.next_value_seed(down)?;
        }
        Ok(())
    }
}

/// A key, borrowed from the text unless it has escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members of an object whose text is known to be good.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reading)
    }
}

impl<'a> Object<'a> {
    /// `text` is known to be a good object.
    fn read(path: String, text: &'a str) -> Self {
        let Members(members) = serde_json::from_str(text).unwrap_or(Members(Vec::new()));
        let members = members
            .into_iter()
            .map(|(name, raw)| (name, raw.get()))
            .filter(|(_, raw)| *raw != "null")
            .collect();
        Self { path, members }
    }

    /// An object without members.
    pub(super) fn empty(path: &str) -> Self {
        Self {
            path: path.into(),
            members: Vec::new(),
        }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.into()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// A member, if it is there and not `null`.
    pub(super) fn get(&self, name: &str) -> Option<Field<'a>> {
        let (_, raw) = self.members.iter().find(|(have, _)| have == name)?;
        Some(Field {
            path: self.path_of(name),
            raw,
        })
    }

    /// A member that must be there.
    pub(super) fn need(&self, name: &str) -> Result<Field<'a>, Refused> {
        self.get(name).ok_or_else(|| missing(&self.path_of(name)))
    }

    /// All members in order: their names, and their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Field<'a>)> {
        self.members.iter().map(|(name, raw)| {
            let path = self.path_of(name);
            (&**name, Field { path, raw })
        })
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The members that `other` has and this has not.
    pub(super) fn fill_from(&mut self, other: Self) {
        for (name, raw) in other.members {
            if !self.members.iter().any(|(have, _)| *have == name) {
                self.members.push((name, raw));
            }
        }
    }
}

impl<'a> Field<'a> {
    /// A value whose text [`checked`] has found good.
    pub(super) fn new(path: &str, raw: &'a str) -> Self {
        Self {
            path: path.into(),
            raw,
        }
    }

    /// The value as it stands in the body.
    pub(super) const fn raw(&self) -> &'a str {
        self.raw
    }

    /// Whether a parameter says nothing with this value: `0`, `{}` and the like.
    pub(super) fn is_neutral(&self) -> bool {
        let compact: String = self.raw.chars().filter(|c| !c.is_whitespace()).collect();
        matches!(
            &*compact,
            "0" | "0.0" | "-0" | "-0.0" | "{}" | "[]" | "\"\"" | "false"
        )
    }

    pub(super) fn is_text(&self) -> bool {
        self.raw.starts_with('"')
    }

    pub(super) fn is_list(&self) -> bool {
        self.raw.starts_with('[')
    }

    pub(super) fn is_object(&self) -> bool {
        self.raw.starts_with('{')
    }

    /// The value is of another type.
    pub(super) fn not(&self, expected: &str) -> Refused {
        Refused::new(
            Code::InvalidType,
            format!(
                "Invalid type for '{}': expected {expected}, but got {} instead.",
                self.path,
                kind(self.raw)
            ),
        )
        .at(&*self.path)
    }

    pub(super) fn text(&self) -> Result<Cow<'a, str>, Refused> {
        if !self.is_text() {
            return Err(self.not("a string"));
        }
        // It is known to be a good string: without an escape it is what stands between the quotes.
        if let Some(inner) = self.raw.get(1..self.raw.len() - 1)
            && !inner.contains('\\')
        {
            return Ok(Cow::Borrowed(inner));
        }
        serde_json::from_str(self.raw)
            .map(|Key(text)| text)
            .map_err(|_| self.not("a string"))
    }

    /// A text, of at least one character.
    pub(super) fn words(&self) -> Result<Cow<'a, str>, Refused> {
        let text = self.text()?;
        if text.is_empty() {
            return Err(Refused::new(
                Code::EmptyString,
                format!(
                    "Invalid '{}': empty string. Expected a string with minimum length 1, but got an empty string instead.",
                    self.path
                ),
            )
            .at(&*self.path));
        }
        Ok(text)
    }

    pub(super) fn flag(&self) -> Result<bool, Refused> {
        match self.raw {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.not("a boolean")),
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn integer(&self, least: i64, most: i64) -> Result<i64, Refused> {
        let value = self.raw.parse().map_err(|_| self.not("an integer"))?;
        within(&self.path, value, least, most)?;
        Ok(value)
    }

    /// A number from `least` to `most`, as it is written.
    pub(super) fn decimal(&self, least: i32, most: i32) -> Result<&'a str, Refused> {
        if !is_number(self.raw) {
            return Err(self.not("a number"));
        }
        let value: f64 = self.raw.parse().map_err(|_| self.not("a number"))?;
        let (code, words, sign, bound) = if value < f64::from(least) {
            (Code::DecimalBelowMinValue, "below minimum", ">=", least)
        } else if value > f64::from(most) {
            (Code::DecimalAboveMaxValue, "above maximum", "<=", most)
        } else {
            return Ok(self.raw);
        };
        Err(Refused::new(
            code,
            format!(
                "Invalid '{}': decimal {words} value. Expected a value {sign} {bound}, but got {} instead.",
                self.path, self.raw
            ),
        )
        .at(&*self.path))
    }

    /// The elements of an array of at most `most`; `expected` says what else would have been good.
    pub(super) fn list(&self, most: usize, expected: &str) -> Result<Vec<Self>, Refused> {
        if !self.is_list() {
            return Err(self.not(expected));
        }
        let items: Vec<&'a RawValue> = serde_json::from_str(self.raw).unwrap_or_default();
        if items.len() > most {
            return Err(Refused::new(
                Code::ArrayAboveMaxLength,
                format!(
                    "Invalid '{}': array too long. Expected an array with maximum length {most}, but got an array with length {} instead.",
                    self.path,
                    items.len()
                ),
            )
            .at(&*self.path));
        }
        let numbered = items.into_iter().enumerate();
        Ok(numbered
            .map(|(at, raw)| Self {
                path: format!("{}[{at}]", self.path),
                raw: raw.get(),
            })
            .collect())
    }

    pub(super) fn object(&self) -> Result<Object<'a>, Refused> {
        if !self.is_object() {
            return Err(self.not("an object"));
        }
        Ok(Object::read(self.path.clone(), self.raw))
    }
}

/// Checks that a whole number is within its bounds.
pub(super) fn within(path: &str, value: i64, least: i64, most: i64) -> Result<(), Refused> {
    let (code, words, sign, bound) = if value < least {
        (Code::IntegerBelowMinValue, "below minimum", ">=", least)
    } else if value > most {
        (Code::IntegerAboveMaxValue, "above maximum", "<=", most)
    } else {
        return Ok(());
    };
    Err(Refused::new(
        code,
        format!(
            "Invalid '{path}': integer {words} value. Expected a value {sign} {bound}, but got {value} instead."
        ),
    )
    .at(path))
}

/// A parameter that must be there is not.
pub(super) fn missing(path: &str) -> Refused {
    Refused::new(
        Code::MissingRequiredParameter,
        format!("Missing required parameter: '{path}'."),
    )
    .at(path)
}

/// A value that is not one of a few: those are listed in quotes, the last after `and`.
pub(super) fn not_among(path: &str, value: &str, known: &[&str]) -> Refused {
    let quoted: Vec<String> = known.iter().map(|known| format!("'{known}'")).collect();
    let (last, before) = quoted.split_last().expect("something is supported");
    let list = if before.is_empty() {
        last.clone()
    } else {
        format!("{} and {last}", before.join(", "))
    };
    Refused::new(
        Code::InvalidValue,
        format!("Invalid value: '{value}'. Supported values are: {list}."),
    )
    .at(path)
}

fn is_number(raw: &str) -> bool {
    raw.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// The type of a value, in words.
fn kind(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ if raw.contains(['.', 'e', 'E']) => "a decimal",
        _ if raw.parse::<i64>().is_err() => "an integer of more than 64 bits",
        _ => "an integer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &[u8]) -> (Code, String) {
        let refused = object(body).unwrap_err();
        (refused.code, refused.message)
    }

    #[test]
    fn what_is_not_one_good_object_is_refused() {
        let json = "The request body is not valid JSON: ";
        for (body, why) in [
            (
                &br#"{"a":1,"b":{"model":1,"model":2}}"#[..],
                "duplicate key 'model'.",
            ),
            (br#"{"a":1,"\u0061":2}"#, "duplicate key 'a'."),
            (br#"{"a":"\ud800"}"#, ""),
            (br#"{"a":"\udc00x"}"#, ""),
            (br#"{"a":1} x"#, ""),
            (br#"{"a":1}{}"#, ""),
            (br#"{"a":01}"#, ""),
            (br#"{"a":NaN}"#, ""),
            (b"{\"a\":\"\n\"}", ""),
            (b"{\"a\":\"\xff\"}", "it is not UTF-8."),
            (b"", ""),
            (b"{", ""),
        ] {
            let (code, message) = refusal(body);
            assert_eq!(code, Code::InvalidJson);
            let text = message.strip_prefix(json).unwrap();
            assert!(
                text.ends_with(if why.is_empty() { "." } else { why }),
                "{message}"
            );
        }
        assert_eq!(refusal(br#"{"a":1e400}"#).0, Code::InvalidType);
        assert_eq!(refusal(br#"{"a":[1e400]}"#).0, Code::InvalidType);
        for (body, what) in [
            ("[]", "an array"),
            ("null", "null"),
            ("1", "an integer"),
            ("\"\"", "a string"),
        ] {
            assert_eq!(
                refusal(body.as_bytes()),
                (
                    Code::InvalidJson,
                    format!("The request body must be a JSON object, not {what}.")
                )
            );
        }
    }

    #[test]
    fn nesting_members_and_marks_have_bounds() {
        let nested = |levels: usize| {
            format!(
                "{{\"a\":{}{}}}",
                "[".repeat(levels - 1),
                "]".repeat(levels - 1)
            )
        };
        assert!(object(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(
            refusal(nested(MAX_DEPTH + 1).as_bytes()).1,
            "The request body nests deeper than 64 levels."
        );
        let members = |count: usize| {
            let each: Vec<String> = (0..count).map(|at| format!("\"{at}\":0")).collect();
            format!("{{{}}}", each.join(","))
        };
        assert!(object(members(MAX_MEMBERS).as_bytes()).is_ok());
        assert!(object(members(MAX_MEMBERS + 1).as_bytes()).is_err());
        let marked = object("\u{feff} {\"a\":1,\"b\":null}\n".as_bytes()).unwrap();
        assert_eq!(marked.get("a").unwrap().integer(0, 9).unwrap(), 1);
        assert!(marked.get("b").is_none());
    }

    #[test]
    fn an_integer_is_an_integer() {
        let body =
            br#"{"a":5.0,"b":"5","c":true,"d":9223372036854775808,"e":-3,"f":1e3,"g":[1],"h":{}}"#;
        let all = object(body).unwrap();
        for (name, got) in [
            ("a", "a decimal"),
            ("b", "a string"),
            ("c", "a boolean"),
            ("d", "an integer of more than 64 bits"),
            ("f", "a decimal"),
            ("g", "an array"),
            ("h", "an object"),
        ] {
            let refused = all.get(name).unwrap().integer(0, 9).unwrap_err();
            assert_eq!(
                refused.message,
                format!("Invalid type for '{name}': expected an integer, but got {got} instead.")
            );
        }
        let refused = all.get("e").unwrap().integer(-2, 9).unwrap_err();
        assert_eq!(refused.code, Code::IntegerBelowMinValue);
    }
}
