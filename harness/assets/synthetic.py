"""Speech made here by espeak-ng, for machines that reach no corpus: for plumbing, not for quality.

Fixed sentences in fixed voices: the same espeak-ng gives the same samples.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import soundfile

from harness.assets.items import ItemRef
from harness.assets.store import file_sha256
from harness.errors import AssetError

CORPUS = "synthetic"
_PROGRAM = "espeak-ng"
_VOICES = [
    (f"{accent}+{voice}", "F" if voice.startswith("f") else "M")
    for accent in ("en-us", "en-gb")
    for voice in ("f2", "m3", "f4", "m1", "f1", "m7")
]
_SENTENCES = (
    "The ferry leaves the northern harbour before the sun is up.",
    "She kept an old brass compass beside the telephone.",
    "Nobody heard the garden gate swing open in the storm.",
    "Fresh bread and salted butter were all that he wanted.",
    "Two quiet engineers measured the bridge twice that week.",
    "The choir will practise in the small hall on Thursday.",
    "Put the blue folder on the shelf above the printer.",
    "A narrow path winds between the chapel and the quarry.",
    "His brother repairs clocks in a shop near the station.",
    "We waited for the fog to lift before crossing the valley.",
    "The children traded marbles for a broken pocket radio.",
    "Warm rain drummed on the roof throughout the evening.",
)
_SENTENCES_PER_ITEM = 4
_LARGEST = len(_VOICES)


def speech(cache: Path, count: int) -> tuple[ItemRef, ...]:
    """Up to ``count`` items (at most 12), made where ``cache`` lacks them.

    Raises AssetError, with the remedy, where espeak-ng is missing or fails.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise AssetError(
            f"{_PROGRAM} is not installed, so no synthetic speech can be made:"
            f" apt-get install {_PROGRAM}"
        )
    version = _spoken([program, "--version"]).split("Data at")[0].strip()
    folder = cache / CORPUS
    return tuple(_item(program, version, folder, n) for n in range(min(count, _LARGEST)))


def _item(program: str, version: str, folder: Path, number: int) -> ItemRef:
    voice, sex = _VOICES[number]
    text = "\n\n".join(
        _SENTENCES[(number + 3 * k) % len(_SENTENCES)] for k in range(_SENTENCES_PER_ITEM)
    )
    recipe = hashlib.sha256("\0".join((version, voice, text)).encode()).hexdigest()
    path = folder / f"{recipe[:32]}.wav"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            part = Path(scratch) / "speech.wav"
            _spoken([program, "-v", voice, "-s", "150", "-w", str(part), text])
            part.replace(path)
    return ItemRef(
        id=f"{CORPUS}-{number + 1:02}",
        corpus=CORPUS,
        kind="speech",
        source=str(path),
        sha256=file_sha256(path),
        size_bytes=path.stat().st_size,
        seconds=soundfile.info(path).duration,
        speaker=f"{_PROGRAM} {voice}",
        sex=sex,
        language="en",
        licence="none needed",
        attribution=version,
    )


def _spoken(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise AssetError(f"{command[0]} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout
