//! Whole jobs: gateway, orchestrators and remote signer with a chain whose blocks go by, under virtual time.

mod sharing;
mod silence;

use std::time::Duration;

use livepeer_core::capabilities::Ceilings;
use livepeer_core::chain::ChainView;
use livepeer_core::http::Url;
use livepeer_core::job::live::{self, Ending};
use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::Budget;
use livepeer_core::wire::{Params, StartRequest};
use livepeer_core::{Address, Party, Rng};
use livepeer_orchestrator::Orchestrator;
use livepeer_orchestrator::{Config, EndReason, Event, Payments, Quirks};
use livepeer_sim::purse::recall;
use livepeer_sim::world::{Gateway, World};
use livepeer_sim::{Key, Link, Node};

/// Wei per pixel: a second costs about a third of the usual ticket.
const PRICE: i64 = 100;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn orchestrator(host: &str) -> Config {
    let service = Url::parse(&format!("https://{host}:8935")).expect("a URL");
    let account = Key::named(&service.authority()).address();
    let price = Price::new(PRICE, 1).expect("a price");
    Config::new(service, account).on_chain(Payments::new(account, price, ChainView::development()))
}

fn request() -> StartRequest {
    StartRequest {
        model_id: "noop".to_owned(),
        ..StartRequest::default()
    }
}

fn job(world: &mut World) -> Gateway {
    world.gateway(live::Config::default(), request())
}

/// Segments that no two are alike.
fn segment(n: u64) -> Vec<u8> {
    let size = 2_000 + (n * 7_919 % 5_000) as usize;
    (0..size as u64)
        .map(|at| (n * 31 + at * at % 251) as u8)
        .collect()
}

/// Publishes a segment a second and looks that all come back.
fn stream(world: &mut World, gateway: &mut Gateway, seconds: u64) {
    for n in 0..seconds {
        let taken = world.publish(gateway, &segment(n), secs(1));
        assert!(
            taken,
            "segment {n}: {:?} {:?}",
            gateway.log.ended, gateway.log.failed
        );
    }
    assert_eq!(world.finish(gateway), Some(Ending::Finished));
    assert_eq!(gateway.log.segments.len() as u64, seconds);
    for (n, got) in (0..seconds).zip(&gateway.log.segments) {
        assert!(*got == segment(n), "segment {n} is not what was sent");
    }
    assert_eq!(gateway.log.missing(), 0);
}

/// Checks that the sum paid is the sum credited, and is billed or still there.
fn books_balance(world: &World, gateway: &Gateway) {
    let orch = world.net.get(world.orchestrators[0]);
    let figures = orch.figures();
    let paid: Amount = gateway.log.paid.iter().map(|paid| paid.value.clone()).sum();
    assert_eq!(paid, figures.credited);
    let tickets: u64 = gateway
        .log
        .paid
        .iter()
        .map(|paid| u64::from(paid.tickets))
        .sum();
    assert_eq!(tickets, figures.tickets);
    let left: Amount = gateway
        .log
        .started
        .iter()
        .filter_map(|started| orch.balance(world.payer, &started.channels.manifest_id))
        .cloned()
        .sum();
    assert_eq!(figures.billed + left, figures.credited);
}

fn unpaid(world: &World) -> Option<&str> {
    world.told.iter().find_map(|(_, event)| match event {
        Event::SessionEnded {
            why: EndReason::Unpaid(text),
            ..
        } => Some(text.as_str()),
        _ => None,
    })
}

#[test]
fn a_paid_job_returns_every_byte_and_the_books_balance_to_the_wei() {
    let mut world = World::new([1; 32], vec![orchestrator("orch")]);
    let mut gateway = job(&mut world);
    stream(&mut world, &mut gateway, 60);
    assert!(gateway.log.paid.len() >= 2, "{:?}", gateway.log.paid);
    books_balance(&world, &gateway);
    // Nothing is left behind.
    let orch = world.orchestrators[0];
    assert_eq!(world.net.get(orch).figures().running, 0);
    world.run_for(secs(5), &mut []);
    assert_eq!(world.net.open_exchanges(), 0);
}

fn free(host: &str) -> Config {
    let mut config = orchestrator(host);
    config.payments.as_mut().expect("on-chain").price = Price::FREE;
    config
}

