//! Jobs for containers, and apps that are rented, against an orchestrator that a task plays.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use livepeer_core::Advice;
use livepeer_core::http::{Headers, Response, SWITCHING};
use livepeer_core::job::{app, byoc};
use livepeer_core::money::Price;
use livepeer_core::wire::Params;
use livepeer_core::wire::app::registration::Heartbeat;
use livepeer_core::wire::app::{Session, listing_json};
use livepeer_core::wire::byoc::{Sender, Token};
use livepeer_core::wire::runner::{Mode, Runner};

use super::api::{CONTAINER, Place, REGISTER_SECRET};
use super::*;
use crate::api::{
    AppAnswer, AppCall, ByocEvent, ByocStreamEvent, Error, Gateway, Over, Registration,
    RegistrationConfig, RegistrationEvent, RunnerSession,
};
use crate::lock;

/// An orchestrator off-chain: a container that answers, streams or never does, and two runners.
struct Played<R: Runtime> {
    side: Side<R>,
    url: Url,
    /// All that was asked, and what was given up.
    seen: Mutex<Vec<String>>,
    _server: Server<R>,
}

impl<R: Runtime> Played<R> {
    async fn new(runtime: &R) -> Arc<Self> {
        let tls = tls(&identity(runtime));
        let (side, server) = Side::serving(runtime, tls, Habits::Tell).await;
        let url = format!("https://{}/", server.local_addr());
        let played = Arc::new(Self {
            side,
            url: Url::parse(&url).expect("the URL of a socket"),
            seen: Mutex::default(),
            _server: server,
        });
        runtime.spawn(Arc::clone(&played).play());
        played
    }

    async fn play(self: Arc<Self>) {
        let mut open = BTreeMap::new();
        while let Some((id, step)) = self.side.handle.next().await {
            match step {
                In::Request(request) => {
                    let path = request.url.path().to_owned();
                    self.note(format!("{} {path}", request.method.as_str()));
                    open.insert(id, path.clone());
                    self.reply(id, &path);
                }
                In::Failed(_) => {
                    let path = open.remove(&id).unwrap_or_default();
                    self.note(format!("gone {path}"));
                }
                _ => {}
            }
        }
    }

    fn reply(&self, id: EffectId, path: &str) {
        let runner = |name: &str, mode: Mode, end: &str| {
            let at = self.url.with_path(&format!("/apps/{name}/{end}"));
            Runner {
                capacity: 2,
                available: 2,
                ..Runner::at(at, format!("test/{name}"), Some(mode))
            }
        };
        let plain = path.split('?').next().unwrap_or(path);
        let (kind, body): (&str, Bytes) = match plain {
            "/process/token" => {
                let token = Token {
                    service: self.url.clone(),
                    price: Price::new(0, 1).expect("a price"),
                    ticket_params: None,
                    balance: 0,
                    capacity: 1,
                };
                ("application/json", token.to_json(Sender::default()))
            }
            "/process/request/tell" => {
                let head = Response::new(200).header("content-type", "text/event-stream");
                self.side.step(id, Out::Reply(head.body(Body::Stream)));
                for event in ["data: 1\n\n", "data: 2\n\n", "\n\n\n", "data: [DONE]\n\n"] {
                    self.side.step(id, Out::Data(event.into()));
                }
                return;
            }
            "/discovery" => {
                let runners = [
                    runner("once", Mode::SingleShot, "app"),
                    runner("held", Mode::Persistent, "session"),
                ];
                ("application/json", listing_json(&self.url, &runners))
            }
            "/apps/held/session" => {
                let at = self.url.with_path(path);
                ("application/json", Session::at(&at, "s1").to_json())
            }
            "/apps/held/session/s1/stop" => {
                return self.side.step(id, Out::Reply(Response::new(204)));
            }
            "/apps/held/session/s1/app/refuse" => {
                let head = Response::new(418).body(Body::Full("no\n".into()));
                return self.side.step(id, Out::Reply(head));
            }
            plain if plain.ends_with("/wait") => return,
            _ => ("text/plain", path.to_owned().into()),
        };
        let head = Response::new(200).header("content-type", kind);
        self.side.step(id, Out::Reply(head.body(Body::Full(body))));
    }

    fn note(&self, line: String) {
        lock(&self.seen).push(line);
    }

    /// Waits until that was asked so often.
    async fn saw(&self, line: &str, times: usize) {
        let count = || {
            let seen = lock(&self.seen);
            seen.iter().filter(|seen| **seen == line).count()
        };
        while count() < times {
            rest(&self.side.runtime, Duration::from_millis(5)).await;
        }
        assert_eq!(count(), times, "{line}");
    }

