//! The part of the configuration that says where the numbers are shown.

use std::net::SocketAddr;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

/// Where the numbers are shown beside the bus.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metrics {
    /// An address of this machine alone for HTTP; nowhere if there is none.
    #[serde(deserialize_with = "loopback", skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<SocketAddr>,
}

fn loopback<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let address = SocketAddr::deserialize(deserializer)?;
    if address.ip().is_loopback() {
        Ok(Some(address))
    } else {
        Err(D::Error::custom(format!(
            "{address} can be reached from other machines: write 127.0.0.1 or [::1]"
        )))
    }
}
