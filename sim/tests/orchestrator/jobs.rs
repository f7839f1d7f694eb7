//! Batch jobs through orchestrators of which most are no good.
//!
//! `BATCH_SEEDS=10000` plays that many worlds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livepeer_core::Rng;
use livepeer_core::chain::ChainView;
use livepeer_core::http::Url;
use livepeer_core::job::batch::{Config, Failed, JobId, RefusedBy};
use livepeer_core::money::{Amount, Price};
use livepeer_core::pipeline::Pipeline;
use livepeer_core::wire::batch::{Answer, BatchRequest};
use livepeer_orchestrator::{BatchModel, Event, Mishap, Payments, Quirks};
use livepeer_sim::batch::BatchGateway;
use livepeer_sim::world::Payee;
use livepeer_sim::{Key, World, seeds};

use crate::stage::secs;

pub(crate) const MODEL: &str = "a/model";

pub(crate) fn service(n: usize) -> Url {
    Url::parse(&format!("https://orch-{n}:8935")).expect("a URL")
}

pub(crate) fn config(
    n: usize,
    payee: Payee,
    pipeline: Pipeline,
    quirks: Quirks,
) -> livepeer_orchestrator::Config {
    let at = service(n);
    let key = Key::named(&at.authority());
    let mut config = livepeer_orchestrator::Config::new(at, key.address());
    if payee != Payee::Nobody {
        let price = Price::new(10, 1).expect("a price");
        let payments = Payments::new(key.address(), price, ChainView::development());
        config = config.on_chain(payments);
    }
    config.quirks = quirks;
    let model = BatchModel {
        capacity: 64,
        takes: Duration::from_millis(50),
        pace: Duration::from_millis(5),
        ..BatchModel::default()
    };
    config.with_batch_model(pipeline, MODEL, model)
}

fn picture(width: i64) -> BatchRequest {
    let mut request = BatchRequest::new(Pipeline::TextToImage);
    request.set_model(MODEL);
    for (name, value) in [("width", width), ("height", 64)] {
        request.set(name, value).expect("a field");
    }
    request
        .set("prompt", "a coffee shop at sunset")
        .expect("a field");
    request.check().expect("a good request");
    request
}

fn chat(stream: bool) -> BatchRequest {
    let mut request = BatchRequest::new(Pipeline::Llm);
    request.set_model(MODEL);
    let messages = r#"[{"role":"user","content":"one two three four"}]"#;
    request.set_text("messages", messages).expect("messages");
    request.set("max_tokens", 64).expect("a field");
    request.set("stream", stream).expect("a field");
    request.check().expect("a good request");
    request
}

/// Work that the orchestrators were asked for and charged for, by number.
pub(crate) fn worked(world: &World) -> BTreeMap<usize, Vec<Amount>> {
    let mut all: BTreeMap<usize, Vec<Amount>> = BTreeMap::new();
    for (n, event) in &world.told {
        if let Event::Worked { fee, .. } = event {
            all.entry(*n).or_default().push(fee.clone());
        }
    }
    all
}

/// Every wei that a gateway counts on is there, and every fee was for a job.
fn check_money(world: &World, gateway: &BatchGateway, payee: Payee, pipeline: Pipeline) {
    let name = format!("{}_{MODEL}", pipeline.capability().id());
    let batch = world.net.get(gateway.machine);
    for (n, node) in world.orchestrators.iter().enumerate() {
        let Some(payments) = batch.payments(&service(n)) else {
            continue;
        };
        let ours = payments.balance().cloned().unwrap_or_default();
        let theirs = world.net.get(*node).balance(world.payer, &name);
        let theirs = theirs.cloned().unwrap_or_default();
        assert!(
            ours <= theirs,
            "{n}: we count on {ours}, and there is {theirs}"
        );
        if payee == Payee::Nobody {
            assert!(ours.is_zero() && theirs.is_zero());
        }
    }
    let charged = worked(world);
    for (n, fees) in charged {
        let at = service(n);
        let served = gateway
            .log
            .done
            .values()
            .filter(|done| done.served.url == at);
        let costs: Amount = served.map(|done| done.served.cost.clone()).sum();
        let broken = gateway
            .log
            .failed
            .values()
            .filter_map(|failed| match failed {
                Failed::Broken { served, .. } if served.url == at => Some(served.cost.clone()),
                _ => None,
            });
        let costs = costs + broken.sum();
        let fees: Amount = fees.into_iter().sum();
        // What an orchestrator charged for an answer that was none is its own affair, and the caller's nothing.
        assert!(costs <= fees, "{n}: callers pay {costs} for {fees}");
    }
}

