//! The list of the most to pay for each capability that Go's gateway reads from a file (operations spec 2.2).
//!
//! Go goes on without any limit when such a file is wrong; here the whole of it is refused.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use num_rational::BigRational;
use num_traits::{One as _, Signed as _};

use super::WireError;
use super::json::{Fields, is_number};
use super::runner::decimal;
use crate::currency::{Currency, PriceTag};
use crate::pipeline::Pipeline;

const WHAT: &str = "the list of prices";
/// The model that stands for all others of its pipeline.
const DEFAULT: &str = "default";

/// The most to pay for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPrice {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// The model; `None` for all that have no price of their own.
    pub model: Option<String>,
    /// The price.
    pub price: PriceTag,
}

/// Reads a list. What an entry leaves open, price or units, is as `base` has it; one without a price is left out if there
/// is no `base`. Of equal entries the last one counts.
///
/// # Errors
/// If it is not such a list, or names a pipeline that is not known.
pub fn read_price_list(
    text: &[u8],
    base: Option<&PriceTag>,
) -> Result<Vec<ListedPrice>, WireError> {
    let wrong = |why: String| WireError::new(WHAT, why);
    let entries = Fields::only(text).and_then(|list| list.objects("capabilities_prices"));
    let entries = entries.map_err(wrong)?;
    let entries = entries.ok_or_else(|| wrong("it has no capabilities_prices".into()))?;
    let mut listed = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let price = entry_of(entry, base);
        listed.extend(price.map_err(|why| wrong(format!("entry {}: {why}", at + 1)))?);
    }
    Ok(listed)
}

fn entry_of(entry: &Fields, base: Option<&PriceTag>) -> Result<Option<ListedPrice>, String> {
    let name = entry.text("pipeline")?;
    let pipeline = pipeline(&name).ok_or_else(|| format!("{name:?} is not a pipeline"))?;
    let model = Some(entry.text("model_id")?);
    let model = model.filter(|model| !model.is_empty() && model != DEFAULT);
    let units = number(entry, "pixels_per_unit")?;
    let currency = match entry.text("currency")?.as_str() {
        "" => Currency::Wei,
        name => Currency::from_name(name)
            .ok_or_else(|| format!("the currency {name:?} is not known; use wei, ETH or USD"))?,
    };
    let or_base = || base.map_or_else(BigRational::one, |base| base.per().clone());
    let per = units.clone().unwrap_or_else(or_base);
    let price = match (number(entry, "price_per_unit")?, base) {
        (Some(amount), _) => PriceTag::new(amount, currency, per),
        (None, Some(base)) => base.for_units(per),
        (None, None) => None,
    };
    Ok(price.map(|price| ListedPrice {
        pipeline,
        model,
        price,
    }))
}

/// A number above zero; what is not is as good as absent.
fn number(entry: &Fields, name: &str) -> Result<Option<BigRational>, String> {
    let Some(text) = entry.written(name) else {
        return Ok(None);
    };
    let number = is_number(text).then(|| decimal(text)).flatten();
    let number = number.ok_or_else(|| format!("{name} must be a number, not {text:.40}"))?;
    Ok(Some(number).filter(BigRational::is_positive))
}

/// The pipeline of that name: hyphens or blanks between words, the first letter small or not.
fn pipeline(name: &str) -> Option<Pipeline> {
    let mut name = name.replace(' ', "-");
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    Pipeline::from_name(&name)
}
