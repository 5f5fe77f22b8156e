"""The models that are trained, and their batches from the benchmark's inputs."""

from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import nn

from genie.bench.reading import WITHOUT_END
from genie.core.params import Params
from genie.data.caches import read_latent_actions, read_tokens
from genie.data.episodes import EpisodeStore
from genie.data.supply import Place
from genie.data.transitions import TransitionWindows
from genie.data.true_actions import LabelledFrameWindows
from genie.data.windows import FrameWindows, TokenWindows, Windows
from genie.models.motion_predictor import MotionPredictor
from genie.models.steering import Steering
from genie.models.surprise_lam import SurpriseLam
from genie.training.costs import Model, build, training_params


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
    return {"effects_M": store.actions(), "actions_M": actions, "before_M": np.roll(actions, 1)}


def places_of(dataset: Windows, device: torch.device) -> tuple[Place, ...]:
    """Where the data of a dataset can be kept, for training on a device; transitions are never in files."""
    places = get_args(Place)[: 2 if isinstance(dataset, TransitionWindows) else 3]
    return places[1:] if device.type == "cpu" else places
