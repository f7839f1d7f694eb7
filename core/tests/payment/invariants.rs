//! Invariants of the payments spec (19), for numbers drawn at random.

use std::collections::BTreeMap;
use std::time::Duration;

use livepeer_core::capabilities::Ceilings;
use livepeer_core::error::Broken;
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::guard::Proportion;
use livepeer_core::payment::mint::{Policy, plan};
use livepeer_core::payment::ticket::{certain, expected_value, recipient_rand_hash, wins};
use livepeer_core::payment::{Budget, Meter, Spending, Unit, spending};
use livepeer_core::rng::Rng;
use livepeer_core::store::Record;
use livepeer_core::units::PIXELS_PER_SECOND;
use livepeer_core::wire::signer::PaymentRequest;
use livepeer_core::{ChainView, Effect, Input, Machine as _, Output, Time};
use livepeer_proto::net;
use num_bigint::{BigInt, BigUint};
use num_integer::Integer as _;
use num_rational::BigRational;
use num_traits::{Signed as _, Zero as _};
use proptest::prelude::*;
use prost::Message as _;

use crate::support::*;

const NOW: Time = Time::from_secs(1_790_000_000);

fn wei(n: u64) -> Amount {
    Amount::from(&Wei::from(n))
}

/// A fraction of one of the denominators that amounts have, or of any.
fn fraction() -> impl Strategy<Value = (BigInt, BigInt)> {
    let of_256 = || BigInt::from(certain());
    let known = [
        1.into(),
        6.into(),
        1_000.into(),
        3_600.into(),
        of_256(),
        of_256() * 1_000,
    ];
    let any_other = any::<u128>().prop_map(|n| BigInt::from(n) * u128::MAX + 1);
    let denominator = prop_oneof![3 => prop::sample::select(known.to_vec()), 1 => any_other];
    let numerator = prop_oneof![
        any::<i128>().prop_map(BigInt::from),
        (-9_i64..9).prop_map(BigInt::from)
    ];
    (numerator, denominator)
}

