//! Answers about apps that were recorded at a running orchestrator of the reference, compared with ours.

use std::collections::BTreeMap;

use super::*;
use crate::vectors::cases;

/// Whether a text is of a pattern: characters of a class as often as said, and anything.
fn fits(pattern: &str, text: &str) -> bool {
    if pattern.is_empty() {
        return text.is_empty();
    }
    if let Some(rest) = pattern.strip_prefix(".*") {
        return (0..=text.len()).any(|n| text.get(n..).is_some_and(|text| fits(rest, text)));
    }
    if let Some(class) = pattern.strip_prefix('[') {
        let (class, rest) = class.split_once("]{").expect("a class with a count");
        let (count, rest) = rest.split_once('}').expect("a count");
        let count: usize = count.parse().expect("a number");
        let of = |c: char| match class {
            "a-z2-7" => c.is_ascii_lowercase() || ('2'..='7').contains(&c),
            "0-9a-f" => c.is_ascii_digit() || ('a'..='f').contains(&c),
            other => panic!("{other}"),
        };
        let head = text.get(..count);
        return head.is_some_and(|head| head.chars().all(of)) && fits(rest, &text[count..]);
    }
    let first = pattern.chars().next();
    text.chars().next() == first && fits(&pattern[1..], &text[1..])
}

fn same(told: &Value, expected: &Value, id: &str) {
    match (told, expected) {
        (Value::String(told), Value::String(expected)) => match expected.strip_prefix("re:") {
            Some(pattern) => assert!(fits(pattern, told), "{id}: {told}"),
            None if expected.starts_with('<') => {}
            None => assert_eq!(told, expected, "{id}"),
        },
        (Value::Object(told), Value::Object(expected)) => {
            let names = |of: &serde_json::Map<_, _>| of.keys().cloned().collect::<Vec<String>>();
            assert_eq!(names(told), names(expected), "{id}");
            for (name, expected) in expected {
                same(&told[name], expected, id);
            }
        }
        (Value::Array(told), Value::Array(expected)) => {
            assert_eq!(told.len(), expected.len(), "{id}");
            for (told, expected) in told.iter().zip(expected) {
                same(told, expected, id);
            }
        }
        _ => assert_eq!(told, expected, "{id}"),
    }
}

/// A recorded situation, made again: names that chance chose stand in for those of the recording.
pub(super) struct Replay {
    pub(super) stage: Stage,
    pub(super) program: Node<Program>,
    pub(super) names: BTreeMap<String, String>,
    pub(super) token: String,
}

impl Replay {
    pub(super) fn new(setup: &Value) -> Self {
        let on = setup["onchain"] == true;
        let config = if on { on_chain() } else { off_chain() };
        let config = if setup["live_runners"] == false {
            config
        } else {
            open(config)
        };
        let mut stage = Stage::new(config);
        let program = Program::serve(&mut stage);
        let names = [("https://orch-a.example:8935".to_owned(), SERVICE.to_owned())].into();
        let token = String::new();
        let mut this = Self {
            stage,
            program,
            names,
            token,
        };
        if let Some(runner) = setup["runner"].as_object() {
            let mut fields = json!({ "app": "x/y", "runner_id": runner["route"] });
            for name in ["mode", "capacity", "runner_url", "proxy"] {
                if let Some(value) = runner.get(name) {
                    fields[name] = value.clone();
                }
            }
            match setup.get("price") {
                Some(Value::Null) => {
                    fields["price_info"] = json!({ "price": 1, "currency": "eur", "unit": "hour" });
                }
                Some(price) => fields["price_info"] = price.clone(),
                None => {}
            }
            this.register(&fields, setup);
            if let Some(status) = runner.get("status") {
                fields["status"] = status.clone();
                let secret = this.names["hs"].clone();
                assert_eq!(beat(&mut this.stage, &secret, &fields).status, Some(200));
            }
        }
        for (name, known) in setup["known"].as_object().into_iter().flatten() {
            let url = format!("http://{PROGRAM}");
            let fields = json!({ "app": "x/y", "runner_id": name, "mode": "persistent", "capacity": 4, "runner_url": url });
            this.register(&fields, known);
        }
        for name in setup["channels"].as_array().into_iter().flatten() {
            let session = this.names["5e551d00"].clone();
            let path = format!("/runner/r1/session/{session}/channels");
            let body =
                json!({ "channels": [{ "name": name, "mime_type": "video/MP2T" }] }).to_string();
            let token = this.token.clone();
            let fields = [(SESSION_TOKEN_HEADER, &*token)];
            let made = ask(&mut this.stage, Method::Post, &path, &fields, &body);
            assert_eq!(made.status, Some(200), "{}", made.text());
        }
        if let Some(ago) = setup["last_heartbeat_ms_ago"].as_u64() {
            this.stage.net.run_for(ms(ago));
        }
        if setup.get("app").is_some() {
            this.stage.net.link(PROGRAM).down = true;
        }
        this
    }

