"""Minimal training jobs: one accelerator per test, resume state in its own folder, data for each of the models."""

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from genie.core.actions import NO_ACTION
from genie.core.frames import FRAME_SHAPE
from genie.core.params import parse_params
from genie.data.episodes import EpisodeStore
from genie.data.transitions import TransitionWindows
from genie.data.true_actions import LabelledFrameWindows
from genie.data.windows import FrameWindows, TokenWindows
from genie.distributed.accelerator import make_accelerator
from genie.models.dynamics import build_dynamics
from genie.models.motion_predictor import build_motion_predictor
from genie.models.pixel_lam import build_pixel_lam
from genie.models.probe import build_probe
from genie.models.steering import build_steering
from genie.models.surprise_lam import build_surprise_lam
from genie.models.tokenizer import build_tokenizer
from genie.sources.collect import collect
from genie.training.costs import A_SPRITE
from tests.conftest import merged


@pytest.fixture
def accelerator(tiny_params, tmp_path, monkeypatch):
    """An accelerator in an empty working directory, with one thread."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    num_threads = torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=True)  # the state outlives its accelerator
    yield make_accelerator(tiny_params.runtime.model_copy(update={"threads": 1}))
    torch.set_num_threads(num_threads)


@pytest.fixture(params=["tokenizer", "probe", "surprise", "pixels", "motion", "steering", "dynamics"])
def job(request, tiny_params, coinrun):
    """Name of a model (of a latent action model, its kind), its params, a function that builds it, and its data."""
    return make_job(request.param, tiny_params, coinrun["train"])


@pytest.fixture
def golden_job(request, tiny_params, tmp_path):
    """Same for a few dozen steps, on levels without backgrounds, whose pixels are the same in all simulator versions.

    The test names the model by indirect parametrization.
    """
    # At higher learning rates a rounding error soon flips a code, which changes everything after it.
    changes = {
        "collect": {"backgrounds": False, "shard_frames": 600},
        "tokenizer": {"steps": 36},
        "probe": {"steps": 36, "lr": 5e-4},
        "lam": {
            "num_actions": 8,
            "surprise": {"steps": 36, "expectation_steps": 18, "lr": 5e-4},
            "pixels": {"steps": 36, "lr": 5e-4},
        },
        "motion": {"steps": 36},
        "steering": {"steps": 36},
        "dynamics": {"steps": 36},
    }
    params = parse_params(merged(tiny_params.model_dump(), changes))
    collect(params.collect, tmp_path / "frames", num_threads=1)
    return make_job(request.param, params, EpisodeStore(tmp_path / "frames/train"))


def make_job(name, all_params, store):
    is_lam = name in ("surprise", "pixels")
    params = all_params.lam.model_copy(update={"kind": name}).of_kind() if is_lam else getattr(all_params, name)
    if name == "tokenizer":  # the quantizer that draws random numbers and keeps running means
        params = params.model_copy(update={"quantizer": "vq", "num_codes": 32})
        return name, params, lambda: build_tokenizer(params, 64), _frame_windows(store, 1, params)
    if name == "probe":
        dataset = LabelledFrameWindows(store, params.window, params.batch_size, params.seed, params.steps)
        return name, params, lambda: build_probe(params, num_classes=6), dataset
    if name == "pixels":
        return name, params, lambda: build_pixel_lam(params), _frame_windows(store, params.window, params)
    if name == "surprise":
        lam = build_surprise_lam(params, A_SPRITE, FRAME_SHAPE[:2])
        dataset = TransitionWindows(lam, store, params.batch_size, params.seed, params.steps)
        return name, params, lambda: build_surprise_lam(params, A_SPRITE, FRAME_SHAPE[:2]), dataset
    if name == "motion":
        known = {"num_actions": 6, "frame_size": FRAME_SHAPE[:2]}
        actions = np.random.default_rng(0).integers(6, size=store.num_frames)
        observer = build_motion_predictor(params, **known)
        labels = {"actions_M": actions}
        dataset = TransitionWindows(observer, store, params.batch_size, params.seed, params.steps, labels)
        return name, params, lambda: build_motion_predictor(params, **known), dataset
    if name == "steering":
        known = {"num_effects": 6, "num_actions": 5, "frame_size": FRAME_SHAPE[:2]}
        actions = np.random.default_rng(0).integers(5, size=store.num_frames)
        labels = {"effects_M": store.actions(), "actions_M": actions, "before_M": np.roll(actions, 1)}
        observer = build_steering(params, **known)
        dataset = TransitionWindows(observer, store, params.batch_size, params.seed, params.steps, labels)
        return name, params, lambda: build_steering(params, **known), dataset
    rng = np.random.default_rng(0)
    tokens = rng.integers(50, size=(300, 256)).astype(np.uint16)
    latent_actions = rng.integers(8, size=300).astype(np.uint8)
    latent_actions[29::30] = NO_ACTION
    fsq = all_params.tokenizer.model_copy(update={"quantizer": "fsq", "fsq_levels": [5, 5, 2]})
    tokenizer = build_tokenizer(fsq, 64)

    def build():
        dynamics = build_dynamics(params, num_codes=50, grid=(16, 16), num_actions=8)
        dynamics.see_through(tokenizer.eval())
        return dynamics

    dataset = TokenWindows(tokens, latent_actions, params.window, params.batch_size, params.seed, params.steps)
    return name, params, build, dataset


def _frame_windows(store, window, params):
    return FrameWindows(store, window, params.batch_size, params.seed, params.steps)