/// The orchestrators: dead, silent, busy, a liar, a good one, and one with a mishap.
fn place(seed: u64, payee: Payee, pipeline: Pipeline) -> (World, Option<Mishap>) {
    let mut dice = Rng::new(seeds::seed(seed));
    let mishap = match dice.below(6) {
        0 => Mishap::Answers(503, "overloaded".into()),
        1 => Mishap::Answers(400, "a bad lora".into()),
        2 => Mishap::Answers(500, "cuda".into()),
        3 => Mishap::Gone,
        4 => Mishap::NotJson,
        _ => Mishap::Breaks,
    };
    let quirks = [
        Quirks::default(),
        Quirks {
            silent: true,
            ..Quirks::default()
        },
        Quirks {
            busy: true,
            ..Quirks::default()
        },
        Quirks {
            price_jump: Some((1, 3)),
            ..Quirks::default()
        },
        Quirks {
            stale_every: std::num::NonZeroU32::new(7),
            ..Quirks::default()
        },
        Quirks {
            runner: Some(mishap.clone()),
            ..Quirks::default()
        },
    ];
    let configs = quirks.into_iter().enumerate();
    let configs = configs.map(|(n, quirks)| config(n, payee, pipeline, quirks));
    let mut world = World::new(seeds::seed(seed), configs.collect());
    world.net.link(&service(0).authority()).down = true;
    for n in 1..6 {
        let link = world.net.link(&service(n).authority());
        link.latency = Duration::from_millis(1 + dice.below(8));
        link.jitter = Duration::from_millis(dice.below(4));
    }
    (world, Some(mishap))
}

fn play(seed: u64) {
    let mut dice = Rng::new(seeds::seed(seed ^ 0x5eed));
    let payee = [Payee::Nobody, Payee::Signer, Payee::OwnKey][dice.below(3) as usize];
    let pipeline = [Pipeline::TextToImage, Pipeline::Llm][dice.below(2) as usize];
    let (mut world, mishap) = place(seed, payee, pipeline);
    let mut gateway = world.batch_gateway(Config::default(), pipeline, MODEL, payee);
    let mut good: BTreeSet<JobId> = BTreeSet::new();
    let mut bad: BTreeSet<JobId> = BTreeSet::new();
    let mut streams: BTreeSet<JobId> = BTreeSet::new();
    for _ in 0..4 {
        let mut jobs = Vec::new();
        for _ in 0..5 {
            let is_bad = pipeline == Pipeline::TextToImage && dice.below(5) == 0;
            let stream = dice.below(2) == 0;
            let request = match pipeline {
                // No runner makes such a picture.
                Pipeline::TextToImage if is_bad => picture(100_000),
                Pipeline::TextToImage => picture(64),
                _ => chat(stream),
            };
            let id = gateway.submit(&mut world.net, &request);
            match is_bad {
                true => bad.insert(id),
                false => good.insert(id),
            };
            if pipeline == Pipeline::Llm && stream {
                streams.insert(id);
            }
            jobs.push(id);
            if dice.below(3) == 0 {
                world.run_jobs(Duration::from_millis(20), &mut gateway, &jobs);
            }
        }
        assert!(
            world.run_jobs(secs(30), &mut gateway, &jobs),
            "all jobs end"
        );
    }
    for id in &good {
        if let Some(finished) = gateway.log.done.get(id) {
            match &finished.answer {
                Some(Answer::Images(images)) => {
                    assert_eq!(images.len(), 1);
                    assert_eq!(finished.files.len(), 1);
                    assert_eq!(finished.files[0].url, images[0].url);
                    assert!(finished.files[0].content.starts_with(b"\x89PNG"));
                }
                Some(Answer::Llm { completion, .. }) => {
                    assert!(!completion.choices[0].content.is_empty());
                }
                None if streams.contains(id) => {
                    assert!(gateway.log.heads.contains_key(id));
                    assert!(gateway.log.chunks[id].len() > 1);
                }
                other => panic!("{other:?} is no answer to it"),
            }
            continue;
        }
        // One runner blames requests for what is none of their fault, and one breaks off streams.
        match (&gateway.log.failed[id], &mishap) {
            (Failed::Caller { by, .. }, Some(Mishap::Answers(400, _))) => {
                assert_eq!(*by, RefusedBy::Runner);
            }
            (Failed::Broken { served, .. }, Some(Mishap::Breaks)) => {
                assert_eq!(served.url, service(5));
            }
            (failed, _) => panic!("{id:?} of {pipeline} paid by {payee:?}: {failed}"),
        }
    }
    for id in &bad {
        assert!(
            matches!(&gateway.log.failed.get(id), Some(Failed::Caller { .. })),
            "{:?}",
            gateway.log.failed.get(id)
        );
    }
    // Nobody is blamed for what a caller did: only those who fail are.
    assert!(!gateway.log.suspended.contains(&service(4)), "the good one");
    check_money(&world, &gateway, payee, pipeline);
}

