//! Addresses of the bus protocol: without authentication it is spoken on loopback only.

use std::net::SocketAddr;

use toml::Spanned;

use super::Place;
use crate::failure::{Exit, Failure};

/// The address that the flag or the file has for `key`; the flag overrides the file.
///
/// # Errors
/// 78 when it is reachable from other machines.
pub(super) fn layer(
    key: &str,
    flag: Option<SocketAddr>,
    written: Option<Spanned<SocketAddr>>,
    place: &Place,
) -> Result<Option<SocketAddr>, Failure> {
    let (address, offset) = match (flag, written) {
        (Some(address), _) => (address, None),
        (None, Some(written)) => (*written.get_ref(), Some(written.span().start)),
        (None, None) => return Ok(None),
    };
    if address.ip().is_loopback() {
        return Ok(Some(address));
    }
    let message =
        format!("{key} is {address}, which other machines reach, and nobody has to prove who they are there");
    let failure = match offset {
        Some(offset) => place.wrong_at(offset, message),
        None => Failure::new(Exit::Configuration, format!("--{message}")),
    };
    Err(failure.with_hint(
        "bind it to 127.0.0.1 or [::1]; for other machines expose one method with --expose, or use a tunnel of ssh",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_taken() {
        for (address, is_taken) in [
            ("127.0.0.1:0", true),
            ("127.8.9.1:7100", true),
            ("[::1]:7100", true),
            ("0.0.0.0:7100", false),
            ("[::]:7100", false),
            ("192.0.2.1:7100", false),
            ("[::ffff:127.0.0.1]:7100", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            let taken = layer("tcp", Some(address), None, &Place::default());
            match taken {
                Ok(taken) => assert!(is_taken && taken == Some(address), "{address}"),
                Err(failure) => {
                    assert!(!is_taken, "{address}: {failure}");
                    assert_eq!(failure.exit, Exit::Configuration);
                    assert!(failure.message.starts_with("--tcp is") && failure.hint.is_some());
                }
            }
        }
        assert_eq!(layer("tcp", None, None, &Place::default()).unwrap(), None);
    }
}
