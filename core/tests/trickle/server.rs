//! The behaviour of a server beyond the recorded transcripts: limits, gates, slow readers, its embedder's side.

mod stalled;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use livepeer_core::http::{Body, Fault, Headers, In, Method, Out, Request, Url};
use livepeer_core::trickle::headers::closed;
use livepeer_core::trickle::server::{
    ANSWER_WITHIN, Config, Event, Gate, MAX_EARLY_BYTES, MAX_PENDING_BYTES, Read, Refusal, Refused,
    Removal, Server,
};
use livepeer_core::trickle::{Seq, Start};
use livepeer_core::{Effect, EffectId, Misuse, Time};
use livepeer_sim::{Driven, Exchanges};

#[derive(Default)]
struct Seen {
    status: Option<u16>,
    over: bool,
    body: Vec<u8>,
    chunks: usize,
    ended: bool,
    aborted: bool,
}

struct World {
    now: Time,
    book: Exchanges,
    server: Server,
    minted: u64,
    seen: BTreeMap<EffectId, Seen>,
    events: Vec<Event>,
}

impl World {
    fn new(config: Config) -> Self {
        let now = Time::from_secs(1_000);
        let mut server = Server::new(now, config);
        server.create_channel(now, "c", "x/y".into()).unwrap();
        Self {
            now,
            book: Exchanges::default(),
            server,
            minted: 0,
            seen: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    fn open(&mut self, method: Method, path: &str) -> EffectId {
        let id = EffectId::by_peer(self.minted);
        self.minted += 1;
        let url = Url::parse("http://s/ai/trickle").unwrap().child(path);
        self.http(
            id,
            In::Request(Request::new(method, url).body(Body::Stream)),
        );
        id
    }

    fn get(&mut self, path: &str) -> EffectId {
        let id = self.open(Method::Get, path);
        self.http(id, In::End(Headers::new()));
        id
    }

    fn post(&mut self, path: &str) -> EffectId {
        self.open(Method::Post, path)
    }

    fn data(&mut self, id: EffectId, bytes: impl Into<Bytes>) {
        self.http(id, In::Data(bytes.into()));
    }

    fn end(&mut self, id: EffectId) {
        self.http(id, In::End(Headers::new()));
    }

    fn gone(&mut self, id: EffectId) {
        self.http(id, In::Failed(Fault::Broken("reset".into())));
    }

    /// The embedder publishes a whole segment.
    fn publish(&mut self, bytes: impl Into<Bytes>) -> Seq {
        self.server.publish(self.now, "c", bytes.into()).unwrap()
    }

    fn status(&self, id: EffectId) -> Option<u16> {
        self.seen.get(&id).and_then(|seen| seen.status)
    }

    fn body(&self, id: EffectId) -> &[u8] {
        self.seen.get(&id).map_or(&[], |seen| &seen.body)
    }

    /// The transport takes that many bytes of a reader's.
    fn take(&mut self, id: EffectId, count: usize) {
        self.http(id, In::Sent(count));
    }

    /// Whether the server let go of it.
    fn aborted(&self, id: EffectId) -> bool {
        self.seen.get(&id).is_some_and(|seen| seen.aborted)
    }

    fn ended(&self, id: EffectId) -> bool {
        self.seen.get(&id).is_some_and(|seen| seen.ended)
    }
}

impl Driven for World {
    livepeer_sim::driven!(server: Server, book);

    const PATIENT: bool = true;

    fn effect(&mut self, id: EffectId, effect: Effect) {
        let Effect::Http(out) = effect else {
            panic!("only http is asked for");
        };
        let seen = self.seen.entry(id).or_default();
        match out {
            Out::Reply(reply) => {
                seen.status = Some(reply.status);
                seen.over = closed(&reply.headers);
                seen.ended = reply.body != Body::Stream;
            }
            Out::Data(bytes) => {
                seen.chunks += 1;
                seen.body.extend_from_slice(&bytes);
            }
            Out::End(_) => seen.ended = true,
            Out::Abort => seen.aborted = true,
            Out::Pause | Out::Resume | Out::Report => {}
            other => panic!("{other:?}"),
        }
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

fn small() -> Config {
    Config {
        autocreate: true,
        idle: Duration::from_secs(4),
        sweep: Duration::from_secs(1),
        reader_window: 10,
        max_segment_bytes: 1_000,
        max_channels: 2,
        max_channel_guests: 3,
        max_exchanges: 5,
        ..Config::default()
    }
}

#[test]
fn every_byte_keeps_a_channel_from_the_sweep() {
    // D8, where the Go server counts first bytes only.
    let mut world = World::new(small());
    let post = world.post("c/0");
    for _ in 0..10 {
        world.data(post, &b"x"[..]);
        world.pass_millis(2_000);
    }
    assert!(world.server.stats("c").is_some());
    world.pass_millis(5_000);
    assert!(world.server.stats("c").is_none());
    let idle = |event: &Event| matches!(event, Event::Removed(_, Removal::Idle));
    assert!(world.events.iter().any(idle));
    assert_eq!(
        world.status(post),
        Some(200),
        "the upload is not left waiting"
    );
}

#[test]
fn names_with_an_underscore_are_never_swept_and_not_for_peers_to_write() {
    let mut world = World::new(Config {
        changefeed: true,
        ..small()
    });
    world.pass_millis(20_000);
    assert!(world.server.stats("_changes").is_some());
    for id in [
        world.post("_changes/1"),
        world.post("_new"),
        world.open(Method::Delete, "_changes"),
        world.open(Method::Delete, "_changes/0"),
    ] {
        assert_eq!(world.status(id), Some(403));
    }
    let read = world.get("_changes/0");
    assert_eq!(world.body(read), br#"{"added":["_changes"]}"#);
}

#[test]
fn a_longer_segment_than_allowed_is_refused_and_its_readers_end() {
    let mut world = World::new(Config {
        reader_window: 10_000,
        ..small()
    });
    let post = world.post("c/0");
    let get = world.get("c/0");
    world.data(post, vec![1; 600]);
    world.data(post, vec![1; 400]);
    assert_eq!(world.status(post), None);
    world.data(post, vec![1; 1]);
    assert_eq!(world.status(post), Some(413));
    assert!(world.ended(get));
    assert_eq!(world.body(get).len(), 1_000);
}

#[test]
fn there_are_so_many_channels_guests_and_exchanges_and_no_more() {
    let mut world = World::new(small());
    let create = world.post("d");
    assert_eq!(world.status(create), Some(200));
    let create = world.post("e");
    assert_eq!(world.status(create), Some(503));
    let post = world.post("e/0");
    assert_eq!(world.status(post), Some(503));
    let waiting: Vec<EffectId> = (0..3).map(|_| world.get("c/0")).collect();
    let fourth = world.get("c/0");
    assert_eq!(world.status(fourth), Some(503));
    let other = [world.get("d/0"), world.get("d/0")];
    assert_eq!(
        world.status(other[1]),
        None,
        "other channels are undisturbed"
    );
    let sixth = world.get("d/0");
    assert_eq!(world.status(sixth), Some(503));
    // Whoever leaves makes room.
    world.gone(waiting[0]);
    let again = world.get("c/0");
    assert_eq!(world.status(again), None);
    assert_eq!(world.server.stats("c").unwrap().guests, 3);
}

#[test]
fn a_reader_that_left_leaves_nothing_behind() {
    let mut world = World::new(small());
    // One ahead of an empty channel's head is precreated for it.
    let get = world.get("c/1");
    assert_eq!(world.server.stats("c").unwrap().guests, 1);
    world.gone(get);
    assert_eq!(world.server.stats("c").unwrap().guests, 0);
    let delete = world.open(Method::Delete, "c/1");
    assert_eq!(world.status(delete), Some(400), "and its slot is free");
}

#[test]
fn a_slow_reader_gets_no_more_than_its_window_and_slows_nobody() {
    let mut world = World::new(small());
    let post = world.post("c/0");
    let (slow, fast) = (world.get("c/0"), world.get("c/0"));
    for n in 0..20_u8 {
        world.data(post, vec![n; 6]);
        world.http(fast, In::Sent(6));
    }
    assert_eq!(world.body(fast).len(), 120);
    // Handed out while less than ten bytes were on the way.
    assert_eq!(world.body(slow).len(), 12);
    world.end(post);
    assert!(world.ended(fast) && !world.ended(slow));
    // Five segments later it still reads on to the end.
    for n in 1..7 {
        world.publish(format!("{n}"));
    }
    world.drain();
    while !world.ended(slow) {
        world.http(slow, In::Sent(6));
    }
    assert_eq!(world.body(slow), world.body(fast));
}

#[test]
fn single_bytes_are_joined_so_that_none_pins_a_buffer() {
    let mut world = World::new(Config {
        max_segment_bytes: 10_000,
        reader_window: 100_000,
        ..small()
    });
    let post = world.post("c/0");
    let early = world.get("c/0");
    for n in 0..5_000_u32 {
        world.data(post, vec![n as u8]);
    }
    let late = world.get("c/0");
    assert_eq!(world.seen[&early].chunks, 5_000);
    assert_eq!(world.seen[&late].chunks, 2);
    assert_eq!(world.body(early), world.body(late));
}

#[test]
fn a_broken_upload_waits_for_its_publisher_and_then_ends_its_readers() {
    // D6.
    let mut world = World::new(small());
    let post = world.post("c/0");
    world.data(post, &b"part"[..]);
    let get = world.get("c/0");
    world.gone(post);
    assert_eq!(world.status(post), Some(500));
    world.pass_millis(1_999);
    assert!(!world.ended(get));
    let again = world.post("c/0");
    world.pass_millis(1_500);
    assert!(!world.ended(get), "somebody is there to continue it");
    world.gone(again);
    world.pass_millis(2_000);
    assert!(world.ended(get));
    assert_eq!(world.body(get), b"part");
}

#[test]
fn an_overtaken_upload_gets_less_patience() {
    let mut world = World::new(small());
    let post = world.post("c/0");
    world.data(post, &b"part"[..]);
    let get = world.get("c/0");
    world.gone(post);
    world.publish("next");
    world.pass_millis(999);
    assert!(!world.ended(get));
    world.pass_millis(1);
    assert!(world.ended(get));
}

#[test]
fn the_embedder_may_decide_who_creates_and_deletes() {
    let mut world = World::new(Config {
        on_create: Gate::Ask,
        on_delete: Gate::Ask,
        ..small()
    });
    // A segment POST that would create meets the gate as well (D23); its body waits.
    let post = world.post("n/0");
    world.data(post, &b"early"[..]);
    world.end(post);
    assert_eq!(world.status(post), None);
    assert!(world.server.stats("n").is_none());
    world.server.answer(world.now, post, Ok(()));
    world.drain();
    assert_eq!(world.status(post), Some(200));
    let get = world.get("n/0");
    assert_eq!(world.body(get), b"early");

    for (status, told) in [(402, 402), (500, 500), (200, 400)] {
        let delete = world.open(Method::Delete, "n");
        let refusal = Refusal {
            status,
            text: "no".into(),
        };
        world.server.answer(world.now, delete, Err(refusal));
        world.drain();
        assert_eq!(world.status(delete), Some(told));
    }
    assert!(world.server.stats("n").is_some());

    let late = world.post("m");
    world.pass_millis(ANSWER_WITHIN.as_millis() as u64);
    assert_eq!(world.status(late), Some(500));
    world.server.answer(world.now, late, Ok(()));
    assert!(world.server.stats("m").is_none(), "too late");
}

#[test]
fn what_waits_for_the_embedder_is_bounded_in_all() {
    let mut world = World::new(Config {
        on_create: Gate::Ask,
        max_exchanges: 1_000,
        ..small()
    });
    let early = Bytes::from(vec![7; MAX_EARLY_BYTES]);
    let mut waiting = Vec::new();
    // The heads count as well, so the last one does not fit.
    for n in 1..MAX_PENDING_BYTES / MAX_EARLY_BYTES {
        let post = world.post(&format!("n{n}/0"));
        world.data(post, early.clone());
        assert_eq!(world.status(post), None);
        waiting.push(post);
    }
    let post = world.post("one-more/0");
    world.data(post, early.clone());
    assert_eq!(world.status(post), Some(503));
    // Those that are answered, and those that leave, make room.
    let refusal = Refusal {
        status: 403,
        text: "no".into(),
    };
    world.server.answer(world.now, waiting[0], Err(refusal));
    world.gone(waiting[1]);
    for name in ["a/0", "b/0"] {
        let post = world.post(name);
        world.data(post, early.clone());
        assert_eq!(world.status(post), None, "{name}");
    }
}

#[test]
fn an_embedder_publishes_and_reads_without_http() {
    let mut world = World::new(small());
    let now = world.now;
    let server = &mut world.server;
    assert_eq!(server.begin(now, "none"), Err(Refused::NoChannel));
    assert_eq!(
        server.write(now, "c", Bytes::new()),
        Err(Refused::Misuse(Misuse::NotOpen))
    );
    let reader = server.subscribe(now, "c", Start::Next).unwrap();
    assert!(matches!(server.read(now, reader), Read::Pending));
    assert_eq!(server.begin(now, "c"), Ok(Seq::ZERO));
    assert_eq!(
        server.begin(now, "c"),
        Err(Refused::Misuse(Misuse::StillOpen))
    );
    server.write(now, "c", "ab".into()).unwrap();
    server.write(now, "c", vec![7; 600].into()).unwrap();
    assert!(matches!(server.read(now, reader), Read::Begin(seq, _) if seq == Seq::ZERO));
    assert!(matches!(server.read(now, reader), Read::Data(_, bytes) if bytes == "ab"));
    assert!(matches!(server.read(now, reader), Read::Data(_, bytes) if bytes.len() == 600));
    assert!(matches!(server.read(now, reader), Read::Pending));
    server.end(now, "c").unwrap();
    assert!(matches!(server.read(now, reader), Read::End(_)));
    assert!(matches!(server.read(now, reader), Read::Pending));
    let told = |world: &mut World| {
        world.drain();
        let events = std::mem::take(&mut world.events);
        events
            .iter()
            .filter(|event| matches!(event, Event::Readable(_)))
            .count()
    };
    assert_eq!(told(&mut world), 2, "at the first byte and at the end");
    // A reader that comes back late is told what it missed.
    for n in 1..8 {
        world.publish(format!("{n}"));
    }
    let mut read = Vec::new();
    loop {
        match world.server.read(now, reader) {
            Read::Begin(seq, _) => read.push(format!("begin {seq}")),
            Read::Data(_, bytes) => read.push(String::from_utf8_lossy(&bytes).into_owned()),
            Read::End(seq) => read.push(format!("end {seq}")),
            Read::Gap(gone) => read.push(format!("gap {}..{}", gone.start, gone.end)),
            Read::Pending => break,
            other => panic!("{other:?}"),
        }
    }
    // It was parked at 1, which it therefore still has.
    assert_eq!(read, ["begin 1", "1", "end 1", "gap 2..8"]);
    world.server.delete_channel(now, "c");
    assert!(matches!(world.server.read(now, reader), Read::Ended));
    assert_eq!(
        world.server.publish(now, "c", "x".into()),
        Err(Refused::NoChannel)
    );
}

#[test]
fn a_local_reader_follows_a_publisher_that_began_anew() {
    let mut world = World::new(small());
    let now = world.now;
    for n in 0..9 {
        world.publish(format!("{n}"));
    }
    let reader = world.server.subscribe(now, "c", Start::Next).unwrap();
    assert!(matches!(world.server.read(now, reader), Read::Pending));
    let post = world.post("c/0");
    world.data(post, &b"anew"[..]);
    assert!(
        world
            .events
            .iter()
            .any(|event| matches!(event, Event::Readable(_)))
    );
    assert!(matches!(
        world.server.read(now, reader),
        Read::Discontinuity
    ));
    assert!(matches!(world.server.read(now, reader), Read::Begin(seq, _) if seq == Seq::ZERO));
}

#[test]
fn closing_answers_everybody_and_then_refuses() {
    let mut world = World::new(small());
    let post = world.post("c/0");
    world.data(post, &b"x"[..]);
    let (running, waiting, warm) = (world.get("c/0"), world.get("c/1"), world.post("d/0"));
    world.server.close(world.now);
    world.drain();
    for id in [post, running, waiting, warm] {
        assert_eq!(world.status(id), Some(200));
        assert!(world.ended(id));
    }
    world.take(running, 1);
    assert!(matches!(world.events.last(), Some(Event::Closed(_))));
    let late = world.post("c/2");
    assert_eq!(world.status(late), Some(503));
    let between = world.get("c/1");
    assert_eq!(world.status(between), Some(200));
    assert!(world.seen[&between].over);
    let refused = world.server.create_channel(world.now, "x", "".into());
    assert_eq!(refused, Err(Refused::Misuse(Misuse::Ended)));
    assert_eq!(world.drain(), None);
}

#[test]
fn closing_waits_for_a_slow_reader_to_have_what_was_published() {
    let mut world = World::new(small());
    let get = world.get("c/0");
    world.publish(vec![1; 600]);
    assert_eq!(world.publish("2"), Seq::new(1));
    let to = world.get("c/1");
    world.drain();
    world.server.close(world.now);
    world.drain();
    assert!(world.ended(to) && !world.ended(get));
    assert!(
        !world
            .events
            .iter()
            .any(|event| matches!(event, Event::Closed(_)))
    );
    world.take(to, 1);
    world.take(get, 600);
    assert!(world.ended(get));
    assert_eq!(world.body(get).len(), 600);
    assert!(matches!(world.events.last(), Some(Event::Closed(_))));
}

#[test]
fn long_segments_are_exact_while_their_memory_is_used_again() {
    // Two windows' worth, in pieces that fit no block, read by one who lets go of every other segment only: some of
    // the memory is free when it is needed again, and some is not.
    let mut world = World::new(Config::default());
    let now = world.now;
    let reader = world
        .server
        .subscribe(now, "c", Start::At(Seq::ZERO))
        .unwrap();
    let length = |seq: u64| 2_000_000 + 100_003 * seq as usize;
    let byte = |seq: u64, at: usize| (at as u64).wrapping_mul(31 + seq).to_le_bytes()[1];
    let mut held: BTreeMap<u64, Vec<Bytes>> = BTreeMap::new();
    for seq in 0..10 {
        let whole: Vec<u8> = (0..length(seq)).map(|at| byte(seq, at)).collect();
        let post = world.post(&format!("c/{seq}"));
        for (piece, size) in whole
            .chunks(70_001)
            .zip([100, 3_000, 70_001].into_iter().cycle())
        {
            for part in piece.chunks(size) {
                world.data(post, part.to_vec());
            }
        }
        world.end(post);
        loop {
            match world.server.read(now, reader) {
                Read::Data(seq, bytes) => held.entry(seq.get()).or_default().push(bytes),
                Read::Pending | Read::Ended => break,
                Read::Begin(..) | Read::End(_) => {}
                other => panic!("{other:?}"),
            }
        }
        if seq % 2 == 1 {
            held.remove(&(seq - 1));
        }
    }
    assert_eq!(held.keys().copied().collect::<Vec<_>>(), [1, 3, 5, 7, 9]);
    for (seq, pieces) in held {
        let bytes = pieces.iter().flatten().copied();
        assert!(
            bytes.eq((0..length(seq)).map(|at| byte(seq, at))),
            "segment {seq}"
        );
    }
}

#[test]
fn who_waits_for_the_segment_that_a_restart_begins_with_goes_on_waiting() {
    let mut world = World::new(Config::default());
    let reader = world.get("c/0");
    // A later segment came first, and moved the head.
    let later = world.post("c/1");
    world.data(later, "later");
    let url = Url::parse("http://s/ai/trickle/c/0").unwrap();
    let first = EffectId::by_peer(1_000);
    let restart = Request::new(Method::Post, url)
        .header("lp-trickle-reset", "1")
        .body(Body::Stream);
    world.http(first, In::Request(restart));
    assert_eq!(world.status(reader), None);
    world.data(first, "first");
    world.end(first);
    assert_eq!(world.body(reader), b"first");
    assert!(world.ended(reader));
    // What came later belongs to what was before.
    let next = world.get("c/1");
    assert_eq!(world.status(next), None);
}

#[test]
fn figures_tell_of_all_channels_together_and_name_none() {
    let mut world = World::new(Config {
        figures: true,
        ..Config::default()
    });
    let reader = world.get("c/1");
    world.publish("0123456789");
    let another = world
        .server
        .create_channel(world.now, "secret", "x/y".into());
    another.expect("there is room");
    let publish = world.server.publish(world.now, "secret", "01234".into());
    publish.expect("it is there");
    world.server.delete_channel(world.now, "secret");
    let page = |world: &mut World| {
        let id = EffectId::by_peer(2_000);
        let url = Url::parse("http://s/metrics").unwrap();
        world.http(id, In::Request(Request::new(Method::Get, url)));
        world.status(id)
    };
    assert_eq!(page(&mut world), Some(200));
    let text = world.server.to_prometheus();
    for line in [
        "livepeer_trickle_channels 1",
        "livepeer_trickle_channels_created_total 2",
        "livepeer_trickle_channels_removed_total{reason=\"owner\"} 1",
        "livepeer_trickle_received_bytes_total 15",
        "livepeer_trickle_guests 1",
        "livepeer_trickle_waiting 1",
        "livepeer_trickle_outside_bytes 0",
    ] {
        assert!(text.lines().any(|have| have == line), "{line}\n{text}");
    }
    assert!(!text.contains("secret"));
    world.gone(reader);
    let mut plain = World::new(Config::default());
    assert_eq!(page(&mut plain), Some(404));
}
