"""What a streaming inference sink is set to do, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RATE_HZ = 16_000
"""Of the audio that classifiers hear."""
ClassifierName = Literal["silero-vad", "wav2vec2-gender"]
Drop = Literal["drop-oldest", "drop-newest", "block"]
Takes = Literal["play", "arrival"]


@dataclass(frozen=True)
class SinkSettings:
    """Samples are at ``RATE_HZ``; a *chunk* is what comes in at once, a *window* what is decided
    on.

    * ``takes``: audio as it is played, or as it arrives: a program without a playout clock, which
      the jitter buffer does not hold up. What never arrived is then what concealment made of it.
    * ``hop_chunks`` lie between the starts of two windows; those that they share overlap.
    * ``ring_chunks`` may wait; ``drop`` says what becomes of one more. ``block`` drops nothing: it
      waits outside, as with a socket that nobody reads, and later ones behind it.
    * Up to ``batch_windows`` are classified in one call, which waits no longer than ``wait_ns``
      from when its first window was complete.
    * A window is silent, and not classified, where the RMS of its chunks, full scale 1, is below
      ``gate_rms`` in the mean.
    * ``clients`` send the same stream, each ``apart_ns`` after the one before; each has a buffer
      of its own, and one classifier serves all.
    * ``shared`` is how a known program does it (junaidmalik09/audio_stream_classification): one
      queue for all clients, whoever's chunks are neighbours in it; a window is taken when one chunk
      more than it needs is there; its chunks are classified as a batch and vote; the reply bears no
      id and goes to the client whose thread won the race for the window. ``batch_windows`` and
      ``wait_ns`` have no meaning then.
    * ``inference_ns``: what a window costs, instead of what the classifier really takes.
    """

    classifier: ClassifierName = "silero-vad"
    takes: Takes = "play"
    chunk_samples: int = 1024
    window_chunks: int = 2
    hop_chunks: int = 1
    ring_chunks: int = 100
    drop: Drop = "drop-oldest"
    batch_windows: int = 2
    wait_ns: int = 20_000_000
    gate_rms: float = 0.01
    clients: int = 1
    apart_ns: int = 1_300_000_000
    shared: bool = False
    inference_ns: int | None = None

    @property
    def window_samples(self) -> int:
        return self.window_chunks * self.chunk_samples

    def windows_due(self, chunks: int) -> int:
        """How many windows so many chunks of one client make."""
        return max(0, (chunks - self.window_chunks) // self.hop_chunks + 1)
