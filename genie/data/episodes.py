"""HDF5 episode store: a folder of shards that holds the episodes of a split.

Each shard is one file:

| dataset | shape, type | |
|---|---|---|
| `frames` | `(N, H, W, 3)` uint8 | RGB, square, of a side in `FRAME_SIZES`, chunks of 16 frames |
| `actions` | `(N,)` uint8 | true action from frame t to t + 1; `NO_ACTION` at an episode's last frame |
| `episode_starts` | `(E,)` int64 | ascending, the first is 0 |
| `level_seeds` | `(E,)` int64 | level of each episode, or the index of its film |

An episode holds consecutive frames of one life in one level, or of one scene of a film: it contains no reset, death,
change of level or cut. An episode never spans two shards. Where the source does not know the true actions, as with most
films, there is no dataset `actions`. Those of a simulator are its own numbers, those of films indices of the attribute
`action_names`, a JSON list. Films also have the attributes `films`, a JSON list of their names, and `moving_share`.
"""

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from genie.core.actions import NO_ACTION, game_actions
from genie.core.frames import FRAME_SHAPE, FRAME_SIZES
from genie.core.motion import MOVING_SHARE
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
    """Writes episodes to a new HDF5 file.

    A thread compresses and writes the appended frames; a later call raises its errors. Leaving the `with` block ends
    the thread and drops frames that are still queued.

    Args:
        file: HDF5 file open for writing.
        num_frames: total number of frames; frames appended beyond it are dropped. None: as many as are appended.
        compression: key of `FILTERS`.
        attributes: stored as attributes of the file, next to the schema version.
        frame_shape: H, W and 3.
        has_actions: whether the true actions are known.
    """

    def __init__(
        self,
        file: h5py.File,
        num_frames: int | None,
        compression: str,
        attributes: dict,
        *,
        frame_shape: tuple[int, int, int] = FRAME_SHAPE,
        has_actions: bool = True,
    ):
        self.num_frames = num_frames
        self.num_appended = 0
        self._num_written = 0
        self._block = np.empty((BLOCK_FRAMES, *frame_shape), np.uint8)
        self._num_in_block = 0
        self._thread, self._writes = ThreadPoolExecutor(1), deque()
        self._actions = [] if has_actions else None
        self._starts, self._level_seeds = [], []
        self._file = file
        self._file.attrs.update({"schema_version": SCHEMA_VERSION, **attributes})
        self._frames = self._file.create_dataset(
            "frames",
            (num_frames or 0, *frame_shape),
            np.uint8,
            chunks=(min(CHUNK_FRAMES, num_frames or CHUNK_FRAMES), *frame_shape),
            maxshape=None if num_frames else (None, *frame_shape),
            **FILTERS[compression],
        )

    def append(self, pieces: Iterable[tuple[np.ndarray, np.ndarray | None]], level_seed: int) -> None:
        """Appends one episode, in pieces: n frames `(n, H, W, 3)` uint8, copied, and the n actions that follow."""
        start = self.num_appended
        for frames, actions in pieces:
            if self.num_frames is not None:
                frames = frames[: self.num_frames - self.num_appended]
            if self._actions is not None:
                self._actions.append(np.array(actions[: len(frames)], np.uint8))  # pyright: ignore[reportOptionalSubscript]
            self.num_appended += len(frames)
            self._fill_blocks(frames)
        if self.num_appended > start:
            self._starts.append(start)
            self._level_seeds.append(level_seed)

    def finish(self) -> None:
        """Writes the queued frames, then actions, episode starts and level seeds."""
        assert self.num_frames in (None, self.num_appended), f"{self.num_appended} of {self.num_frames} appended"
        self._hand_over_block()
        while self._writes:
            self._writes.popleft().result()
        if self._actions is not None:
            actions = np.concatenate(self._actions)
            actions[[*np.array(self._starts[1:], int) - 1, -1]] = NO_ACTION
            self._file["actions"] = actions
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
        stop = self._num_written + len(frames)
        if self.num_frames is None:
            self._frames.resize(stop, axis=0)
        self._frames[self._num_written : stop] = frames
        self._num_written = stop
        return frames  # for reuse: allocating new memory would cost as much as the copy into it


