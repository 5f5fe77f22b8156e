"""Frames of a film as the models see them: sampled by time, turned upright, cropped and scaled.

Legend: `H W C` pixels; uint8 RGB.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph

from genie.sources.films import FilmError, FilmFrame

# Timestamps of some formats are rounded to milliseconds: a frame that appears this late is still on time.
TOLERANCE_SECONDS = 0.001
# Area averaging, with the same bytes on every processor.
SCALE_FLAGS = "area+accurate_rnd+full_chroma_int+bitexact"


def sample(frames: Iterable[FilmFrame], fps: float) -> Iterator[tuple[int, FilmFrame]]:
    """Yields the frame on show at each sampling time, with its index in the film.

    Sampling times are `k / fps` seconds after the first frame. A frame that is on show at several of them is yielded
    once, so a film with fewer frames a second yields its own.

    Args:
        frames: all frames of a film.
        fps: sampling times per second.
    """
    shown: tuple[int, FilmFrame] | None = None
    first, next_time = 0.0, 0
    for index, frame in enumerate(frames):
        if shown is None:
            first = frame.seconds
        else:
            # Sampling times before this frame appears, at which the last one was on show.
            stop = _times_before(frame.seconds - first, fps)
            if stop > next_time:
                yield shown
                next_time = stop
        shown = index, frame
    if shown is not None and _times_before(shown[1].seconds + shown[1].duration - first, fps) > next_time:
        yield shown


def _times_before(seconds: float, fps: float) -> int:
    """Number of sampling times before a frame that appears at this second is on show."""
    return max(0, int(np.ceil((seconds - TOLERANCE_SECONDS) * fps)))


@dataclass(frozen=True)
class _Turn:
    """How stored pixels become an upright picture: transposed first, then flipped."""

    transposes: bool
    flips_rows: bool
    flips_columns: bool

    def box(self, box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
        """Box of the stored pixels, which are `width x height`, that is this box `(left, top, width, height)` of the
        upright picture."""
        left, top, box_width, box_height = box
        if self.transposes:
            width, height = height, width
        if self.flips_columns:
            left = width - left - box_width
        if self.flips_rows:
            top = height - top - box_height
        return (top, left, box_height, box_width) if self.transposes else (left, top, box_width, box_height)

    def apply(self, pixels_HWC: np.ndarray) -> np.ndarray:
        if self.transposes:
            pixels_HWC = pixels_HWC.transpose(1, 0, 2)
        return pixels_HWC[:: -1 if self.flips_rows else 1, :: -1 if self.flips_columns else 1]


class FrameScaler:
    """Turns decoded pictures into frames: upright, cropped, scaled by area averaging.

    Args:
        crop: `cover` takes the largest centred square, `contain` the whole picture between black borders, and
            `[left, top, width, height]` a box of pixels of the upright picture, which is stretched to a square.
        frame_size: pixels a side of a frame.
    """

    def __init__(self, crop: str | list[int], frame_size: int):
        self.crop, self.frame_size = crop, frame_size
        self._key, self._graph = None, None
        self._turn = _Turn(False, False, False)
        self._place = slice(0), slice(0)

    def __call__(self, frame: FilmFrame) -> np.ndarray:
        """The frame, `(frame_size, frame_size, 3)` uint8.

        Raises:
            FilmError: the box does not lie within the picture, or FFmpeg cannot scale it.
        """
        picture = frame.picture
        turn = _turn_of(picture)
        key = (picture.width, picture.height, picture.format.name, picture.colorspace, picture.color_range, turn)
        try:
            if key != self._key:
                self._configure(frame, turn)
                self._key = key
            assert self._graph is not None
            self._graph.push(picture)
            scaled = self._graph.pull()
        except av.FFmpegError as error:
            raise FilmError(
                f"FFmpeg cannot scale a picture of {picture.width}x{picture.height} pixels ({error.strerror}); make it "
                "smaller, or leave the film out"
            ) from None
        assert isinstance(scaled, av.VideoFrame)
        frame_HWC = np.zeros((self.frame_size, self.frame_size, 3), np.uint8)
        frame_HWC[self._place] = self._turn.apply(scaled.to_ndarray())
        return frame_HWC

    def _configure(self, frame: FilmFrame, turn: _Turn) -> None:
        picture = frame.picture
        stored = picture.width, picture.height
        upright = (stored[1], stored[0]) if turn.transposes else stored
        aspect = 1 / frame.pixel_aspect if turn.transposes else frame.pixel_aspect
        box, (width, height) = _box_and_size(self.crop, self.frame_size, upright, aspect)
        left, top = (self.frame_size - width) // 2, (self.frame_size - height) // 2
        self._turn, self._place = turn, (slice(top, top + height), slice(left, left + width))
        crop = turn.box(box, *stored)
        size = (height, width) if turn.transposes else (width, height)
        graph = Graph()
        graph.threads = 1  # the decoder has the others
        filters = [
            graph.add_buffer(
                width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 1000)
            )
        ]
        if crop != (0, 0, *stored):
            filters.append(graph.add("crop", f"{crop[2]}:{crop[3]}:{crop[0]}:{crop[1]}:exact=1"))
        filters += [
            graph.add("scale", f"{size[0]}:{size[1]}:flags={SCALE_FLAGS}"),
            graph.add("format", "pix_fmts=rgb24"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*filters).configure()
        self._graph = graph


def _box_and_size(
    crop: str | list[int], frame_size: int, size: tuple[int, int], aspect: Fraction
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Box `(left, top, width, height)` of an upright picture to take, and the width and height to scale it to."""
    width, height = size
    if crop == "contain":
        shown = width * aspect, Fraction(height)
        scale = frame_size / max(shown)
        return (0, 0, width, height), (max(1, round(shown[0] * scale)), max(1, round(shown[1] * scale)))
    if crop == "cover":
        side = min(width * aspect, Fraction(height))
        taken = max(1, min(width, round(side / aspect))), max(1, min(height, round(side)))
        return ((width - taken[0]) // 2, (height - taken[1]) // 2, *taken), (frame_size, frame_size)
    assert not isinstance(crop, str)
    left, top, box_width, box_height = crop
    if not (box_width and box_height):
        raise FilmError(f"collect.films.crop: {crop} is an empty box; give [left, top, width, height]")
    if left + box_width > width or top + box_height > height:
        raise FilmError(
            f"collect.films.crop: {crop} does not lie within a picture of {width}x{height} pixels; lower it, or use "
            "cover or contain"
        )
    return (left, top, box_width, box_height), (frame_size, frame_size)


def _turn_of(picture: av.VideoFrame) -> _Turn:
    """How a picture's display matrix says that it is shown, to quarter turns."""
    data = picture.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _Turn(False, False, False)
    # x' = a x + c y and y' = b x + d y, with the rows (a, b, u), (c, d, v) and (x, y, w).
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()  # pyright: ignore[reportArgumentType]
    if abs(b) > abs(a):
        return _Turn(True, b < 0, c < 0)
    return _Turn(False, d < 0, a < 0)
