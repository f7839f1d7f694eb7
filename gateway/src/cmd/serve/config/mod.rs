//! The configuration of `serve` (front-door spec 5): defaults, a file, the environment and flags, the later ones over
//! the earlier. All that is wrong is told at once, and nothing is used of what is wrong.

mod said;
mod schema;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};

use crate::args::{Flag, FrontArgs};
use crate::ui::{self, Failed};
use said::{All, MAX_PROBLEMS, Origin, Problem, Said, Value, shown};
pub(super) use settings::{Dollar, Drain, Ingest, Place, Prices, Settings};

/// A configuration that can be meant, and how each of its values came about.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) settings: Settings,
    /// Settings that can be meant, and probably are not.
    warnings: Vec<Problem>,
    said: std::collections::BTreeMap<Vec<String>, Said>,
}

/// The problems of a configuration.
#[derive(Debug)]
pub(super) struct Problems(Vec<Problem>);

impl Config {
    /// Reads everything anew.
    ///
    /// # Errors
    /// All that is wrong.
    pub(super) fn load(args: &FrontArgs) -> Result<Self, Problems> {
        let environment = |name: &str| std::env::var(name).ok();
        let file = match &args.config {
            None => None,
            Some(path) => match fs::read_to_string(path) {
                Ok(text) => Some((path.display().to_string(), text)),
                Err(error) => {
                    let text = format!("cannot be read: {error}");
                    let origin = Origin::File(path.display().to_string(), 1, 1);
                    return Err(Problems(vec![Problem { origin, text }]));
                }
            },
        };
        let file = file
            .as_ref()
            .map(|(name, text)| (name.as_str(), text.as_str()));
        Self::read(file, &environment, args)
    }

    fn read(
        file: Option<(&str, &str)>,
        environment: &impl Fn(&str) -> Option<String>,
        args: &FrontArgs,
    ) -> Result<Self, Problems> {
        let mut all = All::built_in();
        if let Some((name, text)) = file {
            all.file(name, text, environment);
        }
        all.environment(environment);
        for (path, value, flag) in args.said().map_err(|why| {
            let origin = Origin::Flag("--token");
            Problems(vec![Problem { origin, text: why }])
        })? {
            let path = path.split('.').map(str::to_owned).collect();
            let value = match value {
                Flag::Text(text) => Value::Text(text),
                Flag::List(list) => Value::List(list),
                Flag::On => Value::Flag(true),
                Flag::Number(number) => Value::Number(number),
            };
            all.say(path, value, Origin::Flag(flag));
        }
        let reader = settings::Reader {
            all: &mut all,
            open: args.peers.allow_private,
        };
        let settings = reader.settings();
        if all.problems.is_empty() {
            all.warnings.sort();
            return Ok(Self {
                settings,
                warnings: all.warnings,
                said: all.said,
            });
        }
        all.problems.sort();
        all.problems.dedup();
        Err(Problems(all.problems))
    }

    /// Tells what is probably not meant.
    pub(super) fn tell_warnings(&self) {
        for warning in &self.warnings {
            ui::tell(&format!("warning: {warning}"));
        }
    }

    /// Every value with the place where it was said.
    pub(super) fn with_origins(&self) -> String {
        let mut text = String::new();
        for (path, said) in &self.said {
            let secret = path
                .iter()
                .any(|word| word.ends_with("_headers") || word == "keys" || word.ends_with("_key"));
            let value = if secret {
                "\"…\"".to_owned()
            } else {
                // Strings, lists, numbers and flags are written alike in JSON and in TOML.
                ui::json(&said.value)
            };
            text.push_str(&format!("{} = {value}  # {}\n", shown(path), said.origin));
        }
        text
    }

    /// The keys whose values differ from those of a new configuration, those first that a reload may not change.
    pub(super) fn changes(&self, new: &Self) -> Changes {
        let mut changes = Changes::default();
        let all: std::collections::BTreeSet<_> = self.said.keys().chain(new.said.keys()).collect();
        for path in all {
            let value = |config: &Self| config.said.get(path).map(|said| said.value.clone());
            if value(self) == value(new) {
                continue;
            }
            let list = match schema::row(path) {
                Some(row) if row.live => &mut changes.live,
                _ => &mut changes.fixed,
            };
            list.push(shown(path));
        }
        let named = |key: &String| key.starts_with("prices.");
        if self.settings.prices != new.settings.prices && !changes.live.iter().any(named) {
            // Under the same name the file has others.
            changes.live.push("the prices of prices.file".to_owned());
        }
        changes
    }
}

/// The keys that a reload would change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Keys that need a restart.
    pub(super) fixed: Vec<String>,
    /// Keys that do not.
    pub(super) live: Vec<String>,
}

impl Problems {
    /// The lines to show, at most [`MAX_PROBLEMS`].
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = { self.0.iter().take(MAX_PROBLEMS) }
            .map(Problem::to_string)
            .collect();
        if self.0.len() > MAX_PROBLEMS {
            lines.push(format!("and {} more", self.0.len() - MAX_PROBLEMS));
        }
        lines
    }

    /// Tells all of them, and what follows for the start.
    pub(super) fn into_failed(self, file: Option<&PathBuf>) -> Failed {
        for line in self.lines() {
            ui::tell(&format!("error: {line}"));
        }
        let (count, s) = (self.0.len(), if self.0.len() == 1 { "" } else { "s" });
        let remedy = match file {
            Some(file) => format!(
                "Correct them; serve --config {} --check tells what is left",
                name(file)
            ),
            None => "Correct them; see livepeer-gateway serve --help".to_owned(),
        };
        Failed::invalid(
            format_args!("{count} error{s} in the configuration; nothing was started"),
            remedy,
        )
    }
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
