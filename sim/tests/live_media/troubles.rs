//! Live video in trouble of every kind: orchestrators die at any byte of what goes and comes, stall, lose their runner
//! or their uploads, connections break, quotes expire, the signer is away. What comes back is the input, once and in
//! order, and what does not is told.
//!
//! `JOB_SEEDS=10000` plays more of them, `JOB_SEED=n` one. In seed 2120 an upload breaks off, the runner ends its output
//! in order, its orchestrator is lost, and the next one answers the segment whole, so that its beginning comes twice.
//! In seed 7113 it breaks off inside the last frame, so that the time stamps of the output say that all was answered.
//! In seed 108822 it breaks off before the last frame, the rest is given up, and nothing follows.

use std::collections::BTreeSet;
use std::time::Duration;

use livepeer_core::job::live::Ending;
use livepeer_core::trickle::Seq;
use livepeer_core::{Rng, Time};
use livepeer_orchestrator::Quirks;
use livepeer_sim::seeds;
use livepeer_sim::world::{Gateway, Log, World};

use super::{gateway, ms, network, video};

const KIND: &str = "JOB";

/// Seeds that once found something come first.
const FOUND: [u64; 4] = [147, 2120, 7113, 108_822];

/// Where the signer of a world is.
const SIGNER: &str = "signer:7936";

/// A link with this latency brings nothing while a test lasts.
const STALLED: Duration = Duration::from_secs(36_000);

/// A trouble of the orchestrator at work, or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The orchestrator is gone for good, and every connection with it.
    Dies,
    /// The orchestrator is there, and nothing moves any more.
    Stalls,
    /// Its runner makes no output any more, and may say nothing either.
    LosesRunner {
        mute: bool,
    },
    /// Every connection to it breaks once, uploads in their middle.
    Cuts,
    /// Connections to it break again and again.
    Breaks,
    /// The orchestrator answers no call any more; channels go on.
    FallsSilent,
    /// Every quote there is expires.
    Expires,
    /// The signer cannot be reached, or can be again.
    SignerGoes,
    SignerComes,
}

impl Trouble {
    fn draw(rng: &mut Rng, fatal: bool) -> Self {
        match (fatal, rng.below(6)) {
            (true, 0 | 1) => Self::Dies,
            (true, 2) => Self::Stalls,
            (true, 3) => Self::FallsSilent,
            (true, n) => Self::LosesRunner { mute: n == 4 },
            (false, 0 | 1) => Self::Cuts,
            (false, 2) => Self::Breaks,
            (false, 3) => Self::SignerGoes,
            (false, 4) => Self::SignerComes,
            (false, _) => Self::Expires,
        }
    }

    /// Comes over the orchestrator at work. False if none is.
    fn comes(self, rng: &mut Rng, world: &mut World, gateway: &Gateway) -> bool {
        let Some(serving) = gateway.log.started.last() else {
            return false;
        };
        let authority = serving.orchestrator.authority();
        let node = world
            .orchestrators
            .iter()
            .find(|node| world.net.get(**node).config().service == serving.orchestrator);
        let node = *node.expect("it is one of the world's");
        let quirks = match self {
            Self::Dies => {
                world.net.link(&authority).down = true;
                world.net.cut(&authority);
                return true;
            }
            Self::Stalls => {
                world.net.link(&authority).latency = STALLED;
                return true;
            }
            Self::Cuts => {
                world.net.cut(&authority);
                return true;
            }
            Self::Breaks => {
                world.net.link(&authority).breaks_per_million = 1 + rng.below(4_000) as u32;
                return true;
            }
            Self::Expires => {
                world.set_chain(|chain| chain.l1_block += 45);
                return true;
            }
            Self::SignerGoes | Self::SignerComes => {
                world.net.link(SIGNER).down = self == Self::SignerGoes;
                return true;
            }
            Self::LosesRunner { mute } => Quirks {
                no_output: true,
                no_events: mute,
                ..Quirks::default()
            },
            Self::FallsSilent => Quirks {
                silent: true,
                ..Quirks::default()
            },
        };
        world
            .net
            .with(node, |machine, now| machine.set_quirks(now, quirks));
        true
    }
}

