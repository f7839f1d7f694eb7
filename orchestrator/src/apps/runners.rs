//! Requests of runners: signs of life, and what they do with the sessions that they have (client-1.0 2.8).

use livepeer_core::http::{Out, Response, Url};
use livepeer_core::money::Amount;
use livepeer_core::payment::Unit;
use livepeer_core::payment::price::runner_price;
use livepeer_core::sign::keccak;
use livepeer_core::trickle::ContentType;
use livepeer_core::wire::app::registration::{
    ChannelInfo, HEARTBEAT_INTERVAL, HEARTBEAT_TTL, Heartbeat, MAX_CHANNELS, Registered,
    SessionNews, StatedPrice, channels_answer,
};
use livepeer_core::wire::signer_state::rfc3339;
use livepeer_core::{Address, Time};
use serde_json::{Value, json};
use std::time::Duration;

use super::names::{base32, random};
use super::runner::{Registration, Runner};
use super::{App, AppPrice, MAX_RUNNERS, no};
use crate::event::Event;
use crate::paid::No;
use crate::workers::Worker;
use crate::{Orchestrator, TRICKLE, wire};

/// How often a runner hears that its channel is open.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// At most this many addresses that nobody guesses lead into one session.
const MAX_PROXIES: usize = 25;

/// At most this many channels has a session.
const MAX_OF_SESSION: usize = 4 * MAX_CHANNELS;

/// The media type of a channel of which none is said.
const BYTES: &str = "application/octet-stream";

impl Orchestrator {
    /// A runner says that it lives. The first time it is registered.
    pub(super) fn heartbeat(&mut self, now: Time, secret: &str, body: &[u8]) -> Result<Out, No> {
        let mut beat = Heartbeat::from_json(body).map_err(|err| no(400, err.to_string()))?;
        if beat.runner_id.is_empty() {
            beat.runner_id = format!("runner_{}", random(&mut self.rng, 5));
        }
        let name = beat.runner_id.clone();
        self.apps.beats = self.apps.beats.wrapping_add(1);
        let beats = self.apps.beats;
        let known = self.apps.runners.get(&name);
        let forgets = |every: std::num::NonZeroU32| beats.is_multiple_of(every.get());
        if known.is_some() && self.config.quirks.forget_every.is_some_and(forgets) {
            return Err(no(404, "runner not found"));
        }
        let mut first = None;
        match known.map(|runner| (&runner.registered, runner.is_gone(now))) {
            Some((_, true)) => return Err(no(404, "runner not found")),
            Some((None, _)) => return Err(no(401, "invalid heartbeat authorization")),
            Some((Some(registered), _)) if registered.secret != secret => {
                return Err(no(401, "invalid heartbeat authorization"));
            }
            Some(_) => {}
            None => {
                if self.config.register_secret.as_deref() != Some(secret) {
                    return Err(no(401, "invalid registration authorization"));
                }
                first = Some(self.register(now, &name, &beat)?);
            }
        }
        let usd = self.config.wei_per_usd;
        let Some(runner) = self.apps.runners.get_mut(&name) else {
            return Err(no(404, "runner not found"));
        };
        let (app, unpriced) = app_of(&beat, usd);
        (runner.app, runner.unpriced) = (app, unpriced);
        runner.ready = matches!(beat.status.as_str(), "" | "ready");
        if let Some(registered) = &mut runner.registered {
            registered.last_beat = now;
        }
        let (secret, news) = first.unzip();
        let answer = Registered {
            runner_id: name,
            orchestrator: Some(self.config.service.clone()),
            interval: HEARTBEAT_INTERVAL,
            ttl: HEARTBEAT_TTL,
            secret,
            news,
            sessions: runner.sessions.keys().cloned().collect(),
        };
        Ok(wire::bytes_reply(200, wire::JSON, answer.to_json()))
    }

    /// Makes a runner known: the secret for its signs of life, and the channel that tells it of its sessions.
    fn register(
        &mut self,
        now: Time,
        name: &str,
        beat: &Heartbeat,
    ) -> Result<(String, ChannelInfo), No> {
        if self.apps.runners.len() >= MAX_RUNNERS {
            return Err(no(503, "there are too many runners"));
        }
        let seed = self.rng.bytes32();
        let secret = base32(&keccak(&[&seed, b"heartbeat"]));
        let channel_name = format!("{name}-{}-o2r", random(&mut self.rng, 10));
        let news = ChannelInfo {
            name: "o2r".to_owned(),
            url: self.channel_url(&channel_name),
            channel_name,
            internal_url: None,
            mime_type: wire::JSON.to_owned(),
        };
        self.open_channel(now, &news)?;
        let (app, _) = app_of(beat, self.config.wei_per_usd);
        let mut runner = Runner::new(app, seed);
        runner.registered = Some(Registration {
            secret: secret.clone(),
            last_beat: now,
            news: news.clone(),
            next_keep: now + KEEP_EVERY,
        });
        self.apps.runners.insert(name.to_owned(), runner);
        self.out.event(Event::Registered(name.to_owned()));
        Ok((secret, news))
    }

