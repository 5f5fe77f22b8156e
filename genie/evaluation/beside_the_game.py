"""Tests of control beside the real game: the counterfactual test and the steering test, and their pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from genie.core.params import CollectParams, EvaluateParams
from genie.data.caches import TRUE_ACTIONS
from genie.evaluation.counterfactual import (
    Counterfactuals,
    counterfactual_metrics,
    imagine_branches,
    label_metrics,
    past_actions_of,
)
from genie.evaluation.report import write_counterfactuals, write_steering
from genie.evaluation.steering_accuracy import measure_steering
from genie.models.lam import LatentActionModel
from genie.models.probe import ActionProbe
from genie.sources.branches import Branches, play_branches
from genie.world.controls import Button
from genie.world.world_model import WorldModel


@dataclass(frozen=True)
class Control:
    """What the tests found.

    Attributes:
        branches: states of the counterfactual test.
        found: the frames imagined there.
        held: states of the steering test.
        steered_MEFHWC: the dreams steered there, `(M, E, F, H, W, C)`.
        metrics: metrics of both.
    """

    branches: Branches
    found: Counterfactuals
    held: Branches
    steered_MEFHWC: np.ndarray
    metrics: dict[str, float]

    def write(self, folder: Path, buttons: Sequence[Button], num_gifs: int) -> None:
        """Writes their tables, pictures and `num_gifs` GIFs."""
        write_counterfactuals(folder, self.branches, self.found, buttons)
        write_steering(folder, self.held, self.steered_MEFHWC, num_gifs)


def measure_control(
    world: WorldModel,
    lam: LatentActionModel,
    probe: ActionProbe | None,
    game: CollectParams,
    settings: EvaluateParams,
) -> Control | None:
    """Branches the real game and measures whether buttons and arrows do what they say.

    Args:
        world: the world model.
        lam: the LAM whose actions it was trained on.
        probe: the probe, the ceiling of the LAM.
        game: the real game.
        settings: number of states, and the seed of sampling.

    Returns:
        None if there is no real game, as with films, or no state to branch it at.
    """
    if game.source == "films" or probe is None:
        return None
    play = partial(play_branches, game, "test", past_frames=world.context_frames + lam.history - 1)
    branches, held = play(settings.num_states), play(settings.steered_states, held_frames=settings.steered_frames)
    if branches is None or held is None:
        return None
    labels = None if world.dynamics.config.lam_fingerprint == TRUE_ACTIONS else lam
    found = imagine_branches(world, branches, past_actions_of(labels, branches), settings.seed)
    metrics = counterfactual_metrics(found, world.buttons) | label_metrics(lam, probe, branches, found.differs_MEE)
    steered_MEFHWC, steering = measure_steering(world, labels, held, settings.seed)
    return Control(branches, found, held, steered_MEFHWC, metrics | steering)
