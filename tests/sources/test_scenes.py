import numpy as np
import pytest

from genie.sources.film_splits import split_films
from genie.sources.films import FilmError
from genie.sources.scenes import find_scenes, pieces_of


def marks(num_frames, *which):
    found = np.zeros(num_frames, bool)
    for part in which:
        found[part] = True
    return found


def scenes(is_cut, is_still, shortest=2, max_still=1.0):
    return find_scenes(is_cut, is_still, shortest=shortest, max_still=max_still)


def test_cuts_end_a_scene_and_short_scenes_are_left_out():
    found = scenes(marks(100, 40, 45), marks(100), shortest=10)
    assert [scene.tolist() for scene in found.scenes] == [list(range(40)), list(range(45, 100))]
    assert (found.num_cuts, found.num_short, found.num_still, found.num_frames) == (2, 5, 0, 95)


def test_still_stretches_are_kept_up_to_the_share():
    is_still = marks(101, slice(1, 51))
    assert scenes(marks(101), is_still, max_still=0.5).num_still == 0
    assert scenes(marks(101), is_still, max_still=0.2).num_frames == 1 + 50 + 12


def test_the_longest_still_stretches_are_shortened_and_keep_their_ends():
    # 10 moving transitions; stretches of 2, 6 and 30.
    is_still = marks(49, slice(3, 5), slice(8, 14), slice(17, 47))
    found = scenes(marks(49), is_still, max_still=0.5)
    [scene] = found.scenes
    assert found.num_still == 38 - 10
    # All frames of a stretch, with the one before it, look the same: as many transitions as frames, less one.
    kept = [np.isin(np.arange(first - 1, stop), scene).sum() - 1 for first, stop in ((3, 5), (8, 14), (17, 47))]
    assert kept == [2, 4, 4]
    assert set(range(43, 49)) <= set(scene.tolist())


def test_of_a_still_film_nothing_is_left():
    found = scenes(marks(50), marks(50, slice(1, None)), max_still=0.5)
    assert (found.scenes, found.num_still, found.num_short) == ([], 49, 1)


def test_a_stretch_at_the_start_of_a_scene_does_not_remove_the_cut():
    found = scenes(marks(40, 20), marks(40, slice(21, 31)), max_still=0.0)
    assert [len(scene) for scene in found.scenes] == [20, 10]
    assert found.scenes[1][0] == 30


def test_every_frame_is_kept_short_or_still():
    rng = np.random.default_rng(0)
    for _ in range(50):
        is_cut, is_still = rng.random(200) < 0.05, rng.random(200) < 0.6
        is_cut[0] = is_still[0] = False
        max_still = float(rng.choice([0, 0.1, 0.5, 0.9]))
        found = scenes(is_cut, is_still & ~is_cut, shortest=5, max_still=max_still)
        assert found.num_frames + found.num_still + found.num_short == 200
        kept = np.concatenate([*found.scenes, []])
        assert np.all(np.diff(kept) > 0)


def test_pieces_lose_nothing():
    for length in (2, 255, 256, 257, 511, 512, 513, 1000):
        pieces = list(pieces_of(np.arange(length), 256))
        np.testing.assert_array_equal(np.concatenate(pieces), np.arange(length))
        assert len(pieces) == -(-length // 256)
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def films_of(*lengths):
    return [[np.arange(length)] if length else [] for length in lengths]


def test_whole_films_are_held_out_of_three_or_more():
    lengths = (10, 20, 90, 30, 40, 0, 50, 60, 70, 80, 15)
    splits, again, other = (split_films(films_of(*lengths), 0.2, seed) for seed in (0, 0, 1))
    films = {split: {film for film, _ in own} for split, own in splits.items()}
    assert {split: len(own) for split, own in films.items()} == {"train": 6, "val": 2, "test": 2}
    assert set.union(*films.values()) == set(range(11)) - {5}
    assert 2 in films["train"], "the longest"
    chosen = [[film for film, _ in own["test"]] for own in (splits, again, other)]
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize("held_out", [0.01, 0.3, 0.49])
@pytest.mark.parametrize("count", range(3, 12))
def test_each_split_gets_a_film(count, held_out):
    splits = split_films(films_of(*range(10, 10 + count)), held_out, seed=1)
    assert all(splits.values())


@pytest.mark.parametrize("lengths", [(100,), (100, 40)])
def test_of_one_or_two_films_the_last_parts_are_held_out(lengths):
    splits = split_films(films_of(*lengths), held_out=0.1, seed=0)
    for film, length in enumerate(lengths):
        parts = [np.concatenate([frames for own, frames in splits[split] if own == film]) for split in splits]
        np.testing.assert_array_equal(np.concatenate(parts), np.arange(length))
        assert [len(part) for part in parts[1:]] == [length // 10] * 2


def test_too_little_film():
    with pytest.raises(FilmError, match=r"^collect\.films: too little film for the split train"):
        split_films(films_of(4), held_out=0.1, seed=0)
    with pytest.raises(FilmError, match="import more or longer films"):
        split_films([[]], held_out=0.1, seed=0)
