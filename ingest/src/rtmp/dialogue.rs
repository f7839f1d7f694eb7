//! The dialogue with a publisher, besides media: handshake and commands.

use bytes::Bytes;
use rtmp_runtime::amf0::{Amf0Value, Command};
use rtmp_runtime::handshake::{HANDSHAKE_PACKET_LEN, Handshake, RTMP_VERSION};
use rtmp_runtime::message::{UserControl, msg_type};

use super::chunk::Message;
use super::messages::{BadPeer, Messages, object, text};

/// The message stream that every `createStream` is given: a connection has one publisher.
const MEDIA_STREAM: u32 = 1;

/// A thing that a publisher says.
#[derive(Debug)]
pub(super) enum Heard {
    /// The handshake is over.
    Hello,
    /// The application is known.
    Connected,
    /// There is no such application; the refusal is written.
    BadApp(String),
    /// The stream of that name comes next; answered by [`Dialogue::accept`] or [`Dialogue::refuse`].
    Publish {
        app: String,
        name: String,
    },
    Video {
        stamp: u32,
        body: Bytes,
    },
    Audio {
        stamp: u32,
        body: Bytes,
    },
    /// Script data.
    Data(Bytes),
    /// The publisher pauses or leaves.
    Unpublished,
    /// The publisher leaves for good.
    Deleted,
}

/// The dialogue with one publisher.
#[derive(Debug)]
pub(super) struct Dialogue {
    handshake: Handshake,
    /// Whether the peer's hello was answered.
    greeted: bool,
    /// Bytes of the handshake until there are enough.
    early: Vec<u8>,
    messages: Messages,
    app: Option<String>,
    created: bool,
    /// The message stream that is published on.
    publishing: Option<u32>,
}

impl Dialogue {
    pub(super) fn new() -> Self {
        Self {
            handshake: Handshake::new(),
            greeted: false,
            early: Vec::new(),
            messages: Messages::new(),
            app: None,
            created: false,
            publishing: None,
        }
    }

    /// Takes bytes from the front of `input` until something was heard, and puts what has to be answered into `out`.
    /// `None`: all bytes were taken.
    pub(super) fn next(
        &mut self,
        input: &mut &[u8],
        apps: &[String],
        out: &mut Vec<u8>,
    ) -> Result<Option<Heard>, BadPeer> {
        if !self.handshake.is_done() {
            return Ok(self.greet(input, out)?.then_some(Heard::Hello));
        }
        while let Some(message) = self.messages.next(input, out)? {
            if let Some(heard) = self.dispatch(message, apps, out)? {
                return Ok(Some(heard));
            }
        }
        Ok(None)
    }

    /// Tells the publisher to begin.
    pub(super) fn accept(&mut self, name: &str, out: &mut Vec<u8>) -> Result<(), BadPeer> {
        let stream = self.publishing.unwrap_or(MEDIA_STREAM);
        self.messages
            .control(&UserControl::StreamBegin(stream), out)?;
        let what = format!("{name} is now published.");
        self.status("status", "NetStream.Publish.Start", &what, out)
    }

    /// Tells the publisher why it may not begin or go on. Clients close on this.
    pub(super) fn refuse(
        &mut self,
        code: &str,
        why: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), BadPeer> {
        self.status("error", code, why, out)
    }

    fn status(
        &mut self,
        level: &str,
        code: &str,
        why: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), BadPeer> {
        let stream = self.publishing.unwrap_or(MEDIA_STREAM);
        let info = object([
            ("level", text(level)),
            ("code", text(code)),
            ("description", text(why)),
        ]);
        self.messages
            .say("onStatus", 0.0, vec![Amf0Value::Null, info], stream, out)
    }