#[test]
fn an_own_key_starts_with_a_free_orchestrator_and_pays_nothing() {
    let mut world = World::new([13; 32], vec![free("orch")]);
    let mut gateway = world.own_key_gateway(live::Config::default(), request());
    stream(&mut world, &mut gateway, 30);
    assert!(gateway.log.paid.iter().all(|paid| paid.tickets == 0));
    assert_eq!((gateway.log.held.len(), gateway.log.failed.len()), (0, 0));
    let figures = world.net.get(world.orchestrators[0]).figures();
    // The start carries who the job is for, and no ticket; nothing follows.
    assert_eq!((figures.payments, figures.tickets), (1, 0), "{figures:?}");
    assert!(figures.credited.is_zero() && figures.billed.is_zero());
}

#[test]
fn a_remote_payer_passes_a_free_orchestrator_over() {
    for hosts in [["free", "paid"], ["paid", "free"]] {
        let configs = hosts.map(|host| match host {
            "free" => free(host),
            _ => orchestrator(host),
        });
        let mut world = World::new([14; 32], configs.into());
        let mut gateway = job(&mut world);
        stream(&mut world, &mut gateway, 10);
        assert_eq!(gateway.log.started.len(), 1, "nobody is tried in vain");
        assert_eq!(gateway.log.started[0].orchestrator.host(), "paid");
        assert_eq!((gateway.log.failed.len(), gateway.log.blamed.len()), (0, 0));
    }
}

/// Checks that the gateway's store has all that was credited on record as spent.
fn recorded(world: &World, gateway: &Gateway) {
    let figures = world.net.get(world.orchestrators[0]).figures();
    let spent = recall(Budget::unlimited(), world.net.stored(gateway.job)).spent();
    assert!(spent >= figures.credited, "paid unrecorded");
}

#[test]
fn at_whichever_write_the_store_fails_nothing_is_paid_unrecorded_and_nobody_else_is_blamed() {
    for seed in 0..8 {
        let mut rng = Rng::new([seed; 32]);
        let mut below = |bound: u8| u64::from(rng.bytes32()[0] % bound);
        let (first, for_good) = (below(6), below(2) == 0);
        let failing = first..if for_good {
            u64::MAX
        } else {
            first + 1 + below(2)
        };
        println!("seed {seed}: {failing:?}");
        let mut world = World::new([seed; 32], vec![orchestrator("orch")]);
        let mut gateway = world.gateway(live::Config::default(), request());
        world.net.fail_store(gateway.job, failing.clone());
        // As long as it takes until all is used up that was paid in advance, if nothing more is paid.
        let seconds = if for_good { 300 } else { 400 };
        let mut published = 0;
        while published < seconds && world.publish(&mut gateway, &segment(published), secs(1)) {
            published += 1;
            recorded(&world, &gateway);
        }
        if for_good {
            let Some(Ending::Failed(failure)) = &gateway.log.ended else {
                panic!("seed {seed}: {:?}", gateway.log.ended);
            };
            assert_eq!(failure.who, Party::Store, "seed {seed}: {failure}");
        } else {
            assert_eq!(published, seconds, "seed {seed}: {:?}", gateway.log.ended);
            assert_eq!(world.finish(&mut gateway), Some(Ending::Finished));
            assert!(world.net.writes(gateway.job) >= failing.end, "seed {seed}");
        }
        recorded(&world, &gateway);
        assert_eq!(unpaid(&world), None, "seed {seed}: it was not even late");
        assert!(
            gateway.log.failed.is_empty(),
            "seed {seed}: {:?}",
            gateway.log.failed
        );
        assert_eq!(gateway.log.blamed, [], "seed {seed}");
        let mut records = world.net.get(gateway.pool).records();
        assert!(records.all(|(_, record)| record.bad == 0), "seed {seed}");
    }
}

#[test]
fn ten_minutes_with_expiring_quotes_and_tokens_go_by_without_a_refusal() {
    let mut world = World::new([2; 32], vec![orchestrator("orch")]);
    let mut gateway = job(&mut world);
    stream(&mut world, &mut gateway, 600);
    assert_eq!(unpaid(&world), None);
    let refused: Vec<_> = world
        .told
        .iter()
        .filter(|(_, event)| matches!(event, Event::Rejected { .. }))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(gateway.log.started.len(), 1);
    books_balance(&world, &gateway);
}

/// The balance of the session that runs.
fn left(world: &World, gateway: &Gateway) -> Amount {
    let orch = world.net.get(world.orchestrators[0]);
    let manifest_id = &gateway.log.started[0].channels.manifest_id;
    let left = orch.balance(world.payer, manifest_id);
    left.cloned().unwrap_or_default()
}

fn quirks(world: &mut World, quirks: Quirks) {
    let orch = world.orchestrators[0];
    world
        .net
        .with(orch, |machine, now| machine.set_quirks(now, quirks));
}

