//! End to end: real processes, real sockets.

mod lifecycle;
