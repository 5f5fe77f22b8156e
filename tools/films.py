"""Films as they are recorded: h264 in mp4, and the sidecar that names the action of every frame."""

import csv
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import av.codec.context
import numpy as np

SIDECAR = ".actions.csv"  # replaces the film's suffix


def write_film(path: Path, frames: Iterable[np.ndarray], frames_per_second: int, crf: int) -> None:
    """Encodes a film; the same frames give the same bytes on the same kind of machine and version of FFmpeg.

    Args:
        path: mp4 file to write.
        frames: each `(H, W, 3)` uint8 RGB of even sides, one at least.
        frames_per_second: of the film.
        crf: constant rate factor of x264; smaller is better, 0 to 51.
    """
    # One thread: x264's choices, and so the bytes, depend on their number.
    options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
    with av.open(path, "w", format="mp4", container_options={"fflags": "+bitexact", "movflags": "+faststart"}) as file:
        stream = file.add_stream("libx264", rate=Fraction(frames_per_second), options=options)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for index, frame_HWC in enumerate(frames):
            if index == 0:
                stream.height, stream.width = frame_HWC.shape[:2]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        file.mux(stream.encode())


def write_sidecar(path: Path, actions: Iterable[str]) -> None:
    """Writes the action that leads from each frame of a film to the next, as `frame,action` lines."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("frame", "action"))
        writer.writerows(enumerate(actions))
