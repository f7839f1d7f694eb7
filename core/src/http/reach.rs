//! Where an address may lead, by who named it.
//!
//! A peer's answer is full of addresses, and a hostile one names the services of our own machine and network: its
//! control channel is another program's port, its discovery document redirects to a metadata service. So a [`Url`]
//! remembers who named it. An own one leads anywhere. One that a peer named leads to public addresses only, and
//! never from `https` to `http`; a peer that our user put on a loopback or private address may name further places on
//! that same address, as a network for development does. So may a caller whose request comes from such an address
//! ([`Reach::of_caller`]). [`Url::named_by`] judges what the text shows, and
//! [`Url::admits`] each address that is about to be dialled, after the name is resolved.

use alloc::format;
use alloc::string::String;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Reach, Url};

impl Reach {
    /// Where the places may lead that a caller names whose requests come from there; `None` if that is not known.
    #[must_use]
    pub fn of_caller(at: Option<IpAddr>) -> Self {
        let at = at.filter(|at| Kind::of(*at).is_some());
        at.map_or(Self::Public, Self::PublicOr)
    }

    /// Where the places may lead that the peer at `by` names.
    #[must_use]
    pub fn lent(by: &Url) -> Self {
        let at = by.written().filter(|at| Kind::of(*at).is_some());
        match (by.reach, at) {
            (Self::Open, _) => Self::Open,
            (Self::Own, Some(at)) => Self::PublicOr(at),
            (Self::PublicOr(own), Some(at)) if same_host(own, at) => Self::PublicOr(own),
            _ => Self::Public,
        }
    }

    fn admits(self, at: IpAddr) -> Result<(), Kind> {
        match (self, Kind::of(at)) {
            (Self::Own | Self::Open, _) | (_, None) => Ok(()),
            (Self::PublicOr(own), _) if same_host(own, at) => Ok(()),
            (_, Some(kind)) => Err(kind),
        }
    }
}

impl Url {
    /// Restricts this address to lead to public addresses only, as one that a peer named, of which nothing else is
    /// known.
    #[must_use]
    pub fn told(self) -> Self {
        self.reaching(Reach::Public)
    }

    /// Lets this address lead anywhere, and the peer there name any other address: for networks that are private on
    /// purpose.
    #[must_use]
    pub fn opened(self) -> Self {
        self.reaching(Reach::Open)
    }

    /// Restricts this address to where somebody may lead who named it.
    ///
    /// # Errors
    /// If the text alone shows that it leads elsewhere: [`Url::admits`] has the last word.
    pub fn within(self, reach: Reach) -> Result<Self, Forbidden> {
        self.reaching(reach).as_written()
    }

    /// Where it may lead.
    #[must_use]
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// Restricts this address to what the peer at `by` may name.
    ///
    /// # Errors
    /// If the peer may not name it, as far as the text shows: [`Url::admits`] has the last word.
    pub fn named_by(self, by: &Self) -> Result<Self, Forbidden> {
        // The same place is no other place.
        let reach = if self.is_same_origin(by) {
            by.reach
        } else {
            Reach::lent(by)
        };
        if reach != Reach::Open && by.secure && !self.secure {
            return Err(Forbidden {
                place: self.origin(),
                rule: Rule::Cleartext,
            });
        }
        self.within(reach)
    }

    /// Returns this address unless its text alone forbids it.
    ///
    /// # Errors
    /// If the host is written as an address that it may not lead to.
    pub fn as_written(self) -> Result<Self, Forbidden> {
        if let Some(at) = self.written() {
            self.admits(at)?;
        }
        Ok(self)
    }

    /// Whether this may lead to `at`, one of the addresses of its host: asked of each before it is dialled.
    ///
    /// # Errors
    /// If it may not, with the address and the rule.
    pub fn admits(&self, at: IpAddr) -> Result<(), Forbidden> {
        self.reach.admits(at).map_err(|kind| {
            let named = if self.host.parse() == Ok(at) {
                String::new()
            } else {
                format!(" ({at})")
            };
            Forbidden {
                place: self.authority() + &named,
                rule: Rule::Address(kind),
            }
        })
    }

    fn reaching(mut self, reach: Reach) -> Self {
        self.reach = reach;
        self
    }

    /// The address that the host is by its text.
    fn written(&self) -> Option<IpAddr> {
        let name = self.host.trim_end_matches('.');
        if name == "localhost" || name.ends_with(".localhost") {
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        name.parse().ok()
    }
}

// Two addresses are the same whoever named them.

impl PartialEq for Url {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Url {}

impl PartialOrd for Url {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Url {
    fn cmp(&self, other: &Self) -> Ordering {
        let host = (self.secure, &self.host).cmp(&(other.secure, &other.host));
        host.then_with(|| (self.port, &self.path).cmp(&(other.port, &other.path)))
    }
}

impl Hash for Url {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.secure, &self.host, self.port, &self.path).hash(state);
    }
}

/// A peer named an address that is not for it to name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer may not lead to {place}: {rule}")]
pub struct Forbidden {
    /// The address.
    pub place: String,
    /// The rule that forbids the address.
    pub rule: Rule,
}

/// A rule that forbids an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The address is of this kind, and not the peer's own.
    Address(Kind),
    /// The address leads from `https` to `http`.
    Cleartext,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(kind) => {
                write!(f, "{kind} is named only by who is there himself")
            }
            Self::Cleartext => f.write_str("an https peer names no http address"),
        }
    }
}

