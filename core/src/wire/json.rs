//! JSON as Go reads it: keys in any case, numbers as written, text that is not UTF-8 mended.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The members of one JSON object, as written. `null` is an object without members.
pub(crate) struct Fields(Vec<(String, Box<RawValue>)>);

/// At most this many members are accepted: more than any message of this protocol has.
const MAX_MEMBERS: usize = 1_000;

/// Standard base64, padded; the bits that fill up the last digit may be anything.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Appends a text as JSON. Most of most texts has nothing to escape, and is copied in pieces that are looked at as a whole.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    const PIECE: usize = 32;
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    out.reserve(text.len() + 2);
    out.push(b'"');
    for piece in text.as_bytes().chunks(PIECE) {
        if piece.iter().fold(true, |all, byte| all & is_plain(*byte)) {
            out.extend_from_slice(piece);
            continue;
        }
        for byte in piece {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0x08 => out.extend_from_slice(b"\\b"),
                0x0c => out.extend_from_slice(b"\\f"),
                0..b' ' => {
                    let digit = |at: u8| DIGITS[usize::from(at)];
                    let code = [digit(byte >> 4), digit(byte & 15)];
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&code);
                }
                plain => out.push(*plain),
            }
        }
    }
    out.push(b'"');
}

/// Appends a whole number.
pub(super) fn push_number(out: &mut Vec<u8>, number: impl Into<i128>) {
    let number: i128 = number.into();
    out.extend_from_slice(number.to_string().as_bytes());
}

impl Fields {
    /// Reads the first value of `bytes`, and ignores what is behind it: the way of requests, which ask for something.
    pub(crate) fn first(bytes: &[u8]) -> Result<Self, String> {
        let text = mended(bytes);
        let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Option<Self>>();
        match values.next() {
            Some(Ok(fields)) => Ok(fields.unwrap_or(Self(Vec::new()))),
            Some(Err(err)) => Err(alloc::format!("{err}")),
            None => Err("EOF".into()),
        }
    }

    /// Reads `bytes` that are one value and nothing else: the way of answers that grant something.
    pub(crate) fn only(bytes: &[u8]) -> Result<Self, String> {
        let fields: Option<Self> =
            serde_json::from_str(&mended(bytes)).map_err(|err| alloc::format!("{err}"))?;
        Ok(fields.unwrap_or(Self(Vec::new())))
    }

    /// The last member of that name in any case, as it is written.
    pub(super) fn written(&self, name: &str) -> Option<&str> {
        let mut latest = self.0.iter().rev();
        let member = latest.find(|(key, _)| key.eq_ignore_ascii_case(name));
        member.map(|(_, value)| value.get())
    }

    /// The last member of that name in any case, unless it is `null`.
    fn get(&self, name: &str) -> Option<&str> {
        self.written(name).filter(|value| *value != "null")
    }

    fn typed<'a, T: Deserialize<'a>>(
        &'a self,
        name: &str,
        kind: &str,
    ) -> Result<Option<T>, String> {
        self.get(name)
            .map(|value| {
                serde_json::from_str(value).map_err(|_| alloc::format!("{name} must be {kind}"))
            })
            .transpose()
    }

    /// A text; empty if absent.
    pub(crate) fn text(&self, name: &str) -> Result<String, String> {
        self.get(name).map_or_else(
            || Ok(String::new()),
            |value| unquoted(value).ok_or_else(|| alloc::format!("{name} must be a string")),
        )
    }

    /// A whole number written without fraction and exponent; zero if absent.
    pub(crate) fn integer(&self, name: &str) -> Result<i64, String> {
        self.get(name).map_or(Ok(0), |value| {
            value
                .parse()
                .map_err(|_| alloc::format!("{name} must be an integer"))
        })
    }

