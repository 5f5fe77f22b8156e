"""What parts ask of one another without knowing each other."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# Held-out metrics of a model in eval mode at a step of its training.
Validation = Callable[[Any, int], dict[str, float]]


class Tracker(Protocol):
    """Records a stage: its curves, pictures and results."""

    run_id: str

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Adds a point to each curve; scalars of any kind, all of one step in one write."""

    def log_image(self, name: str, image_HWC: np.ndarray, step: int) -> None:
        """Adds a uint8 RGB image to the series `name`."""

    def log_final(self, metrics: Mapping[str, float]) -> None:
        """Records a stage's results, on the pipeline's run too as `<stage>.<key>`."""

    def log_artifact(self, path: str | Path) -> None:
        """Copies a file, or a folder and all in it, to the run."""

    def log_world(self, folder: str | Path, frame_shape: tuple[int, int, int]) -> None:
        """Records a world's folder as the model `world`, which `mlflow.pyfunc.load_model` plays; its frames are uint8
        of `frame_shape`."""

    def resume(self, run_id: str) -> None:
        """Goes on with an interrupted run in place of this fresh one, unless the store has lost it."""


class NullTracker(Tracker):
    """Keeps nothing."""

    run_id = ""