/// Why an address is not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the meaning")]
pub enum Kind {
    Unspecified,
    Loopback,
    LinkLocal,
    Private,
    Multicast,
    Reserved,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Private => "a private address",
            Self::Multicast => "a multicast address",
            Self::Reserved => "a reserved address",
        })
    }
}

impl Kind {
    /// The kind of an address; `None`: it is public.
    ///
    /// IPv6 addresses that lead to an IPv4 one, through a gateway or by definition, are of that one's kind.
    #[must_use]
    pub fn of(at: IpAddr) -> Option<Self> {
        match at {
            IpAddr::V4(at) => Self::of_v4(at),
            IpAddr::V6(at) => match embedded(at) {
                Some(at) => Self::of_v4(at),
                None => Self::of_v6(at),
            },
        }
    }

    fn of_v4(at: Ipv4Addr) -> Option<Self> {
        Some(match at.octets() {
            [0, ..] => Self::Unspecified,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::LinkLocal,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            [224..=239, ..] => Self::Multicast,
            // Protocol assignments, documentation, measurements, and what was never given out.
            [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18 | 19, ..] => {
                Self::Reserved
            }
            [240..=255, ..] => Self::Reserved,
            _ => return None,
        })
    }

    fn of_v6(at: Ipv6Addr) -> Option<Self> {
        Some(match at.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Self::Unspecified,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            // Unique local, site local, and the local prefix of NAT64.
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => Self::Private,
            [0xff00..=0xffff, ..] => Self::Multicast,
            // All of the internet is in 2000::/3; of that, documentation and Teredo are not places.
            [0x2001, 0 | 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Self::Reserved,
            [0x2000..=0x3fff, ..] => return None,
            _ => Self::Reserved,
        })
    }
}

/// The IPv4 address inside an IPv6 one: mapped, compatible, translated, NAT64, 6to4.
fn embedded(at: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match at.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        _ => None,
    }
}

