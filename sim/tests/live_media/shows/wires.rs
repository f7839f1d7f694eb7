//! The wires of live entry, as `serve` has them: what senders ask and how they leave, what is decided about them, and the
//! way of a show from its bridge through its job to those who watch.

use std::collections::VecDeque;

use livepeer_core::entry::{self, JobEnd, Left, Publish, SenderId, StreamId, Way, Why};
use livepeer_core::http::Reach;
use livepeer_core::job::live::Ending;
use livepeer_core::wire::entry::Publication;
use livepeer_ingest::bridge::{self, Bridge, MAX_BLOCKED, Source};
use livepeer_ingest::browser::Peer;
use livepeer_ingest::port::{self, End, Frame, Port};
use livepeer_ingest::rtmp;
use livepeer_media::demux::{self, Demux};
use livepeer_media::h264;
use livepeer_media::timeline::Clocks;
use livepeer_sim::Node;
use livepeer_sim::world::{Gateway, World};

use super::{By, Live, Place, Sender, Show};

impl Live {
    /// Carries everything that came up. Whether a job waits for its gateway.
    pub(super) fn carry(&mut self, world: &mut World, gateways: &mut [Gateway]) -> bool {
        loop {
            let mut moved = false;
            while let Some(event) = world.net.event(self.entry) {
                moved = true;
                self.decided(world, gateways, event);
            }
            while let Some(output) = world.net.event(self.server) {
                moved = true;
                self.of_rtmp(world, output);
            }
            while let Some(output) = world.net.event(self.port) {
                moved = true;
                self.of_port(world, output);
            }
            for at in 0..self.peers.len() {
                while let Some(datagram) = self.peers[at].as_mut().and_then(Peer::sent) {
                    moved = true;
                    world
                        .net
                        .with(self.port, |port, now| port.receive(now, &datagram));
                }
            }
            let streams: Vec<_> = self.shows.keys().copied().collect();
            for id in streams {
                moved |= self.feed(world, gateways, id);
            }
            if !self.wanted.is_empty() {
                return true;
            }
            if !moved {
                return false;
            }
        }
    }

    fn decided(&mut self, world: &mut World, gateways: &mut [Gateway], event: entry::Event) {
        match event {
            entry::Event::Admit {
                sender,
                stream,
                playback,
                goes_on,
            } => {
                if !goes_on {
                    let output = playback.rsplit('/').nth(1).expect("a name").to_owned();
                    world
                        .net
                        .with(self.port, |port, _| port.open_stream(&output));
                    let now = world.net.now();
                    let bridge = Bridge::new(now, bridge::Config::default());
                    let show = Show {
                        bridge: world.net.add(bridge),
                        output,
                        job: None,
                        started: false,
                        queue: VecDeque::new(),
                        blocked: false,
                        heard: None,
                        written: Vec::new(),
                        shown: (0, 0),
                        makers: 1,
                        demux: Demux::new(),
                        cut: false,
                    };
                    assert!(self.shows.insert(stream, show).is_none());
                }
                let Some(place) = self.places.get(&sender).copied() else {
                    return;
                };
                self.admitted.insert(sender, stream);
                match place {
                    Place::Rtmp(id) => world
                        .net
                        .with(self.server, |server, now| server.admit(now, id)),
                    Place::Whip(id) => {
                        let admit = |port: &mut Port, now| port.admit(now, id, Some(&playback));
                        if !world.net.with(self.port, admit) {
                            self.left(world, place, Left::Ended);
                        }
                    }
                }
            }
            entry::Event::Refuse(sender, denied) => match self.forget(sender) {
                Some(Place::Rtmp(id)) => {
                    self.spoil(Place::Rtmp(id));
                    world
                        .net
                        .with(self.server, |server, now| server.refuse(now, id, "no"));
                }
                Some(Place::Whip(id)) => {
                    self.spoil(Place::Whip(id));
                    world
                        .net
                        .with(self.port, |port, now| port.deny(now, id, &denied));
                }
                None => {}
            },
            entry::Event::Start(stream, _) => self.wanted.push(stream),
            entry::Event::Stop(id, why) => {
                self.told.taken_over += u64::from(why == Why::TakenOver);
                let mine = |(_, (_, of)): &(&rtmp::StreamId, &(SenderId, StreamId))| *of == id;
                let mine: Vec<_> = self
                    .published
                    .iter()
                    .filter(mine)
                    .map(|(at, _)| *at)
                    .collect();
                for stream in mine {
                    if let Some((sender, _)) = self.published.remove(&stream)
                        && let Some(place) = self.places.get(&sender).copied()
                    {
                        self.spoil(place);
                    }
                    world
                        .net
                        .with(self.server, |server, now| server.stop(now, stream, "over"));
                }
                let Some(show) = self.shows.get_mut(&id) else {
                    return;
                };
                let ends = matches!(why, Why::Disconnected | Why::NoVideo | Why::Finished);
                world.net.with(show.bridge, |bridge, now| bridge.end(now));
                if !ends {
                    show.cut = true;
                    show.queue.clear();
                    if let Some(gateway) = show.job.map(|at| &gateways[at]) {
                        world.net.with(gateway.job, |job, now| job.stop(now));
                    }
                }
                if show.job.is_none() {
                    // Its job never began.
                    self.wanted.retain(|wanted| *wanted != id);
                    self.over(world, gateways, id);
                }
            }
            entry::Event::Kick(sender, _) => {
                let place = self.places.get(&sender).copied();
                if let Some(place) = place {
                    self.spoil(place);
                }
                if let Some(Place::Whip(id)) = self.forget(sender) {
                    world
                        .net
                        .with(self.port, |port, now| port.kick(now, id, "kicked"));
                }
            }
            _ => {}
        }
    }