#[test]
fn every_request_is_answered_right_and_nobody_pays_twice() {
    let wanted = seeds::wanted("BATCH", &[], 12);
    seeds::play("BATCH", &wanted, play);
}

/// A good orchestrator, and a gateway.
fn one(payee: Payee, pipeline: Pipeline, quirks: Quirks) -> (World, BatchGateway) {
    let configs = vec![config(0, payee, pipeline, quirks)];
    let mut world = World::new([3; 32], configs);
    let gateway = world.batch_gateway(Config::default(), pipeline, MODEL, payee);
    (world, gateway)
}

fn balances(world: &World, gateway: &BatchGateway, pipeline: Pipeline) -> (Amount, Amount) {
    let name = format!("{}_{MODEL}", pipeline.capability().id());
    let payments = world.net.get(gateway.machine).payments(&service(0));
    let ours = payments.and_then(|payments| payments.balance().cloned());
    let theirs = world.net.get(world.orchestrators[0]);
    let theirs = theirs.balance(world.payer, &name).cloned();
    (ours.unwrap_or_default(), theirs.unwrap_or_default())
}

#[test]
fn a_warm_request_with_no_ticket_due_costs_no_handshake_and_no_signature() {
    for payee in [Payee::Signer, Payee::OwnKey] {
        let (mut world, mut gateway) = one(payee, Pipeline::TextToImage, Quirks::default());
        let (mut ticketless, mut made) = (0, 0);
        for _ in 0..40 {
            let before = world.net.opened();
            let id = gateway.submit(&mut world.net, &picture(64));
            assert!(world.run_jobs(secs(5), &mut gateway, &[id]));
            let served = &gateway.log.done[&id].served;
            assert_eq!(served.cost, Amount::ratio(64 * 64 * 10, 1).unwrap());
            made += served.tickets;
            if served.tickets == 0 {
                ticketless += 1;
                // The request and its picture.
                assert_eq!(world.net.opened() - before, 2, "{payee:?}");
            }
            let (ours, theirs) = balances(&world, &gateway, Pipeline::TextToImage);
            assert_eq!(ours, theirs, "{payee:?}: to the wei");
        }
        // A ticket is worth 8e9 wei, so that two last for all of them.
        assert_eq!((made, ticketless), (2, 38), "{payee:?}");
        assert_eq!(gateway.log.paid.len(), 2);
    }
}

