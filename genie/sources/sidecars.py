"""Sidecars: the true actions of a film, in `FILM.actions.csv` beside it.

The header is `frame,action`, and each frame of the film has one row: its index, from 0, and the name of the action that
is taken there.
"""

import csv
from collections import Counter
from pathlib import Path

import numpy as np

from genie.core.actions import NO_ACTION
from genie.sources.films import FilmError

HEADER = ["frame", "action"]
MAX_ACTIONS = NO_ACTION - 1


def read_sidecar(path: Path) -> list[str]:
    """Name of the action at each frame.

    Raises:
        FilmError: it is not such a table, or a frame is missing or there twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _fault(path, f"not a table of text ({error})") from None
    if not rows or [cell.strip() for cell in rows[0]] != HEADER:
        raise _fault(path, f"the header is {','.join(rows[0]) if rows else 'missing'!r}, not 'frame,action'")
    names = []
    for line, row in enumerate(rows[1:]):
        if len(row) != 2 or row[0].strip() != str(line):
            raise _fault(path, f"row {line + 1} after the header is {','.join(row)!r}, not frame {line} and its action")
        if not row[1].strip():
            raise _fault(path, f"frame {line} has no action")
        names.append(row[1].strip())
    return names


def check_sidecar(path: Path, names: list[str], film: str, num_frames: int) -> None:
    """Checks that a sidecar has as many rows as its film has frames.

    Raises:
        FilmError: it has fewer or more.
    """
    if len(names) != num_frames:
        raise _fault(path, f"{len(names)} rows, but {film} has {num_frames} frames")


def action_names(sidecars: list[list[str]]) -> tuple[str, ...]:
    """Names of all actions, in the order in which they first appear.

    Raises:
        FilmError: there are too many.
    """
    names = tuple(dict.fromkeys(name for sidecar in sidecars for name in sidecar))
    if len(names) > MAX_ACTIONS:
        raise FilmError(f"sidecars: {len(names)} different actions, of which at most {MAX_ACTIONS} are told apart")
    return names


def label(sidecar: list[str], film_frames: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """Action of each sampled frame: the most frequent one from it up to before the next; of equals, the first.

    Args:
        sidecar: name of the action at each frame of the film.
        film_frames: `(N,)` indices of the sampled frames in the film.
        names: names of all actions.

    Returns:
        `(N,)` uint8 indices of `names`.
    """
    stops = [*film_frames[1:].tolist(), len(sidecar)]
    return np.array(
        [
            names.index(Counter(sidecar[start:stop]).most_common(1)[0][0])
            for start, stop in zip(film_frames.tolist(), stops, strict=True)
        ],
        np.uint8,
    )


def _fault(path: Path, cause: str) -> FilmError:
    return FilmError(f"{path}: {cause}; mend it, or remove it to go without true actions")
