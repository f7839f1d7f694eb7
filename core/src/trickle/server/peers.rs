//! Requests of peers, and how they are answered (trickle spec 2, 4, 5).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{
    ANSWER_WITHIN, Event, Gate, MAX_EARLY_BYTES, Pending, Place, Refusal, Removal, Seat, Server,
    Wish, text,
};
use crate::figures;
use crate::http::{Body, Method, Out, Request, Response};
use crate::machine::EffectId;
use crate::time::Time;
use crate::trickle::{ContentType, Seq, headers};

impl Server {
    pub(super) fn request(&mut self, now: Time, id: EffectId, request: Request) {
        if self.closing {
            // Readers between two requests are told what those that waited were told.
            let reply = match request.method {
                Method::Get | Method::Head => {
                    Response::new(200).header(headers::CLOSED, "terminated")
                }
                _ => unavailable(),
            };
            return self.reply(id, reply);
        }
        let path = request.url.path();
        let path = path.split('?').next().unwrap_or("");
        if let Some(clean) = cleaned(path) {
            let reply = Response::new(307).header(headers::LOCATION, clean);
            return self.reply(id, reply);
        }
        if self.shared.config.figures && request.method == Method::Get && path == figures::PATH {
            let page = self.to_prometheus();
            let reply = Response::new(200).header("content-type", figures::CONTENT_TYPE);
            return self.reply(id, reply.body(Body::Full(page.into())));
        }
        let Some(rest) = path.strip_prefix(&*self.shared.config.base) else {
            return self.reply(id, not_found());
        };
        let mut parts = rest.split('/');
        let name = parts.next().unwrap_or("");
        let index = parts.next();
        if name.is_empty() || index == Some("") || parts.next().is_some() {
            return self.reply(id, not_found());
        }
        let (Some(name), Some(index)) = (
            decoded(name),
            index.map_or(Some(None), |i| decoded(i).map(Some)),
        ) else {
            return self.reply(id, text(400, "Invalid path\n"));
        };
        let name: Arc<str> = name.into();
        let reads = matches!(request.method, Method::Get | Method::Head);
        let writes = matches!(request.method, Method::Post | Method::Delete);
        if !writes && (!reads || index.is_none()) {
            return self.reply(id, text(405, "Method Not Allowed\n"));
        }
        if writes && name.starts_with('_') && self.shared.config.protect_reserved {
            return self.reply(id, text(403, "Reserved name\n"));
        }
        if self.shared.seats.len() + self.pending.len() >= self.shared.config.max_exchanges {
            return self.reply(id, unavailable());
        }
        match (request.method, index) {
            (Method::Post, None) => self.create(now, id, name, request),
            (_, None) => self.delete(now, id, name, request),
            (Method::Post, Some(index)) => self.post(now, id, name, index, request),
            (Method::Delete, Some(index)) => self.delete_segment(now, id, &name, &index),
            (method, Some(index)) => self.get(now, id, &name, &index, method == Method::Head),
        }
    }

    pub(super) fn create(&mut self, now: Time, id: EffectId, name: Arc<str>, request: Request) {
        // The gate comes before the question whether it exists (trickle spec 5.1).
        match self.gate(now, id, Wish::Create, &name, &request, None) {
            Some(Ok(())) => self.create_granted(now, id, name, &request),
            Some(Err(refusal)) => self.reply(id, refuse(&refusal)),
            None => {}
        }
    }

    pub(super) fn create_granted(
        &mut self,
        now: Time,
        id: EffectId,
        name: Arc<str>,
        request: &Request,
    ) {
        if self.names.contains_key(&name) {
            return self.reply(id, Response::new(200));
        }
        if !self.shared.config.autocreate {
            return self.reply(id, no_stream());
        }
        if self.names.len() >= self.shared.config.max_channels {
            return self.reply(id, unavailable());
        }
        let content = request.headers.get(headers::EXPECT_CONTENT).unwrap_or("");
        self.make(now, name, ContentType::new(content));
        self.reply(id, Response::new(200));
    }

    pub(super) fn delete(&mut self, now: Time, id: EffectId, name: Arc<str>, request: Request) {
        match self.gate(now, id, Wish::Delete, &name, &request, None) {
            Some(Ok(())) => self.delete_granted(now, id, &name),
            Some(Err(refusal)) => self.reply(id, refuse(&refusal)),
            None => {}
        }
    }

    pub(super) fn delete_granted(&mut self, now: Time, id: EffectId, name: &str) {
        if self.remove(now, name, Removal::ByPeer) {
            self.reply(id, Response::new(200));
        } else {
            self.reply(id, text(400, "Invalid stream\n"));
        }
    }

