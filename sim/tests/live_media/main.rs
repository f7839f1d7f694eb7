//! Live video through orchestrators that die at any moment, or whose runners do, with runners that join late: every byte
//! comes back once and in order, and nothing is told to be missing.
//!
//! `MEDIA_SEEDS=10000` plays more of them, `MEDIA_SEED=n` one. Troubles of all other kinds are in `troubles.rs`.

mod shows;
mod troubles;

use std::time::Duration;

use livepeer_core::chain::ChainView;
use livepeer_core::http::Url;
use livepeer_core::job::SwapLimit;
use livepeer_core::job::live::media::Matching;
use livepeer_core::job::live::{self, Ending};
use livepeer_core::money::Price;
use livepeer_core::trickle::Start;
use livepeer_core::wire::StartRequest;
use livepeer_core::{Rng, Time};
use livepeer_orchestrator::{Config, Join, Orchestrator, Payments, Quirks};
use livepeer_sim::world::{Gateway, World};
use livepeer_sim::{Key, Link, seeds};

const KIND: &str = "MEDIA";

/// Seeds that once found something come first.
const FOUND: [u64; 0] = [];

const PACKET: usize = 188;

/// Frames of a segment, and the ticks between them.
const FRAMES: u64 = 10;
const TICKS: u64 = 9_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn orchestrator(n: usize, join: Join) -> Config {
    let service = Url::parse(&format!("https://orch-{n}:8935")).expect("a URL");
    let account = Key::named(&service.authority()).address();
    let price = Price::new(100, 1).expect("a price");
    let payments = Payments::new(account, price, ChainView::development());
    Config {
        join,
        ..Config::new(service, account).on_chain(payments)
    }
}

/// A network of two to five orchestrators at some distance, whose runners join late; and how many there are.
fn network(rng: &mut Rng) -> (World, usize) {
    let orchestrators = 2 + rng.below(4) as usize;
    let late = Join {
        within: ms(500),
        from: Start::Current,
    };
    let configs = (0..orchestrators).map(|n| orchestrator(n, late)).collect();
    let mut world = World::new(rng.fork(), configs);
    for n in 0..orchestrators {
        *world.net.link(&format!("orch-{n}:8935")) = Link {
            latency: ms(1 + rng.below(40)),
            jitter: ms(rng.below(20)),
            ..Link::default()
        };
    }
    (world, orchestrators)
}

/// A gateway with a job for `noop` that may change its orchestrator up to `swaps` times.
fn gateway(world: &mut World, swaps: u32) -> Gateway {
    let config = live::Config {
        swap_limit: SwapLimit::new(swaps, Duration::from_secs(600)),
        leave_dead: true,
        max_in_flight: usize::MAX,
        ..live::Config::default()
    };
    let request = StartRequest {
        model_id: "noop".to_owned(),
        ..StartRequest::default()
    };
    world.gateway(config, request)
}

/// A second of video: the frames of segment `n` on a clock that began at `origin`, and chance in the rest of it.
fn video(rng: &mut Rng, origin: u64, n: u64) -> Vec<u8> {
    let mut segment = Vec::new();
    for frame in 0..FRAMES {
        let pts = (origin + (n * FRAMES + frame) * TICKS) & ((1 << 33) - 1);
        for part in 0..=rng.below(4) {
            let mut packet = vec![rng.below(256) as u8; PACKET];
            packet[..4].copy_from_slice(&[0x47, 0x01, 0x00, 0x10]);
            if part == 0 {
                packet[1] |= 0x40;
                packet[4..13].copy_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5]);
                packet[13..18].copy_from_slice(&[
                    0x21 | (pts >> 29) as u8 & 0x0e,
                    (pts >> 22) as u8,
                    (pts >> 14) as u8 | 1,
                    (pts >> 7) as u8,
                    (pts << 1) as u8 | 1,
                ]);
            }
            segment.extend(packet);
        }
    }
    segment
}

/// When the orchestrator at work dies, or its runner.
#[derive(Clone, Copy, Debug)]
enum Death {
    At(Time),
    AfterBytesBack(usize),
    OfRunner(Time),
}