    fn register(&mut self, fields: &Value, setup: &Value) {
        let answer = beat(&mut self.stage, BOOT, fields);
        assert_eq!(answer.status, Some(200), "{}", answer.text());
        let secret = json_of(&answer)["heartbeat_secret"]
            .as_str()
            .expect("a secret")
            .to_owned();
        self.names.insert("hs".to_owned(), secret);
        let runner = fields["runner_id"].as_str().expect("a name");
        for name in setup["sessions"].as_array().into_iter().flatten() {
            let name = name.as_str().expect("text").to_owned();
            if fields["mode"] == "single-shot" {
                let url = service().with_path(&format!("/apps/{runner}/app/silent"));
                self.stage.send(Request::new(Method::Post, url));
                self.stage.net.run_for(ms(50));
                continue;
            }
            let session = if setup["onchain"] == true {
                rent(&mut self.stage, runner, 2)
            } else {
                let path = format!("/apps/{runner}/session");
                let answer = post(&mut self.stage, &path);
                Session::from_json(&answer.body, &service().with_path(&path)).expect("a session")
            };
            if let Some(proxy) = session.app.path().strip_prefix("/run/") {
                self.names
                    .insert("jf4vpa3nlmkpck2fiqvenbir4u".to_owned(), proxy.to_owned());
            }
            // The secret of a session is in what its app is asked.
            let path = format!("/apps/{runner}/session/{}/app/", session.id);
            assert_eq!(post(&mut self.stage, &path).status, Some(200));
            let seen = self.stage.net.get(self.program).last();
            let token = seen.request.headers.get(SESSION_TOKEN_HEADER);
            self.token = token.expect("a secret").to_owned();
            self.names.insert(name, session.id);
        }
    }

    /// A text of the recording, with our names.
    fn ours(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (theirs, ours) in self.names.iter().filter(|(theirs, _)| *theirs != "hs") {
            text = text.replace(theirs, ours);
        }
        text
    }

    fn ask(&mut self, id: &str, asked: &Value) -> Answer {
        let mut fields = Vec::new();
        let mut with = None;
        if asked["headers"]["livepeer-payment"] == "<set>" {
            // Sessions that are over, or were never there, are paid for under another's demand.
            let mut challenge = demand(&mut self.stage, "/apps/r1/session");
            let known = self.names.get("5e551d00").cloned();
            let manifest = known.unwrap_or_else(|| challenge.manifest_id.clone());
            self.names.insert("5e551d00".to_owned(), manifest.clone());
            if id == "fixed-price-off" {
                challenge.info.price = livepeer_core::money::Price::new(499, 1);
            }
            let last = if id == "fixed-short" { 0 } else { 2 };
            let named = if id.contains("mismatch") {
                "00000000"
            } else {
                &manifest
            };
            if let Some(token) = &mut challenge.info.auth_token
                && id == "paid-twice"
            {
                *token = self.token_of(&manifest);
            }
            let mut set = self.stage.pay(&challenge.info, named, 1..=last);
            if id == "paid-tickets-bad" {
                let stolen = self.stage.pay(&challenge.info, named, 1..=2).payment;
                self.stage.net.run_for(ms(1));
                set.payment = stolen;
                // The same tickets again, to another session: their nonces are used.
                let again = demand(&mut self.stage, "/apps/r1/session");
                set.segment = self
                    .stage
                    .credentials(&again.info, &again.manifest_id)
                    .encode();
                let first = paid(&mut self.stage, "/apps/r1/session", &set, "");
                assert_eq!(first.status, Some(200), "{}", first.text());
                let stop = format!("/apps/r1/session/{}/stop", again.manifest_id);
                assert_eq!(post(&mut self.stage, &stop).status, Some(204));
                set.segment = self.stage.credentials(&challenge.info, &manifest).encode();
            }
            with = Some(set);
        }
        for (name, value) in asked["headers"].as_object().into_iter().flatten() {
            let value = match (&**name, value.as_str().expect("text"), &with) {
                ("livepeer-payment", "<set>", Some(with)) => with.payment.clone(),
                ("livepeer-segment", _, Some(with)) => with.segment.clone(),
                (_, "<token of the session>", _) => self.token.clone(),
                (_, "hs", _) => self.names["hs"].clone(),
                (_, other, _) => self.ours(other),
            };
            fields.push((name.clone(), value));
        }
        let mut body = match (asked.get("body_json"), asked["body_text"].as_str()) {
            (Some(json), _) => self.ours(&json.to_string()),
            (None, text) => text.unwrap_or_default().to_owned(),
        };
        body = body.replace("<1025 bytes>", &"x".repeat(1025));
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let method = Method::from_name(asked["method"].as_str().expect("text")).expect("a method");
        let path = self.ours(asked["path"].as_str().expect("text"));
        ask(&mut self.stage, method, &path, &fields, &body)
    }

