//! Service managers: sockets handed over, readiness, signs of life.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipc_core::blocking::Client;
use ipc_core::{Address, ConnectOptions};
use ipc_tests::daemon::{Daemon, Options, PATIENCE, eventually};
use ipc_tests::programs::program;

/// A process that is gone when this is.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn systemd_socket_activate_hands_over_a_stream_socket() {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    let socket = directory.path().join("bus.sock");
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(&socket).arg(program("ipc-daemon"));
    command.arg("--runtime-dir").arg(directory.path()).arg("--state-dir").arg(directory.path().join("state"));
    let activated = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut activated = match activated {
        Ok(child) => Running(child),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("left out: this machine has no systemd-socket-activate");
            return;
        }
        Err(error) => panic!("systemd-socket-activate: {error}"),
    };
    assert!(eventually(|| socket.exists()));
    // Whoever comes first has the daemon started, and waits for nothing but that.
    let options = ConnectOptions::new().address(Address::Unix(socket.clone())).call_timeout(PATIENCE);
    let mut connected = None;
    // Its name is there a moment before it listens.
    assert!(eventually(|| {
        connected = Client::connect(options.clone()).ok();
        connected.is_some()
    }));
    let mut client = connected.unwrap();
    let reply = client.call("ipc.daemon", "status", "").unwrap();
    let status: serde_json::Value = serde_json::from_slice(&reply.payload.body).unwrap();
    let shown = serde_json::json!({ "kind": "unix_stream", "address": socket.to_str().unwrap() });
    assert!(status["addresses"].as_array().unwrap().contains(&shown), "{}", status["addresses"]);
    assert_eq!(status["pid"], activated.0.id());
    // What was not handed over the daemon has bound itself, before anybody found the first.
    let datagram = directory.path().join("bus.dgram");
    let output = over_datagrams(&datagram, &["ping"]);
    assert!(output.status.success(), "{output:?}");
    let pid = rustix::process::Pid::from_child(&activated.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(activated.0.wait().unwrap().code(), Some(0));
    assert!(socket.exists(), "what was handed over is not removed");
    assert!(!datagram.exists(), "what was not is");
}

/// The tool over datagrams, with all the patience of a test.
fn over_datagrams(socket: &std::path::Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(program("ipc-cli"));
    command.arg("--address").arg(format!("dgram:{}", socket.display())).args(["--timeout", "30s"]);
    command.args(arguments).output().unwrap()
}

#[test]
fn systemd_socket_activate_hands_over_a_datagram_socket() {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    let socket = directory.path().join("bus.dgram");
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--datagram").arg("--listen").arg(&socket).arg(program("ipc-daemon"));
    command.arg("--runtime-dir").arg(directory.path()).arg("--state-dir").arg(directory.path().join("state"));
    let Ok(child) = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        eprintln!("left out: this machine has no systemd-socket-activate");
        return;
    };
    let activated = Running(child);
    assert!(eventually(|| socket.exists()));
    // The datagram that has the daemon started is asked for again: whose it is was not known then.
    let output = over_datagrams(&socket, &["--json", "call", "ipc.daemon", "status"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("unix_datagram"), "{text}");
    assert!(text.contains(&activated.0.id().to_string()), "{text}");
    let stream = Address::Unix(directory.path().join("bus.sock"));
    let mut client = Client::connect(ConnectOptions::new().address(stream)).unwrap();
    client.ping().unwrap();
}

#[test]
fn a_stream_and_a_datagram_socket_are_handed_over_together_as_the_socket_unit_does() {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    let [stream, datagram] = ["bus.sock", "bus.dgram"].map(|name| directory.path().join(name));
    let script = "import fcntl, os, socket, sys\n\
        sockets = [socket.socket(socket.AF_UNIX, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]\n\
        for number, (one, path) in enumerate(zip(sockets, sys.argv[1:3])):\n\
        \tone.bind(path)\n\
        \tone.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)\n\
        sockets[0].listen(8)\n\
        high = [fcntl.fcntl(one, fcntl.F_DUPFD, 64) for one in sockets]\n\
        for number, one in enumerate(high):\n\
        \tos.dup2(one, 3 + number)\n\
        \tos.set_inheritable(3 + number, True)\n\
        os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()))\n\
        os.execv(sys.argv[3], sys.argv[3:])\n";
    let mut launcher: Vec<std::ffi::OsString> = vec!["python3".into(), "-c".into(), script.into()];
    launcher.extend([stream.clone().into_os_string(), datagram.clone().into_os_string()]);
    let runtime_dir = Some(directory.path().to_owned());
    let daemon = Daemon::start_with(&Options { launcher, runtime_dir, ..Options::default() });
    ipc_tests::services::serve_echo(&daemon);
    let mut client = ipc_tests::services::client(&daemon);
    let large = "x".repeat(1 << 20);
    assert_eq!(client.call("test.echo", "echo", &*large).unwrap().payload.as_text(), Ok(&*large));
    let output = over_datagrams(&datagram, &["call", "test.echo", "echo", "hello"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello", "{output:?}");
}

/// A service manager's socket, and the daemon that it has started.
fn watched(variables: &[(&str, &str)]) -> (tempfile::TempDir, UnixDatagram, Daemon) {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let notify = [("NOTIFY_SOCKET".into(), path.into())];
    let more = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let options = Options { environment: notify.into_iter().chain(more).collect(), ..Options::default() };
    (directory, socket, Daemon::start_with(&options))
}

fn told(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).expect("the service manager is told something");
    String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
}

#[test]
fn the_bus_gives_signs_of_life_at_half_of_the_time_that_is_asked_for() {
    let (_directory, socket, daemon) = watched(&[("WATCHDOG_USEC", "200000")]);
    let begun = Instant::now();
    let mut signs = 0;
    let mut is_ready = false;
    while signs < 6 {
        match &*told(&socket) {
            "WATCHDOG=1" => signs += 1,
            "READY=1" => is_ready = true,
            other => panic!("{other}"),
        }
    }
    assert!(is_ready);
    // The first comes at once, the others after a tenth of a second each, although nothing else happens.
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(450), "after {took:?}");
    let before = daemon.cpu_time();
    told(&socket);
    told(&socket);
    assert!(daemon.cpu_time() - before < Duration::from_millis(100));
    daemon.signal(ipc_tests::daemon::Signal::TERM);
    while told(&socket) != "STOPPING=1" {}
}

#[test]
fn a_bus_that_stands_still_gives_no_sign() {
    let (_directory, socket, daemon) = watched(&[("WATCHDOG_USEC", "100000")]);
    while told(&socket) != "READY=1" {}
    while told(&socket) != "WATCHDOG=1" {}
    daemon.signal(ipc_tests::daemon::Signal::STOP);
    // What was given before it stood still.
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    while socket.recv(&mut [0; 64]).is_ok() {}
    daemon.signal(ipc_tests::daemon::Signal::CONT);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(told(&socket), "WATCHDOG=1");
}

#[test]
fn nobody_who_did_not_ask_is_given_signs() {
    for variables in [&[][..], &[("WATCHDOG_USEC", "0")], &[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")]]
    {
        let (_directory, socket, daemon) = watched(variables);
        assert_eq!(told(&socket), "READY=1");
        daemon.signal(ipc_tests::daemon::Signal::TERM);
        assert_eq!(told(&socket), "STOPPING=1");
    }
}
