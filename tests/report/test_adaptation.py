"""Transports against the plain one, and rates over time, from tables made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.report import adaptation, tables
from harness.store import Tables, schema
from harness.store.tables import from_rows, to_pandas

UTTERANCES = [f"u{n}" for n in range(8)]
FRAME_NS = 20_000_000
FRAMES = 100
"""Of a cell: 2 s."""
CELLS = {
    # transport: PESQ-WB, concealed, recovered, wire (bit/s), target over time, extra packets
    "plain": (2.0, 0.10, 0.0, 40_000.0, (24_000, 24_000), {}),
    "parity": (3.0, 0.01, 0.09, 60_000.0, (24_000, 24_000), {("parity", "spare"): 50}),
    "nack": (
        *(2.1, 0.09, 0.0, 45_000.0, (24_000, 24_000)),
        {("retransmission", fate): n for fate, n in
         [("played", 4), ("reordered", 1), ("spare", 2), ("late", 3), ("queue", 6)]},
    ),
    "adapt": (1.5, 0.10, 0.0, 30_000.0, (24_000, 8_000), {}),
}  # fmt: skip
_PLAIN = {"codec": "opus", "network": "n", "receiver": "r", "status": "ok", "kind": "speech",
          "repetition": 0, "link_asked": "{}"}  # fmt: skip
_SCORES = (("pesq", "wb", "media"), ("concealment_ratio", "", ""), ("fec_ratio", "", ""),
           ("bitrate", "wire", ""), ("mouth_to_ear", "p50", ""))  # fmt: skip


def run_of(transports: list[str]) -> Tables:
    rows: dict[str, list[dict]] = {name: [] for name in schema.TABLES}
    rows["runs"] = [{"run_id": "r"}]
    for transport in transports:
        *values, wire, targets, extra = CELLS[transport]
        for number, utterance in enumerate(UTTERANCES):
            cell = f"{transport}-{utterance}"
            rows["cells"].append(
                _PLAIN | {"cell_id": cell, "transport": transport, "utterance": utterance,
                          "block": utterance}
            )  # fmt: skip
            figures = [*values, wire, 100.0 + 20 * (transport == "parity")]
            figures[0] += number / 100
            rows["scores"] += [
                {"cell_id": cell, "metric": metric, "mode": mode, "track": track, "value": value}
                for (metric, mode, track), value in zip(_SCORES, figures, strict=True)
            ]
            for k in range(FRAMES):
                target = targets[k * 2 // FRAMES]
                media = {"cell_id": cell, "frame": k, "media_ns": k * FRAME_NS}
                rows["packets"].append(
                    media | {"seq": k, "purpose": "media", "fate": "played",
                             "transit_ns": 30_000_000 + 10_000_000 * (k >= 50)}
                )  # fmt: skip
                rows["frames"].append(
                    media | {"kind": "concealed" if k % 10 == 0 else "decoded",
                             "payload_bytes": target // 400, "target_bps": target,
                             "mouth_to_ear_ns": None if k % 10 == 0 else 120_000_000}
                )  # fmt: skip
            rows["packets"] += [
                {"cell_id": cell, "frame": 0, "media_ns": 0, "seq": 10**6 + n, "purpose": purpose,
                 "fate": fate, "transit_ns": None}
                for (purpose, fate), count in extra.items() for n in range(count)
            ]  # fmt: skip
    return Tables(**{name: to_pandas(from_rows(name, made)) for name, made in rows.items()})


@pytest.fixture(scope="module")
def run() -> Tables:
    return run_of(list(CELLS))


@pytest.fixture(scope="module")
def sending(run: Tables) -> pd.DataFrame:
    return adaptation.sent(run)


def test_the_plain_transport_sends_media_alone_at_one_rate(
    run: Tables, sending: pd.DataFrame
) -> None:
    assert adaptation.plain_transport(run, sending) == "plain"
    adapts = sending.set_index("transport")["adapts"].to_dict()
    assert adapts == {"plain": False, "parity": False, "nack": False, "adapt": True}
    alone = run_of(["plain"])
    assert adaptation.plain_transport(alone, adaptation.sent(alone)) is None
    bare = run_of(["parity", "adapt"])
    assert adaptation.plain_transport(bare, adaptation.sent(bare)) is None


def test_every_transport_stands_against_the_plain_one_in_pairs(
    run: Tables, sending: pd.DataFrame
) -> None:
    found = adaptation.protection_of(run, sending, ["n"], sorted(CELLS))
    assert found is not None
    assert (found.plain, found.tested) == ("plain", True)
    rows = {row["name"]: row for row in found.rows}
    assert list(rows) == ["plain", "adapt", "nack", "parity"]
    parity = rows["parity"]
    assert parity["overhead"] == pytest.approx(50)
    assert parity["means"]["fec"] == pytest.approx(9)
    gained = parity["differences"]["pesq_wb"]
    assert gained["told_apart"]
    assert (gained["low"], gained["mean"], gained["high"]) == pytest.approx((1, 1, 1))
    assert parity["differences"]["delay_p50"]["mean"] == pytest.approx(20)
    assert parity["resent"] is None
    # By fate per 100 packets: played (reordered ones too), spare, late, and what never came.
    assert rows["nack"]["resent"] == pytest.approx([5, 2, 3, 6])
    assert rows["adapt"]["differences"]["pesq_wb"]["mean"] == pytest.approx(-0.5)
    assert rows["plain"]["differences"]["pesq_wb"] is None


def test_nothing_is_said_where_nothing_protects() -> None:
    run = run_of(["plain"])
    sending = adaptation.sent(run)
    assert adaptation.protection_of(run, sending, ["n"], ["plain"]) is None
    assert adaptation.adaptation_of(run, sending, ["n"], ["plain"]) is None


def test_a_rate_is_drawn_over_time_beside_the_plain_one(run: Tables, sending: pd.DataFrame) -> None:
    found = adaptation.course(run, [f"adapt-{name}" for name in UTTERANCES])
    assert found["second"].tolist() == [0.0, 0.5, 1.0, 1.5]
    np.testing.assert_allclose(found["target_kbps"], [24, 24, 8, 8])
    np.testing.assert_allclose(found["sent_kbps"], [24, 24, 8, 8])
    np.testing.assert_allclose(found["delay_ms"], 120)
    np.testing.assert_allclose(found["transit_ms"], [30, 30, 40, 40])
    assert found["concealed"].mean() == pytest.approx(0.1, abs=0.01)
    drawn = adaptation.adaptation_of(run, sending, ["n"], sorted(CELLS))
    assert drawn is not None
    assert [name for name, _ in drawn.key] == ["adapt", "plain"]
    assert len(drawn.drawings) == 3
    assert all("<svg" in one.svg and "8 cells" in one.note for one in drawn.drawings)


def test_packets_that_protect_have_no_place_among_the_fates_of_media(run: Tables) -> None:
    for utterance in UTTERANCES:
        assert tables.fate_runs(run, f"parity-{utterance}") == []