/// Publishes a segment each two seconds, and has this happen before some of them.
fn stream_while(
    world: &mut World,
    gateway: &mut Gateway,
    seconds: u64,
    mut happens: impl FnMut(&mut World, u64),
) {
    for second in (0..seconds).step_by(2) {
        happens(world, second);
        let taken = world.publish(gateway, &[7; 100], secs(2));
        assert!(
            taken,
            "second {second}: {:?} {:?}",
            gateway.log.ended, gateway.log.failed
        );
    }
}

#[test]
fn a_long_job_with_expired_quotes_and_a_risen_price_is_prepaid_once_and_not_ended() {
    let mut config = orchestrator("orch");
    let price = Price::new(101, 1).expect("a price");
    if let Some(payments) = &mut config.payments {
        payments.price = price;
    }
    let mut world = World::new([30; 32], vec![config]);
    let mut gateway = job(&mut world);
    stream_while(&mut world, &mut gateway, 29 * 60, |world, second| {
        if second == 180 {
            let price = Price::new(102, 1);
            quirks(
                world,
                Quirks {
                    price,
                    ..Quirks::default()
                },
            );
        }
        if [240, 700, 1_200].contains(&second) {
            // Later than any quote lasts.
            world.set_chain(|chain| chain.l1_block += 45);
        }
    });
    let most = price.fee(27_648_000_u64 * 75);
    assert!(
        left(&world, &gateway) <= most,
        "{:?}",
        left(&world, &gateway)
    );
    assert_eq!(world.finish(&mut gateway), Some(Ending::Finished));
    assert_eq!(unpaid(&world), None);
    assert_eq!(
        (gateway.log.started.len(), gateway.log.failed.len()),
        (1, 0)
    );
    assert!(gateway.log.held.is_empty(), "{:?}", gateway.log.held);
    let refreshed = world.net.get(world.orchestrators[0]).figures();
    assert!(refreshed.payments > 20, "{refreshed:?}");
    books_balance(&world, &gateway);
}

#[test]
fn an_orchestrator_without_a_way_to_keep_its_price_is_paid_the_new_one_at_the_last_moment() {
    let mut world = World::new([31; 32], vec![orchestrator("orch")]);
    let mut gateway = job(&mut world);
    stream_while(&mut world, &mut gateway, 400, |world, second| {
        if second == 20 {
            let price = Price::new(PRICE + 1, 1);
            let no_refresh = true;
            quirks(
                world,
                Quirks {
                    price,
                    no_refresh,
                    ..Quirks::default()
                },
            );
            world.set_chain(|chain| chain.l1_block += 45);
        }
    });
    assert_eq!(
        gateway.log.repriced,
        [Price::new(PRICE + 1, 1).expect("a price")]
    );
    assert_eq!(gateway.log.held.len(), 1, "{:?}", gateway.log.held);
    assert_eq!(world.finish(&mut gateway), Some(Ending::Finished));
    assert_eq!(unpaid(&world), None);
    books_balance(&world, &gateway);
}

#[test]
fn a_payment_whose_answer_a_proxy_ate_is_not_paid_again() {
    let mut world = World::new([32; 32], vec![orchestrator("orch")]);
    let mut gateway = job(&mut world);
    stream_while(&mut world, &mut gateway, 200, |world, second| {
        if second == 20 {
            let hide_credit = Some(502);
            quirks(
                world,
                Quirks {
                    hide_credit,
                    ..Quirks::default()
                },
            );
        }
    });
    assert_eq!(world.finish(&mut gateway), Some(Ending::Finished));
    let hidden = |told: &&(usize, Event)| matches!(told.1, Event::Rejected { status: 502, .. });
    assert_eq!(world.told.iter().filter(hidden).count(), 1);
    assert_eq!((unpaid(&world), gateway.log.started.len()), (None, 1));
    books_balance(&world, &gateway);
}

