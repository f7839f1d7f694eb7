//! Live video by WHIP and RTMP, through a model and out again, over real sockets.

mod browser;
mod farewell;

use std::sync::Mutex;

use livepeer_ingest::bridge;
use livepeer_ingest::port::{self, Door};
use livepeer_ingest::rtmp::push::{self, Sound, Target};
use livepeer_ingest::rtmp::{self as machine};
use livepeer_media::frame::{AccessUnit, Audio, AudioCodec, Ticks, Tracks, VideoCodec};

pub use self::farewell::what_a_stream_sent_last_arrives;

use self::browser::{Browser, clip};
use super::api::Place;
use super::life::both;
use super::*;
use crate::ingest::{Push, Rtmp, Sent, Show, Taker, Webrtc};
use crate::lock;
use crate::rt::bind_udp;

/// Everything that ffmpeg 9 sent to a server to publish 60 pictures and their sound as `live/key?token=abc`.
const RECORDING: &[u8] =
    include_bytes!("../../../../ingest/tests/vectors/rtmp/ffmpeg9-h264-aac.c2s.bin");
/// The pictures in it.
const RECORDED: usize = 60;

/// A taker that keeps what it is given, and hands it on.
#[derive(Clone, Default)]
struct Tap {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    pictures: Vec<AccessUnit>,
    sounds: Vec<Audio>,
    sources: usize,
    ended: bool,
}

impl Tap {
    fn before(&self, next: Arc<dyn Taker>) -> Arc<dyn Taker> {
        let tap = self.clone();
        Arc::new(move |sent: Sent| {
            tap.take(sent.clone());
            next.take(sent);
        })
    }

    fn with<T>(&self, look: impl FnOnce(&Kept) -> T) -> T {
        look(&lock(&self.kept))
    }

    /// Waits until `look` is content.
    async fn until(&self, runtime: &impl Runtime, look: impl Fn(&Kept) -> bool) {
        while !self.with(&look) {
            rest(runtime, Duration::from_millis(2)).await;
        }
    }
}

impl Taker for Tap {
    fn take(&self, sent: Sent) {
        let mut kept = lock(&self.kept);
        assert!(!kept.ended, "nothing comes after the end");
        match sent {
            Sent::Source(_) => kept.sources += 1,
            Sent::Video(unit) => kept.pictures.push(unit),
            Sent::Audio(audio) => kept.sounds.push(audio),
            Sent::Ended => kept.ended = true,
            _ => {}
        }
    }
}

/// A listener of RTMP on a port of its own.
async fn listener<R: Runtime>(driver: &Driver<R>, tls: Option<Arc<ServerConfig>>) -> Rtmp<R> {
    let socket = driver.runtime().bind(LOOPBACK).await.expect("a free port");
    let config = machine::Config::default();
    Rtmp::open(driver, socket, tls, config).expect("it has an address")
}

/// Lets the next publisher in.
async fn admit<R: Runtime>(rtmp: &Rtmp<R>, taker: Arc<dyn Taker>) -> machine::ConnectionId {
    loop {
        match rtmp.next().await.expect("the listener is open") {
            machine::Event::Asks { connection, .. } => {
                rtmp.admit(connection, taker);
                return connection;
            }
            machine::Event::Opened { .. } => panic!("nobody was let in"),
            _ => {}
        }
    }
}

/// The whole of what a server says to a client that sends `bytes`, until it closes.
async fn converse<R: Runtime>(runtime: &R, at: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut peer = Raw(runtime.connect(at).await.expect("it listens"));
    // One that is refused cannot send all of it.
    let _ = peer.write(bytes).await;
    let mut said = Vec::new();
    while let Ok(more) = peer.read().await
        && !more.is_empty()
    {
        said.extend(more);
    }
    said
}

