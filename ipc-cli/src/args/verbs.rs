//! The commands and their own options. A command whose feature does not exist is not here either.

use std::ffi::OsString;
use std::num::{NonZeroU16, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::coordination::{BarrierArgs, ElectArgs, KvArgs, LeaseArgs, LockArgs, SemaphoreArgs};
use super::options::{PayloadAs, duration};
use super::queue::QueueArgs;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See the bus at work: starts a daemon of its own and walks through what it does, in a few seconds
    Demo,
    /// Measure the round trip to the daemon
    Ping(PingArgs),
    /// Show the daemon: version, addresses, limits, counters
    Status(StatusArgs),
    /// Show what is on the bus
    List(ListArgs),
    /// Show a service: its methods and who offers it
    Describe(DescribeArgs),
    /// Show every socket of the daemon, with addresses, options and queued bytes
    Sockets,
    /// Call a method and print the reply, byte for byte
    Call(CallArgs),
    /// Offer a method: each call runs a command, whose output is the reply
    Serve(ServeArgs),
    /// Publish an event
    Publish(PublishArgs),
    /// Receive events until interrupted
    Subscribe(SubscribeArgs),
    /// Watch what crosses the bus: calls, replies and events, without what is in them
    Monitor(MonitorArgs),
    /// Hold a lock while a command runs, or until standard input closes
    Lock(LockArgs),
    /// Hold a permit of a semaphore while a command runs, or until standard input closes
    Semaphore(SemaphoreArgs),
    /// Lead an election while a command runs, or until standard input closes; or see who leads
    Elect(ElectArgs),
    /// Wait until as many as needed have arrived
    Barrier(BarrierArgs),
    /// Leases that end unless they are renewed
    Lease(LeaseArgs),
    /// Keys and their values, kept on disk unless something else is asked for
    Kv(KvArgs),
    /// Work that is put, taken and acknowledged
    Queue(QueueArgs),
    /// Ports whose bytes go to a service, and servers of the network that become services
    Bridge(BridgeArgs),
    /// Copy what the daemon keeps on disk to a new file, while it runs; `ipc-daemon --restore` takes it
    Backup(BackupArgs),
    /// Show who uses what of all that is limited, and what was refused
    Quota,
    /// Who may do what, and why
    Policy(PolicyArgs),
    /// Measure the bus beside the cheapest programs that move the same bytes
    Bench(BenchArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
}

/// `ping`
#[derive(Debug, Args)]
pub(crate) struct PingArgs {
    /// Retry until the daemon answers or --timeout has passed
    #[arg(long)]
    pub(crate) wait: bool,
    /// How many round trips
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) count: NonZeroU64,
}

/// `status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Show it again and again until interrupted, each time after DUR
    #[arg(long, value_name = "DUR", num_args = 0..=1, default_missing_value = "1s", value_parser = duration)]
    pub(crate) watch: Option<Duration>,
}

/// `list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// What to show
    #[arg(value_enum, default_value_t = ListWhat::All)]
    pub(crate) what: ListWhat,
}

/// What `list` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListWhat {
    /// Services and who offers them.
    Services,
    /// Connections and who opened them.
    Peers,
    /// Topics somebody subscribes to.
    Topics,
    /// Locks, semaphores, elections and barriers.
    Locks,
    /// Work queues.
    Queues,
    /// Everything.
    All,
}

impl ListWhat {
    /// The word the daemon's `list` method takes.
    pub(crate) fn word(self) -> &'static str {
        match self {
            ListWhat::Services => "services",
            ListWhat::Peers => "peers",
            ListWhat::Topics => "topics",
            ListWhat::Locks => "locks",
            ListWhat::Queues => "queues",
            ListWhat::All => "all",
        }
    }
}

/// `describe`
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The service, such as demo.title
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
}

/// `call`
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The service, such as demo.title
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// The method, such as title
    #[arg(value_name = "METHOD")]
    pub(crate) method: String,
    /// A literal, '-' for standard input, or '@FILE'; empty when not given
    #[arg(value_name = "PAYLOAD", allow_negative_numbers = true)]
    pub(crate) payload: Option<OsString>,
    /// Send it and do not wait for an answer
    #[arg(long)]
    pub(crate) oneway: bool,
    /// How long the service may take [default: --timeout]
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub(crate) deadline: Option<Duration>,
    /// Only if nobody has got the lock since its holder was given this token
    #[arg(long, value_name = "LOCK:TOKEN")]
    pub(crate) fence: Option<String>,
    /// What the payload is [default: text if it is UTF-8, else bytes]
    #[arg(long = "as", value_name = "KIND", value_enum)]
    pub(crate) kind: Option<PayloadAs>,
}

