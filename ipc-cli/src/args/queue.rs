//! The options of `queue`.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ipc_core::client::Overflow;

use super::coordination::DurabilityArg;
use super::options::{PayloadAs, delay, ttl, wait};

/// `queue`
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: QueueDo,
}

/// What happens to a put when a queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverflowArg {
    /// It is refused.
    Reject,
    /// The oldest entry makes room, and is gone.
    DropOldest,
}

impl From<OverflowArg> for Overflow {
    fn from(overflow: OverflowArg) -> Self {
        match overflow {
            OverflowArg::Reject => Overflow::Reject,
            OverflowArg::DropOldest => Overflow::DropOldest,
        }
    }
}

/// Which queue, and under which lock.
#[derive(Debug, Args)]
pub(crate) struct QueueWhich {
    /// The queue, such as mail/out
    #[arg(value_name = "QUEUE")]
    pub(crate) queue: String,
    /// Only if nobody has got the lock since that token was given
    #[arg(long, value_name = "LOCK:TOKEN")]
    pub(crate) fence: Option<String>,
}

/// `queue put`
#[derive(Debug, Args)]
pub(crate) struct QueuePutArgs {
    /// The queue, such as mail/out
    #[arg(value_name = "QUEUE")]
    pub(crate) queue: String,
    /// A literal, '-' for standard input, or '@FILE'; empty when not given
    #[arg(value_name = "PAYLOAD", allow_negative_numbers = true)]
    pub(crate) payload: Option<OsString>,
    /// What the payload is [default: text if it is UTF-8, else bytes]
    #[arg(long = "as", value_name = "KIND", value_enum)]
    pub(crate) kind: Option<PayloadAs>,
    /// What it is known by: another put with it within the next minutes is a duplicate, and not put again
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Entries with a higher one are taken first
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) priority: u8,
    /// It cannot be taken for so long
    #[arg(long, value_name = "DUR", value_parser = delay)]
    pub(crate) delay: Option<Duration>,
    /// Delivered so often without success, it goes to QUEUE.dead [default: without limit]
    #[arg(long, value_name = "N")]
    pub(crate) max_deliveries: Option<NonZeroU32>,
    /// How many entries may wait in the queue [default: as many as the daemon allows]
    #[arg(long, value_name = "N")]
    pub(crate) max_length: Option<NonZeroU32>,
    /// What happens when as many do
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = OverflowArg::Reject)]
    pub(crate) overflow: OverflowArg,
    /// Only if nobody has got the lock since that token was given
    #[arg(long, value_name = "LOCK:TOKEN")]
    pub(crate) fence: Option<String>,
    /// What the entry is to survive [default: disk]
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) durability: Option<DurabilityArg>,
}

/// `queue take`
#[derive(Debug, Args)]
pub(crate) struct QueueTakeArgs {
    #[command(flatten)]
    pub(crate) which: QueueWhich,
    /// It goes back unless it is acknowledged within this time [default: 30s; with CMD when CMD ends]
    #[arg(long, value_name = "DUR", value_parser = ttl)]
    pub(crate) visibility: Option<Duration>,
    /// An entry that was delivered so often without success goes to QUEUE.dead [default: without limit]
    #[arg(long, value_name = "N")]
    pub(crate) max_deliveries: Option<NonZeroU32>,
    /// How long to wait for an entry [default: not at all]
    #[arg(long, value_name = "DUR", value_parser = wait)]
    pub(crate) wait: Option<Duration>,
    /// Run so many CMDs at a time, one entry each, and go on until nothing is to be taken within --wait
    #[arg(long, value_name = "N", requires = "command", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// When CMD has failed, its entry cannot be taken for so long [default: 0s; with --workers 1s]
    #[arg(long, value_name = "DUR", requires = "command", value_parser = delay)]
    pub(crate) delay: Option<Duration>,
    /// Gets the entry on standard input, and IPC_QUEUE, IPC_ENTRY_ID, IPC_DELIVERY and IPC_DELIVERIES in its environment;
    /// when it succeeds the entry is acknowledged, otherwise it is given back
    #[arg(value_name = "CMD", last = true, value_hint = clap::ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

/// The verbs of `queue`.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueDo {
    /// Put an entry, and print its id
    Put(QueuePutArgs),
    /// Take an entry and print it, byte for byte; or run CMD for it
    Take(QueueTakeArgs),
    /// Say that the work is done
    Ack {
        #[command(flatten)]
        which: QueueWhich,
        /// The delivery that `take` showed
        #[arg(value_name = "DELIVERY")]
        delivery: u64,
    },
    /// Give an entry back
    Nack {
        #[command(flatten)]
        which: QueueWhich,
        /// The delivery that `take` showed
        #[arg(value_name = "DELIVERY")]
        delivery: u64,
        /// It cannot be taken for so long
        #[arg(long, value_name = "DUR", value_parser = delay)]
        delay: Option<Duration>,
        /// Why, for whoever looks at the dead letters
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Show the first entries without taking them
    Peek {
        /// The queue
        #[arg(value_name = "QUEUE")]
        queue: String,
        /// How many at most
        #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100))]
        count: u32,
    },
    /// Count what is in the queue
    Stats {
        /// The queue
        #[arg(value_name = "QUEUE")]
        queue: String,
    },
    /// Throw away everything that nobody is working on
    Purge {
        #[command(flatten)]
        which: QueueWhich,
    },
}
