//! The app that is built in and holds a live session: what comes into its channel goes out of another.

use livepeer_core::Time;
use livepeer_core::http::Method;
use serde_json::{Value, json};

use crate::Orchestrator;
use crate::workers::{Made, Order, Worker};

/// The media type of the channels, unless whoever starts the session says otherwise.
const VIDEO: &str = "video/MP2T";

impl Orchestrator {
    /// The answer of the app, if it is this one that is asked to start: the addresses of its channels.
    pub(super) fn live_app(
        &mut self,
        now: Time,
        worker: &Worker,
        runner: &str,
        session: &str,
        order: &Order,
    ) -> Option<Made> {
        let Worker::Live(tempo) = worker else {
            return None;
        };
        if order.method != Method::Post || order.path.split('?').next() != Some("/start") {
            return None;
        }
        let told: Value = serde_json::from_slice(&order.body).unwrap_or_default();
        let mime_type = told["mime_type"].as_str().unwrap_or(VIDEO);
        let mut urls = Vec::new();
        for name in ["in", "out"] {
            match self.make_channel(now, runner, session, name, mime_type) {
                Ok(channel) => urls.push(channel),
                Err(no) => {
                    return Some(Made::json(no.status, &json!({ "error": no.text }), *tempo));
                }
            }
        }
        let [input, output] = &urls[..] else {
            return None;
        };
        let copied = self
            .apps
            .rented_mut(runner, session)
            .is_some_and(|r| !r.copies.is_empty());
        let to = Some(output.channel_name.clone());
        if !copied
            && let Some(reader) = self.begin_copy(now, &input.channel_name, to, None)
            && let Some(rented) = self.apps.rented_mut(runner, session)
        {
            rented.copies.push(reader);
        }
        let answer = json!({
            "publish_url": input.url.to_string(),
            "subscribe_url": output.url.to_string(),
            "mime_type": mime_type,
        });
        Some(Made::json(200, &answer, *tempo))
    }
}
