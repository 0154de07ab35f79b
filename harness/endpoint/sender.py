"""The sender: which input frame is encoded when, and what becomes of it; no socket, no sleeping.

Input frame i (F samples) is captured whole at t0 + (i + 1)*F/fs and encoded then. The schedule is
absolute: a frame that is late does not move those after it, and how late it was is on record. K + L
frames are fed, K = ceil((N + D) / F), zero-padded, so that every input sample leaves the decoder
(see ``codecs/base.py`` for F, L, D).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.codecs.base import CodecFacts, Encoder, Pcm
from harness.errors import CellFailed
from harness.media.packet import packetise
from harness.records import SENT_FRAMES, SENT_PACKETS, Columns, from_rows
from harness.units import samples_to_ns


def frame_count(input_samples: int, facts: CodecFacts) -> int:
    """K, the number of payloads (media frames) of an item."""
    return -(-(input_samples + facts.delay_samples) // facts.frame_samples)


class SenderCore:
    """One stream's sender. ``clock`` gives CLOCK_MONOTONIC (or virtual) nanoseconds.

    ``send`` takes a packet and returns False where it was refused; its instant is noted just
    before the call, so that a packet never arrives before it was sent.
    """

    def __init__(
        self,
        facts: CodecFacts,
        encoder: Encoder,
        stream_id: int,
        pcm: Pcm,
        t0_ns: int,
        max_packet_bytes: int | None,
        send: Callable[[bytes], bool],
        clock: Callable[[], int],
    ) -> None:
        self._facts = facts
        self._rate_hz, self._frame_samples = facts.sample_rate_hz, facts.frame_samples
        self._frame_ns = facts.frame_ns
        self._encoder = encoder
        self._stream_id = stream_id
        self._t0_ns = t0_ns
        self._max_packet_bytes = max_packet_bytes
        self._send = send
        self._clock = clock
        self.frames = frame_count(len(pcm), facts)
        self._inputs = self.frames + facts.lookahead_frames
        padded = np.zeros(self._inputs * facts.frame_samples, np.int16)
        padded[: len(pcm)] = pcm
        self._pcm = padded.reshape(self._inputs, facts.frame_samples)
        self._input = 0
        self._seq = 0
        self._packet_rows: list[tuple[int, ...]] = []
        self._frame_rows: list[tuple[int, ...]] = []
        self._encode_ns = 0
        self._worst_lateness_ns = 0
        self._late_frames = 0

    @property
    def finished(self) -> bool:
        """All input has been encoded and sent."""
        return self._input >= self._inputs

    def next_ready_ns(self) -> int | None:
        """When :meth:`step` is due; None after the last."""
        if self._input >= self._inputs:
            return None
        samples = (self._input + 1) * self._frame_samples
        return self._t0_ns + samples_to_ns(samples, self._rate_hz)

    def step(self) -> None:
        """Encode the next input frame and send what comes out.

        Raises CellFailed when the encoder crashes or breaks its contract, Unsupported where a
        payload is too large for the transport, and what ``send`` raises.
        """
        ready_ns = self.next_ready_ns()
        assert ready_ns is not None
        start_ns = self._clock()
        try:
            payload = self._encoder.encode(self._pcm[self._input])
        except Exception as error:
            raise CellFailed(
                f"the encoder crashed at input frame {self._input}: {type(error).__name__}: {error}"
            ) from error
        end_ns = self._clock()
        self._encode_ns += end_ns - start_ns
        lateness_ns = start_ns - ready_ns
        if lateness_ns > self._worst_lateness_ns:
            self._worst_lateness_ns = lateness_ns
        self._late_frames += lateness_ns > self._frame_ns
        frame = self._input - self._facts.lookahead_frames
        self._input += 1
        if frame < 0 and payload is None:
            return
        if frame < 0 or not isinstance(payload, bytes) or not payload:
            raise CellFailed(
                f"the encoder returned {payload!r:.40} for input frame {self._input - 1}; expected"
                f" {'None' if frame < 0 else 'a payload of at least one byte'}"
                f" (look-ahead: {self._facts.lookahead_frames} frames)"
            )
        sent_ns = end_ns
        for packet in packetise(
            payload,
            stream_id=self._stream_id,
            frame=frame,
            first_seq=self._seq,
            max_packet_bytes=self._max_packet_bytes,
            end=frame == self.frames - 1,
        ):
            data = packet.pack()
            sent_ns = self._clock()
            taken_ns = sent_ns if self._send(data) else -1
            self._packet_rows.append(
                (packet.seq, frame, packet.fragment, packet.fragments, len(data), taken_ns)
            )
            self._seq += 1
        self._frame_rows.append((frame, ready_ns, start_ns, end_ns, sent_ns, len(payload)))

    def packets(self) -> Columns:
        """SENT_PACKETS; ``send_ns`` is -1 where the socket refused the packet."""
        return from_rows(SENT_PACKETS, self._packet_rows)

    def sent_frames(self) -> Columns:
        """SENT_FRAMES."""
        return from_rows(SENT_FRAMES, self._frame_rows)

    def figures(self) -> dict[str, int]:
        """How well the schedule was kept (start of encoding against capture), encoding in total."""
        return {
            "worst_lateness_ns": self._worst_lateness_ns,
            "late_frames": self._late_frames,
            "encode_wall_ns": self._encode_ns,
        }
