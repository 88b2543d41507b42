//! The thread that writes, so that the bus never waits for the disk.

use core::time::Duration;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

use tokio::sync::{mpsc, oneshot};

use super::failure::StoreError;
use super::salvage::copier;
use super::{StateFile, Store};
use crate::broker::{Commit, Fault};

/// Name of the thread, and of the one that opens the store.
pub(crate) const THREAD_NAME: &str = "store";
/// Commits on their way there or back; the broker has one at a time.
const JOBS_MAX: usize = 2;
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
    Backup(StateFile, oneshot::Sender<Result<u64, StoreError>>),
    Stop,
}

/// Where commits are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Inlet(SyncSender<Job>);

impl Inlet {
    /// Hands in a commit.
    ///
    /// # Errors
    /// When the thread has ended.
    pub(crate) fn submit(&self, commit: Commit) -> Result<(), Fault> {
        self.0.try_send(Job::Commit(commit)).map_err(|_| gone())
    }
}

impl Inlet {
    /// Copies the store, as it is at this moment, to a place where nothing is, and gives the number of its records. Commits go on
    /// meanwhile.
    ///
    /// # Errors
    /// When something is there, or it cannot be read or written.
    pub(crate) async fn back_up(&self, to: StateFile) -> Result<u64, StoreError> {
        let (result, outcome) = oneshot::channel();
        let busy = || StoreError::from(std::io::Error::other("the store is busy, or its thread has ended"));
        self.0.try_send(Job::Backup(to, result)).map_err(|_| busy())?;
        outcome.await.map_err(|_| busy())?
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
        Ok((Self { inlet: Inlet(inlet), running }, outlet))
    }

    /// Where commits are handed in.
    pub(crate) fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// Waits until what was handed in is written and the store is closed, but not for ever.
    pub(crate) fn stop(self) {
        // Without a thread, or with one that is stuck, there is nothing to ask for.
        drop(self.inlet.0.try_send(Job::Stop));
        if self.running.recv_timeout(STOP_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(
                "the disk does not answer; the store is left as it is, and checked at the next start"
            );
        }
    }
}

fn write(mut store: Store, jobs: &Receiver<Job>, results: &mpsc::Sender<Stored>) {
    let mut log = Log::default();
    while let Ok(job) = jobs.recv() {
        let commit = match job {
            Job::Commit(commit) => commit,
            Job::Backup(to, result) => {
                back_up(&store, to, result);
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

/// Has another thread make the copy.
fn back_up(store: &Store, to: StateFile, result: oneshot::Sender<Result<u64, StoreError>>) {
    let copier = match copier(store, to) {
        Ok(copier) => copier,
        Err(error) => return drop(result.send(Err(error))),
    };
    // Should the thread not start, its end of the channel is gone, which is an answer too. The same name as this one has: what is
    // read there may be damaged.
    let thread = std::thread::Builder::new().name(THREAD_NAME.to_owned());
    drop(thread.spawn(move || drop(result.send(copier()))));
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