    /// The leave to use a session that runs.
    fn token_of(&mut self, session: &str) -> livepeer_core::wire::AuthToken {
        let sender = self.stage.payer.address().checksummed();
        let body = json!({ "sender": sender, "manifest_id": session }).to_string();
        let answer = ask(
            &mut self.stage,
            Method::Post,
            "/refresh-payment",
            &[],
            &body,
        );
        let fresh = Challenge::from_json(&answer.body)
            .expect("a demand")
            .expect("a demand");
        fresh.info.auth_token.expect("a token")
    }

    fn check(&mut self, id: &str, answer: &Answer, out: &Value) {
        let out: Value = serde_json::from_str(&self.ours(&out.to_string())).expect("JSON");
        let reply = &out["reply"];
        let status = reply["status"].as_u64().unwrap_or(307);
        assert_eq!(
            answer.status.map(u64::from),
            Some(status),
            "{id}: {}",
            answer.text()
        );
        for (name, value) in reply["headers"].as_object().into_iter().flatten() {
            assert_eq!(answer.headers.get(name), value.as_str(), "{id}: {name}");
        }
        if let Some(expected) = reply.get("body_json") {
            same(&json_of(answer), expected, id);
        }
        for (name, expected) in reply["body_json_subset"].as_object().into_iter().flatten() {
            same(&json_of(answer)[name], expected, id);
        }
        for name in reply["body_json_keys"].as_array().into_iter().flatten() {
            assert!(
                json_of(answer).get(name.as_str().expect("text")).is_some(),
                "{id}"
            );
        }
        if let Some(expected) = reply["body_text"].as_str() {
            let expected = expected.trim_end();
            match expected.strip_prefix("re:") {
                Some(pattern) => assert!(
                    fits(pattern.trim_end(), &answer.text()),
                    "{id}: {}",
                    answer.text()
                ),
                None => assert_eq!(answer.text(), expected, "{id}"),
            }
        }
        if reply["from"] == "app" {
            assert_eq!(answer.text(), "the app's words", "{id}");
        }
        let after = &out["after"];
        let orch = self.stage.net.get(self.stage.orch);
        if let Some(reserved) = after["reserved"].as_u64() {
            let taken = if id == "challenge-full" { 1 } else { 0 } + reserved;
            assert_eq!(orch.rented().count() as u64, taken, "{id}");
        }
        for session in after["sessions"].as_array().into_iter().flatten() {
            let session = session.as_str().expect("text");
            assert!(orch.rented().any(|(_, rented)| rented == session), "{id}");
        }
        let at_app = &after["request_at_app"];
        if at_app.is_null() {
            return;
        }
        let seen = self.stage.net.get(self.program).last();
        if let Some(method) = at_app["method"].as_str() {
            assert_eq!(seen.request.method.as_str(), method, "{id}");
        }
        if let Some(target) = at_app["target"].as_str() {
            assert_eq!(seen.request.url.path(), target, "{id}");
        }
        for (name, value) in at_app["headers"].as_object().into_iter().flatten() {
            let told = seen.request.headers.get(name).unwrap_or("");
            same(&told.into(), value, id);
        }
        for name in at_app["absent"].as_array().into_iter().flatten() {
            assert_eq!(
                seen.request.headers.get(name.as_str().expect("text")),
                None,
                "{id}"
            );
        }
    }
}

#[test]
fn every_request_about_apps_is_answered_as_the_reference_does() {
    let mut seen = 0;
    for case in cases("21-runner-orchestrator") {
        let id = case["id"].as_str().expect("text");
        // Fresh ticket parameters, and money that runs out, have tests of their own.
        if id.starts_with("refresh-") || id == "shot-dry" {
            continue;
        }
        let mut replay = Replay::new(&case["in"]["setup"]);
        let answer = replay.ask(id, &case["in"]["request"]);
        replay.check(id, &answer, &case["out"]);
        seen += 1;
    }
    assert_eq!(seen, 65);
}
