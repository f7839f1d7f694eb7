//! Selection: the reference's numbers, the frequencies of seeded draws, and our own policy.

use std::time::Duration;

use livepeer_core::capabilities::Capabilities;
use livepeer_core::http::Url;
use livepeer_core::money::Price;
use livepeer_core::pool::{Candidate, Selector};
use livepeer_core::selection::{Balanced, normalize};
use livepeer_core::wire::{OrchestratorInfo, TicketParams};
use livepeer_core::{Address, Rng, TrackRecord};
use serde_json::Value;

use crate::reference::latency::{self, Choice, InFlight, LeastLatency, default_steps};
use crate::reference::weighted::{Filters, Weighted, Weights, draw, weights};
use crate::{cases, counted};

/// `"p"` or `"p/q"`.
fn price(of: &str) -> Price {
    let (wei, per) = of.split_once('/').unwrap_or((of, "1"));
    Price::new(wei.parse().unwrap(), per.parse().unwrap()).unwrap()
}

fn numbers(of: &Value) -> Vec<f64> {
    of.as_array()
        .unwrap()
        .iter()
        .map(|n| {
            n.as_f64()
                .unwrap_or_else(|| n.as_str().unwrap().parse().unwrap())
        })
        .collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12
}

fn known(case: &Value) -> (Vec<u64>, Vec<Price>, Weights) {
    let stakes = case["stakes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_u64().unwrap())
        .collect();
    let prices = case["prices_wei_per_pixel"].as_array().unwrap().iter();
    let prices = prices.map(|p| price(p.as_str().unwrap())).collect();
    let of = |key: &str| case["weights"][key].as_f64().unwrap();
    let weights = Weights {
        stake: of("stake"),
        price: of("price"),
        random: of("rand"),
        price_factor: case["price_exp_factor"].as_f64().unwrap(),
    };
    (stakes, prices, weights)
}

#[test]
fn weights_are_those_of_the_reference() {
    for case in &counted("capabilities/selection.json", "probabilities", 22) {
        let (stakes, prices, considered) = known(case);
        let mut ours = weights(&stakes, &prices, &considered);
        let raw = numbers(&case["raw"]);
        assert_eq!(ours.len(), raw.len());
        for (ours, theirs) in ours.iter().zip(&raw) {
            assert!(close(*ours, *theirs), "{}: {ours} {theirs}", case["id"]);
        }
        let sum: f64 = ours.iter().sum();
        assert!(close(
            sum,
            case["raw_sum"].as_str().unwrap().parse().unwrap()
        ));
        normalize(&mut ours);
        for (ours, theirs) in ours.iter().zip(numbers(&case["normalized"])) {
            assert!(close(*ours, theirs), "{}: {ours} {theirs}", case["id"]);
        }
    }
}

#[test]
fn a_draw_hits_what_the_references_would() {
    for case in &counted("capabilities/selection.json", "draw", 8) {
        let hit = draw(
            &numbers(&case["raw_in_iteration_order"]),
            case["uniform"].as_f64().unwrap(),
        );
        assert_eq!(
            hit.map(|at| at as u64),
            case["index"].as_u64(),
            "{}",
            case["id"]
        );
    }
}

#[test]
fn filters_leave_out_whom_the_reference_leaves_out() {
    for case in &counted("capabilities/selection.json", "filters", 19) {
        let address = |of: &Value| -> Address { of.as_str().unwrap().parse().unwrap() };
        let addresses: Vec<Address> = case["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .map(address)
            .collect();
        let known: Vec<(Address, Option<Price>)> = case["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|of| {
                (
                    address(of),
                    case["prices"][of.as_str().unwrap()].as_str().map(price),
                )
            })
            .collect();
        let filters = Filters {
            min_score: case["min_perf_score"].as_f64().unwrap(),
            scores: case["perf_scores"].as_object().map(|scores| {
                let of = |(key, score): (&String, &Value)| {
                    (key.parse().unwrap(), score.as_f64().unwrap())
                };
                scores.iter().map(of).collect()
            }),
            ceiling: case["max_price"].as_str().map(|text| price(text).of_one()),
            ignore_ceiling_if_needed: case["ignore_max_price_if_needed"].as_bool().unwrap(),
        };
        let kept = match case["algorithm"].as_str().unwrap() {
            "probability" => filters.keep(&known),
            "live" => filters.first_cheap(&known).into_iter().collect(),
            other => panic!("no algorithm {other}"),
        };
        let kept: Vec<Address> = kept.into_iter().map(|at| addresses[at]).collect();
        let expected: Vec<Address> = case["keep"]
            .as_array()
            .unwrap()
            .iter()
            .map(address)
            .collect();
        assert_eq!(kept, expected, "{}", case["id"]);
    }
}

pub(crate) fn info(n: u8, price: Option<Price>) -> OrchestratorInfo {
    OrchestratorInfo {
        raw: Default::default(),
        transcoder: Url::parse(&format!("https://o{n}:8935")).unwrap(),
        ticket_params: Some(TicketParams {
            recipient: Address([n; 20]),
            face_value: 1.into(),
            win_prob: Default::default(),
            recipient_rand_hash: [0; 32],
            seed: Default::default(),
            expiration_block: Default::default(),
            creation_round: 0,
            creation_round_block_hash: [0; 32],
        }),
        price,
        address: Address([n; 20]),
        capabilities: Some(Capabilities::common()),
        auth_token: None,
        capabilities_prices: Vec::new(),
        nodes: Vec::new(),
    }
}

struct Field {
    infos: Vec<OrchestratorInfo>,
    records: Vec<TrackRecord>,
    latencies: Vec<Duration>,
}

impl Field {
    fn new(prices: &[Option<Price>]) -> Self {
        let infos = prices
            .iter()
            .enumerate()
            .map(|(n, price)| info(n as u8 + 1, *price));
        Self {
            infos: infos.collect(),
            records: vec![TrackRecord::default(); prices.len()],
            latencies: vec![Duration::from_millis(50); prices.len()],
        }
    }

    fn candidates(&self) -> Vec<Candidate<'_>> {
        let all = self.infos.iter().zip(&self.records).zip(&self.latencies);
        all.map(|((info, record), latency)| Candidate {
            url: &info.transcoder,
            info,
            latency: *latency,
            lent: 0,
            warm: true,
            record,
            speed: None,
        })
        .collect()
    }
}

