"""Where that waits which an interrupted stage goes on from.

Outside DVC's outs, which DVC deletes before a run: in `.cache/resume/<stage>/<fingerprint>/` at the root of the
repository that the experiment belongs to.
"""

import hashlib
import json
import os
from pathlib import Path


def resume_folder(stage: str, identity: dict) -> Path:
    """The folder of one run of a stage.

    Args:
        stage: its name.
        identity: plain values, of everything that decides the result, so that what is old is found again and never
            used for other parameters.
    """
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return project_root() / ".cache" / "resume" / stage / fingerprint


def project_root() -> Path:
    """The repository that holds what outlives a run: DVC's experiments in temporary folders name it in DVC_ROOT."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()