/// When a trouble comes.
#[derive(Clone, Copy, Debug)]
enum When {
    At(Time),
    AfterBytesSent(usize),
    AfterBytesBack(usize),
}

struct Run {
    rng: Rng,
    world: World,
    gateway: Gateway,
    troubles: Vec<(When, Trouble)>,
    sent: usize,
}

impl Run {
    /// Lets time pass until `done`, and troubles come as they are due.
    fn until(
        &mut self,
        patience: Duration,
        mut done: impl FnMut(&mut World, &mut Gateway) -> bool,
    ) -> bool {
        let (rng, troubles, sent) = (&mut self.rng, &mut self.troubles, self.sent);
        let gateways = std::slice::from_mut(&mut self.gateway);
        self.world.run_till(patience, gateways, |world, gateways| {
            let gateway = &mut gateways[0];
            let back: usize = gateway.log.segments.iter().map(Vec::len).sum();
            let now = world.net.now();
            troubles.retain(|(when, trouble)| {
                let due = match *when {
                    When::At(at) => at <= now,
                    When::AfterBytesSent(bytes) => bytes <= sent,
                    When::AfterBytesBack(bytes) => bytes <= back,
                };
                !(due && trouble.comes(rng, world, gateway))
            });
            done(world, gateway)
        })
    }

    fn pass(&mut self, span: Duration) {
        let end = self.world.net.now() + span;
        self.until(span, |world, _| world.net.now() >= end);
    }

    /// Publishes a segment in pieces of any size. False if the job ended before it began.
    fn publish(&mut self, segment: &[u8], full_speed: bool) -> bool {
        let begun = self.until(Duration::from_secs(600), |world, gateway| {
            gateway.log.ended.is_some() || gateway.begin(&mut world.net)
        });
        assert!(begun, "the input waits, and nobody says why");
        if self.gateway.log.ended.is_some() {
            return false;
        }
        let pieces = 1 + self.rng.below(10);
        let mut rest = segment;
        for n in (1..=pieces).rev() {
            let size = match n {
                1 => rest.len(),
                _ => self.rng.below(rest.len() as u64 + 1) as usize,
            };
            let (piece, after) = rest.split_at(size);
            rest = after;
            self.gateway
                .write(&mut self.world.net, piece.to_vec().into());
            self.sent += piece.len();
            self.pass(if full_speed {
                ms(0)
            } else {
                ms(1_000 / pieces)
            });
        }
        self.gateway.end(&mut self.world.net);
        true
    }
}

/// The places in `back` at which the output of `sent` can end: all of what is not missing, and of each segment that is
/// missing no more than its beginning.
fn ends(sent: &[(bool, &[u8])], back: &[u8]) -> BTreeSet<usize> {
    let mut ends = BTreeSet::from([0]);
    for (missing, segment) in sent {
        let after = |at: usize| {
            let same = back[at..].iter().zip(*segment).take_while(|(a, b)| a == b);
            let came = same.count();
            match missing {
                true => at..at + came + 1,
                false if came == segment.len() => at + came..at + came + 1,
                false => 0..0,
            }
        };
        ends = ends.into_iter().flat_map(after).collect();
    }
    ends
}

