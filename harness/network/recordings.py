"""Readers of recorded networks: the bytes of a file -> a :class:`~harness.network.link.Recording`.

=============  ====================================================================================
``loss``       One 0 (arrived) or 1 (lost) per line and packet, as in the PLC Challenge (Diener et
               al., INTERSPEECH 2022). Option ``interval_ns`` (20 ms).
``rtpdump``    Binary ``#!rtpplay1.0`` file of rtptools: what arrived of one RTP stream (RFC 3550).
               Options ``clock_hz``, ``interval_ns``.
``arrivals``   The same as CSV: columns ``arrival_ms``, ``seq``, ``rtp_timestamp``, in any order,
               rows in order of arrival. Options as ``rtpdump``.
``mahimahi``   One time in ms per line at which 1500 bytes could leave (Netravali et al., USENIX ATC
               2015); times may repeat. The recording ends, and loops, at its last time.
``opennetlab`` JSON of AlphaRTC and OpenNetLab's gym: ``{"uplink": {"trace_pattern": [...]}}`` with
               steps of ``duration`` (ms), ``capacity`` (kbit/s), ``loss`` (share), ``rtt`` (ms).
               Option ``part``: uplink or downlink.
``csv``        Our own steps: columns ``time_s`` and any of ``rate_bps``, ``delay_ms``, ``loss``
               (share). A row says what holds from its time on, an empty cell what held before. The
               first time is 0; the last row holds the time of the end and nothing else.
``parquet``    The same columns and rules; null is an empty cell.
=============  ====================================================================================

Any of them may be compressed with gzip.

**Delays of RTP recordings.** Packet n left when its RTP timestamp says, at the pace of the RTP
clock; that clock and the receiver's have no common zero, so only differences are known: delays are
relative to the fastest packet, which has 0. Where the two clocks drift apart, the drift is in the
delays. With ``clock_hz`` the packet interval is the usual step of the timestamps in seconds;
with ``interval_ns`` alone the step is that long; with neither it is 20 ms. Clocks surprise: G.722
has one of 8 kHz (RFC 3551), G.722.1 Annex C one of 32 kHz (RFC 5577). An interval that
disagrees with the arrivals is refused. A packet that came twice counts once, when it came first.
What was lost has the delay of the packet before it. Where the sender paused (silence suppression)
nothing is lost, and packets lost at a pause are taken to be those before it.

**Units of OpenNetLab.** The gym's own tests expect a share of ``loss`` of the packets to go
missing and each packet to be late by ``rtt`` / 2, and so it is read here. A ``jitter`` other than 0
is refused: the format does not say how it is distributed.

Everything here is pure. What a file holds is bounded: see the constants.
"""

from __future__ import annotations

import csv as csv_module
import gzip
import hashlib
import io
import json
import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from harness.errors import BadInput
from harness.network.link import Recording
from harness.units import NS_PER_MS, NS_PER_S, format_duration

MAX_BYTES = 64_000_000
"""Of a file, and of what it decompresses to."""
MAX_JSON_BYTES = 16_000_000
MAX_ENTRIES = 5_000_000
"""Lines, packets, steps."""
MAX_DURATION_NS = 30 * 3600 * NS_PER_S
MAX_DELAY_MS = 60_000
MAX_RATE_BPS = 10**12
MAX_MISTAKES = 10
DEFAULT_INTERVAL_NS = 20 * NS_PER_MS

OPTIONS: dict[str, frozenset[str]] = {
    "interval_ns": frozenset({"loss", "rtpdump", "arrivals"}),
    "clock_hz": frozenset({"rtpdump", "arrivals"}),
    "part": frozenset({"opennetlab"}),
}
"""The formats that take each of the options of :func:`read`."""

_GZIP = b"\x1f\x8b"
_PARTS = ("uplink", "downlink")
_INTERVALS_NS = range(100_000, 10 * NS_PER_S + 1)
_CLOCKS_HZ = range(1_000, 1_000_001)
_SHOWN = 40

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]


