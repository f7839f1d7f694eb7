//! Sums: balances, prices, units, quotes and what a payer makes of them.

use std::time::Duration;

use livepeer_core::chain::{ChainView, SenderInfo};
use livepeer_core::currency::Feed;
use livepeer_core::money::{Amount, Price, Wei};
use livepeer_core::payment::byoc::tickets_for_cost;
use livepeer_core::payment::ledger::{AccountId, Balances, Completion, SenderBalance, min_credit};
use livepeer_core::payment::price::{at_most_doubled, auto_adjusted, runner_price, to_thousandths};
use livepeer_core::payment::quote::{Bound, Economics, max_float, reserve_alloc};
use livepeer_core::payment::sender::{SenderLimits, check_params};
use livepeer_core::payment::ticket::{expected_value, pad32, recipient_rand_hash};
use livepeer_core::payment::{Meter, Secret, Unit};
use livepeer_core::sign::Address;
use livepeer_core::time::Time;
use livepeer_core::units::{Rendition, estimated_fee, estimated_pixels};
use livepeer_core::wire::TicketParams;
use livepeer_core::wire::byoc::{JobRequest, Scheme, Sender, SignedBy};
use livepeer_core::wire::signer::MaxPrice;
use num_bigint::BigInt;
use num_rational::BigRational;
use serde_json::Value;

use crate::support::*;

#[test]
fn a_payers_credit_is_staged_and_completed_to_the_wei() {
    let file = file("balance.json");
    lists(&file, &["cases_stage", "cases_cycle"]);
    each(&file, "cases_stage", 9, |name, case| {
        let mut balance = SenderBalance::new(amount(&case["existing"]));
        // Where the balance suffices the value of a ticket does not matter.
        let ev = case["ev"].is_string().then(|| amount(&case["ev"]));
        let staged = balance.stage(&amount(&case["min_credit"]), &ev.unwrap_or_default());
        assert_eq!(staged.tickets, small(&case["num_tickets"]), "{name}");
        assert_eq!(staged.new_credit, amount(&case["new_credit"]), "{name}");
        assert_eq!(staged.existing, amount(&case["reserved"]), "{name}");
        let after = amount(&case["balance_after_reserve"]);
        assert_eq!(*balance.amount(), after, "{name}");
        balance.complete(staged, Completion::NotSent);
        assert_eq!(*balance.amount(), amount(&case["existing"]), "{name}");
    });
    each(&file, "cases_cycle", 6, |name, case| {
        let mut balance = SenderBalance::new(amount(&case["existing"]));
        let (fee, ev) = (amount(&case["fee"]), amount(&case["ev"]));
        let wanted = min_credit(&fee, &ev);
        assert_eq!(wanted, amount(&case["safe_min_credit"]), "{name}");
        let staged = balance.stage(&wanted, &ev);
        assert_eq!(staged.tickets, small(&case["num_tickets"]), "{name}");
        assert_eq!(staged.new_credit, amount(&case["new_credit"]), "{name}");
        let how = match text(&case["status"]) {
            "received_change" => Completion::Debited(amount(&case["debit"])),
            "staged" => Completion::NotSent,
            "credit_spent" => Completion::Spent,
            other => panic!("nobody tests {other}"),
        };
        balance.complete(staged, how);
        assert_eq!(*balance.amount(), amount(&case["final_balance"]), "{name}");
    });
}

#[test]
fn meters_count_every_unit_once_and_debit_only_what_is_there() {
    let file = file("metering.json");
    lists(&file, &["cases", "cases_account"]);
    each(&file, "cases", 5, |name, case| {
        let skips = name.starts_with("interval_5s");
        let interval = Duration::from_secs(if skips { 5 } else { 0 });
        let start = Time::from_secs(1_000);
        let mut meter = Meter::new(start, small(&case["units_per_second"]), interval);
        for step in case["steps"].as_array().unwrap() {
            let at = start + Duration::from_nanos(small(&step["at_ns"]));
            let units = meter.read(at);
            if step["skipped"] == true {
                assert_eq!(units, None, "{name}");
            } else {
                assert_eq!(units, Some(small(&step["units"])), "{name}");
                let billed = meter.billed_until().since(start).as_nanos();
                assert_eq!(
                    billed,
                    u128::from(small(&step["last_processed_ns"])),
                    "{name}"
                );
            }
        }
    });
    each(&file, "cases_account", 4, |name, case| {
        let now = Time::from_secs(1);
        let id = AccountId {
            sender: Address([1; 20]),
            session: "job".into(),
        };
        let mut balances = Balances::new(now, Duration::from_secs(600));
        if case["balance"].is_string() {
            balances
                .credit(now, &id, &amount(&case["balance"]))
                .unwrap();
        }
        let debited = balances.debit_covered(now, &id, &amount(&case["fee"]));
        assert_eq!(debited.is_ok(), case["ok"], "{name}");
        let after = case["balance_after"]
            .is_string()
            .then(|| amount(&case["balance_after"]));
        assert_eq!(balances.read(&id), after.as_ref(), "{name}");
    });
}

