//! Connecting: from a URL to a stream that speaks the wanted HTTP.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_rustls::TlsConnector;
use livepeer_core::http::{Fault, Protocol, Trust, Url};
use rustls::AlertDescription;

use super::io::{Heard, HyperIo, Io, Wire};
use crate::rt::Runtime;
use crate::tls::{Connectors, H2, Opened, Watch};

/// How long one address of a name may take before the next is tried beside it.
const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);
/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;

/// A stream to a peer.
pub(super) struct Connected<R: Runtime> {
    pub(super) stream: Io<Wire<R::Stream>>,
    /// The remembered certificate that opened it, if one did: the stream is to be closed with it.
    pub(super) opened: Option<Arc<Opened>>,
    /// Whether the peer chose HTTP/2.
    pub(super) http2: bool,
}

/// Connects, with TLS if the URL wants it; `heard` counts from then on. `None` is for protocols other than HTTP.
pub(super) async fn connect<R: Runtime>(
    runtime: &R,
    connectors: &Connectors,
    url: &Url,
    trust: Trust,
    protocol: Option<Protocol>,
    heard: Heard,
) -> Result<Connected<R>, Fault> {
    let watch = match url.is_secure() {
        true => Some(connectors.watch(url, trust, protocol)?),
        false => None,
    };
    let stream = Wire::new(dial(runtime, url).await?, heard);
    match watch {
        None => Ok(Connected {
            stream: Io::Plain(stream),
            opened: None,
            http2: protocol == Some(Protocol::Http2),
        }),
        Some(watch) => {
            let handshake = TlsConnector::from(watch.config.clone())
                .connect(watch.name.clone(), HyperIo(stream))
                .await;
            let stream = handshake.map_err(|error| tls_fault(&error, &watch, protocol))?;
            let http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
            if protocol == Some(Protocol::Http2) && !http2 {
                return Err(no_http2());
            }
            let opened = connectors.accept(&watch)?;
            Ok(Connected {
                stream: Io::tls(stream.into()),
                opened,
                http2,
            })
        }
    }
}

async fn dial<R: Runtime>(runtime: &R, url: &Url) -> Result<R::Stream, Fault> {
    let addresses = match url.host().parse() {
        Ok(address) => vec![SocketAddr::new(address, url.port())],
        Err(_) => runtime
            .resolve(url.host(), url.port())
            .await
            .map_err(|error| Fault::Resolve(format!("{}: {error}", url.host())))?,
    };
    // Looked at after the name is resolved, and nothing else is dialled: a name can lead anywhere.
    let (mut allowed, mut refused) = (VecDeque::new(), None);
    for address in addresses.into_iter().take(MAX_ADDRESSES) {
        match url.admits(address.ip()) {
            Ok(()) => allowed.push_back(address),
            Err(forbidden) => refused = Some(forbidden),
        }
    }
    if allowed.is_empty() {
        return Err(match refused {
            Some(forbidden) => forbidden.into(),
            None => Fault::Resolve(format!("{} has no address", url.host())),
        });
    }
    let race = Race {
        runtime: runtime.clone(),
        waiting: allowed,
        running: Vec::new(),
        head_start: None,
        error: None,
    };
    race.await
        .map_err(|error| Fault::Connect(format!("{}: {error}", url.authority())))
}

type Attempt<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// Tries the addresses in order, each with a head start on the next; the first stream wins.
struct Race<R: Runtime> {
    runtime: R,
    waiting: VecDeque<SocketAddr>,
    running: Vec<Attempt<R::Stream>>,
    head_start: Option<Pin<Box<R::Sleep>>>,
    error: Option<io::Error>,
}

impl<R: Runtime> Future for Race<R> {
    type Output = io::Result<R::Stream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let mut i = 0;
            while i < this.running.len() {
                match this.running[i].as_mut().poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        this.error = Some(error);
                        drop(this.running.swap_remove(i));
                        // Nobody needs a head start over the dead.
                        this.head_start = None;
                    }
                    Poll::Pending => i += 1,
                }
            }
            if let Some(head_start) = &mut this.head_start {
                std::task::ready!(head_start.as_mut().poll(cx));
                this.head_start = None;
            }
            let Some(address) = this.waiting.pop_front() else {
                return match (this.running.is_empty(), this.error.take()) {
                    (true, error) => Poll::Ready(Err(error.unwrap_or_else(|| {
                        io::Error::new(io::ErrorKind::NotFound, "no address left to try")
                    }))),
                    (false, error) => {
                        this.error = error;
                        Poll::Pending
                    }
                };
            };
            let runtime = this.runtime.clone();
            this.running
                .push(Box::pin(async move { runtime.connect(address).await }));
            if !this.waiting.is_empty() {
                let until = this.runtime.now() + ADDRESS_HEAD_START;
                this.head_start = Some(Box::pin(this.runtime.sleep_until(until)));
            }
        }
    }
}

fn no_http2() -> Fault {
    Fault::Protocol("it does not offer HTTP/2, which gRPC needs".into())
}

fn tls_fault(error: &io::Error, watch: &Watch, protocol: Option<Protocol>) -> Fault {
    if let Some(fault) = watch.fault() {
        return fault;
    }
    let tls = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => Fault::Protocol(
            "it answers a TLS handshake with something else; perhaps it is an http:// server"
                .into(),
        ),
        Some(
            rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            | rustls::Error::NoApplicationProtocol,
        ) => match protocol {
            Some(Protocol::Http2) => no_http2(),
            Some(Protocol::Either) => {
                Fault::Protocol("it offers neither HTTP/2 nor HTTP/1.1".into())
            }
            _ => Fault::Protocol("it does not offer HTTP/1.1".into()),
        },
        Some(rustls::Error::InvalidCertificate(why)) => Fault::Untrusted(why.to_string()),
        Some(error) => Fault::Tls(error.to_string()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Fault::Tls("it closed the connection in the handshake".into())
        }
        None => Fault::Tls(error.to_string()),
    }
}
