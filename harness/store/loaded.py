"""The tables of a run as DataFrames; the long ones are read when they are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from harness.store.schema import ATTEMPTS, LEGACY


class Rows(Protocol):
    """The rows of a table that is too long to be held whole."""

    def batches(
        self, cell_ids: Collection[str] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pd.DataFrame]:
        """Whole cells, in order of ``cell_id``, some at a time; None is all of them."""
        ...


class Tables:
    """The tables of a run as DataFrames with the columns of :mod:`harness.store.schema`.

    ``runs``, ``cells``, ``scores``, ``legacy`` and ``attempts`` are held. ``packets`` and
    ``frames`` are read when asked for: whole as attributes (every time anew; fine for a run of some
    hundred cells), some cells of them by ``packets_of`` and ``frames_of``, or one batch of cells
    after the other by ``packet_batches`` and ``frame_batches``, in bounded memory whatever the
    length of the run.
    All but ``runs`` are sorted by ``cell_id``; within a cell packets are in order of sending and
    frames in order of playing.
    """

    def __init__(
        self,
        runs: pd.DataFrame,
        cells: pd.DataFrame,
        packets: pd.DataFrame | Rows,
        frames: pd.DataFrame | Rows,
        scores: pd.DataFrame,
        legacy: pd.DataFrame | None = None,
        attempts: pd.DataFrame | None = None,
    ) -> None:
        self.runs = runs
        self.cells = cells
        self.scores = scores
        self.legacy = pd.DataFrame(columns=list(LEGACY)) if legacy is None else legacy
        self.attempts = pd.DataFrame(columns=list(ATTEMPTS)) if attempts is None else attempts
        self._packets = _Held(packets) if isinstance(packets, pd.DataFrame) else packets
        self._frames = _Held(frames) if isinstance(frames, pd.DataFrame) else frames

    @property
    def packets(self) -> pd.DataFrame:
        return _whole(self._packets.batches())

    @property
    def frames(self) -> pd.DataFrame:
        return _whole(self._frames.batches())

    def packets_of(
        self, cell_ids: Collection[str], columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Rows of ``packets`` of these cells; only ``columns`` of them, if given."""
        return _whole(self._packets.batches(cell_ids, columns))

    def frames_of(
        self, cell_ids: Collection[str], columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Rows of ``frames`` of these cells; only ``columns`` of them, if given."""
        return _whole(self._frames.batches(cell_ids, columns))

    def packet_batches(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """All of ``packets``, some whole cells at a time; there is at least one batch."""
        return self._packets.batches(None, columns)

    def frame_batches(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """All of ``frames``, some whole cells at a time; there is at least one batch."""
        return self._frames.batches(None, columns)


@dataclass(frozen=True)
class _Held:
    """Rows that are in memory already."""

    rows: pd.DataFrame

    def batches(
        self, cell_ids: Collection[str] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pd.DataFrame]:
        rows = self.rows if cell_ids is None else self.rows[self.rows["cell_id"].isin(cell_ids)]
        yield rows if columns is None else rows[list(columns)]


def _whole(batches: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(batches, ignore_index=True)
