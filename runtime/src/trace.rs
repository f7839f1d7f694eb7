//! Steps as the log shows them: what happened, without bodies and without header values, which may be secret.

use std::fmt;

use bytes::Bytes;
use livepeer_core::http::{Body, Headers, In, Out};

pub(crate) struct OutStep<'a>(pub(crate) &'a Out);
pub(crate) struct InStep<'a>(pub(crate) &'a In);

impl fmt::Display for OutStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Out::Request(request) => {
                write!(f, "{} {}", request.method.as_str(), request.url.shown())?;
                head(f, &request.headers, &request.body)
            }
            Out::Reply(reply) => {
                write!(f, "reply {}", reply.status)?;
                head(f, &reply.headers, &reply.body)
            }
            Out::Data(data) => write!(f, "data, {} bytes", data.len()),
            Out::End(trailers) => {
                f.write_str("end")?;
                names(f, trailers)
            }
            Out::Abort => f.write_str("abort"),
            Out::Pause => f.write_str("pause"),
            Out::Report => f.write_str("report"),
            Out::Resume => f.write_str("resume"),
        }
    }
}

impl fmt::Display for InStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            In::Request(request) => {
                write!(f, "{} {}", request.method.as_str(), request.url.shown())?;
                head(f, &request.headers, &request.body)
            }
            In::Reply(reply) => {
                write!(f, "reply {}", reply.status)?;
                head(f, &reply.headers, &reply.body)
            }
            In::Data(data) => write!(f, "data, {} bytes", data.len()),
            In::Sent(bytes) => write!(f, "sent {bytes} bytes"),
            In::End(trailers) => {
                f.write_str("end")?;
                names(f, trailers)
            }
            In::Failed(fault) => write!(f, "failed: {fault}"),
        }
    }
}

fn head(f: &mut fmt::Formatter<'_>, headers: &Headers, body: &Body) -> fmt::Result {
    names(f, headers)?;
    match body {
        Body::Empty => Ok(()),
        Body::Full(data) => write!(f, ", body of {} bytes", data.len()),
        Body::Pieces(pieces) => {
            let all: usize = pieces.iter().map(Bytes::len).sum();
            write!(f, ", body of {all} bytes")
        }
        Body::Stream => f.write_str(", streamed body"),
    }
}

fn names(f: &mut fmt::Formatter<'_>, headers: &Headers) -> fmt::Result {
    for (i, (name, _)) in headers.iter().enumerate() {
        write!(f, "{}{name}", if i == 0 { ", with " } else { " " })?;
    }
    Ok(())
}
