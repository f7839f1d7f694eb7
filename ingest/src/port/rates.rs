//! How much each host may ask for in a second.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use livepeer_core::Time;

const WINDOW: Duration = Duration::from_secs(1);
/// At most this many hosts are counted one by one; those beyond share one count.
const MAX_HOSTS: usize = 4_096;

/// Counts of the running second.
#[derive(Debug)]
pub(super) struct Rates {
    limit: u32,
    since: Time,
    hosts: BTreeMap<IpAddr, u32>,
    others: u32,
}

impl Rates {
    pub(super) const fn new(limit: u32) -> Self {
        Self {
            limit,
            since: Time::ZERO,
            hosts: BTreeMap::new(),
            others: 0,
        }
    }

    /// Counts one more of a host's. Whether it is within the limit.
    pub(super) fn allow(&mut self, now: Time, host: IpAddr) -> bool {
        if now.since(self.since) >= WINDOW {
            self.since = now;
            self.hosts.clear();
            self.others = 0;
        }
        let has_room = self.hosts.len() < MAX_HOSTS || self.hosts.contains_key(&host);
        let count = if has_room {
            self.hosts.entry(host).or_default()
        } else {
            &mut self.others
        };
        *count = count.saturating_add(1);
        *count <= self.limit
    }
}
