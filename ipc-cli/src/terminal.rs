//! SHELL. Whose the terminal is: a command's that runs for us, as in a shell, and ours again when it has ended or was stopped.
//!
//! A process of another group than the one in the foreground is stopped when it reads the terminal (tcsetpgrp(3),
//! credentials(7)). A command has a group of its own, so that all of it can be ended.

use std::io::IsTerminal;

use nix::sys::signal::Signal::SIGTTOU;
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::{Pid, getpgid, getpgrp};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// Gives this process's own group the terminal on standard input, if it is that of the group of this process's parent. Not when
/// the output goes elsewhere: a pager may be there, which belongs to the parent's group and needs the terminal first.
pub(crate) fn take_from(parent: Pid) {
    if std::io::stdout().is_terminal() && getpgid(Some(parent)).is_ok_and(is_in_front) {
        give(getpgrp());
    }
}

/// Takes the terminal back from that group. Says whether it had it.
pub(crate) fn take_back(from: Pid) -> bool {
    let had = is_in_front(from);
    if had {
        give(getpgrp());
    }
    had
}

/// Gives the terminal to that group, if it is ours. Says whether it was.
pub(crate) fn pass_on(to: Pid) -> bool {
    let had = is_in_front(getpgrp());
    if had {
        give(to);
    }
    had
}

fn give(to: Pid) {
    // A group in the background that gives the terminal away is stopped by this signal, unless it is blocked.
    let before = SigSet::from_iter([SIGTTOU]).thread_swap_mask(SigmaskHow::SIG_BLOCK);
    // A terminal that is gone belongs to nobody.
    let _gone = tcsetpgrp(std::io::stdin(), to);
    if let Ok(before) = before {
        // It was valid until this moment.
        let _cannot_fail = before.thread_set_mask();
    }
}

/// Whether standard input is a terminal that is that group's.
fn is_in_front(group: Pid) -> bool {
    tcgetpgrp(std::io::stdin()).is_ok_and(|front| front == group)
}
