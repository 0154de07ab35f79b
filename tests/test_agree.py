"""``harness agree``: legs run here and elsewhere, compared, and what cannot be compared refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from harness import cli
from harness.agree import Wanted, agree, compare_runs, possible
from harness.errors import BadInput
from harness.report.agreement import markdown
from harness.run import Options, run
from harness.store import Tables, load
from tests.report.small_run import SmallRun
from tests.score.signals import RATE_HZ, speech
from tests.test_probe_loss import Silent

SCENARIO = """
name: tiny
corpus: [{folder: audio}]
codecs: [pcm, {codec: g711, frame: 30ms, name: tele}]
transports: [udp]
networks:
  - {name: bursts, both: {delay: 5ms}, forward: {loss: {model: media-time, loss: 20%, burst: 80ms}}}
metrics: [stoi]
controls: false
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario of two utterances, two codecs and one network."""
    root = tmp_path_factory.mktemp("tiny")
    (root / "audio").mkdir()
    for seed, name in enumerate(("anna", "bert")):
        soundfile.write(root / "audio" / f"{name}.wav", speech(3.0, seed=seed + 1), RATE_HZ)
    (root / "tiny.yaml").write_text(SCENARIO, encoding="utf-8")
    return root / "tiny.yaml"


@pytest.fixture(scope="session")
def virtual_run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = Options(tiny, tmp_path_factory.mktemp("before"), "virtual", jobs=1)
    return run(options, Silent()).directory


def test_a_leg_run_here_joins_one_from_before(
    tiny: Path, virtual_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = ["agree", str(tiny), "--labs", "virtual", "--with", str(virtual_run), "--jobs", "1"]
    assert cli.main([*written, "--out", str(tmp_path)]) == cli.EXIT_OK
    said = capsys.readouterr().out
    assert "0 differ" in said
    (directory,) = tmp_path.glob("agree-tiny-*")
    figures = pd.read_parquet(directory / "agreement.parquet")
    assert (figures["difference"] == 0).all(), "the virtual lab repeats itself"
    assert set(figures["figure"]) > {"delay_p50", "loss", "burst", "stoi", "mouth_to_ear_p95"}
    fates = pd.read_parquet(directory / "fates.parquet")
    assert fates["lossy"].sum() == fates["identical"].sum() > 0
    assert fates["promised"].all()
    text = (directory / "agree.md").read_text(encoding="utf-8")
    assert "| network | codec |" in text
    assert "Agreement: tiny" in (directory / "agree.html").read_text(encoding="utf-8")
    legs = json.loads((directory / "legs.json").read_text(encoding="utf-8"))
    assert [leg["kind"] for leg in legs] == ["virtual/model"] * 2
    assert len({leg["name"] for leg in legs}) == 2
    assert not (tmp_path / "latest").exists(), "legs are no runs of their own"


@pytest.mark.netns
def test_virtual_and_relay_lose_the_same_packets(
    tiny: Path, virtual_run: Path, tmp_path: Path
) -> None:
    outcome = agree(Wanted(tiny, ("netns/relay",), (virtual_run,), tmp_path, jobs=4), Silent())
    fates = outcome.compared.fates
    assert fates["lossy"].sum() == fates["identical"].sum() > 0
    assert fates["shared"].sum() == fates["packets"].sum() > 0
    loss = outcome.compared.figures.query("figure == 'loss'")
    assert loss["difference"].abs().max() < 5


def changed(tables: Tables, **parts: pd.DataFrame) -> Tables:
    names = ("runs", "cells", "packets", "frames", "scores")
    return Tables(**{name: parts.get(name, getattr(tables, name)) for name in names})


def test_other_packets_lost_under_one_trace_break_a_promise(
    virtual_run: Path, tmp_path: Path
) -> None:
    tables = load(virtual_run)
    packets = tables.packets
    packets.loc[packets.index[packets["fate"] == "lost"][0], "fate"] = "played"
    paths = (virtual_run, tmp_path)

    def broken(runs: pd.DataFrame) -> tuple[bool, bool]:
        legs = (tables, changed(tables, packets=packets, runs=runs))
        found = compare_runs(list(zip(paths, legs, strict=True)))
        assert "✗" in markdown("tiny", found) or not found.fates["broken"].any()
        return bool(found.fates["promised"].any()), bool(found.fates["broken"].any())

    assert broken(tables.runs) == (True, True)
    assert broken(tables.runs.assign(lab="netns", link="relay")) == (True, True)
    assert broken(tables.runs.assign(lab="netns", link="netem")) == (False, False)


def test_what_is_not_ok_is_counted_and_said(tmp_path: Path) -> None:
    run_dir = SmallRun(audio=False).write(tmp_path)
    found = compare_runs([(run_dir, load(run_dir))] * 2)
    text = markdown("small", found)
    counts = load(run_dir).cells["status"].value_counts()
    assert f"{counts['failed']} failed, {counts['invalid']} invalid" in text
    assert all(leg.shared == counts["ok"] for leg in found.legs)
    assert "encodec over tcp" in text


def test_what_cannot_be_compared_is_refused(tiny: Path, virtual_run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="two legs at least, got virtual"):
        agree(Wanted(tiny, ("virtual",), out=tmp_path), Silent())
    with pytest.raises(BadInput, match="--labs: expected some of virtual, netns/relay"):
        agree(Wanted(tiny, ("virtual", "netns"), out=tmp_path), Silent())
    with pytest.raises(BadInput, match="expected a scenario FILE"):
        agree(Wanted(None, ("virtual",), (virtual_run,), tmp_path), Silent())
    with pytest.raises(BadInput, match="expected the directory of a run"):
        agree(Wanted(tiny, (), (virtual_run, tmp_path), tmp_path), Silent())
    other = SmallRun(audio=False).write(tmp_path / "other")
    with pytest.raises(BadInput, match="expected cells that are ok here and in"):
        agree(Wanted(None, (), (virtual_run, other), tmp_path), Silent())


def test_the_virtual_lab_can_run_anywhere() -> None:
    can, cannot = possible()
    assert can[0] == "virtual"
    assert {*can, *cannot} == {
        "virtual",
        "netns/relay",
        "netns/netem",
        "docker/relay",
        "docker/netem",
    }
    assert not set(can) & set(cannot)
    assert all(cannot.values())
