//! SHELL. One end of a measurement, in a process of its own: says `ready`, waits for `go`, works for its time, reports.

mod async_ends;
mod blocking_ends;
mod fanout;

use core::time::Duration;
use std::ffi::OsString;
use std::io::{BufRead as _, Write as _};

use ipc_core::client::Durability;
use ipc_core::{Error, ErrorCode, HoldOptions};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

use super::cases::{Flavour, Part};
use super::figures::{Report, Samples};
use super::pin::pin_self;

/// What an end writes when it can begin.
pub(crate) const READY: &str = "ready";
/// What it is told when all can.
pub(crate) const GO: &str = "go";

/// Locks are measured as they are without a disk, which would be all that is measured otherwise; or just with it.
fn hold_options(args: &EndArgs) -> HoldOptions {
    let durability = if args.part.is_kept() { Durability::Disk } else { Durability::Memory };
    HoldOptions { durability: Some(durability), ..HoldOptions::default() }
}

/// What an end is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndArgs {
    pub(crate) part: Part,
    pub(crate) flavour: Flavour,
    /// The daemon.
    pub(crate) address: String,
    /// The service or the topic.
    pub(crate) name: String,
    /// Bytes of a payload.
    pub(crate) size: usize,
    /// Operations in flight.
    pub(crate) depth: usize,
    /// How many subscribers a publisher has.
    pub(crate) receivers: usize,
    /// The CPU to run on.
    pub(crate) pin: Option<usize>,
    /// How long the measured phase lasts.
    pub(crate) time: Duration,
}

impl EndArgs {
    /// For the command line of the end.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let numbers = [
            self.size,
            self.depth,
            self.receivers,
            self.pin.map_or(0, |cpu| cpu + 1),
            usize::try_from(self.time.as_micros()).unwrap_or(usize::MAX),
        ];
        let words = [self.part.word(), self.flavour.word(), &self.address, &self.name].map(OsString::from);
        words.into_iter().chain(numbers.map(|number| number.to_string().into())).collect()
    }

    /// From the command line.
    pub(crate) fn parse(arguments: &[OsString]) -> Option<Self> {
        let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
        let &[part, flavour, address, name, size, depth, receivers, pin, micros] = words.as_slice() else {
            return None;
        };
        Some(Self {
            part: Part::ALL.into_iter().find(|known| known.word() == part)?,
            flavour: Flavour::ALL.into_iter().find(|known| known.word() == flavour)?,
            address: address.to_owned(),
            name: name.to_owned(),
            size: size.parse().ok()?,
            depth: depth.parse().ok()?,
            receivers: receivers.parse().ok()?,
            pin: pin.parse::<usize>().ok()?.checked_sub(1),
            time: Duration::from_micros(micros.parse().ok()?),
        })
    }

    /// The time before the measured phase.
    fn warm_up(&self) -> Duration {
        (self.time / 10).max(Duration::from_millis(20))
    }
}

/// Plays the part to its end.
///
/// # Errors
/// What the bus says.
pub(crate) fn play(args: &EndArgs) -> Result<(), Error> {
    if let Some(cpu) = args.pin {
        pin_self(cpu)?;
    }
    let mut builder = match args.flavour {
        Flavour::Blocking => return blocking_ends::play(args),
        Flavour::Async => tokio::runtime::Builder::new_current_thread(),
        Flavour::MultiThread => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2);
            builder
        }
    };
    let runtime = builder.enable_all().build().map_err(|error| failed("start a runtime", &error))?;
    runtime.block_on(async_ends::play(args))
}

/// Says that this end can begin, and waits until all can.
fn ready_and_go() -> Result<(), Error> {
    say(READY)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| failed("read", &error))?;
    if line.trim_end() == GO { Ok(()) } else { Err(failed("begin", &"nobody says go")) }
}

/// Waits until standard input is closed.
fn wait_for_close() -> Result<(), Error> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| failed("read", &error))?;
    Ok(())
}

fn say(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(|error| failed("report", &error))
}

fn report(report: &Report) -> Result<(), Error> {
    say(&serde_json::to_string(report).map_err(|error| failed("report", &error))?)
}

/// Nanoseconds of the clock that all processes share.
fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| u64::try_from(time.num_nanoseconds()).unwrap_or(0))
}

/// User and system time of this process, in microseconds.
fn cpu_us() -> u64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        u64::try_from(micros).unwrap_or(0)
    })
}

fn failed(what: &str, why: &dyn core::fmt::Display) -> Error {
    Error::new(ErrorCode::Io, format!("cannot {what}: {why}"))
}

/// The two phases of an end that does one operation after the other or several at once: a warm-up, then what counts.
#[derive(Debug)]
struct Phases {
    cpu_before_us: u64,
    measured_from_ns: u64,
    end_ns: u64,
    warmed: u64,
    measured: u64,
    samples: Samples,
    last_ns: u64,
}

impl Phases {
    /// Begins now.
    fn begin(args: &EndArgs) -> Self {
        let now = now_ns();
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let measured_from_ns = now + nanos(args.warm_up());
        Self {
            cpu_before_us: cpu_us(),
            measured_from_ns,
            end_ns: measured_from_ns.saturating_add(nanos(args.time)),
            warmed: 0,
            measured: 0,
            samples: Samples::new(),
            last_ns: now,
        }
    }

    /// Counts one operation that began at `begun_ns` and has just ended. Whether another should begin.
    fn count(&mut self, begun_ns: u64) -> bool {
        let now = now_ns();
        if begun_ns < self.measured_from_ns {
            self.warmed += 1;
        } else {
            self.measured += 1;
            self.samples.push(now - begun_ns);
        }
        self.last_ns = now;
        now < self.end_ns || self.measured == 0
    }

    /// Counts one of several operations in flight, which are not timed. Whether another should begin.
    fn count_one(&mut self) -> bool {
        let now = now_ns();
        if now < self.measured_from_ns {
            self.warmed += 1;
        } else {
            self.measured += 1;
        }
        self.last_ns = now;
        now < self.end_ns || self.measured == 0
    }

    /// The account of it.
    fn report(self) -> Report {
        let (p50_ns, p99_ns) = self.samples.percentiles();
        Report {
            start_ns: self.measured_from_ns,
            end_ns: self.last_ns,
            measured: self.measured,
            total: self.warmed + self.measured,
            p50_ns,
            p99_ns,
            cpu_us: cpu_us().saturating_sub(self.cpu_before_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_survive_the_command_line() {
        for pin in [None, Some(0), Some(3)] {
            let args = EndArgs {
                part: Part::Window,
                flavour: Flavour::MultiThread,
                address: "unix:/a b/bus.sock".into(),
                name: "bench.x".into(),
                size: 64,
                depth: 16,
                receivers: 1,
                pin,
                time: Duration::from_millis(1500),
            };
            assert_eq!(EndArgs::parse(&args.to_arguments()), Some(args));
        }
        assert_eq!(EndArgs::parse(&[]), None);
    }
}
