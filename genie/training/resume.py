"""Resume state: what an interrupted training needs to go on as if nothing had happened.

It lives outside DVC's outs, which DVC deletes before a run: `.cache/resume/<stage>/<fingerprint>/` at the root of the
repository that the experiment belongs to. The fingerprint is of everything that decides the result, so that old state
is found again and never used for other parameters.
"""

import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import torch
from accelerate import Accelerator

from genie.data.files import replacing
from genie.params import TrainingParams


class ResumeStore:
    """Saves and finds the state of one run.

    Args:
        stage: its name.
        params: its parameters.
        accelerator: whose device and precision decide the result too.
        inputs: plain values that identify what it reads, such as fingerprints.
    """

    def __init__(self, stage: str, params: TrainingParams, accelerator: Accelerator, inputs: dict):
        # A gate judges a training and changes nothing in it: with other thresholds the same training goes on.
        deciding = {name: value for name, value in params.model_dump().items() if not name.startswith("gate_")}
        identity = {
            "params": deciding,
            "device": accelerator.device.type,
            "precision": accelerator.mixed_precision,
            "inputs": inputs,
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = project_root() / ".cache" / "resume" / stage / digest
        self.path = self.folder / "state.pt"

    def save(self, state: dict) -> None:
        """Replaces the saved state, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)  # not to the file itself: its fault on a full disk is no OSError
        with replacing(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())

    def load(self) -> dict | None:
        """The saved state, or None where there is none."""
        if not self.path.exists():
            return None
        return torch.load(self.path, map_location="cpu", weights_only=True)

    def clear(self) -> None:
        """Forgets the state; called when the stage has written its out."""
        shutil.rmtree(self.folder, ignore_errors=True)


def project_root() -> Path:
    """The repository that holds what outlives a run: DVC's experiments in temporary folders name it in DVC_ROOT."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()
