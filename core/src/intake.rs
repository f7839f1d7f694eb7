//! Bounds on the memory that the requests of peers take while they are collected: in total, and for each peer, so that
//! no single one keeps all others out.

use alloc::collections::BTreeMap;
use core::net::{IpAddr, Ipv6Addr};

use crate::http::Request;

/// Counts requests and their bytes. One peer gets at most half of each.
#[derive(Clone, Debug)]
pub struct Intake {
    most: Load,
    held: Load,
    by_peer: BTreeMap<IpAddr, Load>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    requests: usize,
    bytes: usize,
}

/// The memory that one request holds. Give it back with [`Intake::release`].
#[derive(Debug)]
#[must_use = "what is never released is held for ever"]
pub struct Held {
    peer: Option<IpAddr>,
    bytes: usize,
}

/// Why a request is not taken in: there is no room. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// All peers together hold as much as they may.
    #[error("too much is asked at once")]
    Total,
    /// The requests of this peer hold as much as one peer's may.
    #[error("too much is asked at once from one address")]
    Peer,
}

impl Intake {
    /// Room for `requests` requests, and for `bytes` of all together.
    #[must_use]
    pub const fn new(requests: usize, bytes: usize) -> Self {
        Self {
            most: Load { requests, bytes },
            held: Load {
                requests: 0,
                bytes: 0,
            },
            by_peer: BTreeMap::new(),
        }
    }

    /// Changes the room. What is held above it stays until it is given back.
    pub const fn set_most(&mut self, requests: usize, bytes: usize) {
        self.most = Load { requests, bytes };
    }

    /// Lets one more request in, with its head. Where the driver does not know who asks, only the total counts.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn admit(&mut self, request: &Request) -> Result<Held, Full> {
        let peer = request.peer.map(network);
        let fields = request.headers.iter();
        let bytes = request.url.path().len()
            + fields
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>();
        self.take(peer, Load { requests: 1, bytes })?;
        Ok(Held { peer, bytes })
    }

    /// Takes in `bytes` more for a request.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn grow(&mut self, held: &mut Held, bytes: usize) -> Result<(), Full> {
        self.take(held.peer, Load { requests: 0, bytes })?;
        held.bytes += bytes;
        Ok(())
    }

    /// Gives back all that a request held.
    pub fn release(&mut self, held: Held) {
        let gone = Load {
            requests: 1,
            bytes: held.bytes,
        };
        self.held = self.held.less(gone);
        if let Some(peer) = held.peer
            && let Some(load) = self.by_peer.get_mut(&peer)
        {
            *load = load.less(gone);
            if load.requests == 0 {
                self.by_peer.remove(&peer);
            }
        }
    }

    /// How many bytes are held.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.held.bytes
    }

    fn take(&mut self, peer: Option<IpAddr>, more: Load) -> Result<(), Full> {
        let total = self.held.and(more);
        if !total.fits(self.most) {
            return Err(Full::Total);
        }
        if let Some(peer) = peer {
            let share = self.by_peer.get(&peer).copied().unwrap_or_default();
            let share = share.and(more);
            if !share.fits(self.most.half()) {
                return Err(Full::Peer);
            }
            self.by_peer.insert(peer, share);
        }
        self.held = total;
        Ok(())
    }
}

impl Load {
    const fn and(self, more: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(more.requests),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }

    const fn less(self, gone: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(gone.requests),
            bytes: self.bytes.saturating_sub(gone.bytes),
        }
    }

    const fn half(self) -> Self {
        Self {
            requests: self.requests.div_ceil(2),
            bytes: self.bytes.div_ceil(2),
        }
    }

    const fn fits(self, most: Self) -> bool {
        self.requests <= most.requests && self.bytes <= most.bytes
    }
}

/// The network that an address counts for: in IPv6 everybody has 2^64 addresses.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Method, Url};

    /// A request of so many bytes.
    fn request(peer: &str, bytes: usize) -> Request {
        let path = alloc::format!("/{}", "x".repeat(bytes - 1));
        let url = Url::parse("http://h").expect("a URL").with_path(&path);
        Request {
            peer: peer.parse().ok(),
            ..Request::new(Method::Post, url)
        }
    }

    #[test]
    fn one_peer_gets_half_and_all_together_the_rest() {
        let mut intake = Intake::new(4, 100);
        let mut one = intake.admit(&request("192.0.2.1", 20)).unwrap();
        assert_eq!(intake.grow(&mut one, 20), Ok(()));
        assert_eq!(intake.grow(&mut one, 11), Err(Full::Peer));
        let second = intake.admit(&request("::ffff:192.0.2.1", 10)).unwrap();
        let third = intake.admit(&request("192.0.2.1", 1));
        assert_eq!(third.err(), Some(Full::Peer), "half of the requests");

        let mut other = intake.admit(&request("2001:db8::1", 1)).unwrap();
        assert_eq!(intake.grow(&mut other, 48), Ok(()));
        let mut same = intake.admit(&request("2001:db8::ffff:2", 1)).unwrap();
        let fifth = intake.admit(&request("198.51.100.1", 1));
        assert_eq!(fifth.err(), Some(Full::Total));
        assert_eq!(intake.grow(&mut same, 1), Err(Full::Total));

        intake.release(one);
        intake.release(second);
        assert_eq!(
            intake.grow(&mut same, 1),
            Err(Full::Peer),
            "one network, one peer"
        );
        let mut unknown = intake.admit(&request("nobody knows", 1)).unwrap();
        assert_eq!(
            intake.grow(&mut unknown, 49),
            Ok(()),
            "only the total counts"
        );
        assert_eq!(intake.bytes(), 100);
        for held in [other, same, unknown] {
            intake.release(held);
        }
        assert_eq!((intake.held, intake.by_peer.len()), (Load::default(), 0));
    }
}
