//! A bus for several users: what the rules let each of them do, while it runs and when they change.

use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::channel;

use ipc_core::blocking::{Client, Service};
use ipc_core::session::SubscribeOptions;
use ipc_core::{Address, ConnectOptions, Error, ErrorCode};
use ipc_tests::daemon::{Daemon, Options, PATIENCE, eventually};
use ipc_tests::services::client;
use ipc_tests::users::{STRANGERS, as_user, can_switch};
use tempfile::TempDir;

const ALICE: u32 = STRANGERS[0];
const BOB: u32 = STRANGERS[1];
const CAROL: u32 = STRANGERS[2];
const STAFF: u32 = 3_000_000;

/// A daemon that every user reaches, with these rules.
fn shared(rules: &[&str]) -> (Daemon, TempDir) {
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let runtime_dir = Some(directory.path().join("run"));
    let daemon = Daemon::start_with(&Options { runtime_dir, ..Options::with_config(&config(rules)) });
    (daemon, directory)
}

fn config(rules: &[&str]) -> String {
    let rules: Vec<String> = rules.iter().map(|rule| format!("  {rule:?},\n")).collect();
    format!("[socket]\nmode = \"0666\"\n[policy]\nrules = [\n{}]\n", rules.concat())
}

fn connect(daemon: &Daemon) -> Result<Client, Error> {
    let address = Address::Unix(daemon.socket());
    Client::connect(ConnectOptions::new().address(address).call_timeout(PATIENCE))
}

/// The code of the refusal, or `None`.
fn refusal<T>(result: Result<T, Error>) -> Option<ErrorCode> {
    result.err().map(|error| error.code)
}

fn echo(name: &str) -> Service {
    Service::new(name).unwrap().method("echo", |request| Ok(request.payload.clone()))
}

#[test]
fn users_do_what_the_rules_say_and_nothing_else() {
    if !can_switch() {
        return;
    }
    let (daemon, _directory) = shared(&[
        "allow uid:0 * >",
        &format!("allow uid:{ALICE} own demo.>"),
        &format!("allow gid:{STAFF} call,subscribe demo.>"),
        &format!("allow gid:{STAFF} call ipc.daemon/list"),
    ]);
    const DENIED: Option<ErrorCode> = Some(ErrorCode::PermissionDenied);
    as_user(CAROL, &[], || assert_eq!(refusal(connect(&daemon)), DENIED, "no rule is about her"));
    as_user(ALICE, &[], || {
        let mut alice = connect(&daemon).unwrap();
        assert_eq!(refusal(alice.serve(echo("other.echo"))), DENIED);
        let serving = alice.serve(echo("demo.echo")).unwrap();
        assert_eq!(refusal(alice.publish("demo.news", "x")), DENIED);
        assert_eq!(refusal(alice.call("demo.echo", "echo", "x")), DENIED, "to own is not to call");
        as_user(BOB, &[STAFF], || {
            let mut bob = connect(&daemon).unwrap();
            assert_eq!(refusal(bob.serve(echo("demo.mine"))), DENIED);
            assert_eq!(refusal(bob.subscribe(">", SubscribeOptions::default())), DENIED);
            bob.subscribe("demo.*", SubscribeOptions::default()).unwrap();
            assert_eq!(refusal(bob.call("ipc.daemon", "status", "")), DENIED);
            let listed = bob.call("ipc.daemon", "list", "all").unwrap();
            let listed = listed.payload.as_text().unwrap().to_owned();
            assert!(listed.contains("demo.echo") && !listed.contains("ipc.daemon"), "{listed}");
            assert_eq!(listed.matches("\"peer\"").count(), 1, "of connections his own alone: {listed}");
        });
        // From the same process, but by what the kernel says of each connection.
        alice.unserve(serving).unwrap();
    });
    let log = daemon.log();
    for uid in [ALICE, BOB] {
        assert!(log.contains(&format!("refused: local uid={uid} ")), "{log}");
    }
    assert!(log.contains(&format!("not open to local uid={CAROL} ")), "{log}");
    assert_eq!(daemon.stop().status.code(), Some(0));
}

#[test]
fn a_reload_takes_rights_away_from_open_connections() {
    if !can_switch() {
        return;
    }
    let all = format!("allow uid:{ALICE} subscribe,publish demo.>");
    let root = "allow uid:0 * >";
    let (daemon, _directory) = shared(&[root, &all]);
    as_user(ALICE, &[], || {
        let mut alice = connect(&daemon).unwrap();
        let mut publisher = connect(&daemon).unwrap();
        let subscription = alice.subscribe("demo.>", SubscribeOptions::default()).unwrap();
        publisher.publish("demo.a", "x").unwrap();
        assert!(alice.next_delivery(&subscription, PATIENCE).unwrap().is_some());
        daemon.reload("[policy]\nrules = [\"allow\"]\n");
        assert!(eventually(|| daemon.log().contains("the old configuration stays")));
        assert!(daemon.log().contains("daemon.toml:2:10: "), "{}", daemon.log());
        publisher.publish("demo.a", "x").unwrap();
        assert!(alice.next_delivery(&subscription, PATIENCE).unwrap().is_some());
        daemon.reload(&config(&[root, &format!("allow uid:{ALICE} publish demo.b")]));
        let lost = alice.next_delivery(&subscription, PATIENCE);
        assert_eq!(refusal(lost), Some(ErrorCode::PermissionDenied));
        assert_eq!(refusal(publisher.publish("demo.a", "x")), Some(ErrorCode::PermissionDenied));
        publisher.publish("demo.b", "x").unwrap();
    });
}

