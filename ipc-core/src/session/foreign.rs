//! What other clients wrote: the daemon passes it on unread, so nothing in it may end the conversation.

use crate::error::{Error, ErrorCode};
use crate::wire::Frame;
use crate::wire::message::{Envelope, ErrorBody};

/// The trace context beside a payload. An envelope that is broken counts as empty.
pub(super) fn traceparent(frame: &Frame<'_>) -> Option<Box<str>> {
    if frame.envelope.is_empty() {
        return None;
    }
    let envelope: Envelope = frame.decode().ok()?;
    envelope.traceparent.map(|text| text.0.into_boxed_str())
}

/// The error that a service answered with. One that is broken is the service's own fault.
pub(super) fn error(frame: &Frame<'_>) -> Error {
    match frame.decode::<ErrorBody>() {
        Ok(body) => Error::from(body),
        Err(error) => {
            Error::new(ErrorCode::Application, format!("the service answered with a broken error: {error}"))
        }
    }
}
