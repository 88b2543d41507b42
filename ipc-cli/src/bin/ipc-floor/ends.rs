//! SHELL. The ends of every floor: plain blocking reads and writes on one thread, the cheapest client there is.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::args::{MESSAGE, Options};
use crate::control;
use crate::failure::{Failure, at};
use crate::report::{Report, Samples};

/// As much as one read takes, here and in the relay.
pub(crate) const READ_MAX: usize = 256 * 1024;

/// Bytes of a message that hold the number of the front; the relay fills them in.
pub(crate) const FRONT_INDEX: std::ops::Range<usize> = 0..4;
const SEQUENCE: std::ops::Range<usize> = 8..16;

/// The publisher writes at most this much at once.
const BATCH_BYTES_MAX: usize = 1 << 20;

fn set_sequence(message: &mut [u8], sequence: u64) {
    if let Some(field) = message.get_mut(SEQUENCE) {
        field.copy_from_slice(&sequence.to_le_bytes());
    }
}

fn sequence_of(message: &[u8]) -> Option<u64> {
    message.get(SEQUENCE).and_then(|field| field.try_into().ok()).map(u64::from_le_bytes)
}

fn check_sequence(message: &[u8], expected: u64) -> Result<(), Failure> {
    match sequence_of(message) {
        Some(found) if found == expected => Ok(()),
        found => Err(Failure::new(format!("reply {expected} was expected and {found:?} came"))),
    }
}

/// Reads what is there, at most `buffer`; 0 is the end of the stream.
fn read_some(stream: &mut UnixStream, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map_err(at("read from the relay")),
        }
    }
}

/// The echo server: whatever one read gave goes back in one write. Ends with the relay.
pub(crate) fn serve(directory: &Path) -> Result<(), Failure> {
    let mut stream = control::connect_back(directory)?;
    control::say_ready()?;
    let mut buffer = vec![0; READ_MAX];
    loop {
        let length = read_some(&mut stream, &mut buffer)?;
        let Some(requests) = buffer.get(..length).filter(|requests| !requests.is_empty()) else {
            return Ok(());
        };
        stream.write_all(requests).map_err(at("write replies"))?;
    }
}

/// Counts events. The measured phase begins with the read that brings the last event of the warm-up, so that its
/// events are not counted and its time is: the figure can be too low by one read, never too high.
pub(crate) fn subscribe(directory: &Path, options: &Options) -> Result<(), Failure> {
    let mut stream = control::connect_back(directory)?;
    control::say_ready()?;
    let size = options.size as u64;
    let warmup_bytes = options.warmup.saturating_mul(size);
    let mut buffer = vec![0; READ_MAX];
    let mut bytes: u64 = 0;
    let mut start_ns = None;
    let mut end_ns = 0;
    loop {
        let before_ns = if start_ns.is_none() { control::now_ns()? } else { 0 };
        let length = read_some(&mut stream, &mut buffer)?;
        if length == 0 {
            break;
        }
        bytes += length as u64;
        end_ns = control::now_ns()?;
        if start_ns.is_none() && bytes >= warmup_bytes {
            start_ns = Some(before_ns);
        }
    }
    if !bytes.is_multiple_of(size) {
        return Err(Failure::new(format!("the stream ended within an event, after {bytes} bytes")));
    }
    let total = bytes / size;
    let measured = total.saturating_sub(options.warmup);
    control::report(&Report {
        start_ns: start_ns.unwrap_or(end_ns),
        end_ns,
        measured,
        total,
        ..Report::default()
    })
}

