//! Values as they were said: by default, in a file, in the environment, or as flags, with the place of each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use livepeer_core::spelling;
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{self, Form, Path, Row};

/// At most this many problems are told at once.
pub(super) const MAX_PROBLEMS: usize = 20;

/// The place where a value was said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    BuiltIn,
    /// File, line and column, both from 1.
    File(String, usize, usize),
    Variable(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("default"),
            Self::File(name, line, column) => write!(f, "{name}:{line}:{column}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value in the form of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Value {
    Text(String),
    List(Vec<String>),
    Flag(bool),
    Number(u64),
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Something that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    pub(super) origin: Origin,
    pub(super) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::BuiltIn => f.write_str(&self.text),
            _ => write!(f, "{}: {}", self.origin, self.text),
        }
    }
}

/// All that was said, of which the last word counts.
#[derive(Clone, Debug, Default)]
pub(super) struct All {
    pub(super) said: BTreeMap<Path, Said>,
    pub(super) problems: Vec<Problem>,
    /// Settings that can be meant, and probably are not.
    pub(super) warnings: Vec<Problem>,
}

/// A path as a configuration writes it.
pub(super) fn shown(path: &[String]) -> String {
    let bare = |word: &String| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !word.is_empty() && word.bytes().all(plain) {
            word.clone()
        } else {
            format!("{word:?}")
        }
    };
    path.iter().map(bare).collect::<Vec<_>>().join(".")
}

impl All {
    /// The settings as they are if nobody says anything.
    pub(super) fn built_in() -> Self {
        let mut all = Self::default();
        for row in schema::ROWS.iter().filter(|row| !row.default.is_empty()) {
            let path = row.path.split('.').map(str::to_owned).collect();
            let value = from_text(row, row.default).expect("defaults have their form");
            all.say(path, value, Origin::BuiltIn);
        }
        all
    }

    pub(super) fn say(&mut self, path: Path, value: Value, origin: Origin) {
        self.said.insert(path, Said { value, origin });
    }

    pub(super) fn wrong(&mut self, origin: Origin, text: String) {
        self.problems.push(Problem { origin, text });
    }

    pub(super) fn warn(&mut self, origin: Origin, text: String) {
        self.warnings.push(Problem { origin, text });
    }

    /// Takes what a file says. `name` is how it is called in messages.
    pub(super) fn file(
        &mut self,
        name: &str,
        text: &str,
        environment: &impl Fn(&str) -> Option<String>,
    ) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let file = File {
            name,
            text,
            environment,
        };
        for error in errors {
            let origin = file.origin(error.span().unwrap_or(0..0));
            let words: Vec<&str> = error.message().lines().map(str::trim).collect();
            self.wrong(origin, words.join(", "));
        }
        file.read(self, &mut Vec::new(), table.get_ref());
    }

    /// Takes what the environment says.
    pub(super) fn environment(&mut self, environment: &impl Fn(&str) -> Option<String>) {
        for row in schema::ROWS {
            let Some((name, text)) =
                schema::variable(row).and_then(|name| environment(&name).map(|text| (name, text)))
            else {
                continue;
            };
            let path: Path = row.path.split('.').map(str::to_owned).collect();
            match from_text(row, &text) {
                Ok(value) => self.say(path, value, Origin::Variable(name)),
                Err(why) => self.wrong(Origin::Variable(name), why),
            }
        }
    }
}

/// A value from text, as the environment has it; lists have commas.
pub(super) fn from_text(row: &Row, text: &str) -> Result<Value, String> {
    Ok(match row.form {
        Form::Text => Value::Text(text.to_owned()),
        Form::List => {
            let parts = text.split(',').map(str::trim);
            Value::List(
                parts
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect(),
            )
        }
        Form::Flag => Value::Flag(
            text.parse()
                .map_err(|_| format!("{text:?} is neither true nor false"))?,
        ),
        Form::Number => Value::Number(
            text.parse()
                .map_err(|_| format!("{text:?} is not a whole number"))?,
        ),
    })
}

struct File<'a, E> {
    name: &'a str,
    text: &'a str,
    environment: &'a E,
}

