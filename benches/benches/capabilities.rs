//! Finding and choosing among many orchestrators.
//!
//! Goals: a check without constraints under 10 ns, with a model under 100 ns; filtering 100,000 indexed orchestrators
//! under 1 ms; selecting among 10,000 under 1 ms.

#![allow(missing_docs, reason = "criterion makes functions without any")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use livepeer_benches::index::{CapabilityIndex, Query};
use livepeer_core::capabilities::{Capabilities, Capability, Ceilings, Model, ModelPrice};
use livepeer_core::http::Url;
use livepeer_core::money::Price;
use livepeer_core::pool::{Candidate, Selector};
use livepeer_core::selection::Balanced;
use livepeer_core::wire::OrchestratorInfo;
use livepeer_core::{Rng, TrackRecord};
use livepeer_proto::net;
use prost::Message as _;

const LIVE: Capability = Capability::LIVE_VIDEO_TO_VIDEO;

fn offer(rng: &mut Rng) -> Capabilities {
    let mut offer = Capabilities::common();
    let minor = 5 + rng.below(5);
    offer.version = format!("0.{minor}.{}-0123456a", rng.below(20))
        .as_str()
        .into();
    for _ in 0..1 + rng.below(4) {
        let name = format!("model-{}", rng.below(40));
        let warm = rng.below(2) == 0;
        let capability = if rng.below(3) > 0 {
            LIVE
        } else {
            Capability::TEXT_TO_IMAGE
        };
        offer = offer.and_model(
            capability,
            name,
            Model {
                warm,
                ..Model::default()
            },
        );
    }
    offer
}

fn checks(c: &mut Criterion) {
    let mut group = c.benchmark_group("compatibility");
    let offered = offer(&mut Rng::new([1; 32]))
        .and_model(LIVE, "streamdiffusion-sdxl", Model::default())
        .and_model(LIVE, "noop", Model::default());
    let plain = Capabilities::common();
    assert!(offered.serves(&plain));
    group.bench_function("without constraints", |b| {
        b.iter(|| black_box(&offered).serves(black_box(&plain)));
    });
    let model = Capabilities::live_video("streamdiffusion-sdxl").at_least("0.5.0");
    assert!(offered.serves(&model));
    group.bench_function("with a model and a version", |b| {
        b.iter(|| black_box(&offered).serves(black_box(&model)));
    });
    group.finish();
}

fn index(c: &mut Criterion) {
    const COUNT: usize = 100_000;
    let mut rng = Rng::new([2; 32]);
    let mut index = CapabilityIndex::new();
    for n in 0..COUNT {
        let url = Url::parse(&format!("https://o{n}.example:8935")).expect("it is a URL");
        let offer = offer(&mut rng);
        let prices = offer
            .models()
            .map(|(capability, model, _)| ModelPrice {
                capability,
                model: model.into(),
                price: Price::new(1 + rng.below(100) as i64, 1).expect("it is a price"),
            })
            .collect();
        index.insert(url, Some(offer), Price::new(50, 1), prices);
    }
    let mut group = c.benchmark_group("index of 100,000");
    group.throughput(Throughput::Elements(COUNT as u64));
    let half = Ceilings::of(Price::new(50, 1).expect("it is a price"));
    let queries = [
        (
            "capability",
            Capabilities::default().and(LIVE),
            Ceilings::default(),
        ),
        (
            "model",
            Capabilities::live_video("model-7"),
            Ceilings::default(),
        ),
        (
            "warm model, version and ceiling",
            Capabilities::live_video("model-7").warm().at_least("0.7.3"),
            half.clone(),
        ),
        (
            "everybody, version and ceiling",
            Capabilities::common().at_least("0.7.3"),
            half,
        ),
    ];
    for (name, wanted, ceilings) in queries {
        let query = Query {
            wanted,
            ceilings,
            listed_models_only: false,
        };
        let found = index.find(&query).len();
        assert!(found > 0 && found < COUNT, "{name}: {found}");
        group.bench_function(name, |b| {
            b.iter(|| black_box(&index).find(black_box(&query)).len())
        });
    }
    group.finish();
}

fn selection(c: &mut Criterion) {
    const COUNT: usize = 10_000;
    let mut rng = Rng::new([3; 32]);
    let infos: Vec<OrchestratorInfo> = (0..COUNT)
        .map(|n| {
            let wire = net::OrchestratorInfo {
                transcoder: format!("https://o{n}.example:8935"),
                price_info: Some(net::PriceInfo {
                    price_per_unit: 1 + rng.below(1_000) as i64,
                    pixels_per_unit: 1,
                    ..Default::default()
                }),
                ..Default::default()
            };
            OrchestratorInfo::decode(wire.encode_to_vec().into()).expect("it is one")
        })
        .collect();
    let records: Vec<TrackRecord> = (0..COUNT)
        .map(|_| TrackRecord {
            round_trip: Some(Duration::from_millis(20 + rng.below(200))),
            good: rng.below(100) as u32,
            bad: rng.below(10) as u32,
            ..TrackRecord::default()
        })
        .collect();
    let candidates: Vec<Candidate<'_>> = infos
        .iter()
        .zip(&records)
        .map(|(info, record)| Candidate {
            url: &info.transcoder,
            info,
            latency: Duration::from_millis(40),
            lent: 0,
            warm: true,
            record,
            speed: None,
        })
        .collect();
    let mut group = c.benchmark_group("selection among 10,000");
    group.throughput(Throughput::Elements(COUNT as u64));
    let mut dice = Rng::new([4; 32]);
    group.bench_function("balanced", |b| {
        b.iter(|| Balanced::default().select(&mut dice, black_box(&candidates)));
    });
    group.finish();
}

criterion_group!(benches, checks, index, selection);
criterion_main!(benches);
