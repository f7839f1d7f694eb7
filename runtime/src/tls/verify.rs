//! Verifiers of servers' certificates, and the configurations they sit in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use livepeer_core::http::{Fault, Protocol, Trust, Url};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use sha2::{Digest as _, Sha256};

use super::pins::hex;
use super::{H2, HTTP11, Pins, provider};
use crate::lock;
use crate::signal::{Signal, Stop};

/// The parts that TLS configurations are made from. Shared by all connections of a client.
#[derive(Default)]
pub(crate) struct Connectors {
    pins: Pins,
    roots: Option<Arc<RootCertStore>>,
    /// Configurations for publicly trusted peers, by protocol: none of HTTP, HTTP/1.1, HTTP/2 and either. Made when
    /// first needed, as reading the system's roots takes time.
    public: [OnceLock<Arc<ClientConfig>>; 4],
    /// Connections that remembered certificates opened, by host and port.
    opened: Mutex<BTreeMap<String, Vec<Weak<Opened>>>>,
}

/// A remembered certificate that opened a connection; the connection closes when another is accepted in its place.
#[derive(Debug)]
pub(crate) struct Opened {
    leaf: [u8; 32],
    /// Raised when another certificate is accepted in its place.
    pub(crate) closed: Signal,
}

impl Opened {
    /// The reason why the connection is closed.
    pub(crate) fn fault(&self, pins: &Pins, authority: &str) -> Fault {
        Fault::CertificateChanged {
            remembered: self.leaf,
            seen: pins.get(authority).unwrap_or_default(),
        }
    }
}

/// How one handshake's certificate is looked at, and what was seen.
pub(crate) struct Watch {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
    pinned: Option<Pinned>,
}

struct Pinned {
    authority: String,
    seen: Arc<Mutex<Seen>>,
    afresh: bool,
}

#[derive(Debug, Default)]
struct Seen {
    leaf: Option<[u8; 32]>,
    fault: Option<Fault>,
}

impl Connectors {
    pub(crate) fn new(pins: Pins, roots: Option<Arc<RootCertStore>>) -> Self {
        Self {
            pins,
            roots,
            ..Self::default()
        }
    }

    pub(crate) const fn pins(&self) -> &Pins {
        &self.pins
    }

    pub(crate) const fn roots(&self) -> Option<&Arc<RootCertStore>> {
        self.roots.as_ref()
    }

    /// Prepares a handshake: its TLS configuration, and a watch on the certificate that the peer shows. `None` is for
    /// protocols other than HTTP.
    pub(crate) fn watch(
        &self,
        url: &Url,
        trust: Trust,
        protocol: Option<Protocol>,
    ) -> Result<Watch, Fault> {
        let name = ServerName::try_from(url.host().to_owned());
        if trust == Trust::Public {
            let name =
                name.map_err(|_| Fault::Tls(format!("{} cannot be in a certificate", url.host())))?;
            let config = Arc::clone(
                self.public[protocol.map_or(0, |protocol| 1 + protocol as usize)]
                    .get_or_init(|| Arc::new(self.public_config(protocol))),
            );
            return Ok(Watch {
                config,
                name,
                pinned: None,
            });
        }
        let provider = provider();
        let authority = url.authority();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let afresh = trust == Trust::Afresh;
        let verifier = FirstUse {
            pins: (!afresh).then(|| self.pins.clone()),
            authority: authority.clone(),
            seen: Arc::clone(&seen),
            provider: Arc::clone(&provider),
        };
        let mut config = builder(provider)
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = alpn(protocol);
        // A resumed session shows no certificate, and connections are reused anyway.
        config.resumption = Resumption::disabled();
        // A name that DNS would refuse has nothing to tell the server either.
        config.enable_sni = name.is_ok();
        let name = name.unwrap_or(ServerName::IpAddress(
            std::net::Ipv4Addr::UNSPECIFIED.into(),
        ));
        Ok(Watch {
            config: Arc::new(config),
            name,
            pinned: Some(Pinned {
                authority,
                seen,
                afresh,
            }),
        })
    }

    /// The handshake is complete: remembers the certificate, if it is one to remember.
    pub(crate) fn accept(&self, watch: &Watch) -> Result<Option<Arc<Opened>>, Fault> {
        let Some(Pinned {
            authority,
            seen,
            afresh,
        }) = &watch.pinned
        else {
            return Ok(None);
        };
        let leaf = lock(seen).leaf;
        let leaf = leaf.ok_or_else(|| Fault::Tls("the peer showed no certificate".into()))?;
        // One lock over both: nobody opens a connection by a certificate that is replaced meanwhile.
        let mut opened = lock(&self.opened);
        if *afresh {
            if let Some(before) = self.pins.replace(authority, leaf) {
                tracing::warn!(
                    peer = authority,
                    before = %hex(&before),
                    now = %hex(&leaf),
                    "it shows another certificate than before, as after a restart; accepted"
                );
            }
        } else {
            self.pins.remember(authority, leaf)?;
        }
        let others = opened.entry(authority.clone()).or_default();
        if *afresh {
            for other in others.iter().filter_map(Weak::upgrade) {
                if other.leaf != leaf {
                    other.closed.raise(Stop::Now);
                }
            }
        }
        // The dead are counted out when the list would grow.
        if others.len() == others.capacity() {
            others.retain(|other| other.strong_count() > 0);
        }
        let own = Arc::new(Opened {
            leaf,
            closed: Signal::default(),
        });
        others.push(Arc::downgrade(&own));
        Ok(Some(own))
    }

    fn public_config(&self, protocol: Option<Protocol>) -> ClientConfig {
        let roots = self
            .roots
            .clone()
            .unwrap_or_else(|| Arc::new(system_roots()));
        let mut config = builder(provider())
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn(protocol);
        config
    }
}

impl Watch {
    /// The verifier's own words for a handshake that failed, if it was the verifier who stopped it.
    pub(crate) fn fault(&self) -> Option<Fault> {
        lock(&self.pinned.as_ref()?.seen).fault.take()
    }
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for every version of TLS that rustls knows")
}

fn alpn(protocol: Option<Protocol>) -> Vec<Vec<u8>> {
    let names: &[&[u8]] = match protocol {
        None => &[],
        Some(Protocol::Http1) => &[HTTP11],
        Some(Protocol::Http2) => &[H2],
        Some(Protocol::Either) => &[H2, HTTP11],
    };
    names.iter().map(|name| name.to_vec()).collect()
}

/// The system's roots, or the usual ones where the system has none.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// Takes the certificate that was there first, whatever it says, if the peer holds its key.
///
/// Orchestrators sign their own, as CA and with addresses as names, so that no path validation can accept them
/// (handshake spec 1.1): what is compared is the leaf, and what is verified is the handshake's signature.
#[derive(Debug)]
struct FirstUse {
    /// The certificates to compare with; `None` accepts any.
    pins: Option<Pins>,
    authority: String,
    seen: Arc<Mutex<Seen>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for FirstUse {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf: [u8; 32] = Sha256::digest(end_entity).into();
        let mut seen = lock(&self.seen);
        seen.leaf = Some(leaf);
        let known = self.pins.as_ref();
        known
            .map_or(Ok(()), |pins| pins.check(&self.authority, leaf))
            .map(|()| ServerCertVerified::assertion())
            .map_err(|fault| {
                seen.fault = Some(fault);
                CertificateError::ApplicationVerificationFailure.into()
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
