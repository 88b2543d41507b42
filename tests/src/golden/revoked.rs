//! Frames of what is taken away.

use ipc_core::error::ErrorCode;
use ipc_core::wire::Kind;
use ipc_core::wire::message::{Revoked, RevokedWhat};

use super::{Vector, handle, header, vector};

pub(super) fn told() -> Vec<Vector> {
    let revoked = |what| Revoked {
        what,
        code: ErrorCode::PermissionDenied.number(),
        message: "no rule allows it".into(),
    };
    vec![
        vector(
            "revoked_name",
            "revoked, daemon to client: the name of registration 2",
            header(Kind::REVOKED, 0).with_handle(handle(2, 0)),
            revoked(RevokedWhat::Name),
            b"",
        ),
        vector(
            "revoked_subscription",
            "revoked, daemon to client: subscription 14",
            header(Kind::REVOKED, 14),
            revoked(RevokedWhat::Subscription),
            b"",
        ),
        vector(
            "revoked_observation",
            "revoked, daemon to client: observation 22",
            header(Kind::REVOKED, 22),
            revoked(RevokedWhat::Observation),
            b"",
        ),
        vector(
            "revoked_key_watch",
            "revoked, daemon to client: watch 34 over keys",
            header(Kind::REVOKED, 34),
            revoked(RevokedWhat::KeyWatch),
            b"",
        ),
    ]
}
