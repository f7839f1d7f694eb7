//! Requests of peers besides those for channels: who may make them, in which order that is decided, and the answers.

use livepeer_core::http::{In, Method, Out, Request};
use livepeer_core::intake::Held;
use livepeer_core::payment::auth;
use livepeer_core::sign::{Digest, SignRefused, Signature};
use livepeer_core::wire::challenge::{BadRefresh, RefreshRequest};
use livepeer_core::wire::grpc::{self, Question, Status};
use livepeer_core::wire::payment::{PAYMENT_HEADER, SEGMENT_HEADER};
use livepeer_core::wire::{
    AuthToken, MAX_MESSAGE_BYTES, Params, Payment, SegmentCredentials, StartRequest,
};
use livepeer_core::{Address, EffectId, Time};
use livepeer_proto::net;
use prost::Message as _;
use serde_json::json;

use super::batch::{self, MAX_BATCH_BYTES};
use super::event::{Event, Surface};
use super::paid::{Headers, No};
use super::receipts::Then;
use super::wire::{self, Names};
use super::workers::MAX_WORK_BYTES;
use super::{Orchestrator, READ_WITHIN, TRICKLE, account, apps, byoc};

/// A longer body of a plain request is refused: parameters have their own limit, and little else is in there.
pub(super) const MAX_BODY_BYTES: usize = MAX_MESSAGE_BYTES + (64 << 10);

/// A request that is not answered yet.
pub(super) struct Exchange {
    pub(super) until: Time,
    grpc: bool,
    /// `None` once it was looked at.
    ask: Option<Ask>,
    body: Body,
    pub(super) held: Option<Held>,
}

enum Ask {
    Handshake,
    Ping,
    EndTranscodingSession,
    Start(Headers),
    Payment(Headers),
    RefreshPayment,
    Batch(Box<batch::Ask>),
    Container(Box<byoc::Ask>),
    App(Box<apps::Ask>),
}

impl Ask {
    /// The most bytes that the body of a plain request may have.
    const fn body_limit(&self) -> usize {
        match self {
            Self::Batch(_) => MAX_BATCH_BYTES,
            Self::Container(_) | Self::App(_) => MAX_WORK_BYTES,
            _ => MAX_BODY_BYTES,
        }
    }
}

enum Body {
    Call(Question),
    Plain(Vec<u8>),
    /// All of it is here; a receipt or signature is not.
    Done,
    /// A signature of ours is on its way, under this id.
    Signing(EffectId),
}

impl Exchange {
    /// A request, as its head tells its purpose.
    fn new(now: Time, ask: Ask, body: Body) -> Self {
        Self {
            until: now + READ_WITHIN,
            grpc: matches!(body, Body::Call(_)),
            ask: Some(ask),
            body,
            held: None,
        }
    }

    /// Knows what a request is for.
    ///
    /// # Errors
    /// If it is for nothing here.
    pub(super) fn open(now: Time, request: &Request, no_refresh: bool) -> Result<Self, No> {
        let path = request.url.path();
        let path = path.split('?').next().unwrap_or("");
        let header = |name| request.headers.get(name).unwrap_or("").to_owned();
        let headers = || Headers {
            payment: header(PAYMENT_HEADER),
            segment: header(SEGMENT_HEADER),
        };
        let elsewhere = |status, text: &str| No {
            surface: Surface::Other,
            status,
            text: text.to_owned(),
        };
        let (ask, body) = if grpc::is_call(request) {
            let ask = match path {
                grpc::GET_ORCHESTRATOR => Ask::Handshake,
                grpc::PING => Ask::Ping,
                grpc::END_TRANSCODING_SESSION => Ask::EndTranscodingSession,
                _ => {
                    return Err(No {
                        surface: Surface::Handshake,
                        status: Status::UNIMPLEMENTED,
                        text: format!("unknown method {path}"),
                    });
                }
            };
            (ask, Body::Call(Question::default()))
        } else {
            let ask = match path {
                "/live-video-to-video" => Ask::Start(headers()),
                "/payment" => Ask::Payment(headers()),
                "/refresh-payment" if !no_refresh => Ask::RefreshPayment,
                _ => match batch::Ask::of(path, request, headers()) {
                    Some(ask) => Ask::Batch(Box::new(ask)),
                    None => return Err(elsewhere(404, "404 page not found")),
                },
            };
            if request.method != Method::Post {
                return Err(elsewhere(405, "Method Not Allowed"));
            }
            (ask, Body::Plain(Vec::new()))
        };
        Ok(Self::new(now, ask, body))
    }