#[test]
fn a_connection_goes_on_with_the_identity_of_who_opened_it() {
    if !can_switch() {
        return;
    }
    let (daemon, _directory) = shared(&["allow uid:0 * >", &format!("allow uid:{ALICE} call demo.>")]);
    let mut root = connect(&daemon).unwrap();
    // Handed to somebody else it is a capability of the process that opened it: what the kernel noted then counts.
    let (give, take) = channel();
    as_user(ALICE, &[], || {
        root.publish("demo.news", "x").unwrap();
        let alice = connect(&daemon).unwrap();
        give.send(alice).unwrap();
    });
    let mut alice: Client = take.recv().unwrap();
    assert_eq!(refusal(alice.publish("demo.news", "x")), Some(ErrorCode::PermissionDenied));
}

#[test]
fn the_policy_explains_itself() {
    let (daemon, _directory) =
        shared(&["allow uid:0 * >", "deny uid:77 call demo.a/m", "allow anyone call demo.>"]);
    let mut own = match connect(&daemon) {
        Ok(client) => client,
        // Without root there is a rule for nobody but uid 77.
        Err(error) => panic!("{error}"),
    };
    let mut ask = |question: &str| {
        let reply = own.call("ipc.daemon", "policy-explain", question)?;
        Ok(serde_json::from_slice::<serde_json::Value>(&reply.payload.body).unwrap())
    };
    if !can_switch() {
        return;
    }
    for (question, allowed, line) in [
        ("uid:77 call demo.a/m", false, Some(5)),
        ("uid:77 call demo.a/n", true, Some(6)),
        ("uid:77 own demo.a", false, None),
        ("user:root administer bridge-expose", true, Some(4)),
        ("remote:anonymous call demo.a/m", false, None),
        ("uid:0 own ipc.daemon", false, None),
    ] {
        let answer = ask(question).unwrap();
        assert_eq!(
            (&answer["allowed"], answer["line"].as_u64()),
            (&allowed.into(), line),
            "{question}: {answer}"
        );
    }
    for question in ["", "uid:77 call", "uid:77 look x", "bob call demo.a/m", "uid:77 call demo.a"] {
        let refused: Result<_, Error> = ask(question);
        assert_eq!(refusal(refused), Some(ErrorCode::InvalidArgument), "{question}");
    }
}

#[test]
fn everybody_may_ask_about_themselves_and_nobody_about_others() {
    if !can_switch() {
        return;
    }
    let (daemon, _directory) = shared(&["allow anyone call ipc.daemon"]);
    as_user(ALICE, &[], || {
        let mut alice = connect(&daemon).unwrap();
        let mut ask = |who: u32| alice.call("ipc.daemon", "policy-explain", format!("uid:{who} own demo.a"));
        assert_eq!(refusal(ask(ALICE)), None);
        assert_eq!(refusal(ask(BOB)), Some(ErrorCode::PermissionDenied));
    });
}

#[test]
fn a_user_of_a_namespace_that_has_no_number_here_gets_nothing_of_its_own() {
    if !can_switch() {
        return;
    }
    let ended = Daemon::try_start(&Options::with_config(&config(&["allow user:nobody * >"])));
    let ended = ended.unwrap_err();
    assert_eq!(ended.status.code(), Some(78), "{ended:#?}");
    let (daemon, _directory) = shared(&["allow uid:0 * >", "allow anyone subscribe demo.>"]);
    as_user(65_534, &[], || {
        let mut nobody = connect(&daemon).unwrap();
        nobody.subscribe("demo.>", SubscribeOptions::default()).unwrap();
        assert_eq!(refusal(nobody.publish("demo.a", "x")), Some(ErrorCode::PermissionDenied));
    });
}

#[test]
fn the_example_of_a_system_bus_is_a_configuration() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/system-bus.toml");
    let text = std::fs::read_to_string(example).unwrap();
    let directory = tempfile::Builder::new().prefix("ipc-").tempdir_in("/tmp").unwrap();
    let runtime_dir = Some(directory.path().join("run"));
    let options = Options { runtime_dir, ..Options::with_config(&text) };
    if !can_switch() {
        return;
    }
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::start_with(&options);
    client(&daemon).serve(echo("system.echo")).unwrap();
    as_user(ALICE, &[], || {
        let mut alice = connect(&daemon).unwrap();
        assert_eq!(refusal(alice.serve(echo("system.mine"))), Some(ErrorCode::PermissionDenied));
        alice.serve(echo("public.alice")).unwrap();
        alice.subscribe("system.news", SubscribeOptions::default()).unwrap();
        let wide = alice.subscribe("system.>", SubscribeOptions::default());
        assert_eq!(refusal(wide), Some(ErrorCode::PermissionDenied));
    });
}
