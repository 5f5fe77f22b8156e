"""Params and data small enough for a test: the real `params.yaml` with reduced sizes, and real CoinRun.

Tests compute in one thread: models this small gain nothing from more, and beside a busy process, such as a browser,
threads that wait for each other turn milliseconds into seconds.
"""

import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from genie.core.actions import NO_ACTION, game_actions
from genie.core.params import Params, load_params, parse_params
from genie.core.yaml_files import read_yaml
from genie.data.caches import write_latent_actions
from genie.data.episodes import EpisodeStore, EpisodeWriter
from genie.data.hdf5 import writing_hdf5
from genie.data.shards import SPLITS
from genie.models.checkpoint import fingerprint, save_model
from genie.models.dynamics import build_dynamics
from genie.models.steering import build_steering
from genie.models.tokenizer import build_tokenizer
from genie.sources.collect import collect
from genie.world import WorldModel
from genie.world.controls import Button, write_buttons
from genie.world.maskgit import Sampling
from genie.world.prompts import Prompt
from tests.frames import LARGER_SIZES, enlarged

torch.set_num_threads(1)

pytest_plugins = ["tests.jobs"]

ROOT = Path(__file__).resolve().parents[1]
COINRUN = game_actions("coinrun").names

TINY_TRAINING = {"batch_size": 4, "steps": 12, "warmup_steps": 2}
TINY_WINDOWS = {"window": 5, "width": 16, "num_blocks": 2, **TINY_TRAINING}
TINY_TRANSFORMER = {"width": 16, "num_layers": 1, "num_heads": 2, **TINY_TRAINING}
TINY = {
    "runtime": {"device": "cpu", "precision": "fp32", "threads": 1},
    "collect": {
        "num_envs": 8,
        "frames": {"train": 600, "val": 250, "test": 250},
        "shard_frames": 250,
        "levels": {"train": 40, "val": 20, "test": 20},
    },
    "tokenizer": {"width": 16, "num_blocks": 1, **TINY_TRAINING},
    "probe": TINY_WINDOWS,
    "lam": {
        "gate_min_perplexity": 0.0,
        "surprise": {
            "width": 16,
            "expectation_steps": 6,
            "gate_min_information": -100.0,
            **TINY_TRAINING,
            "batch_size": 32,
        },
        "pixels": {"gate_min_gain_db": -100.0, **TINY_WINDOWS},
    },
    "motion": {**TINY_TRAINING, "batch_size": 32},
    "steering": {**TINY_TRAINING, "batch_size": 32},
    "dynamics": {"context_frames": 2, "window": 8, **TINY_TRANSFORMER},
    "evaluate": {
        "num_clips": 4,
        "horizon": 5,
        "drift_clips": 2,
        "drift_horizon": 8,
        "num_gifs": 1,
        "num_states": 24,
        "steered_states": 12,
        "steered_frames": 3,
    },
}


def pytest_addoption(parser):
    parser.addoption("--write-golden", action="store_true", help="write tests/assets/losses anew")
    parser.addoption("--kills", type=int, default=1, help="times that each training is killed (test_processes.py)")


def merged(tree: dict, changes: dict) -> dict:
    """Returns the tree with its leaves replaced by those of `changes`."""
    return tree | {
        key: merged(tree[key], value) if isinstance(value, dict) else value for key, value in changes.items()
    }


@pytest.fixture(scope="session")
def tiny_tree() -> dict:
    """Tree of a complete `params.yaml` that runs the pipeline in a minute."""
    return merged(read_yaml(ROOT / "params.yaml"), TINY)


@pytest.fixture(scope="session")
def tiny_params(tiny_tree) -> Params:
    """`tiny_tree`, parsed."""
    return parse_params(tiny_tree)


@pytest.fixture(scope="session")
def coinrun(tiny_params, tmp_path_factory) -> dict[str, EpisodeStore]:
    """A few hundred real frames per split."""
    folder = tmp_path_factory.mktemp("coinrun") / "frames"
    collect(tiny_params.collect, folder, num_threads=1)
    return {split: EpisodeStore(folder / split) for split in SPLITS}


@pytest.fixture(scope="session", params=LARGER_SIZES)
def larger_store(request, coinrun, tmp_path_factory) -> EpisodeStore:
    """The first 250 frames of CoinRun's `train`, enlarged."""
    store, size = coinrun["train"], request.param
    file, folder = store.files[0], tmp_path_factory.mktemp("larger")
    episodes = np.split(np.arange(file.num_frames), file.episode_starts[1:])
    attributes = {"shard": 0, "num_shards": 1, "env_name": "coinrun"}
    known = {"compression": "lzf", "attributes": attributes, "frame_shape": (size, size, 3)}
    with writing_hdf5(folder / "00000.h5") as hdf5, EpisodeWriter(hdf5, file.num_frames, **known) as writer:
        for level, frames in zip(file.level_seeds, episodes, strict=True):
            piece = enlarged(store.read(frames[0], frames[-1] + 1), size), file.actions()[frames]
            writer.append([piece], int(level))
        writer.finish()
    return EpisodeStore(folder)


@pytest.fixture(scope="session")
def collect_params():
    params = load_params().collect.model_dump()
    counts = {"train": 600, "val": 100, "test": 130}
    return type(load_params().collect)(
        **{**params, "num_envs": 8, "frames": counts, "shard_frames": 250, "levels": {"train": 20, "val": 5, "test": 5}}
    )


@pytest.fixture(scope="session")
def collected(collect_params, tmp_path_factory):
    """Folder of one `collect`; `train` has three shards."""
    folder = tmp_path_factory.mktemp("collected") / "frames"
    assert collect(collect_params, folder, num_threads=2) == 830
    return folder


