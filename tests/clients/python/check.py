"""What the end-to-end tests run: the client as a service, a caller, a publisher, a subscriber, and on the golden vectors.

Usage: check.py ROLE PATH [ARGUMENT]...; PATH is the daemon's socket, or the folder of the vectors.
"""
import json
import os
import pathlib
import signal
import sys

import ipc_client as ipc
import ipc_datagram


def serve(path):
    bus = ipc.Client(path, "python service")

    def fail(call):
        raise ipc.BusError(1, "no such book", None, None, None, "not_found")

    def never(call):
        say("called")
        bus.step(1e6)  # The next thing that arrives is the word that nobody waits any more.
        return "too late"

    bus.register("demo.python", {
        "echo": lambda call: call.payload,
        "title": lambda call: call.payload.decode().title(),
        "who": lambda call: json.dumps(call.sender),
        "relay": lambda call: bus.call("demo.rust", "remaining", deadline=3600).payload,
        "fail": fail,
        "never": never,
    })
    say("ready")
    bus.serve()


def call(path, pid):
    bus = ipc.Client(path, "python caller")
    for _ in range(3):
        reply = bus.call("demo.rust", "title", "hello wörld")
        assert (reply.payload.decode(), reply.kind) == ("Hello Wörld", ipc.TEXT), reply
    # The service's verified identity was announced before its first frame.
    assert reply.sender[1] == ("local", os.geteuid(), os.getegid(), int(pid)), reply.sender
    for size in (0, 1, 250, 251, 70_000, 3_000_000):
        payload = bytes(size) + b"end"
        reply = bus.call("demo.rust", "echo", payload, payload_kind=ipc.BINCODE)
        assert (reply.payload, reply.kind) == (payload, ipc.BINCODE), size
    error = failure(bus, "demo.rust", "fail")
    assert (error.code, error.application_code, error.message) == (1, "not_found", "no such book"), error
    assert error.sender == reply.sender
    for code, service, method in ((2, "demo.nobody", "title"), (3, "demo.rust", "missing"), (19, "demo..rust", "title")):
        for _ in range(2):
            error = failure(bus, service, method)
            assert (error.code, error.sender) == (code, None), error
    error = failure(bus, "demo.rust", "echo", bytes(bus.welcome[4] + 1))
    assert (error.code, error.limit) == (10, bus.welcome[4]), error
    error = failure(bus, "demo.rust", "never", deadline=0.05)
    assert (error.code, error.sender) == (5, None), error
    bus.call("demo.rust", "note", "one way", oneway=True)
    # Frames from one client to another keep their order: when this is answered, that has been served.
    assert bus.call("demo.rust", "title", "behind it").payload == b"Behind It"
    # The service is taken back and offered anew: the handle has gone stale, which nobody notices.
    say("again")
    assert sys.stdin.readline() == "done\n"
    assert bus.call("demo.rust", "title", "again").payload == b"Again"
    assert bus.handles["demo.rust", "title"][1] > 1, "the handle was bound anew"
    say("called")


def failure(bus, *arguments, **options):
    try:
        reply = bus.call(*arguments, **options)
    except ipc.BusError as error:
        return error
    raise AssertionError(f"{arguments}: {reply}")


def publish(path, topic, count):
    bus = ipc.Client(path, "python publisher")
    for number in range(1, int(count)):
        sequence, subscribers = bus.publish(topic, str(number))
        assert sequence == number and subscribers == 1, (sequence, subscribers)
    bus.publish(topic, count, oneway=True)
    assert bus.ask(ipc.PING, payload=b"alive?").payload == b"alive?"
    say("published")


def subscribe(path, filter, count):
    bus = ipc.Client(path, "python subscriber")
    subscription = bus.subscribe(filter)
    say("ready")
    for _ in range(int(count)):
        event = bus.next(subscription, 30)
        say(json.dumps([event.topic, event.sequence, event.payload.decode(), event.kind, event.sender[1][0]]))


