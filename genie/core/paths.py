"""Where things lie."""

import hashlib
import json
import os
from pathlib import Path

METRICS_FOLDER = Path("data/metrics")
CURVES_FOLDER = Path("data/curves")


def resume_folder(stage: str, identity: dict) -> Path:
    """Where that waits which an interrupted run of a stage goes on from: `.cache/resume/<stage>/<fingerprint>/`.

    Outside DVC's outs, which DVC deletes before a run.

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
