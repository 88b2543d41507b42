//! A proxy for datagrams that loses, doubles and reorders them as a seed says, between clients and a real daemon.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipc_core::Address;
use ipc_core::transport::datagrams;
use ipc_core::transport::unix::Trust;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::rng::Rng;

/// Datagrams that may overtake one.
const REORDER_MAX: u64 = 32;

/// What happens to datagrams, each way.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// How many of a hundred are lost.
    pub lost_percent: u64,
    /// How many of a hundred come twice.
    pub doubled_percent: u64,
    /// How long one is on its way at most.
    pub delay_max: Duration,
}

impl Weather {
    /// 20 % are lost, 5 % come twice, each takes up to `delay_max`, and is overtaken by at most 32.
    pub fn bad(delay_max: Duration) -> Self {
        Self { lost_percent: 20, doubled_percent: 5, delay_max }
    }

    /// Nothing happens to them.
    pub fn fair() -> Self {
        Self { lost_percent: 0, doubled_percent: 0, delay_max: Duration::ZERO }
    }
}

/// What a proxy has done.
#[derive(Debug, Default)]
pub struct Toll {
    /// Datagrams that came.
    pub received: AtomicU64,
    /// Of those, lost ones.
    pub lost: AtomicU64,
    /// And doubled ones.
    pub doubled: AtomicU64,
    /// While set, nothing gets through toward the clients.
    pub is_mute: AtomicBool,
}

/// A running proxy. Dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients are to connect to.
    pub address: Address,
    /// What it has done.
    pub toll: Arc<Toll>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy before the datagram socket at `daemon`, of the same family; a local one gets a socket in `directory`.
    ///
    /// # Panics
    /// When it has no socket.
    pub fn start(daemon: &Address, directory: &Path, weather: Weather, seed: u64) -> Self {
        let (front, address) = match daemon {
            Address::Udp(_) => {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
                let address = format!("udp:{}", socket.local_addr().expect("it is bound"));
                (Front::Network(socket), address)
            }
            _ => {
                let path = directory.join(format!("proxy-{seed}"));
                let address = format!("dgram:{}", path.display());
                (Front::Local(UnixDatagram::bind(path).expect("a free path")), address)
            }
        };
        front.set_nonblocking();
        let stop = Arc::new(AtomicBool::new(false));
        let toll = Arc::new(Toll::default());
        let road = Road {
            front,
            daemon: daemon.clone(),
            weather,
            rng: Rng::new(seed),
            toll: Arc::clone(&toll),
            backs: HashMap::new(),
            waiting: BTreeMap::new(),
            taken: 0,
        };
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || road.run(&stopping));
        let address = Address::parse(&address).expect("an address");
        Self { address, toll, stop, thread: Some(thread) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The socket that clients see.
#[derive(Debug)]
enum Front {
    Local(UnixDatagram),
    Network(UdpSocket),
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Guest {
    Local(Vec<u8>),
    Network(SocketAddr),
}

impl Front {
    fn set_nonblocking(&self) {
        match self {
            Front::Local(socket) => socket.set_nonblocking(true),
            Front::Network(socket) => socket.set_nonblocking(true),
        }
        .expect("a socket can be set");
    }

    fn receive(&self, buffer: &mut [u8]) -> Option<(Guest, usize)> {
        match self {
            Front::Local(socket) => {
                let arrival = ipc_core::transport::verified::receive(socket, buffer).ok()?;
                Some((Guest::Local(arrival.address?.into_vec()), arrival.bytes))
            }
            Front::Network(socket) => {
                socket.recv_from(buffer).ok().map(|(count, from)| (Guest::Network(from), count))
            }
        }
    }

    fn send(&self, to: &Guest, datagram: &[u8]) {
        // Whoever does not read, or is gone, misses it.
        match (self, to) {
            (Front::Local(socket), Guest::Local(address)) => {
                let _ = ipc_core::transport::verified::send(socket, address, datagram);
            }
            (Front::Network(socket), Guest::Network(address)) => {
                let _ = socket.send_to(datagram, address);
            }
            _ => {}
        }
    }

    fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Front::Local(socket) => socket.as_fd(),
            Front::Network(socket) => socket.as_fd(),
        }
    }
}

