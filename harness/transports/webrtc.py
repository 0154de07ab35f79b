"""A WebRTC data channel (RFC 8831: SCTP over DTLS), unordered and never repeating a lost message.

The protocols are those of the ``aiortc`` library, which runs in an asyncio loop, so each end has
one in a thread of its own. Connecting costs an exchange of session descriptions, over TCP to the
receiver's port, then ICE with the host's own addresses (no STUN or TURN server), DTLS and SCTP, all
before the first packet. A message is stamped when aiortc hands it over: decryption and SCTP come
before that, unlike elsewhere, and count as network time (docs/transports.md has the figures).

aiortc's audio path is not used, because its clock is its own: see docs/transports.md.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)

from harness.errors import CellFailed
from harness.linux import exact_timers, real_time
from harness.transports.base import (
    CONNECT_TIMEOUT_S,
    RECEIVE_PRIORITY,
    OnPacket,
    TransportSettings,
)
from harness.units import NS_PER_S, monotonic_ns

LARGEST_MESSAGE_BYTES = 1161
"""That aiortc's SCTP sends in one packet, whatever the MTU."""
_LARGEST_DESCRIPTION = 1 << 16
"""Ours take 1 to 2 kB."""
_CHANNEL = 0
_CLOSE_TIMEOUT_S = 5.0
_POLL_S = 0.002
_LENGTH = struct.Struct(">I")
_Result = TypeVar("_Result")


class _Loop:
    """An asyncio loop in a thread."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        exact_timers()
        with real_time(RECEIVE_PRIORITY):
            self.loop.run_forever()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def wait_for(self, work: Coroutine[Any, Any, _Result], timeout_s: float) -> _Result:
        """Raises TimeoutError, and what the work raises."""
        limited = asyncio.wait_for(work, timeout_s)
        return asyncio.run_coroutine_threadsafe(limited, self.loop).result()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


class _Peer:
    """One end of a peer connection, with the channel that both ends agreed on beforehand. Used in
    its loop only."""

    def __init__(self, on_message: Callable[[bytes], None]) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel: RTCDataChannel = self.connection.createDataChannel(
            "packets", ordered=False, maxRetransmits=0, negotiated=True, id=_CHANNEL
        )
        self.opened = asyncio.Event()
        self.channel.on("open", self.opened.set)
        self.channel.on("message", on_message)

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def answer(self, offer: str) -> str:
        await self.connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await self.connection.setLocalDescription(await self.connection.createAnswer())
        return str(self.connection.localDescription.sdp)

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await self.opened.wait()


async def _read(reader: asyncio.StreamReader) -> str:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > _LARGEST_DESCRIPTION:
        raise ValueError(f"a session description of {length} bytes")
    return (await reader.readexactly(length)).decode()


def _write(writer: asyncio.StreamWriter, description: str) -> None:
    data = description.encode()
    writer.write(_LENGTH.pack(len(data)) + data)


class WebRtcSender:
    """The offering end."""

    def __init__(self, host: str, port: int) -> None:
        self.max_packet_bytes: int | None = LARGEST_MESSAGE_BYTES
        self._on_message: Callable[[bytes], None] | None = None
        self._peer: _Peer | None = None
        self._longest_backlog = 0
        self._broken = False
        self._loop = _Loop("webrtc-sender")
        try:
            self._loop.wait_for(self._connect(host, port), CONNECT_TIMEOUT_S)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError | TimeoutError | asyncio.IncompleteReadError | ValueError):
                raise CellFailed(
                    f"no WebRTC connection to {host}:{port} within {CONNECT_TIMEOUT_S:.0f} s:"
                    f" {error or type(error).__name__}"
                ) from error
            raise

    def send(self, packet: bytes) -> bool:
        if self._broken:
            raise ConnectionError("the WebRTC data channel is closed")
        self._loop.loop.call_soon_threadsafe(self._send, packet)
        return True

    def hear(self, on_message: Callable[[bytes], None]) -> None:
        self._on_message = on_message

    def flush(self, deadline_ns: int) -> None:
        left_s = (deadline_ns - monotonic_ns()) / NS_PER_S
        if left_s > 0:
            try:
                self._loop.wait_for(self._drain(), left_s)
            except TimeoutError:
                return

    def counts(self) -> dict[str, int | str]:
        return {"longest_backlog_bytes": self._longest_backlog}

    def close(self) -> None:
        if self._peer is not None:
            self._loop.wait_for(self._peer.connection.close(), _CLOSE_TIMEOUT_S)
        self._loop.stop()

    async def _connect(self, host: str, port: int) -> None:
        self._peer = _Peer(self._hear)
        reader, writer = await asyncio.open_connection(host, port)
        try:
            _write(writer, await self._peer.offer())
            await self._peer.accept(await _read(reader))
        finally:
            writer.close()

    def _send(self, packet: bytes) -> None:
        assert self._peer is not None
        channel = self._peer.channel
        if channel.readyState != "open":
            self._broken = True
            return
        channel.send(packet)
        self._longest_backlog = max(self._longest_backlog, channel.bufferedAmount - len(packet))

    def _hear(self, message: bytes) -> None:
        if self._on_message is not None:
            self._on_message(message)

    async def _drain(self) -> None:
        assert self._peer is not None
        while self._peer.channel.bufferedAmount and self._peer.channel.readyState == "open":
            await asyncio.sleep(_POLL_S)


class WebRtcReceiver:
    """The answering end; descriptions are exchanged over a TCP connection to its port."""

    def __init__(self, host: str, on_packet: OnPacket) -> None:
        self._on_packet = on_packet
        self._peers: list[_Peer] = []
        self._latest: _Peer | None = None
        self._broken = 0
        self._loop = _Loop("webrtc-receiver")
        try:
            self._server = self._loop.wait_for(
                asyncio.start_server(self._welcome, host, 0), CONNECT_TIMEOUT_S
            )
        except BaseException:
            self._loop.stop()
            raise
        self.port = int(self._server.sockets[0].getsockname()[1])

    def reply(self, message: bytes) -> None:
        self._loop.loop.call_soon_threadsafe(self._reply, message)

    def counts(self) -> dict[str, int]:
        return {"connections": len(self._peers), "broken_connections": self._broken}

    def close(self) -> None:
        self._loop.wait_for(self._close(), _CLOSE_TIMEOUT_S)
        self._loop.stop()

    async def _close(self) -> None:
        self._server.close()
        for peer in self._peers:
            await peer.connection.close()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = _Peer(lambda message: self._take(peer, message))
            self._peers.append(peer)
            _write(writer, await peer.answer(await _read(reader)))
            await writer.drain()
        except (OSError, ValueError, asyncio.IncompleteReadError):
            self._broken += 1
        finally:
            writer.close()

    def _take(self, peer: _Peer, message: bytes) -> None:
        self._latest = peer
        self._on_packet(message, monotonic_ns())

    def _reply(self, message: bytes) -> None:
        if self._latest is not None and self._latest.channel.readyState == "open":
            self._latest.channel.send(message)


def connect(host: str, port: int, settings: TransportSettings) -> WebRtcSender:  # noqa: ARG001
    return WebRtcSender(host, port)


def listen(host: str, on_packet: OnPacket) -> WebRtcReceiver:
    return WebRtcReceiver(host, on_packet)
