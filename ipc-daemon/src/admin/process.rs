//! Names of processes, for people: read where it does not hold up the bus.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

/// Longest name the kernel keeps, with its line end, in bytes.
const NAME_MAX_BYTES: u64 = 64;

/// The name of each process that still has one. A number may have been given to another process since.
pub(super) type Names = BTreeMap<u32, String>;

/// Reads the names of `pids`, on a thread for what may take its time: with thousands of peers it does.
pub(super) async fn names(pids: Vec<u32>) -> Names {
    let read = move || pids.into_iter().filter_map(|pid| Some((pid, name(pid)?))).collect();
    // Nothing in there panics; without names the rest is still worth showing.
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
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
}
