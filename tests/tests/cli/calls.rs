//! `call`: what a caller gets and how it learns of failures.

use ipc_tests::daemon::Daemon;
use ipc_tests::services::RawService;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::command::{Running, at, finish, listens, run, run_at, run_with_input, tool, wait_until};

fn serve(daemon: &Daemon, service: &str, command: &[&str]) -> Running {
    let arguments = [&["serve", service, "run", "--"], command].concat();
    Running::start(daemon.runtime_dir(), &arguments, &format!("serving {service}/run"))
}

#[test]
fn a_reply_arrives_byte_for_byte() {
    let daemon = Daemon::start();
    let _service = serve(&daemon, "demo.cat", &["cat"]);
    let call = ["call", "demo.cat", "run"];
    assert_eq!(run_at(daemon.runtime_dir(), &[&call[..], &["hello"]].concat()).succeeded(), "hello");
    assert_eq!(run_at(daemon.runtime_dir(), &call).succeeded(), "", "no payload is the empty payload");
    let everything: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let ran = run_with_input(&at(daemon.runtime_dir(), &[&call[..], &["-"]].concat()), &everything);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(ran.stdout == everything, "the bytes differ");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "from a file\n").expect("written");
    let argument = format!("@{}", file.path().display());
    assert_eq!(
        run_at(daemon.runtime_dir(), &[&call[..], &[&argument]].concat()).succeeded(),
        "from a file\n"
    );
}

#[test]
fn for_programs_a_reply_is_an_object() {
    let daemon = Daemon::start();
    let service = serve(&daemon, "demo.cat", &["cat"]);
    let answer = run_at(daemon.runtime_dir(), &["--json", "call", "demo.cat", "run", "grüß\n"]).object();
    assert_eq!(answer["service"], "demo.cat");
    assert_eq!(answer["method"], "run");
    assert_eq!(answer["text"], "grüß\n");
    assert_eq!(answer["responder"]["pid"], service.pid());
    assert!(answer["duration_us"].as_f64().is_some_and(|micros| micros > 0.0), "{answer}");
    let bytes =
        run_with_input(&at(daemon.runtime_dir(), &["--json", "call", "demo.cat", "run", "-"]), b"\xff\0");
    assert_eq!(bytes.object()["base64"], "/wA=");
}

#[test]
fn the_command_of_a_service_knows_who_calls() {
    let daemon = Daemon::start();
    let script = "echo $IPC_SERVICE $IPC_METHOD $IPC_SENDER_UID ${IPC_SENDER_PRINCIPAL-nobody}";
    let _service = serve(&daemon, "demo.who", &["sh", "-c", script]);
    let uid = rustix::process::getuid().as_raw();
    let expected = format!("demo.who run {uid} nobody\n");
    assert_eq!(run_at(daemon.runtime_dir(), &["call", "demo.who", "run"]).succeeded(), expected);
}

#[test]
fn a_failed_command_is_the_services_error() {
    let daemon = Daemon::start();
    let _service = serve(&daemon, "demo.fail", &["sh", "-c", "echo first; echo no such title >&2; exit 3"]);
    let error = run_at(daemon.runtime_dir(), &["--json", "call", "demo.fail", "run", "x"])
        .failed_with(1, "application");
    assert_eq!(error["application_code"], "exit-3");
    assert_eq!(error["message"], "no such title");
    let for_people = run_at(daemon.runtime_dir(), &["call", "demo.fail", "run", "x"]);
    assert_eq!(for_people.status, Some(1));
    assert!(for_people.stderr.starts_with("error: no such title (application exit-3)\n"), "{for_people:?}");
}

#[test]
fn what_is_not_there_is_refused_at_once() {
    let daemon = Daemon::start();
    let _service = serve(&daemon, "demo.cat", &["cat"]);
    for (service, method, code) in
        [("demo.dog", "run", "no_such_service"), ("demo.cat", "walk", "no_such_method")]
    {
        let ran = run_at(daemon.runtime_dir(), &["--json", "call", service, method]);
        let error = ran.failed_with(69, code);
        assert!(error["hint"].as_str().unwrap().contains("ipc-cli"), "{error}");
        assert!(ran.duration < std::time::Duration::from_secs(4), "at once: {ran:?}");
    }
    run_at(daemon.runtime_dir(), &["--json", "describe", "demo.dog"]).failed_with(69, "no_such_service");
    let error = run_at(daemon.runtime_dir(), &["--json", "serve", "demo.cat", "run", "--", "cat"]);
    error.failed_with(75, "name_taken");
    run_at(daemon.runtime_dir(), &["--json", "serve", "ipc.mine", "run", "--", "cat"])
        .failed_with(77, "permission_denied");
}

