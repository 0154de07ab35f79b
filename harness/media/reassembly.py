"""Fragments to complete frames, whatever the order they come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.media.packet import Packet

Added = Literal["complete", "partial", "duplicate"]


@dataclass(slots=True)
class Assembly:
    """A frame on its way: ``arrivals`` holds (packet index of the caller, ``recv_ns``)."""

    fragments: int
    parts: dict[int, bytes]
    arrivals: list[tuple[int, int]]
    complete_ns: int = -1
    restored: bool = False
    """Made from redundancy, not from its own packets."""

    @property
    def payload(self) -> bytes:
        if self.fragments == 1:
            return self.parts[0]
        return b"".join(self.parts[i] for i in range(self.fragments))


class Reassembler:
    """Holds frames from their first fragment until they are taken.

    Memory is bounded by the frames of one stream: the caller refuses frame numbers outside it and
    takes every frame once its moment has come, complete or not. Where it can do neither, ``most``
    bounds the frames on their way: the oldest is dropped for a new one, and copies of its fragments
    are no longer known as such.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._frames: dict[int, Assembly] = {}
        self._seen: set[tuple[int, int]] = set()
        self._complete: dict[int, int] = {}

    def add(self, packet: Packet, index: int, recv_ns: int) -> Added:
        """Take one packet. Raises ValueError where it contradicts an earlier one of its frame."""
        number, fragment, fragments = packet.frame, packet.fragment, packet.fragments
        key = (number, fragment)
        if key in self._seen:
            return "duplicate"
        frame = self._frames.get(number)
        if frame is None:
            if self._most is not None and len(self._frames) >= self._most:
                self._drop(next(iter(self._frames)))
            arrivals = [(index, recv_ns)]
            frame = self._frames[number] = Assembly(fragments, {fragment: packet.payload}, arrivals)
        elif frame.fragments != fragments:
            raise ValueError(f"frame {number} has {frame.fragments} fragments, not {fragments}")
        else:
            frame.parts[fragment] = packet.payload
            frame.arrivals.append((index, recv_ns))
        self._seen.add(key)
        if len(frame.parts) < fragments:
            return "partial"
        if fragments > 1:
            recv_ns = max(arrived for _, arrived in frame.arrivals)
        frame.complete_ns = self._complete[number] = recv_ns
        return "complete"

    def _drop(self, number: int) -> None:
        dropped = self.take(number)
        assert dropped is not None
        self._seen -= {(number, fragment) for fragment in dropped.parts}

    def restore(self, number: int, payload: bytes, recv_ns: int) -> bool:
        """Complete a frame from redundancy; False where it is complete already."""
        if number in self._complete:
            return False
        arrivals = self._frames[number].arrivals if number in self._frames else []
        self._frames[number] = Assembly(1, {0: payload}, arrivals, recv_ns, restored=True)
        self._complete[number] = recv_ns
        return True

    def is_restored(self, number: int) -> bool:
        """Whether a frame that is here was made from redundancy."""
        frame = self._frames.get(number)
        return frame is not None and frame.restored

    def note_late(self, packet: Packet) -> bool:
        """True where a packet of a frame already taken is a copy of one that came before."""
        key = (packet.frame, packet.fragment)
        if key in self._seen:
            return True
        self._seen.add(key)
        return False

    def peek(self, frame: int, by_ns: int) -> Assembly | None:
        """The frame, if it was complete by then."""
        complete_ns = self._complete.get(frame)
        if complete_ns is None or complete_ns > by_ns:
            return None
        return self._frames[frame]

    def take(self, frame: int) -> Assembly | None:
        """Remove a frame, complete or not; None if nothing of it ever came."""
        self._complete.pop(frame, None)
        return self._frames.pop(frame, None)

    def ready(self, by_ns: int) -> list[int]:
        """Numbers of the frames complete by then, in no order."""
        return [k for k, complete_ns in self._complete.items() if complete_ns <= by_ns]

    def __len__(self) -> int:
        return len(self._frames)
