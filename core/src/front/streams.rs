//! Orders for streams through containers, as callers send them (jobs spec 5).

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};

use super::types::{Call, Event, LIVE_WITHIN, RequestId, StreamCall};
use super::{Front, State, reply};
use crate::entry::Ordered;
use crate::http::{Reach, Request, Url};
use crate::wire::byoc::stream::{StreamRequest, StreamUrls};
use crate::wire::byoc::{JOB_HEADER, JobRequest};
use crate::wire::entry::StreamName;
use crate::wire::refused::{Code, Refused};

impl Front {
    /// Has the shell make a place for a stream through a container, if the order makes sense.
    pub(super) fn order_stream(&mut self, id: RequestId, head: &Request, body: &[u8]) {
        let random = self.rng.bytes32();
        let random = u32::from_be_bytes([random[0], random[1], random[2], random[3]]);
        let Some(running) = self.running.get_mut(&id) else {
            return;
        };
        let named = Reach::of_caller(reply::caller(head, &running.config));
        match read(head, body, random, named, &running.sent.base) {
            Ok(call) => {
                running.state = State::Calling(running.received + LIVE_WITHIN);
                let call = Call::Order(Box::new(call));
                self.out.event(Event::Live(id, Box::new(call)));
                self.arm(id);
            }
            Err(why) => self.refuse(id, &Refused::new(Code::InvalidValue, why)),
        }
    }
}

fn read(
    head: &Request,
    body: &[u8],
    random: u32,
    named: Reach,
    base: &str,
) -> Result<StreamCall, String> {
    let header = head.headers.get(JOB_HEADER).unwrap_or_default();
    let job = JobRequest::from_header(header).map_err(|bad| bad.to_string())?;
    let request = StreamRequest::from_json(body).map_err(|bad| bad.why)?;
    let name = StreamName::parse(&request.stream_id(random)).map_err(|bad| bad.to_string())?;
    let job = job.with_media();
    let wishes = job.wishes().map_err(|bad| bad.to_string())?;
    let outputs = request.rtmp_output.split(',').map(str::trim);
    let outputs = outputs.filter(|output| !output.is_empty());
    let at = |what: &str| format!("{base}/process/stream/{name}/{what}");
    let if_any = |wished: bool, what| if wished { at(what) } else { String::new() };
    let host = Url::parse(base).map(|base| base.bracketed_host().into_owned());
    let urls = StreamUrls {
        stream_id: name.to_string(),
        whip_url: if_any(wishes.video_in, "whip"),
        data_url: if_any(wishes.data_out, "data"),
        rtmp_output_url: request.rtmp_output.clone(),
        update_url: at("update"),
        status_url: at("status"),
        stop_url: at("stop"),
        ..StreamUrls::default()
    };
    Ok(StreamCall {
        urls,
        named,
        video_in: wishes.video_in,
        video_out: wishes.video_out,
        host: host.unwrap_or_default(),
        ordered: Ordered {
            outputs: outputs.map(String::from).collect(),
            params: request.params,
            job,
        },
        name,
    })
}
