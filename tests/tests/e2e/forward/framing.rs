//! What is one payload and what is one reply, and which connections carry another call.

use ipc_tests::servers::{Forwarded, Server, code_of, send};

fn forwarded(server: &Server, framing: &str, limits: &str) -> Forwarded {
    Forwarded::start(&format!("tcp:{}{framing}", server.address()), limits)
}

#[test]
fn a_chunk_is_what_the_next_read_returns() {
    let server = Server::start();
    let forwarded = forwarded(&server, "", "");
    let first = forwarded.call_later("one\n");
    let mut connection = server.accept();
    connection.expect("one\n");
    connection.send("two\n");
    assert_eq!(first.join().unwrap().unwrap(), "two\n");
    forwarded.wait_for("idle", 1);
    let second = forwarded.call_later("three");
    connection.expect("three");
    connection.send("four");
    assert_eq!(second.join().unwrap().unwrap(), "four");
    assert_eq!((forwarded.number("connected"), forwarded.number("calls")), (1, 2));
}

#[test]
fn a_line_goes_out_with_lf_and_comes_back_without() {
    let server = Server::start();
    let forwarded = forwarded(&server, ",framing=line", "");
    let mut connection = None;
    for (payload, sent, answered, reply) in [
        ("one", "one\n", "ONE\n", "ONE"),
        ("two\n", "two\n", "TWO\r\n", "TWO"),
        ("three\r\n", "three\n", "\n", ""),
        ("", "\n", "a\rb\r\n", "a\rb"),
    ] {
        let call = forwarded.call_later(payload);
        let connection = connection.get_or_insert_with(|| server.accept());
        connection.expect(sent);
        for byte in answered.bytes() {
            connection.send([byte]);
        }
        assert_eq!(call.join().unwrap().unwrap(), reply, "{payload:?}");
        forwarded.wait_for("idle", 1);
    }
    assert_eq!(forwarded.number("connected"), 1);
    let error = send(&mut forwarded.client(), "two\nlines", None).unwrap_err();
    assert_eq!(code_of(&error), "invalid_argument", "{error}");
    assert_eq!(forwarded.number("idle"), 1, "the connection was not used for it");
}

#[test]
fn until_close_ends_the_payload_with_a_half_close_and_the_reply_with_the_end() {
    let server = Server::start();
    let forwarded = forwarded(&server, ",framing=until-close", "");
    for round in 0..2 {
        let call = forwarded.call_later("all of it");
        let mut connection = server.accept();
        // Half-closed by the server first, or by the daemon first.
        if round == 0 {
            assert_eq!(connection.rest(), b"all of it");
        }
        connection.send("part one, ");
        connection.send("part two");
        connection.end();
        assert_eq!(call.join().unwrap().unwrap(), "part one, part two");
        assert_eq!(connection.rest(), if round == 0 { &b""[..] } else { b"all of it" });
    }
    assert_eq!((forwarded.number("connected"), forwarded.number("idle")), (2, 0));
}

#[test]
fn a_connection_on_which_more_comes_is_not_used_again() {
    for (framing, answer) in
        [("", "answer"), (",framing=line", "answer\n"), (",framing=line", "answer\nmore")]
    {
        let server = Server::start();
        let forwarded = forwarded(&server, framing, "");
        let call = forwarded.call_later("?");
        let mut connection = server.accept();
        connection.expect("?");
        connection.send(answer);
        assert_eq!(call.join().unwrap().unwrap(), "answer");
        if !answer.ends_with("more") {
            forwarded.wait_for("idle", 1);
            connection.send("more");
        }
        forwarded.wait_for("idle", 0);
        let call = forwarded.call_later("?");
        let mut next = server.accept();
        next.expect("?");
        next.send("next\n");
        assert_eq!(call.join().unwrap().unwrap().trim_end(), "next");
        assert_eq!((forwarded.number("connected"), forwarded.number("errors")), (2, 0), "{framing}");
    }
}

#[test]
fn a_connection_that_the_server_closes_while_it_is_idle_is_let_go() {
    let server = Server::start();
    let forwarded = forwarded(&server, "", "");
    for round in 0..3 {
        let call = forwarded.call_later("?");
        let mut connection = server.accept();
        connection.expect("?");
        connection.send("!");
        assert_eq!(call.join().unwrap().unwrap(), "!");
        forwarded.wait_for("idle", 1);
        drop(connection);
        forwarded.wait_for("idle", 0);
        assert_eq!(forwarded.number("connected"), round + 1);
    }
    assert_eq!(forwarded.number("errors"), 0);
}

#[test]
fn payloads_and_replies_of_any_bytes_are_taken_as_they_are() {
    let server = Server::start();
    let forwarded = forwarded(&server, ",framing=until-close", "");
    let mut client = forwarded.client();
    let sent: Vec<u8> = (0..=255).cycle().take(12_000_000).collect();
    let copy = sent.clone();
    let call = std::thread::spawn(move || client.call("test.net", "send", copy).unwrap().payload);
    // Answers while it reads, and reads no more while it cannot: a server that streams.
    let mut connection = server.accept();
    let mut buffer = vec![0; 65_536];
    loop {
        match std::io::Read::read(&mut connection.0, &mut buffer).unwrap() {
            0 => break,
            count => connection.send(&buffer[..count]),
        }
    }
    drop(connection);
    let reply = call.join().unwrap();
    assert_eq!(reply.kind, ipc_core::PayloadKind::Bytes);
    assert!(reply.body == sent, "something else came back");
}

#[test]
fn a_server_that_has_heard_enough_may_answer_and_half_close_before_all_is_sent() {
    let server = Server::start();
    let forwarded = forwarded(&server, ",framing=until-close", "");
    let mut client = forwarded.client();
    let call = std::thread::spawn(move || client.call("test.net", "send", vec![b'x'; 12_000_000]));
    let mut connection = server.accept();
    connection.expect("xxxx");
    connection.send("enough");
    connection.end();
    assert_eq!(call.join().unwrap().unwrap().payload.as_text(), Ok("enough"));
}

#[test]
fn a_caller_after_another_finds_the_place_that_is_free() {
    let server = ipc_tests::servers::Script::python(ipc_tests::servers::PYTHON_TCP);
    let limits = "forward_calls_max = 1\nforward_waiting_max = 0";
    let forwarded = Forwarded::start(&format!("tcp:127.0.0.1:{}", server.port), limits);
    let mut client = forwarded.client();
    for _ in 0..500 {
        assert_eq!(send(&mut client, "one after the other", None).unwrap(), "One After The Other");
    }
    assert_eq!((forwarded.number("refused"), forwarded.number("connected")), (0, 1));
}
