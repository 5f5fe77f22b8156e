"""Films small enough for a test, made by PyAV."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_film(
    path: Path,
    pictures: Iterable[np.ndarray],
    *,
    rate: int = 10,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Sequence[float] | None = None,
    rotation: int | None = None,
    hflip: bool = False,
    faststart: bool = False,
) -> Path:
    """Writes RGB pictures `(H, W, 3)` as a film, at equal distances or at times in seconds."""
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        base = Fraction(1, 1000)
        for index, picture in enumerate(pictures):
            if index == 0:
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixels
                if times is not None:
                    stream.codec_context.time_base = base
                if rotation is not None:
                    stream.set_display_rotation(rotation, hflip=hflip)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[index] / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def moving(num_frames: int, *, height: int = 48, width: int = 64, hue: int = 0, step: int = 1) -> list[np.ndarray]:
    """A bright bar that moves over a ground of one of six colours, by `step` pixels a frame."""
    ground = np.array([[60, 0, 0], [0, 60, 0], [0, 0, 60], [90, 90, 0], [0, 90, 90], [90, 0, 90]][hue], np.uint8)
    pictures = []
    for index in range(num_frames):
        picture = np.broadcast_to(ground, (height, width, 3)).copy()
        start = index * step % width
        picture[:, start : start + max(1, width // 8)] = 250
        pictures.append(picture)
    return pictures


def still(num_frames: int, *, hue: int = 0) -> list[np.ndarray]:
    """The same picture over and over."""
    return moving(1, hue=hue) * num_frames


def write_pictures(folder: Path, pictures: Iterable[np.ndarray], suffix: str = ".png") -> Path:
    """Writes pictures as files `1.png`, `2.png`, ... into a folder."""
    from PIL import Image

    folder.mkdir(parents=True)
    for index, picture in enumerate(pictures, 1):
        Image.fromarray(picture).save(folder / f"{index}{suffix}")
    return folder


def write_sound(path: Path) -> Path:
    """Writes a film of a second without pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
