"""Training in two processes, each of which holds only its shards, on real CoinRun."""

import os
import subprocess
import sys

import pytest
import torch
from ruamel.yaml import YAML

import genie.training.loop
from genie.core.protocols import NullTracker
from genie.distributed.claims import release
from genie.training.loop import train
from genie.training.resume import ResumeStore
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

TRAIN = """
import sys
import torch
import genie.training.loop as loop
import genie.training.step as step
from genie.data.episodes import EpisodeStore
from genie.core.params import load_params
from genie.distributed.accelerator import make_accelerator
from genie.training.resume import ResumeStore
from tests.jobs import make_job
from tests.distributed.test_fsdp import Stop, Stopping, weights

name, frames, stop_at = sys.argv[1:]
held, make_optimizers = [], step.make_optimizers

def count(model, *options):
    held.append(sum(weight.to_local().numel() for weight in model.parameters()))
    return make_optimizers(model, *options)

params = load_params()
accelerator = make_accelerator(params.runtime, training=True)
name, settings, build, dataset = make_job(name, params, EpisodeStore(frames))
model, resume = build(), ResumeStore(name, settings, accelerator, {})
loop.SAVING_SHARE, step.make_optimizers = float("inf"), count
try:
    curve = loop.train(model, dataset, settings, accelerator, Stopping(int(stop_at)), resume, weights)
except Stop:
    sys.exit()
assert held[0] < 0.7 * sum(weight.numel() for weight in model.parameters())
if accelerator.is_main_process:
    resume.clear()
    torch.save((model.state_dict(), curve), "trained.pt")
"""


class Stop(Exception):
    """Stand-in for any error that ends a run early."""


class Stopping(NullTracker):
    """Raises at a step; records the steps logged."""

    def __init__(self, stop_at=0):
        self.stop_at, self.steps = stop_at, []

    def log_metrics(self, metrics, step):
        if step == self.stop_at:
            raise Stop
        self.steps.append(step)


def weights(model, step):
    """Stand-in for a validation that needs whole weights."""
    return {"weights": sum(weight.abs().sum().item() for weight in model.parameters())}


def train_here(job, accelerator, tracker):
    """Trains in one process; returns the weights and the curve."""
    name, params, build, dataset = job
    model, resume = build(), ResumeStore(name, params, accelerator, {})
    try:
        curve = train(model, dataset, params, accelerator, tracker, resume, weights)
    finally:
        release(resume.folder)  # as a process that ends does
    resume.clear()
    return model.state_dict(), curve


@pytest.fixture
def train_sharded(tiny_tree, coinrun, accelerator, tmp_path):
    """Same in two processes, in the same working directory; returns None if they stop at a step."""
    runtime = tiny_tree["runtime"] | {"strategy": "fsdp", "processes": 2}
    YAML().dump(tiny_tree | {"runtime": runtime}, tmp_path / "params.yaml")
    (tmp_path / "train.py").write_text(TRAIN)

    def train_sharded(name, stop_at=0):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py"]
        command += [name, str(coinrun["train"].path), str(stop_at)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-6000:]
        return None if stop_at else torch.load("trained.pt", weights_only=True)

    return train_sharded


def assert_alike(trained, other):
    """Asserts that results differ only by the rounding of sums in another order."""
    (state, curve), (other_state, other_curve) = trained, other
    assert state.keys() == other_state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(other_state[name], tensor, rtol=0.01, atol=0.01, msg=name)
    for name, tolerance in (("train_loss", 1e-3), ("train_grad_norm", 1e-2)):
        assert [row[name] for row in other_curve] == pytest.approx([row[name] for row in curve], rel=tolerance)
    validated, others = ([row["val_weights"] for row in rows if "val_weights" in row] for rows in (curve, other_curve))
    assert others == pytest.approx(validated, rel=1e-3)


# A model with kernels in another memory format and a codebook; and one that initialises its codes in training.
@pytest.mark.parametrize("job", ["tokenizer", "surprise"], indirect=True)
def test_shards_train_as_the_whole_does(job, accelerator, train_sharded):
    assert_alike(train_here(job, accelerator, Stopping()), train_sharded(job[0]))


@pytest.mark.parametrize("job", ["dynamics"], indirect=True)
def test_one_process_goes_on_from_shards_and_shards_from_one_process(job, accelerator, train_sharded, monkeypatch):
    uninterrupted = train_here(job, accelerator, Stopping())
    train_sharded("dynamics", stop_at=8)
    later = Stopping()
    assert_alike(uninterrupted, train_here(job, accelerator, later))
    assert later.steps[0] == 8

    monkeypatch.setattr(genie.training.loop, "SAVING_SHARE", float("inf"))
    with pytest.raises(Stop):
        train_here(job, accelerator, Stopping(stop_at=8))
    assert_alike(uninterrupted, train_sharded("dynamics"))
