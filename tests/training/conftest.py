"""Training at the smallest: one accelerator a test, resume state in its own folder, data for each of the models."""

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from genie.data.collect import collect
from genie.data.episodes import NO_ACTION, EpisodeStore
from genie.data.labels import LabelledFrameWindows
from genie.data.windows import FrameWindows, TokenWindows
from genie.models.dynamics import build_dynamics
from genie.models.lam import build_lam
from genie.models.probe import build_probe
from genie.models.tokenizer import build_tokenizer
from genie.runtime import make_accelerator


@pytest.fixture
def accelerator(tiny_params, tmp_path, monkeypatch):
    """In an empty working directory, with one thread."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    num_threads = torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=True)  # it outlives its accelerator
    yield make_accelerator(tiny_params.runtime.model_copy(update={"threads": 1}))
    torch.set_num_threads(num_threads)


@pytest.fixture(params=["tokenizer", "probe", "lam", "dynamics"])
def job(request, tiny_params, coinrun):
    """For one of the models: its name, its params, a function that builds it afresh, and its data."""
    return make_job(request.param, tiny_params, coinrun["train"])


@pytest.fixture
def golden_job(request, tiny_params, tmp_path):
    """The same for a few dozen steps, on levels without backgrounds, whose pixels no version of the simulator changes.

    The test names the model by indirect parametrization.
    """
    changes = {name: {"steps": 36} for name in ("tokenizer", "lam", "dynamics")}
    changes["collect"] = {"backgrounds": False, "shard_frames": 600}
    changes["lam"]["probe_steps"] = 36
    changes["lam"]["lr"] = 5e-4  # at its own, a rounding error soon flips a code, and with it all that follows
    changed = {name: getattr(tiny_params, name).model_copy(update=update) for name, update in changes.items()}
    params = tiny_params.model_copy(update=changed)
    collect(params.collect, tmp_path / "frames", num_threads=1)
    return make_job(request.param, params, EpisodeStore(tmp_path / "frames/train"))


def make_job(name, all_params, store):
    params = all_params.lam.of_probe() if name == "probe" else getattr(all_params, name)
    if name == "tokenizer":  # the quantizer that draws at random and keeps running means
        params = params.model_copy(update={"quantizer": "vq", "num_codes": 32})
        return name, params, lambda: build_tokenizer(params), _frame_windows(store, 1, params)
    if name == "probe":
        dataset = LabelledFrameWindows(store, params.window, params.batch_size, params.seed, params.steps)
        return name, params, lambda: build_probe(params, num_classes=6), dataset
    if name == "lam":
        return name, params, lambda: build_lam(params), _frame_windows(store, params.window, params)
    rng = np.random.default_rng(0)
    tokens = rng.integers(50, size=(300, 256)).astype(np.uint16)
    latent_actions = rng.integers(8, size=300).astype(np.uint8)
    latent_actions[29::30] = NO_ACTION
    known = {"num_codes": 50, "grid": (16, 16), "num_actions": 8}
    dataset = TokenWindows(tokens, latent_actions, params.window, params.batch_size, params.seed, params.steps)
    return name, params, lambda: build_dynamics(params, **known), dataset


def _frame_windows(store, window, params):
    return FrameWindows(store, window, params.batch_size, params.seed, params.steps)
