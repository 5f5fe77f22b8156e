"""Motion prediction: displacement of the whole picture in the next frame, from the past and the action.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `M` any number of transitions, `H W C` pixels, `R` past
displacements, `d` the two components of each: pixels to the right and downwards, of the measured size.

The motion predictor is trained separately from the dynamics model and before it. Displacements are measured between
frames (`genie.models.registration`), so a small network can see every transition many times in the time in which the
dynamics model sees each once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from genie.models.measured_size import MEASURED_SIZE
from genie.models.recent_motion import PIXELS, REMEMBERED, as_seen, cut_short, num_seen, observe_motion

if TYPE_CHECKING:
    from genie.core.params import MotionParams

HUBER = 0.25  # error, in units of `PIXELS`, above which the Huber loss is linear
HIDDEN = 128  # units per layer


@dataclass(frozen=True)
class MotionPredictorConfig:
    """Shape of the motion predictor.

    Attributes:
        num_actions: number of actions; also the index of the unknown action.
        frame_size: rows and columns of a frame at the measured size.
        lam_fingerprint: identifies the LAM of the latent actions.
    """

    num_actions: int
    frame_size: tuple[int, int] = MEASURED_SIZE
    lam_fingerprint: str = ""


class MotionPredictor(nn.Module):
    """Predicts the next displacement from the last frame, the displacements that led to it and an action.

    Args:
        config: shape of the model.
    """

    kind, stage = "motion", "train_motion"
    config_class = MotionPredictorConfig
    fingerprint: str  # set by `load_model`
    history = REMEMBERED + 1  # frames before the next one
    observe = staticmethod(observe_motion)

    def __init__(self, config: MotionPredictorConfig):
        super().__init__()
        self.config = config
        self.action_in = nn.Embedding(config.num_actions + 1, HIDDEN)
        self.past_in = nn.Linear(num_seen(config.frame_size), HIDDEN)
        self.layers = nn.Sequential(nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 2))
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Huber loss, so that the few measurements that repeated textures corrupt do not dominate.

        Args:
            batch: transitions as returned by `observe_motion`, and `actions_M` int64.

        Returns:
            The loss, and metrics: `motion_error`, the mean distance between the predicted and the measured
            displacement, in pixels.
        """
        past_MRd = cut_short(batch["past_MRd"]) if self.training else batch["past_MRd"]
        predicted_Md = self.predict(batch["coarse_MHW"], past_MRd, batch["actions_M"])
        loss = F.huber_loss(predicted_Md / PIXELS, batch["next_Md"] / PIXELS, delta=HUBER)
        return loss, {"motion_error": (predicted_Md.detach() - batch["next_Md"]).norm(dim=-1).mean()}

    def predict(self, coarse_MHW: torch.Tensor, past_MRd: torch.Tensor, actions_M: torch.Tensor) -> torch.Tensor:
        """The next displacement `(M, 2)`, in pixels.

        Args:
            coarse_MHW: frames as returned by `look`.
            past_MRd: the displacements that led to them, the latest first, in pixels; 0 where unknown.
            actions_M: the actions that follow them.
        """
        with torch.autocast(coarse_MHW.device.type, enabled=False):  # bfloat16 loses a tenth of a pixel at 30
            seen_MD = as_seen(coarse_MHW, past_MRd)
            return self.layers(self.past_in(seen_MD) + self.action_in(actions_M)) * PIXELS


def build_motion_predictor(params: "MotionParams", **known) -> MotionPredictor:
    """Builds a motion predictor with weights initialised from `params.seed`.

    Args:
        params: its seed.
        known: config fields: those of the actions, from the caches.
    """
    torch.manual_seed(params.seed)
    return MotionPredictor(MotionPredictorConfig(**known))
