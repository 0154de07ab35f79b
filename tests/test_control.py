"""The control channel: messages, and open files that go with them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from harness import control
from harness.control import Channel, Listener
from harness.errors import CellFailed, Unsupported


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
    died = "the receiver of pair 3 died: SIGKILL; its last lines: MemoryError"
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
