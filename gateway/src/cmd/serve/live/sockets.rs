//! The sockets of live entry, from their addresses to those who serve them.

use std::net::UdpSocket;

use livepeer_runtime::ingest::machines::{port, rtmp};
use livepeer_runtime::ingest::{Rtmp, Webrtc, addresses};
use livepeer_runtime::rt::bind_udp;
use livepeer_runtime::{Driver, Runtime};

use super::super::config::Ingest;
use crate::ui::Failed;

/// Sockets that are bound, and that nobody serves yet.
pub(in crate::cmd::serve) struct Bound<R: Runtime> {
    udp: Option<UdpSocket>,
    rtmp: Option<R::Listener>,
}

/// The ways in, open.
pub(in crate::cmd::serve) struct Ways<R: Runtime> {
    pub(super) webrtc: Option<Webrtc<R>>,
    pub(super) rtmp: Option<Rtmp<R>>,
    /// Where the gateway is reached, if nothing else was said.
    pub(super) bound: String,
}

impl<R: Runtime> Bound<R> {
    /// Binds what is configured.
    ///
    /// # Errors
    /// If an address cannot be listened on.
    pub(in crate::cmd::serve) async fn open(
        driver: &Driver<R>,
        ingest: &Ingest,
    ) -> Result<Self, Failed> {
        let udp = ingest.udp.map(|at| {
            bind_udp(at).map_err(|error| Failed::listen(at, "ingest.webrtc_udp", &error))
        });
        let rtmp = match ingest.rtmp {
            None => None,
            Some(at) => {
                let bound = driver.runtime().bind(at).await;
                Some(bound.map_err(|error| Failed::listen(at, "ingest.rtmp", &error))?)
            }
        };
        Ok(Self {
            udp: udp.transpose()?,
            rtmp,
        })
    }

    /// Opens the ways in, for a gateway that is reached at `bound` if nothing else was said.
    ///
    /// # Errors
    /// If the system does not tell an address, or a runtime cannot watch a socket.
    pub(in crate::cmd::serve) fn serve(
        self,
        driver: &Driver<R>,
        ingest: &Ingest,
        bound: String,
    ) -> Result<Ways<R>, Failed> {
        let webrtc = self.udp.map(|socket| {
            let at = socket.local_addr()?;
            let extra = ingest.extra_hosts.iter();
            let own = addresses(at).into_iter();
            let config = port::Config {
                addresses: own
                    .chain(extra.map(|host| host.with_port(at.port())))
                    .collect(),
                ice_servers: ingest.ice_servers.clone(),
                max_viewers: ingest.max_viewers,
                in_step: ingest.in_step,
                ..port::Config::default()
            };
            Webrtc::open(driver, socket, config)
        });
        let config = rtmp::Config {
            // Who may take a name over is said in one place.
            takeover: true,
            ..rtmp::Config::default()
        };
        let rtmp = self
            .rtmp
            .map(|listener| Rtmp::open(driver, listener, None, config));
        let failed =
            |option: &'static str| move |error| Failed::listen("the socket", option, &error);
        Ok(Ways {
            webrtc: webrtc.transpose().map_err(failed("ingest.webrtc_udp"))?,
            rtmp: rtmp.transpose().map_err(failed("ingest.rtmp"))?,
            bound,
        })
    }
}

impl<R: Runtime> Ways<R> {
    /// The places where senders and viewers come in, one a line.
    pub(in crate::cmd::serve) fn places(&self) -> Vec<String> {
        let rtmp = self.rtmp.iter().map(|rtmp| {
            let at = rtmp.local_addr();
            format!("rtmp    rtmp://{at}/live/NAME")
        });
        let webrtc = self.webrtc.iter().flat_map(|webrtc| {
            let (base, at) = (self.bound.trim_end_matches('/'), webrtc.local_addr());
            [
                format!("whip    {base}/live/video-to-video/NAME/whip  (media by UDP at {at})"),
                format!(
                    "watch   {base}/watch/NAME  (a page that sends a camera and shows the result)"
                ),
            ]
        });
        rtmp.chain(webrtc).collect()
    }
}
