"""Motion prediction: how far the whole picture will have moved in the next frame, from the past and the action.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `M` any number of transitions, `H W C` pixels, `R` displacements
remembered, `d` the two numbers of each: pixels to the right and downwards.

Learnt apart from the dynamics and before it: displacements are measured between frames (`genie.models.registration`),
so one small network can see every transition many times in the time in which the dynamics sees each once.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from genie.models.ranks import my_share, num_ranks
from genie.models.registration import displacements
from genie.params import MotionParams

REMEMBERED = 4  # past displacements
PIXELS = 8.0  # displacements are seen in units of so many pixels
HUBER = 0.25  # from so many units on, an error counts by its size, no longer by its square
HIDDEN = 128  # units of each layer
COARSE = 2  # pixels that are averaged each way in what is seen of a frame
# Of transitions in training, the share whose past is cut short: at the start of a dream little is known of it.
CUT_SHARE = 0.25


@dataclass(frozen=True)
class MotionPredictorConfig:
    """Shape of the motion predictor.

    Attributes:
        num_actions: how many actions, beside the one that is not known, whose number is this.
        frame_size: rows and columns of a frame.
        lam_fingerprint: tells whose latent actions they are.
    """

    num_actions: int
    frame_size: tuple[int, int] = (64, 64)
    lam_fingerprint: str = ""


class MotionPredictor(nn.Module):
    """The last frame, the displacements that led to it and an action to the next displacement.

    Args:
        config: its shape.
    """

    kind, stage = "motion", "train_motion"
    config_class = MotionPredictorConfig
    history = REMEMBERED + 1  # frames before the next one

    def __init__(self, config: MotionPredictorConfig):
        super().__init__()
        self.config = config
        rows, columns = config.frame_size
        self.action_in = nn.Embedding(config.num_actions + 1, HIDDEN)
        self.past_in = nn.Linear(2 * REMEMBERED + rows * columns // COARSE**2, HIDDEN)
        self.layers = nn.Sequential(nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 2))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Huber's loss: what a repeated texture makes of a few measurements does not drown the others.

        Args:
            batch: transitions as `observe` gives them, and `actions_M` int64.

        Returns:
            The loss, and metrics: `motion_error`, mean distance of the predicted displacement from the measured one, in
            pixels.
        """
        past_MRd = self._cut_short(batch["past_MRd"])
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
            past_MD = torch.cat([past_MRd.flatten(1) / PIXELS, coarse_MHW.flatten(1).float() / 255 - 0.5], dim=1)
            return self.layers(self.past_in(past_MD) + self.action_in(actions_M)) * PIXELS

    @torch.no_grad()
    def observe(self, frames_BTHWC: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is known of each transition.

        Args:
            frames_BTHWC: uint8 frames, T >= 2.

        Returns:
            `next_Md` and `past_MRd`, the displacement of the transition and of those before it, the latest first and 0
            before the first; `coarse_MHW` uint8, the frame before it as `look` sees it; each `(B, S, ...)`.
        """
        moved_BSd = measure(frames_BTHWC)
        before = [F.pad(moved_BSd, (0, 0, age, 0))[:, : moved_BSd.shape[1]] for age in range(1, REMEMBERED + 1)]
        coarse_BSHW = look(frames_BTHWC[:, :-1])
        return {"next_Md": moved_BSd, "past_MRd": torch.stack(before, dim=2), "coarse_MHW": coarse_BSHW}

    def _cut_short(self, past_MRd: torch.Tensor) -> torch.Tensor:
        """The same in eval mode; in training, now and then only the latest displacements are known, or none."""
        if not self.training:
            return past_MRd
        drawn = torch.rand(num_ranks() * len(past_MRd), 2, device=past_MRd.device)
        cut_M, known_M = my_share(drawn).unbind(1)
        known_M = torch.where(cut_M < CUT_SHARE, known_M * REMEMBERED, REMEMBERED).floor()
        ages_R = torch.arange(REMEMBERED, device=past_MRd.device)
        return past_MRd * (ages_R < known_M.unsqueeze(1)).unsqueeze(2)


def look(frames_THWC: torch.Tensor) -> torch.Tensor:
    """What is seen of uint8 frames `(..., H, W, C)`: gray and coarse, uint8 `(..., H / 2, W / 2)`."""
    gray = frames_THWC.float().mean(-1)
    coarse = F.avg_pool2d(gray.flatten(0, -3), COARSE)
    return coarse.round().to(torch.uint8).unflatten(0, gray.shape[:-2])


def measure(frames_BTHWC: torch.Tensor) -> torch.Tensor:
    """How far the picture moved from each frame to the next: `(B, T - 1, 2)`, in pixels."""
    if frames_BTHWC.shape[1] < 2:
        return frames_BTHWC.new_zeros((len(frames_BTHWC), 0, 2), dtype=torch.float32)
    return displacements(frames_BTHWC)


def build_motion_predictor(params: MotionParams, **known) -> MotionPredictor:
    """A motion predictor with the weights that `params.seed` draws.

    Args:
        params: its seed.
        known: the fields of its config: what the caches tell of actions, and `frame_size`.
    """
    torch.manual_seed(params.seed)
    return MotionPredictor(MotionPredictorConfig(**known))