/// The distance from the expected count in standard deviations; five happen once in two million.
fn deviations(hits: usize, draws: usize, probability: f64) -> f64 {
    let expected = draws as f64 * probability;
    let deviation = (expected * (1.0 - probability)).sqrt();
    if deviation == 0.0 {
        return (hits as f64 - expected).abs();
    }
    (hits as f64 - expected).abs() / deviation
}

/// A million draws in a release build; fewer where every hash takes ten times as long.
const DRAWS: usize = if cfg!(debug_assertions) {
    100_000
} else {
    1_000_000
};

#[test]
fn frequencies_of_seeded_draws_are_the_exact_probabilities() {
    for case in cases("capabilities/selection.json", "probabilities") {
        let (stakes, prices, considered) = known(&case);
        if ["pb-01", "pb-05", "pb-17", "pb-19"]
            .iter()
            .all(|id| case["id"] != *id)
        {
            continue;
        }
        let prices: Vec<Option<Price>> = prices.into_iter().map(Some).collect();
        let field = Field::new(&prices);
        let mut selector = Weighted {
            weights: considered,
            stakes: stakes
                .iter()
                .enumerate()
                .map(|(n, stake)| (Address([n as u8 + 1; 20]), *stake))
                .collect(),
            ..Weighted::default()
        };
        let candidates = field.candidates();
        let mut rng = Rng::new([42; 32]);
        let mut hits = vec![0; candidates.len()];
        for _ in 0..DRAWS {
            hits[selector.select(&mut rng, &candidates).unwrap()] += 1;
        }
        for (hits, probability) in hits.iter().zip(numbers(&case["normalized"])) {
            let off = deviations(*hits, DRAWS, probability);
            assert!(
                off < 5.0,
                "{}: {hits} of {DRAWS} at {probability}",
                case["id"]
            );
        }
    }
}

#[test]
fn a_candidate_without_a_price_is_not_drawn_while_others_have_one() {
    let field = Field::new(&[None, Some(price("5")), None]);
    let probabilities = Weighted::default().probabilities(&field.candidates());
    assert_eq!(probabilities, [0.0, 1.0, 0.0]);
    let field = Field::new(&[None, None]);
    assert_eq!(
        Weighted::default().probabilities(&field.candidates()),
        [0.5, 0.5]
    );
}

#[test]
fn with_all_too_dear_nothing_is_selected() {
    let field = Field::new(&[Some(price("5"))]);
    let mut selector = Weighted {
        filters: Filters {
            ceiling: Some(price("4").of_one()),
            ..Filters::default()
        },
        ..Weighted::default()
    };
    assert_eq!(
        selector.select(&mut Rng::new([0; 32]), &field.candidates()),
        None
    );
    assert_eq!(selector.select(&mut Rng::new([0; 32]), &[]), None);
}

