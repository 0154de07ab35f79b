"""Our codecs against programs that others wrote: the same payloads, the same samples.

One entry a program. What is not compared, and where a program differs, stands in docs/codecs.md.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codec_settings import make
from codec_signals import payloads, whole_frames

from harness.assets import Prepared
from harness.codecs.base import Codec, Pcm

SECONDS = 5


@dataclass(frozen=True)
class Trial:
    """One utterance through one of our codecs, and a folder for the program."""

    folder: Path
    codec: Codec
    pcm: Pcm
    payloads: list[bytes]
    heard: Pcm
    """What our decoder makes of ``payloads``, shape (len(payloads) * frame_samples,)."""

    def run(self, *command: object) -> bytes:
        done = subprocess.run(
            list(map(str, command)), cwd=self.folder, capture_output=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr.decode(errors="replace"))
        return done.stdout

    def write(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return name

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def speech_raw(self) -> str:
        return self.write("speech.raw", self.pcm.tobytes())

    def speech_wav(self) -> str:
        with wave.open(str(self.folder / "speech.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.codec.facts.sample_rate_hz)
            file.writeframes(self.pcm.tobytes())
        return "speech.wav"

    def cut(self, data: bytes) -> list[bytes]:
        """``data`` in pieces of our payloads' sizes."""
        ends = np.cumsum([len(payload) for payload in self.payloads]).tolist()
        pieces = zip([0, *ends[:-1]], ends, strict=True)
        return [data[start:end] for start, end in pieces if end <= len(data)]


@dataclass(frozen=True)
class Theirs:
    """What a program made of the same speech (``payloads``), and of these payloads (``pcm``)."""

    payloads: list[bytes] | None = None
    pcm: Pcm | None = None
    skipped_samples: int = 0
    """At the beginning of the output, which the program leaves out."""
    tolerance: int = 0
    """Of a sample: 1 where floats of two builds of one decoder are rounded."""


@dataclass(frozen=True)
class Reference:
    programs: tuple[str, ...]
    package: str
    codec: str
    run: Callable[[Trial], Theirs]
    settings: Sequence[dict[str, Any]] = ({},)
    environment: dict[str, str] = field(default_factory=dict)


def _samples(data: bytes) -> Pcm:
    return np.frombuffer(data, np.int16)


def _lc3(trial: Trial) -> Theirs:
    facts = trial.codec.facts
    frame_ms = f"{facts.frame_ns / 1e6:g}"
    trial.run("elc3", "-b", facts.nominal_bitrate_bps, "-m", frame_ms, trial.speech_wav(), "c.lc3")
    coded = trial.read("c.lc3")
    trial.run("dlc3", "c.lc3", "heard.wav")
    with wave.open(str(trial.folder / "heard.wav")) as file:
        pcm = _samples(file.readframes(file.getnframes()))
    at = struct.unpack_from("<H", coded, 2)[0]
    packets = []
    while at < len(coded):
        (size,) = struct.unpack_from("<H", coded, at)
        packets.append(coded[at + 2 : at + 2 + size])
        at += 2 + size
    return Theirs(packets, pcm, facts.delay_samples)


def _codec2(trial: Trial) -> Theirs:
    mode = {700: "700C"}.get(trial.codec.facts.nominal_bitrate_bps)
    mode = mode or str(trial.codec.facts.nominal_bitrate_bps)
    trial.run("c2enc", mode, trial.speech_raw(), "c.bit")
    trial.run("c2dec", mode, "c.bit", "heard.raw")
    return Theirs(trial.cut(trial.read("c.bit")), _samples(trial.read("heard.raw")))


def _gsm(trial: Trial) -> Theirs:
    coded = trial.run("toast", "-l", "-c", trial.speech_raw())
    heard = trial.run("untoast", "-l", "-c", trial.write("c.gsm", coded))
    return Theirs(trial.cut(coded), _samples(heard))


