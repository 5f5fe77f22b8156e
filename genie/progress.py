"""The one progress bar of the project."""

from collections.abc import Iterable

from tqdm import tqdm


def progress(iterable: Iterable | None = None, *, name: str, total: int | None = None, unit: str = "step") -> tqdm:
    """A bar on stderr with rate and time left; `TQDM_DISABLE=1` silences it.

    Without an iterable, count by hand with `bar.update(n)` inside `with progress(...) as bar`.
    """
    return tqdm(iterable, desc=name, total=total, unit=f" {unit}", unit_scale=True, dynamic_ncols=True, leave=None)
