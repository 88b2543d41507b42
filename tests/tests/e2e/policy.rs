//! A bus for several users: what the rules let each of them do, while it runs and when they change.

use ipc_core::blocking::{Client, KeyEvent, Selection, Service, ServingState, SubscribeOptions};
use ipc_core::name::ResourceName;
use ipc_core::service::Request;
use ipc_core::{Address, ConnectOptions, Error, ErrorCode, HoldOptions};
use ipc_tests::daemon::{Daemon, Options, PATIENCE, eventually};
use ipc_tests::services::{ask, client};
use ipc_tests::users::{STRANGERS, as_user, can_switch, shared_bus};

const ALICE: u32 = STRANGERS[0];
const BOB: u32 = STRANGERS[1];
const CAROL: u32 = STRANGERS[2];
const STAFF: u32 = 3_000_000;
const DENIED: Option<ErrorCode> = Some(ErrorCode::PermissionDenied);

/// The first rule stands in line 5.
fn config(rules: &[&str]) -> String {
    let rules: Vec<String> = rules.iter().map(|rule| format!("  {rule:?},\n")).collect();
    format!("[socket]\nmode = \"0666\"\n[policy]\nrules = [\n{}]\n", rules.concat())
}

/// A client of that user: what the kernel notes when it connects is whose it is, whoever uses it then.
fn connect(daemon: &Daemon, uid: u32, groups: &[u32]) -> Result<Client, Error> {
    let address = Address::Unix(daemon.socket());
    let options = ConnectOptions::new().address(address).call_timeout(PATIENCE);
    as_user(uid, groups, || Client::connect(options))
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
    let (daemon, _directory) = shared_bus(&config(&[
        "allow uid:0 * >",
        &format!("allow uid:{ALICE} own demo.>"),
        &format!("allow gid:{STAFF} call,subscribe demo.>"),
        &format!("allow gid:{STAFF} call ipc.daemon/list"),
    ]));
    assert_eq!(refusal(connect(&daemon, CAROL, &[])), DENIED, "no rule is about her");
    let mut alice = connect(&daemon, ALICE, &[]).unwrap();
    assert_eq!(refusal(alice.serve(echo("other.echo"))), DENIED);
    let serving = alice.serve(echo("demo.echo")).unwrap();
    assert_eq!(refusal(alice.publish("demo.news", "x")), DENIED);
    let mut also_alice = connect(&daemon, ALICE, &[]).unwrap();
    assert_eq!(refusal(also_alice.call("demo.echo", "echo", "x")), DENIED, "to own is not to call");
    client(&daemon).serve(echo("hidden.echo")).unwrap();
    let mut bob = connect(&daemon, BOB, &[STAFF]).unwrap();
    assert_eq!(refusal(bob.serve(echo("demo.mine"))), DENIED);
    assert_eq!(refusal(bob.subscribe(">", SubscribeOptions::default())), DENIED);
    let _events = bob.subscribe("demo.*", SubscribeOptions::default()).unwrap();
    assert_eq!(refusal(bob.call("ipc.daemon", "status", "")), DENIED);
    let listed = bob.call("ipc.daemon", "list", "all").unwrap();
    let listed = listed.payload.as_text().unwrap().to_owned();
    assert!(listed.contains("demo.echo") && !listed.contains("hidden.echo"), "{listed}");
    assert_eq!(listed.matches("\"peer\"").count(), 1, "of connections his own alone: {listed}");
    alice.unserve(serving).unwrap();
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
    let root = "allow uid:0 * >";
    let (daemon, _directory) =
        shared_bus(&config(&[root, &format!("allow uid:{ALICE} subscribe,publish demo.>")]));
    let mut alice = connect(&daemon, ALICE, &[]).unwrap();
    let mut publisher = connect(&daemon, ALICE, &[]).unwrap();
    let subscription = alice.subscribe("demo.>", SubscribeOptions::default()).unwrap();
    publisher.publish("demo.a", "x").unwrap();
    assert!(alice.next_delivery(&subscription, PATIENCE).unwrap().is_some());
    daemon.reload("[policy]\nrules = [\"allow\"]\n");
    assert!(eventually(|| daemon.log().contains("the old configuration stays")));
    assert!(daemon.log().contains("daemon.toml:2:10: "), "{}", daemon.log());
    publisher.publish("demo.a", "x").unwrap();
    assert!(alice.next_delivery(&subscription, PATIENCE).unwrap().is_some());
    daemon.reload(&config(&[root, &format!("allow uid:{ALICE} publish demo.b")]));
    assert_eq!(refusal(alice.next_delivery(&subscription, PATIENCE)), DENIED);
    alice.publish("demo.b", "the connection goes on").unwrap();
    assert_eq!(refusal(publisher.publish("demo.a", "x")), DENIED);
    publisher.publish("demo.b", "x").unwrap();
}

/// The lines of the log about what a user was refused, and how many the daemon says that it has held back.
fn refusals(daemon: &Daemon, uid: u32) -> (usize, u64) {
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains(&format!("refused: local uid={uid} ")));
    let held_back = lines.clone().map(|line| {
        let (_, rest) = line.split_once("held_back=").expect("it is said how many");
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
        digits.parse::<u64>().expect("a number")
    });
    (lines.count(), held_back.sum())
}