    pub(super) fn unregister(&mut self, now: Time, name: &str, secret: &str) -> Result<Out, No> {
        let runner = self.apps.live(now, name)?;
        match &runner.registered {
            Some(registered) if registered.secret == secret => self.remove_runner(now, name),
            _ => return Err(no(401, "invalid authorization")),
        }
        Ok(Out::Reply(Response::new(204)))
    }

    fn remove_runner(&mut self, now: Time, name: &str) {
        let Some(runner) = self.apps.runners.get(name) else {
            return;
        };
        let sessions: Vec<String> = runner.sessions.keys().cloned().collect();
        for session in sessions {
            self.release(now, name, &session);
        }
        if let Some(runner) = self.apps.runners.remove(name)
            && let Some(registered) = runner.registered
        {
            self.server
                .delete_channel(now, &registered.news.channel_name);
        }
    }

    /// Forgets a registered runner that went silent, and tells one that is there that its channel is open.
    pub(super) fn look_after(&mut self, now: Time, name: &str) {
        let Some(runner) = self.apps.runners.get_mut(name) else {
            return;
        };
        let Some(registered) = &mut runner.registered else {
            return;
        };
        if registered.last_beat + HEARTBEAT_TTL + super::SWEPT_EVERY <= now {
            return self.remove_runner(now, name);
        }
        registered.next_keep = now + KEEP_EVERY;
        let channel = registered.news.channel_name.clone();
        // A channel that its runner deleted stays so.
        let _ = self
            .server
            .publish(now, &channel, SessionNews::Nothing.to_json(""));
    }

    /// Tells a registered runner of a session.
    pub(super) fn tell_runner(&mut self, now: Time, name: &str, session: &str, reserved: bool) {
        let runner = self.apps.runners.get(name);
        let Some(registered) = runner.and_then(|runner| runner.registered.as_ref()) else {
            return;
        };
        let news = match reserved {
            true => SessionNews::Reserved(session.to_owned()),
            false => SessionNews::Released(session.to_owned()),
        };
        let channel = &registered.news.channel_name;
        let _ = self
            .server
            .publish(now, channel, news.to_json(&rfc3339(now)));
    }

    // ---- sessions --------------------------------------------------------------------------------------------

    pub(super) fn check_token(
        &self,
        now: Time,
        runner: &str,
        session: &str,
        token: &str,
    ) -> Result<(), No> {
        let known = self.apps.live(now, runner)?;
        if !known.sessions.contains_key(session) {
            return Err(no(404, "runner session not found"));
        }
        if known.token(session) != token {
            return Err(no(401, "invalid authorization"));
        }
        Ok(())
    }

    pub(super) fn make_channels(
        &mut self,
        now: Time,
        runner: &str,
        session: &str,
        body: &[u8],
    ) -> Result<Out, No> {
        let mut made = Vec::new();
        for asked in channels_of(body)? {
            let name = asked["name"].as_str().unwrap_or("");
            let mime_type = asked["mime_type"].as_str().unwrap_or("");
            made.push(self.make_channel(now, runner, session, name, mime_type)?);
        }
        Ok(wire::bytes_reply(200, wire::JSON, channels_answer(&made)))
    }

    /// Makes a channel of a session, or finds the one of that name.
    pub(super) fn make_channel(
        &mut self,
        now: Time,
        runner: &str,
        session: &str,
        name: &str,
        mime_type: &str,
    ) -> Result<ChannelInfo, No> {
        let name = channel_name(name)?;
        let channel_name = format!("{session}-{name}");
        let url = self.channel_url(&channel_name);
        let known = self.apps.runners.get(runner);
        let Some(rented) = known.and_then(|runner| runner.sessions.get(session)) else {
            return Err(no(404, "runner session not found"));
        };
        if let Some(channel) = rented.channels.get(&name) {
            return Ok(channel.clone());
        }
        if rented.channels.len() >= MAX_OF_SESSION {
            return Err(no(503, "the session has too many channels"));
        }
        let mime_type = match mime_type.trim() {
            "" => BYTES,
            other => other,
        };
        let channel = ChannelInfo {
            name: name.clone(),
            channel_name,
            internal_url: Some(url.clone()),
            url,
            mime_type: mime_type.to_owned(),
        };
        self.open_channel(now, &channel)?;
        if let Some(rented) = self.apps.rented_mut(runner, session) {
            rented.channels.insert(name, channel.clone());
        }
        Ok(channel)
    }

