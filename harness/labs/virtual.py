"""The virtual lab: no pairs and no network; cells run in worker processes, in virtual time."""

from __future__ import annotations

from typing import Any

NAME = "virtual"
ENGINE = "model"
"""Its link engine: the pure model of ``network/model.py``."""


class VirtualLab:
    """What stands in a run's tables of it; ``virtual_matrix.py`` runs the cells."""

    name = NAME

    def facts(self) -> dict[str, Any]:
        return {"engine": "discrete events in virtual time"}

    def close(self) -> None:
        """There is nothing to end."""
