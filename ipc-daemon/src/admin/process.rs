//! Names of processes, for people: read where it does not hold up the bus, and not again and again.

use core::cell::RefCell;
use core::time::Duration;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use ipc_core::time::Instant;

/// Longest name the kernel keeps, with its line end, in bytes.
const NAME_MAX_BYTES: u64 = 64;
/// How old a name may be that is shown: a number may be another process's then, and a process may have renamed itself.
const AGE_MAX: Duration = Duration::from_secs(1);

/// The name of each process that has one.
pub(super) type Names = BTreeMap<u32, String>;

/// The names that were read within the last second.
#[derive(Debug, Default)]
pub(super) struct Processes(RefCell<Recent>);

#[derive(Debug, Default)]
struct Recent {
    since: Option<Instant>,
    /// None for a process that has no name any more.
    names: BTreeMap<u32, Option<String>>,
}

impl Processes {
    /// The names of these: those that are not known from a moment ago are read, on a thread for what may take its time. With
    /// thousands of them it does, and whoever asks all the time is not to keep a processor busy with it.
    pub(super) async fn names(&self, now: Instant, pids: Vec<u32>) -> Names {
        let (mut found, unknown) = self.0.borrow_mut().known(now, pids);
        if !unknown.is_empty() {
            let read = move || unknown.into_iter().map(|pid| (pid, name(pid))).collect::<Vec<_>>();
            // Nothing in there panics; without names the rest is still worth showing.
            let read = tokio::task::spawn_blocking(read).await.unwrap_or_default();
            found.extend(read.iter().filter_map(|(pid, name)| Some((*pid, name.clone()?))));
            self.0.borrow_mut().names.extend(read);
        }
        found
    }
}

impl Recent {
    /// The names that are known of these, and those of which nothing is.
    fn known(&mut self, now: Instant, pids: Vec<u32>) -> (Names, Vec<u32>) {
        if self.since.is_none_or(|since| now - since >= AGE_MAX) {
            (self.since, self.names) = (Some(now), BTreeMap::new());
        }
        let (known, unknown): (Vec<_>, Vec<_>) =
            pids.into_iter().partition(|pid| self.names.contains_key(pid));
        let named = known.into_iter().filter_map(|pid| Some((pid, self.names.get(&pid)?.clone()?)));
        (named.collect(), unknown)
    }
}

fn name(pid: u32) -> Option<String> {
    let file = File::open(format!("/proc/{pid}/comm")).ok()?;
    let mut bytes = Vec::new();
    file.take(NAME_MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_name_while_it_lives() {
        assert!(name(std::process::id()).is_some_and(|name| !name.is_empty() && !name.ends_with('\n')));
        assert_eq!(name(u32::MAX), None);
    }

    #[tokio::test]
    async fn a_name_is_read_once_in_a_second() {
        let processes = Processes::default();
        let (own, begun) = (std::process::id(), Instant::from_nanos(1));
        let real = processes.names(begun, vec![own, u32::MAX]).await;
        assert_eq!(real.keys().collect::<Vec<_>>(), [&own]);
        // What is remembered is told apart by a name that nobody has.
        let remembered = Names::from([(own, "remembered".to_owned())]);
        processes.0.borrow_mut().names.insert(own, Some("remembered".to_owned()));
        assert_eq!(
            processes.names(begun + (AGE_MAX - Duration::from_nanos(1)), vec![own, 1]).await[&own],
            "remembered"
        );
        assert_eq!(processes.names(begun, vec![own]).await, remembered);
        assert_eq!(processes.names(begun + AGE_MAX, vec![own]).await, real, "a second later");
    }
}
