//! What a process writes down of what it does: a line before it asks, and a line when it has the outcome.
//!
//! ```text
//! asked NUMBER TIME OPERATION...
//! ended NUMBER TIME OUTCOME...
//! parted TIME
//! ```
//!
//! Times are nanoseconds of the boot-time clock, which is the same for all processes. `parted` says that the connection is
//! over, and with it what was held.

use std::io::{self, Write};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Something was asked for.
    Asked {
        /// Its number.
        number: u64,
        /// When.
        time: u64,
        /// What.
        words: Vec<String>,
    },
    /// It has an outcome.
    Ended {
        /// Its number.
        number: u64,
        /// When.
        time: u64,
        /// What came of it.
        words: Vec<String>,
    },
    /// The connection is over.
    Parted {
        /// When.
        time: u64,
    },
}

impl Line {
    /// Reads a line; one that was not written to its end is none.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.strip_suffix('\n')?;
        let mut words = line.split(' ').map(str::to_owned);
        let what = words.next()?;
        if what == "parted" {
            return Some(Line::Parted { time: words.next()?.parse().ok()? });
        }
        let number = words.next()?.parse().ok()?;
        let time = words.next()?.parse().ok()?;
        let words = words.collect();
        match what.as_str() {
            "asked" => Some(Line::Asked { number, time, words }),
            "ended" => Some(Line::Ended { number, time, words }),
            _ => None,
        }
    }
}

/// Writes such lines.
#[derive(Debug)]
pub struct Recorder<W> {
    out: W,
    last: u64,
    clock: fn() -> u64,
}

impl<W: Write> Recorder<W> {
    /// One that has written nothing.
    pub fn new(out: W, clock: fn() -> u64) -> Self {
        Self { out, last: 0, clock }
    }

    /// Before something is asked for. Gives its number.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn asks(&mut self, operation: &str) -> io::Result<u64> {
        self.last += 1;
        let (number, time) = (self.last, (self.clock)());
        self.write(&format!("asked {number} {time} {operation}\n"))?;
        Ok(number)
    }

    /// After it has an outcome.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn ended(&mut self, number: u64, outcome: &str) -> io::Result<()> {
        let time = (self.clock)();
        self.write(&format!("ended {number} {time} {outcome}\n"))
    }

    /// The connection is over.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn parted(&mut self) -> io::Result<()> {
        let time = (self.clock)();
        self.write(&format!("parted {time}\n"))
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }
}
