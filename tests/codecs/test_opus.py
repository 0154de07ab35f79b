"""What libopus can do about lost packets, and how it is found."""

from __future__ import annotations

from ctypes import CDLL
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codec_settings import make
from codec_signals import frames, payloads, speech_like
from pesq import pesq

from harness.assets import AssetStore, load_corpora, prepare, resampled
from harness.codecs import opus, opus_library
from harness.codecs.base import Codec, Pcm
from harness.errors import Unsupported
from harness.scenario import CorpusEntry

FEC = {"bitrate": "24kbit", "fec": True, "expected_loss": "20%"}
DRED = {"bitrate": "24kbit", "dred": "1s", "expected_loss": "20%"}


def _spectral_distance_db(one: Pcm, other: Pcm) -> float:
    """Distance of log spectra: concealment keeps no phase, so waveforms cannot be compared."""
    spectra = [
        20 * np.log10(np.abs(np.fft.rfft(pcm * np.hanning(len(pcm)))) + 100) for pcm in (one, other)
    ]
    return float(np.sqrt(np.mean((spectra[0] - spectra[1]) ** 2)))


def _lose_every_seventh(codec: Codec, how: str) -> tuple[list[Pcm], list[Pcm], int]:
    """The frames lost as they would have been, what stood in for them, and how many recovered."""
    pcm = speech_like(codec.facts.sample_rate_hz, 6)
    coded = [p for p in payloads(codec, pcm) if p is not None]
    perfect, lossy = codec.decoder(), codec.decoder()
    wanted, given, recovered = [], [], 0
    for index, payload in enumerate(coded[:-1]):
        original = perfect.decode(payload)
        if index % 7 != 3:
            lossy.decode(payload)
            continue
        made_up = lossy.recover(coded[index + 1]) if how == "fec" else None
        recovered += made_up is not None
        made_up = lossy.conceal() if made_up is None else made_up
        assert made_up is not None
        wanted.append(original)
        given.append(made_up)
    return wanted, given, recovered


@pytest.mark.parametrize("rate", ["8kHz", "16kHz", "48kHz"])
def test_fec_comes_closer_to_the_lost_frame_than_concealment(rate: str) -> None:
    codec = make("opus", rate=rate, **FEC)
    distances = {}
    for how in ("fec", "plc"):
        wanted, given, recovered = _lose_every_seventh(codec, how)
        assert recovered > 0.7 * len(wanted) if how == "fec" else recovered == 0
        distances[how] = np.median(
            [_spectral_distance_db(a, b) for a, b in zip(wanted, given, strict=True)]
        )
    assert distances["fec"] < 0.8 * distances["plc"]


def test_without_fec_there_is_nothing_to_recover() -> None:
    """Packets made without FEC carry no copy, and a decoder set up without it does not look."""
    with_fec, without = make("opus", **FEC), make("opus", bitrate="24kbit")
    pcm = speech_like(16_000, 1)
    plain = [p for p in payloads(without, pcm) if p is not None]
    redundant = [p for p in payloads(with_fec, pcm) if p is not None]
    decoder = with_fec.decoder()
    assert all(decoder.recover(payload) is None for payload in plain)
    assert any(decoder.recover(payload) is not None for payload in redundant)
    assert all(without.decoder().recover(payload) is None for payload in redundant)


FEC_SETTINGS: list[dict[str, Any]] = [
    {"expected_loss": 0.1},
    {"expected_loss": 0.05},
    {"expected_loss": 0.01},
    {"expected_loss": 0.25, "frame": 10_000_000},
    {"expected_loss": 0.1, "vbr": False, "complexity": 5},
    {"expected_loss": 0.02, "rate": 8_000},
    {"expected_loss": 0.05, "rate": 12_000, "complexity": 1},
    {"expected_loss": 0.01, "rate": 48_000, "frame": 60_000_000},
]


@pytest.mark.parametrize("written", FEC_SETTINGS, ids=str)
def test_below_its_least_bitrate_fec_is_nowhere_and_above_it_is(written: dict[str, Any]) -> None:
    """What ``check`` refuses is what the encoder's packets show, on both sides of the bound."""

    def unchecked(bitrate: int) -> opus.Params:
        return opus.Params().model_copy(update={"fec": True, "bitrate": bitrate, **written})

    least, lib = opus._least_fec_bps(unchecked(24_000)), opus.library()
    assert not opus._spends_on_fec(lib, unchecked(least - 100))
    assert opus._spends_on_fec(lib, unchecked(least + 900))
    opus.Params(fec=True, bitrate=least, **written)
    with pytest.raises(ValueError, match=r"fec: true needs a bitrate of .* \(no packet carries"):
        opus.Params(fec=True, bitrate=least - 100, **written)


