"""Where things lie."""

import hashlib
import json
import os
from pathlib import Path

METRICS_FOLDER = Path("data/metrics")
CURVES_FOLDER = Path("data/curves")


def resume_folder(stage: str, identity: dict) -> Path:
    """Location of the resume state of a stage's run: `.cache/resume/<stage>/<fingerprint>/`.

    Outside DVC's outs, which DVC deletes before a run.

    Args:
        stage: its name.
        identity: plain values, of everything that decides the result, so that what is old is found again and never
            used for other parameters.
    """
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    return project_root() / ".cache" / "resume" / stage / fingerprint


def lock_file(folder: Path) -> Path:
    """The lock of a resume folder, which outlives the folder: `.cache/locks/<stage>-<fingerprint>.lock`."""
    return project_root() / ".cache" / "locks" / f"{folder.parent.name}-{folder.name}.lock"


def project_root() -> Path:
    """Root of the repository; in an experiment that DVC runs in a temporary copy, of the original one (DVC_ROOT)."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()
