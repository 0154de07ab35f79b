"""A :class:`LinkPair` as plain JSON and back, exactly: what travels to the link agent."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from harness.errors import BadInput
from harness.network.link import (
    Bernoulli,
    GilbertElliott,
    Link,
    LinkPair,
    Loss,
    LossTrace,
    Rate,
    Reorder,
)

_LOSSES: dict[str, type[Bernoulli] | type[GilbertElliott] | type[LossTrace]] = {
    "bernoulli": Bernoulli,
    "gilbert_elliott": GilbertElliott,
    "trace": LossTrace,
}
_LOSS_NAMES = {cls: name for name, cls in _LOSSES.items()}


def link_to_json(pair: LinkPair) -> dict[str, Any]:
    """JSON-serialisable; :func:`link_from_json` of it equals ``pair``."""
    return {"forward": direction_to_json(pair.forward), "reverse": direction_to_json(pair.reverse)}


def link_from_json(data: dict[str, Any]) -> LinkPair:
    """Inverse of :func:`link_to_json`. Raises BadInput for anything that it did not make."""
    try:
        return LinkPair(_direction(data["forward"]), _direction(data["reverse"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"not a link description ({type(error).__name__}: {error})") from error


def direction_to_json(link: Link) -> dict[str, Any]:
    """One direction of :func:`link_to_json`."""
    data = asdict(link)
    if link.loss is not None:
        data["loss"] = {"model": _LOSS_NAMES[type(link.loss)], **asdict(link.loss)}
        if isinstance(link.loss, LossTrace):
            data["loss"]["lost"] = list(link.loss.lost)
    return data


def _direction(data: dict[str, Any]) -> Link:
    fields = dict(data)
    if fields.get("loss") is not None:
        fields["loss"] = _loss(fields["loss"])
    if fields.get("reorder") is not None:
        fields["reorder"] = Reorder(**fields["reorder"])
    if fields.get("rate") is not None:
        fields["rate"] = Rate(**fields["rate"])
    return Link(**fields)


def _loss(data: dict[str, Any]) -> Loss:
    fields = dict(data)
    cls = _LOSSES[fields.pop("model")]
    if cls is LossTrace:
        return LossTrace(tuple(fields["lost"]))
    return cls(**fields)