#[test]
fn a_deadline_ends_the_call() {
    let daemon = Daemon::start();
    let _service = serve(&daemon, "demo.slow", &["sleep", "1000"]);
    let call = ["--json", "call", "demo.slow", "run"];
    run_at(daemon.runtime_dir(), &[&call[..], &["--deadline", "200ms"]].concat())
        .failed_with(124, "deadline_exceeded");
    run_at(daemon.runtime_dir(), &[&call[..], &["--timeout", "200ms"]].concat())
        .failed_with(124, "deadline_exceeded");
    let shorter = ["--deadline", "200ms", "--timeout", "1h"];
    run_at(daemon.runtime_dir(), &[&call[..], &shorter].concat()).failed_with(124, "deadline_exceeded");
}

#[test]
fn a_payload_over_the_limit_is_refused() {
    let daemon = Daemon::start();
    let _service = serve(&daemon, "demo.cat", &["cat"]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    for (length, fits) in [(16 << 20, true), ((16 << 20) + 1, false)] {
        file.as_file().set_len(length).expect("a sparse file");
        let argument = format!("@{}", file.path().display());
        let ran = run_at(
            daemon.runtime_dir(),
            &["--json", "--timeout", "60s", "call", "demo.cat", "run", &argument],
        );
        if fits {
            assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        } else {
            ran.failed_with(2, "payload_too_large");
        }
    }
}

#[test]
fn a_one_way_call_prints_nothing_and_runs() {
    let daemon = Daemon::start();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("ran");
    let script = format!("cat > {}", file.display());
    let _service = serve(&daemon, "demo.note", &["sh", "-c", &script]);
    let ran =
        run_at(daemon.runtime_dir(), &["call", "demo.note", "run", "noted", "--oneway", "--deadline", "10s"]);
    assert_eq!(ran.succeeded(), "");
    wait_until("the command has run", || {
        std::fs::read_to_string(&file).ok().filter(|text| text == "noted").map(drop)
    });
    let json =
        run_at(daemon.runtime_dir(), &["--json", "call", "demo.note", "run", "again", "--oneway"]).object();
    assert_eq!(json, json!({"service": "demo.note", "method": "run", "oneway": true}));
}

#[test]
fn a_one_way_call_of_what_is_not_there_is_an_error() {
    let daemon = Daemon::start();
    let _service = serve(&daemon, "demo.note", &["true"]);
    let call =
        |service, method| run_at(daemon.runtime_dir(), &["--json", "call", service, method, "x", "--oneway"]);
    call("demo.nobody", "run").failed_with(69, "no_such_service");
    call("demo.note", "walk").failed_with(69, "no_such_method");
    assert_eq!(call("demo.note", "run").status, Some(0));
}

#[test]
fn an_interrupted_call_ends_at_once_and_is_cancelled_at_the_service() {
    let daemon = Daemon::start();
    let mut service = RawService::register(&daemon, "test.slow", "run");
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let arguments = at(daemon.runtime_dir(), &["call", "test.slow", "run", "x"]);
        let child = tool(&arguments).spawn().expect("ipc-cli starts");
        let call = service.call();
        wait_until("it listens", || listens(child.id()).then_some(()));
        kill_process(Pid::from_child(&child), signal).expect("it runs");
        let ran = finish(child);
        assert_eq!((ran.status, ran.text(), ran.stderr.as_str()), (Some(status), "", ""));
        service.cancelled(&call);
    }
}

#[test]
fn a_daemon_is_found_by_address_and_by_environment() {
    let daemon = Daemon::start();
    let address = daemon.address();
    let ping = |arguments: &[&std::ffi::OsStr]| run(arguments).succeeded().is_empty();
    assert!(!ping(&["ping".as_ref(), "--address".as_ref(), &address]));
    for (name, value) in [("IPC_ADDRESS", address), ("IPC_RUNTIME_DIR", daemon.runtime_dir().into())] {
        let child = crate::command::tool(&["ping"]).env(name, value).spawn().expect("ipc-cli starts");
        crate::command::finish(child).succeeded();
    }
}

#[test]
fn a_call_under_a_fence_is_refused_once_the_lock_was_given_again() {
    let daemon = Daemon::start();
    let _service = serve(&daemon, "demo.cat", &["cat"]);
    let run = |arguments: &[&str]| run_at(daemon.runtime_dir(), arguments);
    let token = run(&["lock", "deploy", "--quiet", "--", "sh", "-c", "echo $IPC_FENCING_TOKEN"]);
    let fence = format!("deploy:{}", token.succeeded().trim());
    assert_eq!(run(&["call", "demo.cat", "run", "x", "--fence", &fence]).succeeded(), "x");
    run(&["lock", "deploy", "--", "true"]).succeeded();
    run(&["--json", "call", "demo.cat", "run", "x", "--fence", &fence])
        .failed_with(75, "stale_fencing_token");
    run(&["--json", "call", "demo.cat", "run", "x", "--fence", "deploy"]).failed_with(2, "invalid_argument");
}