// Our own policy.

fn probabilities(field: &Field) -> Vec<f64> {
    Balanced::default()
        .explain(&field.candidates())
        .iter()
        .map(|of| of.probability)
        .collect()
}

#[test]
fn equal_candidates_are_equally_likely() {
    let field = Field::new(&[Some(price("7")), Some(price("14/2")), Some(price("7"))]);
    for probability in probabilities(&field) {
        assert!(close(probability, 1.0 / 3.0));
    }
}

#[test]
fn cheap_quick_and_proven_each_make_likelier() {
    let field = Field::new(&[Some(price("100")), Some(price("200"))]);
    let by_price = probabilities(&field);
    assert!(by_price[0] > 0.7 && by_price[1] > 0.1, "{by_price:?}");

    let mut field = Field::new(&[Some(price("100")), Some(price("100"))]);
    field.latencies[1] = Duration::from_millis(500);
    assert!(probabilities(&field)[0] > 0.9);

    let mut field = Field::new(&[Some(price("100")), Some(price("100"))]);
    field.records[0].good = 50;
    field.records[1].good = 25;
    field.records[1].bad = 25;
    assert!(probabilities(&field)[0] > 0.85);
}

#[test]
fn few_failures_of_a_newcomer_say_less_than_many() {
    let mut field = Field::new(&[Some(price("1")), Some(price("1")), Some(price("1"))]);
    field.records[1].bad = 1;
    field.records[2].bad = 100;
    let likely = probabilities(&field);
    assert!(
        likely[0] > likely[1] && likely[1] > likely[2] && likely[2] < 0.01,
        "{likely:?}"
    );
}

