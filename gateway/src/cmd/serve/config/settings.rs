//! The settings of `serve`, from what was said.

mod apps;
mod backends;
mod doors;
mod ingest;
mod log;
mod pools;
mod prices;
mod sources;
mod warnings;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use livepeer_core::discovery::Choice;
use livepeer_core::front::route::Page;
use livepeer_core::front::{self, LiveRoutes, Network, Origins, Transparency};
use livepeer_core::http::Url;
use livepeer_core::money::Amount;
use livepeer_core::pipeline::Pipeline;
use livepeer_core::prefer::{Limits, Named};
use livepeer_core::wire::ethereum::{CHAIN_ID, CONTROLLER};
use livepeer_core::wire::openai::{PerModel, Settings as OpenAi};
use livepeer_core::wire::preferences;

pub(in crate::cmd::serve) use self::ingest::Ingest;
use super::said::{All, Origin, Said, Value, shown};
use crate::args::values::{self, Header};
use crate::args::{ChainArgs, Endpoints, KeyArgs, Runtime, Signer};
pub(in crate::cmd::serve) use doors::{Doors, Place};
pub(in crate::cmd::serve) use log::Log;
pub(in crate::cmd::serve) use pools::Pools;
pub(in crate::cmd::serve) use prices::{Dollar, Prices};

/// The sides of a picture, in pixels.
const SIDES: std::ops::RangeInclusive<u32> = 64..=4096;
const SIDE_STEP: u32 = 8;

/// How long work may go on after no new work is taken any more.
#[derive(Clone, Copy, Debug)]
pub(in crate::cmd::serve) struct Drain {
    /// Requests and their answers.
    pub(in crate::cmd::serve) work: Duration,
    /// Live streams.
    pub(in crate::cmd::serve) live: Duration,
}

/// Settings that can be meant.
#[derive(Debug)]
pub(in crate::cmd::serve) struct Settings {
    pub(in crate::cmd::serve) doors: Doors,
    pub(in crate::cmd::serve) runtime: Runtime,
    pub(in crate::cmd::serve) threads: Option<NonZeroUsize>,
    pub(in crate::cmd::serve) drain: Drain,
    /// Settings of the front door, those for OpenAI's routes included.
    pub(in crate::cmd::serve) front: front::Config,
    pub(in crate::cmd::serve) endpoints: Endpoints,
    /// Orchestrators that are asked for apps; all that are found if there are none.
    pub(in crate::cmd::serve) runners: Vec<Url>,
    /// The sources that are asked for orchestrators.
    pub(in crate::cmd::serve) sources: Choice,
    pub(in crate::cmd::serve) key: KeyArgs,
    pub(in crate::cmd::serve) chain: ChainArgs,
    /// The most that all work may spend in any sixty minutes.
    pub(in crate::cmd::serve) max_spend_per_hour: Option<Amount>,
    pub(in crate::cmd::serve) pins: Option<PathBuf>,
    pub(in crate::cmd::serve) ca_trust: bool,
    /// Orchestrators that may work for anybody.
    pub(in crate::cmd::serve) limits: Limits,
    pub(in crate::cmd::serve) prices: Prices,
    /// The source of the price of a dollar.
    pub(in crate::cmd::serve) dollar: Dollar,
    pub(in crate::cmd::serve) pools: Pools,
    /// How often everybody is asked for models.
    pub(in crate::cmd::serve) refresh: Duration,
    /// Further names of models.
    pub(in crate::cmd::serve) aliases: BTreeMap<String, (Pipeline, String)>,
    pub(in crate::cmd::serve) store: Option<PathBuf>,
    /// The folder of results; memory if there is none.
    pub(in crate::cmd::serve) objects: Option<PathBuf>,
    pub(in crate::cmd::serve) log: Log,
    pub(in crate::cmd::serve) ingest: Ingest,
}

/// Reads what was said, and notes what cannot be meant.
pub(super) struct Reader<'a> {
    pub(super) all: &'a mut All,
    /// Whether peers may be at private addresses.
    pub(super) open: bool,
}

