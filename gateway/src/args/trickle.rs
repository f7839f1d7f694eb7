//! Options of `trickle`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use livepeer_core::http::{Protocol, Trust, Url};
use livepeer_core::trickle::{ContentType, Seq, Start, publisher, subscriber};
use livepeer_media::Speed;

use super::{Listen, Place, Runtime, values};
use crate::ui::Failed;

/// Options of `trickle`.
#[derive(Args, Debug)]
pub(crate) struct TrickleArgs {
    #[command(subcommand)]
    pub(crate) command: TrickleCommand,
}

/// Commands for trickle channels.
#[derive(Debug, Subcommand)]
pub(crate) enum TrickleCommand {
    /// Run a trickle server.
    Serve(ServeArgs),
    /// Publish standard input or a file to a channel, cut into segments.
    Pub(PubArgs),
    /// Read a channel to standard output or a file.
    Sub(SubArgs),
}

impl TrickleArgs {
    /// Checks what options say together.
    ///
    /// # Errors
    /// If they contradict each other or leave something open.
    pub(super) fn validate(&self) -> Result<(), Failed> {
        let usage = |cause: &str| Err(Failed::usage(cause, "trickle"));
        match &self.command {
            TrickleCommand::Serve(_) => {}
            TrickleCommand::Pub(args) => {
                let paced = args.cut == Cut::KeyFrame && args.input != Place::Standard;
                if args.speed.is_some() && !paced {
                    return usage(
                        "--speed is for files cut at key frames, which know their time; \
                         otherwise there is --every",
                    );
                }
            }
            TrickleCommand::Sub(args) => {
                if args.json && args.output == Place::Standard {
                    return usage("--json and --output - would both write to standard output");
                }
            }
        }
        Ok(())
    }
}

/// Options of `trickle serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Where to listen. ADDR is ip:port, or a port on loopback; port 0 picks a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:2939")]
    pub(crate) listen: Listen,
    /// The path in front of channel names.
    #[arg(long, value_name = "PATH", default_value = "/ai/trickle/", value_parser = base)]
    pub(crate) base: String,
    /// Let peers create channels.
    #[arg(long)]
    pub(crate) autocreate: bool,
    /// Make this channel at the start; may repeat. TYPE is its media type.
    #[arg(long, value_name = "NAME[=TYPE]")]
    pub(crate) create: Vec<NewChannel>,
    /// Tell of channels that come and go on the channel _changes.
    #[arg(long)]
    pub(crate) changefeed: bool,
    /// Answer GET /metrics with the figures of the server.
    #[arg(long)]
    pub(crate) metrics: bool,
    /// Remove channels that nobody wrote to for this long.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = values::duration)]
    pub(crate) idle: Duration,
    /// How often to look for such channels.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = values::duration)]
    pub(crate) sweep: Duration,
    /// Stop after this much time.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) life: Option<Duration>,
    /// How long stopping lets readers finish what was published.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = values::duration)]
    pub(crate) drain: Duration,
    /// The executor that serves.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
    /// Threads of the tokio runtime. One costs least and is enough until it is busy all the time.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZeroUsize,
    /// Serve over TLS with a certificate made up at the start.
    #[arg(long, help_heading = "TLS")]
    pub(crate) tls: bool,
    /// Serve over TLS with this chain of certificates, PEM, leaf first.
    #[arg(
        long,
        value_name = "FILE",
        requires = "key",
        conflicts_with = "tls",
        help_heading = "TLS"
    )]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of --cert, PEM.
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "TLS")]
    pub(crate) key: Option<PathBuf>,
    /// Channels at a time; more are answered 503.
    #[arg(
        long,
        value_name = "N",
        default_value = "10000",
        help_heading = "Limits"
    )]
    pub(crate) max_channels: NonZeroUsize,
    /// Readers and writers of one channel at a time; more are answered 503.
    #[arg(
        long,
        value_name = "N",
        default_value = "10000",
        help_heading = "Limits"
    )]
    pub(crate) max_guests: NonZeroUsize,
    /// The longest segment; a longer one is answered 413 and closed.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = values::size, help_heading = "Limits")]
    pub(crate) max_segment: NonZeroUsize,
    /// How long a reader may take nothing of a segment that has left the window; then it is let go.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration, help_heading = "Limits")]
    pub(crate) max_stall: Duration,
    /// Bytes of all segments that have left the window and are still read; beyond, the readers that have waited
    /// longest are let go.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = values::size, help_heading = "Limits")]
    pub(crate) max_outside: NonZeroUsize,
}

/// How to talk to the server of a channel.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct LinkArgs {
    /// Accept only certificates that public authorities vouch for, instead of the first one seen.
    #[arg(long)]
    ca_trust: bool,
    /// Speak HTTP/2 instead of HTTP/1.1.
    #[arg(long)]
    http2: bool,
}