    /// Takes the handshake's bytes; whether it is over. C2 is not compared: many clients send something of their own.
    fn greet(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, BadPeer> {
        while !self.handshake.is_done() {
            let wanted = HANDSHAKE_PACKET_LEN + usize::from(!self.greeted);
            let count = (wanted - self.early.len()).min(input.len());
            let (taken, rest) = input.split_at(count);
            *input = rest;
            self.early.extend_from_slice(taken);
            // One byte is enough to know a browser or a port scan.
            if let (false, Some(first)) = (self.greeted, self.early.first())
                && *first != RTMP_VERSION
            {
                return Err(BadPeer::Version(*first));
            }
            if self.early.len() < wanted {
                return Ok(false);
            }
            let (answer, _, _) = self.handshake.read(&self.early)?;
            out.extend(answer);
            self.early.clear();
            self.greeted = true;
        }
        self.early = Vec::new();
        Ok(true)
    }

    fn dispatch(
        &mut self,
        message: Message,
        apps: &[String],
        out: &mut Vec<u8>,
    ) -> Result<Option<Heard>, BadPeer> {
        if let Some(command) = message.command()? {
            return self.command(&command, message.stream, apps, out);
        }
        Ok(self.publishing.and_then(|_| media(message)))
    }

    fn command(
        &mut self,
        command: &Command,
        stream: u32,
        apps: &[String],
        out: &mut Vec<u8>,
    ) -> Result<Option<Heard>, BadPeer> {
        let number = command.transaction_id;
        match command.name.as_str() {
            "connect" => return self.connect(command, apps, out).map(Some),
            "releaseStream" | "FCPublish" => {
                self.messages
                    .say("_result", number, vec![Amf0Value::Undefined], stream, out)?;
            }
            "createStream" => {
                if self.app.is_none() {
                    return Err(BadPeer::OutOfOrder("createStream before connect"));
                }
                self.created = true;
                let answer = vec![Amf0Value::Null, Amf0Value::Number(MEDIA_STREAM.into())];
                self.messages.say("_result", number, answer, stream, out)?;
            }
            "publish" => {
                let (Some(app), true) = (&self.app, self.created) else {
                    return Err(BadPeer::OutOfOrder(
                        "publish before connect and createStream",
                    ));
                };
                if self.publishing.is_some() {
                    return Err(BadPeer::OutOfOrder("a second publish"));
                }
                let Some(Amf0Value::String(name)) = command.arguments.get(1) else {
                    return Err(BadPeer::OutOfOrder("publish without a name"));
                };
                self.publishing = Some(stream);
                return Ok(Some(Heard::Publish {
                    app: app.clone(),
                    name: name.clone(),
                }));
            }
            "FCUnpublish" | "closeStream" => return Ok(Some(Heard::Unpublished)),
            "deleteStream" => return Ok(Some(Heard::Deleted)),
            _ => {}
        }
        Ok(None)
    }

    fn connect(
        &mut self,
        command: &Command,
        apps: &[String],
        out: &mut Vec<u8>,
    ) -> Result<Heard, BadPeer> {
        let number = command.transaction_id;
        let app = match command.arguments.first() {
            Some(Amf0Value::Object(fields) | Amf0Value::EcmaArray(fields)) => {
                fields.iter().find_map(|field| match field {
                    (key, Amf0Value::String(app)) if key == "app" => Some(app.as_str()),
                    _ => None,
                })
            }
            _ => None,
        };
        // Where the stream's name has several parts, clients put all but the last into the application.
        let first = app
            .unwrap_or("")
            .trim_start_matches('/')
            .split(['/', '?'])
            .next();
        let Some(app) =
            app.filter(|_| first.is_some_and(|first| apps.iter().any(|app| app == first)))
        else {
            let app = app.unwrap_or("").to_owned();
            let info = object([
                ("level", text("error")),
                ("code", text("NetConnection.Connect.Rejected")),
                ("description", text(format!("no application {app:?}"))),
            ]);
            self.messages
                .say("_error", number, vec![Amf0Value::Null, info], 0, out)?;
            return Ok(Heard::BadApp(app));
        };
        self.app = Some(app.to_owned());
        self.messages.introduce(true, out)?;
        let server = object([
            ("fmsVer", text("FMS/3,0,1,123")),
            ("capabilities", Amf0Value::Number(31.0)),
        ]);
        let info = object([
            ("level", text("status")),
            ("code", text("NetConnection.Connect.Success")),
            ("description", text("Connection succeeded.")),
            ("objectEncoding", Amf0Value::Number(0.0)),
        ]);
        self.messages
            .say("_result", number, vec![server, info], 0, out)?;
        Ok(Heard::Connected)
    }
}

/// The message as media; `None` if it is of another kind.
fn media(message: Message) -> Option<Heard> {
    let Message {
        kind,
        stamp,
        payload: body,
        ..
    } = message;
    match kind {
        msg_type::VIDEO => Some(Heard::Video { stamp, body }),
        msg_type::AUDIO => Some(Heard::Audio { stamp, body }),
        msg_type::DATA_AMF0 => Some(Heard::Data(body)),
        _ => None,
    }
}
