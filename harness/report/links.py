"""What a run's networks are, in words and over time: pure functions of its tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness import units
from harness.store import Tables

MEANINGS = {
    "per-packet": "every packet draws its own fate, as with netem: no trace is drawn for a block,"
    " and two codecs with packets of other lengths meet other events",
    "media-time": "drawn once per utterance and repetition, in continuous time: every codec meets"
    " the same events at the same media time",
    "scheduled": "it changes at set times, the same for all",
    "recorded": "it follows the recording of a real network",
}
"""Of the parts of the column ``impairment``."""
_VARYING = ("jitter_ns", "loss", "duplicate", "corrupt", "reorder", "replay", "changes")
_EFFECTS = ("delay_ns", "rate", *_VARYING)
_HASH_DIGITS = 8
_STRETCHES = 8
"""Of a recording that are listed one by one."""


def is_clean(asked: str | None) -> bool:
    """True if the link was asked to do nothing, in both directions (JSON of ``link_asked``)."""
    pair = _pair(asked)
    return bool(pair) and not any(link.get(name) for link in pair.values() for name in _EFFECTS)


def describe_link(asked: str | None) -> str:
    """``link_asked`` (JSON) in words: the way there, and the way back where that is another;
    "nothing asked of it" when clean."""
    pair = _pair(asked)
    forward, reverse = (pair.get(way, {}) for way in ("forward", "reverse"))
    said = _direction(forward)
    back = _direction(reverse) if reverse != forward else ""
    return "; back: ".join(filter(None, (said or "nothing asked of it", back)))


@dataclass(frozen=True)
class Network:
    """One network of a run, and whether all cells of each of its blocks met the same trace."""

    name: str
    words: str
    impairment: tuple[str, ...]
    """Keys of ``MEANINGS``; empty for a steady link, and where a run does not tell."""
    traces: int
    """Different ones; as many as blocks, unless some of them drew nothing."""
    digest: str
    """First digits of the trace's SHA-256, of one of several; empty where none is recorded."""
    blocks: int
    """That have more than one cell with a trace."""
    split: tuple[str, ...]
    """Blocks whose cells met different traces: none, or the run is broken."""
    met: str = ""
    """Which seconds of its recordings; empty where nothing is recorded."""

    @property
    def has_trace(self) -> bool:
        """Something of it is drawn, or laid down, once for a block, and not by each packet."""
        return bool(self.traces) and self.varies

    @property
    def shared(self) -> str:
        """What the cells of a block have in common, where they are not :attr:`split`."""
        if not self.impairment or not self.traces:
            return "–"
        own = "each codec's packets draw their own, with the block's seed"
        if not self.has_trace:
            return f"no trace is drawn: {own}"
        some = (self.blocks and f"yes, all {self.blocks} blocks") or "one cell a block"
        if "per-packet" in self.impairment:
            return f"{some}, but for what is per packet: {own}"
        return some

    @property
    def varies(self) -> bool:
        """Something happens on it at times that are the same for all codecs."""
        return bool(set(self.impairment) - {"per-packet"})


def networks(tables: Tables) -> dict[str, Network]:
    """The networks of a run by name."""
    found = {}
    for name, cells in tables.cells.groupby("network", sort=False):
        traced = cells.dropna(subset=["trace_sha256"])
        of_block = traced.groupby("block")["trace_sha256"]
        distinct = of_block.nunique()
        hashes = sorted(traced["trace_sha256"].unique())
        kinds = cells["impairment"].dropna()
        asked = _text(cells["link_asked"].iloc[0])
        varies = any(link.get(name) for link in _pair(asked).values() for name in _VARYING)
        found[str(name)] = Network(
            name=str(name),
            words=describe_link(asked),
            impairment=tuple(kinds.iloc[0].split("+")) if len(kinds) and varies else (),
            traces=len(hashes),
            digest=hashes[0][:_HASH_DIGITS] if hashes else "",
            blocks=int((of_block.size() > 1).sum()),
            split=tuple(distinct.index[distinct > 1].astype(str)),
            met=_met(asked, cells.get("recorded_part", pd.Series(dtype=str)).dropna().unique()),
        )
    return found


def _met(asked: str | None, parts: Iterable[str]) -> str:
    """Which seconds of its recordings the cells of a network met, in words."""
    pair, told = _pair(asked), []
    parsed = [json.loads(part) for part in parts]
    for direction, name in (("forward", ""), ("reverse", "back: ")):
        replay = pair.get(direction, {}).get("replay")
        stretches = [part[direction] for part in parsed if direction in part]
        if not replay or not stretches:
            continue
        whole = replay["duration_ns"] / units.NS_PER_S
        merged = _merged(stretches, whole)
        share = sum(end - begin for begin, end in merged) / whole
        listed = ", ".join(f"{begin:.0f}–{end:.0f}" for begin, end in merged[:_STRETCHES])
        more = f" and {len(merged) - _STRETCHES} more" * (len(merged) > _STRETCHES)
        told.append(f"{name}{share:.0%} of it: seconds {listed}{more}")
    return "; ".join(told)


