//! PURE. Numbers with a meaning, each its own type.

use core::fmt;

/// One life of a daemon: drawn at random when it starts, so that a client sees a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A connection to the bus; within one [`Epoch`] never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A short number that stands for a name on one connection.
///
/// Method and topic handles of a client are chosen by the client; topic handles that the daemon announces are chosen
/// by the daemon. The generation tells two uses of one index apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Handle {
    /// Position in the table of the side that chose it.
    pub index: u32,
    /// Which use of that position this is.
    pub generation: u16,
}

impl Handle {
    /// Stands for several topics of one filter in a merged gap record.
    pub const MERGED: Handle = Handle { index: u32::MAX, generation: u16::MAX };
}
