//! Failures of commands, each as one line and an exit code.

use std::fmt::Display;
use std::io;
use std::path::Path;

use livepeer_core::error::{Broken, Reason};
use livepeer_core::handshake::Rejection;
use livepeer_core::http::Fault;
use livepeer_core::job::{app, batch, byoc};
use livepeer_core::pool::{Tried, Why};
use livepeer_core::wire::WireError;
use livepeer_core::{Cause, Failure, Misuse, Party};
use livepeer_media::InputError;

use livepeer_runtime::api::Error;
use serde::Serialize;

/// Something went wrong.
const FAILURE: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;
/// Ctrl-C, as shells report it.
const INTERRUPTED: u8 = 130;

/// A longer cause is cut: peers' texts may be in it.
const MAX_LINE: usize = 1000;

/// The outcome of a command.
pub(crate) type Outcome = Result<(), Failed>;

/// Why a command failed, and what its user can do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failed {
    cause: String,
    remedy: String,
    #[serde(skip)]
    pub(super) code: u8,
    /// Whether it stands beside the figures on standard output already.
    #[serde(skip)]
    told: bool,
}

impl Failed {
    /// A failure with its remedy, both without a full stop at the end.
    pub(crate) fn new(cause: impl Display, remedy: impl Display) -> Self {
        Self {
            cause: cause.to_string(),
            remedy: remedy.to_string(),
            code: FAILURE,
            told: false,
        }
    }

    /// Marks the failure as written to standard output together with the figures.
    pub(super) fn told(self) -> Self {
        Self { told: true, ..self }
    }

    pub(super) const fn is_told(&self) -> bool {
        self.told
    }

    /// A command line that cannot be meant; `command` is the one whose help would tell.
    pub(crate) fn usage(cause: impl Display, command: &str) -> Self {
        let space = if command.is_empty() { "" } else { " " };
        Self {
            cause: cause.to_string(),
            remedy: format!("See livepeer-gateway{space}{command} --help"),
            code: USAGE,
            told: false,
        }
    }

    /// A configuration that cannot be meant.
    pub(crate) fn invalid(cause: impl Display, remedy: impl Display) -> Self {
        Self {
            code: USAGE,
            ..Self::new(cause, remedy)
        }
    }

    /// The user stopped the command, and it stopped cleanly.
    pub(crate) fn interrupted() -> Self {
        Self {
            cause: "interrupted".to_owned(),
            remedy: "Everything was closed; start again when you like".to_owned(),
            code: INTERRUPTED,
            told: false,
        }
    }

    /// A file or stream that cannot be used; `doing` is a phrase such as `cannot read`.
    pub(crate) fn file(doing: &str, name: &str, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "Check the path",
            io::ErrorKind::PermissionDenied => "Check who may use it",
            io::ErrorKind::IsADirectory => "Name a file, not a folder",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Make room for it",
            _ => "Check that it is what you mean, and try again",
        };
        Self::new(format_args!("{doing} {name}: {}", plain(error)), remedy)
    }

    /// A store of records that cannot be used.
    pub(crate) fn store(path: &Path, error: &dyn Display) -> Self {
        Self::new(
            format_args!("cannot use the store {}: {error}", path.display()),
            "Name another file with --store, or end the program that uses this one",
        )
    }

    /// A port that cannot be listened on; `option` is the one that would name another.
    pub(crate) fn listen(address: impl Display, option: &str, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("Stop the program that uses it, or choose another with {option}")
            }
            io::ErrorKind::PermissionDenied => {
                format!("Choose a port from 1024 up with {option}")
            }
            _ => format!("Choose an address of this machine with {option}"),
        };
        Self::new(
            format_args!("cannot listen on {address}: {}", plain(error)),
            remedy,
        )
    }

    /// Adds what was being done when the failure happened.
    pub(crate) fn during(mut self, what: impl Display) -> Self {
        self.cause = format!("{what}: {}", self.cause);
        self
    }

    /// `error: <cause>. <remedy>.`, always one line.
    pub(crate) fn line(&self) -> String {
        let sentence = |text: &str| -> String {
            let text: String = text
                .split(|c: char| c.is_control())
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(" ");
            let mut end = text.len().min(MAX_LINE);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text[..end].trim_end_matches(['.', ' ']).to_owned()
        };
        format!(
            "error: {}. {}.",
            sentence(&self.cause),
            sentence(&self.remedy)
        )
    }
}

