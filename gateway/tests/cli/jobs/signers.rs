//! Several signers of one account, of which the first takes connections and never answers.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use livepeer_tokio::Gateway;

use super::{Devnet, SPEED, job};

/// The longest that a silent signer may hold things up, with room for a busy machine. Without memory and haste it
/// would be fifteen seconds.
const SOON: Duration = Duration::from_secs(5);

struct Silent(TcpListener);

impl Silent {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        listener.set_nonblocking(true).expect("it is a socket");
        Self(listener)
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().expect("it is bound"))
    }

    /// How often somebody connected since this was called last.
    fn asked(&self) -> usize {
        std::iter::from_fn(|| self.0.accept().ok()).count()
    }
}

#[test]
fn a_silent_signer_delays_the_first_job_by_a_second_and_is_not_asked_by_the_next() {
    let net = Devnet::start("tokio");
    let silent = Silent::start();
    let start = async |gateway: &Gateway| {
        let began = Instant::now();
        let (job, ..) = gateway
            .live_video("noop")
            .orchestrator(&net.orchestrator)
            .signer(&silent.url())
            .signer(&net.signer)
            .start()
            .await
            .expect("the other signer pays");
        let took = began.elapsed();
        assert!(took < SOON, "{took:?}");
        job.stop().await.expect("it runs");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let gateway = Gateway::new();
        start(&gateway).await;
        assert_eq!(silent.asked(), 1, "the payment goes to who answered");
        start(&gateway).await;
        assert_eq!(silent.asked(), 0, "it rests");
        let driver = gateway.driver();
        let health = driver.signer_health();
        assert_eq!(health.resting(driver.now()).count(), 1);
    });
    net.stop();
}

#[test]
fn the_command_takes_several_signers_and_does_not_wait_for_a_silent_one() {
    let net = Devnet::start("smol");
    let silent = Silent::start();
    let signers = format!("{},{}", silent.url(), net.signer);
    let began = Instant::now();
    let options = ["--model-id", "noop", "--speed", SPEED, "--runtime", "smol"];
    let ended = job(&net.orchestrator, &signers, &options);
    ended.succeeded();
    assert_eq!(silent.asked(), 1);
    let took = began.elapsed();
    // Twelve seconds of video, eight times as fast.
    assert!(took < SOON + Duration::from_secs(5), "{took:?}");
    net.stop();
}
