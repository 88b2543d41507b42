//! Forwards on the command line, in the configuration, and while the daemon runs.

use ipc_core::ErrorCode;
use ipc_core::blocking::Service;
use ipc_tests::daemon::{Daemon, Options, eventually};
use ipc_tests::servers::{PYTHON_TCP, PYTHON_UDP, Script, Server, send};
use ipc_tests::services::{ask, client, serve};
use serde_json::Value;

fn rows(daemon: &Daemon) -> Vec<Value> {
    ask(daemon, "bridge-list", "").unwrap().as_array().unwrap().clone()
}

#[test]
fn a_forward_is_a_service_of_the_daemons_own() {
    let daemon = Daemon::start();
    let row = ask(&daemon, "bridge-forward", "test.net=tcp:127.0.0.1:9,framing=line").unwrap();
    for (name, value) in [
        ("kind", "forward_tcp"),
        ("spec", "test.net=tcp:127.0.0.1:9,framing=line"),
        ("service", "test.net"),
        ("method", "send"),
        ("framing", "line"),
        ("address", "127.0.0.1:9"),
    ] {
        assert_eq!(row[name], value, "{name}");
    }
    let services = ask(&daemon, "list", "services").unwrap();
    let listed = services.as_array().unwrap().iter().find(|service| service["name"] == "test.net");
    assert_eq!(listed.expect("it is listed")["owner"]["pid"], daemon.pid());
    let described = ask(&daemon, "describe", "test.net").unwrap();
    assert_eq!(described["methods"][0]["name"], "send");
    let description = described["methods"][0]["description"].as_str().unwrap();
    assert!(description.contains("tcp:127.0.0.1:9") && description.contains("line"), "{description}");
    let peers = ask(&daemon, "list", "peers").unwrap();
    assert!(peers.as_array().unwrap().iter().any(|peer| peer["transport"] == "forward"));
    // A service is all it is: the address is nobody's to connect to.
    let status = ask(&daemon, "status", "").unwrap();
    let kinds: Vec<_> = status["addresses"].as_array().unwrap().iter().map(|at| at["kind"].clone()).collect();
    assert!(kinds.iter().all(|kind| !kind.as_str().unwrap().starts_with("forward")), "{kinds:?}");
}

#[test]
fn a_name_that_is_taken_is_refused_and_one_that_is_removed_is_free() {
    let daemon = Daemon::start();
    serve(&daemon, Service::new("test.taken").unwrap().method("m", |_| Ok("mine")));
    let error = ask(&daemon, "bridge-forward", "test.taken=tcp:127.0.0.1:9").unwrap_err();
    assert_eq!(error.code, ErrorCode::NameTaken, "{error}");
    let row = ask(&daemon, "bridge-forward", "test.net=tcp:127.0.0.1:9").unwrap();
    let error = ask(&daemon, "bridge-forward", "test.net=udp:127.0.0.1:9").unwrap_err();
    assert_eq!(error.code, ErrorCode::NameTaken, "{error}");
    assert_eq!(rows(&daemon).len(), 1);
    ask(&daemon, "bridge-remove", &row["id"].to_string()).unwrap();
    assert!(rows(&daemon).is_empty());
    let is_free = || ask(&daemon, "bridge-forward", "test.net=udp:127.0.0.1:9").is_ok();
    assert!(eventually(is_free));
    assert_eq!(rows(&daemon)[0]["kind"], "forward_udp");
}

#[test]
fn the_calls_of_a_forward_that_is_removed_end_with_it() {
    let server = Server::start();
    let daemon = Daemon::start();
    let row = ask(&daemon, "bridge-forward", &format!("test.net=tcp:{}", server.address())).unwrap();
    let mut caller = client(&daemon);
    let call = std::thread::spawn(move || send(&mut caller, "?", None));
    let mut connection = server.accept();
    connection.expect("?");
    ask(&daemon, "bridge-remove", &row["id"].to_string()).unwrap();
    assert_eq!(call.join().unwrap().unwrap_err().code, ErrorCode::ServiceGone);
    assert!(connection.rest().is_empty());
}

