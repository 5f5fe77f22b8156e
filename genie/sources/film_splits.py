"""Splits of films: whole films are held out if there are at least three, otherwise the last parts of each.

Legend: `N` sampled frames of a film.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from genie.data.shards import SPLITS
from genie.sources.films import FilmError

MIN_FILMS = 3  # of which whole films can be held out
MIN_FRAMES = 2  # of an episode: one transition

Episodes = list[tuple[int, np.ndarray]]  # index of the film, indices of its frames


def split_films(films: Sequence[Sequence[np.ndarray]], held_out: float, seed: int) -> dict[str, Episodes]:
    """Divides the scenes of films among the splits.

    Of three films or more, the share `held_out`, and at least one, is the validation split, and as many are the test
    split. They are drawn at random; the film with the most frames is always trained on. Of one or two films, the last
    frames of each are the test split and those before them the validation split; a scene is cut in two there.

    Args:
        films: the scenes of each film, as indices of its sampled frames; a film without scenes is in no split.
        held_out: share of val and of test.
        seed: seed of the choice of films.

    Raises:
        FilmError: there is too little film for three splits.
    """
    splits: dict[str, Episodes] = {split: [] for split in SPLITS}
    used = [film for film, scenes in enumerate(films) if scenes]
    if len(used) >= MIN_FILMS:
        for film, split in _choose(used, films, held_out, seed).items():
            splits[split] += [(film, scene) for scene in films[film]]
    else:
        for film in used:
            for split, scenes in zip(SPLITS, _parts(films[film], held_out), strict=True):
                splits[split] += [(film, scene) for scene in scenes]
    for split, episodes in splits.items():
        if not episodes:
            raise FilmError(
                f"collect.films: too little film for the split {split} beside the others; import more or longer films, "
                "or raise collect.films.fps or collect.films.held_out"
            )
    return splits


def _choose(used: list[int], films: Sequence[Sequence[np.ndarray]], held_out: float, seed: int) -> dict[int, str]:
    count = min(max(1, round(held_out * len(used))), (len(used) - 1) // 2)
    longest = max(used, key=lambda film: sum(map(len, films[film])))
    others = [film for film in used if film != longest]
    drawn = [others[index] for index in np.random.default_rng(seed).permutation(len(others))[: 2 * count]]
    chosen = {film: "val" if place < count else "test" for place, film in enumerate(drawn)}
    return {film: chosen.get(film, "train") for film in used}


def _parts(scenes: Sequence[np.ndarray], held_out: float) -> list[list[np.ndarray]]:
    """Scenes of the first part, the second last and the last part of a film, by its kept frames."""
    num_frames = sum(map(len, scenes))
    length = max(MIN_FRAMES, round(held_out * num_frames))
    bounds = [0, num_frames - 2 * length, num_frames - length, num_frames]
    parts: list[list[np.ndarray]] = [[], [], []]
    start = 0
    for scene in scenes:
        for part, (first, last) in enumerate(pairwise(bounds)):
            piece = scene[max(0, first - start) : max(0, last - start)]
            if len(piece) >= MIN_FRAMES:
                parts[part].append(piece)
        start += len(scene)
    return parts
