//! Properties of all capabilities (handshake spec 16, 1 to 4), and of the two loops (7, 8).

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::Time;
use livepeer_core::capabilities::{Bits, Capabilities, Capability, Model, Version};
use livepeer_core::pool::CUT_OFF;
use proptest::prelude::*;

use crate::reference::search::{Answer, Batches, Next, Race};

fn capability() -> impl Strategy<Value = Capability> {
    (0u32..200).prop_map(|id| Capability::new(id).unwrap())
}

fn bits() -> impl Strategy<Value = Bits> {
    prop_oneof![
        proptest::collection::vec(capability(), 0..8).prop_map(|all| all.into_iter().collect()),
        proptest::collection::vec(any::<u64>(), 0..4).prop_map(|words| Bits::from_words(&words)),
    ]
}

fn version() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => (0u64..3, 0u64..3, 0u64..3).prop_map(|(a, b, c)| format!("{a}.{b}.{c}")),
        1 => "[a-z0-9.+-]{0,8}",
    ]
}

fn model() -> impl Strategy<Value = Model> {
    (any::<bool>(), version()).prop_map(|(warm, version)| Model {
        warm,
        runner_version: version.as_str().into(),
        ..Model::default()
    })
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    let models = proptest::collection::btree_map("[a-c]", model(), 0..3);
    let constraints = proptest::collection::btree_map(
        (30u32..34).prop_map(|id| Capability::new(id).unwrap()),
        models,
        0..3,
    );
    (bits(), constraints, version(), version()).prop_map(
        |(bits, constraints, version, min_version)| Capabilities {
            bits,
            constraints,
            version: version.as_str().into(),
            min_version: min_version.as_str().into(),
            ..Capabilities::default()
        },
    )
}

/// A request made from an offer, so that it often fits.
fn modest(offer: &Capabilities, keep: u64) -> Capabilities {
    let mut asked = offer.clone();
    let words: Vec<u64> = offer.bits.words().iter().map(|word| word & keep).collect();
    asked.bits = Bits::from_words(&words);
    asked.min_version = if keep & 1 == 0 {
        offer.version.clone()
    } else {
        Version::default()
    };
    asked
}

