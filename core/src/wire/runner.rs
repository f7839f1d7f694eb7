//! Live runners as orchestrators and signers list them (handshake spec 7.2).

use alloc::format;
use alloc::string::{String, ToString};

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive as _};
use serde_json::{Value, json};

use super::error::cut;
use crate::http::Url;
use crate::money::Amount;
use crate::units::Unit;

/// A runner with longer metadata is left out.
pub const MAX_METADATA_BYTES: usize = 1024;

/// How one works with a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A session is reserved first.
    Persistent,
    /// Every request stands for itself.
    SingleShot,
}

impl Mode {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Persistent => "persistent",
            Self::SingleShot => "single-shot",
        }
    }

    /// The mode of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Persistent, Self::SingleShot];
        all.into_iter().find(|mode| mode.name() == name)
    }
}

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// The device, as its host calls it.
    pub id: String,
    /// The model, which is what people choose by.
    pub name: String,
    /// The memory, in megabytes.
    pub vram_mb: u64,
}

impl Gpu {
    /// Reads the object; a bare text is the name. `None` if it is neither.
    pub(super) fn read(json: &Value) -> Option<Self> {
        let cut = |text: &str| cut(text).to_string();
        match json {
            Value::String(name) => Some(Self {
                name: cut(name),
                ..Self::default()
            }),
            Value::Object(of) => Some(Self {
                id: cut(of.get("id").and_then(Value::as_str).unwrap_or_default()),
                name: cut(of.get("name").and_then(Value::as_str).unwrap_or_default()),
                vram_mb: of.get("vram_mb").and_then(Value::as_u64).unwrap_or(0),
            }),
            _ => None,
        }
    }

    /// The object, without what is nothing.
    pub(super) fn to_json(&self) -> Value {
        let mut json = serde_json::Map::new();
        for (name, text) in [("id", &self.id), ("name", &self.name)] {
            if !text.is_empty() {
                json.insert(name.into(), text.as_str().into());
            }
        }
        if self.vram_mb != 0 {
            json.insert("vram_mb".into(), self.vram_mb.into());
        }
        Value::Object(json)
    }
}

/// A live runner of an orchestrator.
#[derive(Clone, Debug, PartialEq)]
pub struct Runner {
    /// Where its work goes.
    pub url: Url,
    /// The model that it runs; `slug/model`, or any name.
    pub app: String,
    /// The version of the runner; may be empty.
    pub version: String,
    /// How one works with it; serverless ones do not say.
    pub mode: Option<Mode>,
    /// How many jobs it takes.
    pub capacity: u32,
    /// How many of these run.
    pub used: u32,
    /// How many more it takes now.
    pub available: u32,
    /// The GPU that it runs on.
    pub gpu: Option<Gpu>,
    /// The runner's own words; for people.
    pub metadata: Option<String>,
    /// The price; `None` off-chain.
    pub price: Option<RunnerPrice>,
}

/// The price of a runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerPrice {
    /// Wei per unit, exactly as written.
    pub wei: Amount,
    /// The unit that the price is for.
    pub unit: Unit,
}

/// Why a runner is left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRunner {
    /// The record is not an object.
    #[error("it is no object")]
    Shape,
    /// The record has no usable URL.
    #[error("it has no usable URL")]
    Url,
    /// The record does not say what the runner runs.
    #[error("it does not say what it runs")]
    App,
    /// The metadata is too long, or broken text.
    #[error("its metadata is longer than {MAX_METADATA_BYTES} bytes, or broken")]
    Metadata,
    /// The price is not in wei.
    #[error("it is not priced in wei")]
    Currency,
    /// The price is for an unknown unit.
    #[error("it is priced for an unknown unit")]
    Unit,
    /// There is no price, or none above zero.
    #[error("it has no price above zero")]
    Price,
    /// The runner costs more than we pay.
    #[error("it costs more than we pay")]
    AboveCeiling,
}

impl Runner {
    /// A runner of which nothing but the address, and what it runs, is known.
    #[must_use]
    pub fn at(url: Url, app: impl Into<String>, mode: Option<Mode>) -> Self {
        Self {
            url,
            app: app.into(),
            version: String::new(),
            mode,
            capacity: 0,
            used: 0,
            available: 0,
            gpu: None,
            metadata: None,
            price: None,
        }
    }

