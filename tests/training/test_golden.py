"""Golden loss curves: a refactor that changes what is computed fails, and one that does not passes.

They are kept in `tests/assets/losses/` and made in one thread. After an intended change, rewrite them with

    pytest tests/training/test_golden.py --write-golden
"""

from pathlib import Path

import numpy as np
import pytest

from genie.core.protocols import NullTracker
from genie.training.loop import train
from genie.training.resume import ResumeStore

ASSETS = Path(__file__).resolve().parents[1] / "assets" / "losses"
JOBS = ["tokenizer", "probe", "surprise", "pixels", "motion", "steering", "dynamics"]
TOLERANCE = 1e-4  # relative; other instruction sets (SSE4 to AVX2) were within 5e-6


def losses_of(job, accelerator) -> np.ndarray:
    """Returns the loss at every step."""
    name, params, build, dataset = job
    resume = ResumeStore(name, params, accelerator, {})
    curve = train(build(), dataset, params, accelerator, NullTracker(), resume, lambda model, step: {})
    resume.clear()
    return np.array([row["train_loss"] for row in curve])


@pytest.mark.parametrize("golden_job", JOBS, indirect=True)
def test_losses_are_those_kept(golden_job, accelerator, request):
    path, losses = ASSETS / f"{golden_job[0]}.txt", losses_of(golden_job, accelerator)
    if request.config.getoption("--write-golden"):
        np.savetxt(path, losses, fmt="%.6g")
    golden = np.loadtxt(path)
    assert len(golden) == 36
    assert losses == pytest.approx(golden, rel=TOLERANCE)


@pytest.mark.parametrize("golden_job", JOBS, indirect=True)
def test_the_tolerance_sees_a_small_change(golden_job, accelerator):
    """A learning rate 1% higher is detected."""
    name, params, build, dataset = golden_job
    losses = losses_of((name, params.model_copy(update={"lr": 1.01 * params.lr}), build, dataset), accelerator)
    assert losses != pytest.approx(np.loadtxt(ASSETS / f"{name}.txt"), rel=TOLERANCE)