/// A price's ratio as the wire's pair.
fn price(value: &Value) -> Price {
    livepeer_core::payment::price::to_price(&ratio(value)).expect("it fits the wire")
}

fn nanos(value: &Value) -> Duration {
    // A negative interval is a clock that stepped back; such clocks show none at all.
    Duration::from_nanos(u64::try_from(value.as_i64().unwrap()).unwrap_or(0))
}

#[test]
fn prices_are_converted_adjusted_and_limited_as_by_the_reference() {
    let file = file("prices.json");
    lists(
        &file,
        &[
            "cases_currency",
            "cases_runner_price",
            "cases_price_to_fixed",
            "cases_auto_adjust",
            "cases_fee",
            "cases_billable_units",
            "cases_estimate_fee",
            "cases_max_price",
            "cases_doubling_guard",
        ],
    );
    each(&file, "cases_currency", 4, |name, case| {
        let quoted = ratio(&case["feed_price"]);
        let feed = match text(&case["feed_base"]) {
            "ETH" => Feed::UsdPerEth(quoted),
            _ => Feed::EthPerUsd(quoted),
        };
        let wei = feed.wei(&ratio(&case["price"])).unwrap();
        assert_eq!(wei, amount(&case["wei"]), "{name}");
        assert_eq!(wei.whole_wei(), int(&case["wei_int64_floor"]), "{name}");
    });
    each(&file, "cases_runner_price", 4, |name, case| {
        let unit = Unit::from_advertised(text(&case["advertised_unit"])).unwrap();
        let feed = Feed::UsdPerEth(BigRational::from_integer(int(&case["eth_usd"])));
        let wei = feed.wei(&ratio(&case["usd"])).unwrap();
        let expected = case["price_wei"]
            .as_i64()
            .map(|wei| Price::new(wei, 1).unwrap());
        assert_eq!(runner_price(&wei, unit), expected, "{name}");
    });
    each(&file, "cases_price_to_fixed", 6, |name, case| {
        let fixed = to_thousandths(&ratio(&case["price"]));
        assert_eq!(Some(fixed), case["fixed_1000"].as_i64(), "{name}");
        let back = BigRational::new(fixed.into(), 1000.into());
        assert_eq!(back, ratio(&case["back"]), "{name}");
    });
    each(&file, "cases_auto_adjust", 10, |name, case| {
        let multiplier = ratio(&case["tx_cost_multiplier"]);
        let advertised = auto_adjusted(&ratio(&case["base_price"]), &multiplier);
        assert_eq!(advertised, ratio(&case["advertised"]), "{name}");
    });
    each(&file, "cases_fee", 5, |name, case| {
        let wei = case["price_per_unit"].as_i64().unwrap();
        let per = case["pixels_per_unit"].as_i64().unwrap();
        let fee = Price::new(wei, per).unwrap().fee(small(&case["units"]));
        assert_eq!(fee, amount(&case["fee"]), "{name}");
    });
    each(&file, "cases_billable_units", 9, |name, case| {
        let elapsed = nanos(&case["elapsed_ns"]);
        for (unit, key) in [
            (Unit::PixelSeconds, "lv2v_pixels"),
            (Unit::Seconds, "live_seconds"),
            (Unit::Fixed, "fixed_units"),
        ] {
            assert_eq!(unit.billable(elapsed), small(&case[key]), "{name} {key}");
        }
    });
    each(&file, "cases_estimate_fee", 6, |name, case| {
        let renditions: Vec<Rendition> = case["profiles"]
            .as_array()
            .unwrap()
            .iter()
            .map(|profile| {
                let field = |key: &str| u32::try_from(small(&profile[key])).unwrap();
                Rendition {
                    width: field("width"),
                    height: field("height"),
                    framerate: field("framerate"),
                    framerate_den: field("framerate_den"),
                }
            })
            .collect();
        let duration = Duration::from_secs_f64(case["duration_s"].as_f64().unwrap());
        let pixels = estimated_pixels(&renditions, duration);
        assert_eq!(pixels, int(&case["pixels"]), "{name}");
        let fee = estimated_fee(&renditions, duration, &price(&case["price"]));
        assert_eq!(fee, amount(&case["fee"]), "{name}");
    });
    each(&file, "cases_max_price", 12, |name, case| {
        let max = MaxPrice {
            price: text(&case["price"]).into(),
            currency: text(&case["currency"]).into(),
            unit: text(&case["unit"]).into(),
        };
        match max.parse(Unit::from_signer_type(text(&case["type"]))) {
            Ok(read) => assert_eq!(read, ratio(&case["rational"]), "{name}"),
            Err(err) => assert_eq!(err.to_string(), text(&case["error"]), "{name}"),
        }
    });
    each(&file, "cases_doubling_guard", 3, |name, case| {
        let ok = at_most_doubled(&price(&case["initial"]), &price(&case["current"]));
        assert_eq!(ok, case["ok"], "{name}");
    });
}

