//! The listening side of `live`: where a sender comes in, and where the result is watched.

use std::net::SocketAddr;
use std::sync::Arc;

use async_channel::{Receiver, Sender};
use livepeer_core::EffectId;
use livepeer_core::front::route::Page;
use livepeer_core::front::{Call, Config, Event, Front, LiveRoutes, Origins, RequestId, Session};
use livepeer_core::http::Response;
use livepeer_core::wire::entry::{Door, StreamName};
use livepeer_runtime::http::{Limits, Server};
use livepeer_runtime::ingest::machines::rtmp::push::Sound;
use livepeer_runtime::ingest::machines::{bridge, port, rtmp};
use livepeer_runtime::ingest::{Rtmp, Show, Webrtc};
use livepeer_runtime::rt::bind_udp;
use livepeer_runtime::{Driver, Handle, Runtime, seed};

use crate::args::{LiveArgs, Source};
use crate::cmd::serve::pages;
use crate::cmd::socket::Socket;
use crate::ui::{self, Failed};

/// The show of a job, and the sockets around it. They close when this is dropped.
pub(crate) struct Stage<R: Runtime> {
    show: Show<R>,
    begun: Receiver<()>,
    rtmp: Option<Rtmp<R>>,
    web: Option<Web<R>>,
}

/// The page and the sessions of WebRTC.
struct Web<R: Runtime> {
    webrtc: Webrtc<R>,
    front: Handle<Front, R>,
    _server: Server<R>,
}

impl<R: Runtime> Drop for Stage<R> {
    fn drop(&mut self) {
        if let Some(rtmp) = &self.rtmp {
            rtmp.close();
        }
        if let Some(web) = &self.web {
            web.webrtc.close();
            web.front.close();
        }
    }
}

impl<R: Runtime> Stage<R> {
    /// Listens for the sender that the options name, and for viewers, and says where.
    ///
    /// # Errors
    /// If an address cannot be listened on.
    pub(super) async fn open(driver: &Driver<R>, args: &LiveArgs) -> Result<Self, Failed> {
        let (tell, begun) = async_channel::bounded(1);
        let show = Show::new(driver, bridge::Config::default());
        for target in &args.push {
            show.push(target.clone(), Sound::Aac);
        }
        let name = args.input.name();
        let rtmp = match &args.input {
            Source::Rtmp { listen, app, .. } => {
                let rtmp = listen_rtmp(driver, *listen, app).await?;
                let at = rtmp.local_addr();
                ui::tell(&format!("send to   rtmp://{at}/{app}/{name}"));
                let admitting = admit_rtmp(rtmp.clone(), show.clone(), name.clone(), tell.clone());
                driver.runtime().spawn(admitting);
                Some(rtmp)
            }
            _ => None,
        };
        let sends = matches!(args.input, Source::Whip { .. });
        let at = match &args.input {
            Source::Whip { listen, .. } => Some(*listen),
            _ => args.watch(),
        };
        let web = match at {
            Some(at) => {
                let cors = Origins::of(args.cors.clone());
                Some(Web::open(driver, at, cors, &show, &name, (sends, tell)).await?)
            }
            None => None,
        };
        if let Some(web) = &web {
            let at = web.webrtc.local_addr();
            if sends {
                ui::tell(&format!("send to   http://{at}{}", path(&name, Door::Whip)));
            }
            if args.watch().is_some() {
                let view = if sends { "" } else { "?view" };
                ui::tell(&format!("watch at  http://{at}/watch/{name}{view}"));
            }
        }
        Ok(Self {
            show,
            begun,
            rtmp,
            web,
        })
    }

    pub(super) const fn show(&self) -> &Show<R> {
        &self.show
    }

    /// Waits until a sender's stream begins.
    pub(super) async fn begun(&self) {
        // It is told of before whoever tells is gone.
        let _ = self.begun.recv().await;
    }
}

/// The path of an endpoint: of WHEP that of the output.
fn path(name: &StreamName, door: Door) -> String {
    match door {
        Door::Whip => format!("/live/video-to-video/{name}/whip"),
        Door::Whep => format!("/live/video-to-video/{name}-out/whep"),
    }
}

async fn listen_rtmp<R: Runtime>(
    driver: &Driver<R>,
    at: SocketAddr,
    app: &str,
) -> Result<Rtmp<R>, Failed> {
    let failed = |error| Failed::listen(at, "--input", &error);
    let socket = driver.runtime().bind(at).await.map_err(failed)?;
    let config = rtmp::Config {
        apps: vec![app.to_owned()],
        ..rtmp::Config::default()
    };
    Rtmp::open(driver, socket, None, config).map_err(failed)
}