def _speex(trial: Trial) -> Theirs:
    rate_hz = trial.codec.facts.sample_rate_hz
    band = {8_000: "--narrowband", 16_000: "--wideband", 32_000: "--ultra-wideband"}[rate_hz]
    trial.run("speexenc", band, "--quality", 8, "--comp", 3, trial.speech_raw(), "c.spx")
    trial.run("speexdec", "c.spx", "heard.raw")
    headers = 2
    packets = list(_ogg_packets(trial.read("c.spx")))[headers:]
    return Theirs(packets, _samples(trial.read("heard.raw")), trial.codec.facts.delay_samples)


def _ogg_packets(data: bytes) -> Iterator[bytes]:
    """RFC 3533, section 6."""
    packet, at = b"", 0
    while at < len(data):
        assert data[at : at + 4] == b"OggS"
        segments = data[at + 27 : at + 27 + data[at + 26]]
        at += 27 + len(segments)
        for size in segments:
            packet += data[at : at + size]
            at += size
            if size < 255:
                yield packet
                packet = b""


def _sbc_of_bluez(trial: Trial) -> Theirs:
    facts = trial.codec.facts
    pool = trial.payloads[0][2]
    au = struct.pack(">4s5I", b".snd", 24, 2 * len(trial.pcm), 3, facts.sample_rate_hz, 1)
    speech = trial.write("speech.au", au + trial.pcm.astype(">i2").tobytes())
    coded = trial.run("sbcenc", "-s", 8, "-B", 16, "-b", pool, speech)
    trial.run("sbcdec", "-f", "heard.au", trial.write("c.sbc", coded))
    heard = trial.read("heard.au")
    begins = struct.unpack_from(">I", heard, 4)[0]
    return Theirs(trial.cut(coded), np.frombuffer(heard[begins:], ">i2").astype(np.int16))


def _ffmpeg(name: str, form: str, *options: str) -> Callable[[Trial], Theirs]:
    """FFmpeg's encoder and decoder of that name, of a headerless format."""

    def run(trial: Trial) -> Theirs:
        quiet = ("ffmpeg", "-v", "error")
        bps = trial.codec.facts.nominal_bitrate_bps
        coding = ("-c:a", name, "-b:a", bps, *options, "-f", form)
        trial.run(*quiet, "-i", trial.speech_wav(), *coding, "coded")
        # Ours keeps the last frames until more is fed, so its own payloads are what is decoded.
        ours = trial.write("ours", b"".join(trial.payloads))
        trial.run(*quiet, "-f", form, "-i", ours, "-f", "s16le", "heard.raw")
        return Theirs(trial.cut(trial.read("coded")), _samples(trial.read("heard.raw")))

    return run


def _aac(trial: Trial) -> Theirs:
    """FFmpeg's decoder, of our payloads behind ADTS headers (ISO/IEC 14496-3, 1.A.2.2).

    Its encoder is not compared: libavcodec's changes what it writes from version to version.
    """
    rates_hz = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000)
    rate = rates_hz.index(trial.codec.facts.sample_rate_hz)
    stream = b""
    for payload in trial.payloads:
        size = 7 + len(payload)
        # Sync word, MPEG-4 without CRC; LC, rate, one channel; size; any fullness, one block.
        header = 0xFFF1 << 40 | (1 << 6 | rate << 2) << 32 | 1 << 30 | size << 13 | 0x7FF << 2
        stream += header.to_bytes(7, "big") + payload
    coded = trial.write("c.aac", stream)
    trial.run("ffmpeg", "-v", "error", "-f", "aac", "-i", coded, "-f", "f32le", "heard.raw")
    return Theirs(pcm=_rounded(trial.read("heard.raw")), tolerance=1)


def _mp3(trial: Trial) -> Theirs:
    """FFmpeg with LAME; its decoder of floats, of our payloads."""
    coder: Any = trial.codec
    quiet, bps = ("ffmpeg", "-v", "error"), trial.codec.facts.nominal_bitrate_bps
    bare = ("-write_xing", 0, "-id3v2_version", 0, "-f", "mp3")
    coding = ("-c:a", "libmp3lame", "-b:a", bps, "-reservoir", int(coder.params.reservoir))
    trial.run(*quiet, "-i", trial.speech_wav(), *coding, *bare, "coded")
    ours = trial.write("ours", b"".join(trial.payloads))
    trial.run(*quiet, "-c:a", "mp3float", "-f", "mp3", "-i", ours, "-f", "f32le", "heard.raw")
    heard = _rounded(trial.read("heard.raw"))
    return Theirs(trial.cut(trial.read("coded")), heard, tolerance=1)


