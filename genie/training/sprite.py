"""Locates the agent's sprite in the frames, without labels.

If the camera follows the agent, its sprite stays at one position and everything else moves. So in transitions in which
the picture moves, the previous frame predicts the sprite's pixels better unshifted than shifted by the picture's
motion. The same holds for overlays, such as a score or a compass: those touch the border, and the agent does not. If
instead objects move over a static background, the measured motion does not explain most of the picture.

Axes: `M` transitions, `H W C` pixels of the measured size.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import label

from genie.data.episodes import EpisodeStore
from genie.data.windows import read_windows, spread_starts, window_starts
from genie.distributed.progress import progress
from genie.models.measured_size import at_measured_size
from genie.models.registration import Box, displacements, warp

NUM_PAIRS = 1024
BATCH = 128  # pairs at once
MOVED = 2.0  # pixels; a picture that moved farther separates the sprite from the background
MIN_MOVED_SHARE = 0.05  # of the pairs
# Ratio of the error of the shifted previous frame to that of the unshifted one, at the median pixel: 0.04 in CoinRun,
# up to 0.25 in games whose picture scrolls, 0.75 in Bigfish, where big fish swim over a static sea.
MAX_MOVING_ERROR = 0.5
# Sum over a sprite's pixels of how much lower the unshifted error is, in units of the median pixel's unshifted error:
# 20 to 71 in games whose camera follows the agent, at most 3 in others.
MIN_GAIN = 10.0
MARGIN = 2  # pixels added on every side, for swinging limbs and an outline


class SpriteError(ValueError):
    """The camera follows no sprite; the message names the cause."""


@dataclass(frozen=True)
class Staying:
    """Measurements that locate the sprite.

    Attributes:
        error_staying_HW: each pixel's mean squared error against the unshifted previous frame, over the transitions in
            which the picture moved.
        error_moving_HW: the same against the previous frame shifted by the picture's motion.
        moved_share: share of the transitions in which the picture moved.
    """

    error_staying_HW: np.ndarray
    error_moving_HW: np.ndarray
    moved_share: float


def measure_staying(store: EpisodeStore, device: torch.device | str = "cpu") -> Staying:
    """Measures frame pairs spread over a split.

    Raises:
        WindowError: no episode has two frames.
    """
    starts = spread_starts(window_starts(store.episode_starts, store.num_frames, 2), NUM_PAIRS)
    staying, moving, known, num_moved = 0.0, 0.0, 0.0, 0
    for first in progress(range(0, len(starts), BATCH), name="find sprite", unit="batch"):
        pairs_MTHWC = torch.from_numpy(read_windows(store, starts[first : first + BATCH], 2)).to(device)
        pairs_MTHWC = at_measured_size(pairs_MTHWC)
        moved_Md = displacements(pairs_MTHWC)[:, 0]
        far_M = moved_Md.abs().amax(1) > MOVED
        before_MHWC, after_MHWC = (pairs_MTHWC[far_M].float() / 255).unbind(1)
        warped_MHWC, known_MHW = warp(before_MHWC, moved_Md[far_M])
        staying = staying + ((after_MHWC - before_MHWC).square().mean(-1) * known_MHW).sum(0)
        moving = moving + ((after_MHWC - warped_MHWC).square().mean(-1) * known_MHW).sum(0)
        known = known + known_MHW.sum(0)
        num_moved += int(far_M.sum())
    staying_HW, moving_HW = ((error / known.clamp_min(1)).cpu().numpy() for error in (staying, moving))  # pyright: ignore[reportAttributeAccessIssue]
    return Staying(staying_HW, moving_HW, num_moved / len(starts))


def find_sprite(measured: Staying) -> Box:
    """Bounding box of the sprite, including a margin.

    Raises:
        SpriteError: the camera is static, or nothing stays at its position while the camera moves.
    """
    share = measured.moved_share
    if share < MIN_MOVED_SHARE:
        raise SpriteError(f"the camera stands still: the picture moves in {share:.1%} of the transitions")
    change_HW = measured.error_staying_HW.clip(1e-9)
    if np.median(measured.error_moving_HW / change_HW) > MAX_MOVING_ERROR:
        raise SpriteError("the camera stands still: things move, but not the picture as a whole")
    gain_HW = measured.error_moving_HW - measured.error_staying_HW
    parts_HW, num_parts = label(gain_HW > 0, structure=np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    at_border = np.unique(np.concatenate([edge for side in (parts_HW, parts_HW.T) for edge in (side[0], side[-1])]))
    gains = {part: gain_HW[parts_HW == part].sum() for part in range(1, num_parts + 1) if part not in at_border}
    if max(gains.values(), default=0.0) < MIN_GAIN * np.median(change_HW):
        raise SpriteError("nothing stays where it is while the camera moves")
    part_HW = parts_HW == max(gains, key=gains.__getitem__)
    rows, columns = np.flatnonzero(part_HW.any(1)), np.flatnonzero(part_HW.any(0))
    core = Box(int(rows[0]), int(columns[0]), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
    return core.grown(MARGIN, MARGIN, gain_HW.shape)
