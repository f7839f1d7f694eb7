//! Who pays, and who says so.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::http::{Body, Headers, Method, Request, Trust, Url};
use crate::sign::{Address, Signature};

/// How the payer introduces itself (handshake spec 3).
#[derive(Clone, Debug)]
pub enum Identity {
    /// Not at all: for orchestrators without a chain.
    Offchain,
    /// With a signature made before. Orchestrators ask for no nonce and no time, so one lasts for ever.
    Static {
        /// The payer.
        address: Address,
        /// Its node signature over its own text.
        signature: Signature,
    },
    /// With a signature of our own key, which an [`Effect::Sign`](crate::Effect::Sign) reaches.
    Key(Address),
    /// With what a remote signer answers.
    Remote(Signers),
}

impl Identity {
    /// With what the remote signer at `url` answers. Its path is dropped.
    #[must_use]
    pub fn remote(url: Url) -> Self {
        Self::Remote(Signers::new(url))
    }
}

/// Where remote signers for one account are, in the order in which they are asked.
#[derive(Clone, Debug)]
pub struct Signers {
    urls: Vec<Url>,
    at: usize,
    headers: Headers,
}

impl Signers {
    /// One signer.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self {
            urls: alloc::vec![url],
            at: 0,
            headers: Headers::new(),
        }
    }

    /// Another one, asked when those before it gave nothing.
    #[must_use]
    pub fn or(mut self, url: Url) -> Self {
        self.urls.push(url);
        self
    }

    /// Header fields for signers, such as an authorization. They go nowhere else (handshake spec 16-14).
    #[must_use]
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    pub(super) fn current(&self) -> &Url {
        &self.urls[self.at]
    }

    /// Goes to the next one; `false` if there is none.
    pub(super) fn advance(&mut self) -> bool {
        let more = self.at + 1 < self.urls.len();
        self.at += usize::from(more);
        more
    }

    pub(super) fn request(&self, trust: Trust) -> Request {
        let url = self.current().with_path("/sign-orchestrator-info");
        let mut request = Request::new(Method::Post, url)
            .header("content-type", "application/json")
            .trust(trust)
            .body(Body::Full(Bytes::from_static(b"{}")));
        for (name, value) in self.headers.iter() {
            request.headers.push_any(name, value);
        }
        request
    }
}
