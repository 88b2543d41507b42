//! SHELL. The ends of every floor: plain blocking reads and writes on one thread, the cheapest client there is.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::args::Options;
use crate::control;
use crate::failure::{Failure, at};
use crate::message::{Incoming, MESSAGE, READ_MAX, check_sequence, read_some, set_sequence};
use crate::report::{Report, Samples};

/// The publisher writes at most this much at once.
const BATCH_BYTES_MAX: usize = 1 << 20;

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

/// Counts events and checks that they are all there and in order. The measured phase begins with the read that brings
/// the last event of the warm-up, so that its events are not counted and its time is: the figure can be too low by one
/// read, never too high.
pub(crate) fn subscribe(directory: &Path, options: &Options) -> Result<(), Failure> {
    let mut stream = control::connect_back(directory)?;
    control::say_ready()?;
    let mut events = Incoming::new(options.size);
    let mut start_ns = None;
    let mut before_ns = control::now_ns()?;
    while events.receive(&mut stream)? {
        if start_ns.is_none() && events.received() >= options.warmup {
            start_ns = Some(before_ns);
        }
        before_ns = control::now_ns()?;
    }
    let total = events.received();
    let measured = total.saturating_sub(options.warmup);
    let (start_ns, end_ns) = (start_ns.unwrap_or(before_ns), before_ns);
    control::report(&Report { start_ns, end_ns, measured, total, ..Report::default() })
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

/// Writes batches of events as fast as the relay takes them.
pub(crate) fn publish(directory: &Path, options: &Options) -> Result<(), Failure> {
    let mut stream = control::connect_front(directory)?;
    let batch = options.batch.min(BATCH_BYTES_MAX / options.size).max(1) as u64;
    let mut events = vec![7; batch as usize * options.size];
    let mut sent = 0;
    let mut send = |count: u64| {
        let batch = events.get_mut(..count as usize * options.size).unwrap_or_default();
        for event in batch.chunks_exact_mut(options.size) {
            set_sequence(event, sent);
            sent += 1;
        }
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
