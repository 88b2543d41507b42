"""A client of the ipc message bus, written from ipc-core/PROTOCOL.md alone, with the standard library alone.

    bus = Client("/run/user/1000/ipc/bus.sock")
    print(bus.call("demo.title", "title", "hello world").payload)
    bus.register("demo.echo", {"echo": lambda call: call.payload})
    bus.publish("sensor.kitchen", "21.5")
    print(bus.next(bus.subscribe("sensor.*")))
"""
import os
import socket
import struct
import time
from collections import namedtuple

HEADER = struct.Struct("<BBBBIHHIQIIQ")
ERROR, ONEWAY = 1, 2
BYTES, TEXT, JSON, BINCODE = range(4)
HELLO, WELCOME, CLOSE, PING, PONG, CALL, REPLY, CANCEL = 0x01, 0x02, 0x03, 0x08, 0x09, 0x10, 0x11, 0x12
PUBLISH, EVENT, GAP, RESOLVE, REGISTER, UNREGISTER, OPEN_TOPIC = 0x20, 0x21, 0x22, 0x30, 0x32, 0x33, 0x40
SUBSCRIBE, UNSUBSCRIBE, DONE, PEER_ANNOUNCED, TOPIC_ANNOUNCED, FORGET = 0x41, 0x42, 0x50, 0x60, 0x61, 0x62
COORDINATE, OUTCOME, RELEASE_HOLD, LOCK = 0x70, 0x71, 3, 16
# Envelopes that are read: H I Q numbers of 16, 32, 64 bits, ? a bool, t a text, o an option of the next, c an identity.
ERROR_BODY = "HtototoQot"
FORMS = {WELCOME: "HQQQIIIt", CLOSE: "Ht", GAP: "QQQ", PEER_ANNOUNCED: "Qc", TOPIC_ANNOUNCED: "t", FORGET: "I"}
GIVEN = {REGISTER: "I?", SUBSCRIBE: "Q", PUBLISH: "QI"}  # What the done of an operation holds, if anything.
STALE_HANDLE = 7
IDENTITIES = [("local", "III"), ("remote", "tt")]
Message = namedtuple("Message", "payload kind sender")
Event = namedtuple("Event", "topic sequence sender payload kind")
Gap = namedtuple("Gap", "topic first last count")


class BusError(Exception):
    """An error of the daemon's, or of the service whose peer `sender` is."""

    def __init__(self, code, message, *rest, sender=None):
        super().__init__(f"error {code}: {message}")
        self.code, self.message, self.sender = code, message, sender
        self.hint, self.resource, self.limit, self.application_code = (*rest, None, None, None, None)[:4]


def number(value):
    if value < 251:
        return bytes([value])
    marker, width = next(pair for pair in ((251, 2), (252, 4), (253, 8)) if value < 1 << 8 * pair[1])
    return bytes([marker]) + value.to_bytes(width, "little")


def text(value):
    return number(len(value.encode())) + value.encode()


def take(form, data):
    """Decodes an envelope; ValueError when it is malformed."""
    at = 0

    def some(count):
        nonlocal at
        at += count
        if at > len(data):
            raise ValueError("it ends too early")
        return data[at - count:at]

    def one(what):
        if what == "?":
            return [b"\0", b"\1"].index(some(1)) == 1
        if what == "t":
            return some(one("Q")).decode()
        if what == "o":
            return one(next(letters)) if one("?") else next(letters) and None
        if what == "c":
            name, form = IDENTITIES[one("I")]
            return (name, *map(one, form))
        first = some(1)[0]
        width = {251: 2, 252: 4, 253: 8}.get(first, 0)
        if first > 250 and not 0 < width <= {"H": 2, "I": 4, "Q": 8}[what]:
            raise ValueError("an impossible number")
        return int.from_bytes(some(width), "little") if width else first

    letters = iter(form)
    values = [one(what) for what in letters]
    if at != len(data):
        raise ValueError("bytes behind the last field")
    return values


