"""Sweeps: the entries they make, and the places of what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ScenarioError
from harness.network.link import MediaTimeLoss
from harness.scenario import Scenario, SweepEntry, SweepPoint, SweepSpec, loads

MS = 1_000_000
TEXT = """\
name: t
corpus: [librispeech]
codecs: [pcm, {codec: opus, name: o, bitrate: 24kbit}, {codec: opus, name: o10, frame: 10ms}]
transports: [udp]
networks:
  - clean
  - name: n
    forward: {delay: 5ms, loss: {model: media-time, loss: 1%, burst: 80ms}}
sweeps:
"""
LOSS = "{name: loss, axis: network, entry: n, set: forward.loss.loss, values: %s}"


def read(*sweeps: str, text: str = TEXT) -> Scenario:
    return loads(text + "".join(f"  - {one}\n" for one in sweeps), "s.yaml", Path("/nowhere"))


def mistakes(*sweeps: str, text: str = TEXT) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        read(*sweeps, text=text)
    return caught.value.mistakes


class TestEntries:
    def test_one_per_value_in_the_place_of_the_entry(self) -> None:
        scenario = read(LOSS % "{from: 0%, to: 30%, steps: 13}")
        names = [network.name for network in scenario.networks]
        assert names[:4] == ["clean", "n@loss=0%", "n@loss=2.5%", "n@loss=5%"]
        assert names[-1] == "n@loss=30%"
        assert len(names) == 14
        losses = [network.pair.forward.loss for network in scenario.networks]
        assert losses[:2] == [None, None]
        assert losses[2] == MediaTimeLoss(0.025, 80 * MS)
        assert losses[-1] == MediaTimeLoss(0.3, 80 * MS)
        assert all(n.pair.forward.delay_ns == 5 * MS for n in scenario.networks[1:])
        assert scenario.points("network", "n@loss=2.5%") == (SweepPoint("loss", 2.5, "%"),)
        assert scenario.points("network", "clean") == ()

    @pytest.mark.parametrize(
        ("sweep", "labels", "numbers", "unit"),
        [
            (
                "axis: codec, entry: o, set: bitrate, values: [6kbit, 12 kbit, 24000bit]",
                ["o@x=6kbit", "o@x=12kbit", "o@x=24kbit"],
                [6, 12, 24],
                "kbit/s",
            ),
            (
                "axis: codec, entry: o, set: complexity, values: {from: 0, to: 10, steps: 3}",
                ["o@x=0", "o@x=5", "o@x=10"],
                [0, 5, 10],
                "",
            ),
            (
                "axis: codec, entry: o, set: expected_loss, values: {from: 0.1, to: 0.2, steps: 3}",
                ["o@x=0.1", "o@x=0.15", "o@x=0.2"],
                [0.1, 0.15, 0.2],
                "",
            ),
            (
                "axis: network, entry: n, set: forward.delay,"
                " values: {from: 0ms, to: 100ms, steps: 4}",
                ["n@x=0ms", "n@x=33.33ms", "n@x=66.67ms", "n@x=100ms"],
                [0, 33.33, 66.67, 100],
                "ms",
            ),
            (
                "axis: network, entry: n, set: forward.loss.loss,"
                " values: {from: 0%, to: 10%, steps: 4}",
                ["n@x=0%", "n@x=3.333%", "n@x=6.667%", "n@x=10%"],
                [0, 3.333, 6.667, 10],
                "%",
            ),
            (
                "axis: receiver, entry: fixed-60ms, set: jitter_buffer.start, values: [20ms, 0.1s]",
                ["fixed-60ms@x=20ms", "fixed-60ms@x=100ms"],
                [20, 100],
                "ms",
            ),
        ],
    )
    def test_names_and_numbers_say_what_is_run(
        self, sweep: str, labels: list[str], numbers: list[float], unit: str
    ) -> None:
        (spec,) = read(f"{{name: x, {sweep}}}").sweep_specs
        assert [entry.name for entry in spec.entries] == labels
        assert [entry.x for entry in spec.entries] == pytest.approx(numbers)
        assert spec.unit == unit

    def test_the_value_is_the_one_of_the_name(self) -> None:
        values = "{from: 0ms, to: 100ms, steps: 4}"
        networks = read(
            f"{{name: x, axis: network, entry: n, set: forward.delay, values: {values}}}"
        ).networks
        assert [n.pair.forward.delay_ns for n in networks[2:4]] == [33_330_000, 66_670_000]

    def test_several_entries_by_pattern(self) -> None:
        scenario = read(
            "{name: rate, axis: codec, entry: ['o*'], set: bitrate, values: [16kbit, 32kbit]}"
        )
        assert scenario.sweep_specs == (
            SweepSpec(
                name="rate",
                axis="codec",
                key="bitrate",
                unit="kbit/s",
                entries=(
                    SweepEntry("o@rate=16kbit", "o", 16),
                    SweepEntry("o@rate=32kbit", "o", 32),
                    SweepEntry("o10@rate=16kbit", "o10", 16),
                    SweepEntry("o10@rate=32kbit", "o10", 32),
                ),
            ),
        )
        frames = [codec.params.model_dump()["frame"] for codec in scenario.codecs[1:]]
        assert frames == [20 * MS, 20 * MS, 10 * MS, 10 * MS]

    def test_a_word_becomes_an_entry_of_its_own(self) -> None:
        scenario = read(
            "{name: d, axis: network, entry: clean, set: both.delay, values: [1ms, 2ms]}",
            "{name: f, axis: codec, entry: pcm, set: frame, values: [10ms, 20ms]}",
        )
        assert [n.name for n in scenario.networks] == ["clean@d=1ms", "clean@d=2ms", "n"]
        assert [c.name for c in scenario.codecs][:2] == ["pcm@f=10ms", "pcm@f=20ms"]

    @pytest.mark.parametrize(
        ("axis", "written", "entry", "key", "names"),
        [
            ("transport", "udp", "udp", "repeat.count", ["udp@x=1", "udp@x=2"]),
            ("transport", "{transport: rtp}", "rtp", "tracks", ["rtp@x=1", "rtp@x=2"]),
            ("transport", "{transport: udp, tracks: 3}", "udp-*", "interleave", None),
            ("codec", "lc3", "lc3", "bitrate", None),
            ("codec", "{codec: opus, frame: 10ms}", "opus*", "complexity", None),
            ("receiver", "{device: 20ms}", "fixed*", "device", None),
        ],
    )
    def test_an_entry_without_a_name_of_its_own_has_one(
        self, axis: str, written: str, entry: str, key: str, names: list[str] | None
    ) -> None:
        values = {"bitrate": "[16kbit, 32kbit]", "device": "[1ms, 2ms]"}.get(key, "[1, 2]")
        text = TEXT.replace(
            "codecs: [pcm,", f"codecs: [{written}, pcm," * (axis == "codec") or "codecs: [pcm,"
        )
        if axis == "transport":
            text = text.replace("transports: [udp]", f"transports: [{written}]")
        if axis == "receiver":
            text = text.replace("networks:", f"receivers: [{written}]\nnetworks:")
        sweep = f"{{name: x, axis: {axis}, entry: '{entry}', set: {key}, values: {values}}}"
        (spec,) = read(sweep, text=text).sweep_specs
        assert len(spec.entries) == 2
        if names is not None:
            assert [one.name for one in spec.entries] == names

    def test_a_key_that_only_the_sweep_writes(self) -> None:
        scenario = read(LOSS % "[1%, 2%]", text=TEXT.replace("loss: 1%, ", ""))
        assert scenario.networks[2].pair.forward.loss == MediaTimeLoss(0.02, 80 * MS)

    def test_two_on_one_entry_multiply(self) -> None:
        scenario = read(
            LOSS % "[1%, 2%]",
            "{name: burst, axis: network, entry: n, set: forward.loss.burst, values: [40ms, 80ms]}",
        )
        assert [network.name for network in scenario.networks[1:]] == [
            "n@loss=1%@burst=40ms",
            "n@loss=1%@burst=80ms",
            "n@loss=2%@burst=40ms",
            "n@loss=2%@burst=80ms",
        ]
        assert scenario.networks[2].pair.forward.loss == MediaTimeLoss(0.01, 80 * MS)
        assert scenario.points("network", "n@loss=1%@burst=80ms") == (
            SweepPoint("loss", 1, "%"),
            SweepPoint("burst", 80, "ms"),
        )
        assert [len(spec.entries) for spec in scenario.sweep_specs] == [4, 4]

    def test_into_a_list(self) -> None:
        text = TEXT.replace("delay: 5ms,", "delay: 5ms, schedule: [{at: 1s, for: 1s, delay: 0ms}],")
        scenario = read(
            "{name: gap, axis: network, entry: n, set: forward.schedule.0.for, values: [2s, 3s]}",
            LOSS % "[1%]",
            text=text,
        )
        ends = [network.pair.forward.changes[-1].at_ns for network in scenario.networks[1:]]
        assert ends == [3_000 * MS, 4_000 * MS]

    def test_shared_yaml_is_not_shared_by_the_points(self) -> None:
        text = TEXT.replace("forward: {", "forward: &f {").replace(
            "sweeps:", "  - {name: m, forward: *f}\nsweeps:"
        )
        (spec, _) = read(LOSS % "[1%, 2%]", LOSS.replace("loss,", "lost,", 1).replace(
            "entry: n", "entry: m") % "[3%]", text=text).sweep_specs  # fmt: skip
        assert [entry.base for entry in spec.entries] == ["n", "n"]

    def test_rules_name_the_entry_or_its_points(self) -> None:
        text = TEXT.replace(
            "sweeps:", "include: [{network: n}]\nexclude: [{network: 'n@loss=1%'}]\nsweeps:"
        )
        scenario = read(LOSS % "[1%, 2%]", text=text)
        from harness.scenario import Combination

        kept = {
            n.name: scenario.keeps(Combination("o", "udp", n.name, "r")) for n in scenario.networks
        }
        assert kept == {"clean": False, "n@loss=1%": False, "n@loss=2%": True}


class TestMistakes:
    @pytest.mark.parametrize(
        ("sweep", "path", "said"),
        [
            (LOSS % "[1%, 200%]", ".values[1]", "(outside 0...1)"),
            (LOSS % "[1%, 99.5%]", ".values[1]", "expected at most 99% beside"),
            (LOSS % "[1%, 20ms]", ".values[1]", 'expected the kind of "1%", got "20ms"'),
            (LOSS % "[1%, 1.0%]", ".values", "expected different values, got one twice"),
            (LOSS % "[]", ".values", "expected at least one entry"),
            (LOSS % "1%", ".values", 'expected a list, got "1%"'),
            (LOSS % "[x]", ".values[0]", 'expected a number or a quantity such as "2.5%", "40ms"'),
            (LOSS % "[20ms]", ".values[0]", 'expected a probability such as "2.5%"'),
            (LOSS % "{from: 1%, to: 2ms, steps: 3}", ".values.to", 'expected the kind of "1%"'),
            (LOSS % "{from: 0%, to: 100%, steps: 3}", ".values", "expected at most 99% beside"),
            (LOSS % "{from: 0%, to: 9%}", ".values", 'expected the key "steps", which is missing'),
            (LOSS % "{from: 0%, to: 9%, steps: 1}", ".values.steps", "expected at least 2, got 1"),
            (
                LOSS % "{form: 0%, from: 0%, to: 9%, steps: 2}",
                ".values.form",
                'got "form"; did you mean "from"?',
            ),
            (
                LOSS.replace("entry: n", "entry: [n, m]") % "[1%]",
                ".entry[1]",
                'expected a network of this scenario (clean, n), got "m"',
            ),
            (
                "{name: x, axis: transport, entry: nonsense, set: tracks, values: [1]}",
                ".entry",
                'expected a transport of this scenario (udp), got "nonsense"',
            ),
            (
                "{name: x, axis: receiver, entry: nonsense, set: device, values: [1ms]}",
                ".entry",
                'expected a receiver of this scenario (fixed-60ms), got "nonsense"',
            ),
            (
                LOSS.replace("forward.loss.loss", "forward.los.loss") % "[1%]",
                ".set",
                'got "los"; did you mean "loss"?',
            ),
            (
                LOSS.replace("forward.loss.loss", "forward.loss.los") % "[1%, 2%]",
                ".set",
                'got "los"; did you mean "loss"?',
            ),
            (
                LOSS.replace("forward.loss.loss", "forward.delay.loss") % "[1%]",
                ".set",
                'expected a mapping to set "loss" in, got "5ms"',
            ),
            (
                LOSS.replace("forward.loss.loss", "forward.rate.rate") % "[1mbit]",
                ".set",
                'expected one of "latency" and "limit"',
            ),
            (LOSS.replace("forward.loss.loss", "name") % "[1]", ".set", "a value to vary"),
            (LOSS.replace("forward.loss.loss", "a..b") % "[1]", ".set", "a value to vary"),
            (
                LOSS.replace("axis: network", "axis: networks") % "[1%]",
                ".axis",
                '"receiver", got "networks"; did you mean "network"?',
            ),
            (
                "{name: x, axis: receiver, entry: fixed-60ms, set: jitter_buffer.start,"
                " values: [20ms, 500ms]}",
                ".values[1]",
                "expected at most max (400ms), got 500ms",
            ),
        ],
    )
    def test_each_at_its_place(self, sweep: str, path: str, said: str) -> None:
        found = mistakes(sweep)
        assert len(found) == 1, found
        assert found[0].startswith(f"s.yaml:10: $.sweeps[0]{path}: ")
        assert said in found[0]

    def test_of_the_entry_itself_told_once(self) -> None:
        found = mistakes(LOSS % "{from: 0%, to: 9%, steps: 9}", text=TEXT.replace("5ms,", "5,"))
        assert found == [
            's.yaml:8: $.networks[1].forward.delay: expected a duration such as "20ms", got 5'
        ]

    def test_places_of_other_entries_stay(self) -> None:
        text = TEXT.replace("  - name: n\n", "  - name: n\n", 1).replace(
            "sweeps:", "  - {name: m, forward: {delay: 7}}\n  - {name: clean, both: {}}\nsweeps:"
        )
        assert mistakes(LOSS % "[1%, 2%, 3%]", text=text) == [
            's.yaml:9: $.networks[2].forward.delay: expected a duration such as "20ms", got 7',
            's.yaml:10: $.networks[3].name: expected another name than networks[0], got "clean" '
            "again",
        ]

    def test_equal_names_of_sweeps(self) -> None:
        (found,) = mistakes(LOSS % "[1%]", LOSS % "[2%]")
        assert found == (
            's.yaml:11: $.sweeps[1].name: expected another name than sweeps[0], got "loss" again'
        )

    def test_no_name_that_is_written_has_an_at(self) -> None:
        (found,) = mistakes(LOSS % "[1%]", text=TEXT.replace("name: o10", "name: o@loss=1%"))
        assert "$.codecs[2].name: expected a name of at most 64" in found

    def test_too_many_points(self) -> None:
        sweeps = [
            LOSS % "{from: 0%, to: 9%, steps: 150}",
            "{name: d, axis: network, entry: n, set: forward.delay,"
            " values: {from: 0ms, to: 9ms, steps: 100}}",
        ]
        (found,) = mistakes(*sweeps)
        assert found.startswith("s.yaml:11: $.sweeps[1]: expected at most 1000 entries on an axis")

    def test_a_baseline_is_one_of_the_points(self) -> None:
        sweep = "{name: rate, axis: codec, entry: o, set: bitrate, values: [16kbit]}"
        text = TEXT.replace("sweeps:", "baseline: o\nsweeps:")
        assert 'did you mean "o10"' in mistakes(sweep, text=text)[0]
        text = text.replace("baseline: o", "baseline: o@rate=16kbit")
        assert read(sweep, text=text).baseline_name == "o@rate=16kbit"
