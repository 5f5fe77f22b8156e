"""Caches of tokens and latent actions, each tied to its model by a fingerprint.

- `data/tokens/<split>/<shard>.h5`: `tokens (num_frames, N)` uint16 of the frames in the shard of the same name.
- `data/actions/<split>.h5`: `latent_actions (num_frames,)` uint8, `NO_ACTION` at an episode's last frame.

Both datasets are contiguous and unfiltered, so that readers can memory-map them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np

from genie.data.hdf5 import get_dataset, open_hdf5, writing_hdf5
from genie.data.shards import Shard, check_set, shard_file

TRUE_ACTIONS = "true actions"  # replaces the LAM's fingerprint if the cache holds the simulator's actions


class CacheFileError(ValueError):
    """A file is not a complete cache of the expected kind; the message names it and the fix."""


class CacheMismatchError(CacheFileError):
    """A cache was made by another model; the message names both fingerprints and the fix."""


class Tokens:
    """Memory-mapped tokens of a split: its shards as one read-only array `(num_frames, N)` uint16.

    Indexing takes a non-negative integer, a slice or an array of non-negative integers over frames, and returns a copy.

    Attributes:
        shards: array of each shard.
    """

    dtype = np.dtype(np.uint16)

    def __init__(self, shards: Sequence[np.ndarray]):
        self.shards = tuple(shards)
        self._starts = np.cumsum([0, *map(len, self.shards)])[:-1]
        self.shape = (sum(map(len, self.shards)), self.shards[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frames: int | slice | np.ndarray) -> np.ndarray:
        frames = np.arange(len(self))[frames] if isinstance(frames, slice) else np.asarray(frames)
        if frames.size and not 0 <= frames.min() <= frames.max() < len(self):
            raise IndexError(f"frames {frames.min()} to {frames.max()} asked of {len(self)}")
        shards = np.searchsorted(self._starts, frames, side="right") - 1
        tokens = np.empty((*frames.shape, self.shape[1]), self.dtype)
        for shard in np.unique(shards):
            here = shards == shard
            tokens[here] = self.shards[shard][frames[here] - self._starts[shard]]
        return tokens


def write_tokens(
    path: str | Path,
    chunks: Iterable[np.ndarray],
    shard: Shard,
    *,
    fingerprint: str,
    num_codes: int,
    grid: tuple[int, int],
) -> None:
    """Streams chunks of tokens `(n, N)`, values below `num_codes`, to the file of one shard."""
    shape = (shard.num_frames, grid[0] * grid[1])
    attributes = {"tokenizer_fingerprint": fingerprint, "num_codes": num_codes, "grid": grid, **shard.attributes}
    _write(path, "tokens", chunks, shape, np.uint16, attributes)


def write_latent_actions(
    path: str | Path, chunks: Iterable[np.ndarray], num_frames: int, *, fingerprint: str, num_actions: int
) -> None:
    """Streams chunks of latent actions `(n,)`, with `NO_ACTION` where an episode ends, to a cache."""
    attributes = {"lam_fingerprint": fingerprint, "num_actions": num_actions}
    _write(path, "latent_actions", chunks, (num_frames,), np.uint8, attributes)


def read_tokens(folder: str | Path, expect_fingerprint: str | None = None) -> Tokens:
    """Maps the tokens of a split read-only; `expect_fingerprint=None` accepts tokens of any tokenizer.

    Raises:
        CacheFileError: a shard is missing, truncated or not a token cache, or the shards do not belong together.
        CacheMismatchError: another tokenizer made the tokens.
    """
    folder = Path(folder)
    first = read_token_shard(folder / shard_file(0), expect_fingerprint)
    others = range(1, cache_attributes(folder / shard_file(0))["num_shards"])
    shards = [first, *(read_token_shard(folder / shard_file(index), expect_fingerprint) for index in others)]
    attributes = [cache_attributes(folder / shard_file(index)) for index in range(len(shards))]
    check_set(folder, attributes, lambda path, cause: CacheFileError(f"{path}: {cause}; run `dvc repro -f tokenize`"))
    return Tokens(shards)


def read_token_shard(path: str | Path, expect_fingerprint: str | None = None) -> np.ndarray:
    """Maps the tokens of one shard, `(num_frames, N)` uint16; otherwise like `read_tokens`."""
    return _read(path, "tokens", np.uint16, ("tokenizer_fingerprint", "shard", "num_shards"), expect_fingerprint)


def read_latent_actions(path: str | Path, expect_fingerprint: str | None = None) -> np.ndarray:
    """Maps the latent actions, `(num_frames,)` uint8, read-only; `expect_fingerprint=None` accepts those of any LAM.

    Raises:
        CacheFileError: the file is missing, truncated or not a cache of latent actions.
        CacheMismatchError: another LAM made the actions.
    """
    return _read(path, "latent_actions", np.uint8, ("lam_fingerprint",), expect_fingerprint)


def cache_attributes(path: str | Path) -> dict:
    """Attributes of a cache file: the fingerprint of its model; for tokens also `num_codes`, `grid`, shard index and
    number of shards, for latent actions `num_actions`.

    Raises:
        CacheFileError: the file is missing, truncated or not HDF5.
    """
    with _open(path) as file:
        return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in file.attrs.items()}


def token_attributes(folder: str | Path) -> dict:
    """Attributes that all token shards of a split share: `tokenizer_fingerprint`, `num_codes` and `grid`.

    Raises:
        CacheFileError: the first shard is missing, truncated or not HDF5.
    """
    known = cache_attributes(Path(folder) / shard_file(0))
    return {key: known[key] for key in ("tokenizer_fingerprint", "num_codes", "grid")}


def _write(path, name: str, chunks: Iterable[np.ndarray], shape: tuple, dtype: type, attributes: dict) -> None:
    with writing_hdf5(path) as file:
        file.attrs.update(attributes)
        dataset = file.create_dataset(name, shape, dtype)
        position = 0
        for chunk in chunks:
            dataset[position : position + len(chunk)] = chunk
            position += len(chunk)
        assert position == len(dataset), f"{position} of {len(dataset)} frames written"


def _read(path, name: str, dtype: type, keys: tuple[str, ...], expected: str | None) -> np.ndarray:
    """Maps a dataset read-only; `keys` are its required attributes, the first of which is the fingerprint."""
    with _open(path) as file:
        if name not in file or not set(keys) <= set(file.attrs) or get_dataset(file, name).dtype != dtype:
            raise CacheFileError(f"{path}: not a cache of {name}; remove it and run `dvc repro`")
        found = file.attrs[keys[0]]
        if expected is not None and found != expected:
            raise CacheMismatchError(
                f"{path}: {name} made by the model {found}, but the model here is {expected}; run `dvc repro`"
            )
        dataset = get_dataset(file, name)
        offset, shape = dataset.id.get_offset(), dataset.shape
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape)


def _open(path) -> h5py.File:
    if not Path(path).is_file():
        raise CacheFileError(f"{path}: no such file; run `dvc repro`")
    try:
        return open_hdf5(path)
    except OSError as error:
        cause = " ".join(str(error).split())
        raise CacheFileError(f"{path}: truncated or not HDF5 ({cause}); remove it and run `dvc repro`") from None
