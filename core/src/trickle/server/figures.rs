//! Figures of a server. Channels have the names of streams, and are no labels.

use alloc::string::String;

use super::{Removal, Server};
use crate::figures::{Family, Page};

/// Counters of a server since its start.
#[derive(Debug)]
pub(super) struct Figures {
    created: u64,
    removed: Family<u64, 1>,
    /// Bytes that channels received which are gone.
    received: u64,
}

impl Default for Figures {
    fn default() -> Self {
        let help = "Channels that were removed, by the reason.";
        Self {
            created: 0,
            removed: Family::new("trickle_channels_removed_total", ["reason"], help),
            received: 0,
        }
    }
}

impl Figures {
    pub(super) fn created(&mut self) {
        self.created += 1;
    }

    pub(super) fn removed(&mut self, why: Removal, received: u64) {
        let reason = match why {
            Removal::ByPeer => "peer",
            Removal::ByOwner => "owner",
            Removal::Idle => "idle",
            Removal::Shutdown => "shutdown",
        };
        *self.removed.at([reason]) += 1;
        self.received += received;
    }
}

impl Server {
    /// The figures of the server, in the text format of Prometheus.
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        let (mut received, mut guests, mut waiting) = (self.figures.received, 0, 0);
        for key in self.names.values() {
            if let Some(channel) = self.channels.get(*key) {
                received += channel.received;
                guests += channel.guests();
                waiting += channel.waiting();
            }
        }
        let mut page = Page::new();
        page.value("trickle_channels", "gauge", "Channels.", self.names.len());
        page.value(
            "trickle_channels_created_total",
            "counter",
            "Channels that were made.",
            self.figures.created,
        );
        self.figures.removed.write(&mut page);
        page.value(
            "trickle_received_bytes_total",
            "counter",
            "Bytes of segments received.",
            received,
        );
        page.value(
            "trickle_guests",
            "gauge",
            "Readers and writers of channels.",
            guests,
        );
        page.value(
            "trickle_waiting",
            "gauge",
            "Readers that have all there is.",
            waiting,
        );
        page.value(
            "trickle_outside_bytes",
            "gauge",
            "Bytes of segments that have left their window and are still read.",
            self.outside_bytes(),
        );
        page.finish()
    }
}
