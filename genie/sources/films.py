"""Films: files that FFmpeg reads or folders of pictures, and the frames that are decoded from them."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.video.stream import VideoStream

FILMS_FOLDER = Path("data/films")
SIDECAR_SUFFIX = ".actions.csv"
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
# Formats of which the start of the file says how long the film is, so that one that was cut off is found.
FORMATS_WITH_DURATION = ("mov", "matroska", "avi", "asf", "flv")
BLOCK_BYTES = 2**20


class FilmError(ValueError):
    """A film, or a folder of films, cannot be used; the message names it, the cause and the fix."""


@dataclass(frozen=True)
class FilmFrame:
    """A decoded frame of a film.

    Attributes:
        picture: its pixels, in the film's own format and as stored: not yet rotated.
        seconds: when it appears; of a folder of pictures, which has no times, its index.
        duration: seconds for which it is shown.
        pixel_aspect: width of a pixel over its height.
    """

    picture: av.VideoFrame
    seconds: float
    duration: float
    pixel_aspect: Fraction


def find_films(folder: Path) -> list[Path]:
    """All films of a folder, sorted by name: its files and folders, without sidecars and hidden ones.

    Raises:
        FilmError: two films differ only by their suffixes, so that they would have the same sidecar.
    """
    films = sorted(
        (path for path in folder.glob("*") if not path.name.startswith(".") and not path.name.endswith(SIDECAR_SUFFIX)),
        key=lambda path: path.name,
    )
    seen: dict[Path, Path] = {}
    for film in films:
        other = seen.setdefault(sidecar_path(film), film)
        if other != film:
            raise FilmError(f"{film}: {other.name} has the same name but for its suffix; rename one of them")
    return films


def find_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, in natural order: `2.png` comes before `10.png`."""
    pictures = (path for path in folder.glob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    return sorted((path for path in pictures if not path.name.startswith(".")), key=_natural_order)


def sidecar_path(film: Path) -> Path:
    """Path of a film's sidecar: `walk.actions.csv` beside `walk.mp4`."""
    return film.with_name((film.name if film.is_dir() else film.stem) + SIDECAR_SUFFIX)


def digest(film: Path) -> str:
    """SHA-256 of a film's bytes; of a folder, of the names and bytes of its pictures."""
    total = hashlib.sha256()
    for path in find_pictures(film) if film.is_dir() else [film]:
        own = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                own.update(block)
        total.update(f"{path.name if film.is_dir() else ''}\0{own.hexdigest()}\n".encode())
    return total.hexdigest()


def expected_frames(film: Path) -> int:
    """Number of frames that a film says it has, for a progress bar; 0 if it does not say, or is broken."""
    if film.is_dir():
        return len(find_pictures(film))
    try:
        with av.open(str(film), metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream):
                return 0
            seconds = (container.duration or 0) / av.time_base
            return stream.frames or round(seconds * float(stream.average_rate or 0))
    except (av.FFmpegError, OSError):
        return 0


def decode(film: Path, num_threads: int = 0) -> Iterator[FilmFrame]:
    """Yields the frames of a film in the order of display.

    The frames are the same for any number of threads.

    Args:
        film: file, or folder of pictures.
        num_threads: threads of the decoder; 0 means one per core.

    Raises:
        FilmError: the film is missing, no film, empty, broken or cut off; frames before the fault have been yielded.
    """
    if film.is_symlink() and not film.exists():
        raise FilmError(f"{film}: a link to {film.readlink()}, which does not exist; remove it or mend it")
    if not film.exists():
        raise FilmError(f"{film}: no such film; check its name")
    if film.is_dir():
        yield from _decode_pictures(film)
    else:
        yield from _decode_file(film, num_threads)


def _decode_pictures(folder: Path) -> Iterator[FilmFrame]:
    pictures = find_pictures(folder)
    if not pictures:
        raise FilmError(f"{folder}: neither films nor pictures in it; name a folder that holds some")
    for index, path in enumerate(pictures):
        frame = next(_decode_file(path, num_threads=1), None)
        assert frame is not None, "a file without frames is an error"
        yield FilmFrame(frame.picture, float(index), 1.0, frame.pixel_aspect)


def _decode_file(path: Path, num_threads: int) -> Iterator[FilmFrame]:
    with _faults(path), av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.best("video")
        if stream is None:
            raise FilmError(f"{path}: no pictures in it, only sound or text; leave it out")
        stream = cast(VideoStream, stream)
        stream.thread_type, stream.thread_count = "AUTO", num_threads  # pyright: ignore[reportAttributeAccessIssue]
        aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
        rate = float(stream.average_rate or 25)
        tick = float(stream.time_base or Fraction(1, 1000))  # seconds of a unit of its timestamps
        ends: dict[int, int] = {}  # of each stream's last packet, in units of its timestamps
        index = 0
        for packet in container.demux():
            if packet.pts is not None:
                end = packet.pts + (packet.duration or 0)
                ends[packet.stream_index] = max(end, ends.get(packet.stream_index, end))
            if packet.stream_index != stream.index:
                continue
            try:
                pictures = packet.decode()
            except av.InvalidDataError as error:
                if index == 0:  # a recording may start between two keyframes
                    continue
                raise _broken(path, index, error.strerror) from None
            for picture in cast(list[av.VideoFrame], pictures):
                if picture.is_corrupt:
                    raise _broken(path, index, "frame is damaged")
                seconds = index / rate if picture.pts is None else picture.pts * tick
                yield FilmFrame(picture, seconds, (picture.duration or 0) * tick or 1 / rate, aspect)
                index += 1
        if index == 0:
            raise FilmError(f"{path}: no frame of it can be decoded; make it anew or leave it out")
        missing = _missing_seconds(container, stream, ends)
        if missing > 0.5:
            raise FilmError(
                f"{path}: cut off: its last {missing:.1f} seconds are missing; copy or record it again, or keep what "
                "is there with `ffmpeg -i FILM -c copy NEW`"
            )


def _missing_seconds(container, stream: VideoStream, ends: dict[int, int]) -> float:
    """Seconds that the film says to have beyond its last packet; less than a fiftieth of it is taken as none."""
    if not container.format.name.startswith(FORMATS_WITH_DURATION):
        return 0.0
    seconds = {index: float(end * container.streams[index].time_base) for index, end in ends.items()}
    if stream.duration is not None and stream.time_base is not None:
        declared = float(stream.duration * stream.time_base)
        end = seconds.get(stream.index, 0.0) - float((stream.start_time or 0) * stream.time_base)
    else:
        declared = (container.duration or 0) / av.time_base
        end = max(seconds.values(), default=0.0) - (container.start_time or 0) / av.time_base
    missing = declared - end
    return missing if missing > declared / 50 else 0.0


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise FilmError(
            f"{path}: FFmpeg cannot read it ({error.strerror}): it is no film, or was cut off; make it anew or leave "
            "it out"
        ) from None


def _broken(path: Path, index: int, cause: str | None) -> FilmError:
    return FilmError(
        f"{path}: broken after frame {index} ({cause}); copy or record it again, or keep what can be read with "
        "`ffmpeg -i FILM NEW`"
    )


def _natural_order(path: Path) -> list:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", path.name)]
