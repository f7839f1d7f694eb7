//! Requests for paid work: their headers, and how they are refused.

use super::event::Surface;

/// The two headers of paid work; absent ones are empty.
#[derive(Clone, Default)]
pub(super) struct Headers {
    pub(super) payment: String,
    pub(super) segment: String,
}

/// A refusal, and where.
pub(super) struct No {
    pub(super) surface: Surface,
    pub(super) status: u16,
    pub(super) text: String,
}

impl No {
    pub(super) fn new(surface: Surface, status: u16, text: impl Into<String>) -> Self {
        Self {
            surface,
            status,
            text: text.into(),
        }
    }
}
