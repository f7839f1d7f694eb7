//! Senders: who may send under which name, and who goes on with which stream.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;

use super::asking::{self, Asking, Verdict};
use super::stream::Stream;
use super::{
    Denied, Entry, Event, GRACE, Left, MAX_ASKING, MEASURE_EVERY, MEDIA_WITHIN, Notice, Publish,
    SenderId, StreamId, Way, Why,
};
use crate::http::Reach;
use crate::time::Time;
use crate::wire::entry::{GatewayStatus, JobQuery, TraceKind};

impl Entry {
    /// Takes in the question of a sender, whose answer is [`Event::Admit`] or [`Event::Refuse`], later or at once.
    pub fn publish(&mut self, now: Time, mut publish: Publish) -> SenderId {
        let now = self.advance(now);
        let id = SenderId(self.mint());
        publish.named = self.config.within(publish.named);
        let job = match self.hear(&publish) {
            Ok(job) => job,
            Err(denied) => {
                self.refuse(id, &publish.way, denied);
                return id;
            }
        };
        let request_id = hex::encode(&self.rng.bytes32()[..4]);
        let config = Arc::clone(&self.config);
        let Some(webhook) = &config.webhook else {
            let named = publish.named;
            self.admit(id, publish, (job, named), request_id);
            return id;
        };
        let asked = (publish, job, request_id);
        let asking = Asking::start(&mut self.out, now, &config, webhook, asked);
        self.asking.insert(id, Box::new(asking));
        id
    }

    /// Reads what a sender wants, as far as that needs nobody else.
    fn hear(&self, publish: &Publish) -> Result<JobQuery, Denied> {
        let announces = matches!(publish.way, Way::Source(_));
        let is_new = !announces && !self.names.contains_key(&publish.name);
        if is_new && self.is_closing() {
            return Err(Denied::Closing);
        }
        let no_room = self.streams.len() >= self.config.max_streams;
        if (is_new && no_room) || self.asking.len() >= MAX_ASKING {
            return Err(Denied::Full);
        }
        let job = asking::job(publish)?;
        let is_ours = matches!(publish.way, Way::Whip | Way::Rtmp);
        if is_ours && !asking::has_key(&self.config, publish) {
            return Err(Denied::Unauthorized);
        }
        let stream = self.names.get(&publish.name).map(|id| &self.streams[id]);
        if let Way::Order(order) = &publish.way {
            if stream.is_some() {
                return Err(Denied::Exists);
            }
            for output in &order.outputs {
                asking::check("rtmp_output", output, publish.named)?;
            }
        }
        let is_ordered = stream.is_some_and(|stream| matches!(stream.way, Way::Order(_)));
        let is_taken =
            stream.is_some_and(|stream| stream.sender.is_some() && stream.until.is_none());
        match stream {
            Some(stream) if stream.takes_no_video() => return Err(Denied::NoVideo),
            _ if announces && !is_ordered => {
                return Err(Denied::Unknown(publish.name.clone()));
            }
            // It is not for a media server to end what somebody sends.
            _ if announces && is_taken => return Err(Denied::Taken),
            _ => {}
        }
        if is_ordered && !is_ours && !announces {
            return Err(Denied::Taken);
        }
        if is_taken && is_ours && !self.config.takeover {
            return Err(Denied::Taken);
        }
        if let Way::Hook(hook) | Way::Source(hook) = &publish.way
            && !hook.rtmp_url.is_empty()
        {
            asking::check("rtmp_url", &hook.rtmp_url, publish.named)?;
        }
        asking::check("rtmpOutput", &job.rtmp_output, publish.named)?;
        Ok(job)
    }

