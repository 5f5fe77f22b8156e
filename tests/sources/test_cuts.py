from itertools import pairwise

import numpy as np
import pytest

from genie.sources.cuts import find_cuts, histogram, histogram_distance
from tests.films import moving


def cuts_of(frames):
    histograms = [histogram(frame) for frame in frames]
    distances = [0.0, *(histogram_distance(*pair) for pair in pairwise(histograms))]
    return np.flatnonzero(find_cuts(np.array(distances))).tolist()


def test_a_histogram_adds_up_to_one():
    rng = np.random.default_rng(0)
    one, two = (histogram(rng.integers(low, low + 128, (64, 64, 3), np.uint8)) for low in (0, 128))
    assert one.sum() == pytest.approx(1)
    assert histogram_distance(one, one) == 0
    assert histogram_distance(one, two) == pytest.approx(1)


def test_a_new_scene_is_a_cut_and_motion_is_none():
    assert cuts_of([*moving(20, hue=0), *moving(20, hue=1), *moving(20, hue=4, step=7)]) == [20, 40]
    assert cuts_of(moving(60, step=9)) == []


def test_a_scrolling_picture_is_no_cut():
    ground = np.random.default_rng(0).integers(0, 255, (6, 40, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    assert cuts_of([ground[:, 4 * step : 4 * step + 64] for step in range(60)]) == []


def test_a_flash_is_no_cut():
    frames = moving(30)
    frames[15] = np.full_like(frames[15], 255)
    assert cuts_of(frames) == []


def test_the_first_frame_is_no_cut():
    assert find_cuts(np.zeros(1)).tolist() == [False]