    fn forget(&mut self, sender: SenderId) -> Option<Place> {
        self.admitted.remove(&sender);
        self.places.remove(&sender)
    }

    /// Not all that the sender there sent has to arrive.
    fn spoil(&mut self, place: Place) {
        if let Some(sender) = self.sender(place) {
            sender.whole = false;
        }
    }

    fn sender(&mut self, place: Place) -> Option<&mut Sender> {
        let by = match place {
            Place::Rtmp(id) => By::Rtmp(id),
            Place::Whip(id) => By::Whip(*self.sessions.get(&id)?),
        };
        self.senders.iter_mut().find(|sender| sender.by == by)
    }

    fn left(&mut self, world: &mut World, place: Place, how: Left) {
        let found = self.places.iter().find(|(_, one)| **one == place);
        if let Some(sender) = found.map(|(sender, _)| *sender) {
            self.forget(sender);
            world
                .net
                .with(self.entry, |entry, now| entry.left(now, sender, how));
        }
    }

    fn publish(&mut self, world: &mut World, way: Way, asked: Publication, place: Place) {
        let publish = Publish {
            way,
            name: asked.name,
            key: asked.key,
            query: asked.query,
            named: Reach::Public,
        };
        let sender = world
            .net
            .with(self.entry, |entry, now| entry.publish(now, publish));
        self.places.insert(sender, place);
    }

    fn of_rtmp(&mut self, world: &mut World, output: rtmp::Output) {
        let event = match output {
            rtmp::Output::Close(id) => {
                let closed = rtmp::Input::Closed(id);
                world
                    .net
                    .with(self.server, |server, now| server.handle_input(now, closed));
                if let Some(sender) = self.senders.iter_mut().find(|one| one.by == By::Rtmp(id)) {
                    sender.gone = true;
                }
                return;
            }
            rtmp::Output::Event(event) => event,
            _ => return,
        };
        match event {
            rtmp::Event::Asks {
                connection,
                publication,
                ..
            } => self.publish(world, Way::Rtmp, publication, Place::Rtmp(connection)),
            rtmp::Event::Opened {
                stream, connection, ..
            }
            | rtmp::Event::Resumed(stream, connection) => {
                let place = Place::Rtmp(connection);
                let found = self.places.iter().find(|(_, one)| **one == place);
                let of = found.and_then(|(id, _)| Some((*id, *self.admitted.get(id)?)));
                let Some(of) = of else {
                    self.spoil(place);
                    world
                        .net
                        .with(self.server, |server, now| server.stop(now, stream, "over"));
                    return;
                };
                self.published.insert(stream, of);
                let (clocks, sound) = (Clocks::Shared, true);
                self.source(world, of.1, place, Source { clocks, sound });
            }
            rtmp::Event::Video(stream, unit) => {
                if let Some((place, id)) = self.place_of(stream) {
                    self.frame(world, place, id, Frame::Video(unit));
                }
            }
            rtmp::Event::Audio(stream, audio) => {
                if let Some((place, id)) = self.place_of(stream) {
                    self.frame(world, place, id, Frame::Audio(audio));
                }
            }
            rtmp::Event::Ended(stream, _) => {
                let sender = self.published.remove(&stream).map(|(sender, _)| sender);
                let place = sender.and_then(|sender| self.places.get(&sender).copied());
                if let Some(place) = place {
                    self.left(world, place, Left::Ended);
                }
            }
            rtmp::Event::Closed(connection, _) => {
                let place = Place::Rtmp(connection);
                let of =
                    |(sender, _): &(SenderId, StreamId)| self.places.get(sender) == Some(&place);
                if !self.published.values().any(of) {
                    self.left(world, place, Left::Ended);
                }
            }
            _ => {}
        }
    }