/// Checks that the output is what was sent, once and in order, but for what was told to be missing: of that no more
/// than the beginning may have come. The input of an output segment that was told to be cut short is missing too.
fn is_what_was_sent(log: &Log, sent: &[Vec<u8>]) {
    let is_missing = |n: usize| log.gaps.iter().any(|gap| gap.contains(&Seq::new(n as u64)));
    let all: Vec<(bool, &[u8])> = (0..)
        .map(is_missing)
        .zip(sent.iter().map(Vec::as_slice))
        .collect();
    let mut back = Vec::new();
    for (n, segment) in log.segments.iter().enumerate() {
        for (_, numbers) in log.repeated.iter().filter(|(at, _)| *at == n) {
            // What comes twice is told: it was the beginning of what is answered again.
            let first = numbers.start.get() as usize;
            let again = sent[first..].concat();
            let mut before = ends(&all[..first], &back).into_iter().rev();
            let before = before.find(|at| again.starts_with(&back[*at..]));
            back.truncate(before.unwrap_or_else(|| panic!("{numbers:?} do not come twice")));
        }
        if !log.truncated.contains(&n) {
            back.extend_from_slice(segment);
        }
    }
    assert!(
        ends(&all, &back).contains(&back.len()),
        "{} bytes came of segments of {:?}; gaps {:?}, cut short {:?}",
        back.len(),
        sent.iter().map(Vec::len).collect::<Vec<_>>(),
        log.gaps,
        log.truncated
    );
    let all = sent.concat();
    for n in &log.truncated {
        let part = &log.segments[*n];
        let known = part.is_empty() || all.windows(part.len()).any(|window| window == part);
        assert!(known, "what there is of output segment {n} is of no input");
    }
}

/// The outcome of a seed.
#[derive(Debug)]
struct Outcome {
    swaps: usize,
    missing: u64,
    finished: bool,
}

fn play(seed: u64) -> Outcome {
    let mut rng = Rng::new(seeds::seed(seed));
    let (mut world, orchestrators) = network(&mut rng);
    let gateway = gateway(&mut world, 20);
    let full_speed = rng.below(2) == 0;
    let segments = 3 + rng.below(30);
    let sent: Vec<Vec<u8>> = (0..segments).map(|n| video(&mut rng, 0, n)).collect();
    let total: u64 = sent.iter().map(|segment| segment.len() as u64).sum();
    let now = world.net.now();
    let when = |rng: &mut Rng| match rng.below(3) {
        0 => When::At(now + ms(rng.below(segments * 1_200))),
        1 => When::AfterBytesSent(rng.below(total + 1) as usize),
        _ => When::AfterBytesBack(rng.below(total + 1) as usize),
    };
    // Somebody is left.
    let fatal = rng.below(orchestrators as u64);
    let others = rng.below(5);
    let troubles = (0..fatal + others)
        .map(|n| (when(&mut rng), Trouble::draw(&mut rng, n < fatal)))
        .collect();
    let mut run = Run {
        rng,
        world,
        gateway,
        troubles,
        sent: 0,
    };
    let begun = sent
        .iter()
        .take_while(|segment| run.publish(segment, full_speed))
        .count();
    run.gateway.close(&mut run.world.net);
    let ended = run.until(Duration::from_secs(900), |_, gateway| {
        gateway.log.ended.is_some()
    });
    let log = &run.gateway.log;
    assert!(ended, "the job does not end: {:?}", log.failed);
    is_what_was_sent(log, &sent[..begun]);
    let figures = run.world.net.get(run.gateway.media).figures();
    assert_eq!(figures.begun, begun as u64, "{figures:?}");
    assert_eq!(figures.missing, log.missing(), "{figures:?}");
    assert_eq!(
        figures.answered + figures.missing,
        figures.begun,
        "{figures:?}"
    );
    let outcome = Outcome {
        swaps: log.started.len().saturating_sub(1),
        missing: figures.missing,
        finished: log.ended == Some(Ending::Finished),
    };
    // Whatever happened, nothing is left open (rule 11), once the servers have swept.
    run.world.net.run_for(Duration::from_secs(1_000));
    assert!(run.world.net.get(run.gateway.media).is_idle());
    outcome
}

#[test]
fn what_comes_back_through_any_trouble_is_the_input_once_and_in_order_and_gaps_are_told() {
    let played = seeds::play(KIND, &seeds::wanted(KIND, &FOUND, 30), play);
    let swaps: usize = played.iter().map(|one| one.swaps).sum();
    let missing: u64 = played.iter().map(|one| one.missing).sum();
    let finished = played.iter().filter(|one| one.finished).count();
    println!(
        "{swaps} swaps, {missing} segments missing and told, {finished} of {} jobs finished",
        played.len()
    );
    assert!(seeds::alone(KIND).is_some() || (swaps > 0 && finished > 0));
}
