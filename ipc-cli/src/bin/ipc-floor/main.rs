//! SHELL. The floors: what a bus costs the kernel when it decides nothing.
//!
//! A figure of ours means little alone, because the machine drifts by tens of percent from one minute to the next.
//! It means something as a ratio to the cheapest program that moves the same bytes between the same number of
//! processes in the same run. These are those programs: no names, no handles, no permissions, no limits per client,
//! no error handling for clients. They link nothing of the bus, so that no improvement or fault of it can move them.
//!
//! Every floor runs as real processes, started from this same executable and connected over `AF_UNIX` stream
//! sockets. *Fronts* (callers, the publisher) reach *backs* (the server, the subscribers, the sink) through one
//! *relay*, which has the place of the daemon. Nobody polls before sleeping.
//!
//! - `relay-latency`: a routed call, two hops. One front sends 64 bytes and waits; the relay and the server use plain
//!   blocking reads and writes on one thread each. Four transfers and six switches: nothing with a process in the
//!   middle can be faster without busy waiting. Judge it with `--pin`, because wake-ups across CPUs jump.
//! - `relay-throughput`: `--clients` fronts, each with `--depth` calls of 64 bytes in flight; each is a process of its
//!   own unless `--processes` makes fewer share them. The relay sleeps in epoll, reads up to 256 KiB a connection,
//!   stamps each request with its front, routes each reply by that stamp and writes once for each touched destination
//!   and round. The ends handle whatever one read gave and refill their window with one write. What counts is how few
//!   system calls a message costs; with one client it is the wake-ups, since its whole window travels as one batch.
//! - `fanout`: one publisher writes batches, the relay copies what it read to every subscriber. A subscriber that
//!   is behind has a buffer; when one is full the publisher is not read until it has drained. Nothing is lost: each
//!   subscriber checks the sequence of every event, and the run fails if the last one is not the publisher's last.
//! - `payload`: requests of 1 MiB through the relay to a sink that acknowledges each with one byte, `--window` of them
//!   on the way. The relay reads 256 KiB and writes; it is the price of two copies into and two out of the kernel.
//!   A window of 1 is a call that waits for its answer, a larger one is a stream.
//! - `sync`: append `--size` bytes to a file in the temporary directory and fdatasync(2) it, again and again. Nothing that is
//!   to survive a loss of power one at a time can be faster there. No other process takes part. `sync-latency` is the same,
//!   with the time of one.
//! - `connect`: connect to the relay, one call through it to the server and back, close. The server stays connected.
//!
//! Standard output is one JSON object: `name`, `unit`, `count` (measured operations), `cpu_us_per_op`, and `p50` and
//! `p99` in `unit` or `rate` in `unit`. `cpu_us_per_op` is user and system time of all processes for all operations,
//! warm-up included; starting a process costs about a millisecond of it, so it says nothing about very short runs.

mod args;
mod children;
mod control;
mod ends;
mod failure;
mod message;
mod relay;
mod relay_blocking;
mod report;
mod sync;
mod window;
mod workload;

use std::io::Write as _;
use std::process::ExitCode;

use args::{Command, Role};
use failure::{Failure, at};

fn main() -> ExitCode {
    let command = match args::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(failure) => {
            eprintln!("ipc-floor: {failure}\n\n{}", args::usage());
            return ExitCode::from(2);
        }
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ipc-floor: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Help => print(&args::usage()),
        Command::Measure { workload, options } => print(&workload::measure(workload, options)?.to_json()),
        Command::Act { role, directory, options } => {
            control::enter(role)?;
            act(role, &directory, &options).map_err(|failure| failure.within(role.name()))
        }
    }
}

fn act(role: Role, directory: &std::path::Path, options: &args::Options) -> Result<(), Failure> {
    match role {
        Role::RelayBlocking => relay_blocking::run(directory),
        Role::RelayCalls | Role::RelayFanout | Role::RelayStream => relay::run(role, directory, options),
        Role::Server => ends::serve(directory),
        Role::Subscriber => ends::subscribe(directory, options),
        Role::Sink => ends::sink(directory, options),
        Role::LatencyClient => ends::call_one_by_one(directory, options),
        Role::ConnectClient => ends::connect_and_call(directory, options),
        Role::WindowClient => window::run(directory, options),
        Role::Publisher => ends::publish(directory, options),
        Role::PayloadClient => ends::send_payloads(directory, options),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(at("write the result to standard output"))
}
