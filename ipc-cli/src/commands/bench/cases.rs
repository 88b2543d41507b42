//! PURE. What is measured: each case with its floor and the processes at its ends.

use crate::args::BenchWhat;

/// Which client the ends use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// The blocking one.
    Blocking,
    /// The async one on a current-thread runtime.
    Async,
    /// The async one on a multi-thread runtime.
    MultiThread,
}

impl Flavour {
    /// Every flavour.
    pub(crate) const ALL: [Flavour; 3] = [Flavour::Blocking, Flavour::Async, Flavour::MultiThread];

    /// The word on the command line of an end.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Flavour::Blocking => "blocking",
            Flavour::Async => "async",
            Flavour::MultiThread => "multi-thread",
        }
    }
}

/// Which socket of the daemon the fronts speak to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The one that the target names.
    Stream,
    /// Its datagram socket; measured beside the same over the stream instead of a floor.
    Datagram,
}

/// What an end does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Answers calls with their payload.
    Echo,
    /// Answers calls with one byte.
    Sink,
    /// Receives events.
    Subscriber,
    /// Calls and waits, again and again.
    Caller,
    /// Keeps calls in flight.
    Window,
    /// Keeps large payloads in flight.
    Sender,
    /// Publishes, as fast as the subscribers follow.
    Publisher,
    /// Connects, calls once, closes, again and again.
    Connecter,
    /// Takes a lock and gives it back, again and again.
    Locker,
    /// The same with a lock that outlives the daemon.
    KeptLocker,
    /// Puts a key, again and again; each of those in flight over a connection of its own.
    Putter,
    /// Gets a key, again and again.
    Getter,
    /// Asks the daemon for a sign of life, again and again.
    Pinger,
    /// Many that wait for one lock; whoever gets it ends its connection, without a word, and waits again.
    Heirs,
    /// The same with a lock that outlives the daemon.
    KeptHeirs,
}

impl Part {
    /// Every part.
    pub(crate) const ALL: [Part; 15] = [
        Part::Echo,
        Part::Sink,
        Part::Subscriber,
        Part::Caller,
        Part::Window,
        Part::Sender,
        Part::Publisher,
        Part::Connecter,
        Part::Locker,
        Part::KeptLocker,
        Part::Putter,
        Part::Getter,
        Part::Pinger,
        Part::Heirs,
        Part::KeptHeirs,
    ];

    /// The word on the command line of an end.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Part::Echo => "echo",
            Part::Sink => "sink",
            Part::Subscriber => "subscriber",
            Part::Caller => "caller",
            Part::Window => "window",
            Part::Sender => "sender",
            Part::Publisher => "publisher",
            Part::Connecter => "connecter",
            Part::Locker => "locker",
            Part::KeptLocker => "kept-locker",
            Part::Putter => "putter",
            Part::Getter => "getter",
            Part::Pinger => "pinger",
            Part::Heirs => "heirs",
            Part::KeptHeirs => "kept-heirs",
        }
    }

    /// Whether what it holds outlives the daemon.
    pub(crate) const fn is_kept(self) -> bool {
        matches!(self, Part::KeptLocker | Part::KeptHeirs)
    }
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// Its name in the result.
    pub(crate) name: &'static str,
    /// Which argument of `bench` asks for it.
    pub(crate) group: BenchWhat,
    /// The unit of its times or of its rate.
    pub(crate) unit: &'static str,
    /// Turns operations a second into the unit; times are measured where there is none.
    pub(crate) scale: Option<f64>,
    /// The floor and its options.
    pub(crate) floor: &'static [&'static str],
    /// What the fronts do instead, where that is what the case is measured beside.
    pub(crate) beside: Option<Part>,
    /// Whether all processes share one CPU.
    pub(crate) is_pinned: bool,
    /// Where the fronts go in.
    pub(crate) door: Door,
    /// The client of all ends.
    pub(crate) flavour: Flavour,
    /// What answers or receives, and how many processes of it.
    pub(crate) backs: (Part, usize),
    /// What calls or publishes, and how many processes of it.
    pub(crate) fronts: (Part, usize),
    /// Operations each front has in flight.
    pub(crate) depth: usize,
    /// Bytes of a payload.
    pub(crate) size: usize,
    /// The ratio that is aimed at: at most, where times are measured, at least, where rates are.
    pub(crate) target: Option<f64>,
    /// Most CPU time for one operation that is aimed at, of all processes, in microseconds.
    pub(crate) cpu_target_us: Option<f64>,
}

