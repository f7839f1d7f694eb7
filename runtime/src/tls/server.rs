//! The certificate and key that a server shows.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use livepeer_core::Time;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

use super::{H2, HTTP11, provider, seed};
use crate::lock;

/// How long an orchestrator's certificate is valid (handshake spec 1.1).
const CERTIFICATE_LIFE: Duration = Duration::from_secs(8765 * 3600);

/// A certificate chain, leaf first, and its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A fresh certificate like the one an orchestrator makes on every start (handshake spec 1.1): ECDSA P-256,
    /// empty subject, `host` as the only DNS name even when it is an address, CA flag, server-auth usage, valid
    /// for 8765 hours from `now`, random serial.
    ///
    /// # Errors
    /// If `host` is not ASCII.
    pub fn self_signed(host: &str, now: Time) -> Result<Self, BadIdentity> {
        let (certificate, key) = make(host, now)?;
        Ok(Self {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// Makes a self-signed identity as PEM, certificate and private key one after the other: for another process, or
    /// another start.
    ///
    /// # Errors
    /// If `host` is not ASCII.
    pub fn self_signed_pem(host: &str, now: Time) -> Result<String, BadIdentity> {
        let (certificate, key) = make(host, now)?;
        Ok(certificate.pem() + &key.serialize_pem())
    }

    /// Reads PEM: all certificates of one text, leaf first, and the first private key of the other.
    ///
    /// # Errors
    /// If either is missing or malformed.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, BadIdentity> {
        let chain = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| BadIdentity(format!("the certificate is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(BadIdentity(
                "there is no certificate in the PEM text".into(),
            ));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| BadIdentity(format!("the private key is not PEM: {error}")))?;
        Ok(Self { chain, key })
    }

    /// Reads an identity as [`Identity::from_pem`] does, from files.
    ///
    /// # Errors
    /// Also if a file cannot be read.
    pub fn from_pem_files(
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, BadIdentity> {
        let read = |path: &Path| {
            std::fs::read(path)
                .map_err(|error| BadIdentity(format!("cannot read {}: {error}", path.display())))
        };
        Self::from_pem(&read(certificates.as_ref())?, &read(key.as_ref())?)
    }

    /// The leaf.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// The SHA-256 of the leaf, which is what clients remember.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.certificate()).into()
    }
}

