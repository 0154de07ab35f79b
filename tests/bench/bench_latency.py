"""What the harness adds to one-way latency on a clean link, against a bare UDP sender and receiver.

Both send 20 ms PCM frames of one size at the same pace, through the same two network namespaces
and the plain bridge between them, in turns, with the same real-time priorities. A run of this file
by itself (``receive``, ``send``) is the bare program.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys

import numpy as np
from numpy.typing import NDArray

from harness.labs.base import Pair, session
from harness.labs.netns import NetnsLab
from harness.linux import exact_timers, join_namespace, real_time, sleep_until
from harness.media.packet import HEADER_BYTES
from harness.transports.base import RECEIVE_PRIORITY
from harness.units import NS_PER_MS, NS_PER_S, monotonic_ns

PACKETS = 250
ROUNDS = 3
INTERVAL_NS = 20 * NS_PER_MS
SIZE_BYTES = 640 + HEADER_BYTES
_PORT = 40_000
_STAMP = struct.Struct(">q")


def bare_udp_one_way(
    pair: Pair, packets: int = PACKETS, interval_ns: int = INTERVAL_NS
) -> NDArray[np.int64]:
    """One-way times in ns, shape (packets,), between processes in the pair's two namespaces."""
    pace = [pair.receiver_host, str(packets), str(interval_ns)]

    def program(role: str, end: str) -> list[str]:
        pid = str(pair.facts[end]["pid"])
        return [sys.executable, "-m", "tests.bench.bench_latency", role, pid, *pace]

    with subprocess.Popen(program("receive", "receiver"), stdout=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None
        receiver.stdout.readline()  # bound
        subprocess.run(program("send", "sender"), check=True)
        return np.array(json.loads(receiver.stdout.readline()), np.int64)


def harness_one_way(pair: Pair) -> NDArray[np.int64]:
    """Transit times in ns of the packets of a PCM stream of as many frames, shape (PACKETS,)."""
    pcm = np.random.default_rng(1).normal(0, 3000, PACKETS * 320).astype(np.int16)
    job = {
        "cell_id": "bench",
        "stream_id": 1,
        "codec": {"codec": "pcm", "params": {}},
        "assets": {},
        "transport": {"transport": "udp"},
        "receiver": {},
        "input_samples": len(pcm),
        "host": pair.receiver_host,
        "seed": 0,
    }
    ready, _ = pair.receiver.call("prepare_receiver", {"job": job})
    pair.sender.call("prepare_sender", {"job": job, "port": ready["port"]}, {"pcm": pcm})
    t0_ns = monotonic_ns() + 100 * NS_PER_MS
    order = {"t0_ns": t0_ns, "stop_ns": t0_ns + PACKETS * INTERVAL_NS + NS_PER_S}
    pair.receiver.ask("run", order)
    pair.sender.ask("run", order)
    patience_s = PACKETS * INTERVAL_NS / NS_PER_S + 10
    _, sent = pair.sender.answer(patience_s)
    _, received = pair.receiver.answer(patience_s)
    assert np.array_equal(received["packets.seq"], sent["packets.seq"]), "a packet was lost"
    return received["packets.recv_ns"] - sent["packets.send_ns"]


def measure() -> dict[str, str]:
    """Medians and 99th percentiles, bare and harness in turns, and what lies between them."""
    bare, ours = [], []
    with session("bench-latency") as mine:
        pair = NetnsLab(mine).open_pair(0)
        try:
            for _ in range(ROUNDS):
                bare.append(bare_udp_one_way(pair))
                ours.append(harness_one_way(pair))
        finally:
            pair.close()
    figures = {}
    for name, share, aim in (("median", 50, "0.1"), ("p99", 99, "1")):
        bare_ms = np.percentile(np.concatenate(bare), share) / NS_PER_MS
        ours_ms = np.percentile(np.concatenate(ours), share) / NS_PER_MS
        figures[f"{name}: harness - bare, harness / bare (aim < {aim} ms added)"] = (
            f"{ours_ms:.3f} - {bare_ms:.3f} = {ours_ms - bare_ms:+.3f} ms,"
            f" ratio {ours_ms / bare_ms:.2f}"
        )
    return figures


def _receive(host: str, packets: int, _: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, real_time(RECEIVE_PRIORITY):
        sock.bind((host, _PORT))
        print("bound", flush=True)
        took = []
        for _ in range(packets):
            data = sock.recv(65_535)
            took.append(monotonic_ns() - _STAMP.unpack_from(data)[0])
    print(json.dumps(took), flush=True)


def _send(host: str, packets: int, interval_ns: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, real_time(RECEIVE_PRIORITY):
        sock.connect((host, _PORT))
        start_ns = monotonic_ns() + 20 * NS_PER_MS
        for i in range(packets):
            sleep_until(start_ns + i * interval_ns)
            sock.send(_STAMP.pack(monotonic_ns()).ljust(SIZE_BYTES, b"\0"))


if __name__ == "__main__":
    role, pid, address, count, interval = sys.argv[1:]
    join_namespace(int(pid), "net")
    exact_timers()
    (_receive if role == "receive" else _send)(address, int(count), int(interval))