    /// Tells that a sender left. One that is not let in yet is forgotten, and so is one that was replaced.
    pub fn left(&mut self, now: Time, id: SenderId, how: Left) {
        let now = self.advance(now);
        if let Some(mut asking) = self.asking.remove(&id) {
            asking.exchange.abort(&mut self.out);
            return;
        }
        let Some(stream_id) = self.senders.remove(&id) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        if stream.waiting == Some(id) {
            stream.waiting = None;
        }
        if stream.sender != Some(id) {
            return;
        }
        match how {
            Left::Ended => self.end(stream_id, Why::Disconnected),
            Left::NoVideo => self.end(stream_id, Why::NoVideo),
            Left::Lost => self.wait(stream_id, now + GRACE),
        }
    }

    /// Lets a stream wait for media until then.
    fn wait(&mut self, id: StreamId, until: Time) {
        if let Some(stream) = self.streams.get_mut(&id) {
            if let Some(before) = stream.until.replace(until) {
                self.due.remove(&(before, id));
            }
            self.due.insert((until, id));
        }
    }

    fn refuse(&mut self, id: SenderId, way: &Way, denied: Denied) {
        if let Denied::Place(why) = &denied {
            self.out.event(Event::Notice(Notice::Place(why.clone())));
        }
        self.out.event(Event::Refuse(id, denied));
        self.kick_at_source(way);
    }

    pub(super) fn judged(&mut self, id: SenderId, verdict: Verdict) {
        let Some(asking) = self.asking.remove(&id) else {
            return;
        };
        let Asking {
            publish,
            request_id,
            ..
        } = *asking;
        let (judged, notice) = verdict;
        self.out_notice(notice);
        match judged {
            Ok(judged) => self.admit(id, publish, judged, request_id),
            Err(denied) => self.refuse(id, &publish.way, denied),
        }
    }

    /// Gives a sender the name that it wants. The place of the output may lead where whoever named it may lead.
    fn admit(
        &mut self,
        id: SenderId,
        publish: Publish,
        (job, output): (JobQuery, Reach),
        request_id: String,
    ) {
        let older = self.names.get(&publish.name).copied();
        if let Some(older) = older
            && self.streams[&older].goes_on_with(&publish.way, &job)
        {
            return self.go_on(id, older, job);
        }
        if let Way::Source(_) = publish.way {
            return self.announced(id, older, publish);
        }
        // Its stream would be a new one. We may have begun to shut down while it asked, or others were let in.
        if self.is_closing() {
            return self.refuse(id, &publish.way, Denied::Closing);
        }
        match older {
            // It was ordered while this one asked, or this is the order and somebody else was quicker.
            Some(older)
                if matches!(publish.way, Way::Order(_))
                    || matches!(self.streams[&older].way, Way::Order(_)) =>
            {
                return self.refuse(id, &publish.way, Denied::Exists);
            }
            Some(older) => self.end(older, Why::TakenOver),
            None if self.streams.len() >= self.config.max_streams => {
                return self.refuse(id, &publish.way, Denied::Full);
            }
            None => {}
        }
        let stream_id = StreamId(self.mint());
        let announced = matches!(publish.way, Way::Hook(_));
        let ordered = matches!(publish.way, Way::Order(_));
        let waits = match &publish.way {
            // Nobody sends for one that takes no video: it runs until somebody stops it, or its container ends.
            Way::Order(order) => order.takes_video(),
            _ => announced,
        };
        let playback = asking::playback(&self.config, &publish, &request_id);
        let gives_video = match &publish.way {
            Way::Order(order) => order.gives_video(),
            _ => true,
        };
        let stream = Stream {
            gateway: GatewayStatus {
                whep_url: gives_video.then(|| playback.clone()),
                ..GatewayStatus::default()
            },
            name: publish.name.clone(),
            way: publish.way,
            named: publish.named,
            output,
            job,
            request_id,
            playback: playback.clone(),
            announced: None,
            sender: (!announced && !ordered).then_some(id),
            pulled: false,
            waiting: announced.then_some(id),
            began: self.now,
            orchestrator: None,
            runs: false,
            params: None,
            status: None,
            has_input: false,
            outputs: 0,
            swaps: 0,
            until: None,
        };
        self.figures.admitted(&stream.job.pipeline);
        let job = stream.to_job();
        let source = stream.source();
        self.names.insert(publish.name, stream_id);
        self.streams.insert(stream_id, stream);
        // Whoever orders is answered at once, and has nothing more to do with it.
        if !ordered {
            self.senders.insert(id, stream_id);
        }
        if waits {
            self.wait(stream_id, self.now + MEDIA_WITHIN);
        } else if !ordered {
            self.next_measure.get_or_insert(self.now + MEASURE_EVERY);
        }
        self.out.event(Event::Admit {
            sender: id,
            stream: stream_id,
            playback,
            goes_on: false,
        });
        self.trace(stream_id, TraceKind::ReceiveStreamRequest, None);
        self.out.event(Event::Start(stream_id, job));
        if let Some(source) = source {
            self.out.event(Event::Pull(stream_id, source));
        }
        self.tell_shutdown(stream_id);
    }

