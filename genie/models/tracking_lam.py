"""Latent action model of kind `surprise` for a fixed camera: it simulates a camera that follows the agent.

The model tracks the agent by its colours (`genie.models.backprojection`), which were found without labels, among the
pixels that are not background. It shifts each frame so that the agent is in the centre. Displacements are then those of
the agent instead of the whole picture.

The expected displacement is zero, whatever the past. What an agent before a still camera keeps doing is mostly what its
player keeps pressing: subtracted, it would leave only the moments at which the player changes the action. Where a
camera follows the agent, the motion that the past predicts is mostly the camera's and gravity's.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `M` any number of frames, `H W C` pixels, `K` colours, `d` the two
numbers of a position or a displacement.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from genie.models.backprojection import NUM_COLORS, colors_of, differs_from, locate, windows_at
from genie.models.config import config_from
from genie.models.measured_size import at_measured_size
from genie.models.registration import Box
from genie.models.surprise_lam import SurpriseLam, SurpriseLamConfig

if TYPE_CHECKING:
    from genie.core.params import SurpriseLamParams

SPRITE_SIDE = 11  # pixels a side of the box around the agent
FARTHEST = 12.0  # pixels: an agent that seems to move farther was mistaken for something else, or starts anew
LOG_MIN_SPREAD = math.log(0.1)  # standard deviations: an agent that stands still is at exactly the same position


class Agent(NamedTuple):
    """What an agent before a still camera looks like.

    Attributes:
        likeness_K: likeness in [0, 1] of each colour to the agent's, as `genie.models.backprojection` takes it.
        min_mass: total likeness in its window, below which the agent is not in a frame.
        background_HWC: uint8, the static background, or None if the picture has none.
    """

    likeness_K: torch.Tensor
    min_mass: float
    background_HWC: torch.Tensor | None


class _Standstill(nn.Module):
    """Expects no displacement, with one learnt standard deviation for both axes."""

    def __init__(self):
        super().__init__()
        self.log_deviation = nn.Parameter(torch.zeros(1))

    def forward(self, past_MD: torch.Tensor) -> torch.Tensor:
        """Mean and log-deviation, as the expectation of `SurpriseLam` returns them: `(M, 4)`."""
        mean_Md = past_MD.new_zeros(len(past_MD), 2)
        return torch.cat([mean_Md, self.log_deviation.expand_as(mean_Md)], dim=1)


class TrackingLam(SurpriseLam):
    """Latent action model that tracks the agent and infers actions from frames.

    Args:
        config: the model's configuration; the sprite is in the centre of a square frame.
    """

    kind = "tracking_lam"
    likeness_K: torch.Tensor
    min_mass: torch.Tensor
    background_HWC: torch.Tensor
    has_background: torch.Tensor

    def __init__(self, config: SurpriseLamConfig):
        super().__init__(config)
        self.expectation = _Standstill()
        self.register_buffer("likeness_K", torch.zeros(NUM_COLORS))
        self.register_buffer("min_mass", torch.zeros(()))
        self.register_buffer("background_HWC", torch.zeros(*config.frame_size, 3, dtype=torch.uint8))
        self.register_buffer("has_background", torch.zeros((), dtype=torch.bool))

    def places(self, frames_MHWC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Locates the agent in uint8 frames of the measured size.

        Returns:
            Positions `(M, 2)`, pixels from the left and from the top; and bool `(M,)`, whether it is there at all.
        """
        counts_MHW = differs_from(frames_MHWC, self.background_HWC) | ~self.has_background
        places_Md, mass_M = locate(self.likeness_K[colors_of(frames_MHWC)] * counts_MHW)
        return places_Md, mass_M >= self.min_mass

    def sprites(self, frames_MHWC: torch.Tensor) -> list[Box]:
        lefts_tops = self.places(at_measured_size(frames_MHWC))[0].round().long() - SPRITE_SIDE // 2
        return [Box(top, left, SPRITE_SIDE, SPRITE_SIDE) for left, top in lefts_tops.tolist()]

    def _log_spread(self, spread_Md: torch.Tensor) -> torch.Tensor:
        return super()._log_spread(spread_Md).clamp(min=LOG_MIN_SPREAD)

    def _follow(self, frames_BTHWC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames_MHWC, shape = frames_BTHWC.flatten(0, 1), frames_BTHWC.shape[:2]
        places_Md, there_M = self.places(frames_MHWC)
        followed_MHWC = windows_at(frames_MHWC, places_Md.round(), frames_BTHWC.shape[2])
        moved_BSd, there_BT = places_Md.unflatten(0, shape).diff(dim=1), there_M.unflatten(0, shape)
        known_BS = there_BT[:, 1:] & there_BT[:, :-1] & (moved_BSd.norm(dim=-1) <= FARTHEST)
        # Negative: with a camera that follows the agent, the picture moves the opposite way.
        return followed_MHWC.unflatten(0, shape), -moved_BSd * known_BS.unsqueeze(-1)


def build_tracking_lam(params: "SurpriseLamParams", agent: Agent, frame_size: tuple[int, int]) -> TrackingLam:
    """Builds a latent action model that tracks an agent, initialised from `params.seed`."""
    torch.manual_seed(params.seed)
    corner = [size // 2 - SPRITE_SIDE // 2 for size in frame_size]
    sprite = (*corner, SPRITE_SIDE, SPRITE_SIDE)
    model = TrackingLam(config_from(SurpriseLamConfig, params, sprite=sprite, frame_size=tuple(frame_size)))
    model.likeness_K.copy_(agent.likeness_K)
    model.min_mass.fill_(agent.min_mass)
    if agent.background_HWC is not None:
        model.background_HWC.copy_(agent.background_HWC)
        model.has_background.fill_(True)
    return model
