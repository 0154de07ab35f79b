"""What a warm agent keeps of the cells that it has run: nothing."""

from __future__ import annotations

import json
import subprocess
import sys

CELLS = 200
SETTLED = 50

DRIVER = f"""
import json, socket, weakref
import numpy as np
from harness.endpoint import agent
from harness.units import NS_PER_S, monotonic_ns

cores = []

class Watched(agent.SenderCore):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        cores.append(weakref.ref(self))

def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

agent.SenderCore = Watched
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("127.0.0.1", 0))
pcm = np.zeros(16_000, np.int16)
job = {{
    "stream_id": 7,
    "codec": {{"codec": "pcm", "params": {{}}}},
    "assets": {{}},
    "transport": {{"transport": "rtp"}},
    "receiver": {{"max_ns": 0}},
    "sender": {{"reports": True}},
    "host": "127.0.0.1",
}}
one = agent.Agent()
for cell in range({CELLS}):
    one.prepare_sender({{"job": job, "port": listener.getsockname()[1]}}, {{"pcm": pcm}})
    now_ns = monotonic_ns()
    # Its schedule is over already, so that nothing is waited for.
    order = {{"t0_ns": now_ns - 2 * NS_PER_S, "stop_ns": now_ns + NS_PER_S}}
    figures, columns = one.run(order, {{}})
    assert len(columns["frames.frame"]) == 50
    one.close({{}}, {{}})
    if cell == {SETTLED}:
        settled_bytes = resident_bytes()
one.prepare_sender({{"job": job, "port": listener.getsockname()[1]}}, {{"pcm": pcm}})
alive = sum(core() is not None for core in cores)
print(json.dumps({{"made": len(cores), "alive": alive, "grown": resident_bytes() - settled_bytes}}))
"""


def test_two_hundred_rtp_cells_leave_neither_senders_nor_memory() -> None:
    """A sender and its core refer to each other: only the collector frees them."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["made"] == CELLS
    assert found["alive"] == 0
    assert found["grown"] < 4_000_000, "each cell's audio and packets are 0.1 MB"
