"""Params small enough for a test: the real `params.yaml` with its sizes cut down."""

from pathlib import Path

import pytest

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
        "window": 4,
        "patch_size": 16,
        **TINY_TRANSFORMER,
        "gate_min_perplexity": 0.0,
        "gate_min_gain_db": -100.0,
    },
    "dynamics": {"context_frames": 2, **TINY_TRANSFORMER},
    "evaluate": {"num_clips": 4, "horizon": 5, "num_gifs": 1},
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
