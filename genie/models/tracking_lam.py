"""Latent action model of kind `surprise` for a fixed camera: it simulates a camera that follows the agent.

The model tracks the agent by its colours (`genie.models.backprojection`), which were found without labels, and shifts
each frame so that the agent is in the centre. Displacements are then those of the agent instead of the whole picture.
Nothing else of `SurpriseLam` changes.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `M` any number of frames, `H W C` pixels, `K` colours, `d` the two
numbers of a position or a displacement.
"""

from typing import TYPE_CHECKING

import torch

from genie.models.backprojection import NUM_COLORS, colors_of, locate, windows_at
from genie.models.config import config_from
from genie.models.registration import Box
from genie.models.surprise_lam import SurpriseLam, SurpriseLamConfig

if TYPE_CHECKING:
    from genie.core.params import SurpriseLamParams

SPRITE_SIDE = 11  # pixels a side of the box around the agent


class TrackingLam(SurpriseLam):
    """Latent action model that tracks the agent and infers actions from frames.

    Args:
        config: the model's configuration; the sprite is in the centre of a square frame.
    """

    kind = "tracking_lam"
    likeness_K: torch.Tensor

    def __init__(self, config: SurpriseLamConfig):
        super().__init__(config)
        self.register_buffer("likeness_K", torch.zeros(NUM_COLORS))

    def places(self, frames_MHWC: torch.Tensor) -> torch.Tensor:
        """Locates the agent in uint8 frames: `(M, 2)`, pixels from the left and from the top."""
        return locate(self.likeness_K[colors_of(frames_MHWC)])[0]

    def sprites(self, frames_MHWC: torch.Tensor) -> list[Box]:
        lefts_tops = self.places(frames_MHWC).round().long() - SPRITE_SIDE // 2
        return [Box(top, left, SPRITE_SIDE, SPRITE_SIDE) for left, top in lefts_tops.tolist()]

    def _follow(self, frames_BTHWC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames_MHWC = frames_BTHWC.flatten(0, 1)
        places_Md = self.places(frames_MHWC)
        followed_MHWC = windows_at(frames_MHWC, places_Md.round(), frames_BTHWC.shape[2])
        shape = frames_BTHWC.shape[:2]
        # Negative: with a camera that follows the agent, the picture moves the opposite way.
        return followed_MHWC.unflatten(0, shape), -places_Md.unflatten(0, shape).diff(dim=1)


def build_tracking_lam(
    params: "SurpriseLamParams", likeness_K: torch.Tensor, frame_size: tuple[int, int]
) -> TrackingLam:
    """Builds a latent action model, initialised from `params.seed`, for an agent with the colours `likeness_K`."""
    torch.manual_seed(params.seed)
    corner = [size // 2 - SPRITE_SIDE // 2 for size in frame_size]
    sprite = (*corner, SPRITE_SIDE, SPRITE_SIDE)
    model = TrackingLam(config_from(SurpriseLamConfig, params, sprite=sprite, frame_size=tuple(frame_size)))
    model.likeness_K.copy_(likeness_K)
    return model
