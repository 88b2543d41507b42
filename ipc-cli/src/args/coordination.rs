//! The options of the commands that coordinate.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ipc_core::client::Durability;

use super::options::{PayloadAs, hold_delay, ttl, wait};

/// How something is held.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// How long to wait for it; 0 tries once [default: without limit]
    #[arg(long, value_name = "DUR", value_parser = wait)]
    pub(crate) wait: Option<Duration>,
    /// Lose it when it could not be renewed for so long [default: bound to this process alone]
    #[arg(long, value_name = "DUR", value_parser = ttl)]
    pub(crate) ttl: Option<Duration>,
    /// Keep it closed to everybody for so long when it is lost, and not given back [default: 0]
    #[arg(long, value_name = "DUR", value_parser = hold_delay)]
    pub(crate) delay: Option<Duration>,
    /// What it survives: with os or disk it is taken up again after a restart of the daemon [default: disk]
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) durability: Option<DurabilityArg>,
    /// Do not take it: give back what you held of it before the daemon was started again, and nobody has taken up yet
    #[arg(long, conflicts_with_all = ["wait", "ttl", "delay", "durability", "command"])]
    pub(crate) release: bool,
    /// Runs while it is held, with IPC_FENCING_TOKEN in its environment, and gets SIGTERM when it is lost
    #[arg(value_name = "CMD", last = true, value_hint = clap::ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

/// `lock`
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// The lock, such as deploy/web
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Together with others who share it
    #[arg(long, conflicts_with = "release")]
    pub(crate) shared: bool,
    #[command(flatten)]
    pub(crate) hold: HoldArgs,
}

/// `semaphore`
#[derive(Debug, Args)]
pub(crate) struct SemaphoreArgs {
    /// The semaphore, such as downloads
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// How many may hold a permit at once; everybody says the same
    #[arg(long, value_name = "N", required_unless_present = "release", conflicts_with = "release")]
    pub(crate) permits: Option<NonZeroU32>,
    #[command(flatten)]
    pub(crate) hold: HoldArgs,
}

/// `elect`
#[derive(Debug, Args)]
pub(crate) struct ElectArgs {
    /// The election, such as scheduler
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What observers are shown: a literal, '-' for standard input, or '@FILE'
    #[arg(long, value_name = "V", allow_hyphen_values = true, conflicts_with = "release")]
    pub(crate) value: Option<OsString>,
    /// Do not stand for it: show who leads, now and whenever that changes
    #[arg(long, conflicts_with_all = ["value", "wait", "ttl", "delay", "durability", "release", "command"])]
    pub(crate) observe: bool,
    #[command(flatten)]
    pub(crate) hold: HoldArgs,
}

/// `barrier`
#[derive(Debug, Args)]
pub(crate) struct BarrierArgs {
    /// The barrier, such as ready
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// How many have to arrive; everybody says the same
    #[arg(long, value_name = "N")]
    pub(crate) parties: NonZeroU32,
    /// How long to wait for the others; 0 passes only as the last [default: without limit]
    #[arg(long, value_name = "DUR", value_parser = wait)]
    pub(crate) wait: Option<Duration>,
}

/// `lease`
#[derive(Debug, Args)]
pub(crate) struct LeaseArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: LeaseDo,
}

/// The verbs of `lease`.
#[derive(Debug, Subcommand)]
pub(crate) enum LeaseDo {
    /// Take a lease that outlives this command, and print its id
    Grant {
        /// It ends after so long unless it is renewed
        #[arg(long, value_name = "DUR", value_parser = ttl)]
        ttl: Duration,
        /// What it survives; after a restart of the daemon its time begins anew [default: disk]
        #[arg(long, value_name = "LEVEL", value_enum)]
        durability: Option<DurabilityArg>,
    },
    /// Give a lease its full time again
    Renew {
        /// The id that `grant` printed
        #[arg(value_name = "ID")]
        id: u64,
    },
    /// End a lease
    Revoke {
        /// The id that `grant` printed
        #[arg(value_name = "ID")]
        id: u64,
    },
    /// Show the leases
    List,
}

/// `kv`
#[derive(Debug, Args)]
pub(crate) struct KvArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: KvDo,
}