    fn open_channel(&mut self, now: Time, channel: &ChannelInfo) -> Result<(), No> {
        let content = ContentType::new(&channel.mime_type);
        let opened = self
            .server
            .create_channel(now, &channel.channel_name, content);
        opened.map(|_| ()).map_err(|err| no(500, err.to_string()))
    }

    pub(super) fn remove_channels(
        &mut self,
        now: Time,
        runner: &str,
        session: &str,
        body: &[u8],
    ) -> Result<Out, No> {
        let asked = channels_of(body)?;
        for name in &asked {
            let name = channel_name(name.as_str().unwrap_or(""))?;
            let rented = self.apps.rented_mut(runner, session);
            let Some(channel) = rented.and_then(|rented| rented.channels.remove(&name)) else {
                return Err(no(404, "trickle channel not found"));
            };
            self.server.delete_channel(now, &channel.channel_name);
        }
        Ok(wire::json_reply(200, &json!({ "deleted": asked })))
    }

    pub(super) fn make_proxy(
        &mut self,
        runner: &str,
        session: &str,
        body: &[u8],
    ) -> Result<Out, No> {
        let asked: Value = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(body).map_err(|err| no(400, err.to_string()))?,
        };
        let target = match asked["target_url"].as_str().map_or("", str::trim) {
            "" => None,
            text => Some(self.proxy_target(runner, text)?),
        };
        let Some(proxy) = self.add_proxy(runner, session, target) else {
            return Err(no(503, "the session has too many proxies"));
        };
        let url = self.config.service.with_path(&format!("/run/{proxy}"));
        let answer = json!({ "proxy_id": proxy, "url": url.to_string() });
        Ok(wire::json_reply(200, &answer))
    }

    /// The program that a proxy may lead to: one on the host of its runner.
    fn proxy_target(&self, runner: &str, text: &str) -> Result<Url, No> {
        let url = Url::parse(text).map_err(|_| no(400, "target_url must be an absolute URL"))?;
        if text.contains('#') {
            return Err(no(400, "target_url must not have a fragment"));
        }
        let worker = self
            .apps
            .runners
            .get(runner)
            .map(|runner| &runner.app.worker);
        match worker {
            Some(Worker::At(own)) if own.host() == url.host() => Ok(url),
            _ => {
                let text = "target_url hostname must match registered runner_url hostname";
                Err(no(400, text))
            }
        }
    }

    /// Makes an address that nobody guesses. Without a target it leads to the runner, and the first one is that of the
    /// session's app.
    pub(super) fn add_proxy(
        &mut self,
        runner: &str,
        session: &str,
        target: Option<Url>,
    ) -> Option<String> {
        let proxy = random(&mut self.rng, 16);
        let rented = self.apps.rented_mut(runner, session)?;
        if rented.proxies.len() >= MAX_PROXIES {
            return None;
        }
        if rented.proxies.is_empty() && target.is_none() {
            rented.public = Some(proxy.clone());
        }
        rented.proxies.insert(proxy.clone(), target);
        let to = (runner.to_owned(), session.to_owned());
        self.apps.proxies.insert(proxy.clone(), to);
        Some(proxy)
    }

    fn channel_url(&self, name: &str) -> Url {
        self.config.service.with_path(&format!("{TRICKLE}{name}"))
    }

    pub(super) fn tell_bill(&mut self, to: &str, payer: Address, session: &str, fee: Amount) {
        self.figures.billed += &fee;
        self.out.event(Event::Billed {
            to: to.to_owned(),
            payer,
            balance: self.balance(payer, session).cloned(),
            fee,
        });
    }
}

/// The names of channels, or what is to be made of them, in the body of a request.
fn channels_of(body: &[u8]) -> Result<Vec<Value>, No> {
    let asked: Value = serde_json::from_slice(body).map_err(|err| no(400, err.to_string()))?;
    let channels = asked["channels"].as_array().cloned().unwrap_or_default();
    if channels.is_empty() {
        return Err(no(400, "channels is required"));
    }
    if channels.len() > MAX_CHANNELS {
        let text = format!("channels cannot contain more than {MAX_CHANNELS} entries");
        return Err(no(400, text));
    }
    Ok(channels)
}

