"""The control channel: one JSON header and one block of columns per message, over a Unix socket.

The orchestrator listens in a directory that is mounted into the containers; each agent connects
and says hello. It never touches the measured network.

Wire format, both ways: u32 header length, u32 columns length (big-endian), JSON header, npz.
A request's header is ``{"op": name, ...}``; a reply's is ``{"ok": true, ...}`` or
``{"ok": false, "error": text, "kind": exception class}``. Where a header says ``"files": n``, one
byte follows that carries n open files (SCM_RIGHTS, unix(7)).
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import errors
from harness.records import Columns, pack, unpack

_HEAD = struct.Struct(">II")
_LARGEST = 512 * 1024 * 1024
_GLANCE_S = 0.5
_CARRIER = b"\0"
Handler = Callable[[dict[str, Any], Columns], tuple[dict[str, Any], Columns]]


class Channel:
    """One end of a control connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def send(self, header: dict[str, Any], columns: Columns | None = None) -> None:
        """``files`` in the header are descriptors; the peer gets its own of them."""
        files = header.get("files", ())
        if files:
            header = {**header, "files": len(files)}
        text = json.dumps(header).encode()
        block = pack(columns) if columns else b""
        self._socket.sendall(_HEAD.pack(len(text), len(block)) + text + block)
        if files:
            socket.send_fds(self._socket, [_CARRIER], files)

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], Columns]:
        """The next message; its ``files`` are descriptors, the caller's to close.

        Raises EOFError when the peer is gone, TimeoutError at ``deadline`` (time.monotonic
        seconds).
        """
        header_size, block_size = _HEAD.unpack(self._exactly(_HEAD.size, deadline))
        if header_size + block_size > _LARGEST:
            raise EOFError("the peer does not speak the control protocol")
        header = json.loads(self._exactly(header_size, deadline))
        columns = unpack(self._exactly(block_size, deadline))
        if header.get("files"):
            _, header["files"], _, _ = socket.recv_fds(self._socket, 1, header["files"])
        return header, columns

    def call(
        self,
        op: str,
        arguments: dict[str, Any] | None = None,
        columns: Columns | None = None,
        timeout_s: float = 30.0,
    ) -> tuple[dict[str, Any], Columns]:
        """Ask and wait. Raises what the peer raised; CellFailed on time-out or a dead peer."""
        self.ask(op, arguments, columns)
        return self.answer(timeout_s)

    def ask(
        self, op: str, arguments: dict[str, Any] | None = None, columns: Columns | None = None
    ) -> None:
        try:
            self.send({"op": op, **(arguments or {})}, columns)
        except OSError as error:
            raise errors.CellFailed(f"the agent is gone ({error})") from error

    def answer(self, timeout_s: float) -> tuple[dict[str, Any], Columns]:
        try:
            header, columns = self.receive(time.monotonic() + timeout_s)
        except TimeoutError:
            raise errors.CellFailed(f"no answer from the agent within {timeout_s:.0f} s") from None
        except (EOFError, OSError) as error:
            raise errors.CellFailed(f"the agent died ({error})") from error
        if not header.get("ok"):
            kind = getattr(errors, str(header.get("kind")), errors.CellFailed)
            raise kind(header.get("error", "unknown error"))
        return header, columns

    def close(self) -> None:
        """Hang up; a thread that waits for an answer is woken (close(2) alone would not)."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            if deadline is None:
                self._socket.settimeout(None)
            else:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
            part = self._socket.recv(min(size - len(parts), 1 << 20))
            if not part:
                raise EOFError("connection closed")
            parts += part
        return bytes(parts)


class Listener:
    """Where agents connect; ``accept`` hands out channels by the name they said in hello."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._socket.listen(64)
        self._waiting: dict[str, tuple[Channel, dict[str, Any]]] = {}

    def accept(
        self, name: str, timeout_s: float, alive: Callable[[], bool]
    ) -> tuple[Channel, dict[str, Any]]:
        """The channel of the agent called ``name`` and its hello.

        ``alive`` says whether its process still runs. Raises CellFailed when it does not, or when
        ``timeout_s`` is over.
        """
        deadline = time.monotonic() + timeout_s
        while name not in self._waiting:
            self._socket.settimeout(_GLANCE_S)
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                if not alive():
                    raise errors.CellFailed(f"agent {name} ended as it started") from None
                if time.monotonic() > deadline:
                    raise errors.CellFailed(
                        f"agent {name} did not start within {timeout_s:.0f} s"
                    ) from None
                continue
            channel = Channel(connection)
            hello, _ = channel.receive(time.monotonic() + 10)
            self._waiting[str(hello["name"])] = (channel, hello)
        return self._waiting.pop(name)

    def close(self) -> None:
        self._socket.close()


def serve(path: Path, hello: dict[str, Any], handlers: dict[str, Handler]) -> None:
    """An agent's main loop: connect, say hello, answer until the orchestrator hangs up."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(path))
    channel = Channel(sock)
    channel.send(hello)
    while True:
        try:
            header, columns = channel.receive()
        except EOFError:
            return
        handler = handlers.get(header.get("op", ""))
        try:
            if handler is None:
                raise errors.CellFailed(f"unknown operation {header.get('op')!r}")
            answer, block = handler(header, columns)
        except Exception as error:  # the boundary: an agent outlives any cell it runs
            channel.send(
                {
                    "ok": False,
                    "error": f"{type(error).__name__}: {error}"
                    if not isinstance(error, errors.HarnessError)
                    else str(error),
                    "kind": type(error).__name__,
                }
            )
        else:
            channel.send({"ok": True, **answer}, block)