/// The system's words without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

impl From<InputError> for Failed {
    fn from(error: InputError) -> Self {
        let remedy = match error {
            InputError::Empty => {
                "Check the path, or with --input - that the program before the pipe writes MPEG-TS"
            }
            _ => error.remedy(),
        };
        Self::new(&error, remedy)
    }
}

impl From<WireError> for Failed {
    fn from(error: WireError) -> Self {
        Self::new(&error, "Correct it; --help shows an example")
    }
}

impl From<Misuse> for Failed {
    fn from(misuse: Misuse) -> Self {
        Self::new(misuse, "This is a fault of the program; please report it")
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        let remedy = remedy(&failure.who, &failure.cause);
        Self::new(failure, remedy)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error {
            Error::Failed(failure) => (*failure).into(),
            Error::Input(error) => error.into(),
            Error::Misuse(misuse) => misuse.into(),
            Error::Ts(error) => error.into(),
            Error::Rejected(_, ref rejection) => Self::new(&error, unfit(rejection)),
            Error::NoOrchestrator(ref tried) | Error::AllFailed(ref tried) => match &tried[..] {
                // One orchestrator, one story.
                [
                    Tried {
                        why: Why::Failed(failure) | Why::Suspended { failure, .. },
                        ..
                    },
                ] => failure.clone().into(),
                _ => Self::new(
                    &error,
                    match tried.first().map(|one| &one.why) {
                        Some(Why::Failed(failure) | Why::Suspended { failure, .. }) => {
                            remedy(&failure.who, &failure.cause)
                        }
                        Some(Why::Rejected(rejection)) => unfit(rejection),
                        _ => {
                            "Check its address and that it runs, look into its log, or name another"
                        }
                    },
                ),
            },
            Error::Request(ref bad) => Self::new(bad, "Change it with --set, --file or --model"),
            Error::Batch(failed) => match *failed {
                batch::Failed::Ours(failure) => (*failure).into(),
                failed => Self::new(&failed, about_batch(&failed)),
            },
            Error::Order(ref bad) => Self::new(bad, "Change the job as that says"),
            Error::Path(ref bad) => Self::new(bad, "Write a plain path"),
            Error::Byoc(failed) => match *failed {
                byoc::Failed::Ours(failure) => (*failure).into(),
                failed => Self::new(&failed, about_byoc(&failed)),
            },
            Error::App(failed) => match *failed {
                app::Failed::Ours(failure) => (*failure).into(),
                failed => Self::new(&failed, about_app(&failed)),
            },
            Error::Url { .. } => Self::new(&error, "Write it as https://HOST:PORT"),
            _ => Self::new(&error, "Start again; --log info shows what went before"),
        }
    }
}

/// The advice for a batch job that failed.
const fn about_batch(failed: &batch::Failed) -> &'static str {
    match failed {
        batch::Failed::Caller { .. } => "Change it with --set, --file or --model",
        batch::Failed::UnknownModel => {
            "See what is served with: livepeer-gateway info URL; then name it with --model"
        }
        batch::Failed::NoOrchestrator { .. } => {
            "See what is served with: livepeer-gateway info URL; name others with --orchestrator, \
             another --model, or raise --max-price"
        }
        _ => "Try again, or name another with --orchestrator",
    }
}

/// The advice for a job for a container that failed.
const fn about_byoc(failed: &byoc::Failed) -> &'static str {
    match failed {
        byoc::Failed::Caller { .. } => "Change the request as that says",
        byoc::Failed::NoOrchestrator { .. } => {
            "Check the container's name, name other orchestrators with --orchestrator, or raise --max-price"
        }
        byoc::Failed::Undecided { .. } => {
            "Look whether it was done; or allow it to run twice with --may-repeat"
        }
        _ => "Try again, or name another with --orchestrator",
    }
}

