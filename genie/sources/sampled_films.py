"""Sampled films: all frames that are sampled from a film, in a file, with what scenes are chosen by.

It is an episode file of one episode, with these datasets besides:

| dataset | shape, type | |
|---|---|---|
| `film_frames` | `(N,)` int64 | index of each sampled frame in the film |
| `distances` | `(N,)` float64 | distance of its colour histogram to that of the frame before; 0 for the first |
| `changed` | `(N,)` float64 | share of the pixels that changed visibly since the frame before; 0 for the first |
| `is_still` | `(N,)` bool | whether nothing moved visibly since the last frame in which something did |
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from genie.core.motion import changed_share
from genie.core.params import CollectParams
from genie.data.episodes import BLOCK_FRAMES, SCHEMA_VERSION, EpisodeFile, EpisodeFileError, EpisodeWriter
from genie.data.hdf5 import get_dataset, open_hdf5, writing_hdf5
from genie.sources.cuts import histogram, histogram_distance
from genie.sources.film_frames import FrameScaler, sample
from genie.sources.films import FilmError, FilmFrame, decode, digest

COMPRESSION = "zstd"


def sampling_identity(params: CollectParams) -> dict:
    """Plain values of everything but the film that decides which frames are sampled from it."""
    films = params.films
    return {
        "source": "films",
        "fps": films.fps,
        "crop": str(films.crop),
        "frame_size": params.frame_size,
        "schema_version": SCHEMA_VERSION,
    }


def sample_film(
    params: CollectParams, num_threads: int, job: tuple[Path, Path], advance: Callable[[int], object]
) -> None:
    """Samples a film into a file, unless the file is there and was sampled from the same bytes.

    Args:
        params: as `sampling_identity`.
        num_threads: threads of the decoder.
        job: the film, and the file to write.
        advance: called with numbers of frames of the film that have been decoded.

    Raises:
        FilmError: the film is broken, or the crop does not fit it; nothing is written then.
    """
    film, path = job
    content = digest(film)
    try:
        done = EpisodeFile(path)
        if done.attributes["digest"] == content:
            advance(done.attributes["num_film_frames"])
            return
    except EpisodeFileError:
        pass
    sampler = _Sampler(params, film, num_threads, advance)
    side = params.frame_size
    attributes = {"shard": 0, "num_shards": 1, "digest": content}
    with (
        writing_hdf5(path) as file,
        EpisodeWriter(file, None, COMPRESSION, attributes, frame_shape=(side, side, 3), has_actions=False) as writer,
    ):
        writer.append(((block, None) for block in sampler.blocks()), 0)
        if writer.num_appended < 2:
            raise FilmError(f"{film}: a single frame of it would be sampled; leave it out, or raise collect.films.fps")
        writer.finish()
        for name, values in sampler.measures.items():
            file[name] = np.array(values)
        file.attrs.update({"num_film_frames": sampler.num_film_frames, "seconds": sampler.seconds})


class _Sampler:
    """Samples a film and measures each sampled frame against those before it.

    Attributes:
        measures: values of each dataset of the file.
        num_film_frames: number of frames that have been decoded.
        seconds: length of the film.
    """

    def __init__(self, params: CollectParams, film: Path, num_threads: int, advance: Callable[[int], object]):
        self.film, self.fps, self.num_threads, self.advance = film, params.films.fps, num_threads, advance
        self.scaler = FrameScaler(params.films.crop, params.frame_size)
        self.measures: dict[str, list] = {"film_frames": [], "distances": [], "changed": [], "is_still": []}
        self.num_film_frames, self.seconds = 0, 0.0

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the sampled frames in blocks `(n, H, W, 3)`."""
        frames = self._decoded()
        sampled = enumerate(frames) if self.film.is_dir() else sample(frames, self.fps)
        block, last, last_histogram, still = [], None, None, None
        for index, frame in sampled:
            try:
                frame_HWC = self.scaler(frame)
            except FilmError as fault:
                raise FilmError(f"{self.film}: {fault}") from None
            colours = histogram(frame_HWC)
            if last is None:
                distance, changed, is_still, still = 0.0, 0.0, False, frame_HWC
            else:
                distance = histogram_distance(last_histogram, colours)  # pyright: ignore[reportArgumentType]
                changed = float(changed_share(last, frame_HWC))
                is_still = not (changed if still is last else changed_share(still, frame_HWC))  # pyright: ignore[reportArgumentType]
                still = still if is_still else frame_HWC
            for name, value in zip(self.measures, (index, distance, changed, is_still), strict=True):
                self.measures[name].append(value)
            last, last_histogram = frame_HWC, colours
            block.append(frame_HWC)
            if len(block) == BLOCK_FRAMES:
                yield np.stack(block)
                block = []
        if block:
            yield np.stack(block)

    def _decoded(self) -> Iterator[FilmFrame]:
        """Yields the frames of the film, and counts them and their time."""
        first, told = None, 0
        for frame in decode(self.film, self.num_threads):
            first = frame.seconds if first is None else first
            self.num_film_frames += 1
            self.seconds = frame.seconds + frame.duration - first
            yield frame
            if self.num_film_frames == told + BLOCK_FRAMES:
                self.advance(BLOCK_FRAMES)
                told = self.num_film_frames
        self.advance(self.num_film_frames - told)
        if self.film.is_dir():
            self.seconds = self.num_film_frames / self.fps


class SampledFilm:
    """Reader of a sampled film.

    Attributes:
        num_film_frames: number of frames of the film.
        seconds: its length.
        film_frames, distances, changed, is_still: the datasets.
    """

    def __init__(self, path: Path):
        self._file = EpisodeFile(path)
        self.num_film_frames: int = self._file.attributes["num_film_frames"]
        self.seconds: float = self._file.attributes["seconds"]
        with open_hdf5(path) as file:
            self.film_frames: np.ndarray = get_dataset(file, "film_frames")[:]
            self.distances: np.ndarray = get_dataset(file, "distances")[:]
            self.changed: np.ndarray = get_dataset(file, "changed")[:]
            self.is_still: np.ndarray = get_dataset(file, "is_still")[:]

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Frames at ascending indices as `(n, H, W, 3)` uint8."""
        runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
        return np.concatenate([self._file.read(int(run[0]), int(run[-1]) + 1) for run in runs])