#[test]
fn nobodys_refusals_are_hidden_behind_those_of_another() {
    if !can_switch() {
        return;
    }
    let rules = [ALICE, BOB].map(|uid| format!("allow uid:{uid} publish demo.open"));
    let (daemon, _directory) = shared_bus(&config(&["allow uid:0 * >", &rules[0], &rules[1]]));
    let [mut alice, mut bob] = [ALICE, BOB].map(|uid| connect(&daemon, uid, &[]).unwrap());
    let begun = std::time::Instant::now();
    let mut tried = 0;
    let mut is_refused = |client: &mut Client| {
        tried += 1;
        assert_eq!(refusal(client.serve(echo("demo.echo"))), DENIED);
    };
    (0..500).for_each(|_| is_refused(&mut alice));
    is_refused(&mut bob);
    let seconds = begun.elapsed().as_secs() as usize + 1;
    assert!(eventually(|| refusals(&daemon, BOB) == (1, 0)), "{}", daemon.log());
    // The lines come in order.
    let (lines, _) = refusals(&daemon, ALICE);
    assert!((10..=10 + seconds).contains(&lines), "{lines} lines in {seconds} s");
    // The next line that there is room for says how many there was none for.
    assert!(eventually(|| {
        is_refused(&mut alice);
        refusals(&daemon, ALICE).0 > lines
    }));
    let counters = ask(&daemon, "status", "").unwrap()["counters"].clone();
    assert_eq!(counters["permission_refusals"], tried, "all are counted");
    let (lines, held_back) = refusals(&daemon, ALICE);
    let told = lines as u64 + held_back;
    assert!(told >= 501 && told < tried, "{told} of {}", tried - 1);
}

/// Rules under which Alice may do all of that, and rules that take the half of it away.
fn halves() -> [String; 2] {
    let root = "allow uid:0 * >";
    let all = format!("allow uid:{ALICE} own,subscribe,coordinate,call >");
    let half = format!("deny uid:{ALICE} own,subscribe,coordinate half.>");
    [config(&[root, &all]), config(&[root, &half, &all])]
}

#[test]
fn a_reload_takes_away_what_it_is_about_and_the_blocking_client_says_so() {
    if !can_switch() {
        return;
    }
    let [before, after] = halves();
    let (daemon, _directory) = shared_bus(&before);
    let mut alice = connect(&daemon, ALICE, &[]).unwrap();
    let [lost, kept] = ["half.echo", "whole.echo"].map(|name| alice.serve(echo(name)).unwrap());
    let [deaf, hears] =
        ["half.news", "whole.news"].map(|topic| alice.subscribe(topic, SubscribeOptions::default()).unwrap());
    let key = |name: &str| Selection::Key(ResourceName::parse(name).unwrap());
    let watch = alice.watch_keys(key("half/color"), None).unwrap();
    while !matches!(alice.next_key_event(&watch, PATIENCE).unwrap(), Some(KeyEvent::UpToDate { .. })) {}
    let mut holder = connect(&daemon, ALICE, &[]).unwrap();
    let mut hold = holder.lock("half.lock", HoldOptions::default()).unwrap();
    daemon.reload(&after);
    assert_eq!(refusal(alice.next_delivery(&deaf, PATIENCE)), DENIED);
    assert!(matches!(alice.next_key_event(&watch, PATIENCE).unwrap(), Some(KeyEvent::Ended(error))
        if Some(error.code) == DENIED));
    let ServingState::Gone(Some(error)) = alice.serving_state(&lost) else { panic!("it is still served") };
    assert_eq!(Some(error.code), DENIED);
    assert_eq!(alice.serving_state(&kept), ServingState::Active);
    assert!(eventually(|| hold.check().is_err_and(|error| Some(error.code) == DENIED)));
    let mut root = client(&daemon);
    assert!(root.lock("half.lock", HoldOptions::default()).is_ok(), "others can have it");
    root.publish("whole.news", "x").unwrap();
    assert!(alice.next_delivery(&hears, PATIENCE).unwrap().is_some());
    let error = refusal(alice.serve(echo("half.echo")));
    assert_eq!(error, DENIED, "it may be asked for again, and is refused");
}

