//! A socket that listens, before and after there is a machine behind it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use livepeer_core::Time;
use livepeer_core::http::Url;
use livepeer_runtime::http::{Limits, Server};
use livepeer_runtime::{Drivable, Driver, Handle, Runtime};

use crate::ui::Failed;

/// An address that is listened on already.
pub(super) struct Socket<R: Runtime> {
    listener: R::Listener,
    address: SocketAddr,
    option: &'static str,
}

impl<R: Runtime> Socket<R> {
    /// Listens.
    ///
    /// # Errors
    /// If the address cannot be listened on; `option` would name another.
    pub(super) async fn open(
        driver: &Driver<R>,
        at: SocketAddr,
        option: &'static str,
    ) -> Result<Self, Failed> {
        let failed = |error| Failed::listen(at, option, &error);
        let listener = driver.runtime().bind(at).await.map_err(failed)?;
        let address = driver.runtime().local_addr(&listener).map_err(failed)?;
        Ok(Self {
            listener,
            address,
            option,
        })
    }

    /// The port, also if any free one was asked for.
    pub(super) const fn port(&self) -> u16 {
        self.address.port()
    }

    /// The socket's address for this machine.
    pub(super) fn url(&self, scheme: &str) -> Result<Url, Failed> {
        let mut at = self.address;
        if at.ip().is_unspecified() {
            at.set_ip(match at.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Url::parse(&format!("{scheme}://{at}")).map_err(|error| {
            Failed::new(
                format_args!("{at} makes no URL: {error}"),
                format_args!("Choose another address with {}", self.option),
            )
        })
    }

    /// Lets peers talk to a machine, within limits.
    ///
    /// # Errors
    /// If the system does not tell its address.
    pub(super) fn serve<M: Drivable>(
        self,
        handle: &Handle<M, R>,
        tls: Option<Arc<rustls::ServerConfig>>,
        limits: Limits,
    ) -> Result<Server<R>, Failed> {
        Server::serve_within(handle, self.listener, tls, limits)
            .map_err(|error| Failed::listen(self.address, self.option, &error))
    }
}

/// Sleeps until then, and no shorter.
pub(super) async fn sleep_until<R: Runtime>(driver: &Driver<R>, due: Time) {
    // A sleep may end early.
    while driver.now() < due {
        driver.runtime().sleep_until(due).await;
    }
}
