//! The sockets of the gateway: ports, and files of unix sockets.

use livepeer_core::front::Front;
#[cfg(unix)]
use livepeer_runtime::http::LocalSocket;
use livepeer_runtime::http::{Limits, Server};
use livepeer_runtime::tls::CurrentIdentity;
use livepeer_runtime::{Driver, Handle, Runtime};

use super::config::Place;
use crate::cmd::socket::Socket;
use crate::ui::Failed;

/// A socket that listens, before there is a machine behind it.
pub(super) struct Door<R: Runtime> {
    place: Place,
    option: &'static str,
    socket: Kind<R>,
}

enum Kind<R: Runtime> {
    Port(Socket<R>),
    #[cfg(unix)]
    File(LocalSocket),
}

/// Listens at all places. Files of unix sockets get that mode.
///
/// # Errors
/// If a place cannot be listened at; `option` would name another.
pub(super) async fn open<R: Runtime>(
    driver: &Driver<R>,
    places: &[Place],
    mode: u32,
    option: &'static str,
) -> Result<Vec<Door<R>>, Failed> {
    let mut doors = Vec::new();
    for place in places {
        let socket = match place {
            Place::Port(at) => Kind::Port(Socket::open(driver, *at, option).await?),
            Place::File(path) => {
                file(path, mode).map_err(|error| Failed::listen(place, option, &error))?
            }
        };
        doors.push(Door {
            place: place.clone(),
            option,
            socket,
        });
    }
    Ok(doors)
}

#[cfg(unix)]
fn file<R: Runtime>(path: &std::path::Path, mode: u32) -> std::io::Result<Kind<R>> {
    LocalSocket::bind(path, mode).map(Kind::File)
}

#[cfg(not(unix))]
fn file<R: Runtime>(_: &std::path::Path, _: u32) -> std::io::Result<Kind<R>> {
    Err(std::io::ErrorKind::Unsupported.into())
}

impl<R: Runtime> Door<R> {
    /// The address as callers on this machine say it.
    pub(super) fn address(&self, secure: bool) -> Result<String, Failed> {
        match &self.socket {
            Kind::Port(socket) => {
                let scheme = if secure { "https" } else { "http" };
                Ok(socket.url(scheme)?.to_string())
            }
            #[cfg(unix)]
            Kind::File(_) => Ok(self.place.to_string()),
        }
    }

    /// Lets applications in. A port shows the certificate, if there is one; a unix socket, which a proxy on this machine
    /// talks to, speaks plain HTTP.
    ///
    /// # Errors
    /// If the system does not let the runtime watch the socket.
    pub(super) fn serve(
        self,
        front: &Handle<Front, R>,
        shown: Option<&CurrentIdentity>,
        limits: Limits,
    ) -> Result<Server<R>, Failed> {
        match self.socket {
            Kind::Port(socket) => {
                socket.serve(front, shown.map(CurrentIdentity::server_config), limits)
            }
            #[cfg(unix)]
            Kind::File(socket) => Server::serve_local(front, socket, limits)
                .map_err(|error| Failed::listen(&self.place, self.option, &error)),
        }
    }
}
