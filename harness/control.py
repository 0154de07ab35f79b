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
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from harness import errors
from harness.records import Columns, pack, unpack

_HEAD = struct.Struct(">II")
_LARGEST = 512 * 1024 * 1024
_MOST_FILES = 253
"""SCM_MAX_FD (unix(7))."""
_GLANCE_S = 0.5
_TAKE_TIMEOUT_S = 10.0
"""An idle agent takes a message at once; one that does not is hung."""
_CARRIER = b"\0"
Handler = Callable[[dict[str, Any], Columns], tuple[dict[str, Any], Columns]]


class AgentProcess(Protocol):
    """What a lab knows of the process at the other end of a channel."""

    title: str
    """Which agent it is: ``the sender of pair 3``."""

    def runs(self) -> bool: ...

    def post_mortem(self) -> str:
        """How it ended, and the last lines of its log; waits a little for its end."""
        ...


class Channel:
    """One end of a control connection; errors name the agent, where its ``process`` is known."""

    def __init__(self, sock: socket.socket, process: AgentProcess | None = None) -> None:
        self._socket = sock
        self._process = process
        self._unanswered = 0
        self._closed = False

    def send(
        self,
        header: dict[str, Any],
        columns: Columns | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """``files`` in the header are descriptors; the peer gets its own of them.

        Raises TimeoutError where the peer does not take the message.
        """
        files = header.get("files", ())
        if files:
            header = {**header, "files": len(files)}
        text = json.dumps(header).encode()
        block = pack(columns) if columns else b""
        self._socket.settimeout(timeout_s)
        self._socket.sendall(_HEAD.pack(len(text), len(block)) + text + block)
        if files:
            socket.send_fds(self._socket, [_CARRIER], files)

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], Columns]:
        """The next message; its ``files`` are descriptors, the caller's to close.

        Raises EOFError when the peer is gone or does not speak the protocol, TimeoutError at
        ``deadline`` (time.monotonic seconds).
        """
        header_size, block_size = _HEAD.unpack(self._exactly(_HEAD.size, deadline))
        if header_size + block_size > _LARGEST:
            raise EOFError(f"a message of {header_size + block_size} bytes")
        text, block = self._exactly(header_size, deadline), self._exactly(block_size, deadline)
        try:
            header, columns = json.loads(text), unpack(block)
            files = header.get("files", 0)
        except (ValueError, AttributeError, RecursionError) as error:
            raise EOFError(f"no message of the control protocol: {error}") from error
        if files:
            if not isinstance(files, int) or not 0 < files <= _MOST_FILES:
                raise EOFError(f"a message with {files!r} files")
            _, header["files"], _, _ = socket.recv_fds(self._socket, 1, files)
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
            self.send({"op": op, **(arguments or {})}, columns, _TAKE_TIMEOUT_S)
        except TimeoutError:
            raise errors.CellFailed(
                f"{self._title} did not take a message within {_TAKE_TIMEOUT_S:.0f} s"
            ) from None
        except OSError as error:
            raise self._died(error) from error
        self._unanswered += 1

    def answer(self, timeout_s: float) -> tuple[dict[str, Any], Columns]:
        header, columns = self._reply(timeout_s)
        if not header.get("ok"):
            kind = getattr(errors, str(header.get("kind")), errors.CellFailed)
            raise kind(header.get("error", "unknown error"))
        return header, columns

    def settle(self, timeout_s: float) -> None:
        """Take the answers to all that was asked, and drop them, so that the next question gets
        its own. Raises CellFailed on time-out or a dead peer."""
        deadline = time.monotonic() + timeout_s
        while self._unanswered:
            header, _ = self._reply(max(deadline - time.monotonic(), 0.0))
            for file in header.get("files", ()):
                os.close(file)

    def _reply(self, timeout_s: float) -> tuple[dict[str, Any], Columns]:
        try:
            reply = self.receive(time.monotonic() + timeout_s)
        except TimeoutError:
            raise errors.CellFailed(
                f"{self._title} did not answer within {timeout_s:.0f} s"
            ) from None
        except (EOFError, OSError) as error:
            raise self._died(error) from error
        self._unanswered -= 1
        return reply

    @property
    def _title(self) -> str:
        return "the agent" if self._process is None else self._process.title

    def _died(self, error: Exception) -> errors.CellFailed:
        """What is known of the agent's end; where this end hung up, there is nothing to find."""
        if self._process is None or self._closed:
            return errors.CellFailed(f"{self._title} is gone ({error})")
        return errors.CellFailed(f"{self._title} died ({error}): {self._process.post_mortem()}")

    def close(self) -> None:
        """Hang up; a thread that waits for an answer is woken (close(2) alone would not)."""
        self._closed = True
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
        self._waiting: dict[str, tuple[socket.socket, dict[str, Any]]] = {}

    def accept(
        self, name: str, timeout_s: float, process: AgentProcess
    ) -> tuple[Channel, dict[str, Any]]:
        """The channel of the agent called ``name`` and its hello.

        Raises CellFailed when its process ends, or when ``timeout_s`` is over.
        """
        deadline = time.monotonic() + timeout_s
        while name not in self._waiting:
            self._socket.settimeout(_GLANCE_S)
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                if not process.runs():
                    raise errors.CellFailed(
                        f"{process.title} ended as it started: {process.post_mortem()}"
                    ) from None
                if time.monotonic() > deadline:
                    raise errors.CellFailed(
                        f"{process.title} did not start within {timeout_s:.0f} s:"
                        f" {process.post_mortem()}"
                    ) from None
                continue
            hello, _ = Channel(connection).receive(time.monotonic() + 10)
            self._waiting[str(hello["name"])] = (connection, hello)
        connection, hello = self._waiting.pop(name)
        return Channel(connection, process), hello

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
