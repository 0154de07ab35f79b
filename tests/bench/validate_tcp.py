"""``python -m tests.bench.validate_tcp``: does the model of TCP tell what the kernel's TCP does?

The same voice streams run through the kernel's TCP between two network namespaces, over the relay
in real time, and through ``harness/virtual/tcp``, over the same seeded links in virtual time: as
long as both send the same segments, both lose the same. Compared is the delay of messages, from the
instant at which they are due to the one at which the receiver could read them.

Needs root and, with what is the default, some ten minutes. More ``--jobs`` than the machine carries
make the kernel's figures worse, not the model's.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import multiprocessing
import os
import platform
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.labs.base import Pair, session
from harness.labs.netns import NetnsLab
from harness.linux import exact_timers, real_time, sleep_until
from harness.network import link_to_json, topology
from harness.network.link import (
    Bernoulli,
    Change,
    Deliveries,
    GilbertElliott,
    Link,
    LinkPair,
    Rate,
    Reorder,
)
from harness.network.model import LinkModel
from harness.records import Columns, Outcome
from harness.transports.base import RECEIVE_PRIORITY
from harness.units import NS_PER_MS as MS
from harness.units import NS_PER_S, monotonic_ns
from harness.virtual.tcp import (
    DEFAULT_HZ,
    HEADER_BYTES,
    TcpStream,
    framed_bytes,
    require_validated,
    round_trip_ns,
)

_PORT = 5004
_PATIENCE_S = 40
SYSCTLS = (
    "tcp_congestion_control",
    "tcp_recovery",
    "tcp_early_retrans",
    "tcp_frto",
    "tcp_sack",
    "tcp_dsack",
    "tcp_rto_min_us",
    "tcp_reordering",
    "tcp_slow_start_after_idle",
    "tcp_pingpong_thresh",
    "tcp_comp_sack_delay_ns",
    "tcp_rmem",
    "tcp_wmem",
)
FIGURES = {"p50": (5.0, 0.10), "p95": (5.0, 0.10), "p99": (10.0, 0.20)}
"""Percentiles of the delay, and how far apart they may lie: ms, or share of the kernel's."""
PHASES = 8
"""How often the model runs on the same links, each time with the ticks of the hosts' clocks
elsewhere: what the figures owe to that is no difference between kernel and model."""


@dataclass(frozen=True)
class Case:
    """A network and the size of the messages."""

    name: str
    pair: LinkPair
    size_bytes: int
    interval_ns: int = 20 * MS


def _links(rtt_ms: int, loss: Any = None, back: Any = None, **more: Any) -> LinkPair:
    half_ns = rtt_ms * MS // 2
    return LinkPair(Link(half_ns, loss=loss, **more), Link(half_ns, loss=back))


def _bursts(mean_packets: int, percent: int) -> GilbertElliott:
    r = 1 / mean_packets
    return GilbertElliott(r * percent / (100 - percent), r)


