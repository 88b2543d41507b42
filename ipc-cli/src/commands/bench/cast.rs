//! Starts the processes at the ends of one measurement, lets them go together, and collects what they report.

use core::time::Duration;
use std::fs;
use std::process::Stdio;

use ipc_core::{Error, ErrorCode};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::cases::{Case, Door, Part};
use super::end::{EndArgs, GO, READY};
use super::figures::{Figures, Report};
use crate::role;

/// How long an end may take to be ready, and to report after its time.
const OVERHEAD: Duration = Duration::from_secs(20);

/// The daemon that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// How its clients reach it.
    pub(crate) address: String,
    /// Its datagram socket, if it has one.
    pub(crate) datagrams: Option<String>,
    /// Its process.
    pub(crate) pid: u32,
}

/// Measures a case once.
///
/// # Errors
/// `io` when an end fails, or does not report in time.
pub(crate) async fn measure(
    case: &Case,
    target: &Target,
    pin: Option<usize>,
    time: Duration,
) -> Result<Figures, Error> {
    let args = |part| EndArgs {
        part,
        flavour: case.flavour,
        address: target.address.clone(),
        name: format!("bench.{}-{}", case.name, std::process::id()),
        size: case.size,
        depth: case.depth,
        receivers: case.backs.1,
        pin,
        time,
    };
    let mut backs = start(&args(case.backs.0), case.backs.1).await?;
    let address = match case.door {
        Door::Stream => target.address.clone(),
        Door::Datagram => target.datagrams.clone().ok_or_else(|| {
            Error::new(ErrorCode::Unreachable, "the daemon that is measured has no datagram socket")
        })?,
    };
    let front = EndArgs { address, ..args(case.fronts.0) };
    let mut fronts = start(&front, case.fronts.1).await?;
    let daemon_before_us = cpu_us(target.pid)?;
    for front in &mut fronts {
        front.go().await?;
    }
    let mut front_reports = Vec::new();
    for front in &mut fronts {
        front_reports.push(front.report(time).await?);
    }
    // The daemon's share ends with the last operation, not with the departure of the ends.
    let daemon_us = cpu_us(target.pid)?.saturating_sub(daemon_before_us);
    let mut back_reports = Vec::new();
    for back in &mut backs {
        back_reports.push(back.report(time).await?);
    }
    for end in fronts.into_iter().chain(backs) {
        end.finish().await?;
    }
    let ends_us: u64 = front_reports.iter().chain(&back_reports).map(|report| report.cpu_us).sum();
    let counted = if case.counts_backs() { &back_reports } else { &front_reports };
    Ok(Figures::of(counted, ends_us + daemon_us, case.scale))
}

async fn start(args: &EndArgs, count: usize) -> Result<Vec<End>, Error> {
    let mut ends = Vec::with_capacity(count);
    for _ in 0..count {
        ends.push(End::start(args)?);
    }
    for end in &mut ends {
        end.expect_ready().await?;
    }
    Ok(ends)
}

/// One process at an end. Dropped, it is killed.
struct End {
    part: Part,
    process: Child,
    /// Closed to tell it to report.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl End {
    fn start(args: &EndArgs) -> Result<Self, Error> {
        let part = args.part;
        let mut command = Command::from(role::bench_end_command(&args.to_arguments()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let started = command.spawn().and_then(|mut process| {
            let missing = || std::io::Error::other("a pipe is missing");
            let stdin = process.stdin.take().ok_or_else(missing)?;
            let stdout = BufReader::new(process.stdout.take().ok_or_else(missing)?);
            Ok(Self { part, process, stdin: Some(stdin), stdout })
        });
        started.map_err(|error| failed(part, format!("cannot be started: {error}")))
    }

    async fn expect_ready(&mut self) -> Result<(), Error> {
        let line = self.line(OVERHEAD).await?;
        if line == READY {
            Ok(())
        } else {
            Err(failed(self.part, format!("said \"{}\"", line.escape_debug())))
        }
    }

    async fn go(&mut self) -> Result<(), Error> {
        let Some(stdin) = &mut self.stdin else {
            return Err(failed(self.part, "has gone already".to_owned()));
        };
        stdin
            .write_all(format!("{GO}\n").as_bytes())
            .await
            .map_err(|error| failed(self.part, error.to_string()))
    }

    /// Its report. What only answers reports when its standard input is closed; the others when they are done.
    async fn report(&mut self, time: Duration) -> Result<Report, Error> {
        if matches!(self.part, Part::Echo | Part::Sink) {
            self.stdin = None;
        }
        let line = self.line(time * 2 + OVERHEAD).await?;
        serde_json::from_str(&line).map_err(|error| failed(self.part, format!("gave no report: {error}")))
    }

    async fn line(&mut self, limit: Duration) -> Result<String, Error> {
        let mut line = String::new();
        match timeout(limit, self.stdout.read_line(&mut line)).await {
            Err(_) => Err(failed(self.part, format!("said nothing for {} s", limit.as_secs()))),
            Ok(Err(error)) => Err(failed(self.part, error.to_string())),
            Ok(Ok(0)) => Err(failed(self.part, "ended early; what it said is above".to_owned())),
            Ok(Ok(_)) => Ok(line.trim_end().to_owned()),
        }
    }

    async fn finish(mut self) -> Result<(), Error> {
        self.stdin = None;
        match timeout(OVERHEAD, self.process.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(failed(self.part, format!("ended with {status}"))),
            Ok(Err(error)) => Err(failed(self.part, error.to_string())),
            Err(_) => Err(failed(self.part, "did not end".to_owned())),
        }
    }
}

fn failed(part: Part, why: String) -> Error {
    Error::new(ErrorCode::Io, format!("the {} process of the measurement {why}", part.word()))
}

/// The time a process has spent on a CPU, all its threads, in microseconds.
fn cpu_us(pid: u32) -> Result<u64, Error> {
    let unreadable = |error: std::io::Error| {
        Error::new(ErrorCode::Io, format!("cannot read the CPU time of process {pid}: {error}"))
    };
    let mut sum_ns = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).map_err(unreadable)? {
        // A thread may end while we look; its time is gone with it.
        let Ok(text) = task.and_then(|task| fs::read_to_string(task.path().join("schedstat"))) else {
            continue;
        };
        sum_ns += text.split_ascii_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum_ns / 1000)
}
