//! The example service `demo.title`, as a process of its own.

use std::process::{Command, Stdio};

use ipc_core::ErrorCode;
use ipc_core::blocking::{Delivery, SubscribeOptions};
use ipc_tests::daemon::{Daemon, PATIENCE};
use ipc_tests::programs::program;
use ipc_tests::services::{Title, client};

#[test]
fn every_language_has_its_title_case() {
    let daemon = Daemon::start();
    let mut client = client(&daemon);
    let _example = Title::start(&daemon);
    for (text, title) in [
        ("hello world", "Hello World"),
        ("", ""),
        ("  two  spaces\nand a line ", "  Two  Spaces\nAnd A Line "),
        ("SHOUTING mIxEd", "Shouting Mixed"),
        ("don't e-mail o'neill's", "Don't E-Mail O'neill's"),
        ("élan vital, æther, øre", "Élan Vital, Æther, Øre"),
        ("ärger über öl", "Ärger Über Öl"),
        ("привет, мир", "Привет, Мир"),
        ("ΚΑΛΗΜΕΡΑ ΚΟΣΜΟΣ", "Καλημερα Κοσμος"),
        ("ǆungla ljubav ǉubav", "ǅungla Ljubav ǈubav"),
        ("ﬁne ßtraße", "Fine Sstraße"),
        ("İSTANBUL", "İstanbul"),
        ("ⴀⴁ აბგ", "Ⴀⴁ აბგ"),
        ("ողջույն աշխարհ", "Ողջույն Աշխարհ"),
        ("你好 世界 שלום עולם नमस्ते दुनिया", "你好 世界 שלום עולם नमस्ते दुनिया"),
        ("𐐨𐐩 e\u{301}tude", "𐐀𐐩 E\u{301}tude"),
        ("3rd 10km (quoted) “curly”", "3Rd 10Km (Quoted) “Curly”"),
    ] {
        let reply = client.call("demo.title", "title", text).unwrap();
        assert_eq!(reply.payload.as_text(), Ok(title), "{text:?}");
    }
    let error = client.call("demo.title", "title", vec![0xff, 0xfe]).unwrap_err();
    assert_eq!(error.code, ErrorCode::Application);
    assert!(error.message.contains("UTF-8"), "{error}");
}

#[test]
fn every_title_is_an_event() {
    let daemon = Daemon::start();
    let mut client = client(&daemon);
    let _example = Title::start(&daemon);
    let titles = client.subscribe("demo.title.*", SubscribeOptions::default()).unwrap();
    client.call("demo.title", "title", "one more").unwrap();
    let delivery = client.next_delivery(&titles, PATIENCE).unwrap();
    let Some(Delivery::Event(event)) = delivery else { panic!("{delivery:?}") };
    assert_eq!((event.topic.as_str(), event.payload.as_text()), ("demo.title.made", Ok("One More")));
}

#[test]
fn the_example_of_a_call_prints_the_answer_or_says_why_not() {
    let daemon = Daemon::start();
    let _example = Title::start(&daemon);
    let call = |service: &str| {
        let mut command = Command::new(program("examples/blocking_call"));
        command.args([service, "title", "hello world"]).env("IPC_ADDRESS", daemon.address());
        command.stdin(Stdio::null()).output().unwrap()
    };
    let output = call("demo.title");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"Hello World\n");
    let output = call("demo.nobody");
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no_such_service"), "{output:?}");
}
