"""Rate control: the bitrate that a sender asks its encoder for, from what the receiver reports.

``loss-delay`` is the loss-based controller of Google Congestion Control (draft-ietf-rmcat-gcc-02,
section 6) beside a delay-based one with a threshold:

* loss since the last report above 10 %: rate x (1 - loss / 2);
* else, if even the quickest packets since the last report waited more than 60 ms and three
  interarrival jitters: rate x 0.85 (section 5.5), once per round trip, for the queue needs that
  time to drain;
* else, if the loss is below 2 %: 8 % more a second (section 5.5, equation for a state that is not
  near convergence), at most a second's worth for one report;
* else as it is.

Jitter is no queue, and a packet that was overtaken is not lost: the delay is the least of an
interval (RFC 8698, 5.1.1), the threshold grows with the jitter, as that of GCC does (5.4), for the
least of a few packets lies above the least of many; and the loss is what is overdue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from harness.codecs.base import CodecFacts
from harness.errors import Unsupported
from harness.media.feedback import Report
from harness.media.settings import SenderSettings
from harness.units import NS_PER_MS, NS_PER_S

MUCH_LOSS, LITTLE_LOSS = 0.10, 0.02
QUEUE_NS = 60 * NS_PER_MS
"""As if the latest packet had waited about 100 ms: the least of an interval is behind a queue that
grows by up to the interval."""
QUEUE_JITTERS = 3
"""Of normal jitter with deviation s, whose mean difference J is 1.13 s: the least of 5 packets is
expected 1.9 s above the least of 500, with a deviation of 0.7 s; this is two of them more."""
BACK_OFF, GROWTH_PER_S = 0.85, 1.08
_ROUND_TRIP_NS = 200 * NS_PER_MS
"""As long as none has been measured."""


class RateControl(Protocol):
    """One stream's controller."""

    def on_report(self, report: Report, rtt_ns: int | None, now_ns: int) -> int:
        """The rate from now on, bit/s. ``rtt_ns`` is None where it is not known."""
        ...


def rate_control(settings: SenderSettings, facts: CodecFacts) -> RateControl | None:
    """The controller that the settings name; None for a fixed rate.

    Raises Unsupported where the codec has one rate only.
    """
    if settings.adapt == "fixed":
        return None
    if facts.bitrate_range_bps is None:
        raise Unsupported(
            f"adapt: {settings.adapt} needs a codec whose rate can change while it streams;"
            f" {facts.library} at these settings has one rate"
        )
    least, most = facts.bitrate_range_bps
    return LossDelay(
        facts.nominal_bitrate_bps,
        max(settings.lowest_bps, least),
        min(settings.highest_bps or most, most),
    )


def followed_bps(wanted_bps: Sequence[int], settings: SenderSettings) -> int:
    """The one rate of a sender whose receivers would each have their own."""
    if settings.follow == "mean":
        return round(sum(wanted_bps) / len(wanted_bps))
    return min(wanted_bps)


class LossDelay:
    """See the module's docstring. Rates are in bit/s, of the codec's payloads."""

    def __init__(self, start_bps: int, lowest_bps: int, highest_bps: int) -> None:
        self._lowest_bps, self._highest_bps = lowest_bps, highest_bps
        self._rate_bps = float(min(max(start_bps, lowest_bps), highest_bps))
        self._expected = self._overdue = 0
        self._backed_off_ns: int | None = None
        self._reported_ns: int | None = None

    def on_report(self, report: Report, rtt_ns: int | None, now_ns: int) -> int:
        """The rate from now on, bit/s."""
        expected = report.received + report.lost - self._expected
        lost = report.overdue - self._overdue
        self._expected, self._overdue = report.received + report.lost, report.overdue
        loss = max(lost, 0) / expected if expected > 0 else 0.0
        since_ns = 0 if self._reported_ns is None else now_ns - self._reported_ns
        self._reported_ns = now_ns
        if loss > MUCH_LOSS:
            self._rate_bps *= 1 - loss / 2
        elif report.delay_ns > QUEUE_NS + QUEUE_JITTERS * report.jitter_ns:
            if self._may_back_off(rtt_ns, now_ns):
                self._rate_bps *= BACK_OFF
        elif loss < LITTLE_LOSS:
            self._rate_bps *= GROWTH_PER_S ** min(since_ns / NS_PER_S, 1.0)
        self._rate_bps = min(max(self._rate_bps, self._lowest_bps), self._highest_bps)
        return round(self._rate_bps)

    def _may_back_off(self, rtt_ns: int | None, now_ns: int) -> bool:
        wait_ns = _ROUND_TRIP_NS if rtt_ns is None else rtt_ns
        if self._backed_off_ns is not None and now_ns - self._backed_off_ns < wait_ns:
            return False
        self._backed_off_ns = now_ns
        return True