/// Each picture that a publisher sends goes through a model and comes back, and with the publisher the job ends.
pub async fn a_stream_by_rtmp_goes_through_a_model<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let driver = Driver::new(runtime.clone());
    let rtmp = listener(&driver, None).await;
    let show = Show::new(&driver, bridge::Config::default());
    let tap = Tap::default();
    let publishing = async {
        converse(&runtime, rtmp.local_addr(), RECORDING).await;
    };
    let running = async {
        admit(&rtmp, tap.before(show.rtmp())).await;
        // The stream is there before the job is.
        tap.until(&runtime, |kept| kept.ended).await;
        let (job, input, output) = place.job().await;
        show.run(input, output).await.expect("the job goes on");
        job.wait().await.expect("it ends with its input");
    };
    both(publishing, running).await;
    let figures = show.figures();
    assert_eq!(tap.with(|kept| kept.pictures.len()), RECORDED);
    assert_eq!(figures.input.pictures, RECORDED as u64);
    assert_eq!(figures.pictures, RECORDED as u64, "{figures:?}");
    assert_eq!(
        figures.sounds,
        figures.input.sounds + figures.input.silences,
        "{figures:?}"
    );
    assert!(
        figures.input.sounds >= 90,
        "two seconds of AAC: {figures:?}"
    );
    assert!(show.has_ended());
}

/// Frames that are pushed to another server by RTMP are those that it takes, over TCP and over TLS.
pub async fn frames_that_are_pushed_by_rtmp_arrive<R: Runtime>(runtime: R) {
    let driver = Driver::new(runtime.clone());
    // Not one as orchestrators make them: those pass for no public one.
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a name");
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).expect("PEM");
    let mut roots = rustls::RootCertStore::empty();
    let root = identity.certificate().clone();
    roots.add(root).expect("a certificate");
    for secure in [false, true] {
        let tls = secure.then(|| tls(&identity)).flatten();
        let rtmp = listener(&driver, tls).await;
        let scheme = if secure { "rtmps" } else { "rtmp" };
        let target = format!("{scheme}://{}/live/pushed", rtmp.local_addr());
        let target = Target::parse(&target).expect("an address of RTMP");
        let tracks = Tracks {
            video: Some(VideoCodec::H264),
            audio: Some(AudioCodec::Opus),
        };
        let trusting = driver.clone().with_roots(roots.clone());
        let push = Push::open(&trusting, target, tracks, Sound::AacAndOpus);
        let tap = Tap::default();
        admit(&rtmp, Arc::new(tap.clone())).await;
        assert_eq!(push.next().await, Some(push::Event::Publishing));
        let frames = clip();
        let (mut pictures, mut sounds) = (Vec::new(), 0);
        for frame in &frames {
            match frame.unit() {
                Ok(unit) => {
                    push.video(&unit);
                    pictures.push(unit.data);
                }
                Err(audio) => {
                    push.audio(&audio);
                    // Sound before the first picture goes nowhere.
                    sounds += usize::from(!pictures.is_empty());
                }
            }
        }
        tap.until(&runtime, |kept| {
            kept.pictures.len() == pictures.len() && kept.sounds.len() == sounds
        })
        .await;
        tap.with(|kept| {
            let taken: Vec<_> = kept.pictures.iter().map(|unit| &unit.data).collect();
            assert_eq!(taken, pictures.iter().collect::<Vec<_>>());
        });
        push.stop();
        assert!(matches!(push.next().await, Some(push::Event::Over(_))));
        assert_eq!(push.next().await, None);
        rtmp.close();
        tap.until(&runtime, |kept| kept.ended).await;
    }
}

/// A publisher that is refused hears why; one that says nothing, or what is no RTMP, disturbs nobody.
pub async fn publishers_that_are_no_good_disturb_no_other<R: Runtime>(runtime: R) {
    let driver = Driver::new(runtime.clone());
    let rtmp = listener(&driver, None).await;
    let at = rtmp.local_addr();
    let silent = runtime.connect(at).await.expect("it listens");
    assert!(
        converse(&runtime, at, b"GET / HTTP/1.1\r\n\r\n")
            .await
            .is_empty()
    );
    let refusing = async {
        let machine::Event::Asks { connection, .. } = asks(&rtmp).await else {
            panic!("somebody asks");
        };
        rtmp.refuse(connection, "a wrong key");
    };
    let mut said = Vec::new();
    both(
        async { said = converse(&runtime, at, RECORDING).await },
        refusing,
    )
    .await;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("NetStream.Publish.BadName") && said.contains("a wrong key"));
    let tap = Tap::default();
    both(
        async { drop(converse(&runtime, at, RECORDING).await) },
        async {
            admit(&rtmp, Arc::new(tap.clone())).await;
            tap.until(&runtime, |kept| kept.ended).await;
        },
    )
    .await;
    assert_eq!(tap.with(|kept| kept.pictures.len()), RECORDED);
    rtmp.close();
    while rtmp.next().await.is_some() {}
    assert!(Raw(silent).read_all().await.is_empty(), "it was closed");
}

