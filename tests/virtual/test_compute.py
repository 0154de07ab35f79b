"""What codec calls cost: nothing, what they took, or a draw from what they once took."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness import codecs
from harness.errors import BadInput, Unsupported
from harness.profiling import record, usual
from harness.records import Observed
from harness.virtual.compute import COMPUTES, compute
from harness.virtual.profile import LEVELS, ROLES, SHIPPED, Overheads, Profile, Record, dump, load
from tests.virtual.streams import MS, codec, streamed

STEPS = tuple(round(1000 * (1 + level)) for level in LEVELS)
"""Quantiles of what is uniform from 1000 ns to 2000 ns."""


def params(kind: str = "pcm", **given: object) -> codecs.Params:
    return codecs.params_class(kind)(**given)


def recorded(kind: str, frame_ns: int = 20 * MS, factor: int = 1, **matters: object) -> Record:
    return Record(
        kind, matters, frame_ns, {role: tuple(factor * s for s in STEPS) for role in ROLES}
    )


def profile(*records: Record) -> Profile:
    return Profile({"cpu": "none"}, Overheads(wake_ns=5000), records)


def costs(observed: Observed) -> np.ndarray:
    return observed.sent_frames["encode_end_ns"] - observed.sent_frames["encode_start_ns"]


def same(one: Observed, other: Observed) -> bool:
    tables = ("sent_packets", "sent_frames", "received_packets", "played_frames", "link_log")
    return all(
        np.array_equal(column, getattr(other, table)[name])
        for table in tables
        for name, column in getattr(one, table).items()
    ) and np.array_equal(one.played, other.played)


def test_zero_costs_nothing() -> None:
    made = compute("zero", "pcm", params(), codec(), profile())
    assert not costs(streamed(compute=made)).any()


def test_measured_costs_what_the_calls_took() -> None:
    made = compute("measured", "pcm", params(), codec(), profile())
    observed = streamed(compute=made, frames=50)
    assert costs(observed).min() > 0
    assert observed.sender["encode_wall_ns"] == costs(observed).sum()
    assert not same(observed, streamed(compute=made, frames=50))


def test_a_profile_is_drawn_from_its_quantiles_and_its_seed() -> None:
    made = compute("profile", "pcm", params(), codec(), profile(recorded("pcm")))
    observed = streamed(compute=made, frames=2000)
    drawn = costs(observed)
    assert drawn.min() >= 1000
    assert drawn.max() < 2000
    measured = np.quantile(drawn, LEVELS)
    # The recorded tail ends at its last level; 4 sigma of 2000 draws is below 50 ns.
    assert np.abs(measured - STEPS).max() < 50
    assert same(observed, streamed(compute=made, frames=2000))
    assert not same(observed, streamed(compute=made, frames=2000, seed=2))


def test_the_nearest_record_counts_in_proportion_to_the_frame() -> None:
    known = profile(
        recorded("pcm", 20 * MS, 1, frame=20 * MS),
        recorded("pcm", 60 * MS, 100, frame=60 * MS),
        recorded("g711", 20 * MS, 7),
    )
    assert known.timing("pcm", params(frame=10 * MS), 10 * MS)["decode"][0] == 500
    assert known.timing("pcm", params(frame=50 * MS), 50 * MS)["decode"][0] == 100_000 * 50 // 60


def test_what_is_yes_or_no_is_never_near_enough() -> None:
    known = profile(recorded("opus", fec=False, complexity=10))
    plain = params("opus", complexity=5)
    assert known.timing("opus", plain, 20 * MS)["encode"][0] == 1000
    with_fec = params("opus", fec=True, expected_loss=0.1)
    with pytest.raises(Unsupported, match=r"does not know opus.*harness profile"):
        known.timing("opus", with_fec, 20 * MS)


def test_an_unknown_codec_is_unsupported_with_the_remedy() -> None:
    with pytest.raises(Unsupported, match=r"harness profile FILE.*compute: measured"):
        compute("profile", "pcm", params(), codec(), profile(recorded("opus")))


def test_the_usual_settings_are_legal() -> None:
    for kind, written in usual():
        assert params(kind, **written)


def test_an_unknown_compute_is_refused() -> None:
    with pytest.raises(BadInput, match=f"one of {', '.join(COMPUTES)}, got 'fast'"):
        compute("fast", "pcm", params(), codec(), profile())


def test_a_profile_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    known = profile(recorded("pcm", rate=16_000), recorded("opus", fec=True, application="voip"))
    path.write_text(dump(known))
    assert load(path) == known


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("encode_us: [", "encode_us: [1, "),
        lambda text: text.replace("params", "settings"),
        lambda text: text.replace("[1.0,", "[one,"),
    ],
)
def test_a_damaged_profile_is_refused_by_name(tmp_path: Path, damage) -> None:
    path = tmp_path / "damaged.yaml"
    path.write_text(damage(dump(profile(recorded("pcm")))))
    with pytest.raises(BadInput, match=r"damaged\.yaml"):
        load(path)


ONLY_STOOD_IN_FOR = {"mimi", "snac", "dac", "esc", "wavtokenizer"}
"""Their random models are smaller than the real ones, whose cost theirs would belie."""


def test_the_shipped_profile_knows_every_codec_and_says_where_it_is_from() -> None:
    shipped = load(SHIPPED)
    assert shipped.provenance["cpu"]
    for kind in codecs.names():
        if kind in ONLY_STOOD_IN_FOR:
            with pytest.raises(Unsupported, match="compute: measured"):
                shipped.timing(kind, params(kind), 20 * MS)
        else:
            shipped.timing(kind, params(kind), 20 * MS)


def test_recording_measures_every_call() -> None:
    speech = np.random.default_rng(1).normal(0, 3000, 4_000).astype(np.int16)
    noted: list[str] = []
    wanted = [("g711", params("g711", frame=10 * MS)), ("encodec", params("encodec"))]

    def weights(name: str) -> Path:
        raise Unsupported(f"{name} is not here")

    made = record(profile(recorded("pcm")), wanted, lambda _: speech, weights, noted.append)
    assert [one.kind for one in made.records] == ["pcm", "g711"]
    assert made.records[1].params == {"frame": 10 * MS}
    for quantiles in made.records[1].times_ns.values():
        assert list(quantiles) == sorted(quantiles)
        assert quantiles[0] > 0
    assert any("encodec" in note for note in noted), "what cannot run here is said"
