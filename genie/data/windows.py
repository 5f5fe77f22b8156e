"""Windows of consecutive frames or tokens, each within one episode, and batches drawn from them.

Index contract, kept here and relied on everywhere: `actions[t]`, latent or the simulator's, takes frame `t`
to frame `t + 1`; an episode's last frame has `NO_ACTION`. So T frames come with S = T - 1 actions.

Legend: B batch, T frames, S transitions, N tokens per frame, H W C pixels.
"""

import math
from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from genie.core.actions import NO_ACTION
from genie.data.episodes import EpisodeStore
from genie.data.read_ahead import read_ahead

Batch = torch.Tensor | dict[str, torch.Tensor]
Drawn = TypeVar("Drawn", bound=Batch)
Columns = dict[str, torch.Tensor]  # by name, each with one row per frame of a split

LOADED_FRAMES = 16384  # loaded onto a device at once: 200 MB at 64 pixels a side, 800 MB at 128


class WindowError(ValueError):
    """No episode is as long as the requested window."""


def window_starts(episode_starts: np.ndarray, num_frames: int, length: int) -> np.ndarray:
    """All `t` for which frames `t` to `t + length - 1` lie in one episode: `(M,)` int64, ascending.

    Raises:
        WindowError: there is none.
    """
    lengths = np.diff(episode_starts, append=num_frames)
    frames_left = np.repeat(episode_starts + lengths, lengths) - np.arange(num_frames)
    starts = np.flatnonzero(frames_left >= length)
    if len(starts) == 0:
        raise WindowError(
            f"no episode holds {length} frames in a row (the longest has {lengths.max()}); "
            "shorten the window or history, raise collect.frames or lower collect.num_envs"
        )
    return starts


