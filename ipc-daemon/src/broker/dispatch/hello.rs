//! The first exchange, and signs of life.

use ipc_core::limits::{PING_PAYLOAD_MAX_BYTES, PROGRAM_NAME_MAX_BYTES};
use ipc_core::wire::codec::Text;
use ipc_core::wire::message::{Hello, Welcome};
use ipc_core::wire::{FEATURES, Flags, Frame, Header, Kind, VERSION_MAX, VERSION_MIN, WireError};
use ipc_core::{Error, ErrorCode};

use super::Outcome;
use crate::broker::Broker;
use crate::broker::keys::PeerKey;
use crate::broker::peer::Phase;

impl Broker {
    pub(super) fn hello(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        if frame.header.kind != Kind::HELLO {
            return Err(WireError::UnexpectedKind(frame.header.kind.0));
        }
        if frame.header.flags != Flags::NONE {
            return Err(WireError::UnknownFlags(frame.header.flags.bits()));
        }
        if frame.header.payload_len != 0 {
            return Err(WireError::Envelope("this kind of frame has no payload"));
        }
        let hello: Hello = frame.decode()?;
        if hello.name.0.len() > PROGRAM_NAME_MAX_BYTES {
            return Err(WireError::Envelope("the client's name is longer than 64 bytes"));
        }
        if hello.version_min > VERSION_MAX || hello.version_max < VERSION_MIN {
            let message = format!(
                "this daemon speaks versions {VERSION_MIN} to {VERSION_MAX}, the client {} to {}",
                hello.version_min, hello.version_max
            );
            self.close(peer, &Error::new(ErrorCode::UnsupportedVersion, message));
            return Ok(());
        }
        self.end_greeting(peer);
        let Some(state) = self.peers.get_mut(peer) else { return Ok(()) };
        state.phase = Phase::Active;
        state.program = hello.name.0;
        state.features = hello.features & FEATURES;
        let welcome = Welcome {
            version: hello.version_max.min(VERSION_MAX),
            features: state.features,
            epoch: self.config.epoch.0,
            peer: state.who.id.0,
            payload_max_bytes: self.config.limits.payload_max_bytes,
            handles_max: self.config.limits.handles_per_connection_max,
            pending_calls_max: self.config.limits.pending_calls_per_connection_max,
            server: Text::clipped(&self.config.server, PROGRAM_NAME_MAX_BYTES),
        };
        let header = Header::new(Kind::WELCOME).with_correlation(frame.header.correlation);
        self.answer(peer, header, &welcome, &[]);
        Ok(())
    }

    pub(super) fn ping(&mut self, peer: PeerKey, frame: &Frame<'_>) -> Outcome {
        frame.decode::<()>()?;
        let payload = frame.body.as_slice();
        if payload.len() > PING_PAYLOAD_MAX_BYTES {
            let max = PING_PAYLOAD_MAX_BYTES as u64;
            let mut error = Error::quota("ping_payload_max_bytes", max);
            error.code = ErrorCode::PayloadTooLarge;
            self.refuse(peer, Kind::DONE, frame.header.correlation, &error);
            return Ok(());
        }
        let header = Header {
            payload_kind: frame.header.payload_kind,
            ..Header::new(Kind::PONG).with_correlation(frame.header.correlation)
        };
        self.answer(peer, header, &(), payload);
        Ok(())
    }
}