/// A datagram on its way.
#[derive(Debug)]
struct Parcel {
    number: u64,
    guest: Guest,
    is_up: bool,
    datagram: Vec<u8>,
}

struct Road {
    front: Front,
    daemon: Address,
    weather: Weather,
    rng: Rng,
    toll: Arc<Toll>,
    /// A socket toward the daemon for each client.
    backs: HashMap<Guest, std::os::fd::OwnedFd>,
    waiting: BTreeMap<(Instant, u64), Parcel>,
    taken: u64,
}

impl Road {
    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = vec![0; 70_000];
        while !stop.load(Ordering::Relaxed) {
            self.wait();
            while let Some((guest, count)) = self.front.receive(&mut buffer) {
                self.take(guest, true, &buffer[..count]);
            }
            let guests: Vec<Guest> = self.backs.keys().cloned().collect();
            for guest in guests {
                while let Some(count) = self.receive_back(&guest, &mut buffer) {
                    self.take(guest.clone(), false, &buffer[..count]);
                }
            }
            self.deliver();
        }
    }

    /// Until something comes or is due, and not for long.
    fn wait(&self) {
        let mut sockets = vec![PollFd::from_borrowed_fd(self.front.descriptor(), PollFlags::IN)];
        sockets.extend(self.backs.values().map(|back| PollFd::new(back, PollFlags::IN)));
        let due =
            self.waiting.first_key_value().map(|((at, _), _)| at.saturating_duration_since(Instant::now()));
        let wait = due.unwrap_or(Duration::from_millis(20)).min(Duration::from_millis(20));
        let _ = poll(&mut sockets, Some(&Timespec::try_from(wait).expect("it is short")));
    }

    fn receive_back(&self, guest: &Guest, buffer: &mut [u8]) -> Option<usize> {
        let flags = rustix::net::RecvFlags::DONTWAIT;
        rustix::net::recv(self.backs.get(guest)?, &mut *buffer, flags).ok().map(|(_, count)| count)
    }

    fn take(&mut self, guest: Guest, is_up: bool, datagram: &[u8]) {
        self.toll.received.fetch_add(1, Ordering::Relaxed);
        if self.rng.chance(self.weather.lost_percent, 100) {
            self.toll.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let is_doubled = self.rng.chance(self.weather.doubled_percent, 100);
        self.toll.doubled.fetch_add(u64::from(is_doubled), Ordering::Relaxed);
        for _ in 0..=u64::from(is_doubled) {
            self.taken += 1;
            let delay = self.weather.delay_max.mul_f64(self.rng.below(1000) as f64 / 1000.0);
            let parcel =
                Parcel { number: self.taken, guest: guest.clone(), is_up, datagram: datagram.to_vec() };
            self.waiting.insert((Instant::now() + delay, self.taken), parcel);
        }
        // None is overtaken by more than so many.
        while let Some(key) = self.overdue() {
            if let Some(parcel) = self.waiting.remove(&key) {
                self.forward(&parcel);
            }
        }
    }

    fn overdue(&self) -> Option<(Instant, u64)> {
        let (key, parcel) = self.waiting.iter().min_by_key(|(_, parcel)| parcel.number)?;
        (parcel.number + REORDER_MAX < self.taken).then_some(*key)
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.waiting.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            if let Some((_, parcel)) = self.waiting.pop_first() {
                self.forward(&parcel);
            }
        }
    }

    fn forward(&mut self, parcel: &Parcel) {
        if !parcel.is_up {
            if !self.toll.is_mute.load(Ordering::Relaxed) {
                self.front.send(&parcel.guest, &parcel.datagram);
            }
            return;
        }
        if !self.backs.contains_key(&parcel.guest) {
            // While there is no daemon, it is lost.
            let Ok(back) = datagrams::connect(&self.daemon, &Trust::default()) else { return };
            self.backs.insert(parcel.guest.clone(), back);
        }
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        let Some(back) = self.backs.get(&parcel.guest) else { return };
        match rustix::net::send(back, &parcel.datagram, flags) {
            Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOTCONN)
                if matches!(self.front, Front::Local(_)) =>
            {
                // The daemon behind it has ended.
                self.backs.remove(&parcel.guest);
            }
            _ => {}
        }
    }
}
