"""The control channel: messages, and open files that go with them."""

from __future__ import annotations

import os
import socket

import numpy as np

from harness.control import Channel


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
