//! Where log lines go: to the standard error, by way of a thread.
//!
//! Whoever reads the standard error may stop reading: a terminal that was paused, a service manager that is busy. The
//! bus must not wait for them, so a line is handed to a thread of its own; when that has too many waiting, further lines are
//! lost and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written.
const WAITING_MAX: usize = 512;
/// How long the end of the process waits for lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// What the thread is asked to do.
enum Job {
    Line(Vec<u8>),
    /// To answer once all lines before it are written.
    Flush(SyncSender<()>),
}

/// Hands out writers, each for one line.
#[derive(Clone)]
pub(super) struct Sink {
    jobs: SyncSender<Job>,
    lost: Arc<AtomicU64>,
}

/// The sink of this process, for the end of it.
static SINK: OnceLock<Sink> = OnceLock::new();

impl Sink {
    /// A sink to the standard error, which [`flush`] empties. To be called once.
    pub(super) fn to_standard_error() -> io::Result<Self> {
        let sink = Self::over(io::stderr())?;
        Ok(SINK.get_or_init(|| sink).clone())
    }

    fn over(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        // It ends with the process: there is a line to write until then.
        thread::Builder::new().name("log".to_owned()).spawn(move || write(output, &waiting, &counter))?;
        Ok(Self { jobs, lost })
    }

    fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.jobs.try_send(Job::Flush(done)).is_ok() {
            // When the time is up nobody reads, and the process does not wait for them any longer.
            let _: Result<(), RecvTimeoutError> = wait.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// Waits until what was logged is written, but not for long.
pub(super) fn flush() {
    if let Some(sink) = SINK.get() {
        sink.flush();
    }
}

fn write(mut output: impl Write, waiting: &Receiver<Job>, lost: &AtomicU64) {
    for job in waiting {
        match job {
            Job::Line(line) => {
                // A log that cannot be written has nowhere to say so.
                let _ = output.write_all(&line);
                let count = lost.swap(0, Ordering::Relaxed);
                if count > 0 {
                    // As above.
                    let _ = writeln!(output, "ipc-daemon: {count} log lines were lost: nobody read them");
                }
            }
            // Whoever asked may have lost patience.
            Job::Flush(done) => drop(done.send(())),
        }
    }
}

/// Collects one line.
pub(super) struct Line<'a> {
    sink: &'a Sink,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.sink.jobs.try_send(Job::Line(std::mem::take(&mut self.bytes))).is_err() {
            self.sink.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sink: self, bytes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn log(sink: &Sink, text: &str) {
        sink.make_writer().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn lines_are_written_in_order() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let sink = Sink::over(ours).unwrap();
        log(&sink, "a\n");
        log(&sink, "b\n");
        sink.flush();
        drop(sink);
        assert_eq!(io::read_to_string(&mut theirs).unwrap(), "a\nb\n");
    }

    #[test]
    fn a_reader_that_does_not_read_holds_up_nobody_and_is_told_what_was_lost() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let sink = Sink::over(ours).unwrap();
        let long = "x".repeat(1023) + "\n";
        let count = 8 * WAITING_MAX;
        for _ in 0..count {
            log(&sink, &long);
        }
        drop(sink);
        let text = io::read_to_string(&mut theirs).unwrap();
        let reports = text.lines().filter_map(|line| line.strip_prefix("ipc-daemon: "));
        let lost: usize =
            reports.map(|report| report.split(' ').next().unwrap().parse::<usize>().unwrap()).sum();
        assert!(lost > 0, "every line found room");
        assert_eq!(text.lines().filter(|line| line.starts_with('x')).count() + lost, count);
    }
}
