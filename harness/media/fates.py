"""From the records of both ends and the link to one fate per packet and one account per frame.

Pure: ``join`` is the only place where the ``packets`` and ``frames`` tables are made.

Nullable integer columns are ``numpy.ma.MaskedArray`` (masked = null); the others are plain arrays,
text columns of dtype ``str``. Times are ns relative to t0, the capture of input sample 0.

Fates
-----
A packet that arrived ends as the receiver judged it: played (``reordered`` where a packet sent
after it came first, RFC 4737), late, undecodable or incomplete. One that never arrived, in this
order:

* never taken by the sender's own socket, whose buffer was full: ``queue``;
* on a stream transport: ``late``, for a stream loses nothing, it was still on its way at the end;
* lost or dropped by a queue according to the link's log: ``lost``, ``queue``;
* corrupted by the link (the UDP checksum had it dropped): ``undecodable``;
* delivered by the link but not to anybody: ``late``, nobody waited any longer;
* not in the link's log, or no log: ``lost``.

Datagrams enter the link in the order of sending, one frame on the wire each, so the log's forward
rows are matched by order and by size (payload + UDP, IPv4 and Ethernet headers).

Frames
------
fill, look-ahead, encode, send, network, buffer, decode and playout sum exactly to mouth to ear,
play minus capture. Network, buffer and mouth to ear are null for a frame whose audio was made up:
nothing went from mouth to ear.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.codecs.base import CodecFacts
from harness.media.packet import ETHERNET_BYTES, IP_UDP_BYTES
from harness.records import Columns, Fate, Kind, Outcome, Verdict
from harness.units import NS_PER_S, samples_to_ns

_BY_VERDICT = {
    Verdict.USED: Fate.PLAYED,
    Verdict.LATE: Fate.LATE,
    Verdict.UNDECODABLE: Fate.UNDECODABLE,
    Verdict.INCOMPLETE: Fate.INCOMPLETE,
}
_BY_OUTCOME = {
    Outcome.DELIVERED: Fate.LATE,
    Outcome.LOST: Fate.LOST,
    Outcome.QUEUE: Fate.QUEUE,
    Outcome.CORRUPTED: Fate.UNDECODABLE,
}


def join(
    sent_packets: Columns,
    sent_frames: Columns,
    received_packets: Columns,
    played_frames: Columns,
    link_log: Columns | None,
    facts: CodecFacts,
    t0_ns: int,
    reliable: bool = False,
) -> tuple[Columns, Columns]:
    """The ``packets`` and ``frames`` tables of one cell, without ``cell_id``.

    Arguments are columns as :mod:`harness.records` describes them; ``reliable`` is that of the
    transport. A packet sent has exactly one row, a row of ``played_frames`` has one row.
    """
    packets = _packets(sent_packets, received_packets, link_log, facts, t0_ns, reliable)
    return packets, _frames(sent_frames, played_frames, facts, t0_ns)


def _nullable(
    values: NDArray[np.int64], null: NDArray[np.bool_]
) -> np.ma.MaskedArray[tuple[int], np.dtype[np.int64]]:
    return np.ma.MaskedArray(np.where(null, 0, values), mask=null)


def _ints(columns: Columns, name: str) -> NDArray[np.int64]:
    return columns[name].astype(np.int64)


def _media_ns(
    frame: NDArray[np.int64], facts: CodecFacts, offset_samples: int = 0
) -> NDArray[np.int64]:
    return (frame * facts.frame_samples + offset_samples) * NS_PER_S // facts.sample_rate_hz


def _packets(
    sent: Columns,
    received: Columns,
    link_log: Columns | None,
    facts: CodecFacts,
    t0_ns: int,
    reliable: bool,
) -> Columns:
    seq, send_ns = _ints(sent, "seq"), _ints(sent, "send_ns")
    row_of = {int(number): row for row, number in enumerate(seq)}
    copies = np.zeros(len(seq), np.int64)
    first_ns = np.full(len(seq), -1, np.int64)
    verdicts: list[Verdict | None] = [None] * len(seq)
    reordered = np.zeros(len(seq), bool)
    newest = -1
    for number, frame, recv_ns, verdict in zip(
        received["seq"], received["frame"], received["recv_ns"], received["verdict"], strict=True
    ):
        row = row_of.get(int(number)) if frame >= 0 else None
        if row is None or verdict == Verdict.FOREIGN:
            continue
        copies[row] += 1
        if copies[row] == 1:
            first_ns[row] = recv_ns
            reordered[row] = row < newest
            newest = max(newest, row)
        if verdict != Verdict.DUPLICATE:
            verdicts[row] = Verdict(int(verdict))
    outcomes = {} if link_log is None or reliable else _outcomes(sent, link_log)
    fates = []
    for row, verdict in enumerate(verdicts):
        if verdict is not None:
            fate = _BY_VERDICT[verdict]
            if fate == Fate.PLAYED and reordered[row]:
                fate = Fate.REORDERED
        elif send_ns[row] < 0:
            fate = Fate.QUEUE
        elif reliable:
            fate = Fate.LATE
        else:
            fate = _BY_OUTCOME[outcomes.get(row, Outcome.LOST)]
        fates.append(fate.name.lower())
    frame = _ints(sent, "frame")
    refused = send_ns < 0
    return {
        "seq": seq,
        "frame": frame,
        "fragment": _ints(sent, "fragment"),
        "fragments": _ints(sent, "fragments"),
        "media_ns": _media_ns(frame, facts),
        "size_bytes": _ints(sent, "size_bytes"),
        "send_ns": _nullable(send_ns - t0_ns, refused),
        "transit_ns": _nullable(first_ns - send_ns, (first_ns < 0) | refused),
        "copies": copies,
        "fate": np.array(fates, dtype=str),
    }


def _outcomes(sent: Columns, link_log: Columns) -> dict[int, Outcome]:
    """The link's outcome by row of ``sent``, for those found in its log."""
    media = (link_log["direction"] == 0) & (link_log["outcome"] != Outcome.DUPLICATE)
    # A link may write a packet down when it leaves; the stable sort gives the order of entering.
    entered = np.flatnonzero(media)[np.argsort(link_log["in_ns"][media], kind="stable")]
    log = zip(link_log["size_bytes"][entered], link_log["outcome"][entered], strict=True)
    found: dict[int, Outcome] = {}
    sizes = _ints(sent, "size_bytes") + IP_UDP_BYTES + ETHERNET_BYTES
    expected = set(sizes.tolist())
    entries = [(int(size), Outcome(int(outcome))) for size, outcome in log if int(size) in expected]
    at = 0
    for row in np.flatnonzero(_ints(sent, "send_ns") >= 0):
        for ahead in range(at, len(entries)):
            if entries[ahead][0] == sizes[row]:
                found[int(row)] = entries[ahead][1]
                at = ahead + 1
                break
    return found


