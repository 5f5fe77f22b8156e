"""Shards recorded in several worker processes: the same bytes, and an end without remains."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from genie.core.params import SplitCounts
from genie.sources import side_by_side
from genie.sources.collect import collect
from genie.sources.side_by_side import FRAMES_A_WORKER, thread_shares
from tests.conftest import ROOT

GIB = 2**30

STAGE = """
import sys
from genie.core.params import CollectParams
from genie.distributed.faults import faults_in_one_line
from genie.sources import side_by_side
from genie.sources.collect import collect
side_by_side.FRAMES_A_WORKER = 1
with faults_in_one_line("collect"):
    collect(CollectParams.model_validate_json(sys.argv[1]), "data/frames", num_threads=4, resume=True)
"""


@pytest.fixture
def memory(monkeypatch):
    """Sets the free memory."""
    return lambda size: monkeypatch.setattr(side_by_side, "free_memory", lambda: size)


@pytest.mark.parametrize(
    ("sizes", "num_threads", "shares"),
    [
        ([60_000, 60_000, 8_192, 8_192], 2, [2]),
        ([60_000, 60_000, 8_192, 8_192], 4, [2, 2]),
        ([60_000, 60_000, 8_192, 8_192], 5, [2, 3]),
        ([60_000, 60_000, 8_192, 8_192], 16, [7, 7, 1, 1]),
        ([60_000, 60_000, 8_192, 8_192], 1, [1]),
        ([60_000] * 40, 16, [2] * 8),
        ([60_000] * 3, 16, [5, 5, 6]),
        ([10**9, 10_000, 10_000, 10_000], 8, [5, 1, 1, 1]),
        ([60_000], 16, [16]),
        ([], 16, []),
        ([FRAMES_A_WORKER] * 2, 16, [8, 8]),
        ([FRAMES_A_WORKER, FRAMES_A_WORKER - 1], 16, [16]),
    ],
)
def test_threads_go_to_as_many_workers_as_are_worth_it(sizes, num_threads, shares, memory):
    memory(100 * GIB)
    assert thread_shares(sizes, num_threads, GIB) == shares


def test_memory_and_processes_that_share_it_limit_workers(memory, monkeypatch):
    memory(4 * GIB)
    assert thread_shares([60_000] * 40, 16, GIB) == [4, 4, 4, 4]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert thread_shares([60_000] * 40, 8, GIB) == [4, 4]
    memory(0)
    assert thread_shares([60_000] * 40, 16, GIB) == [16]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [2, 3])
def test_workers_write_the_bytes_of_one_process(num_workers, collect_params, collected, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(side_by_side, "FRAMES_A_WORKER", 1)
    assert collect(collect_params, tmp_path / "frames", num_threads=2 * num_workers) == 830
    assert contents(tmp_path / "frames") == contents(collected)
    assert "830/830" in capfd.readouterr().err.replace(" ", ""), "the bar counts what all of them record"


@pytest.fixture(scope="module")
def many_shards(collect_params):
    """Params of so many shards that it takes a while to record them."""
    counts = {"frames": SplitCounts(train=8000, val=250, test=250), "levels": SplitCounts(train=64, val=5, test=5)}
    return collect_params.model_copy(update=counts)


@pytest.fixture(scope="module")
def wanted(many_shards, tmp_path_factory):
    """Bytes that one process records."""
    folder = tmp_path_factory.mktemp("wanted") / "frames"
    collect(many_shards, folder, num_threads=1)
    return contents(folder)


def kill_a_worker(stage):
    [*_, worker] = workers_of(stage)
    worker.kill()


def press_ctrl_c(stage):
    os.killpg(stage.pid, signal.SIGINT)


def kill_the_stage(stage):
    stage.kill()


def workers_of(stage):
    """Workers are children of a server, which is a child of the stage."""
    return [worker for server in psutil.Process(stage.pid).children() for worker in server.children()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "code", "line"),
    [
        (kill_a_worker, 1, r"collect: a worker process was killed \(SIGKILL\), .*; run the same command again .*"),
        (press_ctrl_c, 130, r"collect: interrupted; run the same command again to continue"),
        (kill_the_stage, -signal.SIGKILL, None),
    ],
)
def test_an_end_leaves_no_process_and_is_resumed(end, code, line, many_shards, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    command = [sys.executable, "-c", STAGE, many_shards.model_dump_json()]
    pipes = {"stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as stage:
        while not (kept := list(tmp_path.glob(".cache/resume/collect/*/*/*.h5"))):
            assert stage.poll() is None, "it ended before it finished a shard"
            time.sleep(0.001)
        assert len(workers_of(stage)) == 2
        family = psutil.Process(stage.pid).children(recursive=True)
        end(stage)
        _, told = stage.communicate()
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert stage.returncode == code
    assert re.fullmatch(line, told.strip()) if line else told == ""

    before = {path.relative_to(path.parents[1]): path.stat() for path in kept}
    assert 0 < collect(many_shards, "data/frames", num_threads=1, resume=True) <= 8500 - 250
    assert contents(Path("data/frames")) == wanted
    for name, stat in before.items():
        assert (Path("data/frames") / name).stat().st_ino == stat.st_ino, "a finished shard is kept"