    pub(super) fn post(
        &mut self,
        now: Time,
        id: EffectId,
        name: Arc<str>,
        index: String,
        request: Request,
    ) {
        if !self.names.contains_key(&name) {
            if !self.shared.config.autocreate {
                let reply = no_stream().header(headers::CONNECTION, "close");
                return self.reply(id, reply);
            }
            match self.gate(now, id, Wish::Create, &name, &request, Some(&index)) {
                Some(Ok(())) => {}
                Some(Err(refusal)) => {
                    let reply = refuse(&refusal).header(headers::CONNECTION, "close");
                    return self.reply(id, reply);
                }
                None => return,
            }
        }
        self.post_granted(now, id, name, &index, &request);
    }

    pub(super) fn post_granted(
        &mut self,
        now: Time,
        id: EffectId,
        name: Arc<str>,
        index: &str,
        request: &Request,
    ) {
        let index = match headers::index(index) {
            Some(index) if index >= -1 => index,
            _ => return self.reply(id, bad_index()),
        };
        let key = match self.names.get(&name) {
            Some(key) => *key,
            None => {
                if self.names.len() >= self.shared.config.max_channels {
                    let reply = unavailable().header(headers::CONNECTION, "close");
                    return self.reply(id, reply);
                }
                let content = request.headers.get(headers::CONTENT_TYPE).unwrap_or("");
                self.make(now, name, ContentType::new(content))
            }
        };
        let Some(channel) = self.channels.get_mut(key) else {
            return;
        };
        if channel.guests() >= self.shared.config.max_channel_guests {
            return self.reply(id, unavailable());
        }
        let seq = u64::try_from(index).map_or(channel.head, Seq::new);
        let reset = headers::reset(&request.headers);
        channel.post(now, Some(id), seq, reset, &mut self.shared);
    }

    pub(super) fn get(
        &mut self,
        now: Time,
        id: EffectId,
        name: &str,
        index: &str,
        head_only: bool,
    ) {
        let Some(channel) = self
            .names
            .get(name)
            .and_then(|key| self.channels.get_mut(*key))
        else {
            return self.reply(id, no_stream());
        };
        if index == "next" {
            let head = channel.head.to_string();
            let reply = Response::new(200)
                .header(headers::LATEST, head.clone())
                .header(headers::CONTENT_TYPE, "text/plain; charset=utf-8")
                .body(Body::Full(head.into()));
            return self.reply(id, reply);
        }
        let index = match headers::index(index) {
            Some(index) if index >= -2 => index,
            // The Go server reads multiples of five below as missing segments; everything else breaks it (D2).
            _ => return self.reply(id, bad_index()),
        };
        if channel.guests() >= self.shared.config.max_channel_guests {
            return self.reply(id, unavailable());
        }
        channel.get(now, id, index, head_only, &mut self.shared);
    }

    pub(super) fn delete_segment(&mut self, now: Time, id: EffectId, name: &str, index: &str) {
        let Some(channel) = self
            .names
            .get(name)
            .and_then(|key| self.channels.get_mut(*key))
        else {
            return self.reply(id, no_stream());
        };
        let reply = match headers::index(index).map(u64::try_from) {
            Some(Ok(index)) => {
                if channel.delete(now, Seq::new(index), &mut self.shared) {
                    Response::new(200)
                } else {
                    text(400, "Nonexistent segment\n")
                }
            }
            _ => bad_index(),
        };
        self.reply(id, reply);
    }

    // ---- the inside ------------------------------------------------------------------------------------------

    pub(super) fn gate(
        &mut self,
        now: Time,
        id: EffectId,
        wish: Wish,
        name: &Arc<str>,
        request: &Request,
        index: Option<&String>,
    ) -> Option<Result<(), Refusal>> {
        let gate = match wish {
            Wish::Create => &self.shared.config.on_create,
            Wish::Delete => &self.shared.config.on_delete,
        };
        match gate {
            Gate::Open => Some(Ok(())),
            Gate::Refuse(refusal) => Some(Err(refusal.clone())),
            Gate::Ask => {
                let Ok(held) = self.intake.admit(request) else {
                    self.reply(id, unavailable());
                    return None;
                };
                self.shared.out.event(Event::Asked {
                    id,
                    wish,
                    name: name.clone(),
                    headers: request.headers.clone(),
                });
                self.shared.out.http(id, Out::Pause);
                self.pending.insert(
                    id,
                    Pending {
                        wish,
                        name: name.clone(),
                        request: request.clone(),
                        index: index.cloned(),
                        until: now + ANSWER_WITHIN,
                        early: Vec::new(),
                        early_len: 0,
                        ended: false,
                        held,
                    },
                );
                None
            }
        }
    }