/// The advice for an app that was not rented.
const fn about_app(failed: &app::Failed) -> &'static str {
    match failed {
        app::Failed::NoRunner { .. } => {
            "See what is offered with: livepeer-gateway app list; name other orchestrators with --orchestrator, or raise --max-price"
        }
        app::Failed::Undecided { .. } => {
            "Look whether it was done; or allow it to run twice with --may-repeat"
        }
        _ => "Try again, or name another with --orchestrator",
    }
}

/// The advice for an orchestrator that does not fit.
const fn unfit(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::Free => FREE,
        _ => "See what it serves with: livepeer-gateway info URL; or raise --max-price",
    }
}

const FREE: &str = "Pay with --key-file or --keystore, or name another orchestrator";

/// The advice for a failure, by its cause and by the party that caused it.
fn remedy(who: &Party, cause: &Cause) -> &'static str {
    match who {
        Party::Orchestrator(_) => about_orchestrator(cause),
        Party::Signer(_) | Party::Signers => about_signer(cause),
        Party::Channel(_) => match cause {
            Cause::Refused { status: 413, .. } => {
                "Cut shorter segments, or raise --max-segment at its server"
            }
            Cause::Refused { status: 503, .. } => "Try again later: its server has no more room",
            Cause::Refused { .. } => "Check the URL, and read the log of its server",
            Cause::Gone(_) | Cause::Ended(_) => "Check its name, and that its server has it",
            cause => about_link(cause).unwrap_or("Check the URL, and that its server runs"),
        },
        Party::Discovery(_) => match cause {
            Cause::Refused {
                status: 401 | 403, ..
            } => "Give it the header field or key that it wants",
            Cause::Refused { status: 404, .. } => "Check its URL, the path too",
            cause => about_link(cause).unwrap_or("Check its URL, or name another source"),
        },
        Party::Chain(_) => match cause {
            Cause::WrongChain { .. } => "Name an endpoint of the right chain with --rpc",
            Cause::Refused {
                status: 401 | 403, ..
            } => "Check the key in the URL of --rpc, or name another endpoint",
            cause => about_link(cause).unwrap_or("Check --rpc, or name another endpoint with it"),
        },
        Party::Store => "Make room for the store, or name another file with --store",
        // The key holder, and all else on our side.
        _ => match cause {
            Cause::Declined {
                reason: Reason::PayerLimits,
                ..
            } => {
                "Raise --max-ticket-ev or --max-total-ev, or the deposit; or name another orchestrator"
            }
            limit if limit.is_limit() => SPEND,
            Cause::Guard(_) => "Raise the limit if that is meant; nothing was sent",
            Cause::TooDear { .. } => "Raise --max-price, or name another orchestrator",
            Cause::Declined {
                reason: Reason::PayerFunds | Reason::SenderReserve,
                ..
            } => FUND,
            Cause::Silent { .. } => {
                "Check --rpc and the network, or name a further endpoint; nothing is paid by an old reading"
            }
            Cause::Declined {
                reason: Reason::PayerUnlocking,
                ..
            } => CANCEL_UNLOCK,
            _ => "Look into the log with --log info; the fault is on our side",
        },
    }
}

const SPEND: &str = "Raise --max-spend or --max-spend-per-hour to go on";

const FUND: &str = "Fund the deposit and reserve of the account that pays";

const CANCEL_UNLOCK: &str = "Cancel the unlock of the deposit of the account that pays, or withdraw and fund it anew; \
                             nobody takes its tickets before";

