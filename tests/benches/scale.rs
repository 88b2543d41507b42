//! What a daemon costs at rest and with ten thousand connections: start, memory, and calls of a thousand pairs.
//!
//! The clients are the cheapest there are: raw frames over non-blocking sockets in one epoll loop, so that the figures are
//! the daemon's. One line of JSON for each figure. Run with
//! `cargo build --release --workspace && cargo bench -p ipc-tests --bench scale`.

#![allow(clippy::print_stdout, reason = "the figures are the output of this program")]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ipc_core::id::Handle;
use ipc_core::wire::codec::{List, Wire};
use ipc_core::wire::message::{MethodInfo, Register, RegisterMode, Resolve};
use ipc_core::wire::{Decoder, FrameLimits, Header, Kind, encode_frame};
use ipc_tests::daemon::Daemon;
use ipc_tests::raw::{RawPeer, greeting};
use rustix::event::epoll;

const STARTS: usize = 21;
const CONNECTIONS: usize = 10_000;
const PAIRS: usize = 1_000;
/// Calls each caller has open at a time.
const DEPTH: u64 = 4;
const PAYLOAD: [u8; 64] = [7; 64];
const RUN: Duration = Duration::from_secs(5);
const HANDLE: Handle = Handle { index: 0, generation: 1 };

fn main() {
    raise_descriptor_limit();
    cold_start();
    let daemon = Daemon::start();
    let idle = memory_kib(daemon.pid());
    report("idle_daemon", "MB", idle as f64 / 1024.0);
    let mut ends = connect_all(&daemon, CONNECTIONS - 2 * PAIRS);
    let each = (memory_kib(daemon.pid()) - idle) as f64 / ends.len() as f64;
    report("idle_connection", "KiB", each);
    let pairs = connect_all(&daemon, 2 * PAIRS);
    ends.extend(pairs);
    let first = ends.len() - 2 * PAIRS;
    let mut pairs = Pairs::new(ends.split_off(first));
    pairs.introduce();
    pairs.run(daemon.pid());
    assert!(daemon.stop().status.success(), "the daemon stops cleanly");
}

fn report(name: &str, unit: &str, value: f64) {
    println!("{{\"name\":\"{name}\",\"unit\":\"{unit}\",\"value\":{value:.2}}}");
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
    let needed = CONNECTIONS as u64 + 100;
    let enough = limit.maximum.is_none_or(|maximum| maximum > needed);
    assert!(enough, "this needs {needed} descriptors: raise the hard limit, `ulimit -Hn`");
}

/// From starting the process to its first answer.
fn cold_start() {
    let mut times: Vec<f64> = (0..STARTS)
        .map(|_| {
            let begin = Instant::now();
            let daemon = Daemon::start();
            RawPeer::greeted(&daemon.socket()).0.ping(1);
            let time = begin.elapsed().as_secs_f64() * 1e3;
            drop(daemon);
            time
        })
        .collect();
    times.sort_by(f64::total_cmp);
    report("cold_start", "ms", times[STARTS / 2]);
}

fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel says VmRSS");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("VmRSS is a number")
}

fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the daemon runs");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Duration::from_millis(ticks * 10)
}

fn connect_all(daemon: &Daemon, count: usize) -> Vec<End> {
    let mut ends = Vec::with_capacity(count);
    for _ in 0..count {
        let stream = UnixStream::connect(daemon.socket()).expect("the daemon listens");
        let limits = FrameLimits { payload_max_bytes: 1 << 20, frame_max_bytes: None };
        let mut end = End { stream, decoder: Decoder::new(limits), out: greeting("scale") };
        end.flush();
        end.receive_until(Kind::WELCOME);
        ends.push(end);
    }
    ends
}

/// One connection.
struct End {
    stream: UnixStream,
    decoder: Decoder,
    out: Vec<u8>,
}

impl End {
    fn queue<T: Wire>(&mut self, header: Header, envelope: &T, payload: &[u8]) {
        encode_frame(&mut self.out, header, envelope, payload).expect("the frame is a legal one");
    }

    fn flush(&mut self) {
        // A few small frames always fit into an empty socket buffer.
        self.stream.write_all(&self.out).expect("the daemon takes the bytes");
        self.out.clear();
    }

    fn receive_until(&mut self, kind: Kind) {
        let mut buffer = [0; 4096];
        loop {
            let count = self.stream.read(&mut buffer).expect("the daemon answers");
            assert!(count > 0, "the daemon has closed the connection");
            let mut input = &buffer[..count];
            let mut found = false;
            while let Some(frame) = self.decoder.next(&mut input).expect("the daemon keeps to the protocol") {
                found |= frame.header.kind == kind;
            }
            if found {
                return;
            }
        }
    }
}

