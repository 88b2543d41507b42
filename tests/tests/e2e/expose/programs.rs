//! Programs that have never heard of the bus, as real processes.

use std::io::Write;
use std::process::{Command, Stdio};

use ipc_tests::exposed::Exposed;
use ipc_tests::services::Title;

/// What a program writes when it is given `input`; `None` when there is no such program on this machine.
fn run(program: &str, arguments: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("left out: this machine has no {program}");
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

const PYTHON_CLIENT: &str = r#"
import socket, sys
port = int(sys.argv[1])
words = ["hello world", "élan vital", "ÄRGER in öl", "ещё раз", "x"]
for connection in range(3):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        for again in range(10):
            for text in words:
                client.sendall(text.encode())
                print(client.recv(1024).decode())
"#;

#[test]
fn a_python_client_asks_again_and_again() {
    let exposed = Exposed::start("demo.title/title", "");
    let _title = Title::start(&exposed.daemon);
    let port = exposed.address.port().to_string();
    let answers = run("python3", &["-X", "utf8", "-c", PYTHON_CLIENT, &port], "").expect("python3 is needed");
    let round = "Hello World\nÉlan Vital\nÄrger In Öl\nЕщё Раз\nX\n";
    assert_eq!(answers, round.repeat(30));
    assert_eq!(exposed.number("calls"), 150);
}

#[test]
fn nc_and_socat_get_the_answer_and_end() {
    let exposed = Exposed::start("demo.title/title", "");
    let _title = Title::start(&exposed.daemon);
    let port = exposed.address.port().to_string();
    // Both close their side when their input ends, and read on until the other side does.
    if let Some(answer) = run("nc", &["-N", "127.0.0.1", &port], "hello world") {
        assert_eq!(answer, "Hello World");
    }
    let socat = format!("TCP:127.0.0.1:{port}");
    if let Some(answer) = run("socat", &["-t", "30", "-", &socat], "hello world\n") {
        assert_eq!(answer, "Hello World\n");
    }
}

#[test]
fn nc_and_socat_send_lines() {
    let exposed = Exposed::start("demo.title/title,framing=line", "");
    let _title = Title::start(&exposed.daemon);
    let port = exposed.address.port().to_string();
    let (lines, titles) =
        ("hello world\nstraße nach süden\r\nlast", "Hello World\nStraße Nach Süden\nLast\n");
    if let Some(answer) = run("nc", &["-N", "127.0.0.1", &port], lines) {
        assert_eq!(answer, titles);
    }
    let socat = format!("TCP:127.0.0.1:{port}");
    if let Some(answer) = run("socat", &["-t", "30", "-", &socat], lines) {
        assert_eq!(answer, titles);
    }
}