    fn gateway(&self) -> Gateway<R> {
        Gateway::from(Driver::new(self.side.runtime.clone()))
    }
}

/// A container's answer comes whole or as it is told, and a job that nobody wants any more ends at its orchestrator.
pub async fn a_container_answers_streams_and_is_left<R: Runtime>(runtime: R) {
    let played = Played::new(&runtime).await;
    let gateway = played.gateway();
    let job = |path: &str| {
        let job = gateway.byoc("turn").path(path).json("{}");
        job.orchestrators([played.url.clone()])
    };
    let done = job("one?x=1").await.expect("an answer");
    assert_eq!(&done.body[..], b"/process/request/one?x=1");
    assert_eq!(done.served.content_type, "text/plain");
    assert_eq!(done.served.url, played.url);

    let mut told = job("tell").send().expect("a good order");
    let (mut heads, mut lines) = (0, Vec::new());
    while let Some(event) = told.next().await {
        match event {
            ByocEvent::Head(served) => heads += usize::from(served.stream),
            ByocEvent::Chunk(chunk) => lines.extend_from_slice(&chunk),
            ByocEvent::Failed(failed) => panic!("{failed}"),
            _ => {}
        }
    }
    assert_eq!(heads, 1);
    let lines = String::from_utf8(lines).expect("text");
    assert_eq!(lines, "data: 1\n\ndata: 2\n\ndata: [DONE]\n\n");

    let waiting = job("wait").send().expect("a good order");
    played.saw("POST /process/request/wait", 1).await;
    drop(waiting);
    played.saw("gone /process/request/wait", 1).await;

    let error = job("a//b").await.expect_err("no such path reaches it");
    assert!(matches!(error, Error::Order(_)), "{error}");
    assert_eq!(error.advice(), Some(Advice::Stop));
    let dear = gateway.byoc("turn").orchestrator("https://127.0.0.1:9");
    let error = dear.await.expect_err("nobody is there");
    let Error::Byoc(failed) = &error else {
        panic!("{error}");
    };
    assert!(matches!(&**failed, byoc::Failed::NoOrchestrator { attempts } if attempts.len() == 1));
    assert_eq!(error.advice(), Some(Advice::Retry));
}

/// An app is listed, called once, and held in a session that takes any number of calls; a session that is stopped or
/// dropped is stopped at its orchestrator.
pub async fn an_app_is_listed_called_and_held<R: Runtime>(runtime: R) {
    let played = Played::new(&runtime).await;
    let gateway = played.gateway();
    let app = |name: &str| gateway.app(name).orchestrators([played.url.clone()]);
    let listed = gateway.apps().orchestrators([played.url.clone()]).list();
    let listed = listed.await.expect("a list");
    let names: Vec<_> = listed.iter().map(|runner| runner.app.as_str()).collect();
    assert_eq!(names, ["test/once", "test/held"]);

    let call = |path: &str| AppCall::post(path.into(), "{}".into());
    let answer = app("test/once")
        .call(call("v1/run"))
        .await
        .expect("it runs");
    assert_eq!(answer.status(), 200);
    let body = answer.bytes(64).await.expect("it is whole");
    assert_eq!(&body[..], b"/apps/once/app/v1/run");
    let large = app("test/once")
        .call(call("v1/run"))
        .await
        .expect("it runs");
    let error = large.bytes(4).await.expect_err("too much");
    assert!(matches!(error, Error::AnswerTooLarge { limit: 4 }));

    for stopped in [true, false] {
        let session = app("test/held").reserve().await.expect("there is room");
        assert_eq!(session.session().id, "s1");
        for path in ["first", "second"] {
            let answer = session.call(call(path)).await.expect("it answers");
            let body = answer.bytes(64).await.expect("it is whole");
            let wanted = format!("/apps/held/session/s1/app/{path}");
            assert_eq!(String::from_utf8_lossy(&body), wanted);
        }
        // An app that refuses is an answer, and the session goes on.
        let refused = session.call(call("refuse")).await.expect("an answer");
        assert_eq!(refused.status(), 418);
        drop(refused);
        // A call that is left ends at the app, and the session goes on.
        let left = Box::pin(session.call(call("wait")));
        let asked = played.saw(
            "POST /apps/held/session/s1/app/wait",
            1 + usize::from(!stopped),
        );
        both(left, asked).await;
        played
            .saw(
                "gone /apps/held/session/s1/app/wait",
                1 + usize::from(!stopped),
            )
            .await;
        match stopped {
            true => session.stop().await,
            false => drop(session),
        }
        let times = 1 + usize::from(!stopped);
        played.saw("POST /apps/held/session/s1/stop", times).await;
    }

    let nobody = app("test/nobody").reserve().await.expect_err("no such app");
    let Error::App(failed) = &nobody else {
        panic!("{nobody}");
    };
    assert!(matches!(**failed, app::Failed::NoRunner { .. }), "{nobody}");
    assert_eq!(nobody.advice(), Some(Advice::Retry));
    let error = app("test/once").call(call("%41")).await;
    assert!(matches!(error, Err(Error::Path(_))));
}

