"""On which networks the model may be believed."""

from __future__ import annotations

from harness.errors import Unsupported
from harness.network.link import (
    Bernoulli,
    Deliveries,
    GilbertElliott,
    Link,
    LinkPair,
    Loss,
    LossTrace,
    Rate,
)
from harness.units import NS_PER_S
from harness.virtual.tcp.wire import HEADER_BYTES, MSS, SACK_BLOCKS, Ack, Framing, framed_bytes

_MOST_LOSS = 0.2
_LONGEST_BURST = 3.0
_ROUNDING = 1e-6


def require_validated(
    pair: LinkPair, framing: Framing, message_bytes: int, interval_ns: int, duration_ns: int
) -> None:
    """Raise Unsupported, with the reason, where the model is not held against the kernel: on a
    fitted link that cannot carry the stream (``message_bytes`` each ``interval_ns``, for
    ``duration_ns``) on average, so that the queue in the sender grows without end; on one that
    loses, packet by packet, more than 20 % or more than three in a row on average: a burst then
    lasts for as many time-outs, each twice as long as the one before."""
    framed = framed_bytes(framing, message_bytes)
    headers = -(-framed // MSS) * HEADER_BYTES
    report = Ack(0, 0, ((0, 0),) * SACK_BLOCKS).size_bytes()
    for name, link, size_bytes in (
        ("forward", pair.forward, framed + headers),
        ("reverse", pair.reverse, report),
    ):
        needed_bps = size_bytes * 8 * NS_PER_S // interval_ns
        carried_bps = _mean_rate_bps(link, duration_ns)
        if carried_bps is not None and carried_bps < needed_bps:
            raise Unsupported(
                f"expected a {name} link that carries a TCP stream of {needed_bps} bit/s, got"
                f" {carried_bps} bit/s on average, for which the model of TCP is not validated;"
                " use --lab netns or docker"
            )
        burst = max((_burst(part.loss) for _, part in link.segments()), default=0.0)
        if burst > _LONGEST_BURST + _ROUNDING:
            raise Unsupported(
                f"expected a {name} link that loses at most {_LONGEST_BURST:.0f} packets in a row"
                f" on average, got {burst:.1f}, for which the model of TCP is not validated; use"
                " losses in media time, or --lab netns or docker"
            )
        share = max((_loss_share(part.loss) for _, part in link.segments()), default=0.0)
        if share > _MOST_LOSS + _ROUNDING:
            raise Unsupported(
                f"expected a {name} link that loses at most {_MOST_LOSS:.0%} of its packets, got"
                f" {share:.1%}, for which the model of TCP is not validated;"
                " use --lab netns or docker"
            )


def _mean_rate_bps(link: Link, duration_ns: int) -> int | None:
    """None without a limit, be it for a part of the time."""
    if isinstance(link.rate, Deliveries):
        count = sum(at_ns < duration_ns for at_ns in link.rate.at_ns)
        return count * link.rate.bytes_each * 8 * NS_PER_S // max(duration_ns, 1)
    segments = link.segments()
    ends = [at_ns for at_ns, _ in segments[1:]] + [duration_ns]
    carried = 0
    for (begin_ns, part), end_ns in zip(segments, ends, strict=True):
        length_ns = min(end_ns, duration_ns) - min(begin_ns, duration_ns)
        if not isinstance(part.rate, Rate):
            if length_ns > 0:
                return None
            continue
        carried += part.rate.rate_bps * length_ns
    return carried // max(duration_ns, 1)


def _loss_share(loss: Loss | None) -> float:
    """Of losses packet by packet; one that takes everything is an outage, which is validated."""
    match loss:
        case Bernoulli(p):
            return p if p < 1 else 0.0
        case GilbertElliott(p, r, bad, good):
            return (p * bad + r * good) / (p + r) if p + r else good
        case LossTrace(lost):
            return sum(lost) / len(lost)
        case _:
            return 0.0


def _burst(loss: Loss | None) -> float:
    """Packets in a row that a bad state takes, on average, once it has taken one."""
    if not isinstance(loss, GilbertElliott) or not loss.p:
        return 0.0
    goes_on = loss.loss_bad * (1 - loss.r)
    return 1 / (1 - goes_on) if goes_on < 1 else float("inf")
