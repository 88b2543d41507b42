//! SHELL. The command line: which floor, how large, how long. Everything has a maximum, so every run ends.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Failure;
use crate::message::MESSAGE;

/// What this process is to do.
pub(crate) enum Command {
    Help,
    Measure { workload: Workload, options: Options },
    Act { role: Role, directory: PathBuf, options: Options },
}

/// The floors by the name a person types.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    RelayLatency,
    RelayThroughput,
    Fanout,
    Payload,
    Connect,
    Sync,
    SyncLatency,
}

impl Workload {
    const ALL: [Self; 7] = [
        Self::RelayLatency,
        Self::RelayThroughput,
        Self::Fanout,
        Self::Payload,
        Self::Connect,
        Self::Sync,
        Self::SyncLatency,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RelayLatency => "relay-latency",
            Self::RelayThroughput => "relay-throughput",
            Self::Fanout => "fanout",
            Self::Payload => "payload",
            Self::Connect => "connect",
            Self::Sync => "sync",
            Self::SyncLatency => "sync-latency",
        }
    }

    /// The options that mean something here beside `COMMON`. Others are refused, not ignored.
    fn own_options(self) -> &'static [&'static str] {
        match self {
            Self::RelayLatency | Self::Connect => &[],
            Self::RelayThroughput => &["--clients", "--depth", "--processes"],
            Self::Fanout => &["--subscribers", "--size", "--batch"],
            Self::Payload => &["--size", "--window"],
            Self::Sync | Self::SyncLatency => &["--size"],
        }
    }

    /// One to two seconds, and enough operations for a steady p99.
    fn defaults(self) -> Options {
        let options = Options::base();
        match self {
            Self::RelayLatency => Options { count: 50_000, warmup: 2_000, ..options },
            Self::RelayThroughput => Options { warmup: 5_000, ..options },
            Self::Fanout => Options { warmup: 100_000, size: 64, ..options },
            Self::Payload => Options { warmup: 64, size: 1 << 20, ..options },
            Self::Connect => Options { count: 20_000, warmup: 200, ..options },
            Self::Sync | Self::SyncLatency => Options { warmup: 20, size: 128, ..options },
        }
    }
}

/// The part one process plays. Only this program starts itself with one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    RelayBlocking,
    RelayCalls,
    RelayFanout,
    RelayStream,
    Server,
    Subscriber,
    Sink,
    LatencyClient,
    ConnectClient,
    WindowClient,
    Publisher,
    PayloadClient,
}

impl Role {
    const ALL: [Self; 12] = [
        Self::RelayBlocking,
        Self::RelayCalls,
        Self::RelayFanout,
        Self::RelayStream,
        Self::Server,
        Self::Subscriber,
        Self::Sink,
        Self::LatencyClient,
        Self::ConnectClient,
        Self::WindowClient,
        Self::Publisher,
        Self::PayloadClient,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RelayBlocking => "relay-blocking",
            Self::RelayCalls => "relay-calls",
            Self::RelayFanout => "relay-fanout",
            Self::RelayStream => "relay-stream",
            Self::Server => "server",
            Self::Subscriber => "subscriber",
            Self::Sink => "sink",
            Self::LatencyClient => "latency-client",
            Self::ConnectClient => "connect-client",
            Self::WindowClient => "window-client",
            Self::Publisher => "publisher",
            Self::PayloadClient => "payload-client",
        }
    }
}

/// How large and how long one run is.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The CPU all processes share, or wherever the scheduler puts them.
    pub(crate) pin: Option<usize>,
    /// The measured phase ends after this many operations of a front, or
    pub(crate) count: u64,
    /// after this time, whichever is first.
    pub(crate) time: Duration,
    /// Operations of a front before the measured phase.
    pub(crate) warmup: u64,
    pub(crate) clients: usize,
    /// Processes that share the clients; divides `clients`. Without it, one for each.
    pub(crate) processes: usize,
    /// Calls in flight for each client.
    pub(crate) depth: usize,
    pub(crate) subscribers: usize,
    /// Bytes of an event or of a payload.
    pub(crate) size: usize,
    /// Events in one write of the publisher.
    pub(crate) batch: usize,
    /// Payloads on the way at the same time.
    pub(crate) window: usize,
}

struct Bounds {
    name: &'static str,
    minimum: u64,
    maximum: u64,
    meaning: &'static str,
}

const fn bounds(name: &'static str, minimum: u64, maximum: u64, meaning: &'static str) -> Bounds {
    Bounds { name, minimum, maximum, meaning }
}

const SECONDS_MAX: f64 = 60.0;
const COMMON: [&str; 4] = ["--pin", "--count", "--warmup", "--seconds"];
const NUMBERS: [Bounds; 10] = [
    bounds("--pin", 0, 1023, "run every process on this CPU"),
    bounds("--count", 1, 1_000_000_000, "end the measured phase after this many operations of a front"),
    bounds("--warmup", 0, 10_000_000, "operations of a front before the measured phase"),
    bounds("--clients", 1, 64, "relay-throughput: calling connections"),
    bounds("--processes", 1, 64, "relay-throughput: processes that share them evenly; default one each"),
    bounds("--depth", 1, 1024, "relay-throughput: calls in flight for each client"),
    bounds("--subscribers", 1, 64, "fanout: subscribing processes"),
    bounds("--size", MESSAGE as u64, 16 << 20, "fanout, payload, sync: bytes of one message"),
    bounds("--batch", 1, 4096, "fanout: events in one write of the publisher"),
    bounds("--window", 1, 64, "payload: payloads on the way at once"),
];

