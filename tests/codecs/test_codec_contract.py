"""What ``harness/codecs/base.py`` promises, for every codec."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from codec_settings import every_setting, make
from codec_signals import frames, lag, noise_bursts, payloads, round_trip, snr_db, speech_like
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import codecs
from harness.codecs.base import Codec, Decoder, Pcm
from harness.errors import BadInput


def _is_a_frame(pcm: Pcm | None, codec: Codec) -> bool:
    return pcm is not None and pcm.dtype == np.int16 and pcm.shape == (codec.facts.frame_samples,)


def _coded(codec: Codec, seconds: float = 0.8, seed: int = 1) -> list[bytes]:
    pcm = speech_like(codec.facts.sample_rate_hz, seconds, seed)
    return [p for p in payloads(codec, pcm) if p is not None]


def _play(codec: Codec, coded: list[bytes], lost: set[int]) -> list[Pcm]:
    """Decode as a receiver does: FEC, else the codec's concealment, else a frame of zeros."""
    decoder = codec.decoder()
    played = []
    for index, payload in enumerate(coded):
        frame: Pcm | None
        if index not in lost:
            frame = decoder.decode(payload)
        else:
            known = index + 1 < len(coded) and index + 1 not in lost
            frame = decoder.recover(coded[index + 1]) if known else None
            frame = decoder.conceal() if frame is None else frame
        played.append(np.zeros(codec.facts.frame_samples, np.int16) if frame is None else frame)
    return played


@every_setting()
def test_each_payload_is_one_frame(codec: Codec) -> None:
    decoder = codec.decoder()
    assert all(_is_a_frame(decoder.decode(payload), codec) for payload in _coded(codec))


@every_setting()
def test_payloads_keep_to_the_nominal_bitrate(codec: Codec) -> None:
    coded = _coded(codec, seconds=3)[5:]
    bps = 8 * np.mean([len(p) for p in coded]) * codec.facts.sample_rate_hz
    bps /= codec.facts.frame_samples
    # FEC and VBR move Opus about its target, and AAC's rate control needs longer to settle.
    assert 0.5 * codec.facts.nominal_bitrate_bps < bps < 1.4 * codec.facts.nominal_bitrate_bps


@every_setting()
def test_instances_share_no_state(codec: Codec) -> None:
    rate_hz = codec.facts.sample_rate_hz
    one, two = (frames(speech_like(rate_hz, 0.6, seed), codec) for seed in (1, 2))
    encoders = codec.encoder(), codec.encoder()
    together = [
        (encoders[0].encode(a), encoders[1].encode(b)) for a, b in zip(one, two, strict=True)
    ]
    alone = codec.encoder()
    assert [a for a, _ in together] == [alone.encode(frame) for frame in one]

    coded = [(a, b) for a, b in together if a is not None and b is not None]
    decoders = codec.decoder(), codec.decoder()
    played = [(decoders[0].decode(a), decoders[1].decode(b)) for a, b in coded]
    alone_decoder = codec.decoder()
    for (a, _), (heard, _) in zip(coded, played, strict=True):
        np.testing.assert_array_equal(alone_decoder.decode(a), heard)


@every_setting()
def test_results_are_the_callers_to_keep(codec: Codec) -> None:
    decoder = codec.decoder()
    first, second = _coded(codec)[3:5]
    kept = decoder.decode(first)
    before = kept.copy()
    decoder.decode(second)
    np.testing.assert_array_equal(kept, before)


@every_setting()
def test_conceal_and_recover_do_what_the_facts_say(codec: Codec) -> None:
    decoder = codec.decoder()
    coded = _coded(codec)
    for payload in coded[:5]:
        decoder.decode(payload)
    for _ in range(10):
        concealed = decoder.conceal()
        assert _is_a_frame(concealed, codec) if codec.facts.conceals else concealed is None
    if not codec.facts.recovery_frames:
        assert decoder.recover(coded[6]) is None