def _merged(stretches: Iterable[Sequence[float]], whole: float) -> list[tuple[float, float]]:
    """Stretches of a recording ``whole`` seconds long, in order and without overlap; one that goes
    beyond its end goes on at its beginning."""
    pieces: list[tuple[float, float]] = []
    for begin, end in stretches:
        if end - begin >= whole:
            return [(0.0, whole)]
        begin, end = begin % whole, begin % whole + end - begin
        pieces += [(begin, min(end, whole)), (0.0, max(end - whole, 0.0))]
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(piece for piece in pieces if piece[1] > piece[0]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def course(asked: str | None) -> pd.DataFrame:
    """What the way there was asked to do over time, as steps; empty where it stays the same, or
    where its changes are too many to have been written out.

    Columns: ``second`` (from which on, after sample 0), ``delay_ms``, ``loss_percent`` and
    ``rate_kbps`` (NaN: no limit).
    """
    link = _pair(asked).get("forward", {})
    changes = link.get("changes")
    if not isinstance(changes, list) or not changes:
        return pd.DataFrame()
    steps = [(0, link), *((at_ns, link | differing) for at_ns, differing in changes)]
    return pd.DataFrame(
        {
            "second": at_ns / units.NS_PER_S,
            "delay_ms": step["delay_ns"] / units.NS_PER_MS,
            "loss_percent": 100 * _share(step["loss"]),
            "rate_kbps": (step["rate"] or {}).get("rate_bps", np.nan) / 1000,
        }
        for at_ns, step in steps
    )


def example(tables: Tables, network: str) -> Mapping[Any, Any] | None:
    """The ``ok`` cell of a network that looks at it most often: of the codec with most packets, on
    UDP if there is one; None where there is none."""
    cells = tables.cells[(tables.cells["network"] == network) & (tables.cells["status"] == "ok")]
    if cells.empty:
        return None
    first = cells.assign(
        other=cells["transport"] != "udp", few=-cells["packets_sent"].astype(float)
    )
    return (
        first.sort_values(["other", "utterance", "repetition", "few", "cell_id"]).iloc[0].to_dict()
    )


def _pair(asked: str | None) -> dict[str, Any]:
    pair: dict[str, Any] = json.loads(asked) if asked else {}
    return pair


def _direction(link: Mapping[str, Any]) -> str:
    words = list(_instant(link))
    if link.get("replay"):
        words.append(_replay(link["replay"]))
    changes = link.get("changes")
    if isinstance(changes, Mapping):
        words.append(f"{changes['count']} changes over time")
    elif changes:
        count, first, last = len(changes), changes[0][0], changes[-1][0]
        times = units.format_duration(first)
        if count > 1:
            times = f"between {times} and {units.format_duration(last)}"
        words.append(f"{count} changes {times}" if count > 1 else f"a change at {times}")
    return ", ".join(words)


def _instant(link: Mapping[str, Any]) -> Iterator[str]:
    if link.get("delay_ns") or link.get("jitter_ns"):
        delay = units.format_duration(link["delay_ns"])
        if link.get("jitter_ns"):
            shape = link["distribution"]
            if link.get("coherence_ns"):
                shape += f", coherent over {units.format_duration(link['coherence_ns'])}"
            delay += f" ± {units.format_duration(link['jitter_ns'])} ({shape})"
        yield delay
    if link.get("loss"):
        yield f"loss {link['loss']['model'].replace('_', '-')} {_loss_in_words(link['loss'])}"
    for name in ("duplicate", "corrupt"):
        if link.get(name):
            yield f"{name} {link[name]:.1%}"
    if link.get("reorder"):
        yield f"reorder {link['reorder']['p']:.1%}"
    rate = link.get("rate")
    if rate and "rate_bps" in rate:
        yield units.format_bitrate(rate["rate_bps"]) + "/s"
    elif rate:
        yield "delivery opportunities"


def _replay(replay: Mapping[str, Any]) -> str:
    length = units.format_duration(replay["duration_ns"])
    begins = f", from {units.format_duration(replay['offset_ns'])}" * bool(replay["offset_ns"])
    if replay.get("spread"):
        begins = ", each block from a place of its own"
    ends = {"loop": "again and again", "stop": "the audio ends with it"}.get(replay["end"])
    told = f"recorded ({replay['format']} {replay['sha256'][:_HASH_DIGITS]}, {length}{begins}"
    return told + (f", {ends})" if ends else ")")


def _loss_in_words(loss: Mapping[str, Any]) -> str:
    share = f"{_share(loss):.1%}"
    match loss["model"]:
        case "trace":
            return f"{share} of {len(loss['lost'])} packets"
        case "media_time":
            whole = "" if loss["hits"] == "media" else ", by a packet's last sample"
            return f"{share}, bursts of {units.format_duration(loss['burst_ns'])}{whole}"
        case "gilbert_elliott" if loss["r"]:
            return f"{share}, bursts of {1 / loss['r']:.1f} packets"
    return share


def _share(loss: Mapping[str, Any] | None) -> float:
    """Stationary share of losses."""
    match (loss or {}).get("model"):
        case None:
            return 0.0
        case "trace":
            return float(np.mean(loss["lost"]))  # type: ignore[index]
        case "bernoulli":
            return float(loss["p"])  # type: ignore[index]
        case "media_time":
            return float(loss["share"])  # type: ignore[index]
    p, r, bad, good = (float(loss[k]) for k in ("p", "r", "loss_bad", "loss_good"))  # type: ignore[index]
    return (p * bad + r * good) / (p + r) if p + r else good


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
