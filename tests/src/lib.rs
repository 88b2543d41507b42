//! Harness of the ipc message bus tests.
