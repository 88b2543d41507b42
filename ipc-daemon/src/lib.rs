//! The ipc message bus daemon.
