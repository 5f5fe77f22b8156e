"""Limits of the control groups that this process is in, such as a container's (Linux, versions 1 and 2)."""

import math
from collections.abc import Iterator
from pathlib import Path

# Of each version: the limit, the usage, and the part of it that is cached files, which the system frees on demand.
MEMORY_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
MEMORY_2 = ("memory.max", "memory.current", "inactive_file")


def memory_left(root: Path = Path("/")) -> float:
    """Bytes that the tightest memory limit leaves; infinity if there is no limit, or none can be read.

    Args:
        root: of the file system to read.
    """
    left = math.inf
    for group, version in _groups(root, "memory"):
        left = min(left, _memory_left(group, *(MEMORY_1 if version == 1 else MEMORY_2)))
    return left


def cores_allowed(root: Path = Path("/")) -> float:
    """CPU cores that the tightest quota allows, such as `docker run --cpus=2`; infinity if there is none.

    Args:
        root: of the file system to read.
    """
    allowed = math.inf
    for group, version in _groups(root, "cpu"):
        try:
            if version == 1:
                quota = int((group / "cpu.cfs_quota_us").read_text())  # -1: no quota
                period = int((group / "cpu.cfs_period_us").read_text())
            else:
                words = (group / "cpu.max").read_text().split()
                quota, period = (-1 if words[0] == "max" else int(words[0])), int(words[1])
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0 and period > 0:
            allowed = min(allowed, quota / period)
    return allowed


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """The folders of this process's groups under a controller, each with the version; parents limit their children."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        # In a container the path may be the host's, and only the top exists.
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            yield folder, 1 if controllers else 2
            if folder == top:
                break


def _memory_left(group: Path, limit: str, used: str, cached: str) -> float:
    try:
        most = int((group / limit).read_text())  # version 2: `max` if there is no limit
        in_use = int((group / used).read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return math.inf
    return max(0, most - in_use + int(statistics.get(cached, 0)))