/// Polls `first` until `second` is done, then drops it.
async fn both<T: std::fmt::Debug>(
    mut first: Pin<Box<impl Future<Output = T>>>,
    second: impl Future<Output = ()>,
) {
    let mut second = pin!(second);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = first.as_mut().poll(cx) {
            panic!("it was to wait: {answer:?}");
        }
        second.as_mut().poll(cx)
    })
    .await;
}

/// Containers are paid by the second and sessions while they last, through a signer that holds the key.
pub async fn hired_work_is_paid_through_a_signer<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let gateway = place.gateway();
    for _ in 0..2 {
        let job = gateway.byoc(CONTAINER).path("say").json("\"words\"");
        let job = job.orchestrator(&place.service).signer(&place.signer);
        let done = job.within(Duration::from_secs(10)).await;
        let done = done.expect("an answer");
        assert_eq!(&done.body[..], b"\"words\"");
        assert!(!done.served.price.is_free());
        assert!(!done.served.balance.is_empty(), "it says what is left");
    }
    let app = |name: &str| {
        let app = gateway.app(name).orchestrator(&place.service);
        app.signer(&place.signer)
    };
    let call = || AppCall::post("say".into(), "words".into());
    let mut once = app("test/once").call(call()).await.expect("it answers");
    assert_eq!(once.status(), 200);
    let mut body = Vec::new();
    while let Some(data) = once.next().await {
        body.extend_from_slice(&data.expect("it is whole"));
    }
    assert_eq!((&body[..], once.spent().payments), (&b"words"[..], 1));
    let session = app("test/held").reserve().await.expect("there is room");
    for _ in 0..2 {
        let answer = session.call(call()).await.expect("it answers");
        assert_eq!(answer.spent().payments, 0, "the session is paid for");
        assert_eq!(answer.bytes(64).await.expect("whole"), &b"words"[..]);
    }
    // Another thread may be about to note that it was taken.
    while session.spent().payments == 0 {
        rest(&runtime, Duration::from_millis(5)).await;
    }
    session.stop().await;
    // Nobody pays more than was said.
    let dear = gateway.byoc(CONTAINER).orchestrator(&place.service);
    let cheap = Price::new(1, 1).expect("a price");
    let error = dear.signer(&place.signer).max_price(cheap).await;
    let Err(Error::Byoc(failed)) = error else {
        panic!("{error:?}");
    };
    assert!(
        matches!(*failed, byoc::Failed::NoOrchestrator { .. }),
        "{failed}"
    );
    // Of an app that says its price it is known before anybody is asked.
    let error = app("test/held").max_price(cheap).reserve().await;
    let Err(Error::App(failed)) = error else {
        panic!("{error:?}");
    };
    assert!(matches!(*failed, app::Failed::NoRunner { .. }), "{failed}");
}

