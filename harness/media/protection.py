"""Generic protection against loss, frame by frame and for any codec: repetition, parity,
interleaving. Senders wrap and add, receivers unwrap and restore; nothing here knows a clock.

Repetition (after RFC 2198): the payload of frame k, then those of frames k - d, k - 2d ... ::

    u8 count | u16 length of each, nearest first | the payload itself | the older ones

Parity (XOR after RFC 5109, Reed-Solomon after RFC 8627; the code is zfec's, systematic over
GF(256)). A group's frames are padded to one length, their own before them (u16), as RFC 5109's
length recovery has it::

    u8 number of the parity payload | u8 frames in the group | u8 parity payloads | the parity
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from harness.media.settings import SenderSettings

_PARITY = struct.Struct(">BBB")
_LENGTH = struct.Struct(">H")
_GROUPS_KEPT = 8


def wrap(payload: bytes, older: Sequence[bytes]) -> bytes:
    """A payload with those of older frames, nearest first."""
    lengths = b"".join(_LENGTH.pack(len(old)) for old in older)
    return bytes([len(older)]) + lengths + payload + b"".join(older)


def unwrap(wrapped: bytes) -> tuple[bytes, list[bytes]]:
    """The inverse of :func:`wrap`. Raises ValueError where lengths do not add up."""
    count = wrapped[0]
    start = 1 + _LENGTH.size * count
    if len(wrapped) < start:
        raise ValueError(f"expected the lengths of {count} repeated payloads")
    lengths = [length for (length,) in _LENGTH.iter_unpack(wrapped[1:start])]
    end = len(wrapped) - sum(lengths)
    if end < start:
        raise ValueError("lengths of repeated payloads do not add up")
    older = []
    at = end
    for length in lengths:
        older.append(wrapped[at : at + length])
        at += length
    return wrapped[start:end], older


class Repeater:
    """The sender's repetition: knows the payloads that the next frame is to carry again."""

    def __init__(self, settings: SenderSettings) -> None:
        self._count, self._distance = settings.repeat, settings.repeat_distance
        self._payloads: list[bytes] = []

    def wrap(self, payload: bytes) -> bytes:
        older = self._payloads[-self._distance :: -self._distance][: self._count]
        self._payloads.append(payload)
        del self._payloads[: -self._count * self._distance]
        return wrap(payload, older)


class ParityMaker:
    """The sender's parity: takes payloads in order, gives a group's parity with its last one."""

    def __init__(self, settings: SenderSettings) -> None:
        self._scheme, self._data, self._parity = (
            settings.fec,
            settings.fec_data,
            settings.fec_parity,
        )
        self._group: list[bytes] = []

    def add(self, payload: bytes, last: bool) -> list[bytes]:
        """Parity payloads of the group that this one ends; none before."""
        self._group.append(payload)
        if len(self._group) < self._data and not last:
            return []
        blocks = _padded(self._group)
        count = len(blocks)
        self._group = []
        return [
            _PARITY.pack(number, count, self._parity) + parity
            for number, parity in enumerate(_parities(self._scheme, blocks, self._parity))
        ]


def _padded(payloads: Sequence[bytes]) -> list[bytes]:
    length = _LENGTH.size + max(map(len, payloads))
    return [(_LENGTH.pack(len(p)) + p).ljust(length, b"\0") for p in payloads]


def _parities(scheme: str, blocks: list[bytes], count: int) -> list[bytes]:
    if scheme == "xor":
        rows = np.array([np.frombuffer(block, np.uint8) for block in blocks])
        return [np.bitwise_xor.reduce(rows).tobytes()]
    import zfec

    data = len(blocks)
    made: list[bytes] = zfec.Encoder(data, data + count).encode(blocks, range(data, data + count))
    return made


@dataclass
class _Group:
    data: int = 0
    total: int = 0
    parity: dict[int, bytes] = field(default_factory=dict)
    indices: dict[int, int] = field(default_factory=dict)
    """Of the packets that brought it, by number of the parity payload."""


class Restored(NamedTuple):
    """A frame's payload, made from what came instead; ``indices`` are of the packets used."""

    frame: int
    payload: bytes
    indices: tuple[int, ...]


