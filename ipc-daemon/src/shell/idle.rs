//! Poll before park: looking for work for a moment before the event loop sleeps.
//!
//! To be woken costs far more than to look: after traffic the next frame is often microseconds away. So the loop gives the
//! processor to whoever wants it (`sched_yield`), looks without waiting, first at the socket that was written to last, whose
//! answer comes next most probably, and does so for a moment before it sleeps. When that finds nothing it is tried less and
//! less often, so that slow traffic costs next to nothing; the first time it finds something it is tried every time again.

use core::task::Poll;
use core::time::Duration;
use std::future::poll_fn;

use ipc_core::transport::clock;

use crate::bus::Bus;

/// How long to look before sleeping.
const WINDOW: Duration = Duration::from_micros(50);
/// Most turns of the bus without a look, after looks that found nothing.
const IGNORED_MAX: u32 = 63;

/// Most looks in a row at one socket alone. Then the kernel is asked about all of them, so that two who talk to each other all
/// the time keep nobody else waiting for longer than that.
const ALONE_MAX: u32 = 8;

/// How many turns to go by without a look, learned from what the looks found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Patience(u32);

impl Patience {
    fn found(&mut self, anything: bool) {
        self.0 = if anything { 0 } else { (2 * self.0 + 1).min(IGNORED_MAX) };
    }
}

/// Looks for work after traffic, for as long as the daemon runs.
pub(crate) async fn poll_before_park(bus: Bus) {
    let mut patience = Patience::default();
    loop {
        bus.activity().next(patience.0).await;
        bus.due().set_attended(true);
        let found = look(&bus).await;
        bus.due().set_attended(false);
        patience.found(found);
    }
}

/// Looks until a moment has passed without work. Says whether there was any.
async fn look(bus: &Bus) -> bool {
    let mut found = false;
    let mut turns = bus.activity().turns();
    // When the first of the looks was that have found nothing since there was something.
    let mut since = None;
    let mut alone = 0;
    loop {
        // Before the processor is given to whoever waits for it, unless there is work already; and what peers in this process
        // do for somebody, too.
        bus.write_due();
        if bus.take_mail() {
            after_others().await;
        }
        let is_awaited = bus.are_turns_awaited();
        if !is_awaited {
            std::thread::yield_now();
        }
        if !is_awaited && alone < ALONE_MAX && bus.look_at_awaited() {
            alone += 1;
            after_others().await;
        } else {
            alone = 0;
            tokio::task::yield_now().await;
            bus.call_next();
        }
        if bus.activity().turns() != turns || is_awaited {
            turns = bus.activity().turns();
            since = None;
            found = true;
            continue;
        }
        let now = clock::now();
        if now - *since.get_or_insert(now) > WINDOW {
            bus.write_due();
            return found;
        }
    }
}

/// Lets the tasks run that can. Unlike the runtime's own, this does not ask the kernel about all sockets before.
async fn after_others() {
    let mut is_over = false;
    poll_fn(|context| {
        if core::mem::replace(&mut is_over, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_find_nothing_become_rare_and_one_that_does_makes_them_frequent() {
        let mut patience = Patience::default();
        let ignored: Vec<u32> = (0..8)
            .map(|_| {
                patience.found(false);
                patience.0
            })
            .collect();
        assert_eq!(ignored, [1, 3, 7, 15, 31, 63, 63, 63]);
        patience.found(true);
        assert_eq!(patience, Patience(0));
    }
}
