//! Messages of a trickle server's channel of changes (trickle spec 5.10).

use alloc::string::String;

use super::json::push_go_string;

/// The message that the channel of that name was added or removed; `what` is one of these two words.
pub(crate) fn channel_change(what: &str, name: &str) -> String {
    let mut message = String::from("{\"");
    message.push_str(what);
    message.push_str("\":[");
    push_go_string(&mut message, name);
    message.push_str("]}");
    message
}
