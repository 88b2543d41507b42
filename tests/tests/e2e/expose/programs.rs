//! Programs that have never heard of the bus, as real processes.

use std::io::Write;
use std::process::{Command, Stdio};

use ipc_tests::exposed::Exposed;
use ipc_tests::services::Title;

/// What a program writes when it is given `input`.
fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; .ci/run installs what is needed"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
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
    let answers = run("python3", &["-X", "utf8", "-c", PYTHON_CLIENT, &port], "");
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
    assert_eq!(run("nc", &["-N", "127.0.0.1", &port], "hello world"), "Hello World");
    let socat = format!("TCP:127.0.0.1:{port}");
    assert_eq!(run("socat", &["-t", "30", "-", &socat], "hello world\n"), "Hello World\n");
}

#[test]
fn nc_and_socat_send_lines() {
    let exposed = Exposed::start("demo.title/title,framing=line", "");
    let _title = Title::start(&exposed.daemon);
    let port = exposed.address.port().to_string();
    let (lines, titles) =
        ("hello world\nstraße nach süden\r\nlast", "Hello World\nStraße Nach Süden\nLast\n");
    assert_eq!(run("nc", &["-N", "127.0.0.1", &port], lines), titles);
    let socat = format!("TCP:127.0.0.1:{port}");
    assert_eq!(run("socat", &["-t", "30", "-", &socat], lines), titles);
}

const PYTHON_UDP_CLIENT: &str = r#"
import socket, sys
server = ("127.0.0.1", int(sys.argv[1]))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(30)
for text in ["hello world", "élan vital", "x"]:
    client.sendto(text.encode(), server)
    data, address = client.recvfrom(1024)
    assert address == server
    print(data.decode())
"#;

#[test]
fn a_python_client_gets_its_title_case_by_datagram() {
    let exposed = Exposed::start_udp("demo.title/title", "");
    let _title = Title::start(&exposed.daemon);
    let port = exposed.address.port().to_string();
    let answers = run("python3", &["-X", "utf8", "-c", PYTHON_UDP_CLIENT, &port], "");
    assert_eq!(answers, "Hello World\nÉlan Vital\nX\n");
    assert_eq!((exposed.number("calls"), exposed.number("sources")), (3, 1));
}

#[test]
fn nc_and_socat_get_the_answer_by_datagram() {
    let exposed = Exposed::start_udp("demo.title/title", "");
    let _title = Title::start(&exposed.daemon);
    let port = exposed.address.port().to_string();
    // Neither can know that nothing more comes, so both wait a moment for it.
    assert_eq!(run("nc", &["-u", "-W", "1", "127.0.0.1", &port], "hello world"), "Hello World");
    let socat = format!("UDP:127.0.0.1:{port}");
    assert_eq!(run("socat", &["-t", "2", "-", &socat], "hello world"), "Hello World");
}

#[test]
fn nc_at_the_socket_of_the_bus_is_told_that_this_is_something_else() {
    let exposed = Exposed::start("demo.title/title", "");
    let socket = exposed.daemon.socket();
    let socket = socket.to_str().unwrap();
    for program in [&["nc", "-N", "-U", socket][..], &["socat", "-t", "30", "-", &format!("UNIX:{socket}")]] {
        let answer = run(program[0], &program[1..], "GET / HTTP/1.1\r\n\r\n");
        assert!(answer.contains("ipc"), "{program:?} got {answer:?}");
    }
    let status = ipc_tests::services::ask(&exposed.daemon, "status", "").unwrap();
    assert!(status["counters"]["refused_protocol"].as_u64() >= Some(1), "{}", status["counters"]);
}
