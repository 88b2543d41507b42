//! What trust costs: rules and quotas on the way of a call, idle connections that hold a name, and a user who floods beside one
//! who does not.
//!
//! One line of JSON for each figure. The last ones need the right to become another user. Run with
//! `cargo build --release --workspace && cargo bench -p ipc-tests --bench trust`; behind `-- ` the names of parts: `rules`,
//! `idle`, `flood`; behind that of the last one those of ways to flood, as `events`.

#![allow(clippy::print_stdout, reason = "the figures are the output of this program")]

mod flood;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ipc_core::blocking::{CallOptions, Client};
use ipc_core::wire::codec::List;
use ipc_core::wire::message::{MethodInfo, Register, RegisterMode};
use ipc_core::wire::{Decoder, FrameLimits, Header, Kind};
use ipc_tests::daemon::{Daemon, Options};
use ipc_tests::raw::{frame, greeting};
use ipc_tests::services::{client, serve_echo};
use ipc_tests::users::can_switch;

const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(400);
/// Calls that are open at a time.
const DEPTH: usize = 64;
const PAYLOAD: [u8; 64] = [7; 64];
const IDLE: usize = 10_000;
const IDLE_TIME: Duration = Duration::from_secs(5);

fn main() {
    raise_descriptor_limit();
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_asked = |part: &str| asked.is_empty() || asked.iter().any(|name| name == part);
    if is_asked("rules") {
        rules_and_quotas();
    }
    if is_asked("idle") {
        idle_connections();
    }
    if is_asked("flood") && can_switch() {
        flood::measure(&asked);
    }
}

fn report(name: &str, unit: &str, value: f64) {
    println!("{{\"name\":\"{name}\",\"unit\":\"{unit}\",\"value\":{value:.3}}}");
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Calls a second with 64 open, with the policy of a session and with 200 rules and 20 quotas before the one that decides.
fn rules_and_quotas() {
    let plain = Daemon::start();
    let rules: String =
        (0..200).map(|number| format!("  \"deny uid:{} call a{number}.>\",\n", 4_000_000 + number)).collect();
    let quotas: String =
        (0..20).map(|number| format!("  \"uid:{} names_per_uid_max=5\",\n", 5_000_000 + number)).collect();
    let config = format!("[policy]\nrules = [\n{rules}  \"allow anyone * >\",\n]\nquotas = [\n{quotas}]\n");
    let ruled = Daemon::start_with(&Options::with_config(config));
    for daemon in [&plain, &ruled] {
        serve_echo(daemon);
    }
    let mut clients = [client(&plain), client(&ruled)];
    let rounds: Vec<[f64; 2]> = (0..ROUNDS).map(|_| clients.each_mut().map(rate)).collect();
    report("calls_1x64_session_policy", "1/s", median(rounds.iter().map(|round| round[0]).collect()));
    report("calls_1x64_200_rules", "1/s", median(rounds.iter().map(|round| round[1]).collect()));
    report("calls_1x64_rules_ratio", "", median(rounds.iter().map(|round| round[1] / round[0]).collect()));
}

fn rate(client: &mut Client) -> f64 {
    let mut calls = 0_u32;
    let start = |client: &mut Client| {
        // It is waited for with whichever comes next.
        let _open =
            client.start_call("test.echo", "echo", PAYLOAD.to_vec(), CallOptions::default()).expect("a call");
    };
    (0..DEPTH).for_each(|_| start(client));
    let begun = Instant::now();
    while begun.elapsed() < ROUND {
        client.wait_any().expect("one is open").1.expect("an answer");
        start(client);
        calls += 1;
    }
    let rate = f64::from(calls) / begun.elapsed().as_secs_f64();
    while let Some((_, answer)) = client.wait_any() {
        answer.expect("an answer");
    }
    rate
}

/// Ten thousand connections, each with a name: how long they take, what each costs, and what they cost while nothing happens.
fn idle_connections() {
    let daemon = Daemon::start();
    let before = daemon.resident_bytes();
    let begun = Instant::now();
    let held: Vec<UnixStream> = (0..IDLE).map(|number| named(&daemon, number)).collect();
    report("idle_open_10000", "s", begun.elapsed().as_secs_f64());
    report("idle_each_with_a_name", "KiB", (daemon.resident_bytes() - before) as f64 / 1024.0 / IDLE as f64);
    let (cpu, begun) = (daemon.cpu_time(), Instant::now());
    let mut first = &held[0];
    first.set_read_timeout(Some(IDLE_TIME)).expect("a timeout can be set");
    assert!(first.read(&mut [0]).is_err(), "nothing is said in all that time");
    let share = (daemon.cpu_time() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    report("idle_cpu", "% of one", share * 100.0);
    drop(held);
}

fn named(daemon: &Daemon, number: usize) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.socket()).expect("the daemon listens");
    let methods = List(vec![MethodInfo { name: "m".into(), description: "".into() }]);
    let service = format!("idle.n{number}").as_str().into();
    let register = Register { service, mode: RegisterMode::Exclusive, queue: false, methods };
    let register = frame(Header::new(Kind::REGISTER).with_correlation(1), &register, &[]);
    stream.write_all(&[greeting("idle"), register].concat()).expect("the daemon takes the bytes");
    let mut decoder = Decoder::new(FrameLimits { payload_max_bytes: 1 << 20, frame_max_bytes: None });
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer).expect("the daemon answers");
        assert!(count > 0, "the daemon has closed the connection");
        let mut input = &buffer[..count];
        while let Some(frame) = decoder.next(&mut input).expect("the daemon keeps to the protocol") {
            if frame.header.kind == Kind::DONE {
                return stream;
            }
        }
    }
}