fn make(host: &str, now: Time) -> Result<(rcgen::Certificate, KeyPair), BadIdentity> {
    let made = |error: rcgen::Error| BadIdentity(error.to_string());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::DnsName(host.try_into().map_err(made)?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let from = SystemTime::UNIX_EPOCH + Duration::from_nanos(now.as_nanos());
    params.not_before = from.into();
    params.not_after = (from + CERTIFICATE_LIFE).into();
    params.serial_number = Some(SerialNumber::from_slice(&seed()[..16]));
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(made)?;
    let certificate = params.self_signed(&key).map_err(made)?;
    Ok((certificate, key))
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// There is no usable certificate and key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadIdentity(String);

/// The configuration of a server that shows `identity` and offers HTTP/2 and HTTP/1.1.
///
/// # Errors
/// If the key does not fit the certificate.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, BadIdentity> {
    Ok(CurrentIdentity::new(identity)?.server_config())
}

/// The identity that servers show, which can be replaced while they serve: later handshakes show the other one. Clones
/// are one.
#[derive(Clone, Debug)]
pub struct CurrentIdentity(Arc<Shown>);

#[derive(Debug)]
struct Shown(Mutex<Arc<CertifiedKey>>);

impl CurrentIdentity {
    /// Begins with `identity`.
    ///
    /// # Errors
    /// If the key does not fit the certificate.
    pub fn new(identity: &Identity) -> Result<Self, BadIdentity> {
        let shown = Mutex::new(certified(identity)?);
        Ok(Self(Arc::new(Shown(shown))))
    }

    /// Goes on with `identity` from the next handshake on, and says whether its certificates are others.
    ///
    /// # Errors
    /// If the key does not fit the certificate: nothing changes then.
    pub fn replace(&self, identity: &Identity) -> Result<bool, BadIdentity> {
        let new = certified(identity)?;
        let old = std::mem::replace(&mut *lock(&self.0.0), Arc::clone(&new));
        Ok(old.cert != new.cert)
    }

    /// The configuration of a server that shows it, and offers HTTP/2 and HTTP/1.1.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for every version of TLS that rustls knows")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.0) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![H2.to_vec(), HTTP11.to_vec()];
        Arc::new(config)
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&lock(&self.0)))
    }
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, BadIdentity> {
    let (chain, key) = (identity.chain.clone(), identity.key.clone_key());
    CertifiedKey::from_der(chain, key, &provider())
        .map(Arc::new)
        .map_err(|error| BadIdentity(format!("the certificate and key do not fit: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(der: &[u8], part: &[u8]) -> bool {
        der.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn a_certificate_of_ours_has_the_quirks_of_an_orchestrators() {
        // 2023-11-14T22:13:20Z; 8765 hours later it is 2024-11-14T03:13:20Z.
        let now = Time::from_secs(1_700_000_000);
        let made = Identity::self_signed("127.0.0.1", now).expect("an address is ASCII");
        let der: &[u8] = made.certificate();
        // The one name is a dNSName although it is an address; critical, as the subject is empty.
        assert!(has(
            der,
            b"\x55\x1d\x11\x01\x01\xff\x04\x0d\x30\x0b\x82\x09127.0.0.1"
        ));
        // basicConstraints, critical: CA.
        assert!(has(
            der,
            b"\x55\x1d\x13\x01\x01\xff\x04\x05\x30\x03\x01\x01\xff"
        ));
        // extKeyUsage: serverAuth.
        assert!(has(
            der,
            b"\x55\x1d\x25\x04\x0c\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01"
        ));
        // Validity, then the empty subject, then a P-256 key.
        assert!(has(
            der,
            b"\x17\x0d231114221320Z\x17\x0d241114031320Z\x30\x00\x30\x59"
        ));
        assert!(has(der, b"\x2a\x86\x48\xce\x3d\x03\x01\x07"));
        let again = Identity::self_signed("127.0.0.1", now).expect("an address is ASCII");
        assert_ne!(made.sha256(), again.sha256());
    }

    #[test]
    fn pem_files_are_read_and_damaged_ones_explained() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let certificate = CertificateParams::new(vec!["example.org".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .expect("a certificate");
        let (pem, key) = (certificate.pem(), key.serialize_pem());
        let read = Identity::from_pem(pem.as_bytes(), key.as_bytes()).expect("it is PEM");
        assert_eq!(read.certificate(), certificate.der());
        server_config(&read).expect("they fit");
        for (certificate, key, why) in [
            ("", key.as_str(), "no certificate"),
            (&pem, "", "private key"),
            (&pem, &pem, "private key"),
        ] {
            let error = Identity::from_pem(certificate.as_bytes(), key.as_bytes());
            let error = error.expect_err("it is damaged").to_string();
            assert!(error.contains(why), "{error}");
        }
        let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mixed = Identity::from_pem(pem.as_bytes(), other.serialize_pem().as_bytes());
        let error = server_config(&mixed.expect("it is PEM")).expect_err("they do not fit");
        assert!(error.to_string().contains("do not fit"), "{error}");
        let current = CurrentIdentity::new(&read).expect("they fit");
        let mixed = Identity::from_pem(pem.as_bytes(), other.serialize_pem().as_bytes());
        let replaced = current.replace(&mixed.expect("it is PEM"));
        replaced.expect_err("they do not fit");
        let shown = Arc::clone(&lock(&current.0.0));
        assert_eq!(shown.cert[0], *read.certificate(), "it stays");
        let error = Identity::from_pem_files("/nowhere/cert.pem", "/nowhere/key.pem");
        let error = error.expect_err("there is no such file").to_string();
        assert!(error.contains("/nowhere/cert.pem"), "{error}");
    }
}
