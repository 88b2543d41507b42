"""Calls and events over the datagram socket, written from section 17 of ipc-core/PROTOCOL.md alone, with the standard
library alone.

    bus = Client("/run/user/1000/ipc/bus.dgram")      # or ("127.0.0.1", 7001) for UDP
    print(bus.call("demo.title", "title", "hello world"))
    bus.publish("sensor.kitchen", "21.5")
"""
import os
import socket
import struct
import time

import ipc_client as ipc

HEADER = struct.Struct("<4sBBBBHHIQQIIQ")
MAGIC, VERSION, DATAGRAM_MAX = b"\x89IPD", 1, 65507
HELLO, CHALLENGE, REFUSED, ACK, CALL, REPLY, CANCEL, PUBLISH, PUBLISHED = 1, 2, 3, 4, 16, 17, 18, 32, 33
ERROR, ONEWAY, WANTS_ACK = 1, 2, 4
OUTCOME_UNKNOWN, QUOTA_EXCEEDED, DEADLINE_EXCEEDED = 14, 9, 5


class Client:
    def __init__(self, address):
        is_local = isinstance(address, str)
        self.socket = socket.socket(socket.AF_UNIX if is_local else socket.AF_INET, socket.SOCK_DGRAM)
        if is_local:
            self.socket.bind("")  # The kernel gives it an address, so that it can be answered.
        self.socket.connect(address)
        self.client = int.from_bytes(os.urandom(4), "little")
        self.epoch = self.cookie = 0
        self.last_id = 0

    def call(self, service, method, payload="", deadline=5.0, payload_kind=ipc.TEXT):
        payload = payload.encode() if isinstance(payload, str) else payload
        envelope = ipc.text(service) + ipc.text(method) + b"\0\0"  # No traceparent, no extensions.
        return self.request(CALL, envelope, payload, deadline, payload_kind)

    def publish(self, topic, payload="", payload_kind=ipc.TEXT):
        """One way, for local clients only: over UDP the daemon wants its cookie first."""
        envelope = ipc.text(topic) + b"\0\0"
        self.socket.send(self.datagram(PUBLISH, 0, envelope, payload.encode(), 0, payload_kind, ONEWAY))

    def request(self, kind, envelope, payload, deadline, payload_kind):
        self.last_id += 1
        end, pause, sent_to = time.monotonic() + deadline, 0.02, None
        while True:
            left = max(0, int((end - time.monotonic()) * 1e6))
            if self.cookie == 0:
                self.socket.send(self.datagram(HELLO, 1 << 63))
            else:
                sent_to = sent_to or self.epoch
                self.socket.send(self.datagram(kind, self.last_id, envelope, payload, left, payload_kind))
            answer = self.receive(sent_to, time.monotonic() + pause)
            if isinstance(answer, ipc.BusError):
                raise answer
            if answer is not None:
                return answer
            if time.monotonic() > end + 0.25:
                raise ipc.BusError(DEADLINE_EXCEEDED, "no outcome came in time")
            pause = min(pause * 2, 1.0)

    def receive(self, sent_to, until):
        """The outcome of the last request, or None when it is to be sent again."""
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(DATAGRAM_MAX + 1)
            except TimeoutError:
                return None
            fields = HEADER.unpack_from(data)
            kind, flags, payload_kind, envelope_len, _, number, epoch, cookie, client = fields[2:11]
            if fields[:2] != (MAGIC, VERSION) or client != self.client:
                continue
            envelope, payload = data[48:48 + envelope_len], data[48 + envelope_len:]
            if kind == CHALLENGE or (kind == REFUSED and number == OUTCOME_UNKNOWN):
                self.epoch, self.cookie = epoch, cookie
                if sent_to not in (None, epoch):
                    return ipc.BusError(OUTCOME_UNKNOWN, "the daemon was restarted")
                return None
            if fields[12] != self.last_id:
                continue
            if kind == REFUSED and number != QUOTA_EXCEEDED:
                return ipc.BusError(number, "the daemon refused it")
            if kind in (REPLY, PUBLISHED):
                if flags & WANTS_ACK:
                    self.socket.send(self.datagram(ACK, self.last_id))
                if flags & ERROR:
                    code, message, *rest = ipc.take(ipc.ERROR_BODY, envelope)
                    return ipc.BusError(code, message, *rest)
                return ipc.Message(payload, payload_kind, ipc.take("Qc", envelope)) if kind == REPLY else True
        return None

    def datagram(self, kind, ident, envelope=b"", payload=b"", number=0, payload_kind=0, flags=0):
        # One request at a time: everything below its id has its outcome.
        is_first = kind == HELLO or (kind == PUBLISH and flags == ONEWAY)
        epoch, cookie = (0, 0) if is_first else (self.epoch, self.cookie)
        head = (MAGIC, VERSION, kind, flags, payload_kind, len(envelope), len(payload), number, epoch, cookie)
        return HEADER.pack(*head, self.client, 0, ident) + envelope + payload
