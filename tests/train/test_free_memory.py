from pathlib import Path

import pytest
import torch

from train.free_memory import free_on, free_ram

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/proc and /sys/fs/cgroup of a machine with 8 GiB available and no limits."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    write(tmp_path / "proc" / "meminfo", f"MemTotal: 99999999 kB\nMemAvailable:   {8 * GIB // 1024} kB\n")
    write(tmp_path / "proc" / "self" / "cgroup", "0::/user/job\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def limit(group: Path, *, limit: str, use: int, droppable: int = 0, version: int = 2) -> None:
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (limit, str(use)), strict=True):
        write(group / name, f"{value}\n")
    write(group / "memory.stat", f"anon 5\ninactive_file {droppable}\nfile 7\n")


def free(machine: Path) -> int | None:
    return free_ram(machine / "proc", machine / "cgroup")


def test_without_a_limit_it_is_what_the_machine_has_available(machine: Path) -> None:
    assert free(machine) == 8 * GIB
    limit(machine / "cgroup" / "user" / "job", limit="max", use=3)
    assert free(machine) == 8 * GIB


def test_the_tightest_group_above_the_process_counts_and_its_droppable_pages_are_free(machine: Path) -> None:
    limit(machine / "cgroup" / "user" / "job", limit=str(6 * GIB), use=4 * GIB, droppable=GIB)
    assert free(machine) == 3 * GIB
    limit(machine / "cgroup" / "user", limit=str(2 * GIB), use=GIB)
    assert free(machine) == GIB
    limit(machine / "cgroup", limit=str(GIB), use=2 * GIB)
    assert free(machine) == 0


def test_groups_of_version_1_and_a_container_that_sees_only_its_own_group(machine: Path) -> None:
    write(machine / "proc" / "self" / "cgroup", "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/\n")
    limit(machine / "cgroup" / "memory", limit=str(4 * GIB), use=GIB, version=1)
    assert free(machine) == 3 * GIB


def test_processes_of_one_launcher_share_it(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free(machine) == 2 * GIB


def test_this_machine_says_something_and_the_cpu_is_no_device(tmp_path: Path) -> None:
    assert (free_ram() or 0) > 1 << 20
    assert (free_ram(tmp_path, tmp_path) or 0) > 1 << 20  # half of all, where the system says no more
    assert free_on(torch.device("cpu")) is None