impl LinkArgs {
    pub(crate) const fn trust(self) -> Trust {
        if self.ca_trust {
            Trust::Public
        } else {
            Trust::FirstUse
        }
    }

    pub(crate) const fn protocol(self) -> Protocol {
        if self.http2 {
            Protocol::Http2
        } else {
            Protocol::Http1
        }
    }
}

/// Options of `trickle pub`.
#[derive(Args, Debug)]
pub(crate) struct PubArgs {
    /// The channel, such as http://127.0.0.1:2939/ai/trickle/NAME.
    #[arg(value_name = "URL", value_parser = channel)]
    pub(crate) channel: Url,
    /// Input to publish: a file, or - for standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) input: Place,
    /// Where segments end: at a keyframe of an MPEG-TS stream, after every line, after a SIZE such as 256KiB, or
    /// after a TIME such as 2s. Bytes leave as they come; lines, and files cut at key frames, by whole segments.
    #[arg(long, value_name = "WHERE", default_value = "keyframe")]
    pub(crate) cut: Cut,
    /// The media type [default: video/MP2T for keyframe, application/json for line, else application/octet-stream].
    #[arg(long = "type", value_name = "TYPE")]
    content: Option<String>,
    /// Create the channel if there is none.
    #[arg(long)]
    pub(crate) create: bool,
    /// Leave the channel when the input ends, instead of deleting it.
    #[arg(long)]
    pub(crate) keep: bool,
    /// How long the channel outlives its last segment, for readers that are behind.
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = values::duration)]
    pub(crate) linger: Duration,
    /// How fast to publish a file cut at key frames: real, max, or a factor of real time [default: real].
    #[arg(long, value_name = "SPEED")]
    pub(crate) speed: Option<Speed>,
    /// Begin segments at least this much time apart. A server keeps five: readers that are further behind lose some.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) every: Option<Duration>,
    /// Choose what gives way when the server takes less than there is.
    #[arg(long, value_enum, default_value_t = Slow::Wait)]
    slow: Slow,
    /// Do nothing about silence of standard input. Without this the open segment ends after 3 s of it, and an empty
    /// one is published every 20 s: servers and readers give up on channels that are silent for long.
    #[arg(long)]
    no_keep_alive: bool,
    /// Print the figures as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The executor that drives the publisher.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
    #[command(flatten)]
    link: LinkArgs,
}

impl PubArgs {
    /// How the machine is to behave.
    pub(crate) fn config(&self) -> publisher::Config {
        let content = match (&self.content, self.cut) {
            (Some(content), _) => content,
            (None, Cut::KeyFrame) => ContentType::MPEG_TS,
            (None, Cut::Line) => ContentType::JSON,
            (None, Cut::Size(_) | Cut::Time(_)) => "application/octet-stream",
        };
        publisher::Config {
            content: ContentType::new(content),
            create: self.create,
            delete: !self.keep,
            trust: self.link.trust(),
            protocol: self.link.protocol(),
            policy: match self.slow {
                Slow::Wait => publisher::Policy::Block,
                Slow::DropNewest => publisher::Policy::DropNewest,
                Slow::DropOldest => publisher::Policy::DropOldest,
                Slow::SkipToLive => publisher::Policy::SkipToLive,
            },
            linger: self.linger,
            idle: (self.input == Place::Standard && !self.no_keep_alive)
                .then(publisher::Idle::default),
            ..publisher::Config::default()
        }
    }
}

/// Options of `trickle sub`.
#[derive(Args, Debug)]
pub(crate) struct SubArgs {
    /// The channel, such as http://127.0.0.1:2939/ai/trickle/NAME.
    #[arg(value_name = "URL", value_parser = channel)]
    pub(crate) channel: Url,
    /// Where to write the bytes of the channel: a file, or - for standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) output: Place,
    /// Where to begin: with the next segment, the current one, or a number.
    #[arg(long, value_name = "WHERE", default_value = "current", value_parser = start)]
    pub(crate) start: Start,
    /// End after this many segments.
    #[arg(long, value_name = "N")]
    pub(crate) segments: Option<NonZeroUsize>,
    /// Where to go on after falling behind.
    #[arg(long, value_enum, default_value_t = Behind::Live)]
    behind: Behind,
    /// How long the channel may be missing at first.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
    wait: Duration,
    /// End after this long without a byte.
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    idle: Option<Duration>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The executor that drives the subscriber.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    pub(crate) runtime: Runtime,
    #[command(flatten)]
    link: LinkArgs,
}

