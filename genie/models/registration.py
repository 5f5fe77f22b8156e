"""Registration: displacement of the whole picture from one frame to the next, to a fraction of a pixel.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `M` any number of transitions, `H W C` pixels, `d` the two
components of a displacement: pixels to the right and downwards.

The method is related to phase correlation. Three Fourier transforms give the mean squared difference of the two frames
for all shifts at once (Fienup 1997, "Invariant error metrics for image reconstruction"; Padfield 2012, "Masked object
registration in the Fourier domain"), and a parabola is fitted to its minimum.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from genie.models.chunks import rows_at_once

MAX_SHIFT = 30  # pixels
MIN_OVERLAP = 0.2  # minimum share of the counted pixels that overlap; with fewer, matches are ambiguous
PADDED = 96  # pixels per side after padding, so that no shift up to `MAX_SHIFT` wraps around
# Penalty of the largest shift, in squared gray values of [0, 1], since repeated textures match at many shifts.
SHIFT_PENALTY = 2e-3
CHUNK = 128  # frames transformed at once on a CPU; on a GPU 0.5 MB each


class Box(NamedTuple):
    """A rectangle of pixels.

    Attributes:
        top, left: first row and column.
        height, width: number of rows and columns.
    """

    top: int
    left: int
    height: int
    width: int

    def crop(self, frames: torch.Tensor) -> torch.Tensor:
        """Crops frames `(..., H, W, C)` to the box."""
        return frames[..., self.top : self.top + self.height, self.left : self.left + self.width, :]

    def grown(self, rows: int, columns: int, frame_size: tuple[int, int]) -> "Box":
        """The box enlarged by `rows` and `columns` on every side, clipped to the frame."""
        top, left = max(0, self.top - rows), max(0, self.left - columns)
        bottom = min(frame_size[0], self.top + self.height + rows)
        right = min(frame_size[1], self.left + self.width + columns)
        return Box(top, left, bottom - top, right - left)


def displacements(frames_BTHWC: torch.Tensor, ignored: Box | None = None) -> torch.Tensor:
    """Displacement of the picture in each transition: float32 `(B, S, 2)`, in pixels, at most `MAX_SHIFT` either way.

    Args:
        frames_BTHWC: uint8 frames of the measured size, T >= 2.
        ignored: pixels to ignore in both frames, such as a sprite that stays in place.
    """
    num_clips, num_frames, height, width, _ = frames_BTHWC.shape
    counted_HW = torch.ones(height, width, device=frames_BTHWC.device)
    if ignored:
        ignored.crop(counted_HW.unsqueeze(-1)).zero_()
    frames_MHWC = frames_BTHWC.flatten(0, 1)
    # All frames form one clip, so that each is transformed once; displacements between clips are dropped at the end.
    chunk = rows_at_once(frames_MHWC.device, CHUNK)
    found = [
        _register(frames_MHWC[first : first + chunk + 1], counted_HW) for first in range(0, len(frames_MHWC) - 1, chunk)
    ]
    found_Md = torch.cat([*found, frames_MHWC.new_zeros((1, 2), dtype=torch.float32)])
    return found_Md.view(num_clips, num_frames, 2)[:, :-1]


def past_displacements(moved_BSd: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` displacements before each transition, the latest first, 0 before the first: `(B, S, count, 2)`."""
    before = [F.pad(moved_BSd, (0, 0, age, 0))[:, : moved_BSd.shape[1]] for age in range(1, count + 1)]
    return torch.stack(before, dim=2)


def warp(frames_MHWC: torch.Tensor, displacement_Md: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Moves frames by displacements, with bilinear interpolation.

    Args:
        frames_MHWC: float frames.
        displacement_Md: displacements in pixels, as returned by `displacements`.

    Returns:
        The moved frames, and `(M, H, W)` bool: where a moved frame shows pixels from inside the original frame.
    """
    height, width = frames_MHWC.shape[1:3]
    rows_H1 = torch.arange(height, device=frames_MHWC.device).unsqueeze(1)
    columns_W = torch.arange(width, device=frames_MHWC.device)
    x_MHW = (columns_W - displacement_Md[:, 0, None, None]).expand(-1, height, -1)
    y_MHW = (rows_H1 - displacement_Md[:, 1, None, None]).expand(-1, -1, width)
    places = torch.stack([(2 * x_MHW + 1) / width - 1, (2 * y_MHW + 1) / height - 1], dim=-1)
    moved = F.grid_sample(frames_MHWC.movedim(-1, 1), places, padding_mode="border", align_corners=False)
    known_MHW = (x_MHW >= 0) & (x_MHW <= width - 1) & (y_MHW >= 0) & (y_MHW <= height - 1)
    return moved.movedim(1, -1), known_MHW


def _register(frames_THWC: torch.Tensor, counted_HW: torch.Tensor) -> torch.Tensor:
    """Displacements `(T-1, 2)` of consecutive frames, from the counted pixels."""
    gray_THW = frames_THWC.float().mean(-1) / 255
    with torch.autocast(frames_THWC.device.type, enabled=False):
        counted, seen, squared = (
            _spectrum(x) for x in (counted_HW, gray_THW * counted_HW, gray_THW.square() * counted_HW)
        )
        # Expanded squared difference: each product is a correlation, and one inverse transform serves all of them.
        differences = squared[:-1].conj() * counted + counted.conj() * squared[1:] - 2 * seen[:-1].conj() * seen[1:]
        overlap_YX = _shifts(counted.conj() * counted)
        error_SYX = _shifts(differences).clamp_min(0) / overlap_YX.clamp_min(1)
        error_SYX = error_SYX.masked_fill(overlap_YX < MIN_OVERLAP * counted_HW.sum(), 1.0)  # too little overlap
    shifts = torch.arange(-MAX_SHIFT, MAX_SHIFT + 1, device=frames_THWC.device)
    error_SYX = error_SYX + SHIFT_PENALTY / MAX_SHIFT * torch.hypot(shifts[:, None], shifts.float())
    best_S = error_SYX.flatten(1).argmin(1)
    return torch.stack([_vertex(error_SYX, best_S, axis) for axis in (2, 1)], dim=1)


def _spectrum(images: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfft2(images, s=(PADDED, PADDED))


def _shifts(spectrum: torch.Tensor) -> torch.Tensor:
    """Correlations at shifts from `-MAX_SHIFT` to `MAX_SHIFT`, by rows and columns."""
    shifts = torch.arange(-MAX_SHIFT, MAX_SHIFT + 1, device=spectrum.device) % PADDED
    return torch.fft.irfft2(spectrum, s=(PADDED, PADDED))[..., shifts[:, None], shifts]


def _vertex(error_SYX: torch.Tensor, best_S: torch.Tensor, axis: int) -> torch.Tensor:
    """Vertex, along an axis, of the parabola through the least error and its two neighbours: `(S,)`."""
    size = error_SYX.shape[-1]
    index_S = best_S // size if axis == 1 else best_S % size
    middle_S = index_S.clamp(1, size - 2)
    step = size if axis == 1 else 1
    flat, centre_S = error_SYX.flatten(1), best_S + (middle_S - index_S) * step
    low_S, least_S, high_S = (
        flat.gather(1, (centre_S + offset).unsqueeze(1)).squeeze(1) for offset in (-step, 0, step)
    )
    curvature_S = (low_S - 2 * least_S + high_S).clamp_min(1e-9)
    return middle_S - MAX_SHIFT + ((low_S - high_S) / (2 * curvature_S)).clamp(-0.5, 0.5)
