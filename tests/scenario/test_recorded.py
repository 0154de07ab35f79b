"""Recorded networks as a scenario names them."""

from __future__ import annotations

import gzip
import hashlib
import time
from pathlib import Path

import pytest

from harness.errors import AssetError, ScenarioError
from harness.network.link import Link, LinkPair, Replay
from harness.scenario import Fetch, Scenario, config_sha256, load, loads

MS = 1_000_000
S = 1_000_000_000
TEXT = """\
name: t
corpus: [librispeech]
codecs: [pcm]
transports: [udp]
networks:
  - name: n
    %s
"""
CSV = "time_s,rate_bps,delay_ms,loss\n0,2000000,30,0\n1,1000000,50,0.1\n4,,,\n"
FILES = {
    "rates.csv": CSV,
    "losses.csv": "time_s,loss\n0,0\n1,1\n2,\n",
    "delays.csv": "time_s,delay_ms\n0,10\n1,40\n2,\n",
    "losses.txt": "0\n1\n0\n0\n",
    "lte.down": "0\n10\n10\n35\n80\n",
    "steps.json": '{"uplink": {"trace_pattern": [{"duration": 2000, "capacity": 300}]},'
    ' "downlink": {"trace_pattern": [{"duration": 2000, "capacity": 900}]}}',
    "call.csv": "arrival_ms,seq,rtp_timestamp\n0,1,0\n20,2,160\n45,3,320\n80,5,640\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def read(link: str, folder: Path, fetch: Fetch | None = None) -> Scenario:
    return loads(TEXT % link, "s.yaml", folder, fetch)


def pair(link: str, folder: Path) -> LinkPair:
    return read(link, folder).networks[0].pair


def replay(trace: str, folder: Path) -> Replay:
    found = pair(f"forward: {{trace: {{{trace}}}}}", folder).forward.replay
    assert found is not None
    return found


def mistakes(link: str, folder: Path, fetch: Fetch | None = None) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        read(link, folder, fetch)
    return caught.value.mistakes


class TestForms:
    def test_every_key(self, folder: Path) -> None:
        found = replay(
            "format: csv, file: rates.csv, offset: 1s, end: loop, hits: instant, queue: 80ms",
            folder,
        )
        recording = found.recording
        assert (recording.format, recording.duration_ns) == ("csv", 4 * S)
        assert recording.sha256 == hashlib.sha256(CSV.encode()).hexdigest()
        assert recording.rate_bps == (2_000_000, 1_000_000)
        assert found == Replay(recording, 1 * S, "loop", "instant", queue_ns=80 * MS)

    @pytest.mark.parametrize(
        ("trace", "queue"),
        [
            ("format: csv, file: rates.csv", (300 * MS, None)),
            ("format: csv, file: rates.csv, queue: 20kB", (None, 20_000)),
            ("format: opennetlab, file: steps.json, part: downlink", (300 * MS, None)),
            ("format: mahimahi, file: lte.down", (None, 150_000)),
            ("format: mahimahi, file: lte.down, queue: 40kB", (None, 40_000)),
            ("format: csv, file: losses.csv", (None, None)),
            ("format: loss, file: losses.txt, interval: 20ms", (None, None)),
            ("format: arrivals, file: call.csv, clock: 8kHz", (None, None)),
        ],
    )
    def test_a_recorded_rate_has_a_queue_before_it(
        self, folder: Path, trace: str, queue: tuple[int | None, int | None]
    ) -> None:
        found = replay(trace, folder)
        assert (found.queue_ns, found.queue_bytes) == queue
        assert (found.offset_ns, found.end, found.hits) == (0, "error", "instant")
        assert found.spread

    def test_it_begins_where_it_is_told_or_anywhere(self, folder: Path) -> None:
        begun = {
            offset: replay(f"format: csv, file: rates.csv, offset: {offset}", folder)
            for offset in ("0s", "1.5s", "spread")
        }
        assert {offset: (one.offset_ns, one.spread) for offset, one in begun.items()} == {
            "0s": (0, False),
            "1.5s": (1_500 * MS, False),
            "spread": (0, True),
        }

    def test_options_reach_the_reader(self, folder: Path) -> None:
        one, two = (
            replay(f"format: loss, file: losses.txt, interval: {interval}", folder).recording
            for interval in ("20ms", "60ms")
        )
        assert (one.duration_ns, two.duration_ns) == (80 * MS, 240 * MS)
        up, down = (
            replay(f"format: opennetlab, file: steps.json, part: {part}", folder).recording
            for part in ("uplink", "downlink")
        )
        assert (up.rate_bps, down.rate_bps) == ((300_000,), (900_000,))

    def test_beside_keys_of_its_own(self, folder: Path) -> None:
        trace = "trace: {format: csv, file: losses.csv}"
        link = pair(f"forward: {{delay: 9ms, duplicate: 1%, {trace}}}", folder).forward
        assert (link.delay_ns, link.duplicate) == (9 * MS, 0.01)
        with_rate = f"forward: {{rate: {{rate: 1mbit, latency: 13ms}}, {trace}}}"
        assert pair(with_rate, folder).forward.rate is not None

    def test_the_way_back_is_not_recorded(self, folder: Path) -> None:
        trace = "trace: {format: csv, file: rates.csv}"
        assert pair(f"forward: {{delay: 9ms, {trace}}}", folder).reverse == Link(9 * MS)
        both = pair(f"both: {{{trace}}}", folder)
        assert both.forward == both.reverse != Link()

    def test_taken_off_again(self, folder: Path) -> None:
        trace = "trace: {format: csv, file: rates.csv}"
        assert pair(f"both: {{{trace}}}\n    reverse: {{trace: null}}", folder).reverse == Link()

    def test_relative_to_the_scenario(self, folder: Path) -> None:
        path = folder / "s.yaml"
        path.write_text(TEXT % "forward: {trace: {format: csv, file: rates.csv}}")
        replayed = load(path).networks[0].pair.forward.replay
        assert replayed is not None
        assert replayed.recording.duration_ns == 4 * S

    def test_a_file_may_have_a_sha256(self, folder: Path) -> None:
        sha256 = hashlib.sha256(CSV.encode()).hexdigest()
        replay(f"format: csv, file: rates.csv, sha256: {sha256}", folder)
        (found,) = mistakes(
            f"forward: {{trace: {{format: csv, file: rates.csv, sha256: {'a' * 64}}}}}", folder
        )
        assert f".trace.sha256: expected the sha256 of the file, {sha256}" in found

    def test_a_recording_is_read_once_however_often_it_is_used(self, folder: Path) -> None:
        text = TEXT % "forward: {trace: {format: csv, file: rates.csv}}"
        text += (
            "sweeps: [{name: o, axis: network, entry: n, set: forward.trace.offset,"
            " values: [0s, 1s, 2s]}]\n"
        )
        replays = [n.pair.forward.replay for n in loads(text, "s", folder).networks]
        assert len({id(one.recording) for one in replays if one}) == 1
        assert [one.offset_ns for one in replays if one] == [0, S, 2 * S]


class TestUrl:
    LINK = "forward: {trace: {format: csv, url: 'https://x.org/t.csv', sha256: %s}}"

    def test_it_is_fetched(self, folder: Path) -> None:
        data = gzip.compress(CSV.encode(), mtime=0)
        sha256 = hashlib.sha256(data).hexdigest()
        asked = []

        def fetch(*wanted: str) -> bytes:
            asked.append(wanted)
            return data

        link = read(self.LINK % sha256, folder, fetch).networks[0].pair.forward
        assert asked == [("https://x.org/t.csv", sha256)]
        assert link.replay is not None
        assert link.replay.recording.rate_bps == (2_000_000, 1_000_000)

    def test_what_comes_is_held_against_the_sha256(self, folder: Path) -> None:
        (found,) = mistakes(self.LINK % ("a" * 64), folder, lambda *_: CSV.encode())
        assert ".trace.sha256: expected the sha256 of the file" in found

    def test_it_cannot_be_had(self, folder: Path) -> None:
        def fetch(url: str, _: str) -> bytes:
            raise AssetError(f"cannot download {url}")

        (found,) = mistakes(self.LINK % ("a" * 64), folder, fetch)
        assert found.endswith(".trace.url: cannot download https://x.org/t.csv")
        (found,) = mistakes(self.LINK % ("a" * 64), folder)
        assert "got https://x.org/t.csv, which nothing here can fetch" in found


class TestMistakes:
    @pytest.mark.parametrize(
        ("trace", "said"),
        [
            ("format: csv", ': expected one of "file" and "url"'),
            ("format: csv, file: a, url: 'https://x'", ': expected one of "file" and "url"'),
            ("format: csv, url: 'https://x.org/a'", ': expected "sha256" beside "url"'),
            ("format: csv, url: 'ftp://x', sha256: ''", ".url: expected a URL that begins with"),
            ("format: csv, file: rates.csv, sha256: abc", ".sha256: expected 64 hexadecimal"),
            ("file: rates.csv", ': expected the key "format", which is missing'),
            ("format: cvs, file: rates.csv", 'got "cvs"; did you mean "csv"?'),
            ("format: csv, fil: rates.csv", 'got "fil"; did you mean "file"?'),
            ("format: csv, file: rates.csv, end: lop", '"stop", got "lop"; did you mean "loop"?'),
            ("format: csv, file: rates.csv, part: uplink", '.part: expected "part" beside "format'),
            ("format: csv, file: rates.csv, clock: 8kHz", '.clock: expected "clock" beside "forma'),
            ("format: csv, file: rates.csv, interval: 9ms", ".interval: expected"),
            ("format: loss, file: losses.txt", ': expected "interval" (between packets) beside'),
            ("format: csv, file: rates.csv, offset: 4s", ".offset: expected less than the rec"),
            ("format: csv, file: rates.csv, offset: spred", '.offset: expected "spread" or a dur'),
            ("format: csv, file: rates.csv, offset: 4", '.offset: expected "spread" or a dur'),
            ("format: csv, file: rates.csv, queue: 1kB", ".queue: expected at least 1514B (one"),
            ("format: csv, file: rates.csv, queue: 20", ".queue: expected a duration such as"),
            ("format: csv, file: losses.csv, queue: 20ms", ".queue: expected a queue beside a"),
            ("format: csv, file: delays.csv, hits: media", ".hits: expected hits beside a rec"),
            ("format: mahimahi, file: lte.down, queue: 20ms", '.queue: expected a size such as "1'),
            ("format: csv, file: none.csv", ".file: "),
            ("format: csv, file: .", ".file: "),
            ('format: csv, file: "a\\0b"', ".file: "),
        ],
    )
    def test_each_at_its_place(self, folder: Path, trace: str, said: str) -> None:
        found = mistakes(f"forward: {{trace: {{{trace}}}}}", folder)
        assert all(line.startswith("s.yaml:7: $.networks[0].forward.trace") for line in found)
        assert any(said in line for line in found), found

    def test_of_the_file_with_its_own_lines(self, folder: Path) -> None:
        (folder / "bad.csv").write_text("time_s,loss\n0,2\n1,x\n2,\n")
        found = mistakes("forward: {trace: {format: csv, file: bad.csv}}", folder)
        place = f"s.yaml:7: $.networks[0].forward.trace.file: {folder / 'bad.csv'}"
        assert [line.partition(" expected")[0] for line in found] == [f"{place}:2:", f"{place}:3:"]

    @pytest.mark.parametrize(
        ("written", "said"),
        [
            (
                "forward: {loss: 1%, trace: {format: csv, file: rates.csv}}",
                ".forward.loss: expected no loss beside a trace that has a loss of its own",
            ),
            (
                "preset: lte\n    forward: {trace: {format: mahimahi, file: lte.down}}",
                "expected no rate beside a trace that has a rate of its own (rate: null takes",
            ),
            (
                "forward: {trace: {format: csv, file: rates.csv},"
                " schedule: [{at: 1s, delay: 1ms}]}",
                ".forward.schedule: expected no schedule beside a trace (schedule: null takes",
            ),
        ],
    )
    def test_beside_what_it_takes_the_place_of(self, folder: Path, written: str, said: str) -> None:
        (found,) = mistakes(written, folder)
        assert said in found


class TestDigest:
    def test_it_follows_the_file_and_how_it_is_read(self, folder: Path) -> None:
        def digest(trace: str) -> str:
            return config_sha256(read(f"forward: {{trace: {{{trace}}}}}", folder))

        json = "format: opennetlab, file: steps.json"
        found = {
            digest("format: csv, file: rates.csv"),
            digest("format: csv, file: rates.csv, offset: 1s"),
            digest("format: csv, file: rates.csv, end: loop"),
            digest("format: csv, file: losses.csv"),
            digest(f"{json}, part: uplink"),
            digest(f"{json}, part: downlink"),
            digest("format: arrivals, file: call.csv, clock: 8kHz"),
            digest("format: arrivals, file: call.csv, interval: 20ms"),
        }
        assert len(found) == 8
        before = digest(json)
        (folder / "moved.json").write_text(FILES["steps.json"])
        assert digest("format: opennetlab, file: moved.json") == before

    def test_half_a_million_entries_cost_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "long.txt").write_text("0\n1\n" * 250_000)
        scenario = read(
            "forward: {trace: {format: loss, file: long.txt, interval: 20ms}}", tmp_path
        )
        began = time.process_time()
        for _ in range(20):
            config_sha256(scenario)
        assert time.process_time() - began < 0.5
