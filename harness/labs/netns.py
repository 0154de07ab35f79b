"""The netns lab: the same pair as processes in anonymous network namespaces.

Needs root, or user namespaces. The link agent unshares a namespace of its own (the middle, with
the bridge); the endpoints unshare theirs, inside the same user namespace. No namespace has a name,
and every process dies with the orchestrator (PR_SET_PDEATHSIG), so the kernel itself clears up
after a ``kill -9``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import threads
from harness.control import Listener
from harness.labs.base import (
    END_TIMEOUT_S,
    ENV_RUN,
    START_TIMEOUT_S,
    Pair,
    Session,
    agent_title,
    last_lines,
)
from harness.network.topology import RECEIVER_ADDRESS
from harness.units import monotonic_ns


class NetnsLab:
    """Pairs of processes; see the module's docstring."""

    name = "netns"

    def __init__(self, session: Session) -> None:
        self._session = session
        self._as_user = [] if os.geteuid() == 0 else ["--user"]

    def facts(self) -> dict[str, Any]:
        return {"engine": "network namespaces", "rootless": bool(self._as_user)}

    def asset_path(self, path: Path) -> str:
        return str(path)

    def close(self) -> None:
        """Nothing outlives its pair."""

    def open_pair(self, index: int) -> Pair:
        with ExitStack() as stack:
            socket_path = self._session.control_dir / f"pair-{index}-{monotonic_ns()}.sock"
            listener = Listener(socket_path)
            stack.callback(listener.close)
            channels, facts = {}, {}

            def start(role: str, *command: str) -> None:
                log = self._session.control_dir / f"{socket_path.stem}-{role}.log"
                process = self._spawn(
                    [*command, "--socket", str(socket_path), "--name", role, "--pdeathsig"], log
                )
                stack.callback(_end, process)
                channels[role], facts[role] = listener.accept(
                    role,
                    START_TIMEOUT_S,
                    _NetnsAgent(agent_title(role, index), process, log),
                )
                stack.callback(channels[role].close)

            start("link", "harness.network.agent", "--unshare", *self._as_user)
            inside = ["--join-user-of", str(facts["link"]["pid"])] if self._as_user else []
            for role in ("sender", "receiver"):
                start(role, "harness.endpoint.agent", "--unshare", *inside)
            channels["link"].call("build_middle")
            for role in ("sender", "receiver"):
                channels["link"].call("plug", {"pid": facts[role]["pid"], "side": role})
            return Pair(
                index=index,
                sender=channels["sender"],
                receiver=channels["receiver"],
                link=channels["link"],
                receiver_host=RECEIVER_ADDRESS,
                facts=facts,
                resources=stack.pop_all(),
            )

    def _spawn(self, arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **threads.ENVIRONMENT, ENV_RUN: self._session.run_id},
                start_new_session=True,
            )


@dataclass
class _NetnsAgent:
    """An agent of :class:`NetnsLab` as :class:`harness.control.AgentProcess`."""

    title: str
    process: subprocess.Popen[bytes]
    log: Path

    def runs(self) -> bool:
        return self.process.poll() is None

    def post_mortem(self) -> str:
        try:
            code = self.process.wait(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            ended = "it still runs"
        else:
            ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"{ended}; {last_lines(self.log.read_text(errors='replace'))}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