#[test]
fn price_ceilings_that_would_fill_memory_are_no_numbers() {
    for text in [
        "1e101",
        "1e-101",
        "1e999999999999",
        "0x10",
        "1/3",
        "01",
        "+1",
        ".5",
        "",
        " 1",
        "NaN",
        &"9".repeat(200),
    ] {
        let max = MaxPrice::new(text, Unit::Fixed);
        assert!(max.parse(Some(Unit::Fixed)).is_err(), "{text}");
    }
}

#[test]
fn a_recipient_offers_tickets_that_pay_off() {
    let file = file("recipient_params.json");
    lists(
        &file,
        &[
            "cases_ev",
            "cases_win_prob",
            "cases_face_value",
            "cases_max_float",
        ],
    );
    each(&file, "cases_ev", 6, |name, case| {
        let ev = expected_value(&wei(&case["face_value"]), &uint(&case["win_prob"]));
        assert_eq!(ev, amount(&case["ev"]), "{name}");
        if let Some(rounded) = case.get("ev_rounded") {
            assert_eq!(ev.as_ratio().round().to_integer(), int(rounded), "{name}");
        }
        if let Some(target) = case.get("target_ev") {
            let reached = ev >= Amount::from(&wei(target));
            assert_eq!(reached, case["ev_ge_target"], "{name}");
        }
    });
    each(&file, "cases_win_prob", 6, |name, case| {
        let economics = Economics {
            ticket_ev: wei(&case["target_ev"]),
            ..Economics::default()
        };
        let prob = economics.win_prob(&wei(&case["face_value"]));
        assert_eq!(prob, uint(&case["win_prob"]), "{name}");
    });
    each(&file, "cases_face_value", 13, |name, case| {
        let economics = Economics {
            ticket_ev: wei(&case["target_ev"]),
            redeem_gas: small(&case["redeem_gas"]),
            tx_cost_multiplier: small(&case["tx_cost_multiplier"]),
            max_face_value: wei(&case["max_face_value"]),
        };
        let gas_price = wei(&case["gas_price"]);
        match economics.face_value(&gas_price, &int(&case["max_float"])) {
            Ok(face) => {
                assert_eq!(face, wei(&case["face_value"]), "{name}");
                assert_eq!(economics.win_prob(&face), uint(&case["win_prob"]), "{name}");
                let multiplier = economics.effective_multiplier(&gas_price, &face);
                assert_eq!(
                    multiplier,
                    ratio(&case["effective_tx_cost_multiplier"]),
                    "{name}"
                );
            }
            Err(err) => assert_eq!(err.to_string(), text(&case["error"]), "{name}"),
        }
    });
    each(&file, "cases_max_float", 8, |name, case| {
        let info = SenderInfo {
            deposit: wei(&case["deposit"]),
            reserve_remaining: wei(&case["reserve_remaining"]),
            reserve_claimed: wei(&case["reserve_claimed_in_round"]),
            claimed_by_us: wei(&case["claimed_by_recipient"]),
            pending: wei(&case["pending"]),
            ..SenderInfo::default()
        };
        let pool = small(&case["pool_size"]);
        assert_eq!(
            reserve_alloc(&info, pool),
            int(&case["reserve_alloc"]),
            "{name}"
        );
        assert_eq!(max_float(&info, pool), int(&case["max_float"]), "{name}");
    });
}

