"""Recorded times of codec calls, and how they are looked up.

The file (``profiles.yaml``) holds, per codec and parameters that matter to its cost, quantiles of
the time of each call. A codec is given the record of its kind that is nearest to it: what is text
or yes/no must be the same, numbers as near as there are (in ratio), and where the frame is longer
or shorter the time is taken in proportion.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from harness.codecs.base import Params
from harness.errors import BadInput, Unsupported
from harness.units import NS_PER_US

Role = Literal["encode", "decode", "conceal", "recover"]
Timing = Mapping[Role, tuple[int, ...]]
"""Per role, times in ns that a call takes, each equally likely."""
ROLES: tuple[Role, ...] = get_args(Role)
LEVELS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Of the quantiles recorded. What lies above the last is the machine's doing, not the codec's."""
SHIPPED = Path(__file__).with_name("profiles.yaml")
ENVIRONMENT = "HARNESS_PROFILE"
REMEDY = (
    f"record it (harness profile FILE --out NEW, then {ENVIRONMENT}=NEW), or set compute: measured"
    " in the scenario"
)
_STEPS = 1000


@dataclass(frozen=True)
class Overheads:
    """What an endpoint's process costs beside its codec, all in ns."""

    wake_ns: int = 0
    """From the instant that a timer was set for to the process running."""
    send_ns: int = 0
    """From a payload to its packet at the link: making it and calling ``send``."""
    receive_ns: int = 0
    """From a datagram's leaving the link to its stamp in the receiver."""
    play_ns: int = 0
    """What the listener does with a frame beside decoding it."""


@dataclass(frozen=True)
class Record:
    """One codec as measured. ``times_ns`` has, per role, the quantiles at LEVELS."""

    kind: str
    params: Mapping[str, Any]
    """Those that matter, as written in a scenario resolved to base units."""
    frame_ns: int
    times_ns: Mapping[Role, tuple[int, ...]]

    def distance(self, params: Mapping[str, Any]) -> float | None:
        """How far a codec with ``params`` is from this one, in octaves; None where it is another
        kind of thing."""
        octaves = 0.0
        for name, mine in self.params.items():
            other = params.get(name)
            if isinstance(mine, bool | str) or isinstance(other, bool | str) or other is None:
                if mine != other:
                    return None
            else:
                octaves += abs(math.log2((other + 1) / (mine + 1)))
        return octaves


@dataclass(frozen=True)
class Profile:
    """What was recorded on one machine."""

    provenance: Mapping[str, Any]
    overheads: Overheads
    records: tuple[Record, ...]

    def timing(self, kind: str, params: Params, frame_ns: int) -> Timing:
        """Times for a codec. Raises Unsupported, with the remedy, where none is near."""
        asked = params.model_dump()
        found = [
            (distance, number)
            for number, record in enumerate(self.records)
            if record.kind == kind and (distance := record.distance(asked)) is not None
        ]
        if not found:
            raise Unsupported(f"the compute profile does not know {kind} {asked}: {REMEDY}")
        record = self.records[min(found)[1]]
        return {role: _drawn(record.times_ns[role], frame_ns, record.frame_ns) for role in ROLES}


@lru_cache(maxsize=256)
def _drawn(quantiles_ns: tuple[int, ...], frame_ns: int, recorded_ns: int) -> tuple[int, ...]:
    """Equally likely times, by straight lines between the quantiles; whole numbers throughout, so
    that every machine gets the same."""
    levels = [round(level * _STEPS) for level in LEVELS]
    times: list[int] = []
    for low, high, first_ns, last_ns in zip(
        levels, levels[1:], quantiles_ns, quantiles_ns[1:], strict=False
    ):
        times += [
            first_ns + (last_ns - first_ns) * step // (high - low) for step in range(high - low)
        ]
    return tuple(time_ns * frame_ns // recorded_ns for time_ns in times)


def profile_path() -> Path:
    """The profile named in HARNESS_PROFILE, else the one that is shipped."""
    return Path(os.environ.get(ENVIRONMENT) or SHIPPED)


@lru_cache(maxsize=8)
def load(path: Path = SHIPPED) -> Profile:
    """Read a profile. Raises BadInput, naming the file, where it is none."""
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Profile(
            written["provenance"],
            Overheads(**{f"{name}_ns": _ns(us) for name, us in written["overheads_us"].items()}),
            tuple(_record(one) for one in written["codecs"]),
        )
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{path}: expected a compute profile as harness profile writes it, got one with"
            f" {type(error).__name__}: {error}"
        ) from error


def dump(profile: Profile) -> str:
    """The text that :func:`load` reads; times in us."""
    head = {
        "provenance": dict(profile.provenance),
        "overheads_us": {
            "wake": profile.overheads.wake_ns / NS_PER_US,
            "send": profile.overheads.send_ns / NS_PER_US,
            "receive": profile.overheads.receive_ns / NS_PER_US,
            "play": profile.overheads.play_ns / NS_PER_US,
        },
        "levels": list(LEVELS),
    }
    lines = [yaml.safe_dump(head, sort_keys=False, default_flow_style=None, width=100), "codecs:\n"]
    for record in profile.records:
        lines.append(f"  - codec: {record.kind}\n")
        lines.append(f"    params: {_flow(dict(record.params))}\n")
        lines.append(f"    frame_ns: {record.frame_ns}\n")
        lines += [
            f"    {role}_us: {_flow([ns / NS_PER_US for ns in record.times_ns[role]])}\n"
            for role in ROLES
        ]
    return "".join(lines)


def _record(written: Mapping[str, Any]) -> Record:
    times: dict[Role, tuple[int, ...]] = {}
    for role in ROLES:
        times[role] = tuple(_ns(us) for us in written[f"{role}_us"])
        if len(times[role]) != len(LEVELS):
            raise ValueError(f"{role}_us: expected {len(LEVELS)} quantiles, got {len(times[role])}")
    return Record(written["codec"], written["params"], written["frame_ns"], times)


def _ns(us: float) -> int:
    return round(us * NS_PER_US)


def _flow(value: Sequence[Any] | Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, default_flow_style=True, width=10_000)
    return text.strip()
