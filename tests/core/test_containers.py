import math
from pathlib import Path

import pytest

from genie.core.containers import VERSION_1, VERSION_2, memory_left
from genie.training import memory_budget as budget

GIB = 2**30


def system(root: Path, membership: str, groups: dict[str, tuple[str, int, int]], names: tuple[str, str, str]) -> Path:
    """A file system that tells of control groups: limit, use and cached files of each."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for path, figures in groups.items():
        folder = root / "sys/fs/cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        limit, used, cached = figures
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\n")
    return root


def test_a_limit_counts_less_what_is_in_use_but_for_cached_files(tmp_path):
    root = system(tmp_path, "0::/\n", {".": (4 * GIB, 3 * GIB, GIB)}, VERSION_2)
    assert memory_left(root) == 2 * GIB


def test_the_tightest_of_the_groups_above_counts(tmp_path):
    groups = {"pod": (2 * GIB, GIB, 0), "pod/box": ("max", GIB, 0), "other": (1, 1, 0)}
    assert memory_left(system(tmp_path, "0::/pod/box\n", groups, VERSION_2)) == GIB


def test_version_1_is_read_too(tmp_path):
    membership = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n"  # a path of the host's
    root = system(tmp_path, membership, {"memory": (3 * GIB, GIB, 0)}, VERSION_1)
    assert memory_left(root) == 2 * GIB


@pytest.mark.parametrize("membership", [None, "0::/\n"])
def test_without_a_limit_there_is_none(tmp_path, membership):
    root = tmp_path if membership is None else system(tmp_path, membership, {".": ("max", GIB, 0)}, VERSION_2)
    assert memory_left(root) == math.inf


def test_a_training_may_use_what_its_container_has_left(monkeypatch):
    cpu = budget.torch.device("cpu")
    monkeypatch.setattr(budget, "memory_left", lambda: 1000)
    assert budget.free_bytes(cpu) == 1000
    monkeypatch.setattr(budget, "memory_left", lambda: math.inf)
    assert 1000 < budget.free_bytes(cpu) < math.inf
