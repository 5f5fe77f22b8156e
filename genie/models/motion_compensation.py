"""Motion compensation: tokens of the last frame, moved by the predicted displacement.

Video codecs code the residual of a frame after subtracting the moved previous frame (Jain and Jain 1981,
"Displacement measurement and its application in interframe image coding"). Likewise, a dynamics model that sees the
tokens of the moved last frame need not learn how tokens change when the picture scrolls, only what is new in the next
frame. The displacement is predicted from past displacements, the content of the frame and the action
(`genie.models.motion_predictor`). Where the camera stands still, nothing is moved.

Axes: `B` batch, `T` frames, `M` any number of frames, `N` tokens per frame, `H W C` pixels, `R` past displacements,
`d` the two components of each, in pixels of the measured size.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from genie.models.measured_size import MEASURED_SIZE
from genie.models.motion_predictor import MotionPredictor, MotionPredictorConfig
from genie.models.recent_motion import REMEMBERED, look
from genie.models.registration import warp
from genie.models.tokenizer import Tokenizer

FRACTIONS = 8  # steps per pixel of a displacement, as in video codecs: a rounding error then changes no pixel


class Foreseen(NamedTuple):
    """Predictions of frames from the frames before them.

    Attributes:
        displacement_BTd: predicted displacement of the picture.
        tokens_BTN: tokens of the frame before, moved by it; the mask token where at most half of a patch is known.
    """

    displacement_BTd: torch.Tensor
    tokens_BTN: torch.Tensor

    def after_nothing(self, mask_token: int) -> "Foreseen":
        """The same predictions, preceded by an empty one for the first frame, which has no frame before it."""
        return Foreseen(
            F.pad(self.displacement_BTd, (0, 0, 1, 0)), F.pad(self.tokens_BTN, (0, 0, 1, 0), value=mask_token)
        )

    def frames(self, chosen: slice) -> "Foreseen":
        """The predictions of the chosen frames."""
        return Foreseen(*(part[:, chosen] for part in self))

    def then(self, other: "Foreseen") -> "Foreseen":
        """These predictions, followed by those of further frames."""
        return Foreseen(*(torch.cat(parts, dim=1) for parts in zip(self, other, strict=True)))


class MotionCompensation(nn.Module):
    """Moves the last frame by the displacement predicted from it and an action.

    Args:
        num_codes: number of codes; also the index of the mask token.
        num_actions: number of actions; also the index of the unknown action.
    """

    def __init__(self, num_codes: int, num_actions: int):
        super().__init__()
        self.mask_token = num_codes
        # Trained beforehand and frozen; the dynamics model learns to use its predictions as they are.
        self.predictor = MotionPredictor(MotionPredictorConfig(num_actions)).requires_grad_(False)
        self._tokenizers: tuple[Tokenizer, ...] = ()  # in a tuple, since submodules are trained and saved

    def see_through(self, tokenizer: Tokenizer) -> None:
        """Sets the tokenizer of the frames, in eval mode. It is not trained or saved with this module."""
        self._tokenizers = (tokenizer,)

    def foresee_by(self, predictor: MotionPredictor) -> None:
        """Copies the weights of a motion predictor, which are saved with this module."""
        self.predictor.load_state_dict(predictor.state_dict())

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer set by `see_through`."""
        assert len(self._tokenizers) == 1, "motion compensation needs the tokenizer: call see_through first"
        return self._tokenizers[0]

    def _apply(self, fn, recurse=True):
        # The base class moves only submodules, which the tokenizer is not.
        for tokenizer in self._tokenizers:
            tokenizer._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def decode(self, tokens_BTN: torch.Tensor) -> torch.Tensor:
        """Decodes tokens to uint8 frames `(B, T, H, W, 3)`."""
        return self.tokenizer.decode(tokens_BTN.flatten(0, 1)).unflatten(0, tokens_BTN.shape[:2])

    def forward(self, frames_BTHWC: torch.Tensor, moved_Bd: torch.Tensor, action_BT: torch.Tensor) -> Foreseen:
        """Predicts the frame after each of T consecutive frames.

        Args:
            frames_BTHWC: uint8 frames.
            moved_Bd: displacements `(B, R + T - 1, 2)`: the R that led to the first frame, and those between
                the frames.
            action_BT: the action that follows each frame.
        """
        past_BTRd = moved_Bd.unfold(1, REMEMBERED, 1).mT.flip(2)  # the latest first
        parts = look(frames_BTHWC), past_BTRd, action_BT
        displacement_Md = self.predictor.predict(*(part.flatten(0, 1) for part in parts))
        moved_MN = self._move(frames_BTHWC.flatten(0, 1), displacement_Md)
        return Foreseen(*(part.unflatten(0, action_BT.shape) for part in (displacement_Md, moved_MN)))

    @torch.no_grad()
    def _move(self, frames_MHWC: torch.Tensor, displacement_Md: torch.Tensor) -> torch.Tensor:
        """Tokens `(M, N)` of frames moved by displacements; the mask token where most of a patch is unknown."""
        displacement_Md = displacement_Md * (frames_MHWC.shape[1] / MEASURED_SIZE[0])  # in pixels of these frames
        displacement_Md = (displacement_Md * FRACTIONS).round() / FRACTIONS
        moved_MHWC, known_MHW = warp(frames_MHWC.float(), displacement_Md)
        tokens_MN = self.tokenizer.encode(moved_MHWC.round().to(torch.uint8))
        known_MN = F.avg_pool2d(known_MHW.float(), self.tokenizer.patch).flatten(1)
        return torch.where(known_MN > 0.5, tokens_MN, self.mask_token)