/// The name of a channel as it is kept.
fn channel_name(asked: &str) -> Result<String, No> {
    let name = asked.trim().replace('/', "-");
    if name.is_empty() {
        return Err(no(400, "trickle channel name is required"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if !name.bytes().all(plain) {
        let text = "trickle channel name may only contain alphanumerics, underscores, or hyphens";
        return Err(no(400, text));
    }
    Ok(name)
}

/// The app that a sign of life tells of, and why it has no price, although it states one.
fn app_of(beat: &Heartbeat, wei_per_usd: Option<u64>) -> (App, Option<String>) {
    let url = Url::parse(&beat.runner_url).expect("a sign of life was checked");
    let (price, unpriced) = match priced(&beat.price, wei_per_usd) {
        Ok(price) => (price, None),
        Err(why) => (None, Some(why)),
    };
    let app = App {
        capacity: beat.capacity,
        price,
        proxy: beat.proxy,
        version: beat.version.clone(),
        metadata: Some(beat.metadata.clone()).filter(|words| !words.is_empty()),
        gpu: beat.gpu.clone(),
        ..App::new(beat.app.clone(), beat.mode, Worker::At(url))
    };
    (app, unpriced)
}

/// The price in wei that a runner states, whole and rounded down as at the reference. Nothing is free.
fn priced(stated: &StatedPrice, wei_per_usd: Option<u64>) -> Result<Option<AppPrice>, String> {
    /// The parts of a unit of money that are told apart.
    const PARTS: i128 = 1_000_000_000_000;
    let parts = decimal(&stated.price, 12).ok_or("the price is not a number")?;
    // A price that is too small is not nothing.
    let mantissa = stated.price.split(['e', 'E']).next().unwrap_or("");
    if !mantissa.contains(|digit| ('1'..='9').contains(&digit)) {
        return Ok(None);
    }
    let wei_per = match stated.currency.as_str() {
        "wei" => 1,
        "usd" | "" => i128::from(wei_per_usd.ok_or("no price of a dollar is known")?),
        _ => return Err(format!("unknown currency {:?}", stated.currency)),
    };
    // Of the others the price is for one unit, as for one use.
    let (unit, divided_as) = match stated.unit.as_str() {
        "hour" | "" => (Unit::Seconds, Unit::Seconds),
        "720p" => (Unit::PixelSeconds, Unit::PixelSeconds),
        other => match Unit::from_advertised(other) {
            Some(unit) => (unit, Unit::Fixed),
            None => return Err(format!("unknown unit {other:?}")),
        },
    };
    let wei = parts
        .checked_mul(wei_per)
        .and_then(|wei| Amount::ratio(wei, PARTS));
    let price = wei.and_then(|wei| runner_price(&wei, divided_as));
    let wei = price
        .ok_or("converted live runner price must be at least one wei")?
        .wei();
    Ok(Some(AppPrice { wei, unit }))
}

/// A decimal number that is not negative, in parts of ten to the power of `places`; what is smaller is cut off.
fn decimal(text: &str, places: u32) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{part}");
    if digits.len() > 30 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: i128 = digits.parse().ok()?;
    let shift =
        i32::try_from(places).ok()? + exponent.clamp(-60, 60) - i32::try_from(part.len()).ok()?;
    let power = 10_i128.checked_pow(shift.unsigned_abs());
    match shift {
        0.. => value.checked_mul(power?),
        _ => Some(power.map_or(0, |power| value / power)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stated_prices_become_whole_wei() {
        let of = |price: &str, currency: &str, unit: &str| {
            let stated = StatedPrice {
                price: price.into(),
                currency: currency.into(),
                unit: unit.into(),
            };
            priced(&stated, Some(360_000_000_000_000))
        };
        let wei = |wei, unit| Ok(Some(AppPrice { wei, unit }));
        assert_eq!(of("1", "usd", "hour"), wei(100_000_000_000, Unit::Seconds));
        assert_eq!(
            of("0.5", "usd", "fixed"),
            wei(180_000_000_000_000, Unit::Fixed)
        );
        assert_eq!(of("5e-1", "", ""), wei(50_000_000_000, Unit::Seconds));
        assert_eq!(of("12345", "wei", "seconds"), wei(12_345, Unit::Seconds));
        assert_eq!(of("1", "usd", "720p"), wei(3_616, Unit::PixelSeconds));
        assert_eq!(of("0", "usd", "hour"), Ok(None));
        assert_eq!(of("0.0", "eur", "hour"), Ok(None));
        for (price, currency, unit) in [
            ("1", "eur", "hour"),
            ("1", "usd", "week"),
            ("1e-30", "usd", "hour"),
        ] {
            assert!(
                of(price, currency, unit).is_err(),
                "{price} {currency} {unit}"
            );
        }
        assert!(of("-1", "usd", "hour").is_err());
    }
}
