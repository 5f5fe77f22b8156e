"""The probe: what can a network of the latent action model's size read off the frames, if it is told the true actions?

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `H W C` pixels, `D` features, `M` any number of transitions.

Not every action shows: a button pressed in mid-air moves next to nothing. So the latent actions are judged by what the
probe reads, not by what was pressed. It is trained on labels, and no other model sees them or it. Its classifier sees
the parts of the picture apart, since the agent is 25 of 4096 pixels.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from genie.distributed.collectives import sum_over_ranks
from genie.models.config import config_from
from genie.models.motion_encoder import MotionEncoder, histories, to_patches

if TYPE_CHECKING:
    from genie.core.params import ProbeParams

NO_LABEL = -1
CELLS = 4  # parts of the picture a side that the classifier sees apart
PRIOR_DECAY = 0.999  # of the running shares of the actions in training batches


@dataclass(frozen=True)
class ProbeConfig:
    """Shape of the probe; the meaning of each value but the first stands in `params.yaml`."""

    num_classes: int
    history: int
    width: int
    num_blocks: int


class ActionProbe(nn.Module):
    """Frames to effective actions: the latent action model's encoder with a linear classifier.

    Args:
        config: its shape.
    """

    kind, stage = "probe", "train_probe"
    config_class = ProbeConfig

    def __init__(self, config: ProbeConfig):
        super().__init__()
        self.config = config
        self.history = config.history
        self.encoder = MotionEncoder(config.history, config.width, config.num_blocks, CELLS)
        self.head = nn.Linear(self.encoder.dim * self.encoder.num_cells, config.num_classes)
        self.register_buffer("prior", torch.full((config.num_classes,), 1 / config.num_classes))
        self.to(memory_format=torch.channels_last)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy, in nats, of the true actions, and metrics.

        Only transitions whose whole history is in the window count, at least one of them labelled.

        Args:
            batch: `frames_BTHWC` uint8, T > history; `actions_BS` int64, `NO_LABEL` where there is none.
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
        """What the classifier sees of each transition with a whole history: `(B, T - history, D)` float32."""
        return self._encode(frames_BTHWC, self.history - 1).float()

    @torch.no_grad()
    def infer_actions(self, frames_BTHWC: torch.Tensor, *, equally_frequent: bool = False) -> torch.Tensor:
        """Most likely actions `(B, T-1)` int64 of uint8 frames `(B, T, H, W, 3)`.

        Each depends on its two frames and the `history - 1` before them; before the first frame, it stands still.

        Args:
            equally_frequent: whether all actions were, as among branches, rather than as frequent as in training.
        """
        logits_BSK = self.head(self._encode(frames_BTHWC, 0)).float()
        return (logits_BSK - self.prior.log() if equally_frequent else logits_BSK).argmax(-1)

    @torch.no_grad()
    def _count(self, actions_M: torch.Tensor) -> None:
        """Follows how frequent each action is."""
        count_K = torch.bincount(actions_M - NO_LABEL, minlength=len(self.prior) + 1)[1:]
        sum_over_ranks(count_K)
        self.prior.lerp_(count_K / count_K.sum().clamp_min(1), 1 - PRIOR_DECAY)

    def _encode(self, frames_BTHWC: torch.Tensor, first: int) -> torch.Tensor:
        """Features of the transitions from `first` on: `(B, S - first, D)`."""
        patches_BTPhw = to_patches(frames_BTHWC)
        history_MPhw = histories(patches_BTPhw, self.history)[:, first:-1].flatten(0, 1)
        change_MPhw = patches_BTPhw[:, first:].diff(dim=1).flatten(0, 1)
        return self.encoder(history_MPhw, change_MPhw).unflatten(0, (len(frames_BTHWC), -1))


def build_probe(params: "ProbeParams", num_classes: int) -> ActionProbe:
    """A probe of `num_classes` actions with the weights that `params.seed` draws."""
    torch.manual_seed(params.seed)
    return ActionProbe(config_from(ProbeConfig, params, num_classes=num_classes))
