"""The control channel: messages, and open files that go with them."""

from __future__ import annotations

import io
import os
import socket
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from harness import control
from harness.control import Channel, Listener
from harness.errors import CellFailed, Unsupported
from harness.records import pack, unpack


def test_open_files_go_with_a_message_and_stay_the_senders_own() -> None:
    ends = socket.socketpair()
    here, there = (Channel(end) for end in ends)
    reading, writing = os.pipe()
    here.send({"op": "take", "files": [writing]}, {"pcm": np.arange(3)})
    here.send({"op": "next"})
    header, columns = there.receive()
    assert header["op"] == "take"
    assert columns["pcm"].tolist() == [0, 1, 2]
    (taken,) = header["files"]
    assert taken != writing
    os.write(taken, b"theirs ")
    os.write(writing, b"ours")
    assert os.read(reading, 100) == b"theirs ours"
    assert there.receive() == ({"op": "next"}, {})
    for file in (reading, writing, taken):
        os.close(file)
    for channel in (here, there):
        channel.close()


class Process:
    """An agent's process that has come to its end."""

    title = "the receiver of pair 3"

    def runs(self) -> bool:
        return False

    def post_mortem(self) -> str:
        return "SIGKILL; its last lines: MemoryError"


def test_an_agent_that_dies_is_named_with_what_is_known_of_its_end() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, Process())
    channel.ask("run")
    with pytest.raises(CellFailed, match="the receiver of pair 3 did not answer within 0 s"):
        channel.answer(0.0)
    theirs.close()
    died = r"the receiver of pair 3 died \(.*\): SIGKILL; its last lines: MemoryError"
    with pytest.raises(CellFailed, match=died):
        channel.answer(10)
    with pytest.raises(CellFailed, match=died):
        channel.call("close")
    channel.close()
    with pytest.raises(CellFailed, match="the receiver of pair 3 is gone"):
        channel.call("close")


def test_an_agent_that_never_starts_is_named(tmp_path: Path) -> None:
    listener = Listener(tmp_path / "s")
    with pytest.raises(CellFailed, match="the receiver of pair 3 ended as it started: SIGKILL"):
        listener.accept("receiver", 10, Process())
    listener.close()


def test_answers_that_nobody_waited_for_do_not_answer_the_next_question() -> None:
    ours, theirs = socket.socketpair()
    channel, agent = Channel(ours), Channel(theirs)
    channel.ask("prepare")
    channel.ask("run")
    reading, writing = os.pipe()
    agent.send({"ok": False, "error": "no", "kind": "Unsupported"})
    agent.send({"ok": True, "files": [writing]})
    os.close(writing)
    with pytest.raises(Unsupported, match="no"):
        channel.answer(10)
    channel.settle(10)
    assert os.read(reading, 1) == b"", "files of a dropped answer are closed"
    agent.send({"ok": True, "figure": 7})
    assert channel.call("describe")[0]["figure"] == 7
    os.close(reading)
    for one in (channel, agent):
        one.close()


def test_an_agent_that_takes_no_message_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_TAKE_TIMEOUT_S", 0.01)
    ours, theirs = socket.socketpair()
    channel = Channel(ours, Process())
    with pytest.raises(CellFailed, match="the receiver of pair 3 did not take a message"):
        channel.ask("prepare", {}, {"pcm": np.zeros(10_000_000)})
    channel.close()
    theirs.close()


def test_settling_does_not_wait_for_ever() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours)
    channel.ask("run")
    with pytest.raises(CellFailed):
        channel.settle(0.0)
    channel.close()
    theirs.close()


def message(header: bytes, block: bytes = b"") -> bytes:
    return struct.pack(">II", len(header), len(block)) + header + block


def zipped(npy: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("column.npy", npy)
    return buffer.getvalue()


def npy(shape: str, dtype: str = "<i8", body: bytes = bytes(8)) -> bytes:
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n" + body


WRONG = {
    "too large": struct.pack(">II", 2**31, 2**31),
    "no JSON": message(b"\xff"),
    "no object": message(b"[]"),
    "nested": message(b"[" * 100_000),
    "files": message(b'{"files": 1000000000}'),
    "no number of files": message(b'{"files": "all"}'),
    "no archive": message(b"{}", b"columns"),
    "a shape of 8 EB": message(b"{}", zipped(npy("(1152921504606846976,)"))),
    "a shape below": message(b"{}", zipped(npy("(0,)"))),
    "two dimensions": message(b"{}", zipped(npy("(1, 1)"))),
    "objects": message(b"{}", zipped(npy("(1,)", "|O"))),
    "nothing each": message(b"{}", zipped(npy("(1000000000000,)", "|V0", b""))),
    "a bomb": message(
        b"{}", zipped(npy("(10000000,)", body=bytes(80_000_000)), zipfile.ZIP_DEFLATED)
    ),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_a_peer_says_of_sizes_is_not_believed(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    with pytest.raises(EOFError):
        Channel(ours).receive(time.monotonic() + 30)
    ours.close()
    theirs.close()


def test_columns_of_any_type_come_as_they_were() -> None:
    columns = {"a.b": np.arange(5, dtype=np.uint8), "c": np.zeros(0, np.int64), "d": np.ones(1)}
    there = unpack(pack(columns))
    assert list(there) == list(columns)
    for name, column in columns.items():
        np.testing.assert_array_equal(there[name], column)
        assert there[name].dtype == column.dtype
        assert there[name].flags.writeable
