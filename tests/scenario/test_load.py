"""What a scenario file may say, and what is said of its mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.codecs import names, params_class
from harness.errors import EXIT_BAD_INPUT, ScenarioError
from harness.media.settings import ReceiverSettings
from harness.network.link import (
    Bernoulli,
    GilbertElliott,
    Link,
    LinkPair,
    LossTrace,
    MediaTimeLoss,
    Rate,
    Reorder,
)
from harness.scenario import Scenario, config_sha256, load, loads
from harness.transports.base import TransportSettings

MS = 1_000_000

MINIMAL = """\
name: t
corpus: [librispeech]
codecs: [pcm]
transports: [udp]
networks: [clean]
"""


def read(text: str, folder: Path = Path("/nowhere")) -> Scenario:
    return loads(text, "s.yaml", folder)


def mistakes(text: str, folder: Path = Path("/nowhere")) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        read(text, folder)
    assert caught.value.exit_code == EXIT_BAD_INPUT
    return caught.value.mistakes


def only_mistake(text: str, folder: Path = Path("/nowhere")) -> str:
    found = mistakes(text, folder)
    assert len(found) == 1, found
    return found[0]


def network(written: str) -> LinkPair:
    return read(MINIMAL.replace("[clean]", f"[{written}]")).networks[0].pair


def network_mistake(written: str, folder: Path = Path("/nowhere")) -> str:
    return only_mistake(MINIMAL.replace("[clean]", f"[{written}]"), folder)


class TestForms:
    def test_minimal(self) -> None:
        scenario = read(MINIMAL)
        assert scenario.corpus[0].corpus == "librispeech"
        assert scenario.codecs[0].params == params_class("pcm")()
        assert scenario.transports[0].settings == TransportSettings()
        assert scenario.networks[0].pair == LinkPair(Link(), Link())
        assert [r.settings for r in scenario.receivers] == [ReceiverSettings()]
        assert (scenario.seed, scenario.repetitions) == (1, 1)

    def test_frozen(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            read(MINIMAL).seed = 2  # type: ignore[misc]

    def test_names_follow_what_is_written(self) -> None:
        scenario = read(
            MINIMAL.replace(
                "[pcm]",
                "[{codec: opus, bitrate: 24kbit}, {codec: opus, bitrate: 24000bit, frame: 10ms},"
                " {codec: opus, complexity: 5}, opus, {codec: opus, vbr: false, name: mine}]",
            ).replace("[udp]", "[udp, {transport: udp, mtu: 500B}, {transport: tcp, name: x}]")
            + "receivers: [{}, {jitter_buffer: {mode: adaptive, start: 40ms}, concealment: zero}]\n"
        )
        names = ["opus-24kbit", "opus-24kbit-10ms", "opus-complexity5", "opus", "mine"]
        assert [c.name for c in scenario.codecs] == names
        assert [t.name for t in scenario.transports] == ["udp", "udp-mtu500B", "x"]
        assert [r.name for r in scenario.receivers] == ["fixed-60ms", "adaptive-40ms-zero"]

    def test_codec_parameters_arrive_in_base_units(self) -> None:
        codec = read(MINIMAL.replace("[pcm]", "[{codec: opus, bitrate: 12kbit, frame: 40ms}]"))
        params = codec.codecs[0].params.model_dump()
        assert (params["bitrate"], params["frame"]) == (12_000, 40 * MS)

    def test_corpus_folder_lies_beside_the_scenario(self, tmp_path: Path) -> None:
        text = MINIMAL.replace("[librispeech]", "[{folder: ../own, kind: music, limit: 3}]")
        corpus = read(text, tmp_path / "sub").corpus[0]
        assert (corpus.folder, corpus.kind, corpus.limit) == (tmp_path / "own", "music", 3)

    def test_aliases_are_values(self) -> None:
        scenario = read(
            MINIMAL.replace(
                "[clean]",
                "[{name: a, forward: &f {delay: 5ms}, reverse: *f}, {name: b, both: *f}]",
            )
        )
        first, second = scenario.networks
        assert first.pair == second.pair == LinkPair(Link(5 * MS), Link(5 * MS))

    def test_defaults_of_what_is_measured(self) -> None:
        scenario = read(MINIMAL)
        assert scenario.metrics == (
            *("pesq-wb", "pesq-nb", "stoi", "estoi"),
            *("pesq-wb-played", "pesq-nb-played"),
        )
        assert (scenario.controls, scenario.compute) == (True, "profile")
        assert read(MINIMAL + "metrics: []\n").metrics == ()

    @pytest.mark.parametrize(
        ("codecs", "extra", "name"),
        [
            ("[g711, {codec: pcm, name: raw}]", "", "raw"),
            ("[g711, opus]", "", "pcm"),
            ("[g711, opus]", "controls: false\n", "g711"),
            ("[g711, {codec: opus, name: pcm}]", "", "pcm-control"),
            ("[g711, pcm]", "baseline: g711\n", "g711"),
            ("[g711, opus]", "baseline: pcm\n", "pcm"),
        ],
    )
    def test_the_baseline(self, codecs: str, extra: str, name: str) -> None:
        assert read(MINIMAL.replace("[pcm]", codecs) + extra).baseline_name == name

    def test_words_that_yaml_1_1_would_change(self) -> None:
        text = MINIMAL.replace("name: t", "name: t\ndescription: no") + "seed: 010\n"
        scenario = read(text)
        assert (scenario.description, scenario.seed) == ("no", 10)


class TestNetworks:
    def test_every_key_of_a_link(self) -> None:
        pair = network(
            "{name: n, forward: {delay: 25ms, jitter: 5ms, distribution: normal, loss: 2%,"
            " duplicate: 1%, corrupt: 0.001, reorder: {probability: 3%, gap: 5},"
            " rate: {rate: 1mbit, burst: 3000B, latency: 70ms}, limit_packets: 50}}"
        )
        assert pair.forward == Link(
            delay_ns=25 * MS,
            jitter_ns=5 * MS,
            distribution="normal",
            loss=Bernoulli(0.02),
            duplicate=0.01,
            corrupt=0.001,
            reorder=Reorder(0.03, 5),
            rate=Rate(1_000_000, 3000, latency_ns=70 * MS),
            limit_packets=50,
        )

    def test_loss_and_delay_in_media_time(self) -> None:
        pair = network(
            "{name: n, forward: {delay: 25ms, jitter: 5ms, coherence: 200ms,"
            " loss: {model: media-time, loss: 10%, burst: 80ms, hits: instant}}}"
        )
        loss = MediaTimeLoss(0.1, 80 * MS, "instant")
        assert pair.forward == Link(25 * MS, 5 * MS, loss=loss, coherence_ns=200 * MS)
        assert pair.reverse == Link(25 * MS, 5 * MS, coherence_ns=200 * MS)

    def test_a_media_time_loss_of_nothing_is_no_loss(self) -> None:
        written = "{name: n, forward: {loss: {model: media-time, loss: 0%, burst: 80ms}}}"
        assert network(written) == LinkPair(Link(), Link())

    def test_the_way_back_has_no_faults_of_its_own(self) -> None:
        pair = network(
            "{name: n, forward: {delay: 25ms, jitter: 5ms, loss: 2%, corrupt: 1%, duplicate: 1%,"
            " reorder: {probability: 1%}, rate: {rate: 1mbit, limit: 10kB}}}"
        )
        rate = Rate(1_000_000, 1600, limit_bytes=10_000)
        assert pair.reverse == Link(delay_ns=25 * MS, jitter_ns=5 * MS, rate=rate)

    def test_reverse_same_repeats_the_faults(self) -> None:
        pair = network("{name: n, forward: {delay: 25ms, loss: 2%}, reverse: same}")
        assert pair.forward == pair.reverse == Link(25 * MS, loss=Bernoulli(0.02))

    def test_reverse_of_its_own_starts_from_a_perfect_link(self) -> None:
        pair = network("{name: n, forward: {delay: 25ms, loss: 2%}, reverse: {delay: 1ms}}")
        assert pair.reverse == Link(1 * MS)

    def test_both_lies_below_each_direction(self) -> None:
        pair = network(
            "{name: n, both: {delay: 20ms, loss: 2%}, forward: {loss: 0%}, reverse: {delay: 1ms}}"
        )
        assert pair == LinkPair(Link(20 * MS), Link(1 * MS, loss=Bernoulli(0.02)))

    def test_a_preset_with_changes_keeps_the_rest(self) -> None:
        preset = network("wifi-lossy")
        pair = network("{preset: wifi-lossy, name: n, forward: {loss: null, delay: 30ms}}")
        assert pair.forward == Link(30 * MS, 10 * MS)
        assert pair.reverse == preset.reverse
        assert preset.forward == Link(15 * MS, 10 * MS, loss=GilbertElliott(0.025, 0.5))

    def test_burst_defaults_to_a_tick_of_the_rate(self) -> None:
        link = network("{name: n, forward: {rate: {rate: 30mbit, latency: 70ms}}}").forward
        assert link.rate == Rate(30_000_000, 15_000, latency_ns=70 * MS)

    def test_trace_in_the_file(self) -> None:
        link = network("{name: n, forward: {loss: {model: trace, lost: [0, 1, 1]}}}").forward
        assert link.loss == LossTrace((0, 1, 1))

    def test_trace_in_a_file_of_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "t.txt").write_bytes(b"0\r\n1\r\n\r\n1\r\n")
        text = MINIMAL.replace(
            "[clean]", "[{name: n, forward: {loss: {model: trace, file: t.txt}}}]"
        )
        (tmp_path / "s.yaml").write_text(text)
        scenario = load(tmp_path / "s.yaml")
        assert scenario.networks[0].pair.forward.loss == LossTrace((0, 1, 1))
        (tmp_path / "t.txt").write_text("0\n1\n0\n")
        assert config_sha256(load(tmp_path / "s.yaml")) != config_sha256(scenario)

    def test_trace_file_mistakes_name_its_own_line(self, tmp_path: Path) -> None:
        (tmp_path / "t.txt").write_text("0\n1\nlost\n2\n")
        written = "{name: n, forward: {loss: {model: trace, file: t.txt}}}"
        found = mistakes(MINIMAL.replace("[clean]", f"[{written}]"), tmp_path)
        place = "s.yaml:5: $.networks[0].forward.loss.file: "
        assert found == [
            f'{place}{tmp_path}/t.txt:3: expected 0 or 1, got "lost"',
            f'{place}{tmp_path}/t.txt:4: expected 0 or 1, got "2"',
        ]

    @pytest.mark.parametrize("content", [None, b"", b"\n\n"])
    def test_trace_file_without_a_trace(self, tmp_path: Path, content: bytes | None) -> None:
        if content is not None:
            (tmp_path / "t.txt").write_bytes(content)
        written = "{name: n, forward: {loss: {model: trace, file: t.txt}}}"
        assert "t.txt" in network_mistake(written, tmp_path)

    @pytest.mark.parametrize(
        ("written", "said"),
        [
            (
                "wifi-losy",
                "$.networks[0]: expected a preset (clean, 2g,",
            ),
            (
                "{name: n, forward: {rate: {rate: 1mbit}}}",
                '.forward.rate: expected one of "latency" and "limit"',
            ),
            (
                "{name: n, forward: {rate: {rate: 1mbit, latency: 20ms, limit: 10kB}}}",
                '.forward.rate: expected one of "latency" and "limit"',
            ),
            (
                "{name: n, forward: {rate: {rate: 1mbit, latency: 20ms, burst: 1kB}}}",
                ".forward.rate.burst: expected at least 1514B (one full frame), got 1kB",
            ),
            (
                "{name: n, both: {rate: {rate: 1mbit, limit: 1kB}}}",
                ".both.rate.limit: expected at least 1514B (one full frame), got 1kB",
            ),
            (
                "{name: n, forward: {rate: {rate: 64kbit, latency: 50ms}}}",
                ".forward.rate.latency: expected at least 190ms (one full frame of 1514B takes so"
                " long at 64kbit/s), got 50ms",
            ),
            (
                "{name: n, forward: {rate: {rate: 1bit, latency: 1ms}}}",
                ".forward.rate.rate: expected a bitrate of 1kbit...10gbit, got 1bit",
            ),
            (
                "{name: n, forward: {reorder: {probability: 1%}}}",
                ".forward.reorder: expected a delay beside reorder",
            ),
            (
                "{preset: clean, name: n, reverse: {distribution: pareto}}",
                ".reverse.distribution: expected a jitter beside its distribution",
            ),
            (
                "{name: n, forward: {loss: {model: gilbert-elliott, p: 0, r: 0}}}",
                ".forward.loss.r: expected r above 0",
            ),
            (
                "{name: n, forward: {loss: {model: gilbert, p: 0, r: 0}}}",
                ".forward.loss.model: expected a model (media-time, gilbert-elliott, trace), got ",
            ),
            (
                "{name: n, forward: {loss: {p: 1%}}}",
                '.forward.loss: expected a probability or a mapping with "model: media-time"',
            ),
            (
                "{name: n, forward: {loss: {model: trace, lost: [0, 2]}}}",
                ".forward.loss.lost[1]: expected 0 or 1, got 2",
            ),
            (
                "{name: n, forward: {loss: {model: trace, lost: []}}}",
                ".forward.loss.lost: expected at least one entry",
            ),
            (
                "{name: n, forward: {loss: {model: trace}}}",
                '.forward.loss: expected one of "lost" and "file"',
            ),
            (
                "{name: n, forward: {delay: 2min}}",
                ".forward.delay: expected a duration of 0ns...60s, got 120s",
            ),
            (
                "{name: n, forward: {}, reverse: mirrored}",
                '.reverse: expected "same", got "mirrored"',
            ),
            (
                "{name: n, forward: {loss: {model: media-time, loss: 100%, burst: 80ms}}}",
                '.forward.loss.loss: expected at most 99% beside "model: media-time", got 100%',
            ),
            (
                "{name: n, forward: {loss: {model: media-time, loss: 1%, burst: 0ms}}}",
                ".forward.loss.burst: expected a duration of 1ms...60s, got 0ns",
            ),
            (
                "{name: n, forward: {loss: {model: media-time, loss: 1%}}}",
                '.forward.loss: expected the key "burst", which is missing',
            ),
            (
                "{name: n, forward: {loss: {model: media-time, loss: 1%, burst: 9ms, hit: media}}}",
                'got "hit"; did you mean "hits"?',
            ),
            (
                "{name: n, forward: {delay: 5ms, coherence: 200ms}}",
                ".forward.coherence: expected a jitter beside its coherence",
            ),
            ("{name: n}", 'expected "preset", "both" or "forward"'),
            ("{forward: {delay: 1ms}}", 'expected the key "name", which is missing'),
        ],
    )
    def test_contradictions(self, written: str, said: str) -> None:
        assert said in network_mistake(written)


class TestMistakes:
    def test_all_at_once_each_with_line_path_expectation_and_nearest_name(self) -> None:
        text = """\
