//! Programs that serve models which no pipeline of the network does.

use std::collections::BTreeSet;
use std::time::Duration;

use livepeer_core::http::Url;
use livepeer_core::spelling;
use livepeer_core::wire::byoc::request_url;
use livepeer_core::wire::openai::backend::{Backend, Backends, Program, Surface};

use super::super::said::{Origin, Value, shown};
use super::Reader;
use crate::args::values;

/// How long a container may take, unless it is said.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that may be said.
const MOST: Duration = Duration::from_secs(86_400);

impl Reader<'_> {
    pub(super) fn backends(&mut self) -> Backends {
        let names: BTreeSet<String> = { self.all.said.keys() }
            .filter(|path| path.len() > 3 && path[0] == "models" && path[1] == "backend")
            .map(|path| path[2].clone())
            .collect();
        let aliases: Vec<String> = { self.table("models.alias").into_iter() }
            .map(|(alias, _)| alias)
            .collect();
        let mut backends = Backends::new();
        for name in names {
            let one = One::new(&name);
            let at = self.at(&one, &["name"]).map(|(_, origin)| origin);
            let at = at.unwrap_or(Origin::BuiltIn);
            if aliases.contains(&name) {
                let why = "models.alias has the same name; keep one";
                self.wrong(at.clone(), one.path(&["name"]), why);
            }
            if let Some(backend) = self.backend(&one, &at) {
                backends.insert(name, backend);
            }
        }
        backends
    }

    fn backend(&mut self, one: &One<'_>, at: &Origin) -> Option<Backend> {
        let surfaces = self.surfaces(one, at);
        let container = self.at(one, &["byoc", "capability"]);
        let app = self.at(one, &["app", "name"]);
        let (program, kind) = match (container, app) {
            (Some((capability, origin)), None) => {
                if capability.chars().any(char::is_control) {
                    let why = format!("{capability:?} is not the name of a container");
                    self.wrong(origin, one.path(&["byoc", "capability"]), why);
                }
                let within = self.timeout(one);
                (Program::Container { capability, within }, "byoc")
            }
            (None, Some((name, origin))) => {
                let odd =
                    |segment: &str| segment.is_empty() || segment.contains(['*', '?', '#', '%']);
                if name.split('/').any(odd) {
                    let why = format!("{name:?} is not the name of an app, such as \"acme/vllm\"");
                    self.wrong(origin, one.path(&["app", "name"]), why);
                }
                (Program::App { name }, "app")
            }
            (Some(_), Some((_, origin))) => {
                let why = "byoc.capability is set too; keep one";
                self.wrong(origin, one.path(&["app", "name"]), why);
                return None;
            }
            (None, None) => {
                let why = "nobody is named to serve it: set byoc = { capability = \"...\" } or app = { name = \"...\" }";
                self.wrong(at.clone(), one.path(&[]), why);
                return None;
            }
        };
        let path = self.own_path(one, kind, surfaces.len());
        let model = self.at(one, &["model"]).map(|(model, _)| model);
        Some(Backend {
            surfaces,
            program,
            path,
            model,
        })
    }

    fn surfaces(&mut self, one: &One<'_>, at: &Origin) -> Vec<Surface> {
        let path = one.path(&["surfaces"]);
        let mut surfaces = Vec::new();
        let said = self.all.said.get(&one.words(&["surfaces"])).cloned();
        if let Some(said) = &said
            && let Value::List(list) = &said.value
        {
            for word in list {
                match Surface::from_name(word) {
                    Some(surface) if surfaces.contains(&surface) => {}
                    Some(surface) => surfaces.push(surface),
                    None => {
                        let names = Surface::ALL.map(Surface::name);
                        let why = match spelling::nearest(word, names) {
                            Some(near) => format!("did you mean {near}?"),
                            None => format!("they are {}", names.join(", ")),
                        };
                        let text = format!("there is no surface {word:?} ({why})");
                        self.wrong(said.origin.clone(), &path, text);
                        return surfaces;
                    }
                }
            }
        }
        if surfaces.is_empty() {
            let origin = said.map_or_else(|| at.clone(), |said| said.origin);
            let why = "say what it does, as in surfaces = [\"chat\"]";
            self.wrong(origin, path, why);
        }
        surfaces
    }

    fn timeout(&mut self, one: &One<'_>) -> Duration {
        let Some((text, origin)) = self.at(one, &["byoc", "timeout"]) else {
            return TIMEOUT;
        };
        let path = one.path(&["byoc", "timeout"]);
        let read = |text: &str| match values::duration(text) {
            Ok(time) if time.subsec_nanos() == 0 && !time.is_zero() && time <= MOST => Ok(time),
            Ok(_) => Err("it is not whole seconds, from 1s to 24h".to_owned()),
            Err(why) => Err(why.to_string()),
        };
        self.value(&path, &text, origin, read).unwrap_or(TIMEOUT)
    }

    /// The program's own path, if it is not that of the route.
    fn own_path(&mut self, one: &One<'_>, kind: &'static str, surfaces: usize) -> Option<String> {
        let (path, origin) = self.at(one, &[kind, "path"])?;
        let any = Url::parse("https://h").expect("a URL");
        let plain = path
            .strip_prefix('/')
            .filter(|path| request_url(&any, path).is_ok());
        let why = if plain.is_none() {
            format!("{path:?} is not a plain path such as \"/v1/embeddings\"")
        } else if surfaces > 1 {
            "each of its surfaces has a path of its own; leave it out where these are OpenAI's, and else write one backend for each".to_owned()
        } else {
            return Some(path);
        };
        self.wrong(origin, one.path(&[kind, "path"]), why);
        None
    }

    /// A text of a backend, if it is not empty.
    fn at(&self, one: &One<'_>, key: &[&str]) -> Option<(String, Origin)> {
        let said = self.all.said.get(&one.words(key))?;
        match &said.value {
            Value::Text(text) if !text.is_empty() => Some((text.clone(), said.origin.clone())),
            _ => None,
        }
    }
}

/// The place of one backend among the keys.
struct One<'a> {
    name: &'a str,
}

impl<'a> One<'a> {
    const fn new(name: &'a str) -> Self {
        Self { name }
    }

    fn words(&self, key: &[&str]) -> Vec<String> {
        let table = ["models", "backend", self.name];
        table
            .iter()
            .chain(key)
            .map(|word| (*word).to_owned())
            .collect()
    }

    fn path(&self, key: &[&str]) -> String {
        shown(&self.words(key))
    }
}
