"""Motion prediction: how far the whole picture will have moved in the next frame, from the past and the action.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `M` any number of transitions, `H W C` pixels, `R` displacements
remembered, `d` the two numbers of each: pixels to the right and downwards.

Learnt apart from the dynamics and before it: displacements are measured between frames (`genie.models.registration`),
so one small network can see every transition many times in the time in which the dynamics sees each once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from genie.core.frames import FRAME_SHAPE
from genie.models.recent_motion import PIXELS, REMEMBERED, as_seen, cut_short, num_seen, observe_motion

if TYPE_CHECKING:
    from genie.core.params import MotionParams

HUBER = 0.25  # from so many units on, an error counts by its size, no longer by its square
HIDDEN = 128  # units of each layer


@dataclass(frozen=True)
class MotionPredictorConfig:
    """Shape of the motion predictor.

    Attributes:
        num_actions: how many actions, beside the one that is not known, whose number is this.
        frame_size: rows and columns of a frame.
        lam_fingerprint: tells whose latent actions they are.
    """

    num_actions: int
    frame_size: tuple[int, int] = FRAME_SHAPE[:2]
    lam_fingerprint: str = ""


class MotionPredictor(nn.Module):
    """The last frame, the displacements that led to it and an action to the next displacement.

    Args:
        config: its shape.
    """

    kind, stage = "motion", "train_motion"
    config_class = MotionPredictorConfig
    history = REMEMBERED + 1  # frames before the next one
    observe = staticmethod(observe_motion)

    def __init__(self, config: MotionPredictorConfig):
        super().__init__()
        self.config = config
        self.action_in = nn.Embedding(config.num_actions + 1, HIDDEN)
        self.past_in = nn.Linear(num_seen(config.frame_size), HIDDEN)
        self.layers = nn.Sequential(nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 2))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Huber's loss: what a repeated texture makes of a few measurements does not drown the others.

        Args:
            batch: transitions as `observe_motion` gives them, and `actions_M` int64.

        Returns:
            The loss, and metrics: `motion_error`, mean distance of the predicted displacement from the measured one, in
            pixels.
        """
        past_MRd = cut_short(batch["past_MRd"]) if self.training else batch["past_MRd"]
        predicted_Md = self.predict(batch["coarse_MHW"], past_MRd, batch["actions_M"])
        loss = F.huber_loss(predicted_Md / PIXELS, batch["next_Md"] / PIXELS, delta=HUBER)
        return loss, {"motion_error": (predicted_Md.detach() - batch["next_Md"]).norm(dim=-1).mean()}

    def predict(self, coarse_MHW: torch.Tensor, past_MRd: torch.Tensor, actions_M: torch.Tensor) -> torch.Tensor:
        """The next displacement `(M, 2)`, in pixels.

        Args:
            coarse_MHW: frames as `look` sees them.
            past_MRd: the displacements that led to them, the latest first, in pixels; 0 where none is known.
            actions_M: what leads on from them.
        """
        with torch.autocast(coarse_MHW.device.type, enabled=False):  # bfloat16 loses a tenth of 30 pixels
            seen_MD = as_seen(coarse_MHW, past_MRd)
            return self.layers(self.past_in(seen_MD) + self.action_in(actions_M)) * PIXELS


def build_motion_predictor(params: "MotionParams", **known) -> MotionPredictor:
    """A motion predictor with the weights that `params.seed` draws.

    Args:
        params: its seed.
        known: the fields of its config: what the caches tell of actions, and `frame_size`.
    """
    torch.manual_seed(params.seed)
    return MotionPredictor(MotionPredictorConfig(**known))