impl Options {
    fn base() -> Self {
        Self {
            pin: None,
            count: 1_000_000_000,
            time: Duration::from_millis(1_500),
            warmup: 0,
            clients: 1,
            processes: 0,
            depth: 64,
            subscribers: 10,
            size: MESSAGE,
            batch: 64,
            window: 4,
        }
    }

    fn set(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        if name == "--seconds" {
            let seconds =
                text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0 && *seconds <= SECONDS_MAX);
            let seconds = seconds.ok_or_else(|| {
                Failure::new(format!("--seconds {text}: must be above 0 and at most {SECONDS_MAX}"))
            })?;
            self.time = Duration::from_secs_f64(seconds);
            return Ok(());
        }
        let bounds = NUMBERS
            .iter()
            .find(|bounds| bounds.name == name)
            .ok_or_else(|| Failure::new(format!("unknown option {name}")))?;
        let (minimum, maximum) = (bounds.minimum, bounds.maximum);
        let number = text
            .parse::<u64>()
            .ok()
            .filter(|number| (minimum..=maximum).contains(number))
            .ok_or_else(|| Failure::new(format!("{name} {text}: must be {minimum} to {maximum}")))?;
        // All maxima are far below 2^32, so the conversions to usize are exact.
        match name {
            "--pin" => self.pin = Some(number as usize),
            "--count" => self.count = number,
            "--warmup" => self.warmup = number,
            "--clients" => self.clients = number as usize,
            "--processes" => self.processes = number as usize,
            "--depth" => self.depth = number as usize,
            "--subscribers" => self.subscribers = number as usize,
            "--size" => self.size = number as usize,
            "--batch" => self.batch = number as usize,
            "--window" => self.window = number as usize,
            other => return Err(Failure::new(format!("unknown option {other}"))),
        }
        Ok(())
    }

    /// The same options for a process this one starts. Pinning is inherited and not repeated.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let pairs: [(&str, String); 10] = [
            ("--count", self.count.to_string()),
            ("--warmup", self.warmup.to_string()),
            ("--seconds", self.time.as_secs_f64().to_string()),
            ("--clients", self.clients.to_string()),
            ("--processes", self.processes.to_string()),
            ("--depth", self.depth.to_string()),
            ("--subscribers", self.subscribers.to_string()),
            ("--size", self.size.to_string()),
            ("--batch", self.batch.to_string()),
            ("--window", self.window.to_string()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.into(), value.into()]).collect()
    }
}

/// The word that introduces a role on the command line of a started process.
pub(crate) const ROLE: &str = "role";

pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, Failure> {
    let first = arguments.next().ok_or_else(|| Failure::new("which floor?"))?;
    if matches!(first.as_str(), "help" | "--help" | "-h") {
        return Ok(Command::Help);
    }
    if first == ROLE {
        return parse_role(arguments);
    }
    let workload = Workload::ALL
        .into_iter()
        .find(|workload| workload.name() == first)
        .ok_or_else(|| Failure::new(format!("there is no floor {first}")))?;
    let mut options = workload.defaults();
    while let Some(name) = arguments.next() {
        if matches!(name.as_str(), "--help" | "-h") {
            return Ok(Command::Help);
        }
        if !COMMON.contains(&name.as_str()) && !workload.own_options().contains(&name.as_str()) {
            return Err(Failure::new(format!("{first} has no option {name}")));
        }
        options.set(&name, &value_of(&name, &mut arguments)?)?;
    }
    if options.processes == 0 {
        options.processes = options.clients;
    }
    if !options.clients.is_multiple_of(options.processes) {
        let (clients, processes) = (options.clients, options.processes);
        return Err(Failure::new(format!("{processes} processes cannot share {clients} clients evenly")));
    }
    Ok(Command::Measure { workload, options })
}

fn parse_role(mut arguments: impl Iterator<Item = String>) -> Result<Command, Failure> {
    let name = arguments.next().unwrap_or_default();
    let role = Role::ALL
        .into_iter()
        .find(|role| role.name() == name)
        .ok_or_else(|| Failure::new(format!("there is no role {name}")))?;
    let directory = PathBuf::from(value_of(ROLE, &mut arguments)?);
    let mut options = Options::base();
    while let Some(name) = arguments.next() {
        options.set(&name, &value_of(&name, &mut arguments)?)?;
    }
    Ok(Command::Act { role, directory, options })
}

fn value_of(name: &str, arguments: &mut impl Iterator<Item = String>) -> Result<String, Failure> {
    arguments.next().ok_or_else(|| Failure::new(format!("{name} needs a value")))
}

pub(crate) fn usage() -> String {
    let floors = Workload::ALL.map(Workload::name).join(" | ");
    let mut text = format!("usage: ipc-floor {floors} [OPTION VALUE]...\n");
    for bounds in &NUMBERS {
        let range = format!("{} to {}", bounds.minimum, bounds.maximum);
        text.push_str(&format!("  {:<14} {:<22} {}\n", bounds.name, range, bounds.meaning));
    }
    let range = format!("up to {SECONDS_MAX}");
    text.push_str(&format!("  {:<14} {:<22} end the measured phase after this time", "--seconds", range));
    text
}