#[test]
fn a_reload_takes_away_what_it_is_about_and_the_async_client_says_so() {
    let own = rustix::process::getuid().as_raw();
    let all = format!("allow uid:{own} * >");
    let (daemon, _directory) = shared_bus(&config(&[&all]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = Address::Unix(daemon.socket());
        let options = ConnectOptions::new().address(address).call_timeout(PATIENCE);
        let client = ipc_core::Client::connect(options).await.unwrap();
        let serve = |name: &str| {
            let service = ipc_core::service::Service::new(name).unwrap();
            client.serve(service.method("echo", async |request: Request| Ok(request.payload)))
        };
        let (lost, _kept) = (serve("half.echo").await.unwrap(), serve("whole.echo").await.unwrap());
        let mut deaf = client.subscribe("half.news", SubscribeOptions::default()).await.unwrap();
        let mut observation = client.observe("half.leader").await.unwrap();
        assert!(observation.next().await.unwrap().unwrap().is_none());
        let hold = client.lock("half.lock", HoldOptions::default()).await.unwrap();
        daemon.reload(&config(&[&format!("deny uid:{own} own,subscribe,coordinate half.>"), &all]));
        let ended = tokio::time::timeout(PATIENCE, async {
            let codes = [
                lost.closed().await.code,
                deaf.next().await.unwrap().unwrap_err().code,
                observation.next().await.unwrap().unwrap_err().code,
                hold.lost().await.code,
            ];
            assert_eq!(codes, [ErrorCode::PermissionDenied; 4]);
        });
        ended.await.unwrap();
        assert!(client.call("whole.echo", "echo", "goes on").await.is_ok());
    });
}

#[test]
fn a_connection_goes_on_with_the_identity_of_who_opened_it() {
    if !can_switch() {
        return;
    }
    let (daemon, _directory) =
        shared_bus(&config(&["allow uid:0 * >", &format!("allow uid:{ALICE} call demo.>")]));
    let mut root = client(&daemon);
    let mut alice = connect(&daemon, ALICE, &[]).unwrap();
    // Each is used by the other user: it stays a capability of the process that opened it.
    let published = as_user(ALICE, &[], move || root.publish("demo.news", "x"));
    assert_eq!(refusal(published), None);
    assert_eq!(refusal(alice.publish("demo.news", "x")), DENIED);
}

#[test]
fn the_policy_explains_itself() {
    if !can_switch() {
        return;
    }
    let rules = ["allow uid:0 * >", "deny uid:77 call demo.a/m", "allow anyone call demo.>"];
    let (daemon, _directory) = shared_bus(&config(&rules));
    for (question, allowed, line) in [
        ("uid:77 call demo.a/m", false, Some(6)),
        ("uid:77 call demo.a/n", true, Some(7)),
        ("uid:77 own demo.a", false, None),
        ("user:root administer bridge-expose", true, Some(5)),
        ("remote:laptop call demo.a/m", true, Some(7)),
        ("remote:anonymous call demo.a/m", false, None),
        ("uid:0 own ipc.daemon", false, None),
    ] {
        let answer = ask(&daemon, "policy-explain", question).unwrap();
        let decided = (answer["allowed"].as_bool(), answer["line"].as_u64());
        assert_eq!(decided, (Some(allowed), line), "{question}: {answer}");
    }
    for question in ["", "uid:77 call", "uid:77 look x", "bob call demo.a/m", "uid:77 call demo.a"] {
        let refused = ask(&daemon, "policy-explain", question);
        assert_eq!(refusal(refused), Some(ErrorCode::InvalidArgument), "{question}");
    }
}

#[test]
fn everybody_may_ask_about_themselves_and_nobody_about_others() {
    if !can_switch() {
        return;
    }
    let (daemon, _directory) = shared_bus(&config(&["allow anyone call ipc.daemon"]));
    let mut alice = connect(&daemon, ALICE, &[]).unwrap();
    for (who, expected) in [(ALICE, None), (BOB, DENIED)] {
        let answer = alice.call("ipc.daemon", "policy-explain", format!("uid:{who} own demo.a"));
        assert_eq!(refusal(answer), expected, "{who}");
    }
    assert_eq!(refusal(alice.call("ipc.daemon", "bridge-remove", "1")), DENIED);
    assert!(eventually(|| daemon.log().contains("administer bridge-remove")), "{}", daemon.log());
}

#[test]
fn a_user_of_a_namespace_that_has_no_number_here_gets_nothing_of_its_own() {
    if !can_switch() {
        return;
    }
    let ended = Daemon::try_start(&Options::with_config(config(&["allow user:nobody * >"]))).unwrap_err();
    assert_eq!(ended.status.code(), Some(78), "{ended:#?}");
    let (daemon, _directory) = shared_bus(&config(&["allow uid:0 * >", "allow anyone subscribe demo.>"]));
    let mut nobody = connect(&daemon, 65_534, &[]).unwrap();
    let _events = nobody.subscribe("demo.>", SubscribeOptions::default()).unwrap();
    assert_eq!(refusal(nobody.publish("demo.a", "x")), DENIED);
}

#[test]
fn the_example_of_a_system_bus_is_a_configuration() {
    if !can_switch() {
        return;
    }
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/system-bus.toml");
    let (daemon, _directory) = shared_bus(&std::fs::read_to_string(example).unwrap());
    client(&daemon).serve(echo("system.echo")).unwrap();
    let mut alice = connect(&daemon, ALICE, &[]).unwrap();
    assert_eq!(refusal(alice.serve(echo("system.mine"))), DENIED);
    alice.serve(echo("public.alice")).unwrap();
    let _events = alice.subscribe("system.news", SubscribeOptions::default()).unwrap();
    assert_eq!(refusal(alice.subscribe("system.>", SubscribeOptions::default())), DENIED);
}