def read(
    data: bytes,
    format: str,
    *,
    name: str,
    interval_ns: int | None = None,
    clock_hz: int | None = None,
    part: str = "uplink",
) -> Recording:
    """The recording in a file; ``name`` is what messages call it.

    Raises BadInput with up to ``MAX_MISTAKES`` mistakes, one a line, each with its place: the line
    of a text, the byte of a dump, the path in a JSON, the row of a Parquet (the first is row 1).
    """
    file = _File(data, name, format, interval_ns, clock_hz, part)
    if format not in FORMATS:
        file.refuse(None, f"a format out of {', '.join(FORMATS)}", format)
    given = {"interval_ns": interval_ns, "clock_hz": clock_hz, "part": part}
    for option, unset in (("interval_ns", None), ("clock_hz", None), ("part", "uplink")):
        if given[option] != unset and format not in OPTIONS[option]:
            takers = ", ".join(sorted(OPTIONS[option]))
            file.wrong(None, f"{option} only with {takers}", f"it with {format}")
    if interval_ns is not None and interval_ns not in _INTERVALS_NS:
        file.wrong(None, "a packet interval from 100us to 10s", f"{interval_ns} ns")
    if clock_hz is not None and clock_hz not in _CLOCKS_HZ:
        file.wrong(None, "an RTP clock from 1000 to 1000000 Hz", f"{clock_hz} Hz")
    if part not in _PARTS:
        file.wrong(None, "part: uplink or downlink", part)
    file.check()
    if data.startswith(_GZIP):
        file.data = _decompressed(file)
    if len(file.data) > MAX_BYTES:
        file.refuse(None, f"at most {MAX_BYTES} bytes", f"{len(file.data)}")
    return FORMATS[format](file)


def describe(recording: Recording) -> str:
    """One line for people: format, duration, mean rate, loss, longest outage, delay.

    An outage is a time without a delivery, of rate 0, or in which every packet is lost.
    """
    seconds = recording.duration_ns / NS_PER_S
    lengths = np.diff([*recording.at_ns, recording.duration_ns])
    out = np.zeros(len(lengths), bool)
    parts, outage_ns = [f"{recording.format}: {seconds:.1f} s"], 0
    if recording.deliveries_ns is not None:
        outage_ns = int(np.diff([0, *recording.deliveries_ns, recording.duration_ns]).max())
        parts.append(f"mean {len(recording.deliveries_ns) * 12_000 / seconds / 1e6:.2f} Mbit/s")
    if recording.rate_bps is not None:
        rates = np.array(recording.rate_bps)
        order = np.argsort(rates)
        half = np.searchsorted(np.cumsum(lengths[order]), recording.duration_ns / 2)
        mean = np.average(rates, weights=lengths)
        parts.append(f"mean {mean / 1e6:.2f} Mbit/s (median {rates[order[half]] / 1e6:.2f})")
        out |= rates == 0
    if recording.loss is not None:
        loss = np.array(recording.loss)
        parts.append(f"{100 * np.average(loss, weights=lengths):.1f} % lost")
        out |= loss == 1.0
    outage_ns = max(outage_ns, _longest(out, lengths))
    parts.append(f"longest outage {outage_ns / NS_PER_MS:.0f} ms" if outage_ns else "no outage")
    if recording.delay_ns is not None:
        low, high = (pick(recording.delay_ns) / NS_PER_MS for pick in (min, max))
        parts.append(f"delay {low:.0f} to {high:.0f} ms")
    return ", ".join(parts)


