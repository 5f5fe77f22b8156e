"""Motion compensation: the last frame, moved to where the next is expected to show it, as tokens.

Video codecs code what is left of a frame when the last one, moved, has been subtracted (Jain and Jain 1981,
"Displacement measurement and its application in interframe image coding"). So a dynamics that is shown the tokens of
the last frame moved need not learn how tokens change when a picture scrolls, only what is new in the next. How far it
will move is predicted from how far it moved before, from what the frame shows and from the action
(`genie.models.motion_predictor`). Where the camera stands still, nothing is moved.

Axes: `B` batch, `T` frames, `M` any number of frames, `N` tokens a frame, `H W C` pixels, `R` displacements
remembered, `d` the two numbers of each.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from genie.core.frames import PATCH
from genie.models.motion_predictor import MotionPredictor, MotionPredictorConfig
from genie.models.recent_motion import REMEMBERED, look
from genie.models.registration import warp
from genie.models.tokenizer import Tokenizer

FRACTIONS = 8  # of a pixel by which a frame is moved, as in video codecs: a rounding error then changes no pixel


class Foreseen(NamedTuple):
    """Frames as far as the ones before them tell.

    Attributes:
        displacement_BTd: how far the picture will have moved, as predicted, in pixels.
        tokens_BTN: of the frame before, moved so; the mask token where it shows less than half of what a token paints.
    """

    displacement_BTd: torch.Tensor
    tokens_BTN: torch.Tensor

    def after_nothing(self, mask_token: int) -> "Foreseen":
        """The same, and before them the frame that nothing was before."""
        return Foreseen(
            F.pad(self.displacement_BTd, (0, 0, 1, 0)), F.pad(self.tokens_BTN, (0, 0, 1, 0), value=mask_token)
        )

    def frames(self, chosen: slice) -> "Foreseen":
        """The same of some of the frames."""
        return Foreseen(*(part[:, chosen] for part in self))

    def then(self, other: "Foreseen") -> "Foreseen":
        """The same, and of further frames after them."""
        return Foreseen(*(torch.cat(parts, dim=1) for parts in zip(self, other, strict=True)))


class MotionCompensation(nn.Module):
    """The last frame and an action to the last frame moved.

    Args:
        grid: rows and columns of tokens.
        num_codes: how many tokens there are, beside the mask token, whose number is this.
        num_actions: how many actions, beside the one that is not known, whose number is this.
    """

    def __init__(self, grid: tuple[int, int], num_codes: int, num_actions: int):
        super().__init__()
        self.mask_token = num_codes
        frame_size = tuple(PATCH * side for side in grid)
        # Learnt before; what is trained with the dynamics makes the best of its predictions.
        self.predictor = MotionPredictor(MotionPredictorConfig(num_actions, frame_size)).requires_grad_(False)
        self._tokenizers: tuple[Tokenizer, ...] = ()  # in a tuple: a module's own modules are trained and saved with it

    def see_through(self, tokenizer: Tokenizer) -> None:
        """Takes a tokenizer, in eval mode, whose tokens the frames are. It is not trained or saved with this."""
        self._tokenizers = (tokenizer,)

    def foresee_by(self, predictor: MotionPredictor) -> None:
        """Takes over the weights of a motion predictor, which are saved with this."""
        self.predictor.load_state_dict(predictor.state_dict())

    @property
    def tokenizer(self) -> Tokenizer:
        """That which it sees through."""
        assert self._tokenizers, "motion compensation needs the tokenizer: call see_through first"
        return self._tokenizers[0]

    def _apply(self, fn, recurse=True):
        # What moves a module moves its own modules alone.
        for tokenizer in self._tokenizers:
            tokenizer._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def decode(self, tokens_BTN: torch.Tensor) -> torch.Tensor:
        """uint8 frames `(B, T, H, W, 3)` of tokens."""
        return self.tokenizer.decode(tokens_BTN.flatten(0, 1)).unflatten(0, tokens_BTN.shape[:2])

    def forward(self, frames_BTHWC: torch.Tensor, moved_Bd: torch.Tensor, action_BT: torch.Tensor) -> Foreseen:
        """What follows each of T frames in a row.

        Args:
            frames_BTHWC: uint8.
            moved_Bd: displacements `(B, R + T - 1, 2)`, in pixels: the R that led to the first frame, and those between
                the frames.
            action_BT: what leads on from each.
        """
        past_BTRd = moved_Bd.unfold(1, REMEMBERED, 1).mT.flip(2)  # the latest first
        parts = look(frames_BTHWC), past_BTRd, action_BT
        displacement_Md = self.predictor.predict(*(part.flatten(0, 1) for part in parts))
        moved_MN = self._move(frames_BTHWC.flatten(0, 1), displacement_Md)
        return Foreseen(*(part.unflatten(0, action_BT.shape) for part in (displacement_Md, moved_MN)))

    @torch.no_grad()
    def _move(self, frames_MHWC: torch.Tensor, displacement_Md: torch.Tensor) -> torch.Tensor:
        """Tokens `(M, N)` of frames moved by displacements, the mask token where most of what it paints is unknown."""
        displacement_Md = (displacement_Md * FRACTIONS).round() / FRACTIONS
        moved_MHWC, known_MHW = warp(frames_MHWC.float(), displacement_Md)
        tokens_MN = self.tokenizer.encode(moved_MHWC.round().to(torch.uint8))
        known_MN = F.avg_pool2d(known_MHW.float(), PATCH).flatten(1)
        return torch.where(known_MN > 0.5, tokens_MN, self.mask_token)