impl<E: Fn(&str) -> Option<String>> File<'_, E> {
    fn origin(&self, span: Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |line| line.chars().count())
            + 1;
        Origin::File(self.name.to_owned(), line, column)
    }

    fn read(&self, all: &mut All, path: &mut Path, table: &DeTable<'_>) {
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            let at = self.origin(key.span());
            if let Some(later) = schema::later(path) {
                let what = if matches!(value.get_ref(), DeValue::Table(_)) {
                    "table"
                } else {
                    "key"
                };
                all.wrong(
                    at,
                    format!(
                        "the {what} `{}` belongs to {later}, which serve does not have yet; leave it out",
                        shown(path)
                    ),
                );
            } else if *path == schema::NAMED {
                self.named(all, path, value);
            } else if let Some(row) = schema::row(path) {
                match self.value(row.form, value) {
                    Ok(value) => all.say(path.clone(), value, self.origin(value_span(key, table))),
                    Err((span, why)) => {
                        all.wrong(self.origin(span), format!("{}: {why}", shown(path)));
                    }
                }
            } else if schema::is_table(path) {
                match value.get_ref() {
                    DeValue::Table(table) => self.read(all, path, table),
                    other => {
                        let why = format!("a table belongs here, not {}", kind(other));
                        all.wrong(self.origin(value.span()), format!("{}: {why}", shown(path)));
                    }
                }
            } else {
                all.wrong(at, unknown(path));
            }
            path.pop();
        }
    }

    /// Reads a list of tables, each of which has a name.
    fn named(&self, all: &mut All, path: &mut Path, list: &Spanned<DeValue<'_>>) {
        let place = shown(path);
        let DeValue::Array(tables) = list.get_ref() else {
            let text = format!("{place}: write each one as a table of its own under [[{place}]]");
            return all.wrong(self.origin(list.span()), text);
        };
        let mut names = BTreeSet::new();
        for one in tables {
            let DeValue::Table(table) = one.get_ref() else {
                let why = format!("a table belongs here, not {}", kind(one.get_ref()));
                all.wrong(self.origin(one.span()), format!("{place}: {why}"));
                continue;
            };
            let name = match table.get("name").map(|name| self.value(Form::Text, name)) {
                Some(Ok(Value::Text(name))) if !name.is_empty() => name,
                Some(Err((span, why))) => {
                    all.wrong(self.origin(span), format!("{place}.name: {why}"));
                    continue;
                }
                _ => {
                    let why =
                        "it has no name: say what clients call the model, as in name = \"bge-m3\"";
                    all.wrong(self.origin(one.span()), format!("{place}: {why}"));
                    continue;
                }
            };
            if !names.insert(name.clone()) {
                let why = format!("two are called {name:?}; clients could not tell them apart");
                all.wrong(self.origin(one.span()), format!("{place}: {why}"));
                continue;
            }
            path.push(name);
            self.read(all, path, table);
            path.pop();
        }
    }

    fn value(
        &self,
        form: Form,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Value, (Range<usize>, String)> {
        let wrong = |what: &str| {
            let why = format!("{what} belongs here, not {}", kind(value.get_ref()));
            Err((value.span(), why))
        };
        let text = |text: &str, span: Range<usize>| self.filled(text).map_err(|why| (span, why));
        match (form, value.get_ref()) {
            (Form::Text, DeValue::String(said)) => Ok(Value::Text(text(said, value.span())?)),
            (Form::Text, DeValue::Integer(said)) => Ok(Value::Text(said.as_str().to_owned())),
            (Form::Flag, DeValue::Boolean(said)) => Ok(Value::Flag(*said)),
            (Form::Number, DeValue::Integer(said)) => {
                match u64::from_str_radix(&said.as_str().replace('_', ""), said.radix()) {
                    Ok(number) => Ok(Value::Number(number)),
                    Err(_) => Err((
                        value.span(),
                        format!("{} is not a number from 0 on", said.as_str()),
                    )),
                }
            }
            (Form::List, DeValue::Array(said)) => {
                let mut list = Vec::new();
                for one in said {
                    match one.get_ref() {
                        DeValue::String(said) => list.push(text(said, one.span())?),
                        other => {
                            let why = format!("a string belongs in the list, not {}", kind(other));
                            return Err((one.span(), why));
                        }
                    }
                }
                Ok(Value::List(list))
            }
            (Form::Text, _) => wrong("a string"),
            (Form::Flag, _) => wrong("true or false"),
            (Form::Number, _) => wrong("a whole number"),
            (Form::List, _) => wrong("a list of strings"),
        }
    }

    /// The text with `${NAME}` replaced from the environment.
    fn filled(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| format!("{text:?} has a `${{` without its `}}`"))?;
            let value = (self.environment)(name)
                .ok_or_else(|| format!("the variable {name} is not set"))?;
            filled.push_str(before);
            filled.push_str(&value);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// The place of a value among its table's.
fn value_span(key: &Spanned<toml::de::DeString<'_>>, table: &DeTable<'_>) -> Range<usize> {
    table
        .get(key.get_ref().as_ref())
        .map_or(key.span(), Spanned::span)
}

fn unknown(path: &[String]) -> String {
    let (key, table) = path.split_last().expect("a key has a name");
    let place = if table.is_empty() {
        String::new()
    } else {
        format!(" in [{}]", shown(table))
    };
    let known = if table.is_empty() {
        let mut tables: Vec<&str> = schema::ROWS
            .iter()
            .filter_map(|row| row.path.split('.').next())
            .collect();
        tables.dedup();
        tables
    } else {
        schema::siblings(table)
    };
    match spelling::nearest(key, known) {
        Some(near) => format!("unknown key `{key}`{place} (did you mean `{near}`?)"),
        None => format!("unknown key `{key}`{place}"),
    }
}

fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(flag) => format!("{flag}"),
        DeValue::Datetime(time) => format!("the time {time}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