#[test]
fn many_requests_pay_at_a_time_under_one_quote() {
    for payee in [Payee::Signer, Payee::OwnKey] {
        let (mut world, mut gateway) = one(payee, Pipeline::Llm, Quirks::default());
        let jobs: Vec<JobId> = (0..30)
            .map(|_| gateway.submit(&mut world.net, &chat(true)))
            .collect();
        assert!(world.run_jobs(secs(60), &mut gateway, &jobs));
        assert_eq!(gateway.log.done.len(), 30, "{:?}", gateway.log.failed);
        // One quote for the handshake, and none after it.
        let quoted = |event: &&(usize, Event)| matches!(event.1, Event::Quoted { .. });
        assert_eq!(world.told.iter().filter(quoted).count(), 1);
        let (ours, theirs) = balances(&world, &gateway, Pipeline::Llm);
        assert_eq!(ours, theirs, "{payee:?}: to the wei");
    }
}

#[test]
fn tickets_that_a_failed_attempt_brought_pay_for_the_next_one() {
    let runner = Some(Mishap::Answers(500, "cuda".into()));
    let quirks = Quirks {
        runner,
        ..Quirks::default()
    };
    for payee in [Payee::Signer, Payee::OwnKey] {
        let (mut world, mut gateway) = one(payee, Pipeline::TextToImage, quirks.clone());
        let id = gateway.submit(&mut world.net, &picture(64));
        assert!(world.run_jobs(secs(5), &mut gateway, &[id]));
        let failed = &gateway.log.failed[&id];
        assert!(matches!(failed, Failed::NoOrchestrator { attempts, .. } if attempts.len() == 1));
        let (ours, theirs) = balances(&world, &gateway, Pipeline::TextToImage);
        assert!(ours.is_positive());
        assert_eq!(ours, theirs);
        // The suspension is over, and the runner is well.
        world.net.run_for(secs(11));
        let node = world.orchestrators[0];
        world.net.with(node, |orchestrator, now| {
            orchestrator.set_quirks(now, Quirks::default());
        });
        let id = gateway.submit(&mut world.net, &picture(64));
        assert!(world.run_jobs(secs(5), &mut gateway, &[id]));
        assert_eq!(gateway.log.done[&id].served.tickets, 0);
        let (ours, theirs) = balances(&world, &gateway, Pipeline::TextToImage);
        assert_eq!(ours, theirs);
    }
}

#[test]
fn a_balance_that_was_idle_is_forgotten_as_the_orchestrator_does() {
    let (mut world, mut gateway) = one(Payee::Signer, Pipeline::TextToImage, Quirks::default());
    for _ in 0..2 {
        let id = gateway.submit(&mut world.net, &picture(64));
        assert!(world.run_jobs(secs(5), &mut gateway, &[id]));
        assert!(gateway.log.done[&id].served.tickets > 0);
        // Longer than any orchestrator keeps a balance.
        world.run_batch_for(secs(25 * 60), &mut gateway);
    }
}

#[test]
fn a_model_that_is_nowhere_is_looked_for_once_and_remembered() {
    let mut world = World::new(
        [4; 32],
        vec![config(0, Payee::Nobody, Pipeline::Llm, Quirks::default())],
    );
    let pipeline = Pipeline::TextToImage;
    let mut gateway = world.batch_gateway(Config::default(), pipeline, MODEL, Payee::Nobody);
    for finds in [1, 1, 2] {
        let id = gateway.submit(&mut world.net, &picture(64));
        assert!(world.run_jobs(secs(5), &mut gateway, &[id]));
        assert_eq!(gateway.log.failed[&id], Failed::UnknownModel);
        assert_eq!(gateway.log.finds, finds);
        if finds == 1 && gateway.log.failed.len() == 2 {
            world.net.run_for(secs(3));
        }
    }
    assert!(gateway.log.suspended.is_empty());
}