impl Case {
    /// Whether the ends whose operations count are the backs.
    pub(crate) fn counts_backs(&self) -> bool {
        self.backs.0 == Part::Subscriber
    }

    /// Whether `ratio` is as good as aimed at, where something is aimed at.
    pub(crate) fn meets(&self, ratio: f64) -> Option<bool> {
        self.target.map(|target| if self.scale.is_some() { ratio >= target } else { ratio <= target })
    }

    /// Whether so much CPU time for an operation is as little as aimed at, where something is aimed at.
    pub(crate) fn meets_cpu(&self, us: f64) -> Option<bool> {
        self.cpu_target_us.map(|target| us <= target)
    }
}

const CALL_BYTES: usize = 64;

const LATENCY: Case = Case {
    name: "",
    group: BenchWhat::Latency,
    unit: "us",
    scale: None,
    floor: &["relay-latency"],
    beside: None,
    is_pinned: true,
    door: Door::Stream,
    flavour: Flavour::Blocking,
    backs: (Part::Echo, 1),
    fronts: (Part::Caller, 1),
    depth: 1,
    size: CALL_BYTES,
    target: None,
    cpu_target_us: None,
};

const THROUGHPUT: Case = Case {
    group: BenchWhat::Throughput,
    unit: "calls/s",
    scale: Some(1.0),
    floor: &["relay-throughput", "--clients", "1", "--depth", "64"],
    is_pinned: false,
    flavour: Flavour::Async,
    fronts: (Part::Window, 1),
    depth: 64,
    target: Some(0.85),
    ..LATENCY
};

const THROUGHPUT_16: Case = Case {
    floor: &["relay-throughput", "--clients", "16", "--depth", "16"],
    fronts: (Part::Window, 16),
    depth: 16,
    ..THROUGHPUT
};

const FANOUT_1024_FLOOR: &[&str] = &["fanout", "--subscribers", "10", "--size", "1024"];

const FANOUT: Case = Case {
    group: BenchWhat::Fanout,
    unit: "deliveries/s",
    scale: Some(1.0),
    floor: &["fanout", "--subscribers", "10", "--size", "64"],
    is_pinned: false,
    backs: (Part::Subscriber, 10),
    fronts: (Part::Publisher, 1),
    target: Some(0.6),
    ..LATENCY
};

const PAYLOAD: Case = Case {
    group: BenchWhat::Payload,
    unit: "GB/s",
    scale: Some((1 << 20) as f64 / 1e9),
    floor: &["payload", "--size", "1048576", "--window", "4"],
    backs: (Part::Sink, 1),
    fronts: (Part::Sender, 1),
    depth: 4,
    size: 1 << 20,
    target: Some(0.8),
    ..THROUGHPUT
};

const COORDINATION: Case = Case {
    group: BenchWhat::Coordination,
    backs: (Part::Echo, 0),
    fronts: (Part::Locker, 1),
    // Two routed calls, as far above their floor as one may be.
    target: Some(2.4),
    ..LATENCY
};

const HAND_OVER: Case =
    Case { is_pinned: false, fronts: (Part::Heirs, 1), depth: 2, target: None, ..COORDINATION };

/// A lock on the disk, beside a program that writes as much to a file and syncs it.
const KEPT_LOCK: Case = Case { fronts: (Part::KeptLocker, 1), target: None, ..PUT };

/// The same that passes on when its holder is lost: the next one waits for the disk too.
const KEPT_HAND_OVER: Case =
    Case { floor: &["sync-latency", "--size", "128"], fronts: (Part::KeptHeirs, 1), ..HAND_OVER };

/// Keys on the disk, beside a program that writes as much to a file and syncs it.
const PUT: Case = Case {
    unit: "puts/s",
    scale: Some(1.0),
    floor: &["sync", "--size", "128"],
    is_pinned: false,
    fronts: (Part::Putter, 1),
    target: Some(0.55),
    ..COORDINATION
};