    fn place_of(&self, stream: rtmp::StreamId) -> Option<(Place, StreamId)> {
        let (sender, of) = self.published.get(&stream)?;
        Some((*self.places.get(sender)?, *of))
    }

    fn of_port(&mut self, world: &mut World, output: port::Output) {
        let event = match output {
            port::Output::Send(datagram) => {
                let now = world.net.now();
                let peers = self.peers.iter_mut().flatten();
                let mut to = peers.filter(|peer| peer.at == datagram.peer);
                if let Some(peer) = to.next() {
                    peer.receive(now, &datagram.data);
                }
                return;
            }
            port::Output::Reply(exchange, reply) => {
                let peer = self.calls.remove(&exchange).expect("answered once");
                if reply.status == 201
                    && let Some(peer) = &mut self.peers[peer]
                {
                    peer.answer(world.net.now(), &reply);
                }
                return;
            }
            port::Output::Event(event) => event,
            port::Output::Idle(_) => return,
        };
        match event {
            port::Event::Asked {
                session,
                stream,
                query,
                ..
            } => {
                if let Some(peer) = self.last_call {
                    self.sessions.insert(session, peer);
                }
                let asked = Publication::of_path(&stream, &query).expect("a name");
                self.publish(world, Way::Whip, asked, Place::Whip(session));
            }
            port::Event::Opened(session, sound) => {
                let place = Place::Whip(session);
                if let Some(id) = self.stream_of(place) {
                    let clocks = Clocks::Apart;
                    self.source(world, id, place, Source { clocks, sound });
                }
            }
            port::Event::Frame(session, frame) => {
                let place = Place::Whip(session);
                match self.stream_of(place) {
                    Some(id) => self.frame(world, place, id, frame),
                    None => self.spoil(place),
                }
            }
            port::Event::Ended(session, end) => {
                let how = match end {
                    End::Gone => Left::Lost,
                    End::NoVideo | End::NoKeyFrame | End::BadVideo(_) => Left::NoVideo,
                    _ => Left::Ended,
                };
                if !matches!(end, End::Gone | End::Disconnected) {
                    self.spoil(Place::Whip(session));
                }
                if let Some(sender) = self.sender(Place::Whip(session)) {
                    sender.gone = true;
                }
                self.left(world, Place::Whip(session), how);
            }
            _ => {}
        }
    }

    fn stream_of(&self, place: Place) -> Option<StreamId> {
        let (sender, _) = self.places.iter().find(|(_, one)| **one == place)?;
        self.admitted.get(sender).copied()
    }

    fn source(&mut self, world: &mut World, id: StreamId, place: Place, source: Source) {
        if let Some(show) = self.shows.get_mut(&id) {
            show.heard = Some(place);
            world
                .net
                .with(show.bridge, |bridge, now| bridge.source(now, source));
        }
    }

    fn frame(&mut self, world: &mut World, place: Place, id: StreamId, frame: Frame) {
        let Some(show) = self.shows.get(&id) else {
            return self.spoil(place);
        };
        if show.heard != Some(place) {
            return self.spoil(place);
        }
        let bridge = show.bridge;
        if matches!(frame, Frame::Video(_))
            && let Some(sender) = self.sender(place)
        {
            sender.arrived += 1;
        }
        world.net.with(bridge, |bridge, now| match frame {
            Frame::Video(unit) => bridge.video(now, unit),
            Frame::Audio(audio) => bridge.audio(now, audio),
            Frame::Report(kind, stamp, micros) => bridge.report(now, kind, stamp, micros),
            Frame::Lost => bridge.lost(now),
        });
    }

