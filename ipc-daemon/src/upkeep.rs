//! SHELL. What is done with a store while no daemon runs on it: it is checked, repaired, or replaced by a backup.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ipc_core::id::Epoch;
use ipc_core::limits::Limits;
use ipc_core::transport::{Environment, clock};

use crate::args::Args;
use crate::broker::{self, Broker, Policy, RecordKind, after_loss, highest_number};
use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::shell::State;
use crate::store::{Found, Records, StateFile, look, make};

/// Where the numbers of a later life begin when it is not known how many were reserved, or something is damaged: so far above
/// the highest that is known as nobody gets by giving them. There are 2^53 of them.
const LEAP: u64 = 1 << 45;
/// Findings that are named one by one.
const SHOWN_MAX: usize = 20;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upkeep {
    /// `--check-store`.
    Check,
    /// `--repair`.
    Repair,
    /// `--restore FILE`.
    Restore(PathBuf),
}

impl Upkeep {
    /// What the command line asks for.
    pub(crate) fn of(args: &Args) -> Option<Self> {
        match &args.restore {
            Some(backup) => Some(Upkeep::Restore(backup.clone())),
            None if args.repair => Some(Upkeep::Repair),
            None => args.check_store.then_some(Upkeep::Check),
        }
    }
}

/// Looks through the store and says what is in it.
///
/// # Errors
/// 74 with what is damaged; 75 while a daemon runs.
pub(crate) fn check(config: &Config) -> Result<String, Failure> {
    let state = State::take(&Environment::read(), config)?;
    let place = state.store()?;
    let Some(found) = look(&place).map_err(|error| error.at(&place))? else {
        return Ok(format!("{place}: there is no store\n"));
    };
    let contents = describe(&found.records);
    let (_, mut damage) = judge(found);
    if damage.is_empty() {
        return Ok(format!("{place}: sound, {contents}\n"));
    }
    let more = damage.len().saturating_sub(SHOWN_MAX);
    damage.truncate(SHOWN_MAX);
    let mut message = format!("the store {place} is damaged; what can be read of it is {contents}");
    for line in damage {
        message.push_str("\n  ");
        message.push_str(&line);
    }
    if more > 0 {
        // Writing to a string cannot fail.
        let _ = write!(message, "\n  and {more} more");
    }
    Err(Failure::new(Exit::Io, message)
        .with_hint("--repair saves what can be read; --restore FILE puts a backup in its place"))
}

/// Puts a store with everything that can be read in the place of a damaged one.
///
/// # Errors
/// 74 when nothing can be read, or the new one cannot be written; 75 while a daemon runs.
pub(crate) fn repair(config: &Config) -> Result<String, Failure> {
    let state = State::take(&Environment::read(), config)?;
    let place = state.store()?;
    let Some(found) = look(&place).map_err(|error| error.at(&place))? else {
        return Ok(format!("{place}: there is no store\n"));
    };
    let (records, damage) = judge(found);
    if damage.is_empty() {
        return Ok(format!("{place}: sound, {}; nothing was done\n", describe(&records)));
    }
    if records.is_empty() {
        let message = format!("nothing can be read of the store {place}");
        return Err(Failure::new(Exit::Io, message).with_hint(
            "--restore FILE puts a backup in its place; or set it aside and begin with an empty one",
        ));
    }
    let contents = describe(&records);
    // What is damaged may be the last of what was said of the numbers.
    let highest = highest(&records) + LEAP;
    let aside = replace(&place, records, highest, "damaged")?;
    let aside = aside.unwrap_or_default();
    Ok(format!("{place}: made anew with {contents}; the damaged one is {aside}\n"))
}

