"""Stages in several processes, and stages that are killed, give the same results."""

import csv
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree

import numpy as np
import psutil
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from genie.core.yaml_files import read_yaml

pytestmark = pytest.mark.slow

SHARDED = {"collect": "frames", "tokenize": "tokens"}  # stages and their output folders
TRAININGS = ["train_tokenizer", "train_probe", "train_lam", "train_motion", "train_steering", "train_dynamics"]

# Saves after the first step, and never again unless it must; receives Ctrl-C within step 7.
INTERRUPTED = """
import os, runpy, signal
import genie.training.loop as loop
loop.SAVING_SHARE = 1e-9
add, steps = loop._Means.add, []
def interrupted_add(self, values):
    steps.append(values)
    if len(steps) == 7:
        os.kill(os.getpid(), signal.SIGINT)
    add(self, values)
loop._Means.add = interrupted_add
runpy.run_module("stages.train_lam", run_name="__main__")
"""


@pytest.fixture
def trained(project, tmp_path):
    """A copy of the project after its first run, to run a stage in by hand."""
    copytree(project.root, tmp_path / "copy", ignore=ignore_patterns(".dvc", "mlflow.db", "mlartifacts"))
    return project.at(tmp_path / "copy")


def set_processes(project, count: int) -> None:
    """Sets the number of processes that stages run in."""
    params = read_yaml(project.root / "params.yaml")
    YAML().dump(params | {"runtime": params["runtime"] | {"processes": count}}, project.root / "params.yaml")


def results_of(project, stage: str) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Returns the weights that a training wrote, and its losses."""
    name = stage.removeprefix("train_")
    with (project.root / f"data/curves/{name}.csv").open() as file:
        losses = np.array([float(row["train_loss"]) for row in csv.DictReader(file)])
    return load_file(project.root / f"data/models/{name}/model.safetensors"), losses


@pytest.mark.parametrize("stage", TRAININGS)
def test_two_processes_train_as_one_does(trained, stage):
    """Each process takes half of each batch; results differ only by the rounding of sums in another order."""
    weights, losses = results_of(trained, stage)
    set_processes(trained, 2)
    trained.run(sys.executable, "-m", f"stages.{stage}")
    shared_weights, shared_losses = results_of(trained, stage)
    assert shared_losses == pytest.approx(losses, rel=1e-3)
    assert shared_weights.keys() == weights.keys()
    for name, weight in weights.items():
        if not name.startswith(("quantizer.", "clusters")):  # a vector halfway between two codes may get either
            torch.testing.assert_close(shared_weights[name], weight, rtol=0.01, atol=0.01, msg=name)
    assert [run.info.status for run in trained.runs()[f"{stage} by hand"]] == ["FINISHED"], "one run, of the first"


@pytest.mark.parametrize("stage", TRAININGS)
def test_a_killed_training_goes_on_to_the_same_bytes(trained, stage, request):
    """Killed once soon after it saves; further `--kills` come at random moments of a run."""
    name = stage.removeprefix("train_")
    outs = [trained.root / f"data/{out}" for out in (f"models/{name}/model.safetensors", f"curves/{name}.csv")]
    wanted = [out.read_bytes() for out in outs]
    states, rng = trained.root / ".cache/resume" / stage, random.Random(stage)
    seconds_of_a_run = None
    for _ in range(request.config.getoption("--kills")):
        for out in outs:
            out.unlink(missing_ok=True)
        with trained.started(sys.executable, "-m", f"stages.{stage}") as process:
            if seconds_of_a_run is None:
                while not list(states.glob("*/state.pt")):
                    assert process.poll() is None, "it ended before it saved anything"
                    time.sleep(0.01)
                time.sleep(rng.uniform(0, 1))
            else:
                time.sleep(rng.uniform(0, seconds_of_a_run))
            process.kill()
        start = time.monotonic()
        trained.run(sys.executable, "-m", f"stages.{stage}")
        seconds_of_a_run = time.monotonic() - start
        assert [out.read_bytes() for out in outs] == wanted
        assert not list(states.glob("*")), "what is saved goes when the stage ends"


def test_ctrl_c_saves_the_step_and_tells_how_to_go_on(trained):
    outs = [trained.root / "data/models/lam/model.safetensors", trained.root / "data/curves/lam.csv"]
    wanted = [out.read_bytes() for out in outs]
    states = trained.root / ".cache/resume/train_lam"
    with trained.started(sys.executable, "-c", INTERRUPTED, stderr=subprocess.PIPE, text=True) as process:
        _, told = process.communicate()
    assert process.returncode == 130
    assert told.splitlines()[-1] == "train_lam: interrupted; run the same command again to continue"
    [path] = states.glob("*/state.pt")
    assert torch.load(path, weights_only=True)["step"] == 7, "that of the step in which it came"
    trained.run(sys.executable, "-m", "stages.train_lam")
    assert [out.read_bytes() for out in outs] == wanted


def test_a_killed_process_ends_all_with_one_line_and_they_go_on(trained):
    set_processes(trained, 2)
    with trained.started(sys.executable, "-m", "stages.train_lam", stderr=subprocess.PIPE, text=True) as process:
        while not list((trained.root / ".cache/resume/train_lam").glob("*/state.pt")):
            assert process.poll() is None, "it ended before it saved anything"
            time.sleep(0.01)
        ranks = psutil.Process(process.pid).children()
        ranks[1].kill()
        _, told = process.communicate()
    assert process.returncode == 1
    line = [line for line in told.splitlines() if line.startswith("train_lam:")][-1]
    assert line.endswith("process 1 of 2: was killed (SIGKILL); run the same command again to continue")
    assert "Traceback" not in told
    trained.run(sys.executable, "-m", "stages.train_lam")
    assert len(results_of(trained, "train_lam")[1]) == 12


def shards_in(folder: Path) -> dict[str, bytes]:
    """Returns all files of a stage's output folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stage", SHARDED)