def listen_slowly(path, filter):
    """Reads nothing until it is told to; then everything is there, as an event or in a gap."""
    bus = ipc.Client(path, "python listener")
    subscription = bus.subscribe(filter, events_max=10)
    say("ready")
    last = int(sys.stdin.readline())
    seen = gaps = 0
    while seen < last:
        item = bus.next(subscription, 30)
        first, seen_now = (item.first, item.last) if isinstance(item, ipc.Gap) else (item.sequence, item.sequence)
        assert first == seen + 1, f"{item} after {seen}"
        assert not isinstance(item, ipc.Gap) or item.count == item.last - item.first + 1, item
        seen, gaps = seen_now, gaps + isinstance(item, ipc.Gap)
    assert gaps, "nothing was dropped"
    say("complete")


def lock(path, name):
    """Takes a lock and gives it back, again; another connection waits in vain and gets it after."""
    one, two = ipc.Client(path, "python one"), ipc.Client(path, "python two")
    token = one.lock(name)
    try:
        two.lock(name, wait=0.05)
        raise AssertionError("two hold one lock")
    except ipc.BusError as error:
        assert error.code == int(sys.stdin.readline()), error
    one.release(token)
    again = two.lock(name)
    assert again > token, (token, again)
    two.release(again)
    say("done")


def leave_to_a_child(path, name):
    """Takes a lock, and has a child keep the connection for as long as there is a standard input."""
    bus = ipc.Client(path, "python holder")
    bus.lock(name)
    child = os.fork()
    if child == 0:
        sys.stdin.read()
        os._exit(0)
    say(str(child))
    signal.pause()


class Offline(ipc.Client):
    """A client without a connection, which keeps what it would write."""

    def connect(self, *_):
        self.written, self.calls, self.socket = b"", [], self
        # What stands before the vectors in a conversation.
        self.open = {1: ipc.PING, 2: ipc.RESOLVE, 3: ipc.REGISTER, 4: ipc.REGISTER, 5: ipc.CALL, 6: ipc.SUBSCRIBE, 8: ipc.PUBLISH}
        self.inbox, self.peers, self.topics = {6: []}, {0: None, 9: ME}, {(1, 2): "sensor.kitchen"}
        self.services = {2: [self.calls.append]}

    def settimeout(self, seconds):
        pass

    def sendall(self, data):
        self.written += data


ME = [21, ("local", 1000, 100, 70_000)]
RECEIVED = {
    "welcome": lambda bus: bus.welcome == [1, 0, 0x0123456789ABCDEF, 7, 16 << 20, 1024, 1024, "ipc-daemon 0.1.0"],
    "pong": lambda bus: bus.answers[1].payload == b"ping",
    "reply": lambda bus: bus.answers[5] == (b"Hello World", ipc.TEXT, ME),
    "reply_error": lambda bus: facts(bus.answers[5]) == (1, "no such book", None, None, None, "not_found", ME),
    "event": lambda bus: bus.inbox[6] == [("sensor.kitchen", 42, ME, b"21.5", ipc.JSON)],
    "gap": lambda bus: bus.inbox[6] == [("sensor.kitchen", 43, 50, 8)],
    "gap_merged": lambda bus: bus.inbox[6] == [(None, 0, 0, 300)],
    "done": lambda bus: bus.answers[2] == [],
    "done_registered": lambda bus: bus.answers[3] == [2, False],
    "done_subscribed": lambda bus: bus.answers[6] == [41],
    "done_published": lambda bus: bus.answers[8] == [42, 2],
    "done_error": lambda bus: facts(bus.answers[4]) == (
        9, "names_per_connection_max is at its limit of 512", "unregister a service first", "names_per_connection_max", 512, None, None),
    "peer_announced": lambda bus: bus.peers[9] == ME,
    "peer_announced_remote": lambda bus: bus.peers[9] == [22, ("remote", "anonymous", "127.0.0.1:50000")],
    "topic_announced": lambda bus: bus.topics[1, 2] == "sensor.kitchen",
    "forget_peer": lambda bus: 9 not in bus.peers,
    "forget_topic": lambda bus: not bus.topics,
    "call_to_service": lambda bus: bus.calls == [(b"hello world", ipc.TEXT, ME)],
}
SAID = b"hello world"
TITLE = ipc.text("title") + ipc.text("Text in title case")
WRITTEN = {
    "hello": lambda bus: bus.send(ipc.HELLO, b"\1\1\0" + ipc.text("demo")),
    "ping": lambda bus: bus.send(ipc.PING, payload=b"ping", correlation=1),
    "resolve": lambda bus: bus.send(ipc.RESOLVE, ipc.text("demo.title") + ipc.text("title"), handle=(3, 1), correlation=2),
    "call": lambda bus: bus.send(ipc.CALL, payload="hello world", handle=(3, 1), correlation=5, deadline=5_000_000),
    "reply_to_daemon": lambda bus: bus.send(ipc.REPLY, payload="Hello World", correlation=0x0004_0000_0002),
    "open_topic": lambda bus: bus.send(ipc.OPEN_TOPIC, ipc.text("sensor.kitchen"), handle=(4, 1), correlation=7),
    "publish": lambda bus: bus.send(ipc.PUBLISH, payload=b"21.5", payload_kind=ipc.JSON, handle=(4, 1), correlation=8),
    "publish_oneway": lambda bus: bus.send(ipc.PUBLISH, b"", b"21.5", ipc.JSON, ipc.ONEWAY, (4, 1)),
    "register": lambda bus: bus.send(ipc.REGISTER, ipc.text("demo.title") + b"\0\1\1" + TITLE, correlation=3),
    "register_group": lambda bus: bus.send(
        ipc.REGISTER, ipc.text("demo.title") + b"\1\0\2" + TITLE + ipc.text("upper") + ipc.text(""), correlation=4),
    "unregister": lambda bus: bus.send(ipc.UNREGISTER, handle=(2, 0), correlation=10),
    "subscribe": lambda bus: bus.send(
        ipc.SUBSCRIBE, ipc.text("sensor.>") + b"\0" + ipc.number(300) + ipc.number(70_000), correlation=6),
    "unsubscribe": lambda bus: bus.send(ipc.UNSUBSCRIBE, ipc.number(6), correlation=11),
    "cancel": lambda bus: bus.send(ipc.CANCEL, correlation=5),
}


