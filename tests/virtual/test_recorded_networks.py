"""Every sample of a recorded network, run as one: the link does what the recording says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from harness.run import Options, run
from harness.store import load

MIRROR = os.environ.get("HARNESS_MIRROR")
SAMPLES = Path(MIRROR or ".") / "traces"
FORMATS = {
    "loss/*.txt": {"format": "loss", "interval": "20ms"},
    "mahimahi/*.gz": {"format": "mahimahi", "offset": "10s"},
    "opennetlab/*.json": {"format": "opennetlab", "queue": "500ms"},
    "rtpdump/*.csv": {"format": "arrivals"},
    "rtpdump/*.rtp": {"format": "rtpdump"},
}


class Silent:
    def note(self, text: str) -> None: ...
    def phase(self, name: str, total: int) -> None: ...
    def step(self, text: str, *, trouble: bool = False) -> None: ...


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="HARNESS_MIRROR has no sample traces")
def test_every_sample_trace_runs_as_a_network(tmp_path: Path) -> None:
    networks = []
    for pattern, options in FORMATS.items():
        found = sorted(SAMPLES.glob(pattern))
        assert found, pattern
        for path in found:
            name = path.name.removesuffix(".gz").replace("_", "-")
            trace = {**options, "file": str(path), "end": "loop"}
            networks.append({"name": name, "forward": {"delay": "20ms", "trace": trace}})
    scenario = {
        "name": "samples",
        "controls": False,
        "metrics": ["stoi"],
        "compute": "zero",
        "corpus": [{"corpus": "librispeech", "limit": 1}],
        "codecs": [{"codec": "g711", "name": "g711"}],
        "transports": ["udp"],
        "networks": networks,
    }
    path = tmp_path / "samples.yaml"
    path.write_text(yaml.safe_dump(scenario), encoding="utf-8")
    outcome = run(Options(path, tmp_path, "virtual", jobs=1), Silent())
    cells = load(outcome.directory).cells
    trouble = cells[cells["status"] != "ok"]
    assert trouble.empty, trouble[["network", "status", "reason"]].to_string()
    assert len(cells) == len(networks) >= 28
    assert set(cells["impairment"]) == {"recorded", "per-packet+recorded"}
    for figures in cells["proof"]:
        judged = [figure["figure"] for figure in json.loads(figures) if figure["ok"]]
        assert judged, "nothing of the recording was held against the packets"
