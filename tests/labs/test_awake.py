"""Processors that do not sleep while cells stream."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from harness.labs import awake as awake_module
from harness.labs.awake import AS_THEY_ARE, NO_IDLE_STATES, POLLED, awake, is_guest


def test_a_guest_is_known_by_its_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sse hypervisor avx\n")
    assert is_guest(cpuinfo)
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sse avx\nbugs\t: hypervisor\n")
    assert not is_guest(cpuinfo)
    assert not is_guest(tmp_path / "none")


def test_a_guest_s_processors_are_polled_by_what_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awake_module, "is_guest", lambda: True)
    before = set(psutil.Process().children())
    with awake() as how:
        assert how == POLLED
        pollers = set(psutil.Process().children()) - before
        assert len(pollers) == len(os.sched_getaffinity(0))
        for poller in pollers:
            while os.sched_getscheduler(poller.pid) != os.SCHED_IDLE:
                assert poller.is_running()  # it is still starting
    assert not any(poller.is_running() for poller in pollers)


def test_elsewhere_idle_states_are_left_out_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(awake_module, "is_guest", lambda: False)
    monkeypatch.setattr(awake_module, "_LATENCY", tmp_path / "cpu_dma_latency")
    with awake() as how:
        assert how == NO_IDLE_STATES
        assert (tmp_path / "cpu_dma_latency").read_bytes() == bytes(4)
    monkeypatch.setattr(awake_module, "_LATENCY", tmp_path / "none" / "cpu_dma_latency")
    with awake() as how:
        assert how == AS_THEY_ARE
