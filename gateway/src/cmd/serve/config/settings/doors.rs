//! Where the gateway listens, for whom, and the certificate that it shows.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr as _;

use livepeer_runtime::tls::{CurrentIdentity, Identity};

use super::super::said::Origin;
use super::Reader;
use crate::args::values::Listen;

/// A place to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cmd::serve) enum Place {
    Port(SocketAddr),
    /// A unix socket with that file.
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(at) => at.fmt(f),
            Self::File(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The places to listen at.
#[derive(Debug)]
pub(in crate::cmd::serve) struct Doors {
    pub(in crate::cmd::serve) listen: Vec<Place>,
    pub(in crate::cmd::serve) ops: Vec<Place>,
    /// The mode of the files of unix sockets for applications.
    pub(in crate::cmd::serve) mode: u32,
    /// The certificate and key that ports of applications show; without them, plain HTTP is spoken.
    pub(in crate::cmd::serve) tls: Option<Identity>,
    /// At most this many connections are open at each place.
    pub(in crate::cmd::serve) connections: usize,
}

impl Reader<'_> {
    pub(super) fn doors(&mut self) -> Doors {
        Doors {
            listen: self.listen(),
            ops: self.ops(),
            mode: self.read("serve.socket_mode", mode).unwrap_or_default(),
            tls: self.tls(),
            connections: { self.number("limits.connections", 1..=1_000_000) }
                .and_then(|most| usize::try_from(most).ok())
                .unwrap_or(1),
        }
    }

    fn listen(&mut self) -> Vec<Place> {
        let all = self.items("serve.listen", place);
        let origin = self.origin("serve.listen");
        if all.is_empty() && self.all.problems.is_empty() {
            self.wrong(origin.clone(), "serve.listen", "no address to listen on");
        }
        if let Some(open) = beyond_loopback(&all)
            && !self.flag("serve.allow_no_auth")
        {
            let why = format!(
                "whoever reaches {open} could spend, for callers are not told apart yet: listen on loopback, or set \
                 serve.allow_no_auth if a proxy sees to it"
            );
            self.wrong(origin, "serve.listen", why);
        }
        all
    }

    fn ops(&mut self) -> Vec<Place> {
        let all = self.items("serve.ops", place);
        if let Some(open) = beyond_loopback(&all)
            && !self.flag("ops.metrics_open")
        {
            let why = format!(
                "{open} is not on loopback, and operators are not told apart yet: listen on loopback, or set \
                 ops.metrics_open if anybody may read the figures"
            );
            self.wrong(self.origin("serve.ops"), "serve.ops", why);
        }
        all
    }

    /// The place where a key was said.
    pub(super) fn origin(&self, path: &str) -> Origin {
        self.said(path).map_or(Origin::BuiltIn, |said| said.origin)
    }

    fn tls(&mut self) -> Option<Identity> {
        let files = (self.text("serve.tls.cert"), self.text("serve.tls.key"));
        let ((cert, origin), (key, _)) = match files {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) => return None,
            (Some((_, origin)), None) => {
                let why = "the file with the certificate's private key is missing";
                self.wrong(origin, "serve.tls.key", why);
                return None;
            }
            (None, Some((_, origin))) => {
                let why = "the file with the certificate of serve.tls.key is missing";
                self.wrong(origin, "serve.tls.cert", why);
                return None;
            }
        };
        let read = Identity::from_pem_files(&cert, &key)
            // Told before anything is bound, and before a reload changes anything.
            .and_then(|identity| CurrentIdentity::new(&identity).map(|_| identity));
        read.map_err(|why| self.wrong(origin, "serve.tls", why))
            .ok()
    }
}

fn place(text: &str) -> Result<Place, String> {
    match text.strip_prefix("unix:") {
        Some(_) if cfg!(not(unix)) => Err("this system has no unix sockets".to_owned()),
        Some("") => Err("no path; write unix:/path".to_owned()),
        Some(path) => Ok(Place::File(path.into())),
        None if !text.contains(':') && !text.bytes().all(|b| b.is_ascii_digit()) => {
            Err("no port".to_owned())
        }
        None => Listen::from_str(text).map(|listen| Place::Port(listen.0)),
    }
}

fn beyond_loopback(all: &[Place]) -> Option<&Place> {
    all.iter()
        .find(|place| matches!(place, Place::Port(at) if !at.ip().is_loopback()))
}

/// The permissions of a file, as `chmod` takes them.
fn mode(text: &str) -> Result<u32, &'static str> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or("it is not a mode of a file such as 0660")
}
