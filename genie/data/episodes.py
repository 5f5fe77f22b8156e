"""HDF5 episode store: a folder of shards that holds the episodes of a split.

Each shard is one file:

| dataset | shape, type | |
|---|---|---|
| `frames` | `(N, 64, 64, 3)` uint8 | RGB, chunks of 16 frames |
| `actions` | `(N,)` uint8 | simulator action from frame t to t + 1; `NO_ACTION` at an episode's last frame |
| `episode_starts` | `(E,)` int64 | ascending, the first is 0 |
| `level_seeds` | `(E,)` int64 | level of each episode |

An episode holds consecutive frames of one life in one level: it contains no reset, death or change of level. An episode
never spans two shards.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from genie.core.actions import NO_ACTION
from genie.core.frames import FRAME_SHAPE
from genie.data.hdf5 import get_dataset, open_hdf5
from genie.data.shards import OWN_ATTRIBUTES, check_set, shard_file

SCHEMA_VERSION = 2
CHUNK_FRAMES = 16
BLOCK_FRAMES = 4 * CHUNK_FRAMES  # a multiple of the chunk size, so that HDF5 compresses each chunk only once
MAX_BLOCKS = 32  # maximum number of blocks waiting for compression: 25 MB
FILTERS = {
    "zstd": hdf5plugin.Zstd(clevel=3),
    "lzf": {"compression": "lzf"},
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "none": {},
}


class EpisodeFileError(ValueError):
    """A file is not a complete shard of this schema, or not of the same set; the message names it and the fix."""


class EpisodeWriter:
    """Writes episodes with `num_frames` frames in total to a new HDF5 file.

    A thread compresses and writes the appended frames; a later call raises its errors. Leaving the `with` block ends
    the thread and drops frames that are still queued.

    Args:
        file: HDF5 file open for writing.
        num_frames: total number of frames; frames appended beyond it are dropped.
        compression: key of `FILTERS`.
        attributes: stored as attributes of the file, next to the schema version.
    """

    def __init__(self, file: h5py.File, num_frames: int, compression: str, attributes: dict):
        self.num_frames = num_frames
        self.num_appended = 0
        self._num_written = 0
        self._block = np.empty((BLOCK_FRAMES, *FRAME_SHAPE), np.uint8)
        self._num_in_block = 0
        self._thread, self._writes = ThreadPoolExecutor(1), deque()
        self._actions = np.empty(num_frames, np.uint8)
        self._starts, self._level_seeds = [], []
        self._file = file
        self._file.attrs.update({"schema_version": SCHEMA_VERSION, **attributes})
        self._frames = self._file.create_dataset(
            "frames",
            (num_frames, *FRAME_SHAPE),
            np.uint8,
            chunks=(min(CHUNK_FRAMES, num_frames), *FRAME_SHAPE),
            **FILTERS[compression],
        )

    def append(self, pieces: Iterable[tuple[np.ndarray, np.ndarray]], level_seed: int) -> None:
        """Appends one episode, in pieces: n frames `(n, 64, 64, 3)` uint8, copied, and the n actions that follow."""
        start = self.num_appended
        for frames, actions in pieces:
            frames = frames[: self.num_frames - self.num_appended]
            self._actions[self.num_appended : self.num_appended + len(frames)] = actions[: len(frames)]
            self.num_appended += len(frames)
            self._fill_blocks(frames)
        if self.num_appended > start:
            self._starts.append(start)
            self._level_seeds.append(level_seed)
            self._actions[self.num_appended - 1] = NO_ACTION

    def finish(self) -> None:
        """Writes the queued frames, then actions, episode starts and level seeds."""
        assert self.num_appended == self.num_frames, f"{self.num_appended} of {self.num_frames} appended"
        self._hand_over_block()
        while self._writes:
            self._writes.popleft().result()
        self._file["actions"] = self._actions
        self._file["episode_starts"] = np.array(self._starts, np.int64)
        self._file["level_seeds"] = np.array(self._level_seeds, np.int64)

    def __enter__(self) -> "EpisodeWriter":
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _fill_blocks(self, frames: np.ndarray) -> None:
        while len(frames):
            room = slice(self._num_in_block, min(self._num_in_block + len(frames), BLOCK_FRAMES))
            part, frames = np.split(frames, [room.stop - room.start])
            self._block[room] = part
            self._num_in_block = room.stop
            if room.stop == BLOCK_FRAMES:
                self._hand_over_block()

    def _hand_over_block(self) -> None:
        """Queues the block for writing and takes another; waits for the oldest block if `MAX_BLOCKS` are queued."""
        self._writes.append(self._thread.submit(self._write, self._block[: self._num_in_block]))
        if len(self._writes) == MAX_BLOCKS or self._writes[0].done():
            self._block = self._writes.popleft().result()
        else:
            self._block = np.empty_like(self._block)
        self._num_in_block = 0

    def _write(self, frames: np.ndarray) -> np.ndarray:
        self._frames[self._num_written : self._num_written + len(frames)] = frames
        self._num_written += len(frames)
        return frames  # for reuse: allocating new memory would cost as much as the copy into it


class EpisodeFile:
    """Reader of one shard, by slices of frames.

    The file is opened on the first read in each process, so it can be pickled and forked.

    Attributes:
        path: path of the file.
        num_frames: N.
        episode_starts: `(E,)` int64.
        level_seeds: `(E,)` int64.
        attributes: attributes of the file: shard index, number of shards, collect params, split, levels, seeds and
            simulator.

    Raises:
        EpisodeFileError: the file is missing, truncated, not an episode shard or of another schema.
        LockedFileError: HDF5 is set to lock files, and the file cannot be locked.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise _fault(self.path, "no such file")
        self._pid, self._file = None, None
        with self._faults(), open_hdf5(self.path) as file:
            self._check(file)
            self.attributes = {key: _plain(value) for key, value in file.attrs.items()}
            self.num_frames = len(get_dataset(file, "frames"))
            self.episode_starts = get_dataset(file, "episode_starts")[:]
            self.level_seeds = get_dataset(file, "level_seeds")[:]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_pid": None, "_file": None}

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames `start <= t < stop` as `(stop - start, 64, 64, 3)` uint8."""
        frames = np.empty((stop - start, *FRAME_SHAPE), np.uint8)
        self.read_into(frames, start)
        return frames

    def read_into(self, frames: np.ndarray, start: int) -> None:
        """Fills `frames` with the frames from `start` on."""
        if len(frames):
            with self._faults():
                get_dataset(self._open(), "frames").read_direct(frames, np.s_[start : start + len(frames)])

    def actions(self) -> np.ndarray:
        """All simulator actions, `(N,)` uint8."""
        with self._faults():
            return get_dataset(self._open(), "actions")[:]

    def _open(self) -> h5py.File:
        if self._pid != os.getpid():  # an HDF5 handle must not cross a fork
            self._pid, self._file = os.getpid(), open_hdf5(self.path)
        return self._file  # pyright: ignore[reportReturnType]

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError) as error:
            cause = " ".join(str(error).split())
            raise _fault(self.path, f"truncated or not an episode file ({cause})") from None

    def _check(self, file: h5py.File) -> None:
        version = file.attrs["schema_version"]
        if version != SCHEMA_VERSION:
            raise _fault(self.path, f"schema version {version}, but this code reads {SCHEMA_VERSION}")
        num_frames, num_episodes = len(get_dataset(file, "frames")), len(get_dataset(file, "episode_starts"))
        for name, shape, dtype in (
            ("frames", (num_frames, *FRAME_SHAPE), np.uint8),
            ("actions", (num_frames,), np.uint8),
            ("episode_starts", (num_episodes,), np.int64),
            ("level_seeds", (num_episodes,), np.int64),
        ):
            found = get_dataset(file, name)
            if found.shape != shape or found.dtype != dtype:
                raise _fault(self.path, f"`{name}` is {found.dtype} {found.shape}, not {np.dtype(dtype)} {shape}")
        starts = get_dataset(file, "episode_starts")[:]
        if num_episodes == 0 or starts[0] != 0 or np.any(np.diff(starts) <= 0) or starts[-1] >= num_frames:
            raise _fault(self.path, "`episode_starts` does not ascend from 0")
        if file.attrs["num_shards"] <= file.attrs["shard"]:  # pyright: ignore[reportOperatorIssue]
            raise _fault(self.path, f"shard {file.attrs['shard']} of {file.attrs['num_shards']}")


class EpisodeStore:
    """Reader of all shards of a split as one sequence of frames.

    Files are opened on the first read in each process, so a store can be pickled and forked.

    Attributes:
        path: folder of the split.
        files: its shards, in order.
        num_frames: N, over all shards.
        episode_starts: `(E,)` int64.
        level_seeds: `(E,)` int64.
        attributes: attributes that all shards share: collect params, split, simulator and number of shards.

    Raises:
        EpisodeFileError: a shard is missing, truncated, not an episode shard or of another schema, or the shards do not
            belong together.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        first = EpisodeFile(self.path / shard_file(0))
        others = range(1, first.attributes["num_shards"])
        self.files = [first, *(EpisodeFile(self.path / shard_file(index)) for index in others)]
        check_set(self.path, [file.attributes for file in self.files], _fault)
        self.attributes = {key: value for key, value in first.attributes.items() if key not in OWN_ATTRIBUTES}
        self._stops = np.cumsum([file.num_frames for file in self.files])
        self._starts = self._stops - [file.num_frames for file in self.files]
        self.num_frames = int(self._stops[-1])
        starts = [file.episode_starts + start for file, start in zip(self.files, self._starts, strict=True)]
        self.episode_starts = np.concatenate(starts)
        self.level_seeds = np.concatenate([file.level_seeds for file in self.files])

    def __len__(self) -> int:
        return self.num_frames

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames `start <= t < stop` as `(stop - start, 64, 64, 3)` uint8."""
        if not 0 <= start <= stop <= self.num_frames:
            raise IndexError(f"{self.path}: frames {start}:{stop} asked of {self.num_frames}")
        frames = np.empty((stop - start, *FRAME_SHAPE), np.uint8)
        position = start
        while position < stop:
            shard = np.searchsorted(self._stops, position, side="right")
            end = min(stop, self._stops[shard])
            self.files[shard].read_into(frames[position - start : end - start], position - self._starts[shard])
            position = end
        return frames

    def actions(self) -> np.ndarray:
        """All simulator actions, `(N,)` uint8; only for evaluation, its probe and the upper bound."""
        return np.concatenate([file.actions() for file in self.files])

    def episode_slices(self) -> list[slice]:
        """Slice of frames of each episode."""
        stops = [*self.episode_starts[1:], self.num_frames]
        return [slice(int(start), int(stop)) for start, stop in zip(self.episode_starts, stops, strict=True)]


def _fault(path: Path, cause: str) -> EpisodeFileError:
    return EpisodeFileError(f"{path}: {cause}; collect it again with `dvc repro -f collect`")


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value
