//! Names that are close to one that does not exist: a typo is told with its remedy.

use alloc::vec::Vec;
use core::mem::swap;

/// The longest name for which others are looked for.
const MAX_BYTES: usize = 256;

/// The edits that turn one name into the other, counted up to the most that still make them near: a third of the
/// length, and at least one. `None` beyond that.
#[must_use]
pub fn edits(asked: &str, name: &str) -> Option<usize> {
    let most = (asked.len() / 3).max(1);
    if asked.len() > MAX_BYTES || asked.len().abs_diff(name.len()) > most {
        return None;
    }
    let name: Vec<char> = name.chars().collect();
    let mut before: Vec<usize> = (0..=name.len()).collect();
    let mut row = before.clone();
    for (at, c) in asked.chars().enumerate() {
        row[0] = at + 1;
        for (to, other) in name.iter().enumerate() {
            let changed = before[to] + usize::from(c != *other);
            row[to + 1] = changed.min(before[to + 1] + 1).min(row[to] + 1);
        }
        swap(&mut before, &mut row);
    }
    before.last().copied().filter(|edits| *edits <= most)
}

/// The name that is nearest, if one is near; the first of several.
#[must_use]
pub fn nearest<'a>(asked: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .filter_map(|name| Some((edits(asked, name)?, name)))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_near_and_another_word_is_not() {
        let keys = ["order", "only", "ignore", "sort", "max_price"];
        assert_eq!(nearest("oder", keys), Some("order"));
        assert_eq!(nearest("ordr", keys), Some("order"));
        assert_eq!(nearest("max_prise", keys), Some("max_price"));
        assert_eq!(nearest("foo", keys), None);
        assert_eq!(nearest("", keys), None);
        assert_eq!(edits("same", "same"), Some(0));
    }
}
