"""From the records of both ends and the link to one fate per packet and one account per frame.

Pure: ``join`` is the only place where the ``packets`` and ``frames`` tables are made.

Nullable integer columns are ``numpy.ma.MaskedArray`` (masked = null); the others are plain arrays,
text columns of dtype ``str``. Times are ns relative to t0, the capture of input sample 0.

Fates
-----
Of media, of what protects it, and of what was sent again, told apart by ``purpose``. ``spare`` is
redundancy that came and was not needed.

A packet that arrived ends as the receiver judged it: played (``reordered`` where a packet sent
after it came first, RFC 4737), late, undecodable or incomplete. One that never arrived, in this
order:

* never taken by the sender's own socket, whose buffer was full: ``queue``;
* on a stream transport: ``late``, for a stream loses nothing, it was still on its way at the end;
* lost or dropped by a queue according to the link's log: ``lost``, ``queue``;
* corrupted by the link (the UDP checksum had it dropped): ``undecodable``;
* delivered by the link but not to anybody, or still inside it at the end: ``late``, nobody waited
  any longer;
* not in the link's log, or no log: ``lost``.

Datagrams are known by their content, which has a number in every wire format: sender and link each
note a hash of it (``records.datagram_identity``), so that a row that the log lacks leaves no other
packet in doubt. Of equal datagrams the first that was sent is the first that entered. A datagram
ends as the worst of its IPv4 fragments does: without one of them it is never put together. A byte
stream's segments carry no packets of ours, and nothing is asked of the log there; QUIC and WebRTC
encrypt theirs, so what does not come is ``lost``, whoever dropped it.

Frames
------
fill, look-ahead, encode, send, network, buffer, decode and playout sum exactly to mouth to ear,
play minus capture. Network, buffer and mouth to ear are null for a frame whose audio was made up:
nothing went from mouth to ear.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.codecs.base import CodecFacts
from harness.media.packet import (
    IP_FRAGMENT_BYTES,
    UDP_BYTES,
    Purpose,
)
from harness.records import Columns, Fate, Kind, Outcome, Verdict
from harness.units import NS_PER_S, samples_to_ns

_BY_VERDICT = np.zeros(len(Verdict), np.int64)
_BY_VERDICT[
    [Verdict.USED, Verdict.LATE, Verdict.UNDECODABLE, Verdict.INCOMPLETE, Verdict.SPARE]
] = [Fate.PLAYED, Fate.LATE, Fate.UNDECODABLE, Fate.INCOMPLETE, Fate.SPARE]
_BY_OUTCOME = np.zeros(len(Outcome), np.int64)
_BY_OUTCOME[[Outcome.DELIVERED, Outcome.LOST, Outcome.QUEUE, Outcome.CORRUPTED, Outcome.HELD]] = [
    Fate.LATE,
    Fate.LOST,
    Fate.QUEUE,
    Fate.UNDECODABLE,
    Fate.LATE,
]
_FATES = np.array([fate.name.lower() for fate in Fate])
_KINDS = np.array([kind.name.lower() for kind in Kind])
_PURPOSES = np.array([purpose.name.lower() for purpose in Purpose])
_NONE = -1
_WORST_FIRST = np.array(
    [
        *(Outcome.QUEUE, Outcome.LOST, Outcome.CORRUPTED),
        *(_NONE, Outcome.HELD, Outcome.DELIVERED),
    ],
    np.int64,
)
_UNKNOWN = 3
_RANK = np.zeros(len(Outcome) + 1, np.int64)
_RANK[_WORST_FIRST] = np.arange(len(_WORST_FIRST))


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
    transport; the link's log may tell of other streams too. A packet sent has exactly one row, a
    row of ``played_frames`` has one row.
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


def _rows_of(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index into ``keys`` (each there once) of each of ``wanted``; -1 where it is not there."""
    if not len(keys):
        return np.full(len(wanted), -1)
    order = np.argsort(keys, kind="stable")
    found = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return np.where(keys[found] == wanted, found, -1)


