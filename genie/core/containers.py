"""Memory limits of the control groups that this process is in, such as a container's (Linux, versions 1 and 2)."""

import math
from pathlib import Path

# Of each version: the limit, what is in use, and the part of it that is cached files, which the system gives up.
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def memory_left(root: Path = Path("/")) -> float:
    """Bytes that the tightest limit leaves; infinity where there is none, or none can be read.

    Args:
        root: of the file system that tells of them.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    left = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = root / "sys/fs/cgroup", VERSION_2
        if controllers:
            top, names = top / "memory", VERSION_1
        group = top / path.lstrip("/")
        # A parent limits its children too. In a container the path may be that of the host, and only the top exists.
        for folder in (group, *group.parents):
            left = min(left, _left(folder, *names))
            if folder == top:
                break
    return left


def _left(group: Path, limit: str, used: str, cached: str) -> float:
    try:
        most = int((group / limit).read_text())  # version 2 says `max` where there is none
        in_use = int((group / used).read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return math.inf
    return max(0, most - in_use + int(statistics.get(cached, 0)))
