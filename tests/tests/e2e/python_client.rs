//! The client that was written from PROTOCOL.md alone, as real python3 processes: a service, a caller, a publisher, a
//! subscriber, with this library at the other end.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipc_core::blocking::{Client, Delivery, HoldOptions, Reply, Request, Service, SubscribeOptions};
use ipc_core::error::ServiceError;
use ipc_core::{Address, CallOptions, ConnectOptions, Error, ErrorCode, Payload};
use ipc_tests::daemon::{Daemon, Options, PATIENCE};

/// A running `check.py`. Dropping it kills it.
struct Python {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    readers: Vec<JoinHandle<()>>,
}

impl Python {
    fn start(role: &str, path: &Path, arguments: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python");
        let mut command = Command::new("python3");
        command.arg("-B").arg(folder.join("check.py")).arg(role).arg(path).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("python3 starts; .ci/run installs it");
        let (sender, lines) = channel();
        let stdout = child.stdout.take().expect("a pipe");
        let stderr = child.stderr.take().expect("a pipe");
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody listens any more once the test has failed.
                let _ = sender.send(line);
            }
        });
        let role = role.to_owned();
        let complaints = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("{role}: {line}");
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines, readers: vec![reader, complaints] }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("python3 says something before it ends")
    }

    /// The next line, while `client` serves calls.
    fn line_while_serving(&self, client: &mut Client) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.try_recv() {
                Ok(line) => return line,
                Err(TryRecvError::Empty) => assert!(Instant::now() < end, "python3 does not go on"),
                Err(TryRecvError::Disconnected) => panic!("python3 has ended"),
            }
            client.serve_next(Duration::from_millis(10)).expect("the service serves");
        }
    }

    fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{line}").expect("python3 reads");
    }

    /// Waits for it to end well.
    fn finish(mut self) {
        self.stdin = None;
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        assert!(self.child.wait().expect("it has ended").success());
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // A child of its own may read this.
        self.stdin = None;
        // It may have ended already, which is what is wanted here.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

fn connect(daemon: &Daemon) -> Client {
    let address = Address::parse_os(&daemon.address()).unwrap();
    Client::connect(ConnectOptions::new().address(address).call_timeout(PATIENCE)).unwrap()
}

fn text(reply: Result<Reply, Error>) -> String {
    reply.unwrap().payload.as_text().unwrap().to_owned()
}

#[test]
fn python_reads_and_writes_the_golden_vectors() {
    let python = Python::start("golden", &ipc_tests::golden::folder(), &[]);
    assert_eq!(python.line(), format!("{} vectors", ipc_tests::golden::vectors().len()));
    python.finish();
}

#[test]
fn a_service_in_python_serves_this_library() {
    let daemon = Daemon::start();
    let python = Python::start("serve", &daemon.socket(), &[]);
    assert_eq!(python.line(), "ready");
    let mut client = connect(&daemon);
    assert_eq!(text(client.call("demo.python", "title", "hello wörld")), "Hello Wörld");
    for payload in [Payload::bytes(vec![]), Payload::json("{}"), Payload::bytes(vec![7; 3_000_000])] {
        assert_eq!(client.call("demo.python", "echo", payload.clone()).unwrap().payload, payload);
    }
    // The identity that python was told is that of this process.
    let uid = rustix::process::geteuid().as_raw();
    let who = text(client.call("demo.python", "who", ""));
    assert!(who.contains(&format!("[\"local\", {uid}, ")), "{who}");
    assert!(who.ends_with(&format!(", {}]]", std::process::id())), "{who}");
    let failed = client.call("demo.python", "fail", "").unwrap_err();
    assert_eq!((failed.code, failed.message.as_str()), (ErrorCode::Application, "no such book"));
    assert_eq!(failed.detail.unwrap().application_code.as_deref(), Some("not_found"));
    let missing = client.call("demo.python", "missing", "").unwrap_err();
    assert_eq!(missing.code, ErrorCode::NoSuchMethod);

    let soon = CallOptions::new().deadline(Duration::from_millis(50));
    let late = client.call_with("demo.python", "never", "", soon).unwrap_err();
    assert_eq!(late.code, ErrorCode::DeadlineExceeded);
    assert_eq!(python.line(), "called");
    assert_eq!(text(client.call("demo.python", "title", "still there")), "Still There");

    let pending = client.start_call("demo.python", "never", "", CallOptions::new()).unwrap();
    // Written with what is sent next, if not at once.
    client.ping().unwrap();
    assert_eq!(python.line(), "called");
    drop(python);
    assert_eq!(client.wait(pending).unwrap_err().code, ErrorCode::ServiceGone);
    assert_eq!(client.call("demo.python", "title", "").unwrap_err().code, ErrorCode::NoSuchService);
}

/// `demo.rust`, until it is asked to stop; notes go into the channel.
fn service(notes: Sender<String>) -> Service {
    let title = |request: &Request| {
        let text = request.payload.as_text()?;
        let words = text.split(' ').map(|word| {
            let mut letters = word.chars();
            letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
        });
        Ok(words.collect::<Vec<String>>().join(" "))
    };
    let remaining =
        |request: &Request| Ok(format!("{}", request.remaining().unwrap_or_default().as_millis()));
    let fail =
        |_: &Request| -> Result<String, ServiceError> { Err(ServiceError::new("not_found", "no such book")) };
    let note = move |request: &Request| {
        // The test may be over.
        let _ = notes.send(request.payload.as_text()?.to_owned());
        Ok("noted")
    };
    Service::new("demo.rust")
        .unwrap()
        .method("title", title)
        .method("echo", |request| Ok(request.payload.clone()))
        .method("fail", fail)
        .method("remaining", remaining)
        .method("note", note)
        .method_with_client("never", |_, client| {
            let end = Instant::now() + PATIENCE;
            while !client.is_cancelled() && Instant::now() < end {
                std::thread::yield_now();
            }
            Ok("too late")
        })
}

#[test]
fn python_calls_over_datagrams() {
    let config = "[remote]\nallow = [\"call demo.rust\"]\n";
    let daemon = Daemon::start_with(&Options {
        config: Some(config.to_owned()),
        ..Options::with_arguments(["--udp", "127.0.0.1:0"])
    });
    let mut client = connect(&daemon);
    let (notes, _noted) = channel();
    let subscription = client.subscribe("sensor.>", SubscribeOptions::default()).unwrap();
    let status = text(client.call("ipc.daemon", "status", ""));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    client.serve(service(notes)).unwrap();
    for kind in ["unix_datagram", "udp"] {
        let rows = status["addresses"].as_array().unwrap();
        let address = rows.iter().find(|row| row["kind"] == kind).unwrap()["address"].as_str().unwrap();
        let python = Python::start("datagrams", Path::new(address), &[]);
        assert_eq!(python.line_while_serving(&mut client), "done");
        python.finish();
    }
    let Some(Delivery::Event(event)) = client.next_delivery(&subscription, PATIENCE).unwrap() else {
        panic!()
    };
    assert_eq!((event.topic.as_str(), event.payload.as_text().unwrap()), ("sensor.python", "21.5"));
}

#[test]
fn a_caller_in_python_calls_this_library() {
    let daemon = Daemon::start();
    let mut client = connect(&daemon);
    let (notes, noted) = channel();
    let serving = client.serve(service(notes.clone())).unwrap();
    let mut python = Python::start("call", &daemon.socket(), &[&std::process::id().to_string()]);
    assert_eq!(python.line_while_serving(&mut client), "again");
    assert_eq!(noted.try_recv().as_deref(), Ok("one way"));
    client.unserve(serving).unwrap();
    client.serve(service(notes)).unwrap();
    python.say("done");
    assert_eq!(python.line_while_serving(&mut client), "called");
    python.finish();
}

#[test]
fn a_deadline_is_inherited_through_python() {
    let daemon = Daemon::start();
    let python = Python::start("serve", &daemon.socket(), &[]);
    assert_eq!(python.line(), "ready");
    let (mut callee, mut caller) = (connect(&daemon), connect(&daemon));
    callee.serve(service(channel().0)).unwrap();
    let deadline = Duration::from_secs(20);
    let call = CallOptions::new().deadline(deadline);
    let relayed = caller.start_call("demo.python", "relay", "", call).unwrap();
    caller.ping().unwrap();
    let end = Instant::now() + PATIENCE;
    while !callee.serve_next(Duration::from_millis(10)).unwrap() {
        assert!(Instant::now() < end, "python3 does not call");
    }
    // Python asks for an hour, and is given what its own caller has left.
    let remaining: u128 = text(caller.wait(relayed)).parse().unwrap();
    assert!(remaining > 0 && remaining <= deadline.as_millis(), "{remaining} ms");
}

#[test]
fn python_publishes_and_this_library_receives() {
    let daemon = Daemon::start();
    let mut client = connect(&daemon);
    let subscription = client.subscribe("sensor.>", SubscribeOptions::default()).unwrap();
    let python = Python::start("publish", &daemon.socket(), &["sensor.kitchen", "20"]);
    for number in 1..=20u64 {
        let delivery = client.next_delivery(&subscription, PATIENCE).unwrap();
        let Some(Delivery::Event(event)) = delivery else { panic!("{delivery:?} instead of event {number}") };
        assert_eq!((event.topic.as_str(), event.sequence), ("sensor.kitchen", number));
        assert_eq!(event.payload, Payload::text(number.to_string()));
    }
    assert_eq!(python.line(), "published");
    python.finish();
}

#[test]
fn this_library_publishes_and_python_receives() {
    let daemon = Daemon::start();
    let mut client = connect(&daemon);
    let python = Python::start("subscribe", &daemon.socket(), &["sensor.*", "3"]);
    assert_eq!(python.line(), "ready");
    client.publish("sensor.not.this", "x").unwrap();
    client.publish("sensor.kitchen", "21.5").unwrap();
    client.publish_oneway("sensor.cellar", Payload::json("9")).unwrap();
    client.publish("sensor.kitchen", "grüß").unwrap();
    assert_eq!(python.line(), r#"["sensor.kitchen", 1, "21.5", 1, "local"]"#);
    assert_eq!(python.line(), r#"["sensor.cellar", 1, "9", 2, "local"]"#);
    assert_eq!(python.line(), r#"["sensor.kitchen", 2, "gr\u00fc\u00df", 1, "local"]"#);
    python.finish();
}

#[test]
fn what_python_does_not_read_in_time_is_counted_in_gaps() {
    let daemon = Daemon::start();
    let mut client = connect(&daemon);
    let mut python = Python::start("listen_slowly", &daemon.socket(), &["sensor.kitchen"]);
    assert_eq!(python.line(), "ready");
    // More than the kernel keeps for one socket.
    let last = 2000u64;
    for number in 1..=last {
        let published = client.publish("sensor.kitchen", vec![7; 1024]).unwrap();
        assert_eq!(published.sequence, number);
    }
    python.say(&last.to_string());
    assert_eq!(python.line(), "complete");
    python.finish();
}

#[test]
fn python_takes_a_lock_and_gives_it_back() {
    let daemon = Daemon::start();
    let mut python = Python::start("lock", &daemon.socket(), &["python/lock"]);
    python.say(&ErrorCode::Busy.number().to_string());
    assert_eq!(python.line(), "done");
    python.finish();
}

/// The child has the connection, the process that took the lock is gone: others are not kept waiting by it.
#[test]
fn a_lock_ends_with_its_process_although_a_child_keeps_the_connection() {
    let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    if let Err(error) = ipc_core::transport::unix::peer_process(&end) {
        eprintln!("not tested, needs Linux 6.5: {error}");
        return;
    }
    let daemon = Daemon::start();
    let mut python = Python::start("leave_to_a_child", &daemon.socket(), &["left/behind"]);
    let child = python.line();
    let mut client = connect(&daemon);
    let once = HoldOptions { wait: Some(Duration::ZERO), ..HoldOptions::default() };
    assert_eq!(client.lock("left/behind", once).unwrap_err().code, ErrorCode::Busy);
    python.child.kill().unwrap();
    let patient = HoldOptions { wait: Some(PATIENCE), ..HoldOptions::default() };
    client.lock("left/behind", patient).unwrap().release().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{child}/status")).expect("the child is there");
    assert!(!status.contains("State:\tZ"), "the child lives: {status}");
}
