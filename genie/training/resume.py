"""Resume state: everything that an interrupted training needs to continue exactly where it stopped."""

import io
import pickle
import shutil

import torch
from accelerate import Accelerator

from genie.core.files import replacing
from genie.core.params import TrainingParams
from genie.core.paths import resume_folder
from genie.distributed.claims import claim, release

VERSION = 2  # of the state that the training loop saves


class ResumeError(ValueError):
    """A saved state cannot be used; the message names its folder and the fix."""


class ResumeStore:
    """Storage of one run's resume state; waits while another run with the same identity is active.

    Args:
        stage: name of the stage.
        params: its parameters.
        accelerator: its device, precision and compiler are part of the identity, since they affect the result.
        inputs: plain values that identify the inputs of the stage, such as fingerprints.
    """

    def __init__(self, stage: str, params: TrainingParams, accelerator: Accelerator, inputs: dict):
        # Gates judge a trained model and do not affect training: a run with other thresholds resumes the same training.
        deciding = {name: value for name, value in params.model_dump().items() if not name.startswith("gate_")}
        identity = {
            "params": deciding,
            "device": accelerator.device.type,
            "precision": accelerator.mixed_precision,
            "compiler": accelerator.state.dynamo_plugin.backend.value,  # pyright: ignore[reportOptionalMemberAccess]
            "inputs": inputs,
        }
        self.folder = resume_folder(stage, identity)
        self.path = self.folder / "state.pt"
        claim(self.folder)

    def save(self, state: dict) -> None:
        """Replaces the saved state atomically.

        Raises:
            OSError: it cannot be written.
        """
        buffer = io.BytesIO()
        # Not directly to the file: on a full disk, `torch.save` does not raise an OSError.
        torch.save({"version": VERSION, **state}, buffer)
        with replacing(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load(self) -> dict | None:
        """Loads the saved state; None if there is none.

        Raises:
            ResumeError: it is damaged or of another version of the code.
        """
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            version = state.pop("version")
        except (RuntimeError, EOFError, KeyError, TypeError, OSError, pickle.UnpicklingError) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise ResumeError(f"{self.path}: damaged ({cause[:100]}); remove it to train from the start") from None
        if version != VERSION:
            raise ResumeError(
                f"{self.path}: of version {version}, but this code reads {VERSION}; remove it to train from the start"
            )
        return state

    def clear(self) -> None:
        """Deletes the saved state; called after the stage has written its output."""
        shutil.rmtree(self.folder, ignore_errors=True)
        release(self.folder)
