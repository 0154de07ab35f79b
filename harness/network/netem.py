"""Engine ``netem``: sch_netem and sch_tbf set by netlink, then read back and compared.

Pure part: :func:`plan` turns a link into qdiscs, :func:`facts_asked` says what the kernel must
then report, :func:`facts_of` reads its report, :func:`compare` finds differences. Shell:
:func:`apply`, :func:`clear`, :func:`counters`.

pyroute2's own netem encoder knows neither loss models, 64-bit delays, distribution tables nor the
seed, and ignores keywords it does not know; its tbf drops ``peak`` silently. Here options are typed
(:class:`~harness.network.link.Link`), so nothing unknown can get in, and the attributes are those
of ``include/uapi/linux/pkt_sched.h``.

Tree: netem (1:) as root, tbf (2:) as its child where a rate is asked; no qdisc at all on a clean
link. A rate without any delay still goes through netem, with 1 ns: netem then takes packets off
their socket's account, without which a full queue in the middle would hold back the sender (tbf
alone blocks UDP senders and feeds TCP's small-queue logic). Qdiscs are deleted and added; only a
link that changes over time has its qdiscs changed (:func:`steps`), and what a change does beside
what is asked is made good or refused:

* Options left out keep their values, a seed left out becomes a random one: every change has all
  options and a seed of its own (the same again would repeat the same losses).
* A change of netem begins Gilbert-Elliott anew in its good state: refused unless it happens rarely.
* A change of tbf fills the bucket, so that ``burst_bytes`` more may pass at once: refused where
  that is a noticeable share of what passes.
* tbf does not look at its queue when its rate changes, but when its timer, set by the old rate,
  goes off or a packet comes: where a rate rises, the engine sends an empty frame through the qdisc.
* tbf has no rate of 0. An outage is 1 byte/s with an overhead of 65535 bytes a packet: nothing
  passes for hours, but for the one packet that the full bucket lets through at its beginning.
* tbf has no fluid queue, as a recorded rate is: ``buckets.py`` gives it the smallest buckets, or
  refuses.
* tbf stays from the beginning to the end where any part has a rate; without one it is 10 Gbit/s.
"""

from __future__ import annotations

import errno
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import attrgetter
from typing import Any

import numpy as np
from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, nla
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_DELQDISC, RTM_GETQDISC, RTM_NEWQDISC, TC_H_ROOT
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from harness.errors import CellFailed, ReadBackMismatch, Unsupported
from harness.network.distributions import SCALE, SIZE, table
from harness.network.link import (
    Bernoulli,
    Deliveries,
    Distribution,
    GilbertElliott,
    Link,
    LossTrace,
    Rate,
)
from harness.network.topology import index_of
from harness.units import NS_PER_S, format_duration

Facts = dict[str, Any]

NETEM_HANDLE = 0x0001_0000
TBF_HANDLE = 0x0002_0000
_NETEM_CLASS = NETEM_HANDLE | 1
_U32 = 0xFFFF_FFFF
_TCA_KIND, _TCA_OPTIONS = 1, 2
_INTEGERS = {"uint32": "=I", "uint64": "=Q", "int64": "=q"}
_TICK_NS = 64  # PSCHED_SHIFT 6
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET: the kernel asks for no rate table
_ORPHAN_NS = 1
_LARGEST_JITTER_NS = 2**31 - 1  # tabledist() takes an s32
_UNLIMITED = Rate(10_000_000_000, 2_000_000, limit_bytes=20_000_000)
_EVEN = np.linspace(-SCALE, SCALE, SIZE).astype(np.int16)
"""A table for uniform: one that is set can be replaced, but not removed."""
_OUTAGE_BPS = 8
_OUTAGE_OVERHEAD_BYTES = 0xFFFF
_SETTLED_NS = NS_PER_S
"""After so long, that Gilbert-Elliott began in its good state no longer shows."""
_NOTICEABLE = 0.1
"""Share of the time, or of the bytes, that changes may spoil."""
_FEW = 10