#[test]
fn a_job_that_cannot_be_paid_at_its_price_moves_without_blame_before_it_is_cut() {
    let mut world = World::new([33; 32], vec![orchestrator("orch"), orchestrator("other")]);
    let mut config = live::Config::default();
    config.payment.ceilings = Ceilings::of(Price::new(PRICE, 1).expect("a price"));
    let mut gateway = world.gateway(config, request());
    for second in 0..150 {
        if second == 20 {
            let n = world
                .orchestrators
                .iter()
                .position(|node| world.net.get(*node).figures().running > 0)
                .expect("one is at work");
            let orch = world.orchestrators[n];
            let quirks = Quirks {
                price: Price::new(PRICE + 1, 1),
                no_refresh: true,
                ..Quirks::default()
            };
            world
                .net
                .with(orch, |machine, now| machine.set_quirks(now, quirks));
            world.set_chain(|chain| chain.l1_block += 45);
        }
        world.publish(&mut gateway, &[7; 100], secs(1));
        if gateway.log.started.len() > 1 {
            break;
        }
    }
    assert_eq!(gateway.log.started.len(), 2, "{:?}", gateway.log.failed);
    assert_eq!(unpaid(&world), None);
    assert_eq!(gateway.log.held.len(), 1, "{:?}", gateway.log.held);
    assert!(gateway.log.failed.is_empty(), "{:?}", gateway.log.failed);
}

#[test]
fn a_job_paced_at_five_ten_thirty_and_sixty_seconds_is_never_cut() {
    for (n, pace) in [5, 10, 30, 60].into_iter().enumerate() {
        let mut world = World::new([3 + n as u8; 32], vec![orchestrator("orch")]);
        let config = live::Config {
            pay_every: secs(pace),
            ..live::Config::default()
        };
        let mut gateway = world.gateway(config, request());
        stream(&mut world, &mut gateway, 200);
        assert_eq!(unpaid(&world), None, "paced at {pace} s");
        books_balance(&world, &gateway);
    }
}

#[test]
fn without_a_signer_a_job_lives_on_its_credit_and_is_cut_within_two_intervals_of_its_end() {
    let mut world = World::new([8; 32], vec![orchestrator("orch")]);
    let mut gateway = job(&mut world);
    let mut began = None;
    let mut n = 0;
    while world.publish(&mut gateway, &segment(n), secs(1)) && unpaid(&world).is_none() {
        began.get_or_insert(world.net.now() - secs(1));
        n += 1;
        if n == 60 {
            world.net.link("signer:7936").down = true;
        }
        assert!(n < 300, "it is cut");
    }
    let lasted = world.net.now().since(began.expect("published"));
    let credited = world.net.get(world.orchestrators[0]).figures().credited;
    let second = Price::new(PRICE, 1).expect("a price").fee(27_648_000);
    let covered = (credited.as_ratio() / second.as_ratio()).to_integer();
    let covered = Duration::from_secs(u64::try_from(covered).expect("some seconds"));
    assert!(covered > secs(60), "{covered:?}");
    assert!(
        lasted >= covered - secs(5) && lasted <= covered + secs(10),
        "{lasted:?} of {covered:?} paid"
    );
    // The gateway knows whose fault it is, and leaves nothing behind.
    world.run_for(secs(30), std::slice::from_mut(&mut gateway));
    let Some(Ending::Failed(failure)) = &gateway.log.ended else {
        panic!("{:?}", gateway.log.ended);
    };
    assert!(matches!(failure.who, Party::Signer(_)), "{failure}");
    assert_eq!(world.net.get(world.orchestrators[0]).figures().running, 0);
    books_balance(&world, &gateway);
}

#[test]
fn the_next_orchestrator_takes_over_from_one_that_dies() {
    let mut world = World::new([10; 32], vec![orchestrator("one"), orchestrator("two")]);
    let mut gateway = job(&mut world);
    for n in 0..10 {
        assert!(world.publish(&mut gateway, &segment(n), secs(1)));
    }
    let first = gateway.log.started[0].orchestrator.clone();
    world.net.link(&first.authority()).down = true;
    world.net.cut(&first.authority());
    for n in 10..60 {
        world.publish(&mut gateway, &segment(n), secs(1));
    }
    assert_eq!(gateway.log.started.len(), 2, "{:?}", gateway.log.failed);
    assert_ne!(gateway.log.started[1].orchestrator, first);
    assert_eq!(world.finish(&mut gateway), Some(Ending::Finished));
    // The orphan is swept, and its place is free again.
    world.run_for(secs(400), &mut []);
    let running: u64 = world
        .orchestrators
        .iter()
        .map(|node| world.net.get(*node).figures().running)
        .sum();
    assert_eq!(running, 0);
}

