"""Many clients that LISTEN, and notifications in a steady stream: what arrives, in which order, how late, at what cost.

python3 benches/listen.py [--clients 1000] [--rate 10000] [--seconds 10] [--common 0] [--against pooler]

Each client listens to a channel of its own; with --common, of each hundred notifications so many go to all. Fails if one
is lost, doubled or out of order. The database has to have room for the clients where there is no pooler (--clients 150).
"""

import argparse
import os
import selectors
import socket
import struct
import sys
import time

import contestants
from contestants import DATABASE, PASSWORD, USER

EVERY = 0.01  # seconds between two transactions that notify


class Trusting(contestants.Pooler):
    """Takes a thousand logins at once without a thousand SCRAM exchanges."""

    def files(self):
        text = super().files()["pooler.toml"]
        text = text.replace('auth_type = "scram-sha-256"', 'auth_type = "trust"').replace(self.cluster.secret, PASSWORD)
        return {"pooler.toml": text}


class Direct(contestants.Direct):
    """PostgreSQL itself, over its unix socket, which asks for no password."""

    def address(self):
        return f"{self.cluster.dir}/.s.PGSQL.{self.cluster.port}"


class Client:
    """One connection, by the protocol: drivers are slower than what is measured."""

    def __init__(self, contestant):
        if isinstance(contestant, Direct):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(contestant.address())
        else:
            self.socket = socket.create_connection(("127.0.0.1", contestant.port))
        self.buffer = b""
        body = struct.pack("!i", 196608) + f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
        self.socket.sendall(struct.pack("!i", len(body) + 4) + body)
        self.ready()

    def query(self, sql):
        self.send(sql)
        self.ready()

    def send(self, sql):
        body = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!i", len(body) + 4) + body)

    def messages(self):
        """What is there, or the next that comes."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise RuntimeError("the connection was closed")
        self.buffer += data
        at = 0
        while len(self.buffer) >= at + 5:
            end = at + 1 + struct.unpack_from("!i", self.buffer, at + 1)[0]
            if end > len(self.buffer):
                break
            yield self.buffer[at:at + 1], self.buffer[at + 5:end]
            at = end
        self.buffer = self.buffer[at:]

    def ready(self):
        while True:
            found = False
            for tag, body in self.messages():
                if tag == b"E":
                    raise RuntimeError(body.replace(b"\0", b" ").decode())
                found |= tag == b"Z"
            if found:
                return


class Expected:
    """What has to arrive, and what has."""

    def __init__(self, clients):
        self.next_own = [0] * clients
        self.next_common = [0] * clients
        self.late = []
        self.wrong = []

    def take(self, client, body):
        channel, payload, _ = body[4:].split(b"\0")
        number, sent = payload.split(b" ")
        counts = self.next_common if channel == b"common" else self.next_own
        if int(number) != counts[client]:
            self.wrong.append((client, channel, int(number), counts[client]))
        counts[client] = int(number) + 1
        self.late.append(time.monotonic() - float(sent))


def measure(contestant, cluster, options):
    listeners = [Client(contestant) for _ in range(options.clients)]
    for n, client in enumerate(listeners):
        client.send(f"LISTEN own{n}; LISTEN common")
    for client in listeners:
        client.ready()
    speaker = Client(contestant)
    selector = selectors.DefaultSelector()
    for n, client in enumerate(listeners):
        selector.register(client.socket, selectors.EVENT_READ, n)
    selector.register(speaker.socket, selectors.EVENT_READ, -1)
    expected = Expected(options.clients)
    own, common, sent, busy = [0] * options.clients, 0, 0, False
    process = contestant.process
    before = contestants.processor_and_memory(process.pid) if process else (0, 0, 0)
    start = time.monotonic()
    told = 0
    while True:
        now = time.monotonic()
        speaking = now < start + options.seconds
        due = int(min(now - start, options.seconds) * options.rate) - sent
        if not busy and due >= options.rate * EVERY:
            calls = []
            for i in range(sent, sent + due):
                if i % 100 < options.common:
                    calls.append(f"pg_notify('common', '{common} {now}')")
                    common += 1
                else:
                    n = i % options.clients
                    calls.append(f"pg_notify('own{n}', '{own[n]} {now}')")
                    own[n] += 1
            speaker.send("DO $$BEGIN PERFORM " + ",".join(calls[:1]) + ";"
                         + "".join(f"PERFORM {call};" for call in calls[1:]) + "END$$")
            sent, busy = sent + due, True
        for key, _ in selector.select(EVERY / 2):
            client = speaker if key.data < 0 else listeners[key.data]
            for tag, body in client.messages():
                if tag == b"A":
                    expected.take(key.data, body)
                    told += 1
                elif tag == b"Z" and key.data < 0:
                    busy = False
                elif tag == b"E":
                    raise RuntimeError(body.replace(b"\0", b" ").decode())
        whole = sum(own) + common * options.clients
        if not speaking and not busy and told >= whole or time.monotonic() > start + options.seconds + 30:
            break
    seconds = time.monotonic() - start
    after = contestants.processor_and_memory(process.pid) if process else (0, 0, 0)
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}'"
    servers = int(cluster.psql("postgres", count))
    expected.late.sort()
    late = [expected.late[int(len(expected.late) * part)] * 1000 for part in (0.5, 0.99, 0.9999)]
    print(f"{contestant.name}: {options.clients} clients on {servers} server connections; {sent / options.seconds:.0f} "
          f"notifications/s sent, {told} of {whole} told ({told / seconds:.0f}/s), {len(expected.wrong)} out of order; "
          f"late by {late[0]:.1f} ms (median), {late[1]:.1f} (99 %), {late[2]:.1f} (99.99 %); "
          f"CPU {(after[0] - before[0]) / seconds * 100:.0f} % of a core, {after[2] / 2**20:.1f} MB resident")
    return told == whole and not expected.wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=10000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--common", type=int, default=0)
    parser.add_argument("--against", default="pooler")
    options = parser.parse_args()
    os.environ.setdefault("POOLER", contestants.ROOT + "/target/release/pooler")
    cluster = contestants.Cluster(1)
    good = True
    try:
        for name in options.against.split(","):
            contestant = {"pooler": Trusting, "direct": Direct}[name](cluster)
            contestant.start()
            try:
                good &= measure(contestant, cluster, options)
            finally:
                contestant.stop()
    finally:
        cluster.stop()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
