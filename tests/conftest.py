"""Params and data small enough for a test: the real `params.yaml` with its sizes cut down, and real CoinRun."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from genie.data.collect import collect
from genie.data.episodes import SPLITS, EpisodeStore
from genie.params import Params, parse_params, read_yaml

ROOT = Path(__file__).resolve().parents[1]

TINY_TRAINING = {"batch_size": 4, "steps": 12, "warmup_steps": 2}
TINY_TRANSFORMER = {"width": 16, "num_layers": 1, "num_heads": 2, **TINY_TRAINING}
TINY = {
    "runtime": {"device": "cpu", "precision": "fp32"},
    "collect": {
        "num_envs": 8,
        "frames": {"train": 600, "val": 250, "test": 250},
        "levels": {"train": 40, "val": 20, "test": 20},
    },
    "tokenizer": {"width": 16, "num_blocks": 1, **TINY_TRAINING},
    "lam": {
        "window": 5,
        "width": 16,
        "num_blocks": 2,
        **TINY_TRAINING,
        "gate_min_perplexity": 0.0,
        "gate_min_gain_db": -100.0,
    },
    "dynamics": {"context_frames": 2, **TINY_TRANSFORMER},
    "evaluate": {
        "num_clips": 4,
        "horizon": 5,
        "drift_clips": 2,
        "drift_horizon": 8,
        "num_gifs": 1,
        "num_states": 24,
    },
}


@pytest.fixture(scope="session")
def tiny_tree() -> dict:
    """The tree of a whole `params.yaml` that runs the pipeline in a minute."""
    tree = read_yaml(ROOT / "params.yaml")
    return {section: values | TINY.get(section, {}) for section, values in tree.items()}


@pytest.fixture(scope="session")
def tiny_params(tiny_tree) -> Params:
    """The same, parsed."""
    return parse_params(tiny_tree)


@pytest.fixture(scope="session")
def coinrun(tiny_params, tmp_path_factory) -> dict[str, EpisodeStore]:
    """A few hundred real frames a split."""
    folder = tmp_path_factory.mktemp("coinrun")
    collect(tiny_params.collect, folder, num_threads=1)
    return {split: EpisodeStore(folder / f"{split}.h5") for split in SPLITS}


@pytest.fixture(scope="session")
def scrambled() -> Callable[[nn.Module], nn.Module]:
    """Moves a model, in eval mode, off its birth: through its zeros nothing flows, whoever could see whom."""

    def scramble(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    return scramble
