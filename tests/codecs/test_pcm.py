"""PCM in the messages of older systems."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import soundfile

from harness.codecs import create, params_class


def test_a_chunk_is_json_with_the_samples_in_base64() -> None:
    codec = create("pcm", params_class("pcm")(rate="24kHz", frame="1s", framing="json"), {})
    pcm = np.arange(24_000, dtype=np.int16)
    encoder = codec.encoder()
    messages = [encoder.encode(pcm), encoder.encode(pcm)]
    read = [json.loads(message or b"") for message in messages]
    assert [message["id"] for message in read] == ["stream1"] * 2
    assert base64.b64decode(read[0]["details"]) == pcm.astype("<i2").tobytes()
    assert read[1]["timestamp"] - read[0]["timestamp"] == 1
    np.testing.assert_array_equal(codec.decoder().decode(messages[0] or b""), pcm)


@pytest.mark.parametrize("message", [b"", b"{}", b'{"id": "stream1"}', b"x" * 64_062])
def test_what_the_sender_could_not_have_made_is_refused(message: bytes) -> None:
    codec = create("pcm", params_class("pcm")(rate="24kHz", frame="1s", framing="json"), {})
    with pytest.raises(ValueError, match="PCM message"):
        codec.decoder().decode(message)


def test_a_chunk_is_a_wav_file_of_its_own() -> None:
    codec = create("pcm", params_class("pcm")(frame="64ms", framing="wav"), {})
    pcm = np.arange(-512, 512, dtype=np.int16)
    message = codec.encoder().encode(pcm) or b""
    assert len(message) == 44 + 2048
    read, rate_hz = soundfile.read(io.BytesIO(message), dtype="int16")
    assert rate_hz == 16_000
    np.testing.assert_array_equal(read, pcm)
    np.testing.assert_array_equal(codec.decoder().decode(message), pcm)
    for damaged in (b"", message[:43], message[:-2], b"RIFX" + message[4:]):
        with pytest.raises(ValueError, match="no WAV file of this stream"):
            codec.decoder().decode(damaged)
