"""The world as a model of MLflow: what `mlflow.pyfunc.load_model` runs, from this code and without a pickle.

    dream = mlflow.pyfunc.load_model("runs:/RUN/world")
    frames_SHWC = dream.predict({"prompt": frames_THWC, "actions": actions_S}, params={"seed": 1})

MLflow keeps a copy of this file beside the world's folder; the `genie` that it imports must be installed.

Axes: `T` prompt frames, `S` dreamed frames, `H W C` pixels, uint8 RGB.
"""

import warnings

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext

from genie.world.world_model import WorldModel

with warnings.catch_warnings(record=True):  # MLflow asks for type hints, which would stand for the signature it has

    class Dream(PythonModel):
        """Prompt frames and latent actions in, dreamed frames out."""

        def load_context(self, context: PythonModelContext) -> None:
            """Loads the world that was logged."""
            self._world = WorldModel.from_pretrained(context.artifacts["world"])

        def predict(self, context, model_input, params=None) -> np.ndarray:
            """Frames `(S, H, W, C)`: one for each of `actions (S,)`, after `prompt (T, H, W, C)`."""
            world = self._world.fork()
            world.reset(model_input["prompt"], seed=params["seed"])  # pyright: ignore[reportOptionalSubscript]
            return np.stack([world.step(action) for action in model_input["actions"]])


mlflow.models.set_model(Dream())
