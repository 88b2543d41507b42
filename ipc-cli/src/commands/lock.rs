//! `lock NAME [-- CMD]`, `lock NAME --release`.

use super::absent;
use super::holding::{self, What};
use crate::args::{Globals, LockArgs};
use crate::error::Failure;
use crate::interrupt::Interrupts;
use crate::output::Output;

/// Holds a lock while the command runs, or until standard input closes; or gives one back that nobody has taken up.
pub(crate) async fn run(
    args: LockArgs,
    globals: &Globals,
    output: &Output,
    mut interrupts: Interrupts,
) -> Result<(), Failure> {
    let name = args.name.as_str();
    let what = What { noun: "lock", name };
    if args.hold.release {
        return absent::give_back(what, globals, output, interrupts).await;
    }
    let client = holding::begin(name, &args.hold, globals, &mut interrupts).await?;
    let take = |options| async {
        if args.shared { client.lock_shared(name, options).await } else { client.lock(name, options).await }
    };
    holding::hold(what, args.hold, output, interrupts, take).await
}
