"""Scenes: the frames of a film that are kept, between two cuts, without long still stretches.

Legend: `N` sampled frames of a film.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genie.data.shards import share_of


@dataclass(frozen=True)
class Scenes:
    """The frames of a film that are kept.

    Attributes:
        scenes: of each scene, the indices of its frames among the sampled ones, ascending.
        num_cuts: number of cuts between sampled frames.
        num_still: number of frames left out because nothing moves.
        num_short: number of frames left out because their scene is too short.
    """

    scenes: list[np.ndarray]
    num_cuts: int
    num_still: int
    num_short: int

    @property
    def num_frames(self) -> int:
        """Number of frames that are kept."""
        return sum(map(len, self.scenes))


def find_scenes(is_cut_N: np.ndarray, is_still_N: np.ndarray, *, shortest: int, max_still: float) -> Scenes:
    """Chooses the frames of a film to keep.

    Args:
        is_cut_N: whether a frame starts another scene than the one before.
        is_still_N: whether a frame shows nothing else than the one before; false for the first.
        shortest: fewest frames of a scene.
        max_still: largest share of the film's transitions in which nothing moves. Above it, the longest still stretches
            are shortened, all to the same length. Nobody sees that: their frames are alike.
    """
    kept_N = ~_too_still(is_still_N, max_still)
    num_still = int((~kept_N).sum())
    numbers_N = np.cumsum(is_cut_N)
    indices = np.flatnonzero(kept_N)
    scenes = np.split(indices, np.flatnonzero(np.diff(numbers_N[indices])) + 1) if len(indices) else []
    long = [scene for scene in scenes if len(scene) >= shortest]
    num_short = len(indices) - sum(map(len, long))
    return Scenes(long, int(is_cut_N.sum()), num_still, num_short)


def pieces_of(scene: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Divides a scene into the fewest pieces, of near-equal length, of at most `most` frames."""
    count = -(-len(scene) // most)
    for index in range(count):
        part = share_of(index, count, len(scene))
        yield scene[part.start : part.stop]


def _too_still(is_still_N: np.ndarray, max_still: float) -> np.ndarray:
    """Whether each frame is left out of a still stretch: bool `(N,)`.

    A stretch keeps its last frames, since what happens after it is the effect of the action taken there.
    """
    edges = np.diff(np.concatenate([[0], is_still_N.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    lengths = stops - starts
    num_moving = len(is_still_N) - 1 - lengths.sum()
    left_out_N = np.zeros(len(is_still_N), bool)
    if lengths.sum() <= max_still * (lengths.sum() + num_moving):
        return left_out_N
    allowed = max_still / (1 - max_still) * num_moving
    longest = 0  # transitions of a stretch that are kept at most
    while np.minimum(lengths, longest + 1).sum() <= allowed:
        longest += 1
    for start, stop in zip(starts, stops, strict=True):
        # The frame before a stretch shows the same as those in it.
        left_out_N[start - 1 : max(start - 1, stop - 1 - longest)] = True
    return left_out_N