/// Callers and services by turns: end `2 n` calls end `2 n + 1`.
struct Pairs {
    ends: Vec<End>,
    started: Vec<[Instant; DEPTH as usize]>,
    latencies_us: Vec<u32>,
    buffer: Vec<u8>,
}

impl Pairs {
    fn new(ends: Vec<End>) -> Self {
        let started = vec![[Instant::now(); DEPTH as usize]; ends.len()];
        Self { ends, started, latencies_us: Vec::new(), buffer: vec![0; 65_536] }
    }

    fn introduce(&mut self) {
        for pair in 0..PAIRS {
            let service = format!("scale.s{pair}");
            let method = MethodInfo { name: "m".into(), description: "".into() };
            let register = Register {
                service: service.as_str().into(),
                mode: RegisterMode::Exclusive,
                queue: false,
                methods: List(vec![method]),
            };
            let callee = &mut self.ends[2 * pair + 1];
            callee.queue(Header::new(Kind::REGISTER).with_correlation(1), &register, &[]);
            callee.flush();
            callee.receive_until(Kind::DONE);
            let resolve = Resolve { service: service.as_str().into(), method: "m".into() };
            let caller = &mut self.ends[2 * pair];
            caller.queue(Header::new(Kind::RESOLVE).with_handle(HANDLE).with_correlation(1), &resolve, &[]);
            caller.flush();
            caller.receive_until(Kind::DONE);
        }
    }

    fn run(&mut self, pid: u32) {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        for (at, end) in self.ends.iter().enumerate() {
            end.stream.set_nonblocking(true).expect("a socket can be non-blocking");
            let data = epoll::EventData::new_u64(at as u64);
            epoll::add(&poll, &end.stream, data, epoll::EventFlags::IN).expect("epoll");
        }
        for pair in 0..PAIRS {
            for slot in 0..DEPTH {
                self.call(2 * pair, slot);
            }
            self.ends[2 * pair].flush();
        }
        let (begin, cpu) = (Instant::now(), cpu_time(pid));
        let mut events = Vec::with_capacity(1024);
        while begin.elapsed() < RUN {
            events.clear();
            let patience = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&patience)).expect("epoll");
            assert!(!events.is_empty(), "a call was lost");
            for event in &events {
                let at = event.data;
                self.serve(at.u64() as usize);
            }
        }
        self.report(begin.elapsed(), cpu_time(pid) - cpu);
    }

    fn call(&mut self, at: usize, slot: u64) {
        self.started[at][slot as usize] = Instant::now();
        let header = Header { deadline_us: 10_000_000, ..Header::new(Kind::CALL).with_handle(HANDLE) };
        self.ends[at].queue(header.with_correlation(slot + 1), &(), &PAYLOAD);
    }

    fn serve(&mut self, at: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let count = match self.ends[at].stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("reading: {error}"),
        };
        let mut input = &buffer[..count];
        let mut heard = [0; 2 * DEPTH as usize];
        let mut calls = 0;
        let decoder = &mut self.ends[at].decoder;
        while let Some(frame) = decoder.next(&mut input).expect("the daemon keeps to the protocol") {
            if frame.header.kind == Kind::CALL || frame.header.kind == Kind::REPLY {
                assert_eq!(frame.header.flags.bits(), 0, "a call was refused");
                heard[calls] = frame.header.correlation;
                calls += 1;
            }
        }
        for correlation in &heard[..calls] {
            if at % 2 == 1 {
                let header = Header::new(Kind::REPLY).with_correlation(*correlation);
                self.ends[at].queue(header, &(), &PAYLOAD);
            } else {
                let slot = correlation - 1;
                let time = self.started[at][slot as usize].elapsed();
                self.latencies_us.push(time.as_micros().try_into().unwrap_or(u32::MAX));
                self.call(at, slot);
            }
        }
        self.ends[at].flush();
        self.buffer = buffer;
    }

    fn report(&mut self, time: Duration, cpu: Duration) {
        let calls = self.latencies_us.len();
        self.latencies_us.sort_unstable();
        report("calls_1000_pairs", "calls/s", calls as f64 / time.as_secs_f64());
        report("calls_1000_pairs_p99", "ms", f64::from(self.latencies_us[calls * 99 / 100]) / 1e3);
        report("calls_1000_pairs_daemon_cpu", "us", cpu.as_secs_f64() * 1e6 / calls as f64);
    }
}