/// Lets publishers of the stream in, and nobody else.
async fn admit_rtmp<R: Runtime>(rtmp: Rtmp<R>, show: Show<R>, name: StreamName, tell: Sender<()>) {
    while let Some(event) = rtmp.next().await {
        match event {
            rtmp::Event::Asks {
                connection,
                publication,
                ..
            } => {
                if publication.name != name {
                    let why = format!("this job takes the stream {name} alone");
                    rtmp.refuse(connection, &why);
                } else if show.has_ended() {
                    rtmp.refuse(connection, "this job is over");
                } else {
                    rtmp.admit(connection, show.rtmp());
                }
            }
            rtmp::Event::Opened { .. } => {
                let _ = tell.try_send(());
            }
            rtmp::Event::Stalled(_) => ui::tell("the publisher is gone; it may come back"),
            rtmp::Event::Closed(_, why) => tracing::info!(%why, "a connection of RTMP ended"),
            _ => {}
        }
    }
}

impl<R: Runtime> Web<R> {
    async fn open(
        driver: &Driver<R>,
        at: SocketAddr,
        cors: Origins,
        show: &Show<R>,
        name: &StreamName,
        (sends, tell): (bool, Sender<()>),
    ) -> Result<Self, Failed> {
        let option = if sends { "--input" } else { "--watch" };
        let socket = Socket::open(driver, at, option).await?;
        let at = SocketAddr::new(at.ip(), socket.port());
        let failed = |error| Failed::listen(at, option, &error);
        let udp = bind_udp(at).map_err(failed)?;
        let webrtc = Webrtc::open(driver, udp, port::Config::default()).map_err(failed)?;
        show.watch(&webrtc, &output_of(name));
        let config = Config {
            live: LiveRoutes::All,
            pages: vec![Page::Watch],
            cors,
            ..Config::default()
        };
        let front = Front::new(driver.now(), Arc::new(config), seed());
        let front = driver.drive(front);
        let server = socket.serve(&front, None, Limits::front_door())?;
        let sender = sends.then(|| name.clone());
        let runtime = driver.runtime();
        runtime.spawn(admit_whip(webrtc.clone(), show.clone(), sender, tell));
        runtime.spawn(answer(front.clone(), webrtc.clone()));
        Ok(Self {
            webrtc,
            front,
            _server: server,
        })
    }
}

/// The name under which a stream's output is watched.
fn output_of(name: &StreamName) -> String {
    format!("{name}-out")
}

/// Lets one sender of the stream in, if any, and nobody else.
async fn admit_whip<R: Runtime>(
    webrtc: Webrtc<R>,
    show: Show<R>,
    name: Option<StreamName>,
    tell: Sender<()>,
) {
    let mut sending = false;
    while let Some(event) = webrtc.next().await {
        match event {
            port::Event::Asked {
                session, stream, ..
            } => match &name {
                Some(name) if name.as_str() == stream && !sending => {
                    let playback = path(name, Door::Whep);
                    let taker = show.whip(&webrtc, session);
                    sending = webrtc.admit(session, Some(&playback), taker);
                }
                Some(name) if name.as_str() == stream => {
                    webrtc.deny(session, &port::Denied::Taken);
                }
                _ => webrtc.deny(session, &port::Denied::Forbidden),
            },
            port::Event::Opened(..) => {
                let _ = tell.try_send(());
            }
            port::Event::Ended(_, end) => ui::tell(&format!("the sender is gone: {end}")),
            other => tracing::debug!(event = ?other, "a session of WebRTC"),
        }
    }
}

/// Answers requests until the server closes.
async fn answer<R: Runtime>(front: Handle<Front, R>, webrtc: Webrtc<R>) {
    while let Some(event) = front.next().await {
        match event {
            Event::Page(id, Page::Watch) => {
                let (status, kind, body) = pages::watch();
                front.with(|front, now| front.page(now, id, status, kind, body));
            }
            Event::Live(id, call) => match *call {
                Call::Whip(name, session) => {
                    let call = call_of(Door::Whip, name.to_string(), *session);
                    respond(&front, &webrtc, id, call);
                }
                Call::Whep(output, session) => {
                    let call = call_of(Door::Whep, output_of(&output.stream), *session);
                    respond(&front, &webrtc, id, call);
                }
                _ => {
                    let none = Response::new(404);
                    front.with(|front, now| front.respond(now, id, none));
                }
            },
            _ => {}
        }
    }
}

fn call_of(door: Door, stream: String, session: Session) -> port::Call {
    port::Call {
        // The port names it.
        exchange: EffectId::by_peer(0),
        door,
        stream,
        session: session.name,
        request: session.request,
        body: session.body,
    }
}

/// Has the port answer a request.
fn respond<R: Runtime>(
    front: &Handle<Front, R>,
    webrtc: &Webrtc<R>,
    id: RequestId,
    call: port::Call,
) {
    let (front, webrtc) = (front.clone(), webrtc.clone());
    let runtime = front.driver().runtime().clone();
    runtime.spawn(async move {
        let response = webrtc.call(call).await;
        front.with(|front, now| front.respond(now, id, response));
    });
}
