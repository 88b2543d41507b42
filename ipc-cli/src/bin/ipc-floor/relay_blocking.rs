//! SHELL. The relay of the latency floor: four blocking system calls a call, on one thread, for one front and one back.

use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;

use crate::control;
use crate::failure::{Failure, at};
use crate::message::MESSAGE;

/// Ends when the front leaves.
pub(crate) fn run(directory: &Path) -> Result<(), Failure> {
    let back_listener = control::bind_back(directory)?;
    let front_listener = control::bind_front(directory)?;
    control::say_ready()?;
    let (mut back, _) = back_listener.accept().map_err(at("accept the server"))?;
    let (mut front, _) = front_listener.accept().map_err(at("accept the client"))?;
    let mut message = [0; MESSAGE];
    loop {
        match front.read_exact(&mut message) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(at("read a request")(error)),
        }
        back.write_all(&message).map_err(at("forward a request"))?;
        back.read_exact(&mut message).map_err(at("read a reply"))?;
        front.write_all(&message).map_err(at("forward a reply"))?;
    }
}
