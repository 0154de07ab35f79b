"""What a listener is set to do, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ReceiverSettings:
    """Jitter buffer, concealment and device of one receiver.

    ``start_ns`` is the depth at the first packet (in ``fixed`` mode for ever); ``max_ns`` bounds
    the adaptive buffer, and in both modes the frames held. ``device_ns`` lies between the pull of
    a frame from the jitter buffer and its first sample leaving the device.
    """

    mode: Literal["fixed", "adaptive"] = "fixed"
    start_ns: int = 60_000_000
    max_ns: int = 400_000_000
    concealment: Literal["codec", "zero", "repeat", "pitch"] = "codec"
    device_ns: int = 10_000_000