def test_two_processes_write_the_bytes_of_one(trained, stage):
    out = trained.root / "data" / SHARDED[stage]
    wanted = shards_in(out)
    assert len(wanted) == 5
    rmtree(out)
    metrics = trained.root / "data/metrics/collect.json"
    measured = metrics.read_bytes()
    set_processes(trained, 2)
    trained.run(sys.executable, "-m", f"stages.{stage}")
    assert shards_in(out) == wanted
    assert metrics.read_bytes() == measured
    assert not list((trained.root / ".cache/resume" / stage).iterdir())
    assert [run.info.status for run in trained.runs()[f"{stage} by hand"]] == ["FINISHED"], "one run, of the first"


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("stage", SHARDED)
def test_what_a_killed_stage_has_finished_is_kept(trained, stage, processes):
    out, waiting = trained.root / "data" / SHARDED[stage], trained.root / ".cache/resume" / stage
    wanted = shards_in(out)
    rmtree(out)
    set_processes(trained, processes)
    with trained.started(sys.executable, "-m", f"stages.{stage}") as process:
        # Until its first shard, the first process may write to MLflow's database, which a kill would corrupt.
        while not list(waiting.glob("*/train/00000.h5")):
            assert process.poll() is None, "it ended before it finished a shard"
            time.sleep(0.001)
        found = list(waiting.glob("*/*/*.h5"))
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family[1:])
    kept = {path.relative_to(path.parents[1]): path.stat() for path in found}
    assert not out.exists()
    trained.run(sys.executable, "-m", f"stages.{stage}")
    assert shards_in(out) == wanted
    assert not list(waiting.iterdir())
    for name, before in kept.items():
        after = (out / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "written once"


@pytest.mark.parametrize("stage", SHARDED)
def test_more_processes_than_shards_is_one_line_before_anything_is_done(trained, stage):
    set_processes(trained, 6)
    rmtree(trained.root / "data" / SHARDED[stage])
    with trained.started(sys.executable, "-m", f"stages.{stage}", stderr=subprocess.PIPE, text=True) as process:
        _, told = process.communicate()
    assert process.returncode == 1
    assert re.search(rf"^{stage}: .*runtime\.processes: 6 .* 5 shards; .* lower collect\.shard_frames$", told, re.M)
    assert "Traceback" not in told
    assert not list((trained.root / ".cache/resume").glob(f"{stage}/*"))