def facts(error):
    return error.code, error.message, error.hint, error.resource, error.limit, error.application_code, error.sender


def golden(folder):
    files = sorted(pathlib.Path(folder).glob("*.hex"))
    for file in files:
        data = bytes.fromhex("".join(line.split("#")[0] for line in file.read_text().splitlines()))
        name, bus = file.stem, Offline("")
        if name in WRITTEN:
            WRITTEN[name](bus)
            assert bus.written == data, f"{name}: {bus.written.hex(' ')}"
            continue
        bus.peers.pop(9 if name.startswith("peer_announced") else None, None)
        bus.buffer += data
        try:
            bus.step(0)
        except ipc.BusError as error:
            assert name == "close" and (error.code, error.message) == (16, "flags 0x80 are not defined"), name
        assert not bus.buffer, f"{name}: {len(bus.buffer)} bytes are left"
        assert name not in RECEIVED or RECEIVED[name](bus), f"{name}: {vars(bus)}"
    assert {file.stem for file in files} >= {*RECEIVED, *WRITTEN}, "a vector is missing"
    say(f"{len(files)} vectors")


def datagrams(address):
    """Calls and an event over a datagram socket: a path, or HOST:PORT."""
    host, _, port = address.partition(":")
    bus = ipc_datagram.Client(address if address.startswith("/") else (host, int(port)))
    for word in ("hello wörld", "a", ""):
        reply = bus.call("demo.rust", "title", word)
        assert (reply.payload.decode(), reply.kind) == (word.title(), ipc.TEXT), reply
    assert reply.sender[1][0] == "local", reply.sender
    try:
        bus.call("demo.rust", "fail")
    except ipc.BusError as error:
        assert (error.code, error.application_code, error.message) == (1, "not_found", "no such book"), error
    else:
        raise AssertionError("it did not fail")
    if address.startswith("/"):
        bus.publish("sensor.python", "21.5")
    say("done")


def say(line):
    print(line, flush=True)


if __name__ == "__main__":
    {"serve": serve, "call": call, "publish": publish, "subscribe": subscribe,
     "lock": lock, "leave_to_a_child": leave_to_a_child, "listen_slowly": listen_slowly, "golden": golden, "datagrams": datagrams}[sys.argv[1]](*sys.argv[2:])
