//! Settings of signer and trust that commands share, in the terms of the library.

use std::fs;
use std::path::Path;

use livepeer_core::Signers;
use livepeer_core::handshake::PinChange;
use livepeer_core::http::{Headers, Trust};
use livepeer_runtime::api::Payer;
use livepeer_runtime::{Driver, Pins, Runtime};

use super::files;
use crate::args::{Endpoints, PeerArgs, Signer};
use crate::ui::Failed;

/// The payer that the endpoints name.
pub(super) fn payer(endpoints: &Endpoints) -> Payer {
    pays(endpoints.signer.as_ref())
}

/// The payer: the signer, or nobody if there is none.
pub(super) fn pays(signer: Option<&Signer>) -> Payer {
    match signer {
        None => Payer::Offchain,
        Some(signer) => {
            let mut headers = Headers::new();
            for header in &signer.headers {
                headers.push_any(&header.name, header.value.as_str());
            }
            let first = Signers::new(signer.url.clone());
            let all = signer.others.iter().cloned().fold(first, Signers::or);
            Payer::Remote(all.headers(headers))
        }
    }
}

/// Certificates that are good enough for orchestrators.
pub(super) const fn trust(peers: &PeerArgs) -> Trust {
    if peers.ca_trust {
        Trust::Public
    } else {
        Trust::FirstUse
    }
}

/// The treatment of a certificate that changed. Orchestrators make a new one at every start, so it is accepted once,
/// logged, and remembered from then on.
pub(super) const fn pin_change(peers: &PeerArgs) -> PinChange {
    if peers.pins_strict {
        PinChange::Refuse
    } else {
        PinChange::AcceptOnce
    }
}

/// The driver with the certificates remembered in the file of pins, if there is one.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn with_pins<R: Runtime>(
    driver: Driver<R>,
    peers: &PeerArgs,
) -> Result<Driver<R>, Failed> {
    with_pins_of(driver, peers.pins.as_deref())
}

/// The driver with the certificates remembered in a file, if there is one.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn with_pins_of<R: Runtime>(
    driver: Driver<R>,
    file: Option<&Path>,
) -> Result<Driver<R>, Failed> {
    let Some(path) = file else {
        return Ok(driver);
    };
    let name = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => {
            let pins: Pins = text.parse().map_err(|error| {
                Failed::new(
                    format_args!("{name}: {error}"),
                    "Correct the line, or remove the file",
                )
            })?;
            Ok(driver.with_pins(pins))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(driver),
        Err(error) => Err(Failed::file("cannot read", &name, &error)),
    }
}

/// Writes the certificates seen to the file of pins, if there is one: whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub(super) fn save_pins<R: Runtime>(driver: &Driver<R>, peers: &PeerArgs) -> Result<(), Failed> {
    save_pins_to(driver, peers.pins.as_deref())
}

/// Writes the certificates seen to a file, if there is one: whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub(super) fn save_pins_to<R: Runtime>(
    driver: &Driver<R>,
    file: Option<&Path>,
) -> Result<(), Failed> {
    let Some(path) = file else {
        return Ok(());
    };
    files::replace(path, &driver.pins().to_string())
        .map_err(|error| Failed::file("cannot write", &path.display().to_string(), &error))
}