    /// Has the media of a stream that was ordered fetched at the media server that announces them.
    fn announced(&mut self, id: SenderId, stream_id: Option<StreamId>, publish: Publish) {
        let has_sender = |stream: &Stream| {
            let sender = stream.sender.as_ref();
            sender.is_some_and(|sender| self.senders.contains_key(sender))
        };
        let stream = stream_id.and_then(|id| self.streams.get(&id));
        let denied = match stream {
            Some(stream) if has_sender(stream) => Some(Denied::Taken),
            Some(stream) if matches!(stream.way, Way::Order(_)) => None,
            _ => Some(Denied::Unknown(publish.name.clone())),
        };
        if let Some(denied) = denied {
            return self.refuse(id, &publish.way, denied);
        }
        let (Some(stream_id), Way::Source(hook)) = (stream_id, publish.way) else {
            return;
        };
        self.wait(stream_id, self.now + MEDIA_WITHIN);
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        stream.announced = Some((hook, publish.named));
        let source = stream.source();
        self.out.event(Event::Settled(id));
        if let Some(source) = source {
            self.out.event(Event::Pull(stream_id, source));
        }
    }

    /// Tells that the media of an announced stream come, which are fetched at its media server: they have a sender of
    /// their own from here on. `None` if nobody wants them: the stream is over, or somebody sends for it.
    pub fn pulled(&mut self, now: Time, id: StreamId) -> Option<SenderId> {
        self.advance(now);
        let stream = self.streams.get_mut(&id)?;
        let has_sender = |sender: &SenderId| self.senders.contains_key(sender);
        let announced = matches!(stream.way, Way::Hook(_)) || stream.announced.is_some();
        if !announced || stream.sender.as_ref().is_some_and(has_sender) {
            return None;
        }
        if let Some(until) = stream.until.take() {
            self.due.remove(&(until, id));
        }
        self.minted += 1;
        let sender = SenderId(self.minted);
        (stream.sender, stream.pulled) = (Some(sender), true);
        self.senders.insert(sender, id);
        self.next_measure.get_or_insert(self.now + MEASURE_EVERY);
        Some(sender)
    }

    /// Lets a sender go on with a stream that there is.
    fn go_on(&mut self, id: SenderId, stream_id: StreamId, job: JobQuery) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        if let Some(until) = stream.until.take() {
            self.due.remove(&(until, stream_id));
        }
        stream.pulled = false;
        // One that left by itself is not among them any more.
        if let Some(older) = stream.sender.replace(id)
            && self.senders.remove(&older).is_some()
        {
            self.out.event(Event::Kick(older, Why::TakenOver));
        }
        self.senders.insert(id, stream_id);
        self.out.event(Event::Admit {
            sender: id,
            stream: stream_id,
            playback: stream.playback.clone(),
            goes_on: true,
        });
        let later = self.now + MEASURE_EVERY;
        self.next_measure.get_or_insert(later);
        if let Some(params) = job.params
            && stream.job.params.as_ref() != Some(&params)
        {
            self.change(stream_id, params, None);
        }
    }
}
