"""How much memory is left, in the machine or its container, and on a device."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch

_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
_CGROUP_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Limit and use, in version 2 and in version 1."""


def free_ram(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """Bytes of RAM that programs can take without swapping, at most what the container allows; None: nobody knows.

    Where several processes of one launcher run on the machine, each gets an equal part.
    """
    available = _available(proc)
    if available is None:
        return None
    return min([available, *_left_in_groups(proc, cgroup)]) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def free_on(device: torch.device) -> int | None:
    """Free bytes of a GPU; None: its memory is the machine's, or nobody knows."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def _available(proc: Path) -> int | None:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return _half_of_all()


def _half_of_all() -> int | None:
    """Where the system does not say what is available (macOS)."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, OSError, ValueError):
        return None


def _left_in_groups(proc: Path, cgroup: Path) -> Iterator[int]:
    """What each control group that this process is in has left; a page cache that can be dropped is not counted."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        root = cgroup / "memory" if "memory" in controllers.split(",") else cgroup
        if not controllers or root != cgroup:
            folder = root / name.lstrip("/")
            for group in (folder, *folder.parents):
                if group.is_relative_to(root):
                    yield from _left(group)


def _left(group: Path) -> Iterator[int]:
    for limit_name, use_name in _CGROUP_FILES:
        try:
            limit, use = ((group / name).read_text().strip() for name in (limit_name, use_name))
            droppable = _inactive_file(group / "memory.stat")
        except OSError:
            continue
        if limit != "max":
            yield max(0, int(limit) - int(use) + droppable)


def _inactive_file(path: Path) -> int:
    words = (line.split() for line in path.read_text().splitlines())
    return next((int(value) for name, value in words if name == "inactive_file"), 0)
