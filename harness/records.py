"""What happened, as columns: the records that endpoints and links hand to the orchestrator.

``Columns`` is a dict of equally long 1-D numpy arrays. They travel as npz (never pickle), and end
as the ``packets`` and ``frames`` tables. All ``*_ns`` are CLOCK_MONOTONIC except in ``LINK_LOG``,
whose clock is the link's own and is used for differences only. -1 in a time column = never.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[np.generic]]
Schema = dict[str, type[np.generic]]

# One row per packet that the sender gave to its socket (a datagram, or a message on a stream).
SENT_PACKETS: Schema = {
    "seq": np.uint32,
    "frame": np.int32,  # codec frame (payload) index k
    "fragment": np.uint8,
    "fragments": np.uint8,
    "size_bytes": np.int32,  # what the socket was given: our header and payload
    "send_ns": np.int64,
    "purpose": np.uint8,  # harness.media.packet.Purpose
    "identity": np.uint64,  # harness.records.datagram_identity of what the socket was given
}
# One row per payload k at the sender.
SENT_FRAMES: Schema = {
    "frame": np.int32,
    "ready_ns": np.int64,  # the schedule: its last input sample is captured
    "encode_start_ns": np.int64,
    "encode_end_ns": np.int64,
    "sent_ns": np.int64,  # its last fragment was given to the socket
    "payload_bytes": np.int32,  # the codec's, without what protects it
    "target_bps": np.int32,  # what the encoder was set to
}
# One row per packet as it came out of the receiver's socket, duplicates included.
RECEIVED_PACKETS: Schema = {
    "seq": np.uint32,
    "frame": np.int32,
    "fragment": np.uint8,
    "recv_ns": np.int64,
    "verdict": np.uint8,  # Verdict
}
# One row per media frame that the playout clock asked for, in order of playing.
PLAYED_FRAMES: Schema = {
    "frame": np.int32,  # -1 for time inserted without media (adaptive buffer waiting)
    "kind": np.uint8,  # Kind
    "complete_ns": np.int64,  # last needed fragment received; -1 if never (in time)
    "pull_ns": np.int64,  # scheduled instant at which the frame is taken from the jitter buffer
    "decode_start_ns": np.int64,
    "decode_end_ns": np.int64,
    "decoder_ns": np.int64,  # within the decoder's calls
    "play_ns": np.int64,  # its first sample leaves the device
    "played_start": np.int64,  # index into the played track
    "played_samples": np.int32,  # differs from frame_samples when stretched
    "buffer_frames": np.int32,  # depth of the jitter buffer at the pull
}
# One row per packet that entered the link, per direction (0 forward, 1 reverse).
LINK_LOG: Schema = {
    "direction": np.uint8,
    "in_ns": np.int64,
    "out_ns": np.int64,  # -1 if it never came out
    "size_bytes": np.int32,  # frame on the wire: Ethernet header included, no FCS
    "outcome": np.uint8,  # Outcome
}
# Beside LINK_LOG, row by row, where the link carries datagrams: which one it was.
LINK_IDENTITY: Schema = {
    "identity": np.uint64,  # datagram_identity; 0 for what is no datagram
    "ip_fragment": np.uint8,  # 0-based; 0 where the datagram is one frame
}


class Verdict(IntEnum):
    """The receiver's own judgement of a packet."""

    USED = 0
    DUPLICATE = 1
    LATE = 2  # its frame's playout deadline had passed, or it was already concealed
    UNDECODABLE = 3  # damaged header or payload, or the codec refused it
    INCOMPLETE = 4  # other fragments of its frame never came
    FOREIGN = 5  # not of this stream
    SPARE = 6  # in time, and nothing needed it: the frame was whole without it


class Kind(IntEnum):
    """How a played frame came to be."""

    DECODED = 0
    FEC = 1
    CONCEALED = 2
    SILENCE = 3
    STRETCHED = 4  # decoded, then time-stretched by the adaptive buffer