class ParityStore:
    """The receiver's side: payloads and parity of the latest groups."""

    def __init__(self, settings: SenderSettings) -> None:
        self._scheme, self._size, self._parity = (
            settings.fec,
            settings.fec_data,
            settings.fec_parity,
        )
        self._payloads: dict[int, bytes] = {}
        self._groups: dict[int, _Group] = {}
        self._oldest = 0

    def add_media(self, frame: int, payload: bytes) -> Iterator[Restored]:
        """A frame is complete; what that makes possible."""
        first = frame - frame % self._size
        self._payloads[frame] = payload
        yield from self._restore(first)

    def add_parity(self, first: int, payload: bytes, index: int) -> Iterator[Restored]:
        """A parity payload has come, with packet ``index``. Raises ValueError where it is not of
        the scheme that the settings name."""
        if len(payload) <= _PARITY.size + _LENGTH.size:
            raise ValueError(f"a parity payload of {len(payload)} bytes")
        number, data, total = _PARITY.unpack_from(payload)
        ours = number < total == self._parity and 0 < data <= self._size
        if not ours or first % self._size:
            raise ValueError(f"parity {number} of {total} for {data} frames from {first}")
        group = self._groups.setdefault(first, _Group(data, data + total))
        if group.data != data or group.total != data + total:
            raise ValueError(f"the group at frame {first} has {group.data} frames, not {data}")
        group.parity[number] = payload[_PARITY.size :]
        group.indices[number] = index
        yield from self._restore(first)

    def _restore(self, first: int) -> Iterator[Restored]:
        self._forget(first)
        group = self._groups.get(first)  # None, too, where it is so old that it is forgotten
        if group is None:
            return
        frames = range(first, first + group.data)
        missing = [frame for frame in frames if frame not in self._payloads]
        if not missing or len(missing) > len(group.parity):
            return
        used = sorted(group.parity)[: len(missing)]
        length = len(group.parity[used[0]])
        have = {
            frame - first: (_LENGTH.pack(len(p)) + p).ljust(length, b"\0")
            for frame in frames
            if (p := self._payloads.get(frame)) is not None
        }
        have |= {group.data + number: group.parity[number] for number in used}
        if any(len(block) != length for block in have.values()):
            return  # of another group's making: nothing can be told from it
        indices = tuple(group.indices[number] for number in used)
        blocks = _solve(self._scheme, have, group.data, group.total)
        for frame in missing:
            block = blocks[frame - first]
            (size,) = _LENGTH.unpack_from(block)
            payload = block[_LENGTH.size : _LENGTH.size + size]
            if 0 < size == len(payload):
                self._payloads[frame] = payload
                yield Restored(frame, payload, indices)

    def _forget(self, first: int) -> None:
        self._oldest = max(self._oldest, first - _GROUPS_KEPT * self._size)
        for kept in (self._payloads, self._groups):
            for number in [number for number in kept if number < self._oldest]:
                del kept[number]


def _solve(scheme: str, have: dict[int, bytes], data: int, total: int) -> list[bytes]:
    """All data blocks, from ``data`` of them and of the parity blocks, by number."""
    if scheme == "xor":
        rows = np.array([np.frombuffer(block, np.uint8) for block in have.values()])
        (lost,) = set(range(data)) - have.keys()
        blocks = {**have, lost: np.bitwise_xor.reduce(rows).tobytes()}
        return [blocks[number] for number in range(data)]
    import zfec

    # zfec wants a data block that is there at its own place, and gives those that are not.
    numbers = sorted(have)
    parity = [number for number in numbers if number >= data]
    order = [number if number in have else parity.pop() for number in range(data)]
    solved: list[bytes] = zfec.Decoder(data, total).decode([have[n] for n in order], order)
    return solved


def interleaved_slot(frame: int, depth: int) -> int:
    """In which frame interval a frame leaves: convolutional interleaving (Ramsey 1970) of depth d.

    Frame k waits d * (k mod d) intervals, so each interval has one frame at most, and frames that
    leave one after the other are d - 1 apart.
    """
    return frame + depth * (frame % depth)


def leaving(first: int, last: int, depth: int) -> list[int]:
    """The frames from ``first`` to ``last`` in the order in which they leave, both included."""
    slots = range(interleaved_slot(first, depth) + 1, interleaved_slot(last, depth))
    between = (slot - depth * (slot % depth) for slot in slots)  # slot and frame agree modulo d
    return [first, *(frame for frame in between if frame >= 0), last]
