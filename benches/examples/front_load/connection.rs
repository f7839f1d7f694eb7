//! A connection that asks and reads answers, plain or over TLS, as little as HTTP/1.1 takes.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// A peer that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// At most this much is read of an answer.
const LONGEST_ANSWER: usize = 64 << 20;

/// A place to ask.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// Reads a URL on loopback.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("not a URL")?;
        let (authority, path) = rest.split_once('/').ok_or("a URL without a path")?;
        let address: SocketAddr = authority
            .parse()
            .map_err(|_| format!("{authority} is no address with a port"))?;
        if !address.ip().is_loopback() {
            return Err(format!("{address} is not on loopback"));
        }
        let tls = match scheme {
            "http" => None,
            "https" => Some(any_certificate()?),
            _ => return Err(format!("{scheme} is neither http nor https")),
        };
        Ok(Self {
            address,
            path: format!("/{path}"),
            tls,
        })
    }

    /// A request with that body.
    pub(crate) fn post(&self, content: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: {content}\r\ncontent-length: {}\r\n\r\n",
            self.path,
            self.address,
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    pub(crate) fn connect(&self) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let wire = match &self.tls {
            None => Wire::Plain(stream),
            Some(config) => {
                let name = ServerName::from(self.address.ip());
                let session =
                    ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                Wire::Tls(Box::new(StreamOwned::new(session, stream)))
            }
        };
        Ok(Connection(BufReader::new(wire)))
    }
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

/// See the [module](self).
pub(crate) struct Connection(BufReader<Wire>);

/// How the end of a body is known.
enum Length {
    Bytes(usize),
    Chunks,
}

impl Connection {
    /// Asks, and reads the whole answer.
    pub(crate) fn call(&mut self, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let (status, length) = self.ask(request)?;
        let mut body = Vec::new();
        match length {
            Length::Bytes(bytes) => {
                body.resize(bytes, 0);
                self.0.read_exact(&mut body)?;
            }
            Length::Chunks => while self.chunk(&mut body)? {},
        }
        Ok((status, body))
    }

    /// Asks, and hands over line after line of the answer until one is refused, or all are there.
    pub(crate) fn stream(
        &mut self,
        request: &[u8],
        mut take: impl FnMut(&str) -> bool,
    ) -> io::Result<u16> {
        let (status, length) = self.ask(request)?;
        if let Length::Bytes(_) = length {
            return Err(bad("an answer that is not streamed"));
        }
        let mut rest = Vec::new();
        while self.chunk(&mut rest)? {
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if !take(&String::from_utf8_lossy(&line)) {
                    return Ok(status);
                }
            }
        }
        Ok(status)
    }

    fn ask(&mut self, request: &[u8]) -> io::Result<(u16, Length)> {
        match self.0.get_mut() {
            Wire::Plain(stream) => stream.write_all(request)?,
            Wire::Tls(stream) => {
                stream.write_all(request)?;
                stream.flush()?;
            }
        }
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| bad("not an answer"))?;
        let mut length = Length::Bytes(0);
        loop {
            let line = self.line()?.to_lowercase();
            let Some((name, value)) = line.split_once(':') else {
                return Ok((status, length));
            };
            match (name, value.trim()) {
                ("content-length", bytes) => {
                    let bytes = bytes.parse().ok().filter(|bytes| *bytes <= LONGEST_ANSWER);
                    length = Length::Bytes(bytes.ok_or_else(|| bad("not a length"))?);
                }
                ("transfer-encoding", "chunked") => length = Length::Chunks,
                _ => {}
            }
        }
    }

    /// Adds the next chunk of a body. False at its end.
    fn chunk(&mut self, body: &mut Vec<u8>) -> io::Result<bool> {
        let size = usize::from_str_radix(&self.line()?, 16).map_err(|_| bad("not a chunk"))?;
        let before = body.len();
        if before + size > LONGEST_ANSWER {
            return Err(bad("too long an answer"));
        }
        body.resize(before + size, 0);
        self.0.read_exact(&mut body[before..])?;
        self.line()?;
        Ok(size > 0)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(bad("the peer hung up"));
        }
        Ok(line.trim_end().to_owned())
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Takes any certificate: the orchestrator's is its own, and it is on loopback.
#[derive(Debug)]
struct Any(CryptoProvider);

fn any_certificate() -> Result<Arc<ClientConfig>, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(aws_lc_rs::default_provider())))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
