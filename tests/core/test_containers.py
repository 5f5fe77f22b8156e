import math
from pathlib import Path

import pytest

from genie.core.containers import MEMORY_1, MEMORY_2, cores_allowed, memory_left
from genie.distributed import processes
from genie.training import memory_budget as budget

GIB = 2**30


def system(root: Path, membership: str, groups: dict[str, tuple[str, int, int]], names: tuple[str, str, str]) -> Path:
    """Creates a file system that describes control groups: limit, usage and cached files of each."""
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
    root = system(tmp_path, "0::/\n", {".": (4 * GIB, 3 * GIB, GIB)}, MEMORY_2)
    assert memory_left(root) == 2 * GIB


def test_the_tightest_of_the_groups_above_counts(tmp_path):
    groups = {"pod": (2 * GIB, GIB, 0), "pod/box": ("max", GIB, 0), "other": (1, 1, 0)}
    assert memory_left(system(tmp_path, "0::/pod/box\n", groups, MEMORY_2)) == GIB


def test_version_1_is_read_too(tmp_path):
    membership = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n"  # a path on the host
    root = system(tmp_path, membership, {"memory": (3 * GIB, GIB, 0)}, MEMORY_1)
    assert memory_left(root) == 2 * GIB


@pytest.mark.parametrize("membership", [None, "0::/\n"])
def test_without_a_limit_there_is_none(tmp_path, membership):
    root = tmp_path if membership is None else system(tmp_path, membership, {".": ("max", GIB, 0)}, MEMORY_2)
    assert memory_left(root) == math.inf


def test_a_training_may_use_what_its_container_has_left(monkeypatch):
    cpu = budget.torch.device("cpu")
    monkeypatch.setattr(processes, "memory_left", lambda: 1000)
    assert budget.free_bytes(cpu) == 1000
    monkeypatch.setattr(processes, "memory_left", lambda: math.inf)
    assert 1000 < budget.free_bytes(cpu) < math.inf


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/pod/box\n", {"pod/cpu.max": "150000 100000", "pod/box/cpu.max": "max 100000"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000"}, math.inf),
        ("4:cpu:/docker/abc\n", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("4:memory:/\n", {}, math.inf),
    ],
)
def test_a_quota_of_cores_counts(tmp_path, membership, files, cores):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(membership)
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    assert cores_allowed(tmp_path) == cores


def test_threads_are_no_more_than_the_quota(monkeypatch, tiny_params):
    runtime = tiny_params.runtime.model_copy(update={"threads": 0})
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda process: range(64))
    monkeypatch.setattr(processes, "cores_allowed", lambda: 1.5)
    assert processes.num_threads(runtime) == 2
    monkeypatch.setattr(processes, "cores_allowed", lambda: math.inf)
    assert processes.num_threads(runtime) == 64
