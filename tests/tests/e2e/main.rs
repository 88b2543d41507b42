//! End to end: real processes, real sockets.

mod exhaustion;
mod lifecycle;
mod shutdown;
mod strangers;