#[test]
fn a_wrong_forward_is_a_wrong_command_line_or_a_wrong_configuration() {
    for spec in ["a=tcp:h", "a=tcp:h:1,framing=stream", "a=udp:h:1,framing=line", "ipc.x=tcp:h:1"] {
        let ended = Daemon::try_start(&Options::with_arguments(["--forward", spec])).unwrap_err();
        assert_eq!(ended.status.code(), Some(2), "{ended:#?}");
        let config = Options::with_config(format!("\nforward = [\"{spec}\"]\n"));
        let ended = Daemon::try_start(&config).unwrap_err();
        assert_eq!(ended.status.code(), Some(78), "{ended:#?}");
        assert!(ended.stderr.contains("daemon.toml:2:11:"), "{}", ended.stderr);
    }
    let twice = Options::with_arguments(["--forward", "a=tcp:h:1", "--forward", "a=udp:h:1"]);
    let ended = Daemon::try_start(&twice).unwrap_err();
    assert_eq!(ended.status.code(), Some(78), "{ended:#?}");
    assert!(ended.stderr.contains("a is held"), "{}", ended.stderr);
}

#[test]
fn a_reload_hands_the_name_over_without_a_moment_in_which_it_is_free() {
    let (tcp, udp) = (Script::python(PYTHON_TCP), Script::python(PYTHON_UDP));
    let config = |forward: &[String]| format!("forward = {forward:?}\n");
    let over_tcp = format!("test.net=tcp:127.0.0.1:{}", tcp.port);
    let over_udp = format!("test.net=udp:127.0.0.1:{}", udp.port);
    let daemon = Daemon::start_with(&Options::with_config(config(&[over_tcp])));
    let mut caller = client(&daemon);
    assert_eq!(send(&mut caller, "over tcp", None).unwrap(), "Over Tcp");
    daemon.reload(&config(std::slice::from_ref(&over_udp)));
    let is_changed = || rows(&daemon).first().is_some_and(|row| row["spec"] == over_udp.as_str());
    assert!(eventually(|| {
        // One that is open at that moment ends with the forward it went to; none finds no service.
        match send(&mut caller, "at any time", None) {
            Ok(reply) => assert_eq!(reply, "At Any Time"),
            Err(error) => assert_eq!(error.code, ErrorCode::ServiceGone, "{error}"),
        }
        is_changed()
    }));
    assert_eq!(send(&mut caller, "over udp", None).unwrap(), "Over Udp");
    assert_eq!(rows(&daemon).len(), 1);
    daemon.reload(&config(&[]));
    assert!(eventually(|| rows(&daemon).is_empty()));
    assert!(eventually(
        || send(&mut caller, "?", None).is_err_and(|error| error.code == ErrorCode::NoSuchService)
    ));
}

#[test]
fn a_reload_that_cannot_be_followed_leaves_the_forwards_as_they_are() {
    let server = Script::python(PYTHON_TCP);
    let spec = format!("test.net=tcp:127.0.0.1:{}", server.port);
    let daemon = Daemon::start_with(&Options::with_config(format!("forward = [{spec:?}]\n")));
    serve(&daemon, Service::new("test.taken").unwrap().method("m", |_| Ok("mine")));
    let before = rows(&daemon);
    daemon.reload("forward = [\"test.net=udp:127.0.0.1:9\", \"test.taken=udp:127.0.0.1:9\"]\n");
    assert!(eventually(|| daemon.log().contains("test.taken is held")), "{}", daemon.log());
    let after = rows(&daemon);
    assert_eq!(
        (after.len(), &after[0]["id"], &after[0]["spec"]),
        (1, &before[0]["id"], &spec.as_str().into())
    );
    assert_eq!(send(&mut client(&daemon), "still there", None).unwrap(), "Still There");
}
