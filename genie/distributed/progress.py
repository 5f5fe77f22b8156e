"""The one progress bar of the project."""

from collections.abc import Iterable

from tqdm import tqdm

from genie.distributed.processes import rank


def progress(iterable: Iterable | None = None, *, name: str, total: int | None = None, unit: str = "step") -> tqdm:
    """A bar on stderr with rate and time left; `TQDM_DISABLE=1` silences it. Of several ranks the first shows its own.

    Without an iterable, count by hand with `bar.update(n)` inside `with progress(...) as bar`.
    """
    options = {"disable": True} if rank() else {}  # False would outdo TQDM_DISABLE
    return tqdm(
        iterable, desc=name, total=total, unit=f" {unit}", unit_scale=True, dynamic_ncols=True, leave=None, **options
    )