def _rounded(floats: bytes) -> Pcm:
    samples = np.rint(np.frombuffer(floats, np.float32) * 32768.0)
    return np.clip(samples, -32768, 32767).astype(np.int16)


def _flac(trial: Trial) -> Theirs:
    encoder: Any = trial.codec.encoder()
    info = bytes([0x80, 0, 0, len(encoder.extradata)]) + encoder.extradata
    coded = trial.write("c.flac", b"fLaC" + info + b"".join(trial.payloads))
    raw = ("--force-raw-format", "--endian=little", "--sign=signed")
    return Theirs(pcm=_samples(trial.run("flac", "--silent", "-d", "-c", *raw, coded)))


def _amr(magic: bytes, form: str) -> Callable[[Trial], Theirs]:
    """SoX's decoder; its encoder has DTX on, which ours never has."""

    def run(trial: Trial) -> Theirs:
        coded = trial.write("c", magic + b"".join(trial.payloads))
        return Theirs(pcm=_samples(trial.run("sox", "-D", "-t", form, coded, "-t", "s16", "-")))

    return run


def _amr_nb_of_gstreamer(trial: Trial) -> Theirs:
    modes = (4_750, 5_150, 5_900, 6_700, 7_400, 7_950, 10_200, 12_200)
    mode = modes.index(trial.codec.facts.nominal_bitrate_bps)
    form = ["format=pcm", "pcm-format=s16le", "sample-rate=8000", "num-channels=1"]
    trial.run(
        *("gst-launch-1.0", "-q", "filesrc", f"location={trial.speech_raw()}"),
        *("!", "rawaudioparse", *form),
        *("!", "amrnbenc", f"band-mode={mode}", "!", "filesink", "location=coded"),
    )
    return Theirs(trial.cut(trial.read("coded")))


REFERENCES = [
    Reference(
        ("elc3", "dlc3"),
        "liblc3-tools",
        "lc3",
        _lc3,
        (
            {},
            {"rate": "8kHz", "bitrate": "24kbit"},
            {"rate": "48kHz", "bitrate": "96kbit", "frame": "7.5ms"},
        ),
        # Of the same version as the tools: lc3py's 1.1.3 rounds otherwise in single frames.
        {"HARNESS_LIBLC3": "liblc3.so.0"},
    ),
    Reference(
        ("c2enc", "c2dec"),
        "codec2",
        "codec2",
        _codec2,
        [{"bitrate": f"{bps}bit"} for bps in (3200, 2400, 1600, 1400, 1300, 1200, 700)],
    ),
    Reference(("toast", "untoast"), "libgsm-tools", "gsm", _gsm),
    Reference(
        ("speexenc", "speexdec"),
        "speex",
        "speex",
        _speex,
        ({}, {"rate": "8kHz", "bitrate": "15kbit"}, {"rate": "32kHz", "bitrate": "29.6kbit"}),
    ),
    Reference(
        ("sbcenc", "sbcdec"),
        "sbc-tools",
        "sbc",
        _sbc_of_bluez,
        ({}, {"rate": "48kHz", "bitrate": "128kbit"}),
    ),
    Reference(("ffmpeg",), "ffmpeg", "sbc", _ffmpeg("sbc", "sbc")),
    Reference(("ffmpeg",), "ffmpeg", "g722", _ffmpeg("g722", "g722")),
    Reference(
        ("ffmpeg",),
        "ffmpeg",
        "mp3",
        _mp3,
        ({}, {"rate": "16kHz", "bitrate": "32kbit", "reservoir": False}),
    ),
    Reference(("ffmpeg",), "ffmpeg", "aac", _aac, ({}, {"rate": "16kHz", "bitrate": "32kbit"})),
    Reference(("flac",), "flac", "flac", _flac, ({}, {"rate": "44.1kHz", "compression": 8})),
    Reference(
        ("sox",),
        "sox",
        "amr-nb",
        _amr(b"#!AMR\n", "amr-nb"),
        ({}, {"bitrate": "4.75kbit"}, {"bitrate": "7.4kbit"}),
    ),
    Reference(
        ("sox",),
        "sox",
        "amr-wb",
        _amr(b"#!AMR-WB\n", "amr-wb"),
        ({}, {"bitrate": "6.6kbit"}, {"bitrate": "23.85kbit"}),
    ),
    Reference(
        ("gst-launch-1.0",),
        "gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-ugly",
        "amr-nb",
        _amr_nb_of_gstreamer,
        ({}, {"bitrate": "4.75kbit"}, {"bitrate": "7.4kbit"}),
    ),
]


