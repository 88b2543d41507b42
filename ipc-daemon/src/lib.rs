//! The ipc message bus daemon.
//!
//! | module | colour | what it holds |
//! |---|---|---|
//! | [`broker`] | PURE | the whole bus as one state machine |

pub mod broker;
