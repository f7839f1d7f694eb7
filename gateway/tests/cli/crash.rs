//! Signer, recipient, and gateways with and without a key of their own are killed at random moments of a running job,
//! and start again: the recipient's books are consistent, no nonce is spent twice, and the job goes on or ends with a
//! clear reason.
//!
//! `LIVEPEER_CRASHES` says how often (4 times unless said otherwise), `LIVEPEER_CRASH_SEED` which moments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::files::Folder;
use crate::process::{CLIP, Running, gateway, signal};
use livepeer_core::payment::SignedTicket;
use livepeer_core::rng::Rng;
use livepeer_runtime::store::{Sqlite, Store as _};

const KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707";

/// A port that stays free between two lives of a process: one below those that systems hand out to anybody.
fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id() + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (next % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// An orchestrator, a signer, and a gateway, as three processes.
struct Stage {
    folder: Folder,
    orchestrator: u16,
    signer: u16,
    unused: u16,
}

impl Stage {
    fn new(name: &str) -> Self {
        Self {
            folder: Folder::new(name),
            orchestrator: free_port(),
            signer: free_port(),
            unused: free_port(),
        }
    }

    fn log(&self, name: &str) -> File {
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .append(true)
            .open(self.folder.path(name));
        file.expect("a log")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path(name)).unwrap_or_default()
    }

    fn spawn(&self, log: &str, arguments: &[&str]) -> Running {
        Running::start(
            gateway()
                .args(arguments)
                .env("LIVEPEER_SIGNER_KEY", KEY)
                .env("LIVEPEER_DEVNET_KEY", KEY)
                .stdout(Stdio::null())
                .stderr(self.log(log)),
        )
    }

    fn network(&self) -> Running {
        let at = format!("127.0.0.1:{}", self.orchestrator);
        let signer = format!("127.0.0.1:{}", self.unused);
        let data = self.folder.path("data");
        let network = self.spawn(
            "network.log",
            &[
                "devnet",
                "--listen",
                &at,
                "--signer-listen",
                &signer,
                "--data",
                &data,
            ],
        );
        listens(self.orchestrator);
        network
    }

    fn signer(&self) -> Running {
        let at = format!("127.0.0.1:{}", self.signer);
        let signer = self.spawn("signer.log", &["signer", "--static-chain", "--listen", &at]);
        listens(self.signer);
        signer
    }

    /// A job that pays through the signer, or with the key itself.
    fn job(&self, log: &str, duration: &str, own_key: bool) -> Running {
        let orchestrator = format!("https://127.0.0.1:{}", self.orchestrator);
        let signer = format!("http://127.0.0.1:{}", self.signer);
        let key = self.folder.private("key", KEY);
        let store = self.folder.path("payer.db");
        let mut arguments = vec![
            "live",
            "--orchestrator",
            &orchestrator,
            "--model-id",
            "noop",
            "--input",
            CLIP,
            "--loop",
            "--duration",
            duration,
            "--output",
            "/dev/null",
            "--store",
            &store,
        ];
        if own_key {
            arguments.extend(["--key-file", &key, "--static-chain"]);
        } else {
            arguments.extend(["--signer", &signer]);
        }
        self.spawn(log, &arguments)
    }

    /// The tickets that the network said it credited.
    fn credited(&self) -> u64 {
        let text = self.read("network.log");
        let tickets = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once(" paid ")?;
            rest.split(' ').next()?.parse::<u64>().ok()
        });
        tickets.sum()
    }

    /// Looks through what the recipient made durable.
    fn check_books(&self) -> u64 {
        let books = self.folder.path("data/orchestrator-0.db");
        let store = Sqlite::open(Path::new(&books)).expect("the store survived");
        let mut seen: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        let mut stored = 0;
        for record in store.load("nonces:").expect("it can be read") {
            let hash = record
                .key
                .split(':')
                .nth(1)
                .expect("a commitment")
                .to_owned();
            let value = record.value.expect("kept");
            for nonce in value[8..].chunks_exact(4) {
                let nonce = u32::from_be_bytes(nonce.try_into().expect("four bytes"));
                assert!(
                    seen.entry(hash.clone()).or_default().insert(nonce),
                    "nonce {nonce} of {hash} was taken twice"
                );
                stored += 1;
            }
        }
        for record in store.load("winner:").expect("it can be read") {
            let winner = SignedTicket::from_record(&record).expect("a winner");
            winner.ticket.verify(&winner.signature.0).expect("signed");
        }
        stored
    }
}

/// Waits until somebody does.
fn listens(port: u16) {
    let until = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "nobody listens");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The line that says why a job ended.
fn reason(log: &str) -> &str {
    let mut errors = log.lines().filter(|line| line.starts_with("error: "));
    let reason = errors.next().unwrap_or_else(|| panic!("no reason: {log}"));
    assert!(errors.next().is_none(), "{log}");
    reason
}

#[test]
fn whoever_is_killed_the_books_stay_right() {
    let times = std::env::var("LIVEPEER_CRASHES").ok();
    let times: u64 = times.and_then(|n| n.parse().ok()).unwrap_or(4);
    let seed = std::env::var("LIVEPEER_CRASH_SEED").ok();
    let seed: u8 = seed.and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut rng = Rng::new([seed; 32]);
    let mut ended: BTreeMap<String, u32> = BTreeMap::new();
    let mut clean = 0;
    for round in 0..times {
        let after = Duration::from_millis(200 + rng.below(6_000));
        let victim = ["signer", "recipient", "gateway", "payer"][(round % 4) as usize];
        let stage = Stage::new(&format!("crash-{seed}-{round}"));
        let (mut network, mut signer) = (stage.network(), stage.signer());
        let mut job = stage.job("job.log", "7s", victim == "payer");
        thread::sleep(after);
        match victim {
            "signer" => {
                signer.kill();
                signer = stage.signer();
            }
            "recipient" => {
                network.kill();
                network = stage.network();
            }
            _ => {
                job.kill();
                job = stage.job("job2.log", "2s", victim == "payer");
            }
        }
        let code = job.wait(Duration::from_secs(60)).code();
        let log = match victim {
            "gateway" | "payer" => stage.read("job2.log"),
            _ => stage.read("job.log"),
        };
        if code == Some(0) {
            clean += 1;
        } else {
            // Without its recipient a job has nowhere to go; everything else has to go on.
            assert_eq!(victim, "recipient", "{round}, after {after:?}: {log}");
            let words = reason(&log).replace(|c: char| c.is_ascii_digit(), "");
            *ended.entry(words).or_default() += 1;
        }
        signal(network.0.id(), "TERM");
        network.wait(Duration::from_secs(20));
        drop(signer);
        let (told, stored) = (stage.credited(), stage.check_books());
        // A recipient may be gone before its first payment.
        assert!(
            told > 0 || victim == "recipient",
            "{round}: nothing was paid: {}",
            stage.read("network.log")
        );
        let again = stage.read("network.log").contains("already seen");
        assert!(!again, "{round}: a nonce was spent twice");
        assert!(
            told <= stored,
            "{told} tickets were spoken of, {stored} are stored"
        );
    }
    println!("{times} crashes: {clean} jobs went on to their end; {ended:?}");
}
