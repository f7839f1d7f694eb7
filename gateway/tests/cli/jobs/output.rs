//! A job whose output cannot be written.

use super::*;

/// With such an input a job has no end of its own.
const ENDLESS: [&str; 3] = ["--loop", "--speed", SPEED];

#[test]
fn output_that_cannot_be_written_ends_the_job_and_is_named_beside_what_was_paid() {
    for runtime in RUNTIMES {
        let net = Devnet::start(runtime);
        let more = [&ENDLESS[..], &["--runtime", runtime, "--json"]].concat();
        let ended = run(&live(&net, CLIP, "/dev/full", &more));
        let line = ended.error();
        assert!(line.contains("cannot write to /dev/full"), "{line}");
        let figures = ended.json();
        let cause = figures["error"]["cause"].as_str();
        assert!(cause.is_some_and(|cause| line.contains(cause)), "{figures}");
        assert!(figures["error"]["remedy"].is_string(), "{figures}");
        assert!(figures["payments"].as_u64() >= Some(1), "{figures}");
        let paid: u128 = figures["paid_wei"]
            .as_str()
            .expect("text")
            .parse()
            .expect("whole");
        assert!(paid > 0, "{figures}");
        assert!(figures["paid_wei_exact"].is_string(), "{figures}");
        let second: u128 = figures["wei_per_second"]
            .as_str()
            .expect("text")
            .parse()
            .expect("whole");
        // Parts of a pixel are not billed.
        let price = 100 * 27_648_000;
        assert!(
            second <= price && second > price - price / 1_000,
            "{figures}"
        );
        assert_eq!(figures["rounding_wei"], "0", "{figures}");
        let said = net.stop();
        assert!(said.contains("its input is over"), "left in order: {said}");
    }
}

#[test]
fn a_reader_that_has_read_enough_ends_the_job_well() {
    let net = Devnet::start("tokio");
    let mut job = start(&live(&net, CLIP, "-", &ENDLESS));
    assert_eq!(job.read(20_000), clip_bytes()[..20_000]);
    drop(job.0.stdout.take());
    let ended = job.end(Vec::new());
    ended.succeeded();
    assert!(
        ended
            .stderr
            .contains("standard output was closed by its reader"),
        "{}",
        ended.stderr
    );
    net.stop();
}