struct Run {
    world: World,
    gateway: Gateway,
    deaths: Vec<Death>,
}

impl Run {
    /// Lets time pass until `done`, and those die whose time has come.
    fn until(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(&mut World, &mut Gateway) -> bool,
    ) -> bool {
        let deaths = &mut self.deaths;
        let gateways = std::slice::from_mut(&mut self.gateway);
        self.world.run_till(patience, gateways, |world, gateways| {
            let gateway = &mut gateways[0];
            let back: usize = gateway.log.segments.iter().map(Vec::len).sum();
            let due = deaths.last().is_some_and(|death| match death {
                Death::At(at) | Death::OfRunner(at) => *at <= world.net.now(),
                Death::AfterBytesBack(bytes) => *bytes <= back,
            });
            let serving = gateway.log.started.last();
            if let Some(serving) = serving.filter(|_| due) {
                if let Some(Death::OfRunner(_)) = deaths.last() {
                    deaths.pop();
                    for node in world.orchestrators.clone() {
                        let quirks = Quirks {
                            no_output: true,
                            ..Quirks::default()
                        };
                        if world.net.get(node).config().service == serving.orchestrator {
                            let turn =
                                |machine: &mut Orchestrator, now| machine.set_quirks(now, quirks);
                            world.net.with(node, turn);
                        }
                    }
                    return done(world, gateway);
                }
                let authority = serving.orchestrator.authority();
                if !world.net.link(&authority).down {
                    deaths.pop();
                    world.net.link(&authority).down = true;
                    world.net.cut(&authority);
                }
            }
            done(world, gateway)
        })
    }

    fn pass(&mut self, span: Duration) {
        let end = self.world.net.now() + span;
        self.until(span, |world, _| world.net.now() >= end);
    }
}

/// Plays a seed; how often another orchestrator had to go on, and how many segments of output were those of several of
/// the input.
fn play(seed: u64) -> (usize, u64) {
    let mut rng = Rng::new(seeds::seed(seed));
    let (mut world, orchestrators) = network(&mut rng);
    let gateway = gateway(&mut world, orchestrators as u32);
    let (full_speed, stamped) = (rng.below(2) == 0, rng.below(4) > 0);
    // A runner that dies is missed after it has worked for some time, and while there is time for another.
    let runner_dies = !full_speed && rng.below(3) == 0;
    let segments = match runner_dies {
        true => 22 + rng.below(8),
        false => 3 + rng.below(15),
    };
    // Some clocks wrap on the way.
    let origin = [0, 126_000, (1 << 33) - 5 * FRAMES * TICKS][rng.below(3) as usize];
    let sent: Vec<Vec<u8>> = (0..segments)
        .map(|n| match stamped {
            true => video(&mut rng, origin, n),
            false => (0..1 + rng.below(9_000))
                .map(|at| (at * n % 251) as u8 | 0x80)
                .collect(),
        })
        .collect();
    let total: usize = sent.iter().map(Vec::len).sum();
    let now = world.net.now();
    let deaths = match runner_dies {
        true => vec![Death::OfRunner(now + ms(12_000 + rng.below(2_000)))],
        false => (0..rng.below(orchestrators as u64))
            .map(|_| match rng.below(2) {
                0 => Death::At(now + ms(rng.below(segments * 1_200))),
                _ => Death::AfterBytesBack(rng.below(total as u64 + 1) as usize),
            })
            .collect(),
    };
    let mut run = Run {
        world,
        gateway,
        deaths,
    };
    for (n, segment) in sent.iter().enumerate() {
        let begun = run.until(Duration::from_secs(30), |world, gateway| {
            gateway.log.ended.is_some() || gateway.begin(&mut world.net)
        });
        let log = &run.gateway.log;
        assert!(
            begun && log.ended.is_none(),
            "segment {n}: {:?} {:?}",
            log.ended,
            log.failed
        );
        let parts = 1 + rng.below(10);
        for part in segment.chunks(segment.len().div_ceil(parts as usize)) {
            run.gateway.write(&mut run.world.net, part.to_vec().into());
            run.pass(if full_speed { ms(0) } else { ms(1_000 / parts) });
        }
        run.gateway.end(&mut run.world.net);
    }
    run.gateway.close(&mut run.world.net);
    run.until(Duration::from_secs(90), |_, gateway| {
        gateway.log.ended.is_some()
    });
    let log = &run.gateway.log;
    assert_eq!(log.ended, Some(Ending::Finished), "{:?}", log.failed);
    let back = log.segments.concat();
    assert!(
        back == sent.concat(),
        "{} of {total} bytes came back, the first {} of them as they were",
        back.len(),
        back.iter()
            .zip(sent.concat())
            .take_while(|(a, b)| **a == *b)
            .count()
    );
    let figures = run.world.net.get(run.gateway.media).figures();
    assert_eq!(
        (figures.answered, figures.missing),
        (segments, 0),
        "{figures:?}"
    );
    assert_eq!(log.missing(), 0);
    let by = if stamped {
        Matching::Clock
    } else {
        Matching::Count
    };
    assert_eq!(figures.matching, Some(by));
    assert_eq!(log.standbys, usize::from(runner_dies));
    (log.started.len() - 1, segments - log.segments.len() as u64)
}

