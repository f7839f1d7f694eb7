//! Orchestrators die while a stream runs: real processes, real sockets, SIGKILL.

use std::io::Read as _;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{CLIP, Running, gateway, signal};
use crate::server::Devnet;
use livepeer_core::job::live::media::stamps::{Scanner, TICKS_PER_SECOND, distance};

/// The longest wait for a segment beyond its time.
const GAP: Duration = Duration::from_millis(500);

/// Lets one test run at a time: five processes and a stream are enough for a small machine to be on time with.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Orchestrators in processes of their own, and a signer.
struct Network {
    devnet: Devnet,
    processes: Vec<u32>,
}

impl Network {
    fn start(orchestrators: usize, more: &[&str]) -> Self {
        let devnet = Devnet::start(orchestrators, &[&["--processes"], more].concat());
        let lines = devnet.server.introduction.lines();
        let processes: Vec<u32> = lines
            .filter_map(|line| line.rsplit_once(" process "))
            .map(|(_, id)| id.parse().expect("a number"))
            .collect();
        assert_eq!(processes.len(), orchestrators);
        Self { devnet, processes }
    }

    /// Waits until somebody runs a session, and says who.
    fn who_runs(&self) -> usize {
        loop {
            let said = &self.devnet.server.said;
            let line = said.recv_timeout(Duration::from_secs(20));
            let line = line.expect("somebody gets the job");
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["orchestrator", number, "session", _, "runs", ..] = words[..] {
                return number.trim_end_matches(':').parse().expect("a number");
            }
        }
    }

    fn kill(&self, which: usize) {
        signal(self.processes[which], "KILL");
    }

    /// A stream through all of them, in real time.
    fn stream(&self, runtime: &str) -> Stream {
        let mut child = Running::start(
            gateway()
                .args([
                    "live",
                    "--model-id",
                    "noop",
                    "--input",
                    CLIP,
                    "--output",
                    "-",
                ])
                .args(["--orchestrator", &self.devnet.orchestrators.join(",")])
                .args(["--signer", &self.devnet.signer, "--runtime", runtime]),
        );
        let mut stdout = child.0.stdout.take().expect("it is piped");
        let (tell, pieces) = channel();
        thread::spawn(move || {
            let mut piece = vec![0; 1 << 20];
            while let Ok(read @ 1..) = stdout.read(&mut piece) {
                if tell.send((Instant::now(), piece[..read].to_vec())).is_err() {
                    return;
                }
            }
        });
        Stream {
            child,
            pieces,
            got: Vec::new(),
            marks: marks(),
            arrivals: Vec::new(),
        }
    }
}

/// How many bytes of the clip there are at least when so many seconds of it are whole. Each is a segment.
fn marks() -> Vec<usize> {
    let clip = std::fs::read(CLIP).expect("the clip comes with the sources");
    let (mut marks, mut first) = (Vec::new(), None);
    Scanner::default().push(&clip, |stamp| {
        let since = distance(*first.get_or_insert(stamp.pts), stamp.pts);
        let second = (marks.len() + 1) as i64 * TICKS_PER_SECOND as i64;
        if stamp.video && since >= second {
            // The tables before it may be those of the next.
            marks.push(stamp.at as usize - 4 * 188);
        }
    });
    marks.truncate(11);
    marks.push(clip.len());
    assert_eq!(marks.len(), 12);
    marks
}

/// A `live` whose output is read as it comes.
struct Stream {
    child: Running,
    pieces: Receiver<(Instant, Vec<u8>)>,
    got: Vec<u8>,
    marks: Vec<usize>,
    /// When each segment was there.
    arrivals: Vec<Instant>,
}

impl Stream {
    /// Reads until so many segments have come, or to the end.
    fn read(&mut self, segments: usize) {
        while self.arrivals.len() < segments {
            let Ok((at, piece)) = self.pieces.recv_timeout(Duration::from_secs(60)) else {
                return;
            };
            self.got.extend(piece);
            let whole = self.marks.iter().filter(|mark| **mark <= self.got.len());
            self.arrivals.resize(whole.count(), at);
        }
    }

    /// Reads the rest; the exit code, and what it said on stderr.
    fn finish(&mut self) -> (Option<i32>, String) {
        self.read(usize::MAX);
        let mut told = String::new();
        let stderr = self.child.0.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut told).expect("text");
        let status = self.child.wait(Duration::from_secs(60));
        (status.code(), told)
    }
}