@pytest.fixture(scope="session")
def scrambled() -> Callable[[nn.Module], nn.Module]:
    """Adds noise to a model's weights and sets eval mode: weights initialised to zero would hide dependencies."""

    def scramble(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    return scramble


@pytest.fixture(scope="session")
def shared_world(tiny_params, scrambled, coinrun) -> WorldModel:
    """A world with random weights, five buttons and three prompts of two real frames each."""
    tokenizer = scrambled(build_tokenizer(tiny_params.tokenizer, 64))
    dynamics = scrambled(
        build_dynamics(
            tiny_params.dynamics,
            num_codes=tokenizer.num_codes,
            grid=tokenizer.grid,
            num_actions=5,
            tokenizer_fingerprint=fingerprint(tokenizer),
        )
    )
    # Shifts by fractions of a pixel give values halfway between integers, whose rounding depends on the batch.
    for weight in dynamics.compensation.predictor.layers[-1].parameters():
        torch.nn.init.zeros_(weight)
    rng = np.random.default_rng(0)
    buttons = tuple(Button(COINRUN, tuple(row)) for row in rng.dirichlet(np.ones(6), size=5).round(4).tolist())
    steering = scrambled(build_steering(tiny_params.steering, num_effects=6, num_actions=5))
    store = coinrun["test"]
    prompts = [
        Prompt(store.read(start, start + 2), np.array([index]), f"level {level}", level)
        for index, (start, level) in enumerate(
            zip(store.episode_starts[:3].tolist(), store.level_seeds[:3].tolist(), strict=True)
        )
    ]
    sampling = Sampling(maskgit_steps=1, temperature=0.0)
    return WorldModel(tokenizer, dynamics, steering, sampling, buttons, prompts)


@pytest.fixture(scope="session", params=LARGER_SIZES)
def larger_world(request, shared_world, tiny_params, scrambled) -> WorldModel:
    """`shared_world` with larger frames: only its tokenizer is another, and its prompts are enlarged."""
    tokenizer = scrambled(build_tokenizer(tiny_params.tokenizer, request.param))
    dynamics, prompts = deepcopy(shared_world.dynamics), shared_world.prompts
    prompts = [replace(prompt, frames_THWC=enlarged(prompt.frames_THWC, request.param)) for prompt in prompts]
    steering, buttons = shared_world.steering, shared_world.buttons
    return WorldModel(tokenizer, dynamics, steering, shared_world.sampling, buttons, prompts)


@pytest.fixture(scope="session")
def uncompensated_world(shared_world, tiny_params, scrambled) -> WorldModel:
    """`shared_world` with a dynamics model without motion compensation, and random sampling."""
    params = tiny_params.dynamics.model_copy(update={"motion_compensation": False})
    tokenizer, steering = shared_world.tokenizer, shared_world.steering
    known = {"num_codes": tokenizer.num_codes, "grid": tokenizer.grid, "num_actions": shared_world.num_actions}
    dynamics = scrambled(build_dynamics(params, **known))
    sampling = Sampling(maskgit_steps=2, temperature=1.0)
    return WorldModel(tokenizer, dynamics, steering, sampling, shared_world.buttons, shared_world.prompts)


@pytest.fixture(scope="session")
def with_buttons(shared_world, tiny_params, scrambled) -> Callable[[Sequence[Button]], WorldModel]:
    """Makes a world of the weights of `shared_world` with five other buttons, and arrows of their names, if any."""

    def make(buttons: Sequence[Button]) -> WorldModel:
        num_effects = len(buttons[0].names)
        steering = build_steering(tiny_params.steering, num_effects=num_effects, num_actions=5) if num_effects else None
        return WorldModel(
            shared_world.tokenizer,
            shared_world.dynamics,
            steering and scrambled(steering),
            shared_world.sampling,
            buttons,
            shared_world.prompts,
        )

    return make


@pytest.fixture(scope="session")
def moving_world(with_buttons) -> WorldModel:
    """A world without true actions, whose buttons are known by their mean motion."""
    return with_buttons([Button(motion=motion) for motion in ((2, 0.5), (-1, 0), (0.1, 0), (3, -3.5), (0.5, 0))])


@pytest.fixture(scope="session")
def pictured_world(with_buttons) -> WorldModel:
    """A world without true actions, of whose buttons nothing was measured."""
    return with_buttons([Button()] * 5)


@pytest.fixture
def pipeline(shared_world, coinrun, tiny_tree, tmp_path, monkeypatch) -> Path:
    """A working directory as the pipeline leaves it, with `shared_world` and without metrics."""
    root, store = tmp_path / "pipeline", coinrun["test"]
    for model in (shared_world.tokenizer, shared_world.dynamics, shared_world.steering):
        save_model(root / "data/models" / model.kind, model)
    write_buttons(root / "data/models", shared_world.buttons)
    YAML().dump(tiny_tree, root / "params.yaml")
    shutil.copytree(store.path, root / "data/frames/test")
    actions = np.random.default_rng(0).integers(shared_world.num_actions, size=len(store)).astype(np.uint8)
    actions[[*store.episode_starts[1:] - 1, -1]] = NO_ACTION
    known = {"fingerprint": shared_world.dynamics.config.lam_fingerprint, "num_actions": shared_world.num_actions}
    write_latent_actions(root / "data/actions/test.h5", [actions], len(store), **known)
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def tiny_world(shared_world) -> WorldModel:
    """A fork of `shared_world` for one test."""
    return shared_world.fork()
