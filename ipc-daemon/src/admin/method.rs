//! Which methods `ipc.daemon` has, and which of them take the right to `administer`.

/// A method of `ipc.daemon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Status,
    List,
    Describe,
    Sockets,
    BridgeList,
    BridgeExpose,
    BridgeForward,
    BridgeRemove,
    PolicyExplain,
    Quota,
    Metrics,
    Backup,
}

impl Method {
    /// All of them, in the order of the registration.
    pub(super) const ALL: [Method; 12] = [
        Method::Status,
        Method::List,
        Method::Describe,
        Method::Sockets,
        Method::BridgeList,
        Method::BridgeExpose,
        Method::BridgeForward,
        Method::BridgeRemove,
        Method::PolicyExplain,
        Method::Quota,
        Method::Metrics,
        Method::Backup,
    ];

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Method::Status => "status",
            Method::List => "list",
            Method::Describe => "describe",
            Method::Sockets => "sockets",
            Method::BridgeList => "bridge-list",
            Method::BridgeExpose => "bridge-expose",
            Method::BridgeForward => "bridge-forward",
            Method::BridgeRemove => "bridge-remove",
            Method::PolicyExplain => "policy-explain",
            Method::Quota => "quota",
            Method::Metrics => "metrics",
            Method::Backup => "backup",
        }
    }

    /// What it does, for people.
    pub(super) const fn description(self) -> &'static str {
        match self {
            Method::Status => "the daemon: version, addresses, counters, limits, usage; no payload",
            Method::List => {
                "what is on the bus; payload: services, peers, topics, locks, queues, leases or all"
            }
            Method::Describe => "one service with its methods and instances; payload: its name",
            Method::Sockets => "every socket of the daemon; no payload",
            Method::BridgeList => "the exposed ports and the forwards; no payload",
            Method::BridgeExpose => {
                "exposes a method at a port; payload: tcp|udp:ADDR:PORT=SERVICE/METHOD[,...]"
            }
            Method::BridgeForward => "makes a server a service; payload: SERVICE=tcp|udp:HOST:PORT[,...]",
            Method::BridgeRemove => "closes an exposed port or a forward; payload: its number",
            Method::PolicyExplain => "which rule decides; payload: WHO ACTION WHAT",
            Method::Metrics => "the numbers as a page for Prometheus; no payload",
            Method::Backup => {
                "copies what is on the disk to a new file, for the daemon's own user and root; payload: its path"
            }
            Method::Quota => "who uses what of all that is limited, and what was refused; no payload",
        }
    }

    /// What of others it shows, if it takes the right to `monitor` that.
    pub(super) const fn monitors(self) -> Option<&'static str> {
        match self {
            Method::Sockets => Some("sockets"),
            _ => None,
        }
    }

    /// Whether the method changes what the daemon does.
    pub(super) const fn is_administrative(self) -> bool {
        match self {
            Method::Status | Method::List | Method::Describe | Method::BridgeList => false,
            // What these show of others takes a right of its own.
            Method::Sockets | Method::PolicyExplain | Method::Quota | Method::Metrics => false,
            Method::BridgeExpose | Method::BridgeForward | Method::BridgeRemove | Method::Backup => true,
        }
    }
}
