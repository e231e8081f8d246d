#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
"""sampler.py [SOCKET]: a process without any privilege that sees the packets of
its own UDP socket through an approved BPF program, in plain Python.

It sends datagrams to itself, compares their samples with what was sent, and then
waits: for the end of the grant, or of standard input, at which it gives the grant
back.
"""

import select
import socket
import struct
import sys
import time

import bpfgrant
from bpfgrant.v1 import reason_pb2

DATAGRAMS = 64
# struct packet_sample of the generated header, up to `bytes`.
SAMPLE = struct.Struct("=QIIH6x")
# A socket filter on a UDP socket sees the UDP header first.
UDP_HEADER = 8


def exchange(own):
    for number in range(DATAGRAMS):
        own.send(struct.pack("=I", number))
    return sum(len(own.recv(64)) == 4 for _ in range(DATAGRAMS))


def read_samples(samples):
    seen = wrong = 0
    until = time.monotonic() + 5
    while seen < DATAGRAMS and time.monotonic() < until:
        for sample in samples.read():
            _, _, _, captured = SAMPLE.unpack_from(sample)
            start = SAMPLE.size + UDP_HEADER
            if captured < UDP_HEADER + 4 or sample[start:start + 4] != struct.pack(
                    "=I", seen):
                wrong += 1
            seen += 1
        if seen < DATAGRAMS:
            select.select([samples], [], [], 0.1)
    return seen, wrong


def wait_for_end(connection, grant):
    while not grant.ended:
        ready, _, _ = select.select([connection, sys.stdin], [], [])
        if sys.stdin in ready:
            grant.release(wait_ms=5000)
            print("released")
            return
        try:
            connection.dispatch()
        except bpfgrant.Gone:
            pass  # The grant says so.
    name = reason_pb2.Reason.Name(grant.end_reason)
    print("ended:", name[len("REASON_"):].lower().replace("_", "-"))


def main():
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.settimeout(5)
    own.bind(("127.0.0.1", 0))
    own.connect(own.getsockname())
    path = sys.argv[1] if len(sys.argv) > 1 else bpfgrant.DEFAULT_SOCKET
    with bpfgrant.Connection(path) as connection:
        grant = connection.acquire("packet_sampler", "packet_sampler/1",
                                   delivery=bpfgrant.DELIVERY_ANY, target=own)
        grant.attach_to(own)
        with bpfgrant.RingBuffer(grant["samples"]) as samples:
            received = exchange(own)
            seen, wrong = read_samples(samples)
        print(f"sent {DATAGRAMS}, received {received}, sampled {seen}, "
              f"wrong {wrong}", flush=True)
        if (received, seen, wrong) != (DATAGRAMS, DATAGRAMS, 0):
            return 1
        own.close()  # What it is attached to would keep it.
        wait_for_end(connection, grant)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except bpfgrant.Error as error:
        print(f"sampler.py: {error} ({error.reason_name})", file=sys.stderr)
        sys.exit(1)