def test_too_little_for_fec_is_a_mistake_of_the_scenario() -> None:
    with pytest.raises(
        ValueError, match=r"bitrate of 17\.5kbit or more .* of 2%, got 8kbit \(no p"
    ):
        opus.Params(rate="8kHz", bitrate="8kbit", fec=True, expected_loss="2%")


def test_fec_that_the_encoder_has_no_layer_for_is_unsupported() -> None:
    """At 24 kbit/s and little loss, application audio codes 8 kHz with CELT alone."""
    few = {"rate": "8kHz", "application": "audio", "fec": True}
    with pytest.raises(Unsupported, match=r"no packet of libopus .* carries redundancy"):
        make("opus", expected_loss="5%", **few)
    assert make("opus", expected_loss="10%", **few).facts.recovery_frames == 1


@pytest.mark.parametrize("frame", ["10ms", "40ms", "60ms"])
def test_fec_at_every_frame_length(frame: str) -> None:
    codec = make("opus", frame=frame, **FEC)
    wanted, given, recovered = _lose_every_seventh(codec, "fec")
    assert recovered > 0.5 * len(wanted)
    assert all(len(pcm) == codec.facts.frame_samples for pcm in given)


def test_concealment_goes_on_from_the_signal_and_fades() -> None:
    codec = make("opus")
    decoder = codec.decoder()
    pcm = speech_like(16_000, 1)
    level = 0.0
    for payload in payloads(codec, pcm)[:30]:
        level = float(np.std(decoder.decode(payload or b"")))
    concealed = [decoder.conceal() for _ in range(50)]
    levels = [float(np.std(frame)) for frame in concealed if frame is not None]
    assert levels[0] > 0.3 * level
    assert levels[-1] < 0.5 * levels[0]


def test_deep_plc_is_another_concealment_or_unsupported() -> None:
    lib = opus.library()
    if not opus.has_deep_plc(lib):
        with pytest.raises(
            Unsupported, match=r"built without deep PLC.*make libopus.*HARNESS_LIBOPUS"
        ):
            make("opus", deep_plc=True)
        pytest.skip(f"{lib.name} has no deep PLC")
    plain, deep = make("opus"), make("opus", deep_plc=True)
    _, by_pitch, _ = _lose_every_seventh(plain, "plc")
    _, by_network, _ = _lose_every_seventh(deep, "plc")
    apart = [not np.array_equal(a, b) for a, b in zip(by_pitch, by_network, strict=True)]
    assert np.mean(apart) > 0.8


def test_the_library_named_in_the_environment_is_the_only_one_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_LIBOPUS", str(tmp_path / "libopus.so"))
    opus.library.cache_clear()
    try:
        with pytest.raises(Unsupported, match=r"no libopus \(.*tmp.*libopus\.so.*HARNESS_LIBOPUS"):
            opus.library()
        monkeypatch.delenv("HARNESS_LIBOPUS")
        monkeypatch.setattr(opus_library, "_BUILT", tmp_path / "not-built.so")
        opus.library.cache_clear()
        assert "av.libs" in opus.library().path
    finally:
        opus.library.cache_clear()


