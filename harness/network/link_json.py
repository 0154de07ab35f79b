"""A :class:`LinkPair` as plain JSON and back, exactly: what travels to the link agent.

A change is written as its instant and what differs from the link that it changes, so that a link
with thousands of them stays small. A recording is named by its file's hash and not written out:
such a pair can be shown (the ``cells`` table), but only a fitted one can be read back.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace
from typing import Any

from harness.errors import BadInput
from harness.network.link import (
    Bernoulli,
    Change,
    Deliveries,
    GilbertElliott,
    Link,
    LinkPair,
    Loss,
    LossTrace,
    MediaTimeLoss,
    Rate,
    Reorder,
    Replay,
)

LONGEST_SHOWN = 16
"""Changes or deliveries that :func:`link_summary` writes out."""

_LOSSES: dict[str, type[Loss]] = {
    "bernoulli": Bernoulli,
    "gilbert_elliott": GilbertElliott,
    "trace": LossTrace,
    "media_time": MediaTimeLoss,
}
_LOSS_NAMES = {cls: name for name, cls in _LOSSES.items()}
_FIELDS = tuple(field.name for field in fields(Link) if field.name != "changes")


def link_to_json(pair: LinkPair) -> dict[str, Any]:
    """JSON-serialisable; :func:`link_from_json` of it equals ``pair``, if that is fitted."""
    return {"forward": direction_to_json(pair.forward), "reverse": direction_to_json(pair.reverse)}


def link_from_json(data: dict[str, Any]) -> LinkPair:
    """Inverse of :func:`link_to_json`. Raises BadInput for anything that it did not make, and for
    links that are not fitted."""
    try:
        return LinkPair(_direction(data["forward"]), _direction(data["reverse"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"not a link description ({type(error).__name__}: {error})") from error


def link_summary(pair: LinkPair) -> dict[str, Any]:
    """:func:`link_to_json` for people: of what is long only how many entries there are, and the
    SHA-256 of their JSON."""
    summary = link_to_json(pair)
    for direction in summary.values():
        direction["changes"] = _shortened(direction["changes"])
        if direction["rate"] and "at_ns" in direction["rate"]:
            direction["rate"]["at_ns"] = _shortened(direction["rate"]["at_ns"])
    return summary


def direction_to_json(link: Link) -> dict[str, Any]:
    """One direction of :func:`link_to_json`."""
    data = {name: _to_json(getattr(link, name)) for name in _FIELDS}
    data["changes"] = [[change.at_ns, _differences(change.link, link)] for change in link.changes]
    return data


def _differences(link: Link, base: Link) -> dict[str, Any]:
    return {
        name: _to_json(value)
        for name in _FIELDS
        if (value := getattr(link, name)) != getattr(base, name)
    }


def _to_json(value: Any) -> Any:
    match value:
        case LossTrace(lost):
            return {"model": "trace", "lost": list(lost)}
        case Bernoulli() | GilbertElliott() | MediaTimeLoss():
            return {"model": _LOSS_NAMES[type(value)], **asdict(value)}
        case Deliveries(at_ns, limit_bytes, bytes_each):
            return {"at_ns": list(at_ns), "limit_bytes": limit_bytes, "bytes_each": bytes_each}
        case Rate() | Reorder():
            return asdict(value)
        case Replay(recording):
            described = {name: getattr(recording, name) for name in _OF_RECORDING}
            others = {name: getattr(value, name) for name in _OF_REPLAY}
            return described | others
        case _:
            return value


_OF_RECORDING = ("format", "sha256", "duration_ns")
_OF_REPLAY = tuple(field.name for field in fields(Replay) if field.name != "recording")


def _shortened(entries: list[Any]) -> list[Any] | dict[str, Any]:
    if len(entries) <= LONGEST_SHOWN:
        return entries
    digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
    return {"count": len(entries), "sha256": digest}


def _direction(data: dict[str, Any]) -> Link:
    data = dict(data)
    changes = data.pop("changes", [])
    base = Link(**_values(data))
    link = replace(
        base,
        changes=tuple(
            Change(at_ns, replace(base, **_values(differences))) for at_ns, differences in changes
        ),
    )
    if not link.is_fitted:
        raise BadInput(
            "expected a link that is fitted to a codec's packets, got one that is still to be"
            " drawn (loss in media time, coherence or a recording); fit it first"
            " (network/trace.py)"
        )
    return link


def _values(data: dict[str, Any]) -> dict[str, Any]:
    values = dict(data)
    if unknown := values.keys() - _FIELDS:
        raise KeyError(*sorted(unknown))
    if values.get("loss") is not None:
        values["loss"] = _loss(values["loss"])
    if values.get("reorder") is not None:
        values["reorder"] = Reorder(**values["reorder"])
    if values.get("rate") is not None:
        values["rate"] = _rate(values["rate"])
    return values


def _loss(data: dict[str, Any]) -> Loss:
    values = dict(data)
    cls = _LOSSES[values.pop("model")]
    if cls is LossTrace:
        return LossTrace(tuple(values["lost"]))
    return cls(**values)


def _rate(data: dict[str, Any]) -> Rate | Deliveries:
    if "at_ns" in data:
        return Deliveries(**{**data, "at_ns": tuple(data["at_ns"])})
    return Rate(**data)