class Client:
    """One connection. Whatever is waited for: calls that arrive meanwhile are served, and events are kept."""

    def __init__(self, path, name="python", timeout=5.0, trusted=()):
        self.timeout, self.counter, self.until, self.welcome = timeout, 0, None, None
        self.buffer, self.open, self.answers, self.inbox = bytearray(), {}, {}, {}
        self.handles, self.stale, self.peers, self.topics, self.services = {}, set(), {0: None}, {}, {}
        self.connect(path, name, trusted)

    def connect(self, path, name, trusted):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(self.timeout)
        self.socket.connect(path)
        uid = struct.unpack("iII", self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if uid not in (os.geteuid(), 0, *trusted):
            raise BusError(18, f"the daemon at {path} belongs to uid {uid}")
        try:
            self.socket.sendall(b"\x89IPC")
            self.send(HELLO, number(1) + number(1) + number(0) + text(name))
        except (BrokenPipeError, ConnectionResetError):
            pass  # The reason is there to be read.
        while self.welcome is None:
            self.step(self.timeout)

    def send(self, kind, envelope=b"", payload=b"", payload_kind=BYTES, flags=0, handle=(0, 0), correlation=0, deadline=0):
        payload, payload_kind = (payload.encode(), TEXT) if isinstance(payload, str) else (payload, payload_kind)
        if self.welcome and len(payload) > self.welcome[4]:
            raise BusError(10, f"a payload of {len(payload)} bytes is over the daemon's limit", None, "payload_max_bytes", self.welcome[4])
        self.socket.settimeout(self.timeout)
        self.socket.sendall(HEADER.pack(kind, flags, payload_kind, 0, len(payload), len(envelope), handle[1], handle[0],
                                        correlation, 0, deadline, 0) + envelope + payload)

    def ask(self, kind, envelope=b"", payload=b"", seconds=None, **fields):
        """Sends a request and waits for what it is answered."""
        self.counter += 1
        correlation, end = self.counter, time.monotonic() + (seconds or self.timeout)
        self.open[correlation] = kind
        self.send(kind, envelope, payload, correlation=correlation, **fields)
        try:
            while correlation not in self.answers:
                self.step(end - time.monotonic())
        finally:
            self.open.pop(correlation, None)
        answer = self.answers.pop(correlation)
        if isinstance(answer, BusError):
            raise answer
        return answer

    def step(self, seconds):
        """Deals with one frame; TimeoutError when none comes in time."""
        end = time.monotonic() + seconds
        while True:
            if len(self.buffer) >= 40:
                header = HEADER.unpack_from(self.buffer)
                if header[1] > 3 or header[2] > 3 or header[3] or header[4] > 64 << 20:
                    raise BusError(16, "these are no frames of this protocol")
                body, size = 40 + header[5], 40 + header[5] + header[4]
                if len(self.buffer) >= size:
                    envelope, payload = bytes(self.buffer[40:body]), bytes(self.buffer[body:size])
                    del self.buffer[:size]
                    return self.handle(header, envelope, payload)
            self.socket.settimeout(max(end - time.monotonic(), 0.001))
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                more = b""
            if not more:
                raise BusError(20, "the daemon closed the connection")
            self.buffer += more

    def handle(self, header, envelope, payload):
        kind, flags, payload_kind, _, _, _, generation, index, correlation, sender, deadline, sequence = header
        message = Message(payload, payload_kind, self.peers.get(sender))
        if kind == CALL:
            self.serve_call(message, self.services.get(index, [])[generation:], flags, correlation, deadline)
        elif kind in (REPLY, DONE, PONG) and correlation in self.open:
            done = GIVEN.get(self.open[correlation], "")
            self.answers[correlation] = (self.failure(envelope, message.sender) if flags & ERROR else
                                         take(done, envelope) if kind == DONE else message)
        elif kind == OUTCOME and correlation in self.open:
            granted = "QQI" if index == LOCK else ""
            self.answers[correlation] = self.failure(envelope, None) if flags & ERROR else take(granted, envelope)
        elif kind in (EVENT, GAP) and correlation in self.inbox:
            topic = self.topics.get((index, generation))  # None in a merged gap.
            self.inbox[correlation].append(Event(topic, sequence, message.sender, payload, payload_kind) if kind == EVENT
                                           else Gap(topic, *take(FORMS[GAP], envelope)))
        elif kind == PEER_ANNOUNCED:
            self.peers[sender] = take(FORMS[kind], envelope)
        elif kind == TOPIC_ANNOUNCED:
            self.topics[index, generation] = take(FORMS[kind], envelope)[0]
        elif kind == FORGET:
            table, key = [(self.peers, sender), (self.topics, (index, generation))][take(FORMS[kind], envelope)[0]]
            table.pop(key, None)
        elif kind == WELCOME:
            self.welcome = take(FORMS[kind], envelope)
        elif kind == CLOSE:
            raise BusError(*take(FORMS[kind], envelope))

    def failure(self, envelope, sender):
        try:
            return BusError(*take(ERROR_BODY, envelope), sender=sender)
        except ValueError:  # A service's own fault.
            return BusError(1, "", sender=sender)

    def through(self, kind, bind, names, payload, seconds=None, **fields):
        """Sends a call or an event through the handle of its names, once more if that has gone stale."""
        for is_last in (False, True):
            handle = self.handles.get(names)
            if handle is None or names in self.stale:
                if handle is None and len(self.handles) == self.welcome[5]:
                    handle = self.handles.pop(next(iter(self.handles)))
                handle = (handle[0], handle[1] % 65535 + 1) if handle else (len(self.handles), 1)
                self.counter += 1  # Its answer is not waited for: a call through it would be answered the same.
                self.send(bind, b"".join(map(text, names)), handle=handle, correlation=self.counter)
                self.handles[names] = handle
                self.stale.discard(names)
            if fields["flags"] & ONEWAY:
                return self.send(kind, b"", payload, handle=handle, **fields)
            try:
                return self.ask(kind, b"", payload, seconds, handle=handle, **fields)
            except BusError as error:
                if error.sender is None:
                    self.stale.add(names)
                if error.code != STALE_HANDLE or error.sender or is_last:
                    raise

    def call(self, service, method, payload=b"", payload_kind=BYTES, deadline=5.0, oneway=False):
        """Calls a method and gives its reply. Inside a call that is served, never for longer than what is left of that."""
        left = deadline if self.until is None else max(min(deadline, self.until - time.monotonic()), 1e-6)
        return self.through(CALL, RESOLVE, (service, method), payload, payload_kind=payload_kind, seconds=left + 0.25,
                            deadline=int(left * 1e6), flags=ONEWAY if oneway else 0)

    def publish(self, topic, payload=b"", payload_kind=BYTES, oneway=False):
        """Publishes an event; gives its number and how many subscriptions it went to."""
        return self.through(PUBLISH, OPEN_TOPIC, (topic,), payload, payload_kind=payload_kind, flags=ONEWAY if oneway else 0)

    def subscribe(self, filter, events_max=0, bytes_max=0):
        """Gives the number of the subscription, for `next`."""
        subscription = self.counter + 1
        self.inbox[subscription] = []
        self.ask(SUBSCRIBE, text(filter) + number(0) + number(events_max) + number(bytes_max))
        return subscription

    def next(self, subscription, seconds=None):
        """The next event or gap."""
        end = time.monotonic() + (seconds or self.timeout)
        while not self.inbox[subscription]:
            self.step(end - time.monotonic())
        return self.inbox[subscription].pop(0)

    def register(self, service, methods, group=False, queue=False):
        """Offers a service; a method takes a Message and gives text or bytes, or raises a BusError(1, message)."""
        described = b"".join(text(name) + text((method.__doc__ or "")[:200]) for name, method in methods.items())
        registration, _ = self.ask(REGISTER, text(service) + number(group) + number(queue) + number(len(methods)) + described)
        self.services[registration] = list(methods.values())
        return registration

    def lock(self, name, wait=5.0):
        """Takes an exclusive lock for as long as this process lives, once it is free; gives its fencing token."""
        claim = bytes([wait > 0]) + number(0) + number(0) + number(0) + b"\0"
        return self.ask(COORDINATE, text(name) + number(0) + claim, handle=(LOCK, 0), seconds=wait + self.timeout,
                        deadline=int(wait * 1e6))[0]

    def release(self, token):
        """Gives a lock back."""
        self.ask(COORDINATE, number(token), handle=(RELEASE_HOLD, 0))

    def serve_call(self, message, methods, flags, correlation, deadline):
        before, self.until = self.until, time.monotonic() + deadline / 1e6 if deadline else None
        try:
            answer = {"correlation": correlation, "payload": methods[0](message) or b"", "payload_kind": message.kind}
        except Exception as error:
            code = getattr(error, "application_code", None) or type(error).__name__
            body = number(1) + text(getattr(error, "message", str(error))) + b"\0\0\0\1" + text(code)
            answer = {"correlation": correlation, "flags": ERROR, "envelope": body}
        self.until = before
        if not flags & ONEWAY:
            self.send(REPLY, **answer)

    def serve(self):
        """Serves until something is raised."""
        while True:
            self.step(1e6)