name: t
corpus: [librispeech]
codecs:
  - pcm
  - codec: opus
    bitrate: 24 potato
    bitrat: 12kbit
    frame: 20
  - opsu
transports: [udp, upd]
networks:
  - clean
  - name: n
    forward: {loss: 200%}
repetitons: 3
exclude:
  - network: clen
  - transports: udp
"""
        assert mistakes(text) == [
            's.yaml:6: $.codecs[1].bitrate: expected a bitrate such as "24kbit", '
            'got "24 potato" (units: bit, kbit, mbit, gbit)',
            "s.yaml:7: $.codecs[1].bitrat: expected a known key (codec, name, rate, bitrate, "
            "frame, application, complexity, vbr, vbr_constraint, fec, expected_loss, deep_plc, "
            "dred), "
            'got "bitrat"; did you mean "bitrate"?',
            's.yaml:8: $.codecs[1].frame: expected a duration such as "20ms", got 20',
            f"s.yaml:9: $.codecs[2]: expected a codec ({', '.join(names())}), "
            'got "opsu"; did you mean "opus"?',
            's.yaml:10: $.transports[1]: expected "udp", "rtp", "quic-datagram", "quic-stream", '
            '"webrtc", "tcp" or "websocket", got "upd"; '
            'did you mean "udp"?',
            's.yaml:14: $.networks[1].forward.loss: expected a probability such as "2.5%" or '
            '0.025, got "200%" (outside 0...1)',
            "s.yaml:15: $.repetitons: expected a known key (name, description, seed, "
            "repetitions, timeout, corpus, codecs, transports, networks, receivers, include, "
            "exclude, sweeps, controls, baseline, metrics, rank_by, legacy, compute), "
            'got "repetitons"; did you mean "repetitions"?',
            "s.yaml:18: $.exclude[1].transports: expected a known key (codec, transport, "
            "network, receiver, utterance), "
            'got "transports"; did you mean "transport"?',
        ]

    def test_rules_are_judged_by_the_axes_that_have_no_mistakes(self) -> None:
        found = mistakes(
            MINIMAL.replace("[pcm]", "[pmc]")
            + "exclude: [{codec: x}, {network: [clean, clen]}, {nework: y}]\n"
        )
        assert [line.split(": ")[1] for line in found] == [
            "$.codecs[0]",
            "$.exclude[1].network[1]",
            "$.exclude[2].nework",
        ]
        assert found[1].endswith('got "clen"; did you mean "clean"?')

    def test_equal_names(self) -> None:
        found = mistakes(
            MINIMAL.replace("[pcm]", "[pcm, {codec: opus, name: pcm}, opsu]").replace(
                "[librispeech]", "[librispeech, {corpus: librispeech, limit: 1}]"
            )
        )
        assert found[0].startswith("s.yaml:2: $.corpus[1]: expected another name than corpus[0]")
        assert found[1] == (
            's.yaml:3: $.codecs[1].name: expected another name than codecs[0], got "pcm" again'
        )

    def test_duplicate_keys(self) -> None:
        found = only_mistake(MINIMAL + "seed: 1\nseed: 2\n")
        assert found == "s.yaml:7: $.seed: expected each key once, first on line 6"

    def test_missing_keys_and_wrong_shapes(self) -> None:
        assert only_mistake("[]") == "s.yaml:1: $: expected a mapping, got a list"
        assert only_mistake("") == "s.yaml:1: $: expected a mapping, got an empty file"
        assert len(mistakes("{}")) == 5
        found = only_mistake(MINIMAL.replace("[pcm]", "pcm"))
        assert found == 's.yaml:3: $.codecs: expected a list, got "pcm"'
        assert "at least one entry" in only_mistake(MINIMAL.replace("[pcm]", "[]"))

    @pytest.mark.parametrize("value", ["20", "20.5", "true", "null", "[20ms]", "{a: 1}"])
    def test_a_duration_needs_its_unit(self, value: str) -> None:
        found = only_mistake(MINIMAL + f"receivers: [{{device: {value}}}]\n")
        assert '$.receivers[0].device: expected a duration such as "20ms", got ' in found

    @pytest.mark.parametrize(
        ("extra", "said"),
        [
            ("seed: -1", "$.seed: expected at least 0, got -1"),
            ('seed: "1"', '$.seed: expected a whole number, got "1"'),
            ("seed: 99999999999999999999", "$.seed: expected a whole number, got 1e+20"),
            ("repetitions: 1.5", "$.repetitions: expected a whole number, got 1.5"),
            ("timeout: 0s", "$.timeout: expected a duration of 1s...3600s, got 0ns"),
            ("include: [{}]", "$.include[0]: expected one of the keys codec, transport"),
            ("include: [{codec: []}]", "$.include[0].codec: expected at least one entry"),
            ("exclude: [{codec: p*}]", "$.exclude: expected rules that leave a cell, got none"),
            (
                "include: [{codec: pcm}]\nexclude: [{network: clean}]",
                "$.exclude: expected rules that leave a cell",
            ),
            (
                "receivers: [{jitter_buffer: {start: 500ms}}]",
                "$.receivers[0].jitter_buffer.start: expected at most max (400ms), got 500ms",
            ),
            (
                "metrics: [pesq-wb, stio]",
                '"si-sdr" or "e-model", got "stio"; did you mean "stoi"?',
            ),
            ("metrics: [stoi, stoi]", '$.metrics: expected each once, got "stoi" again'),
            ("controls: maybe", '$.controls: expected true or false, got "maybe"'),
            (
                "baseline: pmc",
                '$.baseline: expected a codec of this scenario (pcm), got "pmc"; did you mean',
            ),
            ("compute: mesured", '"zero", got "mesured"; did you mean "measured"?'),
            ("<<: {seed: 1}", 'expected plain keys, got "<<"'),
            ("? [a]\n: 1", "expected a word as key"),
            ("description: !!python/name:os.system x", "expected plain data, got the tag"),
            ("seed: !!int x", "expected plain data, got the tag"),
        ],
    )
    def test_other_mistakes(self, extra: str, said: str) -> None:
        assert any(said in line for line in mistakes(MINIMAL + extra + "\n"))

    @pytest.mark.parametrize(
        ("key", "written", "said"),
        [
            ("udp", "{transport: tcp, mtu: 500B}", '"mtu" beside udp or rtp or quic-datagram only'),
            ("udp", "{transport: rtp, gap: 1ms}", '"gap" beside udp or quic-datagram only'),
            ("udp", "{transport: rtp, repeat: 1}", '"repeat" beside udp or quic-datagram or'),
            ("udp", "{transport: rtp, fec: {data: 4}}", '.fec: expected "fec" beside udp or'),
            ("udp", "{transport: quic-stream, nack: 1}", '.nack: expected "nack" beside udp or'),
            ("udp", "{transport: quic-datagram, mtu: 1.2kB}", ".mtu: expected at least 1.228kB"),
            ("udp", "{transport: udp, mtu: 67B}", ".mtu: expected an MTU of 68B...65.535kB"),
            ("udp", "{transport: rtp, mtu: 1501B}", ".mtu: expected at most 1.5kB, but beside udp"),
            ("udp", "{transport: udp, wire: bare}", ".wire: expected bare beside tcp or websocket"),
            (
                "udp",
                "{transport: tcp, wire: encodec-udp-stream}",
                ".wire: expected encodec-udp-stream beside udp only",
            ),
            (
                "udp",
                "{transport: udp, wire: encodec-udp-stream, nack: 1}",
                ".nack: expected none beside wire: encodec-udp-stream, which carries media alone",
            ),
            ("librispeech", "{limit: 3}", 'expected one of "corpus" and "folder"'),
            ("librispeech", "{corpus: a, kind: music}", 'expected "kind" beside "folder" only'),
            ("librispeech", "{folder: a, items: [b]}", 'expected "items" beside "corpus" only'),
            ("librispeech", '{folder: ""}', ".folder: expected a folder"),
            ("pcm", "{name: x}", 'expected the key "codec", which is missing'),
            ("pcm", "{codec: opus, name: a/b}", ".name: expected a name of at most 64"),
            ("pcm", "{codec: opus, frame: 7ms}", "$.codecs[0].frame: "),
            ("pcm", "{codec: opus, fec: true}", "$.codecs[0]: "),
            ("pcm", "[opus]", "$.codecs[0]: expected a mapping, got a list"),
        ],
    )
    def test_mistakes_of_entries(self, key: str, written: str, said: str) -> None:
        assert said in only_mistake(MINIMAL.replace(f"[{key}]", f"[{written}]"))

    def test_rules_about_utterances_wait_for_the_corpus(self) -> None:
        read(MINIMAL + "include: [{utterance: nobody}]\nexclude: [{utterance: '*'}]\n")


class TestOddFiles:
    @pytest.mark.parametrize(
        ("text", "line", "said"),
        [
            ("name: [t\ncodecs: x", 2, "not YAML"),
            ("name: t\n\tx: 1", 2, "not YAML"),
            ("a: 1\n---\nb: 2\n", 2, "single document"),
            ('a: "\\UFFFFFFFF"', 1, "not YAML"),
            ("a: 1\nb: \x07", 2, "U+0007 is not allowed"),
            ("a: &x [*x]", 1, "alias to itself"),
            ("a: *nobody", 1, "undefined alias"),
            ("[" * 5000, 1, "nested too deeply"),
            ("a: " + "x" * 300_000, 1, "at most 262144 characters"),
            ("%YAML 9.9\n---\na: 1", 1, "not YAML"),
        ],
    )
    def test_structure(self, text: str, line: int, said: str) -> None:
        found = mistakes(text)
        assert found[0].startswith(f"s.yaml:{line}: $")
        assert said in found[0]

    def test_a_bomb_of_aliases_is_counted_not_expanded(self) -> None:
        levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
        text = "a0: &a0 [x]\n" + "\n".join(levels)
        assert "aliases expanded" in only_mistake(text)

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        (tmp_path / "latin1.yaml").write_bytes(b"name: t\ndescription: \xe9\n")
        for path, said in [
            (tmp_path / "absent.yaml", "No such file"),
            (tmp_path, "expected a file"),
            (tmp_path / "latin1.yaml", "latin1.yaml:2: $: expected UTF-8 text, got the byte 0xe9"),
            (tmp_path / "a\0b", "a scenario file"),
        ]:
            with pytest.raises(ScenarioError, match="expected") as caught:
                load(path)
            assert said in str(caught.value)


class TestCanonical:
    def test_units_and_order_do_not_matter(self) -> None:
        one = read(MINIMAL.replace("[clean]", "[{name: n, forward: {delay: 1s, jitter: 20ms}}]"))
        two = read(
            MINIMAL.replace("[clean]", "[{forward: {jitter: 0.02s, delay: 1000ms}, name: n}]")
        )
        assert config_sha256(one) == config_sha256(two)

    def test_defaults_written_out_do_not_matter(self) -> None:
        params = params_class("opus")().model_dump(mode="json")
        written = json.dumps({"codec": "opus", "name": "opus", **params})
        one = read(MINIMAL.replace("[pcm]", "[opus]"))
        two = read(MINIMAL.replace("[pcm]", f"[{written}]"))
        assert config_sha256(one) == config_sha256(two)

    @pytest.mark.parametrize(
        "other",
        [
            MINIMAL + "seed: 2\n",
            MINIMAL + "exclude: [{utterance: x}]\n",
            MINIMAL + "controls: false\n",
            MINIMAL + "metrics: [stoi]\n",
            MINIMAL + "compute: zero\n",
            MINIMAL.replace("[clean]", "[{preset: clean, name: clean, forward: {delay: 1ns}}]"),
            MINIMAL.replace("[udp]", "[{transport: udp, mtu: 1499B}]"),
        ],
    )
    def test_what_decides_the_run_matters(self, other: str) -> None:
        assert config_sha256(read(MINIMAL)) != config_sha256(read(other))

    def test_the_description_does_not_matter(self) -> None:
        assert config_sha256(read(MINIMAL)) == config_sha256(read(MINIMAL + "description: x\n"))