impl SubArgs {
    /// How the machine is to behave.
    pub(crate) fn config(&self) -> subscriber::Config {
        subscriber::Config {
            trust: self.link.trust(),
            protocol: self.link.protocol(),
            lag: match self.behind {
                Behind::Live => subscriber::Lag::Live,
                Behind::Current => subscriber::Lag::Current,
                Behind::Earliest => subscriber::Lag::Earliest,
                Behind::Fail => subscriber::Lag::Fail,
            },
            start_within: self.wait,
            idle_within: self.idle,
            ..subscriber::Config::default()
        }
    }
}

/// Where segments end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Ahead of key frames of an MPEG-TS stream.
    KeyFrame,
    /// After every line feed.
    Line,
    /// After so many bytes.
    Size(NonZeroUsize),
    /// After so much time.
    Time(Duration),
}

impl FromStr for Cut {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "keyframe" => Ok(Self::KeyFrame),
            "line" => Ok(Self::Line),
            // A bare number could be either.
            text if !text.bytes().all(|b| b.is_ascii_digit()) => values::size(text)
                .map(Self::Size)
                .or_else(|_| values::duration(text).map(Self::Time))
                .map_err(
                    |_| "it is not keyframe, line, a size such as 256KiB or a time such as 2s",
                ),
            _ => Err("it needs a unit: a size such as 256KiB, or a time such as 2s"),
        }
    }
}

/// The part of the input that gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Slow {
    /// Nothing: the input waits.
    Wait,
    /// The segment that is being written.
    DropNewest,
    /// The oldest that is unanswered.
    DropOldest,
    /// All but the one that is being written.
    SkipToLive,
}

/// Where a reader that fell behind goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Behind {
    /// At the segment that begins next.
    Live,
    /// At the one that began last.
    Current,
    /// At the oldest that is surely there.
    Earliest,
    /// Nowhere: it is a failure.
    Fail,
}

/// A channel to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewChannel {
    pub(crate) name: String,
    pub(crate) content: String,
}

impl FromStr for NewChannel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, content) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() || name.contains('/') {
            return Err("a channel's name is one part of a path and not empty");
        }
        Ok(Self {
            name: name.to_owned(),
            content: content.to_owned(),
        })
    }
}

/// An absolute path that ends with a slash.
fn base(text: &str) -> Result<String, &'static str> {
    let inner = text.trim_matches('/');
    if inner.split('/').any(|part| part == "." || part == "..") || inner.contains("//") {
        return Err("the path has empty parts or dots");
    }
    if !inner
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"?#%".contains(&b))
    {
        return Err("the path has characters that would have to be escaped");
    }
    Ok(if inner.is_empty() {
        "/".to_owned()
    } else {
        format!("/{inner}/")
    })
}

fn channel(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| error.to_string())?;
    if url.path().trim_matches('/').is_empty() {
        return Err("it names a server and no channel of it".to_owned());
    }
    Ok(url)
}

fn start(text: &str) -> Result<Start, &'static str> {
    match text {
        "next" => Ok(Start::Next),
        "current" => Ok(Start::Current),
        number => number
            .parse()
            .ok()
            .filter(|number| *number <= Seq::MAX.get())
            .map(|number| Start::At(Seq::new(number)))
            .ok_or("it is not next, current, or the number of a segment"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_told_apart_by_their_units() {
        let size = |bytes| Ok(Cut::Size(NonZeroUsize::new(bytes).expect("not zero")));
        for (text, cut) in [
            ("keyframe", Ok(Cut::KeyFrame)),
            ("line", Ok(Cut::Line)),
            ("100B", size(100)),
            ("64KiB", size(64 << 10)),
            ("2s", Ok(Cut::Time(Duration::from_secs(2)))),
            ("1m", Ok(Cut::Time(Duration::from_secs(60)))),
        ] {
            assert_eq!(text.parse::<Cut>(), cut, "{text}");
        }
        for text in ["", "5", "0B", "0s", "KiB", "frame", "-1s"] {
            assert!(text.parse::<Cut>().is_err(), "{text}");
        }
    }

    #[test]
    fn bases_are_whole_paths() {
        for (text, path) in [
            ("", "/"),
            ("/", "/"),
            ("/ai/trickle/", "/ai/trickle/"),
            ("x", "/x/"),
        ] {
            assert_eq!(base(text).as_deref(), Ok(path));
        }
        for text in ["/a//b", "/../a", "a b", "a?b", "%41"] {
            assert!(base(text).is_err(), "{text}");
        }
    }

    #[test]
    fn readers_begin_somewhere() {
        assert_eq!(start("next"), Ok(Start::Next));
        assert_eq!(start("7"), Ok(Start::At(Seq::new(7))));
        for text in ["", "-1", "9223372036854775808", "first"] {
            assert!(start(text).is_err(), "{text}");
        }
        assert!(channel("http://h:1").is_err() && channel("http://h:1/x").is_ok());
    }
}