/// Every case, in the order in which they are measured.
pub(crate) const CASES: &[Case] = &[
    Case { name: "routed_call_blocking", target: Some(1.2), ..LATENCY },
    Case { name: "routed_call_async", flavour: Flavour::Async, target: Some(1.55), ..LATENCY },
    Case { name: "routed_call_multi_thread", flavour: Flavour::MultiThread, ..LATENCY },
    Case { name: "routed_call_blocking_unpinned", is_pinned: false, ..LATENCY },
    Case {
        name: "routed_call_async_unpinned",
        flavour: Flavour::Async,
        is_pinned: false,
        target: Some(0.6),
        ..LATENCY
    },
    Case { name: "datagram_call_blocking", door: Door::Datagram, target: Some(1.2), ..LATENCY },
    Case { name: "pipelined_1x64", cpu_target_us: Some(3.0), ..THROUGHPUT },
    Case { name: "pipelined_1x64_blocking", flavour: Flavour::Blocking, ..THROUGHPUT },
    Case { name: "pipelined_1x64_multi_thread", flavour: Flavour::MultiThread, target: None, ..THROUGHPUT },
    Case { name: "pipelined_16x16", ..THROUGHPUT_16 },
    Case { name: "pipelined_16x16_blocking", flavour: Flavour::Blocking, ..THROUGHPUT_16 },
    Case { name: "fanout_10x64", ..FANOUT },
    Case { name: "fanout_10x64_async", flavour: Flavour::Async, target: None, ..FANOUT },
    Case { name: "fanout_10x1024", floor: FANOUT_1024_FLOOR, size: 1024, ..FANOUT },
    Case {
        name: "fanout_10x1024_async",
        flavour: Flavour::Async,
        floor: FANOUT_1024_FLOOR,
        size: 1024,
        target: None,
        ..FANOUT
    },
    Case { name: "payload_1mib", ..PAYLOAD },
    Case { name: "payload_1mib_blocking", flavour: Flavour::Blocking, ..PAYLOAD },
    Case {
        name: "connect",
        group: BenchWhat::Connect,
        floor: &["connect"],
        is_pinned: true,
        fronts: (Part::Connecter, 1),
        target: Some(1.3),
        ..LATENCY
    },
    Case {
        name: "connect_async",
        group: BenchWhat::Connect,
        floor: &["connect"],
        is_pinned: true,
        flavour: Flavour::Async,
        fronts: (Part::Connecter, 1),
        ..LATENCY
    },
    Case { name: "lock_unlock", ..COORDINATION },
    Case { name: "lock_unlock_async", flavour: Flavour::Async, ..COORDINATION },
    Case { name: "lock_unlock_disk", unit: "locks/s", ..KEPT_LOCK },
    Case { name: "kv_put_disk", ..PUT },
    Case { name: "kv_put_disk_64", flavour: Flavour::Async, depth: 64, target: None, ..PUT },
    Case {
        name: "kv_get",
        unit: "gets/s",
        beside: Some(Part::Pinger),
        is_pinned: true,
        fronts: (Part::Getter, 1),
        target: Some(0.8),
        ..PUT
    },
    Case { name: "lock_hand_over", ..HAND_OVER },
    Case { name: "lock_hand_over_1000", depth: 1000, ..HAND_OVER },
    Case { name: "lock_hand_over_disk", ..KEPT_HAND_OVER },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_scripts_rely_on_are_there_once() {
        let names = [
            "routed_call_blocking",
            "routed_call_async",
            "pipelined_1x64",
            "pipelined_16x16",
            "fanout_10x64",
            "fanout_10x1024",
            "payload_1mib",
            "connect",
        ];
        for name in names {
            assert_eq!(CASES.iter().filter(|case| case.name == name).count(), 1, "{name}");
        }
    }

    #[test]
    fn a_target_is_a_ceiling_for_times_and_a_floor_for_rates() {
        let case = |name| CASES.iter().find(|case| case.name == name).expect("is there");
        assert_eq!(case("routed_call_blocking").meets(1.1), Some(true));
        assert_eq!(case("routed_call_blocking").meets(1.3), Some(false));
        assert_eq!(case("pipelined_1x64").meets(1.1), Some(true));
        assert_eq!(case("pipelined_1x64").meets(0.8), Some(false));
        assert_eq!(case("connect_async").meets(9.0), None);
    }
}