    /// Knows a request about containers or apps. `None` if it is about neither.
    ///
    /// # Errors
    /// The answer, if no body can change it.
    pub(super) fn of_program(
        now: Time,
        request: &Request,
        apps: bool,
    ) -> Option<Result<Self, Out>> {
        let path = request.url.path();
        let path = path.split('?').next().unwrap_or("");
        let header = |name| request.headers.get(name).unwrap_or("").to_owned();
        let paid = Headers {
            payment: header(PAYMENT_HEADER),
            segment: header(SEGMENT_HEADER),
        };
        let ask = match byoc::Ask::of(path, request, &paid) {
            Some(ask) => ask.map(|ask| Ask::Container(Box::new(ask))),
            None => match apps::Ask::of(request, &paid)? {
                _ if !apps => Err(wire::text_reply(404, "live runners are not supported")),
                ask => ask.map(|ask| Ask::App(Box::new(ask))),
            },
        };
        Some(ask.map(|ask| Self::new(now, ask, Body::Plain(Vec::new()))))
    }
}

impl Orchestrator {
    /// A further step of a request that is not answered yet.
    pub(super) fn exchange(&mut self, now: Time, id: EffectId, step: In) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        if let (In::Data(bytes), Some(held)) = (&step, &mut exchange.held)
            && self.intake.grow(held, bytes.len()).is_err()
        {
            return self.give_up(now, id);
        }
        match (step, &mut exchange.body) {
            (In::Data(bytes), Body::Call(question)) => {
                if let Err(status) = question.data(&bytes) {
                    self.answer(now, id, vec![grpc::refuse(&status)]);
                }
            }
            (In::Data(bytes), Body::Plain(held)) => {
                let most = exchange.ask.as_ref().map_or(0, Ask::body_limit);
                if held.len() + bytes.len() > most {
                    let answer = wire::text_reply(413, "request body too large");
                    self.answer(now, id, vec![answer]);
                } else {
                    held.extend_from_slice(&bytes);
                }
            }
            (In::End(_), Body::Call(_) | Body::Plain(_)) => {
                let body = std::mem::replace(&mut exchange.body, Body::Done);
                self.asked(now, id, body);
            }
            (In::Failed(_), _) => {
                self.forget_exchange(id);
                for waiting in self.receipts.values_mut() {
                    if waiting.id == Some(id) {
                        waiting.id = None;
                    }
                }
            }
            _ => {}
        }
    }

    /// A request is complete.
    fn asked(&mut self, now: Time, id: EffectId, body: Body) {
        let Some(exchange) = self.exchanges.get_mut(&id) else {
            return;
        };
        let Some(ask) = exchange.ask.take() else {
            return;
        };
        let told = match (ask, body) {
            (ask, Body::Call(question)) => match question.end() {
                Ok(message) => self.called(now, id, &ask, message),
                Err(status) => Ok(Some(vec![grpc::refuse(&status)])),
            },
            (Ask::Start(headers), Body::Plain(body)) => self.start_asked(now, id, &headers, &body),
            (Ask::Payment(headers), _) => self.payment_asked(now, id, &headers),
            (Ask::Batch(ask), Body::Plain(body)) => self.batch_asked(now, id, *ask, body.into()),
            (Ask::Container(ask), Body::Plain(body)) => {
                self.container_asked(now, id, *ask, body.into())
            }
            (Ask::App(ask), Body::Plain(body)) => self.app_asked(now, id, *ask, body.into()),
            (_, Body::Plain(body)) => self.refresh_asked(now, &body).map(Some),
            _ => Ok(None),
        };
        match told {
            Ok(None) => {}
            Ok(Some(steps)) => self.answer(now, id, steps),
            Err(no) => self.refuse(now, id, no),
        }
    }

    pub(super) fn refuse(&mut self, now: Time, id: EffectId, no: No) {
        let answer = match (no.surface, no.status) {
            (Surface::Handshake, _) => grpc::refuse(&Status::new(no.status, no.text.clone())),
            (_, 405) => wire::only_post(),
            (Surface::RefreshPayment, _) => wire::error_reply(no.status, &no.text),
            _ => wire::text_reply(no.status, &no.text),
        };
        if matches!(
            no.surface,
            Surface::Start | Surface::Payment | Surface::Batch | Surface::Container | Surface::App
        ) {
            self.figures.refused += 1;
        }
        self.out.event(Event::Rejected {
            surface: no.surface,
            status: no.status,
            text: no.text,
        });
        self.answer(now, id, vec![answer]);
    }

    /// An exchange takes too long or too much, or we close.
    pub(super) fn give_up(&mut self, now: Time, id: EffectId) {
        let Some(exchange) = self.exchanges.get(&id) else {
            return;
        };
        let answer = if exchange.grpc {
            grpc::refuse(&Status::new(Status::DEADLINE_EXCEEDED, "gave up"))
        } else {
            wire::text_reply(503, "gave up")
        };
        for waiting in self.receipts.values_mut() {
            if waiting.id == Some(id) {
                waiting.id = None;
            }
        }
        self.answer(now, id, vec![answer]);
    }

    // ---- gRPC ------------------------------------------------------------------------------------------------

    fn called(
        &mut self,
        now: Time,
        id: EffectId,
        ask: &Ask,
        message: bytes::Bytes,
    ) -> Result<Option<Vec<Out>>, No> {
        let no = |text: String| No {
            surface: Surface::Handshake,
            status: Status::UNKNOWN,
            text,
        };
        let nonsense = |err: prost::DecodeError| No {
            surface: Surface::Handshake,
            status: Status::INTERNAL,
            text: format!("grpc: error unmarshalling request: {err}"),
        };
        match ask {
            Ask::Ping => {
                let ping = net::PingPong::decode(message).map_err(nonsense)?;
                if self.config.payments.is_none() {
                    return Ok(Some(grpc::reply(&net::PingPong::default()).into()));
                }
                let effect = livepeer_core::Effect::Sign(Digest::node(&ping.value));
                let signing = self.out.open(effect);
                if let Some(exchange) = self.exchanges.get_mut(&id) {
                    exchange.body = Body::Signing(signing);
                }
                Ok(None)
            }
            Ask::EndTranscodingSession => {
                let request =
                    net::EndTranscodingSessionRequest::decode(message).map_err(nonsense)?;
                request
                    .auth_token
                    .map(AuthToken::from_wire)
                    .filter(|token| self.tokens.check(now, token).is_ok())
                    .ok_or_else(|| no("Invalid auth token".to_owned()))?;
                Ok(Some(
                    grpc::reply(&net::EndTranscodingSessionResponse {}).into(),
                ))
            }
            _ => {
                let request = net::OrchestratorRequest::decode(message).map_err(nonsense)?;
                let info = self.handshake(now, request).map_err(no)?;
                Ok(Some(grpc::reply(&info).into()))
            }
        }
    }

    /// The key holder answered.
    pub(super) fn signed(
        &mut self,
        now: Time,
        signing: EffectId,
        answer: Result<Signature, SignRefused>,
    ) {
        let Some(id) = self
            .exchanges
            .iter()
            .find(|(_, exchange)| matches!(exchange.body, Body::Signing(of) if of == signing))
            .map(|(id, _)| *id)
        else {
            return;
        };
        match answer {
            Ok(signature) => {
                let value = bytes::Bytes::copy_from_slice(&signature.0);
                let steps = grpc::reply(&net::PingPong { value }).into();
                self.answer(now, id, steps);
            }
            Err(why) => self.refuse(
                now,
                id,
                No {
                    surface: Surface::Handshake,
                    status: Status::UNKNOWN,
                    text: why.to_string(),
                },
            ),
        }
    }

    // ---- paid work -------------------------------------------------------------------------------------------

    /// Reads payment and credentials (402, 403), in this order.
    pub(super) fn admit(
        &mut self,
        now: Time,
        surface: Surface,
        headers: &Headers,
    ) -> Result<(Payment, SegmentCredentials), No> {
        let no = |status, text| No {
            surface,
            status,
            text,
        };
        let payment = wire::payment(&headers.payment).map_err(|text| no(402, text))?;
        let payer = self.till.is_some().then_some(payment.sender);
        let offered = self.offered();
        let credentials = auth::admit(
            now,
            &headers.segment,
            payer,
            &self.tokens,
            |wanted| offered.serves(wanted),
            |_| true,
        )
        .map_err(|err| no(403, err.to_string()))?;
        if let Some((status, text)) = &self.config.quirks.refuse_payments {
            return Err(no(*status, text.clone()));
        }
        Ok((payment, credentials))
    }

    /// Decode 400, capacity 503, payment 402, credentials 403, model 500, tickets 400, balance 400, channels 500
    /// (jobs spec 3.2).
    fn start_asked(
        &mut self,
        now: Time,
        id: EffectId,
        headers: &Headers,
        body: &[u8],
    ) -> Result<Option<Vec<Out>>, No> {
        let surface = Surface::Start;
        let no = |status, text| No {
            surface,
            status,
            text,
        };
        let request = StartRequest::from_json(body).map_err(|err| no(400, err.to_string()))?;
        // A model that is not there could be loaded wherever there is room for any.
        let room = match self.config.models.contains_key(&request.model_id) {
            true => self.idle(&request.model_id) > 0,
            false => self.config.models.keys().any(|model| self.idle(model) > 0),
        };
        if !room {
            return Err(no(503, "insufficient capacity".to_owned()));
        }
        let (payment, _) = self.admit(now, surface, headers)?;
        let Some(model) = self.config.models.get(&request.model_id) else {
            let text = format!(
                "no container image found for live pipeline {}",
                request.model_id
            );
            return Err(no(500, text));
        };
        let price = model
            .price
            .or(self.config.payments.as_ref().map(|payments| payments.price));
        let manifest_id = self.name();
        let payer = payment.sender;
        if self.till.is_none() {
            let steps = self.started(now, manifest_id, payer, request.model_id, request.params)?;
            return Ok(Some(steps));
        }
        let then = Then::Start {
            model: request.model_id,
            params: request.params,
            free: price.is_none_or(|price| price.is_free()),
        };
        self.await_receipt(now, id, payment, manifest_id, then);
        Ok(None)
    }

    pub(super) fn started(
        &mut self,
        now: Time,
        manifest_id: String,
        payer: Address,
        model: String,
        params: Option<Params>,
    ) -> Result<Vec<Out>, No> {
        self.start(now, manifest_id.clone(), payer, model, params)
            .map_err(|err| No {
                surface: Surface::Start,
                status: 500,
                text: err.to_string(),
            })?;
        let base = format!("{}{TRICKLE}", self.config.service.origin());
        let without = self.config.quirks.leave_out.as_deref();
        let names = Names::of(&manifest_id);
        Ok(vec![wire::started(&base, &manifest_id, &names, without)])
    }

    /// Payment 402, credentials 403, quote 500, tickets 400 (payments spec 11.3).
    fn payment_asked(
        &mut self,
        now: Time,
        id: EffectId,
        headers: &Headers,
    ) -> Result<Option<Vec<Out>>, No> {
        self.payment_of(now, id, Surface::Payment, headers, None)
    }

    /// A payment, for that session alone if one is named.
    pub(super) fn payment_of(
        &mut self,
        now: Time,
        id: EffectId,
        surface: Surface,
        headers: &Headers,
        session: Option<&str>,
    ) -> Result<Option<Vec<Out>>, No> {
        let no = |status, text| No {
            surface,
            status,
            text,
        };
        let (payment, credentials) = self.admit(now, surface, headers)?;
        if session.is_some_and(|session| session != credentials.manifest_id) {
            return Err(no(
                403,
                "mismatched session and payment manifest".to_owned(),
            ));
        }
        let payer = payment.sender;
        let token = credentials
            .auth_token
            .ok_or_else(|| no(403, "missing auth token".to_owned()))?;
        // Who names none asks for none: what all models cost is told in handshakes only.
        let wanted = credentials.capabilities.unwrap_or_default();
        // The quote comes first: if there is none for this payer, nothing is processed.
        let info = self
            .info(now, payer, Some(&wanted), token)
            .map_err(|text| no(500, text))?;
        if self.till.is_none() {
            let result = net::PaymentResult { info: Some(info) };
            return Ok(Some(vec![wire::protobuf_reply(&result)]));
        }
        let then = Then::Payment(Box::new(info));
        self.await_receipt(now, id, payment, credentials.manifest_id, then);
        Ok(None)
    }

    /// A fresh quote under the price that a session's first payment fixed (payments spec 11.4).
    fn refresh_asked(&mut self, now: Time, body: &[u8]) -> Result<Vec<Out>, No> {
        let no = |status, text: &str| No {
            surface: Surface::RefreshPayment,
            status,
            text: text.to_owned(),
        };
        let bad = |why: BadRefresh| no(why.status(), &why.to_string());
        let RefreshRequest {
            sender,
            manifest_id,
        } = RefreshRequest::from_json(body).map_err(bad)?;
        let price = self
            .till
            .as_ref()
            .and_then(|till| till.get().session_price(&account(sender, &manifest_id)))
            .ok_or_else(|| bad(BadRefresh::NoPrice))?;
        let info = self
            .bare_info(now, sender, price, &manifest_id)
            .map_err(|text| no(500, &text))?;
        let service = self.config.service.origin();
        Ok(vec![wire::json_reply(
            200,
            &json!({
                "payment_params": wire::base64(&info.encode_to_vec()),
                "orchestrator": service,
                "manifest_id": manifest_id,
                "payment_url": format!("{service}/payment"),
            }),
        )])
    }
}
