//! What an event that is made inside of a handler inherits.

use super::{Event, EventBuilder, extensions};

scoped_tls::scoped_thread_local!(static HANDLED: Event);

/// Does something on behalf of an event that is being handled.
pub(crate) fn on_behalf_of<R>(event: Option<&Event>, work: impl FnOnce() -> R) -> R {
    match event {
        Some(event) => HANDLED.set(event, work),
        None => work(),
    }
}

/// Sets correlation and causation, where they are not set, by the event that is being handled at
/// the moment: it is the cause, and what correlates it correlates both. An event without a
/// correlation starts one under its id.
pub(super) fn inherit(builder: EventBuilder) -> EventBuilder {
    if !HANDLED.is_set() {
        return builder;
    }
    HANDLED.with(|cause| {
        let builder = if builder.has_extension(extensions::CORRELATION_ID) {
            builder
        } else {
            builder.correlation(cause.correlation_id().unwrap_or(cause.id()))
        };
        if builder.has_extension(extensions::CAUSATION_ID) {
            builder
        } else {
            builder.causation(cause.id())
        }
    })
}