def _frames(sent: Columns, played: Columns, facts: CodecFacts, t0_ns: int) -> Columns:
    frame = _ints(played, "frame")
    inserted = frame < 0
    row_of = {int(k): row for row, k in enumerate(sent["frame"])}
    rows = np.array([row_of.get(int(k), -1) for k in frame], np.int64)
    unsent = rows < 0

    def at_sender(name: str) -> NDArray[np.int64]:
        if not len(sent["frame"]):
            return np.zeros(len(rows), np.int64)
        return _ints(sent, name)[rows]

    capture = _media_ns(frame, facts, -facts.delay_samples)
    fill = np.full(len(frame), samples_to_ns(facts.frame_samples, facts.sample_rate_hz))
    ready = _media_ns(frame, facts, (1 + facts.lookahead_frames) * facts.frame_samples)
    encode_end, sent_at = at_sender("encode_end_ns"), at_sender("sent_ns")
    complete, pull = _ints(played, "complete_ns"), _ints(played, "pull_ns")
    decode_end, play = _ints(played, "decode_end_ns"), _ints(played, "play_ns")
    made_up = np.isin(played["kind"], (Kind.CONCEALED, Kind.SILENCE)) | unsent
    return {
        "frame": _nullable(frame, inserted),
        "media_ns": _nullable(_media_ns(frame, facts), inserted),
        "kind": np.array([Kind(int(kind)).name.lower() for kind in played["kind"]], dtype=str),
        "capture_ns": _nullable(capture, inserted),
        "fill_ns": _nullable(fill, inserted),
        "lookahead_ns": _nullable(ready - capture - fill, inserted),
        "encode_ns": _nullable(encode_end - t0_ns - ready, unsent),
        "send_ns": _nullable(sent_at - encode_end, unsent),
        "network_ns": _nullable(complete - sent_at, made_up),
        "buffer_ns": _nullable(pull - complete, made_up),
        "decode_ns": decode_end - pull,
        "playout_ns": play - decode_end,
        "mouth_to_ear_ns": _nullable(play - t0_ns - capture, made_up),
        "encode_cpu_ns": _nullable(encode_end - at_sender("encode_start_ns"), unsent),
        "payload_bytes": _nullable(at_sender("payload_bytes"), unsent),
        "play_ns": play - t0_ns,
        "played_start": _ints(played, "played_start"),
        "played_samples": _ints(played, "played_samples"),
        "buffer_frames": _ints(played, "buffer_frames"),
    }