proptest! {
    #[test]
    fn bits_read_back_as_they_were_but_for_trailing_zeros(words in proptest::collection::vec(any::<u64>(), 0..6)) {
        let back: Bits = Bits::from_words(&words).iter().collect();
        let mut trimmed = words;
        while trimmed.last() == Some(&0) {
            trimmed.pop();
        }
        prop_assert_eq!(back.words(), &trimmed[..]);
    }

    #[test]
    fn being_a_subset_is_reflexive_and_transitive(a in bits(), b in bits(), c in bits()) {
        prop_assert!(a.is_subset_of(&a));
        if a.is_subset_of(&b) && b.is_subset_of(&c) {
            prop_assert!(a.is_subset_of(&c));
        }
        let missing = a.without(&b);
        prop_assert!(missing.is_subset_of(&a));
        prop_assert!(missing.iter().all(|capability| !b.contains(capability)));
        if a.is_subset_of(&b) {
            prop_assert!(missing.is_empty());
        }
    }

    #[test]
    fn an_offer_that_grows_never_stops_to_fit(
        offer in capabilities(),
        keep in any::<u64>(),
        other in capabilities(),
        bit in capability(),
        name in "[a-c]",
        newer in 1u64..4,
    ) {
        for asked in [modest(&offer, keep), other] {
            if offer.serve(&asked).is_err() {
                continue;
            }
            let fits = |grown: &Capabilities| grown.serve(&asked).is_ok();
            let mut grown = offer.clone();
            grown.bits.insert(bit);
            prop_assert!(fits(&grown), "a bit more");
            let mut grown = offer.clone();
            for model in grown.constraints.values_mut().flat_map(BTreeMap::values_mut) {
                model.warm = true;
            }
            prop_assert!(fits(&grown), "warmer");
            let mut grown = offer.clone();
            for models in grown.constraints.values_mut() {
                models.entry(name.clone()).or_insert_with(|| Model {
                    warm: true,
                    runner_version: "9.9.9".into(),
                    ..Model::default()
                });
            }
            prop_assert!(fits(&grown), "a model more");
            if let Some([major, minor, patch]) = offer.version.numbers() {
                let mut grown = offer.clone();
                let version = format!("{}.{minor}.{patch}", major + newer);
                grown.version = version.as_str().into();
                prop_assert!(fits(&grown), "newer");
            }
        }
    }

    #[test]
    fn who_asks_for_nothing_is_served_by_everybody(offer in capabilities()) {
        prop_assert!(offer.serve(&Capabilities::default()).is_ok());
    }

    #[test]
    fn a_lower_minimum_is_met_by_whoever_meets_the_higher(
        have in version(),
        (low, high) in (version(), version()),
        suffix in "(-[a-z][a-z0-9]{0,4})?(\\+[a-z0-9]{1,4})?",
    ) {
        let [have, low, high] = [have, low, high].map(|text| Version::from(text.as_str()));
        let (Some(low_numbers), Some(high_numbers), Some(_)) =
            (low.numbers(), high.numbers(), have.numbers())
        else {
            return Ok(());
        };
        if low_numbers <= high_numbers && have.meets(&high).is_ok() {
            prop_assert!(have.meets(&low).is_ok());
        }
        if !have.as_str().contains(['-', '+']) {
            let suffixed = Version::from(format!("{have}{suffix}").as_str());
            prop_assert_eq!(suffixed.meets(&low), have.meets(&low));
        }
    }

    #[test]
    fn capabilities_travel_unchanged(offer in capabilities()) {
        prop_assert_eq!(Capabilities::from_wire(offer.to_wire()).unwrap(), offer);
    }

    #[test]
    fn the_race_ends_in_time_with_nobody_twice_and_suspended_ones_last(
        arrivals in proptest::collection::vec((0u64..9_000, 0u8..4, 0u64..5), 1..20),
        wanted in 0usize..12,
        patience in 1u64..8_000,
    ) {
        let start = Time::from_secs(1);
        let listed: Vec<usize> = (0..arrivals.len()).collect();
        let mut race = Race::new(start, &listed, wanted, 0, Duration::from_millis(patience));
        let mut order: Vec<usize> = listed.clone();
        order.sort_by_key(|at| arrivals[*at].0);
        let mut suspended = Vec::new();
        let mut arrived = 0;
        for at in order {
            let (ms, kind, penalty) = arrivals[at];
            let now = start + Duration::from_millis(ms);
            race.tick(now);
            if race.is_over() {
                break;
            }
            arrived += 1;
            let latency = Duration::from_millis(ms);
            race.answered(now, at, match kind {
                0 => Answer::Bad,
                1 => {
                    suspended.push(at);
                    Answer::Suspended { penalty }
                }
                _ => Answer::Good { latency, nodes: vec![] },
            });
        }
        race.tick(start + CUT_OFF);
        prop_assert!(race.is_over());
        let result = race.result();
        prop_assert!(result.len() <= wanted.min(listed.len()) && result.len() <= arrived);
        let mut once = result.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), result.len());
        let first = result.iter().position(|at| suspended.contains(at)).unwrap_or(result.len());
        prop_assert!(result[first..].iter().all(|at| suspended.contains(at)));
    }

    #[test]
    fn the_cursor_uses_every_success_once_in_order_of_batch_then_completion(
        plan in proptest::collection::vec((0u64..50, any::<bool>()), 0..23),
    ) {
        let mut cursor = Batches::new((0..plan.len()).collect(), 5);
        let (mut used, mut expected, mut rejected) = (Vec::new(), Vec::new(), 0);
        loop {
            match cursor.next() {
                Next::Probe(mut some) => {
                    prop_assert!(some.len() <= 5);
                    some.sort_by_key(|at| plan[*at].0);
                    for at in some {
                        if plan[at].1 { expected.push(at) } else { rejected += 1 }
                        cursor.answered(at, plan[at].1);
                    }
                }
                Next::Use(at) => used.push(at),
                Next::Wait => prop_assert!(false, "everybody answered"),
                Next::Exhausted => break,
            }
        }
        prop_assert_eq!(&used, &expected);
        prop_assert_eq!(used.len() + rejected, plan.len());
    }
}