def _outages(rtt_ms: int, length_ms: int) -> LinkPair:
    """Nothing passes in either direction for so long, every 7 s."""
    clean = Link(rtt_ms * MS // 2)
    dead = replace(clean, loss=Bernoulli(1.0))
    changes = []
    for at_ns in range(5 * NS_PER_S + 7 * MS, 600 * NS_PER_S, 7 * NS_PER_S + 3 * MS):
        changes += [Change(at_ns, dead), Change(at_ns + length_ms * MS, clean)]
    link = replace(clean, changes=tuple(changes))
    return LinkPair(link, link)


def _dips(rtt_ms: int, rate_bps: int, low_bps: int, length_ms: int) -> LinkPair:
    """A rate that falls for so long, every 7 s."""
    wide, narrow = (Link(rtt_ms * MS // 2, rate=_bucket(bps)) for bps in (rate_bps, low_bps))
    changes = []
    for at_ns in range(5 * NS_PER_S + 7 * MS, 600 * NS_PER_S, 7 * NS_PER_S + 3 * MS):
        changes += [Change(at_ns, narrow), Change(at_ns + length_ms * MS, wide)]
    return LinkPair(replace(wide, changes=tuple(changes)), Link(rtt_ms * MS // 2))


def _deliveries(rtt_ms: int, rate_bps: int) -> LinkPair:
    """Instants of 1500 bytes at random, in spells whose rate is from 0.1 to 2 times the mean."""
    draws = np.random.default_rng(1)
    at_ns = 0.0
    instants = []
    while at_ns < 600 * NS_PER_S:
        spell_end_ns = at_ns + draws.exponential(NS_PER_S / 2)
        gap_ns = 1500 * 8 * NS_PER_S / rate_bps / draws.uniform(0.1, 2)
        while at_ns < spell_end_ns:
            at_ns += draws.exponential(gap_ns)
            instants.append(int(at_ns))
    return _links(rtt_ms, rate=Deliveries(tuple(instants), 30_000))


def _rate(rtt_ms: int, rate_bps: int) -> LinkPair:
    return _links(rtt_ms, rate=_bucket(rate_bps))


def _bucket(rate_bps: int) -> Rate:
    """What ``tc`` makes of ``latency 300ms``: its queue is longer by the burst."""
    return Rate(rate_bps, 1600, limit_bytes=rate_bps * 300 // 8000 + 1600)


CASES = [
    Case("clean, RTT 20 ms", _links(20), 320),
    *(
        Case(f"loss {p:.0%}, RTT {rtt} ms, {size} B", _links(rtt, Bernoulli(p)), size)
        for rtt in (20, 100)
        for p, size in ((0.01, 320), (0.05, 80), (0.05, 640), (0.1, 320))
    ),
    Case("loss 20%, RTT 60 ms, 160 B", _links(60, Bernoulli(0.2)), 160),
    Case("loss 5%, RTT 80 ms, 160 B every 60 ms", _links(80, Bernoulli(0.05)), 160, 60 * MS),
    Case("loss 5%, RTT 80 ms, 20 B every 13.3 ms", _links(80, Bernoulli(0.05)), 20, 40 * MS // 3),
    Case("loss 5% both ways, RTT 60 ms", _links(60, Bernoulli(0.05), Bernoulli(0.05)), 160),
    *(
        Case(f"bursts of {mean}, {share}%, RTT {rtt} ms", _links(rtt, _bursts(mean, share)), 320)
        for rtt in (20, 100)
        for mean, share in ((2, 2), (3, 3))
    ),
    *(
        Case(f"outages of {ms} ms, RTT {rtt} ms", _outages(rtt, ms), 320)
        for rtt in (20, 100)
        for ms in (80, 300, 1000)
    ),
    Case("64 kbit/s, voice 24 kbit/s, RTT 20 ms", _rate(20, 64_000), 60),
    Case("350 to 100 kbit/s for 1 s, PCM, RTT 40 ms", _dips(40, 350_000, 100_000, 1000), 640),
    Case(
        "1 Mbit/s to 100 kbit/s for 1 s, PCM, RTT 40 ms", _dips(40, 1_000_000, 100_000, 1000), 640
    ),
    Case("LTE-like deliveries, PCM, RTT 40 ms", _deliveries(40, 1_000_000), 640),
    Case("200 to 30 kbit/s for 2 s, 64 kbit/s, RTT 60 ms", _dips(60, 200_000, 30_000, 2000), 160),
    Case("300 kbit/s, PCM 256 kbit/s, RTT 40 ms", _rate(40, 300_000), 640),
    Case("jitter 5 ms, RTT 40 ms", _links(40, jitter_ns=5 * MS, distribution="normal"), 320),
    Case("jitter 20 ms, RTT 100 ms", _links(100, jitter_ns=20 * MS, distribution="normal"), 320),
    Case(
        "jitter 20 ms, loss 2%, RTT 100 ms",
        _links(100, Bernoulli(0.02), jitter_ns=20 * MS, distribution="normal"),
        320,
    ),
    Case("reordering 5%, RTT 60 ms", _links(60, reorder=Reorder(0.05)), 320),
    Case("damage 3%, RTT 40 ms", _links(40, corrupt=0.03), 320),
    Case("duplicates 5%, loss 2%, RTT 40 ms", _links(40, Bernoulli(0.02), duplicate=0.05), 320),
]


@dataclass(frozen=True)
class Seen:
    """One stream: the delay of each message in ms (inf: it never came), and what it took."""

    delays_ms: NDArray[np.float64]
    segments: int
    acks: int
    retransmissions: int
    worst_late_ms: float = 0.0
    """By how much the sender missed its schedule: the machine was busy, or the socket full."""


def of_model(case: Case, seed: int, seconds: int, phase: int, hz: int = DEFAULT_HZ) -> Seen:
    models = [
        LinkModel[Any](link, f"{seed}/{number}")
        for number, link in enumerate((case.pair.forward, case.pair.reverse))
    ]
    stream = TcpStream[int](
        *models,
        framing="tcp",
        rtt_ns=round_trip_ns(case.pair),
        seed=f"{seed}/{phase}",
        hz=hz,
    )
    count = seconds * NS_PER_S // case.interval_ns
    for number in range(count):
        stream.send(number, case.size_bytes, number * case.interval_ns)
    stream.advance((seconds + _PATIENCE_S) * NS_PER_S)
    delays = np.full(count, np.inf)
    for number, readable_ns in stream.received():
        delays[number] = (readable_ns - number * case.interval_ns) / MS
    directions = [row[0] for row in stream.link_rows if row[4] != Outcome.DUPLICATE]
    return Seen(
        delays, directions.count(0), directions.count(1), stream.counts()["retransmissions"]
    )


def of_kernel(case: Case, seed: int, seconds: int) -> Seen:
    with session(f"validate-tcp-{os.getpid()}") as mine:
        pair = NetnsLab(mine).open_pair(0)
        try:
            with _connected(pair, case.pair) as (sender, receiver):
                _set_link(pair, case.pair, seed)
                t0_ns = monotonic_ns() + 200 * MS
                pair.link.call("start", {"t0_ns": t0_ns})
                delays, late_ms = _stream(sender, receiver, case, t0_ns, seconds)
                retransmissions = _total_retransmissions(sender)
            _, log = pair.link.call("collect")
        finally:
            pair.close()
    segments, acks = _counts(log)
    return Seen(delays, segments, acks, retransmissions, late_ms)


def _counts(log: Columns) -> tuple[int, int]:
    original = log["outcome"] != Outcome.DUPLICATE
    data = (log["direction"] == 0) & (log["size_bytes"] > HEADER_BYTES)
    return int((data & original).sum()), int(((log["direction"] == 1) & original).sum())


def _set_link(pair: Pair, links: LinkPair, seed: int) -> None:
    asked = {"link": link_to_json(links), "engine": "relay", "seed": seed}
    pair.link.call("apply", asked)


@contextlib.contextmanager
def _connected(pair: Pair, links: LinkPair) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection that was made over the same delays, without any impairment."""
    delays = LinkPair(Link(links.forward.delay_ns), Link(links.reverse.delay_ns))
    _set_link(pair, delays, 0)
    pair.link.call("start")

    def made(role: str, make: Callable[[], socket.socket]) -> socket.socket:
        return stack.enter_context(topology.in_net_of(pair.facts[role]["pid"], make))

    def connected() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((pair.receiver_host, _PORT))
        return sock

    with ExitStack() as stack:
        listener = made("receiver", lambda: socket.create_server((pair.receiver_host, _PORT)))
        sender = made("sender", connected)
        receiver = stack.enter_context(listener.accept()[0])
        yield sender, receiver


def _stream(
    sender: socket.socket, receiver: socket.socket, case: Case, t0_ns: int, seconds: int
) -> tuple[NDArray[np.float64], float]:
    interval_ns = case.interval_ns
    count = seconds * NS_PER_S // interval_ns
    message = bytes(framed_bytes("tcp", case.size_bytes))
    delays = np.full(count, np.inf)

    def receive() -> None:
        exact_timers()
        receiver.settimeout(_PATIENCE_S)
        done = 0
        taken = 0
        with real_time(RECEIVE_PRIORITY):
            while done < count:
                try:
                    taken += len(receiver.recv(1 << 16))
                except TimeoutError:
                    return
                now_ns = monotonic_ns()
                while (done + 1) * len(message) <= taken:
                    delays[done] = (now_ns - t0_ns - done * interval_ns) / MS
                    done += 1

    thread = threading.Thread(target=receive)
    thread.start()
    exact_timers()
    with real_time(RECEIVE_PRIORITY):
        sender.settimeout(_PATIENCE_S)
        late_ns = 0
        with contextlib.suppress(TimeoutError):
            for number in range(count):
                sleep_until(t0_ns + number * interval_ns)
                late_ns = max(late_ns, monotonic_ns() - t0_ns - number * interval_ns)
                sender.sendall(message)
    thread.join()
    return delays, late_ns / MS


def _total_retransmissions(sender: socket.socket) -> int:
    info = sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("I", info, 100)[0])


def _of_kernel(work: tuple[Case, int, int]) -> Seen:
    return of_kernel(*work)


def of_models(case: Case, seed: int, seconds: int, hz: int = DEFAULT_HZ) -> list[Seen]:
    return [of_model(case, seed, seconds, phase, hz) for phase in range(PHASES)]


def _of_models(work: tuple[Case, int, int]) -> list[Seen]:
    return of_models(*work, kernel_hz() or DEFAULT_HZ)


def kernel_hz() -> int | None:
    """Ticks a second of the running kernel's timers; None where its configuration is not to be
    read."""
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{platform.release()}")):
        if not path.exists():
            continue
        text = path.read_bytes()
        lines = (gzip.decompress(text) if path.suffix == ".gz" else text).decode().splitlines()
        for line in lines:
            if line.startswith("CONFIG_HZ="):
                return int(line.removeprefix("CONFIG_HZ="))
    return None


def frozen(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the kernel did in each case, as ``--freeze`` wrote it down: name, contents."""
    for path in sorted(folder.glob("*.json")):
        yield path.stem, json.loads(path.read_text(encoding="utf-8"))


def _freeze(folder: Path, case: Case, seconds: int, kernel: Sequence[Seen]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", case.name.lower()).strip("-")
    written = {
        "case": case.name,
        "kernel": platform.release(),
        "hz": kernel_hz(),
        "seconds": seconds,
        "seeds": len(kernel),
        "worst_late_ms": round(max(one.worst_late_ms for one in kernel), 2),
        "percentiles_ms": {of: round(percentile(kernel, int(of[1:])), 2) for of in FIGURES},
        "segments": sum(one.segments for one in kernel),
        "acks": sum(one.acks for one in kernel),
        "retransmissions": sum(one.retransmissions for one in kernel),
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def _facts() -> Iterator[str]:
    hz = kernel_hz() or "unknown"
    yield f"kernel {platform.release()}, HZ {hz}, of which sockets are told to use cubic"
    for name in SYSCTLS:
        path = Path("/proc/sys/net/ipv4") / name
        value = path.read_text().split() if path.exists() else ["absent"]
        yield f"  net.ipv4.{name} = {' '.join(value)}"


def _told(case: Case, seen: list[tuple[Seen, list[Seen]]]) -> bool:
    """Print a case's rows; whether all its figures agree."""
    kernel = [one for one, _ in seen]
    models = list(zip(*(phases for _, phases in seen), strict=True))
    cells, agrees = [], True
    for name in FIGURES:
        of_kernel_ms = percentile(kernel, int(name[1:]))
        of_models_ms = sorted(percentile(model, int(name[1:])) for model in models)
        near = is_near(name, of_kernel_ms, of_models_ms)
        agrees &= near
        cells.append(
            f"{name} {of_kernel_ms:7.1f} {of_models_ms[PHASES // 2]:7.1f}"
            f" [{of_models_ms[0]:.0f}, {of_models_ms[-1]:.0f}]{'' if near else ' !'}"
        )
    for name in ("segments", "acks", "retransmissions"):
        of_kernel_count = sum(getattr(one, name) for one in kernel)
        of_models = [sum(getattr(one, name) for one in model) for model in models]
        cells.append(f"{name} {of_kernel_count} {np.median(of_models):.0f}")
    late_ms = max(one.worst_late_ms for one in kernel)
    cells.append(f"worst send {late_ms:.1f} ms late")
    print(f"{case.name}\n    {'agrees ' if agrees else 'DIFFERS'} {' | '.join(cells)}", flush=True)
    return agrees


def is_near(figure: str, of_kernel_ms: float, of_models_ms: Sequence[float]) -> bool:
    """Whether the kernel's figure lies among the model's, or near enough to them."""
    floor_ms, share = FIGURES[figure]
    near_ms = max(floor_ms, share * min(of_kernel_ms, 1e6))
    low, high = min(of_models_ms) - near_ms, max(of_models_ms) + near_ms
    return low <= of_kernel_ms <= high or of_kernel_ms == sorted(of_models_ms)[PHASES // 2]


def percentile(seen: Sequence[Seen], share: int) -> float:
    delays_ms = np.concatenate([one.delays_ms for one in seen])
    return float(np.percentile(delays_ms, share, method="lower"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="validate_tcp", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of each stream")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=16, help="streams at a time")
    parser.add_argument("--only", default="", help="networks whose name this pattern finds")
    parser.add_argument("--freeze", type=Path, help="folder for what the kernel did, as JSON")
    asked = parser.parse_args()
    for line in _facts():
        print(line)
    print(f"delays in ms, counts: kernel, model (median of {PHASES}) [and its range]")
    cases = [case for case in CASES if re.search(asked.only, case.name)]
    for case in cases:
        duration_ns = asked.seconds * NS_PER_S
        require_validated(case.pair, "tcp", case.size_bytes, case.interval_ns, duration_ns)
    work = [(case, seed, asked.seconds) for case in cases for seed in range(asked.seeds)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.jobs, context) as pool:
        kernel = list(pool.map(_of_kernel, work))
    with ProcessPoolExecutor(os.cpu_count(), context) as pool:
        models = list(pool.map(_of_models, work))
    seen = iter(zip(kernel, models, strict=True))
    differing = 0
    for case in cases:
        of_case = [next(seen) for _ in range(asked.seeds)]
        differing += not _told(case, of_case)
        if asked.freeze:
            _freeze(asked.freeze, case, asked.seconds, [one for one, _ in of_case])
    print(f"{differing} of {len(cases)} networks differ")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
