"""A container's process leaves a group that has no real-time budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.labs.priority import leave_group_without_budget

CONTAINER = "ab12"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """/proc and /sys/fs/cgroup of a machine with cgroup v1, in small."""
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text(
        f"4:memory:/docker/{CONTAINER}\n2:cpu,cpuacct:/docker/{CONTAINER}\n0::/\n"
    )
    group = tmp_path / "groups/cpu,cpuacct/docker" / CONTAINER
    group.mkdir(parents=True)
    (group / "cpu.rt_runtime_us").write_text("0\n")
    return tmp_path


def moved(machine: Path, container: str = CONTAINER) -> bool:
    leave_group_without_budget(7, container, machine / "proc", machine / "groups")
    procs = machine / "groups/cpu,cpuacct/cgroup.procs"
    return procs.exists() and procs.read_text() == "7"


def test_it_moves_to_the_root_of_that_controller_alone(machine: Path) -> None:
    assert moved(machine)
    assert not (machine / "groups/memory").exists()


def test_a_group_with_a_budget_keeps_it(machine: Path) -> None:
    budget = machine / "groups/cpu,cpuacct/docker" / CONTAINER / "cpu.rt_runtime_us"
    budget.write_text("95000\n")
    assert not moved(machine)


def test_a_kernel_without_budgets_has_nothing_to_leave(machine: Path) -> None:
    (machine / "groups/cpu,cpuacct/docker" / CONTAINER / "cpu.rt_runtime_us").unlink()
    assert not moved(machine)


def test_a_process_of_that_number_that_is_not_the_container_s_stays(machine: Path) -> None:
    assert not moved(machine, "cd34")
    leave_group_without_budget(8, CONTAINER, machine / "proc", machine / "groups")  # none at all
