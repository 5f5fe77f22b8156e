"""Recordings of what was played, as a GIF or an MP4 video.

Legend: `P` panels side by side (a dream, or a dream and its twin), `H W C` pixels; uint8 RGB.
"""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from PIL import Image

SIDE, GAP = 256, 8  # screen pixels of a panel, at most, and between panels
BACKGROUND = 17
MAX_FRAMES = 600  # 7 MB per panel of 64 pixels a side, 30 MB of 128; 40 s at 15 frames/s


class RecordingError(ValueError):
    """Nothing was recorded that could be saved."""


class Recording:
    """Recording of the frames shown while it is on, up to `MAX_FRAMES`."""

    def __init__(self):
        self.is_on = False
        self._shown: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._shown)

    def turn(self, on: bool) -> None:
        """Turns recording on, which discards the previous recording, or off, which keeps it to be saved."""
        self.is_on = on
        if on:
            self._shown = []

    def show(self, panels_PHWC: np.ndarray) -> None:
        """Records the panels if it is on; turns itself off when it is full."""
        if self.is_on:
            self._shown.append(np.array(panels_PHWC))
            self.is_on = len(self._shown) < MAX_FRAMES

    def encode(self, format: str, frames_per_second: int) -> bytes:
        """Encodes the recording as the bytes of a `gif` or an `mp4`.

        Raises:
            RecordingError: nothing was recorded.
        """
        if not self._shown:
            raise RecordingError("nothing was recorded: press record, play, and save then")
        num_panels = max(map(len, self._shown))
        rows = [_side_by_side(panels_PHWC, num_panels) for panels_PHWC in self._shown]
        return {"gif": _gif, "mp4": _mp4}[format](rows, frames_per_second)


def _side_by_side(panels_PHWC: np.ndarray, num_panels: int) -> np.ndarray:
    """Joins panels into one picture at the frames' resolution; panels missing up to `num_panels` are left empty."""
    _, height, width, channels = panels_PHWC.shape
    gap = GAP // _scale(height)
    row = np.full((height, num_panels * (width + gap) - gap, channels), BACKGROUND, np.uint8)
    for panel, frame_HWC in enumerate(panels_PHWC):
        row[:, panel * (width + gap) :][:, :width] = frame_HWC
    return row


def _scale(height: int) -> int:
    """Screen pixels per pixel: 4 or 2, since video needs even sides."""
    return SIDE // height


def _enlarge(picture: np.ndarray) -> np.ndarray:
    scale = _scale(len(picture))
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def _gif(rows: Sequence[np.ndarray], frames_per_second: int) -> bytes:
    """Encodes a looping GIF, with a single palette to avoid flicker."""
    palette = Image.fromarray(np.concatenate(rows)).quantize(256)
    small = (Image.fromarray(row).quantize(palette=palette, dither=Image.Dither.NONE) for row in rows)
    first, *rest = [Image.fromarray(_enlarge(np.asarray(picture))) for picture in small]
    file = io.BytesIO()
    for picture in (first, *rest):
        picture.putpalette(palette.getpalette())  # pyright: ignore[reportArgumentType]
    duration = round(1000 / frames_per_second)
    first.save(file, "gif", save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)
    return file.getvalue()


def _mp4(rows: Sequence[np.ndarray], frames_per_second: int) -> bytes:
    """Encodes an H.264 video that browsers can play."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(frames_per_second), options={"crf": "18"})
        stream.height, stream.width = _enlarge(rows[0]).shape[:2]
        stream.pix_fmt = "yuv420p"
        for row in rows:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_enlarge(row), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
