//! The floor programs, small: their figures are there, and no process and no file of theirs is left.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Far beyond what any of this takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn temporary() -> TempDir {
    // Short, because the path of a socket has at most 107 bytes.
    tempfile::Builder::new().prefix("floor").tempdir_in("/tmp").expect("a directory for the test")
}

fn floor(directory: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipc-floor"));
    command.env("TMPDIR", directory.path()).args(arguments).stdin(Stdio::null());
    command
}

/// The processes that a measurement in this directory started and that still run, with their command lines.
fn processes(directory: &Path) -> Vec<(Pid, String)> {
    let directory = directory.to_str().expect("a path in UTF-8");
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A process may end between the two steps, and one that has ended has no command line.
    let lines = numbers.filter_map(|number: i32| {
        let line = std::fs::read(format!("/proc/{number}/cmdline")).ok()?;
        Some((Pid::from_raw(number), String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    lines.filter(|(_, line)| line.contains(directory)).collect()
}

fn files(directory: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(directory.path()).expect("the directory").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn assert_nothing_left(directory: &TempDir) {
    assert_eq!(processes(directory.path()), [], "processes are left");
    assert_eq!(files(directory), [""; 0], "files are left");
}

/// Looks again and again until there is what is wanted.
fn poll<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs one floor and returns its JSON object, the only line it may print.
fn measure(arguments: &[&str]) -> Value {
    let directory = temporary();
    let output = floor(&directory, arguments).output().expect("the program starts");
    let Output { status, stdout, stderr } = &output;
    assert!(status.success(), "{arguments:?}: {status}: {}", text(stderr));
    assert_eq!(text(stderr), "");
    assert_nothing_left(&directory);
    let stdout = text(stdout);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let figures: Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!(figures["name"], arguments[0]);
    assert!(figures["cpu_us_per_op"].as_f64().is_some_and(|cpu| cpu > 0.0), "{figures}");
    figures
}

fn keys(figures: &Value) -> Vec<&str> {
    figures.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn assert_latency(figures: &Value, count: u64) {
    let mut keys = keys(figures);
    keys.sort_unstable();
    assert_eq!(keys, ["count", "cpu_us_per_op", "name", "p50", "p99", "unit"]);
    assert_eq!((&figures["unit"], &figures["count"]), (&Value::from("us"), &Value::from(count)));
    let (p50, p99) = (figures["p50"].as_f64().expect("p50"), figures["p99"].as_f64().expect("p99"));
    assert!(0.0 < p50 && p50 <= p99, "{figures}");
}

fn assert_rate(figures: &Value, unit: &str, count: u64) {
    let mut keys = keys(figures);
    keys.sort_unstable();
    assert_eq!(keys, ["count", "cpu_us_per_op", "name", "rate", "unit"]);
    assert_eq!((&figures["unit"], &figures["count"]), (&Value::from(unit), &Value::from(count)));
    assert!(figures["rate"].as_f64().is_some_and(|rate| rate > 0.0), "{figures}");
}

#[test]
fn relay_latency() {
    assert_latency(&measure(&["relay-latency", "--count", "200", "--warmup", "10"]), 200);
}

#[test]
fn relay_latency_on_one_cpu() {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a CPU");
    let first: String = allowed.trim().chars().take_while(char::is_ascii_digit).collect();
    assert_latency(&measure(&["relay-latency", "--pin", &first, "--count", "50", "--warmup", "0"]), 50);
}

#[test]
fn sync() {
    assert_rate(&measure(&["sync", "--count", "20", "--warmup", "2", "--size", "100"]), "syncs/s", 20);
}

#[test]
fn relay_throughput_of_one_client() {
    let figures = measure(&["relay-throughput", "--count", "1000", "--warmup", "100", "--depth", "64"]);
    assert_rate(&figures, "calls/s", 1000);
}

#[test]
fn relay_throughput_of_a_process_for_each_client() {
    let sizes = ["--clients", "4", "--depth", "3", "--count", "500", "--warmup", "7"];
    assert_rate(&measure(&[&["relay-throughput"], &sizes[..]].concat()), "calls/s", 4 * 500);
}

#[test]
fn relay_throughput_of_clients_that_share_a_process() {
    let sizes = ["--clients", "6", "--processes", "2", "--depth", "5", "--count", "300", "--warmup", "7"];
    assert_rate(&measure(&[&["relay-throughput"], &sizes[..]].concat()), "calls/s", 6 * 300);
}

#[test]
fn relay_throughput_with_the_widest_window() {
    // More than the kernel's buffer of one socket, so that writes are cut in the middle of a message.
    let sizes = ["--clients", "8", "--depth", "1024", "--count", "5000", "--warmup", "0"];
    assert_rate(&measure(&[&["relay-throughput"], &sizes[..]].concat()), "calls/s", 8 * 5000);
}

#[test]
fn fanout() {
    let figures = measure(&["fanout", "--subscribers", "10", "--count", "5000", "--warmup", "500"]);
    assert_rate(&figures, "deliveries/s", 10 * 5000);
}

#[test]
fn fanout_stops_the_publisher_and_loses_nothing() {
    // 40 MB for each subscriber: far more than the buffers of the kernel and of the relay together.
    let sizes = ["--size", "1000", "--count", "40000", "--warmup", "500", "--batch", "333"];
    assert_rate(
        &measure(&[&["fanout", "--subscribers", "3"], &sizes[..]].concat()),
        "deliveries/s",
        3 * 40_000,
    );
}

#[test]
fn fanout_of_events_larger_than_a_read() {
    let sizes = ["--size", "700001", "--count", "20", "--warmup", "2"];
    assert_rate(&measure(&[&["fanout", "--subscribers", "2"], &sizes[..]].concat()), "deliveries/s", 2 * 20);
}

#[test]
fn payload() {
    for window in ["1", "4"] {
        let figures = measure(&["payload", "--window", window, "--count", "20", "--warmup", "2"]);
        assert_rate(&figures, "GB/s", 20);
    }
}

#[test]
fn connect() {
    assert_latency(&measure(&["connect", "--count", "100", "--warmup", "5"]), 100);
}

#[test]
fn the_time_ends_a_run_as_well() {
    let figures = measure(&["relay-throughput", "--seconds", "0.05"]);
    assert!(figures["count"].as_u64().is_some_and(|count| count > 0), "{figures}");
}

#[test]
fn what_makes_no_sense_is_refused_with_the_usage() {
    let wrong: [(&[&str], &str); 9] = [
        (&[], "which floor?"),
        (&["nothing"], "there is no floor nothing"),
        (&["connect", "--depth", "3"], "connect has no option --depth"),
        (&["fanout", "--size"], "--size needs a value"),
        (&["fanout", "--size", "63"], "--size 63: must be 64 to 16777216"),
        (&["payload", "--window", "many"], "--window many: must be 1 to 64"),
        (&["connect", "--seconds", "NaN"], "--seconds NaN: must be above 0"),
        (&["relay-throughput", "--clients", "3", "--processes", "2"], "cannot share 3 clients evenly"),
        (&["role", "nobody"], "there is no role nobody"),
    ];
    for (arguments, message) in wrong {
        let directory = temporary();
        let Output { status, stdout, stderr } =
            floor(&directory, arguments).output().expect("the program starts");
        assert_eq!((status.code(), text(&stdout)), (Some(2), String::new()), "{arguments:?}");
        let stderr = text(&stderr);
        assert!(stderr.contains(message) && stderr.contains("usage: ipc-floor"), "{arguments:?}: {stderr}");
        assert_nothing_left(&directory);
    }
}

#[test]
fn a_processor_that_is_not_there_is_an_error() {
    let directory = temporary();
    let output = floor(&directory, &["connect", "--pin", "1023"]).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot run on CPU 1023"), "{}", text(&output.stderr));
    assert_nothing_left(&directory);
}

/// Starts a long run and waits until its last process is there.
fn start_long(directory: &TempDir) -> Child {
    let mut command = floor(directory, &["relay-throughput", "--seconds", "60"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    process_of(directory, "window-client");
    child
}

fn process_of(directory: &TempDir, role: &str) -> Pid {
    let role = format!(" {role} ");
    poll("the start of a process", || {
        processes(directory.path()).into_iter().find(|(_, line)| line.contains(&role)).map(|(pid, _)| pid)
    })
}

fn end(child: Child) -> (ExitStatus, String) {
    let output = child.wait_with_output().expect("the program ends");
    assert_eq!(text(&output.stdout), "");
    (output.status, text(&output.stderr))
}

#[test]
fn a_signal_ends_everything() {
    let directory = temporary();
    let child = start_long(&directory);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("a signal");
    let (status, stderr) = end(child);
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("stopped by a signal"), "{stderr}");
    assert_nothing_left(&directory);
}

#[test]
fn a_lost_relay_ends_everything() {
    let directory = temporary();
    let child = start_long(&directory);
    kill(process_of(&directory, "relay-calls"), Signal::SIGKILL).expect("a signal");
    let (status, stderr) = end(child);
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("window-client ended early"), "{stderr}");
    assert_nothing_left(&directory);
}

#[test]
fn no_process_outlives_a_killed_measurement() {
    let directory = temporary();
    let mut child = start_long(&directory);
    child.kill().expect("a signal");
    child.wait().expect("the program ends");
    // Its files stay, in the directory that the test removes: nobody was there to remove them.
    poll("the end of its processes", || processes(directory.path()).is_empty().then_some(()));
}
