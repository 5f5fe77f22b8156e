"""The latent action model of kind `surprise` where the camera stands still: it looks as if one followed the agent.

The agent is tracked by its colours (`genie.models.backprojection`), which were found without labels, and each frame is
moved so that it is in the middle. So what was measured of the whole picture is now measured of the agent, and nothing
else of `SurpriseLam` changes.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `M` any number of frames, `H W C` pixels, `K` colours, `d` the two
numbers of a place or a displacement.
"""

from typing import TYPE_CHECKING

import torch

from genie.models.backprojection import NUM_COLORS, colors_of, locate, windows_at
from genie.models.config import config_from
from genie.models.registration import Box
from genie.models.surprise_lam import SurpriseLam, SurpriseLamConfig

if TYPE_CHECKING:
    from genie.core.params import SurpriseLamParams

SPRITE_SIDE = 11  # pixels of the box around the agent that is its sprite


class TrackingLam(SurpriseLam):
    """Frames to latent actions, the agent tracked.

    Args:
        config: its shape; the sprite is in the middle of a frame that is as high as it is wide.
    """

    kind = "tracking_lam"

    def __init__(self, config: SurpriseLamConfig):
        super().__init__(config)
        self.register_buffer("likeness_K", torch.zeros(NUM_COLORS))

    def places(self, frames_MHWC: torch.Tensor) -> torch.Tensor:
        """Where the agent is in uint8 frames: `(M, 2)`, pixels from the left and from the top."""
        return locate(self.likeness_K[colors_of(frames_MHWC)])[0]

    def sprites(self, frames_MHWC: torch.Tensor) -> list[Box]:
        lefts_tops = self.places(frames_MHWC).round().long() - SPRITE_SIDE // 2
        return [Box(top, left, SPRITE_SIDE, SPRITE_SIDE) for left, top in lefts_tops.tolist()]

    def _follow(self, frames_BTHWC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames_MHWC = frames_BTHWC.flatten(0, 1)
        places_Md = self.places(frames_MHWC)
        followed_MHWC = windows_at(frames_MHWC, places_Md.round(), frames_BTHWC.shape[2])
        shape = frames_BTHWC.shape[:2]
        # As the picture moves when a camera follows: the other way.
        return followed_MHWC.unflatten(0, shape), -places_Md.unflatten(0, shape).diff(dim=1)


def build_tracking_lam(
    params: "SurpriseLamParams", likeness_K: torch.Tensor, frame_size: tuple[int, int]
) -> TrackingLam:
    """A latent action model with the weights that `params.seed` draws, for an agent of such colours."""
    torch.manual_seed(params.seed)
    corner = [size // 2 - SPRITE_SIDE // 2 for size in frame_size]
    sprite = (*corner, SPRITE_SIDE, SPRITE_SIDE)
    model = TrackingLam(config_from(SurpriseLamConfig, params, sprite=sprite, frame_size=tuple(frame_size)))
    model.likeness_K.copy_(likeness_K)
    return model