/// Media stream through a container and come back; its parameters are changed meanwhile. A stream ends with its input, when it
/// is stopped, and when nobody has it any more.
pub async fn media_stream_through_a_container<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let gateway = place.gateway();
    let stream = || {
        let job = gateway.byoc(CONTAINER).orchestrator(&place.service);
        job.signer(&place.signer).stream()
    };
    let params = Params::parse(r#"{"speed":1}"#).expect("an object");
    let started = stream().params(params.clone()).start().await;
    let (job, input, output) = started.expect("it starts");
    let (mut input, mut output) = (input.expect("video in"), output.expect("video out"));
    assert_eq!(place.streams(), 1);
    let mut events = job.events();
    for number in 0..3_u8 {
        let sent = Bytes::from(vec![number; 2_000]);
        input.publish(sent.clone()).await.expect("it runs");
        let back = output.next_segment().await.expect("it runs");
        assert_eq!(back.map(|(_, back)| back), Some(sent));
    }
    let answer = job.update_params(&params).await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(input.close().await.delivered, 3);
    assert!(output.next().await.expect("it runs").is_none(), "the end");
    job.wait().await.expect("an end in order");
    let error = job.update_params(&params).await.expect_err("it is over");
    assert!(matches!(error, Error::Misuse(_)), "{error}");
    let (mut begun, mut said) = (0, 0);
    while let Some(event) = events.next().await {
        match event {
            ByocStreamEvent::Begun(stream) => begun += u32::from(!stream.price.is_free()),
            ByocStreamEvent::Runner(_) => said += 1,
            _ => {}
        }
    }
    assert!(begun == 1 && said > 0, "{begun} {said}");
    assert_eq!(place.streams(), 0);

    let (job, input, output) = stream().start().await.expect("it starts");
    job.stop().await.expect("an end in order");
    assert_eq!(place.streams(), 0);
    let (mut input, mut output) = (input.expect("video in"), output.expect("video out"));
    let error = input.publish("late".into()).await.expect_err("it is over");
    assert!(matches!(error, Error::Ended(Over::Stopped)), "{error}");
    assert!(output.next().await.expect("no failure").is_none());

    let out = r#"{"enable_video_ingress":false}"#;
    let job = gateway.byoc(CONTAINER).orchestrator(&place.service);
    let job = job.signer(&place.signer).parameters(out).stream();
    let (job, input, output) = job.start().await.expect("it starts");
    assert!(input.is_none() && output.is_some());
    drop(job);
    while place.streams() > 0 {
        rest(&runtime, Duration::from_millis(5)).await;
    }
    let nobody = gateway.byoc("nothing").orchestrator(&place.service);
    let nobody = nobody.signer(&place.signer).stream();
    let error = nobody.start().await.expect_err("nobody offers it");
    assert!(matches!(error, Error::Byoc(_)), "{error}");
}

/// A message of a client over WebSocket, under a mask of zeros, and as the app says it back.
fn message(kind: u8, text: &[u8]) -> (Bytes, Vec<u8>) {
    let length = u16::try_from(text.len()).expect("short").to_be_bytes();
    let head = [0x80 | kind, 126, length[0], length[1]];
    let sent = [&[head[0], 0x80 | head[1]], &head[2..], &[0; 4], text].concat();
    (sent.into(), [&head[..], text].concat())
}

/// Reads as many bytes as are wanted.
async fn hear<R: Runtime>(answer: &mut AppAnswer<R>, wanted: &[u8]) {
    let mut heard = Vec::new();
    while heard.len() < wanted.len() {
        let data = answer.next().await.expect("the app goes on");
        heard.extend_from_slice(&data.expect("the link holds"));
    }
    assert!(heard == wanted, "{heard:?}");
}

/// Apps are reached over WebSocket, by a call and in a session: messages are said back, and the end of the session is
/// that of its sockets.
pub async fn apps_are_reached_beyond_http<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let gateway = place.gateway();
    let app = |name: &str| {
        let app = gateway.app(name).orchestrator(&place.service);
        app.signer(&place.signer)
    };
    let socket = || {
        let call = AppCall::new(Method::Get, "ws").with_upgrade("websocket");
        call.with_header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let plain = app("test/once").call(AppCall::new(Method::Get, "x")).await;
    assert!(!plain.expect("it answers").has_left_http());
    let mut once = app("test/once").call(socket()).await.expect("it answers");
    assert!(once.has_left_http() && once.status() == SWITCHING);
    assert!(once.headers().get("sec-websocket-accept").is_some());
    let speaker = once.speaker();
    let large = vec![b'x'; 60_000];
    for text in [&b"words"[..], &large, &large] {
        let (sent, back) = message(1, text);
        speaker.say(sent).await.expect("the app takes it");
        hear(&mut once, &back).await;
    }
    // The app ends as it is told to.
    let (sent, back) = message(2, b"the last");
    speaker.say(sent).await.expect("the app takes it");
    speaker.end();
    hear(&mut once, &back).await;
    assert!(once.next().await.is_none());
    assert!(once.spent().payments >= 1);
    assert!(speaker.say(Bytes::new()).await.is_err(), "it is over");

    let session = app("test/held").reserve().await.expect("there is room");
    let mut held = session.call(socket()).await.expect("it answers");
    let (sent, back) = message(1, b"words");
    held.speaker().say(sent).await.expect("the app takes it");
    hear(&mut held, &back).await;
    session.stop().await;
    assert!(held.next().await.is_none(), "nobody pays for it any more");
}

