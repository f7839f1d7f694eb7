//! `GET /v1/models` (front-door spec 1.3).

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::Settings;
use super::backend::Backend;
use crate::models::{Alias, Model, Models};
use crate::wire::refused::Refused;

/// Writes the list: models by id, then those of backends, then aliases. Hidden ones are left out. Backends have been there
/// since that Unix second.
#[must_use]
pub fn list(models: &Models, settings: &Settings, since: u64) -> Bytes {
    let hidden = |id: &str| settings.per_model.get(id).is_some_and(|of| of.hidden);
    let known = models
        .iter()
        .filter(|(id, _)| !hidden(id))
        .map(|(id, model)| entry(id, model));
    let backends = { settings.backends.iter() }
        .filter(|(id, _)| !hidden(id))
        .map(|(name, backend)| backend_entry(name, backend, since));
    let aliases = models
        .aliases()
        .map(|(name, alias)| alias_entry(name, alias));
    let data: Vec<Value> = known.chain(backends).chain(aliases).collect();
    format!("{}", json!({"object": "list", "data": data})).into()
}

/// Writes the entry of one model, one that a backend serves, or an alias.
///
/// # Errors
/// If there is none of that id.
pub fn one(id: &str, models: &Models, settings: &Settings, since: u64) -> Result<Bytes, Refused> {
    let known = models.get(id).map(|model| entry(id, model));
    let backend = || {
        let backend = settings.backends.get(id)?;
        Some(backend_entry(id, backend, since))
    };
    let alias = || {
        let (name, alias) = models.aliases().find(|(name, _)| *name == id)?;
        Some(alias_entry(name, alias))
    };
    let entry = known
        .or_else(backend)
        .or_else(alias)
        .ok_or_else(|| super::not_served(id, crate::models::NotServed::Unknown, None, models))?;
    Ok(format!("{entry}").into())
}

/// The value of `ETag` for a body.
#[must_use]
pub fn etag(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    format!("\"{}\"", hex::encode(&digest[..16]))
}

/// Whether a client's `If-None-Match` says that it has that body already.
#[must_use]
pub fn is_known(if_none_match: &str, etag: &str) -> bool {
    if_none_match
        .split(',')
        .map(|known| known.trim())
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

fn entry(id: &str, model: &Model) -> Value {
    let owner = id.split_once('/').map_or("livepeer", |(owner, _)| owner);
    let pipelines: Vec<&str> = model
        .offers
        .keys()
        .map(|pipeline| pipeline.name())
        .collect();
    let prices: Map<String, Value> = model
        .offers
        .iter()
        .filter_map(|(pipeline, offer)| {
            let price = offer.price.as_ref()?;
            let unit = pipeline.work_unit().name();
            let price = json!({"wei_per_unit": price.to_string(), "unit": unit});
            Some((pipeline.name().into(), price))
        })
        .collect();
    json!({
        "id": id,
        "object": "model",
        "created": model.since,
        "owned_by": owner,
        "pipelines": pipelines,
        "warm": model.offers.values().any(|offer| offer.warm),
        "prices": prices,
    })
}

fn backend_entry(name: &str, backend: &Backend, since: u64) -> Value {
    let surfaces: Vec<&str> = backend.surfaces.iter().map(|one| one.name()).collect();
    json!({
        "id": name,
        "object": "model",
        "created": since,
        "owned_by": backend.program.kind(),
        "surfaces": surfaces,
    })
}

fn alias_entry(name: &str, alias: &Alias) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": alias.since,
        "owned_by": "alias",
        "alias_of": format!("{}/{}", alias.pipeline, alias.model),
    })
}