class Fate(IntEnum):
    """The one end of each sent packet (RFC 7680 loss split by cause)."""

    PLAYED = 0
    REORDERED = 1  # arrived out of order, but in time
    LATE = 2
    LOST = 3  # dropped by the link's loss model
    QUEUE = 4  # dropped by a full queue
    UNDECODABLE = 5
    INCOMPLETE = 6
    SPARE = 7  # redundancy that nothing needed


class Outcome(IntEnum):
    """The one end of each packet inside the link."""

    DELIVERED = 0
    LOST = 1
    QUEUE = 2
    CORRUPTED = 3  # delivered with a flipped bit
    DUPLICATE = 4  # an extra copy made by the link, delivered
    HELD = 5  # still inside when what is known of the link ended: no queue was full


@dataclass(frozen=True)
class TrackRecords:
    """Of a stream beside the first one of a cell: what happened to it, and no audio."""

    t0_ns: int
    """Instant of the capture of its first sample."""
    sent_packets: Columns
    sent_frames: Columns
    received_packets: Columns
    played_frames: Columns
    sender: dict[str, Any]
    receiver: dict[str, Any]


@dataclass(frozen=True)
class Observed:
    """All that is known of one cell once it has streamed, in whatever lab."""

    t0_ns: int
    """Instant of the capture of input sample 0, on the clock of the records."""
    sent_packets: Columns
    sent_frames: Columns
    received_packets: Columns
    played_frames: Columns
    link_log: Columns
    media: NDArray[np.int16]
    """The track on the sender's media timeline, shape (samples,)."""
    played: NDArray[np.int16]
    """The track as it left the device."""
    sender: dict[str, Any]
    """Figures of the sender: ``lateness``, ``late_frames``, counts of its socket."""
    receiver: dict[str, Any]
    link: dict[str, Any]
    """The link's own account: ``counters`` and whatever else the engine reports."""
    readback: dict[str, Any]
    """What is really set, as the engine reported it."""
    tracks: tuple[TrackRecords, ...] = ()
    """Streams that shared the link; ``link_log`` tells of theirs too."""


IDENTIFYING_BYTES = 1472
"""How much of a datagram tells it from the others: what its first IPv4 fragment carries."""


def datagram_identity(payload: bytes) -> int:
    """A number by which both an endpoint and the link know a UDP datagram: a hash of its first
    ``IDENTIFYING_BYTES`` (in which every wire format has its number), 64 bits of BLAKE2b."""
    digest = hashlib.blake2b(payload[:IDENTIFYING_BYTES], digest_size=8).digest()
    return int.from_bytes(digest, "big")


def empty(schema: Schema) -> Columns:
    """No rows, with the schema's types."""
    return {name: np.empty(0, dtype) for name, dtype in schema.items()}


def from_rows(schema: Schema, rows: Sequence[Sequence[int]]) -> Columns:
    """Columns from rows whose fields are in the schema's order."""
    if not rows:
        return empty(schema)
    table = list(zip(*rows, strict=True))
    return {
        name: np.asarray(column, dtype)
        for (name, dtype), column in zip(schema.items(), table, strict=True)
    }


def pack(columns: Columns) -> bytes:
    """npz bytes; the inverse of :func:`unpack`."""
    buffer = io.BytesIO()
    np.savez(buffer, **columns)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(data: bytes) -> Columns:
    """Columns from npz bytes, of no more bytes than these; raises ValueError on anything else (no
    pickle is ever read, and no size in a header is believed)."""
    if not data:
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if not stored or sum(member.file_size for member in members) > len(data):
                raise ValueError("columns are compressed, or larger than what holds them")
            return {
                member.filename.removesuffix(".npy"): _column(archive.read(member))
                for member in members
            }
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as error:
        raise ValueError(f"not columns: {error}") from error


def _column(npy: bytes) -> NDArray[np.generic]:
    """One array of one dimension in npy format 1.0."""
    stream = io.BytesIO(npy)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("a column is in another version of npy than 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    body = npy[stream.tell() :]
    if dtype.hasobject or not dtype.itemsize or shape != (len(body) // dtype.itemsize,):
        raise ValueError(f"a column of {len(body)} bytes says {shape} of {dtype}")
    column: NDArray[np.generic] = np.frombuffer(body, dtype).copy()
    return column