    /// Padded standard base64, which may be broken into lines, or an array of numbers; `None` if absent.
    pub(crate) fn bytes(&self, name: &str) -> Result<Option<Bytes>, String> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        if value.starts_with('[') {
            let numbers: Option<Vec<Option<u8>>> = self.typed(name, "base64 or bytes")?;
            let bytes = numbers.unwrap_or_default().into_iter();
            return Ok(Some(bytes.map(Option::unwrap_or_default).collect()));
        }
        let mut text = self.text(name)?;
        text.retain(|c| c != '\r' && c != '\n');
        BASE64
            .decode(text)
            .map(|bytes| Some(bytes.into()))
            .map_err(|err| alloc::format!("{name} must be base64: {err}"))
    }

    /// A number as written, or one in quotes; empty if absent.
    pub(crate) fn number(&self, name: &str) -> Result<String, String> {
        let Some(value) = self.get(name) else {
            return Ok(String::new());
        };
        let text = unquoted(value).unwrap_or_else(|| value.into());
        if is_number(&text) {
            Ok(text)
        } else {
            Err(alloc::format!("{name} must be a number"))
        }
    }

    /// Nested objects; `None` if absent.
    pub(super) fn objects(&self, name: &str) -> Result<Option<Vec<Self>>, String> {
        self.typed(name, "a list of objects")
    }

    /// A nested object; `None` if absent.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Self>, String> {
        self.typed(name, "an object")
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Members::<MAX_MEMBERS>::deserialize(deserializer).map(|members| Self(members.0))
    }
}

/// The members of an object, unread and as often as they are there; more than `MOST` are refused.
pub(super) struct Members<const MOST: usize>(pub(super) Vec<(String, Box<RawValue>)>);

impl<'de, const MOST: usize> Deserialize<'de> for Members<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading<const MOST: usize>;
        impl<'de, const MOST: usize> Visitor<'de> for Reading<MOST> {
            type Value = Members<MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    if members.len() == MOST {
                        return Err(serde::de::Error::custom("too many members"));
                    }
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reading)
    }
}

/// Whether a text is a number in JSON's grammar; its value is not looked at.
pub(crate) fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Whether more than `most` brackets of a JSON text are open at once. Texts that are not JSON get an answer too.
pub(crate) fn nests_deeper(text: &str, most: usize) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Text with a replacement character for each byte that is not UTF-8.
pub(super) fn mended(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = core::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    Cow::Owned(text)
}

/// The text of a JSON string, with a replacement character for each half of a pair that is alone; `None` if the value
/// is no string.
pub(super) fn unquoted(value: &str) -> Option<String> {
    let mut rest = value.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(rest.len());
    while let Some((plain, escaped)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut chars = escaped.chars();
        text.push(match chars.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (unit, after) = code_unit(chars.as_str())?;
                chars = after.chars();
                let pair = after.strip_prefix("\\u").and_then(code_unit);
                let pair = pair.and_then(|(low, after)| {
                    let joined = char::decode_utf16([unit, low]).next()?.ok()?;
                    // A unit that stands alone leaves the other one where it is.
                    (joined.len_utf16() == 2).then_some((joined, after))
                });
                match pair {
                    Some((joined, after)) => {
                        chars = after.chars();
                        joined
                    }
                    None => char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER),
                }
            }
            same => same,
        });
        rest = chars.as_str();
    }
    text.push_str(rest);
    Some(text)
}

/// Four hexadecimal digits, and what follows them.
fn code_unit(text: &str) -> Option<(u16, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    Some((u16::from_str_radix(digits, 16).ok()?, rest))
}