class EpisodeFile:
    """Reader of one shard, by slices of frames.

    The file is opened on the first read in each process, so it can be pickled and forked.

    Attributes:
        path: path of the file.
        num_frames: N.
        frame_shape: H, W and 3.
        has_actions: whether the true actions are known.
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
            self.num_frames, *frame_shape = get_dataset(file, "frames").shape
            self.frame_shape: tuple[int, int, int] = tuple(frame_shape)
            self.has_actions = "actions" in file
            self.episode_starts = get_dataset(file, "episode_starts")[:]
            self.level_seeds = get_dataset(file, "level_seeds")[:]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_pid": None, "_file": None}

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames `start <= t < stop` as `(stop - start, H, W, 3)` uint8."""
        frames = np.empty((stop - start, *self.frame_shape), np.uint8)
        self.read_into(frames, start)
        return frames

    def read_into(self, frames: np.ndarray, start: int) -> None:
        """Fills `frames` with the frames from `start` on."""
        if len(frames):
            with self._faults():
                get_dataset(self._open(), "frames").read_direct(frames, np.s_[start : start + len(frames)])

    def actions(self) -> np.ndarray:
        """All true actions, `(N,)` uint8, as the source numbers them."""
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
        side = get_dataset(file, "frames").shape[1]
        expected = [
            ("frames", (num_frames, side, side, 3), np.uint8),
            ("episode_starts", (num_episodes,), np.int64),
            ("level_seeds", (num_episodes,), np.int64),
        ]
        if "actions" in file:
            expected.append(("actions", (num_frames,), np.uint8))
        for name, shape, dtype in expected:
            found = get_dataset(file, name)
            if found.shape != shape or found.dtype != dtype:
                raise _fault(self.path, f"`{name}` is {found.dtype} {found.shape}, not {np.dtype(dtype)} {shape}")
        if side not in FRAME_SIZES:
            raise _fault(self.path, f"frames of {side} pixels a side, not one of {', '.join(map(str, FRAME_SIZES))}")
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
        frame_shape: H, W and 3.
        action_names: name of each effective true action; empty if the source does not know the true actions.
        moving_share: share of the pixels that change where a transition counts as moving.
        films: name of each film; empty for a simulator.
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
        self.frame_shape = first.frame_shape
        self.action_names = _action_names(first)
        self.moving_share: float = self.attributes.get("moving_share", MOVING_SHARE)
        self.films: tuple[str, ...] = tuple(json.loads(self.attributes.get("films", "[]")))
        self._stops = np.cumsum([file.num_frames for file in self.files])
        self._starts = self._stops - [file.num_frames for file in self.files]
        self.num_frames = int(self._stops[-1])
        starts = [file.episode_starts + start for file, start in zip(self.files, self._starts, strict=True)]
        self.episode_starts = np.concatenate(starts)
        self.level_seeds = np.concatenate([file.level_seeds for file in self.files])

    def __len__(self) -> int:
        return self.num_frames

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames `start <= t < stop` as `(stop - start, H, W, 3)` uint8."""
        if not 0 <= start <= stop <= self.num_frames:
            raise IndexError(f"{self.path}: frames {start}:{stop} asked of {self.num_frames}")
        frames = np.empty((stop - start, *self.frame_shape), np.uint8)
        position = start
        while position < stop:
            shard = np.searchsorted(self._stops, position, side="right")
            end = min(stop, self._stops[shard])
            self.files[shard].read_into(frames[position - start : end - start], position - self._starts[shard])
            position = end
        return frames

    def actions(self) -> np.ndarray:
        """Effective true actions, `(N,)` uint8: indices of `action_names`, `NO_ACTION` at an episode's last frame.

        Only for evaluation, its probe, controls and the upper bound.

        Raises:
            EpisodeFileError: the source does not know the true actions.
        """
        if not self.action_names:
            raise EpisodeFileError(
                f"{self.path}: the true actions are unknown; give each film a FILM.actions.csv, or set "
                "dynamics.actions to latent"
            )
        actions = np.concatenate([file.actions() for file in self.files])
        if "env_name" in self.attributes:
            taken = actions != NO_ACTION
            actions[taken] = game_actions(self.attributes["env_name"]).effective(actions[taken])
        return actions

    def episode_slices(self) -> list[slice]:
        """Slice of frames of each episode."""
        stops = [*self.episode_starts[1:], self.num_frames]
        return [slice(int(start), int(stop)) for start, stop in zip(self.episode_starts, stops, strict=True)]


def _fault(path: Path, cause: str) -> EpisodeFileError:
    return EpisodeFileError(f"{path}: {cause}; collect it again with `dvc repro -f collect`")


def _action_names(file: EpisodeFile) -> tuple[str, ...]:
    if not file.has_actions:
        return ()
    if "env_name" in file.attributes:
        return game_actions(file.attributes["env_name"]).names
    return tuple(json.loads(file.attributes.get("action_names", "[]")))


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value
