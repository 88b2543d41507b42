//! The thread that writes, so that the bus never waits for the disk.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::failure::StoreError;
use super::salvage::copier;
use super::{StateFile, Store};
use crate::broker::{Commit, Fault};

/// Name of the thread, and of the one that opens the store.
pub(crate) const THREAD_NAME: &str = "store";
/// What is on its way there at most: one commit, one backup, and the word to stop.
const JOBS_MAX: usize = 3;
/// How long the thread looks for the next job before it sleeps. Whoever waits for one commit after the other hands in the next
/// one when it has heard of the last, and being woken takes a good part of what a sync takes.
const LOOK_TIMEOUT: Duration = Duration::from_micros(60);
/// How long the end of the daemon waits for a disk that does not answer.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a commit.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Which one.
    pub(crate) sequence: u64,
    /// Whether it is on the disk.
    pub(crate) result: Result<(), Fault>,
}

#[derive(Debug)]
enum Job {
    Commit(Commit),
    Backup(StateFile, Turn, oneshot::Sender<Result<u64, StoreError>>),
    Stop,
}

/// The right to make a backup. There is one, until it is dropped: backups are not to take the place of commits.
#[derive(Debug)]
struct Turn(Arc<AtomicBool>);

impl Turn {
    fn take(is_taken: &Arc<AtomicBool>) -> Option<Self> {
        (!is_taken.swap(true, Ordering::AcqRel)).then(|| Self(Arc::clone(is_taken)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Where commits are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Inlet {
    jobs: SyncSender<Job>,
    is_backing_up: Arc<AtomicBool>,
}

impl Inlet {
    /// Hands in a commit.
    ///
    /// # Errors
    /// When the thread has ended.
    pub(crate) fn submit(&self, commit: Commit) -> Result<(), Fault> {
        self.jobs.try_send(Job::Commit(commit)).map_err(|_| gone())
    }

    /// Copies the store, as it is at this moment, to a place where nothing is, and gives the number of its records. Commits go on
    /// meanwhile.
    ///
    /// # Errors
    /// When something is there, it cannot be read or written, or another backup is under way.
    pub(crate) async fn back_up(&self, to: StateFile) -> Result<u64, StoreError> {
        let failed = |why| StoreError::from(std::io::Error::other(why));
        let ended = || failed("the thread that writes the store has ended");
        let turn = Turn::take(&self.is_backing_up);
        let turn = turn.ok_or_else(|| failed("another backup is under way; try again when it is made"))?;
        let (result, outcome) = oneshot::channel();
        self.jobs.try_send(Job::Backup(to, turn, result)).map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())?
    }
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Writer {
    inlet: Inlet,
    /// Nothing is ever sent here: it ends with the thread.
    running: Receiver<()>,
}

impl Writer {
    /// Starts the thread. What becomes of each commit is received at the other end, which ends with the thread.
    ///
    /// # Errors
    /// When there is no room for another thread.
    pub(crate) fn start(store: Store) -> std::io::Result<(Self, mpsc::Receiver<Stored>)> {
        let (inlet, jobs) = sync_channel(JOBS_MAX);
        let (results, outlet) = mpsc::channel(JOBS_MAX);
        let (is_running, running) = sync_channel(0);
        std::thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || {
            write(store, &jobs, &results);
            drop(is_running);
        })?;
        let inlet = Inlet { jobs: inlet, is_backing_up: Arc::default() };
        Ok((Self { inlet, running }, outlet))
    }

    /// Where commits are handed in.
    pub(crate) fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// Waits until what was handed in is written and the store is closed, but not for ever.
    pub(crate) fn stop(self) {
        // Without a thread, or with one that is stuck, there is nothing to ask for.
        drop(self.inlet.jobs.try_send(Job::Stop));
        if self.running.recv_timeout(STOP_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(
                "the disk does not answer; the store is left as it is, and checked at the next start"
            );
        }
    }
}

fn write(mut store: Store, jobs: &Receiver<Job>, results: &mpsc::Sender<Stored>) {
    let mut log = Log::default();
    while let Ok(job) = next(jobs) {
        let commit = match job {
            Job::Commit(commit) => commit,
            Job::Backup(to, turn, result) => {
                back_up(&store, to, turn, result);
                continue;
            }
            Job::Stop => break,
        };
        let result = store.commit(&commit.writes);
        log.note(&result);
        // Without the bus nobody has to know.
        drop(results.blocking_send(Stored { sequence: commit.sequence, result }));
    }
    if let Err(error) = store.close() {
        tracing::warn!("the store could not be closed: {error}");
    }
}

/// The next job. In the meantime others may have the processor.
fn next(jobs: &Receiver<Job>) -> Result<Job, RecvError> {
    let begun = Instant::now();
    while begun.elapsed() < LOOK_TIMEOUT {
        if let Ok(job) = jobs.try_recv() {
            return Ok(job);
        }
        std::thread::yield_now();
    }
    jobs.recv()
}

/// Has another thread make the copy.
fn back_up(store: &Store, to: StateFile, turn: Turn, result: oneshot::Sender<Result<u64, StoreError>>) {
    let copier = match copier(store, to) {
        Ok(copier) => copier,
        Err(error) => return drop(result.send(Err(error))),
    };
    // Should the thread not start, its end of the channel is gone, which is an answer too. The same name as this one has: what is
    // read there may be damaged.
    let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned());
    let copy = move || {
        let copied = copier();
        // Before it is said: whoever hears of it may ask for the next one.
        drop(turn);
        drop(result.send(copied));
    };
    drop(thread.spawn(copy));
}

/// Says what has become of the store, when that changes: many commits may fail for one reason.
#[derive(Debug, Default)]
struct Log {
    is_full: bool,
    is_dead: bool,
}

impl Log {
    fn note(&mut self, result: &Result<(), Fault>) {
        match result {
            Ok(()) if self.is_full => tracing::warn!("there is room for the store again"),
            Ok(()) => {}
            Err(Fault::Full(why)) if !self.is_full => tracing::warn!("{why}"),
            Err(Fault::Dead(why)) if !self.is_dead => {
                tracing::error!("{why}; nothing is kept on disk until the daemon is started again");
            }
            Err(Fault::Full(_) | Fault::Dead(_)) => {}
        }
        self.is_full = matches!(result, Err(Fault::Full(_)));
        self.is_dead = matches!(result, Err(Fault::Dead(_)));
    }
}

/// What is said when the thread is not there any more.
pub(crate) fn gone() -> Fault {
    Fault::Dead("the thread that writes the store has ended".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_backup_at_a_time_and_a_commit_finds_its_place_beside_it() {
        let (jobs, waiting) = sync_channel(JOBS_MAX);
        let inlet = Inlet { jobs, is_backing_up: Arc::default() };
        let turn = Turn::take(&inlet.is_backing_up).expect("nobody has it");
        assert!(Turn::take(&inlet.is_backing_up).is_none());
        // The thread is busy: nothing is taken out.
        let directory = std::fs::File::open("/").expect("a directory");
        let place = StateFile::new(directory.into(), std::path::Path::new("/"), "backup");
        inlet.jobs.try_send(Job::Backup(place, turn, oneshot::channel().0)).expect("there is room");
        inlet.submit(Commit { sequence: 1, writes: Vec::new() }).expect("there is room");
        inlet.jobs.try_send(Job::Stop).expect("there is room");
        drop(waiting);
        assert!(Turn::take(&inlet.is_backing_up).is_some(), "it goes with what was not done");
    }
}
