//! Containers that an operator brought (BYOC, jobs spec 4): who offers one, what a job in it costs, and jobs.
//!
//! A job is decided on in this order: its header and signature 400, the container 503, the payment, the balance 400, its
//! request 400. Then it is [handed on](super::works). Seconds are charged, rounded up, also for jobs that fail; all jobs of
//! a payer for one container share one balance, under the container's name. Streams of media are in `stream.rs`.
//!
//! Differences from the reference, on purpose: a container takes no more jobs than it says, a stream is charged for the part
//! of its last five seconds, and payment that cannot be read is no reason to break the connection.

mod bill;
mod job;
mod stream;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use livepeer_core::Time;
use livepeer_core::http::{Method, Out, Request, Url};
use livepeer_core::money::Price;
use livepeer_core::wire::byoc::stream::{PAYMENT_PATH, START_PATH, STOP_PATH, UPDATE_PATH};
use livepeer_core::wire::byoc::{
    CAPABILITY_HEADER, JOB_HEADER, REQUEST_PATH, SENDER_HEADER, Sender, TOKEN_PATH, Token,
};
use serde_json::Value;

use super::event::Surface;
use super::paid::{Headers, No};
use super::workers::Worker;
use super::{Orchestrator, account, wire};

use job::What;
pub(super) use job::{Job, Pending};
pub(super) use stream::Streams;

/// Where containers register.
const REGISTER_PATH: &str = "/capability/register";
/// Where containers say that they go.
const UNREGISTER_PATH: &str = "/capability/unregister";

/// At most this many containers register.
pub const MAX_CONTAINERS: usize = 1_000;

/// A container.
#[derive(Clone, Debug)]
pub struct Container {
    /// The program inside.
    pub worker: Worker,
    /// How many jobs at once.
    pub capacity: u32,
    /// The price of a second. Without a chain nothing is paid.
    pub price: Price,
    /// The word that the program wants to hear with each job; empty if it wants none.
    pub token: String,
}

impl Container {
    /// A container for nothing that does four jobs at once.
    #[must_use]
    pub const fn new(worker: Worker) -> Self {
        Self {
            worker,
            capacity: 4,
            price: Price::FREE,
            token: String::new(),
        }
    }
}

/// A container that is offered, and how much of it is taken.
pub(super) struct Offered {
    pub(super) container: Container,
    /// Places that are taken, those that never come back among them.
    pub(super) taken: u32,
}

/// The containers of an orchestrator.
#[derive(Default)]
pub(super) struct Containers(BTreeMap<String, Offered>);

impl Containers {
    pub(super) fn new(all: &BTreeMap<String, Container>) -> Self {
        let offered = |container: &Container| Offered {
            container: container.clone(),
            taken: 0,
        };
        Self(
            all.iter()
                .map(|(name, of)| (name.clone(), offered(of)))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&Offered> {
        self.0.get(name)
    }

    /// How many more jobs a container takes; none also where there is no such container.
    pub(super) fn free(&self, name: &str) -> u32 {
        let offered = self.0.get(name);
        offered.map_or(0, |offered| {
            offered.container.capacity.saturating_sub(offered.taken)
        })
    }

    fn take(&mut self, name: &str) {
        if let Some(offered) = self.0.get_mut(name) {
            offered.taken = offered.taken.saturating_add(1);
        }
    }

    fn give_back(&mut self, name: &str) {
        if let Some(offered) = self.0.get_mut(name) {
            offered.taken = offered.taken.saturating_sub(1);
        }
    }

    /// Offers a container no more, until it registers again.
    fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }
}

/// Head of a request about containers.
pub(super) enum Ask {
    Token { sender: String, container: String },
    Job(Box<Asked>),
    Register { secret: String },
    Unregister { secret: String },
}

/// Head of a request that names a job.
pub(super) struct Asked {
    what: What,
    /// The header with the job.
    job: String,
    payment: String,
    content_type: String,
}

impl Ask {
    /// The request about containers that a head begins, if it does.
    ///
    /// # Errors
    /// The answer, if no body can change it.
    pub(super) fn of(path: &str, request: &Request, paid: &Headers) -> Option<Result<Self, Out>> {
        let header = |name| request.headers.get(name).unwrap_or("").to_owned();
        let secret = || header("authorization");
        let worker_path = path.strip_prefix(REQUEST_PATH);
        let worker_path = worker_path.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let (method, ask) = match path {
            TOKEN_PATH => (
                Method::Get,
                Self::Token {
                    sender: header(SENDER_HEADER),
                    container: header(CAPABILITY_HEADER),
                },
            ),
            REGISTER_PATH => (Method::Post, Self::Register { secret: secret() }),
            UNREGISTER_PATH => (Method::Post, Self::Unregister { secret: secret() }),
            _ => {
                let what = match path {
                    START_PATH => What::Start,
                    UPDATE_PATH => What::Update,
                    PAYMENT_PATH => What::Payment,
                    STOP_PATH => What::Stop,
                    _ => What::Request(match worker_path? {
                        "/" => String::new(),
                        rest => rest.to_owned(),
                    }),
                };
                let asked = Asked {
                    what,
                    job: header(JOB_HEADER),
                    payment: paid.payment.clone(),
                    content_type: header("content-type"),
                };
                (Method::Post, Self::Job(Box::new(asked)))
            }
        };
        if request.method != method {
            return Some(Err(wire::text_reply(405, "Method not allowed")));
        }
        Some(Ok(ask))
    }
}

const fn no(status: u16, text: String) -> No {
    No {
        surface: Surface::Container,
        status,
        text,
    }
}

impl Orchestrator {
    /// Free places of a container; zero for one that is not there.
    #[must_use]
    pub fn free_places(&self, container: &str) -> u32 {
        self.containers.free(container)
    }

