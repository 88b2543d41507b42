//! The tool over datagrams: ping, call and publish, and a word about the rest.

use ipc_tests::daemon::{Daemon, Options};
use ipc_tests::services::{Title, ask};

use crate::command::run;

fn addresses(daemon: &Daemon) -> [String; 2] {
    let status = ask(daemon, "status", "").unwrap();
    let rows = status["addresses"].as_array().unwrap();
    let udp = rows.iter().find(|row| row["kind"] == "udp").unwrap()["address"].as_str().unwrap();
    [format!("dgram:{}", daemon.datagram_socket().display()), format!("udp:{udp}")]
}

#[test]
fn ping_call_and_publish_work_and_the_others_say_that_they_do_not() {
    let config = "[remote]\nallow = [\"call demo.title/title\", \"publish sensor.>\"]\n";
    let daemon = Daemon::start_with(&Options {
        config: Some(config.to_owned()),
        ..Options::with_arguments(["--udp", "127.0.0.1:0"])
    });
    let _title = Title::start(&daemon);
    for address in addresses(&daemon) {
        let at = |arguments: &[&str]| run(&[&["--json", "--address", &address], arguments].concat());
        assert_eq!(at(&["ping"]).object()["seq"], 1);
        let answered = at(&["call", "demo.title", "title", "hello world"]).object();
        assert_eq!((&answered["text"], &answered["service"]), (&"Hello World".into(), &"demo.title".into()));
        assert_eq!(at(&["publish", "sensor.a", "1"]).object()["subscribers"], 0);
        at(&["subscribe", "sensor.>"]).failed_with(76, "unsupported");
        at(&["serve", "demo.other", "m", "--", "cat"]).failed_with(76, "unsupported");
        at(&["call", "demo.nobody", "m"]).status.filter(|status| *status == 69 || *status == 77).unwrap();
        let plain = run(&["--address", &address, "call", "demo.title", "title", "hello world"]);
        assert_eq!(plain.succeeded(), "Hello World");
    }
}