@every_setting()
def test_a_first_frame_can_be_concealed(codec: Codec) -> None:
    if codec.facts.conceals:
        assert _is_a_frame(codec.decoder().conceal(), codec)


@every_setting(parametric=False)
def test_losses_leave_the_timeline_in_place(codec: Codec) -> None:
    pcm = noise_bursts(codec.facts.sample_rate_hz, 3)
    coded = [p for p in payloads(codec, pcm) if p is not None]
    lost = {index for index in range(3, len(coded) // 2) if index % 5 in (0, 1)}
    second_half = np.concatenate(_play(codec, coded, lost)[len(coded) // 2 :])
    start = len(coded) // 2 * codec.facts.frame_samples
    assert abs(lag(second_half, pcm[start:]) - codec.facts.delay_samples) <= 2


@pytest.mark.parametrize(
    ("name", "written", "wrong_frames"),
    [
        ("pcm", {}, 0),
        ("g711", {}, 0),
        ("aac", {}, 1),  # the overlap with the lost frame
        ("g722", {}, 20),  # predictors forget
    ],
)
def test_how_long_a_loss_is_felt(name: str, written: dict[str, str], wrong_frames: int) -> None:
    codec = make(name, **written)
    coded = _coded(codec, seconds=2)
    whole, holed = _play(codec, coded, set()), _play(codec, coded, {10})
    differs = [
        index
        for index in range(11, len(coded))
        # Below 30 of 32768 the predictors of G.722 have forgotten for any listener.
        if np.abs(whole[index].astype(int) - holed[index]).max() > (30 if name == "g722" else 0)
    ]
    assert len(differs) <= wrong_frames
    assert all(index <= 10 + wrong_frames for index in differs)
    if name == "aac":
        assert differs == [11]


@pytest.mark.parametrize(
    ("name", "written", "least_db"),
    [
        ("pcm", {}, 300),
        ("g711", {"law": "mu"}, 33),
        ("g711", {"law": "a"}, 33),
        ("g722", {}, 15),
        ("aac", {"bitrate": "128kbit"}, 15),
        ("aac", {"rate": "16kHz", "bitrate": "64kbit"}, 15),
        ("opus", {"application": "audio", "bitrate": "96kbit"}, 15),
        ("opus", {"application": "lowdelay", "rate": "48kHz", "bitrate": "128kbit"}, 15),
        ("opus", {}, 4),  # SILK keeps the spectrum rather than the waveform
    ],
)
def test_signal_to_noise_ratio(name: str, written: dict[str, str], least_db: float) -> None:
    codec = make(name, **written)
    pcm = speech_like(codec.facts.sample_rate_hz, 3)
    assert snr_db(round_trip(codec, pcm), pcm, codec.facts.delay_samples) > least_db


@every_setting(parametric=False)
def test_full_scale_does_not_wrap_around(codec: Codec) -> None:
    if "vo-amrwbenc" in codec.facts.library:
        pytest.skip("libvo-amrwbenc does, once its input is clipped (test_system_codecs.py)")
    time = np.arange(codec.facts.sample_rate_hz) / codec.facts.sample_rate_hz
    loud = np.clip(50_000 * np.sin(2 * np.pi * 300 * time), -32768, 32767).astype(np.int16)
    heard = round_trip(codec, loud)
    delay = codec.facts.delay_samples
    late, asked = heard[delay:].astype(int), loud.astype(int)[: len(heard) - delay]
    steady = slice(len(late) // 4, None)
    at_the_top = np.abs(asked[steady]) == 32767
    assert (np.sign(late[steady]) == np.sign(asked[steady]))[at_the_top].mean() > 0.99


def _survives(decoder: Decoder, codec: Codec, garbage: bytes, good: list[bytes]) -> None:
    try:
        frame = decoder.decode(garbage)
    except ValueError:
        pass
    else:
        assert _is_a_frame(frame, codec)
    recovered = decoder.recover(garbage)
    assert recovered is None or _is_a_frame(recovered, codec)
    assert all(_is_a_frame(decoder.decode(payload), codec) for payload in good)


@every_setting()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_garbage_is_refused_or_decoded_but_never_fatal(codec: Codec, data: st.DataObject) -> None:
    good = _GOOD.setdefault(id(codec), _coded(codec, 0.3))[:3]
    template = good[-1]
    damaged = st.tuples(
        st.integers(0, len(template) - 1), st.integers(1, 255), st.integers(1, len(template))
    ).map(
        lambda cut: (
            template[: cut[0]] + bytes([template[cut[0]] ^ cut[1]]) + template[cut[0] + 1 :]
        )[: cut[2]]
    )
    garbage = data.draw(st.one_of(st.binary(max_size=1500), damaged))
    decoder = codec.decoder()
    decoder.decode(good[0])
    _survives(decoder, codec, garbage, good)


_GOOD: dict[int, list[bytes]] = {}


@every_setting()
@pytest.mark.parametrize("garbage", [b"", b"\x00", b"\xff" * 5000], ids=["empty", "one", "long"])
def test_payloads_of_a_wrong_size_are_refused(codec: Codec, garbage: bytes) -> None:
    with pytest.raises(ValueError, match=r"of \d+ bytes"):
        codec.decoder().decode(garbage)


@pytest.mark.parametrize(
    ("name", "written", "says"),
    [
        ("pcm", {"rate": "44.1kHz"}, "expected one of 8kHz, 16kHz, 24kHz, 48kHz, got 44.1kHz"),
        ("pcm", {"frame": "2ms"}, "expected 2.5ms to 1s, got 2ms"),
        ("pcm", {"frame": "2.6ms"}, "not a whole number of samples at 16kHz"),
        ("g711", {"law": "b"}, "'mu' or 'a'"),
        ("g711", {"frame": "61ms"}, "expected 2.5ms to 60ms"),
        ("g722", {"frame": "2.5625ms"}, "two samples"),
        ("aac", {"rate": "8kHz"}, "expected one of 12kHz, 16kHz"),
        ("aac", {"rate": "16kHz", "bitrate": "128kbit"}, "at most 96kbit at 16kHz"),
        ("aac", {"bitrate": "24 potato"}, 'a bitrate such as "24kbit"'),
        ("opus", {"frame": "7ms"}, "expected one of 2.5ms, 5ms, 10ms, 20ms, 40ms, 60ms, got 7ms"),
        ("opus", {"bitrate": "5kbit"}, "expected 6kbit to 510kbit, got 5kbit"),
        ("opus", {"complexity": 11}, "less than or equal to 10"),
        ("opus", {"fec": True, "expected_loss": "10%", "frame": "5ms"}, "10ms or more"),
        ("opus", {"fec": True, "expected_loss": "10%", "application": "lowdelay"}, "voip or audio"),
        ("opus", {"fec": True}, "expected_loss of at least 1%"),
        ("opus", {"dtx": True}, "Extra inputs are not permitted"),
        ("encodec", {"bitrate": "2kbit"}, "1.5kbit, 3kbit, 6kbit, 12kbit, 24kbit, got 2kbit"),
        ("encodec", {"weights": "none"}, "'real' or 'random'"),
    ],
)
def test_illegal_settings_say_what_is_allowed(
    name: str, written: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match="validation error") as caught:
        codecs.params_class(name)(**written)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", codecs.names())
def test_params_survive_their_own_json(name: str) -> None:
    params = codecs.params_class(name)()
    assert type(params).model_validate_json(params.model_dump_json()) == params


def test_unknown_names_get_the_list_and_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"pcm, g711.*got 'opsu'; did you mean 'opus'\?"):
        codecs.module("opsu")


def test_reading_a_scenario_imports_no_codec_library() -> None:
    script = (
        "import sys; from harness import codecs;"
        " [codecs.params_class(name)() for name in codecs.names()];"
        " print({'torch', 'av', 'encodec'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
