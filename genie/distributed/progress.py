"""The project's progress bar."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from genie.distributed.processes import rank


def progress(iterable: Iterable | None = None, *, name: str, total: int | None = None, unit: str = "step") -> tqdm:
    """Progress bar on stderr with rate and time left, on the first rank only; `TQDM_DISABLE=1` disables it.

    Without an iterable, count manually with `bar.update(n)` inside `with progress(...) as bar`.
    """
    options: dict[str, Any] = {"disable": True} if rank() else {}  # an explicit False would override TQDM_DISABLE
    return tqdm(
        iterable, desc=name, total=total, unit=f" {unit}", unit_scale=True, dynamic_ncols=True, leave=None, **options
    )
