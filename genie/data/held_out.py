"""Prompts from the test split: a chosen frame, or the clips with the most motion.

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
NUM_CLIPS = 64  # candidates of `lively_frame`
NUM_PROMPTS = 12  # stored with a world
NUM_LEVELS_CLIPS = 512  # candidates of `lively_prompts`, over many levels


def held_out_prompt(frame: int, context: int, lam_fingerprint: str) -> Prompt:
    """Prompt of the `context` real test frames that end at index `frame`; fewer near an episode's start.

    The latent actions between them are known if the cache of that LAM's actions exists.

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
    """Last prompt frame of the test clip with the most moving transitions, of `NUM_CLIPS` spread over the split.

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
    moving_MS = is_moving(clips_MTHWC[:, :-1], clips_MTHWC[:, 1:], store.moving_share)
    return int(starts[moving_MS.sum(axis=1).argmax()]) + context - 1


def lively_prompts(context: int, horizon: int, lam_fingerprint: str) -> tuple[Prompt, ...]:
    """Prompts from the clips with the most moving transitions, one per level, or per episode of a film, at most
    `NUM_PROMPTS`, most motion first.

    Args:
        context: frames of a prompt.
        horizon: frames after the prompt that count as well.
        lam_fingerprint: fingerprint of the LAM that inferred the actions between frames.

    Raises:
        EpisodeFileError, CacheFileError: there is no test split, or no such actions of it.
        WindowError: no episode holds such a clip.
    """
    store, length = EpisodeStore(FRAMES), context + horizon
    latent_actions = read_latent_actions(LATENT_ACTIONS, lam_fingerprint)
    starts = spread_starts(window_starts(store.episode_starts, store.num_frames, length), NUM_LEVELS_CLIPS)
    episodes = np.searchsorted(store.episode_starts, starts, side="right") - 1
    levels = store.level_seeds[episodes]
    clips = (store.read(int(start), int(start) + length) for start in starts)
    moving = np.array([is_moving(clip[:-1], clip[1:], store.moving_share).sum() for clip in clips])
    prompts = {}
    for clip in np.argsort(-moving, kind="stable"):
        start, level = int(starts[clip]), int(levels[clip])
        place = int(episodes[clip]) if store.films else level
        if place not in prompts and len(prompts) < NUM_PROMPTS:
            actions = latent_actions[start : start + context - 1].astype(np.int64)
            source = f"{store.films[level]}, frame {start}" if store.films else f"level {level}"
            prompts[place] = Prompt(store.read(start, start + context), actions, source, level)
    return tuple(prompts.values())