#[test]
fn a_commitment_binds_the_whole_quote() {
    let file = file("recipient_rand.json");
    lists(&file, &["cases", "cases_hash"]);
    each(&file, "cases", 6, |name, case| {
        let (seed, hash) = (
            wei(&case["seed"]),
            bytes32(&case["creation_round_block_hash"]),
        );
        let (face_value, win_prob) = (wei(&case["face_value"]), uint(&case["win_prob"]));
        let expiration_block = uint(&case["expiration_block"]);
        let secret = Secret(bytes32(&case["secret"]));
        let seed = seed.to_be_bytes();
        let bound = Bound {
            seed: &seed,
            sender: address(&case["sender"]),
            face_value: &face_value,
            win_prob: &win_prob,
            expiration_block: &expiration_block,
            price: price(&case["price"]),
            creation_round: case["creation_round"].as_i64().unwrap(),
            creation_round_block_hash: &hash,
        };
        let rand = bound.recipient_rand(&secret);
        assert_eq!(rand, pad32(&uint(&case["recipient_rand"])), "{name}");
        assert_eq!(
            recipient_rand_hash(&rand),
            bytes32(&case["recipient_rand_hash"]),
            "{name}"
        );

        // A seed with leading zeros and an unreduced price are the same; anything else is not.
        let padded = pad32(&uint(&case["seed"]));
        let same = Bound {
            seed: &padded,
            ..bound
        };
        assert_eq!(same.recipient_rand(&secret), rand, "{name}");
        let twice = Price::new(bound.price.wei() * 2, bound.price.per() * 2).unwrap();
        let same = Bound {
            price: twice,
            ..bound
        };
        assert_eq!(same.recipient_rand(&secret), rand, "{name}");

        let (other_wei, other_block) = (Wei::from(7), 77_u32.into());
        let other_price = Price::new(bound.price.wei() + 1, bound.price.per()).unwrap();
        for changed in [
            Bound {
                seed: &[9],
                ..bound
            },
            Bound {
                sender: Address([9; 20]),
                ..bound
            },
            Bound {
                face_value: &other_wei,
                ..bound
            },
            Bound {
                win_prob: &other_block,
                ..bound
            },
            Bound {
                expiration_block: &other_block,
                ..bound
            },
            Bound {
                price: other_price,
                ..bound
            },
            Bound {
                creation_round: bound.creation_round + 1,
                ..bound
            },
            Bound {
                creation_round_block_hash: &[9; 32],
                ..bound
            },
        ] {
            assert_ne!(changed.recipient_rand(&secret), rand, "{name}");
        }
    });
    each(&file, "cases_hash", 6, |name, case| {
        let rand = pad32(&uint(&case["recipient_rand"]));
        assert_eq!(
            recipient_rand_hash(&rand),
            bytes32(&case["recipient_rand_hash"]),
            "{name}"
        );
    });
}

#[test]
fn a_payer_checks_quotes_in_the_references_order() {
    let file = file("sender_validation.json");
    lists(&file, &["cases"]);
    let me = Address([1; 20]);
    each(&file, "cases", 18, |name, case| {
        let params = TicketParams {
            recipient: Address([2; 20]),
            face_value: wei(&case["face_value"]),
            win_prob: uint(&case["win_prob"]),
            recipient_rand_hash: [3; 32],
            seed: Vec::new().into(),
            expiration_block: uint(&case["expiration_block"]),
            creation_round: 1,
            creation_round_block_hash: [4; 32],
        };
        let info = SenderInfo {
            deposit: wei(&case["deposit"]),
            reserve_remaining: wei(&case["reserve_remaining"]),
            withdraw_round: small(&case["withdraw_round"]),
            ..SenderInfo::default()
        };
        let mut chain = ChainView {
            l1_block: text(&case["last_seen_l1_block"]).parse().unwrap(),
            round: small(&case["last_initialized_round"]),
            ..ChainView::default()
        };
        chain.senders.insert(me, info);
        let limits = SenderLimits {
            max_ev: amount(&case["max_ev"]),
            max_total_ev: amount(&case["max_total_ev"]),
            deposit_multiplier: small(&case["deposit_multiplier"]),
        };
        let count = small(&case["num_tickets"]);
        match check_params(Some(&params), count, &limits, &chain, me) {
            Ok(()) => assert!(case["error"].is_null(), "{name}"),
            Err(err) => {
                assert_eq!(err.to_string(), text(&case["error"]), "{name}");
                let class = match err {
                    livepeer_core::payment::sender::BadParams::Expired => "expired",
                    _ if err.is_payers() => "sender",
                    _ => "other",
                };
                assert_eq!(class, text(&case["error_class"]), "{name}");
            }
        }
        assert!(check_params(None, count, &limits, &chain, me).is_err());
    });
}

