"""Prompts from the test split: one frame of it, or its liveliest clips.

Legend: `T` prompt frames, `S` transitions, `M` clips, `H W C` pixels; frames are uint8 RGB.
"""

from pathlib import Path

import numpy as np

from genie.core.motion import is_moving
from genie.data.caches import CacheFileError, read_latent_actions
from genie.data.episodes import EpisodeStore
from genie.data.windows import read_windows, spread_starts, window_starts
from genie.world.prompts import Prompt, PromptError

FRAMES = Path("data/frames/test")
LATENT_ACTIONS = Path("data/actions/test.h5")
NUM_CLIPS = 64  # looked at for a lively one
NUM_PROMPTS = 12  # of a world's own
NUM_LEVELS_CLIPS = 512  # looked at for lively ones of many levels


def held_out_prompt(frame: int, context: int, lam_fingerprint: str) -> Prompt:
    """The `context` real frames of the test split that end at index `frame`; fewer where an episode starts.

    The latent actions between them are known if the cache of that LAM's actions is there.

    Raises:
        PromptError: there is no such frame.
        EpisodeFileError: there is no test split.
    """
    store = EpisodeStore(FRAMES)
    if not 0 <= frame < store.num_frames:
        raise PromptError(f"there is no frame {frame}: {FRAMES} holds frames 0 to {store.num_frames - 1}")
    episode_start = int(store.episode_starts[store.episode_starts <= frame][-1])
    start = max(episode_start, frame - context + 1)
    try:
        actions = read_latent_actions(LATENT_ACTIONS, lam_fingerprint)[start:frame].astype(np.int64)
    except CacheFileError:
        actions = None
    return Prompt(store.read(start, frame + 1), actions, f"frame {frame} of {FRAMES}")


def lively_frame(context: int, horizon: int) -> int:
    """The last prompt frame of the test clip, of some spread over the split, in which most transitions move.

    Args:
        context: prompt frames of a clip.
        horizon: frames of a clip after them.

    Raises:
        EpisodeFileError: there is no test split.
        WindowError: no episode holds such a clip.
    """
    store, length = EpisodeStore(FRAMES), context + horizon
    starts = spread_starts(window_starts(store.episode_starts, store.num_frames, length), NUM_CLIPS)
    clips_MTHWC = read_windows(store, starts, length)
    moving_MS = is_moving(clips_MTHWC[:, :-1], clips_MTHWC[:, 1:])
    return int(starts[moving_MS.sum(axis=1).argmax()]) + context - 1


def lively_prompts(context: int, horizon: int, lam_fingerprint: str) -> tuple[Prompt, ...]:
    """Of a dozen test levels, fewer where there are no more, the clip in which most moves; the liveliest first.

    Args:
        context: frames of a prompt.
        horizon: frames after them that count, too.
        lam_fingerprint: of the LAM whose actions lead from frame to frame.

    Raises:
        EpisodeFileError, CacheFileError: there is no test split, or no such actions of it.
        WindowError: no episode holds such a clip.
    """
    store, length = EpisodeStore(FRAMES), context + horizon
    latent_actions = read_latent_actions(LATENT_ACTIONS, lam_fingerprint)
    starts = spread_starts(window_starts(store.episode_starts, store.num_frames, length), NUM_LEVELS_CLIPS)
    levels = store.level_seeds[np.searchsorted(store.episode_starts, starts, side="right") - 1]
    moving = np.array([_num_moving(store.read(int(start), int(start) + length)) for start in starts])
    prompts = {}
    for clip in np.argsort(-moving, kind="stable"):
        start, level = int(starts[clip]), int(levels[clip])
        if level not in prompts and len(prompts) < NUM_PROMPTS:
            actions = latent_actions[start : start + context - 1].astype(np.int64)
            prompts[level] = Prompt(store.read(start, start + context), actions, f"level {level}", level)
    return tuple(prompts.values())


def _num_moving(clip_THWC: np.ndarray) -> int:
    return int(is_moving(clip_THWC[:-1], clip_THWC[1:]).sum())