async fn asks<R: Runtime>(rtmp: &Rtmp<R>) -> machine::Event {
    loop {
        let event = rtmp.next().await.expect("the listener is open");
        if matches!(event, machine::Event::Asks { .. }) {
            return event;
        }
    }
}

/// A browser's camera goes through a model, and a viewer who has joined before sees each of its pictures; with the
/// sender's goodbye the job ends, and with it the viewer's session.
pub async fn a_stream_by_whip_goes_through_a_model_to_whep<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let driver = Driver::new(runtime.clone());
    let socket = bind_udp(LOOPBACK).expect("a free port");
    let webrtc = Webrtc::open(&driver, socket, port::Config::default()).expect("an address");
    let show = Show::new(&driver, bridge::Config::default());
    show.watch(&webrtc, "out");
    let tap = Tap::default();
    let mut sender = Browser::new(&runtime, Door::Whip);
    let mut viewer = Browser::new(&runtime, Door::Whep);
    let frames: Vec<_> = clip().into_iter().take(100).collect();
    let shown = frames.iter().filter(|frame| frame.video).count();
    let mut told = Vec::new();
    let admitted = Mutex::new(None);
    let letting_in = async {
        let session = loop {
            match webrtc.next().await.expect("the port is open") {
                port::Event::Asked { session, .. } => break session,
                other => told.push(other),
            }
        };
        let taker = tap.before(show.whip(&webrtc, session));
        assert!(webrtc.admit(session, Some("/out/whep"), taker));
        *lock(&admitted) = Some(session);
    };
    both(letting_in, async {
        viewer.join(&webrtc, "out").await;
        sender.join(&webrtc, "in").await;
    })
    .await;
    let (job, input, output) = place.job().await;
    let mut arrived = None;
    let running = async {
        show.run(input, output).await.expect("the job goes on");
        job.wait().await.expect("it ends with its input");
    };
    let sending = async {
        sender.play(&frames).await;
        // What is on its way arrives before the goodbye.
        let sent = async {
            tap.until(&runtime, |kept| kept.pictures.len() == shown)
                .await
        };
        sender.during(sent).await;
        let session = lock(&admitted).expect("it was let in");
        arrived = show.metrics(&webrtc, session);
        sender.leave(&webrtc).await;
        assert_eq!(show.metrics(&webrtc, session), None, "it is gone");
    };
    let watching = async { viewer.watch().await };
    both(running, async { both(sending, watching).await }).await;
    let figures = show.figures();
    assert_eq!(figures.input.pictures, shown as u64, "{figures:?}");
    assert_eq!(figures.pictures, shown as u64, "{figures:?}");
    assert_eq!(
        figures.sounds,
        figures.input.sounds + figures.input.silences
    );
    let arrived = arrived.expect("it was there");
    let [video, sound] = &arrived.tracks[..] else {
        panic!("{arrived:?}")
    };
    assert!(video.video && !sound.video);
    assert!(
        video.received >= shown as i64 && sound.received > 0,
        "{arrived:?}"
    );
    assert!(
        arrived.received > 10_000 && arrived.sent > 100,
        "{arrived:?}"
    );
    // The job begins at the first second.
    assert!(
        video.last_input > 2.0 && sound.last_input > 2.0,
        "{arrived:?}"
    );
    assert_eq!(viewer.pictures(), shown, "{figures:?}");
    assert!(viewer.sounds() > 0);
    // The port tells what became of both.
    webrtc.close();
    while let Some(event) = webrtc.next().await {
        told.push(event);
    }
    let has = |wanted: fn(&port::Event) -> bool| told.iter().any(wanted);
    assert!(has(
        |event| matches!(event, port::Event::Watching(_, name) if name == "out")
    ));
    assert!(has(|event| matches!(event, port::Event::Connected(_))));
    assert!(has(|event| matches!(event, port::Event::Opened(_, true))));
    assert!(has(|event| matches!(event, port::Event::Ended(..))));
    assert!(has(|event| matches!(
        event,
        port::Event::Left(_, port::End::StreamEnded)
    )));
}
