//! `devnet`: the development network as a service.

mod batch;
mod chaos;
pub(super) mod demo;
mod network;
mod past;
pub(super) mod process;
mod programs;

use std::path::Path;
use std::sync::Arc;

use livepeer_runtime::{Driver, LocalKey, Runtime};
use zeroize::Zeroizing;

use super::on;
use super::stop::Stop;
use crate::args::DevnetArgs;
use crate::ui::{self, Failed, Outcome};
use chaos::Crowd;
use network::{CLOCK, CLOSES_WITHIN, LIVE, NOOP, Network, Options, RETIME, Tell, Work, fresh_key};
use process::{Kind, Process};

/// Where a key for the signer may be given; command lines are seen by everybody on the machine.
const KEY: &str = "LIVEPEER_DEVNET_KEY";

/// The clip that comes with the sources.
const CLIP: &str = "gateway/media/testsrc-360p30-12s.ts";

pub(super) fn run(args: &DevnetArgs) -> Outcome {
    on::run(args.runtime, Devnet(args))
}

struct Devnet<'a>(&'a DevnetArgs);

impl on::Work for Devnet<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let key = match std::env::var(KEY) {
            Ok(text) => LocalKey::from_hex(&Zeroizing::new(text)).map_err(|_| bad_key())?,
            Err(std::env::VarError::NotPresent) => fresh_key(),
            Err(std::env::VarError::NotUnicode(_)) => return Err(bad_key()),
        };
        let tell: Tell = Arc::new(ui::tell);
        let work = Work {
            join: args.join,
            offchain: args.offchain,
            quote_life: args.quote_life,
            batch: args.batch.clone(),
            programs: args.programs.clone(),
        };
        let processes = if args.processes || args.chaos.is_some() {
            let count = args.orchestrators.get();
            let kind = Kind {
                runtime: args.runtime,
                work: work.clone(),
            };
            process::start_all(
                args.listen,
                count,
                &kind,
                &args.quirks(),
                driver.now(),
                &tell,
            )?
        } else {
            Vec::new()
        };
        let options = Options {
            listen: args.listen,
            signer_listen: args.signer_listen,
            orchestrators: args.orchestrators,
            data: args.data.clone(),
            key,
            work,
            quirks: args.quirks(),
            elsewhere: processes.iter().map(|one| one.url().clone()).collect(),
        };
        let network = Network::start(&driver, options, tell.clone()).await?;
        // Processes are asked to end one after the other.
        stop.in_order(CLOSES_WITHIN + process::ENDS_WITHIN * processes.len() as u32);
        let chaos = args.chaos.map(|seed| seed.unwrap_or_else(some_seed));
        ui::print(&introduction(&network, &processes, chaos, args))?;
        let crowd = Crowd::keep(processes, chaos, tell);
        stop.pressed().await;
        crowd.end();
        network.stop().await;
        ui::tell("stopped");
        Ok(())
    }
}

/// The text that says what the network has, and what to do with it.
fn introduction<R: Runtime>(
    network: &Network<R>,
    processes: &[Process],
    chaos: Option<u64>,
    args: &DevnetArgs,
) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for url in network.orchestrators() {
        line(format!("orchestrator  {url}  models {}", LIVE.join(", ")));
    }
    for one in processes {
        let id = one
            .id()
            .map_or_else(String::new, |id| format!("  process {id}"));
        line(format!(
            "orchestrator  {}  models {}{id}",
            one.url(),
            LIVE.join(", ")
        ));
    }
    let signer = network.signer();
    for (pipeline, model) in args.batch.models() {
        line(format!("batch         {pipeline}  model {model}"));
    }
    for container in args.programs.containers() {
        line(format!("container     {container}"));
    }
    for app in args.programs.apps() {
        line(format!("app           {}", programs::name(app)));
    }
    let paid = if args.offchain {
        line(format!("list          {signer}/discover-orchestrators"));
        "--offchain".to_owned()
    } else {
        line(format!(
            "signer        {signer}  pays as {}",
            network.payer()
        ));
        format!("--signer {signer}")
    };
    line(String::new());
    line("Try in another terminal:".to_owned());
    let me = std::env::args()
        .next()
        .unwrap_or_else(|| "livepeer-gateway".to_owned());
    let me = quoted(&me);
    let input = if Path::new(CLIP).exists() {
        CLIP
    } else {
        "INPUT.ts"
    };
    let elsewhere = processes.iter().map(Process::url);
    if let Some(url) = network.orchestrators().chain(elsewhere).next() {
        let asks = if args.offchain {
            ""
        } else {
            &format!(" {paid}")
        };
        line(format!("  {me} info {url}{asks}"));
        for (model, output) in [
            (NOOP, "out.ts"),
            (RETIME, "retimed.ts"),
            (CLOCK, "clock.ts"),
        ] {
            line(format!(
                "  {me} live --orchestrator {url} {paid} --model-id {model} \
                 --input {input} --output {output}"
            ));
        }
        line(format!("  cmp {input} out.ts"));
    }
    line(String::new());
    if let Some(seed) = chaos {
        line(format!(
            "Chaos with seed {seed}: --chaos={seed} does the same again."
        ));
    }
    line("Ctrl-C stops it.".to_owned());
    text
}

fn some_seed() -> u64 {
    let [a, b, c, d, ..] = livepeer_runtime::seed();
    u32::from_be_bytes([a, b, c, d]).into()
}

/// A word as shells take it.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./+:,=@%".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn bad_key() -> Failed {
    Failed::new(
        format_args!("{KEY} holds no secret key of secp256k1"),
        "Set it to 64 hexadecimal digits, or unset it for a fresh key",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell_if_they_need_it() {
        assert_eq!(
            quoted("target/release/livepeer-gateway"),
            "target/release/livepeer-gateway"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
