//! What was kept, given to the broker at the start; and what is to be kept from there on.

use ipc_core::transport::clock;
use tokio::sync::mpsc::Receiver;

use super::startup::Holdings;
use crate::broker::{Broker, Fault, Output};
use crate::bus::Bus;
use crate::failure::{Exit, Failure};
use crate::store::{StoreError, Stored, Writer};

/// Gives the broker what was kept, and has it reserve what it needs before anybody comes; then the store has a thread.
///
/// # Errors
/// 74 when what was kept is damaged, or the store has failed. A full disk is no error: it may pass.
pub(super) fn start(
    broker: &mut Broker,
    holdings: &mut Holdings,
) -> Result<(Writer, Receiver<Stored>), Failure> {
    let Some(mut store) = holdings.store.take() else {
        return Err(Failure::new(Exit::Io, "the store was taken already"));
    };
    let place = store.place().to_string();
    let now = clock::now();
    store.read(|key, value| broker.restore(now, key, value).map_err(Trouble::Record)).map_err(|trouble| {
        match trouble {
            Trouble::Store(error) => error.at(&place),
            Trouble::Record(error) => error.into(),
        }
    })?;
    broker.open_store(clock::now())?;
    while let Some(output) = broker.poll_output() {
        if output == Output::Commit
            && let Some(commit) = broker.take_commit()
        {
            let result = store.commit(&commit.writes);
            if let Err(Fault::Dead(why)) = result {
                return Err(Failure::new(Exit::Io, why));
            }
            broker.handle_stored(clock::now(), commit.sequence, result);
        }
    }
    Writer::start(store).map_err(|error| Failure::io("start the thread that writes the store", error))
}

/// What can be wrong with what was kept.
enum Trouble {
    Store(StoreError),
    Record(ipc_core::Error),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Trouble::Store(error)
    }
}

/// Tells the broker what became of its commits, until the store has ended.
pub(super) async fn tell(bus: Bus, mut stored: Receiver<Stored>) {
    while let Some(Stored { sequence, result }) = stored.recv().await {
        bus.turn(|broker, now| broker.handle_stored(now, sequence, result));
    }
    bus.turn(|broker, now| broker.handle_store_end(now));
}