class _NetemOptions(nla):  # type: ignore[misc]
    nla_map = (
        ("TCA_NETEM_UNSPEC", "none"),
        ("TCA_NETEM_CORR", "hex"),
        ("TCA_NETEM_DELAY_DIST", "cdata"),
        ("TCA_NETEM_REORDER", "probability"),
        ("TCA_NETEM_CORRUPT", "probability"),
        ("TCA_NETEM_LOSS", "loss"),
        ("TCA_NETEM_RATE", "hex"),
        ("TCA_NETEM_ECN", "uint32"),
        ("TCA_NETEM_RATE64", "uint64"),
        ("TCA_NETEM_PAD", "hex"),
        ("TCA_NETEM_LATENCY64", "int64"),
        ("TCA_NETEM_JITTER64", "int64"),
        ("TCA_NETEM_SLOT", "hex"),
        ("TCA_NETEM_SLOT_DIST", "hex"),
        ("TCA_NETEM_PRNG_SEED", "uint64"),
    )
    fields = (
        ("latency", "I"),
        ("limit", "I"),
        ("loss", "I"),
        ("gap", "I"),
        ("duplicate", "I"),
        ("jitter", "I"),
    )

    class probability(nla):  # type: ignore[misc]
        fields = (("probability", "I"), ("correlation", "I"))

    class loss(nla):  # type: ignore[misc]
        nla_map = (
            ("NETEM_LOSS_UNSPEC", "none"),
            ("NETEM_LOSS_GI", "hex"),
            ("NETEM_LOSS_GE", "gilbert_elliott"),
        )

        class gilbert_elliott(nla):  # type: ignore[misc]
            fields = (("p", "I"), ("r", "I"), ("h", "I"), ("k1", "I"))


class _TbfOptions(nla):  # type: ignore[misc]
    nla_map = (
        ("TCA_TBF_UNSPEC", "none"),
        ("TCA_TBF_PARMS", "parms"),
        ("TCA_TBF_RTAB", "hex"),
        ("TCA_TBF_PTAB", "hex"),
        ("TCA_TBF_RATE64", "uint64"),
        ("TCA_TBF_PRATE64", "uint64"),
        ("TCA_TBF_BURST", "uint32"),
        ("TCA_TBF_PBURST", "uint32"),
    )

    class parms(nla):  # type: ignore[misc]
        fields = (
            ("rate_cell_log", "B"),
            ("rate_linklayer", "B"),
            ("rate_overhead", "H"),
            ("rate_cell_align", "h"),
            ("rate_mpu", "H"),
            ("rate_bytes_per_s", "I"),
            ("peak", "12s"),
            ("limit", "I"),
            ("buffer", "I"),
            ("mtu", "I"),
        )


class _QdiscMessage(tcmsg):  # type: ignore[misc]
    @staticmethod
    def get_options(message: Any, *_args: Any, **_kwargs: Any) -> Any:
        kinds = {"netem": _NetemOptions, "tbf": _TbfOptions}
        return kinds.get(message.get_attr("TCA_KIND"), tcmsg.hex)


@dataclass(frozen=True)
class Qdisc:
    """One qdisc to add; ``options`` in pyroute2's shape for the message classes above."""

    kind: str
    handle: int
    parent: int
    options: dict[str, Any]


def plan(link: Link, seed: int) -> list[Qdisc]:
    """The qdiscs of one direction as they begin, parents first; [] for a clean link.

    Raises Unsupported for what netem cannot do, in any part of the link.
    """
    parts = timeline(link)
    for _, part in parts:
        _check(part)
    _check_changes(parts)
    begin = parts[0][1]
    if link.is_clean:
        return []
    qdiscs = [Qdisc("netem", NETEM_HANDLE, TC_H_ROOT, _netem_options(begin, seed))]
    if begin.rate is not None:
        qdiscs.append(Qdisc("tbf", TBF_HANDLE, _NETEM_CLASS, _tbf_options(_rate(begin))))
    return qdiscs


