"""Resume state: what an interrupted training needs to go on as if nothing had happened."""

import io
import pickle
import shutil

import torch
from accelerate import Accelerator

from genie.core.files import replacing
from genie.core.params import TrainingParams
from genie.core.paths import resume_folder
from genie.distributed.claims import claim, release

VERSION = 2  # of what the training loop saves


class ResumeError(ValueError):
    """A saved state cannot be used; the message names its folder and the fix."""


class ResumeStore:
    """Saves and finds the state of one run; waits while another run with the same identity is at work.

    Args:
        stage: its name.
        params: its parameters.
        accelerator: whose device, precision and compiler decide the result too.
        inputs: plain values that identify what it reads, such as fingerprints.
    """

    def __init__(self, stage: str, params: TrainingParams, accelerator: Accelerator, inputs: dict):
        # A gate judges a training and changes nothing in it: with other thresholds the same training goes on.
        deciding = {name: value for name, value in params.model_dump().items() if not name.startswith("gate_")}
        identity = {
            "params": deciding,
            "device": accelerator.device.type,
            "precision": accelerator.mixed_precision,
            "compiler": accelerator.state.dynamo_plugin.backend.value,
            "inputs": inputs,
        }
        self.folder = resume_folder(stage, identity)
        self.path = self.folder / "state.pt"
        claim(self.folder)

    def save(self, state: dict) -> None:
        """Replaces the saved state, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        buffer = io.BytesIO()
        # Not to the file itself: its fault on a full disk is no OSError.
        torch.save({"version": VERSION, **state}, buffer)
        with replacing(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load(self) -> dict | None:
        """The saved state, or None where there is none.

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
        """Forgets the state; called when the stage has written its out."""
        shutil.rmtree(self.folder, ignore_errors=True)
        release(self.folder)