/// Puts a backup in the place of the store.
///
/// # Errors
/// 74 when the backup is damaged or cannot be read, or the new store cannot be written; 75 while a daemon runs.
pub(crate) fn restore(config: &Config, backup: &Path) -> Result<String, Failure> {
    let state = State::take(&Environment::read(), config)?;
    let place = state.store()?;
    let from = file_at(backup)?;
    let Some(found) = look(&from).map_err(|error| error.at(&from))? else {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Failure::io(format_args!("read the backup {from}"), missing));
    };
    let (mut records, damage) = judge(found);
    if let Some(first) = damage.first() {
        return Err(Failure::new(Exit::Io, format!("the backup {from} is damaged: {first}"))
            .with_hint("take another one; nothing was changed"));
    }
    // Numbers that were given after the backup was made are known only to the store that it replaces.
    let is_sure = |found: &Found| found.damage.is_empty() && has_numbers(&found.records);
    let current = look(&place).ok().flatten().filter(is_sure);
    let current = current.map(|found| highest(&found.records));
    let highest = highest(&records).max(current.unwrap_or_default());
    // What was held when the backup was made others have held since, under higher tokens.
    let of_holders = [RecordKind::Hold, RecordKind::UnpaidClosure, RecordKind::Closure];
    let is_of_holders =
        |kind: u8| RecordKind::from_number(kind).is_some_and(|kind| of_holders.contains(&kind));
    records.retain(|key, _| !key.first().copied().is_some_and(is_of_holders));
    let contents = describe(&records);
    let aside = replace(&place, records, highest + if current.is_some() { 0 } else { LEAP }, "replaced")?;
    let aside = aside.map_or_else(String::new, |aside| format!("; the one before is {aside}"));
    Ok(format!("{place}: restored from {from}, {contents}{aside}\n"))
}

/// What of the records a daemon takes, and what is wrong with the others.
fn judge(found: Found) -> (Records, Vec<String>) {
    let Found { records, mut damage } = found;
    let now = clock::now();
    let mut broker = Broker::new(broker::Config {
        limits: Limits::default(),
        policy: Policy::open(Vec::new()),
        epoch: Epoch(0),
        server: String::new(),
    });
    let mut good = Records::new();
    for (key, value) in records {
        match broker.restore(now, &key, &value) {
            Ok(()) => drop(good.insert(key, value)),
            Err(error) => damage.push(error.message),
        }
    }
    if let Err(error) = broker.open_store(now) {
        damage.push(error.message);
    }
    (good, damage)
}

/// Makes a store with these records, and with numbers above `highest`. Gives the name of the one that was there.
fn replace(
    place: &StateFile,
    mut records: Records,
    highest: u64,
    why: &str,
) -> Result<Option<String>, Failure> {
    for write in after_loss(highest) {
        if let Some(value) = write.value {
            records.insert(write.key, value);
        }
    }
    let failed = |error| Failure::io(format_args!("set the store {place} aside"), error);
    let aside = match place.set_aside(why) {
        Ok(aside) => Some(aside),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    make(place, &records).map_err(|error| error.at(place))?;
    Ok(aside)
}

/// A file anywhere.
fn file_at(path: &Path) -> Result<StateFile, Failure> {
    let failed =
        |error: std::io::Error| Failure::io(format_args!("read the backup {}", path.display()), error);
    let path = std::path::absolute(path).map_err(failed)?;
    let nothing = || failed(std::io::Error::from(std::io::ErrorKind::InvalidInput));
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(nothing());
    };
    let handle = OwnedFd::from(std::fs::File::open(directory).map_err(failed)?);
    Ok(StateFile::new(handle, directory, name))
}

fn highest(records: &Records) -> u64 {
    records.iter().map(|(key, value)| highest_number(key, value)).max().unwrap_or_default()
}

fn has_numbers(records: &Records) -> bool {
    records.keys().any(|key| key.first() == Some(&(RecordKind::Numbers as u8)))
}

/// How many records of which kind there are.
fn describe(records: &Records) -> String {
    let mut counts: BTreeMap<u8, u64> = BTreeMap::new();
    for key in records.keys() {
        *counts.entry(key.first().copied().unwrap_or_default()).or_default() += 1;
    }
    let counts = counts.into_iter().map(|(kind, count)| match RecordKind::from_number(kind) {
        Some(RecordKind::Numbers) => "the numbers".to_owned(),
        Some(RecordKind::Change) => format!("{count} changes of keys"),
        Some(RecordKind::Entry) => format!("{count} entries of work queues"),
        Some(RecordKind::EntryState) => format!("{count} states of such"),
        Some(RecordKind::EntryId) => format!("{count} ids of such"),
        Some(RecordKind::Hold) => format!("{count} holders"),
        Some(RecordKind::UnpaidClosure) => format!("{count} names that stay closed and nobody pays for"),
        Some(RecordKind::Closure) => format!("{count} names that stay closed for a while"),
        None => format!("{count} of kind {kind}"),
    });
    let counts: Vec<String> = counts.collect();
    if counts.is_empty() { "no record".to_owned() } else { counts.join(", ") }
}
