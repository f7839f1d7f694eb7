//! A language model that says back what it is told, word by word.

use livepeer_core::Time;
use serde_json::{Value, json};

/// An answer of the model, whole or in chunks.
#[derive(Clone, Debug)]
pub(super) struct Chat {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) created: Time,
    /// The tokens: words with the blanks that follow them.
    pub(super) tokens: Vec<String>,
    /// Whether there would have been more than was allowed.
    pub(super) cut: bool,
    /// How many tokens the prompt has.
    pub(super) prompt: usize,
}

/// The tokens of a text.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(char::is_whitespace)
}

impl Chat {
    /// The whole answer as one message.
    pub(super) fn whole(&self) -> Value {
        let message = json!({ "role": "assistant", "content": self.tokens.concat() });
        let choice = json!({ "index": 0, "finish_reason": self.finish(), "message": message });
        self.response(self.tokens.len(), json!([choice]))
    }

    /// The chunk of that number: one for each token, and a last one that says why there are no more.
    pub(super) fn chunk(&self, number: usize) -> Option<Value> {
        let mut choice = json!({ "index": 0 });
        let token = match self.tokens.get(number) {
            Some(token) => token,
            None if number == self.tokens.len() => {
                choice["finish_reason"] = self.finish().into();
                ""
            }
            None => return None,
        };
        choice["delta"] = json!({ "role": "assistant", "content": token });
        Some(self.response(self.tokens.len().min(number + 1), json!([choice])))
    }

    /// The chunk without choices, as the reference writes it for any it cannot make sense of.
    pub(super) fn without_choices() -> Value {
        json!({
            "choices": null,
            "created": 0,
            "id": "",
            "model": "",
            "usage": { "completion_tokens": 0, "prompt_tokens": 0, "total_tokens": 0 },
        })
    }

    const fn finish(&self) -> &'static str {
        if self.cut { "length" } else { "stop" }
    }

    fn response(&self, said: usize, choices: Value) -> Value {
        json!({
            "choices": choices,
            "created": self.created.as_secs(),
            "id": self.id,
            "model": self.model,
            "usage": {
                "completion_tokens": said,
                "prompt_tokens": self.prompt,
                "total_tokens": self.prompt + said,
            },
        })
    }
}
