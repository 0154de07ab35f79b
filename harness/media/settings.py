"""What a listener and a sender are set to do, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_TRACKS = 16
"""Streams that share a link in one cell."""


@dataclass(frozen=True)
class ReceiverSettings:
    """Jitter buffer, concealment and device of one receiver.

    ``start_ns`` is the depth at the first packet (in ``fixed`` mode for ever, above the least
    delayed of the first ten frames); ``max_ns`` bounds
    the adaptive buffer, and in both modes the frames held. ``device_ns`` lies between the pull of
    a frame from the jitter buffer and its first sample leaving the device.
    """

    mode: Literal["fixed", "adaptive"] = "fixed"
    start_ns: int = 60_000_000
    max_ns: int = 400_000_000
    concealment: Literal["codec", "zero", "repeat", "pitch", "tplcnet"] = "codec"
    device_ns: int = 10_000_000

    @property
    def required_assets(self) -> tuple[str, ...]:
        """Names in the weights manifest that the concealment needs."""
        return ("tplcnet",) if self.concealment == "tplcnet" else ()


@dataclass(frozen=True)
class SenderSettings:
    """Protection of a stream against loss, and whether its rate follows the network.

    * ``repeat``: each frame also carries the payloads of so many before it, ``repeat_distance``
      frames apart (redundant audio data, after RFC 2198).
    * ``fec_parity`` parity payloads protect ``fec_data`` frames (after RFC 5109 for ``xor``, RFC
      8627 for ``reed-solomon``); 0 is off.
    * ``interleave`` d > 1: neighbours leave d - 1 packets apart (convolutional interleaver); the
      last of a row waits d * (d - 1) frames.
    * ``nack_retries`` > 0: the receiver asks so many times for a packet that it misses (generic
      NACK, after RFC 4585), first after ``nack_wait_ns``, then every ``nack_every_ns``, and never
      for one that would come too late. The sender sends it again (after RFC 4588).
    * ``adapt``: what the encoder's rate follows; ``loss-delay`` needs receiver reports, one every
      ``report_every_ns``, and stays between ``lowest_bps`` and ``highest_bps``.
    * ``follow``: with several receivers, the lowest of the rates that suit them, or their mean.
    * ``reports``: both ends report every ``report_every_ns``, whatever else is set (RTCP).
    """

    repeat: int = 0
    repeat_distance: int = 1
    fec: Literal["none", "xor", "reed-solomon"] = "none"
    fec_data: int = 0
    fec_parity: int = 0
    interleave: int = 1
    nack_retries: int = 0
    nack_wait_ns: int = 0
    nack_every_ns: int = 100_000_000
    adapt: Literal["fixed", "loss-delay"] = "fixed"
    report_every_ns: int = 200_000_000
    lowest_bps: int = 0
    highest_bps: int = 0
    reports: bool = False
    follow: Literal["worst", "mean"] = "worst"

    @property
    def needs_feedback(self) -> bool:
        """Whether anything flows from the receiver to the sender."""
        return self.nack_retries > 0 or self.needs_reports

    @property
    def needs_reports(self) -> bool:
        """Whether the receiver reports how the stream arrives."""
        return self.reports or self.adapt != "fixed"
