"""Windows of consecutive frames or tokens, each within one episode, and batches drawn from them.

Index contract, kept here and relied on everywhere: `actions[t]`, latent or the simulator's, takes frame `t`
to frame `t + 1`; an episode's last frame has `NO_ACTION`. So T frames come with S = T - 1 actions.

Legend: B batch, T frames, S transitions, N tokens per frame, H W C pixels.
"""

from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from genie.core.actions import NO_ACTION
from genie.core.frames import FRAME_SHAPE
from genie.data.episodes import EpisodeStore


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
    frames_BTHWC = np.empty((len(starts), length, *FRAME_SHAPE), np.uint8)
    for row in np.argsort(starts, kind="stable"):
        frames_BTHWC[row] = store.read(int(starts[row]), int(starts[row]) + length)
    return frames_BTHWC


class Windows(Dataset):
    """`num_batches` batches of random windows; batch `step` is a pure function of `(seed, step)`.

    So a run's position in its data is its step. The number of loader workers has no effect, and neither has the number
    of ranks: each draws the whole batch and reads its share of it.

    Attributes:
        in_memory: whether drawing a batch only copies memory; if not, it reads files, which a worker should do.
    """

    in_memory = True

    def __init__(self, starts: np.ndarray, window: int, batch_size: int, seed: int, num_batches: int):
        self.starts = starts
        self.window = window
        self.batch_size = batch_size
        self.seed = seed
        self.num_batches = num_batches
        self._share = slice(None)

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

    def _draw(self, step: int) -> np.ndarray:
        if not 0 <= step < self.num_batches:
            raise IndexError(f"batch {step} of {self.num_batches}")
        return np.random.default_rng([self.seed, step]).choice(self.starts, self.batch_size)[self._share]


class FrameWindows(Windows):
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
        self.in_memory = store.hold()

    def __getitem__(self, step: int) -> torch.Tensor:
        return torch.from_numpy(read_windows(self.store, self._draw(step), self.window))


class TokenArray(Protocol):
    """Tokens `(num_frames, N)` uint16, as an array or as `genie.data.caches.Tokens`."""

    def __len__(self) -> int: ...

    def __getitem__(self, frames: np.ndarray, /) -> np.ndarray: ...


class TokenWindows(Windows):
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

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        frames_BT = self._draw(step)[:, None] + np.arange(self.window)
        return {
            "tokens_BTN": torch.from_numpy(self.tokens[frames_BT].astype(np.int64)),
            "actions_BS": torch.from_numpy(self.latent_actions[frames_BT[:, :-1]].astype(np.int64)),
        }


def batches(dataset: Windows, start_step: int = 0, num_workers: int = 0) -> DataLoader:
    """Iterates over `dataset[start_step]`, `dataset[start_step + 1]` and so on to its last, in order."""
    return DataLoader(
        dataset,
        sampler=range(start_step, len(dataset)),
        batch_size=None,
        num_workers=num_workers,
        generator=torch.Generator(),  # else the loader draws from the global one, and a resumed run differs
    )
