//! How long something lasts in a random run of real processes: a life of a daemon, the work on an entry.

use std::thread::park_timeout;
use std::time::Duration;

/// Lets that much time pass. Nothing is waited for: that it lasts so long, or a little less, is what the run is to try.
pub fn pass(time: Duration) {
    park_timeout(time);
}
