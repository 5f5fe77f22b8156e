"""Registration: how far the whole picture moved from one frame to the next, to a fraction of a pixel.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `M` any number of transitions, `H W C` pixels, `d` the two numbers
of a displacement: pixels to the right and downwards.

Phase correlation's older sibling: the mean squared difference of the two frames over all shifts at once, by three
Fourier transforms (Fienup 1997, "Invariant error metrics for image reconstruction"; Padfield 2012, "Masked object
registration in the Fourier domain"), and a parabola through its minimum.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

MAX_SHIFT = 30  # pixels
MIN_OVERLAP = 0.2  # of the pixels that count; with fewer, one match cannot be told from another
PADDED = 96  # pixels a side, so that no shift up to the largest wraps round
# Of the squared difference of gray values in [0, 1], at the largest shift: repeated textures match at many shifts.
SHIFT_PENALTY = 2e-3
CHUNK = 128  # frames transformed at once: what fits a processor's cache


class Box(NamedTuple):
    """A rectangle of pixels.

    Attributes:
        top, left: its first row and column.
        height, width: how many it has.
    """

    top: int
    left: int
    height: int
    width: int

    def crop(self, frames: torch.Tensor) -> torch.Tensor:
        """Its pixels of frames `(..., H, W, C)`."""
        return frames[..., self.top : self.top + self.height, self.left : self.left + self.width, :]

    def grown(self, rows: int, columns: int, frame_size: tuple[int, int]) -> "Box":
        """The box with as many more rows and columns on every side, as far as there are any."""
        top, left = max(0, self.top - rows), max(0, self.left - columns)
        bottom = min(frame_size[0], self.top + self.height + rows)
        right = min(frame_size[1], self.left + self.width + columns)
        return Box(top, left, bottom - top, right - left)


def displacements(frames_BTHWC: torch.Tensor, ignored: Box | None = None) -> torch.Tensor:
    """How far the picture moved in each transition: float32 `(B, S, 2)`, in pixels, at most `MAX_SHIFT` either way.

    Args:
        frames_BTHWC: uint8 frames, T >= 2.
        ignored: pixels that do not count in either frame, such as a sprite that stays where it is.
    """
    num_clips, num_frames, height, width, _ = frames_BTHWC.shape
    counted_HW = torch.ones(height, width, device=frames_BTHWC.device)
    if ignored:
        ignored.crop(counted_HW.unsqueeze(-1)).zero_()
    frames_MHWC = frames_BTHWC.flatten(0, 1)
    # All frames as one clip, so that each is transformed once; what lies between two clips is dropped at the end.
    found = [
        _register(frames_MHWC[first : first + CHUNK + 1], counted_HW) for first in range(0, len(frames_MHWC) - 1, CHUNK)
    ]
    found_Md = torch.cat([*found, frames_MHWC.new_zeros((1, 2), dtype=torch.float32)])
    return found_Md.view(num_clips, num_frames, 2)[:, :-1]


def past_displacements(moved_BSd: torch.Tensor, count: int) -> torch.Tensor:
    """The `count` displacements before each transition, the latest first, 0 before the first: `(B, S, count, 2)`."""
    before = [F.pad(moved_BSd, (0, 0, age, 0))[:, : moved_BSd.shape[1]] for age in range(1, count + 1)]
    return torch.stack(before, dim=2)


def warp(frames_MHWC: torch.Tensor, displacement_Md: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames moved by displacements, between pixels linearly.

    Args:
        frames_MHWC: float.
        displacement_Md: in pixels, as `displacements` gives them.

    Returns:
        The moved frames, and `(M, H, W)` bool: where a frame shows what it showed before, at another place.
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
    """Displacements `(T-1, 2)` of frames in a row, from the pixels that count."""
    gray_THW = frames_THWC.float().mean(-1) / 255
    with torch.autocast(frames_THWC.device.type, enabled=False):
        counted, seen, squared = (
            _spectrum(x) for x in (counted_HW, gray_THW * counted_HW, gray_THW.square() * counted_HW)
        )
        # The squared difference multiplied out, each product a correlation, and all of them one inverse transform.
        differences = squared[:-1].conj() * counted + counted.conj() * squared[1:] - 2 * seen[:-1].conj() * seen[1:]
        overlap_YX = _shifts(counted.conj() * counted)
        error_SYX = _shifts(differences).clamp_min(0) / overlap_YX.clamp_min(1)
        error_SYX = error_SYX.masked_fill(overlap_YX < MIN_OVERLAP * counted_HW.sum(), 1.0)  # no match at all
    shifts = torch.arange(-MAX_SHIFT, MAX_SHIFT + 1, device=frames_THWC.device)
    error_SYX = error_SYX + SHIFT_PENALTY / MAX_SHIFT * torch.hypot(shifts[:, None], shifts.float())
    best_S = error_SYX.flatten(1).argmin(1)
    return torch.stack([_vertex(error_SYX, best_S, axis) for axis in (2, 1)], dim=1)


def _spectrum(images: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfft2(images, s=(PADDED, PADDED))


def _shifts(spectrum: torch.Tensor) -> torch.Tensor:
    """Correlations at the shifts that count, rows and columns from `-MAX_SHIFT` to `MAX_SHIFT`."""
    shifts = torch.arange(-MAX_SHIFT, MAX_SHIFT + 1, device=spectrum.device) % PADDED
    return torch.fft.irfft2(spectrum, s=(PADDED, PADDED))[..., shifts[:, None], shifts]


def _vertex(error_SYX: torch.Tensor, best_S: torch.Tensor, axis: int) -> torch.Tensor:
    """Along an axis, where the parabola through the least error and its two neighbours has its vertex: `(S,)`."""
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
