//! The log: from which level on, and in which form.

use super::Reader;
use crate::ui::log;

/// Settings of the log.
#[derive(Clone, Debug)]
pub(in crate::cmd::serve) struct Log {
    /// A level, or a list of `target=level`.
    pub(in crate::cmd::serve) level: String,
    pub(in crate::cmd::serve) form: log::Form,
    /// Whether each request is logged.
    pub(in crate::cmd::serve) access: bool,
}

impl Reader<'_> {
    pub(super) fn log(&mut self) -> Log {
        Log {
            level: {
                self.read("log.level", |text| {
                    log::filter(text).map(|_| text.to_owned())
                })
            }
            .unwrap_or_default(),
            form: self
                .read("log.format", |text| match text {
                    "text" => Ok(log::Form::Text),
                    "json" => Ok(log::Form::Json),
                    _ => Err("it is neither text nor json"),
                })
                .unwrap_or_default(),
            access: self.flag("log.access"),
        }
    }
}