def timeline(link: Link) -> list[tuple[int, Link]]:
    """The static links that it is one after the other, as qdiscs are to be set for them."""
    parts = link.segments()
    if all(part.rate is None for _, part in parts):
        return parts
    return [(at_ns, replace(part, rate=part.rate or _UNLIMITED)) for at_ns, part in parts]


def _check(part: Link) -> None:
    if isinstance(part.loss, LossTrace):
        raise Unsupported("netem cannot follow a loss trace; use the relay")
    if isinstance(part.rate, Deliveries):
        raise Unsupported(
            "netem has no delivery opportunities, and with rate steps in their place most waits"
            " would be gone (a bucket lets packets through at once); use the relay"
        )
    if isinstance(part.rate, Rate) and part.rate.is_fluid:
        raise Unsupported("netem's tbf needs a bucket (network/buckets.py); use the relay")
    if part.jitter_ns > _LARGEST_JITTER_NS:
        raise Unsupported("netem takes no jitter above 2.147 s; use the relay")
    if part.reorder is not None and part.rate is not None:
        raise Unsupported(
            "netem's reordered packets would bypass the rate; use the relay for both together"
        )


def _check_changes(parts: list[tuple[int, Link]]) -> None:
    """Raises Unsupported where what a change does by the way (see above) would show."""
    last_ns = parts[-1][0]
    renewed_ns, renewing, since_ns = 0, False, 0
    refills, refilled, passed = 0, 0, 0
    for (at_ns, part), (next_ns, following) in pairwise(parts):
        if part.rate is not None:
            rate, next_rate = _rate(part), _rate(following)
            passed += rate.rate_bps * (next_ns - at_ns) // 8 // NS_PER_S
            if next_rate != rate and next_rate.rate_bps and next_rate != _UNLIMITED:
                refills, refilled = refills + 1, refilled + next_rate.burst_bytes
        if _of_netem(part) != _of_netem(following):
            took_ns = next_ns - since_ns
            if renewing and isinstance(part.loss, GilbertElliott) and took_ns < _SETTLED_NS:
                renewed_ns += took_ns
            renewing, since_ns = True, next_ns
    if renewed_ns > _NOTICEABLE * last_ns:
        raise Unsupported(
            "netem's Gilbert-Elliott begins anew at each change, and changes come less than"
            f" {format_duration(_SETTLED_NS)} apart; use the relay, or loss in media time"
        )
    if refills > _FEW and refilled > _NOTICEABLE * passed:
        raise Unsupported(
            f"tbf fills its bucket whenever its rate changes: {refilled} bytes in {refills}"
            f" changes, beside the {passed} that the rates let through; use the relay"
        )


_effects_of = attrgetter(
    *("loss", "jitter_ns", "distribution", "duplicate", "corrupt", "reorder", "limit_packets")
)


def _of_netem(part: Link) -> tuple[object, ...]:
    """What of a part is netem's to do."""
    return _effects_of(part), _delay_ns(part)


@dataclass(frozen=True)
class Step:
    """What to send to the kernel at an instant (from t0) of a link that changes."""

    at_ns: int
    netem: bytes
    tbf: bytes
    """RTM_NEWQDISC messages, empty where a qdisc stays as it is."""
    rises: bool
    """The rate is higher than before."""


def steps(ifname: str, link: Link, seed: int) -> list[Step]:
    """The changes of a link whose :func:`plan` is set on an interface."""
    if not link.changes:
        return []
    with _netlink() as ip:
        index = index_of(ip, ifname)
    parts = timeline(link)
    drawn: Distribution = parts[0][1].distribution if parts[0][1].jitter_ns else "uniform"
    found = []
    for n, ((_, before), (at_ns, part)) in enumerate(pairwise(parts), 1):
        netem = tbf = b""
        if _of_netem(part) != _of_netem(before):
            options = _netem_options(part, step_seed(seed, n), drawn)
            drawn = part.distribution if part.jitter_ns else drawn
            netem = message_bytes(index, Qdisc("netem", NETEM_HANDLE, TC_H_ROOT, options))
        rises = False
        if part.rate != before.rate:
            options = _tbf_options(_rate(part))
            tbf = message_bytes(index, Qdisc("tbf", TBF_HANDLE, _NETEM_CLASS, options))
            rises = _rate(part).rate_bps > _rate(before).rate_bps
        found.append(Step(at_ns, netem, tbf, rises))
    return found