/// Appends a JSON string as Go writes it: besides what JSON demands, `<`, `>`, `&` and two line separators are
/// escaped. Signed blobs are compared byte by byte.
pub(crate) fn push_go_string(out: &mut String, text: &str) {
    use core::fmt::Write as _;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes everything");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_member_of_a_name_counts_in_any_case() {
        let fields = Fields::first(br#"{"a":1,"A":2,"b":null} trailing"#).unwrap();
        assert_eq!(fields.integer("a"), Ok(2));
        assert_eq!(fields.integer("b"), Ok(0));
        assert_eq!(fields.integer("c"), Ok(0));
        assert!(Fields::first(b"null").is_ok());
        assert!(Fields::first(b"[]").is_err());
        assert!(Fields::first(b"").is_err());
    }

    #[test]
    fn one_value_and_nothing_else_is_strict() {
        for text in ["{}", " {\"a\":1}\n", "null"] {
            assert!(Fields::only(text.as_bytes()).is_ok(), "{text}");
        }
        for text in [
            "",
            "{} trailing",
            "{}{}",
            "{}]",
            "{},",
            "[]",
            "{",
            "{\"a\":1} 2",
        ] {
            assert!(Fields::only(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_base64_with_line_breaks_or_numbers() {
        let bytes = |value: &str| {
            let text = alloc::format!("{{\"b\":{value}}}");
            Fields::first(text.as_bytes()).unwrap().bytes("b")
        };
        for value in [r#""AQID""#, r#""AQ\r\nID\n""#, "[1,2,3]", "[ 1 , 2,3 ]"] {
            assert_eq!(
                bytes(value),
                Ok(Some(Bytes::from_static(&[1, 2, 3]))),
                "{value}"
            );
        }
        assert_eq!(bytes("[null,255]"), Ok(Some(Bytes::from_static(&[0, 255]))));
        assert_eq!(
            bytes(r#""AR==""#),
            Ok(Some(Bytes::from_static(&[1]))),
            "loose last bits"
        );
        assert_eq!(bytes(r#""""#), Ok(Some(Bytes::new())));
        assert_eq!(bytes("[]"), Ok(Some(Bytes::new())));
        assert_eq!(bytes("null"), Ok(None));
        for value in [
            r#""AQI""#,
            r#""AQ ID""#,
            r#""_-__""#,
            "[256]",
            "[-1]",
            "[1.0]",
            "[\"1\"]",
            "1",
            "{}",
        ] {
            assert!(bytes(value).is_err(), "{value}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_mended_as_go_does() {
        let text = |value: &[u8]| {
            let body = [b"{\"a\":\"", value, b"\"}"].concat();
            Fields::first(&body).unwrap().text("a").unwrap()
        };
        assert_eq!(text(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(text(b"\xe2\x82x"), "\u{fffd}\u{fffd}x", "one for each byte");
        assert_eq!(text(br"\ud83d\ude00"), "\u{1f600}");
        assert_eq!(text(br"\ud83dx\ude00"), "\u{fffd}x\u{fffd}");
        assert_eq!(text(br"\ud83d\u0041"), "\u{fffd}A");
        assert_eq!(
            text(br#"\"\\\/\b\f\n\r\t\u00e9"#),
            "\"\\/\u{8}\u{c}\n\r\t\u{e9}"
        );
        assert!(Fields::first(b"{\"a\":\xff}").is_err());
    }

    #[test]
    fn texts_and_numbers_are_written_as_json() {
        let every: String = (0..0x250).filter_map(char::from_u32).collect();
        let plain = "plain words, longer than a piece of them is: and on it goes";
        for text in ["", plain, "\"", "a\nb", "tab\there", every.as_str()] {
            for around in ["", plain, "x"] {
                let text = alloc::format!("{around}{text}{around}");
                let mut out = Vec::new();
                push_text(&mut out, &text);
                assert_eq!(out, serde_json::to_vec(&text).unwrap());
            }
        }
        let mut out = Vec::new();
        push_number(&mut out, i64::MIN);
        push_number(&mut out, u64::MAX);
        assert_eq!(out, b"-922337203685477580818446744073709551615");
    }

    #[test]
    fn brackets_count_outside_of_texts_only() {
        assert!(nests_deeper("[[[", 2));
        assert!(!nests_deeper("[[]][[]]", 2));
        assert!(!nests_deeper(r#"["[[[\"[[["]"#, 1));
        assert!(nests_deeper(r#"["\\",[]]"#, 1));
        assert!(!nests_deeper("]]]]", 0));
    }

    #[test]
    fn numbers_keep_jsons_grammar_also_in_quotes() {
        let number = |value: &str| {
            let text = alloc::format!("{{\"n\":{value}}}");
            Fields::first(text.as_bytes()).unwrap().number("n")
        };
        for (value, read) in [("1.50", "1.50"), ("\"-2e9\"", "-2e9"), ("null", "")] {
            assert_eq!(number(value).as_deref(), Ok(read));
        }
        for value in [
            "\"\"", "\"x\"", "\"1/3\"", "\" 1\"", "\"1 \"", "\"01\"", "true", "[1]",
        ] {
            assert!(number(value).is_err(), "{value}");
        }
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = String::new();
        push_go_string(&mut out, "a<b>&\"\\\n\u{1}\u{2028}é");
        assert_eq!(out, "\"a\\u003cb\\u003e\\u0026\\\"\\\\\\n\\u0001\\u2028é\"");
    }
}