def spread_starts(starts: np.ndarray, count: int) -> np.ndarray:
    """Selects `count` evenly spaced starts, or all if there are fewer; deterministic."""
    count = min(count, len(starts))
    return starts[np.arange(count) * len(starts) // count]


def episode_starts_of(actions: np.ndarray) -> np.ndarray:
    """First frame of each episode, derived from the `NO_ACTION` at each episode's last frame."""
    lasts = np.flatnonzero(actions == NO_ACTION)
    return np.concatenate([[0], lasts[:-1] + 1])


def read_windows(store: EpisodeStore, starts: np.ndarray, length: int) -> np.ndarray:
    """Frames of windows, in the order of `starts` but read in file order: `(B, T, H, W, C)` uint8."""
    frames_BTHWC = np.empty((len(starts), length, *store.frame_shape), np.uint8)
    for row in np.argsort(starts, kind="stable"):
        frames_BTHWC[row] = store.read(int(starts[row]), int(starts[row]) + length)
    return frames_BTHWC


class Windows(Dataset, ABC, Generic[Drawn]):
    """`num_batches` batches of random windows; batch `step` is a pure function of `(seed, step)`.

    So a run's position in its data is its step. Neither the place where the data are kept nor the number of reading
    processes or ranks affects the batches: each rank draws the whole batch and takes its share of it.
    """

    def __init__(self, starts: np.ndarray, window: int, batch_size: int, seed: int, num_batches: int):
        self.starts = starts
        self.window = window
        self.batch_size = batch_size
        self.seed = seed
        self.num_batches = num_batches
        self._share = slice(None)
        self._held: Columns | None = None

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Memory that `hold` takes."""

    @property
    def is_held(self) -> bool:
        """Whether batches are gathered in memory; if not, drawing one reads files."""
        return self._held is not None

    @property
    def device(self) -> torch.device:
        """Where batches are drawn."""
        return next(iter(self._held.values())).device if self._held else torch.device("cpu")

    def hold(self, device: torch.device | str = "cpu") -> None:
        """Loads all data into the memory of a device, where batches are then gathered."""
        device = torch.device(device)
        self._held = {name: column.to(device) for name, column in self._load(device).items()}

    def release(self) -> None:
        """Leaves the data where they are stored, from where batches are then read."""
        self._held = None

    def take_share(self, rank: int, num_ranks: int) -> None:
        """Restricts all batches to this rank's rows.

        Raises:
            WindowError: the batch cannot be divided equally among the ranks.
        """
        if self.batch_size % num_ranks:
            raise WindowError(
                f"batch_size {self.batch_size} cannot be shared alike by {num_ranks} processes; make it a multiple"
            )
        size = self.batch_size // num_ranks
        self._share = slice(rank * size, (rank + 1) * size)

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, step: int) -> Drawn:
        if self._held is None:
            return self._read(self._draw(step))
        starts_B = torch.from_numpy(self._draw(step))
        if self.device.type == "cuda":
            starts_B = starts_B.pin_memory()  # otherwise the copy would wait for the device
        return self._gather(self._held, starts_B.to(self.device, non_blocking=True))

    def _draw(self, step: int) -> np.ndarray:
        if not 0 <= step < self.num_batches:
            raise IndexError(f"batch {step} of {self.num_batches}")
        return np.random.default_rng([self.seed, step]).choice(self.starts, self.batch_size)[self._share]

    @abstractmethod
    def _load(self, device: torch.device) -> Columns:
        """All data, with one row for each frame of the split; large columns on the device, others anywhere."""

    @abstractmethod
    def _gather(self, columns: Columns, starts_B: torch.Tensor) -> Drawn:
        """The batch of windows that begin at `starts_B`, on the device of the columns."""

    @abstractmethod
    def _read(self, starts_B: np.ndarray) -> Drawn:
        """The same batch, read from files."""


class FrameWindows(Windows[Batch]):
    """Batches of frames: `dataset[step]` is a `(B, T, H, W, C)` uint8 tensor.

    Args:
        window: T.
        batch_size: B, drawn with replacement.

    Raises:
        WindowError: no episode is as long as `window`.
    """

    def __init__(self, store: EpisodeStore, window: int, batch_size: int, seed: int, num_batches: int):
        starts = window_starts(store.episode_starts, store.num_frames, window)
        super().__init__(starts, window, batch_size, seed, num_batches)
        self.store = store

    @property
    def num_bytes(self) -> int:
        return self.store.num_frames * math.prod(self.store.frame_shape)

    def _load(self, device: torch.device) -> Columns:
        num_frames = self.store.num_frames
        # Piece by piece, since the machine may have less memory than a GPU.
        frames = torch.empty((num_frames, *self.store.frame_shape), dtype=torch.uint8, device=device)
        spans = [(start, min(start + LOADED_FRAMES, num_frames)) for start in range(0, num_frames, LOADED_FRAMES)]
        for (start, stop), part in zip(spans, read_ahead(self.store.read, spans, device), strict=True):
            frames[start:stop] = part
        return {"frames": frames}

    def _gather(self, columns: Columns, starts_B: torch.Tensor) -> Batch:
        return rows_of(columns["frames"], frames_of(starts_B, self.window))

    def _read(self, starts_B: np.ndarray) -> Batch:
        return torch.from_numpy(read_windows(self.store, starts_B, self.window))


class TokenArray(Protocol):
    """Tokens `(num_frames, N)` uint16, as an array or as `genie.data.caches.Tokens`."""

    shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, frames: np.ndarray | slice, /) -> np.ndarray: ...


class TokenWindows(Windows[dict[str, torch.Tensor]]):
    """Batches of cached tokens and latent actions.

    `dataset[step]` is `{"tokens_BTN", "actions_BS"}`, both int64; `actions_BS[:, s]` takes frame s to s + 1.

    Args:
        tokens: `(num_frames, N)` uint16, in memory or as `genie.data.caches.Tokens`.
        latent_actions: `(num_frames,)` uint8; its `NO_ACTION`s mark where episodes end.
        window: T.
        batch_size: B, drawn with replacement.

    Raises:
        WindowError: no episode is as long as `window`.
    """

    def __init__(
        self,
        tokens: TokenArray,
        latent_actions: np.ndarray,
        window: int,
        batch_size: int,
        seed: int,
        num_batches: int,
    ):
        if len(tokens) != len(latent_actions):
            raise WindowError(
                f"{len(tokens)} frames of tokens but {len(latent_actions)} latent actions; run `dvc repro`"
            )
        starts = window_starts(episode_starts_of(latent_actions), len(tokens), window)
        super().__init__(starts, window, batch_size, seed, num_batches)
        self.tokens = tokens
        self.latent_actions = latent_actions

    @property
    def num_bytes(self) -> int:
        return len(self.tokens) * (2 * self.tokens.shape[1] + 1)

    def _load(self, device: torch.device) -> Columns:
        tokens = np.array(self.tokens[: len(self.tokens)])
        # CUDA cannot index uint16; `_gather` undoes the change of sign.
        return {
            "tokens": torch.from_numpy(tokens.view(np.int16)),
            "actions": torch.from_numpy(np.array(self.latent_actions)),
        }

    def _gather(self, columns: Columns, starts_B: torch.Tensor) -> dict[str, torch.Tensor]:
        frames_BT = frames_of(starts_B, self.window)
        return {
            "tokens_BTN": rows_of(columns["tokens"], frames_BT).long() & 0xFFFF,
            "actions_BS": rows_of(columns["actions"], frames_BT[:, :-1]).long(),
        }

    def _read(self, starts_B: np.ndarray) -> dict[str, torch.Tensor]:
        frames_BT = starts_B[:, None] + np.arange(self.window)
        return {
            "tokens_BTN": torch.from_numpy(self.tokens[frames_BT].astype(np.int64)),
            "actions_BS": torch.from_numpy(self.latent_actions[frames_BT[:, :-1]].astype(np.int64)),
        }


def frames_of(starts_B: torch.Tensor, length: int) -> torch.Tensor:
    """Indices `(B, T)` of the frames of windows."""
    return starts_B[:, None] + torch.arange(length, device=starts_B.device)


def rows_of(column: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows of a column: `(*index.shape, *column.shape[1:])`."""
    flat, row = column.flatten(1) if column.ndim > 1 else column.unsqueeze(1), column.shape[1:]
    num_bytes = flat.shape[1] * flat.element_size()
    if num_bytes % 8 == 0:  # a GPU copies eight bytes as fast as one
        return flat.view(torch.int64).index_select(0, index.flatten()).view(column.dtype).view(*index.shape, *row)
    return flat.index_select(0, index.flatten()).view(*index.shape, *row)
