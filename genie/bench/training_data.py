"""The models that are trained, and their batches from the benchmark's inputs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from genie.bench.reading import WITHOUT_END
from genie.core.params import Params
from genie.data.caches import read_latent_actions, read_tokens
from genie.data.episodes import EpisodeStore
from genie.data.transitions import TransitionWindows
from genie.data.true_actions import LabelledFrameWindows, true_actions_of
from genie.data.windows import FrameWindows, TokenWindows, Windows, batches
from genie.models.motion_predictor import MotionPredictor
from genie.models.steering import Steering
from genie.models.surprise_lam import SurpriseLam
from genie.training.costs import Model, build, training_params

Batch = torch.Tensor | dict[str, torch.Tensor]
Place = Literal["memory", "files"]  # where the frames of training batches are kept


def model_and_data(
    name: Model,
    params: Params,
    folder: Path,
    num_batches: int = WITHOUT_END,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, Windows]:
    """The model as its stage builds it, and its training batches from the data in the folder.

    Args:
        device: measures the motion of transitions.
    """
    settings, model = training_params(name, params), build(name, params)
    drawn = settings.batch_size, settings.seed, num_batches
    if name == "dynamics":
        caches = read_tokens(folder / "tokens/train"), read_latent_actions(folder / "actions/train.h5")
        return model, TokenWindows(*caches, params.dynamics.window, *drawn)
    store = EpisodeStore(folder / "frames/train")
    if isinstance(model, SurpriseLam | MotionPredictor | Steering):
        return model, TransitionWindows(model.to(device), store, *drawn, _labels(model, store))
    windows = LabelledFrameWindows if name == "probe" else FrameWindows
    return model, windows(store, getattr(settings, "window", 1), *drawn)


def _labels(model: SurpriseLam | MotionPredictor | Steering, store: EpisodeStore) -> dict[str, np.ndarray]:
    """Labels of transitions as a model is trained with; latent actions are random."""
    if isinstance(model, SurpriseLam):
        return {}
    actions = np.random.default_rng(0).integers(model.config.num_actions, size=store.num_frames)
    if isinstance(model, MotionPredictor):
        return {"actions_M": actions}
    return {"effects_M": true_actions_of(store), "actions_M": actions, "before_M": np.roll(actions, 1)}


def places_of(dataset: Windows) -> tuple[Place, ...]:
    """Where the frames of a dataset can be kept; other datasets than those of frames are always in memory."""
    return ("memory", "files") if isinstance(dataset, FrameWindows) else ("memory",)


def batches_from(place: Place | None, dataset: Windows) -> Iterator[Batch]:
    """Batches of a dataset, with its frames kept in that place; None is where training keeps them."""
    in_memory = dataset.in_memory if place is None else place == "memory"
    if place is not None and isinstance(dataset, FrameWindows):
        # The store itself chooses by its size.
        store = dataset.store
        store._held = (store.read(0, len(store)) if store._held is None else store._held) if in_memory else None
    return iter(batches(dataset, num_workers=0 if in_memory else 1))
