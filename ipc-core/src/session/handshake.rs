//! The first exchange: hello and welcome.

use crate::error::{Error, ErrorCode};
use crate::id::{Epoch, PeerId};
use crate::limits::{PAYLOAD_MAX_CEILING_BYTES, PROGRAM_NAME_MAX_BYTES};
use crate::wire::codec::Text;
use crate::wire::message::{Hello, Welcome};
use crate::wire::{FEATURES, FrameLimits, VERSION_MAX, VERSION_MIN};

use super::event::DaemonInfo;

/// What we say first.
pub(super) fn hello(name: &str) -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        features: FEATURES,
        name: Text::clipped(name, PROGRAM_NAME_MAX_BYTES),
    }
}

/// What frames of the daemon may measure until it has said what it allows.
pub(super) const LIMITS_BEFORE_WELCOME: FrameLimits =
    FrameLimits { payload_max_bytes: PAYLOAD_MAX_CEILING_BYTES, frame_max_bytes: Some(65_536) };

/// Reads the daemon's choice.
///
/// # Errors
/// `unsupported_version` when it chose a version we did not offer, `protocol_violation` for impossible values.
pub(super) fn accept(welcome: Welcome) -> Result<DaemonInfo, Error> {
    if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
        let message = format!(
            "the daemon chose protocol version {}, this library speaks {VERSION_MIN} to {VERSION_MAX}",
            welcome.version
        );
        return Err(Error::new(ErrorCode::UnsupportedVersion, message)
            .with_hint("install a client and a daemon of the same release"));
    }
    if welcome.payload_max_bytes > PAYLOAD_MAX_CEILING_BYTES {
        let message = format!("the daemon allows payloads of {} bytes", welcome.payload_max_bytes);
        return Err(Error::new(ErrorCode::ProtocolViolation, message));
    }
    Ok(DaemonInfo {
        protocol: welcome.version,
        features: welcome.features & FEATURES,
        epoch: Epoch(welcome.epoch),
        peer: PeerId(welcome.peer),
        payload_max_bytes: welcome.payload_max_bytes,
        handles_max: welcome.handles_max,
        pending_calls_max: welcome.pending_calls_max,
        server: welcome.server.0,
    })
}

/// What frames of the daemon may measure after its welcome.
///
/// A service may have been allowed more than its callers, so only the protocol's ceiling binds the daemon.
pub(super) const LIMITS_AFTER_WELCOME: FrameLimits =
    FrameLimits { payload_max_bytes: PAYLOAD_MAX_CEILING_BYTES, frame_max_bytes: None };

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome() -> Welcome {
        Welcome {
            version: 1,
            features: 0xff,
            epoch: 7,
            peer: 8,
            payload_max_bytes: PAYLOAD_MAX_CEILING_BYTES,
            handles_max: 10,
            pending_calls_max: 11,
            server: "daemon".into(),
        }
    }

    #[test]
    fn features_that_were_not_offered_are_not_used() {
        assert_eq!(accept(welcome()).unwrap().features, FEATURES);
    }

    #[test]
    fn a_version_that_was_not_offered_is_refused() {
        for (version, fits) in [(VERSION_MIN - 1, false), (VERSION_MIN, true), (VERSION_MAX + 1, false)] {
            assert_eq!(accept(Welcome { version, ..welcome() }).is_ok(), fits, "{version}");
        }
    }

    #[test]
    fn impossible_limits_are_refused() {
        let payload_max_bytes = PAYLOAD_MAX_CEILING_BYTES + 1;
        let error = accept(Welcome { payload_max_bytes, ..welcome() }).unwrap_err();
        assert_eq!(error.code, ErrorCode::ProtocolViolation);
    }

    #[test]
    fn a_long_name_is_cut() {
        assert_eq!(hello(&"n".repeat(100)).name.0.len(), PROGRAM_NAME_MAX_BYTES);
    }
}
