//! Containers and apps of the development network, and their prices.

use livepeer_core::money::Price;
use livepeer_core::payment::Unit;
use livepeer_core::wire::byoc::Scheme;
use livepeer_core::wire::runner::Mode;
use livepeer_orchestrator::{App, AppPrice, Config, Container, Tempo, Worker};

use crate::args::{AppChoice, BatchArgs, ProgramArgs};

/// Wei for a second of a container or a session: an eightieth of the usual ticket.
const SECOND: i64 = 100_000_000;

/// Wei for a single call: half of the usual ticket.
const CALL: i64 = 4_000_000_000;

/// Adds the containers and apps to an orchestrator. They take as long as batch models do.
pub(super) fn with_programs(mut config: Config, args: &ProgramArgs, batch: &BatchArgs) -> Config {
    let tempo = Tempo {
        takes: batch.work_time,
        pace: batch.token_time,
    };
    for name in args.containers() {
        let container = Container {
            capacity: batch.capacity,
            price: Price::new(SECOND, 1).expect("a positive number is a price"),
            ..Container::new(Worker::Echo(tempo))
        };
        config = config.with_container(name, container);
    }
    for choice in args.apps() {
        let (mode, worker, wei, unit) = match choice {
            AppChoice::Echo => (Mode::SingleShot, Worker::Echo(tempo), CALL, Unit::Fixed),
            AppChoice::Session => (Mode::Persistent, Worker::Echo(tempo), SECOND, Unit::Seconds),
            AppChoice::Live | AppChoice::None => {
                (Mode::Persistent, Worker::Live(tempo), SECOND, Unit::Seconds)
            }
        };
        let app = App {
            capacity: batch.capacity,
            price: Some(AppPrice { wei, unit }),
            ..App::new(name(choice), mode, worker)
        };
        config = config.with_app(choice.name(), app);
    }
    // Remote signers sign in the newer way, and payers with a key of their own in the one of today.
    config.job_schemes = Scheme::ALL.to_vec();
    config.register_secret.clone_from(&args.register_secret);
    config
}

/// The name by which an app is looked for.
pub(super) fn name(choice: AppChoice) -> String {
    format!("devnet/{}", choice.name())
}