/// The advice for a failed connection, whichever party is at its other end.
fn about_link(cause: &Cause) -> Option<&'static str> {
    Some(match cause {
        Cause::Link(Fault::Forbidden(_)) => {
            "Name another one; if its network is private on purpose, say --allow-private"
        }
        Cause::Link(Fault::Untrusted(_)) => {
            "Check the address; a certificate that its owner signed is good enough without --ca-trust, and never for a signer"
        }
        Cause::Link(Fault::Resolve(_)) => "Check the host name and the network",
        Cause::Link(Fault::Connect(_)) => "Check the address and port, and that it is running",
        Cause::Link(Fault::Tls(_) | Fault::Protocol(_)) => {
            "Check the address, its port, and http against https"
        }
        Cause::Link(_) => "Try again; if it stays, look into the log of the other side",
        Cause::TimedOut { .. } => "Check that it is reachable and not overloaded, then try again",
        Cause::Refused {
            status: 500..=599, ..
        } => "Look into its log; the fault is on its side",
        _ => return None,
    })
}

fn about_signer(cause: &Cause) -> &'static str {
    match cause {
        Cause::Refused { reason, status, .. } => match (reason, status) {
            (Reason::PayerFunds | Reason::SenderReserve, _) => FUND,
            (Reason::PayerUnlocking, _) => CANCEL_UNLOCK,
            (Reason::Signature, _) => {
                "Check that the signer holds the key of the account that pays"
            }
            (Reason::PayerLimits, _) => {
                "Raise the signer's limits (--max-ticket-ev, --max-total-ev), or name another orchestrator"
            }
            (_, 401 | 403) => "Give the signer what it wants with --signer-header",
            (_, 404) => "Check that --signer names a Livepeer remote signer",
            (_, 481) => "The price is above what the signer pays; name another orchestrator",
            _ => about_link(cause).unwrap_or("Read what it says, and look into its log"),
        },
        Cause::Nonsense { .. } => "Check that --signer names a Livepeer remote signer",
        limit if limit.is_limit() => SPEND,
        Cause::Guard(_) => {
            "Check that --signer names the right one, and look into its log; nothing was sent"
        }
        Cause::GaveUp { .. } => "Look into the signer's log, or name another with --signer",
        Cause::EachFailed(_) => {
            "Check the addresses, and that at least one signer is running; or name another with --signer"
        }
        cause => about_link(cause).unwrap_or("Try again, or name another with --signer"),
    }
}

