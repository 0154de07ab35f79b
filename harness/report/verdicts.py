"""What can be said of each network: which configuration sounded best, or which are tied.

The question of a network is one family: every two of its candidates are compared, in pairs of one
block (:func:`harness.stats.difference.between_all`). Which one is called the best is chosen by
looking at the means, and the family holds all comparisons that this choice could have led to: where
all candidates are alike, one run in twenty at most claims any difference. (Comparing the one with
the highest mean with the others alone would be a smaller family, but of comparisons chosen by the
data that they are then tested on.)

Controls are no candidates: PCM beside other codecs, and the clean link beside other networks. They
show what the rig does, and would win whatever the codecs are like.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.report.tables import Shown, added, clean_networks, ranking, scored, wide
from harness.stats.agreement import CONFIGURATION
from harness.stats.difference import Difference, Family, Pair, between_all
from harness.store import Tables

CONVERSATION_MS = 400.0
"""One-way delay that network planning should not exceed (ITU-T G.114, 4)."""
Name = tuple[str, str, str]
"""Transport, receiver and codec of a configuration."""


@dataclass(frozen=True)
class Candidate:
    """One configuration on a network; figures are means."""

    name: Name
    quality: float
    """In the ranking figure, with its interval or range."""
    low: float
    high: float
    media: float
    """PESQ-WB on the media timeline: of codec and concealment."""
    delay_ms: float
    wire_kbps: float
    missing_percent: float
    n: int
    utterances: int
    difference: Difference | None
    """Of its quality to the best one's, in pairs; None for the best one, or without pairs."""

    @property
    def told_apart(self) -> bool:
        """It does worse than the best one, by the family's test and its interval."""
        return self.difference is not None and self.difference.told_apart


@dataclass(frozen=True)
class Verdict:
    """What can be said of one network. ``ranked`` is by the ranking figure, best first; empty where
    no candidate was scored. ``unranked`` has the others by name, with the reason for their missing
    score, ``controls`` the ones that are measured and do not compete."""

    network: str
    shown: Shown
    """What is ranked by."""
    ranked: tuple[Candidate, ...]
    controls: tuple[Candidate, ...]
    unranked: tuple[tuple[Name, str], ...]
    is_control: bool
    """The network itself is a control."""
    uneven: bool
    """Not all means are over the same utterances, so that only pairs compare fairly."""
    family: Family
    """Of the comparisons that were tested."""

    @property
    def best(self) -> Candidate:
        return self.ranked[0]

    @property
    def tied(self) -> tuple[Candidate, ...]:
        """The others that cannot be told from the best one."""
        return tuple(other for other in self.ranked[1:] if not other.told_apart)

    @property
    def best_set(self) -> tuple[Candidate, ...]:
        """The best one and those that cannot be told from it."""
        return (self.best, *self.tied)

    @property
    def beaten(self) -> tuple[Candidate, ...]:
        """The others: they did worse than the best one."""
        return tuple(other for other in self.ranked[1:] if other.told_apart)

    @property
    def closest(self) -> Candidate | None:
        """Of those beaten, the one whose difference is the least; None where there is none."""
        return min(
            self.beaten,
            key=lambda one: abs(one.difference.estimate.mean) if one.difference else np.inf,
            default=None,
        )

    @property
    def testable(self) -> bool:
        """There were utterances enough for a test of at least one difference."""
        return self.family.comparisons > 0

    @property
    def won(self) -> bool:
        """One configuration is told apart from all the others."""
        return len(self.ranked) > 1 and self.testable and not self.tied

    @property
    def leanest(self) -> Candidate:
        """The lowest bitrate on the wire, to the kbit/s, of the best set."""
        return min(self.best_set, key=lambda one: _last(one.wire_kbps))

    @property
    def quickest(self) -> Candidate:
        """The shortest delay, to the ms, of the best set."""
        return min(self.best_set, key=lambda one: _last(one.delay_ms))

    @property
    def conversational(self) -> Candidate | None:
        """The best sounding one within ``CONVERSATION_MS``; None if there is none."""
        return next((one for one in self.ranked if one.delay_ms <= CONVERSATION_MS), None)


def verdicts(tables: Tables, summary: pd.DataFrame, networks: Iterable[str]) -> list[Verdict]:
    """One per network, those of controls last. Controls that the scenario did not ask for are left
    out altogether."""
    shown = ranking(tables)
    quality = scored(tables, shown)
    kinds = tables.cells.drop_duplicates("codec").set_index("codec")["codec_kind"]
    pcm = set(kinds.index[kinds == "pcm"])
    pcm = pcm if set(kinds.index) - pcm else set()
    networks = list(networks)
    clean = clean_networks(tables)
    clean = clean if set(networks) - clean else set()
    summary = summary[summary["codec"] != added(tables).codec]
    found = [
        _verdict(network, network in clean, shown, summary, quality, pcm) for network in networks
    ]
    return sorted(found, key=lambda one: one.is_control)


def _verdict(
    network: str,
    is_control: bool,
    shown: Shown,
    summary: pd.DataFrame,
    quality: pd.DataFrame,
    controls: set[str],
) -> Verdict:
    here = summary[summary["network"] == network]
    rows = here[here["figure"] == shown.key].sort_values(CONFIGURATION)
    competes = ~rows["codec"].isin(controls)
    unranked = tuple(
        (_name(row), row["reason"])
        for row in rows[competes & rows["mean"].isna()].to_dict("records")
    )
    rows = rows.dropna(subset=["mean"])
    rows = rows.sort_values("mean", ascending=shown.better == "lower", kind="stable")
    figures = rows.merge(wide(here), on=CONFIGURATION).to_dict("records")
    ranked = [row for row in figures if row["codec"] not in controls]
    mine = quality[(quality["network"] == network) & ~quality["codec"].isin(controls)]
    mine = mine.assign(entry=[_key(row) for row in mine.to_dict("records")])
    apart = between_all(mine, entry="entry") if ranked else {}
    utterances = mine.groupby("entry")["utterance"].agg(frozenset)
    return Verdict(
        network=network,
        shown=shown,
        ranked=tuple(_candidate(row, apart.get((_key(row), _key(ranked[0])))) for row in ranked),
        controls=tuple(_candidate(row, None) for row in figures if row["codec"] in controls),
        unranked=unranked,
        is_control=is_control,
        uneven=utterances.nunique() > 1,
        family=_family(apart, mine["utterance"].nunique()),
    )


def _family(apart: Mapping[Pair, Difference], utterances: int) -> Family:
    tested = sum(one.p is not None for one in apart.values())
    return Family(tested // 2, utterances)


def _candidate(row: Mapping[Hashable, Any], difference: Difference | None) -> Candidate:
    return Candidate(
        name=_name(row),
        quality=row["mean"],
        low=row["low"],
        high=row["high"],
        media=row["pesq_wb"],
        delay_ms=row["delay_p95"],
        wire_kbps=row["wire"],
        missing_percent=row["missing"],
        n=row["n"],
        utterances=row["utterances"],
        difference=difference,
    )


def _key(row: Mapping[Hashable, Any]) -> str:
    """A configuration's name as one word, for tables whose entries are words."""
    return "\0".join(_name(row))


def _name(row: Mapping[Hashable, Any]) -> Name:
    return row["transport"], row["receiver"], row["codec"]


def _last(value: float) -> float:
    return np.inf if np.isnan(value) else round(value)