    pub(super) fn granted(&mut self, now: Time, id: EffectId, pending: Pending) {
        self.intake.release(pending.held);
        self.shared.out.http(id, Out::Resume);
        match (pending.wish, pending.index) {
            (Wish::Delete, _) => self.delete_granted(now, id, &pending.name),
            (Wish::Create, None) => self.create_granted(now, id, pending.name, &pending.request),
            (Wish::Create, Some(index)) => {
                self.post_granted(now, id, pending.name, &index, &pending.request);
                for bytes in pending.early {
                    self.body(now, id, bytes);
                }
                if pending.ended {
                    self.body_end(now, id);
                }
            }
        }
    }

    pub(super) fn body(&mut self, now: Time, id: EffectId, bytes: Bytes) {
        if let Some(Seat {
            channel,
            segment,
            place: Place::Writes(place),
        }) = self.shared.seats.get(&id).copied()
        {
            if let Some(held) = self.channels.get_mut(channel) {
                held.data(now, segment, place, bytes, &mut self.shared);
                if held.closed {
                    self.bury(channel);
                }
            }
        } else if let Some(pending) = self.pending.get_mut(&id) {
            pending.early_len = pending.early_len.saturating_add(bytes.len());
            let room = self.intake.grow(&mut pending.held, bytes.len());
            if pending.early_len > MAX_EARLY_BYTES || room.is_err() {
                // The driver was asked to pause; a peer that gets this far through it is not worth waiting for.
                self.forget_pending(id);
                self.reply(id, unavailable());
            } else {
                pending.early.push(bytes);
            }
        }
    }

    pub(super) fn body_end(&mut self, now: Time, id: EffectId) {
        if let Some(Seat {
            channel,
            segment,
            place: Place::Writes(place),
        }) = self.shared.seats.get(&id).copied()
        {
            if let Some(held) = self.channels.get_mut(channel) {
                held.end(now, segment, place, &mut self.shared);
            }
            self.bury(channel);
        } else if let Some(pending) = self.pending.get_mut(&id) {
            pending.ended = true;
        }
    }

    pub(super) fn sent(&mut self, now: Time, id: EffectId, count: usize) {
        let Some(seat) = self.shared.seats.get(&id).copied() else {
            return;
        };
        let Place::Reads(place) = seat.place else {
            return;
        };
        if let Some(held) = self.channels.get_mut(seat.channel) {
            held.sent(now, id, seat.segment, place, count, &mut self.shared);
            if held.closed {
                self.bury(seat.channel);
            }
        }
    }

    pub(super) fn forget_pending(&mut self, id: EffectId) {
        if let Some(pending) = self.pending.remove(&id) {
            self.intake.release(pending.held);
        }
    }

    pub(super) fn failed(&mut self, now: Time, id: EffectId) {
        self.forget_pending(id);
        let Some(seat) = self.shared.seats.remove(&id) else {
            return;
        };
        if let Some(held) = self.channels.get_mut(seat.channel) {
            match seat.place {
                Place::Writes(place) => held.broken(now, seat.segment, place, &mut self.shared),
                Place::Reads(place) => held.leave_reading(seat.segment, place, &mut self.shared),
            }
        }
        self.bury(seat.channel);
    }
}

fn not_found() -> Response {
    text(404, "404 page not found\n")
}

fn no_stream() -> Response {
    text(404, "Stream not found\n")
}

fn bad_index() -> Response {
    text(400, "Invalid idx\n")
}

pub(super) fn unavailable() -> Response {
    text(503, "Too much at a time\n").header(headers::CONNECTION, "close")
}

pub(super) fn refuse(refusal: &Refusal) -> Response {
    let status = match refusal.status {
        status @ 400..=500 => status,
        _ => 400,
    };
    Response::new(status)
        .header(headers::CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(Body::Full(format!("{}\n", refusal.text).into()))
}

/// The path without doubled slashes and dot segments, if it has any (trickle spec 2).
fn cleaned(path: &str) -> Option<String> {
    let dirty = path.contains("//") || path.split('/').any(|part| part == "." || part == "..");
    if !dirty {
        return None;
    }
    let mut clean: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    let mut text = String::from("/");
    text.push_str(&clean.join("/"));
    if path.ends_with('/') && text.len() > 1 {
        text.push('/');
    }
    Some(text)
}

/// Percent-decodes one path segment, once.
fn decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_string());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let digits = core::str::from_utf8(digits).ok()?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}
