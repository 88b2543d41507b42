//! `semaphore NAME --permits N [-- CMD]`.

use super::holding::{self, What};
use crate::args::{Globals, SemaphoreArgs};
use crate::error::Failure;
use crate::interrupt::Interrupts;
use crate::output::Output;

/// Holds a permit while the command runs, or until standard input closes.
pub(crate) async fn run(
    args: SemaphoreArgs,
    globals: &Globals,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    let client = holding::begin(&args.name, &args.hold, globals, &mut interrupts).await?;
    let (name, permits) = (args.name.as_str(), args.permits.get());
    let take = |options| client.acquire(name, permits, options);
    holding::hold(What { noun: "semaphore", name }, args.hold, output, interrupts, take).await
}