/// Swallows payloads and acknowledges each with one byte. Ends with the relay.
pub(crate) fn sink(directory: &Path, options: &Options) -> Result<(), Failure> {
    let mut stream = control::connect_back(directory)?;
    control::say_ready()?;
    let mut buffer = vec![0; READ_MAX];
    let mut unacknowledged = 0;
    loop {
        let length = read_some(&mut stream, &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        unacknowledged += length;
        let complete = unacknowledged / options.size;
        unacknowledged %= options.size;
        if complete > 0 {
            stream.write_all(&vec![1; complete]).map_err(at("acknowledge"))?;
        }
    }
}

/// Times one operation after the other and reports the percentiles.
fn time_each(
    options: &Options,
    mut operation: impl FnMut(u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for sequence in 0..options.warmup {
        operation(sequence)?;
    }
    let count = options.count.min(Samples::MAX);
    let mut samples = Samples::with_room_for(count);
    control::wait_for_go()?;
    let start_ns = control::now_ns()?;
    let start = Instant::now();
    let mut before = Duration::ZERO;
    while samples.len() < count && before < options.time {
        operation(options.warmup + samples.len())?;
        let after = start.elapsed();
        samples.push((after - before).as_nanos() as u64);
        before = after;
    }
    let measured = samples.len();
    let (p50_ns, p99_ns) = samples.percentiles();
    let end_ns = start_ns + before.as_nanos() as u64;
    let total = measured + options.warmup;
    control::report(&Report { start_ns, end_ns, measured, total, p50_ns, p99_ns })
}

fn exchange(stream: &mut UnixStream, message: &mut [u8; MESSAGE], sequence: u64) -> Result<(), Failure> {
    set_sequence(message, sequence);
    stream.write_all(message).map_err(at("write a request"))?;
    stream.read_exact(message).map_err(at("read a reply"))?;
    check_sequence(message, sequence)
}

/// One call at a time over one connection.
pub(crate) fn call_one_by_one(directory: &Path, options: &Options) -> Result<(), Failure> {
    let mut stream = control::connect_front(directory)?;
    let mut message = [0; MESSAGE];
    time_each(options, |sequence| exchange(&mut stream, &mut message, sequence))
}

/// A connection for each call.
pub(crate) fn connect_and_call(directory: &Path, options: &Options) -> Result<(), Failure> {
    let mut message = [0; MESSAGE];
    time_each(options, |sequence| {
        let mut stream = control::connect_front(directory)?;
        exchange(&mut stream, &mut message, sequence)
    })
}

/// Many calls in flight over one connection.
pub(crate) fn call_in_window(directory: &Path, options: &Options) -> Result<(), Failure> {
    let mut window = Window::new(control::connect_front(directory)?, options.depth);
    window.run(options.warmup, None)?;
    control::wait_for_go()?;
    let start_ns = control::now_ns()?;
    let measured = window.run(options.count, Some(Instant::now() + options.time))?;
    let end_ns = control::now_ns()?;
    let total = measured + options.warmup;
    control::report(&Report { start_ns, end_ns, measured, total, ..Report::default() })
}

/// The calling end of one connection with `depth` calls in flight.
struct Window {
    stream: UnixStream,
    depth: u64,
    /// Room for a full window; only the sequences in it change.
    requests: Vec<u8>,
    replies: Vec<u8>,
    /// Bytes at the start of `replies` that are the first part of one.
    partial: usize,
    sent: u64,
    answered: u64,
}

impl Window {
    fn new(stream: UnixStream, depth: usize) -> Self {
        let requests = vec![0; depth * MESSAGE];
        let replies = vec![0; READ_MAX];
        Self { stream, depth: depth as u64, requests, replies, partial: 0, sent: 0, answered: 0 }
    }

    /// Makes `count` calls, or as many as begin before `until`, and waits for all replies. Returns how many.
    fn run(&mut self, count: u64, until: Option<Instant>) -> Result<u64, Failure> {
        let first = self.sent;
        let last = first.saturating_add(count);
        self.send(count.min(self.depth))?;
        while self.answered < self.sent {
            let answered = self.receive()?;
            if until.is_none_or(|until| Instant::now() < until) {
                self.send(answered.min(last - self.sent))?;
            }
        }
        Ok(self.sent - first)
    }

    /// Sends `count` requests, at most a full window, in one write.
    fn send(&mut self, count: u64) -> Result<(), Failure> {
        let length = count as usize * MESSAGE;
        let Some(batch) = self.requests.get_mut(..length).filter(|batch| !batch.is_empty()) else {
            return Ok(());
        };
        for message in batch.chunks_exact_mut(MESSAGE) {
            set_sequence(message, self.sent);
            self.sent += 1;
        }
        self.stream.write_all(batch).map_err(at("write requests"))
    }

    /// Takes what one read gives, at least a part of one reply. Returns the number of replies completed.
    fn receive(&mut self) -> Result<u64, Failure> {
        let length = read_some(&mut self.stream, self.replies.get_mut(self.partial..).unwrap_or_default())?;
        if length == 0 {
            return Err(Failure::new("the relay closed the connection before it had answered"));
        }
        let (before, filled) = (self.answered, self.partial + length);
        for message in self.replies.get(..filled).unwrap_or_default().chunks_exact(MESSAGE) {
            check_sequence(message, self.answered)?;
            self.answered += 1;
        }
        self.partial = filled % MESSAGE;
        self.replies.copy_within(filled - self.partial..filled, 0);
        Ok(self.answered - before)
    }
}

/// Writes batches of events as fast as the relay takes them.
pub(crate) fn publish(directory: &Path, options: &Options) -> Result<(), Failure> {
    let mut stream = control::connect_front(directory)?;
    let batch = options.batch.min(BATCH_BYTES_MAX / options.size).max(1) as u64;
    let events = vec![7; batch as usize * options.size];
    let mut send = |count: u64| {
        let batch = events.get(..count as usize * options.size).unwrap_or_default();
        stream.write_all(batch).map_err(at("publish"))
    };
    control::wait_for_go()?;
    let mut warm = 0;
    while warm < options.warmup {
        let count = batch.min(options.warmup - warm);
        send(count)?;
        warm += count;
    }
    let start_ns = control::now_ns()?;
    let until = Instant::now() + options.time;
    let mut measured = 0;
    while measured < options.count && Instant::now() < until {
        let count = batch.min(options.count - measured);
        send(count)?;
        measured += count;
    }
    let end_ns = control::now_ns()?;
    control::report(&Report { start_ns, end_ns, measured, total: measured + warm, ..Report::default() })
}

/// Sends payloads, `window` of them ahead of the acknowledgements.
pub(crate) fn send_payloads(directory: &Path, options: &Options) -> Result<(), Failure> {
    let mut stream = control::connect_front(directory)?;
    let payload = vec![7; options.size];
    let mut run = |count: u64, until: Option<Instant>| -> Result<u64, Failure> {
        let (mut sent, mut acknowledged) = (0, 0);
        let mut acknowledgements = [0; 64];
        loop {
            let may_send = sent < count && until.is_none_or(|until| Instant::now() < until);
            if may_send && sent - acknowledged < options.window as u64 {
                stream.write_all(&payload).map_err(at("write a payload"))?;
                sent += 1;
            } else if acknowledged < sent {
                match read_some(&mut stream, &mut acknowledgements)? {
                    0 => return Err(Failure::new("the relay closed before all payloads were acknowledged")),
                    length => acknowledged += length as u64,
                }
            } else {
                return Ok(sent);
            }
        }
    };
    run(options.warmup, None)?;
    control::wait_for_go()?;
    let start_ns = control::now_ns()?;
    let measured = run(options.count, Some(Instant::now() + options.time))?;
    let end_ns = control::now_ns()?;
    let total = measured + options.warmup;
    control::report(&Report { start_ns, end_ns, measured, total, ..Report::default() })
}
