//! Wire protocol and client library of the ipc message bus.