def _cases() -> list[Any]:
    return [
        pytest.param(
            reference,
            written,
            id="-".join([reference.programs[0], reference.codec, *map(str, written.values())]),
        )
        for reference in REFERENCES
        for written in reference.settings
    ]


def _trial(codec: Codec, prepared: Prepared, folder: Path) -> Trial:
    pcm = whole_frames(prepared, codec, SECONDS)
    coded = [payload for payload in payloads(codec, pcm) if payload is not None]
    decoder = codec.decoder()
    return Trial(folder, codec, pcm, coded, np.concatenate([decoder.decode(p) for p in coded]))


def _need(*programs: str, package: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install {package}")


@pytest.mark.parametrize(("reference", "written"), _cases())
def test_the_program_codes_as_ours_does(
    reference: Reference,
    written: dict[str, Any],
    speech: list[Prepared],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _need(*reference.programs, package=reference.package)
    for name, value in reference.environment.items():
        monkeypatch.setenv(name, value)
    trial = _trial(make(reference.codec, **written), speech[0], tmp_path)
    theirs = reference.run(trial)
    if theirs.payloads is not None:
        same = [ours == other for ours, other in zip(trial.payloads, theirs.payloads, strict=False)]
        assert len(same) >= 0.97 * len(trial.payloads), "the rest is what the program pads"
        assert all(same), f"{same.count(False)} of {len(same)} differ, {same.index(False)} first"
    if theirs.pcm is not None:
        ours = trial.heard[theirs.skipped_samples :]
        count = min(len(ours), len(theirs.pcm))
        assert count >= 0.97 * len(trial.pcm)
        assert np.any(ours)
        np.testing.assert_allclose(ours[:count], theirs.pcm[:count], rtol=0, atol=theirs.tolerance)


@pytest.mark.parametrize("law", ["mu", "a"])
def test_g711_expands_as_ffmpeg_and_compresses_no_farther(
    law: str, speech: list[Prepared], tmp_path: Path
) -> None:
    """FFmpeg rounds some samples to the farther of two neighbouring codes, ours none."""
    _need("ffmpeg", package="ffmpeg")
    trial = _trial(make("g711", law=law), speech[0], tmp_path)
    theirs = _ffmpeg(f"pcm_{law}law", f"{law}law", "-ar", "8000")(trial)
    assert theirs.payloads is not None
    decoder = trial.codec.decoder()
    errors = [
        np.abs(heard.astype(np.int32) - trial.pcm)
        for heard in (trial.heard, np.concatenate([decoder.decode(p) for p in theirs.payloads]))
    ]
    assert np.all(errors[0] <= errors[1])
    assert 0.7 < np.mean(errors[0] == errors[1]) < 1
    trial.run("ffmpeg", "-v", "error", "-f", f"{law}law", "-ar", 8000, "-ac", 1, "-i", "ours",
              "-f", "s16le", "expanded")  # fmt: skip
    np.testing.assert_array_equal(trial.heard, _samples(trial.read("expanded")))


def test_a_program_that_codes_otherwise_is_seen(speech: list[Prepared], tmp_path: Path) -> None:
    _need("c2enc", "c2dec", package="codec2")
    ours = _trial(make("codec2", bitrate="3200bit"), speech[0], tmp_path)
    theirs = _codec2(_trial(make("codec2", bitrate="2400bit"), speech[0], tmp_path))
    assert theirs.payloads != ours.payloads
    assert not np.array_equal(theirs.pcm, ours.heard)
