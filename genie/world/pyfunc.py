"""The world as an MLflow model: the code that `mlflow.pyfunc.load_model` runs, without a pickle.

    dream = mlflow.pyfunc.load_model("runs:/RUN/world")
    frames_SHWC = dream.predict({"prompt": frames_THWC, "actions": actions_S}, params={"seed": 1})

MLflow stores a copy of this file with the world's folder; the `genie` package that it imports must be installed.

Axes: `T` prompt frames, `S` dreamed frames, `H W C` pixels, uint8 RGB.
"""

import warnings

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext

from genie.world.world_model import WorldModel

with warnings.catch_warnings(record=True):  # MLflow suggests type hints, which would replace the signature

    class Dream(PythonModel):
        """MLflow model that dreams frames from prompt frames and latent actions."""

        def load_context(self, context: PythonModelContext) -> None:
            """Loads the logged world."""
            self._world = WorldModel.from_pretrained(context.artifacts["world"])

        def predict(self, context, model_input, params=None) -> np.ndarray:
            """Dreams frames `(S, H, W, C)`, one for each of `actions (S,)`, from `prompt (T, H, W, C)`."""
            world = self._world.fork()
            world.reset(model_input["prompt"], seed=params["seed"])  # pyright: ignore[reportOptionalSubscript]
            return np.stack([world.step(action) for action in model_input["actions"]])


mlflow.models.set_model(Dream())
