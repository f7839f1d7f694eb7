//! The last frames of a stream, on their way to another server by RTMP.

use super::*;

/// The pause of a slow server after each piece that it reads.
const REST: Duration = Duration::from_millis(40);

fn pushed<R: Runtime>(driver: &Driver<R>, at: SocketAddr) -> Push<R> {
    let target = Target::parse(&format!("rtmp://{at}/live/pushed")).expect("an address of RTMP");
    let tracks = Tracks {
        video: Some(VideoCodec::H264),
        audio: None,
    };
    Push::open(driver, target, tracks, Sound::AacAndOpus)
}

fn pictures() -> Vec<AccessUnit> {
    let frames = clip().into_iter();
    frames.filter_map(|frame| frame.unit().ok()).collect()
}

/// A stream that is over before the server lets it publish arrives whole, and so does one whose server is slow and has
/// something to say meanwhile.
pub async fn what_a_stream_sent_last_arrives<R: Runtime>(runtime: R) {
    let driver = Driver::new(runtime.clone());
    let rtmp = listener(&driver, None).await;
    let push = pushed(&driver, rtmp.local_addr());
    let pictures = pictures();
    for unit in &pictures {
        push.video(unit);
    }
    drop(push);
    let tap = Tap::default();
    admit(&rtmp, Arc::new(tap.clone())).await;
    tap.until(&runtime, |kept| kept.pictures.len() == pictures.len())
        .await;
    rtmp.close();
    tap.until(&runtime, |kept| kept.ended).await;

    let socket = runtime.bind(LOOPBACK).await.expect("a free port");
    let at = runtime.local_addr(&socket).expect("it is bound");
    let push = pushed(&driver, at);
    let (stream, _) = runtime.accept(&socket).await.expect("it connects");
    let mut slow = Slow::new(&runtime, Raw(stream));
    while !slow.admitted {
        slow.take().await.expect("it greets");
    }
    while !push.look(push::Push::is_publishing) {
        rest(&runtime, REST).await;
    }
    let mut large = pictures[0].clone();
    let zeros = vec![0x80; 700 << 10];
    large.data = [&large.data, &zeros[..]].concat().into();
    for at in 0..3 {
        large.dts += Ticks::from_millis(40 * at);
        large.pts = large.dts;
        push.video(&large);
    }
    drop(push);
    while slow.take().await.is_some() {
        // An acknowledgement, which nobody waits for any more.
        let said = slow
            .peer
            .write(b"\x02\0\0\0\0\0\x04\x03\0\0\0\0\0\0\x10\0")
            .await;
        rest(&runtime, if said.is_ok() { REST } else { Duration::ZERO }).await;
    }
    assert_eq!(slow.pictures, 3);
}

/// A server that reads a little at a time.
struct Slow<'a, R: Runtime, S> {
    runtime: &'a R,
    peer: Raw<S>,
    server: machine::Server,
    admitted: bool,
    pictures: usize,
}

impl<'a, R: Runtime, S: Read + Write + Unpin> Slow<'a, R, S> {
    fn new(runtime: &'a R, peer: Raw<S>) -> Self {
        let now = runtime.now();
        let mut server = machine::Server::new(now, machine::Config::default());
        let id = machine::ConnectionId(1);
        server.handle_input(now, machine::Input::Opened(id, LOOPBACK.ip()));
        Self {
            runtime,
            peer,
            server,
            admitted: false,
            pictures: 0,
        }
    }

    /// Takes what comes next, and answers; nothing at the end.
    async fn take(&mut self) -> Option<()> {
        let data = self
            .peer
            .read()
            .await
            .ok()
            .filter(|data| !data.is_empty())?;
        let now = self.runtime.now();
        let data = machine::Input::Data(machine::ConnectionId(1), data.into());
        self.server.handle_input(now, data);
        loop {
            match self.server.poll_output() {
                machine::Output::Write(_, said) => {
                    let _ = self.peer.write(&said).await;
                }
                machine::Output::Event(machine::Event::Asks { connection, .. }) => {
                    self.server.admit(now, connection);
                    self.admitted = true;
                }
                machine::Output::Event(machine::Event::Video(..)) => self.pictures += 1,
                machine::Output::Idle(_) => return Some(()),
                _ => {}
            }
        }
    }
}