    /// A request about containers is complete. `None` if its answer comes later.
    pub(super) fn container_asked(
        &mut self,
        now: Time,
        id: livepeer_core::EffectId,
        ask: Ask,
        body: Bytes,
    ) -> Result<Option<Vec<Out>>, No> {
        match ask {
            Ask::Token { sender, container } => {
                let token = self.token(now, &sender, &container)?;
                Ok(Some(vec![wire::bytes_reply(
                    200,
                    "application/json",
                    token,
                )]))
            }
            Ask::Job(asked) => self.job_asked(now, id, *asked, body),
            Ask::Register { secret } => {
                self.check_secret(&secret)?;
                let (name, container) = read_registration(&body)?;
                let known = self.containers.get(&name).is_some();
                if !known && self.containers.0.len() >= MAX_CONTAINERS {
                    return Err(no(
                        400,
                        "Error registering capability: there are too many".into(),
                    ));
                }
                self.containers.0.insert(
                    name,
                    Offered {
                        container,
                        taken: 0,
                    },
                );
                Ok(Some(vec![done()]))
            }
            Ask::Unregister { secret } => {
                self.check_secret(&secret)?;
                self.containers.remove(&String::from_utf8_lossy(&body));
                Ok(Some(vec![done()]))
            }
        }
    }

    fn check_secret(&self, secret: &str) -> Result<(), No> {
        match &self.config.register_secret {
            Some(expected) if expected == secret => Ok(()),
            _ => Err(no(400, "invalid authorization".into())),
        }
    }

    /// An offer to run a container.
    fn token(&mut self, now: Time, sender: &str, container: &str) -> Result<Bytes, No> {
        const INVALID: &str = "Invalid eth address header ";
        if sender.is_empty() {
            let text =
                "Must have eth address and signature on address in Livepeer-Eth-Address header";
            return Err(no(400, text.into()));
        }
        let invalid = || no(400, INVALID.into());
        let sender_said = Sender::from_header(sender).map_err(|_| invalid())?;
        let unsigned = sender_said.0.is_none();
        if unsigned && (self.till.is_some() || self.refuses_signature(sender)) {
            return Err(invalid());
        }
        if container.is_empty() {
            let text = "Job capabilities not provided, must provide comma separated capabilities in Livepeer-Capability header";
            return Err(no(400, text.into()));
        }
        let price = self.seconds_price(container);
        let payer = sender_said.0.map(|by| by.sender).unwrap_or_default();
        let (mut ticket_params, mut balance) = (None, 0);
        if let Some(till) = &mut self.till {
            let params = till.get_mut().quote(now, payer, price).map_err(|err| {
                let text = format!("Could not get price err={err}");
                let status = if text.ends_with("insufficient sender reserve") {
                    503
                } else {
                    400
                };
                no(status, text)
            })?;
            ticket_params = Some(params);
            let left = till.get().balance(&account(payer, container));
            let whole = left.map(|left| left.whole_wei().to_string());
            balance = whole.and_then(|whole| whole.parse().ok()).unwrap_or(0);
        }
        let token = Token {
            service: match self.config.quirks.elsewhere {
                true => self.nowhere(),
                false => self.config.service.clone(),
            },
            price,
            ticket_params,
            balance,
            capacity: self.containers.free(container),
        };
        Ok(token.to_json(sender_said))
    }

    /// The price of a second in a container, for those who pay.
    fn seconds_price(&self, container: &str) -> Price {
        let offered = self
            .containers
            .get(container)
            .filter(|_| self.till.is_some());
        offered.map_or(Price::FREE, |offered| offered.container.price)
    }

    /// An address of this host at which nobody listens.
    fn nowhere(&self) -> Url {
        let host = self.config.service.bracketed_host();
        Url::parse(&format!("https://{host}:9")).expect("a host and a port")
    }

    /// Whether an unsigned header is one that the reference refuses off-chain: its own gateways say `0x` there.
    fn refuses_signature(&self, header: &str) -> bool {
        self.config.quirks.refuse_0x && {
            let json = base64::engine::general_purpose::STANDARD
                .decode(header)
                .unwrap_or_default();
            let fields: Value = serde_json::from_slice(&json).unwrap_or_default();
            fields["sig"] == "0x"
        }
    }
}

/// Reads what a container registers with: any JSON passes at the reference, but one without a program is of no use here.
fn read_registration(body: &[u8]) -> Result<(String, Container), No> {
    let bad = |why: &str| no(400, format!("Error registering capability: {why}"));
    let fields: Value = serde_json::from_slice(body).map_err(|err| bad(&err.to_string()))?;
    let text = |name: &str| fields[name].as_str().unwrap_or("").to_owned();
    let number = |name: &str| fields[name].as_i64().unwrap_or(0);
    let url = Url::parse(&text("url"));
    let url = url.map_err(|err| bad(&format!("url: {err}")))?;
    let name = text("name");
    if name.is_empty() {
        return Err(bad("name is missing"));
    }
    let price = Price::new(number("price_per_unit"), number("price_scaling").max(1));
    let container = Container {
        worker: Worker::At(url),
        capacity: u32::try_from(number("capacity").max(0)).unwrap_or(u32::MAX),
        price: price.ok_or_else(|| bad("price_per_unit is below zero"))?,
        token: text("token"),
    };
    Ok((name, container))
}

fn done() -> Out {
    wire::bytes_reply(200, "application/json", Bytes::from_static(b"ok"))
}

/// The longest time that a job may take, whatever it says.
const MAX_TIME: Duration = Duration::from_secs(24 * 3600);