def step_seed(seed: int, number: int) -> int:
    """The seed of netem from the ``number``-th change of a link on; 0 is the beginning."""
    return direction_seed(seed, number) if number else seed


def message_bytes(index: int, qdisc: Qdisc) -> bytes:
    """RTM_NEWQDISC that changes a qdisc and asks for an ACK: what pyroute2 would encode, but in
    microseconds, as a link may have thousands of changes."""
    cls = {"netem": _NetemOptions, "tbf": _TbfOptions}[qdisc.kind]
    body = struct.pack("=BBHiIII", 0, 0, 0, index, qdisc.handle, qdisc.parent, 0)
    body += _attribute(_TCA_KIND, qdisc.kind.encode() + b"\0")
    body += _attribute(_TCA_OPTIONS, _packed(cls, qdisc.options))
    flags = NLM_F_REQUEST | NLM_F_ACK
    return struct.pack("=IHHII", 16 + len(body), RTM_NEWQDISC, flags, 1, 0) + body


def _packed(cls: Any, value: Any) -> bytes:
    """Fields, then attributes, of an nla class above."""
    if isinstance(value, bytes):
        return value
    layout = "=" + "".join(form for _, form in cls.fields)
    packed = struct.pack(layout, *(value[name] for name, _ in cls.fields))
    for name, content in value.get("attrs", ()):
        number, kind = next((n, k) for n, (known, k) in enumerate(cls.nla_map) if known == name)
        if kind in _INTEGERS:
            packed += _attribute(number, struct.pack(_INTEGERS[kind], content))
        else:
            packed += _attribute(number, _packed(getattr(cls, kind), content))
    return packed


def _attribute(number: int, payload: bytes) -> bytes:
    padding = b"\0" * (-len(payload) % 4)
    return struct.pack("=HH", 4 + len(payload), number) + payload + padding