fn about_orchestrator(cause: &Cause) -> &'static str {
    match cause {
        Cause::Link(Fault::CertificateChanged { .. }) => {
            "If its owner says that it was started anew, leave --pins-strict out once, or remove its line \
             from the file of pins; otherwise trust nothing it sends"
        }
        Cause::Link(Fault::Tls(_) | Fault::Protocol(_)) => {
            "Check that this is the address of a Livepeer orchestrator (usually port 8935)"
        }
        Cause::Refused { reason, status, .. } => match (reason, status) {
            (Reason::Capacity, _) => "Try again later, or name another orchestrator",
            (Reason::Balance, _) => "Look at the payments before: the work was not paid in time",
            (Reason::PayerFunds | Reason::SenderReserve, _) => FUND,
            (Reason::PayerUnlocking, _) => CANCEL_UNLOCK,
            (Reason::Signature, _) => {
                "Say with --signer who pays, and check that the signer holds that account's key"
            }
            (Reason::ParamsExpired | Reason::AuthToken | Reason::RecipientRand, _) => {
                "Start anew: what it was told before has expired"
            }
            (Reason::PriceDoubled, _) => "Start anew to agree to its new price",
            (Reason::Inactive, _) => "Name another orchestrator; this one is not in the active set",
            (_, 404) => "Check the address, and the model with: livepeer-gateway info URL",
            _ => about_link(cause).unwrap_or("Read what it says, and change the request"),
        },
        Cause::Nonsense { .. } => "Check that the address is right and its software is current",
        Cause::Incompatible(_) => "See what it serves: livepeer-gateway info URL",
        Cause::TooDear { .. } => "Raise --max-price, or name another orchestrator",
        Cause::Free => FREE,
        limit if limit.is_limit() => SPEND,
        Cause::Guard(broken) if matches!(**broken, Broken::Ceiling { .. }) => {
            "Raise --max-price, or name another orchestrator"
        }
        Cause::Guard(_) => "Name another orchestrator; this one asks for what nobody should pay",
        Cause::Gone(_) | Cause::Ended(_) => "Start a new job",
        Cause::TooMuch { .. } => "Name another orchestrator, or report it to its owner",
        cause => about_link(cause).unwrap_or("Try again, or name another orchestrator"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livepeer_core::http::Url;
    use std::time::Duration;

    fn orchestrator() -> Party {
        Party::Orchestrator(Url::parse("https://o.example:8935").expect("a good URL"))
    }

    #[test]
    fn every_failure_is_one_bounded_line() {
        let failed = Failed::new(
            "a\n\n  b\r\nc\u{1b}[31m \u{7}.",
            "Do this.\nThen that.".to_owned(),
        );
        assert_eq!(failed.line(), "error: a b c [31m. Do this. Then that.");
        let long = Failed::new("é".repeat(5000), "x").line();
        assert!(long.len() <= MAX_LINE + 20 && long.ends_with(". x."));
    }

    #[test]
    fn what_peers_do_gets_a_remedy() {
        let line = |cause| Failed::from(Failure::new(orchestrator(), cause)).line();
        assert_eq!(
            line(Cause::Link(Fault::Connect("connection refused".into()))),
            "error: orchestrator https://o.example:8935: cannot connect: connection refused. \
             Check the address and port, and that it is running."
        );
        let changed = line(Cause::Link(Fault::CertificateChanged {
            remembered: [1; 32],
            seen: [2; 32],
        }));
        assert!(changed.contains("0101") && changed.contains("file of pins"));
        let unlocking = line(Cause::Refused {
            doing: "the start",
            status: 403,
            reason: Reason::PayerUnlocking,
            text: "set to unlock soon".into(),
        });
        assert!(unlocking.contains("Cancel the unlock"), "{unlocking}");
        assert!(
            line(Cause::TimedOut {
                doing: "GetOrchestrator",
                after: Duration::from_secs(5)
            })
            .contains("within 5s")
        );
    }

    #[test]
    fn advice_speaks_of_the_party_that_failed() {
        let url = || Url::parse("http://peer.example:1/x").expect("a good URL");
        let refused = |status| Cause::Refused {
            doing: "it",
            status,
            reason: Reason::Other,
            text: String::new(),
        };
        let causes = [
            Cause::Link(Fault::Connect("refused".into())),
            Cause::Link(Fault::Tls("no certificate".into())),
            Cause::TimedOut {
                doing: "it",
                after: Duration::from_secs(5),
            },
            refused(400),
            refused(401),
            refused(404),
            refused(503),
            Cause::Nonsense {
                what: "JSON",
                why: "it is none".into(),
            },
            Cause::GaveUp {
                what: "it",
                times: 3,
                last: "refused".into(),
            },
            Cause::Gone("it"),
        ];
        for who in [
            Party::Channel(url()),
            Party::Discovery(url()),
            Party::Chain(url()),
            Party::Signer(url()),
        ] {
            for cause in &causes {
                let text = remedy(&who, cause);
                assert!(!text.contains("orchestrator"), "{who}: {cause}: {text}");
                let signer = text.contains("signer");
                assert!(!signer || matches!(who, Party::Signer(_)), "{who}: {text}");
            }
        }
    }

    #[test]
    fn our_own_store_gets_a_remedy_of_its_own() {
        let cause = Cause::GaveUp {
            what: "a payment",
            times: 3,
            last: "did not keep what was spent: the disk is full".into(),
        };
        let line = Failed::from(Failure::new(Party::Store, cause)).line();
        assert!(
            line.starts_with("error: our own store: a payment failed 3 times"),
            "{line}"
        );
        assert!(line.contains("Make room for the store"), "{line}");
    }

    #[test]
    fn files_and_ports_get_a_remedy() {
        let missing = io::Error::from_raw_os_error(2);
        assert_eq!(
            Failed::file("cannot read", "clip.ts", &missing).line(),
            "error: cannot read clip.ts: No such file or directory. Check the path."
        );
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        let line = Failed::listen("127.0.0.1:8935", "--listen", &taken).line();
        assert!(line.ends_with("choose another with --listen."), "{line}");
    }
}