#[test]
fn a_cheaper_price_never_makes_less_likely_and_order_does_not_matter() {
    let mut rng = Rng::new([9; 32]);
    for _ in 0..2_000 {
        let count = 2 + rng.below(5) as usize;
        let mut prices: Vec<i64> = (0..count).map(|_| rng.below(40) as i64).collect();
        let field = |prices: &[i64]| {
            Field::new(
                &prices
                    .iter()
                    .map(|wei| Price::new(*wei, 3))
                    .collect::<Vec<_>>(),
            )
        };
        let before = probabilities(&field(&prices));
        assert!((before.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let weighted = |prices: &[i64]| {
            let mut selector = Weighted::default();
            selector.weights.price = 0.5;
            selector.weights.stake = 0.0;
            selector.weights.price_factor = 5.0;
            selector.probabilities(&field(prices).candidates())
        };
        let reference = weighted(&prices);
        let mut reversed = prices.clone();
        reversed.reverse();
        let mut back = probabilities(&field(&reversed));
        back.reverse();
        for (one, other) in before.iter().zip(&back) {
            assert!((one - other).abs() < 1e-9, "order matters");
        }
        let at = rng.below(count as u64) as usize;
        prices[at] -= rng.below(prices[at] as u64 + 1) as i64;
        assert!(
            probabilities(&field(&prices))[at] >= before[at] - 1e-12,
            "{prices:?}"
        );
        assert!(weighted(&prices)[at] >= reference[at] - 1e-12, "{prices:?}");
    }
}

#[test]
fn whatever_price_a_peer_names_the_sums_hold_and_nobody_starves() {
    let ends = [0, 1, i64::MAX];
    let prices: Vec<Option<Price>> = ends
        .iter()
        .flat_map(|wei| ends.map(|per| Price::new(*wei, per)))
        .collect();
    // Of all that a price may be, two and three at a time.
    for a in &prices {
        for b in &prices {
            for c in &prices {
                for of in [&[*a, *b][..], &[*a, *b, *c]] {
                    let field = Field::new(of);
                    let mut weighted = Weighted::default();
                    weighted.weights.price = 0.5;
                    let candidates = field.candidates();
                    for (all, name) in [
                        (probabilities(&field), "ours"),
                        (weighted.probabilities(&candidates), "the reference's"),
                    ] {
                        assert!(
                            (all.iter().sum::<f64>() - 1.0).abs() < 1e-9,
                            "{name} {of:?}"
                        );
                        assert!(all.iter().all(|p| (0.0..=1.0).contains(p)), "{name} {of:?}");
                    }
                    let ours = probabilities(&field);
                    let most = ours.iter().copied().fold(0.0, f64::max);
                    assert!(ours.iter().all(|p| *p * 401.0 > most), "{ours:?} {of:?}");
                }
            }
        }
    }
}

#[test]
fn load_spreads_over_what_is_alike() {
    let field = Field::new(&[Some(price("1")), Some(price("1")), Some(price("1"))]);
    let mut lent = [0u32; 3];
    let mut rng = Rng::new([1; 32]);
    for _ in 0..300 {
        let mut candidates = field.candidates();
        for (candidate, lent) in candidates.iter_mut().zip(lent) {
            candidate.lent = lent;
        }
        let at = Balanced::default().select(&mut rng, &candidates).unwrap();
        lent[at] += 1;
    }
    assert!(
        lent.iter().all(|lent| (80..=120).contains(lent)),
        "{lent:?}"
    );
}

// Latency scores.

#[test]
fn latency_scores_are_those_of_the_reference() {
    for case in &counted("capabilities/failover.json", "latency_score", 12) {
        let input = &case["input"];
        let seconds = |key: &str| Duration::from_secs_f64(input[key].as_f64().unwrap());
        let asked = || input["steps"].as_u64().map(|n| n as u32);
        let model = input["model"].as_str().unwrap_or("");
        let picture = |default: u32| {
            let pixels = input["out_pixels"].as_u64().unwrap();
            let steps = latency::steps(model, asked(), default);
            latency::of_picture(seconds("took_s"), pixels, steps.into())
        };
        let score = match case["kind"].as_str().unwrap() {
            "transcode" => latency::of_segment(seconds("total_s"), seconds("segment_s")),
            "text-to-image" => picture(default_steps::TEXT_TO_IMAGE),
            "image-to-image" => picture(default_steps::IMAGE_TO_IMAGE),
            "llm" => latency::per_unit(seconds("took_s"), input["tokens"].as_f64().unwrap()),
            "audio-to-text" => {
                latency::per_unit(seconds("took_s"), input["audio_s"].as_f64().unwrap())
            }
            "any" => {
                let second = Duration::from_secs(1);
                latency::per_unit(second, 0.0).max(latency::per_unit(second, -3.0))
            }
            other => panic!("no kind {other}"),
        };
        let expected: f64 = case["score"].as_str().unwrap().parse().unwrap();
        assert!(
            (score - expected).abs() <= expected * 1e-12,
            "{}: {score}",
            case["id"]
        );
    }
}

#[test]
fn sessions_are_reused_when_the_reference_would() {
    for case in &counted("capabilities/failover.json", "session_reuse", 14) {
        let in_flight: Vec<InFlight> = case["in_flight_age_and_duration_ms"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| InFlight {
                age: Duration::from_millis(pair[0].as_u64().unwrap()),
                plays: Duration::from_millis(pair[1].as_u64().unwrap()),
            })
            .collect();
        let reuse = latency::may_reuse(
            case["latency_score"].as_f64().unwrap(),
            &in_flight,
            case["duration_multiplier"].as_u64().unwrap() as u32,
        );
        assert_eq!(reuse, case["reuse"].as_bool().unwrap(), "{}", case["id"]);
    }
}

#[test]
fn good_known_sessions_come_before_unknown_and_bad_ones() {
    for case in &counted("capabilities/failover.json", "min_latency_selector", 2) {
        assert_eq!(case["threshold"].as_f64(), Some(latency::REAL_TIME));
        let mut free = LeastLatency::new();
        let mut busy = None;
        for step in case["steps"].as_array().unwrap() {
            match step[0].as_str().unwrap() {
                "add" => {
                    for key in step[1].as_array().unwrap() {
                        free.add(key.as_str().unwrap().to_string());
                    }
                }
                "select" => {
                    let (key, told) = match free.choose().expect("somebody is free") {
                        Choice::Known(key, score) => (key, Some(score)),
                        Choice::OneOfTheUnknown => (free.unknown()[0].clone(), None),
                    };
                    free.remove(&key);
                    match step[1].as_str().unwrap() {
                        "unknown" => assert_eq!(told, None, "{}", case["id"]),
                        "known" => assert_eq!(told, step[2].as_f64(), "{}", case["id"]),
                        other => panic!("no choice {other}"),
                    }
                    busy = Some(key);
                }
                "complete" => {
                    let key = busy.take().expect("one is busy");
                    free.complete(key, step[1].as_f64().unwrap());
                }
                other => panic!("no step {other}"),
            }
        }
    }
}
