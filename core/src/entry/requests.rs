//! Requests about streams.

use alloc::string::String;

use super::{Entry, Event, LARGE_UPDATE, Notice, StreamId, UpdateId, Updated, Way, Why};
use crate::time::Time;
use crate::wire::Params;
use crate::wire::entry::{OutputName, Refusal, StreamName, params_event};

impl Entry {
    /// Changes the parameters of a stream's model, which gets them as they came. `name` is the stream's name, or its id.
    ///
    /// # Errors
    /// 404 if there is no such stream, 400 if the text is not a JSON object.
    pub fn update(&mut self, now: Time, name: &str, params: &str) -> Result<Updated, Refusal> {
        self.advance(now);
        let id = self.find(name)?;
        let for_container = matches!(self.streams[&id].way, Way::Order(_));
        let read = match for_container {
            true => Params::for_container(params),
            false => Params::parse(params),
        };
        let read = read.map_err(|_| Refusal::BAD_PARAMS)?;
        // Containers have them in a request of its own, and read all of it.
        if params.len() > LARGE_UPDATE && !for_container {
            let name = self.streams[&id].name.clone();
            let notice = Notice::LargeUpdate(name, params.len());
            self.out.event(Event::Notice(notice));
        }
        if !self.streams[&id].runs {
            self.change(id, read, None);
            return Ok(Updated::Kept);
        }
        let update = UpdateId(self.mint());
        self.change(id, read, Some(update));
        Ok(Updated::Sent(update))
    }

    pub(super) fn change(&mut self, id: StreamId, params: Params, update: Option<UpdateId>) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.job.params = Some(params.clone());
        if stream.runs {
            let event = params_event(&stream.context(), &params);
            self.out.event(Event::Update(id, params, update));
            self.report("ai_stream_events", event);
        } else {
            stream.params = Some(params);
        }
    }

    /// The status of a stream, or of one that ended lately. `name` is the stream's id, or its name.
    ///
    /// # Errors
    /// 404 if there is no such stream.
    pub fn status(&self, name: &str) -> Result<String, Refusal> {
        if let Some(id) = self.found(name) {
            return Ok(self.streams[&id].told());
        }
        let told = self.remembered.get(name).map(String::from);
        told.ok_or(Refusal::UNKNOWN_STREAM)
    }

    /// Ends a stream, and names it. `name` is the stream's name, or its id.
    ///
    /// # Errors
    /// 404 if there is no such stream.
    pub fn stop(&mut self, now: Time, name: &str) -> Result<StreamId, Refusal> {
        self.advance(now);
        let id = self.find(name)?;
        self.end(id, Why::Asked);
        Ok(id)
    }

    /// The stream whose output has that name.
    ///
    /// # Errors
    /// 404 if there is no such stream, or if another request has its name now.
    pub fn output(&self, name: &OutputName) -> Result<StreamId, Refusal> {
        let id = self.names.get(&name.stream).copied();
        let is_it = |id: &StreamId| {
            let wanted = name.request_id.as_ref();
            wanted.is_none_or(|wanted| *wanted == self.streams[id].request_id)
        };
        id.filter(is_it).ok_or(Refusal::UNKNOWN_STREAM)
    }

    /// The stream of that name, or that id.
    ///
    /// # Errors
    /// 404 if there is no such stream.
    pub fn find(&self, name: &str) -> Result<StreamId, Refusal> {
        self.found(name).ok_or(Refusal::UNKNOWN_STREAM)
    }

    /// A name stands before an id, and the newest stream before those that it replaced.
    fn found(&self, text: &str) -> Option<StreamId> {
        let named = StreamName::parse(text)
            .ok()
            .and_then(|name| self.names.get(&name).copied());
        let of_id = || self.streams.iter().rev().find(|(_, one)| one.id() == text);
        named.or_else(|| of_id().map(|(id, _)| *id))
    }
}
