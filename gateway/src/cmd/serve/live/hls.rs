//! Players of HLS: lists and segments of the outputs that there are, and of those that ended a moment ago.

use std::time::Duration;

use bytes::Bytes;
use livepeer_core::front::{Hls, RequestId};
use livepeer_core::http::{Body, Response};
use livepeer_core::wire::entry::OutputName;
use livepeer_media::hls::Packager;
use livepeer_runtime::Runtime;
use livepeer_runtime::ingest::Show;

use super::{Live, line, lock};

/// The time that a segment has at least.
pub(super) const LEAST: Duration = Duration::from_secs(2);
/// How long the lists of an output are there after its end, so that players see it.
pub(super) const AFTER_THE_END: Duration = Duration::from_secs(60);
/// The only rendition.
pub(super) const RENDITION: &str = "source";

impl<R: Runtime> Live<R> {
    /// Answers a player that fetches a part of an output.
    pub(super) fn fetched(&self, id: RequestId, output: &OutputName, part: &Hls) {
        let found = self.listed(output).and_then(|show| {
            let part = |packager: &Packager| of(packager, part);
            show.packaged(part).flatten()
        });
        let response = found.unwrap_or_else(|| line(404, "ErrNotFound"));
        self.respond(id, response);
    }

    /// The output of that name, in full.
    fn listed(&self, output: &OutputName) -> Option<Show<R>> {
        let state = lock(&self.state);
        let name = match &output.request_id {
            Some(request) => output.stream.output_of(request),
            None => {
                let stream = self.entry.with(|entry, _| entry.output(output)).ok()?;
                state.streams.get(&stream)?.output.clone()
            }
        };
        state.listed.get(&name).cloned()
    }
}

/// A part of an output, for a player.
fn of(packager: &Packager, part: &Hls) -> Option<Response> {
    let list = |text: Bytes| ("application/x-mpegURL", "max-age=1", text);
    let (kind, keep, body) = match part {
        Hls::Master => list(packager.master()?),
        Hls::List(name) if name == RENDITION => list(packager.rendition().list()?),
        // A segment never changes.
        Hls::Segment(name, number) if name == RENDITION => {
            let data = packager.rendition().segment(*number)?;
            ("video/mp2t", "max-age=3600, immutable", data)
        }
        _ => return None,
    };
    let response = Response::new(200)
        .header("content-type", kind)
        .header("cache-control", keep)
        .header("access-control-allow-origin", "*")
        .header("access-control-expose-headers", "Content-Length");
    Some(response.body(Body::Full(body)))
}
