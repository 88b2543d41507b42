//! By which way clients come.

/// How a client reaches the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As a process of a user.
    Local,
    /// As an anonymous peer over TCP.
    Tcp,
    /// Over a port that exposes one method of the service of this number.
    Exposed(usize),
}
