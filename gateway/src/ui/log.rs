//! The log on standard error: its level, which may change while the program runs, and its form.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, layer};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::fail::{Failed, Outcome};
use super::output::LogWriter;

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    #[default]
    Text,
    /// A JSON object.
    Json,
}

/// The level, once the log has begun.
static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Reads a level, or a list of `target=level`.
///
/// # Errors
/// If it is neither.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    // The parser of streams warns about every odd packet; the segmenter counts them instead.
    EnvFilter::try_new(format!("mpeg2ts_reader=error,{text}"))
}

/// Begins to log.
///
/// # Errors
/// If the level is none.
pub(crate) fn start(level: &str) -> Outcome {
    let filter = filter(level).map_err(|error| {
        Failed::usage(
            format_args!("--log {level}: {error}; it is a level or a list of target=level"),
            "",
        )
    })?;
    let (filter, handle) = reload::Layer::new(filter);
    let ansi = std::io::stderr().is_terminal();
    let lines = Lines {
        text: Format::default().with_ansi(ansi),
        json: &JSON,
    };
    let lines = layer()
        .with_writer(|| LogWriter)
        .with_ansi(ansi)
        .event_format(lines);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    // It begins once.
    let _ = LEVEL.set(handle);
    Ok(())
}

/// Goes on with another level and in another form.
///
/// # Errors
/// If the level is none.
pub(crate) fn set(level: &str, form: Form) -> Outcome {
    JSON.store(form == Form::Json, Relaxed);
    let unusable = |error: &dyn fmt::Display| {
        Failed::new(
            format_args!("the log stays at its level: {error}"),
            "Correct log.level",
        )
    };
    let filter = filter(level).map_err(|error| unusable(&error))?;
    match LEVEL.get() {
        Some(handle) => handle.reload(filter).map_err(|error| unusable(&error)),
        None => Ok(()),
    }
}

/// Writes lines in either form.
struct Lines {
    text: Format,
    json: &'static AtomicBool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if !self.json.load(Relaxed) {
            return self.text.format_event(context, writer, event);
        }
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Map::new();
        event.record(&mut Fields(&mut line));
        let about = event.metadata();
        let about = [
            ("time", time),
            ("level", about.level().to_string()),
            ("target", about.target().to_owned()),
        ];
        line.extend(about.map(|(key, text)| (key.to_owned(), text.into())));
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// The fields of an event as members of an object.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_json_has_its_fields_as_members() {
        static ALWAYS: AtomicBool = AtomicBool::new(true);
        let written = Written::default();
        let writer = written.clone();
        let lines = Lines {
            text: Format::default(),
            json: &ALWAYS,
        };
        let lines = layer()
            .with_writer(move || writer.clone())
            .event_format(lines);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::info!(id = %"req_\"1\"", status = 200, ms = 1.5, retry = true, "request");
        });
        let text = written.0.lock().expect("no panic").clone();
        let line: Value = serde_json::from_slice(&text).expect("one object");
        assert!(text.ends_with(b"}\n"));
        let is = |key: &str, value: Value| assert_eq!(line[key], value, "{key}");
        is("id", "req_\"1\"".into());
        is("status", 200.into());
        is("ms", 1.5.into());
        is("retry", true.into());
        is("message", "request".into());
        is("level", "INFO".into());
        assert!(
            line["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z'))
        );
    }
}
