"""One lost packet, from the command line to the page, and codec by codec what it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from harness import assets, cli
from harness.errors import BadInput
from harness.media.settings import ReceiverSettings
from harness.probe_loss import HORIZON_S, Loss, Options, Task, probe, probe_loss
from harness.scenario import CodecEntry
from harness.score.damage import positions
from harness.transports.base import TransportSettings
from tests.report.small_run import SmallRun
from tests.score.signals import RATE_HZ, speech

SECONDS = 5.0
SCENARIO = """
name: probed
corpus: [{folder: audio}]
codecs:
  - pcm
  - {codec: g711, name: tele, frame: 10ms}
  - {codec: encodec, bitrate: 24kbit}
transports: [tcp, udp]
networks: [clean]
receivers:
  - {name: silent, jitter_buffer: {mode: adaptive, start: 80ms}, concealment: zero}
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario with two utterances of its own, and one that is too short."""
    root = tmp_path_factory.mktemp("probed")
    (root / "audio").mkdir()
    for seed, (name, seconds) in enumerate((("anna", SECONDS), ("bert", SECONDS), ("c", 0.5))):
        soundfile.write(root / "audio" / f"{name}.wav", speech(seconds, seed=seed + 1), RATE_HZ)
    (root / "probed.yaml").write_text(SCENARIO, encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def reference(folder: Path) -> assets.Prepared:
    path = folder / "audio" / "anna.wav"
    item = assets.ItemRef(id="anna", corpus="own", kind="speech", source=str(path))
    return assets.prepare(item, assets.AssetStore(folder / "cache"))


def probed(
    reference: assets.Prepared, codec: str, concealment: Any = "codec", **params: Any
) -> list[Loss]:
    entry = CodecEntry.model_validate({"codec": codec, **params})
    receiver = ReceiverSettings(concealment=concealment)
    places = positions(reference.pcm, reference.rate_hz, 3, "1", SECONDS - HORIZON_S)
    return probe(Task(entry, (), reference, tuple(places), receiver, TransportSettings()))


@pytest.mark.parametrize(("codec", "frame_ms"), [("pcm", 20), ("g711", 10), ("pcm", 60)])
def test_a_codec_without_memory_loses_its_frame_and_no_more(
    reference: assets.Prepared, codec: str, frame_ms: int
) -> None:
    for loss in probed(reference, codec, "zero", frame=f"{frame_ms}ms"):
        assert loss.damage.exact_ms == pytest.approx(frame_ms, abs=0.5)
        assert loss.damage.recover_ms is not None
        assert loss.damage.recover_ms <= frame_ms
        worst_20_ms_db = 10 * np.log10(min(1, frame_ms / 20))
        assert loss.damage.depth_db == pytest.approx(worst_20_ms_db, abs=4)


def test_a_codec_with_memory_takes_longer(reference: assets.Prepared) -> None:
    without, with_memory = (
        np.mean([loss.damage.exact_ms or HORIZON_S * 1000 for loss in probed(reference, codec)])
        for codec in ("g711", "g722")
    )
    assert with_memory > 5 * without


def test_redundancy_makes_a_loss_shallower(reference: assets.Prepared) -> None:
    plain, with_fec = (
        np.mean([loss.damage.depth_db for loss in probed(reference, "opus", **params)])
        for params in ({}, {"fec": True, "expected_loss": "20%"})
    )
    assert with_fec < plain - 3


def test_a_packet_of_several_fragments_is_lost_whole(reference: assets.Prepared) -> None:
    for loss in probed(reference, "pcm", "zero", frame="60ms", rate="48kHz"):
        assert loss.damage.exact_ms == pytest.approx(60, abs=0.5)


def test_from_the_command_line_to_the_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = ["--utterances", "3", "--positions", "2", "--jobs", "1"]
    scenario = str(folder / "probed.yaml")
    assert cli.main(["probe-loss", scenario, *written, "--out", str(tmp_path)]) == cli.EXIT_OK
    said = capsys.readouterr()
    assert "tele" in said.out
    assert "encodec-24kbit" in said.err, "whose weights nobody accepted"
    (directory,) = tmp_path.glob("probe-loss-*")
    curves = pd.read_parquet(directory / "probe_loss.parquet")
    assert [*curves] == [
        *("codec", "codec_kind", "params", "weights", "utterance", "position", "offset_ms"),
        *("t_ms", "damage_db"),
    ]
    places = curves.groupby(["utterance", "position"])["offset_ms"].unique()
    assert len(places) == 4
    assert (places.map(len) == 1).all(), "the same media for every codec"
    assert curves.groupby(["codec", "utterance", "position"]).size().eq(HORIZON_S * 200).all()
    assert json.loads(curves["params"].iloc[-1])["frame"] == "10ms"
    summary = pd.read_parquet(directory / "probe_loss_summary.parquet").set_index("codec")
    assert summary["exact_ms"].to_dict() == pytest.approx({"pcm": 20, "tele": 10}, abs=0.5)
    facts = json.loads((directory / "probe_loss.json").read_text(encoding="utf-8"))
    assert facts["receiver"]["mode"] == "fixed"
    assert facts["receiver"]["concealment"] == "zero"
    assert set(facts["items"]) == {"anna", "bert"}
    html = (directory / "probe-loss.html").read_text(encoding="utf-8")
    assert "encodec-24kbit was not probed" in html
    assert html.count("<svg") == 1
    assert (directory / "probe-loss.svg").read_text(encoding="utf-8").startswith("<svg")


def test_tables_join_a_run_and_are_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    run = SmallRun(utterances=("anna",), audio=False).write(tmp_path)
    options = Options(folder / "probed.yaml", ("tele",), 1, 2, tmp_path, into=run, jobs=1)
    first = probe_loss(options, Silent())
    assert first.page == run.resolve() / "report.html"
    tables = [(run / name).read_bytes() for name in TABLES]
    probe_loss(options, Silent())
    assert tables == [(run / name).read_bytes() for name in TABLES]


def test_what_cannot_be_probed_is_said(folder: Path, tmp_path: Path) -> None:
    scenario = folder / "probed.yaml"
    with pytest.raises(BadInput, match="--codec: expected names among pcm, tele"):
        probe_loss(Options(scenario, ("pmc",), out=tmp_path), Silent())
    with pytest.raises(BadInput, match="expected the directory of a run"):
        probe_loss(Options(scenario, into=tmp_path), Silent())
    short = scenario.with_name("short.yaml")
    text = SCENARIO.replace("{folder: audio}", "{folder: brief}")
    short.write_text(text, encoding="utf-8")
    (folder / "brief").mkdir()
    soundfile.write(folder / "brief" / "c.wav", speech(0.6), RATE_HZ)
    with pytest.raises(BadInput, match=r"at least 2\.2 s before the end"):
        probe_loss(Options(short, out=tmp_path), Silent())


TABLES = ("probe_loss.parquet", "probe_loss_summary.parquet")


class Silent:
    def note(self, text: str) -> None: ...
    def phase(self, name: str, total: int) -> None: ...
    def step(self, text: str, *, trouble: bool = False) -> None: ...