    /// Carries a show on: from its bridge into its job, and from its job to those who watch.
    fn feed(&mut self, world: &mut World, gateways: &mut [Gateway], id: StreamId) -> bool {
        let Some(show) = self.shows.get_mut(&id) else {
            return false;
        };
        let mut moved = false;
        while let Some(event) = world.net.event(show.bridge) {
            moved = true;
            use bridge::Event::{Begin, Done, End, Write};
            if matches!(event, Begin | Write(_) | End | Done) && !show.cut {
                show.queue.push_back(event);
            }
        }
        let owed: usize = show.queue.iter().map(size).sum();
        assert!(owed as u64 <= MAX_BLOCKED + h264::MAX_UNIT as u64);
        let Some(gateway) = show.job.map(|at| &mut gateways[at]) else {
            return moved;
        };
        if !show.started
            && let Some(started) = gateway.log.started.first()
        {
            show.started = true;
            let url = started.orchestrator.clone();
            world.net.with(self.entry, |entry, now| {
                entry.started(now, id, url);
                entry.input(now, id);
                entry.output_seen(now, id);
            });
        }
        while let Some(event) = show.queue.front() {
            if matches!(event, bridge::Event::Begin) && !gateway.begin(&mut world.net) {
                break;
            }
            moved = true;
            match show.queue.pop_front() {
                Some(bridge::Event::Write(data)) => {
                    show.written.extend_from_slice(&data);
                    gateway.write(&mut world.net, data);
                }
                Some(bridge::Event::End) => gateway.end(&mut world.net),
                Some(bridge::Event::Done) => gateway.close(&mut world.net),
                _ => {}
            }
        }
        let blocked = !show.queue.is_empty();
        if std::mem::replace(&mut show.blocked, blocked) != blocked {
            world
                .net
                .with(show.bridge, |bridge, now| bridge.blocked(now, blocked));
        }
        self.told.watched += show.show(world, self.port, gateway);
        if gateway.log.ended.is_some() {
            self.over(world, gateways, id);
            return true;
        }
        moved
    }

    /// The job of a stream is over, or it never had one.
    fn over(&mut self, world: &mut World, gateways: &[Gateway], id: StreamId) {
        let Some(show) = self.shows.remove(&id) else {
            return;
        };
        let output = show.output.clone();
        world
            .net
            .with(self.port, |port, now| port.close_stream(now, &output));
        world.net.with(show.bridge, |bridge, now| bridge.end(now));
        while world.net.event(show.bridge).is_some() {}
        let bridge = world.net.get(show.bridge).figures();
        self.told.pictures += bridge.pictures;
        self.told.dropped += bridge.dropped;
        let Some(gateway) = show.job.map(|at| &gateways[at]) else {
            return;
        };
        let ended = gateway.log.ended.clone();
        let finished = ended == Some(Ending::Finished);
        let end = match &ended {
            Some(Ending::Failed(_)) => JobEnd::Failed("it failed"),
            Some(Ending::NoOrchestrator) => JobEnd::NoOrchestrator,
            _ => JobEnd::Finished,
        };
        world
            .net
            .with(self.entry, |entry, now| entry.job_over(now, id, end));
        if finished && !show.cut && gateway.log.started.len() == 1 {
            // Nothing befell it: what came back is what went in, and holds every picture.
            let back = gateway.log.segments.concat();
            assert!(
                back == show.written,
                "{} of {}",
                back.len(),
                show.written.len()
            );
            assert_eq!(gateway.log.missing(), 0);
            assert_eq!(pictures(&back), bridge.pictures);
            self.told.whole_jobs += 1;
        }
        if !finished && !show.cut {
            self.told.failed_jobs += 1;
        }
    }
}

/// Bytes of an event that waits.
fn size(event: &bridge::Event) -> usize {
    match event {
        bridge::Event::Write(data) => data.len(),
        _ => 0,
    }
}

/// The pictures that a decoder would have.
fn pictures(stream: &[u8]) -> u64 {
    let mut demux = Demux::new();
    demux.push(stream).expect("it is MPEG-TS");
    demux.finish();
    let events = std::iter::from_fn(|| demux.next_event());
    events
        .filter(|event| matches!(event, demux::Event::Video(_)))
        .count() as u64
}

impl Show {
    /// Sends what is new of the output to those who watch: how many pictures.
    fn show(&mut self, world: &mut World, port: Node<Port>, gateway: &Gateway) -> u64 {
        let segments = &gateway.log.segments;
        let makers = gateway.log.started.len();
        if segments.len() < self.shown.0 || makers > self.makers {
            self.makers = makers;
            // Another orchestrator goes on: who watches waits for its key frame.
            self.demux.lost();
            let output = self.output.clone();
            world.net.with(port, |port, _| port.restart_stream(&output));
            self.shown = (segments.len(), segments.last().map_or(0, Vec::len));
        }
        while let Some(segment) = segments.get(self.shown.0.saturating_sub(1)) {
            if self.shown.0 > 0 {
                let fresh = segment.get(self.shown.1..).unwrap_or_default();
                self.demux.push(fresh).expect("it is MPEG-TS");
                self.shown.1 = segment.len();
            }
            if segments.len() == self.shown.0 {
                break;
            }
            self.shown = (self.shown.0 + 1, 0);
        }
        let mut pictures = 0;
        while let Some(event) = self.demux.next_event() {
            let output = &self.output;
            world.net.with(port, |port, now| match &event {
                demux::Event::Video(unit) => {
                    pictures += 1;
                    port.send_video(now, output, unit);
                }
                demux::Event::Audio(audio) => port.send_audio(now, output, audio),
                _ => {}
            });
        }
        pictures
    }
}