def _packets(
    sent: Columns,
    received: Columns,
    link_log: Columns | None,
    facts: CodecFacts,
    t0_ns: int,
    reliable: bool,
) -> Columns:
    seq, send_ns = _ints(sent, "seq"), _ints(sent, "send_ns")
    total = len(seq)
    rows = _rows_of(seq, _ints(received, "seq"))
    verdict = _ints(received, "verdict")
    ours = (rows >= 0) & (_ints(received, "frame") >= 0) & (verdict != Verdict.FOREIGN)
    rows, verdict, recv_ns = rows[ours], verdict[ours], _ints(received, "recv_ns")[ours]

    firsts = np.sort(np.unique(rows, return_index=True)[1])  # in order of arrival
    arrived = rows[firsts]
    first_ns = np.full(total, -1)
    first_ns[arrived] = recv_ns[firsts]
    reordered = np.zeros(total, bool)
    reordered[arrived[1:]] = arrived[1:] < np.maximum.accumulate(arrived)[:-1]

    judged = verdict != Verdict.DUPLICATE
    judgement = np.full(total, _NONE)
    judgement[rows[judged]] = verdict[judged]  # the last one counts
    refused = send_ns < 0
    fate = np.where(refused, int(Fate.QUEUE), int(Fate.LATE if reliable else Fate.LOST))
    known = judgement != _NONE
    if link_log is not None and not reliable and not known.all():
        outcome = _outcomes(sent, link_log)
        logged = ~refused & (outcome != _NONE)
        fate[logged] = _BY_OUTCOME[outcome[logged]]
    fate[known] = _BY_VERDICT[judgement[known]]
    fate[reordered & (fate == Fate.PLAYED)] = Fate.REORDERED
    frame = _ints(sent, "frame")
    return {
        "seq": seq,
        "frame": frame,
        "fragment": _ints(sent, "fragment"),
        "fragments": _ints(sent, "fragments"),
        "media_ns": _media_ns(frame, facts),
        "size_bytes": _ints(sent, "size_bytes"),
        "send_ns": _nullable(send_ns - t0_ns, refused),
        "transit_ns": _nullable(first_ns - send_ns, (first_ns < 0) | refused),
        "copies": np.bincount(rows, minlength=total),
        "fate": _FATES[fate],
        "purpose": _PURPOSES[sent["purpose"]],
    }


def _outcomes(sent: Columns, link_log: Columns) -> NDArray[np.int64]:
    """The link's outcome by row of ``sent``; -1 for those of which its log does not tell."""
    found = np.full(len(sent["seq"]), _NONE)
    taken = np.flatnonzero(_ints(sent, "send_ns") >= 0)
    if not len(taken) or "identity" not in link_log:
        return found
    media = (link_log["direction"] == 0) & (link_log["outcome"] != Outcome.DUPLICATE)
    # A link may write a packet down when it leaves; the stable sort gives the order of entering.
    entered = np.flatnonzero(media)[np.argsort(link_log["in_ns"][media], kind="stable")]
    fragment = link_log["ip_fragment"][entered].astype(np.uint64)
    logged = _told_apart(link_log["identity"][entered], fragment)
    order = np.argsort(_ints(sent, "send_ns")[taken], kind="stable")
    keys = np.empty(len(taken), np.int64)
    keys[order] = _told_apart(sent["identity"][taken][order])
    rows = _rows_of(keys, logged)
    ours = rows >= 0
    rank = np.full(len(taken), _RANK[Outcome.DELIVERED])
    np.minimum.at(rank, rows[ours], _RANK[_ints(link_log, "outcome")[entered][ours]])
    frames = 1 + (_ints(sent, "size_bytes")[taken] + UDP_BYTES - 1) // IP_FRAGMENT_BYTES
    incomplete = np.bincount(rows[ours], minlength=len(taken)) < frames
    found[taken] = _WORST_FIRST[np.where(incomplete, np.minimum(rank, _UNKNOWN), rank)]
    return found


def _told_apart(
    identities: NDArray[Any], fragments: NDArray[np.uint64] | None = None
) -> NDArray[np.int64]:
    """A key for each, by its identity and how many equal ones (of its fragment) came before it."""
    identities = identities.astype(np.uint64)
    alike = identities if fragments is None else identities ^ _scattered(1 + fragments)
    order = np.argsort(alike, kind="stable")
    fresh = np.concatenate([[True], np.diff(alike[order]) != 0])[: len(order)]
    begins = np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))
    before = np.empty(len(order), np.uint64)
    before[order] = np.arange(len(order)) - begins
    return (identities ^ _scattered(before)).view(np.int64)


def _scattered(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Small numbers over all of 64 bits, 0 as it is (Fibonacci hashing: Knuth, The Art of Computer
    Programming, vol. 3, 6.4)."""
    return numbers * np.uint64(0x9E37_79B9_7F4A_7C15)


def _frames(sent: Columns, played: Columns, facts: CodecFacts, t0_ns: int) -> Columns:
    frame = _ints(played, "frame")
    inserted = frame < 0
    rows = _rows_of(_ints(sent, "frame"), frame)
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
        "kind": _KINDS[played["kind"]],
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
        "decoder_ns": _ints(played, "decoder_ns"),
        "payload_bytes": _nullable(at_sender("payload_bytes"), unsent),
        "play_ns": play - t0_ns,
        "played_start": _ints(played, "played_start"),
        "played_samples": _ints(played, "played_samples"),
        "buffer_frames": _ints(played, "buffer_frames"),
        "target_bps": _nullable(at_sender("target_bps"), unsent),
    }
