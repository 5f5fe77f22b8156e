"""Measures how fast films are sampled, beside FFmpeg's own decoder, and the memory that a long film takes.

python -m benchmarks.decode                                 # on a film that it makes, 1280x720 h264
python -m benchmarks.decode --film walk.mp4 --turns 5
python -m benchmarks.decode --minutes 60                    # memory of an hour of film
"""

import argparse
import multiprocessing
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import av
import numpy as np

from genie.core.params import CollectParams, load_params
from genie.distributed.processes import num_cores
from genie.distributed.progress import progress
from genie.sources.films import decode, expected_frames
from genie.sources.sampled_films import sample_film

WIDTH, HEIGHT, RATE, SECONDS = 1280, 720, 30, 20  # of the film that is made; longer ones repeat it


def make_film(path: Path, minutes: float) -> None:
    """Writes a film: a camera that wanders over a smooth random texture, with grain."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (30, 50, 3), np.uint8)
    texture = av.VideoFrame.from_ndarray(coarse).reformat(2 * WIDTH, 2 * HEIGHT, interpolation="BICUBIC").to_ndarray()
    texture = np.clip(texture + rng.normal(0, 6, texture.shape), 0, 255).astype(np.uint8)
    piece = path.with_name("piece.mp4")
    with av.open(str(piece), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "fast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in progress(range(SECONDS * RATE), name="film", unit="frame"):
            top = round(HEIGHT / 2 * (1 + np.sin(index / 40)))
            left = round(WIDTH / 2 * (1 + np.cos(index / 55)))
            picture = np.ascontiguousarray(texture[top : top + HEIGHT, left : left + WIDTH])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    with av.open(str(path), "w") as container, av.open(str(piece)) as source:
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        length = round(SECONDS / packets[0].time_base)  # pyright: ignore[reportOptionalOperand]
        for turn in range(max(1, round(minutes * 60 / SECONDS))):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                assert packet.pts is not None
                assert packet.dts is not None
                copy.pts, copy.dts = packet.pts + turn * length, packet.dts + turn * length
                copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, packet.is_keyframe, stream
                container.mux(copy)


def at_fps(fps: float) -> CollectParams:
    collect = load_params().collect
    return collect.model_copy(update={"films": collect.films.model_copy(update={"fps": fps})})


def sampled(film: Path, fps: float, threads: int) -> None:
    with TemporaryDirectory() as scratch:
        sample_film(at_fps(fps), threads, (film, Path(scratch) / "film.h5"), lambda _: None)


def peak_of_sampling(film: Path, fps: float, threads: int) -> float:
    sampled(film, fps, threads)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def timed(side: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of CPU time, of a call and the processes that it starts."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    start, cpu = perf_counter(), sum(own.ru_utime + own.ru_stime for own in usage)
    side()
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return perf_counter() - start, sum(own.ru_utime + own.ru_stime for own in usage) - cpu


def measure(film: Path, turns: int, threads: int) -> None:
    """Prints frames of the film a second, of each side in turn, and their ratio to FFmpeg's."""
    fps, num_frames = load_params().collect.films.fps, expected_frames(film)
    with av.open(str(film)) as container:
        rate = float(container.streams.video[0].average_rate or Fraction(RATE))
    sides: dict[str, Callable[[], object]] = {
        "decoded only": lambda: [None for _ in decode(film, threads)],
        f"sampled at {fps:g} fps": lambda: sampled(film, fps, threads),
        f"sampled at {rate:g} fps": lambda: sampled(film, rate, threads),
    }
    if ffmpeg := shutil.which("ffmpeg"):
        command = [ffmpeg, "-v", "error", "-threads", str(threads), "-i", film, "-an", "-f", "null", "-"]
        sides = {"ffmpeg": lambda: subprocess.run(command, check=True), **sides}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            taken[name].append(timed(side))
    reference = next(iter(sides))
    for name, own in taken.items():
        seconds, cpu = (median(column) for column in zip(*own, strict=True))
        ratios = [
            median(theirs[column] / ours[column] for ours, theirs in zip(own, taken[reference], strict=True))
            for column in (0, 1)
        ]
        print(
            f"{name}: {num_frames / seconds:.0f} frames/s, {num_frames / cpu:.0f} per second of CPU time; relative to "
            f"{reference}: {ratios[0]:.2f}, {ratios[1]:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--film", type=Path, help="default: one that is made")
    parser.add_argument("--minutes", type=float, default=1, help="length of the film that is made")
    parser.add_argument("--turns", type=int, default=3, help="how often each side is timed; 0: only memory is measured")
    parser.add_argument("--threads", type=int, default=num_cores(), help="of every decoder")
    given = parser.parse_args()
    with TemporaryDirectory() as scratch:
        film = given.film or Path(scratch) / "film.mp4"
        # In processes of their own, whose peak of memory is that of this one, or what they themselves take.
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            if given.film is None:
                pool.apply(make_film, (film, given.minutes))
            peak = pool.apply(peak_of_sampling, (film, load_params().collect.films.fps, given.threads))
        if given.turns:
            measure(film, given.turns, given.threads)
        print(f"memory of sampling {expected_frames(film)} frames: {peak:.0f} MiB at most")


if __name__ == "__main__":
    main()
