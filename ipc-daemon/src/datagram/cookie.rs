//! The proof that answers reach a sender: a keyed hash of who it is, which costs no memory until it comes back.

use core::hash::{Hash, Hasher};
use core::time::Duration;

use ipc_core::time::Instant;
use siphasher::sip::SipHasher24;

use super::source::Sender;

/// A cookie is good in the span in which it was made and in the next.
const SPAN: Duration = Duration::from_secs(30);
/// The longest time for which a cookie is good.
pub(super) const COOKIE_LIFE: Duration = Duration::from_secs(60);

const _: () = assert!(COOKIE_LIFE.as_secs() == 2 * SPAN.as_secs());

/// Makes cookies and knows them again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cookies {
    key: [u64; 2],
}

impl Cookies {
    pub(super) fn new(key: [u64; 2]) -> Self {
        Self { key }
    }

    /// The cookie of a sender.
    pub(super) fn make(&self, now: Instant, sender: &Sender) -> u64 {
        self.of_span(span(now), sender)
    }

    /// Whether a cookie is one of this sender's and still good.
    pub(super) fn is_good(&self, now: Instant, sender: &Sender, cookie: u64) -> bool {
        let span = span(now);
        cookie != 0
            && (cookie == self.of_span(span, sender)
                || span.checked_sub(1).is_some_and(|before| cookie == self.of_span(before, sender)))
    }

    fn of_span(&self, span: u64, sender: &Sender) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.key[0], self.key[1]);
        (span, sender).hash(&mut hasher);
        // Zero stands for none.
        hasher.finish().max(1)
    }
}

fn span(now: Instant) -> u64 {
    now.as_nanos() / (SPAN.as_secs() * 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::Source;

    fn sender(port: u16, client: u32) -> Sender {
        Sender { source: Source::Network(([127, 0, 0, 1], port).into()), client }
    }

    #[test]
    fn a_cookie_is_good_for_its_sender_and_for_a_time() {
        let cookies = Cookies::new([1, 2]);
        let now = Instant::from_nanos(0) + SPAN * 10;
        let cookie = cookies.make(now, &sender(1, 1));
        for (later, good) in
            [(Duration::ZERO, true), (SPAN * 2 - Duration::from_nanos(1), true), (SPAN * 2, false)]
        {
            assert_eq!(cookies.is_good(now + later, &sender(1, 1), cookie), good, "{later:?}");
        }
        assert!(!cookies.is_good(now, &sender(2, 1), cookie), "of another address");
        assert!(!cookies.is_good(now, &sender(1, 2), cookie), "of another client there");
        assert!(!cookies.is_good(now, &sender(1, 1), 0));
        assert!(!Cookies::new([1, 3]).is_good(now, &sender(1, 1), cookie), "of another daemon");
    }
}