/// Whether both are one host, of what is not public. All of loopback is.
fn same_host(a: IpAddr, b: IpAddr) -> bool {
    let plain = |at: IpAddr| match at {
        IpAddr::V6(six) => embedded(six).map_or(at, IpAddr::V4),
        IpAddr::V4(_) => at,
    };
    let both = [a, b].map(Kind::of);
    plain(a) == plain(b) || both == [Some(Kind::Loopback); 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("a URL")
    }

    fn at(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn every_form_of_an_address_is_of_its_kind() {
        use Kind::*;
        for (text, kind) in [
            ("8.8.8.8", None),
            ("172.15.0.1", None),
            ("172.32.0.1", None),
            ("100.128.0.1", None),
            ("0.0.0.0", Some(Unspecified)),
            ("0.1.2.3", Some(Unspecified)),
            ("127.0.0.1", Some(Loopback)),
            ("127.255.0.9", Some(Loopback)),
            ("169.254.169.254", Some(LinkLocal)),
            ("10.0.0.1", Some(Private)),
            ("172.16.0.1", Some(Private)),
            ("172.31.255.255", Some(Private)),
            ("192.168.1.1", Some(Private)),
            ("100.64.0.1", Some(Private)),
            ("224.0.0.1", Some(Multicast)),
            ("255.255.255.255", Some(Reserved)),
            ("192.0.2.1", Some(Reserved)),
            ("::", Some(Unspecified)),
            ("::1", Some(Loopback)),
            ("fe80::1", Some(LinkLocal)),
            ("febf::1", Some(LinkLocal)),
            ("fec0::1", Some(Private)),
            ("fc00::1", Some(Private)),
            ("fdff::1", Some(Private)),
            ("ff02::1", Some(Multicast)),
            ("2001:db8::1", Some(Reserved)),
            ("2001:4860:4860::8888", None),
            ("2a00::1", None),
            // Mapped, compatible, translated, NAT64 and 6to4 forms of IPv4.
            ("::ffff:127.0.0.1", Some(Loopback)),
            ("::ffff:8.8.8.8", None),
            ("::127.0.0.1", Some(Loopback)),
            ("::ffff:0:10.0.0.1", Some(Private)),
            ("64:ff9b::169.254.169.254", Some(LinkLocal)),
            ("64:ff9b::808:808", None),
            ("64:ff9b:1::808:808", Some(Private)),
            ("2002:7f00:1::", Some(Loopback)),
            ("2002:a00:1::1", Some(Private)),
            ("2002:808:808::1", None),
            ("2001:0:1::1", Some(Reserved)),
            ("100::1", Some(Reserved)),
        ] {
            assert_eq!(Kind::of(at(text)), kind, "{text}");
        }
    }

    #[test]
    fn a_public_peer_may_not_point_into_our_own_network() {
        let by = url("https://orchestrator.example:8935");
        for (text, said) in [
            ("https://127.0.0.1:6379/x", "127.0.0.1:6379: a loopback"),
            (
                "https://localhost:2375/x",
                "localhost:2375 (127.0.0.1): a loopback",
            ),
            (
                "https://a.localhost.:1/",
                "a.localhost.:1 (127.0.0.1): a loopback",
            ),
            (
                "https://169.254.169.254:80",
                "169.254.169.254:80: a link-local",
            ),
            ("https://10.0.0.1/", "10.0.0.1:443: a private"),
            ("https://[::1]:1/", "[::1]:1: a loopback"),
            ("https://[fd00::1]:1/", "[fd00::1]:1: a private"),
            ("https://[::ffff:a00:1]:1/", "[::ffff:a00:1]:1: a private"),
            ("https://0.0.0.0/", "0.0.0.0:443: an unspecified"),
            ("https://224.0.0.1/", "224.0.0.1:443: a multicast"),
            (
                "http://other.example/",
                "http://other.example:80: an https peer names no http",
            ),
        ] {
            let refused = url(text).named_by(&by).expect_err(text).to_string();
            assert!(refused.contains(said), "{text}: {refused}");
        }
    }

    #[test]
    fn a_name_is_judged_by_the_address_it_stands_for() {
        let by = url("https://orchestrator.example:8935");
        let named = url("https://rebinds.example:6379").named_by(&by);
        let named = named.expect("the text says nothing");
        assert_eq!(named.admits(at("93.184.216.34")), Ok(()));
        let refused = named.admits(at("127.0.0.1")).expect_err("it is ours");
        assert_eq!(
            refused.to_string(),
            "a peer may not lead to rebinds.example:6379 (127.0.0.1): a loopback address is named \
             only by who is there himself"
        );
        // What derives from it is no freer.
        for further in [named.with_path("/x"), named.child("0")] {
            assert!(further.admits(at("10.0.0.1")).is_err());
        }
        // Nor is another port of a host that our user named.
        let other = url("https://orchestrator.example:6379").named_by(&by);
        assert!(other.expect("a name").admits(at("127.0.0.1")).is_err());
    }

    #[test]
    fn a_peer_named_on_such_an_address_may_name_its_own_host() {
        for (by, own, foreign) in [
            (
                "https://127.0.0.1:8935",
                "https://127.0.0.1:1",
                "https://10.0.0.1:1",
            ),
            (
                "https://localhost:8935",
                "https://127.0.0.1:1",
                "https://10.0.0.1:1",
            ),
            (
                "https://127.0.0.1:8935",
                "https://[::1]:1",
                "https://169.254.169.254",
            ),
            (
                "https://10.0.0.5:8935",
                "https://10.0.0.5:1",
                "https://10.0.0.6:1",
            ),
            (
                "http://[fd00::5]:8935",
                "http://[fd00::5]:1",
                "http://127.0.0.1:1",
            ),
            (
                "https://10.0.0.5:1",
                "https://[::ffff:10.0.0.5]:2",
                "https://[::1]:1",
            ),
        ] {
            let named = url(own).named_by(&url(by)).expect(own);
            // And so on: its own host names itself.
            url(own).with_path("/x").named_by(&named).expect(own);
            assert!(url(foreign).named_by(&url(by)).is_err(), "{foreign}");
            assert!(url(foreign).named_by(&named).is_err(), "{foreign}");
        }
        let by = url("http://10.0.0.5:8935");
        let name = url("http://o.example:1").named_by(&by).expect("a name");
        assert_eq!(name.admits(at("10.0.0.5")), Ok(()));
        assert!(name.admits(at("10.0.0.6")).is_err());
        // A stranger that a local list names is a stranger.
        assert!(url("http://10.0.0.5:1").named_by(&name).is_err());
    }

    #[test]
    fn our_user_leads_anywhere_and_can_open_the_rule() {
        assert_eq!(url("http://10.0.0.1").admits(at("10.0.0.1")), Ok(()));
        let by = url("https://orchestrator.example:8935");
        // The place itself, named again, is as free as it was.
        let same = by.with_path("/x").named_by(&by).expect("the same place");
        assert_eq!(same.admits(at("10.0.0.1")), Ok(()));
        let open = url("http://127.0.0.1:1").named_by(&by.opened());
        let open = open.expect("it was opened");
        assert_eq!(open.admits(at("127.0.0.1")), Ok(()));
        assert!(url("http://169.254.169.254").named_by(&open).is_ok());
    }

    #[test]
    fn who_named_an_address_is_no_part_of_it() {
        assert_eq!(url("https://o.example"), url("https://o.example").told());
        assert!(url("https://127.0.0.1").told().as_written().is_err());
    }
}
