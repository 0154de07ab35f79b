"""The sender: which input frame is encoded when, and what becomes of it; no socket, no sleeping.

Input frame i (F samples) is captured whole at t0 + (i + 1)*F/fs and encoded then. The schedule is
absolute: a frame that is late does not move those after it, and how late it was is on record. K + L
frames are fed, K = ceil((N + D) / F), zero-padded, so that every input sample leaves the decoder
(see ``codecs/base.py`` for F, L, D).

A payload leaves as soon as it is encoded, unless its fragments are paced or its frame is
interleaved: what has to wait lies in the outbox until its instant. What the receiver says comes in
by :meth:`SenderCore.on_feedback`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any, cast

import numpy as np

from harness.codecs.base import AdjustableEncoder, CodecFacts, Encoder, Pcm
from harness.errors import CellFailed
from harness.lateness import Schedule
from harness.media.adaptation import followed_bps, rate_control
from harness.media.feedback import Nack, Report
from harness.media.packet import REPORT_TIMES, SEQUENCES, Packet, Purpose, packetise
from harness.media.protection import ParityMaker, Repeater, interleaved_slot
from harness.media.settings import SenderSettings
from harness.media.wire import HARNESS, Wire
from harness.records import SENT_FRAMES, SENT_PACKETS, Columns, datagram_identity, from_rows
from harness.units import samples_to_ns

_MEDIA = int(Purpose.MEDIA)  # to look it up in its enum takes longer than to send it
_HISTORY = 512
"""Packets kept for retransmission: five seconds of 10 ms frames."""


def frame_count(input_samples: int, facts: CodecFacts) -> int:
    """K, the number of payloads (media frames) of an item."""
    return -(-(input_samples + facts.delay_samples) // facts.frame_samples)


class SenderCore:
    """One stream's sender. ``clock`` gives CLOCK_MONOTONIC (or virtual) nanoseconds.

    ``send`` takes a packet and returns False where it was refused; its instant is noted just
    before the call, so that a packet never arrives before it was sent. ``gap_ns`` lies between the
    fragments of one payload. Where ``send`` is ``blocking``, waiting for room in a queue, a frame
    that starts late for its sake counts as on time: that is the system's doing, not the machine's,
    and stands in the frame's own times. Streams that one thread sends share a ``schedule``. Raises
    Unsupported where the rate is to follow the network and the encoder has one rate only.
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
        settings: SenderSettings | None = None,
        wire: Wire = HARNESS,
        gap_ns: int = 0,
        blocking: bool = False,
        receivers: int = 1,
        schedule: Schedule | None = None,
    ) -> None:
        self._facts = facts
        self._schedule = schedule or Schedule(facts.frame_ns)
        self._settings = settings = settings or SenderSettings()
        self._rate_hz, self._frame_samples = facts.sample_rate_hz, facts.frame_samples
        self._frame_ns = facts.frame_ns
        self._encoder = encoder
        self._stream_id = stream_id
        self._t0_ns = t0_ns
        self._max_packet_bytes = max_packet_bytes
        self._send = send
        self._clock = clock
        self._wire = wire
        self._gap_ns = gap_ns
        self._blocking = blocking
        self._released_ns = t0_ns
        self.frames = frame_count(len(pcm), facts)
        self._inputs = self.frames + facts.lookahead_frames
        padded = np.zeros(self._inputs * facts.frame_samples, np.int16)
        padded[: len(pcm)] = pcm
        self._pcm = padded.reshape(self._inputs, facts.frame_samples)
        self._input = 0
        self._seqs = list(SEQUENCES)
        self._repeater = Repeater(settings) if settings.repeat else None
        self._parity = ParityMaker(settings) if settings.fec_parity else None
        self._slots: dict[int, tuple[int, bytes]] = {}
        self._outbox: deque[tuple[int, Packet]] = deque()
        self._history: dict[int, Packet] = {}
        self._repeats_left: dict[int, int] = {}  # of packets in the history that were asked for
        self._most_repeats = settings.nack_retries * receivers
        self._sent_ns: dict[int, int] = {}
        self._packet_rows: list[tuple[int, ...]] = []
        self._frame_rows: list[list[int]] = []
        self._encode_ns = 0
        self._late_frames = 0
        self._feedback = {"reports": 0, "nacks": 0, "retransmissions": 0, "foreign_feedback": 0}
        self._media_sent = 0
        self._report_ns = t0_ns
        self._target_bps = facts.nominal_bitrate_bps
        self._controls = [rate_control(settings, facts) for _ in range(receivers)]
        self._wanted_bps = [facts.nominal_bitrate_bps] * receivers

    @property
    def finished(self) -> bool:
        """All input has been encoded and sent."""
        return self._input >= self._inputs and not self._outbox

    def next_ready_ns(self) -> int | None:
        """When :meth:`step` is due; None after the last."""
        if self._outbox and (
            self._input >= self._inputs or self._outbox[0][0] <= self._capture_end_ns()
        ):
            return self._outbox[0][0]
        if self._input >= self._inputs:
            return None
        return self._capture_end_ns()

    def step(self) -> None:
        """Encode the next input frame and send what comes out, or send what is due by now.

        Raises CellFailed when the encoder crashes or breaks its contract, Unsupported where a
        payload is too large for the transport, and what ``send`` raises.
        """
        if self._outbox and self.next_ready_ns() == self._outbox[0][0]:
            due_ns, packet = self._outbox.popleft()
            start_ns = self._clock()
            self._transmit(packet)
            self._schedule.note(self, due_ns, start_ns, self._clock())
            return
        ready_ns = self._capture_end_ns()
        start_ns = self._clock()
        try:
            payload = self._encoder.encode(self._pcm[self._input])
        except Exception as error:
            raise CellFailed(
                f"the encoder crashed at input frame {self._input}: {type(error).__name__}: {error}"
            ) from error
        end_ns = self._clock()
        self._encode_ns += end_ns - start_ns
        due_ns = max(ready_ns, self._released_ns)
        self._schedule.note(self, due_ns, start_ns, end_ns)
        self._late_frames += start_ns - due_ns > self._frame_ns
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
        self._frame_rows.append(
            [frame, ready_ns, start_ns, end_ns, -1, len(payload), self._target_bps]
        )
        self._release(frame, payload, end_ns)

    def on_feedback(self, data: bytes, receiver: int = 0) -> None:
        """What a receiver said, at the clock's now: send again what it misses, and follow its
        reports. Never raises on bytes of another's making."""
        try:
            message = self._wire.parse_feedback(data)
        except ValueError:
            message = None
        if message is None or message.stream_id != self._stream_id:
            self._feedback["foreign_feedback"] += 1
        elif isinstance(message, Nack):
            self._feedback["nacks"] += 1
            for seq in dict.fromkeys(message.seqs):  # once each
                left = self._repeats_left.get(seq, self._most_repeats)
                if left and (packet := self._history.get(seq)) is not None:
                    self._repeats_left[seq] = left - 1
                    self._feedback["retransmissions"] += 1
                    self._transmit(self._again(packet))
        else:
            self._feedback["reports"] += 1
            self._follow(message, receiver)

    def _capture_end_ns(self) -> int:
        samples = (self._input + 1) * self._frame_samples
        return self._t0_ns + samples_to_ns(samples, self._rate_hz)

    def _release(self, frame: int, payload: bytes, now_ns: int) -> None:
        """Send a frame and what protects it, or put it where it waits for its instant."""
        last = frame == self.frames - 1
        protected = self._repeater.wrap(payload) if self._repeater else payload
        if self._settings.interleave > 1:
            self._interleave(frame, protected, last)
        else:
            self._pace(self._packets(_MEDIA, frame, protected, last), now_ns)
        if self._parity is not None:
            for parity in self._parity.add(payload, last):
                first = frame - frame % self._settings.fec_data
                self._pace(self._packets(Purpose.PARITY, first, parity, end=False), now_ns)

    def _packets(self, purpose: int, frame: int, payload: bytes, end: bool) -> list[Packet]:
        packets = packetise(
            payload,
            stream_id=self._stream_id,
            frame=frame,
            first_seq=self._seqs[purpose],
            max_packet_bytes=self._max_packet_bytes,
            header_bytes=self._wire.header_bytes,
            end=end,
            purpose=purpose,
        )
        self._seqs[purpose] += len(packets)
        return packets

    def _pace(self, packets: list[Packet], now_ns: int) -> None:
        if not self._gap_ns and not self._outbox:
            for packet in packets:
                self._transmit(packet)
            return
        if self._outbox:  # nothing overtakes what waits
            now_ns = max(now_ns, self._outbox[-1][0] + self._gap_ns)
        elif packets:
            self._transmit(packets[0])
            packets, now_ns = packets[1:], now_ns + self._gap_ns
        self._outbox.extend((now_ns + n * self._gap_ns, p) for n, p in enumerate(packets))

    def _interleave(self, frame: int, payload: bytes, last: bool) -> None:
        """Packets are numbered as they leave, or their numbers would have gaps on the way."""
        self._slots[interleaved_slot(frame, self._settings.interleave)] = frame, payload
        for packet in self._packets_of_slot(frame):
            self._transmit(packet)
        if last:
            ready_ns = self._frame_rows[-1][1]
            for slot in sorted(self._slots):
                due_ns = ready_ns + (slot - frame) * self._frame_ns
                self._outbox.extend((due_ns, packet) for packet in self._packets_of_slot(slot))

    def _packets_of_slot(self, slot: int) -> list[Packet]:
        if slot not in self._slots:
            return []
        frame, payload = self._slots.pop(slot)
        return self._packets(_MEDIA, frame, payload, frame == self.frames - 1)

    def _transmit(self, packet: Packet) -> None:
        data = self._wire.pack(packet)
        sent_ns = self._clock()
        taken_ns = sent_ns if self._send(data) else -1
        if self._blocking:
            self._released_ns = self._clock()
        _, seq, frame, fragment, fragments, _, _, purpose, _ = packet
        row = (seq, frame, fragment, fragments, len(data), taken_ns, purpose)
        self._packet_rows.append((*row, datagram_identity(data)))
        if purpose == _MEDIA:
            self._frame_rows[frame][4] = sent_ns
            self._media_sent += 1
            if self._settings.needs_feedback:
                self._history[packet.seq] = packet
                self._sent_ns[packet.seq] = sent_ns
                if len(self._history) > _HISTORY:
                    oldest = next(iter(self._history))
                    del self._history[oldest], self._sent_ns[oldest]
                    self._repeats_left.pop(oldest, None)
            if self._settings.reports and sent_ns >= self._report_ns:
                self._report_ns = sent_ns + self._settings.report_every_ns
                self._transmit(self._report(packet))

    def _report(self, after: Packet) -> Packet:
        now_ns = self._clock()
        delay_ns = samples_to_ns(self._facts.delay_samples, self._rate_hz)
        return Packet(
            self._stream_id,
            SEQUENCES[Purpose.REPORT] + self._media_sent,
            after.frame,
            0,
            1,
            after.end,
            REPORT_TIMES.pack(now_ns, now_ns - self._t0_ns + delay_ns),
            Purpose.REPORT,
        )

    def _again(self, packet: Packet) -> Packet:
        seq = self._seqs[Purpose.RETRANSMISSION]
        self._seqs[Purpose.RETRANSMISSION] += 1
        payload = packet.seq.to_bytes(4, "big") + packet.payload
        return packet._replace(seq=seq, payload=payload, purpose=Purpose.RETRANSMISSION)

    def _follow(self, report: Report, receiver: int) -> None:
        control = self._controls[receiver]
        if control is None:
            return
        now_ns = self._clock()
        sent_ns, held_ns = self._sent_ns.get(report.highest_seq), report.held_ns
        if report.reported_ns >= 0:
            sent_ns, held_ns = report.reported_ns, report.reported_held_ns
        rtt_ns = None if sent_ns is None else now_ns - sent_ns - held_ns
        self._wanted_bps[receiver] = control.on_report(report, rtt_ns, now_ns)
        wanted_bps = followed_bps(self._wanted_bps, self._settings)
        if wanted_bps != self._target_bps:
            self._target_bps = cast(AdjustableEncoder, self._encoder).set_bitrate(wanted_bps)

    def packets(self, unsent: Collection[int] = ()) -> Columns:
        """SENT_PACKETS; ``send_ns`` is -1 where the socket refused the packet, and where what a
        call of ``send`` had taken was given up ``unsent`` (calls are counted from 0)."""
        columns = from_rows(SENT_PACKETS, self._packet_rows)
        columns["send_ns"][list(unsent)] = -1
        return columns

    def sent_frames(self) -> Columns:
        """SENT_FRAMES: of the frames that have left whole."""
        return from_rows(SENT_FRAMES, [row for row in self._frame_rows if row[4] >= 0])

    def figures(self) -> dict[str, Any]:
        """How well the schedule was kept (:class:`harness.lateness.Lateness`; frames that were
        encoded more than a frame late), encoding in total."""
        return {
            "lateness": self._schedule.lateness().figures(),
            "late_frames": self._late_frames,
            "encode_wall_ns": self._encode_ns,
            **(self._feedback if self._settings.needs_feedback else {}),
        }