/// A runner of ours is listed, reserved and called at its orchestrator, hears of its sessions, and is gone once it leaves.
pub async fn a_runner_is_rented_out_until_it_leaves<R: Runtime>(runtime: R) {
    let place = Place::new(&runtime).await;
    let driver = Driver::new(runtime.clone());
    let (side, server) = Side::serving(&runtime, None, Habits::Tell).await;
    let beat = Heartbeat::new(format!("http://{}", server.local_addr()), "test/mine");
    let service = Url::parse(&place.service).expect("a URL");
    let begin = |secret: &'static str, beat: &Heartbeat| {
        let (driver, service, beat) = (driver.clone(), service.clone(), beat.clone());
        let config = RegistrationConfig::default();
        async move { Registration::begin(&driver, config, service, secret, beat).await }
    };
    let error = begin("another", &beat).await.expect_err("it is not let in");
    assert!(matches!(error, Error::Failed(_)), "{error}");
    let nameless = Heartbeat::new("http://127.0.0.1:1", "");
    let error = begin(REGISTER_SECRET, &nameless).await;
    assert!(matches!(error, Err(Error::Runner(_))), "{error:?}");

    let mut runner = begin(REGISTER_SECRET, &beat).await.expect("it is let in");
    let name = runner.name();
    let told = runner.next().await;
    assert_eq!(told, Some(RegistrationEvent::Registered(name)));
    let gateway = place.gateway();
    let app = || gateway.app("test/mine").orchestrator(&place.service);
    let session = app().reserve().await.expect("there is room");
    let id = session.session().id.clone();
    let told = runner.next().await;
    assert_eq!(told, Some(RegistrationEvent::Reserved(id.clone())));
    assert_eq!(runner.sessions(), std::slice::from_ref(&id));
    let answer = side.answers(session.call(AppCall::post("say".into(), "words".into())));
    let (answer, heard) = answer.await;
    assert_eq!(heard.url.path(), "/say");
    assert_eq!(heard.headers.get("livepeer-session-id"), Some(&*id));
    assert_eq!(answer.expect("it answers").status(), 204);
    let (interval, ttl) = runner.rhythm();
    assert!(!interval.is_zero() && interval < ttl);
    // The app manages its session by what the request says.
    assert!(matches!(
        runner.session(&Headers::new()),
        Err(Error::Input(_))
    ));
    let managed = runner.session(&heard.headers).expect("it is of a session");
    let made = managed.create_channels(&[("in", "a/b"), ("out", "")]).await;
    let made = made.expect("they are made");
    let names: Vec<_> = made.iter().map(|made| &*made.channel_name).collect();
    assert_eq!(names, [format!("{id}-in"), format!("{id}-out")]);
    assert_eq!(made[0].mime_type, "a/b");
    let gone = managed.remove_channels(&["out"]).await.expect("it is gone");
    assert_eq!(gone, ["out"]);
    let error = managed.remove_channels(&["out"]).await.expect_err("once");
    assert!(
        error.to_string().contains("trickle channel not found"),
        "{error}"
    );
    let error = managed.create_channels(&[]).await.expect_err("not none");
    assert!(matches!(error, Error::Session(_)), "{error}");
    let proxy = managed.create_proxy(None).await.expect("it is made");
    assert!(proxy.url.path().ends_with(&proxy.id), "{proxy:?}");
    // So does one that knows no registration, and the session is over for both.
    let config = RegistrationConfig::default();
    let managed = RunnerSession::of(&driver, config, &service, &heard.headers);
    managed
        .expect("it is of a session")
        .stop()
        .await
        .expect("it is stopped");
    let told = runner.next().await;
    assert_eq!(told, Some(RegistrationEvent::Released(id)));
    session.stop().await;
    runner.close().await;
    app().reserve().await.expect_err("it has left");

    drop(begin(REGISTER_SECRET, &beat).await.expect("it is let in"));
    while app().list().await.is_ok_and(|listed| !listed.is_empty()) {
        rest(&runtime, Duration::from_millis(5)).await;
    }
}

impl<R: Runtime> Side<R> {
    /// Answers the next request with 204 while `call` goes on.
    async fn answers<T>(&self, call: impl Future<Output = T>) -> (T, Request) {
        let mut call = pin!(call);
        let mut heard = None;
        let answer = std::future::poll_fn(|cx| {
            while let Poll::Ready(Some((id, step))) = self.handle.poll_next(cx) {
                if let In::Request(request) = step {
                    self.step(id, Out::Reply(Response::new(204)));
                    heard = Some(request);
                }
            }
            call.as_mut().poll(cx)
        });
        let answer = answer.await;
        (answer, heard.expect("it was asked"))
    }
}
