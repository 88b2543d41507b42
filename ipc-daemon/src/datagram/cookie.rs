//! The proof that answers reach a sender: a keyed hash of who it is, which costs no memory until it comes back.

use core::hash::{Hash, Hasher};
use core::time::Duration;

use ipc_core::time::Instant;
use siphasher::sip::SipHasher24;

use super::source::Sender;

/// A cookie is good in the span in which it was made and in the next.
const SPAN: Duration = Duration::from_secs(30);
const SPAN_NANOS: u64 = SPAN.as_secs() * 1_000_000_000;
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

    /// Until when a cookie is good, if it is one of this sender's and still good.
    pub(super) fn good_until(&self, now: Instant, sender: &Sender, cookie: u64) -> Option<Instant> {
        let span = span(now);
        let made = [Some(span), span.checked_sub(1)].into_iter().flatten();
        let mut made = made.filter(|made| cookie != 0 && cookie == self.of_span(*made, sender));
        made.next().map(|made| Instant::from_nanos((made + 2).saturating_mul(SPAN_NANOS)))
    }

    fn of_span(&self, span: u64, sender: &Sender) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.key[0], self.key[1]);
        (span, sender).hash(&mut hasher);
        // Zero stands for none.
        hasher.finish().max(1)
    }
}

fn span(now: Instant) -> u64 {
    now.as_nanos() / SPAN_NANOS
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
        let good_for = |later: Duration, sender: Sender, cookie| {
            let at = now + later;
            cookies.good_until(at, &sender, cookie).map(|until| until.since(at))
        };
        let nanosecond = Duration::from_nanos(1);
        for (later, left) in
            [(Duration::ZERO, Some(SPAN * 2)), (SPAN * 2 - nanosecond, Some(nanosecond)), (SPAN * 2, None)]
        {
            assert_eq!(good_for(later, sender(1, 1), cookie), left, "{later:?}");
        }
        assert_eq!(good_for(Duration::ZERO, sender(2, 1), cookie), None, "of another address");
        assert_eq!(good_for(Duration::ZERO, sender(1, 2), cookie), None, "of another client there");
        assert_eq!(good_for(Duration::ZERO, sender(1, 1), 0), None);
        let other = Cookies::new([1, 3]);
        assert_eq!(other.good_until(now, &sender(1, 1), cookie), None, "of another daemon");
    }
}