def _netem_options(link: Link, seed: int, drawn: Distribution | None = None) -> dict[str, Any]:
    """``drawn``: in a change, the distribution that the qdisc draws from so far."""
    delay_ns = _delay_ns(link)
    options: dict[str, Any] = {
        "latency": min(delay_ns // _TICK_NS, _U32),
        "limit": link.limit_packets,
        "loss": _to_u32(link.loss.p) if isinstance(link.loss, Bernoulli) else 0,
        "gap": link.reorder.gap if link.reorder else 0,
        "duplicate": _to_u32(link.duplicate),
        "jitter": min(link.jitter_ns // _TICK_NS, _U32),
    }
    attrs: list[list[Any]] = [
        ["TCA_NETEM_LATENCY64", delay_ns],
        ["TCA_NETEM_JITTER64", link.jitter_ns],
        ["TCA_NETEM_PRNG_SEED", seed],
    ]
    if link.jitter_ns and link.distribution != (drawn or "uniform"):
        entries = table(link.distribution)
        attrs.append(["TCA_NETEM_DELAY_DIST", (_EVEN if entries is None else entries).tobytes()])
    if link.reorder or drawn:
        attrs.append(["TCA_NETEM_REORDER", _probability(link.reorder.p if link.reorder else 0)])
    if link.corrupt or drawn:
        attrs.append(["TCA_NETEM_CORRUPT", _probability(link.corrupt)])
    if isinstance(link.loss, GilbertElliott):
        wire = {
            "p": _to_u32(link.loss.p),
            "r": _to_u32(link.loss.r),
            "h": _to_u32(1 - link.loss.loss_bad),
            "k1": _to_u32(link.loss.loss_good),
        }
        attrs.append(["TCA_NETEM_LOSS", {"attrs": [["NETEM_LOSS_GE", wire]]}])
    return options | {"attrs": attrs}


def _tbf_options(rate: Rate) -> dict[str, Any]:
    bytes_per_s = (rate.rate_bps or _OUTAGE_BPS) // 8
    parms = {
        "rate_cell_log": 0,
        "rate_linklayer": _ETHERNET,
        "rate_overhead": 0 if rate.rate_bps else _OUTAGE_OVERHEAD_BYTES,
        "rate_cell_align": 0,
        "rate_mpu": 0,
        "rate_bytes_per_s": min(bytes_per_s, _U32),
        "peak": bytes(12),
        "limit": rate.queue_limit_bytes(),
        "buffer": min(rate.burst_bytes * NS_PER_S // bytes_per_s // _TICK_NS, _U32),
        "mtu": 0,
    }
    attrs: list[list[Any]] = [["TCA_TBF_PARMS", parms], ["TCA_TBF_BURST", rate.burst_bytes]]
    if bytes_per_s > _U32:
        attrs.append(["TCA_TBF_RATE64", bytes_per_s])
    return {"attrs": attrs}


def facts_asked(link: Link, seed: int) -> Facts:
    """What the kernel must report of :func:`plan`: ``{"netem": {...} | None, "tbf": ...}``."""
    if link.is_clean:
        return {"netem": None, "tbf": None}
    return facts_of_part(timeline(link)[0][1], seed)


def facts_of_part(link: Link, seed: int) -> Facts:
    """What the kernel must report while it has been set for one part of a :func:`timeline`."""
    loss = link.loss
    netem: Facts = {
        "delay_ns": _delay_ns(link),
        "jitter_ns": link.jitter_ns,
        "limit_packets": link.limit_packets,
        "loss": loss.p if isinstance(loss, Bernoulli) else 0.0,
        "gilbert_elliott": (
            {"p": loss.p, "r": loss.r, "loss_bad": loss.loss_bad, "loss_good": loss.loss_good}
            if isinstance(loss, GilbertElliott)
            else None
        ),
        "duplicate": link.duplicate,
        "corrupt": link.corrupt,
        "reorder": link.reorder.p if link.reorder else 0.0,
        "gap": link.reorder.gap if link.reorder else 0,
        "seed": seed,
    }
    if link.rate is None:
        return {"netem": netem, "tbf": None}
    rate = _rate(link)
    tbf = {
        "rate_bps": rate.rate_bps or _OUTAGE_BPS,
        "burst_bytes": rate.burst_bytes,
        "limit_bytes": rate.queue_limit_bytes(),
    }
    return {"netem": netem, "tbf": tbf}


def facts_of(messages: list[Any]) -> Facts:
    """The same figures from the kernel's dump of an interface's qdiscs.

    ``seed`` is None where the kernel has none. The distribution table is never dumped.
    """
    facts: Facts = {"netem": None, "tbf": None}
    for message in messages:
        options = message.get_attr("TCA_OPTIONS")
        match message["handle"], message.get_attr("TCA_KIND"):
            case 0x0001_0000, "netem":
                facts["netem"] = _netem_facts(options)
            case 0x0002_0000, "tbf":
                facts["tbf"] = _tbf_facts(options)
    return facts


def _netem_facts(options: Any) -> Facts:
    loss = options.get_attr("TCA_NETEM_LOSS")
    ge = loss and loss.get_attr("NETEM_LOSS_GE")
    delay_ns = options.get_attr("TCA_NETEM_LATENCY64")
    jitter_ns = options.get_attr("TCA_NETEM_JITTER64")

    def probability(name: str) -> float:
        attribute = options.get_attr(name)
        return _from_u32(attribute["probability"] if attribute else 0)

    return {
        "delay_ns": options["latency"] * _TICK_NS if delay_ns is None else delay_ns,
        "jitter_ns": options["jitter"] * _TICK_NS if jitter_ns is None else jitter_ns,
        "limit_packets": options["limit"],
        "loss": _from_u32(options["loss"]),
        "gilbert_elliott": ge
        and {
            "p": _from_u32(ge["p"]),
            "r": _from_u32(ge["r"]),
            "loss_bad": 1 - _from_u32(ge["h"]),
            "loss_good": _from_u32(ge["k1"]),
        },
        "duplicate": _from_u32(options["duplicate"]),
        "corrupt": probability("TCA_NETEM_CORRUPT"),
        "reorder": probability("TCA_NETEM_REORDER"),
        "gap": options["gap"],
        "seed": options.get_attr("TCA_NETEM_PRNG_SEED"),
    }


def _tbf_facts(options: Any) -> Facts:
    parms = options.get_attr("TCA_TBF_PARMS")
    bytes_per_s = options.get_attr("TCA_TBF_RATE64") or parms["rate_bytes_per_s"]
    return {
        "rate_bps": bytes_per_s * 8,
        "burst_bytes": round(parms["buffer"] * _TICK_NS * bytes_per_s / NS_PER_S),
        "limit_bytes": parms["limit"],
    }


def compare(asked: Facts, found: Facts) -> list[str]:
    """Differences beyond the kernel's own quantisation, in words; [] when there are none.

    A missing seed is no difference: kernels before 6.6 take none, and say so by not reporting it.
    """
    differences = []
    for kind, want in asked.items():
        have = found[kind]
        if want is None or have is None:
            if want is not have:
                differences.append(f"{kind}: asked {want}, the kernel has {have}")
            continue
        for name, value in want.items():
            if name == "seed" and have[name] is None:
                continue
            if not _same(value, have[name], _quantum(name, want)):
                differences.append(f"{kind} {name}: asked {value}, the kernel has {have[name]}")
    return differences


def _quantum(name: str, want: Facts) -> float:
    """The largest honest difference of a figure."""
    match name:
        case "rate_bps":
            return 8  # whole bytes per second
        case "burst_bytes" if want["rate_bps"] <= _OUTAGE_BPS:
            return float("inf")  # its time is more than the report has room for
        case "burst_bytes":
            bytes_per_s = int(want["rate_bps"]) / 8
            return 2 + bytes_per_s * 2 * _TICK_NS / NS_PER_S  # the kernel keeps it as time
        case "loss" | "duplicate" | "corrupt" | "reorder" | "gilbert_elliott":
            return 2 / _U32
        case _:
            return 0


def _same(want: Any, have: Any, quantum: float) -> bool:
    if isinstance(want, dict) and isinstance(have, dict):
        return all(_same(value, have.get(name), quantum) for name, value in want.items())
    if want is None or have is None:
        return want is have
    return bool(abs(want - have) <= quantum)


def apply(ifname: str, link: Link, seed: int) -> Facts:
    """Set one direction on an interface and return what the kernel then reports.

    Raises Unsupported (the link, or a kernel without netem or tbf), ReadBackMismatch.
    """
    return apply_all([(ifname, plan(link, seed), facts_asked(link, seed))])[0]


def apply_all(ports: Sequence[tuple[str, Sequence[Qdisc], Facts]]) -> list[Facts]:
    """:func:`apply` to several interfaces, of a :func:`plan` and :func:`facts_asked` each."""
    reports = []
    with _netlink() as ip:
        for ifname, qdiscs, asked in ports:
            index = index_of(ip, ifname)
            _clear(ip, index)
            for qdisc in qdiscs:
                _add(ip, index, qdisc)
            found = facts_of(_dump(ip, index))
            if differing := compare(asked, found):
                raise ReadBackMismatch(f"{ifname}: " + "; ".join(differing))
            reports.append(found)
    return reports


def differences(ifname: str, part: Link, seed: int) -> list[str]:
    """What the kernel reports otherwise than one part of a :func:`timeline` asks, in words."""
    with _netlink() as ip:
        found = facts_of(_dump(ip, index_of(ip, ifname)))
    return compare(facts_of_part(part, seed), found)


def try_tbf(ifname: str, rate: Rate) -> None:
    """Set tbf as root, for a probe. Raises Unsupported."""
    clear(ifname)
    with _netlink() as ip:
        _add(ip, index_of(ip, ifname), Qdisc("tbf", TBF_HANDLE, TC_H_ROOT, _tbf_options(rate)))


def clear(ifname: str) -> None:
    """Remove our root qdisc, if there is one."""
    with _netlink() as ip:
        _clear(ip, index_of(ip, ifname))


def _clear(ip: Any, index: int) -> None:
    for message in _dump(ip, index):
        if message["parent"] == TC_H_ROOT and message["handle"] in (NETEM_HANDLE, TBF_HANDLE):
            gone = _message(index, message["handle"], TC_H_ROOT)
            _request(ip, gone, RTM_DELQDISC, NLM_F_REQUEST | NLM_F_ACK)


def counters(ifname: str) -> dict[str, dict[str, int]]:
    """Per kind of our qdiscs: ``packets``, ``drops``, ``qlen`` (packets), ``backlog`` (bytes)."""
    with _netlink() as ip:
        messages = _dump(ip, index_of(ip, ifname))
    counted = {}
    for message in messages:
        if message["handle"] in (NETEM_HANDLE, TBF_HANDLE):
            stats = message.get_attr("TCA_STATS2")
            queue = stats.get_attr("TCA_STATS_QUEUE")
            counted[message.get_attr("TCA_KIND")] = {
                "packets": stats.get_attr("TCA_STATS_BASIC")["packets"],
                "drops": queue["drops"],
                "qlen": queue["qlen"],
                "backlog": queue["backlog"],
            }
    return counted


def direction_seed(seed: int, direction: int) -> int:
    """A 64-bit seed for one direction's generator."""
    digest = hashlib.sha256(f"{seed}/{direction}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _netlink() -> Any:
    ip = IPRoute()
    ip.status["nlm_generator"] = False  # nlm_request() reads it, and IPRoute forgets to set it
    ip.marshal.msg_map = ip.marshal.msg_map | {RTM_NEWQDISC: _QdiscMessage}
    return ip


def _message(index: int, handle: int, parent: int) -> Any:
    message = _QdiscMessage()
    message["family"], message["index"] = 0, index
    message["handle"], message["parent"], message["info"] = handle, parent, 0
    return message


def _add(ip: Any, index: int, qdisc: Qdisc) -> None:
    message = _message(index, qdisc.handle, qdisc.parent)
    message["attrs"] = [["TCA_KIND", qdisc.kind], ["TCA_OPTIONS", qdisc.options]]
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    try:
        _request(ip, message, RTM_NEWQDISC, flags)
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            raise Unsupported(
                f"this kernel has no sch_{qdisc.kind} (CONFIG_NET_SCH_{qdisc.kind.upper()});"
                " use the relay, or a kernel with it"
            ) from error
        raise CellFailed(f"the kernel refused {qdisc.kind} ({error})") from error


def _dump(ip: Any, index: int) -> list[Any]:
    message = _message(index, 0, 0)
    found = _request(ip, message, RTM_GETQDISC, NLM_F_REQUEST | NLM_F_DUMP)
    return [m for m in found if m["index"] == index]


def _request(ip: Any, message: Any, kind: int, flags: int) -> list[Any]:
    return list(ip.nlm_request(message, kind, flags))


def _rate(part: Link) -> Rate:
    assert isinstance(part.rate, Rate)
    return part.rate


def _delay_ns(link: Link) -> int:
    return max(link.delay_ns, _ORPHAN_NS) if link.rate else link.delay_ns


def _probability(p: float) -> dict[str, int]:
    return {"probability": _to_u32(p), "correlation": 0}


def _to_u32(p: float) -> int:
    return round(p * _U32)


def _from_u32(value: int) -> float:
    return float(value) / _U32
