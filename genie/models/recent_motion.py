"""Recent motion: the last frame, and the displacements that led to it.

The motion predictor and the steering both take it as input, to predict the next frame's displacement or the latent
action that leads to the next frame.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `M` any number of transitions, `H W C` pixels, `R` past
displacements, `d` the two components of each: pixels to the right and downwards, of the measured size.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from genie.distributed.collectives import my_share, num_ranks
from genie.models.measured_size import at_measured_size
from genie.models.registration import displacements, past_displacements

REMEMBERED = 4  # number of past displacements, R
PIXELS = 8.0  # unit of the displacements that networks see
COARSE = 2  # side in pixels of the blocks over which a frame is averaged
# Share of training transitions whose past is cut short, since little is known of it at the start of a dream.
CUT_SHARE = 0.25


class RecentMotion(NamedTuple):
    """Recent motion of worlds while they are played.

    Attributes:
        frame_BHWC: uint8, the last frame, of any supported size.
        moved_BRd: the last R displacements up to it, in pixels, the latest last; 0 before the first.
    """

    frame_BHWC: torch.Tensor
    moved_BRd: torch.Tensor

    @classmethod
    def of(cls, frames_BTHWC: torch.Tensor) -> "RecentMotion":
        """Recent motion of uint8 frames, T >= 1."""
        moved_Bd = F.pad(measure(frames_BTHWC[:, -REMEMBERED - 1 :]), (0, 0, REMEMBERED, 0))
        return cls(frames_BTHWC[:, -1], moved_Bd[:, -REMEMBERED:])

    def then(self, frame_BHWC: torch.Tensor) -> "RecentMotion":
        """Recent motion after the next frame."""
        moved_B1d = measure(torch.stack([self.frame_BHWC, frame_BHWC], dim=1))
        return RecentMotion(frame_BHWC, torch.cat([self.moved_BRd[:, 1:], moved_B1d], dim=1))


@torch.no_grad()
def observe_motion(frames_BTHWC: torch.Tensor) -> dict[str, torch.Tensor]:
    """Displacement, past displacements and coarse frame of each transition.

    Args:
        frames_BTHWC: uint8 frames, T >= 2.

    Returns:
        `next_Md`, the displacement of the transition; `past_MRd`, those before it, the latest first and 0 before the
        first; `coarse_MHW` uint8, the frame before it as returned by `look`; each `(B, S, ...)`.

    Raises:
        FrameSizeError: the frames have an unsupported size.
    """
    frames_BTHWC = at_measured_size(frames_BTHWC)
    moved_BSd = measure(frames_BTHWC)
    past_BSRd, coarse_BSHW = past_displacements(moved_BSd, REMEMBERED), look(frames_BTHWC[:, :-1])
    return {"next_Md": moved_BSd, "past_MRd": past_BSRd, "coarse_MHW": coarse_BSHW}


def look(frames_THWC: torch.Tensor) -> torch.Tensor:
    """Converts uint8 frames `(..., H, W, C)` to coarse gray frames, uint8 `(..., 32, 32)`."""
    gray = at_measured_size(frames_THWC).float().mean(-1)
    coarse = F.avg_pool2d(gray.flatten(0, -3), COARSE)
    return coarse.round().to(torch.uint8).unflatten(0, gray.shape[:-2])


def measure(frames_BTHWC: torch.Tensor) -> torch.Tensor:
    """Measures the displacement of the picture from each frame to the next: `(B, T - 1, 2)`, in pixels of the measured
    size."""
    if frames_BTHWC.shape[1] < 2:
        return frames_BTHWC.new_zeros((len(frames_BTHWC), 0, 2), dtype=torch.float32)
    return displacements(at_measured_size(frames_BTHWC))


def num_seen(frame_size: tuple[int, int]) -> int:
    """Number of features that `as_seen` returns per transition."""
    rows, columns = frame_size
    return 2 * REMEMBERED + rows * columns // COARSE**2


def as_seen(coarse_MHW: torch.Tensor, past_MRd: torch.Tensor) -> torch.Tensor:
    """Input features of a network, scaled to about one: `(M, num_seen)`.

    Args:
        coarse_MHW: frames as returned by `look`.
        past_MRd: the displacements that led to them, the latest first, in pixels; 0 where unknown.
    """
    return torch.cat([past_MRd.flatten(1) / PIXELS, coarse_MHW.flatten(1).float() / 255 - 0.5], dim=1)


def cut_short(past_MRd: torch.Tensor) -> torch.Tensor:
    """Randomly cuts the past short, for training: keeps only the latest displacements of some transitions, or none."""
    drawn = torch.rand(num_ranks() * len(past_MRd), 2, device=past_MRd.device)
    cut_M, known_M = my_share(drawn).unbind(1)
    known_M = torch.where(cut_M < CUT_SHARE, known_M * REMEMBERED, REMEMBERED).floor()
    ages_R = torch.arange(REMEMBERED, device=past_MRd.device)
    return past_MRd * (ages_R < known_M.unsqueeze(1)).unsqueeze(2)