def test_an_older_system_library_works_too(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        CDLL("libopus.so.0")
    except OSError as error:
        pytest.skip(f"no system libopus: {error}")
    monkeypatch.setenv("HARNESS_LIBOPUS", "libopus.so.0")
    opus.library.cache_clear()
    try:
        codec = make("opus", **FEC)
        pcm = speech_like(16_000, 0.5)
        decoder = codec.decoder()
        for payload in payloads(codec, pcm):
            assert len(decoder.decode(payload or b"")) == codec.facts.frame_samples
        wanted, _, recovered = _lose_every_seventh(codec, "fec")
        assert recovered > 0.5 * len(wanted)
    finally:
        opus.library.cache_clear()


def test_bitrate_is_what_was_asked_in_cbr() -> None:
    codec = make("opus", rate="48kHz", application="audio", bitrate="64kbit", vbr=False)
    sizes = {len(p or b"") for p in payloads(codec, speech_like(48_000, 1))}
    assert sizes == {64_000 // 50 // 8}


def test_a_constraint_on_a_constant_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="vbr_constraint: false needs vbr: true"):
        opus.Params(vbr=False, vbr_constraint=False)


def test_frames_are_not_changed_by_coding() -> None:
    codec = make("opus")
    pcm = speech_like(16_000, 0.2)
    before = pcm.copy()
    encoder = codec.encoder()
    for frame in frames(pcm, codec):
        encoder.encode(frame)
    np.testing.assert_array_equal(pcm, before)


def _with_dred(**written: Any) -> Codec:
    """Opus with DRED; skips, with the remedy, where this machine's libopus has none."""
    lib = opus.library()
    if not opus.has_dred(lib):
        with pytest.raises(Unsupported, match=r"built without DRED; .*make libopus"):
            make("opus", **DRED)
        pytest.skip(f"{lib.name} in {lib.path} has no DRED: make libopus")
    return make("opus", **{**DRED, **written})


@pytest.mark.parametrize("frame", ["10ms", "20ms", "40ms"])
def test_dred_reaches_back_over_a_burst(frame: str) -> None:
    """One packet gives back the frames of a gap before it, each closer than concealment's."""
    codec = _with_dred(frame=frame, bitrate="64kbit")
    gap = 120 // int(frame.removesuffix("ms"))
    assert codec.facts.recovery_frames == 1000 // int(frame.removesuffix("ms"))
    pcm = speech_like(16_000, 3)
    coded = [p for p in payloads(codec, pcm) if p is not None]
    perfect, by_dred, by_plc = codec.decoder(), codec.decoder(), codec.decoder()
    originals = [perfect.decode(payload) for payload in coded]
    distances: dict[str, list[float]] = {"dred": [], "plc": []}
    for index, payload in enumerate(coded[:-1]):
        if index % (4 * gap) < 3 * gap:
            by_dred.decode(payload)
            by_plc.decode(payload)
            continue
        back = gap - index % gap
        if (after := index + back) >= len(coded):
            break
        recovered, concealed = by_dred.recover(coded[after], back), by_plc.conceal()
        assert recovered is not None
        assert concealed is not None
        for how, pcm_ in (("dred", recovered), ("plc", concealed)):
            distances[how].append(_spectral_distance_db(originals[index], pcm_))
    assert len(distances["dred"]) > 2 * gap
    assert np.median(distances["dred"]) < 0.9 * np.median(distances["plc"])


def test_dred_gives_only_what_a_packet_holds() -> None:
    codec = _with_dred()
    coded = [p for p in payloads(codec, speech_like(16_000, 1)) if p is not None]
    decoder = codec.decoder()
    for payload in coded[:-1]:
        decoder.decode(payload)
    reached = [decoder.recover(coded[-1], back) is not None for back in range(1, 51)]
    assert reached[0]
    assert reached == sorted(reached, reverse=True), "a stretch without holes"
    assert not reached[-1], "24 kbit/s buys less than a second"
    plain = [p for p in payloads(make("opus"), speech_like(16_000, 1)) if p is not None]
    assert all(decoder.recover(payload, 2) is None for payload in plain)
    assert all(decoder.recover(payload, 2) is None for payload in (b"", b"\0", bytes(range(200))))


def test_a_packet_asked_twice_says_the_same() -> None:
    """A receiver may look near first and far later; what it looked at before must not matter."""
    codec = _with_dred(bitrate="48kbit")
    coded = [p for p in payloads(codec, speech_like(16_000, 1)) if p is not None]

    def recovered(*backs: int) -> list[Pcm]:
        decoder = codec.decoder()
        for payload in coded[:20]:
            decoder.decode(payload)
        return [pcm for back in backs if (pcm := decoder.recover(coded[30], back)) is not None]

    far = recovered(5)
    assert len(far) == 1
    np.testing.assert_array_equal(far, recovered(5))
    assert len(recovered(1, 5, 2)) == 3


def test_fec_comes_before_dred_for_the_nearest_frame() -> None:
    both = _with_dred(fec=True, bitrate="48kbit")
    fec = make("opus", fec=True, expected_loss=DRED["expected_loss"], bitrate="48kbit")
    coded = [p for p in payloads(both, speech_like(16_000, 1)) if p is not None]
    with_both, with_fec, deep = both.decoder(), fec.decoder(), both.decoder()
    nearest, farther, copies = [], [], []
    for index, payload in enumerate(coded[:-2]):
        for decoder in (with_both, with_fec, deep):
            decoder.decode(payload)
        if index % 7 == 3:
            copies.append(with_fec.recover(coded[index + 2]))
            nearest.append(with_both.recover(coded[index + 2]))
            farther.append(deep.recover(coded[index + 2], 2))
            assert with_fec.recover(coded[index + 2], 2) is None
    assert all(pcm is not None for pcm in farther), "farther back there is DRED only"
    pairs = [(a, b) for a, b in zip(copies, nearest, strict=True) if a is not None]
    assert len(pairs) > len(copies) / 4
    assert all(b is not None and _spectral_distance_db(a, b) < 3 for a, b in pairs)


def test_a_budget_too_small_for_dred_is_unsupported() -> None:
    _with_dred()
    with pytest.raises(Unsupported, match=r"spends nothing on DRED at 24kbit.*leave fec out"):
        make("opus", **{**DRED, "fec": True})


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"dred": "2s"}, "to 1.04s, got 2s"),
        ({"dred": "25ms"}, "multiple of 10ms"),
        ({"dred": "10ms"}, "as long as one frame"),
        ({"frame": "5ms"}, "frame of 10ms or more"),
        ({"expected_loss": "0%"}, "expected_loss of at least 1%"),
        ({"bitrate": "12kbit"}, "above 12kbit, got 12kbit"),
        ({"bitrate": "20kbit", "fec": True}, "beside fec needs a bitrate above 20kbit"),
    ],
)
def test_illegal_dred_is_a_mistake_of_the_scenario(written: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        opus.Params(**{**DRED, **written})


def test_bitrate_changes_while_it_streams() -> None:
    codec = make("opus", vbr=False)
    encoder = codec.encoder()
    assert codec.facts.bitrate_range_bps is not None
    lowest, highest = codec.facts.bitrate_range_bps
    assert lowest == 6_000
    assert highest >= 300_000, "of one channel; versions differ"
    sizes = []
    for bps in (24_000, 12_000, 48_000):
        assert encoder.set_bitrate(bps) == bps  # type: ignore[attr-defined]
        for frame in frames(speech_like(16_000, 0.2), codec):
            sizes.append(len(encoder.encode(frame) or b""))
    assert sizes == [60] * 10 + [30] * 10 + [120] * 10
    assert encoder.set_bitrate(1_000) == lowest  # type: ignore[attr-defined]
    assert encoder.set_bitrate(1_000_000) == highest  # type: ignore[attr-defined]


def _heard(codec: Codec, pcm: Pcm, lost: set[int], how: str = "codec") -> Pcm:
    """What a listener hears who sees twelve packets ahead, on the timeline of ``pcm``."""
    coded = [p for p in payloads(codec, pcm) if p is not None]
    decoder = codec.decoder()
    heard: list[Pcm] = []
    for index, payload in enumerate(coded):
        made_up: Pcm | None = None
        for back in range(1, min(codec.facts.recovery_frames, 12) + 1) if index in lost else ():
            if index + back < len(coded) and index + back not in lost and made_up is None:
                made_up = decoder.recover(coded[index + back], back)
        if index not in lost:
            made_up = decoder.decode(payload)
        elif made_up is None:
            made_up = decoder.conceal()
            assert made_up is not None
            made_up = made_up if how == "codec" else np.zeros_like(made_up)
        heard.append(made_up)
    return np.concatenate(heard)[codec.facts.delay_samples :]


def test_what_helps_against_which_loss() -> None:
    """One utterance at 24 kbit/s under 11 % of loss, independent and in bursts of four packets.

    ``scenarios/opus-recovery.yaml`` asks the same of twelve utterances.
    """
    _with_dred()
    store = AssetStore.default()
    entry = CorpusEntry(corpus="librispeech", items=("2033-164914-0000",))
    corpus = load_corpora((entry,), Path(), store, lambda _: None)
    if corpus.warning:
        pytest.skip(corpus.warning)
    pcm = resampled(prepare(corpus.items[0], store), 16_000)
    count = len(pcm) // 320
    drawn = np.random.default_rng(4)
    alone = set(np.flatnonzero(drawn.random(count) < 0.11).tolist())
    starts = np.flatnonzero(drawn.random(count) < 0.11 / 4)
    bursts = {int(start) + n for start in starts for n in range(4)}
    plain, expected = make("opus"), {"expected_loss": "20%"}
    arms = {
        "silence": (plain, "zero"),
        "plc": (plain, "codec"),
        "deep": (make("opus", deep_plc=True), "codec"),
        "fec": (make("opus", fec=True, **expected), "codec"),
        "dred": (make("opus", dred="1s", **expected), "codec"),
    }
    scores = {
        kind: {
            arm: pesq(16_000, pcm[: len(out)], out, "wb")
            for arm, (codec, how) in arms.items()
            for out in [_heard(codec, pcm, lost, how)]
        }
        for kind, lost in (("alone", alone), ("bursts", bursts))
    }

    def ordered(kind: str) -> list[str]:
        return sorted(scores[kind], key=lambda arm: scores[kind][arm])

    assert ordered("alone") == ["silence", "plc", "deep", "dred", "fec"], scores
    assert ordered("bursts")[-1] == "dred", scores
    assert ordered("bursts")[0] == "silence", scores
    assert scores["bursts"]["dred"] > scores["bursts"]["fec"] + 0.2
