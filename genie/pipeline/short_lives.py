"""Warns before training if the recorded episodes are too short for `evaluate`."""

import sys
from pathlib import Path

import numpy as np

from genie.core.params import Params
from genie.data.episodes import EpisodeFileError, EpisodeStore

TEST_FRAMES = Path("data/frames/test")


def warn_of_short_lives(params: Params) -> None:
    """Prints one line for each part of `evaluate` that needs longer episodes than the test split has."""
    try:
        store = EpisodeStore(TEST_FRAMES)
    except EpisodeFileError:
        return  # the stage that reads it says so
    is_game = "env_name" in store.attributes
    longest = int(np.diff(store.episode_starts, append=store.num_frames).max())
    settings, context = params.evaluate, params.dynamics.context_frames
    branched = context + getattr(params.lam.of_kind(), "history", 1) - 1
    parts = [
        ("dreams", context + settings.horizon, "evaluate.horizon"),
        ("long dreams", context + settings.drift_horizon, "evaluate.drift_horizon"),
    ]
    if is_game:
        parts += [
            ("branches of the counterfactual test", branched + 1, "dynamics.context_frames"),
            ("branches of the steering test", branched + settings.steered_frames, "evaluate.steered_frames"),
        ]
    remedy = "or collect.action_repeat" if is_game else "or import films with longer scenes"
    for what, needed, key in parts:
        if needed > longest:
            print(
                f"the longest episode of {TEST_FRAMES} has {longest} frames, but {what} need {needed}: evaluate will "
                f"measure shorter ones or none; lower {key} {remedy}",
                file=sys.stderr,
            )