#[test]
fn whoever_dies_and_however_late_runners_join_every_byte_comes_back_once_and_in_order() {
    let played = seeds::play(KIND, &seeds::wanted(KIND, &FOUND, 40), play);
    let (swaps, joined): (Vec<usize>, Vec<u64>) = played.into_iter().unzip();
    let (swaps, joined): (usize, u64) = (swaps.iter().sum(), joined.iter().sum());
    println!("{swaps} swaps, {joined} segments joined to others");
    assert!(seeds::alone(KIND).is_some() || (swaps > 0 && joined > 0));
}

/// Six seconds of video through one orchestrator whose runner joins so late; what came back, and what is missing.
fn joined(join: Join, full_speed: bool) -> (usize, u64, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut world = World::new([9; 32], vec![orchestrator(0, join)]);
    let request = StartRequest {
        model_id: "noop".to_owned(),
        ..StartRequest::default()
    };
    let gateway = world.gateway(live::Config::default(), request);
    let mut run = Run {
        world,
        gateway,
        deaths: Vec::new(),
    };
    let mut rng = Rng::new([1; 32]);
    let sent: Vec<Vec<u8>> = (0..6).map(|n| video(&mut rng, 0, n)).collect();
    for segment in &sent {
        run.until(Duration::from_secs(30), |world, gateway| {
            gateway.begin(&mut world.net)
        });
        for part in segment.chunks(segment.len().div_ceil(10)) {
            run.gateway.write(&mut run.world.net, part.to_vec().into());
            run.pass(if full_speed { ms(0) } else { ms(100) });
        }
        run.gateway.end(&mut run.world.net);
    }
    run.gateway.close(&mut run.world.net);
    run.until(Duration::from_secs(60), |_, gateway| {
        gateway.log.ended.is_some()
    });
    let figures = run.world.net.get(run.gateway.media).figures();
    assert_eq!(figures.missing, run.gateway.log.missing());
    (
        figures.answered as usize,
        figures.missing,
        sent,
        run.gateway.log.segments,
    )
}

#[test]
fn a_model_that_loads_for_longer_than_the_first_segment_is_open_misses_some_and_that_is_told() {
    let late = Join {
        within: Duration::from_secs(5),
        from: Start::Current,
    };
    for full_speed in [false, true] {
        let (answered, missing, sent, back) = joined(late, full_speed);
        assert_eq!(answered as u64 + missing, 6);
        let (sent, back) = (sent.concat(), back.concat());
        assert!(sent.ends_with(&back), "what comes is the end of it");
        assert_eq!(missing == 0, sent == back);
    }
}

#[test]
fn a_runner_that_asks_for_the_next_segment_misses_the_first_and_that_is_told() {
    let old = Join {
        within: ms(500),
        from: Start::Next,
    };
    let (answered, missing, sent, back) = joined(old, false);
    assert_eq!((answered, missing), (5, 1));
    assert!(back.concat() == sent[1..].concat());
}
