"""Fragments to complete frames, whatever the order they come in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from harness.media.packet import Packet

Added = Literal["complete", "partial", "duplicate"]


@dataclass(slots=True)
class Assembly:
    """A frame on its way: ``arrivals`` holds (packet index of the caller, ``recv_ns``)."""

    fragments: int
    parts: dict[int, bytes] = field(default_factory=dict)
    arrivals: list[tuple[int, int]] = field(default_factory=list)
    complete_ns: int = -1

    @property
    def payload(self) -> bytes:
        return b"".join(self.parts[i] for i in range(self.fragments))


class Reassembler:
    """Holds frames from their first fragment until they are taken.

    Memory is bounded by the frames of one stream: the caller refuses frame numbers outside it and
    takes every frame once its moment has come, complete or not.
    """

    def __init__(self) -> None:
        self._frames: dict[int, Assembly] = {}
        self._seen: set[tuple[int, int]] = set()
        self._complete: set[int] = set()

    def add(self, packet: Packet, index: int, recv_ns: int) -> Added:
        """Take one packet. Raises ValueError where it contradicts an earlier one of its frame."""
        if (packet.frame, packet.fragment) in self._seen:
            return "duplicate"
        frame = self._frames.get(packet.frame)
        if frame is not None and frame.fragments != packet.fragments:
            raise ValueError(
                f"frame {packet.frame} has {frame.fragments} fragments, not {packet.fragments}"
            )
        if frame is None:
            frame = self._frames[packet.frame] = Assembly(packet.fragments)
        self._seen.add((packet.frame, packet.fragment))
        frame.parts[packet.fragment] = packet.payload
        frame.arrivals.append((index, recv_ns))
        if len(frame.parts) < frame.fragments:
            return "partial"
        frame.complete_ns = max(arrived for _, arrived in frame.arrivals)
        self._complete.add(packet.frame)
        return "complete"

    def note_late(self, packet: Packet) -> bool:
        """True where a packet of a frame already taken is a copy of one that came before."""
        key = (packet.frame, packet.fragment)
        if key in self._seen:
            return True
        self._seen.add(key)
        return False

    def peek(self, frame: int, by_ns: int) -> Assembly | None:
        """The frame, if it was complete by then."""
        found = self._frames.get(frame)
        if found is None or frame not in self._complete or found.complete_ns > by_ns:
            return None
        return found

    def take(self, frame: int) -> Assembly | None:
        """Remove a frame, complete or not; None if nothing of it ever came."""
        self._complete.discard(frame)
        return self._frames.pop(frame, None)

    def ready(self, by_ns: int) -> list[int]:
        """Numbers of the frames complete by then, in no order."""
        return [k for k in self._complete if self._frames[k].complete_ns <= by_ns]

    def __len__(self) -> int:
        return len(self._frames)