/// `serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The service, such as demo.title
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// The method, such as title
    #[arg(value_name = "METHOD")]
    pub(crate) method: String,
    /// How many commands may run at once; further calls wait
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
    /// Share the name with other instances, which then share the calls
    #[arg(long)]
    pub(crate) group: bool,
    /// The command and its arguments: payload on its standard input, reply from its standard output
    #[arg(value_name = "CMD", required = true, last = true, value_hint = clap::ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

/// `publish`
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The topic, such as sensor.kitchen.temperature
    #[arg(value_name = "TOPIC")]
    pub(crate) topic: String,
    /// A literal, '-' for standard input, or '@FILE'; empty when not given
    #[arg(value_name = "PAYLOAD", allow_negative_numbers = true)]
    pub(crate) payload: Option<OsString>,
    /// How many times
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) count: NonZeroU64,
    /// What the payload is [default: text if it is UTF-8, else bytes]
    #[arg(long = "as", value_name = "KIND", value_enum)]
    pub(crate) kind: Option<PayloadAs>,
}

/// `subscribe`
#[derive(Debug, Args)]
pub(crate) struct SubscribeArgs {
    /// Topics; '*' stands for one part, a last '>' for all the rest
    #[arg(value_name = "FILTER", required = true)]
    pub(crate) filters: Vec<String>,
    /// End after this many events
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<NonZeroU64>,
    /// What the daemon does when this end does not read fast enough
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = OnSlowArg::DropOldest)]
    pub(crate) on_slow: OnSlowArg,
    /// Payloads alone: text and JSON end with a newline, bytes stay as they are
    #[arg(long)]
    pub(crate) raw: bool,
}

/// `monitor`
#[derive(Debug, Args)]
pub(crate) struct MonitorArgs {
    /// Services, topics, locks, keys and queues that match; '*' stands for one part, a last '>' for all the rest
    #[arg(long = "match", value_name = "FILTER", default_value = ">")]
    pub(crate) matching: String,
    /// End after this many lines
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<NonZeroU64>,
}

/// What the daemon does for a subscriber that does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnSlowArg {
    /// The oldest queued events go, and a gap report says which.
    DropOldest,
}

/// `backup`
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file; it must not be there yet, and is the daemon's own user's
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) file: PathBuf,
}

/// `bridge`
#[derive(Debug, Args)]
pub(crate) struct BridgeArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: BridgeDo,
}

/// The verbs of `bridge`.
#[derive(Debug, Subcommand)]
pub(crate) enum BridgeDo {
    /// Show the ports and the forwards, with live figures
    List,
    /// Open a port, such as tcp:127.0.0.1:7000=demo.title/title,framing=line
    Expose {
        // Not a doc comment: the brackets would be taken for links.
        #[arg(
            value_name = "SPEC",
            help = "tcp:ADDR:PORT=SERVICE/METHOD[,framing=chunk|line][,idle=DUR] or udp:ADDR:PORT=SERVICE/METHOD"
        )]
        spec: String,
    },
    /// Make a server of the network a service with the method send, such as demo.weather=tcp:127.0.0.1:9000,framing=line
    Forward {
        // As above.
        #[arg(
            value_name = "SPEC",
            help = "SERVICE=tcp:HOST:PORT[,framing=chunk|line|until-close] or SERVICE=udp:HOST:PORT"
        )]
        spec: String,
    },
    /// Close a port or a forward
    Remove {
        /// The id that `list`, `expose` and `forward` show
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// `policy`
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: PolicyDo,
}

/// The verbs of `policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyDo {
    /// Show which rule decides
    Explain(ExplainArgs),
}

/// `policy explain`
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// user:NAME or uid:N, with further gid:N, group:NAME, service:NAME behind commas, or remote:PRINCIPAL
    #[arg(value_name = "WHO")]
    pub(crate) who: String,
    /// own, resolve, call, publish, subscribe, monitor, administer or coordinate
    #[arg(value_name = "ACTION")]
    pub(crate) action: String,
    /// SERVICE/METHOD for call, else a name; a filter for subscribe
    #[arg(value_name = "WHAT")]
    pub(crate) what: String,
}

/// `bench`
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to measure [default: everything]
    #[arg(value_enum)]
    pub(crate) what: Option<BenchWhat>,
    /// Rounds of floor and bus, one after the other; the medians are shown
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(NonZeroU16))]
    pub(crate) rounds: NonZeroU16,
    /// How long each measurement of a round lasts
    #[arg(long, value_name = "DUR", default_value = "500ms", value_parser = duration)]
    pub(crate) duration: Duration,
}

/// What `bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchWhat {
    /// One call at a time.
    Latency,
    /// Many calls in flight.
    Throughput,
    /// One publisher, ten subscribers.
    Fanout,
    /// Payloads of 1 MiB.
    Payload,
    /// Connect, hello, one call, close.
    Connect,
    /// Locks taken, given back, and passed on.
    Coordination,
}

/// `completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}
