"""The listener: from packets to what leaves the loudspeaker, without a socket or a clock inside.

The playout clock starts when the first complete frame arrives: frame k0, arrived at A, is due at
A + start depth, frame k at (k - k0) frames from that. From then on audio is asked for without a
gap, each pull due when the audio pulled before has been played. ``fixed`` keeps to one media frame
per pull, its depth counted from the least delayed of the first ten frames: where that is not the
first one, what is too deep is left out at once. ``adaptive`` (after WebRTC's NetEQ) holds the depth
that ``jitterbuffer`` asks for:

* too deep or too shallow: one pitch period of a decoded frame is left out or put in
  (``media/depth.py``: in pauses first);
* empty: time is inserted instead of skipping media, as long as the depth stays within ``max_ns``;
  the decoder conceals meanwhile, as it would for a lost frame. If a later packet shows that frames
  were lost, the inserted time is relabelled as their concealment and the depth is unchanged. So
  ``fixed`` and ``adaptive`` give the same media track for the same losses on a link without jitter.

Each media frame 0...K-1 ends exactly once on the *media track* (K*F samples, the sender's media
timeline). The *played track* is what was heard, inserted and stretched time included.

A frame whose own packets did not come may still be restored by what protects it
(``media/protection.py``): it is then decoded as any other. What is missing after that is, in this
order: recovered from the redundancy in the nearest later payload (in-band FEC and DRED are part of
the codec, so they are used whatever the concealment), concealed by the codec, concealed by the
generic ``pitch``. The settings ``zero``, ``repeat``, ``pitch``, ``tplcnet`` put that concealment in
the codec's place; where it does better with the frame after the gap, and that is here, it is
decoded at once.
The decoder is told of every missing frame once, in order (``recover`` or ``conceal``), even where
its audio is not used: its state must pass the gap as it would have with its own concealment, or the
frames that follow would differ between settings. A decoder that conceals is asked for inserted time
as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from harness.codecs.base import CodecFacts, Decoder, Pcm
from harness.errors import CellFailed
from harness.lateness import Schedule
from harness.media.concealment import generic_concealment
from harness.media.depth import DepthControl
from harness.media.feedback import Reporter
from harness.media.jitterbuffer import Anchor, DelayEstimator
from harness.media.packet import REPORT_TIMES, ForeignPacket, Packet, Purpose
from harness.media.protection import ParityStore, Restored, interleaved_slot, unwrap
from harness.media.reassembly import Reassembler
from harness.media.settings import ReceiverSettings, SenderSettings
from harness.media.stretch import LONGEST_PERIOD_S, leave_out
from harness.media.wire import HARNESS, Wire
from harness.records import (
    PLAYED_FRAMES,
    RECEIVED_PACKETS,
    Columns,
    Kind,
    Verdict,
    from_rows,
)
from harness.units import NS_PER_MS, NS_PER_S, samples_to_ns

# Looking a member up in its enum takes longer than all else that is done with a verdict.
_USED, _DUPLICATE, _LATE = Verdict.USED, Verdict.DUPLICATE, Verdict.LATE
_UNDECODABLE, _INCOMPLETE, _FOREIGN = Verdict.UNDECODABLE, Verdict.INCOMPLETE, Verdict.FOREIGN
_SPARE, _MEDIA, _PARITY = Verdict.SPARE, int(Purpose.MEDIA), int(Purpose.PARITY)
_DECODED = Kind.DECODED
_INT16 = np.dtype(np.int16)
P = ParamSpec("P")
R = TypeVar("R")
_LEAST_CUT_NS = NS_PER_MS
"""A fixed buffer that is less than this too deep stays so: no network did that, and no cut is worth
it."""
_PARITY_PARTS = 64
"""Parity payloads of several packets that wait for the rest of these."""


class TimedDecoder:
    """A decoder, and how long its calls took since ``spent_ns`` was set to 0."""

    def __init__(self, decoder: Decoder, clock: Callable[[], int]) -> None:
        self._decoder = decoder
        self._clock = clock
        self.spent_ns = 0

    def decode(self, payload: bytes) -> Pcm:
        return self._timed(self._decoder.decode, payload)

    def conceal(self) -> Pcm | None:
        return self._timed(self._decoder.conceal)

    def recover(self, payload: bytes, frames_back: int) -> Pcm | None:
        return self._timed(self._decoder.recover, payload, frames_back)

    def _timed(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        began_ns = self._clock()
        try:
            return call(*args, **kwargs)
        finally:
            self.spent_ns += self._clock() - began_ns


class ReceiverCore:
    """One stream's receiver. ``clock`` gives CLOCK_MONOTONIC (or virtual) nanoseconds.

    ``on_packet`` takes whatever the socket gave, in order of arrival, and never raises.
    ``pull`` raises CellFailed when the decoder crashes or breaks its contract. ``assets`` maps each
    of the settings' ``required_assets`` to a verified file; what is wrong with them is raised.
    Streams that one thread plays share a ``schedule``.
    """

    def __init__(
        self,
        settings: ReceiverSettings,
        facts: CodecFacts,
        decoder: Decoder,
        stream_id: int,
        total_frames: int,
        clock: Callable[[], int],
        sender: SenderSettings | None = None,
        wire: Wire = HARNESS,
        assets: Mapping[str, Path] | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        self._schedule = schedule or Schedule(facts.frame_ns)
        sender = sender or SenderSettings()
        self._wire = wire
        self._repeats = sender.repeat_distance if sender.repeat else 0
        self._parity = ParityStore(sender) if sender.fec_parity else None
        self._interleave = sender.interleave
        self._redundant = bool(self._repeats) or self._parity is not None
        self._parity_parts = Reassembler(most=_PARITY_PARTS)
        self._reporter = Reporter(sender, stream_id) if sender.needs_feedback else None
        self._settings = settings
        self._facts = facts
        self._decoder = TimedDecoder(decoder, clock)
        self._rate_hz, self._frame_samples = facts.sample_rate_hz, facts.frame_samples
        self._frame_ns = facts.frame_ns
        self._stream_id = stream_id
        self._total = total_frames
        self._clock = clock
        self._device_ns, self._max_ns = settings.device_ns, settings.max_ns
        self._adaptive = settings.mode == "adaptive"
        self._override_codec_plc = settings.concealment != "codec"
        self._generic = generic_concealment(settings, facts, assets or {})
        self._predecoded: list[Pcm | None] = []  # frame ``next``, where it is decoded already
        self._buffer = Reassembler()
        self._delays = DelayEstimator(settings, facts.frame_ns)
        self._anchor = Anchor()
        self._depth = DepthControl(facts.sample_rate_hz)
        self._packets: list[list[int]] = []
        self._rows: list[list[int]] = []
        self._next = 0
        self._first_pull_ns: int | None = None
        self._started_ns = 0
        self._inserted: list[tuple[int, Pcm]] = []  # (row, audio) that may yet be a concealment
        self._media = np.zeros(total_frames * facts.frame_samples, np.int16)
        self._played: list[Pcm] = []
        self._played_samples = 0
        self._kept = 2 * round(LONGEST_PERIOD_S * facts.sample_rate_hz)
        self._underruns = 0
        self._decode_ns = 0

    # -- packets ---------------------------------------------------------------------------------

    def on_packet(self, data: bytes, recv_ns: int) -> None:
        """Judge one packet and keep what is of use. Copies and late ones are recorded."""
        try:
            packet = self._wire.parse(data)
        except ForeignPacket:
            self._packets.append([0, -1, 0, recv_ns, _FOREIGN])
            return
        except ValueError:
            self._packets.append([0, -1, 0, recv_ns, _UNDECODABLE])
            return
        frame = packet.frame
        if packet.stream_id != self._stream_id:
            self._packets.append([0, -1, 0, recv_ns, _FOREIGN])
        elif frame >= self._total or (
            packet.end != (frame == self._total - 1) and packet.purpose != _PARITY
        ):
            self._packets.append([0, -1, 0, recv_ns, _UNDECODABLE])
        else:
            index = len(self._packets)
            row = [packet.seq, frame, packet.fragment, recv_ns, _INCOMPLETE]
            self._packets.append(row)
            row[4] = self._take(packet, index, recv_ns)

    def _take(self, packet: Packet, index: int, recv_ns: int) -> Verdict:
        """Judge as far as can be: what is of use is known at the pull."""
        if packet.purpose == _MEDIA:
            if self._reporter is not None:
                due_ns = self._media_ns(interleaved_slot(packet.frame, self._interleave))
                self._reporter.add(packet.seq, packet.frame, due_ns, recv_ns)
            return self._keep(packet, index, recv_ns)
        if packet.purpose == _PARITY:
            return self._keep_parity(packet, index, recv_ns)
        if packet.purpose == Purpose.REPORT:
            if self._reporter is None or len(packet.payload) != REPORT_TIMES.size:
                return _UNDECODABLE
            self._reporter.heard(REPORT_TIMES.unpack(packet.payload)[0], recv_ns)
            return _SPARE
        original, payload = packet.payload[:4], packet.payload[4:]
        if self._reporter is None or not payload:
            return _UNDECODABLE
        self._reporter.found(int.from_bytes(original, "big"))
        verdict = self._keep(packet._replace(payload=payload), index, recv_ns)
        return _SPARE if verdict is _DUPLICATE else verdict

    def _keep(self, packet: Packet, index: int, recv_ns: int) -> Verdict:
        frame = packet.frame
        if frame < self._next:
            verdict = _DUPLICATE if self._buffer.note_late(packet) else _LATE
        elif self._redundant and self._buffer.is_restored(frame):
            verdict = _SPARE
        else:
            try:
                added = self._buffer.add(packet, index, recv_ns)
            except ValueError:
                return _UNDECODABLE
            verdict = _DUPLICATE if added == "duplicate" else _INCOMPLETE
            if added == "complete":
                relative_ns = recv_ns - self._media_ns(frame)
                if self._first_pull_ns is None:
                    self._started_ns = recv_ns
                    self._first_pull_ns = relative_ns + self._settings.start_ns
                self._anchor.add(relative_ns)
                if not self._adaptive and not self.has_played:
                    self._start_no_later(recv_ns)
                if self._redundant:
                    self._use_redundancy(frame, recv_ns)
        if self._adaptive and verdict is not _DUPLICATE:
            self._delays.add(frame, recv_ns - self._media_ns(frame))
        return verdict

    @property
    def done_packets(self) -> int:
        """How many of those taken do not wait for their frame's turn any more."""
        return len(self._packets) - len(self._buffer)

    # -- redundancy ------------------------------------------------------------------------------

    def _use_redundancy(self, frame: int, recv_ns: int) -> None:
        """A frame is complete: take off what it carries for others, and see what that restores."""
        held = self._buffer.peek(frame, recv_ns)
        assert held is not None
        payload = held.payload
        if self._repeats:
            try:
                payload, older = unwrap(payload)
            except ValueError:
                return  # the codec will refuse it
            held.parts = {0: payload}
            held.fragments = 1
            for number, repeated in enumerate(filter(None, older), 1):
                self._restore(frame - number * self._repeats, repeated, recv_ns, ())
        if self._parity is not None:
            self._restore_all(self._parity.add_media(frame, payload), recv_ns)

    def _keep_parity(self, packet: Packet, index: int, recv_ns: int) -> Verdict:
        if self._parity is None:
            return _UNDECODABLE
        number = packet.seq - packet.fragment
        try:
            added = self._parity_parts.add(packet._replace(frame=number), index, recv_ns)
            if added != "complete":
                return _DUPLICATE if added == "duplicate" else _INCOMPLETE
            whole = self._parity_parts.take(number)
            assert whole is not None
            restored = list(self._parity.add_parity(packet.frame, whole.payload, index))
        except ValueError:
            return _UNDECODABLE
        self._packets[index][4] = _SPARE
        self._restore_all(restored, recv_ns)
        return Verdict(self._packets[index][4])

    def _restore_all(self, restored: Iterable[Restored], recv_ns: int) -> None:
        for frame, payload, indices in restored:
            self._restore(frame, payload, recv_ns, indices)

    def _restore(self, frame: int, payload: bytes, recv_ns: int, indices: tuple[int, ...]) -> None:
        if frame < self._next or not self._buffer.restore(frame, payload, recv_ns):
            return
        for index in indices:
            self._packets[index][4] = _USED

    # -- feedback --------------------------------------------------------------------------------

    @property
    def answers(self) -> bool:
        """Whether the sender is told anything."""
        return self._reporter is not None

    def next_feedback_ns(self) -> int | None:
        """When :meth:`feedback` has something to say; None while there is nothing."""
        if self._reporter is None or self.finished:
            return None
        return self._reporter.next_ns()

    def feedback(self, now_ns: int) -> list[bytes]:
        """Messages for the sender that are due by now."""
        assert self._reporter is not None
        messages = self._reporter.take(now_ns, self._due_ns, self._buffer.is_restored)
        return [self._wire.pack_feedback(message) for message in messages]

    def _due_ns(self, frame: int) -> int | None:
        pull_ns = self.next_pull_ns()
        return None if pull_ns is None else pull_ns + (frame - self._next) * self._frame_ns

    # -- playing ---------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """All media frames have been played or concealed."""
        return self._next >= self._total

    @property
    def has_played(self) -> bool:
        """Whether anything was pulled. Until then every packet may move :meth:`next_pull_ns`."""
        return bool(self._rows)

    def next_pull_ns(self) -> int | None:
        """When :meth:`pull` is due; None before the first complete frame and after the last."""
        if self._first_pull_ns is None or self._next >= self._total:
            return None
        return self._first_pull_ns + self._played_samples * NS_PER_S // self._rate_hz

    def pull(self) -> None:
        """Fill the device with the next stretch of audio; call it at :meth:`next_pull_ns`.

        What counts is the scheduled instant: a frame completed after it is late, even if the
        caller is later still.
        """
        pull_ns = self.next_pull_ns()
        assert pull_ns is not None
        began_ns = self._clock()
        self._fill(pull_ns)
        if pull_ns >= self._started_ns:  # what was due before the clock started is made up at once
            self._schedule.note(self, pull_ns, began_ns, self._clock())

    def _fill(self, pull_ns: int) -> None:
        first = self._next
        if ready := self._buffer.ready(pull_ns):
            if self._inserted:
                self._resolve_inserted_time(pull_ns)
            self._skip_excess(pull_ns, max(ready))
        elif self._adaptive and self._insert_time(pull_ns):
            return
        if not self.finished:
            depth = len(ready) if self._next == first else len(self._buffer.ready(pull_ns))
            self._play(pull_ns, depth)

    def stop(self, now_ns: int) -> None:
        """Nobody waits any longer: what was not played by now is silence, on both tracks.

        The decoder is not asked again, so that this takes no time whatever the codec.
        """
        if self._first_pull_ns is None:
            self._first_pull_ns = now_ns
        for row, audio in self._inserted[: self._total - self._next]:
            self._assign(row, audio)
        while not self.finished:
            pull_ns = self.next_pull_ns()
            assert pull_ns is not None
            silence = np.zeros(self._frame_samples, np.int16)
            self._discard(self._next, pull_ns)
            self._record(self._next, Kind.SILENCE, -1, pull_ns, pull_ns, pull_ns, silence, silence)
            self._next += 1

    def _play(self, pull_ns: int, depth: int) -> None:
        """Play media frame ``next``, as it came or made up; ``depth`` frames are there."""
        start_ns = self._clock()
        k = self._next
        complete_ns = -1
        audio: Pcm | None = None
        kind = _DECODED
        if (held := self._buffer.peek(k, pull_ns)) is not None:
            complete_ns = held.complete_ns
            audio = self._predecoded.pop() if self._predecoded else self._decode(held.payload)
            if audio is not None:
                audio = self._generic.heard(audio)
            if held.restored:
                kind, verdict = Kind.FEC, _INCOMPLETE
            else:
                verdict = _USED
            if audio is None:
                verdict = _UNDECODABLE
            for index, _ in held.arrivals:
                self._packets[index][4] = verdict
            self._buffer.take(k)
        else:
            self._discard(k, pull_ns)
        if audio is None:
            audio, kind, fec_ns = self._make_up(k, pull_ns)
            complete_ns = max(complete_ns, fec_ns)
        if not self._adaptive:
            heard = self._catch_up(audio, pull_ns)
        else:
            heard = self._fit(audio, pull_ns) if kind is _DECODED else audio
        if kind is _DECODED and len(heard) != len(audio):
            kind = Kind.STRETCHED
        end_ns = self._clock()
        self._record(k, kind, complete_ns, pull_ns, start_ns, end_ns, audio, heard, depth)
        self._next += 1

    def _decode(self, payload: bytes) -> Pcm | None:
        """The frame; None if the codec refuses the payload."""
        try:
            audio = self._decoder.decode(payload)
        except ValueError:
            return None
        except Exception as error:
            raise CellFailed(f"the decoder crashed: {type(error).__name__}: {error}") from error
        return self._checked(audio)

    def _make_up(self, k: int, pull_ns: int) -> tuple[Pcm, Kind, int]:
        """A frame that cannot be decoded: audio, kind, and when its redundancy came (or -1)."""
        for back in range(1, self._facts.recovery_frames + 1):
            later = self._buffer.peek(k + back, pull_ns)
            if later is None:
                continue
            audio = self._decoder.recover(later.payload, back)
            if audio is not None:
                audio = self._generic.heard(self._checked(audio))
                return audio, Kind.FEC, later.complete_ns
            break  # those after it do not reach farther back
        audio, kind = self._conceal(self._decoder.conceal(), pull_ns)
        return audio, kind, -1

    def _conceal(self, codec_plc: Pcm | None, pull_ns: int) -> tuple[Pcm, Kind]:
        """The decoder's own concealment of frame ``next`` where there is one and the settings leave
        it to the codec, else the generic one."""
        if codec_plc is not None and not self._override_codec_plc:
            return self._generic.heard(self._checked(codec_plc)), Kind.CONCEALED
        following = None
        later = self._buffer.peek(self._next + 1, pull_ns) if self._generic.looks_ahead else None
        if later is not None:
            following = self._decode(later.payload)
            self._predecoded.append(following)
        audio, silent = self._generic.conceal(following)
        return audio, Kind.SILENCE if silent else Kind.CONCEALED

    def _checked(self, audio: Pcm) -> Pcm:
        expected = (self._frame_samples,)
        if not isinstance(audio, np.ndarray) or audio.shape != expected or audio.dtype != _INT16:
            raise CellFailed(
                f"the decoder returned {getattr(audio, 'dtype', type(audio).__name__)} of shape"
                f" {getattr(audio, 'shape', '?')}, not int16 of shape {expected}"
            )
        return audio

    def _discard(self, k: int, pull_ns: int) -> None:
        """Judge the packets of a frame that is not played: too late, or not all there in time."""
        held = self._buffer.take(k)
        if held is None:
            return
        in_time = 0 <= held.complete_ns <= pull_ns
        for index, recv_ns in held.arrivals:
            late = in_time or recv_ns > pull_ns
            self._packets[index][4] = _LATE if late else _INCOMPLETE

    def _record(
        self,
        frame: int,
        kind: Kind,
        complete_ns: int,
        pull_ns: int,
        start_ns: int,
        end_ns: int,
        audio: Pcm,
        heard: Pcm,
        depth: int = 0,
    ) -> None:
        device_ns = pull_ns + self._device_ns
        play_ns = device_ns
        if end_ns > device_ns:
            play_ns = end_ns
            self._underruns += complete_ns >= 0
        decoder_ns, self._decoder.spent_ns = self._decoder.spent_ns, 0
        self._decode_ns += decoder_ns
        at, length = self._played_samples, len(heard)
        self._rows.append(
            [
                frame,
                kind,
                complete_ns,
                pull_ns,
                start_ns,
                end_ns,
                decoder_ns,
                play_ns,
                at,
                length,
                depth,
            ]
        )
        if frame >= 0:
            self._place(frame, audio)
        self._played.append(heard)
        self._played_samples += length

    def _place(self, frame: int, audio: Pcm) -> None:
        size = self._frame_samples
        self._media[frame * size : (frame + 1) * size] = audio

    # -- depth -----------------------------------------------------------------------------------

    def _media_ns(self, frame: int) -> int:
        return samples_to_ns(frame * self._frame_samples, self._rate_hz)

    def _depth_ns(self, pull_ns: int) -> int:
        """Time from the arrival of the fastest packets to their being played."""
        return pull_ns - self._media_ns(self._next) - self._delays.fastest_ns

    def _skip_excess(self, pull_ns: int, newest: int) -> None:
        """Give up the oldest frames while more than ``max_ns`` of media waits behind them.

        Happens where the first frame was held up much longer than those after it: without this
        the listener would stay behind for ever. RFC 3611 counts such packets as discarded.
        """
        while (newest - self._next) * self._frame_ns > self._max_ns:
            start_ns = self._clock()
            if self._predecoded:
                self._predecoded.clear()
            else:
                self._decoder.conceal()
            self._discard(self._next, pull_ns)
            silence = np.zeros(self._frame_samples, np.int16)
            end_ns = self._clock()
            self._record(
                self._next, Kind.SILENCE, -1, pull_ns, start_ns, end_ns, silence, silence[:0]
            )
            self._next += 1

    def _start_no_later(self, now_ns: int) -> None:
        """Before anything was played, the start itself follows the least delayed frame."""
        assert self._first_pull_ns is not None
        assert self._anchor.least_ns is not None
        due_ns = max(now_ns, self._anchor.least_ns + self._settings.start_ns)
        self._first_pull_ns = min(self._first_pull_ns, due_ns)

    def _catch_up(self, audio: Pcm, pull_ns: int) -> Pcm:
        """``audio``, shorter by what the fixed buffer is deeper than it is to be: the frame that
        started the clock was slower than one of those that came soon after it."""
        assert self._anchor.least_ns is not None
        due_ns = self._anchor.least_ns + self._settings.start_ns + self._media_ns(self._next)
        if pull_ns - due_ns < _LEAST_CUT_NS:
            return audio
        excess = (pull_ns - due_ns) * self._rate_hz // NS_PER_S
        return leave_out(audio, min(excess, len(audio)), self._rate_hz)

    def _fit(self, audio: Pcm, pull_ns: int) -> Pcm:
        excess_ns = self._depth_ns(pull_ns) - self._delays.target_ns()
        return self._depth.fit(audio, self._last_played, excess_ns)

    def _last_played(self) -> Pcm:
        """As much of what was heard last as any pitch period needs, silence before the first."""
        tail, missing = [], self._kept
        for audio in reversed(self._played):
            if missing <= 0:
                break
            tail.append(audio)
            missing -= len(audio)
        tail.append(np.zeros(max(missing, 0), np.int16))
        return np.concatenate(tail[::-1])[-self._kept :]

    def _insert_time(self, pull_ns: int) -> bool:
        """Play a frame of concealment while nothing is here, if the depth stays within its bound.

        The decoder conceals first, as in NetEQ. Where it cannot, it is not asked before the frame
        is known to be lost: ``conceal`` may drop state that a late frame still needs. At the bound
        the oldest inserted time becomes the concealment of the frame waited for, so that media goes
        on at its pace while the wait goes on too.
        """
        bound_ns = self._max_ns - self._frame_ns
        while self._depth_ns(pull_ns) > bound_ns and self._inserted:
            self._relabel_oldest()
        if self.finished or self._depth_ns(pull_ns) > bound_ns:
            return False
        start_ns = self._clock()
        codec_plc = self._decoder.conceal() if self._facts.conceals else None
        audio, kind = self._conceal(codec_plc, pull_ns)
        self._inserted.append((len(self._rows), audio))
        self._record(-1, kind, -1, pull_ns, start_ns, self._clock(), audio, audio)
        return True

    def _resolve_inserted_time(self, pull_ns: int) -> None:
        """Media is here again. Inserted time becomes the concealment of the frames lost before it;
        what is left of it has deepened the buffer."""
        while self._inserted and self._buffer.peek(self._next, pull_ns) is None:
            self._relabel_oldest()
        self._inserted.clear()

    def _relabel_oldest(self) -> None:
        if not self._facts.conceals:
            self._decoder.conceal()
        self._assign(*self._inserted.pop(0))

    def _assign(self, row: int, audio: Pcm) -> None:
        """Make inserted time the concealment of media frame ``next``."""
        self._discard(self._next, self._rows[row][3])
        self._rows[row][0] = self._next
        self._place(self._next, audio)
        self._next += 1

    # -- results ---------------------------------------------------------------------------------

    def packets(self) -> Columns:
        """RECEIVED_PACKETS, in order of arrival; final once :attr:`finished`."""
        return from_rows(RECEIVED_PACKETS, self._packets)

    def frames(self) -> Columns:
        """PLAYED_FRAMES, in order of playing."""
        return from_rows(PLAYED_FRAMES, self._rows)

    def media(self) -> Pcm:
        """The track on the sender's media timeline, shape (K * F,)."""
        return self._media

    def played(self) -> Pcm:
        """The track as it left the device."""
        return np.concatenate([*self._played, np.zeros(0, np.int16)])

    def figures(self) -> dict[str, Any]:
        """Time in the decoder in total, how often it missed the device, and how
        well the schedule of pulls was kept (:class:`harness.lateness.Lateness`)."""
        return {
            "decode_wall_ns": self._decode_ns,
            "device_underruns": self._underruns,
            "lateness": self._schedule.lateness().figures(),
        }