    /// Reads a runner record. A missing price is fine: off-chain runners have none.
    ///
    /// # Errors
    /// Why the record cannot be used.
    pub fn read(json: &Value) -> Result<Self, BadRunner> {
        let of = json.as_object().ok_or(BadRunner::Shape)?;
        let text = |name: &str| of.get(name).and_then(Value::as_str);
        let count = |name: &str| {
            let n = of.get(name).and_then(Value::as_u64).unwrap_or(0);
            u32::try_from(n).unwrap_or(u32::MAX)
        };
        let url = text("url")
            .and_then(|url| Url::parse(url).ok())
            .map(Url::told)
            .ok_or(BadRunner::Url)?;
        let app = text("app").map(str::trim).filter(|app| !app.is_empty());
        let app = app.ok_or(BadRunner::App)?.to_string();
        let words = |name: &str| match of.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        };
        let metadata = words("metadata");
        let broken = |text: &String| text.len() > MAX_METADATA_BYTES || text.contains('\u{fffd}');
        if metadata.as_ref().is_some_and(broken) {
            return Err(BadRunner::Metadata);
        }
        let price = match of.get("price_info") {
            None | Some(Value::Null) => None,
            Some(price) => Some(RunnerPrice::read(price)?),
        };
        Ok(Self {
            url,
            app,
            version: text("version").unwrap_or("").to_string(),
            mode: text("mode").and_then(Mode::from_name),
            capacity: count("capacity"),
            used: count("capacity_used"),
            available: count("capacity_available"),
            gpu: of.get("gpu").and_then(Gpu::read),
            metadata,
            price,
        })
    }

    /// The record, as orchestrators and signers write it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = json!({
            "url": self.url.to_string(),
            "app": self.app,
            "capacity": self.capacity,
            "capacity_used": self.used,
            "capacity_available": self.available,
        });
        let mut set = |name: &str, value: Value| json[name] = value;
        if let Some(mode) = self.mode {
            set("mode", mode.name().into());
        }
        if !self.version.is_empty() {
            set("version", self.version.as_str().into());
        }
        if let Some(gpu) = &self.gpu {
            set("gpu", gpu.to_json());
        }
        if let Some(metadata) = &self.metadata {
            set("metadata", metadata.as_str().into());
        }
        if let Some(price) = &self.price {
            // Only whole wei are listed, and 64 bits hold any price that somebody pays.
            let wei = price.wei.whole_wei().to_u64().unwrap_or(u64::MAX);
            let unit = price.unit.advertised();
            set(
                "price_info",
                json!({"price": wei, "currency": "wei", "unit": unit}),
            );
        }
        json
    }

    /// Whether we pay what it costs: more than nothing, and at most the ceiling.
    ///
    /// # Errors
    /// If it has no price, or one too high.
    pub fn affordable(&self, ceiling: Option<&Amount>) -> Result<(), BadRunner> {
        let price = self.price.as_ref().filter(|price| price.wei.is_positive());
        let price = price.ok_or(BadRunner::Price)?;
        match ceiling {
            Some(ceiling) if price.wei > *ceiling => Err(BadRunner::AboveCeiling),
            _ => Ok(()),
        }
    }
}

impl RunnerPrice {
    fn read(json: &Value) -> Result<Self, BadRunner> {
        let text = |name: &str| json[name].as_str().unwrap_or("").trim();
        if !text("currency").eq_ignore_ascii_case("wei") {
            return Err(BadRunner::Currency);
        }
        let unit = Unit::from_advertised(text("unit")).ok_or(BadRunner::Unit)?;
        let written = match &json["price"] {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            _ => return Err(BadRunner::Price),
        };
        let wei = decimal(&written)
            .filter(Signed::is_positive)
            .ok_or(BadRunner::Price)?;
        Ok(Self {
            wei: Amount::from(wei),
            unit,
        })
    }
}

/// A decimal number, exactly; with at most 100 digits and a small exponent.
pub(super) fn decimal(text: &str) -> Option<BigRational> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if mantissa.len() > 100 || exponent.unsigned_abs() > 100 {
        return None;
    }
    let digits: BigInt = format!("{whole}{part}").parse().ok()?;
    let shift = exponent - i32::try_from(part.len()).ok()?;
    let power = BigInt::from(10).pow(shift.unsigned_abs());
    Some(if shift >= 0 {
        BigRational::from_integer(digits * power)
    } else {
        BigRational::new(digits, power)
    })
}