proptest! {
    /// However amounts are kept, they are the numbers that they stand for, and no longer than those or a few prices need.
    #[test]
    fn amounts_are_exact_whatever_they_are_kept_over(
        parts in prop::collection::vec((fraction(), any::<bool>(), 0_u64..9), 1..20),
    ) {
        let (mut ours, mut exact) = (Amount::zero(), BigRational::zero());
        for ((above, below), less, count) in parts {
            let part = Amount::ratio(above.clone(), below.clone()).expect("above nothing");
            let number = BigRational::new(above, below);
            prop_assert_eq!(part.cmp(&ours), number.cmp(&exact));
            prop_assert_eq!(part == ours, number == exact);
            prop_assert_eq!(part.is_positive(), number.is_positive());
            prop_assert_eq!(part.times(count).to_string(), (&number * BigInt::from(count)).to_string());
            if number.is_positive() {
                let rounded = (&exact / &number).ceil().to_integer();
                prop_assert_eq!(ours.div_ceil(&part), rounded);
            }
            if less {
                ours -= &part;
                exact -= &number;
            } else {
                ours = ours + part;
                exact += &number;
            }
            prop_assert_eq!(ours.to_string(), exact.to_string());
            prop_assert_eq!(ours.clone(), Amount::from(exact.clone()));
            prop_assert_eq!(ours.whole_wei(), exact.to_integer());
            let longest = exact.denom().bits().max(512);
            prop_assert!(ours.as_ratio().denom().bits() <= longest, "{:?}", ours.as_ratio());
            prop_assert!(ours.as_ratio().denom().is_multiple_of(exact.denom()));
        }
    }

    /// 19-8: however an interval is cut into readings, the units differ from rate times time by less than one for
    /// the last fraction and a billionth of the rate for each reading.
    #[test]
    fn meters_lose_and_invent_nothing(
        steps in prop::collection::vec(1_u64..20_000_000_000, 1..60),
        fast in any::<bool>(),
    ) {
        let rate = if fast { PIXELS_PER_SECOND } else { 1 };
        let mut meter = Meter::new(NOW, rate, Duration::ZERO);
        let (mut now, mut units) = (NOW, 0_u128);
        for step in &steps {
            now = now + Duration::from_nanos(*step);
            units += u128::from(meter.read(now).expect("an interval of nothing is always over"));
            prop_assert!(meter.billed_until() <= now);
        }
        let total: u64 = steps.iter().sum();
        let exact = u128::from(rate) * u128::from(total);
        let metered = units * 1_000_000_000;
        let slack = 1_000_000_000 + steps.len() as u128 * u128::from(rate);
        prop_assert!(metered <= exact + slack, "{metered} {exact}");
        prop_assert!(metered + slack >= exact, "{metered} {exact}");
    }

    /// 19-15 and the strictness of the comparison.
    #[test]
    fn nothing_never_wins_and_certainty_always_does(rand in any::<[u8; 32]>(), sig in any::<[u8; 32]>()) {
        prop_assert!(!wins(&sig, &rand, &BigUint::ZERO));
        prop_assert!(wins(&sig, &rand, &certain()), "but for one hash in 2^256");
        prop_assert_ne!(recipient_rand_hash(&rand), rand);
    }

    /// 19-11: for equal inputs and clock a signer is a pure function, and the same blob spends the same nonces.
    #[test]
    fn deciding_twice_gives_the_same(price in 1_i64..100, per in 1_i64..10, seconds in 0_u64..100) {
        let quote = net::OrchestratorInfo {
            ticket_params: Some(net::TicketParams {
                recipient: vec![1; 20].into(),
                face_value: vec![1, 0, 0, 0, 0, 0].into(),
                win_prob: vec![0x20; 32].into(),
                recipient_rand_hash: vec![7; 32].into(),
                seed: vec![1].into(),
                expiration_block: vec![8, 0].into(),
                expiration_params: None,
            }),
            price_info: Some(net::PriceInfo {
                price_per_unit: price,
                pixels_per_unit: per,
                ..net::PriceInfo::default()
            }),
            auth_token: Some(net::AuthToken {
                expiration: i64::MAX / 2_000_000_000,
                ..net::AuthToken::default()
            }),
            ..net::OrchestratorInfo::default()
        };
        let request = PaymentRequest {
            orchestrator: Some(quote.encode_to_vec().into()),
            manifest_id: "job".into(),
            job_type: "lv2v".into(),
            ..PaymentRequest::default()
        };
        let key = Key::new(&[7; 32]);
        let decide = || {
            let now = NOW + Duration::from_secs(seconds);
            let chain = ChainView::development();
            let mut rng = Rng::new([1; 32]);
            plan(now, &Policy::new(key.address()), &chain, &mut rng, &request)
        };
        match (decide(), decide()) {
            (Ok(one), Ok(two)) => {
                prop_assert_eq!(one.state.to_json(), two.state.to_json());
                let digests: Vec<_> = one.digests(key.address()).collect();
                prop_assert_eq!(digests, two.digests(key.address()).collect::<Vec<_>>());
                // 19-9: what is minted covers what is billed.
                prop_assert!(one.state.balance >= Amount::zero());
                prop_assert!(one.value >= one.fee.clone() - one.existing);
            }
            (Err(one), Err(two)) => prop_assert_eq!(one, two),
            (one, two) => prop_assert!(false, "{one:?} {two:?}"),
        }
    }

    /// 19-10: equality with a ceiling is accepted, anything above is not, whatever the price's parts.
    #[test]
    fn ceilings_compare_ratios(wei in 1_i64..1_000_000, per in 1_i64..1_000, times in 1_i64..1_000) {
        let price = Price::new(wei, per).expect("a price");
        let same = Price::new(wei * times, per * times).expect("a price");
        let above = Price::new(wei * times + 1, per * times).expect("a price");
        let wanted = livepeer_core::capabilities::Capabilities::default();
        prop_assert!(Ceilings::of(price).allow(&wanted, same).is_ok());
        prop_assert!(Ceilings::of(price).allow(&wanted, above).is_err());
    }

    /// A ticket is worth at most its face value, and nothing only if it cannot win or pays nothing.
    #[test]
    fn tickets_are_worth_a_part_of_their_face_value(face in any::<u64>(), prob in any::<[u8; 32]>()) {
        let prob = BigUint::from_bytes_be(&prob);
        let ev = expected_value(&Wei::from(face), &prob);
        prop_assert!(ev <= wei(face));
        prop_assert_eq!(ev.is_zero(), face == 0 || prob == BigUint::ZERO);
    }

    /// Budgets hold: whatever is spent when, no window of an hour and no job passes its limit. Payments of ten seconds may
    /// count until the last of them is an hour old.
    #[test]
    fn a_budget_holds_over_every_hour(
        payments in prop::collection::vec((prop_oneof![0_u64..1_200, 0_u64..9], 1_u64..50), 1..80),
        limit in 20_u64..200,
    ) {
        let limits = Budget::unlimited().per_hour(wei(limit)).per_job(wei(limit * 3));
        let mut spending = Spending::new(NOW, limits.clone(), Some("spent".into()));
        let mut store: BTreeMap<String, Record> = BTreeMap::new();
        let mut spent: Vec<(Time, u64)> = Vec::new();
        let mut now = NOW;
        for (after, value) in payments {
            now = now + Duration::from_secs(after);
            let hour = Duration::from_secs(3_600);
            let since = |hour| -> u64 { spent.iter().filter(|(at, _)| *at + hour > now).map(|(_, v)| v).sum() };
            let (recent, most) = (since(hour), since(hour + Duration::from_secs(10)));
            let all: u64 = spent.iter().map(|(_, v)| v).sum();
            let budget = spending.budget();
            prop_assert!(budget.spent_in_hour(now) >= wei(recent) && budget.spent_in_hour(now) <= wei(most));
            prop_assert_eq!(budget.spent(), wei(all));
            match spending.take(now, &wei(value), None) {
                Ok(_) => {
                    prop_assert!(recent + value <= limit && all + value <= limit * 3);
                    spent.push((now, value));
                }
                Err(broken) => {
                    prop_assert!(most + value > limit || all + value > limit * 3);
                    let told = matches!(*broken, Broken::Budget { .. });
                    prop_assert!(told);
                }
            }
            let (mut written, mut told) = (0, false);
            loop {
                match spending.poll_output() {
                    Output::Effect(id, Effect::Store(record)) => {
                        written += 1;
                        match record.value {
                            Some(_) => store.insert(record.key.clone(), record),
                            None => store.remove(&record.key),
                        };
                        spending.handle_input(now, Input::Stored(id, Ok(())));
                    }
                    Output::Event(spending::Event::Taken(..)) => told = true,
                    Output::Idle(_) => break,
                    other => panic!("{other:?}"),
                }
            }
            // A portion, what has left the hour, and the portions that left it before.
            prop_assert!(written <= 2 + spent.len() && told == (written > 0));
            prop_assert!(store.len() <= 725);
            let kept: Vec<_> = store.values().cloned().collect();
            let mut again = limits.clone();
            prop_assert!(again.restore("spent", &kept).is_some());
            prop_assert_eq!(again.spent(), spending.budget().spent());
            prop_assert_eq!(again.spent_in_hour(now), spending.budget().spent_in_hour(now));
        }
    }

    /// A signer that asks for as much as each single check allows gains no more than the slack of one payment, plus
    /// the clock's slack for each: what it was paid too much is held against it the next time.
    #[test]
    fn asking_for_a_little_more_each_time_does_not_add_up(
        pauses in prop::collection::vec(5_u64..60, 1..60),
        ev in 1_u64..2_000_000_000,
    ) {
        let price = Price::new(3, 1).expect("a price");
        let unit = Unit::PixelSeconds;
        let mut proportion = Proportion::default();
        let (mut paid, mut due) = (Amount::zero(), Amount::zero());
        let mut elapsed = None;
        for pause in &pauses {
            // The most that passes, found by halving.
            let (mut low, mut high) = (0_u64, u64::MAX / 4);
            let passes = |value: u64| {
                let checked = proportion.check(&wei(value), &wei(ev), unit, None, elapsed, price);
                checked.is_ok()
            };
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if passes(middle) { low = middle } else { high = middle }
            }
            let fee = price.fee(unit.billable(elapsed.unwrap_or_default()));
            proportion.paid(&wei(low), &fee);
            paid += &wei(low);
            due += &fee;
            elapsed = Some(Duration::from_secs(*pause));
        }
        let slack = price.fee(unit.billable(Duration::ZERO)) + wei(3 * ev);
        let clock = price.fee(unit.billable(Duration::from_secs(10 * pauses.len() as u64 + 10)));
        prop_assert!(paid <= due + slack + clock);
    }
}