/// Kills whoever serves, twice, so long after a segment came; how late the latest segment was.
fn kill_twice(clip: &[u8], runtime: &str, moment: Duration) -> (Duration, String) {
    // How late a runner joins is not what is timed.
    let network = Network::start(5, &["--runtime", runtime, "--join", "at-once"]);
    let mut stream = network.stream(runtime);
    let mut victim = network.who_runs();
    for segments in [3, 7] {
        stream.read(segments);
        thread::sleep(moment);
        network.kill(victim);
        let next = network.who_runs();
        assert_ne!(next, victim);
        victim = next;
    }
    let (code, told) = stream.finish();
    assert_eq!(code, Some(0), "{told}");
    assert!(
        stream.got == clip,
        "every byte comes once and in order: {told}"
    );
    assert_eq!(told.matches(" was lost: ").count(), 2, "{told}");
    assert_eq!(stream.arrivals.len(), 12, "{told}");
    // What is late is so against its time, a second after the one before.
    let first = stream.arrivals[0];
    let due = |n: usize| first + Duration::from_secs(n as u64);
    let late = stream.arrivals.iter().enumerate();
    let late = late.map(|(n, at)| at.saturating_duration_since(due(n)));
    (late.max().unwrap_or_default(), told)
}

#[test]
fn the_serving_orchestrator_is_killed_and_no_segment_is_lost_nor_late() {
    let _alone = alone();
    let clip = std::fs::read(CLIP).expect("the clip comes with the sources");
    // Right before a segment is due, right after, and in between.
    for (runtime, moment) in [("tokio", 985), ("smol", 300), ("tokio", 2), ("smol", 995)] {
        let moment = Duration::from_millis(moment);
        // Nothing may ever be lost; but a machine that is busy with something else makes anybody late.
        let mut tries: Vec<(Duration, String)> = Vec::new();
        while tries.len() < 3 && tries.last().is_none_or(|(late, _)| *late >= GAP) {
            tries.push(kill_twice(&clip, runtime, moment));
        }
        let best = tries.iter().map(|(late, _)| *late).min();
        println!("{runtime}, killed {moment:?} after a segment: {best:?} late");
        assert!(best < Some(GAP), "{tries:#?}");
    }
}

#[test]
fn an_orchestrator_that_dies_after_its_last_segment_costs_nothing() {
    let _alone = alone();
    let clip = std::fs::read(CLIP).expect("the clip comes with the sources");
    for runtime in ["tokio", "smol"] {
        let network = Network::start(2, &["--runtime", runtime]);
        let mut stream = network.stream(runtime);
        let serving = network.who_runs();
        stream.read(12);
        thread::sleep(Duration::from_millis(50));
        network.kill(serving);
        let (code, told) = stream.finish();
        assert_eq!(code, Some(0), "{told}");
        assert!(stream.got == clip, "every byte: {told}");
    }
}

#[test]
fn when_all_are_killed_one_error_says_who_was_tried_and_why_each_failed() {
    let _alone = alone();
    for runtime in ["tokio", "smol"] {
        let network = Network::start(5, &["--runtime", runtime]);
        let mut stream = network.stream(runtime);
        network.who_runs();
        stream.read(2);
        for one in 0..5 {
            network.kill(one);
        }
        let killed = Instant::now();
        let (code, told) = stream.finish();
        let took = killed.elapsed();
        assert_eq!(code, Some(1), "{told}");
        assert!(took < Duration::from_secs(5), "it takes {took:?}: {told}");
        let errors: Vec<&str> = told
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{told}");
        assert!(errors[0].contains("(5 tried)"), "{told}");
        for url in &network.devnet.orchestrators {
            let reason = errors[0].split(&format!("{url}: ")).nth(1);
            let reason = reason.and_then(|why| why.split("; ").next());
            // Some are killed in the middle of a handshake, of an exchange, or while a session there is renewed.
            let causes = ["cannot connect: ", "TLS failed: ", "the connection broke: "];
            let named = |why: &str| causes.iter().any(|cause| why.contains(cause));
            assert!(reason.is_some_and(named), "{url}: {told}");
        }
    }
}

#[test]
fn chaos_costs_no_segment() {
    let _alone = alone();
    let clip = std::fs::read(CLIP).expect("the clip comes with the sources");
    let network = Network::start(3, &["--chaos=3"]);
    let mut stream = network.stream("tokio");
    let (code, told) = stream.finish();
    assert_eq!(code, Some(0), "{told}");
    assert!(stream.got == clip, "every byte once and in order: {told}");
    let mishaps: Vec<String> = network.devnet.server.said.try_iter().collect();
    assert!(
        mishaps.iter().any(|line| line.starts_with("chaos: ")),
        "{mishaps:?}"
    );
}