impl Reader<'_> {
    fn said(&self, path: &str) -> Option<Said> {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        self.all.said.get(&path).cloned()
    }

    fn wrong(&mut self, origin: Origin, path: impl Display, why: impl Display) {
        self.all.wrong(origin, format!("{path}: {why}"));
    }

    fn warn(&mut self, origin: Origin, path: impl Display, why: impl Display) {
        self.all.warn(origin, format!("{path}: {why}"));
    }

    /// The values of a table whose keys are free, by key.
    fn table(&self, path: &str) -> Vec<(String, Said)> {
        let table: Vec<&str> = path.split('.').collect();
        let within = |path: &[String]| {
            path.len() == table.len() + 1
                && path.iter().zip(&table).all(|(said, word)| said == word)
        };
        let all = self.all.said.iter().filter(|(path, _)| within(path));
        all.map(|(path, said)| (path[table.len()].clone(), said.clone()))
            .collect()
    }

    /// A text, empty ones included.
    fn raw(&self, path: &str) -> Option<(String, Origin)> {
        match self.said(path)? {
            Said {
                value: Value::Text(text),
                origin,
            } => Some((text, origin)),
            _ => None,
        }
    }

    fn text(&self, path: &str) -> Option<(String, Origin)> {
        self.raw(path).filter(|(text, _)| !text.is_empty())
    }

    fn flag(&self, path: &str) -> bool {
        matches!(
            self.said(path),
            Some(Said {
                value: Value::Flag(true),
                ..
            })
        )
    }

    fn list(&self, path: &str) -> Vec<(String, Origin)> {
        match self.said(path) {
            Some(Said {
                value: Value::List(list),
                origin,
            }) => list
                .into_iter()
                .map(|text| (text, origin.clone()))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn number(&mut self, path: &str, within: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let said = self.said(path)?;
        let Value::Number(number) = said.value else {
            return None;
        };
        if within.contains(&number) {
            return Some(number);
        }
        let (least, most) = within.into_inner();
        self.wrong(
            said.origin,
            path,
            format_args!("{number} is not from {least} to {most}"),
        );
        None
    }

    /// A text that is read by a function.
    fn read<T, E: Display>(
        &mut self,
        path: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (text, origin) = self.text(path)?;
        self.value(path, &text, origin, read)
    }

    fn value<T, E: Display>(
        &mut self,
        path: &str,
        text: &str,
        origin: Origin,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        read(text)
            .map_err(|why| self.wrong(origin, path, format_args!("{text:?}: {why}")))
            .ok()
    }

    fn items<T, E: Display>(&mut self, path: &str, read: impl Fn(&str) -> Result<T, E>) -> Vec<T> {
        let list = self.list(path);
        let read = list
            .into_iter()
            .filter_map(|(text, origin)| self.value(path, &text, origin, &read));
        read.collect()
    }

    fn time(&mut self, path: &str) -> Duration {
        self.read(path, values::duration).unwrap_or_default()
    }

    fn path(&self, path: &str) -> Option<PathBuf> {
        self.text(path).map(|(text, _)| text.into())
    }

    fn own(&self, url: Url) -> Url {
        if self.open { url.opened() } else { url }
    }

    /// All settings. They can be used if no problem was noted.
    pub(super) fn settings(mut self) -> Settings {
        let objects = self.objects();
        let limits = self.limits();
        let pools = self.pools();
        let dollar = self.dollar();
        let mut front = self.front(objects.is_some());
        if let Dollar::Fixed(wei) = &dollar {
            front.settings.terms.wei_per_usd = Some(wei.clone());
        }
        let ingest = self.ingest(front.public_url.as_deref());
        front.live = ingest.routes(&pools.pipelines);
        if front.live == LiveRoutes::All {
            front.pages.push(Page::Watch);
        }
        let (endpoints, chain) = (self.endpoints(), self.chain());
        let runners = self.items("orchestrators.runners", values::required_orchestrator);
        let settings = Settings {
            doors: self.doors(),
            runtime: self
                .read("serve.runtime", |text| match text {
                    "tokio" => Ok(Runtime::Tokio),
                    "smol" => Ok(Runtime::Smol),
                    _ => Err("it is neither tokio nor smol"),
                })
                .unwrap_or_default(),
            threads: { self.number("serve.threads", 1..=1024) }
                .and_then(|threads| NonZeroUsize::new(usize::try_from(threads).ok()?)),
            drain: Drain {
                work: self.time("serve.drain"),
                live: self.time("serve.drain_live"),
            },
            front,
            runners: runners.into_iter().map(|url| self.own(url)).collect(),
            sources: self.sources(&endpoints, &chain),
            endpoints,
            key: KeyArgs {
                keystore: self.path("payer.keystore"),
                password_file: self.path("payer.password_file"),
                key_file: self.path("payer.key_file"),
            },
            chain,
            max_spend_per_hour: self.read("payer.max_spend_per_hour", values::amount),
            pins: self.path("orchestrators.pins"),
            ca_trust: {
                self.read("orchestrators.trust", |text| match text {
                    "pin" => Ok(false),
                    "ca" => Ok(true),
                    _ => Err("it is neither pin nor ca"),
                })
            }
            .unwrap_or_default(),
            limits,
            prices: self.prices(&dollar),
            dollar,
            pools,
            refresh: self.refresh(),
            aliases: self.aliases(),
            store: self.path("store.path"),
            objects,
            log: self.log(),
            ingest,
        };
        self.payer(&settings);
        self.doubts(&settings);
        settings
    }

    fn front(&mut self, folder: bool) -> front::Config {
        let max_tokens = |reader: &mut Self, path: &str| {
            reader
                .number(path, 1..=u32::MAX.into())
                .and_then(|n| u32::try_from(n).ok())
        };
        let defaults = OpenAi::default();
        let mut openai = OpenAi {
            max_tokens: max_tokens(self, "defaults.max_tokens").unwrap_or(defaults.max_tokens),
            most_tokens: max_tokens(self, "limits.max_tokens").unwrap_or(defaults.most_tokens),
            size: self.read("defaults.size", size).unwrap_or(defaults.size),
            substitute_wav: self.flag("audio.substitute_wav"),
            refuse_nsfw: self
                .read("images.nsfw", |text| match text {
                    "flag" => Ok(false),
                    "refuse" => Ok(true),
                    _ => Err("it is neither flag nor refuse"),
                })
                .unwrap_or_default(),
            ..defaults
        };
        for (name, said) in self.table("audio.voices") {
            if let Value::Text(voice) = said.value {
                openai.voices.insert(name, voice);
            }
        }
        openai.per_model = self.per_model();
        openai.backends = self.backends();
        openai.terms.names = self.names();
        if openai.max_tokens > openai.most_tokens {
            let origin = self
                .said("defaults.max_tokens")
                .map_or(Origin::BuiltIn, |said| said.origin);
            let why = format!(
                "{} is more than limits.max_tokens allows",
                openai.max_tokens
            );
            self.wrong(origin, "defaults.max_tokens", why);
        }
        front::Config {
            public_url: self.read("serve.public_url", |text| {
                let url = values::peer(text)?;
                if url.path() == "/" {
                    Ok(text.trim_end_matches('/').to_owned())
                } else {
                    Err("a path is not supported: scheme, host and port alone".to_owned())
                }
            }),
            trusted_proxies: self.items("serve.trusted_proxies", network),
            cors: Origins::of(
                self.list("serve.cors")
                    .into_iter()
                    .map(|(text, _)| text)
                    .collect(),
            ),
            transparency: self
                .read("transparency.headers", |text| match text {
                    "full" => Ok(Transparency::Full),
                    "cost" => Ok(Transparency::Cost),
                    "none" => Ok(Transparency::None),
                    _ => Err("it is neither full, cost nor none"),
                })
                .unwrap_or_default(),
            server_timing: self.flag("transparency.server_timing"),
            figures_per_model: self.flag("metrics.per_model"),
            pages: vec![Page::Health, Page::OpenApi],
            containers: true,
            apps: self.apps(),
            app_idle: self.time("apps.idle"),
            done_on_native: self.flag("sse.done_on_native"),
            early_head: self.time("sse.early_head"),
            keep_alive: self.time("sse.keep_alive"),
            stream_silence: self.time("limits.stream_silence"),
            write_stall: self.time("limits.write_stall"),
            // Two attempts, and the time to choose: a silent orchestrator does not use up the caller's patience.
            answer: self.time("limits.answer"),
            drain_grace: self.time("serve.drain_grace"),
            max_in_flight: { self.number("limits.inflight", 1..=1_000_000) }
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(1),
            keep: self.time("images.keep"),
            folder,
            settings: openai,
            ..front::Config::default()
        }
    }

    fn refresh(&mut self) -> Duration {
        let read = self.read("orchestrators.refresh", |text| {
            match values::duration(text) {
                Ok(every) if every < Duration::from_secs(1) => Err("at least 1s".to_owned()),
                Ok(every) => Ok(every),
                Err(why) => Err(why.to_string()),
            }
        });
        read.unwrap_or_default()
    }

    fn per_model(&mut self) -> BTreeMap<String, PerModel> {
        let mut models: BTreeMap<String, PerModel> = BTreeMap::new();
        let all: Vec<_> = { self.all.said.iter() }
            .filter(|(path, _)| path.len() == 4 && path[0] == "models" && path[1] == "set")
            .map(|(path, said)| (path.clone(), said.clone()))
            .collect();
        for (path, said) in all {
            let model = models.entry(path[2].clone()).or_default();
            match (path[3].as_str(), said.value) {
                ("max_tokens", Value::Number(tokens)) => match u32::try_from(tokens) {
                    Ok(tokens) if tokens > 0 => model.max_tokens = Some(tokens),
                    _ => self.wrong(
                        said.origin,
                        shown(&path),
                        format_args!("{tokens} is out of range"),
                    ),
                },
                ("size", Value::Text(text)) => {
                    model.size = self.value(&shown(&path), &text, said.origin, size);
                }
                ("hidden", Value::Flag(hidden)) => model.hidden = hidden,
                _ => {}
            }
        }
        models
    }

    fn names(&mut self) -> BTreeMap<String, Named> {
        let mut names = BTreeMap::new();
        for (name, said) in self.table("orchestrators.names") {
            if let Value::Text(text) = said.value {
                let path = format!("orchestrators.names.{name}");
                let named = self.value(&path, &text, said.origin, |text| {
                    preferences::name(text, &OpenAi::default().terms)
                        .ok_or("it names no orchestrator")
                });
                names.extend(named.map(|named| (name, named)));
            }
        }
        names
    }

    fn limits(&mut self) -> Limits {
        let mut terms = OpenAi::default().terms;
        terms.names = self.names();
        let named = |text: &str| preferences::name(text, &terms).ok_or("it names no orchestrator");
        let only = self.items("orchestrators.only", named);
        Limits {
            only: (!only.is_empty()).then_some(only),
            ignore: self.items("orchestrators.block", named),
            ..Limits::default()
        }
    }

    fn headers(&mut self, path: &str) -> Vec<Header> {
        let mut headers = Vec::new();
        for (name, said) in self.table(path) {
            if let Value::Text(value) = said.value {
                // The value is usually a secret.
                match Header::new(&name, &value) {
                    Ok(header) => headers.push(header),
                    Err(why) => self.wrong(said.origin, format_args!("{path}.{name}"), why),
                }
            }
        }
        headers
    }

    fn endpoints(&mut self) -> Endpoints {
        let orchestrators = self.items("orchestrators.list", values::required_orchestrator);
        let mut seen = std::collections::BTreeSet::new();
        let orchestrators = { orchestrators.into_iter() }
            .filter(|url| seen.insert(url.clone()))
            .map(|url| self.own(url))
            .collect();
        let discovery = self.read("orchestrators.discovery", values::peer);
        let discovery_headers = self.headers("orchestrators.discovery_headers");
        let signers = self.items("payer.signers", values::peer);
        let headers = self.headers("payer.signer_headers");
        let mut signers = signers.into_iter().map(|url| self.own(url));
        let signer = signers.next().map(|url| Signer {
            url,
            others: signers.collect(),
            headers,
        });
        Endpoints {
            orchestrators,
            discovery: discovery.map(|url| (self.own(url), discovery_headers)),
            signer,
        }
    }

    fn chain(&mut self) -> ChainArgs {
        ChainArgs {
            rpc: self.items("chain.rpc", values::peer),
            chain_id: self
                .number("chain.chain_id", 1..=u64::MAX)
                .unwrap_or(CHAIN_ID),
            controller: self
                .read("chain.controller", str::parse)
                .unwrap_or(CONTROLLER),
            static_chain: self.flag("chain.static"),
        }
    }

    /// Sees to it that exactly one pays.
    fn payer(&mut self, settings: &Settings) {
        let keys = [
            "payer.signers",
            "payer.keystore",
            "payer.key_file",
            "payer.offchain",
        ];
        let set: Vec<(&str, Origin)> = { keys.into_iter() }
            .filter_map(|key| self.said(key).map(|said| (key, said)))
            .filter(|(_, said)| match &said.value {
                Value::List(list) => !list.is_empty(),
                Value::Text(text) => !text.is_empty(),
                Value::Flag(flag) => *flag,
                Value::Number(_) => true,
            })
            .map(|(key, said)| (key.trim_start_matches("payer."), said.origin))
            .collect();
        match &set[..] {
            [] => self.wrong(
                Origin::BuiltIn,
                "payer",
                "nobody is named to pay: set one of signers, keystore and key_file, or offchain if nobody is to",
            ),
            [_] => {}
            [(one, at), .., (other, also)] => {
                let both = if set.len() == 2 { "both " } else { "" };
                let why = format!("{both}{one} ({at}) and {other} ({also}) are set; keep one");
                self.wrong(Origin::BuiltIn, "payer", why);
            }
        }
        let own_key = settings.key.keystore.is_some() || settings.key.key_file.is_some();
        if own_key && settings.store.is_none() {
            let why = "an own key spends its nonces once and for all: say where to keep them";
            self.wrong(Origin::BuiltIn, "store.path", why);
        }
        let no_chain = settings.chain.rpc.is_empty() && !settings.chain.static_chain;
        if own_key && no_chain && self.list("chain.rpc").is_empty() {
            let why = "an own key has to know the chain: name an endpoint, or set chain.static for development";
            self.wrong(Origin::BuiltIn, "chain.rpc", why);
        }
    }

    fn aliases(&mut self) -> BTreeMap<String, (Pipeline, String)> {
        let table = self.table("models.alias");
        let mut aliases = BTreeMap::new();
        for (name, said) in &table {
            let Value::Text(text) = &said.value else {
                continue;
            };
            let path = format!("models.alias.{}", shown(std::slice::from_ref(name)));
            let target = self.value(&path, text, said.origin.clone(), |text| {
                if table.iter().any(|(alias, _)| alias == text) {
                    return Err("it is an alias itself; name the model".to_owned());
                }
                pipeline_model(text)
            });
            aliases.extend(target.map(|target| (name.clone(), target)));
        }
        aliases
    }

    fn objects(&mut self) -> Option<PathBuf> {
        self.read("store.objects", |text| match text.split_once(':') {
            None if text == "memory" => Ok(None),
            Some(("dir", folder)) if !folder.is_empty() => Ok(Some(PathBuf::from(folder))),
            Some(("s3", _)) => Err("it is not supported yet; use memory or dir:/path"),
            _ => Err("it is neither memory nor dir:/path"),
        })
        .flatten()
    }
}

fn pipeline(text: &str) -> Result<Pipeline, String> {
    Pipeline::from_name(text).ok_or_else(|| {
        let names = Pipeline::ALL.iter().map(|one| one.name());
        match livepeer_core::spelling::nearest(text, names) {
            Some(near) => format!("there is no pipeline of that name (did you mean {near}?)"),
            None => "there is no pipeline of that name".to_owned(),
        }
    })
}

/// A pipeline and a model, as in `llm/meta-llama/Meta-Llama-3.1-8B-Instruct`.
fn pipeline_model(text: &str) -> Result<(Pipeline, String), String> {
    let (name, model) = text.split_once('/').ok_or(
        "it is not a pipeline and a model, such as llm/meta-llama/Meta-Llama-3.1-8B-Instruct",
    )?;
    Ok((pipeline(name)?, values::model(model)?))
}

/// A width and a height.
fn size(text: &str) -> Result<(u32, u32), &'static str> {
    let side = |text: &str| {
        let pixels: u32 = text.parse().ok()?;
        (SIDES.contains(&pixels) && pixels.is_multiple_of(SIDE_STEP)).then_some(pixels)
    };
    text.split_once('x')
        .and_then(|(width, height)| Some((side(width)?, side(height)?)))
        .ok_or("it is not <width>x<height> in multiples of 8 from 64 to 4096")
}

fn network(text: &str) -> Result<Network, &'static str> {
    const WRONG: &str = "it is not a network such as 10.0.0.0/8";
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| WRONG)?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => prefix.parse().map_err(|_| WRONG)?,
        None => whole,
    };
    Network::new(address, prefix).ok_or(WRONG)
}