/// What has to be so for a key to change.
#[derive(Debug, Args)]
pub(crate) struct KvChange {
    /// Only if its last change has this revision
    #[arg(long, value_name = "N", conflicts_with = "if_absent")]
    pub(crate) if_revision: Option<u64>,
    /// Only if it does not exist
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// Only if nobody has got the lock since that token was given
    #[arg(long, value_name = "LOCK:TOKEN")]
    pub(crate) fence: Option<String>,
    /// What the change is to survive at least [default: disk]
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) durability: Option<DurabilityArg>,
}

/// What a change, or something held, survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// Nothing: it is gone with the daemon.
    Memory,
    /// The end of the daemon.
    Os,
    /// The loss of power.
    Disk,
}

impl From<DurabilityArg> for Durability {
    fn from(level: DurabilityArg) -> Self {
        match level {
            DurabilityArg::Memory => Durability::Memory,
            DurabilityArg::Os => Durability::Os,
            DurabilityArg::Disk => Durability::Disk,
        }
    }
}

/// Which keys.
#[derive(Debug, Args)]
pub(crate) struct KvWhich {
    /// One key [default: all]
    #[arg(value_name = "KEY", conflicts_with = "prefix")]
    pub(crate) key: Option<String>,
    /// Every key that begins so
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,
}

/// What a transaction does. Each key is changed at most once; its condition is that of the key, changed or not.
#[derive(Debug, Args)]
pub(crate) struct KvTxn {
    /// Put a key; VALUE is a literal, '-' for standard input, or '@FILE'
    #[arg(long, value_name = "KEY=VALUE", required_unless_present = "delete")]
    pub(crate) put: Vec<OsString>,
    /// Delete a key
    #[arg(long, value_name = "KEY")]
    pub(crate) delete: Vec<String>,
    /// Only if the last change of the key has this revision
    #[arg(long, value_name = "KEY=N")]
    pub(crate) if_revision: Vec<String>,
    /// Only if the key does not exist
    #[arg(long, value_name = "KEY")]
    pub(crate) if_absent: Vec<String>,
    /// Only if nobody has got the lock since that token was given
    #[arg(long, value_name = "LOCK:TOKEN")]
    pub(crate) fence: Option<String>,
    /// What the changes are to survive at least [default: disk]
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub(crate) durability: Option<DurabilityArg>,
}

/// The verbs of `kv`.
#[derive(Debug, Subcommand)]
pub(crate) enum KvDo {
    /// Put a key
    Put {
        /// The key, such as config/color
        #[arg(value_name = "KEY")]
        key: String,
        /// A literal, '-' for standard input, or '@FILE'; empty when not given
        #[arg(value_name = "PAYLOAD", allow_negative_numbers = true)]
        payload: Option<OsString>,
        /// What the payload is [default: text if it is UTF-8, else bytes]
        #[arg(long = "as", value_name = "KIND", value_enum)]
        kind: Option<PayloadAs>,
        #[command(flatten)]
        change: KvChange,
        /// The key ends after so long
        #[arg(long, value_name = "DUR", value_parser = ttl)]
        ttl: Option<Duration>,
        /// The key ends with this lease
        #[arg(long, value_name = "ID")]
        lease: Option<u64>,
    },
    /// Print the value of a key, byte for byte
    Get {
        /// The key
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Delete a key
    Delete {
        /// The key
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        change: KvChange,
    },
    /// Change several keys together, or none of them
    Txn {
        #[command(flatten)]
        txn: KvTxn,
    },
    /// Show keys with their values
    List {
        #[command(flatten)]
        which: KvWhich,
        /// Every key from this one on
        #[arg(long, value_name = "KEY", conflicts_with_all = ["key", "prefix"])]
        from: Option<String>,
        /// Every key before this one
        #[arg(long, value_name = "KEY", conflicts_with_all = ["key", "prefix"])]
        to: Option<String>,
    },
    /// Show each change until interrupted, beginning with what is there; or run CMD for each
    Watch {
        #[command(flatten)]
        which: KvWhich,
        /// Begin with the changes from this revision on
        #[arg(long, value_name = "N")]
        from_revision: Option<u64>,
        /// Gets the value on standard input, and IPC_KEY, IPC_REVISION and IPC_CHANGE in its environment
        #[arg(value_name = "CMD", last = true, value_hint = clap::ValueHint::CommandWithArguments)]
        command: Vec<OsString>,
    },
    /// Show the changes that are remembered
    History {
        #[command(flatten)]
        which: KvWhich,
        /// Begin with this revision
        #[arg(long, value_name = "N")]
        from_revision: Option<u64>,
    },
}
