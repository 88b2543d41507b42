//! SHELL. Numbers that nobody can guess.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Draws a number at random (getrandom(2)).
///
/// # Errors
/// When the kernel gives none.
pub(crate) fn draw() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // So few come all at once.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(u64::from_le_bytes(bytes))
}