#[test]
fn an_orchestrator_that_does_no_batch_work_is_left_without_blame() {
    let quirks = Quirks {
        no_batch: true,
        ..Quirks::default()
    };
    let (mut world, mut gateway) = one(Payee::Signer, Pipeline::Llm, quirks);
    let id = gateway.submit(&mut world.net, &chat(false));
    assert!(world.run_jobs(secs(5), &mut gateway, &[id]));
    assert!(matches!(
        &gateway.log.failed[&id],
        Failed::NoOrchestrator { .. }
    ));
    assert!(gateway.log.suspended.is_empty());
    // For minutes it is not asked again.
    let tried = gateway.log.tried.len();
    world.net.run_for(secs(60));
    let id = gateway.submit(&mut world.net, &chat(false));
    assert!(world.run_jobs(secs(5), &mut gateway, &[id]));
    assert_eq!(gateway.log.tried.len(), tried);
}

#[test]
fn one_that_is_busy_many_times_running_is_asked_ever_less_often_and_never_blamed() {
    let quirks = Quirks {
        busy: true,
        ..Quirks::default()
    };
    let (mut world, mut gateway) = one(Payee::Signer, Pipeline::Llm, quirks);
    let mut asked = Vec::new();
    for _ in 0..2 {
        let before = gateway.log.tried.len();
        for _ in 0..120 {
            let id = gateway.submit(&mut world.net, &chat(false));
            assert!(world.run_jobs(secs(5), &mut gateway, &[id]));
            let pause = world.net.now() + Duration::from_millis(500);
            world.net.run_until(pause);
        }
        asked.push(gateway.log.tried.len() - before);
    }
    assert!(asked[0] > 3 * asked[1].max(1), "{asked:?}");
    assert!(gateway.log.suspended.is_empty());
}

#[test]
fn a_caller_that_goes_away_blames_nobody_and_ends_the_work() {
    for stream in [false, true] {
        let (mut world, mut gateway) = one(Payee::Signer, Pipeline::Llm, Quirks::default());
        let warm = gateway.submit(&mut world.net, &chat(false));
        assert!(world.run_jobs(secs(5), &mut gateway, &[warm]));
        let id = gateway.submit(&mut world.net, &chat(stream));
        world.run_jobs(Duration::from_millis(20), &mut gateway, &[id]);
        assert_eq!(gateway.log.tried.last().map(|(id, _)| *id), Some(id));
        let machine = gateway.machine;
        world.net.with(machine, |batch, now| batch.cancel(now, id));
        world.run_jobs(secs(2), &mut gateway, &[id]);
        assert!(!gateway.log.is_over(id), "nobody waits for its end");
        assert!(gateway.log.suspended.is_empty());
        assert_eq!(world.net.get(machine).jobs(), 0);
        let (ours, theirs) = balances(&world, &gateway, Pipeline::Llm);
        assert!(ours <= theirs, "{ours} of {theirs}");
        let id = gateway.submit(&mut world.net, &chat(false));
        assert!(world.run_jobs(secs(5), &mut gateway, &[id]));
        assert!(gateway.log.done.contains_key(&id));
    }
}

#[test]
fn pictures_come_as_data_or_under_one_name_and_each_is_fetched_once() {
    for (quirks, files) in [
        (Quirks::default(), 3),
        (
            Quirks {
                data_urls: true,
                ..Quirks::default()
            },
            3,
        ),
        (
            Quirks {
                equal_names: true,
                ..Quirks::default()
            },
            1,
        ),
    ] {
        let (mut world, mut gateway) = one(Payee::Nobody, Pipeline::TextToImage, quirks);
        let mut request = picture(64);
        request.set("num_images_per_prompt", 3).expect("a field");
        let id = gateway.submit(&mut world.net, &request);
        assert!(world.run_jobs(secs(5), &mut gateway, &[id]));
        let done = &gateway.log.done[&id];
        let Some(answer) = &done.answer else {
            panic!("pictures");
        };
        assert_eq!(answer.urls().count(), 3, "as many as were asked for");
        assert_eq!(done.files.len(), files);
        let names: BTreeSet<&String> = done.files.iter().map(|file| &file.name).collect();
        assert_eq!(names.len(), files, "no name comes twice");
        for url in answer.urls() {
            assert!(done.files.iter().any(|file| file.url == *url));
        }
    }
}