#[test]
fn a_liar_is_left_for_an_honest_one() {
    let lies = [
        Quirks {
            leave_out: Some("publish_url".to_owned()),
            ..Quirks::default()
        },
        Quirks {
            other_model: Some("grand".to_owned()),
            ..Quirks::default()
        },
        Quirks {
            refuse_payments: Some((400, "Insufficient balance".to_owned())),
            ..Quirks::default()
        },
        Quirks {
            no_auth_token: true,
            ..Quirks::default()
        },
        Quirks {
            silent: true,
            ..Quirks::default()
        },
    ];
    for (n, quirks) in lies.into_iter().enumerate() {
        let shown = format!("{quirks:?}");
        let liar = Config {
            quirks,
            ..orchestrator("liar")
        };
        let mut world = World::new([20 + n as u8; 32], vec![liar, orchestrator("honest")]);
        // The liar is quicker, and so is asked first.
        world.net.link("honest:8935").latency = ms(30);
        let mut gateway = job(&mut world);
        assert!(world.publish(&mut gateway, &segment(0), secs(1)), "{shown}");
        assert_eq!(
            world.finish(&mut gateway),
            Some(Ending::Finished),
            "{shown}"
        );
        assert_eq!(
            gateway.log.started[0].orchestrator.host(),
            "honest",
            "{shown}"
        );
    }
}

#[test]
fn parameters_reach_the_runner_and_its_word_comes_back() {
    let mut world = World::new([11; 32], vec![orchestrator("orch")]);
    let first = StartRequest {
        params: Some(Params::parse(r#"{"prompt":"a cat"}"#).expect("an object")),
        ..request()
    };
    let mut gateway = world.gateway(live::Config::default(), first);
    for n in 0..3 {
        assert!(world.publish(&mut gateway, &segment(n), secs(1)));
    }
    let update = Params::parse(r#"{"prompt":"a dog"}"#).expect("an object");
    world
        .net
        .with(gateway.job, |job, now| job.update_params(now, update))
        .expect("it runs");
    for n in 3..15 {
        assert!(world.publish(&mut gateway, &segment(n), secs(1)));
    }
    let kinds: Vec<&str> = gateway
        .log
        .runner
        .iter()
        .filter_map(|event| event.event.get("type")?.as_str())
        .collect();
    assert!(kinds.contains(&"params_update"), "{kinds:?}");
    assert!(kinds.contains(&"heartbeat"), "{kinds:?}");
    let status = world
        .net
        .get(gateway.job)
        .status()
        .expect("a status")
        .clone();
    let params = &status.event["inference_status"]["last_params"];
    assert_eq!(params["prompt"], "a dog");
    assert_eq!(world.finish(&mut gateway), Some(Ending::Finished));
}

#[test]
fn eight_jobs_share_one_orchestrator_and_one_payer() {
    let mut world = World::new([12; 32], vec![orchestrator("orch")]);
    let mut gateways: Vec<Gateway> = (0..8).map(|_| job(&mut world)).collect();
    for n in 0..20 {
        let patience = secs(5);
        for i in 0..gateways.len() {
            world.run_till(patience, &mut gateways, |world, all| {
                all[i].begin(&mut world.net)
            });
            let part = segment(n * 8 + i as u64);
            gateways[i].write(&mut world.net, part.into());
        }
        world.run_for(secs(1), &mut gateways);
        for gateway in &mut gateways {
            gateway.end(&mut world.net);
        }
    }
    for gateway in &mut gateways {
        gateway.close(&mut world.net);
    }
    let over = world.run_till(secs(30), &mut gateways, |_, all| {
        all.iter().all(|one| one.log.ended.is_some())
    });
    assert!(over);
    let mut credited = Amount::zero();
    for (i, gateway) in gateways.iter().enumerate() {
        assert_eq!(
            gateway.log.ended,
            Some(Ending::Finished),
            "{:?}",
            gateway.log.failed
        );
        assert_eq!(gateway.log.segments.len(), 20);
        for (n, got) in gateway.log.segments.iter().enumerate() {
            assert!(
                *got == segment(n as u64 * 8 + i as u64),
                "job {i}, segment {n}"
            );
        }
        credited += &gateway.log.paid.iter().map(|paid| paid.value.clone()).sum();
    }
    let figures = world.net.get(world.orchestrators[0]).figures();
    assert_eq!(figures.credited, credited);
    assert_eq!(
        (figures.sessions, figures.running, figures.refused),
        (8, 0, 0)
    );
    assert_ne!(world.payer, Address::ZERO);
}

#[test]
fn slow_and_shaky_links_cost_time_and_not_bytes() {
    let mut world = World::new([13; 32], vec![orchestrator("orch")]);
    *world.net.link("orch:8935") = Link {
        latency: ms(80),
        jitter: ms(60),
        ..Link::default()
    };
    let mut gateway = job(&mut world);
    stream(&mut world, &mut gateway, 60);
    books_balance(&world, &gateway);
}
