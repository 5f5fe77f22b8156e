"""Backprojection: locates the agent in a frame by its colours.

Histogram backprojection (Swain and Ballard 1991, "Color indexing"): each colour has a likeness, the confidence that a
pixel of that colour belongs to the agent. The agent is in the window with the largest total likeness; the centre of
mass gives its position to a fraction of a pixel. Each frame is processed by itself, so errors do not carry over.

Axes: `M` frames, `H W C` pixels, `K` colours, `R Q` rows and columns of a window, `d` the two coordinates of a
position: pixels from the left and from the top.
"""

import torch
import torch.nn.functional as F

LEVELS = 16  # per colour channel
NUM_COLORS = LEVELS**3
VISIBLE = 24  # of 255: difference of a channel from the background that is no noise of a camera or a codec
SIDE = 7  # side in pixels of the window in which likeness is summed


def colors_of(frames_MHWC: torch.Tensor) -> torch.Tensor:
    """The colour of each pixel of uint8 frames: int64 `(M, H, W)` in [0, NUM_COLORS)."""
    red, green, blue = (frames_MHWC // (256 // LEVELS)).long().unbind(-1)
    return (red * LEVELS + green) * LEVELS + blue


def differs_from(frames_MHWC: torch.Tensor, background_HWC: torch.Tensor | None) -> torch.Tensor:
    """Pixels of uint8 frames that visibly differ from a background: bool `(M, H, W)`, all if it is None."""
    if background_HWC is None:
        return torch.ones(frames_MHWC.shape[:3], dtype=torch.bool, device=frames_MHWC.device)
    larger, smaller = torch.maximum(frames_MHWC, background_HWC), torch.minimum(frames_MHWC, background_HWC)
    return (larger - smaller).amax(-1) > VISIBLE


def locate(likeness_MHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Position of the largest total likeness; likeness is at least 0.

    Returns:
        Positions `(M, 2)` float32, and `(M,)`: total likeness in the window of `SIDE` pixels there.
    """
    width = likeness_MHW.shape[2]
    columns_MHW = F.avg_pool2d(likeness_MHW, (1, SIDE), 1, (0, SIDE // 2), divisor_override=1)
    gathered_MHW = F.avg_pool2d(columns_MHW, (SIDE, 1), 1, (SIDE // 2, 0), divisor_override=1)
    mass_M, best_M = gathered_MHW.flatten(1).max(1)
    middle_Md = torch.stack([best_M % width, best_M // width], dim=1)
    window_MRQ = windows_at(likeness_MHW, middle_Md, SIDE)
    offsets = torch.arange(SIDE, device=likeness_MHW.device) - SIDE // 2
    pulls = [(window_MRQ.sum(axis) * offsets).sum(1) for axis in (1, 2)]
    return middle_Md + torch.stack(pulls, dim=1) / mass_M.clamp_min(1e-6).unsqueeze(1), mass_M


def windows_at(images: torch.Tensor, middle_Md: torch.Tensor, side: int) -> torch.Tensor:
    """Square windows of images `(M, H, W, ...)`, centred on the pixels `middle_Md`, whole numbers: `(M, side, side,
    ...)`, 0 beyond the border."""
    offsets = torch.arange(side, device=images.device) - side // 2
    (columns, rows), (width, height) = (middle_Md.T[:, :, None] + offsets).long(), (images.shape[2], images.shape[1])
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    index = torch.arange(len(images), device=images.device)[:, None, None]
    cut = images[index, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return cut.masked_fill(~inside[(...,) + (None,) * (images.dim() - 3)], 0)