#[test]
fn an_absurd_expiry_is_a_number_and_no_overflow() {
    let limits = SenderLimits::default();
    let chain = ChainView::development();
    let params = TicketParams {
        recipient: Address([2; 20]),
        face_value: Wei::zero(),
        win_prob: 0_u32.into(),
        recipient_rand_hash: [3; 32],
        seed: Vec::new().into(),
        expiration_block: livepeer_core::payment::ticket::certain(),
        creation_round: 1,
        creation_round_block_hash: [4; 32],
    };
    check_params(Some(&params), 1, &limits, &chain, Address([1; 20])).unwrap();
}

#[test]
fn containers_are_paid_by_the_second_with_at_most_six_hundred_tickets() {
    let file = file("byoc.json");
    lists(&file, &["cases_ticket_count", "cases_signature"]);
    each(&file, "cases_ticket_count", 10, |name, case| {
        let tickets = tickets_for_cost(&amount(&case["cost"]), &amount(&case["ev"]));
        assert_eq!(tickets, small(&case["tickets"]), "{name}");
    });
    each(&file, "cases_signature", 2, |name, case| match name {
        "job_request" => {
            let key = Key::new(&bytes(&case["private_key"]));
            assert_eq!(key.address(), address(&case["sender"]));
            let job = JobRequest {
                request: text(&case["request"]).into(),
                parameters: text(&case["parameters"]).into(),
                ..JobRequest::default()
            };
            let digest = job.digest(Scheme::Texts);
            assert_eq!(key.sign(digest).0.to_vec(), bytes(&case["sig"]));
        }
        "token_request_header" => {
            let json = &case["json"];
            let signature = bytes(&json["sig"]).try_into().unwrap();
            let sender = Sender(Some(SignedBy {
                sender: address(&json["addr"]),
                signature: livepeer_core::Signature(signature),
            }));
            assert_eq!(sender.to_header(), text(&case["value"]));
            assert_eq!(Sender::from_header(text(&case["value"])), Ok(sender));
        }
        other => panic!("nobody tests {other}"),
    });
}

#[test]
fn a_balance_that_nobody_touches_is_swept_with_what_is_on_it() {
    let ttl = Duration::from_secs(600);
    let start = Time::from_secs(1_000);
    let id = AccountId {
        sender: Address([1; 20]),
        session: "job".into(),
    };
    let mut balances = Balances::new(start, ttl);
    let one = Amount::from(&Wei::from(1));
    balances
        .credit(start + Duration::from_secs(1), &id, &one)
        .unwrap();
    // Taking everything out is not activity.
    assert_eq!(balances.reserve(&id), one);
    balances.sweep(start + ttl);
    assert!(
        balances.read(&id).is_some(),
        "it lives at least as long as its time to live"
    );
    balances.sweep(start + ttl * 2);
    assert!(balances.read(&id).is_none(), "and at most twice as long");
}

#[test]
fn a_price_is_fixed_once() {
    let now = Time::from_secs(1);
    let id = AccountId {
        sender: Address([1; 20]),
        session: "job".into(),
    };
    let mut balances = Balances::new(now, Duration::from_secs(600));
    let (first, second) = (Price::new(1, 2).unwrap(), Price::new(2, 1).unwrap());
    balances.pin_price(now, &id, first).unwrap();
    balances.pin_price(now, &id, second).unwrap();
    assert_eq!(balances.price(&id), Some(first));
    let debt = Amount::from(BigRational::from_integer(BigInt::from(3)));
    balances.debit(now, &id, &debt).unwrap();
    assert!(
        !balances.read(&id).unwrap().is_positive(),
        "some debits may overdraw"
    );
}
