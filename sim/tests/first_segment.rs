//! How long it takes until a job's first segment is on its way, with 50 ms between the gateway and everybody else.
//!
//! Four questions depend on one another, so four round trips are unavoidable: the signer introduces us (1), without
//! which the orchestrator gives no quote (2), without which the signer makes no payment (3), without which the
//! orchestrator starts no job (4). The media channel is new and needs no question. A connection of TCP and TLS 1.3
//! takes two more round trips where there is none yet, once for the signer and once for the orchestrator; links of
//! the simulation have none.

use std::time::Duration;

use livepeer_core::Time;
use livepeer_core::chain::ChainView;
use livepeer_core::http::Url;
use livepeer_core::job::live;
use livepeer_core::money::Price;
use livepeer_core::wire::StartRequest;
use livepeer_orchestrator::{Config, Payments};
use livepeer_sim::world::{Gateway, World};
use livepeer_sim::{Key, Link};

const ONE_WAY: Duration = Duration::from_millis(50);
const ROUND_TRIP: Duration = Duration::from_millis(100);
const OURS: Duration = Duration::from_millis(10);

fn orchestrator(host: &str) -> Config {
    let service = Url::parse(&format!("https://{host}:8935")).expect("a URL");
    let account = Key::named(&service.authority()).address();
    let price = Price::new(100, 1).expect("a price");
    Config::new(service, account).on_chain(Payments::new(account, price, ChainView::development()))
}

fn world(hosts: &[&str]) -> World {
    let configs = hosts.iter().map(|host| orchestrator(host)).collect();
    let mut world = World::new([7; 32], configs);
    let authorities = hosts.iter().map(|host| format!("{host}:8935"));
    for authority in authorities.chain(["signer:7936".to_owned()]) {
        *world.net.link(&authority) = Link {
            latency: ONE_WAY,
            ..Link::default()
        };
    }
    world
}

fn job(world: &mut World) -> Gateway {
    let request = StartRequest {
        model_id: "noop".to_owned(),
        ..StartRequest::default()
    };
    world.gateway(live::Config::default(), request)
}

/// Waits until a segment's first bytes leave.
fn first_bytes(world: &mut World, gateway: &mut Gateway) -> Time {
    let gateways = std::slice::from_mut(gateway);
    let begun = world.run_till(Duration::from_secs(10), gateways, |world, gateways| {
        gateways[0].begin(&mut world.net)
    });
    assert!(begun, "{:?}", gateways[0].log.failed);
    gateways[0].write(&mut world.net, vec![7; 1_000].into());
    world.net.now()
}

#[test]
fn the_first_segment_leaves_after_the_four_unavoidable_round_trips() {
    let mut world = world(&["a"]);
    let began = world.net.now();
    let mut gateway = job(&mut world);
    let took = first_bytes(&mut world, &mut gateway).since(began);
    println!("4 round trips and {:?}", took - 4 * ROUND_TRIP);
    assert!(took >= 4 * ROUND_TRIP, "{took:?}");
    assert!(took <= 4 * ROUND_TRIP + OURS, "{took:?}");
    // It comes in one direction after that.
    world.run_for(ONE_WAY + OURS, std::slice::from_mut(&mut gateway));
    assert_eq!(world.net.get(world.orchestrators[0]).figures().running, 1);
}

#[test]
fn a_job_goes_on_elsewhere_after_two_round_trips_since_its_standby_is_ready() {
    let mut world = world(&["a", "b"]);
    let mut gateway = job(&mut world);
    first_bytes(&mut world, &mut gateway);
    world.run_for(Duration::from_secs(5), std::slice::from_mut(&mut gateway));
    let serving = gateway.log.started[0].orchestrator.authority();
    world.net.link(&serving).down = true;
    world.net.cut(&serving);
    let gateways = std::slice::from_mut(&mut gateway);
    let lost = world.run_till(Duration::from_secs(60), gateways, |_, gateways| {
        !gateways[0].log.failed.is_empty()
    });
    assert!(lost);
    let lost_at = world.net.now();
    // A payment, and the start.
    let again = first_bytes(&mut world, &mut gateway).since(lost_at);
    println!(
        "2 round trips and {:?}",
        again.saturating_sub(2 * ROUND_TRIP)
    );
    assert!(again <= 2 * ROUND_TRIP + OURS, "{again:?}");
    assert_ne!(gateway.log.started[1].orchestrator.authority(), serving);
}
