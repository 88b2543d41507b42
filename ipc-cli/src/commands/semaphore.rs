//! `semaphore NAME --permits N [-- CMD]`, `semaphore NAME --release`.

use super::absent;
use super::holding::{self, What};
use crate::args::{Globals, SemaphoreArgs};
use crate::error::Failure;
use crate::interrupt::Interrupts;
use crate::output::Output;

/// Holds a permit while the command runs, or until standard input closes; or gives those back that nobody has taken up.
pub(crate) async fn run(
    args: SemaphoreArgs,
    globals: &Globals,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    let name = args.name.as_str();
    let what = What { noun: "semaphore", name };
    let Some(permits) = args.permits else {
        return absent::give_back(what, globals, output, interrupts).await;
    };
    let client = holding::begin(name, &args.hold, globals, &mut interrupts).await?;
    let take = |options| client.acquire(name, permits.get(), options);
    holding::hold(what, args.hold, output, interrupts, take).await
}