def _longest(out: _Bools, lengths: _Ints) -> int:
    """The longest time for which ``out`` holds without a break."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], out.astype(np.int8), [0]])))
    ends = np.concatenate([[0], np.cumsum(lengths)])[edges]
    return int((ends[1::2] - ends[::2]).max(initial=0))


# --- what all readers share -----------------------------------------------------------------------


@dataclass
class _File:
    """What a reader is given, and where it says what is wrong with it."""

    data: bytes
    name: str
    format: str
    interval_ns: int | None
    clock_hz: int | None
    part: str
    sha256: str = field(init=False)
    unit: str = ""
    """Before the number of a place that is no line."""
    mistakes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sha256 = hashlib.sha256(self.data).hexdigest()

    def wrong(self, place: str | int | None, expected: str, got: object) -> None:
        where = self.name if place is None else f"{self.name}:{self.unit}{place}"
        self.mistakes.append(f"{where}: expected {expected}, got {got}")

    def wrong_at(
        self, bad: _Bools, places: Sequence[int], expected: str, got: Callable[[int], object]
    ) -> None:
        """A mistake at each place where ``bad``, as far as there is room for them."""
        for n in np.flatnonzero(bad)[: MAX_MISTAKES + 1].tolist():
            self.wrong(places[n], expected, _quoted(got(n)))

    def check(self) -> None:
        if self.mistakes:
            more = ["... and more of them"] if len(self.mistakes) > MAX_MISTAKES else []
            raise BadInput("\n".join(self.mistakes[:MAX_MISTAKES] + more))

    def refuse(self, place: str | int | None, expected: str, got: object) -> NoReturn:
        self.wrong(place, expected, got)
        self.check()
        raise AssertionError("a mistake raises")

    def recording(self, duration_ns: int, **found: Any) -> Recording:
        if not 0 < duration_ns <= MAX_DURATION_NS:
            self.refuse(None, "a recording of up to 30 hours", format_duration(duration_ns))
        return Recording(self.format, self.sha256, duration_ns, **found)

    def steps(
        self,
        duration_ns: int,
        at_ns: _Ints,
        loss: _Floats | None = None,
        delay_ns: _Ints | None = None,
        rate_bps: _Ints | None = None,
        interval_ns: int | None = None,
    ) -> Recording:
        """Without the steps that change nothing."""
        columns = {"loss": loss, "delay_ns": delay_ns, "rate_bps": rate_bps}
        found = {name: column for name, column in columns.items() if column is not None}
        kept = np.zeros(len(at_ns), bool)
        kept[0] = True
        for column in found.values():
            kept[1:] |= column[1:] != column[:-1]
        return self.recording(
            duration_ns,
            at_ns=tuple(at_ns[kept].tolist()),
            interval_ns=interval_ns,
            **{name: tuple(column[kept].tolist()) for name, column in found.items()},
        )


def _quoted(value: object) -> str:
    """Text from outside, short enough for a message."""
    if isinstance(value, bytes):
        value = value[: _SHOWN + 1].decode("ascii", "backslashreplace")
    if isinstance(value, list | dict) and value:
        return "a list" if isinstance(value, list) else "an object"
    shown = repr(value[: _SHOWN + 1] if isinstance(value, str) else value)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."


def _decompressed(file: _File) -> bytes:
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(file.data)).read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        file.refuse(None, "whole gzip data", str(error))


def _bounded_lines(file: _File) -> None:
    if max(file.data.count(b"\n"), file.data.count(b"\r")) > MAX_ENTRIES:
        file.refuse(None, f"at most {MAX_ENTRIES} lines", "more")


def _integers(file: _File, expected: str, highest: int) -> _Ints:
    """One integer from 0 to ``highest`` a line; white space around it and after all is ignored."""
    _bounded_lines(file)
    lines = file.data.rstrip().splitlines()
    if not lines:
        file.refuse(1, expected, "an empty file")
    values = np.array(
        [int(line) if len(line) < 16 and line.strip().isdigit() else -1 for line in lines], np.int64
    )
    bad = (values < 0) | (values > highest)
    file.wrong_at(bad, range(1, len(lines) + 1), expected, lines.__getitem__)
    file.check()
    return values


def _csv(file: _File) -> tuple[dict[str, list[str]], list[int]]:
    """Columns by name and the lines of the rows; lines without anything are skipped."""
    _bounded_lines(file)
    data = file.data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        file.refuse(line, "plain ASCII text", _quoted(data[error.start : error.end]))
    reader = csv_module.reader(io.StringIO(text, newline=""), strict=True)
    cells: list[str] = []
    lines: list[int] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            file.refuse(1, "different names of columns", _quoted(",".join(header)))
        for row in reader:
            if len(row) == len(header):
                cells += map(str.strip, row)
                lines.append(reader.line_num)
            elif row and len(file.mistakes) <= MAX_MISTAKES:
                file.wrong(reader.line_num, f"{len(header)} values, as in the header", len(row))
    except csv_module.Error as error:
        file.wrong(reader.line_num, "comma-separated values", str(error))
    file.check()
    if not lines:
        file.refuse(1, "a header and rows", "no rows")
    return {name: cells[n :: len(header)] for n, name in enumerate(header)}, lines


# --- what became of packets -----------------------------------------------------------------------


def _loss(file: _File) -> Recording:
    lost = _integers(file, "0 (arrived) or 1 (lost)", 1)
    interval_ns = file.interval_ns or DEFAULT_INTERVAL_NS
    at_ns = np.arange(len(lost)) * interval_ns
    return file.steps(
        len(lost) * interval_ns, at_ns, loss=lost.astype(np.float64), interval_ns=interval_ns
    )


_RTPDUMP_MAGIC = b"#!rtpplay1.0 "
_RTPDUMP_HEADER = 16
_RECORD = struct.Struct(">HHI")
"""Length with this header, length of the packet (0: RTCP), arrival in ms."""
_RTP = struct.Struct(">BBHII")
_RTCP_TYPES = range(192, 224)
"""The second byte of an RTCP packet on a port shared with RTP (RFC 5761, section 4)."""


def _rtpdump(file: _File) -> Recording:
    data, file.unit = file.data, "byte "
    line_end = data.find(b"\n", 0, 256)
    if not data.startswith(_RTPDUMP_MAGIC) or line_end < 0:
        file.refuse(0, "a line '#!rtpplay1.0 ADDRESS/PORT'", _quoted(data))
    at = line_end + 1 + _RTPDUMP_HEADER
    if at > len(data):
        file.refuse(line_end + 1, "a header of 16 bytes", "the end of the file")
    rows: list[int] = []
    places: list[int] = []
    stream = None
    while at < len(data) and len(file.mistakes) <= MAX_MISTAKES:
        place = at
        if len(data) - at < _RECORD.size:
            file.wrong(place, "a packet", "the end of the file")
            break
        length, packet_length, arrival_ms = _RECORD.unpack_from(data, at)
        if length < _RECORD.size or at + length > len(data):
            file.wrong(place, "the length of a packet that is in the file", length)
            break
        start, at = at + _RECORD.size, at + length
        if packet_length == 0 or (at - start > 1 and data[start + 1] in _RTCP_TYPES):
            continue
        if at - start < _RTP.size or data[start] >> 6 != 2:
            file.wrong(place, "an RTP packet of version 2", _quoted(data[start:at]))
            continue
        _, _, seq, timestamp, source = _RTP.unpack_from(data, start)
        stream = source if stream is None else stream
        if source != stream:
            file.wrong(place, f"one stream (SSRC {stream:08x}); cut out one", f"{source:08x}")
        rows += (arrival_ms, seq, timestamp)
        places.append(place)
    file.check()
    if len(places) < 2:
        file.refuse(None, "two RTP packets or more", len(places))
    arrivals, seq, timestamps = np.array(rows, np.int64).reshape(-1, 3).T
    return _arrived(file, arrivals.astype(np.float64), seq, timestamps, places)


_ARRIVALS = {"arrival_ms": 10**15, "seq": 2**16 - 1, "rtp_timestamp": 2**32 - 1}
"""The columns and their highest values."""


def _arrivals(file: _File) -> Recording:
    table, lines = _csv(file)
    for name in _ARRIVALS:
        if name not in table:
            file.wrong(1, f"a column {name}", _quoted(",".join(table)))
    file.check()
    columns = {}
    for name, highest in _ARRIVALS.items():
        values = np.array([_number(cell) for cell in table[name]])
        good = (values >= 0) & (values <= highest)
        if name != "arrival_ms":
            good &= values == np.floor(values)
        file.wrong_at(~good, lines, f"{name} from 0 to {highest}", table[name].__getitem__)
        columns[name] = values
    file.check()
    if len(lines) < 2:
        file.refuse(None, "two packets or more", len(lines))
    seq, timestamp = (columns[name].astype(np.int64) for name in ("seq", "rtp_timestamp"))
    return _arrived(file, columns["arrival_ms"], seq, timestamp, lines)


def _unwrapped(values: _Ints, bits: int) -> _Ints:
    """Counters that wrap around, relative to the first: each is near the one before it."""
    half = 1 << (bits - 1)
    steps = (np.diff(values) + half) % (2 * half) - half
    return np.concatenate([[0], np.cumsum(steps)])


def _arrived(
    file: _File, arrival_ms: _Floats, seq: _Ints, timestamp: _Ints, places: Sequence[int]
) -> Recording:
    """The recording of what arrived of one RTP stream: at least two packets, in that order."""
    earlier = np.diff(arrival_ms, prepend=0) < 0
    file.wrong_at(earlier, places, "an arrival not before the last one", arrival_ms.item)
    number, first, again = np.unique(_unwrapped(seq, 16), return_index=True, return_inverse=True)
    ticks = _unwrapped(timestamp, 32)
    differs = ticks != ticks[first][again]
    told = "the timestamp of the other packet with this sequence number"
    file.wrong_at(differs, places, told, timestamp.item)
    file.check()
    arrival_ns = np.rint((arrival_ms - arrival_ms[0]) * NS_PER_MS)[first]
    ticks, timestamp, places = ticks[first], timestamp[first], [places[n] for n in first.tolist()]

    gap = np.diff(number)
    steps, counts = np.unique(np.diff(ticks)[gap == 1], return_counts=True)
    if not len(steps) or (step := int(steps[np.argmax(counts)])) <= 0:
        file.refuse(None, "timestamps that rise from packet to packet", "none that do")
    slot, beside = np.divmod(ticks - ticks[0], step)
    told = f"a timestamp some times {step} after the first ({timestamp[0]})"
    file.wrong_at(beside != 0, places, told, timestamp.item)
    behind = np.diff(slot, prepend=-1) < np.diff(number, prepend=number[0] - 1)
    told = f"a timestamp that rises by {step} or more with each sequence number"
    file.wrong_at(behind, places, told, timestamp.item)
    file.check()

    interval_ns = _interval_ns(file, step)
    last = int(slot[-1])
    if last >= MAX_ENTRIES:
        file.refuse(None, f"at most {MAX_ENTRIES} packets", last + 1)
    due_ns, took_ns = last * interval_ns, float(arrival_ns[-1] - arrival_ns[0])
    if abs(took_ns - due_ns) > due_ns / 3 + NS_PER_S:
        told = f"a packet every {format_duration(interval_ns)}"
        got = f"one every {took_ns / last / NS_PER_MS:.1f} ms by their arrivals"
        file.refuse(None, told, f"{got}; give their clock or interval")
    delay_ns = arrival_ns - slot * interval_ns
    delay_ns -= delay_ns.min()
    too_late = delay_ns > MAX_DELAY_MS * NS_PER_MS
    told = f"an arrival within {MAX_DELAY_MS} ms of the fastest packet's"
    file.wrong_at(too_late, places, told, lambda n: round(float(delay_ns[n]) / NS_PER_MS))
    file.check()

    missing = gap - 1
    nth = np.arange(missing.sum()) - np.repeat(np.cumsum(missing) - missing, missing)
    lost = np.zeros(last + 1)
    lost[np.repeat(slot[:-1], missing) + 1 + nth] = 1.0
    held = np.zeros(last + 1, np.int64)
    held[slot] = np.arange(len(slot))
    return file.steps(
        due_ns + interval_ns,
        np.arange(last + 1) * interval_ns,
        loss=lost,
        delay_ns=delay_ns.astype(np.int64)[np.maximum.accumulate(held)],
        interval_ns=interval_ns,
    )


def _interval_ns(file: _File, step: int) -> int:
    if file.clock_hz is None:
        return file.interval_ns or DEFAULT_INTERVAL_NS
    interval_ns = round(step * NS_PER_S / file.clock_hz)
    if abs(interval_ns - (file.interval_ns or interval_ns)) > 1_000:
        told = f"packets of {format_duration(file.interval_ns or 0)}"
        length = format_duration(interval_ns)
        file.refuse(None, told, f"{step} ticks of {file.clock_hz} Hz: {length}")
    if interval_ns not in _INTERVALS_NS:
        told = "a packet interval from 100us to 10s"
        file.refuse(None, told, f"{step} ticks of {file.clock_hz} Hz")
    return interval_ns


# --- what a link could carry ----------------------------------------------------------------------


def _mahimahi(file: _File) -> Recording:
    times_ms = _integers(file, "a time in ms, up to 30 hours", MAX_DURATION_NS // NS_PER_MS)
    earlier = np.diff(times_ms, prepend=0) < 0
    lines = range(1, len(times_ms) + 1)
    file.wrong_at(earlier, lines, "a time not before the last one", times_ms.item)
    if times_ms[-1] == 0:
        file.wrong(len(times_ms), "a last time after 0, where the recording ends", 0)
    file.check()
    at_ns = (times_ms * NS_PER_MS).tolist()
    return file.recording(at_ns[-1], deliveries_ns=tuple(at_ns))


_STEP_KEYS: dict[str, tuple[float, float]] = {
    "duration": (1e-6, MAX_DURATION_NS / NS_PER_MS),
    "capacity": (0, MAX_RATE_BPS / 1000),
    "loss": (0, 1),
    "rtt": (0, 2 * MAX_DELAY_MS),
    "jitter": (0, 0),
}
"""What a step of OpenNetLab may hold, from ... to."""


def _opennetlab(file: _File) -> Recording:
    pattern, path = _pattern(file)
    expected = f"an object of {', '.join(_STEP_KEYS)}"
    keys = {"duration"} | (pattern[0].keys() if isinstance(pattern[0], dict) else set())
    for n, step in enumerate(pattern):
        where = f"{path}[{n}]"
        if not isinstance(step, dict):
            file.wrong(where, expected, _quoted(step))
            continue
        for key in step:
            if key not in _STEP_KEYS:
                file.wrong(where, expected, _quoted(key))
        for key, (low, high) in _STEP_KEYS.items():
            if key in step and key not in keys:
                file.wrong(f"{where}.{key}", "nothing, as in the first step", _quoted(step[key]))
            elif key in step and not _is_number(step[key], low, high):
                told = f"a number from {low:g} to {high:g}" if high else "0"
                file.wrong(f"{where}.{key}", told, _quoted(step[key]))
            elif key in keys and key not in step:
                file.wrong(where, f"{key} in each step", "none")
        if len(file.mistakes) > MAX_MISTAKES:
            break
    file.check()
    if not keys & {"capacity", "loss", "rtt"}:
        file.refuse(f"{path}[0]", "capacity, loss or rtt beside duration", "none of them")

    def column(key: str, factor: float = 1) -> _Floats:
        return np.array([step[key] for step in pattern], np.float64) * factor

    def integers(key: str, factor: float) -> _Ints:
        return np.rint(column(key, factor)).astype(np.int64)

    if (total_ms := float(column("duration").sum())) > MAX_DURATION_NS / NS_PER_MS:
        file.refuse(path, "30 hours or less", f"{total_ms:.0f} ms")
    ends_ns = np.cumsum(integers("duration", NS_PER_MS))
    return file.steps(
        int(ends_ns[-1]),
        np.concatenate([[0], ends_ns[:-1]]),
        loss=column("loss") if "loss" in keys else None,
        delay_ns=integers("rtt", NS_PER_MS / 2) if "rtt" in keys else None,
        rate_bps=integers("capacity", 1000) if "capacity" in keys else None,
    )


def _pattern(file: _File) -> tuple[list[Any], str]:
    """The steps of the asked part, at least one, and their place in the file."""
    if len(file.data) > MAX_JSON_BYTES:
        file.refuse(None, f"at most {MAX_JSON_BYTES} bytes of JSON", len(file.data))
    try:
        whole = json.loads(file.data)
    except json.JSONDecodeError as error:
        file.refuse(error.lineno, "JSON", error.msg)
    except (ValueError, RecursionError) as error:
        file.refuse(None, "JSON", str(error))
    path = f"$.{file.part}.trace_pattern"
    part = whole.get(file.part) if isinstance(whole, dict) else None
    pattern = part.get("trace_pattern") if isinstance(part, dict) else None
    if not isinstance(pattern, list) or not pattern:
        there = [name for name in _PARTS if isinstance(whole, dict) and whole.get(name)]
        hint = f" (the file has {' and '.join(there)})" if there else ""
        file.refuse(path, "a list of steps", _quoted(pattern) + hint)
    if len(pattern) > MAX_ENTRIES:
        file.refuse(path, f"at most {MAX_ENTRIES} steps", len(pattern))
    return pattern, path


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


# --- our own tables -------------------------------------------------------------------------------

_COLUMNS: dict[str, tuple[float, str]] = {
    "time_s": (MAX_DURATION_NS / NS_PER_S, "seconds from 0 to 108000"),
    "rate_bps": (MAX_RATE_BPS, "bit/s from 0 to 1e12"),
    "delay_ms": (MAX_DELAY_MS, f"ms from 0 to {MAX_DELAY_MS}"),
    "loss": (1.0, "a share from 0 to 1"),
}
"""The names of columns, their highest values, and how to say so."""


def _own_csv(file: _File) -> Recording:
    table, lines = _csv(file)
    return _table(file, table, lines, 1)


def _own_parquet(file: _File) -> Recording:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(pa.BufferReader(file.data))
        about, schema = opened.metadata, opened.schema_arrow
        size = sum(about.row_group(n).total_byte_size for n in range(about.num_row_groups))
        if about.num_rows > MAX_ENTRIES or size > MAX_BYTES:
            told = f"at most {MAX_ENTRIES} rows and {MAX_BYTES} bytes"
            file.refuse(None, told, f"{about.num_rows} rows and {size} bytes")
        for column in schema:
            if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
                file.wrong(None, f"numbers in column {_quoted(column.name)}", column.type)
        if len(set(schema.names)) < len(schema.names):
            file.wrong(None, "different names of columns", _quoted(",".join(schema.names)))
        file.check()
        read_in = opened.read(use_threads=False)
        table = {name: read_in.column(name).to_pylist() for name in schema.names}
    except (pa.ArrowException, OSError, ValueError) as error:
        file.refuse(None, "a Parquet file", _quoted(str(error)))
    file.unit = "row "
    return _table(file, table, range(1, read_in.num_rows + 1), None)


def _table(
    file: _File,
    table: Mapping[str, Sequence[str | float | None]],
    places: Sequence[int],
    header: int | None,
) -> Recording:
    """Steps from a table with our own columns; ``header`` is the place of their names."""
    for name in table:
        if name not in _COLUMNS:
            file.wrong(header, f"columns out of {', '.join(_COLUMNS)}", _quoted(name))
    if "time_s" not in table or len(table) < 2:
        told = "a column time_s and one of rate_bps, delay_ms, loss"
        file.wrong(header, told, _quoted(",".join(table)))
    file.check()
    if len(places) < 2:
        told = "two rows or more: one at time 0 and one with the time of the end alone"
        file.refuse(header, told, len(places))

    given: dict[str, _Bools] = {}
    values: dict[str, _Floats] = {}
    for name, cells in table.items():
        highest, told = _COLUMNS[name]
        given[name] = np.array([cell not in (None, "") for cell in cells])
        values[name] = np.array([_number(cell) for cell in cells])
        bad = given[name] & ~((values[name] >= 0) & (values[name] <= highest))
        bad[0] |= not given[name][0]
        if name == "time_s":
            bad |= ~given[name]
        elif given[name][-1]:
            alone = f"no {name} in the last row, which holds the time of the end alone"
            file.wrong(places[-1], alone, _quoted(cells[-1]))
        file.wrong_at(bad, places, f"{name}: {told}", cells.__getitem__)
    file.check()

    at_ns = np.rint(values.pop("time_s") * NS_PER_S).astype(np.int64)
    times = table["time_s"]
    not_later = np.diff(at_ns, prepend=-1) <= 0
    file.wrong_at(not_later, places, "a time after the one before", times.__getitem__)
    if at_ns[0] != 0:
        file.wrong(places[0], "time_s 0 in the first row", _quoted(times[0]))
    file.check()

    rows = np.arange(len(at_ns))
    steps = {
        name: column[np.maximum.accumulate(np.where(given[name], rows, 0))][:-1]
        for name, column in values.items()
    }

    def integers(name: str, factor: float) -> _Ints | None:
        return np.rint(steps[name] * factor).astype(np.int64) if name in steps else None

    return file.steps(
        int(at_ns[-1]),
        at_ns[:-1],
        loss=steps.get("loss"),
        delay_ns=integers("delay_ms", NS_PER_MS),
        rate_bps=integers("rate_bps", 1),
    )


def _number(cell: str | float | None) -> float:
    """NaN where it is none; what only Python takes for a number (``1_000``) is none."""
    if cell is None or (isinstance(cell, str) and "_" in cell):
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return math.nan


FORMATS: dict[str, Callable[[_File], Recording]] = {
    "loss": _loss,
    "rtpdump": _rtpdump,
    "arrivals": _arrivals,
    "mahimahi": _mahimahi,
    "opennetlab": _opennetlab,
    "csv": _own_csv,
    "parquet": _own_parquet,
}
"""The readers by the name of their format."""
