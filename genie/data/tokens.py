"""Caches of what the models made of the frames, each tied to its model by a fingerprint.

- `data/tokens/<split>.h5`: `tokens (num_frames, N)` uint16.
- `data/actions/<split>.h5`: `latent_actions (num_frames,)` uint8, `NO_ACTION` at an episode's last frame.

Both are contiguous and unfiltered, so that readers map them.
"""

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from genie.data.files import writing_hdf5

TRUE_ACTIONS = "true actions"  # in place of a LAM's fingerprint: these are the simulator's own


class CacheFileError(ValueError):
    """A file is not a whole cache of the kind wanted; the message names it and the fix."""


class CacheMismatchError(CacheFileError):
    """A cache was made by another model; the message names both fingerprints and the fix."""


def write_tokens(
    path: str | Path,
    chunks: Iterable[np.ndarray],
    num_frames: int,
    *,
    fingerprint: str,
    num_codes: int,
    grid: tuple[int, int],
) -> None:
    """Streams chunks of tokens `(n, N)`, values below `num_codes`, to a cache of `num_frames` frames."""
    shape = (num_frames, grid[0] * grid[1])
    attributes = {"tokenizer_fingerprint": fingerprint, "num_codes": num_codes, "grid": grid}
    _write(path, "tokens", chunks, shape, np.uint16, attributes)


def write_latent_actions(
    path: str | Path, chunks: Iterable[np.ndarray], num_frames: int, *, fingerprint: str, num_actions: int
) -> None:
    """Streams chunks of latent actions `(n,)`, with `NO_ACTION` where an episode ends, to a cache."""
    attributes = {"lam_fingerprint": fingerprint, "num_actions": num_actions}
    _write(path, "latent_actions", chunks, (num_frames,), np.uint8, attributes)


def read_tokens(path: str | Path, expect_fingerprint: str | None = None) -> np.ndarray:
    """The tokens, `(num_frames, N)` uint16, mapped read-only; None accepts any tokenizer's.

    Raises:
        CacheFileError: the file is missing, truncated or foreign.
        CacheMismatchError: the tokens are another tokenizer's.
    """
    return _read(path, "tokens", np.uint16, "tokenizer_fingerprint", expect_fingerprint)


def read_latent_actions(path: str | Path, expect_fingerprint: str | None = None) -> np.ndarray:
    """The latent actions, `(num_frames,)` uint8, mapped read-only; None accepts any LAM's.

    Raises:
        CacheFileError: the file is missing, truncated or foreign.
        CacheMismatchError: the actions are another LAM's.
    """
    return _read(path, "latent_actions", np.uint8, "lam_fingerprint", expect_fingerprint)


def cache_attributes(path: str | Path) -> dict:
    """What a cache says of itself: its model's fingerprint, and `num_codes` and `grid`, or `num_actions`.

    Raises:
        CacheFileError: the file is missing, truncated or foreign.
    """
    with _open(path) as file:
        return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in file.attrs.items()}


def _write(path, name: str, chunks: Iterable[np.ndarray], shape: tuple, dtype: type, attributes: dict) -> None:
    with writing_hdf5(path) as file:
        file.attrs.update(attributes)
        dataset = file.create_dataset(name, shape, dtype)
        position = 0
        for chunk in chunks:
            dataset[position : position + len(chunk)] = chunk
            position += len(chunk)
        assert position == len(dataset), f"{position} of {len(dataset)} frames written"


def _read(path, name: str, dtype: type, fingerprint_key: str, expected: str | None) -> np.ndarray:
    with _open(path) as file:
        if name not in file or fingerprint_key not in file.attrs or file[name].dtype != dtype:
            raise CacheFileError(f"{path}: not a cache of {name}; remove it and run `dvc repro`")
        found = file.attrs[fingerprint_key]
        if expected is not None and found != expected:
            raise CacheMismatchError(
                f"{path}: {name} made by the model {found}, but the model here is {expected}; run `dvc repro`"
            )
        offset, shape = file[name].id.get_offset(), file[name].shape
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape)


def _open(path) -> h5py.File:
    if not Path(path).is_file():
        raise CacheFileError(f"{path}: no such file; run `dvc repro`")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        cause = " ".join(str(error).split())
        raise CacheFileError(f"{path}: truncated or not HDF5 ({cause}); remove it and run `dvc repro`") from None
