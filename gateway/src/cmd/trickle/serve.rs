//! `trickle serve`: a server of channels.

use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;
use livepeer_core::Time;
use livepeer_core::trickle::ContentType;
use livepeer_core::trickle::server::{Config, Event, Refused, Server};
use livepeer_runtime::tls::{Identity, server_config};
use livepeer_runtime::{Driver, Handle, Runtime, http};
use rustls::ServerConfig;
use tracing::info;

use crate::args::ServeArgs;
use crate::cmd::on;
use crate::cmd::stop::Stop;
use crate::ui::{self, Failed, Outcome};

/// How long closing may take beyond the time that the readers are given.
const SPARE: Duration = Duration::from_secs(1);

/// How long a reader that was between two requests has to come and hear that its channel is over.
const LINGER: Duration = Duration::from_millis(300);

pub(super) struct Serve<'a>(pub(super) &'a ServeArgs);

impl on::Work for Serve<'_> {
    async fn on<R: Runtime>(self, driver: Driver<R>, stop: Stop) -> Outcome {
        let args = self.0;
        let tls = tls(args, driver.now())?;
        let channels = driver.drive(Server::new(driver.now(), config(args)));
        for new in &args.create {
            let content = ContentType::new(&new.content);
            channels
                .with(|server, now| server.create_channel(now, &new.name, content))
                .map_err(|refused| cannot_create(&new.name, refused))?;
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let socket = http::Server::bind(&channels, args.listen.0, tls)
            .await
            .map_err(|error| Failed::listen(args.listen.0, "--listen", &error))?;
        stop.in_order(args.drain + SPARE);
        ui::print(&format!("{scheme}://{}{}", socket.local_addr(), args.base))?;
        let until = args.life.map(|life| driver.now() + life);
        future::or(
            future::or(stop.pressed(), end_of(driver.runtime(), until)),
            tell(&channels),
        )
        .await;
        // First the readers hear that it is over, and get what there is; then the sockets close.
        let deadline = driver.now() + args.drain;
        channels.with(|server, now| server.close(now));
        future::or(tell(&channels), end_of(driver.runtime(), Some(deadline))).await;
        let lingers = driver.now() + LINGER;
        end_of(driver.runtime(), Some(deadline.min(lingers))).await;
        socket.shutdown(deadline).await;
        ui::tell("stopped");
        Ok(())
    }
}

fn config(args: &ServeArgs) -> Config {
    Config {
        base: args.base.clone(),
        autocreate: args.autocreate,
        changefeed: args.changefeed,
        figures: args.metrics,
        idle: args.idle,
        sweep: args.sweep,
        max_segment_bytes: args.max_segment.get(),
        stall_within: args.max_stall,
        max_outside_bytes: args.max_outside.get(),
        max_channels: args.max_channels.get(),
        max_channel_guests: args.max_guests.get(),
        ..Config::default()
    }
}

fn tls(args: &ServeArgs, now: Time) -> Result<Option<Arc<ServerConfig>>, Failed> {
    let identity = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Identity::from_pem_files(cert, key),
        _ if args.tls => Identity::self_signed(&args.listen.0.ip().to_string(), now),
        _ => return Ok(None),
    };
    identity
        .and_then(|identity| server_config(&identity))
        .map(Some)
        .map_err(|error| {
            Failed::new(
                format_args!("cannot serve over TLS: {error}"),
                "Give the chain with --cert and its key with --key, both as PEM",
            )
        })
}

fn cannot_create(name: &str, refused: Refused) -> Failed {
    let remedy = match refused {
        Refused::TooManyChannels => "Raise --max-channels",
        _ => "Choose another name",
    };
    Failed::new(
        format_args!("cannot create channel {name}: {refused}"),
        remedy,
    )
}

/// Logs what happens, until the server is closed and everybody has been answered.
async fn tell<R: Runtime>(channels: &Handle<Server, R>) {
    while let Some(event) = channels.next().await {
        match event {
            Event::Created(name) => info!(%name, "channel created"),
            Event::Removed(name, why) => info!(%name, ?why, "channel removed"),
            Event::Closed(_) => return,
            _ => {}
        }
    }
}

async fn end_of<R: Runtime>(runtime: &R, until: Option<Time>) {
    let Some(until) = until else {
        return future::pending().await;
    };
    // A sleep may end early.
    while runtime.now() < until {
        runtime.sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::tests::parsed;
    use crate::args::{Command, TrickleCommand};

    fn configured(line: &str) -> Config {
        match parsed(&format!("trickle serve {line}")) {
            Ok(Command::Trickle(args)) => match args.command {
                TrickleCommand::Serve(args) => config(&args),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_stalled_readers_may_hold_is_as_the_command_line_says() {
        let said = configured("--max-stall 2s --max-outside 8MiB");
        assert_eq!(said.stall_within, Duration::from_secs(2));
        assert_eq!(said.max_outside_bytes, 8 << 20);
        let (unsaid, usual) = (configured(""), Config::default());
        assert_eq!(unsaid.stall_within, usual.stall_within);
        assert_eq!(unsaid.max_outside_bytes, usual.max_outside_bytes);
    }
}
