//! What is one call, and what comes back.

use std::io::Write;

use ipc_core::blocking::Service;
use ipc_core::payload::PayloadKind;
use ipc_tests::daemon::PATIENCE;
use ipc_tests::exposed::Exposed;
use ipc_tests::services::{RawService, serve, serve_echo};

#[test]
fn a_chunk_is_a_call_and_its_reply_comes_back_byte_for_byte() {
    let exposed = Exposed::start("test.echo/echo", "");
    serve_echo(&exposed.daemon);
    let mut client = exposed.connect();
    for text in ["hello", "a\n", "\n", "caf\u{e9} \u{1f600}\r\n\0end"] {
        client.exchange(text, text);
    }
    assert_eq!(exposed.number("calls"), 4);
    assert_eq!(exposed.number("bytes_in"), exposed.number("bytes_out"));
}

#[test]
fn text_is_text_and_anything_else_bytes() {
    let exposed = Exposed::start("test.raw/m", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let mut client = exposed.connect();
    for (sent, kind) in [
        (&b"plain"[..], PayloadKind::Text),
        ("\u{fc}ber".as_bytes(), PayloadKind::Text),
        (b"{\"a\":1}", PayloadKind::Text),
        (b"\xff\xfe", PayloadKind::Bytes),
        (b"\xc3", PayloadKind::Bytes),
        (b"\0", PayloadKind::Text),
    ] {
        client.send(sent);
        let call = service.call();
        assert_eq!((call.frame.header.payload_kind, &call.frame.body[..]), (kind, sent));
        service.reply(&call, b"ok");
        assert_eq!(client.receive(2), "ok");
    }
}

#[test]
fn a_stream_larger_than_every_buffer_comes_back_whole() {
    let exposed = Exposed::start("test.echo/echo", "");
    serve_echo(&exposed.daemon);
    let mut client = exposed.connect();
    let sent: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    let mut sender = client.0.try_clone().unwrap();
    let copy = sent.clone();
    let sending = std::thread::spawn(move || {
        sender.write_all(&copy).unwrap();
        sender.shutdown(std::net::Shutdown::Write).unwrap();
    });
    assert!(client.rest() == sent, "what came back is something else");
    sending.join().unwrap();
    // No call was larger than a chunk.
    assert!(exposed.number("calls") >= 3_000_000 / 65_536);
    exposed.wait_for("connections", 0);
    assert_eq!(exposed.number("errors"), 0);
}

#[test]
fn lines_are_calls_with_either_line_end_and_the_reply_ends_with_lf() {
    let exposed = Exposed::start("test.upper/upper,framing=line", "");
    let service = Service::new("test.upper").unwrap();
    serve(
        &exposed.daemon,
        service.method("upper", |request| Ok(format!("<{}>", request.payload.as_text()?.to_uppercase()))),
    );
    let mut client = exposed.connect();
    client.exchange("one\n", "<ONE>\n");
    client.exchange("two\r\n", "<TWO>\n");
    client.exchange("\n\r\n", "<>\n<>\n");
    client.exchange("a\nb\r\nc\n", "<A>\n<B>\n<C>\n");
    client.send("the last line has no end");
    client.end();
    assert_eq!(client.rest(), b"<THE LAST LINE HAS NO END>\n");
    assert_eq!(exposed.number("calls"), 8);
}

#[test]
fn a_line_split_at_every_byte_is_one_call() {
    let exposed = Exposed::start("test.echo/echo,framing=line", "");
    serve_echo(&exposed.daemon);
    let mut client = exposed.connect();
    let line = "gr\u{fc}\u{df} dich\r\n";
    let mut sent = 0;
    for at in 1..line.len() {
        let (first, second) = line.as_bytes().split_at(at);
        client.send(first);
        sent += first.len() as u64;
        exposed.wait_for("bytes_in", sent);
        client.send(second);
        sent += second.len() as u64;
        assert_eq!(client.receive(line.len() - 1), "gr\u{fc}\u{df} dich\n", "split at {at}");
    }
    assert_eq!(exposed.number("calls"), line.len() as u64 - 1);
}

#[test]
fn a_client_that_sends_one_byte_at_a_time_is_served() {
    let exposed = Exposed::start("test.echo/echo,framing=line", "");
    serve_echo(&exposed.daemon);
    let mut client = exposed.connect();
    for byte in b"one byte at a time\n" {
        client.send([*byte]);
    }
    assert_eq!(client.receive(19), "one byte at a time\n");
    assert_eq!(exposed.number("calls"), 1);
}

#[test]
fn after_half_close_the_replies_that_are_due_are_written() {
    let exposed = Exposed::start("test.raw/m,framing=line", "");
    let mut service = RawService::register(&exposed.daemon, "test.raw", "m");
    let mut client = exposed.connect();
    client.send("one\ntwo\nthree");
    client.end();
    for expected in ["one", "two", "three"] {
        let call = service.call();
        assert_eq!(call.frame.body, expected.as_bytes());
        // Only the one before it has been answered: calls run one at a time.
        service.reply(&call, expected.to_uppercase().as_bytes());
    }
    assert_eq!(client.rest(), b"ONE\nTWO\nTHREE\n");
    assert_eq!(exposed.number("errors"), 0);
}

#[test]
fn a_large_reply_goes_to_a_slow_reader_whole() {
    let exposed = Exposed::start("test.large/get", "");
    let service = Service::new("test.large").unwrap();
    serve(&exposed.daemon, service.method("get", |_| Ok(vec![b'x'; 8 << 20])));
    let mut client = exposed.connect();
    client.send("?");
    client.end();
    // The socket is full before the first byte is read.
    assert!(ipc_tests::daemon::eventually(|| exposed.number("bytes_out") > 100_000), "{PATIENCE:?}");
    assert_eq!(client.rest().len(), 8 << 20);
}

#[test]
fn many_clients_at_once_each_get_their_own_answers() {
    let exposed = Exposed::start("test.echo/echo", "");
    serve_echo(&exposed.daemon);
    std::thread::scope(|scope| {
        for number in 0..64 {
            let exposed = &exposed;
            scope.spawn(move || {
                let mut client = exposed.connect();
                for round in 0..20 {
                    let text = format!("client {number} round {round}");
                    client.exchange(&text, &text);
                }
            });
        }
    });
    assert_eq!(exposed.number("calls"), 64 * 20);
    assert_eq!(exposed.number("accepted"), 64);
    exposed.wait_for("connections", 0);
}
