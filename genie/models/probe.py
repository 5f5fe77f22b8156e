"""The probe: a network of the latent action model's size, trained to predict the true actions from frames.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `H W C` pixels, `D` features, `M` any number of transitions.

Not every action is visible: one taken in mid-air moves almost nothing. So latent actions are evaluated against the
probe's predictions, not against the actions taken. The probe is trained on labels; no other model sees the labels or
the probe. Its classifier sees the parts of the picture separately, since the agent covers 25 of 4096 pixels.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from genie.distributed.collectives import sum_over_ranks
from genie.models.config import config_from
from genie.models.histogram import histogram
from genie.models.motion_encoder import MotionEncoder, histories, to_patches

if TYPE_CHECKING:
    from genie.core.params import ProbeParams

NO_LABEL = -1
CELLS = 4  # parts of the picture per side that the classifier sees separately
PRIOR_DECAY = 0.999  # of the running frequencies of the actions in training batches


@dataclass(frozen=True)
class ProbeConfig:
    """Shape of the probe; `params.yaml` documents each value but the first."""

    num_classes: int
    history: int
    width: int
    num_blocks: int


class ActionProbe(nn.Module):
    """Predicts effective actions from frames: the latent action model's encoder with a linear classifier.

    Args:
        config: shape of the model.
    """

    kind, stage = "probe", "train_probe"
    config_class = ProbeConfig
    fingerprint: str  # set by `load_model`
    prior: torch.Tensor

    def __init__(self, config: ProbeConfig):
        super().__init__()
        self.config = config
        self.history = config.history
        self.encoder = MotionEncoder(config.history, config.width, config.num_blocks, CELLS)
        self.head = nn.Linear(self.encoder.dim * self.encoder.num_cells, config.num_classes)
        self.register_buffer("prior", torch.full((config.num_classes,), 1 / config.num_classes))
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy, in nats, of the true actions, and metrics.

        Only transitions whose whole history is in the window count; at least one of them must be labelled.

        Args:
            batch: `frames_BTHWC` uint8, T > history; `actions_BS` int64, `NO_LABEL` where there is no label.
        """
        actions_M = batch["actions_BS"][:, self.history - 1 :].flatten()
        if self.training:
            self._count(actions_M)
        logits_MK = self.head(self._encode(batch["frames_BTHWC"], self.history - 1)).flatten(0, 1)
        loss = F.cross_entropy(logits_MK, actions_M, ignore_index=NO_LABEL)
        is_right_M = logits_MK.argmax(-1) == actions_M
        accuracy = is_right_M.sum() / (actions_M != NO_LABEL).sum()
        return loss, {"cross_entropy": loss.detach(), "accuracy": accuracy}

    @torch.no_grad()
    def features(self, frames_BTHWC: torch.Tensor) -> torch.Tensor:
        """Input of the classifier for each transition with a whole history: `(B, T - history, D)` float32."""
        return self._encode(frames_BTHWC, self.history - 1).float()

    @torch.no_grad()
    def infer_actions(self, frames_BTHWC: torch.Tensor, *, equally_frequent: bool = False) -> torch.Tensor:
        """Most likely actions `(B, T-1)` int64 of uint8 frames `(B, T, H, W, 3)`.

        Each depends on its two frames and the `history - 1` before them. The world is assumed to stand still before the
        first frame.

        Args:
            equally_frequent: whether to assume that all actions are equally frequent, as among branches, instead of as
                frequent as in training.
        """
        logits_BSK = self.head(self._encode(frames_BTHWC, 0)).float()
        return (logits_BSK - self.prior.log() if equally_frequent else logits_BSK).argmax(-1)

    @torch.no_grad()
    def _count(self, actions_M: torch.Tensor) -> None:
        """Updates the running frequencies of the actions."""
        count_K = histogram(actions_M - NO_LABEL, len(self.prior) + 1)[1:]
        sum_over_ranks(count_K)
        self.prior.lerp_(count_K / count_K.sum().clamp_min(1), 1 - PRIOR_DECAY)

    def _encode(self, frames_BTHWC: torch.Tensor, first: int) -> torch.Tensor:
        """Features of the transitions from `first` on: `(B, S - first, D)`."""
        patches_BTPhw = to_patches(frames_BTHWC)
        history_MPhw = histories(patches_BTPhw, self.history)[:, first:-1].flatten(0, 1)
        change_MPhw = patches_BTPhw[:, first:].diff(dim=1).flatten(0, 1)
        return self.encoder(history_MPhw, change_MPhw).unflatten(0, (len(frames_BTHWC), -1))


def build_probe(params: "ProbeParams", num_classes: int) -> ActionProbe:
    """Builds a probe of `num_classes` actions with weights initialised from `params.seed`."""
    torch.manual_seed(params.seed)
    return ActionProbe(config_from(ProbeConfig, params, num_classes=num_classes))
