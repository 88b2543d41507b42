//! `lock NAME [-- CMD]`.

use super::holding::{self, What};
use crate::args::{Globals, LockArgs};
use crate::error::Failure;
use crate::interrupt::Interrupts;
use crate::output::Output;

/// Holds a lock while the command runs, or until standard input closes.
pub(crate) async fn run(
    args: LockArgs,
    globals: &Globals,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    let client = holding::begin(&args.name, &args.hold, globals, &mut interrupts).await?;
    let name = args.name.as_str();
    let take = |options| async {
        if args.shared { client.lock_shared(name, options).await } else { client.lock(name, options).await }
    };
    holding::hold(What { noun: "lock", name }, args.hold, output, interrupts, take).await
}
