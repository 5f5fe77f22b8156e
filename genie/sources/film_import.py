"""Takes films into the project: checks them by decoding them whole, then links or copies them into `data/films`."""

import errno
import filecmp
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genie.core.files import replacing, replacing_folder
from genie.core.params import CollectParams
from genie.distributed.progress import progress
from genie.sources.films import (
    FILMS_FOLDER,
    FilmError,
    decode,
    expected_frames,
    find_films,
    find_pictures,
    sidecar_path,
)
from genie.sources.sidecars import check_sidecar, read_sidecar

# Of films, by which they are found in a folder. A file that is named itself can have any suffix.
FILM_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv",
    ".ogv", ".3gp", ".vob", ".nut", ".y4m", ".apng",
)  # fmt: skip
COPY_BYTES = 2**22
TOLD_EVERY = 64  # frames


@dataclass(frozen=True)
class ImportedFilm:
    """What the check of a film found.

    Attributes:
        path: where it was.
        num_frames: number of its frames.
        seconds: its length; None for a folder of pictures.
        size: width and height of its frames as stored, in pixels.
        has_sidecar: whether its true actions are known.
    """

    path: Path
    num_frames: int
    seconds: float | None
    size: tuple[int, int]
    has_sidecar: bool

    def __str__(self) -> str:
        length = ""
        if self.seconds:
            length = f", {self.seconds / 60:.1f} min at {self.num_frames / self.seconds:.4g} fps"
        actions = ", with true actions" if self.has_sidecar else ""
        return f"{self.path.name}: {self.num_frames} frames of {self.size[0]}x{self.size[1]}{length}{actions}"


def import_films(
    paths: Sequence[Path], folder: Path = FILMS_FOLDER, *, skip_broken: bool = False, num_threads: int = 0
) -> list[ImportedFilm]:
    """Puts films and their sidecars into a folder.

    Nothing is imported unless all of them are whole. A film that is there already is not imported again.

    Args:
        paths: films, folders of films or folders of pictures.
        skip_broken: whether films that are broken are left out, each named in a line on stderr.
        num_threads: threads of the decoder; 0 means one per core.

    Raises:
        FilmError: a film is missing or broken, or another one of its name is there.
        OSError: a film cannot be copied; those before it are whole and stay.
    """
    films = _expand(paths)
    _check_names(films, folder)
    checked, faults = [], []
    with progress(name="check", total=sum(map(expected_frames, films)) or None, unit="frame") as bar:
        for film in films:
            try:
                checked.append(_check(film, num_threads, bar.update))
            except FilmError as fault:
                faults.append(str(fault))
    _report(faults, len(films), skip_broken)
    for film in checked:
        _put(film.path, folder / film.path.name)
        if film.has_sidecar:
            with replacing(sidecar_path(folder / film.path.name)) as temporary:
                shutil.copyfile(sidecar_path(film.path), temporary)
    return checked


def summarise_import(films: Sequence[ImportedFilm], params: CollectParams) -> str:
    """What was imported, a line a film, and the commands that come next."""
    seconds = sum(film.num_frames / params.films.fps if film.seconds is None else film.seconds for film in films)
    return "\n".join(
        [
            *map(str, films),
            f"{len(films)} film{'s' if len(films) > 1 else ''}, {seconds / 3600:.2f} hours, in {FILMS_FOLDER}; "
            "params.yaml has collect.source: films",
            "next: `genie scale films && dvc repro` trains on them; `genie play --world data/models` plays the world",
        ]
    )


def _expand(paths: Sequence[Path]) -> list[Path]:
    """The films that paths name, without repetitions: a folder of films stands for all of them."""
    films: dict[Path, None] = {}
    for path in paths:
        named = Path(os.path.abspath(path))  # the name as given: a link keeps its own
        inside = [path for path in sorted(named.glob("*")) if path.suffix.lower() in FILM_SUFFIXES]
        films.update(dict.fromkeys([path for path in inside if not path.name.startswith(".")] or [named]))
    return list(films)


def _check_names(films: Sequence[Path], folder: Path) -> None:
    there = {sidecar_path(film): film for film in find_films(folder)}
    for film in films:
        goal = folder / film.name
        other = there.setdefault(sidecar_path(goal) if not film.is_dir() else folder / sidecar_path(film).name, film)
        if other != film and not (other == goal and film.exists() and _is_same(film, goal)):
            raise FilmError(f"{film}: another film of this name is {other}; rename one of them")


def _is_same(film: Path, other: Path) -> bool:
    """Whether two films, or folders of pictures, hold the same bytes."""
    if not film.is_dir() or not other.is_dir():
        return film.is_file() and other.is_file() and filecmp.cmp(film, other, shallow=False)
    pictures, others = find_pictures(film), find_pictures(other)
    return [path.name for path in pictures] == [path.name for path in others] and all(
        filecmp.cmp(*pair, shallow=False) for pair in zip(pictures, others, strict=True)
    )


def _check(film: Path, num_threads: int, advance) -> ImportedFilm:
    num_frames, first, end, size = 0, 0.0, 0.0, (0, 0)
    for frame in decode(film, num_threads):
        if num_frames == 0:
            first, size = frame.seconds, (frame.picture.width, frame.picture.height)
        end = frame.seconds + frame.duration
        num_frames += 1
        if num_frames % TOLD_EVERY == 0:
            advance(TOLD_EVERY)
    advance(num_frames % TOLD_EVERY)
    if num_frames < 2:
        raise FilmError(f"{film}: a single frame, in which nothing can move; leave it out")
    sidecar = sidecar_path(film)
    if sidecar.is_file():
        check_sidecar(sidecar, read_sidecar(sidecar), film.name, num_frames)
    return ImportedFilm(film, num_frames, None if film.is_dir() else end - first, size, sidecar.is_file())


def _report(faults: Sequence[str], num_films: int, skip_broken: bool) -> None:
    """Names the broken films, and raises unless they are to be left out and others remain."""
    if not faults:
        return
    if skip_broken and len(faults) < num_films:
        for fault in faults:
            print(f"left out: {fault}", file=sys.stderr)
        return
    hint = "; --skip-broken leaves out those that are broken" if len(faults) < num_films else ""
    if len(faults) == 1:
        raise FilmError(f"{faults[0]}. Nothing was imported{hint}")
    for fault in faults:
        print(fault, file=sys.stderr)
    raise FilmError(f"{len(faults)} of {num_films} films are broken, as said above. Nothing was imported{hint}")


def _put(film: Path, goal: Path) -> None:
    """Links or copies a film, or a folder's pictures, so that it appears whole."""
    if goal.exists():
        return  # the same, as has been checked
    if film.is_dir():
        with replacing_folder(goal) as temporary:
            for picture in find_pictures(film):
                _link_or_copy(picture, temporary / picture.name)
        return
    with replacing(goal) as temporary:
        _link_or_copy(film, temporary)


def _link_or_copy(source: Path, goal: Path) -> None:
    try:
        os.link(source.resolve(), goal)
        return
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
    with (
        source.open("rb") as reading,
        goal.open("wb") as writing,
        progress(name=f"copy {source.name}", total=source.stat().st_size, unit="B") as bar,
    ):
        while block := reading.read(COPY_BYTES):
            bar.update(writing.write(block))
